//! What may be said after a job, in words and numbers, and what may not.

use schemars::JsonSchema;
use serde::{Deserialize, Serialize};

use crate::device::Findings;
use crate::device::identity::{DeviceKind, Identity};
use crate::device::{Effect, Force, Layer, Thin};
use crate::engine::job::{JobProcess, JobReport, Resumption, Verification};
use crate::engine::step::StepReport;
use crate::luks::data::DataSample;
use crate::pattern::Pattern;
use crate::plan::{KeyPlan, Plan, Sample, Step};
use crate::range::Extent;
use crate::units::{bytes, percent, share};
use crate::verdict::Verdict;

/// What the job did, and what its verification proves.
pub fn claim(job: &JobReport, copies: &[String]) -> String {
    let area = format!("bytes {} ({})", job.plan.area, bytes(job.plan.area.len()));
    let verified =
        job.verification.as_ref().map_or("Nothing was read back.".into(), |check| verified(job, check));
    if let (Some(keys), Verdict::Wiped) = (&job.plan.keys, job.verdict) {
        return format!("{} {verified}", destroyed(keys, &area));
    }
    match job.verdict {
        Verdict::Surviving if job.unchanged_key_bytes > Some(0) => format!(
            "Of the key material in {area}, {} is what it was before.",
            bytes(job.unchanged_key_bytes.unwrap_or_default())
        ),
        Verdict::Wiped if !copies.is_empty() => format!(
            "{} {verified} But layers below keep copies, which may hold old data: on {}.",
            technique(job, &area),
            copies.join(", ")
        ),
        Verdict::Wiped => format!("{} {verified}", technique(job, &area)),
        Verdict::Verified if job.plan.steps.iter().any(|step| step.earlier_check().is_some()) => format!(
            "Of {area}: what the certificate's check had read was read again, and is what it should be. Then, \
             drawn anew: {verified}"
        ),
        Verdict::Verified => format!("Of {area}: {verified}"),
        Verdict::Residue => format!(
            "Of {area}, {} could not be written ({} of it cannot be read either) and {} could not be read \
             back: they may hold old data. What else there is was done. {verified}",
            bytes(job.residue.bytes()),
            bytes(job.residue_unreadable.bytes()),
            bytes(job.unreadable.bytes())
        ),
        Verdict::Surviving => {
            let kinds: Vec<&str> = job.surviving.kinds().into_iter().map(|(kind, _)| kind).collect();
            format!(
                "Of what was read of {area}, {} does not hold what it should, but {}.",
                bytes(job.surviving.bytes),
                kinds.join(", ")
            )
        }
        _ => format!("Nothing is claimed of {area}.{}", reached(job)),
    }
}

/// How far the passes came of a job that did not come to its end.
fn reached(job: &JobReport) -> String {
    let passes = job.steps.iter().filter(|report| report.step.writes() && report.bytes > 0);
    let pass = |report: &StepReport| {
        let done = report.done();
        let (first, last) = (done.iter().next(), done.iter().last());
        let places = first.zip(last).map_or(String::new(), |(first, last)| {
            format!(" in bytes {}", Extent::new(first.start, last.end))
        });
        let more = if report.covered.more { ", and more that is not listed" } else { "" };
        let flushed = if report.flushed { "" } else { ", and was not flushed" };
        format!("{} reached {}{places}{more}{flushed}", report.step, bytes(done.bytes()))
    };
    let passes: Vec<String> = passes.map(pass).collect();
    if passes.is_empty() { String::new() } else { format!(" The passes: {}.", passes.join("; ")) }
}

fn destroyed(keys: &KeyPlan, area: &str) -> String {
    let found = &keys.found;
    let version = found.version.map_or("a damaged LUKS".into(), |version| format!("a LUKS{version}"));
    let uuid = found.uuid.as_ref().map_or(String::new(), |uuid| format!(" {uuid}"));
    let of = keys.data_device.as_ref().map_or(String::new(), |device| format!(" of {device}"));
    let slots = match found.keyslots.len() {
        1 => "the one keyslot".into(),
        count => format!("all {count} keyslots"),
    };
    let material = if found.version.is_some() { slots } else { "whatever keyslots there were".into() };
    format!(
        "The keys of {version} volume{uuid}{of} were destroyed: {area} with {material} and every header were \
         overwritten and flushed, and no block of key material is what it was. Without a copy of the header \
         what was encrypted with them cannot be decrypted."
    )
}

