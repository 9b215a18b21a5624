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

/// Every branch on these names all variants, so that the compiler finds the places that a new one is
/// to be thought of; only their own module may ask for a single one.
const EXHAUSTIVE: [&str; 2] = ["Operation::", "Scope::"];
const MODULE_OF_STEPS: &str = "plan/step.rs";
/// Places that branch on an operation, their own module's among them.
const BRANCHES_ON_OPERATION_MAX: usize = 12;

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

/// Lines that ask for a single variant, or leave some out.
fn not_exhaustive(text: &str) -> Vec<String> {
    let names = |line: &str| EXHAUSTIVE.iter().any(|name| code(line).contains(name));
    let asks = |line: &str| {
        ["matches!(", "if let ", "let Some", " else {", "==", "!="].iter().any(|ask| line.contains(ask))
    };
    let mut found: Vec<String> = text
        .lines()
        .enumerate()
        .filter(|(_, line)| names(line) && asks(code(line)) && !code(line).contains("=>"))
        .map(|(number, _)| format!("{}: asks for a single variant", number + 1))
        .collect();
    for (number, arms) in matches(text) {
        let wildcard = |arm: &&str| {
            arm.split("=>").next().is_some_and(|pattern| {
                let pattern = pattern.split(" if ").next().unwrap_or(pattern).trim();
                pattern.chars().all(|c| c.is_lowercase() || c == '_')
            })
        };
        if arms.iter().any(|arm| names(arm)) && arms.iter().any(wildcard) {
            found.push(format!("{number}: a match that leaves variants out"));
        }
    }
    found
}

/// Matches on an operation, and in its own module the questions for a single one.
fn branches_on_operation(text: &str, name: &str) -> usize {
    let text = text.split("#[cfg(test)]").next().unwrap_or(text);
    let is = |line: &str| code(line).contains("Operation::");
    let asked = text.lines().filter(|line| name == MODULE_OF_STEPS && is(line) && code(line).contains("== "));
    asked.count() + matches(text).iter().filter(|(_, arms)| arms.iter().any(|arm| is(arm))).count()
}

/// Each `match` as rustfmt lays it out: its line, and the lines in which its arms begin.
fn matches(text: &str) -> Vec<(usize, Vec<&str>)> {
    let lines: Vec<&str> = text.lines().collect();
    let column = |line: &str| line.len() - line.trim_start().len();
    let opens = |line: &str| {
        let line = code(line).trim_end();
        line.ends_with('{') && line.split_whitespace().any(|word| word == "match" || word.ends_with("(match"))
    };
    let arms = |from: usize| {
        let at = column(lines[from]);
        let inside =
            lines[from + 1..].iter().take_while(move |line| line.trim().is_empty() || column(line) > at);
        inside.filter(|line| column(line) == at + 4 && !line.trim().is_empty()).copied().collect()
    };
    (0..lines.len()).filter(|number| opens(lines[*number])).map(|number| (number + 1, arms(number))).collect()
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
    let mut branches = 0;
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
        if name != MODULE_OF_STEPS {
            found.extend(not_exhaustive(&text));
        }
        branches += branches_on_operation(&text, name);
        broken.extend(found.into_iter().map(|what| format!("src/{name}:{what}")));
    }
    println!("{branches} places branch on an operation");
    assert!((1..=BRANCHES_ON_OPERATION_MAX).contains(&branches), "{branches} places branch on an operation");
    assert!(broken.is_empty(), "see ARCHITECTURE.md:\n{}", broken.join("\n"));
}

#[test]
fn the_rules_can_be_broken() {
    assert_eq!(bad_imports("engine", "use crate::io::Disk;\nuse crate::report::Record;").len(), 1);
    assert!(bad_imports("cli", "use crate::report::Record; // crate::nowhere").is_empty());
    assert_eq!(bad_unsafe("unsafe { x() }", true).len(), 1);
    assert_eq!(bad_unsafe("// SAFETY: fine\nunsafe { x() }", false).len(), 1);
    assert!(bad_unsafe("// SAFETY: fine\nunsafe { x() }\n// unsafe is a word", true).is_empty());
    let single = [
        "if let Operation::Write { .. } = step.operation() {",
        "    matches!(step.scope(), Scope::Area)",
        "let Operation::Discard = operation else {",
        "    *operation == Operation::Discard",
        "    match step.operation() {\n        Operation::Discard => 1,\n        _ => 2,\n    }",
        "    match step.scope() {\n        Scope::Area => 1,\n        other => 2,\n    }",
    ];
    assert!(single.iter().all(|text| not_exhaustive(text).len() == 1));
    let all =
        "    match step.scope() {\n        Scope::Area if x == y => 1,\n        Scope::Area => 2,\n    }";
    assert!(not_exhaustive(all).is_empty());
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
