//! Device-mapper's tables: which ranges of which devices a mapping consists of, and what each kind of
//! target does with a write (Documentation/admin-guide/device-mapper). The kinds are an allow-list:
//! any other is unknown, and shares all bytes of each device that its line names.

use super::super::DeviceNumber;
use super::super::kernel::sysfs::SECTOR_BYTES;
use super::super::layer::Effect;
use super::Share;
use crate::io::DmTarget;
use crate::range::Extent;

/// A range of a lower device.
#[derive(Clone, PartialEq, Eq, Debug)]
pub(super) struct Lower {
    pub number: DeviceNumber,
    /// `None` if the line names no range: then it is anywhere in the device.
    pub start: Option<u64>,
    pub share: Share,
}

/// What one line of a table says.
#[derive(Clone, PartialEq, Eq, Debug)]
pub(super) struct TableLine {
    /// Which bytes of the mapping.
    pub at: Extent,
    pub lower: Vec<Lower>,
    pub effect: Effect,
    pub limitation: Option<String>,
}

/// What has to be known of the devices that a line names.
#[derive(Clone, Copy)]
pub(super) struct Lookup<'a> {
    /// How a device is called.
    pub name_of: &'a dyn Fn(DeviceNumber) -> String,
    /// Whether nothing but errors lies below it: LVM puts that in place of a leg that is missing.
    pub is_missing: &'a dyn Fn(DeviceNumber) -> bool,
}

/// Reads one line of a mapping's table, with the same line of its status.
pub(super) fn target(line: &DmTarget, status: &str, map: &str, lookup: Lookup) -> TableLine {
    let words: Vec<&str> = line.line.split_whitespace().collect();
    let at = Extent {
        start: line.start.saturating_mul(SECTOR_BYTES),
        end: line.start.saturating_add(line.sectors).saturating_mul(SECTOR_BYTES),
    };
    let known = known(&line.kind, &words, status, map, lookup);
    let (lower, effect, limitation) = known.unwrap_or_else(|| (all(&words), Effect::Unknown, None));
    TableLine { at, lower, effect, limitation }
}

type Known = (Vec<Lower>, Effect, Option<String>);

fn number(word: &str) -> Option<DeviceNumber> {
    word.parse().ok()
}

fn exact(device: &str, sector: &str) -> Option<Lower> {
    let start = sector.parse::<u64>().ok()?.checked_mul(SECTOR_BYTES)?;
    Some(Lower { number: number(device)?, start: Some(start), share: Share::Exact })
}

fn somewhere(device: &str, share: Share) -> Option<Lower> {
    Some(Lower { number: number(device)?, start: None, share })
}

/// Every device that a line names.
fn all(words: &[&str]) -> Vec<Lower> {
    words.iter().filter_map(|word| somewhere(word, Share::Spread)).collect()
}

