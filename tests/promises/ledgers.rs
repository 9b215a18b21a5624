//! Ledgers: every change of one is detected, before the work where there is work to do, and another process
//! can only delay it up to a timeout.

use std::fs;
use std::io::{BufRead, BufReader};
use std::os::unix::fs::symlink;
use std::os::unix::process::CommandExt;
use std::path::Path;
use std::process::{Command, Stdio};

use efface::internals::record::ledger::review;
use efface::internals::record::sign::PublicKeys;
use nix::sys::signal::{Signal, kill};
use nix::sys::stat::Mode;
use nix::unistd::{Pid, mkfifo};

use crate::evidence::{Workspace, record};
use crate::kept_files::{EFFACE, MIB, UNPRIVILEGED, UnprivilegedLock, efface, listing, set_mode, wipe};
use crate::loops::is_root;

/// What is not signed can be written by anyone, but not within a ledger.
#[test]
fn one_flipped_byte_in_an_unsigned_ledger_is_found() {
    let workspace = Workspace::new();
    for name in ["a.img", "b.img"] {
        workspace.image(name, MIB);
        workspace.wipe(name, &["--ledger", "ledger"]).expect(0);
    }
    let folder = workspace.path("ledger");
    assert_eq!(review(&folder, &PublicKeys::default(), None).unwrap().problems, Vec::<String>::new());
    for name in ["00000001.json", "00000002.json"] {
        let path = folder.join(name);
        let bytes = fs::read(&path).unwrap();
        for at in (0..bytes.len()).step_by(5) {
            let mut changed = bytes.clone();
            changed[at] ^= 1 << (at % 7);
            fs::write(&path, changed).unwrap();
            assert!(
                !review(&folder, &PublicKeys::default(), None).unwrap().problems.is_empty(),
                "byte {at} of {name}"
            );
        }
        fs::write(&path, bytes).unwrap();
    }
    workspace
        .run(&["ledger", "verify", "ledger"])
        .expect(0)
        .says(&["2 records, 0 of them signed", "--noted"]);
}

#[test]
fn many_writers_make_one_chain_and_every_hole_in_it_is_found() {
    let workspace = Workspace::new();
    let (writers, each) = (8, 4);
    std::thread::scope(|scope| {
        for writer in 0..writers {
            let workspace = &workspace;
            scope.spawn(move || {
                for _ in 0..each {
                    let name = format!("{writer}.img");
                    workspace.image(&name, 64 << 10);
                    workspace.wipe(&name, &["--ledger", "ledger", "--sign-key", "key"]).expect(0);
                }
            });
        }
    });
    let verify = |more: &[&str]| {
        workspace.run(&[&["ledger", "verify", "ledger", "--public-key", "key.pub"], more].concat())
    };
    let whole = verify(&[]).expect(0).says(&["32 records, 32 of them signed", "last 32 "]);
    let last = whole.stdout.split_whitespace().last().unwrap().to_string();
    let file = |number: u32| workspace.path(&format!("ledger/{number:08}.json"));
    let text = |number| fs::read(file(number)).unwrap();

    let (ten, eleven) = (text(10), text(11));
    fs::remove_file(file(10)).unwrap();
    verify(&[]).expect(1).says(&["record 10 is missing"]);
    fs::write(file(10), &eleven).unwrap();
    fs::write(file(11), &ten).unwrap();
    verify(&[]).expect(1).says(&["record 10: it was written as record 11"]);
    fs::write(file(10), ten).unwrap();
    fs::write(file(11), eleven).unwrap();
    verify(&["--noted", &last]).expect(0);

    // The head shows a cut end; if the head was cut too, only a noted hash does.
    fs::remove_file(file(32)).unwrap();
    verify(&[]).expect(1).says(&["the head names record 32, and the last one is 31"]);
    let head =
        format!("{{\"sequence\":31,\"sha256\":\"{}\"}}\n", efface::internals::digest::sha256(&text(31)));
    fs::write(workspace.path("ledger/head"), head).unwrap();
    verify(&[]).expect(0);
    verify(&["--noted", &last]).expect(1).says(&["cut off or rewritten"]);
}

/// A writer that died between its record and the head: the next one goes on after it.
#[test]
fn an_outdated_ledger_head_is_updated() {
    let workspace = Workspace::new();
    workspace.image("a.img", 64 << 10);
    let wipe = || workspace.wipe("a.img", &["--ledger", "ledger"]).expect(0);
    wipe();
    wipe();
    let head = fs::read(workspace.path("ledger/head")).unwrap();
    wipe();
    fs::write(workspace.path("ledger/head"), head).unwrap();
    workspace.run(&["ledger", "verify", "ledger"]).expect(0).says(&["3 records"]);
    wipe();
    workspace.run(&["ledger", "verify", "ledger"]).expect(0).says(&["4 records"]);
}

