//! Tests of uses that cannot be read, on a fake tree.

use super::super::fake::{FakeTree, SDA};
use super::tests::{SDB, VOLUME, map, refusals, table};
use super::*;

#[test]
fn a_mapping_whose_table_cannot_be_read_may_share_any_byte_of_what_it_holds() {
    let fake = FakeTree::new();
    fake.device(SDA, "8:0");
    let one = map(&fake, "vg-one", "253:0", VOLUME, SDA);
    map(&fake, "vg-two", "253:1", &VOLUME.replace('0', "9"), SDA);
    table(&fake, "253:0", "0 1024 linear 8:0 0\n");
    table(&fake, "253:1", "0 1024 linear 8:0 1024\n");
    assert_eq!(refusals(&fake, one), []);
    fs::remove_file(fake.tree.sys.join("devices/virtual/block/dm-1/dm/table")).unwrap();
    let found = refusals(&fake, one);
    assert!(found[0].what.contains("the table of the mapping vg-two cannot be read"), "{found:?}");
    assert_eq!(found[0].force, Some(Force::Unseen));
}

#[test]
fn what_stands_on_a_disk_is_not_seen_where_its_holders_cannot_be_read() {
    let fake = FakeTree::new();
    let targets = [fake.device(SDA, "8:0"), fake.partition(SDA, "8:1")];
    let apart = fake.device(SDB, "8:16");
    fake.make_unreadable(&format!("sys/devices/{SDA}/holders"));
    for target in targets {
        let found = refusals(&fake, target);
        assert!(found[0].what.contains("of sda, what stands on it cannot be read"), "{found:?}");
        assert_eq!(found[0].force, Some(Force::Unseen));
    }
    assert_eq!(refusals(&fake, apart), []);
    // Only a hidden path of an NVMe disk may be without the folder.
    fs::remove_dir(fake.tree.sys.join("devices").join(SDB).join("holders")).unwrap();
    assert_eq!(refusals(&fake, apart)[0].force, Some(Force::Unseen));
    fake.write(&format!("sys/devices/{SDB}/hidden"), "1\n");
    assert_eq!(refusals(&fake, apart), []);
}

#[test]
fn what_a_device_stands_on_is_not_seen_where_its_slaves_cannot_be_read() {
    let fake = FakeTree::new();
    fake.device(SDA, "8:0");
    let volume = map(&fake, "vg-one", "253:0", VOLUME, SDA);
    let free = fake.device(SDB, "8:16");
    fake.make_unreadable("sys/devices/virtual/block/dm-0/slaves");
    let found = refusals(&fake, volume);
    assert!(found[0].what.contains("of dm-0, what it stands on cannot be read"), "{found:?}");
    assert_eq!((found.len(), found[0].force), (1, Some(Force::Unseen)));
    assert_eq!(refusals(&fake, free), []);
}

#[test]
fn what_the_kernel_does_not_say_of_the_target_itself_is_no_pass() {
    let fake = FakeTree::new();
    fake.device(SDA, "8:0");
    let pool = map(&fake, "vg-pool-tpool", "253:0", &format!("{VOLUME}-tpool"), SDA);
    fake.make_unreadable("sys/devices/virtual/block/dm-0/dm/uuid");
    let pool = fake.tree.block(pool).unwrap();
    assert!(Usage::read(&fake.tree).unwrap().of_device(&pool).is_err(), "whether it is a part of LVM's");
    fake.make_unreadable("sys/devices/virtual/block/dm-0/queue/zoned");
    assert!(zoned(&pool).is_err());
}

/// A loop device without a node here: its text in sysfs, and where it begins and how long it is, in sectors.
fn loop_without_node(fake: &FakeTree, text: &str, begin: u64, sectors: u64) {
    let folder = "sys/devices/virtual/block/loop5";
    if fake.tree.block("7:5".parse().unwrap()).is_err() {
        fake.device("virtual/block/loop5", "7:5");
    }
    fake.write(&format!("{folder}/size"), format!("{sectors}\n"));
    fake.write(&format!("{folder}/loop/backing_file"), format!("{text}\n"));
    fake.write(&format!("{folder}/loop/offset"), format!("{}\n", begin * 512));
}

