//! What cannot be read, or contradicts something else, is refused.

use std::fs;

use super::super::fake::SDA;
use super::tests::{
    MODEL, SERIAL, SUBSYSTEM, Shows, controller_folder, device_file, setup, two, two_by_two, unmanaged,
};
use super::*;
use crate::error::Kind;
use crate::io::passthrough::nvme::status::Status;

#[test]
fn a_namespace_in_sysfs_that_the_drive_does_not_list_is_a_contradiction() {
    let text = "nvme0n7 is in sysfs as namespace 7, which the drive does not list; let the kernel look again: write \
                1 to rescan_controller in sysfs, or reboot";
    for shows in [Shows::Paths, Shows::Heads] {
        let machine = two_by_two(shows);
        machine.add_path(0, 7, shows);
        let hidden = text.replace("nvme0n7", "nvme0c0n7");
        assert_eq!(machine.refused(), if shows == Shows::Paths { text } else { &hidden });
    }
    // A head that has lost its paths.
    let machine = two_by_two(Shows::Heads);
    machine.add_node(&format!("{SUBSYSTEM}/nvme0n7"), 7);
    assert_eq!(machine.refused(), text);
    let machine = unmanaged(setup(1, &[(0, &[1])]), &[0], Shows::Heads);
    machine.add_node(&format!("{SUBSYSTEM}/nvme0n7"), 7);
    assert_eq!(machine.refused(), text);
    // Through another controller than the one that answered, which lists all that exist.
    let machine = two_by_two(Shows::Paths);
    machine.add_path(1, 7, Shows::Paths);
    assert_eq!(machine.refused(), text.replace("nvme0n7", "nvme1n7"));
    for shows in [Shows::Paths, Shows::Heads] {
        let machine = unmanaged(setup(1, &[(0, &[1]), (1, &[1, 2])]), &[0, 1], shows);
        machine.add_path(0, 2, shows);
        assert!(machine.refused().contains("as namespace 2, which the drive does not list"));
    }
}

#[test]
fn a_controller_in_sysfs_that_the_drive_does_not_list_is_a_contradiction() {
    let mut machine = two_by_two(Shows::Heads);
    machine.facts.controllers = Ok(vec![0]);
    assert_eq!(
        machine.refused(),
        "nvme1 is in sysfs as controller 1, which the drive does not list; let the kernel look again: write 1 to \
         rescan_controller in sysfs, or reboot"
    );
}

#[test]
fn a_drive_that_any_controller_has_over_a_network_is_refused() {
    for transport in ["tcp", "rdma", "fc", "loop", "apple-nvme", "PCIe", "pcie2"] {
        for (index, shows) in [(0, Shows::Heads), (1, Shows::Heads), (0, Shows::Paths), (1, Shows::Paths)] {
            let machine = two_by_two(shows);
            machine.write(&controller_folder(index), "transport", transport);
            assert_eq!(
                machine.refused(),
                format!(
                    "its controller nvme{index} is attached by {transport}, and only a drive on PCIe is purged; \
                     purge it on the machine that it is in"
                )
            );
        }
    }
}

