//! What will be done: methods are data, a plan is a list of steps, and planning is pure.

use std::borrow::Cow;
use std::collections::BTreeMap;
use std::fmt;

use schemars::JsonSchema;
use serde::{Deserialize, Serialize};

use crate::error::{Error, Result};
use crate::luks::KeyArea;
use crate::pattern::{Pattern, Seed, parse_constant};
use crate::range::{Extent, ExtentSet, align_down, align_up};

/// One pass of a method, before its seeds are drawn.
#[derive(Clone, PartialEq, Eq, Debug)]
pub enum Pass {
    /// These bytes, repeated from the device's first byte.
    Constant(Cow<'static, [u8]>),
    /// A random stream with a seed of its own.
    Random,
    /// A random byte, drawn once for each number, and its complement.
    Byte(u8),
    Complement(u8),
    /// The kernel's write-zeroes command.
    Zero,
    Discard,
    /// What the pass before it left is read back.
    Check,
}

impl fmt::Display for Pass {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Pass::Constant(bytes) => write!(f, "overwrite 0x{}", hex::encode(bytes)),
            Pass::Random => f.write_str("overwrite random"),
            Pass::Byte(number) => write!(f, "overwrite random byte {number}"),
            Pass::Complement(number) => write!(f, "overwrite complement of byte {number}"),
            Pass::Zero => f.write_str("write-zeroes"),
            Pass::Discard => f.write_str("discard"),
            Pass::Check => f.write_str("read back"),
        }
    }
}

/// A named method.
pub struct Scheme {
    pub name: &'static str,
    pub passes: &'static [Pass],
    pub about: &'static str,
}

const fn bytes(bytes: &'static [u8]) -> Pass {
    Pass::Constant(Cow::Borrowed(bytes))
}

use Pass::{Byte, Check, Complement, Discard, Random};

/// The methods by name. Sources: coreutils' shred; DoD 5220.22-M and its ECE variant;
/// NNSA NAP-14.1-C; HMG IS5; Schneier, Applied Cryptography (1996); Gutmann, Secure Deletion (1996).
pub const SCHEMES: &[Scheme] = &[
    Scheme { name: "zero", passes: &[bytes(&[0])], about: "one pass of 00 (the default)" },
    Scheme {
        name: "shred",
        passes: &[bytes(&[0x55]), bytes(&[0xaa]), Random],
        about: "55, AA, random: three passes, each verifiable at any offset",
    },
    Scheme { name: "random", passes: &[Random], about: "one random pass" },
    Scheme {
        name: "shred-random",
        passes: &[Random, Random, Random],
        about: "three random passes, as shred -n3",
    },
    Scheme {
        name: "discard",
        passes: &[Discard, Check],
        about: "BLKDISCARD, then a check of what reads back",
    },
    Scheme {
        name: "dod3",
        passes: &[bytes(&[0]), bytes(&[0xff]), Random, Check],
        about: "DoD 5220.22-M: 00, FF, random, verified",
    },
    Scheme {
        name: "dod7",
        passes: &[Byte(1), Complement(1), Random, Byte(2), Byte(3), Complement(3), Random],
        about: "DoD 5220.22-M ECE: c, ~c, random, c, c, ~c, random",
    },
    Scheme {
        name: "nnsa",
        passes: &[Random, Random, bytes(&[0]), Check],
        about: "NAP-14.1-C: random, random, 00, verified",
    },
    Scheme {
        name: "is5-enhanced",
        passes: &[bytes(&[0]), bytes(&[0xff]), Random, Check],
        about: "HMG IS5 enhanced: 00, FF, random, verified",
    },
    Scheme {
        name: "schneier",
        passes: &[bytes(&[0xff]), bytes(&[0]), Random, Random, Random, Random, Random],
        about: "FF, 00, five random passes",
    },
    Scheme {
        name: "gutmann",
        passes: GUTMANN,
        about: "35 passes; its author calls them pointless on today's disks",
    },
];

