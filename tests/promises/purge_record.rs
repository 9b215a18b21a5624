//! The record of a purge: what it claims, and that a changed one is refused.

use std::sync::mpsc::channel;
use std::time::Duration;

use efface::internals::engine::Settings;
use efface::internals::engine::event::Emitter;
use efface::internals::engine::purge::job::{OpenNamespace, PurgeContext, run};
use efface::internals::engine::purge::known::IoContext;
use efface::internals::engine::purge::report::PurgeReport;
use efface::internals::io::Disk;
use efface::internals::io::passthrough::sim::nvme::{Lie, NamespaceSetup, NvmeSim, Setup};
use efface::internals::pattern::Seed;
use efface::internals::plan::{Choice, PurgePolicy, Rung};
use efface::internals::range::Extent;
use efface::internals::view::{html, text};
use efface::purge::PurgeRecord;
use efface::{Assignment, Category, Findings, Record, Signed, Stop, Subject, Verdict};
use jiff::Timestamp;
use serde_json::{Value, json};

const SIZE: u64 = 4 << 20;
const HOUR: Duration = Duration::from_secs(3600);

fn setup() -> Setup {
    let content: Vec<u8> = (0..SIZE).map(|at| b"of a tenant "[at as usize % 12]).collect();
    let mut setup = Setup::of(content);
    setup.namespaces.push(NamespaceSetup { nsid: 2, ..setup.namespaces[0].clone() });
    setup.controllers[0].attached = vec![1, 2];
    setup
}

/// Of these namespaces.
fn purged(setup: Setup, policy: PurgePolicy, namespaces: &[u32]) -> PurgeReport {
    let sim = NvmeSim::new(setup);
    let (to, _events) = channel();
    let emitter = Emitter::new(0, to);
    let open = |nsid: &u32| OpenNamespace { nsid: *nsid, disk: Box::new(sim.disk(*nsid)) as Box<dyn Disk> };
    let mut namespaces: Vec<OpenNamespace> = namespaces.iter().map(open).collect();
    let context = PurgeContext {
        io: IoContext { settings: &Settings::default(), stop: &Stop::default(), emitter: &emitter },
        clock: &**sim.clock(),
        draw: &mut Seed::from_kernel,
        keep: &mut |_| Ok(()),
        give_up_after: Some(24 * HOUR),
    };
    run(&mut sim.path(0), &mut namespaces, policy, context)
}

/// The first namespace is the named one, and the other has a node here too.
fn record(report: PurgeReport, reach: &str) -> Record {
    let node = |minor: u64| json!({"name": format!("nvme0n{minor}"), "number": format!("259:{minor}"), "size_bytes": SIZE});
    let namespace = |nsid: u64| {
        json!({"nsid": nsid, "named": nsid == 1, "size_bytes": SIZE, "nodes": [node(nsid)], "shared": false,
               "attached": [0]})
    };
    let purge: PurgeRecord = serde_json::from_value(json!({
        "scope": {
            "key": {"nqn": "nqn.test:1", "model": "A drive", "serial": "Z1"},
            "namespaces": [namespace(1), namespace(2)],
            "controllers": [{"id": 0, "name": "nvme0"}],
            "other_namespaces": false, "other_controllers": false,
        },
        "reach": reach,
        "report": report,
    }))
    .unwrap();
    let identity = serde_json::from_value(json!({
        "path": "/dev/nvme0n1", "node": "/dev/nvme0n1", "kind": "disk", "number": "259:1", "size_bytes": SIZE,
        "serial": "Z1", "model": "A drive", "transport": "nvme", "physical": true
    }))
    .unwrap();
    let subject =
        Subject { device: "/dev/nvme0n1".into(), identity, findings: Findings::default(), counter: None };
    let assignment = Assignment { method: "purge".into(), ..Assignment::default() };
    Record::of_purge(&assignment, subject, Timestamp::now(), purge)
}

fn by(rung: Rung) -> PurgePolicy {
    PurgePolicy { choice: Choice::By(rung), or_clear: true, ..PurgePolicy::default() }
}

/// A certificate, whatever was changed in it.
fn changed(record: &Record, change: impl FnOnce(&mut Value)) -> Result<(), String> {
    let mut json = serde_json::to_value(record).unwrap();
    change(&mut json);
    serde_json::from_value::<Record>(json).map_err(|error| error.to_string())?.check()
}

fn set(record: &Record, pointer: &str, value: Value) -> Result<(), String> {
    changed(record, |json| *json.pointer_mut(pointer).unwrap_or_else(|| panic!("{pointer}")) = value)
}

