//! Tests of the scan for openers.

use std::cell::Cell;
use std::fs;
use std::os::unix::fs::symlink;

use super::super::fake::{FakeTree, SDA};
use super::*;

fn none() -> BTreeSet<Inode> {
    BTreeSet::new()
}

#[test]
fn a_process_that_cannot_be_looked_into_is_counted_and_kernel_threads_are_not() {
    // An entry that is no folder cannot be read by root either.
    let fake = FakeTree::new();
    assert_eq!(Openers::read(&fake.tree, &none()).unwrap().unseen, [""; 0]);
    for (id, stat) in [
        ("10", "10 (kworker/0:1) I 2 0 0 0 -1 69238880 0"),
        ("11", "11 (ended) Z 1 11 11 0 -1 4227084 0"),
        ("12", "12 (a) name) S 1 12 12 0 -1 4194304 0"),
    ] {
        fake.write(&format!("proc/{id}/stat"), stat);
        fake.write(&format!("proc/{id}/comm"), "name\n");
        fake.write(&format!("proc/{id}/fd"), "");
    }
    // It could not be read while it ended, and is gone.
    fake.write("proc/13/fd", "");
    let unseen = Openers::read(&fake.tree, &none()).unwrap().unseen;
    assert_eq!(unseen, ["process 12 (name)"]);
}

#[test]
fn processes_outside_of_the_pid_namespace_are_not_seen() {
    let fake = FakeTree::new();
    let namespace = fake.tree.proc.join("1/ns/pid");
    fs::remove_file(&namespace).unwrap();
    symlink("pid:[4026532999]", &namespace).unwrap();
    let unseen = Openers::read(&fake.tree, &none()).unwrap().unseen;
    assert!(unseen[0].contains("PID namespace"), "{unseen:?}");
    fs::remove_file(&namespace).unwrap();
    let unseen = Openers::read(&fake.tree, &none()).unwrap().unseen;
    assert!(unseen[0].contains("PID namespace"), "{unseen:?}");
}

#[test]
fn processes_that_proc_hides_are_not_seen_without_the_right_to_see_them() {
    let fake = FakeTree::new();
    let unseen = |option: &str, capabilities: &str| {
        fake.write("proc/self/mountinfo", format!("22 27 0:21 / /proc rw - proc proc rw{option}\n"));
        fake.write("proc/self/status", format!("Name:\tefface\nCapEff:\t{capabilities}\n"));
        Openers::read(&fake.tree, &none()).unwrap().unseen
    };
    for option in [",hidepid=2", ",hidepid=invisible", ",hidepid=1", ",gid=4,hidepid=ptraceable"] {
        assert_eq!(
            unseen(option, "0000000000000000"),
            ["the processes that /proc hides (hidepid)"],
            "{option}"
        );
        assert_eq!(unseen(option, "0000000000080000"), [""; 0], "{option}");
    }
    for option in ["", ",hidepid=0", ",hidepid=off"] {
        assert_eq!(unseen(option, "0000000000000000"), [""; 0], "{option}");
    }
}

#[test]
fn a_shared_mapping_is_read_by_its_permissions_and_its_inode() {
    let line = |text: &str| Mapping::parse(text.as_bytes()).map(|mapping| (mapping.range, mapping.writes));
    let shared = "7f00-7f01 rw-s 00000000 00:06 117    /dev/loop3";
    assert_eq!(line(shared), Some(("7f00-7f01".into(), true)));
    assert_eq!(line(&shared.replace("rw-s", "r--s")), Some(("7f00-7f01".into(), false)));
    assert_eq!(line(&shared.replace("rw-s", "rw-p")), None);
    assert_eq!(line("7f00-7f01 rw-s 00000000 00:00 0"), None);
}

#[test]
fn fixed_files_of_a_ring_are_read_by_path() {
    let about = "pos:\t0\nUserFiles:\t3\n    0: /dev/loop3\n    2: /srv/a\\040disk.img\nUserBufs:\t1\n    0: 0x7/4096\n";
    assert_eq!(fixed_files(about).unwrap(), [Path::new("/dev/loop3"), Path::new("/srv/a disk.img")]);
    assert_eq!(fixed_files("pos:\t0\nUserFiles:\t0\nUserBufs:\t0\n"), Some(vec![]));
    assert!(is_named(Path::new("/other/loop3"), Path::new("/dev/loop3")));
    assert!(!is_named(Path::new("/other/disk.img"), Path::new("/srv/disk.img")));
}

/// Some versions of Linux leave all of it out while the ring's lock is held, others the lines below the count.
#[test]
fn files_of_a_ring_that_the_kernel_leaves_out_are_asked_for_again_and_then_unseen() {
    for left_out in ["pos:\t0\n", "pos:\t0\nUserFiles:\t1\nUserBufs:\t0\n"] {
        let asked = Cell::new(0);
        let later = |shown: &str| {
            asked.set(asked.get() + 1);
            Ok(if asked.get() < 4 { left_out } else { shown }.into())
        };
        let files = shown_files(|| later("UserFiles:\t1\n    0: /dev/loop3\nUserBufs:\t0\n")).unwrap();
        assert_eq!((files, asked.get()), (vec!["/dev/loop3".into()], 4), "{left_out}");
        assert!(shown_files(|| later(left_out)).is_err(), "{left_out}");
    }
}

#[test]
fn of_what_lies_below_the_target_only_writers_count() {
    let fake = FakeTree::new();
    let disk = fake.device(SDA, "8:0");
    let process = Process { id: 42, command: "monitor".into() };
    let shared = |role| Shared {
        place: Place::Device(disk),
        extents: super::super::graph::ALL.into(),
        role,
        from: Place::Device(disk),
        view: true,
        guess: None,
    };
    let counts = |role, writes| {
        Openers::one(process.clone(), Place::Device(disk), writes).of(&[shared(role)], &[]).is_some()
    };
    for (role, reader) in
        [(Role::Target, true), (Role::Above, true), (Role::Path, true), (Role::Below, false)]
    {
        assert_eq!((counts(role, true), counts(role, false)), (true, reader), "{role:?}");
    }
}
