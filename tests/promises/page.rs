//! The HTML page, as a browser shows it.

use std::fs::{self, File};
use std::path::Path;
use std::process::Command;

use crate::evidence::{Workspace, named};
use crate::loops::skipped;

const HOSTILE: &str = "\"><script>document.title='stolen'</script><img src=x onerror=alert(1)> & 'co'";
/// As in src/report/page.css: what was written, what was read back, what survives.
const WRITTEN: [u8; 3] = [0x1c, 0x7c, 0x3f];
const READ: [u8; 3] = [0x2b, 0x6c, 0xb0];
const SURVIVES: [u8; 3] = [0xb3, 0x26, 0x1e];

/// A successful wipe with hostile details, and a check that found other data.
fn pages(workspace: &Workspace) -> [String; 4] {
    workspace.image("disk.img", 96 << 20);
    let hostile =
        ["--detail", &format!("operator.name={HOSTILE}"), "--detail", &format!("media.source={HOSTILE}")];
    let keep = ["--certificate-to", "good.json", "--sign-key", "key", "--method", "random"];
    workspace.wipe("disk.img", &[&keep[..], &hostile].concat()).expect(0);
    let other =
        ["verify", "disk.img", "--image", "-q", "--expect", "zero", "--offset", "32MiB", "--size", "16MiB"];
    workspace.run(&[&other[..], &["--certificate-to", "bad.json", "--sign-key", "key"]].concat()).expect(6);
    let render = |files: &[&str]| {
        let page = ["certificate", "render", "--html", "--public-key", "key.pub"];
        workspace.run(&[&page[..], files].concat()).expect(0).stdout
    };
    let [good, bad, batch] = [&["good.json"][..], &["bad.json"], &["good.json", "bad.json"]].map(render);

    // The name that a hostile drive reports.
    workspace.wipe("disk.img", &["--certificate-to", "plain.json"]).expect(0);
    let plain = fs::read_to_string(workspace.path("plain.json")).unwrap();
    let serial = serde_json::Value::from(HOSTILE).to_string();
    fs::write(workspace.path("serial.json"), named(&plain, &serial)).unwrap();
    let serial = workspace.run(&["certificate", "render", "--html", "serial.json"]).expect(0).stdout;
    [good, bad, batch, serial]
}

#[test]
fn text_from_disks_and_people_is_escaped_and_nothing_is_fetched() {
    let workspace = Workspace::new();
    let pages = pages(&workspace);
    for page in &pages {
        for live in ["<script", "<img", "http:", "https:", "@import", "url("] {
            let found = page.find(live).map(|at| &page[at.saturating_sub(80)..at + 80]);
            assert_eq!(found, None, "{live}");
        }
    }
    // Of the operator and of the source.
    assert_eq!(pages[0].matches("&lt;script&gt;document.title").count(), 2);
}

#[test]
fn a_browser_shows_the_verdict_and_the_map() {
    let workspace = Workspace::new();
    let [good, bad, batch, serial] = pages(&workspace);
    for (name, page, context, shown) in [
        (
            "good",
            good,
            &["Wiped, and the data read back matches", "unchanged since", "&lt;script&gt;"][..],
            [true, true, false],
        ),
        ("bad", bad, &["DATA SURVIVES: 16.00 MiB", "Limitations"], [false, true, true]),
        (
            "serial",
            serial,
            &["Wiped, and the data read back matches", "NOT SIGNED", "&lt;script&gt;"],
            [true, true, false],
        ),
        ("batch", batch, &["1 of 2 devices successful", "DATA SURVIVES"], [true, true, true]),
    ] {
        let path = workspace.path(&format!("{name}.html"));
        fs::write(&path, page).unwrap();
        let Some(dom) = chromium(&workspace, &path, &["--dump-dom"]) else { return };
        assert!(context.iter().all(|words| dom.contains(words)), "{name}: {dom}");
        assert!(!dom.contains("<title>stolen"), "{name}: the page ran a script");
        let picture = workspace.path(&format!("{name}.png"));
        chromium(
            &workspace,
            &path,
            &[&format!("--screenshot={}", picture.display()), "--window-size=800,3600"],
        );
        let found = [WRITTEN, READ, SURVIVES].map(|colour| pixels(&picture, colour) > 200);
        assert_eq!(found, shown, "{name}: written, read, survives");
    }
}

/// What a headless browser says; none, said aloud, where there is no browser.
fn chromium(workspace: &Workspace, page: &Path, options: &[&str]) -> Option<String> {
    let profile = format!("--user-data-dir={}", workspace.path("profile").display());
    let browser = Command::new("chromium")
        .args(["--headless", "--no-sandbox", "--disable-gpu", "--hide-scrollbars", &profile])
        .args(options)
        .arg(format!("file://{}", page.display()))
        .output();
    match browser {
        Ok(output) if output.status.success() => Some(String::from_utf8(output.stdout).unwrap()),
        Ok(output) => panic!("chromium: {}", String::from_utf8_lossy(&output.stderr)),
        Err(error) => skipped(&format!("there is no chromium: {error}")),
    }
}

fn pixels(picture: &Path, colour: [u8; 3]) -> usize {
    let mut reader =
        png::Decoder::new(std::io::BufReader::new(File::open(picture).unwrap())).read_info().unwrap();
    let mut bytes = vec![0; reader.output_buffer_size().unwrap()];
    let frame = reader.next_frame(&mut bytes).unwrap();
    let width = frame.color_type.samples();
    bytes[..frame.buffer_size()].chunks(width).filter(|pixel| pixel[..3] == colour).count()
}