const GUTMANN: &[Pass] = &[
    Random,
    Random,
    Random,
    Random,
    bytes(&[0x55]),
    bytes(&[0xaa]),
    bytes(&[0x92, 0x49, 0x24]),
    bytes(&[0x49, 0x24, 0x92]),
    bytes(&[0x24, 0x92, 0x49]),
    bytes(&[0x00]),
    bytes(&[0x11]),
    bytes(&[0x22]),
    bytes(&[0x33]),
    bytes(&[0x44]),
    bytes(&[0x55]),
    bytes(&[0x66]),
    bytes(&[0x77]),
    bytes(&[0x88]),
    bytes(&[0x99]),
    bytes(&[0xaa]),
    bytes(&[0xbb]),
    bytes(&[0xcc]),
    bytes(&[0xdd]),
    bytes(&[0xee]),
    bytes(&[0xff]),
    bytes(&[0x92, 0x49, 0x24]),
    bytes(&[0x49, 0x24, 0x92]),
    bytes(&[0x24, 0x92, 0x49]),
    bytes(&[0x6d, 0xb6, 0xdb]),
    bytes(&[0xb6, 0xdb, 0x6d]),
    bytes(&[0xdb, 0x6d, 0xb6]),
    Random,
    Random,
    Random,
    Random,
];

/// What to do, as somebody ordered it.
#[derive(Clone, PartialEq, Eq, Debug)]
pub struct Method {
    pub name: String,
    pub passes: Vec<Pass>,
}

impl Method {
    pub fn named(name: &str) -> Result<Method> {
        let scheme = SCHEMES.iter().find(|scheme| scheme.name == name).ok_or_else(|| {
            let names: Vec<&str> = SCHEMES.iter().map(|scheme| scheme.name).collect();
            Error::usage(format!("unknown method '{name}'")).way_out(format!("one of {}", names.join(", ")))
        })?;
        Ok(Method { name: name.into(), passes: scheme.passes.to_vec() })
    }

    /// One's own passes: `0x00,0xff,0x55aa,random`.
    pub fn from_list(list: &str) -> Result<Method> {
        let passes = list
            .split(',')
            .map(|item| match item.trim() {
                "random" => Ok(Random),
                text => Ok(Pass::Constant(parse_constant(text)?.into())),
            })
            .collect::<Result<_>>()
            .map_err(|error| {
                error.way_out("list passes as 0x and hex bytes, or random: 0x00,0x55aa,random")
            })?;
        Ok(Method { name: "custom".into(), passes })
    }

    /// Adds a pass of zeroes, so that the next owner reads zeroes.
    pub fn then_zero(mut self) -> Method {
        self.passes.push(bytes(&[0]));
        self
    }

    /// Hands the zeroes to the kernel's write-zeroes command instead of writing them.
    pub fn offload_zeroes(mut self) -> Result<Method> {
        let zero = bytes(&[0]);
        if !self.passes.contains(&zero) {
            return Err(Error::usage(format!(
                "--zero-with offload: the method '{}' has no pass of zeroes",
                self.name
            ))
            .way_out("leave the option out, or add --final-zero"));
        }
        self.passes.iter_mut().filter(|pass| **pass == zero).for_each(|pass| *pass = Pass::Zero);
        Ok(self)
    }

    /// A method that includes a check cannot go without one.
    pub fn allows(&self, policy: Policy) -> Result<()> {
        if policy == Policy::None && self.passes.contains(&Check) {
            return Err(Error::usage(format!("--verify none: the method '{}' includes a check", self.name))
                .way_out("leave the option out, or choose another method"));
        }
        Ok(())
    }
}

/// How much is read back.
#[derive(Clone, Copy, PartialEq, Eq, Debug, Serialize)]
#[serde(rename_all = "snake_case")]
pub enum Policy {
    None,
    Standard,
    High,
    Full,
    /// The sample of NIST SP 800-88 Rev. 1 (withdrawn in 2025): a tenth of the media.
    NistR1,
    /// As many probes as this claim takes: at this confidence at most this share differs.
    Claim {
        confidence_ppm: u64,
        unwiped_ppb: u64,
    },
}

/// What a check reads.
#[derive(Clone, Copy, PartialEq, Eq, Debug, Serialize, Deserialize, JsonSchema)]
#[serde(tag = "kind", rename_all = "snake_case")]
pub enum Sample {
    Full,
    Stratified {
        strata: u64,
        per_stratum: u64,
        block_bytes: u64,
        /// In parts per million: 990,000 is 99 %.
        confidence_ppm: u64,
    },
}

