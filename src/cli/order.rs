//! Arguments that `wipe`, `plan` and `verify` share: target, method and verification.

use clap::Args;
use clap::builder::PossibleValuesParser;

use super::arguments::{share_ppb, share_ppm, size};
use crate::device::Force;
use crate::device::identity::Expected;
use crate::error::{Error, Result};
use crate::plan::{Device, PURGE, Policy, SCHEMES};
use crate::range::Extent;
use crate::session::purge::PurgeOrder;
use crate::session::{self, Passes};

#[derive(Args)]
#[command(next_help_heading = "Method")]
pub struct OrderArgs {
    /// Choose the overwrite method
    #[arg(long, default_value = "zero", value_name = "NAME", hide_possible_values = true,
          value_parser = PossibleValuesParser::new(SCHEMES.iter().map(|scheme| scheme.name).chain([PURGE])),
          long_help = methods())]
    method: String,

    /// Use a custom list of passes, as in 0x00,0xff,0x55aa,random
    #[arg(long, value_name = "LIST", conflicts_with = "method")]
    passes: Option<String>,

    /// Add a final pass of zeroes
    #[arg(long)]
    final_zero: bool,

    /// Write zeroes from memory, or offload to the kernel (recorded as write-zeroes, not as overwrite)
    #[arg(long, default_value = "write", value_name = "HOW")]
    zero_with: ZeroWith,

    /// Read first, and overwrite only what is not zero, at last with zeroes (recorded as that)
    #[arg(long, conflicts_with = "zero_with")]
    skip_zeroes: bool,

    /// Set how much to read back
    #[arg(
        long,
        help_heading = "Verification",
        default_value = "standard",
        value_name = "POLICY",
        conflicts_with = "confidence"
    )]
    verify: Policy,

    #[command(flatten)]
    bound: BoundArgs,

    /// Destroy the keys of a LUKS volume (as destroy-key); overwrite other devices
    #[arg(long, help_heading = "Method", conflicts_with_all = ["offset", "size"])]
    prefer_key: bool,

    #[command(flatten)]
    part: RangeArgs,

    /// Override one kind of refusal (mounted and system disks stay refused)
    #[arg(long, help_heading = "Target", value_name = "KIND")]
    force: Vec<Force>,
}

/// The byte range of the device, and the kind of target.
#[derive(Args)]
#[command(next_help_heading = "Target")]
pub struct RangeArgs {
    /// Start at this byte offset (100MiB)
    #[arg(long, value_parser = size, value_name = "BYTES")]
    offset: Option<u64>,

    /// Limit the range to this many bytes (100MiB)
    #[arg(long, value_parser = size, value_name = "BYTES")]
    size: Option<u64>,

    /// Treat the targets as image files
    #[arg(long)]
    pub image: bool,
}

#[derive(Clone, Copy, PartialEq, Eq, clap::ValueEnum)]
enum ZeroWith {
    Write,
    Offload,
}

/// The sample size, given as the bound to prove.
#[derive(Args)]
#[command(next_help_heading = "Verification")]
pub struct BoundArgs {
    /// Read enough probes for this confidence (0.999) …
    #[arg(long, value_name = "SHARE", value_parser = share_ppm, requires = "max_unwiped")]
    confidence: Option<u64>,

    /// … that at most this share of the blocks differs (0.0001)
    #[arg(long, value_name = "SHARE", value_parser = share_ppb, requires = "confidence")]
    max_unwiped: Option<u64>,
}

impl BoundArgs {
    pub fn policy(&self, otherwise: Policy) -> Policy {
        match (self.confidence, self.max_unwiped) {
            (Some(confidence_ppm), Some(unwiped_ppb)) => Policy::Claim { confidence_ppm, unwiped_ppb },
            _ => otherwise,
        }
    }
}

fn methods() -> String {
    let line = |scheme: &crate::plan::Scheme| format!("  {:13} {}", scheme.name, scheme.about);
    let purge = format!("  {PURGE:13} the drive's own commands (plan alone; efface purge carries it out)");
    let lines: Vec<String> = SCHEMES.iter().map(line).chain([purge]).collect();
    format!("Choose the overwrite method:\n{}", lines.join("\n"))
}

impl RangeArgs {
    pub fn area(&self, device: &Device) -> Result<Extent> {
        device.area(self.offset, self.size)
    }
}

impl OrderArgs {
    pub fn order(&self) -> session::Order {
        let OrderArgs {
            method,
            passes,
            final_zero,
            zero_with,
            skip_zeroes,
            verify,
            bound,
            prefer_key,
            part,
            force,
        } = self;
        session::Order {
            passes: match passes {
                Some(list) => Passes::List(list.clone()),
                None => Passes::Method(method.clone()),
            },
            final_zero: *final_zero,
            offload_zeroes: *zero_with == ZeroWith::Offload,
            skip_zeroes: *skip_zeroes,
            policy: bound.policy(*verify),
            prefer_key: *prefer_key,
            offset: part.offset,
            size: part.size,
            image: part.image,
            force: force.clone(),
        }
    }
}

impl OrderArgs {
    /// `None` where a wipe is asked for.
    ///
    /// # Errors
    /// A usage error where a purge is asked for with what only a wipe has.
    pub fn purge(&self) -> Result<Option<PurgeOrder>> {
        let order = self.order();
        if order.passes != Passes::Method(PURGE.into()) {
            return Ok(None);
        }
        let force = order.force.clone();
        let alone = session::Order { passes: order.passes.clone(), force, ..session::Order::default() };
        if order != alone {
            return Err(Error::usage(
                "--method purge: a drive erases itself, and the options of a wipe do not apply",
            )
            .with_remedy("leave them out; efface purge --help shows those of a purge"));
        }
        Ok(Some(PurgeOrder { force: order.force, ..PurgeOrder::default() }))
    }
}

/// The identity that the disk must have.
#[derive(Args)]
#[command(next_help_heading = "Target")]
pub struct ExpectArgs {
    /// Refuse a disk without this serial number
    #[arg(long, value_name = "SERIAL")]
    expect_serial: Option<String>,

    /// Refuse a disk without this world wide name
    #[arg(long, value_name = "WWN")]
    expect_wwn: Option<String>,

    /// Refuse a disk of another model
    #[arg(long, value_name = "MODEL")]
    expect_model: Option<String>,

    /// Refuse a disk of another size
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
