//! Plan files and `--expect` options: another disk, another plan or a file of others is refused, and nothing is
//! written.

use std::path::Path;

use tempfile::TempDir;

use crate::loops::{Loop, is_root};
use crate::scenarios::{MIB, device, run, sparse, text, tool};

#[test]
fn a_plan_made_on_one_disk_refuses_another_at_its_node() {
    let folder = TempDir::with_prefix("efface-test-").unwrap();
    let file = folder.path().join("plan.json");
    let Some(planned) = device(8 * MIB) else { return };
    let node = planned.node.clone();
    let plan = |arguments: &[&str]| {
        let (code, stdout, stderr) = run(&[&["plan", "--json", text(&node)], arguments].concat());
        assert_eq!(code, 0, "{stderr}");
        std::fs::write(&file, stdout).unwrap();
    };
    let carry_out = || run(&["wipe", "--yes", "--quiet", "--plan", text(&file)]);
    plan(&["--method", "dod7", "--verify", "high"]);
    let (code, _, stderr) = carry_out();
    assert_eq!(code, 0, "{stderr}");

    // An edited plan is not what its order makes of this disk.
    plan(&[]);
    let edited = std::fs::read_to_string(&file).unwrap().replace("\"zero\"", "\"random\"");
    std::fs::write(&file, edited).unwrap();
    let before = planned.content();
    let (code, _, stderr) = carry_out();
    assert_eq!(code, 3, "{stderr}");
    assert!(
        stderr.contains("; overwrite 0x00; read back") && stderr.contains("; overwrite random; read back"),
        "{stderr}"
    );
    plan(&[]);
    let edited = std::fs::read_to_string(&file).unwrap().replace("\"size\": null", "\"size\": 1048576");
    std::fs::write(&file, edited).unwrap();
    let (code, _, stderr) = carry_out();
    assert_eq!(code, 3, "{stderr}");
    assert!(stderr.contains("area: planned 0..") && stderr.contains("found 0..1048576"), "{stderr}");
    assert!(planned.content() == before);

    // Another image at the same node.
    plan(&[]);
    drop(planned);
    let image = sparse(8 * MIB);
    std::fs::write(&image, vec![b'x'; 8 << 20]).unwrap();
    let attached = tool(&["losetup", text(&node), text(&image)]);
    if attached.is_none() {
        return;
    }
    let other = Loop { image, node: node.clone() };
    let (code, _, stderr) = carry_out();
    assert_eq!(code, 3, "{stderr}");
    assert!(
        stderr.contains("backing_file: planned") && stderr.contains("disk_sequence: planned"),
        "{stderr}"
    );
    assert!(other.content().iter().all(|byte| *byte == b'x'));
}

#[test]
fn a_file_that_is_no_plan_is_a_usage_error() {
    let folder = TempDir::with_prefix("efface-test-").unwrap();
    let file = folder.path().join("plan.json");
    let wrong = [
        "",
        "{",
        "[]",
        "{\"efface_plan\": 1}",
        "\u{0}",
        "{\"efface_plan\": 9, \"made\": \"2026-01-01T00:00:00Z\", \"efface\": \"9\", \"order\": {\"method\": \"zero\", \"passes\": null, \"final_zero\": false, \"zero_with\": \"write\", \"verify\": \"full\", \"part\": {\"offset\": null, \"size\": null, \"image\": false}, \"force\": []}, \"devices\": [], \"refused\": []}",
    ];
    for content in wrong {
        std::fs::write(&file, content).unwrap();
        let (code, _, stderr) = run(&["wipe", "--yes", "--plan", text(&file)]);
        assert_eq!(code, 2, "{content}: {stderr}");
        assert!(stderr.contains("plan"), "{stderr}");
    }
    let (code, _, _) = run(&["wipe", "--yes", "--plan", text(&file), "/dev/null"]);
    assert_eq!(code, 2, "a plan names its devices itself");
    let (code, _, _) = run(&["wipe", "--yes", "--plan", text(&file), "--method", "zero"]);
    assert_eq!(code, 2, "and its method");
}

/// A plan of an image, and what carrying out a changed one comes to.
fn changed_plan(folder: &TempDir, change: impl FnOnce(&mut serde_json::Value)) -> (i32, String) {
    let [image, file] = ["disk.img", "plan.json"].map(|name| folder.path().join(name));
    let content = vec![b'x'; 8 << 20];
    std::fs::write(&image, &content).unwrap();
    let (code, stdout, stderr) = run(&["plan", "--json", "--image", text(&image)]);
    assert_eq!(code, 0, "{stderr}");
    let mut plan: serde_json::Value = serde_json::from_str(&stdout).unwrap();
    change(&mut plan);
    std::fs::write(&file, plan.to_string()).unwrap();
    let (code, _, stderr) = run(&["wipe", "--yes", "--quiet", "--plan", text(&file)]);
    assert!(code == 0 || std::fs::read(&image).unwrap() == content, "nothing was written: {stderr}");
    (code, stderr)
}