impl fmt::Display for Sample {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Sample::Full => f.write_str("all of it"),
            Sample::Stratified { strata, per_stratum, .. } => write!(f, "{} probes", strata * per_stratum),
        }
    }
}

/// Below this many blocks a stratum says little more than reading it all.
const STRATUM_BLOCKS_MIN: u64 = 8;
const PROBE_BYTES_MIN: u64 = 4096;
/// More single blocks than this take a disk longer than reading all of it in order.
pub const PROBES_MAX: u64 = 1 << 22;

impl Sample {
    /// What the policy reads of this area; nothing where it is none.
    pub fn choose(policy: Policy, area: Extent, physical_block: u64) -> Option<Sample> {
        let (strata, confidence_ppm) = match policy {
            Policy::None => return None,
            Policy::Full => return Some(Sample::Full),
            Policy::NistR1 => return Some(Sample::nist_r1(area, physical_block)),
            Policy::Standard => (2_304, 990_000),
            Policy::High => (34_560, 999_000),
            Policy::Claim { confidence_ppm, unwiped_ppb } => {
                (probes_for(confidence_ppm, unwiped_ppb).div_ceil(PER_STRATUM), confidence_ppm)
            }
        };
        let block_bytes = physical_block.max(PROBE_BYTES_MIN);
        let too_many = strata.saturating_mul(PER_STRATUM) > PROBES_MAX;
        if too_many || area.len() / block_bytes / STRATUM_BLOCKS_MIN < strata {
            return Some(Sample::Full);
        }
        Some(Sample::Stratified { strata, per_stratum: PER_STRATUM, block_bytes, confidence_ppm })
    }

    /// 1,000 subsections with two places in each, which together are a tenth of the media (4.7).
    fn nist_r1(area: Extent, physical_block: u64) -> Sample {
        const SUBSECTIONS: u64 = 1_000;
        const PLACES: u64 = 20;
        let block_bytes = align_down(area.len() / SUBSECTIONS / PLACES, physical_block.max(PROBE_BYTES_MIN));
        if block_bytes == 0 {
            return Sample::Full;
        }
        let (strata, confidence_ppm) = (SUBSECTIONS, 990_000);
        Sample::Stratified { strata, per_stratum: PER_STRATUM, block_bytes, confidence_ppm }
    }
}

/// Two in each stratum: so that no stratum hangs on one.
const PER_STRATUM: u64 = 2;

/// The number of good probes that a claim takes: the n of `unwiped = 1 - (1 - confidence)^(1/n)`.
fn probes_for(confidence_ppm: u64, unwiped_ppb: u64) -> u64 {
    let (alpha, share) = (1.0 - confidence_ppm as f64 / 1e6, unwiped_ppb as f64 / 1e9);
    (alpha.ln() / (-share).ln_1p()).ceil() as u64
}

/// What a step does to every block of its area, once.
#[derive(Clone, PartialEq, Eq, Debug, Serialize, Deserialize, JsonSchema)]
#[serde(tag = "act", rename_all = "snake_case")]
pub enum Act {
    Write {
        pattern: Pattern,
    },
    /// The same over a part of the area: keys before the headers that lead to them.
    WritePart {
        pattern: Pattern,
        part: ExtentSet,
    },
    /// Reads all of it, to find what is not zero.
    Find,
    /// Over what was found: a block that was never written costs its pool nothing then.
    WriteFound {
        pattern: Pattern,
    },
    Zero,
    Discard,
    /// Reads what is there, before anything is written: what a read-back of the same later proves
    /// nothing about, and what would be known again.
    Survey {
        sample: Sample,
    },
    Check {
        expect: Pattern,
        sample: Sample,
    },
    /// Reads the very places of an earlier check again.
    Replay {
        expect: Pattern,
        check: Box<Earlier>,
    },
}

/// What an earlier check read.
#[derive(Clone, PartialEq, Eq, Debug, Serialize, Deserialize, JsonSchema)]
pub struct Earlier {
    pub sample: Sample,
    pub seed: Seed,
    /// The bytes of one transfer of that job.
    pub chunk_bytes: u64,
    /// What its last pass wrote only after failures, and what it could not write.
    pub retried: ExtentSet,
    pub residue: ExtentSet,
}

impl Act {
    /// What a check compares with.
    pub fn expects(&self) -> Option<&Pattern> {
        match self {
            Act::Check { expect, .. } | Act::Replay { expect, .. } => Some(expect),
            _ => None,
        }
    }