#[test]
fn what_cannot_be_read_in_sysfs_refuses() {
    let (first, second) = (controller_folder(0), controller_folder(1));
    let cases = [
        (device_file(&first, "transport"), "nvme0: transport cannot be read"),
        (device_file(&second, "transport"), "nvme1: transport cannot be read"),
        (device_file(&second, "cntlid"), "nvme1: cntlid cannot be read"),
        (device_file(&second, "nvme1n2/nsid"), "nvme1n2: nsid cannot be read"),
        (device_file(&second, "nvme1n2/wwid"), "nvme1n2: wwid cannot be read"),
        (device_file(&second, "nvme1n2/hidden"), "nvme1n2: hidden cannot be read"),
        (device_file(&second, "nvme1n2/size"), "nvme1n2: size cannot be read"),
        (device_file(&second, "nvme1n2/dev"), "nvme1n2: "),
        (device_file(SUBSYSTEM, "serial"), "nvme-subsys0: serial cannot be read"),
        (device_file(SUBSYSTEM, "model"), "nvme-subsys0: model cannot be read"),
        ("sys/class/nvme".into(), "class/nvme: "),
        ("sys/class/nvme-subsystem".into(), "class/nvme-subsystem: "),
        ("sys/class/block".into(), "class/block: "),
    ];
    for (path, why) in cases {
        let machine = two_by_two(Shows::Paths);
        let number = machine.fake.tree.number_of("/dev/nvme0n1".as_ref()).unwrap();
        machine.fake.make_unreadable(&path);
        let error = PurgeScope::of(&machine.fake.tree, number, &machine.facts).unwrap_err();
        assert_eq!(error.kind, Kind::Refused, "{path}: {error}");
        let begins = format!("sysfs does not show what a purge reaches: {why}");
        assert!(error.to_string().starts_with(&begins), "{path}: {error}");
        assert!(
            error.to_string().ends_with("; see what the kernel says of the drive: dmesg"),
            "{path}: {error}"
        );
    }
}

#[test]
fn what_is_missing_or_no_number_in_sysfs_refuses() {
    let folder = controller_folder(1);
    for attribute in ["transport", "cntlid", "nvme1n2/nsid", "nvme1n2/wwid"] {
        let machine = two_by_two(Shows::Paths);
        fs::remove_file(machine.fake.tree.sys.join("devices").join(&folder).join(attribute)).unwrap();
        let (of, name) = attribute.split_once('/').unwrap_or(("nvme1", attribute));
        assert!(machine.refused().contains(&format!("what a purge reaches: {of} has no {name};")));
    }
    for (attribute, text) in [("cntlid", "-1"), ("nvme1n2/nsid", "4294967296")] {
        let machine = two_by_two(Shows::Paths);
        machine.write(&folder, attribute, text);
        let (of, name) = attribute.split_once('/').unwrap_or(("nvme1", attribute));
        assert!(machine.refused().contains(&format!("what a purge reaches: {name} of {of} is {text};")));
    }
    let machine = two();
    fs::remove_file(machine.fake.tree.sys.join("devices").join(SUBSYSTEM).join("nvme0")).unwrap();
    assert!(machine.refused().contains("no subsystem has the controller of nvme0n1;"));
}

#[test]
fn what_the_drive_does_not_answer_refuses() {
    let dmesg = "see what the kernel says of the drive: dmesg";
    let mut machine = two();
    machine.facts.namespaces = Err(Unknown::Zeroes);
    assert_eq!(
        machine.refused(),
        format!("the namespaces of the drive cannot be listed: the answer is all zeroes; {dmesg}")
    );
    machine.facts.controller = Err(Unknown::TimedOut);
    assert_eq!(
        machine.refused(),
        format!("the drive cannot be identified: the drive did not answer in time; {dmesg}")
    );
    for why in [Unknown::Refused(Status(0x4002)), Unknown::Absent] {
        let mut machine = two_by_two(Shows::Heads);
        machine.facts.controllers = Err(why);
        assert_eq!(
            machine.refused(),
            format!("the controllers of the drive cannot be listed: {why}; {dmesg}")
        );
    }
    // A drive that can have no other controller.
    let mut machine = two();
    machine.facts.controllers = Err(Unknown::TimedOut);
    assert!(!machine.scope().unwrap().other_controllers);
}

