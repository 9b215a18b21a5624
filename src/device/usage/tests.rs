//! Tests of uses, on a fake tree.

use std::os::unix::fs::symlink;

use super::super::fake::{FakeTree, SDA, SWAPS_HEADER};
use super::super::kernel::procfs::Process;
use super::*;

pub(super) const SDB: &str = "pci0000:00/0000:00:1f.2/ata2/host1/target1:0:0/1:0:0:0/block/sdb";

pub(super) fn refusals(fake: &FakeTree, device: DeviceNumber) -> Vec<Refusal> {
    let block = fake.tree.block(device).unwrap();
    Usage::read(&fake.tree).unwrap().of_device(&block).unwrap()
}

fn mount(fake: &FakeTree, line: &str) {
    fake.write("proc/self/mountinfo", format!("22 27 0:21 / /proc rw - proc proc rw\n{line}\n"));
}

/// A dm device over all of another one.
pub(super) fn map(fake: &FakeTree, name: &str, number: &str, uuid: &str, over: &str) -> DeviceNumber {
    let folder = format!("virtual/block/dm-{}", number.split(':').next_back().unwrap());
    let device = fake.device(&folder, number);
    fake.write(&format!("sys/devices/{folder}/dm/name"), format!("{name}\n"));
    fake.write(&format!("sys/devices/{folder}/dm/uuid"), format!("{uuid}\n"));
    let lower = fs::read_to_string(fake.tree.sys.join("devices").join(over).join("dev")).unwrap();
    let target = if uuid.starts_with("CRYPT") { "crypt aes :64:logon:key 0" } else { "linear" };
    fake.write(&format!("sys/devices/{folder}/dm/table"), format!("0 2048 {target} {} 0\n", lower.trim()));
    fake.write(&format!("sys/devices/{folder}/dm/status"), "0 2048 linear\n");
    fake.hold(over, &folder);
    device
}

/// Gives a dm device another table.
pub(super) fn table(fake: &FakeTree, number: &str, table: &str) {
    let folder = format!("virtual/block/dm-{}", number.split(':').next_back().unwrap());
    fake.write(&format!("sys/devices/{folder}/dm/table"), table);
}

pub(super) const VOLUME: &str = "LVM-AbCdEfGhIjKlMnOpQrStUvWxYz012345AbCdEfGhIjKlMnOpQrStUvWxYz543210";

#[test]
fn a_device_without_users_passes() {
    let fake = FakeTree::new();
    let targets = [fake.device(SDA, "8:0"), fake.partition(SDA, "8:1")];
    mount(&fake, "27 1 8:16 / / rw,relatime shared:1 - ext4 /dev/sdb rw");
    fake.write("proc/swaps", format!("{SWAPS_HEADER}/dev/sdb2 partition 1020 0 -2\n"));
    assert!(targets.iter().all(|target| refusals(&fake, *target).is_empty()));
}

#[test]
fn each_kind_of_crypt_mapping_is_closed_by_the_tool_that_opened_it() {
    for (kind, word, remedy) in [
        ("CRYPT-INTEGRITY-x", "the open dm-integrity mapping x", "integritysetup close x"),
        ("CRYPT-VERITY-0123-x", "the open dm-verity mapping x", "veritysetup close x"),
        ("CRYPT-SUBDEV-0123-x", "a part of an open crypt mapping x", "dmsetup ls --tree"),
        ("CRYPT-LUKS1-0123-x", "the open crypt mapping x", "cryptsetup close x"),
        ("CRYPT-PLAIN-x", "the open crypt mapping x", "cryptsetup close x"),
        ("CRYPT-TCRYPT-x", "the open crypt mapping x", "cryptsetup close x"),
        ("CRYPT-BITLK-0123-x", "the open crypt mapping x", "cryptsetup close x"),
    ] {
        let fake = FakeTree::new();
        let sda = fake.device(SDA, "8:0");
        map(&fake, "x", "253:4", kind, SDA);
        let message = crate::error::Error::from(refusals(&fake, sda).remove(0)).to_string();
        assert!(message.contains(word) && message.contains(remedy), "{kind}: {message}");
    }
}

type SetUp = fn(&FakeTree);

