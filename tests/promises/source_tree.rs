//! The rules of ARCHITECTURE.md, checked on the source tree: imports, `unsafe`, function length, words.

use std::fs;
use std::path::{Path, PathBuf};

/// The modules, lowest first: each may use those before it.
const LAYERS: [&str; 23] = [
    // Loops are what tests work with, and use nothing of ours.
    "loops",
    "printable",
    "range",
    "parallel",
    "units",
    "digest",
    "error",
    "verdict",
    "directory",
    "pattern",
    "luks",
    "plan",
    "io",
    "device",
    "engine",
    "journal",
    "record",
    "session",
    "view",
    "progress",
    "cli",
    "lib",
    "main",
];

const MAY_BE_UNSAFE: [&str; 7] = [
    "device/kernel/blkid.rs",
    "io/buffer.rs",
    "io/passthrough/linux/nvme.rs",
    "io/passthrough/linux/sg.rs",
    "io/sys.rs",
    "io/uring.rs",
    "pattern/chacha.rs",
];

/// What the engine must not know.
const NOT_IN_THE_ENGINE: [&str; 7] =
    ["uring", "sys::", "SyncDisk", "clap", "indicatif", "std::path", "Path::new"];

const FUNCTION_LINES_MAX: usize = 70;

/// Words of a private dialect, in comments, names and texts; docs/glossary.md has the terms.
const DIALECT: [&str; 21] = [
    "house",
    "room",
    "rooms",
    "told",
    "tell",
    "tells",
    "nobody",
    "somebody",
    "anew",
    "manners",
    "patience",
    "so many",
    "his",
    "believe",
    "believes",
    "believed",
    "stranger",
    "strangers",
    "mood",
    "moods",
    "comes to no end",
];
/// Words of the dialect as identifiers; in a sentence they may stand.
const DIALECT_NAMES: [&str; 2] = ["way_out", "ways_out"];
/// What has such a word and cannot be changed: an option of sfdisk, fields of records of version 2.
const NOT_DIALECT: [&str; 3] = ["--no-tell-kernel", "\"believed\"", "\"way_out\""];
/// The folders whose files are checked for them, beside the documents at the top.
const READ_FOR_DIALECT: [&str; 8] =
    ["src", "tests", "docs", "integrations", "scripts", "examples", "benches", "packaging"];
/// This list, and what a signature covers.
const NOT_READ_FOR_DIALECT: [&str; 2] = ["tests/promises/source_tree.rs", "tests/promises/certificates"];

/// Every branch on these names all variants, so that the compiler finds the places that a new one is
/// to be thought of; only their own module may ask for a single one.
const EXHAUSTIVE: [&str; 2] = ["Operation::", "Scope::"];
const MODULE_OF_STEPS: &str = "plan/step.rs";
/// Places that branch on an operation, their own module's among them.
const BRANCHES_ON_OPERATION_MAX: usize = 12;

/// A line without its comment; strings with `//` in them do not matter to these rules.
fn code(line: &str) -> &str {
    line.split("//").next().unwrap_or(line)
}

/// What a source file is called as a module: `engine/job/state.rs` is `engine::job::state`.
fn module(file: &str) -> Vec<String> {
    let name = file.trim_end_matches(".rs").trim_end_matches("/mod");
    name.split('/').map(String::from).collect()
}

/// The paths of this crate that a file's code names, from its root. Tests in the file count too.
fn paths_named(module: &[String], text: &str) -> Vec<Vec<String>> {
    let text: String = text.lines().map(|line| code(line).to_string() + "\n").collect();
    let inside = text.find("mod tests {").unwrap_or(text.len());
    let mut found = Vec::new();
    for root in ["crate::", "super::", "self::"] {
        for (at, _) in text.match_indices(root) {
            let joined =
                text[..at].ends_with("::") || text[..at].ends_with(|c: char| c.is_alphanumeric() || c == '_');
            if !joined {
                flatten(&text[at..], Vec::new(), &mut |path| {
                    // In the module of its tests one `super` leads to the file itself.
                    found.push(from_root(module, &path, usize::from(at > inside)));
                });
            }
        }
    }
    found
}

