//! Tests of the layers below a device, on a fake tree.

use super::super::fake::{FakeTree, SDA};
use super::tests::{SDB, VOLUME, map, refusals, table};
use super::*;

/// The layers of a device, and the first refusal's override.
fn layers(fake: &FakeTree, device: DeviceNumber) -> (Vec<Layer>, Option<Force>) {
    let usage = Usage::read(&fake.tree).unwrap();
    let force = refusals(fake, device).first().and_then(|refusal| refusal.force);
    (usage.layers(Place::Device(device)), force)
}

#[test]
fn a_layer_below_that_keeps_copies_refuses_until_it_is_forced() {
    let fake = FakeTree::new();
    fake.device(SDA, "8:0");
    fake.device(SDB, "8:16");
    map(&fake, "vg-lv", "253:1", VOLUME, SDA);
    let crypt = map(&fake, "secret", "253:2", "CRYPT-LUKS2-0123-secret", "virtual/block/dm-1");
    table(&fake, "253:1", "0 2048 writecache s 8:0 8:16 4096 0\n");
    let (found, force) = layers(&fake, crypt);
    assert_eq!(force, Some(Force::Copies), "however deep it lies");
    assert!(matches!(&found[1].effect, Effect::KeepsCopies { on, .. } if on == "sda"), "{found:?}");
    for (line, expected) in [
        ("0 2048 cache 8:16 8:16 8:0 128 1 writeback smq 0\n", Some(Force::Copies)),
        ("0 2048 cache 8:16 8:16 8:0 128 1 writethrough smq 0\n", None),
        ("0 2048 thin 8:16 1 8:0\n", Some(Force::Copies)),
        ("0 2048 never-heard-of 8:0 0\n", None),
    ] {
        table(&fake, "253:1", line);
        let (found, force) = layers(&fake, crypt);
        assert_eq!(force, expected, "{line}");
        assert_eq!(found[1].effect == Effect::Unknown, line.contains("never"), "{found:?}");
    }
}

#[test]
fn an_array_with_a_failed_member_keeps_copies_and_one_without_a_member_says_so() {
    let fake = FakeTree::new();
    fake.device(SDA, "8:0");
    let array = fake.device("virtual/block/md127", "9:127");
    fake.hold(SDA, "virtual/block/md127");
    let write = |name: &str, content: &str| {
        fake.write(&format!("sys/devices/virtual/block/md127/md/{name}"), content)
    };
    write("level", "raid1\n");
    write("degraded", "0\n");
    write("dev-sda/state", "in_sync\n");
    let (found, force) = layers(&fake, array);
    assert_eq!((found[0].limitations.len(), force), (0, None), "{found:?}");
    write("degraded", "1\n");
    let (found, force) = layers(&fake, array);
    assert!(found[0].limitations[0].contains("missing") && force.is_none(), "{found:?}");
    write("dev-sdb/state", "spare\n");
    assert!(layers(&fake, array).0[0].limitations[0].contains("sdb is not in step"));
    write("dev-sdb/state", "faulty,write_error\n");
    assert_eq!(layers(&fake, array).1, Some(Force::Copies));
}

#[test]
fn caches_of_other_drivers_are_judged_by_their_mode() {
    let fake = FakeTree::new();
    fake.device(SDA, "8:0");
    let cached = fake.device("virtual/block/bcache0", "251:0");
    fake.hold(SDA, "virtual/block/bcache0");
    let write = |name: &str, content: &str| {
        fake.write(&format!("sys/devices/virtual/block/bcache0/bcache/{name}"), content)
    };
    for (mode, state, force) in [
        ("[writethrough] writeback writearound none", "clean", None),
        ("writethrough [writeback] writearound none", "clean", Some(Force::Copies)),
        ("[writethrough] writeback writearound none", "dirty", Some(Force::Copies)),
        ("writethrough [writeback] writearound none", "no cache", None),
        ("", "", Some(Force::Copies)),
    ] {
        write("cache_mode", mode);
        write("state", state);
        assert_eq!(layers(&fake, cached).1, force, "{mode}, {state}");
    }
    let zram = fake.device("virtual/block/zram0", "252:0");
    assert_eq!(layers(&fake, zram).1, None);
    fake.write("sys/devices/virtual/block/zram0/backing_dev", "none\n");
    assert_eq!(layers(&fake, zram).1, None);
    fake.write("sys/devices/virtual/block/zram0/backing_dev", "/dev/sda2\n");
    assert_eq!(layers(&fake, zram).1, Some(Force::Copies));
    let other = fake.device("virtual/block/nbd0", "43:0");
    assert_eq!(layers(&fake, other).0[0].effect, Effect::Unknown);
}

#[test]
fn a_layer_that_does_not_say_what_it_does_is_of_an_unknown_kind() {
    let md = "sys/devices/virtual/block/md127/md";
    let zram = "sys/devices/virtual/block/zram0";
    let set_up = || {
        let fake = FakeTree::new();
        fake.device(SDA, "8:0");
        let array = fake.device("virtual/block/md127", "9:127");
        fake.hold(SDA, "virtual/block/md127");
        for (name, content) in [("level", "raid5"), ("degraded", "0"), ("dev-sda/state", "in_sync")] {
            fake.write(&format!("{md}/{name}"), format!("{content}\n"));
        }
        let memory = fake.device("virtual/block/zram0", "252:0");
        (fake, array, memory)
    };
    let unknown = |fake: &FakeTree, device| layers(fake, device).0[0].effect == Effect::Unknown;
    let (fake, array, memory) = set_up();
    assert!(!unknown(&fake, array) && !unknown(&fake, memory));
    for modes in ["[write-through] write-back\n", "write-through [write-back]\n", "\n"] {
        fake.write(&format!("{md}/journal_mode"), modes);
        assert!(!unknown(&fake, array), "{modes}");
    }
    for silent in ["level", "dev-sda/state", "journal_mode", "degraded"] {
        let (fake, array, _) = set_up();
        fake.make_unreadable(&format!("{md}/{silent}"));
        let layer = layers(&fake, array).0.remove(0);
        assert_eq!(layer.effect, Effect::Unknown, "{silent}");
        assert!(layer.kind.starts_with("md, ") && layer.kind.contains(silent), "{layer:?}");
    }
    for (file, content) in [("journal_mode", "[write-around]\n"), ("dev-sda/state", "resting\n")] {
        let (fake, array, _) = set_up();
        fake.write(&format!("{md}/{file}"), content);
        assert!(unknown(&fake, array), "{file}");
    }
    fake.write(&format!("{zram}/backing_dev"), "\n");
    assert!(unknown(&fake, memory));
    fake.make_unreadable(&format!("{zram}/backing_dev"));
    let layer = layers(&fake, memory).0.remove(0);
    assert!(layer.effect == Effect::Unknown && layer.kind.contains("cannot be read"), "{layer:?}");
}

#[test]
fn layers_that_cannot_be_read_again_are_not_known() {
    let fake = FakeTree::new();
    let disk = fake.device(SDA, "8:0");
    let since = |number| layers_since(&fake.tree, number, Instant::now());
    let is_unknown = |layers: Vec<Layer>| layers.len() == 1 && layers[0].effect == Effect::Unknown;
    assert_eq!(since(disk), []);
    assert!(is_unknown(since("8:16".parse().unwrap())), "a device that is gone");
    fake.write("proc/self/mountinfo", "cut off");
    assert!(is_unknown(since(disk)));
}