fn technique(job: &JobReport, area: &str) -> String {
    if let Some(found) = job.found_bytes {
        return on_thin(job, area, found);
    }
    let passes: Vec<&Step> = job.plan.steps.iter().filter(|step| step.writes()).collect();
    let verb = if passes.iter().all(|step| step.written().is_some()) {
        "overwritten and flushed"
    } else {
        "treated and flushed"
    };
    let times = if passes.len() == 1 { "once".into() } else { format!("{} times", passes.len()) };
    let fewer = job.resumed.iter().fold(0u64, |sum, each| sum.saturating_add(each.fewer_passes_bytes));
    let but = match fewer.min(job.plan.area.len()) {
        0 => String::new(),
        fewer => format!(
            ", but {} of it, for all that is known, only by the passes since it went on",
            bytes(fewer)
        ),
    };
    let passes: Vec<String> = passes.iter().map(ToString::to_string).collect();
    format!("All of {area} was {verb} {times}{but}: {}.", passes.join(", "))
}

/// Only what was found was written; the discard behind the check is no technique.
fn on_thin(job: &JobReport, area: &str, found_bytes: u64) -> String {
    let patterns: Vec<String> =
        job.plan.steps.iter().filter_map(Step::written).map(ToString::to_string).collect();
    let returned =
        if job.plan.steps.iter().any(Step::discards) { ", and all of it was discarded then" } else { "" };
    format!(
        "Of {area}, all that was not zero ({}) was overwritten through the volume and flushed: {}{returned}. Blocks \
         that it once shared with a snapshot got new places by that, and are not among what was overwritten.",
        bytes(found_bytes),
        patterns.join(", ")
    )
}

/// What a thin volume's pool held before and after. What it did not give back, although the volume
/// did, is held by somebody else too.
pub fn pool(before: &Thin, after: &Thin) -> String {
    let returned = before.mapped_bytes.saturating_sub(after.mapped_bytes);
    let kept = after.pool_used_bytes.saturating_add(returned).saturating_sub(before.pool_used_bytes);
    let shared = if kept == 0 {
        String::new()
    } else {
        format!(
            " Of this volume's old blocks {} are held by a snapshot too, where they are as they were, or others \
             took as much of the pool meanwhile.",
            bytes(kept)
        )
    };
    format!(
        "The pool {} held {} before and {} after, of {}: what the rest of it once held is out of reach.{shared}",
        before.pool,
        bytes(before.pool_used_bytes),
        bytes(after.pool_used_bytes),
        bytes(after.pool_bytes)
    )
}

fn verified(job: &JobReport, check: &Verification) -> String {
    let read = bytes(check.bytes_read);
    match (check.sample, check.probes, check.bound) {
        (None, ..) if job.unreadable.is_empty() && job.residue.is_empty() => {
            format!("All of it was read ({read}), and every byte is what it should be.")
        }
        (Some(Sample { block_bytes, .. }), Some(probes), Some(bound)) => format!(
            "{probes} blocks of {} drawn at random and the fixed places were read ({read}), and all are \
             what they should be: with {} confidence at most {} of the blocks differ.",
            bytes(block_bytes),
            percent(bound.confidence_ppm * 1_000),
            percent(bound.differ_per_billion)
        ),
        _ => format!("{read} were read, and what could be read is what it should be."),
    }
}

/// What the claim does not cover. Never empty: no software sees everything.
pub fn limitations(plan: &Plan, identity: &Identity, findings: &Findings, direct: bool) -> Vec<String> {
    const ALWAYS: &str =
        "A device that lies about its cache or hides blocks cannot be found out by reading it.";
    let part = plan.partial && plan.keys.is_none();
    let part = part.then_some("Only a part of the device: the rest is as it was.");
    let keys = plan.keys.iter().flat_map(outside_of_keys);
    let found = of_layers(&findings.layers).chain(of_unseen(findings));
    let sentences = part
        .into_iter()
        .chain(of_device(identity))
        .chain(of_forced(findings))
        .chain(of_steps(plan, direct || !findings.indirect.is_empty()))
        .chain([ALWAYS]);
    keys.chain(found).chain(sentences.map(String::from)).collect()
}