/// `a::{b, c::d}` as `a::b` and `a::c::d`; says how much of the text it is.
fn flatten(text: &str, before: Vec<String>, found: &mut dyn FnMut(Vec<String>)) -> usize {
    let name = |text: &str| text.find(|c: char| !c.is_alphanumeric() && c != '_').unwrap_or(text.len());
    let (mut path, mut at) = (before, 0);
    loop {
        let end = at + name(&text[at..]);
        path.push(text[at..end].to_string());
        at = end;
        match text[at..].strip_prefix("::") {
            Some(rest) if rest.starts_with('{') => {
                at += 3;
                while !text[at..].starts_with('}') {
                    at += text[at..].find(|c: char| !c.is_whitespace() && c != ',').unwrap_or(0);
                    if text[at..].starts_with('}') || text[at..].is_empty() {
                        break;
                    }
                    let used = flatten(&text[at..], path.clone(), found);
                    at += used.max(1);
                    at += text[at..].find([',', '}']).unwrap_or(0);
                }
                return at + 1;
            }
            Some(rest) if rest.starts_with(|c: char| c.is_alphabetic() || c == '_') => at += 2,
            _ => {
                found(path);
                return at;
            }
        }
    }
}

fn from_root(module: &[String], path: &[String], mut inner: usize) -> Vec<String> {
    let mut from = if path[0] == "crate" { Vec::new() } else { module.to_vec() };
    for word in path {
        match word.as_str() {
            "crate" | "self" => {}
            "super" if inner > 0 => inner -= 1,
            "super" => drop(from.pop()),
            _ => from.push(word.clone()),
        }
    }
    from
}

/// Which module's file each module's file names, its own parents and children apart.
fn uses(modules: &[(Vec<String>, String)]) -> Vec<(usize, usize)> {
    let file_of = |path: &[String]| {
        let known = |length: &usize| modules.iter().position(|(module, _)| *module == path[..*length]);
        (1..=path.len()).rev().find_map(|length| known(&length))
    };
    let related = |one: &[String], other: &[String]| one.starts_with(other) || other.starts_with(one);
    let mut uses = Vec::new();
    for (from, (module, text)) in modules.iter().enumerate() {
        let named = paths_named(module, text).into_iter().filter_map(|path| file_of(&path));
        uses.extend(named.filter(|to| !related(module, &modules[*to].0)).map(|to| (from, to)));
    }
    uses
}

fn bad_imports(modules: &[(Vec<String>, String)]) -> Vec<String> {
    let layer = |module: &[String]| {
        LAYERS.iter().position(|name| *name == module[0]).unwrap_or_else(|| panic!("no layer for {module:?}"))
    };
    let above = |(from, to): &(usize, usize)| layer(&modules[*to].0) > layer(&modules[*from].0);
    let mut found: Vec<String> = uses(modules)
        .into_iter()
        .filter(above)
        .map(|(from, to)| format!("{} uses {}", modules[from].0.join("::"), modules[to].0.join("::")))
        .collect();
    found.sort();
    found.dedup();
    found
}

