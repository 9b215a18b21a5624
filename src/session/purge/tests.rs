//! What a session decides before it purges, on simulated drives.

use super::look::gives_no_reads;
use super::*;
use crate::device::Force;
use crate::device::identity::Expected;
use crate::device::purge_scope::{ScopedNamespace, ScopedNode, SubsystemKey};
use crate::io::passthrough::nvme::commands::{Exit, Sanitize, SanitizeMethod};
use crate::io::passthrough::nvme::probe::SubsystemFacts;
use crate::io::passthrough::sim::nvme::{NvmeSim, Setup};
use crate::io::passthrough::{PassThrough, ReadOnly};

const BLOCK_ERASE: Sanitize =
    Sanitize::Start { method: SanitizeMethod::BlockErase, exit: Exit::Restricted, keep_allocated: false };

fn facts(sim: &NvmeSim) -> SubsystemFacts {
    probe(&mut ReadOnly::new(sim.path(0)))
}

fn setup() -> Setup {
    Setup::of(vec![1; 8192])
}

fn scope(named: u32) -> PurgeScope {
    let namespace = |nsid: u32| {
        let number = format!("259:{nsid}").parse().unwrap();
        let node = ScopedNode { name: format!("nvme0n{nsid}"), number, size_bytes: 8192 };
        // The third has no block device here.
        let nodes = (nsid < 3).then_some(node).into_iter().collect();
        ScopedNamespace {
            nsid,
            named: nsid == named,
            size_bytes: Some(8192),
            nodes,
            shared: None,
            attached: None,
        }
    };
    PurgeScope {
        key: SubsystemKey { nqn: None, model: "A drive".into(), serial: "Z1".into() },
        namespaces: (1..=3).map(namespace).collect(),
        controllers: Vec::new(),
        other_namespaces: false,
        other_controllers: false,
    }
}

fn identity() -> Identity {
    serde_json::from_value(serde_json::json!({
        "path": "/dev/it", "node": "/dev/nvme0n2", "kind": "disk", "size_bytes": 8192, "number": "259:2"
    }))
    .unwrap()
}

fn targets(policy: PurgePolicy) -> PurgeTargets {
    PurgeTargets {
        devices: Vec::new(),
        order: PurgeOrder { policy, all_namespaces: false, force: vec![Force::Unseen] },
        expected: Expected::default(),
        wait: Duration::ZERO,
    }
}

fn purge(policy: PurgePolicy) -> (tempfile::TempDir, Purge) {
    let folder = tempfile::tempdir().unwrap();
    let purge = Purge {
        targets: targets(policy),
        planned: Vec::new(),
        settings: Settings::default(),
        wait_for_purge: false,
        resume: false,
        give_up_after: None,
        parallel: Parallel::default(),
        journals: JournalStore::open(folder.path()).unwrap(),
        details: Details::default(),
        evidence: Evidence::default(),
    };
    (folder, purge)
}

fn outline(setup: Setup, policy: PurgePolicy) -> PurgeOutline {
    let seen = Seen { identity: identity(), facts: facts(&NvmeSim::new(setup)), scope: scope(2) };
    targets(policy).outline(Path::new("/dev/it"), seen).unwrap()
}

#[test]
fn all_that_any_command_of_the_ladder_reaches_is_claimed_the_named_device_first() {
    let names = |outline: &PurgeOutline| {
        let nodes = nodes(&Tree::real(), outline);
        nodes.into_iter().map(|(nsid, node)| format!("{nsid} {}", node.display())).collect::<Vec<_>>()
    };
    let all = outline(setup(), PurgePolicy::default());
    assert_eq!(all.reach, Reach::Subsystem);
    assert_eq!(names(&all), ["2 /dev/it", "1 /dev/nvme0n1"]);
    // FNA: a format of one namespace reaches that one alone, or all.
    let format = PurgePolicy { choice: Choice::By(Rung::FormatCrypto), ..PurgePolicy::default() };
    let one = outline(Setup { fna: 0b100, ..setup() }, format);
    assert_eq!((one.reach, names(&one)), (Reach::Namespace, vec!["2 /dev/it".to_string()]));
    assert_eq!(outline(Setup { fna: 0b101, ..setup() }, format).reach, Reach::Subsystem);
    assert_eq!(outline(Setup { fna: 0b110, ..setup() }, format).reach, Reach::Subsystem);
}

#[test]
fn only_a_drive_that_sanitizes_or_failed_to_is_claimed_without_a_look_at_its_content() {
    let force = |sim: &NvmeSim| {
        let policy = PurgePolicy::default();
        let gives_no_reads = gives_no_reads(&facts(sim));
        targets(policy).force(&PurgeOutline { gives_no_reads, ..outline(setup(), policy) })
    };
    let sim = NvmeSim::new(setup());
    assert_eq!(force(&sim), [Force::Unseen]);
    sim.path(0).send(&BLOCK_ERASE.request());
    assert_eq!(force(&sim), [Force::Unseen, Force::Unprobed]);
    sim.clock().advance(Duration::from_secs(24 * 3600));
    assert_eq!(force(&sim), [Force::Unseen], "it is done");
    let failing = NvmeSim::new(Setup { sanitize_fails: true, ..setup() });
    failing.path(0).send(&BLOCK_ERASE.request());
    failing.clock().advance(Duration::from_secs(24 * 3600));
    assert_eq!(force(&failing), [Force::Unseen, Force::Unprobed]);
}