#[test]
fn a_loop_without_a_node_may_stand_on_a_disk_of_its_name_or_of_its_size() {
    let fake = FakeTree::new();
    let disk = fake.device(SDA, "8:0");
    for (text, begin, sectors, refused) in [
        ("/hidden/other", 0, 8, false),
        ("/hidden/sda", 0, 8, true),
        ("/hidden/sda (deleted)", 0, 8, true),
        ("/hidden/other", 0, 2048, true),
        ("/hidden/other", 2040, 8, true),
        ("/hidden/other", 2040, 9, false),
    ] {
        loop_without_node(&fake, text, begin, sectors);
        let found = refusals(&fake, disk).first().map(|refusal| refusal.force);
        assert_eq!(found, refused.then_some(Some(Force::Unseen)), "{text}, {begin}, {sectors}");
    }
}

#[test]
fn a_loop_without_a_node_may_stand_on_an_image_of_its_name_or_of_its_size() {
    let fake = FakeTree::new();
    let folder = tempfile::tempdir().unwrap();
    let image = folder.path().join("disk.img");
    // Of nine sectors and a part of one, which a loop device leaves away.
    fs::write(&image, [0; 9 * 512 + 100]).unwrap();
    let inode = Inode::of(&fs::metadata(&image).unwrap());
    for (text, sectors, refused) in [
        ("/hidden/other", 8, false),
        ("/hidden/disk.img", 8, true),
        ("/hidden/other", 9, true),
        ("/hidden/other", 10, false),
    ] {
        loop_without_node(&fake, text, 0, sectors);
        let found = Usage::read(&fake.tree).unwrap().of_file(inode, &image);
        assert_eq!(found.len(), usize::from(refused), "{text}, {sectors}: {found:?}");
    }
}

#[test]
fn a_loop_without_a_node_may_stand_on_any_disk_where_sysfs_does_not_say_where_it_lies() {
    for silent in ["size", "loop/offset", "loop/backing_file"] {
        let fake = FakeTree::new();
        let disk = fake.device(SDA, "8:0");
        loop_without_node(&fake, "/hidden/other", 0, 8);
        assert_eq!(refusals(&fake, disk), []);
        fake.make_unreadable(&format!("sys/devices/virtual/block/loop5/{silent}"));
        let found = refusals(&fake, disk);
        assert_eq!(found.first().map(|refusal| refusal.force), Some(Some(Force::Unseen)), "{silent}");
    }
}

#[test]
fn an_export_that_leads_nowhere_here_may_be_any_disk_until_its_number_is_known() {
    let fake = FakeTree::new();
    let (sda, sdb) = (fake.device(SDA, "8:0"), fake.device(SDB, "8:16"));
    let image = tempfile::NamedTempFile::new().unwrap();
    let inode = Inode::of(&image.as_file().metadata().unwrap());
    let write = |file: &str, content: &str| fake.write(&format!("sys/kernel/config/{file}"), content);
    let found = || [sda, sdb].map(|disk| refusals(&fake, disk).first().map(|refusal| refusal.force));
    let limits = || Usage::read(&fake.tree).unwrap().limits(Place::File(inode));
    let unseen = Some(Some(Force::Unseen));

    write("target/core/rd_mcp_0/memory/udev_path", "");
    write("target/core/user_1/process/udev_path", "");
    assert_eq!((found(), limits().len()), ([None, None], 0), "neither has a device of its own");

    let namespace = "nvmet/subsystems/nqn/namespaces/1";
    write(&format!("{namespace}/device_path"), "/dev/mapper/elsewhere\n");
    assert_eq!(found(), [unseen, unseen]);
    assert!(refusals(&fake, sda)[0].what.contains(namespace), "{:?}", refusals(&fake, sda));
    assert!(limits()[0].contains(namespace));
    write(&format!("{namespace}/enable"), "0\n");
    assert_eq!((found(), limits().len()), ([None, None], 0), "it is not enabled");

    let store = "target/core/iblock_0/disk";
    write(&format!("{store}/udev_path"), "/dev/mapper/elsewhere\n");
    assert_eq!(found(), [unseen, unseen]);
    let info = "Status: ACTIVATED\n        iBlock device: sdb  UDEV PATH: /dev/sda  readonly: 0\n        \
                Major: 8 Minor: 16  CLAIMED: IBLOCK\n";
    write(&format!("{store}/info"), info);
    write(&format!("{store}/udev_path"), "/dev/sda\n");
    assert_eq!(found(), [None, Some(None)], "the kernel's own number comes before a path");
}

#[test]
fn an_export_whose_path_cannot_be_read_is_not_left_out() {
    let fake = FakeTree::new();
    let disk = fake.device(SDA, "8:0");
    fake.make_unreadable("sys/kernel/config/target/core/fileio_0/file/udev_path");
    assert_eq!(refusals(&fake, disk)[0].force, Some(Force::Unseen));
}
