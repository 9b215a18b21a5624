//! The sentences of a record: the claim of a job, its limitations and its NIST SP 800-88 category.

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

/// The claim: what the job did, and what its verification proves.
pub fn claim(job: &JobReport, copies: &[String]) -> String {
    let area = format!("bytes {} ({})", job.plan.area, bytes(job.plan.area.len()));
    let verified =
        job.verification.as_ref().map_or("Nothing was read back.".into(), |check| verified(job, check));
    if let (Some(keys), Verdict::Wiped) = (&job.plan.keys, job.verdict) {
        return format!("{} {verified}", destroyed(keys, &area));
    }
    match job.verdict {
        Verdict::Surviving if job.unchanged_key_bytes > Some(0) => format!(
            "{} of the key material in {area} is unchanged.",
            bytes(job.unchanged_key_bytes.unwrap_or_default())
        ),
        Verdict::Wiped if !copies.is_empty() => format!(
            "{} {verified} Layers below keep copies, which may hold old data, on {}.",
            technique(job, &area),
            copies.join(", ")
        ),
        Verdict::Wiped => format!("{} {verified}", technique(job, &area)),
        Verdict::Verified if job.plan.steps.iter().any(|step| step.earlier_check().is_some()) => format!(
            "{area}: the blocks that the certificate's check had read were read again and match. New sample: \
             {verified}"
        ),
        Verdict::Verified => format!("{area}: {verified}"),
        Verdict::Residue => format!(
            "Of {area}, {} could not be written ({} of it cannot be read either) and {} could not be read \
             back; these ranges may hold old data. All other blocks were processed. {verified}",
            bytes(job.residue.bytes()),
            bytes(job.residue_unreadable.bytes()),
            bytes(job.unreadable.bytes())
        ),
        Verdict::Surviving => {
            let kinds: Vec<&str> = job.surviving.kinds().into_iter().map(|(kind, _)| kind).collect();
            format!(
                "Of what was read in {area}, {} does not match the expected pattern and holds {}.",
                bytes(job.surviving.bytes),
                kinds.join(", ")
            )
        }
        _ => format!("Nothing is claimed for {area}.{}", reached(job)),
    }
}

/// What the passes of an unfinished job covered.
fn reached(job: &JobReport) -> String {
    let passes = job.steps.iter().filter(|report| report.step.writes() && report.bytes > 0);
    let pass = |report: &StepReport| {
        let done = report.done();
        let (first, last) = (done.iter().next(), done.iter().last());
        let places = first.zip(last).map_or(String::new(), |(first, last)| {
            format!(" in bytes {}", Extent::new(first.start, last.end))
        });
        let more = if report.covered.more { " (list truncated)" } else { "" };
        let flushed = if report.flushed { "" } else { ", not flushed" };
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
        "The keys of {version} volume{uuid}{of} were destroyed: {area}, with {material} and every header, was \
         overwritten and flushed, and every block of key material has changed. Without a copy of the header, \
         data encrypted with these keys cannot be decrypted."
    )
}

fn technique(job: &JobReport, area: &str) -> String {
    if let Some(found) = job.found_bytes {
        return nonzero(job, area, found);
    }
    let passes: Vec<&Step> = job.plan.steps.iter().filter(|step| step.writes()).collect();
    let verb = if passes.iter().all(|step| step.written().is_some()) {
        "overwritten and flushed"
    } else {
        "processed and flushed"
    };
    let times = if passes.len() == 1 { "once".into() } else { format!("{} times", passes.len()) };
    let fewer = job.resumed.iter().fold(0u64, |sum, each| sum.saturating_add(each.fewer_passes_bytes));
    let but = match fewer.min(job.plan.area.len()) {
        0 => String::new(),
        fewer => format!(
            ", but {} of it is only known to have had the passes since the job was resumed",
            bytes(fewer)
        ),
    };
    let passes: Vec<String> = passes.iter().map(ToString::to_string).collect();
    format!("All of {area} was {verb} {times}{but}: {}.", passes.join(", "))
}

/// Only non-zero data was written; the discard after the check of a thin volume is not part of the claim.
fn nonzero(job: &JobReport, area: &str, found_bytes: u64) -> String {
    let patterns: Vec<String> =
        job.plan.steps.iter().filter_map(Step::written).map(ToString::to_string).collect();
    let returned =
        if job.plan.steps.iter().any(Step::discards) { ", and the area was then discarded" } else { "" };
    format!(
        "In {area}, all data that was not zero ({}) was overwritten and flushed: {}{returned}. Blocks of zeroes \
         were not written.",
        bytes(found_bytes),
        patterns.join(", ")
    )
}