#[test]
fn each_rung_is_claimed_as_what_it_is_worth() {
    let cases = [
        (PurgePolicy::default(), Category::Purge, Category::Purge, "sanitize-block (Purge"),
        (by(Rung::SanitizeCrypto), Category::Clear, Category::Purge, "sanitize-crypto (Purge"),
        (by(Rung::SanitizeOverwrite), Category::Clear, Category::Purge, "sanitize-overwrite (Purge"),
        (by(Rung::FormatCrypto), Category::Clear, Category::Purge, "format-crypto (Purge"),
        (by(Rung::FormatUserData), Category::Clear, Category::Clear, "format-user-data (Clear"),
        (
            PurgePolicy { choice: Choice::Both, ..PurgePolicy::default() },
            Category::Purge,
            Category::Purge,
            "sanitize-crypto (Purge",
        ),
    ];
    for (policy, asked, achieved, says) in cases {
        let record = record(purged(setup(), policy, &[1, 2]), "subsystem");
        assert_eq!((record.verdict, record.exit_code), (Verdict::Erased, 0), "{says}");
        assert_eq!((record.asked, record.achieved), (Some(asked), achieved), "{says}");
        assert_eq!(record.check(), Ok(()), "{says}");
        assert!(record.claim.contains(says) && record.claim.contains("all 2 namespaces"), "{}", record.claim);
        assert!(record.claim.contains("none is left"), "{}", record.claim);
        let limitations = record.limitations.join("\n");
        let keys = limitations.contains("handling of its keys");
        assert_eq!(keys, record.claim.contains("crypto"), "{limitations}");
        let erased = limitations.contains("a deallocation alone shows");
        assert_eq!(erased, !says.contains("-crypto") || policy.choice == Choice::Both, "{limitations}");
        let format = limitations.contains("No status of the drive names a Format command");
        assert_eq!(format, says.starts_with("format"), "{limitations}");
        assert!(limitations.contains("spare blocks") && limitations.contains("RPMB"), "{limitations}");

        let page = html::page(&[(record.clone(), Signed::No)]);
        let shown = text::render(&record);
        assert!(
            page.contains("Erased by the drive itself") && shown.contains("erased (exit code 0)"),
            "{shown}"
        );
        for text in [page, shown, serde_json::to_string(&record).unwrap()] {
            assert!(!text.contains("2883"));
        }
    }
}

#[test]
fn what_is_not_erased_is_claimed_by_no_word() {
    let lying = |lie| {
        record(purged(Setup { lie: Some(lie), ..setup() }, PurgePolicy::default(), &[1, 2]), "subsystem")
    };
    let cases = [
        (
            Lie::DoesNothing,
            Verdict::Surviving,
            "hold what they held before sanitize-block, which the drive reports as done",
        ),
        (
            Lie::KeepsRegion(Extent::at(SIZE / 2, SIZE / 8)),
            Verdict::Surviving,
            "which the drive reports as done",
        ),
        (
            Lie::WrongCommand,
            Verdict::Failed,
            "is not known to be done: the drive's status is about another command",
        ),
        (Lie::Stuck, Verdict::Failed, "has not ended"),
    ];
    for (lie, verdict, says) in cases {
        let record = lying(lie);
        assert_eq!(record.verdict, verdict, "{}", record.claim);
        assert!(record.claim.contains(says), "{}", record.claim);
        assert_eq!(record.achieved, Category::None, "{}", record.claim);
        assert_eq!(record.check(), Ok(()));
        assert!(set(&record, "/verdict", json!("erased")).is_err());
        assert!(set(&record, "/achieved", json!("purge")).is_err());
        assert!(
            changed(&record, |json| {
                json["verdict"] = json!("erased");
                json["exit_code"] = json!(0);
                json["purge"]["report"]["verdict"] = json!("erased");
            })
            .is_err()
        );
    }
    let nothing = Setup { sanicap: 0, fna: 0, ..setup() };
    let record = record(purged(nothing, PurgePolicy::default(), &[1, 2]), "subsystem");
    assert_eq!((record.verdict, record.achieved), (Verdict::Unsupported, Category::None));
    assert!(record.claim.contains("no command was sent"), "{}", record.claim);
    assert_eq!(record.check(), Ok(()));
}