    pub fn writes(&self) -> bool {
        match self {
            Act::Write { .. } | Act::WritePart { .. } | Act::WriteFound { .. } | Act::Zero | Act::Discard => {
                true
            }
            Act::Find | Act::Survey { .. } | Act::Check { .. } | Act::Replay { .. } => false,
        }
    }
}

impl fmt::Display for Act {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Act::Write { pattern } => write!(f, "overwrite {pattern}"),
            Act::WritePart { pattern, part } => write!(f, "overwrite {pattern} in {} bytes", part.bytes()),
            Act::Find => f.write_str("find what is not zero"),
            Act::WriteFound { pattern } => write!(f, "overwrite {pattern} where it was not zero"),
            Act::Zero => f.write_str("write-zeroes"),
            Act::Discard => f.write_str("discard"),
            Act::Survey { sample } => write!(f, "survey, {sample}"),
            Act::Check { expect, sample } => write!(f, "verify {expect}, {sample}"),
            Act::Replay { expect, check } => write!(f, "replay {expect}, {}", check.sample),
        }
    }
}

/// One job on one device: `steps`, in order, each over the whole `area`.
#[derive(Clone, PartialEq, Eq, Debug, Serialize, Deserialize, JsonSchema)]
pub struct Plan {
    pub method: String,
    pub area: Extent,
    /// A part of the device only.
    pub partial: bool,
    pub steps: Vec<Act>,
    /// The keys that are destroyed, where that is the work.
    pub keys: Option<KeyPlan>,
}

/// A volume's keys, and what people say of them.
#[derive(Clone, PartialEq, Eq, Debug, Serialize, Deserialize, JsonSchema)]
pub struct KeyPlan {
    pub found: KeyArea,
    /// Of a detached header: the device with the data.
    pub data_device: Option<String>,
    /// The name of a secret that is kept elsewhere and opens the volume.
    pub external_key: Option<String>,
    /// Somebody said so: nothing was ever stored on it unencrypted.
    pub encrypted_since_provisioning: bool,
}

impl KeyPlan {
    /// Of which nobody said more.
    pub fn of(found: KeyArea) -> KeyPlan {
        KeyPlan { found, data_device: None, external_key: None, encrypted_since_provisioning: false }
    }

    /// Every range that held key material.
    pub fn material(&self) -> ExtentSet {
        self.found.keyslots.iter().map(|slot| slot.at).collect()
    }
}

/// What planning has to know of a device, in bytes.
#[derive(Clone, Copy, Debug)]
pub struct Device {
    pub size: u64,
    pub logical_block: u64,
    pub physical_block: u64,
}

impl Device {
    /// The part of the device that `--offset` and `--size` name.
    pub fn area(&self, offset: Option<u64>, size: Option<u64>) -> Result<Extent> {
        let start = offset.unwrap_or(0);
        let device = format!("the device has {} bytes", self.size);
        if start >= self.size {
            return Err(Error::usage(format!("offset {start} lies beyond the end")).way_out(device));
        }
        let end =
            size.map_or(Some(self.size), |size| start.checked_add(size)).filter(|end| *end <= self.size);
        let Some(end) = end else {
            let what = format!("{} bytes from offset {start} reach beyond the end", size.unwrap_or_default());
            return Err(Error::usage(what).way_out(format!("{device}; leave --size out to go to its end")));
        };
        let aligned = |at: u64| at.is_multiple_of(self.logical_block) || at == self.size;
        if start == end || !aligned(start) || !aligned(end) {
            let what = format!("the part {start}..{end} is not made of whole logical blocks");
            let way_out = format!("offset and size must be multiples of {} bytes", self.logical_block);
            return Err(Error::usage(what).way_out(way_out));
        }
        Ok(Extent::new(start, end))
    }
}

