//! The content of a device, as libblkid recognises it (libblkid(3)): file systems, RAID and volume
//! manager members, crypto headers, partition tables, and the same in each partition.
//!
//! The library is loaded when the first device is probed: the build needs no package, and every
//! Linux with util-linux has libblkid.so.1. A static binary can load nothing, and has it linked in.

use std::ffi::{CStr, c_char, c_int, c_void};
use std::fs::File;
use std::io;
use std::os::fd::AsRawFd;
use std::ptr;
use std::sync::OnceLock;

#[cfg(not(target_feature = "crt-static"))]
use libloading::Library;
use schemars::JsonSchema;
use serde::{Deserialize, Serialize};

use super::super::gpt;
use crate::printable::printable;
use crate::range::Extent;

/// One recognised signature.
#[derive(Clone, PartialEq, Eq, Debug, Serialize, Deserialize, JsonSchema)]
pub struct Signature {
    /// libblkid's name of it: `ext4`, `LVM2_member`, `crypto_LUKS`, `gpt`.
    pub kind: String,
    /// `filesystem`, `raid`, `crypto`, `other`, `partition table`, or `partition table, too large to read`.
    pub usage: String,
    /// The file system's, or the volume's; `None` if it has none or it is not text.
    pub label: Option<String>,
    /// The file system's, or the volume's, as libblkid writes it.
    pub uuid: Option<String>,
    /// The number of the partition in which it lies, by the table on the device.
    pub partition: Option<u32>,
}

impl Signature {
    /// `ext4 "data"`
    pub fn describe(&self) -> String {
        let kind = match &self.partition {
            Some(number) => format!("{} in partition {number}", self.kind),
            None => self.kind.clone(),
        };
        match &self.label {
            _ if self.usage == UNREAD => format!("{kind} (a {UNREAD})"),
            Some(label) => format!("{kind} {label:?}"),
            None => kind,
        }
    }
}

/// More partitions than any real table has; hostile bytes must not keep us for ever.
const PARTITIONS_MAX: c_int = 256;
const SIGNATURES_MAX: usize = 64;
/// Partition tables count in these.
const SECTOR_BYTES: i64 = 512;

/// The usage of a table that libblkid is not asked to read.
const UNREAD: &str = "partition table, too large to read";

/// Why it is not known what lies in the partitions; `None` if it is.
pub(in crate::device) fn unread(signatures: &[Signature]) -> Option<io::Error> {
    let table = signatures.iter().find(|signature| signature.usage == UNREAD)?;
    Some(io::Error::other(format!("its {} is too large to read", table.kind)))
}

/// Every signature on this device, and in its partitions by the table that it holds.
pub(in crate::device) fn signatures(file: &File) -> io::Result<Vec<Signature>> {
    let library = Blkid::get()?;
    let whole = Extent::new(0, crate::io::size_of(file)?);
    let mut all = area(library, file, whole, None)?;
    if unread(&all).is_none() {
        for (number, partition) in partitions(library, file, whole)? {
            all.extend(area(library, file, partition, Some(number))?);
        }
    }
    Ok(all)
}

/// The signatures at the beginning and at the end of a range, without those of partition tables.
pub(in crate::device) fn superblocks(file: &File, range: Extent) -> io::Result<Vec<Signature>> {
    Probe::new(Blkid::get()?, file, range)?.superblocks().found(None)
}

/// What lies in one range of the device.
fn area(library: &Blkid, file: &File, range: Extent, partition: Option<u32>) -> io::Result<Vec<Signature>> {
    let probe = Probe::new(library, file, range)?.superblocks();
    if !gpt::is_too_large(file, range) {
        return probe.tables().found(partition);
    }
    let (kind, usage) = ("gpt".into(), UNREAD.into());
    let table = Signature { kind, usage, label: None, uuid: None, partition };
    let mut found = probe.found(partition)?;
    found.push(table);
    Ok(found)
}