/// Of three records.
fn ledger() -> Workspace {
    let workspace = Workspace::new();
    for _ in 0..3 {
        wipe(&workspace, &["--ledger", "ledger"]).expect(0);
    }
    efface(&workspace, &["ledger", "verify", "ledger"]).expect(0).says(&["3 records", "the chain is whole"]);
    workspace
}

/// It is found by `ledger verify`, and by a wipe before its first byte.
#[track_caller]
fn is_found(workspace: &Workspace, words: &[&str]) {
    efface(workspace, &["ledger", "verify", "ledger"]).expect(1).says(&["not whole"]).says(words);
    let before: Vec<_> = listing(&workspace.path("ledger"));
    wipe(workspace, &["--ledger", "ledger", "--no-wait"]).expect(2).says(words);
    assert!(fs::read(workspace.path("disk.img")).unwrap().starts_with(b"tenant"), "something was written");
    assert_eq!(listing(&workspace.path("ledger")), before);
}

#[test]
fn a_ledger_whose_head_does_not_fit_its_records_is_found_before_the_work() {
    let workspace = ledger();
    let head = workspace.path("ledger/head");
    let kept = fs::read(&head).unwrap();
    let hash = |number: u32| {
        let bytes = fs::read(workspace.path(&format!("ledger/{number:08}.json"))).unwrap();
        efface::internals::digest::sha256(&bytes)
    };
    let text = |sequence: u64, sha256: &str| format!("{{\"sequence\":{sequence},\"sha256\":\"{sha256}\"}}\n");
    for (content, words) in [
        (text(3, "00"), "another hash"),
        (text(2, "00"), "another hash"),
        (text(1, &hash(1)), "the head names record 1, and the last one is 3"),
        (text(4, &hash(3)), "the head names record 4, and the last one is 3"),
        (text(u64::MAX, &hash(3)), "the head names record 18446744073709551615, and the last one is 3"),
        (text(0, &hash(3)), "the head names record 0, and the last one is 3"),
        ("{".into(), "its head is damaged"),
    ] {
        fs::write(&head, content).unwrap();
        is_found(&workspace, &[words]);
    }
    fs::remove_file(&head).unwrap();
    is_found(&workspace, &["the head is missing"]);
    fs::write(&head, kept).unwrap();
    wipe(&workspace, &["--ledger", "ledger"]).expect(0);
    efface(&workspace, &["ledger", "verify", "ledger"]).expect(0).says(&["4 records"]);
}

/// The record behind the head, of a writer that died, has to follow the head's.
#[test]
fn a_foreign_record_behind_the_head_is_found_before_the_work() {
    let workspace = ledger();
    let third = fs::read(workspace.path("ledger/00000003.json")).unwrap();
    fs::write(workspace.path("ledger/00000004.json"), third).unwrap();
    is_found(&workspace, &["record 4: it was written as record 3"]);
}

#[test]
fn a_name_far_behind_the_last_record_is_found_in_bounded_memory() {
    let workspace = ledger();
    for (name, missing) in [
        ("40000000.json", "records 4 to 39999999 are missing"),
        ("99999999.json", "records 4 to 99999998 are missing"),
        ("18446744073709551615.json", "records 4 to 18446744073709551614 are missing"),
    ] {
        let path = workspace.path("ledger").join(name);
        fs::write(&path, "").unwrap();
        efface(&workspace, &["ledger", "verify", "ledger"]).expect(1).says(&[missing]);
        is_found(&workspace, &["the head names record 3, and the last one is"]);
        fs::remove_file(path).unwrap();
    }
}

#[test]
fn a_ledger_entry_that_is_no_regular_file_is_found_and_never_read() {
    let workspace = ledger();
    let path = |name: &str| workspace.path("ledger").join(name);
    for name in ["00000002.json", "00000003.json", "00000004.json", "head", ".lock"] {
        let kept = fs::read(path(name)).ok();
        for what in ["a FIFO", "a symbolic link", "a directory"] {
            fs::remove_file(path(name)).ok();
            match what {
                "a FIFO" => mkfifo(&path(name), Mode::S_IRWXU).unwrap(),
                // Only read, and without an end.
                "a symbolic link" => symlink("/dev/zero", path(name)).unwrap(),
                _ => fs::create_dir(path(name)).unwrap(),
            }
            let words = [name, what];
            match name {
                // Only the last record is read before the work.
                "00000002.json" => drop(
                    efface(&workspace, &["ledger", "verify", "ledger"]).expect(1).says(&["record 2", what]),
                ),
                ".lock" => drop(wipe(&workspace, &["--ledger", "ledger"]).expect(2).says(&words)),
                _ => is_found(&workspace, &[what]),
            }
            fs::remove_file(path(name)).or_else(|_| fs::remove_dir(path(name))).unwrap();
        }
        kept.into_iter().for_each(|bytes| fs::write(path(name), bytes).unwrap());
    }
    efface(&workspace, &["ledger", "verify", "ledger"]).expect(0);
}