/// Uses of sda or of sda1, and the words that name them and the way out.
const USES: [(SetUp, &[&str]); 16] = [
    (|fake| mount(fake, "27 1 8:0 / /mnt rw - ext4 /dev/sda rw"), &["sda is mounted at /mnt", "umount /mnt"]),
    (
        |fake| mount(fake, "27 1 8:1 / / rw shared:1 - ext4 /dev/root rw"),
        &["sda1 is mounted at /: the running system is on it", "boot another system"],
    ),
    (|fake| mount(fake, "27 1 8:1 / /boot rw - ext4 /dev/sda1 rw"), &["/boot", "boot another system"]),
    (|fake| mount(fake, "27 1 0:41 / /b rw - btrfs /dev/sda1 rw"), &["sda1 is mounted at /b"]),
    (
        |fake| mount(fake, "27 1 0:41 / /c rw - bcachefs /dev/sdb:/dev/sda1 rw"),
        &["sda1 is mounted at /c", "umount /c"],
    ),
    (
        |fake| {
            fake.write("proc/77/comm", "container\n");
            fs::create_dir_all(fake.tree.proc.join("77/ns")).unwrap();
            fs::create_dir_all(fake.tree.proc.join("77/root")).unwrap();
            symlink("mnt:[4026532000]", fake.tree.proc.join("77/ns/mnt")).unwrap();
            fake.write("proc/77/mountinfo", "27 1 8:1 / /data rw - xfs /dev/sda1 rw\n");
        },
        &["mounted at /data in the mount namespace of process 77 (container)", "nsenter --target 77"],
    ),
    (
        |fake| fake.write("proc/swaps", format!("{SWAPS_HEADER}/dev/sda1 partition 1020 0 -2\n")),
        &["sda1 is in use as swap", "swapoff /dev/sda1"],
    ),
    (
        |fake| {
            map(fake, "vg-root", "253:3", VOLUME, &format!("{SDA}/sda1"));
        },
        &["sda1 is held by the logical volume vg-root (dm-3)", "lvchange --activate n /dev/mapper/vg-root"],
    ),
    (
        |fake| {
            map(fake, "secret", "253:4", "CRYPT-LUKS2-0123-secret", SDA);
        },
        &["sda is held by the open crypt mapping secret (dm-4)", "cryptsetup close secret"],
    ),
    (
        |fake| {
            map(fake, "mpatha", "253:5", "mpath-3600508b400105e210000900000490000", SDA);
        },
        &["sda is held by the multipath map mpatha", "/dev/mapper/mpatha"],
    ),
    (
        |fake| {
            map(fake, "secret", "253:4", "CRYPT-LUKS2-0123-secret", &format!("{SDA}/sda1"));
            map(fake, "vg-root", "253:3", VOLUME, "virtual/block/dm-4");
            mount(fake, "27 1 253:3 / /home rw - ext4 /dev/mapper/vg-root rw");
        },
        &[
            "sda1 is held by the open crypt mapping secret (dm-4): \
                 dm-4 is held by the logical volume vg-root (dm-3): dm-3 is mounted at /home",
            "umount /home, then deactivate it: lvchange --activate n /dev/mapper/vg-root, then close it",
        ],
    ),
    (
        |fake| {
            fake.device("virtual/block/md127", "9:127");
            fake.write("sys/devices/virtual/block/md127/md/level", "raid1\n");
            fake.hold(SDA, "virtual/block/md127");
        },
        &["sda is held by the md array md127", "mdadm --stop /dev/md127"],
    ),
    (
        |fake| {
            fake.device("virtual/block/bcache0", "251:0");
            fake.hold(SDA, "virtual/block/bcache0");
        },
        &["sda is held by bcache0"],
    ),
    (
        |fake| {
            fake.device(SDB, "8:16");
            let members = fake.tree.sys.join("fs/btrfs/0b5e-uuid/devices");
            fs::create_dir_all(&members).unwrap();
            for (name, number) in [("sda1", "8:1"), ("sdb", "8:16")] {
                symlink(fake.tree.sys.join("dev/block").join(number), members.join(name)).unwrap();
            }
            mount(fake, "27 1 0:41 / /pool rw - btrfs /dev/sdb rw");
        },
        &["sda1 is a member of the btrfs 0b5e-uuid, which is mounted at /pool", "umount /pool"],
    ),
    (
        |fake| {
            fake.device("virtual/block/loop3", "7:3");
            fake.write("sys/devices/virtual/block/loop3/loop/backing_file", "/dev/sda1\n");
        },
        &["sda1 is attached to the loop device loop3", "losetup --detach /dev/loop3"],
    ),
    (
        |fake| fake.write("proc/swaps", format!("{SWAPS_HEADER}/dev/sda partition 1020 0 -2\n")),
        &["sda is in use as swap"],
    ),
];