/// The use of a thin pool before and after. Blocks that the volume returned and the pool still counts are
/// referenced by a snapshot or were allocated to other volumes.
pub fn pool(before: &Thin, after: &Thin) -> String {
    let returned = before.mapped_bytes.saturating_sub(after.mapped_bytes);
    let kept = after.pool_used_bytes.saturating_add(returned).saturating_sub(before.pool_used_bytes);
    let shared = if kept == 0 {
        String::new()
    } else {
        format!(
            " {} of this volume's old blocks are still referenced by a snapshot, or the pool allocated as much to \
             other volumes meanwhile.",
            bytes(kept)
        )
    };
    format!(
        "The pool {} had {} in use before and {} after, of {}; old data in its other blocks cannot be reached \
         through this volume.{shared}",
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
            format!("All bytes were read ({read}) and match the expected pattern.")
        }
        (Some(Sample { block_bytes, .. }), Some(probes), Some(bound)) => format!(
            "{probes} blocks of {} drawn at random and the fixed places were read ({read}), and all match the \
             expected pattern: with {} confidence at most {} of the blocks differ.",
            bytes(block_bytes),
            percent(bound.confidence_ppm * 1_000),
            percent(bound.differ_per_billion)
        ),
        _ => format!("{read} were read, and all readable blocks match the expected pattern."),
    }
}

/// What the claim does not cover. Never empty: no software sees everything.
pub fn limitations(plan: &Plan, identity: &Identity, findings: &Findings, direct: bool) -> Vec<String> {
    const ALWAYS: &str = "Reading cannot reveal a device that lies about its cache or hides blocks.";
    let part = plan.partial && plan.keys.is_none();
    let part = part.then_some("Only a part of the device was selected: the rest is unchanged.");
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

/// Of a device that cannot be distinguished from others.
pub const NO_NAME: &str =
    "It has no serial number, WWN or UUID: this record fits any device of the same size and content.";

/// Of a disk whose media are not known.
pub const NOT_PHYSICAL: &str =
    "Not known to be a physical drive of this machine: nothing is known about the media behind it.";

/// Limitations that follow from the kind of device.
fn of_device(identity: &Identity) -> impl Iterator<Item = &'static str> {
    let kind = |kinds: &[DeviceKind]| kinds.contains(&identity.kind);
    applicable([
        (
            kind(&[DeviceKind::Image]),
            "An image file: the file system below it may keep copies (journal, snapshots, moved blocks).",
        ),
        (kind(&[DeviceKind::Loop]), "A loop device: what is below its backing file may keep copies."),
        (kind(&[DeviceKind::Partition]), "A partition: the rest of its disk is unchanged."),
        (
            kind(&[DeviceKind::DeviceMapper, DeviceKind::Md]),
            "A mapping over other devices: snapshots, mirrors, thin pools and moved extents may keep copies.",
        ),
        (
            identity.thin.is_some(),
            "A thin volume: blocks that it ever shared with a snapshot are replaced, not overwritten. These, and \
             blocks that it returned earlier (by a discard), may hold old data until the pool reallocates \
             them.",
        ),
        (kind(&[DeviceKind::Disk, DeviceKind::Partition]) && !identity.physical, NOT_PHYSICAL),
        (
            kind(&[DeviceKind::Disk, DeviceKind::Partition]) && identity.physical,
            "Areas that the drive hides from the host (HPA, DCO, AMA) were not searched for and are unchanged.",
        ),
        (!identity.has_name(), NO_NAME),
        (
            !kind(&[DeviceKind::Loop, DeviceKind::Image]) && identity.rotational == Some(false),
            "Flash: the host cannot address the drive's spare cells.",
        ),
        (
            identity.zoned.is_some(),
            "Shingled zones: the drive writes to cache zones first and may keep copies there.",
        ),
    ])
}

/// Limitations that follow from overridden refusals.
pub fn of_forced(findings: &Findings) -> impl Iterator<Item = &'static str> {
    let forced = |force| findings.forced.iter().any(|refusal| refusal.force == Some(force));
    applicable([
        (forced(Force::SharedFs), "Other hosts may have written to it at the same time."),
        (
            forced(Force::SameSerial),
            "Another disk has the same serial number: whether both are the same disk is not known.",
        ),
        (
            forced(Force::Unprobed),
            "Its previous content could not be probed: whether other hosts use it is not known.",
        ),
        (
            forced(Force::SnapshotCow),
            "A snapshot's exception store: data written to the origin during the wipe may have been stored \
             where the wipe had already passed.",
        ),
    ])
}