/// `None` for a kind that is not known, or whose line does not read as it should.
fn known(kind: &str, words: &[&str], status: &str, map: &str, lookup: Lookup) -> Option<Known> {
    let passes = |lower: Vec<Lower>| Some((lower, Effect::PassesThrough, None));
    let word = |index: usize| words.get(index).copied();
    match kind {
        "zero" | "error" => passes(Vec::new()),
        "linear" => passes(vec![exact(word(0)?, word(1)?)?]),
        "flakey" => passes(vec![exact(word(0)?, word(1)?)?]),
        "delay" => {
            passes(words.chunks(3).map(|each| exact(each.first()?, each.get(1)?)).collect::<Option<_>>()?)
        }
        "crypt" => passes(vec![exact(word(3)?, word(4)?)?]),
        "striped" => {
            let stripes = words.get(2..)?.chunks(2).map(|each| somewhere(each.first()?, Share::Spread));
            passes(stripes.collect::<Option<_>>()?)
        }
        "snapshot-origin" => passes(vec![exact(word(0)?, "0")?]),
        "snapshot" => {
            let lower = vec![somewhere(word(0)?, Share::Reads)?, somewhere(word(1)?, Share::Spread)?];
            let limitation = "a snapshot: only its own store is overwritten, and what it shares with its origin \
                              is as it was there";
            Some((lower, Effect::PassesThrough, Some(limitation.into())))
        }
        "multipath" => {
            let paths = words.iter().filter(|word| number(word).is_some());
            passes(paths.map(|path| exact(path, "0")).collect::<Option<_>>()?)
        }
        "thin-pool" => passes(vec![exact(word(1)?, "0")?, somewhere(word(0)?, Share::Spread)?]),
        "thin" => thin(words, map, lookup),
        "era" => passes(vec![exact(word(1)?, "0")?, somewhere(word(0)?, Share::Spread)?]),
        "integrity" | "verity" => passes(all(words)),
        "cache" => cache(words, map, lookup),
        "writecache" => {
            let lower = vec![exact(word(1)?, "0")?, somewhere(word(2)?, Share::Spread)?];
            let on = (lookup.name_of)(number(word(1)?)?);
            let drain = format!(
                "write the cache back and take it away: lvconvert --splitcache, or dmsetup message {map} 0 flush"
            );
            Some((lower, Effect::KeepsCopies { on, drain }, None))
        }
        "clone" => {
            let lower = vec![
                exact(word(1)?, "0")?,
                somewhere(word(0)?, Share::Spread)?,
                somewhere(word(2)?, Share::Reads)?,
            ];
            let on = (lookup.name_of)(number(word(2)?)?);
            let drain = format!("end the clone, and wipe its source {on} too: dmsetup remove {map}");
            Some((lower, Effect::KeepsCopies { on, drain }, None))
        }
        "mirror" => mirror(words, status, lookup),
        "raid" => raid(words, status, map, lookup),
        _ => None,
    }
}

/// `pool id [external origin]`
fn thin(words: &[&str], map: &str, lookup: Lookup) -> Option<Known> {
    let mut lower = vec![somewhere(words.first()?, Share::Allocated)?];
    let Some(origin) = words.get(2) else { return Some((lower, Effect::PassesThrough, None)) };
    lower.push(somewhere(origin, Share::Reads)?);
    let on = (lookup.name_of)(number(origin)?);
    let drain = format!(
        "what is discarded of {map} reads as its external origin again: remove the volume, and wipe {on} too"
    );
    Some((lower, Effect::KeepsCopies { on, drain }, None))
}

/// `metadata cache origin block #features feature…`
fn cache(words: &[&str], map: &str, lookup: Lookup) -> Option<Known> {
    let (origin, store) = (words.get(2)?, words.get(1)?);
    let lower = vec![
        exact(origin, "0")?,
        somewhere(words.first()?, Share::Spread)?,
        somewhere(store, Share::Spread)?,
    ];
    let count: usize = words.get(4)?.parse().ok()?;
    let features = words.get(5..5_usize.checked_add(count)?)?;
    if features.contains(&"writethrough") || features.contains(&"passthrough") {
        let store = (lookup.name_of)(number(store)?);
        let limitation =
            format!("a cache that writes through: blocks that it once held may be left in its store {store}");
        return Some((lower, Effect::PassesThrough, Some(limitation)));
    }
    let on = (lookup.name_of)(number(origin)?);
    let drain = format!("write the cache back and take it away: lvconvert --uncache (dm name {map})");
    Some((lower, Effect::KeepsCopies { on, drain }, None))
}

