//! Value parsers: sizes, rates, durations and shares.

use std::time::Duration;

use parse_size::parse_size;

/// `100MiB`, `4K`, `512`: K, M, G, T alone are powers of 1024, as dd and fallocate read them.
pub fn size(text: &str) -> Result<u64, String> {
    let bare_unit = text.ends_with(|last: char| "kKmMgGtTpP".contains(last));
    let text = if bare_unit { format!("{text}iB") } else { text.to_string() };
    parse_size(&text).map_err(|error| format!("{error}; write bytes, or a number with a unit as in 100MiB"))
}

/// A size above zero.
pub fn some_size(text: &str) -> Result<u64, String> {
    match size(text)? {
        0 => Err("0 bytes is too small; omit the option for the default".into()),
        bytes => Ok(bytes),
    }
}

/// `200MiB/s`, or `0`
pub fn size_per_second(text: &str) -> Result<u64, String> {
    size(text.strip_suffix("/s").unwrap_or(text))
}

/// `200MiB/s`
pub fn rate(text: &str) -> Result<u64, String> {
    match size_per_second(text)? {
        0 => Err("a rate of 0 would never finish; omit the option for no limit".into()),
        rate => Ok(rate),
    }
}

/// `90`, `90s`, `30m`, `2h`: seconds where no unit is given.
pub fn duration(text: &str) -> Result<Duration, String> {
    let (digits, unit) = match text.strip_suffix(['s', 'm', 'h']) {
        Some(digits) => (digits, text.as_bytes()[digits.len()]),
        None => (text, b's'),
    };
    let seconds = match unit {
        b'm' => 60,
        b'h' => 3600,
        _ => 1,
    };
    let number = digits.parse::<u32>().ok().filter(|number| *number > 0);
    let number = number.ok_or("write seconds, or a number with s, m or h, as in 30m")?;
    Ok(Duration::from_secs(u64::from(number) * seconds))
}

/// What others may lose: `5%`.
pub fn loss(text: &str) -> Result<u8, String> {
    let percent = text.strip_suffix('%').and_then(|number| number.parse().ok());
    percent.filter(|percent| (1..=50).contains(percent)).ok_or_else(|| "write 1% to 50%".into())
}

/// A share between 0 and 1, `0.999` or `99.9%`, in parts per million.
pub fn share_ppm(text: &str) -> Result<u64, String> {
    share(text, 1e6)
}

/// The same in parts per billion.
pub fn share_ppb(text: &str) -> Result<u64, String> {
    share(text, 1e9)
}

fn share(text: &str, parts: f64) -> Result<u64, String> {
    let (number, unit) = match text.strip_suffix('%') {
        Some(number) => (number, parts / 100.0),
        None => (text, parts),
    };
    let share = number.trim().parse::<f64>().map_or(f64::NAN, |number| (number * unit).round());
    if share >= 1.0 && share < parts {
        return Ok(share as u64);
    }
    Err("write a share above 0 and below 1, as 0.999 or 99.9%".into())
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn sizes_are_read_as_the_core_tools_read_them() {
        for (text, bytes) in [
            ("512", 512),
            ("4K", 4096),
            ("100MiB", 100 << 20),
            ("1MB", 1_000_000),
            ("2g", 2 << 30),
            ("1.5GiB", 3 << 29),
        ] {
            assert_eq!(size(text), Ok(bytes), "{text}");
        }
        for wrong in ["", "x", "-1", "1 parsec", "99999999999T"] {
            assert!(size(wrong).is_err(), "{wrong}");
        }
        assert!(some_size("0").is_err());
    }

    #[test]
    fn a_share_lies_between_none_and_all() {
        assert_eq!((share_ppm("0.999"), share_ppm("99.9%")), (Ok(999_000), Ok(999_000)));
        assert_eq!(share_ppb("0.0001"), Ok(100_000));
        for wrong in ["0", "1", "1.5", "100%", "-0.1", "NaN", "inf", "", "%", "1e-12"] {
            assert!(share_ppm(wrong).is_err(), "{wrong}");
        }
    }

    #[test]
    fn a_time_has_a_unit() {
        for (text, seconds) in [("90", 90), ("90s", 90), ("30m", 1800), ("2h", 7200)] {
            assert_eq!(duration(text), Ok(Duration::from_secs(seconds)), "{text}");
        }
        for wrong in ["", "0", "m", "-1s", "1d", "1.5m"] {
            assert!(duration(wrong).is_err(), "{wrong}");
        }
    }

    #[test]
    fn a_rate_is_a_size_a_second() {
        assert_eq!(rate("200MiB/s"), Ok(200 << 20));
        assert_eq!(rate("1M"), Ok(1 << 20));
        assert!(rate("0").is_err() && rate("fast").is_err() && rate("0/s").is_err());
    }
}