/// Limitations that follow from the plan's steps.
fn of_steps(plan: &Plan, direct: bool) -> impl Iterator<Item = &'static str> {
    let any = |is: fn(&Step) -> bool| plan.steps.iter().any(is);
    let checks = |is: fn(&Step) -> bool| plan.steps.iter().any(|step| step.expected().is_some() && is(step));
    applicable([
        (
            any(Step::writes_zeroes),
            "Write-zeroes is a command: the device may complete it without writing the media.",
        ),
        (
            any(Step::discards) && !any(Step::covers_nonzero),
            "Discard guarantees nothing: old data may still be on the media.",
        ),
        (
            any(Step::covers_nonzero),
            "Blocks that were read as zeroes were not written: what the device may hold behind them is left.",
        ),
        (!direct, "Direct I/O was refused: the data read back may have come from the page cache."),
        (checks(|step| step.sample().is_some()), "A sample: a single stray block can be missed."),
        (!checks(|_| true), "Nothing is read back."),
        (
            checks(|step| step.expected() == Some(&Pattern::zero())),
            "All blocks of zeroes are alike: a read-back of them cannot detect aliased addresses; a random pass would.",
        ),
    ])
}

/// Devices below that keep old data which a write does not reach.
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
                Some(format!("{device} ({kind}) keeps copies of its data on {on}, which may be old data: {drain}."))
            }
            Effect::Unknown => Some(format!(
                "{device} is a layer that efface does not know ({kind}): whether it keeps copies is not known."
            )),
        };
        let limitations = limitations.iter().map(move |each| format!("{device} ({kind}): {each}."));
        effect.into_iter().chain(limitations)
    })
}

/// Limitations where a process, namespace or cache could not be examined.
pub fn of_unseen(findings: &Findings) -> impl Iterator<Item = String> {
    let unseen =
        findings.unseen.iter().map(|what| format!("Not all possible users could be examined: {what}."));
    let indirect = findings.indirect.iter().map(|what| {
        format!("The data read back may have come from a page cache below instead of the storage: {what}.")
    });
    unseen.chain(indirect)
}

/// Limitations that layers below have after the job and did not have before, such as a lost mirror leg.
pub fn changed_layers(after: Option<&[Layer]>, findings: &Findings) -> Vec<String> {
    let before: Vec<String> = of_layers(&findings.layers).collect();
    let after = of_layers(after.unwrap_or_default()).filter(|sentences| !before.contains(sentences));
    after.map(|sentences| format!("Since the job began: {sentences}")).collect()
}

/// What is known about the data whose keys were destroyed.
fn data(keys: &KeyPlan) -> String {
    match keys.data {
        Some(_) if keys.found.detached && keys.data_device.is_none() => {
            "The header is detached: its data is on another device, unchanged, and was not examined.".into()
        }
        Some(DataSample { blocks: 0, .. }) => "There is no data behind the header.".into(),
        Some(DataSample { blocks, random, uniform, unreadable }) => {
            let unreadable = match unreadable {
                0 => String::new(),
                some => format!(", {some} could not be read"),
            };
            format!(
                "The data itself is unchanged. Of {blocks} blocks of 4 KiB sampled in it, {random} look random, as \
                 encrypted and compressed data does, and {uniform} repeat a single byte{unreadable}: whether the \
                 rest is encrypted is not known."
            )
        }
        None => {
            "The data itself is unchanged and was not examined: whether it is encrypted is not known.".into()
        }
    }
}

/// What destroying the keys on a device does not cover, and what to do about it.
fn outside_of_keys(keys: &KeyPlan) -> Vec<String> {
    let mut sentences: Vec<String> = keys.found.notes.iter().map(|note| format!("Found: {note}.")).collect();
    sentences.push(data(keys));
    sentences.push(
        "Copies of the header still open it: backups (luksHeaderBackup), clones, snapshots, a former RAID \
         member, a key read from memory. Find and destroy these too."
            .into(),
    );
    sentences.push(match keys.encrypted_since_provisioning {
        true => "The operator states that nothing was ever stored on it unencrypted.".into(),
        false => {
            "Whether anything was stored on it before it was encrypted is not known: such data would still be \
                  there. If that is possible, overwrite it (efface wipe)."
                .into()
        }
    });
    if let Some(key) = &keys.external_key {
        sentences.push(format!(
            "The secret {key} is kept elsewhere and was not deleted: with a copy of the header it opens the \
             data. Delete it there (openstack secret delete)."
        ));
    }
    sentences
}

