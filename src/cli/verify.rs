//! `efface verify`: the read-only check of a device against a pattern or a certificate.

use std::ffi::OsString;
use std::path::{Path, PathBuf};
use std::time::{Duration, Instant};

use clap::Args;

use super::evidence::EvidenceArgs;
use super::order::{BoundArgs, RangeArgs};
use super::output::{OutputArgs, TerminalObserver};
use super::wipe::IoArgs;
use crate::device::guard::Examined;
use crate::device::identity::difference;
use crate::device::{Tree, guard, select};
use crate::engine::fleet::{OpenDisk, Parallel};
use crate::error::{Error, Result};
use crate::pattern::Pattern;
use crate::plan::{Device, Plan, Policy};
use crate::printable::printable_path;
use crate::progress::stderr_line;
use crate::record::certificate::Certificate;
use crate::record::sign::PublicKeys;
use crate::record::{Assignment, Subject};
use crate::session::{self, Observer, RunContext, SessionJob};
use crate::verdict::{EXIT_CODES, Verdict};

/// How long to wait for a ledger that another process has locked.
const LEDGER_WAIT: Duration = Duration::from_secs(10);

#[derive(Args)]
#[command(after_help = EXIT_CODES)]
pub struct VerifyArgs {
    /// Block device by path, serial:… or wwn:… (a file with --image)
    #[arg(value_name = "DEVICE")]
    device: OsString,

    /// Expect this pattern: zero, 0x55aa, or random:SEED with the seed that the wipe reported
    #[arg(
        long,
        help_heading = "Verification",
        value_name = "PATTERN",
        required_unless_present = "certificate"
    )]
    expect: Option<Pattern>,

    /// Check the device against this certificate: its identity and the claimed content
    #[arg(long, help_heading = "Verification", value_name = "FILE", conflicts_with_all = ["expect", "policy", "BoundArgs", "offset", "size"])]
    certificate: Option<PathBuf>,

    /// Require a signature by this public key, or by one of this directory (*.pub)
    #[arg(long, help_heading = "Verification", value_name = "PATH", requires = "certificate")]
    public_key: Vec<PathBuf>,

    /// Set how much to read
    #[arg(
        long,
        help_heading = "Verification",
        default_value = "standard",
        value_name = "POLICY",
        conflicts_with = "confidence"
    )]
    policy: Policy,

    #[command(flatten)]
    bound: BoundArgs,

    #[command(flatten)]
    part: RangeArgs,

    #[command(flatten)]
    transfer: IoArgs,

    #[command(flatten)]
    keep: EvidenceArgs,

    #[command(flatten)]
    output: OutputArgs,
}

impl VerifyArgs {
    pub fn run(self) -> Result<Verdict> {
        if self.policy.reads_nothing() {
            return Err(
                Error::usage("--policy none would read nothing").with_remedy("choose standard, high or full")
            );
        }
        let mut screen = TerminalObserver::new(self.output.options()?, true);
        self.transfer.set_priority()?;
        let (details, evidence) = self.keep.prepare(1, Instant::now() + LEDGER_WAIT)?;
        let keys = PublicKeys::read(&self.public_key)?;
        let read = |path| Certificate::read(path, &keys).map(|certificate| (path, certificate));
        let certificate = self.certificate.as_deref().map(read).transpose()?;
        let tree = Tree::real();
        let path = select(&tree, &self.device)?;
        let target = guard::examine(&tree, &path, self.part.image)?;
        let plan = match &certificate {
            Some((file, certificate)) => self.replay(file, certificate, &target),
            None => self.expected(&target),
        };
        let plan = plan.map_err(|error| error.on(&path))?;
        let settings = self.transfer.settings()?;
        settings.check(&target.geometry())?;
        let (identity, findings) = (target.identity().clone(), target.findings().clone());
        let subject = Subject { device: path.clone(), identity, findings, counter: None };
        let depth = settings.depth_max();
        let assignment = Assignment { method: plan.method.clone(), details };
        let open: OpenDisk = Box::new(move || target.open(depth));
        let job = SessionJob::new(subject, open, plan);
        let (stop, parallel) = (screen.begin(), Parallel::default());
        let shared =
            RunContext { assignment: &assignment, parallel, settings: &settings, stop: &stop, evidence };
        let outcome = session::run(vec![job], Vec::new(), &[path], shared, &mut screen);
        Ok(screen.end(&outcome))
    }

    fn expected(&self, target: &Examined) -> Result<Plan> {
        let expect = self.expect.clone().expect("required without a certificate");
        let device = Device::from(&target.geometry());
        let area = self.part.area(&device)?;
        Ok(Plan::check(expect, self.bound.policy(self.policy), area, &device))
    }

    /// The identity first, then what it says of the device: its own places again, and fresh ones. That
    /// an unsigned certificate fits proves the device, and not who wrote the certificate.
    fn replay(&self, file: &Path, certificate: &Certificate, target: &Examined) -> Result<Plan> {
        if !self.output.is_quiet() {
            stderr_line(format_args!("{}: {}", printable_path(file), certificate.signed));
            if let Some(unchecked) = certificate.record.unchecked() {
                stderr_line(format_args!("{}: {unchecked}", printable_path(file)));
            }
        }
        let record = &certificate.record;
        let says_nothing = || {
            Error::refused(format!("its certificate claims nothing of it: {}", record.verdict.word()))
                .with_remedy("there is nothing to check; wipe it")
        };
        let (Some(job), Some(identity)) = (&record.job, &record.identity) else { return Err(says_nothing()) };
        let claims = matches!(record.verdict, Verdict::Wiped | Verdict::Verified | Verdict::Residue);
        let (true, Some(plan)) = (claims, job.replay()) else { return Err(says_nothing()) };
        let words = ["the certificate says", "it is"];
        if let Some(difference) = difference(&identity.medium(), &target.identity().medium(), words) {
            return Err(Error::refused(format!("it is not the device of the certificate: {difference}"))
                .with_remedy("see which disk is which: efface list"));
        }
        let blocks = (job.geometry.logical_block, target.geometry().logical_block);
        if blocks.0 != blocks.1 {
            let what =
                format!("its logical blocks have {} bytes, and had {} when it was wiped", blocks.1, blocks.0);
            return Err(Error::refused(what).with_remedy("format it back to the blocks it had"));
        }
        Ok(Plan { method: format!("replay of certificate {}", record.id), ..plan })
    }
}
