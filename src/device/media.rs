//! Detection of physical drives of this machine. An allow-list: of a disk behind a network, a hypervisor
//! or another kernel driver nothing is known of the media.

use std::fs::{self, File};
use std::io::Read;

use super::Tree;
use super::kernel::sysfs::Block;

/// What drives hang on. FibreChannel, iSCSI, RAID controllers, virtio and the rest are not among these.
const LOCAL: [&str; 5] = ["sata", "sas", "usb", "mmc", "nvme"];

pub(super) fn is_physical(tree: &Tree, disk: &Block, transport: Option<&str>) -> bool {
    let local = transport.is_some_and(|transport| LOCAL.contains(&transport));
    let attached = transport != Some("nvme") || is_pcie(disk);
    local && attached && is_real_machine(tree)
}

/// NVMe goes over networks too: each controller of the disk says what it hangs on.
pub(super) fn is_pcie(disk: &Block) -> bool {
    let Some(parent) = disk.folder().parent() else { return false };
    if parent.join("transport").exists() {
        return is_on_pcie(parent);
    }
    // With multipath support the disk belongs to the subsystem, which links to its controllers.
    let is_controller = |name: &str| {
        name.strip_prefix("nvme").is_some_and(|number| number.bytes().all(|byte| byte.is_ascii_digit()))
    };
    let Ok(entries) = fs::read_dir(parent) else { return false };
    let names = entries.flatten().filter_map(|entry| entry.file_name().into_string().ok());
    let controllers: Vec<String> = names.filter(|name| is_controller(name)).collect();
    !controllers.is_empty() && controllers.iter().all(|name| is_on_pcie(&parent.join(name)))
}

fn is_on_pcie(controller: &std::path::Path) -> bool {
    fs::read_to_string(controller.join("transport")).is_ok_and(|transport| transport.trim() == "pcie")
}

/// A hypervisor shows itself to x86 processors by a flag of theirs; elsewhere it cannot be ruled out.
fn is_real_machine(tree: &Tree) -> bool {
    /// The first processor's lines are shorter; each further one costs the kernel a while.
    const READ_BYTES: u64 = 8 << 10;
    let mut bytes = Vec::new();
    let read =
        File::open(tree.proc.join("cpuinfo")).map(|file| file.take(READ_BYTES).read_to_end(&mut bytes));
    let text = String::from_utf8_lossy(&bytes);
    let flags = text.lines().find(|line| line.starts_with("flags"));
    read.is_ok() && flags.is_some_and(|flags| !flags.split_whitespace().any(|flag| flag == "hypervisor"))
}

#[cfg(test)]
mod tests {
    use super::super::fake::{FakeTree, SDA};
    use super::*;

    const FLAGS: &str = "processor\t: 0\nflags\t\t: fpu vme sse2 lm\n";

    #[test]
    fn a_drive_counts_as_physical_only_on_a_machine_that_is_no_virtual_one() {
        let fake = FakeTree::new();
        let disk = fake.tree.block(fake.device(SDA, "8:0")).unwrap();
        let physical = || is_physical(&fake.tree, &disk, Some("sata"));
        assert!(!physical(), "no processor was seen");
        fake.write("proc/cpuinfo", FLAGS.replace("lm", "lm hypervisor"));
        assert!(!physical());
        fake.write("proc/cpuinfo", "processor\t: 0\nFeatures\t: fp asimd\n");
        assert!(!physical(), "not known on this architecture");
        fake.write("proc/cpuinfo", FLAGS);
        assert!(physical());
        for transport in [None, Some("virtio"), Some("fc"), Some("iscsi"), Some("xen")] {
            assert!(!is_physical(&fake.tree, &disk, transport), "{transport:?}");
        }
    }

    #[test]
    fn an_nvme_disk_counts_as_physical_over_pcie_alone() {
        let fake = FakeTree::new();
        fake.write("proc/cpuinfo", FLAGS);
        let plain = "pci0000:00/0000:00:04.0/nvme/nvme0";
        let shared = "virtual/nvme-subsystem/nvme-subsys1";
        let disks =
            [(plain, "nvme0n1", "259:0"), (shared, "nvme1n1", "259:1")].map(|(folder, name, number)| {
                fake.tree.block(fake.device(&format!("{folder}/{name}"), number)).unwrap()
            });
        let physical = || disks.each_ref().map(|disk| is_physical(&fake.tree, disk, Some("nvme")));
        assert_eq!(physical(), [false; 2]);
        fake.write(&format!("sys/devices/{plain}/transport"), "pcie\n");
        fake.write(&format!("sys/devices/{shared}/nvme1/transport"), "pcie\n");
        assert_eq!(physical(), [true; 2]);
        fake.write(&format!("sys/devices/{plain}/transport"), "tcp\n");
        fake.write(&format!("sys/devices/{shared}/nvme2/transport"), "rdma\n");
        assert_eq!(physical(), [false; 2]);
    }
}
