//! What is ordered of a device: the same for `wipe` and for `plan`, and kept in a plan's file.

use clap::builder::PossibleValuesParser;
use clap::{Args, Command, FromArgMatches, ValueEnum};
use serde::{Deserialize, Serialize};

use super::arguments::{share_ppb, share_ppm, size};
use crate::device::Force;
use crate::device::identity::{Expected, Identity};
use crate::error::{Kind, Result};
use crate::io::Geometry;
use crate::pattern::Seed;
use crate::plan::{Device, KeyPlan, Method, Plan, Policy, SCHEMES};
use crate::range::Extent;

#[derive(Args, Clone, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct Order {
    /// What to write
    #[arg(long, default_value = "zero", value_name = "NAME", hide_possible_values = true,
          value_parser = PossibleValuesParser::new(SCHEMES.iter().map(|scheme| scheme.name)),
          long_help = methods())]
    method: String,

    /// Passes of your own, as in 0x00,0xff,0x55aa,random
    #[arg(long, value_name = "LIST", conflicts_with = "method")]
    passes: Option<String>,

    /// Add a pass of zeroes, so that the next owner reads zeroes
    #[arg(long)]
    final_zero: bool,

    /// Write the zeroes, or let the kernel make them (reported as write-zeroes, never as overwrite)
    #[arg(long, default_value = "write", value_name = "HOW")]
    zero_with: ZeroWith,

    /// How much to read back
    #[arg(long, default_value = "standard", value_name = "POLICY", conflicts_with = "confidence")]
    verify: Verification,

    #[command(flatten)]
    bound: Bound,

    /// Destroy the keys where the device is a LUKS volume, as destroy-key does, and overwrite the rest
    #[arg(long, conflicts_with_all = ["offset", "size"])]
    prefer_key: bool,

    #[command(flatten)]
    pub part: Part,

    /// Override one kind of refusal; what is mounted or runs the system stays refused
    #[arg(long, value_name = "KIND")]
    force: Vec<ForceKind>,
}

/// Which part of the device, and whether it is one.
#[derive(Args, Clone, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct Part {
    /// Begin at this byte (100MiB)
    #[arg(long, value_parser = size, value_name = "BYTES")]
    offset: Option<u64>,

    /// Go no further than this many bytes (100MiB)
    #[arg(long, value_parser = size, value_name = "BYTES")]
    size: Option<u64>,

    /// The targets are image files, not devices
    #[arg(long)]
    pub image: bool,
}

#[derive(Clone, Copy, PartialEq, Eq, clap::ValueEnum, Serialize, Deserialize)]
#[serde(rename_all = "kebab-case")]
enum ZeroWith {
    Write,
    Offload,
}

#[derive(Clone, Copy, clap::ValueEnum, Serialize, Deserialize)]
#[serde(rename_all = "kebab-case")]
pub enum Verification {
    /// Read nothing back
    None,
    /// 4,608 probes: 99 % confidence that at most 0.1 % of the blocks differ
    Standard,
    /// 69,120 probes: 99.9 % confidence that at most 0.01 % differ
    High,
    /// Read everything
    Full,
    /// A tenth in 2,000 places, as NIST SP 800-88 Rev. 1 had it (withdrawn)
    NistR1,
}

/// How much to read, by what it shall prove.
#[derive(Args, Clone, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct Bound {
    /// Read as many probes as it takes to say this: with such confidence (0.999) …
    #[arg(long, value_name = "SHARE", value_parser = share_ppm, requires = "max_unwiped")]
    confidence: Option<u64>,

    /// … at most such a share of the blocks differs (0.0001)
    #[arg(long, value_name = "SHARE", value_parser = share_ppb, requires = "confidence")]
    max_unwiped: Option<u64>,
}

impl Bound {
    pub fn policy(&self, otherwise: Verification) -> Policy {
        match (self.confidence, self.max_unwiped) {
            (Some(confidence_ppm), Some(unwiped_ppb)) => Policy::Claim { confidence_ppm, unwiped_ppb },
            _ => otherwise.into(),
        }
    }
}

impl From<Verification> for Policy {
    fn from(verification: Verification) -> Policy {
        match verification {
            Verification::None => Policy::None,
            Verification::Standard => Policy::Standard,
            Verification::High => Policy::High,
            Verification::Full => Policy::Full,
            Verification::NistR1 => Policy::NistR1,
        }
    }
}

#[derive(Clone, Copy, clap::ValueEnum, Serialize, Deserialize)]
#[serde(rename_all = "kebab-case")]
pub enum ForceKind {
    /// A file system that other hosts may have mounted (GFS2, OCFS2, VMFS)
    SharedFs,
    /// A closed snapshot's exception store, beside its snapshot
    SnapshotCow,
    /// A device whose content cannot be read
    Unprobed,
    /// Processes, namespaces or devices that may use it, and cannot be looked into
    Unseen,
    /// A layer below that keeps another copy of the data: the wipe ends with 5
    Copies,
    /// A disk of the same serial number, model and size, which may be the same disk
    SameSerial,
}

impl From<ForceKind> for Force {
    fn from(kind: ForceKind) -> Force {
        match kind {
            ForceKind::SharedFs => Force::SharedFs,
            ForceKind::SnapshotCow => Force::SnapshotCow,
            ForceKind::Unprobed => Force::Unprobed,
            ForceKind::Unseen => Force::Unseen,
            ForceKind::Copies => Force::Copies,
            ForceKind::SameSerial => Force::SameSerial,
        }
    }
}

/// As it is written on the command line.
fn name(value: &impl ValueEnum) -> Option<String> {
    value.to_possible_value().map(|value| value.get_name().into())
}