/// `log #arguments argument… #legs (device offset)…`; its status `#legs device… … health`, a letter
/// for each leg: A alive, D a failed write, S out of step, R a failed read.
fn mirror(words: &[&str], status: &str, lookup: Lookup) -> Option<Known> {
    let arguments: usize = words.get(1)?.parse().ok()?;
    let (log, rest) = words.split_at_checked(2_usize.checked_add(arguments)?)?;
    let count: usize = rest.first()?.parse().ok()?;
    let legs: Vec<&[&str]> = rest.get(1..)?.chunks(2).take(count).collect();
    let mut lower = legs.iter().map(|leg| exact(leg.first()?, leg.get(1)?)).collect::<Option<Vec<_>>>()?;
    lower.extend(all(log));
    let letters = |word: &&str| word.len() == count && word.chars().all(|letter| "ADFSRU".contains(letter));
    let health = status.split_whitespace().skip(1 + count).find(letters)?;
    let failed = health.chars().zip(&legs).find(|(letter, _)| "DF".contains(*letter));
    if let Some((_, leg)) = failed {
        return Some((lower, failed_leg((lookup.name_of)(number(leg.first()?)?)), None));
    }
    let rebuilt = health.contains('S').then(|| "a leg of the mirror is being rebuilt".to_string());
    Some((lower, Effect::PassesThrough, rebuilt))
}

/// `type #parameters parameter… #legs (metadata data)…`, with `-` for what is missing; its status
/// `type #legs health …`, a letter for each leg: A in step, a alive, D failed.
fn raid(words: &[&str], status: &str, map: &str, lookup: Lookup) -> Option<Known> {
    let parameters: usize = words.get(1)?.parse().ok()?;
    let rest = words.get(2_usize.checked_add(parameters)?..)?;
    let legs: Vec<&[&str]> = rest.get(1..)?.chunks(2).collect();
    if legs.len() != rest.first()?.parse::<usize>().ok()? {
        return None;
    }
    let health = status.split_whitespace().nth(2)?;
    if health.len() != legs.len() || !health.chars().all(|letter| "AaD-".contains(letter)) {
        return None;
    }
    let mut limitations = Vec::new();
    for (letter, leg) in health.chars().zip(&legs) {
        let data = *leg.get(1)?;
        match (letter, number(data).filter(|leg| !(lookup.is_missing)(*leg))) {
            (_, None) => limitations.push(format!("a leg of {map} is missing: it holds what it held")),
            ('D', Some(failed)) => return Some((all(words), failed_leg((lookup.name_of)(failed)), None)),
            ('a', Some(leg)) => {
                limitations.push(format!("the leg {} is being rebuilt", (lookup.name_of)(leg)));
            }
            _ => {}
        }
    }
    let limitation = (!limitations.is_empty()).then(|| limitations.join("; "));
    Some((all(words), Effect::PassesThrough, limitation))
}