#[test]
fn the_result_of_another_process_is_taken_where_it_is_what_was_asked_for() {
    let report = |rungs: &[Rung]| -> PurgeReport {
        let rung = |rung: &Rung| {
            serde_json::json!({
                "rung": rung, "commands": [], "milliseconds": 0, "namespaces": [], "settled": null,
                "evidence": {"kind": "format", "answers": [], "left_percent": null, "resumed": false},
                "conclusion": {"kind": "failed"}
            })
        };
        let rungs: Vec<_> = rungs.iter().map(rung).collect();
        let policy = PurgePolicy::default();
        serde_json::from_value(serde_json::json!({
            "verdict": "erased", "policy": policy, "others": [], "rungs": rungs, "error": null
        }))
        .unwrap()
    };
    let work = |reach| PurgeWork {
        scope: scope(1),
        reach,
        policy: PurgePolicy::default(),
        checkpoint: None,
        report: None,
    };
    let accepts = |policy: PurgePolicy, reach, named, rungs: &[Rung]| {
        purge(policy).1.accepts(&work(reach), &report(rungs), &scope(named))
    };
    let best = PurgePolicy::default();
    let by = |rung| PurgePolicy { choice: Choice::By(rung), ..best };
    let block = &[Rung::SanitizeBlock][..];
    assert!(accepts(best, Reach::Subsystem, 2, block));
    assert!(!accepts(best, Reach::Namespace, 2, &[Rung::FormatCrypto]), "the other namespace");
    assert!(accepts(best, Reach::Namespace, 1, &[Rung::FormatCrypto]));
    assert!(!accepts(best, Reach::Subsystem, 2, &[Rung::FormatUserData]), "it is Clear");
    assert!(accepts(PurgePolicy { or_clear: true, ..best }, Reach::Subsystem, 2, &[Rung::FormatUserData]));
    assert!(accepts(by(Rung::SanitizeBlock), Reach::Subsystem, 2, block));
    assert!(!accepts(by(Rung::SanitizeCrypto), Reach::Subsystem, 2, block));
    let both = PurgePolicy { choice: Choice::Both, ..best };
    assert!(!accepts(both, Reach::Subsystem, 2, block));
    assert!(accepts(both, Reach::Subsystem, 2, &[Rung::SanitizeCrypto, Rung::SanitizeBlock]));
}

fn seen_drive(serial: &str) -> Result<Seen> {
    let mut scope = scope(1);
    scope.key.serial = serial.into();
    Ok(Seen { identity: identity(), facts: facts(&NvmeSim::new(setup())), scope })
}

#[test]
fn drives_are_locked_in_one_order_whatever_they_are_called() {
    let order = |drives: [(&str, &str); 3]| {
        let mut seen = drives.map(|(device, serial)| (PathBuf::from(device), seen_drive(serial)));
        sort_for_locks(&mut seen);
        seen.into_iter().map(|(device, _)| device.display().to_string()).collect::<Vec<_>>()
    };
    assert_eq!(order([("a", "Z1"), ("b", "Z2"), ("c", "Z3")]), ["a", "b", "c"]);
    assert_eq!(order([("a", "Z3"), ("b", "Z2"), ("c", "Z1")]), ["c", "b", "a"]);
}

#[test]
fn two_devices_of_one_drive_are_an_error_of_the_command() {
    let (one, other) = (PathBuf::from("/dev/nvme0n1"), PathBuf::from("/dev/nvme0n2"));
    assert!(refuse_same_drive(&[(one.clone(), seen_drive("Z1")), (other.clone(), seen_drive("Z2"))]).is_ok());
    let error = refuse_same_drive(&[(one, seen_drive("Z1")), (other, seen_drive("Z1"))]).unwrap_err();
    assert_eq!(error.kind, Kind::Usage);
    assert!(error.to_string().contains("/dev/nvme0n2: it is on the same drive as /dev/nvme0n1"), "{error}");
}

#[test]
fn only_what_was_planned_is_carried_out() {
    let outline = outline(setup(), PurgePolicy::default());
    let folder = tempfile::tempdir().unwrap();
    let file = folder.path().join("plan");
    let write = |text: &str| std::fs::write(&file, text).unwrap();
    let line = serde_json::to_string(&outline).unwrap();
    write(&format!("{line}\n"));
    let planned = read_plan(&file).unwrap();
    assert!(plan::require_as_planned(&planned, &outline).is_ok());
    assert!(plan::require_as_planned(&[], &outline).is_ok(), "nothing was planned");
    let refused = |change: fn(&mut PurgeOutline), says: &str| {
        let mut changed = outline.clone();
        change(&mut changed);
        let error = plan::require_as_planned(&planned, &changed).unwrap_err();
        assert_eq!(error.kind, Kind::Refused);
        assert!(error.to_string().contains(says), "{error}");
    };
    refused(|it| it.device = "/dev/other".into(), "it is not in the plan");
    refused(|it| it.identity.serial = Some("Z9".into()), "it is not the drive that was planned");
    refused(|it| it.attempts.truncate(1), "the commands changed");
    refused(|it| it.reach = Reach::Namespace, "what they reach changed");
    refused(|it| drop(it.scope.namespaces.pop()), "namespaces or controllers changed");

    let wrong = |text: &str, says: &str| {
        write(text);
        let error = read_plan(&file).unwrap_err();
        assert_eq!(error.kind, Kind::Usage);
        assert!(error.to_string().contains(says), "{error}");
    };
    wrong("", "it has no drive");
    wrong("{}", "this is no plan of a purge");
    wrong(&line.replace("/dev/it\",\"identity", "/dev/\\u001b[2J\",\"identity"), "steer a terminal");
    let other = line.replace("\"all_namespaces\":false", "\"all_namespaces\":true");
    assert_ne!(line, other);
    wrong(&format!("{line}\n{other}\n"), "its drives are of different orders");
}