/// The limitation of a job that several processes did.
fn resumption_limitation(each: &Resumption, steps: usize) -> String {
    let below = match (each.trusted, each.lost_flushed) {
        (true, true) => "no foreign write was detected, yet flushed data was lost: the device does not keep \
                         what it reports as flushed. All earlier work was read again"
            .into(),
        (true, false) => format!(
            "no foreign write was detected, and the last {} of the earlier work were read again",
            bytes(each.reread_bytes)
        ),
        (false, _) if each.reread_bytes == 0 => {
            "whether there were foreign writes in between is not known, so the step was restarted".into()
        }
        (false, _) => {
            "whether there were foreign writes in between is not known, so all earlier work of this step was \
             read again; data written by others in between was not covered by the earlier passes"
                .into()
        }
    };
    let differing = match each.differing_bytes {
        0 => "no difference was found".into(),
        some => format!("{} differed and were written again", bytes(some)),
    };
    let fewer = match each.fewer_passes_bytes {
        0 => String::new(),
        some => format!("; {} did not hold the pattern of the previous passes", bytes(some)),
    };
    let process = |process: &Option<JobProcess>| match process {
        Some(JobProcess { pid, boot_id }) => format!(" (process {pid} of boot {boot_id})"),
        None => String::new(),
    };
    format!(
        "The job was interrupted in step {} of {steps}{}, and resumed at byte {}{}: {below}; {differing}{fewer}.",
        each.step + 1,
        process(&each.earlier),
        each.upto,
        process(&each.now)
    )
}

/// Limitations that follow from measurements.
pub fn measured(job: &JobReport, foreign_writes_bytes: Option<u64>) -> Vec<String> {
    // Key material is compared block by block with what it was, so a match before proves nothing there.
    let survey = job.survey.filter(|survey| survey.expected_bytes > 0 && job.plan.keys.is_none());
    let matched = survey.map(|survey| {
        let share = share(survey.expected_bytes, survey.read_bytes);
        format!(
            "Before the first pass, {share} of the blocks sampled already matched what the read-back expects: for \
             these it proves nothing."
        )
    });
    let resumed = job.resumed.iter().map(|each| resumption_limitation(each, job.plan.steps.len()));
    let foreign = match foreign_writes_bytes {
        Some(0) => None,
        Some(count) => Some(format!("Foreign writes during the job: {}.", bytes(count))),
        None if job.plan.writes() => {
            Some("Whether there were foreign writes during the job is not known.".into())
        }
        None => None,
    };
    matched.into_iter().chain(resumed).chain(foreign).collect()
}

/// The category of NIST SP 800-88 Rev. 2 that a plan can reach on the media.
#[derive(Clone, Copy, PartialEq, Eq, Debug, Serialize, Deserialize, JsonSchema)]
#[serde(rename_all = "snake_case")]
#[non_exhaustive]
pub enum Category {
    /// The drive erased itself, spare blocks as it reports it.
    Purge,
    /// All user-addressable blocks are overwritten, the most that a write by the host can reach.
    Clear,
    /// A part of them: as requested, or since some blocks cannot be written.
    Partial,
    /// Nothing is claimed of the media.
    None,
}

impl Category {
    /// What the plan can reach, if every pass succeeds.
    pub fn of(plan: &Plan, identity: &Identity) -> Category {
        let media = matches!(identity.kind, DeviceKind::Disk | DeviceKind::Partition) && identity.physical;
        let checked = plan.steps.iter().any(|step| step.expected().is_some());
        let mut passes = plan.steps.iter().filter(|step| step.writes()).peekable();
        let whole = |step: &Step| step.written().is_some() && step.covers_area();
        let overwritten = passes.peek().is_some() && passes.all(whole);
        // Whether a destroyed key is a purge depends on facts that are not known here.
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

    /// For people.
    pub fn word(self) -> &'static str {
        match self {
            Category::Purge => "purge",
            Category::Clear => "clear",
            Category::Partial => "partial",
            Category::None => "none",
        }
    }

    /// For people, of a plan that was not carried out yet.
    pub fn describe(self) -> &'static str {
        match self {
            Category::Purge => "purge (NIST SP 800-88 Rev. 2), if the drive does it",
            Category::Clear => "clear (NIST SP 800-88 Rev. 2), if every pass succeeds",
            Category::Partial => "partial: a part of the media, if every pass succeeds",
            Category::None => "none of the NIST SP 800-88 categories for the underlying media",
        }
    }
}
