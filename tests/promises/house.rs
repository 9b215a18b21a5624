//! The rules of ARCHITECTURE.md, read off the tree: who may import whom, and where `unsafe` lives.

use std::fs;
use std::path::{Path, PathBuf};

/// Lowest first; a room may use its own rank and those below.
const RANKS: [&[&str]; 7] = [
    // Loops are what tests work with, and use nothing of ours.
    &["printable", "range", "error", "directory", "loops"],
    &["pattern", "plan", "verdict", "luks"],
    &["io"],
    &["device"],
    &["engine"],
    &["journal", "report"],
    &["cli", "main", "lib"],
];

const MAY_BE_UNSAFE: [&str; 5] =
    ["device/blkid.rs", "io/buffer.rs", "io/sys.rs", "io/uring.rs", "pattern/chacha.rs"];

/// What the engine must not know.
const NOT_IN_THE_ENGINE: [&str; 7] =
    ["uring", "sys::", "SyncDisk", "clap", "indicatif", "std::path", "Path::new"];

const FUNCTION_LINES_MAX: usize = 70;

fn rank(room: &str) -> usize {
    RANKS
        .iter()
        .position(|rooms| rooms.contains(&room))
        .unwrap_or_else(|| panic!("no rank for the room '{room}'"))
}

/// A line without its comment; strings with `//` in them do not matter to these rules.
fn code(line: &str) -> &str {
    line.split("//").next().unwrap_or(line)
}

/// The rooms of this crate that a line names.
fn rooms_named(line: &str) -> impl Iterator<Item = &str> {
    code(line).split("crate::").skip(1).filter_map(|rest| {
        rest.split(|c: char| !c.is_alphanumeric() && c != '_').next().filter(|room| !room.is_empty())
    })
}

fn bad_imports(room: &str, text: &str) -> Vec<String> {
    let above = |other: &&str| rank(other) > rank(room);
    text.lines()
        .enumerate()
        .flat_map(|(number, line)| {
            rooms_named(line).filter(above).map(move |other| format!("{}: uses crate::{other}", number + 1))
        })
        .collect()
}

fn bad_unsafe(text: &str, allowed: bool) -> Vec<String> {
    let lines: Vec<&str> = text.lines().collect();
    let is_unsafe =
        |line: &str| code(line).split(|c: char| !c.is_alphanumeric()).any(|word| word == "unsafe");
    let reasoned =
        |number: usize| lines[number.saturating_sub(3)..=number].iter().any(|line| line.contains("SAFETY:"));
    lines
        .iter()
        .enumerate()
        .filter(|(number, line)| is_unsafe(line) && !(allowed && reasoned(*number)))
        .map(|(number, _)| format!("{}: unsafe here, or without a SAFETY reason above", number + 1))
        .collect()
}

/// Functions as rustfmt lays them out: from `fn` to the brace in the same column.
fn long_functions(text: &str) -> Vec<String> {
    let mut found = Vec::new();
    let mut open: Option<(usize, usize)> = None;
    for (number, line) in text.lines().enumerate() {
        let column = line.len() - line.trim_start().len();
        match open {
            None if code(line).contains("fn ") && line.trim_end().ends_with('{') => {
                open = Some((number, column))
            }
            Some((from, at)) if line.trim() == "}" && column == at => {
                if number - from + 1 > FUNCTION_LINES_MAX {
                    found.push(format!("{}: a function of {} lines", from + 1, number - from + 1));
                }
                open = None;
            }
            _ => {}
        }
    }
    found
}

fn sources(folder: &Path, found: &mut Vec<PathBuf>) {
    for entry in fs::read_dir(folder).unwrap().flatten() {
        match entry.path() {
            path if path.is_dir() => sources(&path, found),
            path if path.extension().is_some_and(|extension| extension == "rs") => found.push(path),
            _ => {}
        }
    }
}

#[test]
fn the_tree_keeps_the_rules() {
    let src = Path::new(env!("CARGO_MANIFEST_DIR")).join("src");
    let mut files = Vec::new();
    sources(&src, &mut files);
    assert!(files.len() > 20, "the tree was not found");
    let mut broken = Vec::new();
    for file in files {
        let text = fs::read_to_string(&file).unwrap();
        let name = file.strip_prefix(&src).unwrap().to_str().unwrap();
        let room = name.split(['/', '.']).next().unwrap();
        let mut found = bad_imports(room, &text);
        found.extend(bad_unsafe(&text, MAY_BE_UNSAFE.contains(&name)));
        found.extend(long_functions(&text));
        if room == "engine" {
            let known =
                NOT_IN_THE_ENGINE.iter().filter(|word| text.lines().any(|line| code(line).contains(**word)));
            found.extend(known.map(|word| format!("the engine names {word}")));
        }
        broken.extend(found.into_iter().map(|what| format!("src/{name}:{what}")));
    }
    assert!(broken.is_empty(), "see ARCHITECTURE.md:\n{}", broken.join("\n"));
}

#[test]
fn the_rules_can_be_broken() {
    assert_eq!(bad_imports("engine", "use crate::io::Disk;\nuse crate::report::Record;").len(), 1);
    assert!(bad_imports("cli", "use crate::report::Record; // crate::nowhere").is_empty());
    assert_eq!(bad_unsafe("unsafe { x() }", true).len(), 1);
    assert_eq!(bad_unsafe("// SAFETY: fine\nunsafe { x() }", false).len(), 1);
    assert!(bad_unsafe("// SAFETY: fine\nunsafe { x() }\n// unsafe is a word", true).is_empty());
    let long = format!("fn long() {{\n{}}}\n", "    step();\n".repeat(FUNCTION_LINES_MAX));
    assert_eq!(long_functions(&long).len(), 1);
}

#[test]
fn the_readme_has_the_exit_codes_and_every_method() {
    let readme = fs::read_to_string(Path::new(env!("CARGO_MANIFEST_DIR")).join("README.md")).unwrap();
    for line in efface::verdict::EXIT_CODES.lines().skip(1) {
        assert!(readme.contains(line), "the README lacks: {line}");
    }
    for scheme in efface::plan::SCHEMES {
        assert!(readme.contains(&format!("| `{}`", scheme.name)), "the README lacks {}", scheme.name);
    }
}

/// A number that wraps in silence is a record in the wrong place, or a byte that was not wiped.
#[test]
fn the_release_profile_checks_overflows() {
    let text = fs::read_to_string(Path::new(env!("CARGO_MANIFEST_DIR")).join("Cargo.toml")).unwrap();
    let manifest: toml::Table = text.parse().unwrap();
    assert_eq!(manifest["profile"]["release"].get("overflow-checks"), Some(&true.into()));
}
