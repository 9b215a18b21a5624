//! Plans: a pure function from method, policy and geometry to a list of steps.

mod ladder;
mod method;
mod sample;
mod step;

use std::collections::BTreeMap;

use schemars::JsonSchema;
use serde::{Deserialize, Serialize};

use crate::error::{Error, Result};
use crate::luks::KeyArea;
use crate::luks::data::DataSample;
use crate::pattern::{Pattern, Seed};
use crate::range::{Extent, ExtentSet, align_up};

pub use ladder::{Attempt, Choice, Grade, Ladder, Offer, PURGE, PurgePolicy, Rung, WhyNot};
pub use method::{Method, Pass, SCHEMES, Scheme};
pub use sample::{OnMismatch, PROBES_MAX, Policy, Sample};
pub use step::{EarlierCheck, Operation, Scope, Step};

/// One job on one device: `steps`, in order, each in the `area`.
#[derive(Clone, PartialEq, Eq, Debug, Serialize, Deserialize, JsonSchema)]
#[non_exhaustive]
pub struct Plan {
    /// A scheme's name, `custom`, `verify`, or `destroy-key`; with a remark in brackets where keys were
    /// preferred and none was destroyed.
    pub method: String,
    /// What the scopes of the steps refer to, absolute on the device, in whole logical blocks.
    pub area: Extent,
    /// A part of the device only.
    pub partial: bool,
    /// In order of execution; empty only for a check that reads nothing.
    pub steps: Vec<Step>,
    /// The keys that are destroyed, where that is the work.
    pub keys: Option<KeyPlan>,
}

/// A volume's keys, and the operator's statements about them.
#[derive(Clone, PartialEq, Eq, Debug, Serialize, Deserialize, JsonSchema)]
#[non_exhaustive]
pub struct KeyPlan {
    /// Where the keys are, as the headers on the device say.
    pub found: KeyArea,
    /// A sample of the data; `None` in records from before data was sampled.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub data: Option<DataSample>,
    /// Of a detached header: the device with the data.
    pub data_device: Option<String>,
    /// The name of a secret that is kept elsewhere and opens the volume.
    pub external_key: Option<String>,
    /// The operator stated that nothing was ever stored on it unencrypted.
    pub encrypted_since_provisioning: bool,
}

impl KeyPlan {
    /// Without statements of the operator.
    pub fn of(found: KeyArea) -> KeyPlan {
        KeyPlan {
            found,
            data: None,
            data_device: None,
            external_key: None,
            encrypted_since_provisioning: false,
        }
    }

    /// Every range that held key material.
    pub fn material(&self) -> ExtentSet {
        self.found.keyslots.iter().map(|slot| slot.at).collect()
    }
}

/// The geometry that planning needs, in bytes.
#[derive(Clone, Copy, Debug)]
pub struct Device {
    /// Of the whole device.
    pub size: u64,
    /// The least that one I/O transfers, and what areas are made of.
    pub logical_block: u64,
    /// A multiple of `logical_block`: what the media writes at once; samples draw no smaller blocks.
    pub physical_block: u64,
}

impl Device {
    /// The part of the device given by `--offset` and `--size`.
    /// `None` for the offset is the beginning, and for the size (in bytes) all up to the end.
    ///
    /// # Errors
    /// A usage error where the part is empty, reaches beyond the device, or is not made of whole logical
    /// blocks (but for a device that ends within one).
    pub fn area(&self, offset: Option<u64>, size: Option<u64>) -> Result<Extent> {
        let start = offset.unwrap_or(0);
        let device = format!("the device has {} bytes", self.size);
        if start >= self.size {
            return Err(Error::usage(format!("offset {start} lies beyond the end")).with_remedy(device));
        }
        let end =
            size.map_or(Some(self.size), |size| start.checked_add(size)).filter(|end| *end <= self.size);
        let Some(end) = end else {
            let what = format!("{} bytes from offset {start} reach beyond the end", size.unwrap_or_default());
            return Err(
                Error::usage(what).with_remedy(format!("{device}; leave --size out to go to its end"))
            );
        };
        let aligned = |at: u64| at.is_multiple_of(self.logical_block) || at == self.size;
        if start == end || !aligned(start) || !aligned(end) {
            let what = format!("the part {start}..{end} is not made of whole logical blocks");
            let remedy = format!("offset and size must be multiples of {} bytes", self.logical_block);
            return Err(Error::usage(what).with_remedy(remedy));
        }
        Ok(Extent::new(start, end))
    }
}