fn applicable<const N: usize>(all: [(bool, &'static str); N]) -> impl Iterator<Item = &'static str> {
    all.into_iter().filter_map(|(applies, text)| applies.then_some(text))
}

/// What kind of device it is, and what that leaves open.
fn of_device(identity: &Identity) -> impl Iterator<Item = &'static str> {
    let kind = |kinds: &[DeviceKind]| kinds.contains(&identity.kind);
    applicable([
        (
            kind(&[DeviceKind::Image]),
            "An image file: the file system below it may keep copies (journal, snapshots, moved blocks).",
        ),
        (kind(&[DeviceKind::Loop]), "A loop device: what is below its backing file may keep copies."),
        (kind(&[DeviceKind::Partition]), "A partition: the rest of its disk is as it was."),
        (
            kind(&[DeviceKind::DeviceMapper, DeviceKind::Md]),
            "A mapping over other devices: snapshots, mirrors, thin pools and moved extents may keep copies.",
        ),
        (
            identity.thin.is_some(),
            "A thin volume: blocks that it ever shared with a snapshot are replaced, not overwritten; they, and \
             those that it gave back before (by a discard), may hold old data in the pool until that gives \
             them out again.",
        ),
        (
            kind(&[DeviceKind::Disk, DeviceKind::Partition]) && !identity.physical,
            "No drive of this machine that is known as one: of the media behind it nothing is known.",
        ),
        (
            kind(&[DeviceKind::Disk, DeviceKind::Partition]) && identity.physical,
            "What the drive hides from the host (HPA, DCO, AMA) was not looked for, and is as it was.",
        ),
        (
            !identity.has_name(),
            "It has no name of its own: this record fits any device of its size that holds the same.",
        ),
        (
            !kind(&[DeviceKind::Loop, DeviceKind::Image]) && identity.rotational == Some(false),
            "Flash: cells that the drive keeps aside are out of reach of any write from the host.",
        ),
        (
            identity.zoned.is_some(),
            "Shingled zones: the drive writes elsewhere first, and may keep copies in its cache zones.",
        ),
    ])
}

/// What the user overrode.
fn of_forced(findings: &Findings) -> impl Iterator<Item = &'static str> {
    let forced = |force| findings.forced.iter().any(|refusal| refusal.force == Some(force));
    applicable([
        (forced(Force::SharedFs), "Other hosts may have written to it at the same time."),
        (
            forced(Force::SameSerial),
            "Another disk has the same serial number: whether the two are one disk is not known.",
        ),
        (
            forced(Force::Unprobed),
            "What was on it before could not be read: whether other hosts use it is not known.",
        ),
        (
            forced(Force::SnapshotCow),
            "A snapshot's exception store: what was written to the origin during the wipe may have \
             landed behind it.",
        ),
    ])
}

/// What the work itself leaves open.
fn of_steps(plan: &Plan, direct: bool) -> impl Iterator<Item = &'static str> {
    let any = |is: fn(&Step) -> bool| plan.steps.iter().any(is);
    let checks = |is: fn(&Step) -> bool| plan.steps.iter().any(|step| step.expected().is_some() && is(step));
    applicable([
        (
            any(Step::writes_zeroes),
            "Write-zeroes is a command to the device: the media need not have been written.",
        ),
        (
            any(Step::discards) && !any(Step::covers_nonzero),
            "Discard guarantees nothing: the old data may still lie on the media.",
        ),
        (!direct, "Direct I/O was refused: what was read back may have come from the page cache."),
        (checks(|step| step.sample().is_some()), "A sample: a single stray block can go unseen."),
        (!checks(|_| true), "Nothing is read back."),
        (
            checks(|step| step.expected() == Some(&Pattern::zero())),
            "Zeroes look alike everywhere: aliased addresses cannot be seen, as a random pass would show them.",
        ),
    ])
}