#[test]
fn a_plan_file_is_checked_as_a_command_line_is() {
    use serde_json::json;
    let folder = TempDir::with_prefix("efface-test-").unwrap();
    assert_eq!(changed_plan(&folder, |_| {}).0, 0);
    let claim = |confidence_ppm: u64, unwiped_ppb: u64| json!({"claim": {"confidence_ppm": confidence_ppm, "unwiped_ppb": unwiped_ppb}});
    let esc = "\u{1b}]0;title\u{7}\u{1b}[2J";
    let method = |name: &str| json!({ "method": name });
    for (place, value, words) in [
        ("/order/policy", claim(1, 1_000_000_000), "its order is not one that can be given"),
        ("/order/policy", claim(999_000, 1_000_000_000), "of none or all"),
        ("/order/policy", claim(1_000_000, 1), "of none or all"),
        ("/order/policy", claim(0, 1), "of none or all"),
        ("/order/policy", claim(u64::MAX, u64::MAX), "of none or all"),
        ("/order/policy", json!({"claim": {"confidence_ppm": 999_000}}), "no plan"),
        ("/order/passes", method("no-such"), "no-such"),
        ("/order/passes", method(esc), "order"),
        ("/order/passes", json!({"list": "0x00,no-such"}), "no-such"),
        ("/order/passes", json!({"list": "0x00", "method": "zero"}), "no plan"),
        ("/order/force", json!([esc]), "no plan"),
        ("/order", json!({"\u{1b}[2J": 1}), "no plan"),
        ("/refused", json!([{"device": esc, "error": esc, "exit_code": 3}]), "was refused"),
        ("/devices/0/must_hold/serial", json!(esc), "terminal"),
        ("/devices/0/device", json!(esc), "terminal"),
    ] {
        let (code, stderr) = changed_plan(&folder, |plan| match plan.pointer_mut(place) {
            Some(old) => *old = value.clone(),
            None => plan["devices"][0]["must_hold"]["serial"] = value.clone(),
        });
        assert_eq!(code, 2, "{place} {value}: {stderr}");
        assert!(stderr.contains(words), "{place} {value}: {stderr}");
        assert!(
            !stderr.trim_end().contains(|letter: char| letter.is_control() && letter != '\n'),
            "{stderr:?}"
        );
    }
    // What excludes one another on a command line does so in a file.
    for (scheme, name) in [("zero", "prefer_key"), ("shred", "offload_zeroes")] {
        let (code, stderr) = changed_plan(&folder, |plan| {
            plan["order"]["size"] = json!(1 << 20);
            plan["order"]["passes"] = method(scheme);
            plan["order"][name] = json!(true);
        });
        assert_eq!(code, 2, "{stderr}");
        assert!(stderr.contains("its order is not one that can be given"), "{stderr}");
    }
}

#[test]
fn a_plan_file_that_others_can_write_is_not_read() {
    use std::os::unix::fs::{PermissionsExt, chown};
    let folder = TempDir::with_prefix("efface-test-").unwrap();
    assert_eq!(changed_plan(&folder, |_| {}).0, 0);
    let file = folder.path().join("plan.json");
    let refused = |path: &Path, words: &str| {
        let (code, _, stderr) = run(&["wipe", "--yes", "--quiet", "--plan", text(path)]);
        assert_eq!(code, 2, "{stderr}");
        assert!(stderr.contains("the plan cannot be read") && stderr.contains(words), "{stderr}");
    };
    for mode in [0o666, 0o620, 0o602] {
        std::fs::set_permissions(&file, PermissionsExt::from_mode(mode)).unwrap();
        refused(&file, "others can write to it");
    }
    std::fs::set_permissions(&file, PermissionsExt::from_mode(0o600)).unwrap();
    if is_root() {
        chown(&file, Some(65534), None).unwrap();
        refused(&file, "its owner is user 65534");
    }
    let fifo = folder.path().join("fifo");
    nix::unistd::mkfifo(&fifo, nix::sys::stat::Mode::S_IRUSR | nix::sys::stat::Mode::S_IWUSR).unwrap();
    refused(&fifo, "no regular file");
    refused(folder.path(), "no regular file");
    let large = std::fs::File::create(folder.path().join("large")).unwrap();
    large.set_len(1 << 30).unwrap();
    refused(&folder.path().join("large"), "too large");
}

#[test]
fn expect_options_refuse_another_disk() {
    let Some(device) = device(MIB) else { return };
    let node = text(&device.node);
    let before = device.content();
    for (option, value, word) in [
        ("--expect-serial", "ZC18XYZ9", "serial is none"),
        ("--expect-wwn", "naa.5000c500a1b2c3d4", "WWN is none"),
        ("--expect-model", "ST4000", "model is none"),
        ("--expect-size", "2MiB", "size is 1048576 bytes"),
    ] {
        let (code, _, stderr) = run(&["wipe", "--yes", option, value, node]);
        assert_eq!(code, 3, "{stderr}");
        assert!(stderr.contains(word) && stderr.contains("was expected"), "{stderr}");
        assert!(device.content() == before);
    }
    let (code, _, stderr) = run(&["wipe", "--yes", "--quiet", "--expect-size", "1MiB", node]);
    assert_eq!(code, 0, "{stderr}");
    let (code, _, stderr) = run(&["wipe", "--yes", "serial:no-such-serial"]);
    assert_eq!(code, 2, "{stderr}");
}
