//! Logical volumes that are deleted and wait to be wiped: their names say so.

use std::io;
use std::path::{Path, PathBuf};

use super::Tree;
use super::kernel::sysfs::entries;

/// How the driver for Cinder renames a volume that is deleted and not yet cleared
/// (integrations/openstack/efface_openstack/command.py): only here does the program know such names.
const PREFIX: &str = "efface-deleted-";
const MAPPER: &str = "/dev/mapper";

impl Tree {
    /// The paths of the volumes that wait to be wiped, and are none of these devices. A volume that is not
    /// active has no node, and is not found.
    ///
    /// # Errors
    /// The names of the mappings cannot be read.
    pub fn queued(&self, taken: &[&str]) -> io::Result<Vec<PathBuf>> {
        let taken: Vec<_> = taken.iter().filter_map(|device| self.number_of(Path::new(device))).collect();
        let mut names = entries(&self.dev.join("mapper"))?;
        names.retain(|name| logical_volume(name).is_some_and(|volume| volume.starts_with(PREFIX)));
        names.sort();
        let mut paths: Vec<PathBuf> = names.iter().map(|name| Path::new(MAPPER).join(name)).collect();
        // One without a number was removed meanwhile.
        paths.retain(|path| self.number_of(path).is_some_and(|number| !taken.contains(&number)));
        Ok(paths)
    }

    /// `None` if it is no block device, or is gone.
    pub fn size_bytes(&self, device: &Path) -> Option<u64> {
        self.block(self.number_of(device)?).ok()?.read_size().ok()
    }
}

/// The volume's name in that of its mapping, `GROUP-VOLUME`, where LVM doubles the hyphens of both. `None` for
/// a layer of a volume (`GROUP-VOLUME-real`), and for what has no group.
fn logical_volume(mapping: &str) -> Option<String> {
    // No file name has a slash.
    let marked = mapping.replace("--", "/");
    let (_, volume) = marked.split_once('-')?;
    (!volume.contains('-')).then(|| volume.replace('/', "-"))
}

#[cfg(test)]
mod tests {
    use super::super::fake::FakeTree;
    use super::*;

    #[test]
    fn a_volume_is_known_by_its_own_name_and_not_by_its_groups() {
        for (mapping, volume) in [
            ("vg-root", Some("root")),
            ("cinder--volumes-efface--deleted--1", Some("efface-deleted-1")),
            ("a---b", Some("b")),
            ("efface--deleted--1-root", Some("root")),
            ("vg-efface--deleted--1-cow", None),
            ("efface--deleted--1", None),
            ("control", None),
        ] {
            assert_eq!(logical_volume(mapping).as_deref(), volume, "{mapping}");
        }
    }

    #[test]
    fn what_waits_to_be_wiped_is_found_by_name_unless_a_job_has_the_device() {
        let fake = FakeTree::new();
        let mapped = |name: &str, number| {
            fake.write(&format!("dev/mapper/{name}"), "");
            // As the kernel calls a device whose node is not in this /dev.
            fake.device(&format!("virtual/block/mapper!{name}"), number);
        };
        mapped("vg-efface--deleted--2", "253:2");
        mapped("vg-efface--deleted--1", "253:1");
        mapped("vg-volume--3", "253:3");
        fake.write("dev/mapper/vg-efface--deleted--4", "");
        let queued = |taken: &[&str]| fake.tree.queued(taken).unwrap();
        let [first, second] = ["1", "2"].map(|number| format!("/dev/mapper/vg-efface--deleted--{number}"));
        let paths = |names: &[&String]| names.iter().map(PathBuf::from).collect::<Vec<_>>();
        assert_eq!(queued(&[]), paths(&[&first, &second]), "of the last one there is only the node");
        assert_eq!(queued(&["disk.img", &first, "/dev/gone"]), paths(&[&second]));
        assert_eq!(fake.tree.size_bytes(Path::new(&first)), Some(1 << 20));
        assert_eq!(fake.tree.size_bytes(Path::new("disk.img")), None);
    }

    #[test]
    fn names_that_cannot_be_read_are_an_error_and_no_folder_is_none() {
        let fake = FakeTree::new();
        assert_eq!(fake.tree.queued(&[]).unwrap(), Vec::<PathBuf>::new());
        fake.make_unreadable("dev/mapper");
        assert!(fake.tree.queued(&[]).is_err());
    }
}