impl Plan {
    /// `draw` gives the random seeds; all else follows from the arguments.
    pub fn new(
        method: &Method,
        policy: Policy,
        area: Extent,
        device: &Device,
        draw: &mut dyn FnMut() -> Result<Seed>,
    ) -> Result<Plan> {
        method.allows(policy)?;
        let sample = Sample::choose(policy, area, device.physical_block);
        let mut steps = acts(&method.passes, sample, draw)?;
        if let (Some(Act::Write { .. } | Act::Zero | Act::Discard), Some(sample)) = (steps.last(), sample) {
            steps.extend(check(steps.last(), sample));
        }
        if sample.is_some() {
            let survey = Sample::choose(Policy::Standard, area, device.physical_block);
            steps.splice(0..0, survey.map(|sample| Act::Survey { sample }));
        }
        let partial = area != Extent::new(0, device.size);
        Ok(Plan { method: method.name.clone(), area, partial, steps, keys: None })
    }

    /// The same for a thin volume, where a write to a block that was never written takes room from
    /// its pool: only what is not zero is overwritten, at last with zeroes, so that all of it reads
    /// alike; and when all of that was read back, it is given back to the pool.
    pub fn on_thin(mut self, discards: bool) -> Result<Plan> {
        if self.steps.contains(&Act::Zero) {
            return Err(Error::unsupported("a thin volume has no write-zeroes")
                .way_out("leave --zero-with away: what is not zero there is overwritten"));
        }
        let checked = self.steps.iter().any(|act| matches!(act, Act::Check { .. }));
        let mut steps = Vec::new();
        let mut left = None;
        for act in self.steps {
            match act {
                Act::Write { pattern } => {
                    if left.is_none() {
                        steps.push(Act::Find);
                    }
                    left = Some(pattern.clone());
                    steps.push(Act::WriteFound { pattern });
                }
                Act::Check { .. } if left.is_some() => {}
                act => steps.push(act),
            }
        }
        if let Some(left) = left {
            let zero = (left != Pattern::zero()).then(|| Act::WriteFound { pattern: Pattern::zero() });
            // What is not mapped is read at the speed of memory, and a sample would draw little else.
            let full = Act::Check { expect: Pattern::zero(), sample: Sample::Full };
            let check = checked.then_some(full);
            steps.extend(zero.into_iter().chain(check).chain(discards.then_some(Act::Discard)));
        }
        self.steps = steps;
        Ok(self)
    }

    pub fn writes(&self) -> bool {
        self.steps.iter().any(Act::writes)
    }

    /// The steps without what is drawn for each run: the same method gives the same outline.
    pub fn outline(&self, method: &Method) -> Vec<String> {
        if self.keys.is_some() {
            return self.steps.iter().map(ToString::to_string).collect();
        }
        let mut passes = method.passes.iter().filter(|pass| **pass != Pass::Check);
        let told = |act: &Act| match act {
            Act::Survey { sample } => format!("read before, {sample}"),
            Act::Check { sample, .. } => format!("read back, {sample}"),
            Act::Replay { check, .. } => format!("read again, {}", check.sample),
            Act::WriteFound { .. } => {
                let pass = passes.next().map_or("overwrite 0x00".into(), ToString::to_string);
                format!("{pass} where it was not zero")
            }
            Act::Find => act.to_string(),
            // Of a thin volume the last discard is no pass of its method.
            Act::Discard => passes.next().map_or("discard".into(), ToString::to_string),
            _ => passes.next().map(ToString::to_string).expect("a pass for each step that writes"),
        };
        self.steps.iter().map(told).collect()
    }

    /// A plan that only reads.
    pub fn check(expect: Pattern, policy: Policy, area: Extent, device: &Device) -> Plan {
        let sample = Sample::choose(policy, area, device.physical_block);
        let steps = sample.map(|sample| Act::Check { expect, sample }).into_iter().collect();
        let partial = area != Extent::new(0, device.size);
        Plan { method: "verify".into(), area, partial, steps, keys: None }
    }