#[test]
fn each_use_of_a_disk_or_its_partition_refuses_both() {
    for (set_up, words) in USES {
        let fake = FakeTree::new();
        let targets = [fake.device(SDA, "8:0"), fake.partition(SDA, "8:1")];
        set_up(&fake);
        for target in targets {
            let found = refusals(&fake, target);
            let first = found.first().unwrap_or_else(|| panic!("{words:?} is refused"));
            let text = format!("{}; {}", first.what, first.remedy);
            assert!(words.iter().all(|word| text.contains(word)), "{words:?} in: {text}");
            assert_eq!(first.force, None);
        }
    }
}

#[test]
fn what_cannot_be_read_is_an_error_and_no_pass() {
    let fake = FakeTree::new();
    fake.device(SDA, "8:0");
    fake.write("proc/self/mountinfo", "cut off");
    assert!(Usage::read(&fake.tree).is_err());
}

#[test]
fn a_neighbour_on_the_same_disk_or_volume_group_is_no_reason() {
    let fake = FakeTree::new();
    let (disk, neighbour) = (fake.device(SDA, "8:0"), fake.partition(SDA, "8:1"));
    let folder = format!("{SDA}/sda2");
    let free = fake.device(&folder, "8:2");
    fake.write(&format!("sys/devices/{folder}/partition"), "2\n");
    fake.write(&format!("sys/devices/{folder}/start"), "4096\n");
    let root = map(&fake, "vg-root", "253:0", VOLUME, &format!("{SDA}/sda1"));
    let tenant = map(&fake, "vg-volume", "253:1", &VOLUME.replace('0', "9"), &format!("{SDA}/sda1"));
    table(&fake, "253:0", "0 1024 linear 8:1 0\n");
    table(&fake, "253:1", "0 512 linear 8:1 1024\n512 512 linear 8:1 1536\n");
    mount(&fake, "27 1 253:0 / / rw - ext4 /dev/mapper/vg-root rw");
    let passes = |number| refusals(&fake, number).is_empty();
    assert_eq!([disk, neighbour, root].map(passes), [false; 3]);
    assert_eq!([free, tenant].map(passes), [true; 2]);
}

#[test]
fn the_running_system_is_named_before_all_else() {
    let fake = FakeTree::new();
    let disk = fake.device(SDA, "8:0");
    fake.partition(SDA, "8:1");
    map(&fake, "vg-data", "253:0", VOLUME, SDA);
    mount(&fake, "27 1 253:0 / /data rw - ext4 /dev/mapper/vg-data rw\n28 1 8:1 / / rw - ext4 /dev/sda1 rw");
    assert!(refusals(&fake, disk)[0].what.contains("the running system"));
}

#[test]
fn lvms_hidden_parts_are_refused_by_what_they_are() {
    for part in ["tpool", "tdata", "tmeta", "pool", "real", "cow", "cdata"] {
        let fake = FakeTree::new();
        fake.device(SDA, "8:0");
        let hidden = map(&fake, "vg-hidden", "253:0", &format!("{VOLUME}-{part}"), SDA);
        let refusal = &refusals(&fake, hidden)[0];
        assert!(refusal.what.contains(&format!("hidden part of an LVM volume ({part})")), "{refusal:?}");
        assert_eq!(refusal.force, None);
    }
}

#[test]
fn a_volume_is_refused_while_a_snapshot_keeps_what_is_overwritten() {
    let fake = FakeTree::new();
    fake.device(SDA, "8:0");
    map(&fake, "vg-lv-real", "253:0", &format!("{VOLUME}-real"), SDA);
    let origin = map(&fake, "vg-lv", "253:1", VOLUME, "virtual/block/dm-0");
    table(&fake, "253:1", "0 2048 snapshot-origin 253:0\n");
    let crypt = map(&fake, "secret", "253:2", "CRYPT-LUKS2-0123-secret", "virtual/block/dm-1");
    assert_eq!(refusals(&fake, crypt), []);
    map(&fake, "vg-snap", "253:3", &VOLUME.replace('0', "9"), "virtual/block/dm-0");
    table(&fake, "253:3", "0 2048 snapshot 253:0 253:9 P 8\n");
    for target in [origin, crypt] {
        let found = refusals(&fake, target);
        let kept = found.last().expect("it is refused");
        assert!(kept.what.contains("kept by its snapshot vg-snap"), "{kept:?}");
        assert_eq!(kept.force, None);
    }
}