#[test]
fn a_folder_without_a_ledger_is_no_valid_ledger() {
    let workspace = Workspace::new();
    fs::create_dir(workspace.path("empty")).unwrap();
    workspace.image("disk.img", MIB);
    fs::create_dir(workspace.path("certificates")).unwrap();
    wipe(&workspace, &["--certificate-to", "certificates"]).expect(0);
    for name in ["empty", "certificates"] {
        efface(&workspace, &["ledger", "verify", name]).expect(2).says(&["there is no ledger here"]);
    }
    efface(&workspace, &["ledger", "verify", "absent"]).expect(2).says(&["No such file"]);
}

/// A lock by flock(2) needs no right but to read.
#[test]
fn a_user_with_read_access_delays_no_ledger() {
    if !is_root() {
        return;
    }
    let workspace = ledger();
    set_mode(&workspace.path(""), 0o755);
    let opens = Command::new("cat").arg(workspace.path("ledger/.lock")).uid(UNPRIVILEGED).output().unwrap();
    assert!(!opens.status.success(), "an unprivileged user can open the lock");
    let _held = ["ledger", "ledger/head", "ledger/00000003.json"]
        .map(|name| UnprivilegedLock::on(&workspace.path(name)));
    wipe(&workspace, &["--ledger", "ledger", "--no-wait"]).expect(0);
    efface(&workspace, &["ledger", "verify", "ledger"]).expect(0).says(&["4 records"]);
}

/// Holds the lock that efface takes, until it is dropped.
fn hold_the_lock(ledger: &Path) -> efface::internals::directory::Lock {
    efface::internals::directory::Directory::open(ledger).unwrap().lock(".lock").unwrap().expect("it is free")
}

#[test]
fn a_ledger_that_another_process_holds_is_waited_for_until_a_timeout() {
    let workspace = ledger();
    let held = hold_the_lock(&workspace.path("ledger"));
    for wait in [&["--no-wait"][..], &["--wait", "1"]] {
        wipe(&workspace, &[&["--ledger", "ledger"], wait].concat())
            .expect(7)
            .says(&["ledger", "another process"]);
        assert!(
            fs::read(workspace.path("disk.img")).unwrap().starts_with(b"tenant"),
            "something was written"
        );
    }
    drop(held);
    wipe(&workspace, &["--ledger", "ledger", "--no-wait"]).expect(0);
}

/// The work is done, and the certificate is written all the same.
#[test]
fn a_signal_ends_the_wait_for_a_ledger_after_the_work() {
    let workspace = ledger();
    workspace.image("disk.img", 8 * MIB);
    let mut child = Command::new(EFFACE)
        .args(["wipe", "disk.img", "--image", "--yes", "--json", "--rate", "8MiB/s", "--verify", "none"])
        .args(["--ledger", "ledger", "--certificate-to", "kept.json"])
        .current_dir(workspace.path(""))
        .stdout(Stdio::piped())
        .stderr(Stdio::piped())
        .spawn()
        .unwrap();
    let mut stdout = BufReader::new(child.stdout.take().unwrap()).lines();
    stdout.find(|line| line.as_ref().unwrap().contains("step_started")).unwrap().unwrap();
    let _held = hold_the_lock(&workspace.path("ledger"));
    let mut stderr = BufReader::new(child.stderr.take().unwrap()).lines().map(Result::unwrap);
    assert!(stderr.any(|line| line.contains("waiting for the ledger")), "it says that it waits");
    kill(Pid::from_raw(child.id() as i32), Signal::SIGTERM).unwrap();
    assert!(stderr.any(|line| line.contains("cannot be added to the ledger")), "and why it failed");
    assert_eq!(child.wait().unwrap().code(), Some(1));
    assert_eq!(record(&workspace.path("kept.json"))["verdict"], "wiped");
    assert_eq!(record(&workspace.path("kept.json"))["chain"], serde_json::Value::Null);
}