/// The devices below that keep old data where a write does not reach.
pub fn copies(layers: &[Layer]) -> Vec<String> {
    let keeper = |layer: &Layer| match &layer.effect {
        Effect::KeepsCopies { on, .. } => Some(on.clone()),
        Effect::PassesThrough | Effect::Unknown => None,
    };
    layers.iter().filter_map(keeper).collect()
}

fn of_layers(layers: &[Layer]) -> impl Iterator<Item = String> {
    layers.iter().flat_map(|layer| {
        let Layer { device, kind, effect, limitations } = layer;
        let effect = match effect {
            Effect::PassesThrough => None,
            Effect::KeepsCopies { on, drain } => {
                Some(format!("{device} ({kind}) keeps copies of its data on {on}, which may be old: {drain}."))
            }
            Effect::Unknown => Some(format!(
                "{device} is a layer that efface does not know ({kind}): what it keeps elsewhere is not known."
            )),
        };
        let limitations = limitations.iter().map(move |each| format!("{device} ({kind}): {each}."));
        effect.into_iter().chain(limitations)
    })
}

/// Where a user, or a cache, could not be looked into.
fn of_unseen(findings: &Findings) -> impl Iterator<Item = String> {
    let unseen = findings.unseen.iter().map(|what| format!("Not all that may use it could be seen: {what}."));
    let indirect = findings.indirect.iter().map(|what| {
        format!("What was read back may have come from a page cache below, and not from the storage: {what}.")
    });
    unseen.chain(indirect)
}

/// What the layers below said afterwards and not before: a leg that was lost in the middle.
pub fn changed_layers(after: Option<&[Layer]>, findings: &Findings) -> Vec<String> {
    let before: Vec<String> = of_layers(&findings.layers).collect();
    let after = of_layers(after.unwrap_or_default()).filter(|sentences| !before.contains(sentences));
    after.map(|sentences| format!("Since the job began: {sentences}")).collect()
}

/// What is known of the data whose keys are gone.
fn data(keys: &KeyPlan) -> String {
    match keys.data {
        Some(_) if keys.found.detached && keys.data_device.is_none() => {
            "The header stood alone: its data is elsewhere and as it was, and was not looked at.".into()
        }
        Some(DataSample { blocks: 0, .. }) => "No data lies behind the header.".into(),
        Some(DataSample { blocks, random, uniform, unreadable }) => {
            let unreadable = match unreadable {
                0 => String::new(),
                some => format!(", {some} could not be read"),
            };
            format!(
                "The data itself is as it was. Of {blocks} blocks of 4 KiB that were looked at in it {random} look \
                 random, as encrypted and compressed data does, and {uniform} hold one byte over and \
                 over{unreadable}: that the rest is encrypted is not known."
            )
        }
        None => {
            "The data itself is as it was, and was not looked at: that it is encrypted is not known.".into()
        }
    }
}

/// What destroying the keys on a device does not reach, and what to do about it.
fn outside_of_keys(keys: &KeyPlan) -> Vec<String> {
    let mut sentences: Vec<String> = keys.found.notes.iter().map(|note| format!("Found: {note}.")).collect();
    sentences.push(data(keys));
    sentences.push(
        "Copies of the header open it still: backups (luksHeaderBackup), clones, snapshots, an old RAID \
         member, a key that was read from memory. Find them and destroy them too."
            .into(),
    );
    sentences.push(match keys.encrypted_since_provisioning {
        true => "That nothing was ever stored on it unencrypted is what somebody said.".into(),
        false => {
            "Whether anything was stored on it before it was encrypted is not known: that would still be \
                  there. Overwrite it where that may be (efface wipe)."
                .into()
        }
    });
    if let Some(key) = &keys.external_key {
        sentences.push(format!(
            "The secret {key} is kept elsewhere and was not touched: with a copy of the header it opens the \
             data. Delete it there (openstack secret delete)."
        ));
    }
    sentences
}