#[test]
fn facts_of_another_drive_or_controller_are_refused() {
    let again = "let the kernel look again: write 1 to rescan_controller in sysfs, or reboot";
    let mut machine = two();
    machine.controller().serial = "OTHER".into();
    assert_eq!(
        machine.refused(),
        format!("the drive answers as {MODEL} OTHER, and in sysfs it is {MODEL} {SERIAL}; {again}")
    );
    machine.controller().serial.clear();
    assert_eq!(
        machine.refused(),
        "the drive has no serial number to distinguish it from others by; efface wipe overwrites it"
    );
    let mut machine = two();
    machine.controller().model = "OTHER".into();
    assert!(machine.refused().starts_with("the drive answers as OTHER "));
    // A path leads to its own controller, a head to any.
    for (shows, id, accepted) in [
        (Shows::Paths, 1, false),
        (Shows::Heads, 1, true),
        (Shows::Paths, 5, false),
        (Shows::Heads, 5, false),
    ] {
        let mut machine = two_by_two(shows);
        machine.controller().id = id;
        match accepted {
            true => drop(machine.scope().unwrap()),
            false => assert_eq!(
                machine.refused(),
                format!(
                    "controller {id} of the drive answers, and in sysfs nvme0n1 does not lead to it; {again}"
                )
            ),
        }
    }
}

#[test]
fn a_drive_that_looks_like_another_one_is_refused() {
    let machine = two();
    let other = "pci0000:00/0000:00:07.0/nvme/nvme7";
    machine.add_subsystem("nvme-subsys7");
    machine.add_controller(other, 0, "nvme-subsys7");
    assert_eq!(
        machine.refused(),
        "nvme7 has the same model and serial number and is in another subsystem: it is not known whether both are \
         one drive; remove the other one, and try again"
    );
    machine.write(other, "serial", "ANOTHER");
    assert_eq!(machine.scope().unwrap().namespaces.len(), 2);
    machine.write(other, "serial", SERIAL);
    machine.write(other, "model", "ANOTHER");
    assert_eq!(machine.scope().unwrap().namespaces.len(), 2);
    machine.fake.make_unreadable(&device_file(other, "serial"));
    assert!(machine.refused().contains("nvme7: serial cannot be read"));
}

#[test]
fn what_is_no_whole_namespace_is_not_purged() {
    let machine = two();
    let fake = &machine.fake;
    let disk = format!("{}/nvme0n1", controller_folder(0));
    fake.device(SDA, "8:0");
    fake.partition(SDA, "8:1");
    fake.device("pci0000:00/0000:00:14.0/usb1/1-1/host6/target6:0:0/6:0:0:0/block/sdb", "8:16");
    fake.device("pci0000:00/0000:00:02.0/virtio1/block/vda", "254:0");
    for (name, number) in [("loop0", "7:0"), ("dm-3", "253:3"), ("md127", "9:127")] {
        fake.device(&format!("virtual/block/{name}"), number);
    }
    fake.write("sys/devices/virtual/block/dm-3/dm/name", "vg-root\n");
    fake.write("sys/devices/virtual/block/md127/md/level", "raid1\n");
    fake.hold(&disk, "virtual/block/dm-3");
    let text = |name: &str| {
        let error = machine.scope_of(name).unwrap_err();
        assert_eq!(error.kind, Kind::Unsupported, "{error}");
        error.to_string()
    };
    let others = [
        ("sda", "(disk, sata)"),
        ("sda1", "(partition, sata)"),
        ("sdb", "(disk, usb)"),
        ("vda", "(disk, virtio)"),
        ("loop0", "(loop device)"),
        ("dm-3", "(device-mapper device)"),
        ("md127", "(md array)"),
    ];
    for (name, what) in others {
        let why = "is no NVMe namespace, and only these are purged by their drive; efface wipe overwrites it";
        assert_eq!(text(name), format!("{name} {what} {why}"));
    }
    fake.write(&format!("sys/devices/{disk}/nvme0n1p1/partition"), "1\n");
    fake.device(&format!("{disk}/nvme0n1p1"), "259:40");
    assert_eq!(
        text("nvme0n1p1"),
        "nvme0n1p1 is a partition, and no erase command of a drive is limited to one; name the whole disk: \
         /dev/nvme0n1; efface wipe overwrites the partition alone"
    );
    let gone = PurgeScope::of(&fake.tree, "8:32".parse().unwrap(), &machine.facts).unwrap_err();
    assert_eq!(gone.kind, Kind::Refused);
    assert!(gone.to_string().starts_with("sysfs does not show the device 8:32: "), "{gone}");
}
