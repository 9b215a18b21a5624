//! Loop devices that a test makes for itself, and that are gone when it ends, however it ends.
//! For the tests beside the code and for those of `tests/promises`.

use std::io::{ErrorKind, Write};
use std::path::PathBuf;
use std::process::Command;

use tempfile::{NamedTempFile, TempPath};

pub struct Loop {
    /// Closed, since efface refuses a device that is open for writing.
    pub image: TempPath,
    pub node: PathBuf,
}

impl Loop {
    /// A loop device over an image with this content. `None` where the test is skipped.
    pub fn new(content: &[u8], options: &[&str]) -> Option<Loop> {
        let image = NamedTempFile::with_prefix("efface-test-").unwrap().into_temp_path();
        std::fs::write(&image, content).unwrap();
        Loop::over(image, options)
    }

    /// The same over an image that was made before.
    pub fn over(image: TempPath, options: &[&str]) -> Option<Loop> {
        if !is_root() {
            return None;
        }
        if std::fs::metadata("/proc/1/root/").is_err_and(|error| error.kind() == ErrorKind::PermissionDenied)
        {
            return skipped("process 1 cannot be read, so efface takes no device: run it by scripts/seen");
        }
        let losetup = Command::new("losetup").args(["--find", "--show"]).args(options).arg(&image).output();
        match losetup {
            Ok(made) if made.status.success() => {
                let node = String::from_utf8(made.stdout).unwrap().trim().into();
                Some(Loop { image, node })
            }
            failed => skipped(&format!("losetup gave no loop device: {failed:?}")),
        }
    }

    /// What the image holds, read past the loop device.
    pub fn content(&self) -> Vec<u8> {
        std::fs::read(&self.image).unwrap()
    }
}

impl Drop for Loop {
    fn drop(&mut self) {
        Command::new("losetup").arg("--detach").arg(&self.node).status().ok();
    }
}

/// Whether this is root; else what needs root is skipped.
pub fn is_root() -> bool {
    nix::unistd::geteuid().is_root() || skipped("only root can run it").unwrap_or(false)
}

/// A test, or a part of one, that cannot run here. It says why, past the test runner, which swallows what
/// a passing test prints; with `EFFACE_TEST_STRICT=1` the test fails.
pub fn skipped<T>(why: &str) -> Option<T> {
    let strict = std::env::var_os("EFFACE_TEST_STRICT").is_some_and(|strict| strict == "1");
    assert!(!strict, "skipped, which EFFACE_TEST_STRICT forbids: {why}");
    writeln!(std::io::stderr(), "SKIPPED {}: {why}", std::thread::current().name().unwrap_or("a test")).ok();
    None
}