/// A snapshot over its exception store, as LVM makes it.
fn snapshot() -> (FakeTree, DeviceNumber) {
    let fake = FakeTree::new();
    fake.device(SDA, "8:0");
    let store = map(&fake, "vg-snap-cow", "253:1", &format!("{VOLUME}-cow"), SDA);
    map(&fake, "vg-snap", "253:2", VOLUME, "virtual/block/dm-1");
    table(&fake, "253:2", "0 2048 snapshot 253:7 253:1 P 8\n");
    (fake, store)
}

#[test]
fn only_a_closed_snapshots_store_can_be_forced() {
    let (fake, store) = snapshot();
    let [closed] = &refusals(&fake, store)[..] else { panic!("one reason") };
    assert_eq!(closed.force, Some(Force::SnapshotCow));
    assert!(closed.what.contains("exception store of the snapshot vg-snap"), "{closed:?}");

    mount(&fake, "27 1 253:2 / /snap rw - ext4 /dev/mapper/vg-snap rw");
    let open = refusals(&fake, store);
    assert!(open.iter().all(|refusal| refusal.force.is_none()), "{open:?}");
    assert!(open[0].what.contains("mounted at /snap"));

    let (fake, store) = snapshot();
    map(&fake, "other", "253:9", "", "virtual/block/dm-1");
    assert!(refusals(&fake, store).iter().all(|refusal| refusal.force.is_none()));
}

#[test]
fn a_loop_device_is_its_backing_file_and_the_range_of_it() {
    let fake = FakeTree::new();
    let image = tempfile::NamedTempFile::new().unwrap();
    let attach = |name: &str, number: &str, offset: u64| {
        let folder = format!("virtual/block/{name}");
        let device = fake.device(&folder, number);
        let path = image.path().display();
        fake.write(&format!("sys/devices/{folder}/loop/backing_file"), format!("{path}\n"));
        fake.write(&format!("sys/devices/{folder}/loop/offset"), format!("{offset}\n"));
        device
    };
    let first = attach("loop5", "7:5", 0);
    assert!(refusals(&fake, first).is_empty());
    // Two ranges of one file are two devices: a volume group without device-mapper.
    let apart = attach("loop6", "7:6", 1 << 20);
    assert!(refusals(&fake, first).is_empty() && refusals(&fake, apart).is_empty());
    attach("loop7", "7:7", 4096);
    assert!(
        refusals(&fake, first)[0].what.contains("loop5's backing file is attached to the loop device loop7")
    );

    fake.write("proc/swaps", format!("{SWAPS_HEADER}{} file 1020 0 -2\n", image.path().display()));
    assert!(refusals(&fake, first)[0].what.contains("swap"));
}

#[test]
fn a_loop_device_over_a_device_has_that_devices_users() {
    let fake = FakeTree::new();
    fake.device(SDA, "8:0");
    fake.partition(SDA, "8:1");
    let device = fake.device("virtual/block/loop3", "7:3");
    fake.write("sys/devices/virtual/block/loop3/loop/backing_file", "/dev/sda\n");
    assert!(refusals(&fake, device).is_empty());
    mount(&fake, "27 1 8:1 / /mnt rw - ext4 /dev/sda1 rw");
    assert!(refusals(&fake, device)[0].what.contains("sda1 is mounted at /mnt"));
}

fn signature(kind: &str, partition: Option<u32>) -> Signature {
    let (usage, label) = ("filesystem".into(), Some("tank".into()));
    Signature { kind: kind.into(), usage, label, uuid: None, partition }
}

#[test]
fn a_shared_file_system_is_refused_in_any_case_and_in_a_partition() {
    for kind in ["gfs2", "GFS2", "ocfs2", "VMFS", "VMFS_volume_member", "vmfs"] {
        for partition in [None, Some(3)] {
            let found = [signature("gpt", None), signature(kind, partition)];
            assert_eq!(shared(&found).unwrap().force, Some(Force::SharedFs), "{kind}");
        }
    }
    let bare =
        ["ext4", "LVM2_member", "crypto_LUKS", "linux_raid_member", "btrfs", "zfs_member", "ceph_bluestore"];
    assert_eq!(shared(&bare.map(|kind| signature(kind, None))), None);
}

