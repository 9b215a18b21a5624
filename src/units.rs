//! Human-readable bytes, rates and shares.

use unit_prefix::NumberPrefix;

/// `4.00 GiB`
pub fn bytes(count: u64) -> String {
    match NumberPrefix::binary(count as f64) {
        NumberPrefix::Standalone(_) => format!("{count} B"),
        NumberPrefix::Prefixed(prefix, number) => format!("{number:.2} {prefix}B"),
    }
}

/// `3.41 GB/s`
#[cfg(feature = "cli")]
pub fn rate(bytes: u64, milliseconds: u64) -> String {
    let per_second = bytes as f64 * 1000.0 / milliseconds.max(1) as f64;
    match per_second {
        fast if fast >= 1e9 => format!("{:.2} GB/s", fast / 1e9),
        slow => format!("{:.1} MB/s", slow / 1e6),
    }
}

/// A part of a whole in percent: all of it, and nothing of it, only where that is so.
pub fn share(part: u64, whole: u64) -> String {
    match u128::from(part) * 100 / u128::from(whole.max(1)) {
        0 if part > 0 => "less than 1 %".into(),
        percent => format!("{percent} %"),
    }
}

/// A share in parts per billion, as a percentage that is never rounded down.
pub fn percent(per_billion: u64) -> String {
    let hundred_thousandths = per_billion.div_ceil(100);
    let text = format!("{}.{:05}", hundred_thousandths / 100_000, hundred_thousandths % 100_000);
    format!("{} %", text.trim_end_matches('0').trim_end_matches('.'))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn percentages_are_never_rounded_down() {
        assert_eq!(percent(999_404), "0.09995 %");
        assert_eq!(percent(990_000_000), "99 %");
        assert_eq!(percent(999_000_000), "99.9 %");
        assert_eq!(percent(1), "0.00001 %");
    }

    #[test]
    fn bytes_have_binary_units() {
        assert_eq!([0, 512, 4096, 3 << 29].map(bytes), ["0 B", "512 B", "4.00 KiB", "1.50 GiB"]);
    }
}
