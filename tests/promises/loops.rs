//! Loop devices that a test makes for itself, and that are gone when it ends, however it ends.

use std::fs::File;
use std::io::Write;
use std::path::{Path, PathBuf};
use std::process::Command;

use tempfile::NamedTempFile;

pub struct Loop {
    pub image: NamedTempFile,
    pub node: PathBuf,
}

impl Loop {
    /// A loop device over an image with this content. None, said aloud, where none can be had.
    pub fn new(content: &[u8], options: &[&str]) -> Option<Loop> {
        let image = NamedTempFile::with_prefix("efface-test-").unwrap();
        std::fs::write(image.path(), content).unwrap();
        Loop::over(image, options)
    }

    /// A sparse one.
    pub fn sparse(size: u64, options: &[&str]) -> Option<Loop> {
        let image = NamedTempFile::with_prefix("efface-test-").unwrap();
        image.as_file().set_len(size).unwrap();
        Loop::over(image, options)
    }

    fn over(image: NamedTempFile, options: &[&str]) -> Option<Loop> {
        if !nix::unistd::geteuid().is_root() {
            return skipped("only root makes loop devices");
        }
        let losetup =
            Command::new("losetup").args(["--find", "--show"]).args(options).arg(image.path()).output();
        let Ok(losetup) = losetup else {
            return skipped("there is no losetup");
        };
        if !losetup.status.success() {
            return skipped(&format!("no loop device: {}", String::from_utf8_lossy(&losetup.stderr).trim()));
        }
        let node = PathBuf::from(String::from_utf8(losetup.stdout).unwrap().trim());
        Some(Loop { image, node })
    }

    /// What the image holds, read past the loop device.
    pub fn content(&self) -> Vec<u8> {
        std::fs::read(self.image.path()).unwrap()
    }

    pub fn open_exclusively(&self) -> std::io::Result<File> {
        use std::os::unix::fs::OpenOptionsExt;
        File::options().read(true).write(true).custom_flags(nix::libc::O_EXCL).open(&self.node)
    }
}

impl Drop for Loop {
    fn drop(&mut self) {
        Command::new("losetup").arg("--detach").arg(&self.node).status().ok();
    }
}

/// Says why a test did not run, past the test runner, which swallows what a passing test prints.
pub fn skipped<T>(why: &str) -> Option<T> {
    writeln!(std::io::stderr(), "SKIPPED {}: {why}", std::thread::current().name().unwrap_or("a test")).ok();
    None
}

/// The program under test.
pub fn efface() -> Command {
    Command::new(env!("CARGO_BIN_EXE_efface"))
}

/// Runs `efface wipe NODE --yes` with these options; gives the exit code, stdout and stderr.
pub fn wipe(node: &Path, options: &[&str]) -> (i32, String, String) {
    let output = efface().arg("wipe").arg(node).arg("--yes").args(options).output().unwrap();
    let text = |bytes: Vec<u8>| String::from_utf8(bytes).unwrap();
    (output.status.code().unwrap_or(-1), text(output.stdout), text(output.stderr))
}