impl Plan {
    /// `draw` supplies the random seeds; everything else follows from the arguments.
    ///
    /// # Errors
    /// A usage error where the policy reads nothing and the method includes a check, and any error of `draw`.
    pub fn new(
        method: &Method,
        policy: Policy,
        area: Extent,
        device: &Device,
        draw: &mut dyn FnMut() -> Result<Seed>,
    ) -> Result<Plan> {
        method.allows(policy)?;
        let sample = policy.sample(area, device.physical_block);
        let check = |last: Option<&Step>| compare_with(last?, sample).filter(|_| !policy.reads_nothing());
        let mut steps = steps(&method.passes, check, draw)?;
        if steps.last().is_some_and(Step::writes) {
            steps.extend(check(steps.last()));
        }
        if !policy.reads_nothing() {
            let sample = Policy::Standard.sample(area, device.physical_block);
            steps.insert(0, Step::fingerprint(sample));
        }
        let partial = area != Extent::new(0, device.size);
        Ok(Plan { method: method.name.clone(), area, partial, steps, keys: None })
    }

    /// The same for a thin volume, where a write to an unmapped block allocates one from
    /// its pool: only what is not zero is overwritten, at last with zeroes, so that all of it reads
    /// alike; and when all of that was read back, it is given back to the pool.
    ///
    /// # Errors
    /// Of kind [`Kind::Unsupported`](crate::Kind::Unsupported) where a pass is the write-zeroes command,
    /// which thin volumes do not have.
    pub fn on_thin(mut self, discards: bool) -> Result<Plan> {
        if self.steps.iter().any(Step::writes_zeroes) {
            return Err(Error::unsupported("a thin volume has no write-zeroes")
                .with_remedy("leave --zero-with away: what is not zero there is overwritten"));
        }
        // What is not mapped is read at the speed of memory, and a sample would draw little else.
        self.overwrite_nonzero(|_| None);
        if discards && self.steps.iter().any(Step::covers_nonzero) {
            self.steps.push(Step::discard());
        }
        Ok(self)
    }

    /// The same for a device that is mostly zeroes: what is not zero is overwritten, at last with zeroes.
    ///
    /// # Errors
    /// A usage error where a pass is another command than a write.
    pub fn skip_zeroes(mut self) -> Result<Plan> {
        if self.steps.iter().any(|step| step.writes() && step.written().is_none()) {
            return Err(Error::usage("--skip-zeroes: the method does not only write")
                .with_remedy("leave the option or --zero-with away, or choose another method"));
        }
        self.overwrite_nonzero(|sample| sample);
        Ok(self)
    }

    /// What is not zero is found and overwritten in place of the area, and one check at the end is for zeroes,
    /// with this instead of its sample.
    fn overwrite_nonzero(&mut self, sample: impl Fn(Option<Sample>) -> Option<Sample>) {
        let check = self.steps.iter().rev().find(|step| step.expected().is_some());
        let check = check.map(|step| Step::compare(Pattern::zero(), sample(step.sample().copied())));
        let mut steps = Vec::new();
        let mut left = None;
        for step in std::mem::take(&mut self.steps) {
            match step.written() {
                Some(pattern) => {
                    if left.is_none() {
                        steps.push(Step::find_nonzero());
                    }
                    left = Some(pattern.clone());
                    steps.push(Step::write_nonzero(pattern.clone()));
                }
                None if step.expected().is_some() && left.is_some() => {}
                None => steps.push(step),
            }
        }
        if let Some(left) = left {
            let zero = (left != Pattern::zero()).then(|| Step::write_nonzero(Pattern::zero()));
            steps.extend(zero.into_iter().chain(check));
        }
        self.steps = steps;
    }

    /// Whether some step changes what the device holds.
    pub fn writes(&self) -> bool {
        self.steps.iter().any(Step::writes)
    }

    /// The steps without their seeds: the same method gives the same outline.
    pub fn outline(&self, method: &Method) -> Vec<String> {
        if self.keys.is_some() {
            return self.steps.iter().map(ToString::to_string).collect();
        }
        let mut passes = method.passes.iter().filter(|pass| **pass != Pass::Check);
        let mut pass = || passes.next().map(ToString::to_string);
        let line = |step: &Step| match step.operation() {
            Operation::Fingerprint => format!("read before, {}", step.scope()),
            Operation::Compare { .. } if step.earlier_check().is_some() => {
                format!("read again, {}", step.scope())
            }
            Operation::Compare { .. } => format!("read back, {}", step.scope()),
            Operation::FindNonZero => step.to_string(),
            // Of a thin volume the last zeroes and the last discard are no passes of its method.
            Operation::Write { .. } if step.covers_nonzero() => {
                let pass = pass().unwrap_or_else(|| "overwrite 0x00".into());
                format!("{pass} {}", step.scope())
            }
            Operation::Discard => pass().unwrap_or_else(|| step.to_string()),
            Operation::Write { .. } | Operation::WriteZeroes => {
                pass().expect("a pass for each step that writes")
            }
        };
        self.steps.iter().map(line).collect()
    }

