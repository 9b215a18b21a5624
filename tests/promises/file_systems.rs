//! File systems that a test makes on a loop device of its own and mounts, for loop devices over their files.

use std::fs;
use std::path::Path;
use std::process::Command;

use tempfile::TempDir;

use crate::loops::{Loop, skipped};

pub struct FileSystem {
    pub folder: TempDir,
    below: Loop,
}

impl FileSystem {
    /// `None` where the test is skipped.
    pub fn new(bytes: usize) -> Option<FileSystem> {
        let below = Loop::new(&vec![0; bytes], &[])?;
        let folder = tempfile::tempdir().unwrap();
        let done = |program: &str, arguments: &[&Path]| {
            Command::new(program).args(arguments).output().is_ok_and(|output| output.status.success())
        };
        if !done("mkfs.ext4", &[Path::new("-q"), &below.node])
            || !done("mount", &[&below.node, folder.path()])
        {
            return skipped("no file system can be mounted");
        }
        Some(FileSystem { folder, below })
    }

    /// A loop device over a new file on it.
    pub fn device(&self, bytes: usize) -> Option<Loop> {
        let image = tempfile::Builder::new()
            .prefix("image")
            .tempfile_in(self.folder.path())
            .unwrap()
            .into_temp_path();
        fs::write(&image, vec![b'x'; bytes]).unwrap();
        Loop::over(image, &[])
    }

    /// The device that it is on.
    pub fn below(&self) -> &Path {
        &self.below.node
    }
}

impl Drop for FileSystem {
    fn drop(&mut self) {
        Command::new("umount").arg("--lazy").arg(self.folder.path()).status().ok();
    }
}