fn methods() -> String {
    let line = |scheme: &crate::plan::Scheme| format!("  {:13} {}", scheme.name, scheme.about);
    let lines: Vec<String> = SCHEMES.iter().map(line).collect();
    format!("What to write:\n{}", lines.join("\n"))
}

impl Part {
    pub fn area(&self, device: &Device) -> Result<Extent> {
        device.area(self.offset, self.size)
    }
}

/// What planning needs of a target.
pub fn device(geometry: &Geometry) -> Device {
    let &Geometry { size, logical_block, physical_block, .. } = geometry;
    Device { size, logical_block, physical_block }
}

impl Order {
    /// Of an order that was read from a file: whether the same could be given on a command line.
    pub fn check(&self) -> std::result::Result<(), String> {
        let command = Order::augment_args(Command::new("order").no_binary_name(true));
        let read = command
            .try_get_matches_from(self.arguments())
            .and_then(|matches| Order::from_arg_matches(&matches))
            .map_err(|error| {
                let text = error.to_string();
                text.lines().next().unwrap_or_default().trim_start_matches("error: ").to_string()
            })?;
        // What cannot be said together is not said here either.
        if serde_json::to_value(&read).ok() != serde_json::to_value(self).ok() {
            return Err("its options exclude one another".into());
        }
        Ok(())
    }

    fn arguments(&self) -> Vec<String> {
        let Order { method, passes, final_zero, zero_with, verify, bound, prefer_key, part, force } = self;
        let share = |parts: &u64, digits: u32| {
            let whole = 10_u64.pow(digits);
            format!("{}.{:0width$}", parts / whole, parts % whole, width = digits as usize)
        };
        let mut options = vec![
            ("passes", passes.clone()),
            ("zero-with", name(zero_with)),
            ("confidence", bound.confidence.map(|ppm| share(&ppm, 6))),
            ("max-unwiped", bound.max_unwiped.map(|ppb| share(&ppb, 9))),
            ("offset", part.offset.map(|bytes| bytes.to_string())),
            ("size", part.size.map(|bytes| bytes.to_string())),
        ];
        options.extend(passes.is_none().then(|| ("method", Some(method.clone()))));
        options.extend(bound.confidence.is_none().then(|| ("verify", name(verify))));
        options.extend(force.iter().map(|kind| ("force", name(kind))));
        let options =
            options.into_iter().filter_map(|(option, value)| Some(format!("--{option}={}", value?)));
        let flags = [("final-zero", final_zero), ("prefer-key", prefer_key), ("image", &part.image)];
        let flags = flags.into_iter().filter(|(_, set)| **set).map(|(flag, _)| format!("--{flag}"));
        options.chain(flags).collect()
    }

    pub fn method(&self) -> Result<Method> {
        let mut method = match &self.passes {
            Some(list) => Method::from_list(list)?,
            None => Method::named(&self.method)?,
        };
        if self.final_zero {
            method = method.then_zero();
        }
        if self.zero_with == ZeroWith::Offload {
            method = method.offload_zeroes()?;
        }
        method.allows(self.policy())?;
        Ok(method)
    }

    fn policy(&self) -> Policy {
        self.bound.policy(self.verify)
    }

    pub fn force(&self) -> Vec<Force> {
        self.force.iter().map(|kind| Force::from(*kind)).collect()
    }

    /// `keys` finds the volume on the device, where its keys are preferred.
    pub fn plan(
        &self,
        method: &Method,
        identity: &Identity,
        geometry: &Geometry,
        keys: impl FnOnce() -> Result<KeyPlan>,
    ) -> Result<Plan> {
        let device = device(geometry);
        let overwrite = || {
            let area = self.part.area(&device)?;
            let plan = Plan::new(method, self.policy(), area, &device, &mut Seed::from_kernel)?;
            match &identity.thin {
                Some(thin) => plan.on_thin(thin.discards),
                None => Ok(plan),
            }
        };
        let plan = match self.prefer_key.then(keys) {
            None => overwrite(),
            Some(Ok(keys)) if keys.found.version.is_none() => overwrite().map(|plan| Plan {
                method: format!("{} (no key was destroyed: its LUKS header is damaged)", plan.method),
                ..plan
            }),
            Some(Ok(keys)) => Plan::destroy_key(keys, 1, &device, &mut Seed::from_kernel),
            // What has no key that could be destroyed is overwritten, and the record says why.
            Some(Err(why)) if why.kind == Kind::Unsupported => overwrite().map(|plan| Plan {
                method: format!("{} (no key was destroyed: {})", plan.method, why.what()),
                ..plan
            }),
            Some(Err(error)) => Err(error),
        };
        plan.map_err(|error| error.on(&identity.path))
    }
}

/// What the disk has to be.
#[derive(Args)]
pub struct Expect {
    /// Only a disk with this serial number
    #[arg(long, value_name = "SERIAL")]
    expect_serial: Option<String>,

    /// Only a disk with this world wide name
    #[arg(long, value_name = "WWN")]
    expect_wwn: Option<String>,

    /// Only a disk of this model
    #[arg(long, value_name = "MODEL")]
    expect_model: Option<String>,

    /// Only a disk of exactly this size
    #[arg(long, value_parser = size, value_name = "BYTES")]
    expect_size: Option<u64>,
}

impl Expect {
    pub fn expected(&self) -> Expected {
        Expected {
            serial: self.expect_serial.clone(),
            wwn: self.expect_wwn.clone(),
            model: self.expect_model.clone(),
            size_bytes: self.expect_size,
        }
    }
}