    /// A plan that only reads.
    pub fn check(expect: Pattern, policy: Policy, area: Extent, device: &Device) -> Plan {
        let sample = policy.sample(area, device.physical_block);
        let steps = (!policy.reads_nothing()).then(|| Step::compare(expect, sample)).into_iter().collect();
        let partial = area != Extent::new(0, device.size);
        Plan { method: "verify".into(), area, partial, steps, keys: None }
    }

    /// Destroys a volume's keys: the key material first, while a header still leads to it (so that
    /// what is interrupted can be begun again), then the headers, then all of it once more, with
    /// zeroes where the header was; read back in full, and compared with what it was.
    /// `rounds` is how often key material and headers are overwritten before the last pass over both.
    ///
    /// # Errors
    /// Of kind [`Kind::Unsupported`](crate::Kind::Unsupported) where a detached header ends within a logical
    /// block, and any error of `draw`.
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
            return Err(Error::unsupported(what).with_remedy("copy the header to a file, and destroy both"));
        }
        let area = Extent::new(0, end);
        let headers: ExtentSet =
            found.headers.iter().map(|header| header.widen(block).intersect(area)).collect();
        let zero_to = headers.iter().next().filter(|first| first.start == 0).map_or(0, |first| first.end);
        let material = ExtentSet::from(area).without(&headers);
        let mut steps = vec![Step::fingerprint(None)];
        for part in [material, headers] {
            for _ in 0..rounds {
                let pattern = Pattern::Random { seed: draw()? };
                steps.push(Step::write_ranges(pattern, part.clone()));
            }
        }
        let pattern = Pattern::Headless { seed: draw()?, zero_to };
        steps.push(Step::write(pattern.clone()));
        steps.push(Step::compare(pattern, None));
        steps.push(Step::fingerprint(None));
        let partial = area != Extent::new(0, device.size);
        Ok(Plan { method: DESTROY_KEY.into(), area, partial, steps, keys: Some(keys) })
    }
}

/// The method's name.
pub const DESTROY_KEY: &str = "destroy-key";

fn steps(
    passes: &[Pass],
    check: impl Fn(Option<&Step>) -> Option<Step>,
    draw: &mut dyn FnMut() -> Result<Seed>,
) -> Result<Vec<Step>> {
    let mut bytes_drawn = BTreeMap::new();
    let mut steps: Vec<Step> = Vec::new();
    for pass in passes {
        let mut byte = |number: u8| -> Result<u8> {
            if let Some(byte) = bytes_drawn.get(&number) {
                return Ok(*byte);
            }
            let byte = draw()?.0[0];
            bytes_drawn.insert(number, byte);
            Ok(byte)
        };
        let step = match pass {
            Pass::Constant(bytes) => Some(Step::write(Pattern::constant(bytes))),
            Pass::Byte(number) => Some(Step::write(Pattern::constant(&[byte(*number)?]))),
            Pass::Complement(number) => Some(Step::write(Pattern::constant(&[!byte(*number)?]))),
            Pass::Random => Some(Step::write(Pattern::Random { seed: draw()? })),
            Pass::Zero => Some(Step::write_zeroes()),
            Pass::Discard => Some(Step::discard()),
            Pass::Check => check(steps.last()),
        };
        steps.extend(step);
    }
    Ok(steps)
}