#[test]
fn a_pool_is_in_use_when_it_is_imported() {
    let fake = FakeTree::new();
    let disk = Place::Device(fake.device(SDA, "8:0"));
    let in_zpool = |fake: &FakeTree, kind, opens_alone| {
        let found = [signature(kind, None)];
        Usage::read(&fake.tree).unwrap().in_zpool(disk, &found, || opens_alone)
    };
    assert_eq!(in_zpool(&fake, "zfs_member", false), None);
    fake.write("proc/spl/kstat/zfs/tank/state", "ONLINE\n");
    let refusal = in_zpool(&fake, "zfs_member", false).unwrap();
    assert!(refusal.what.contains("imported ZFS pool tank") && refusal.remedy.contains("zpool export tank"));
    assert_eq!(in_zpool(&fake, "zfs_member", true), None, "a pool would hold it");
    fake.write("proc/spl/kstat/zfs/dbgmsg", "");
    assert_eq!(in_zpool(&fake, "ext4", false), None);
}

#[test]
fn a_zfs_label_counts_where_another_path_may_be_the_member() {
    let (fake, disk) = two_disks(["ONE", "ONE"], ["", ""], false);
    fake.write("proc/spl/kstat/zfs/tank/state", "ONLINE\n");
    let (partition, found) = (fake.partition(SDA, "8:1"), [signature("zfs_member", None)]);
    let usage = Usage::read(&fake.tree).unwrap();
    for device in [disk, partition] {
        assert!(usage.in_zpool(Place::Device(device), &found, || true).is_some(), "{device}");
    }
}

#[test]
fn an_opener_counts_where_its_bytes_are_the_targets() {
    let fake = FakeTree::new();
    let (disk, partition) = (fake.device(SDA, "8:0"), fake.partition(SDA, "8:1"));
    let opened = |number, writes| {
        let process = Process { id: 42, command: "qemu-system".into() };
        Openers::one(process, Place::Device(number), writes)
    };
    let usage = Usage::read(&fake.tree).unwrap();
    let refusal =
        |number, openers: &Openers| usage.open_elsewhere(Place::Device(number), openers, Path::new("/dev/x"));
    let refused = |openers: Openers| [disk, partition].map(|number| refusal(number, &openers).is_some());
    assert_eq!(refused(opened(disk, true)), [true, true]);
    // A monitor that reads the disk is no reason to leave a partition.
    assert_eq!(refused(opened(disk, false)), [true, false]);
    assert_eq!(refused(opened(partition, false)), [true, true]);
    assert_eq!(refused(opened("8:16".parse().unwrap(), true)), [false, false]);
    let text = refusal(disk, &opened(disk, true)).unwrap();
    assert!(text.what.contains("process 42 (qemu-system)") && text.remedy.contains("kill 42"));
}

#[test]
fn zones_that_must_be_written_in_order_are_not_supported() {
    let fake = FakeTree::new();
    let disk = fake.tree.block(fake.device(SDA, "8:0")).unwrap();
    for (model, refused) in [("none", false), ("host-aware", false), ("host-managed", true)] {
        fake.write(&format!("sys/devices/{SDA}/queue/zoned"), format!("{model}\n"));
        assert_eq!(zoned(&disk).unwrap().is_some(), refused, "{model}");
    }
}

#[test]
fn a_suspended_mapping_at_or_below_a_target_answers_nothing() {
    let fake = FakeTree::new();
    let disk = fake.device(SDA, "8:0");
    let lower = map(&fake, "lower", "253:0", VOLUME, SDA);
    let upper = map(&fake, "upper", "253:1", VOLUME, "virtual/block/dm-0");
    let suspended = |device| Usage::read(&fake.tree).unwrap().suspended(Place::Device(device));
    for (state, refused) in [("0\n", false), ("1\n", true)] {
        fake.write("sys/devices/virtual/block/dm-0/dm/suspended", state);
        assert_eq!([lower, upper].map(|device| suspended(device).is_some()), [refused; 2], "{state}");
        assert_eq!(suspended(disk), None, "the disk below it answers");
    }
    let text = crate::error::Error::from(suspended(upper).unwrap()).to_string();
    assert!(
        text.contains("the mapping lower is suspended") && text.contains("dmsetup resume lower"),
        "{text}"
    );
}