/// That the work was done by more than one process, and what that means.
fn resumption_limitation(each: &Resumption, steps: usize) -> String {
    let below = match (each.believed, each.lost_flushed) {
        (true, true) => "nobody had written since, and yet of what had been flushed last some was lost: the \
                         device does not keep what it says that it has. All that was done before was read again"
            .into(),
        (true, false) => format!(
            "nobody had written since, and the last {} of what was done before were read again",
            bytes(each.reread_bytes)
        ),
        (false, _) if each.reread_bytes == 0 => {
            "whether anybody had written since is not known, so that step began again".into()
        }
        (false, _) => {
            "whether anybody had written since is not known, so all that this step had done was read again; \
                what others wrote in between went through no earlier step"
                .into()
        }
    };
    let differing = match each.differing_bytes {
        0 => "nothing of it differed".into(),
        some => format!("{} differed and were done anew", bytes(some)),
    };
    let fewer = match each.fewer_passes_bytes {
        0 => String::new(),
        some => format!("; {} did not hold what the passes before had left", bytes(some)),
    };
    let process = |process: &Option<JobProcess>| match process {
        Some(JobProcess { pid, boot_id }) => format!(" (process {pid} of boot {boot_id})"),
        None => String::new(),
    };
    format!(
        "The job ended early in step {} of {steps}{}, and went on from byte {}{}: {below}; {differing}{fewer}.",
        each.step + 1,
        process(&each.earlier),
        each.upto,
        process(&each.now)
    )
}

/// What was measured and weakens the claim.
pub fn measured(job: &JobReport, foreign_writes_bytes: Option<u64>) -> Vec<String> {
    // Of keys every block of the material is compared with what it was.
    let before = job.before.filter(|before| before.expected_bytes > 0 && job.plan.keys.is_none());
    let before = before.map(|before| {
        let share = share(before.expected_bytes, before.read_bytes);
        format!(
            "Before the first pass {share} of what was read already was what the read-back expects: of that \
             it proves nothing."
        )
    });
    let resumed = job.resumed.iter().map(|each| resumption_limitation(each, job.plan.steps.len()));
    let foreign = match foreign_writes_bytes {
        Some(0) => None,
        Some(count) => Some(format!("Others wrote {} to the device during the job.", bytes(count))),
        None if job.plan.writes() => Some("Whether others wrote to it during the job is not known.".into()),
        None => None,
    };
    before.into_iter().chain(resumed).chain(foreign).collect()
}

/// The category of NIST SP 800-88 Rev. 2 that a plan can reach on the media.
#[derive(Clone, Copy, PartialEq, Eq, Debug, Serialize, Deserialize, JsonSchema)]
#[serde(rename_all = "snake_case")]
pub enum Category {
    /// All that the user can address is overwritten; no overwrite by the host is more.
    Clear,
    /// A part of it is: by order, or since some blocks cannot be written.
    Partial,
    None,
}

impl Category {
    pub fn of(plan: &Plan, identity: &Identity) -> Category {
        let media = matches!(identity.kind, DeviceKind::Disk | DeviceKind::Partition) && identity.physical;
        let checked = plan.steps.iter().any(|step| step.expected().is_some());
        let mut passes = plan.steps.iter().filter(|step| step.writes()).peekable();
        let whole = |step: &Step| step.written().is_some() && step.covers_area();
        let overwritten = passes.peek().is_some() && passes.all(whole);
        // That a destroyed key is a purge takes more than can be known here.
        match media && overwritten && checked && plan.keys.is_none() {
            false => Category::None,
            true if plan.partial || identity.kind == DeviceKind::Partition => Category::Partial,
            true => Category::Clear,
        }
    }

    /// The category that was reached.
    pub fn achieved(job: &JobReport, identity: &Identity) -> Category {
        match (job.verdict, Category::of(&job.plan, identity)) {
            (Verdict::Wiped, category) => category,
            (Verdict::Residue, Category::Clear | Category::Partial) => Category::Partial,
            _ => Category::None,
        }
    }

    pub fn word(self) -> &'static str {
        match self {
            Category::Clear => "clear",
            Category::Partial => "partial",
            Category::None => "none",
        }
    }

    pub fn describe(self) -> &'static str {
        match self {
            Category::Clear => "clear (NIST SP 800-88 Rev. 2), where every pass ends well",
            Category::Partial => "partial: a part of the media, where every pass ends well",
            Category::None => "none of NIST SP 800-88's categories, for the media behind it",
        }
    }
}