/// Number and place of each partition in the table on this device.
fn partitions(library: &Blkid, file: &File, whole: Extent) -> io::Result<Vec<(u32, Extent)>> {
    let probe = Probe::new(library, file, whole)?;
    let mut partitions = Vec::new();
    // SAFETY: the list and its entries belong to the probe, which outlives this block; none is
    // used where it is null, and each index is below the count.
    unsafe {
        (library.blkid_probe_enable_partitions)(probe.handle, 1);
        let list = (library.blkid_probe_get_partitions)(probe.handle);
        let count = if list.is_null() {
            0
        } else {
            (library.blkid_partlist_numof_partitions)(list).min(PARTITIONS_MAX)
        };
        for index in 0..count {
            let entry = (library.blkid_partlist_get_partition)(list, index);
            if !entry.is_null() && (library.blkid_partition_is_extended)(entry) == 0 {
                let sectors =
                    [(library.blkid_partition_get_start)(entry), (library.blkid_partition_get_size)(entry)];
                let [start, size] = sectors.map(|sectors| sectors.saturating_mul(SECTOR_BYTES));
                partitions.push(((library.blkid_partition_get_partno)(entry) as u32, start, size));
            }
        }
    }
    // A table may name partitions beyond the device: those cannot be read.
    let place = |(number, start, size): (u32, i64, i64)| {
        let (start, size) = (u64::try_from(start).ok()?, u64::try_from(size).ok()?);
        let end = start.checked_add(size).filter(|end| *end <= whole.end)?;
        (start > 0 && size > 0).then(|| (number, Extent::new(start, end)))
    };
    Ok(partitions.into_iter().filter_map(place).collect())
}

/// A probe of one range, freed at its end.
struct Probe<'a> {
    library: &'a Blkid,
    handle: Handle,
}

impl<'a> Probe<'a> {
    fn new(library: &'a Blkid, file: &'a File, range: Extent) -> io::Result<Probe<'a>> {
        let [start, size] = [range.start, range.len()].map(|bytes| i64::try_from(bytes).unwrap_or(i64::MAX));
        // SAFETY: takes nothing, and gives a probe or null.
        let handle = unsafe { (library.blkid_new_probe)() };
        if handle.is_null() {
            return Err(io::ErrorKind::OutOfMemory.into());
        }
        let probe = Probe { library, handle };
        // SAFETY: the probe lives, and the file outlives it.
        match unsafe { (library.blkid_probe_set_device)(handle, file.as_raw_fd(), start, size) } {
            0 => Ok(probe),
            _ => Err(io::Error::last_os_error()),
        }
    }

    /// It looks for file systems, volume members and crypto headers.
    fn superblocks(self) -> Probe<'a> {
        // BLKID_SUBLKS_ LABEL, UUID, TYPE and USAGE.
        const FLAGS: c_int = (1 << 1) | (1 << 3) | (1 << 5) | (1 << 7);
        // SAFETY: the probe lives, and these take flags only.
        unsafe {
            (self.library.blkid_probe_enable_superblocks)(self.handle, 1);
            (self.library.blkid_probe_set_superblocks_flags)(self.handle, FLAGS);
        }
        self
    }

    /// It looks for partition tables too.
    fn tables(self) -> Probe<'a> {
        const FORCE_GPT: c_int = 1 << 1;
        // SAFETY: the probe lives, and these take flags only.
        unsafe {
            (self.library.blkid_probe_enable_partitions)(self.handle, 1);
            (self.library.blkid_probe_set_partitions_flags)(self.handle, FORCE_GPT);
        }
        self
    }

    /// All that it finds.
    fn found(&self, partition: Option<u32>) -> io::Result<Vec<Signature>> {
        let mut found: Vec<Signature> = Vec::new();
        while found.len() < SIGNATURES_MAX && self.step()? {
            let table = self.value(c"PTTYPE");
            let usage = if table.is_some() { Some("partition table".into()) } else { self.value(c"USAGE") };
            if let Some(kind) = table.or_else(|| self.value(c"TYPE")) {
                let (label, uuid) = (self.value(c"LABEL"), self.value(c"UUID"));
                found.push(Signature { kind, usage: usage.unwrap_or_default(), label, uuid, partition });
            }
        }
        // A superblock has its copies: ext4 and btrfs are found at each.
        let mut seen: Vec<Signature> = Vec::new();
        found.retain(|signature| !seen.contains(signature) && (seen.push(signature.clone()), true).1);
        Ok(found)
    }

    /// Goes on to the next signature; says whether there is one.
    fn step(&self) -> io::Result<bool> {
        nix::errno::Errno::clear();
        // SAFETY: the probe lives.
        match unsafe { (self.library.blkid_do_probe)(self.handle) } {
            0 => Ok(true),
            1 => Ok(false),
            _ => Err(io::Error::last_os_error()),
        }
    }

    fn value(&self, name: &CStr) -> Option<String> {
        let (mut data, mut len) = (ptr::null(), 0);
        // SAFETY: the probe lives, the name ends with a zero, and both places are written on success.
        let found = unsafe {
            (self.library.blkid_probe_lookup_value)(self.handle, name.as_ptr(), &mut data, &mut len)
        };
        if found != 0 || data.is_null() {
            return None;
        }
        // SAFETY: values are C strings that live until the probe goes on.
        let text = printable(unsafe { CStr::from_ptr(data) }.to_string_lossy().trim());
        (!text.is_empty()).then_some(text)
    }
}