    /// Destroys a volume's keys: the key material first, while a header still leads to it (so that
    /// what is interrupted can be begun again), then the headers, then all of it once more, with
    /// zeroes where the header was; read back in full, and compared with what it was.
    pub fn destroy_key(
        keys: KeyPlan,
        rounds: u32,
        device: &Device,
        draw: &mut dyn FnMut() -> Result<Seed>,
    ) -> Result<Plan> {
        let found = &keys.found;
        let block = device.logical_block;
        let end = align_up(found.area.end, block).min(device.size);
        if found.detached && end != found.area.end {
            let what =
                format!("its key area ends at {}, within a logical block of {block} bytes", found.area.end);
            return Err(Error::unsupported(what).way_out("copy the header to a file, and destroy both"));
        }
        let area = Extent::new(0, end);
        let headers: ExtentSet =
            found.headers.iter().map(|header| header.widen(block).intersect(area)).collect();
        let zero_to = headers.iter().next().filter(|first| first.start == 0).map_or(0, |first| first.end);
        let material = ExtentSet::from(area).without(&headers);
        let mut steps = vec![Act::Survey { sample: Sample::Full }];
        for part in [material, headers] {
            for _ in 0..rounds {
                let pattern = Pattern::Random { seed: draw()? };
                steps.push(Act::WritePart { pattern, part: part.clone() });
            }
        }
        let pattern = Pattern::Headless { seed: draw()?, zero_to };
        steps.push(Act::Write { pattern: pattern.clone() });
        steps.push(Act::Check { expect: pattern, sample: Sample::Full });
        steps.push(Act::Survey { sample: Sample::Full });
        let partial = area != Extent::new(0, device.size);
        Ok(Plan { method: DESTROY_KEY.into(), area, partial, steps, keys: Some(keys) })
    }
}

/// The method's name.
pub const DESTROY_KEY: &str = "destroy-key";

fn acts(passes: &[Pass], sample: Option<Sample>, draw: &mut dyn FnMut() -> Result<Seed>) -> Result<Vec<Act>> {
    let mut bytes_drawn = BTreeMap::new();
    let mut acts: Vec<Act> = Vec::new();
    for pass in passes {
        let mut byte = |number: u8| -> Result<u8> {
            if let Some(byte) = bytes_drawn.get(&number) {
                return Ok(*byte);
            }
            let byte = draw()?.0[0];
            bytes_drawn.insert(number, byte);
            Ok(byte)
        };
        let act = match pass {
            Pass::Constant(bytes) => Some(Act::Write { pattern: Pattern::constant(bytes) }),
            Pass::Byte(number) => Some(Act::Write { pattern: Pattern::constant(&[byte(*number)?]) }),
            Pass::Complement(number) => Some(Act::Write { pattern: Pattern::constant(&[!byte(*number)?]) }),
            Pass::Random => Some(Act::Write { pattern: Pattern::Random { seed: draw()? } }),
            Pass::Zero => Some(Act::Zero),
            Pass::Discard => Some(Act::Discard),
            Pass::Check => sample.and_then(|sample| check(acts.last(), sample)),
        };
        acts.extend(act);
    }
    Ok(acts)
}

/// Reads back what this act leaves.
fn check(left_by: Option<&Act>, sample: Sample) -> Option<Act> {
    let expect = match left_by? {
        Act::Write { pattern } | Act::WritePart { pattern, .. } | Act::WriteFound { pattern } => {
            pattern.clone()
        }
        Act::Zero | Act::Discard => Pattern::zero(),
        Act::Check { expect, .. } | Act::Replay { expect, .. } => expect.clone(),
        Act::Find | Act::Survey { .. } => return None,
    };
    Some(Act::Check { expect, sample })
}

#[cfg(test)]
mod tests {
    use super::*;

    const DEVICE: Device = Device { size: 1 << 30, logical_block: 512, physical_block: 4096 };

    fn plan(method: &Method, policy: Policy) -> Result<Plan> {
        let mut drawn = 0;
        Plan::new(method, policy, Extent::new(0, DEVICE.size), &DEVICE, &mut || {
            drawn += 1;
            Ok(Seed([drawn; 32]))
        })
    }

    fn told(name: &str, policy: Policy) -> Vec<String> {
        plan(&Method::named(name).unwrap(), policy).unwrap().steps.iter().map(Act::to_string).collect()
    }

    #[test]
    fn the_default_is_one_pass_and_a_check_of_it() {
        assert_eq!(
            told("zero", Policy::Standard),
            ["survey, 4608 probes", "overwrite 0x00", "verify 0x00, 4608 probes"]
        );
        assert_eq!(told("zero", Policy::None), ["overwrite 0x00"]);
    }

