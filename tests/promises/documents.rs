//! Claims of `docs`: each row of a table with a column "test" names at least one, and every named test
//! exists.

use std::collections::BTreeSet;
use std::fs;
use std::path::Path;

/// Each of these has such tables, and no other tables.
const DOCUMENTS: [&str; 3] = ["docs/refusals.md", "docs/storage.md", "docs/errors.md"];

fn root() -> &'static Path {
    Path::new(env!("CARGO_MANIFEST_DIR"))
}

fn read(path: &str) -> String {
    fs::read_to_string(root().join(path)).unwrap_or_else(|error| panic!("{path}: {error}"))
}

fn last_cell(row: &str) -> &str {
    row.trim().trim_end_matches('|').rsplit("| ").next().unwrap_or("").trim()
}

/// What is between backticks in the last column of the tables, a list a row. Err where a table has no
/// column for tests.
fn tests_by_row(text: &str) -> Result<Vec<(&str, Vec<&str>)>, String> {
    let mut rows = Vec::new();
    let mut lines = text.lines();
    while let Some(heading) = lines.find(|line| line.starts_with('|')) {
        if last_cell(heading) != "test" {
            return Err(format!("a table without a column for tests: {heading}"));
        }
        let table = lines.by_ref().skip(1).take_while(|line| line.starts_with('|'));
        rows.extend(table.map(|row| (row, last_cell(row).split('`').skip(1).step_by(2).collect())));
    }
    Ok(rows)
}

/// The names of the functions with `#[test]`, and of Python's tests.
fn tests_in(text: &str, names: &mut BTreeSet<String>) {
    let mut is_test = false;
    for line in text.lines().map(str::trim) {
        is_test |= line == "#[test]";
        let name = match line.strip_prefix("def test_") {
            Some(_) => line.strip_prefix("def "),
            None => line.split_once("fn ").map(|(_, rest)| rest).filter(|_| is_test),
        };
        if let Some(name) = name {
            names.extend(name.split(['(', '<']).next().map(String::from));
            is_test = false;
        }
    }
}

fn add_tests_below(folder: &Path, names: &mut BTreeSet<String>) {
    for path in fs::read_dir(folder).unwrap().flatten().map(|entry| entry.path()) {
        match path.extension().and_then(|extension| extension.to_str()) {
            _ if path.is_dir() => add_tests_below(&path, names),
            Some("rs" | "py") => tests_in(&fs::read_to_string(&path).unwrap(), names),
            _ => {}
        }
    }
}

fn vm_tests() -> BTreeSet<String> {
    let files = fs::read_dir(root().join("tests/vm")).unwrap().flatten();
    files.map(|file| file.file_name().into_string().unwrap()).filter(|name| !name.contains('.')).collect()
}

/// A path of the project, a script in `tests/vm`, or a function that is a test.
fn all_tests() -> BTreeSet<String> {
    let mut names = vm_tests();
    for folder in ["src", "tests", "integrations/tests"] {
        add_tests_below(&root().join(folder), &mut names);
    }
    names
}

fn complaints(document: &str, text: &str, tests: &BTreeSet<String>) -> Vec<String> {
    let rows = match tests_by_row(text) {
        Ok(rows) => rows,
        Err(error) => return vec![format!("{document}: {error}")],
    };
    let exists = |name: &str| tests.contains(name) || name.contains('/') && root().join(name).exists();
    let missing = |(row, names): &(&str, Vec<&str>)| {
        let unknown = names.iter().find(|name| !exists(name));
        match unknown {
            Some(name) => Some(format!("{document}: there is no test {name}: {row}")),
            None => names.is_empty().then(|| format!("{document}: no test is named: {row}")),
        }
    };
    rows.iter().filter_map(missing).collect()
}

#[test]
fn every_row_of_a_table_names_a_test_that_exists() {
    let tests = all_tests();
    let found: Vec<String> =
        DOCUMENTS.iter().flat_map(|document| complaints(document, &read(document), &tests)).collect();
    assert!(found.is_empty(), "{}", found.join("\n"));
}

#[test]
fn every_vm_test_is_named_by_the_claims_about_storage() {
    let text = read("docs/storage.md");
    let named: BTreeSet<&str> =
        tests_by_row(&text).unwrap().into_iter().flat_map(|(_, names)| names).collect();
    let unnamed: Vec<String> = vm_tests().into_iter().filter(|test| !named.contains(test.as_str())).collect();
    assert!(unnamed.is_empty(), "docs/storage.md does not name {}", unnamed.join(", "));
}

#[test]
fn a_row_without_a_test_and_a_test_that_does_not_exist_are_found() {
    let mut tests = BTreeSet::new();
    tests_in(
        "fn helper() {}\n#[test]\n#[ignore]\nfn a_test() {}\nfn other() {}\ndef test_it(self):",
        &mut tests,
    );
    assert_eq!(tests.iter().collect::<Vec<_>>(), ["a_test", "test_it"]);
    let count = |table: &str| complaints("x", table, &tests).len();
    let heading = "| claim | test |\n|---|---|\n";
    assert_eq!(
        count(&format!("{heading}| one | fake: `a_test`, `test_it` |\n| two | `tests/promises` |\n")),
        0
    );
    assert_eq!(count(&format!("{heading}| one | fake |\n| two | |\n")), 2);
    assert_eq!(
        count(&format!("{heading}| one | `a_test`, `no_test` |\n\ntext\n\n{heading}| two | `other` |\n")),
        2
    );
    assert_eq!(count("| claim | because |\n|---|---|\n| one | `a_test` |\n"), 1);
}
