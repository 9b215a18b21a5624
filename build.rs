//! Passes the commit that it is built from to the program: its records name it. Links libblkid into a static one.

use std::env;
use std::path::Path;
use std::process::Command;

fn main() {
    // In a second work tree these are elsewhere, and a path that is not there would always count as changed.
    let of_git = ["HEAD", "logs/HEAD"].into_iter().filter_map(|name| git(&["rev-parse", "--git-path", name]));
    for path in of_git.filter(|path| Path::new(path).exists()) {
        println!("cargo:rerun-if-changed={path}");
    }
    for path in ["Cargo.toml", "src"] {
        println!("cargo:rerun-if-changed={path}");
    }
    println!("cargo:rerun-if-env-changed=EFFACE_COMMIT");
    // A package is built without the repository, and says where it comes from.
    let commit = env::var("EFFACE_COMMIT").ok().or_else(commit);
    println!("cargo:rustc-env=EFFACE_COMMIT={}", commit.unwrap_or("unknown".into()));
    let features = env::var("CARGO_CFG_TARGET_FEATURE").unwrap_or_default();
    if features.split(',').any(|feature| feature == "crt-static") {
        println!("cargo:rustc-link-arg=-l:libblkid.a");
    }
}

fn commit() -> Option<String> {
    git(&["describe", "--always", "--dirty", "--abbrev=40", "--exclude=*"])
}

fn git(arguments: &[&str]) -> Option<String> {
    let output = Command::new("git").args(arguments).output().ok()?;
    output.status.success().then(|| String::from_utf8_lossy(&output.stdout).trim().to_string())
}