/// The recheck of a certificate: who changes what was measured changes what follows from it.
#[test]
fn a_purge_without_one_of_its_conditions_is_refused() {
    let good = record(purged(setup(), PurgePolicy::default(), &[1, 2]), "subsystem");
    assert_eq!(good.check(), Ok(()));
    let rung = "/purge/report/rungs/0";
    let refused = [
        // Without a status.
        (format!("{rung}/evidence/last"), json!(null)),
        // Another command's.
        (format!("{rung}/evidence/last/command"), json!(4)),
        (format!("{rung}/evidence/command"), json!(4)),
        (format!("{rung}/commands/0/dword_10"), json!(4)),
        // That the drive refused.
        (format!("{rung}/evidence/answer"), json!({"kind": "refused", "value": 2})),
        // A live known block.
        (format!("{rung}/settled/canaries/alive"), json!(1)),
        (format!("{rung}/namespaces/1/canaries/alive"), json!(1)),
        // Nothing was known, or nothing was read.
        (format!("{rung}/settled"), json!(null)),
        (format!("{rung}/namespaces/0/canary_blocks"), json!(0)),
        (format!("{rung}/namespaces"), json!([])),
        // Another drive came back.
        (format!("{rung}/settled/changes"), json!([{"kind": "unread"}])),
        // It reaches more, or it is another device.
        ("/purge/reach".into(), json!("namespace")),
        ("/purge/scope/namespaces/0/named".into(), json!(false)),
        ("/purge/scope/namespaces/0/size_bytes".into(), json!(SIZE / 2)),
        ("/identity/number".into(), json!("259:7")),
        ("/purge/report/rungs".into(), json!([])),
        ("/claim".into(), json!("Everything is purged.")),
        ("/achieved".into(), json!("clear")),
        ("/limitations".into(), json!([])),
        ("/exit_code".into(), json!(1)),
        ("/efface_record".into(), json!(3)),
    ];
    for (pointer, value) in refused {
        assert!(set(&good, &pointer, value).is_err(), "{pointer}");
    }
    let exit_code_fits = changed(&good, |json| json["verdict"] = json!("wiped"));
    assert!(exit_code_fits.unwrap_err().contains("its verdict is not that of its purge"));
}

/// The same where whoever changed it computes all that follows from it, too.
#[test]
fn a_purge_that_contradicts_itself_is_refused_whatever_follows_from_it() {
    let good = purged(setup(), PurgePolicy::default(), &[1, 2]);
    let report = |change: &dyn Fn(&mut Value)| {
        let mut json = serde_json::to_value(&good).unwrap();
        change(&mut json);
        serde_json::from_value::<PurgeReport>(json).unwrap()
    };
    let refused = |report: PurgeReport, reach: &str, says: &str| {
        let error = record(report, reach).check().unwrap_err();
        assert!(error.contains(says), "{error}");
    };
    refused(good.clone(), "namespace", "reaches more than it says");
    let second = |json: &mut Value| {
        let rung = &mut json["rungs"][0];
        let gone = rung["namespaces"][1]["canaries"]["gone"].as_u64().unwrap();
        let all = rung["settled"]["canaries"]["gone"].as_u64().unwrap();
        rung["namespaces"].as_array_mut().unwrap().pop();
        rung["settled"]["canaries"]["gone"] = json!(all - gone);
    };
    refused(report(&second), "subsystem", "knew nothing of a namespace");
    let crypto = |json: &mut Value| json["rungs"][0]["rung"] = json!("sanitize-crypto");
    refused(report(&crypto), "subsystem", "its commands are not those of its rung");
    let twice = |json: &mut Value| {
        let commands = json["rungs"][0]["commands"].as_array_mut().unwrap();
        commands.push(commands[0].clone());
    };
    refused(report(&twice), "subsystem", "its commands are not those of its rung");
}

/// What a hypervisor does with a command for its disk is not known.
#[test]
fn of_a_virtual_drive_no_category_is_claimed() {
    let virtual_one = |json: &mut Value| {
        json["identity"]["physical"] = json!(false);
    };
    let good = record(purged(setup(), PurgePolicy::default(), &[1, 2]), "subsystem");
    assert!(changed(&good, virtual_one).is_err(), "its claim is that of a physical one");
    let mut identity = good.identity.unwrap();
    identity.physical = false;
    let subject =
        Subject { device: "/dev/nvme0n1".into(), identity, findings: Findings::default(), counter: None };
    let record = Record::of_purge(&Assignment::default(), subject, Timestamp::now(), good.purge.unwrap());
    assert_eq!((record.verdict, record.achieved), (Verdict::Erased, Category::None));
    assert!(!record.claim.contains("NIST"), "{}", record.claim);
    assert!(record.limitations.iter().any(|it| it.contains("nothing is known about the media")));
    assert_eq!(record.check(), Ok(()));
}

#[test]
fn a_format_of_one_namespace_says_nothing_of_the_other() {
    let record = record(purged(Setup { fna: 0b100, ..setup() }, by(Rung::FormatCrypto), &[1]), "namespace");
    assert_eq!(record.verdict, Verdict::Erased, "{}", record.claim);
    assert!(record.claim.contains("erased namespace 1 itself"), "{}", record.claim);
    assert_eq!(record.check(), Ok(()));
}