    #[test]
    fn of_a_thin_volume_only_what_is_not_zero_is_written() {
        let thin = |name: &str, policy| plan(&Method::named(name).unwrap(), policy).unwrap().on_thin(true);
        let told = |name, policy| -> Vec<String> {
            thin(name, policy).unwrap().steps.iter().map(Act::to_string).collect()
        };
        let zero = "overwrite 0x00 where it was not zero";
        let read =
            ["survey, 4608 probes", "find what is not zero", zero, "verify 0x00, all of it", "discard"];
        assert_eq!(told("zero", Policy::Standard), read);
        assert_eq!(told("zero", Policy::None), ["find what is not zero", zero, "discard"]);
        // Whatever the method, at last all of it reads alike.
        let random = "overwrite random where it was not zero";
        assert_eq!(told("random", Policy::None), ["find what is not zero", random, zero, "discard"]);
        let discard = ["survey, 4608 probes", "discard", "verify 0x00, 4608 probes"];
        assert_eq!(told("discard", Policy::Standard), discard);
        let method = Method::named("zero").unwrap().offload_zeroes().unwrap();
        assert!(plan(&method, Policy::None).unwrap().on_thin(true).is_err());
        assert!(!thin("zero", Policy::None).unwrap().outline(&Method::named("zero").unwrap()).is_empty());
    }

    #[test]
    fn schemes_are_what_their_sources_say() {
        let shred = ["overwrite 0x55", "overwrite 0xaa", "overwrite random"];
        assert_eq!(told("shred", Policy::None), shred);
        let dod3 = [
            "survey, 4608 probes",
            "overwrite 0x00",
            "overwrite 0xff",
            "overwrite random",
            "verify random, all of it",
        ];
        assert_eq!(told("dod3", Policy::Full), dod3);
        let dod7 = ["0x01", "0xfe", "random", "0x03", "0x04", "0xfb", "random"];
        assert_eq!(told("dod7", Policy::None), dod7.map(|pass| format!("overwrite {pass}")));
        assert_eq!(told("gutmann", Policy::None).len(), 35);
        assert_eq!(
            told("discard", Policy::Full),
            ["survey, 4608 probes", "discard", "verify 0x00, all of it"]
        );
    }

    #[test]
    fn each_random_pass_has_a_seed_of_its_own_and_the_check_expects_the_last() {
        let steps = plan(&Method::named("shred-random").unwrap(), Policy::Full).unwrap().steps;
        let random = |seed| Pattern::Random { seed: Seed([seed; 32]) };
        assert_eq!(steps[1], Act::Write { pattern: random(1) });
        assert_eq!(steps[3], Act::Write { pattern: random(3) });
        assert_eq!(steps[4], Act::Check { expect: random(3), sample: Sample::Full });
    }

    #[test]
    fn zeroes_at_the_end_are_checked_and_can_be_handed_to_the_kernel() {
        let method = Method::named("random").unwrap().then_zero().offload_zeroes().unwrap();
        let steps: Vec<String> =
            plan(&method, Policy::Full).unwrap().steps.iter().map(Act::to_string).collect();
        assert_eq!(steps[1..], ["overwrite random", "write-zeroes", "verify 0x00, all of it"]);
        assert!(Method::named("random").unwrap().offload_zeroes().is_err());
    }

    #[test]
    fn a_scheme_that_includes_a_check_cannot_go_without() {
        for scheme in ["dod3", "nnsa", "is5-enhanced", "discard"] {
            assert!(plan(&Method::named(scheme).unwrap(), Policy::None).is_err(), "{scheme}");
        }
    }

    #[test]
    fn an_outline_does_not_change_with_what_is_drawn() {
        let method = Method::named("dod7").unwrap();
        let outline = |mut drawn: u8| {
            let mut draw = || {
                drawn += 1;
                Ok(Seed([drawn; 32]))
            };
            let area = Extent::new(0, DEVICE.size);
            Plan::new(&method, Policy::Standard, area, &DEVICE, &mut draw).unwrap().outline(&method)
        };
        assert_eq!(outline(0), outline(77));
        assert_eq!(
            outline(0)[..4],
            [
                "read before, 4608 probes",
                "overwrite random byte 1",
                "overwrite complement of byte 1",
                "overwrite random"
            ]
        );
        assert_eq!(outline(0).last().unwrap(), "read back, 4608 probes");
    }