/// Two disks, mounted or not, that have these names and a size.
fn two_disks(serials: [&str; 2], wwns: [&str; 2], mounted: bool) -> (FakeTree, DeviceNumber) {
    let fake = FakeTree::new();
    let disks = [(SDA, "8:0"), (SDB, "8:16")].map(|(folder, number)| fake.device(folder, number));
    for ((folder, serial), wwn) in [SDA, SDB].iter().zip(serials).zip(wwns) {
        fake.write(&format!("sys/devices/{folder}/device/model"), "DUAL\n");
        fake.write(&format!("sys/devices/{folder}/serial"), serial);
        fake.write(&format!("sys/devices/{folder}/device/wwid"), wwn);
    }
    if mounted {
        mount(&fake, "27 1 8:16 / /mnt rw - ext4 /dev/sdb rw");
    }
    // What is read of both differs.
    for (name, content) in [("sda", 1), ("sdb", 2)] {
        fake.write(&format!("dev/{name}"), vec![content; 1 << 20]);
    }
    (fake, disks[0])
}

#[test]
fn another_path_to_the_disk_has_its_users() {
    let wwn = "naa.5001405000000099";
    let (fake, disk) = two_disks(["DUAL", "DUAL"], [wwn, wwn], true);
    let found = refusals(&fake, disk);
    assert!(
        found[0].what.contains("sdb is another path to the disk sda: sdb is mounted at /mnt"),
        "{found:?}"
    );
    assert_eq!(found[0].force, None);
    let (fake, disk) = two_disks(["DUAL", "DUAL"], [wwn, wwn], false);
    assert_eq!(refusals(&fake, disk), []);
    let (fake, disk) = two_disks(["DUAL", "DUAL"], [wwn, "naa.5001405000000100"], true);
    assert_eq!(refusals(&fake, disk), [], "unequal names are two disks");
}

#[test]
fn a_disk_of_the_same_serial_number_counts_where_it_is_in_use_or_reads_the_same() {
    let forced = |(fake, disk): (FakeTree, DeviceNumber)| {
        let found = refusals(&fake, disk);
        found.first().map(|refusal| (refusal.force, refusal.what.contains("may be one disk")))
    };
    let perhaps = Some((Some(Force::SameSerial), true));
    assert_eq!(forced(two_disks(["DUAL", "DUAL"], ["", ""], true)), perhaps);
    assert_eq!(forced(two_disks(["DUAL", "DUAL"], ["", ""], false)), None);
    assert_eq!(forced(two_disks(["0000", "0000"], ["", ""], true)), None, "a placeholder");
    let (fake, disk) = two_disks(["DUAL", "DUAL"], ["", ""], false);
    fake.write("dev/sdb", vec![1; 1 << 20]);
    assert_eq!(forced((fake, disk)), perhaps);
}

#[test]
fn a_disk_whose_names_cannot_be_read_may_be_the_same_one() {
    let cases: [(&str, bool, &str, Option<Force>); 6] = [
        ("size", true, "", Some(Force::Unseen)),
        ("serial", true, "2048\n", Some(Force::Unseen)),
        ("device/wwid", true, "2048\n", Some(Force::Unseen)),
        ("device/model", true, "2048\n", Some(Force::Unseen)),
        ("serial", false, "2048\n", None),
        ("serial", true, "4096\n", None),
    ];
    for (silent, mounted, size, force) in cases {
        // By its serial number, where that can be read, it is another disk.
        let serials = if silent == "serial" { ["ONE", "TWO"] } else { ["", ""] };
        let (fake, disk) = two_disks(serials, ["", ""], mounted);
        assert_eq!(refusals(&fake, disk), [], "{silent}");
        fake.write(&format!("sys/devices/{SDB}/size"), size);
        fake.make_unreadable(&format!("sys/devices/{SDB}/{silent}"));
        let found = refusals(&fake, disk);
        assert_eq!(found.first().and_then(|refusal| refusal.force), force, "{silent}, {mounted}, {size}");
        let named = found.iter().all(|refusal| refusal.what.contains(&format!("{silent} cannot be read")));
        assert!(named, "{found:?}");
    }
}