/// Compares with what this step leaves, or has found: after a discard, zeroes are asked for.
fn compare_with(last: &Step, sample: Option<Sample>) -> Option<Step> {
    let zeroes = last.discards().then(Pattern::zero);
    let expected = last.leaves().or_else(|| last.expected().cloned()).or(zeroes)?;
    Some(Step::compare(expected, sample))
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

    fn outline_of(name: &str, policy: Policy) -> Vec<String> {
        plan(&Method::named(name).unwrap(), policy).unwrap().steps.iter().map(Step::to_string).collect()
    }

    #[test]
    fn the_default_is_one_pass_and_a_check_of_it() {
        assert_eq!(
            outline_of("zero", Policy::Standard),
            ["survey, 4608 probes", "overwrite 0x00", "verify 0x00, 4608 probes"]
        );
        assert_eq!(outline_of("zero", Policy::None), ["overwrite 0x00"]);
    }

    #[test]
    fn of_a_thin_volume_only_what_is_not_zero_is_written() {
        let thin = |name: &str, policy| plan(&Method::named(name).unwrap(), policy).unwrap().on_thin(true);
        let outline_of = |name, policy| -> Vec<String> {
            thin(name, policy).unwrap().steps.iter().map(Step::to_string).collect()
        };
        let zero = "overwrite 0x00 where it was not zero";
        let read =
            ["survey, 4608 probes", "find what is not zero", zero, "verify 0x00, all of it", "discard"];
        assert_eq!(outline_of("zero", Policy::Standard), read);
        assert_eq!(outline_of("zero", Policy::None), ["find what is not zero", zero, "discard"]);
        // Whatever the method, at last all of it reads alike.
        let random = "overwrite random where it was not zero";
        assert_eq!(outline_of("random", Policy::None), ["find what is not zero", random, zero, "discard"]);
        let discard = ["survey, 4608 probes", "discard", "verify 0x00, 4608 probes"];
        assert_eq!(outline_of("discard", Policy::Standard), discard);
        let method = Method::named("zero").unwrap().offload_zeroes().unwrap();
        assert!(plan(&method, Policy::None).unwrap().on_thin(true).is_err());
        assert!(!thin("zero", Policy::None).unwrap().outline(&Method::named("zero").unwrap()).is_empty());
    }

    #[test]
    fn of_a_device_that_is_mostly_zeroes_the_rest_is_written_and_checked_as_ordered() {
        let outline_of = |name: &str, policy| -> Vec<String> {
            let plan = plan(&Method::named(name).unwrap(), policy).unwrap().skip_zeroes().unwrap();
            plan.steps.iter().map(Step::to_string).collect()
        };
        let zero = "overwrite 0x00 where it was not zero";
        let sampled = ["survey, 4608 probes", "find what is not zero", zero, "verify 0x00, 4608 probes"];
        assert_eq!(outline_of("zero", Policy::Standard), sampled);
        assert_eq!(outline_of("zero", Policy::Full).last().unwrap(), "verify 0x00, all of it");
        let random = "overwrite random where it was not zero";
        assert_eq!(outline_of("random", Policy::None), ["find what is not zero", random, zero]);
        let discard = plan(&Method::named("discard").unwrap(), Policy::Full).unwrap();
        let offload = Method::named("zero").unwrap().offload_zeroes().unwrap();
        for other in [discard, plan(&offload, Policy::None).unwrap()] {
            assert_eq!(other.skip_zeroes().unwrap_err().kind, crate::error::Kind::Usage);
        }
    }

    #[test]
    fn schemes_are_what_their_sources_say() {
        let shred = ["overwrite 0x55", "overwrite 0xaa", "overwrite random"];
        assert_eq!(outline_of("shred", Policy::None), shred);
        let dod3 = [
            "survey, 4608 probes",
            "overwrite 0x00",
            "overwrite 0xff",
            "overwrite random",
            "verify random, all of it",
        ];
        assert_eq!(outline_of("dod3", Policy::Full), dod3);
        let dod7 = ["0x01", "0xfe", "random", "0x03", "0x04", "0xfb", "random"];
        assert_eq!(outline_of("dod7", Policy::None), dod7.map(|pass| format!("overwrite {pass}")));
        assert_eq!(outline_of("gutmann", Policy::None).len(), 35);
        assert_eq!(
            outline_of("discard", Policy::Full),
            ["survey, 4608 probes", "discard", "verify 0x00, all of it"]
        );
    }

    #[test]
    fn each_random_pass_has_a_seed_of_its_own_and_the_check_expects_the_last() {
        let steps = plan(&Method::named("shred-random").unwrap(), Policy::Full).unwrap().steps;
        let random = |seed| Pattern::Random { seed: Seed([seed; 32]) };
        assert_eq!(steps[1], Step::write(random(1)));
        assert_eq!(steps[3], Step::write(random(3)));
        assert_eq!(steps[4], Step::compare(random(3), None));
    }

    #[test]
    fn zeroes_at_the_end_are_checked_and_can_be_handed_to_the_kernel() {
        let method = Method::named("random").unwrap().then_zero().offload_zeroes().unwrap();
        let steps: Vec<String> =
            plan(&method, Policy::Full).unwrap().steps.iter().map(Step::to_string).collect();
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
    fn passes_are_listed_by_hand() {
        let method = Method::from_list("0x00,0xff, 0x55aa,random").unwrap();
        assert_eq!(method.passes[2], Pass::Constant(vec![0x55, 0xaa].into()));
        for wrong in ["", "0x00,", "zero", "0x0", "random;0x00"] {
            assert!(Method::from_list(wrong).is_err(), "{wrong}");
        }
    }

    #[test]
    fn a_partial_area_is_whole_blocks_inside_the_device() {
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
