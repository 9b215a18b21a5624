//! What is ordered of a device, as `wipe` and `plan` take it from the command line.

use clap::Args;
use clap::builder::PossibleValuesParser;

use super::arguments::{share_ppb, share_ppm, size};
use crate::device::Force;
use crate::device::identity::Expected;
use crate::error::Result;
use crate::plan::{Device, Policy, SCHEMES};
use crate::range::Extent;
use crate::session::{self, Passes};

#[derive(Args)]
pub struct OrderArgs {
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
    verify: VerifyLevel,

    #[command(flatten)]
    bound: BoundArgs,

    /// Destroy the keys where the device is a LUKS volume, as destroy-key does, and overwrite the rest
    #[arg(long, conflicts_with_all = ["offset", "size"])]
    prefer_key: bool,

    #[command(flatten)]
    part: RangeArgs,

    /// Override one kind of refusal; what is mounted or runs the system stays refused
    #[arg(long, value_name = "KIND")]
    force: Vec<ForceArg>,
}

/// Which part of the device, and whether it is one.
#[derive(Args)]
pub struct RangeArgs {
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

#[derive(Clone, Copy, PartialEq, Eq, clap::ValueEnum)]
enum ZeroWith {
    Write,
    Offload,
}

#[derive(Clone, Copy, clap::ValueEnum)]
pub enum VerifyLevel {
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
#[derive(Args)]
pub struct BoundArgs {
    /// Read as many probes as it takes to say this: with such confidence (0.999) …
    #[arg(long, value_name = "SHARE", value_parser = share_ppm, requires = "max_unwiped")]
    confidence: Option<u64>,

    /// … at most such a share of the blocks differs (0.0001)
    #[arg(long, value_name = "SHARE", value_parser = share_ppb, requires = "confidence")]
    max_unwiped: Option<u64>,
}

impl BoundArgs {
    pub fn policy(&self, otherwise: VerifyLevel) -> Policy {
        match (self.confidence, self.max_unwiped) {
            (Some(confidence_ppm), Some(unwiped_ppb)) => Policy::Claim { confidence_ppm, unwiped_ppb },
            _ => otherwise.into(),
        }
    }
}

impl From<VerifyLevel> for Policy {
    fn from(verification: VerifyLevel) -> Policy {
        match verification {
            VerifyLevel::None => Policy::None,
            VerifyLevel::Standard => Policy::Standard,
            VerifyLevel::High => Policy::High,
            VerifyLevel::Full => Policy::Full,
            VerifyLevel::NistR1 => Policy::NistR1,
        }
    }
}

#[derive(Clone, Copy, clap::ValueEnum)]
pub enum ForceArg {
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

impl From<ForceArg> for Force {
    fn from(kind: ForceArg) -> Force {
        match kind {
            ForceArg::SharedFs => Force::SharedFs,
            ForceArg::SnapshotCow => Force::SnapshotCow,
            ForceArg::Unprobed => Force::Unprobed,
            ForceArg::Unseen => Force::Unseen,
            ForceArg::Copies => Force::Copies,
            ForceArg::SameSerial => Force::SameSerial,
        }
    }
}

fn methods() -> String {
    let line = |scheme: &crate::plan::Scheme| format!("  {:13} {}", scheme.name, scheme.about);
    let lines: Vec<String> = SCHEMES.iter().map(line).collect();
    format!("What to write:\n{}", lines.join("\n"))
}

impl RangeArgs {
    pub fn area(&self, device: &Device) -> Result<Extent> {
        device.area(self.offset, self.size)
    }
}

impl OrderArgs {
    pub fn order(&self) -> session::Order {
        let OrderArgs { method, passes, final_zero, zero_with, verify, bound, prefer_key, part, force } =
            self;
        session::Order {
            passes: match passes {
                Some(list) => Passes::List(list.clone()),
                None => Passes::Method(method.clone()),
            },
            final_zero: *final_zero,
            offload_zeroes: *zero_with == ZeroWith::Offload,
            policy: bound.policy(*verify),
            prefer_key: *prefer_key,
            offset: part.offset,
            size: part.size,
            image: part.image,
            force: force.iter().map(|kind| Force::from(*kind)).collect(),
        }
    }
}

/// What the disk has to be.
#[derive(Args)]
pub struct ExpectArgs {
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

impl ExpectArgs {
    pub fn expected(&self) -> Expected {
        Expected {
            serial: self.expect_serial.clone(),
            wwn: self.expect_wwn.clone(),
            model: self.expect_model.clone(),
            size_bytes: self.expect_size,
        }
    }
}