#[test]
fn a_scsi_disk_without_a_world_wide_name_answers_with_an_error() {
    let (fake, disk) = two_disks(["", ""], ["", ""], true);
    // To open a socket gives ENXIO.
    let wwid = fake.tree.sys.join("devices").join(SDB).join("device/wwid");
    let folder = tempfile::tempdir_in(&fake.tree.dev).unwrap();
    let socket = folder.path().join("wwid");
    let _listener = std::os::unix::net::UnixListener::bind(&socket).unwrap();
    fs::rename(socket, wwid).unwrap();
    assert_eq!(refusals(&fake, disk), []);
}

#[test]
fn what_the_kernels_own_targets_export_is_in_use() {
    for (file, words) in [
        ("kernel/config/target/core/iblock_0/disk/udev_path", "target/core/iblock_0/disk"),
        ("kernel/config/nvmet/subsystems/nqn/namespaces/1/device_path", "nvmet/subsystems/nqn/namespaces/1"),
    ] {
        let fake = FakeTree::new();
        let disk = fake.device(SDA, "8:0");
        fake.write(&format!("sys/{file}"), "/dev/sda\n");
        let found = refusals(&fake, disk);
        assert!(found[0].what.contains("exported") && found[0].what.contains(words), "{found:?}");
    }
}

#[test]
fn a_log_device_beside_a_file_system_is_in_use() {
    let fake = FakeTree::new();
    let log = fake.device(SDA, "8:0");
    mount(&fake, "27 1 8:16 / /data rw - xfs /dev/sdb rw,attr2,logdev=/dev/sda,noquota");
    assert!(refusals(&fake, log)[0].what.contains("sda is mounted at /data"));
}

#[test]
fn what_lvm_left_of_the_volume_itself_is_no_use_until_something_stands_on_it() {
    let fake = FakeTree::new();
    fake.device(SDA, "8:0");
    let volume = map(&fake, "vg-split", "253:0", VOLUME, SDA);
    map(&fake, "vg-split-cow", "253:1", &format!("{VOLUME}-cow"), SDA);
    assert_eq!(refusals(&fake, volume), []);
    map(&fake, "other", "253:2", "", "virtual/block/dm-1");
    assert!(
        refusals(&fake, volume)[0].what.contains("dm-1 is held by the device-mapper device other"),
        "{:?}",
        refusals(&fake, volume)
    );
}

#[test]
fn a_path_that_is_gone_leaves_its_map_as_it_was() {
    let fake = FakeTree::new();
    fake.device(SDA, "8:0");
    fake.device(SDB, "8:16");
    let multipath = map(&fake, "mpatha", "253:5", "mpath-3600508b400105e210000900000490000", SDA);
    fake.hold(SDB, "virtual/block/dm-5");
    table(&fake, "253:5", "0 2048 multipath 0 0 1 1 service-time 0 2 2 8:0 1 1 8:16 1 1\n");
    assert_eq!(refusals(&fake, multipath), []);
    fs::remove_dir_all(fake.tree.sys.join("devices").join(SDB)).unwrap();
    for link in ["dev/block/8:16", "class/block/sdb"] {
        fs::remove_file(fake.tree.sys.join(link)).unwrap();
    }
    assert_eq!(refusals(&fake, multipath), []);
}

/// LVM loads the table of a new volume, and resumes it a moment later.
#[test]
fn a_sibling_in_a_pool_is_no_use_before_its_table_is_in_force() {
    let fake = FakeTree::new();
    fake.device(SDA, "8:0");
    map(&fake, "vg-pool-tpool", "253:0", &format!("{VOLUME}-tpool"), SDA);
    table(&fake, "253:0", "0 2048 thin-pool 8:0 8:0 128 0 0\n");
    let volume = map(&fake, "vg-thin", "253:1", VOLUME, "virtual/block/dm-0");
    table(&fake, "253:1", "0 2048 thin 253:0 1\n");
    map(&fake, "vg-snap", "253:2", VOLUME, "virtual/block/dm-0");
    table(&fake, "253:2", "");
    let held = |refusals: Vec<Refusal>| refusals.iter().any(|refusal| refusal.what.contains("vg-snap"));
    assert!(held(refusals(&fake, volume)), "what it will share is not known");
    fake.write("sys/devices/virtual/block/dm-2/dm/next_table", "0 2048 thin 253:0 2\n");
    assert_eq!(refusals(&fake, volume), []);
}