/// One that takes no writes any more, and holds what it held.
pub(super) fn failed_leg(name: String) -> Effect {
    let drain = format!("take the failed leg out, and wipe {name} by itself");
    Effect::KeepsCopies { on: name, drain }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn read(kind: &str, line: &str, status: &str) -> TableLine {
        let line = DmTarget { start: 8, sectors: 16, kind: kind.into(), line: line.to_string().into() };
        let missing = "253:99".parse().unwrap();
        let lookup =
            Lookup { name_of: &|number| format!("dev {number}"), is_missing: &|number| number == missing };
        target(&line, status, "vg-lv", lookup)
    }

    fn lower(number: &str, start: Option<u64>, share: Share) -> Lower {
        Lower { number: number.parse().unwrap(), start, share }
    }

    #[test]
    fn ranges_are_read_where_a_kind_maps_byte_for_byte() {
        for (kind, line) in [
            ("linear", "8:1 2048"),
            ("flakey", "8:1 2048 10 0"),
            ("crypt", "aes-xts-plain64 :64:logon:key 0 8:1 2048 1 allow_discards"),
        ] {
            let found = read(kind, line, "");
            assert_eq!(found.at, Extent::new(8 * 512, 24 * 512), "{kind}");
            assert_eq!(found.lower, [lower("8:1", Some(2048 * 512), Share::Exact)], "{kind}");
            assert_eq!((found.effect, found.limitation), (Effect::PassesThrough, None), "{kind}");
        }
        let found = read("multipath", "0 0 1 1 service-time 0 2 2 8:0 1 1 8:16 1 1", "");
        assert_eq!(found.lower, ["8:0", "8:16"].map(|path| lower(path, Some(0), Share::Exact)));
        let found = read("striped", "2 128 8:0 0 8:16 0", "");
        assert_eq!(found.lower, ["8:0", "8:16"].map(|leg| lower(leg, None, Share::Spread)));
    }

    #[test]
    fn a_kind_that_is_not_known_shares_all_of_what_it_names() {
        for (kind, line) in
            [("vdo", "V4 8:1 512 4096"), ("linear", "8:1"), ("cache", "8:1 8:2"), ("raid", "8:1")]
        {
            let found = read(kind, line, "");
            assert_eq!(found.effect, Effect::Unknown, "{kind}");
            assert_eq!(found.lower[0], lower("8:1", None, Share::Spread), "{kind}");
        }
    }

    #[test]
    fn layers_that_keep_another_copy_name_it() {
        let cases = [
            ("writecache", "s 253:5 253:6 4096 0", "", "dev 253:5", "splitcache"),
            ("cache", "253:1 253:2 253:3 128 1 writeback smq 0", "", "dev 253:3", "uncache"),
            ("cache", "253:1 253:2 253:3 128 0 smq 0", "", "dev 253:3", "uncache"),
            ("thin", "253:2 1 253:4", "", "dev 253:4", "external origin"),
            ("clone", "253:1 253:2 253:3 8 1 no_hydration", "", "dev 253:3", "source"),
            (
                "raid",
                "raid1 3 0 region_size 4096 2 253:1 253:2 253:3 253:4",
                "raid1 2 AD 1/1 idle 0",
                "dev 253:4",
                "failed",
            ),
            (
                "mirror",
                "disk 2 253:2 1024 2 253:3 0 253:4 0 1 handle_errors",
                "2 253:3 253:4 100/100 1 DA 3 disk 253:2 A",
                "dev 253:3",
                "failed",
            ),
        ];
        for (kind, line, status, on, word) in cases {
            let Effect::KeepsCopies { on: found, drain } = read(kind, line, status).effect else {
                panic!("{kind} {line} keeps copies")
            };
            assert_eq!(found, on, "{kind}");
            assert!(drain.contains(word), "{drain}");
        }
    }

    #[test]
    fn what_passes_through_with_less_to_claim_says_so() {
        let cases = [
            ("cache", "253:1 253:2 253:3 128 1 writethrough smq 0", "", "dev 253:2"),
            ("cache", "253:1 253:2 253:3 128 2 metadata2 passthrough smq 0", "", "dev 253:2"),
            ("raid", "raid1 3 0 region_size 4096 2 253:1 253:2 - -", "raid1 2 AD 1/1 idle 0", "missing"),
            (
                "raid",
                "raid1 3 0 region_size 4096 2 253:1 253:2 253:9 253:99",
                "raid1 2 AD 1/1 idle 0",
                "missing",
            ),
            (
                "raid",
                "raid1 3 0 region_size 4096 2 253:1 253:2 253:3 253:4",
                "raid1 2 Aa 0/1 recover 0",
                "dev 253:4",
            ),
            ("snapshot", "253:1 253:2 P 8", "", "its origin"),
        ];
        for (kind, line, status, word) in cases {
            let found = read(kind, line, status);
            assert_eq!(found.effect, Effect::PassesThrough, "{kind} {line}");
            assert!(found.limitation.as_ref().is_some_and(|text| text.contains(word)), "{found:?}");
        }
        let healthy =
            read("raid", "raid1 3 0 region_size 4096 2 253:1 253:2 253:3 253:4", "raid1 2 AA 1/1 idle 0");
        assert_eq!((healthy.effect, healthy.limitation), (Effect::PassesThrough, None));
    }

    #[test]
    fn a_thin_volume_shares_no_blocks_with_its_siblings_and_a_snapshot_only_reads_its_origin() {
        assert_eq!(read("thin", "253:2 1", "").lower, [lower("253:2", None, Share::Allocated)]);
        let snapshot = read("snapshot", "253:1 253:2 P 8", "").lower;
        assert_eq!(snapshot[0].share, Share::Reads);
        assert_eq!(snapshot[1].share, Share::Spread);
    }
}