/// Files that use one another in a circle.
fn circles(modules: &[(Vec<String>, String)]) -> Vec<String> {
    // Tests may use their file's users.
    let product = |text: &String| text.split("#[cfg(test)]\nmod tests").next().unwrap_or(text).to_string();
    let modules: Vec<_> = modules
        .iter()
        .filter(|(module, _)| *module.last().unwrap() != "tests")
        .map(|(module, text)| (module.clone(), product(text)))
        .collect();
    let modules = &modules;
    let mut graph = petgraph::graph::DiGraph::<usize, ()>::new();
    let nodes: Vec<_> = (0..modules.len()).map(|number| graph.add_node(number)).collect();
    for (from, to) in uses(modules) {
        graph.add_edge(nodes[from], nodes[to], ());
    }
    let circles = petgraph::algo::tarjan_scc(&graph).into_iter().filter(|circle| circle.len() > 1);
    let name = |node: &petgraph::graph::NodeIndex| modules[graph[*node]].0.join("::");
    circles
        .map(|circle| format!("a circle: {}", circle.iter().map(name).collect::<Vec<_>>().join(", ")))
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

/// Lines that match a single variant, or omit some.
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
            found.push(format!("{number}: a match that omits variants"));
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

/// Lines with a word of the dialect, parts of names (`told_at`) among them.
fn dialect(text: &str) -> Vec<String> {
    let spaced = |line: &str| -> String {
        let words = line.split(|c: char| !c.is_alphanumeric()).filter(|word| !word.is_empty());
        format!(" {} ", words.collect::<Vec<_>>().join(" ").to_lowercase())
    };
    let word = |line: &str| {
        let line = NOT_DIALECT.iter().fold(line.to_string(), |line, known| line.replace(known, ""));
        let words = spaced(&line);
        let name = DIALECT_NAMES.into_iter().find(|name| line.contains(name));
        name.or_else(|| DIALECT.into_iter().find(|word| words.contains(&format!(" {word} "))))
    };
    let found = text.lines().enumerate().filter_map(|(number, line)| Some((number, word(line)?)));
    found.map(|(number, word)| format!("{}: '{word}' is dialect", number + 1)).collect()
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
fn the_source_tree_keeps_the_rules() {
    let src = Path::new(env!("CARGO_MANIFEST_DIR")).join("src");
    let mut files = Vec::new();
    sources(&src, &mut files);
    assert!(files.len() > 20, "the tree was not found");
    let (mut broken, mut modules) = (Vec::new(), Vec::new());
    let mut branches = 0;
    for file in files {
        let text = fs::read_to_string(&file).unwrap();
        let name = file.strip_prefix(&src).unwrap().to_str().unwrap();
        let layer = name.split(['/', '.']).next().unwrap();
        modules.push((module(name), text.clone()));
        let mut found = Vec::new();
        found.extend(bad_unsafe(&text, MAY_BE_UNSAFE.contains(&name)));
        found.extend(long_functions(&text));
        if layer == "engine" {
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
    broken.extend(bad_imports(&modules));
    broken.extend(circles(&modules));
    println!("{branches} places branch on an operation");
    assert!((1..=BRANCHES_ON_OPERATION_MAX).contains(&branches), "{branches} places branch on an operation");
    assert!(broken.is_empty(), "see ARCHITECTURE.md:\n{}", broken.join("\n"));
}

/// Every file of text below a folder, but hidden ones and Python's caches.
fn texts(folder: &Path, found: &mut Vec<(PathBuf, String)>) {
    for path in fs::read_dir(folder).unwrap().flatten().map(|entry| entry.path()) {
        let name = path.file_name().unwrap_or_default().to_string_lossy();
        match fs::read_to_string(&path) {
            _ if name.starts_with('.') || name == "__pycache__" => {}
            _ if path.is_dir() => texts(&path, found),
            Ok(text) => found.push((path, text)),
            Err(_) => {}
        }
    }
}

#[test]
fn no_file_has_a_word_of_the_dialect() {
    let root = Path::new(env!("CARGO_MANIFEST_DIR"));
    let mut files = Vec::new();
    READ_FOR_DIALECT.iter().for_each(|folder| texts(&root.join(folder), &mut files));
    for name in ["README.md", "ARCHITECTURE.md", "build.rs"] {
        files.push((root.join(name), fs::read_to_string(root.join(name)).unwrap()));
    }
    assert!(files.len() > 150, "the tree was not found");
    let of = |(path, text): &(PathBuf, String)| -> Vec<String> {
        let name = path.strip_prefix(root).unwrap();
        if NOT_READ_FOR_DIALECT.iter().any(|except| name.starts_with(except)) {
            return Vec::new();
        }
        dialect(text).into_iter().map(|what| format!("{}:{what}", name.display())).collect()
    };
    let found: Vec<String> = files.iter().flat_map(of).collect();
    assert!(found.is_empty(), "see docs/glossary.md:\n{}", found.join("\n"));
}

#[test]
fn the_rules_can_be_broken() {
    let tree = |files: &[(&str, &str)]| -> Vec<(Vec<String>, String)> {
        files.iter().map(|(name, text)| (module(name), text.to_string())).collect()
    };
    let up = tree(&[
        ("engine/mod.rs", "use crate::{io::Disk,\n record::{Record, sign::Key}};"),
        ("io/mod.rs", ""),
        ("record/mod.rs", ""),
        ("record/sign.rs", ""),
    ]);
    assert_eq!(bad_imports(&up), ["engine uses record", "engine uses record::sign"]);
    let fine = tree(&[("cli/mod.rs", "use crate::record::Record; // crate::nowhere"), ("record/mod.rs", "")]);
    assert!(bad_imports(&fine).is_empty() && circles(&fine).is_empty());
    let circle = tree(&[
        ("io/mod.rs", "mod a;"),
        ("io/a.rs", "use super::b::B;"),
        ("io/b.rs", "fn f() { crate::io::a::f() }"),
    ]);
    assert_eq!(circles(&circle).len(), 1);
    let tests =
        tree(&[("io/a.rs", "mod tests {\n use super::*;\n use super::super::b::B; }"), ("io/b.rs", "")]);
    assert_eq!(uses(&tests).len(), 1);
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
    assert_eq!(dialect("/// Nobody was\nlet told_at = 1;\nlet folder = \"nobodys\";").len(), 2);
    assert_eq!(dialect("fn way_out() {}\n/// It names a way out.\nsfdisk --no-tell-kernel").len(), 1);
    let long = format!("fn long() {{\n{}}}\n", "    step();\n".repeat(FUNCTION_LINES_MAX));
    assert_eq!(long_functions(&long).len(), 1);
}

/// The first sentence of a file, and where it lies, layer by layer.
fn module_map() -> String {
    let src = Path::new(env!("CARGO_MANIFEST_DIR")).join("src");
    let mut files = Vec::new();
    sources(&src, &mut files);
    let layer = |name: &str| LAYERS.iter().position(|layer| module(name)[0] == *layer);
    let mut lines: Vec<(Option<usize>, Vec<String>, String)> = Vec::new();
    for file in files {
        let name = file.strip_prefix(&src).unwrap().to_str().unwrap().to_string();
        let text = fs::read_to_string(&file).unwrap();
        let doc: Vec<&str> = text.lines().map_while(|line| line.strip_prefix("//!")).map(str::trim).collect();
        let first = doc.split(|line| line.is_empty()).next().unwrap_or_default().join(" ");
        let end = first.find(". ").map_or(first.len(), |end| end + 1);
        assert!(!first.is_empty() || name.ends_with("tests.rs"), "src/{name} does not say what it is");
        if !name.ends_with("tests.rs") {
            lines.push((layer(&name), module(&name), format!("- `{name}`: {}\n", &first[..end])));
        }
    }
    lines.sort();
    let lines: String = lines.into_iter().map(|(.., line)| line).collect();
    format!(
        "# Modules\nEach file of `src/` by its first sentence, the lowest layer first: a module may use those before \
         it. Made by the test `the_module_map_is_that_of_the_tree` (EFFACE_MODULES_OVERWRITE=1 writes it).\n\n{lines}"
    )
}

#[test]
fn the_module_map_is_that_of_the_tree() {
    let kept = Path::new(env!("CARGO_MANIFEST_DIR")).join("docs/modules.md");
    let map = module_map();
    if std::env::var_os("EFFACE_MODULES_OVERWRITE").is_some() {
        fs::write(&kept, &map).unwrap();
    }
    let is = fs::read_to_string(&kept).unwrap_or_default();
    assert!(is == map, "docs/modules.md is not of this tree: EFFACE_MODULES_OVERWRITE=1 writes it");
}

#[test]
fn the_readme_has_the_exit_codes_and_every_method() {
    let readme = fs::read_to_string(Path::new(env!("CARGO_MANIFEST_DIR")).join("README.md")).unwrap();
    for line in efface::internals::verdict::EXIT_CODES.lines().skip(1) {
        assert!(readme.contains(line), "the README lacks: {line}");
    }
    for scheme in efface::internals::plan::SCHEMES {
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
