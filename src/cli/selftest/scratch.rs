//! The scratch target of the self-test: a loop device made for it, or an image file.

use std::fs::File;
use std::io::{BufWriter, Write};
use std::os::unix::fs::FileExt;
use std::path::{Path, PathBuf};
use std::process::Command;

use nix::unistd::geteuid;
use tempfile::{NamedTempFile, TempPath};

use crate::error::{Error, Result};
use crate::pattern::Pattern;
use crate::range::Extent;

const DATA: &[u8; 64] = b"data of the previous tenant, which the next one must never see\n\0";
const READ_BYTES: u64 = 1 << 20;

pub struct Scratch {
    image: File,
    at: ScratchKind,
    size: u64,
}

enum ScratchKind {
    /// The image is unlinked, and the kernel detaches the device with its last descriptor: nothing is left
    /// behind, even after SIGKILL.
    Loop {
        node: PathBuf,
        _held: File,
    },
    Image(TempPath),
}

impl Scratch {
    pub fn new(size: u64) -> Result<Scratch> {
        let failed = |error| {
            Error::failed("no scratch image").because(error).with_remedy("check that TMPDIR has free space")
        };
        let image = NamedTempFile::with_prefix("efface-selftest-").map_err(failed)?;
        let mut writer = BufWriter::with_capacity(READ_BYTES as usize, image.as_file());
        for _ in 0..size / DATA.len() as u64 {
            writer.write_all(DATA).map_err(failed)?;
        }
        writer.flush().map_err(failed)?;
        drop(writer);
        let (image, path) = image.into_parts();
        let at = match attach(&path) {
            Some((node, held)) => ScratchKind::Loop { node, _held: held },
            None => {
                println!("(No loop device available: an image file is used. Root gets a loop device.)\n");
                ScratchKind::Image(path)
            }
        };
        Ok(Scratch { image, at, size })
    }

    pub fn path(&self) -> PathBuf {
        match &self.at {
            ScratchKind::Loop { node, .. } => node.clone(),
            ScratchKind::Image(path) => path.to_path_buf(),
        }
    }

    pub fn is_image(&self) -> bool {
        matches!(self.at, ScratchKind::Image(_))
    }

    /// Reads the image file directly and compares every byte with the pattern.
    pub fn compare(&self, pattern: &Pattern) -> Result<()> {
        let failed = |error| Error::failed("the scratch image cannot be read").because(error);
        let (mut found, mut wanted) = (vec![0; READ_BYTES as usize], vec![0; READ_BYTES as usize]);
        for piece in Extent::new(0, self.size).chunks(READ_BYTES) {
            self.image.read_exact_at(&mut found, piece.start).map_err(failed)?;
            pattern.fill(piece.start, &mut wanted);
            if found != wanted {
                return Err(Error::failed("the scratch image does not hold what was written").at(piece));
            }
        }
        Ok(())
    }
}

/// A loop device over the image, named by losetup; `None` without losetup.
fn attach(image: &Path) -> Option<(PathBuf, File)> {
    if !geteuid().is_root() {
        return None;
    }
    let losetup = Command::new("losetup").args(["--find", "--show"]).arg(image).output().ok()?;
    if !losetup.status.success() {
        return None;
    }
    let node = PathBuf::from(String::from_utf8(losetup.stdout).ok()?.trim());
    let held = File::open(&node);
    // While a descriptor is open this only makes the kernel detach after the last one is closed.
    let detached = Command::new("losetup").arg("--detach").arg(&node).status();
    if !detached.is_ok_and(|status| status.success()) {
        tracing::warn!("losetup --detach {} failed: detach it by hand", node.display());
    }
    Some((node, held.ok()?))
}