impl Drop for Probe<'_> {
    fn drop(&mut self) {
        // SAFETY: the probe lives, and is used no more.
        unsafe { (self.library.blkid_free_probe)(self.handle) };
    }
}

type Handle = *mut c_void;
type Partlist = *mut c_void;
type Partition = *mut c_void;

/// The functions of libblkid.so.1 that are used here, as blkid.h declares them.
macro_rules! libblkid {
    ($($name:ident: fn($($argument:ty),*) $(-> $result:ty)?;)*) => {
        struct Blkid {
            // SAFETY: the caller of each keeps to what libblkid(3) asks of it.
            $($name: unsafe extern "C" fn($($argument),*) $(-> $result)?,)*
            #[cfg(not(target_feature = "crt-static"))]
            _library: Library,
        }

        impl Blkid {
            #[cfg(not(target_feature = "crt-static"))]
            fn load() -> Result<Blkid, libloading::Error> {
                // SAFETY: loading runs nothing but libblkid's own set-up, and each symbol is taken with
                // the type that blkid.h gives it; the library stays loaded as long as they are held.
                unsafe {
                    let library = Library::new("libblkid.so.1")?;
                    Ok(Blkid { $($name: *library.get(stringify!($name))?,)* _library: library })
                }
            }

            #[cfg(target_feature = "crt-static")]
            fn load() -> Result<Blkid, std::convert::Infallible> {
                // SAFETY: each function has the type that blkid.h gives it.
                unsafe extern "C" {
                    $(fn $name($(_: $argument),*) $(-> $result)?;)*
                }
                Ok(Blkid { $($name),* })
            }
        }
    };
}

libblkid! {
    blkid_new_probe: fn() -> Handle;
    blkid_free_probe: fn(Handle);
    blkid_probe_set_device: fn(Handle, c_int, i64, i64) -> c_int;
    blkid_probe_enable_superblocks: fn(Handle, c_int) -> c_int;
    blkid_probe_set_superblocks_flags: fn(Handle, c_int) -> c_int;
    blkid_probe_enable_partitions: fn(Handle, c_int) -> c_int;
    blkid_probe_set_partitions_flags: fn(Handle, c_int) -> c_int;
    blkid_do_probe: fn(Handle) -> c_int;
    blkid_probe_lookup_value: fn(Handle, *const c_char, *mut *const c_char, *mut usize) -> c_int;
    blkid_probe_get_partitions: fn(Handle) -> Partlist;
    blkid_partlist_numof_partitions: fn(Partlist) -> c_int;
    blkid_partlist_get_partition: fn(Partlist, c_int) -> Partition;
    blkid_partition_get_partno: fn(Partition) -> c_int;
    blkid_partition_get_start: fn(Partition) -> i64;
    blkid_partition_get_size: fn(Partition) -> i64;
    blkid_partition_is_extended: fn(Partition) -> c_int;
}

impl Blkid {
    fn get() -> io::Result<&'static Blkid> {
        static LOADED: OnceLock<Result<Blkid, String>> = OnceLock::new();
        let loaded = LOADED.get_or_init(|| Blkid::load().map_err(|error| error.to_string()));
        loaded.as_ref().map_err(|why| io::Error::other(why.clone()))
    }
}
