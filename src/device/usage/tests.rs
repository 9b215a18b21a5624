use std::os::unix::fs::symlink;

use super::super::fake::{FakeTree, SDA, SWAPS_HEADER};
use super::*;

const SDB: &str = "pci0000:00/0000:00:1f.2/ata2/host1/target1:0:0/1:0:0:0/block/sdb";

fn refusals(fake: &FakeTree, device: DeviceNumber) -> Vec<Refusal> {
    let block = fake.tree.block(device).unwrap();
    Usage::read(&fake.tree).unwrap().of_device(&block).unwrap()
}

fn mount(fake: &FakeTree, line: &str) {
    fake.write("proc/self/mountinfo", format!("22 27 0:21 / /proc rw - proc proc rw\n{line}\n"));
}

/// A dm device over another one.
fn map(fake: &FakeTree, name: &str, number: &str, uuid: &str, over: &str) -> DeviceNumber {
    let folder = format!("virtual/block/dm-{}", number.split(':').next_back().unwrap());
    let device = fake.device(&folder, number);
    fake.write(&format!("sys/devices/{folder}/dm/name"), format!("{name}\n"));
    fake.write(&format!("sys/devices/{folder}/dm/uuid"), format!("{uuid}\n"));
    fake.hold(over, &folder);
    device
}

const VOLUME: &str = "LVM-AbCdEfGhIjKlMnOpQrStUvWxYz012345AbCdEfGhIjKlMnOpQrStUvWxYz543210";

#[test]
fn a_device_that_nobody_uses_passes() {
    let fake = FakeTree::new();
    let targets = [fake.device(SDA, "8:0"), fake.partition(SDA, "8:1")];
    mount(&fake, "27 1 8:16 / / rw,relatime shared:1 - ext4 /dev/sdb rw");
    fake.write("proc/swaps", format!("{SWAPS_HEADER}/dev/sdb2 partition 1020 0 -2\n"));
    assert!(targets.iter().all(|target| refusals(&fake, *target).is_empty()));
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
            let text = format!("{}; {}", first.what, first.way_out);
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
    let root = map(&fake, "vg-root", "253:0", VOLUME, &format!("{SDA}/sda1"));
    let tenant = map(&fake, "vg-volume", "253:1", &VOLUME.replace('0', "9"), &format!("{SDA}/sda1"));
    mount(&fake, "27 1 253:0 / / rw - ext4 /dev/mapper/vg-root rw");
    let passes = |number| refusals(&fake, number).is_empty();
    assert_eq!([disk, neighbour, root].map(passes), [false; 3]);
    assert_eq!([free, tenant].map(passes), [true; 2]);
}

#[test]
fn the_running_system_is_told_before_all_else() {
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
    let crypt = map(&fake, "secret", "253:2", "CRYPT-LUKS2-0123-secret", "virtual/block/dm-1");
    assert!(refusals(&fake, crypt).is_empty());
    map(&fake, "vg-snap", "253:3", &VOLUME.replace('0', "9"), "virtual/block/dm-0");
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
    let member = [signature("zfs_member", None)];
    assert_eq!(Usage::read(&fake.tree).unwrap().in_zpool(&member), None);
    fake.write("proc/spl/kstat/zfs/tank/state", "ONLINE\n");
    let refusal = Usage::read(&fake.tree).unwrap().in_zpool(&member).unwrap();
    assert!(refusal.what.contains("imported ZFS pool tank") && refusal.way_out.contains("zpool export tank"));
    fake.write("proc/spl/kstat/zfs/dbgmsg", "");
    assert_eq!(Usage::read(&fake.tree).unwrap().in_zpool(&[signature("ext4", None)]), None);
}

#[test]
fn an_opener_counts_where_its_bytes_are_the_targets() {
    let fake = FakeTree::new();
    let (disk, partition) = (fake.device(SDA, "8:0"), fake.partition(SDA, "8:1"));
    let opened = |number, writes| {
        let process = Process { id: 42, command: "qemu-system".into() };
        [Opened { process, place: Place::Device(number), writes }]
    };
    let blocks = [disk, partition].map(|number| fake.tree.block(number).unwrap());
    let refused = |opened: [Opened; 1]| {
        blocks.clone().map(|block| open_elsewhere(&fake.tree, &block, &opened).unwrap().is_some())
    };
    assert_eq!(refused(opened(disk, true)), [true, true]);
    // A monitor that reads the disk is no reason to leave a partition.
    assert_eq!(refused(opened(disk, false)), [true, false]);
    assert_eq!(refused(opened(partition, false)), [true, true]);
    assert_eq!(refused(opened("8:16".parse().unwrap(), true)), [false, false]);
    let text = open_elsewhere(&fake.tree, &blocks[0], &opened(disk, true)).unwrap().unwrap();
    assert!(text.what.contains("process 42 (qemu-system)") && text.way_out.contains("kill 42"));
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