    #[test]
    fn key_material_goes_before_the_headers_that_lead_to_it() {
        let found = KeyArea {
            version: Some(2),
            uuid: None,
            area: Extent::new(0, 16 << 20),
            headers: Extent::new(0, 0x8000).into(),
            keyslots: Vec::new(),
            detached: false,
            readable: None,
            notes: Vec::new(),
        };
        let mut draw = || Ok(Seed([1; 32]));
        let plan = |rounds, found| Plan::destroy_key(KeyPlan::of(found), rounds, &DEVICE, &mut draw);
        let mut plan = plan;
        let steps: Vec<String> =
            plan(2, found.clone()).unwrap().steps.iter().map(ToString::to_string).collect();
        let (material, headers) = ("overwrite random in 16744448 bytes", "overwrite random in 32768 bytes");
        let end = ["overwrite zeroes and random", "verify zeroes and random, all of it", "survey, all of it"];
        let expected = [&["survey, all of it", material, material, headers, headers][..], &end].concat();
        assert_eq!(steps, expected);

        // A detached header is never overwritten beyond its end, not even by a part of a block.
        let detached = KeyArea { area: Extent::new(0, 1000), detached: true, ..found };
        assert!(plan(1, detached).is_err());
    }

    #[test]
    fn a_small_area_is_read_in_full() {
        let blocks = |count: u64| Extent::new(0, count * 4096);
        assert_eq!(Sample::choose(Policy::Standard, blocks(2_304 * 8 - 1), 512), Some(Sample::Full));
        let sampled = Sample::choose(Policy::Standard, blocks(2_304 * 8), 512);
        assert!(matches!(sampled, Some(Sample::Stratified { block_bytes: 4096, .. })));
    }

    #[test]
    fn a_claim_takes_as_many_probes_as_it_needs() {
        for (confidence_ppm, unwiped_ppb, probes) in
            [(990_000, 1_000_000, 4_603), (999_000, 100_000, 69_075), (950_000, 10_000_000, 299)]
        {
            assert_eq!(probes_for(confidence_ppm, unwiped_ppb), probes);
            let policy = Policy::Claim { confidence_ppm, unwiped_ppb };
            let Some(Sample::Stratified { strata, per_stratum, confidence_ppm: told, .. }) =
                Sample::choose(policy, Extent::new(0, 1 << 40), 512)
            else {
                panic!("a sample")
            };
            assert!(strata * per_stratum >= probes && told == confidence_ppm);
        }
        let everything = Policy::Claim { confidence_ppm: 999_999, unwiped_ppb: 1 };
        assert_eq!(Sample::choose(everything, Extent::new(0, 1 << 40), 512), Some(Sample::Full));
    }

    #[test]
    fn the_withdrawn_sample_reads_a_tenth() {
        let area = Extent::new(0, 1 << 40);
        let Some(Sample::Stratified { strata, per_stratum, block_bytes, .. }) =
            Sample::choose(Policy::NistR1, area, 512)
        else {
            panic!("a sample")
        };
        assert_eq!((strata, per_stratum), (1_000, 2));
        let share = (strata * per_stratum * block_bytes) as f64 / area.len() as f64;
        assert!((0.0999..=0.1).contains(&share), "{share}");
        assert_eq!(Sample::choose(Policy::NistR1, Extent::new(0, 60 << 20), 4096), Some(Sample::Full));
    }

    #[test]
    fn passes_are_listed_by_hand() {
        let method = Method::from_list("0x00,0xff, 0x55aa,random").unwrap();
        assert_eq!(method.passes[2], Pass::Constant(vec![0x55, 0xaa].into()));
        for wrong in ["", "0x00,", "zero", "0x0", "random;0x00"] {
            assert!(Method::from_list(wrong).is_err(), "{wrong}");
        }
    }

    #[test]
    fn a_part_is_made_of_whole_blocks_inside_the_device() {
        let odd = Device { size: 1_000_100, logical_block: 512, physical_block: 512 };
        assert_eq!(odd.area(None, None).unwrap(), Extent::new(0, 1_000_100));
        assert_eq!(odd.area(Some(512), Some(1024)).unwrap(), Extent::new(512, 1536));
        let wrong = [(100, 512), (512, 100), (0, 0), (0, 1_000_101), (999_936, u64::MAX), (999_936, 165)];
        for (offset, size) in wrong {
            assert!(odd.area(Some(offset), Some(size)).is_err(), "{offset} {size}");
        }
        assert!(odd.area(Some(999_936), None).is_ok());
        assert!(odd.area(Some(2_000_000), None).is_err());
    }
}
