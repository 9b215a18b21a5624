//! Memory that a device can read and write directly.

use std::ffi::c_void;
use std::fmt;
use std::num::NonZero;
use std::ops::{Deref, DerefMut};
use std::ptr::NonNull;
use std::sync::Arc;

use nix::sys::mman::{MapFlags, MmapAdvise, ProtFlags, madvise, mmap_anonymous, munmap};
use zeroize::Zeroize;

/// What the kernel maps and direct I/O pins, at least.
const PAGE_MIN: usize = 4096;

/// An aligned buffer; it can be shortened for the operation at hand. A part of its memory can be shared with
/// other operations that only read it: as long as it is shared, it cannot be changed.
pub struct Buf {
    memory: Arc<Memory>,
    /// From the start of the memory.
    start: usize,
    len: usize,
    /// The number of its memory among those that were registered with the kernel.
    slot: Option<u16>,
}

/// A mapping of its own, not a part of the allocator's: the kernel makes its pages all at once where it pins
/// them, large ones where it can, and no other allocation gets them afterwards.
struct Memory {
    bytes: NonNull<u8>,
    len: usize,
}

// SAFETY: the mapping belongs to this Memory alone and has no interior mutability, like a Box<[u8]>.
unsafe impl Send for Memory {}
// SAFETY: as above: a shared reference gives only shared access to the bytes.
unsafe impl Sync for Memory {}

impl Memory {
    fn new(len: usize) -> nix::Result<Memory> {
        let size = NonZero::new(len).expect("a buffer without bytes");
        let protection = ProtFlags::PROT_READ | ProtFlags::PROT_WRITE;
        // SAFETY: an anonymous mapping at an address that the kernel chooses.
        let bytes = unsafe { mmap_anonymous(None, size, protection, MapFlags::MAP_PRIVATE) }?;
        for advice in [MmapAdvise::MADV_DONTDUMP, MmapAdvise::MADV_HUGEPAGE] {
            // What disks hold is kept out of core dumps, should one be written all the same. Large pages are
            // not known to every kernel.
            // SAFETY: this advice does not change what the mapping above holds.
            unsafe { madvise(bytes, len, advice) }.ok();
        }
        Ok(Memory { bytes: bytes.cast(), len })
    }
}

impl Buf {
    /// `capacity` zeroed bytes or some more, aligned to `align` (a power of two) and to a page.
    ///
    /// # Panics
    /// Where `capacity` is 0, `align` is no power of two, or the kernel has no memory.
    pub fn new(capacity: usize, align: usize) -> Buf {
        assert!(capacity > 0, "a buffer without bytes");
        let more = align.saturating_sub(PAGE_MIN);
        let memory = Memory::new(capacity + more)
            .unwrap_or_else(|error| panic!("{capacity} bytes of memory: {error}"));
        let start = memory.bytes.align_offset(align);
        Buf { memory: Arc::new(memory), start, len: capacity, slot: None }
    }

    /// The bytes that it was made with; its length as a slice is what [`Buf::set_len`] set.
    pub fn capacity(&self) -> usize {
        self.memory.len - self.start
    }

    /// Sets how many bytes the next operation uses.
    ///
    /// # Panics
    /// Where `len` is above the capacity.
    pub fn set_len(&mut self, len: usize) {
        assert!(len <= self.capacity(), "{len} bytes in a buffer of {}", self.capacity());
        self.len = len;
    }

    /// The `len` bytes from `from` on, to be written by an operation of their own.
    ///
    /// # Panics
    /// Where they are not all within the length.
    pub fn share(&self, from: usize, len: usize) -> Buf {
        assert!(from.checked_add(len).is_some_and(|end| end <= self.len), "{len} bytes from {from} on");
        Buf { memory: self.memory.clone(), start: self.start + from, len, slot: self.slot }
    }

    pub(crate) fn slot(&self) -> Option<u16> {
        self.slot
    }

    pub(crate) fn set_slot(&mut self, slot: u16) {
        self.slot = Some(slot);
    }
}

impl Deref for Buf {
    type Target = [u8];

    fn deref(&self) -> &[u8] {
        // SAFETY: the memory holds `start + len` initialized bytes at least and lives as long as self;
        // what is shared is not changed (see `deref_mut`).
        unsafe { std::slice::from_raw_parts(self.memory.bytes.as_ptr().add(self.start), self.len) }
    }
}

impl DerefMut for Buf {
    /// # Panics
    /// Where the memory is shared with another buffer.
    fn deref_mut(&mut self) -> &mut [u8] {
        let memory =
            Arc::get_mut(&mut self.memory).expect("the memory of a buffer that changes is not shared");
        // SAFETY: as in `deref`; no other Buf has this memory, so `&mut self` makes the access the only one.
        unsafe { std::slice::from_raw_parts_mut(memory.bytes.as_ptr().add(self.start), self.len) }
    }
}

impl Drop for Memory {
    fn drop(&mut self) {
        // It may have held a key.
        // SAFETY: these bytes are initialized, and no other reference to them is left.
        unsafe { std::slice::from_raw_parts_mut(self.bytes.as_ptr(), self.len) }.zeroize();
        // SAFETY: mapped in `new` with this length, and unmapped only here.
        // Where the kernel allows no further mapping, the pages stay until the end.
        unsafe { munmap(self.bytes.cast::<c_void>(), self.len) }.ok();
    }
}

impl fmt::Debug for Buf {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "Buf({} of {} bytes, slot {:?})", self.len, self.capacity(), self.slot)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_buffer_is_aligned_zeroed_and_can_be_shortened() {
        let mut buf = Buf::new(10_000, 512);
        assert_eq!(buf.as_ptr() as usize % PAGE_MIN, 0);
        assert!(buf.iter().all(|&byte| byte == 0));
        buf.set_len(7);
        buf.fill(1);
        buf.set_len(9);
        assert_eq!(buf[..], [1, 1, 1, 1, 1, 1, 1, 0, 0]);
    }

    #[test]
    fn blocks_larger_than_a_page_can_ask_for_their_alignment() {
        for align in [1, 512, 4096, 8192, 65536] {
            let buf = Buf::new(10_000, align);
            assert_eq!((buf.as_ptr() as usize % align, buf.len()), (0, 10_000), "{align}");
            assert!(buf.capacity() >= 10_000 && buf.iter().all(|&byte| byte == 0));
        }
    }

    /// The line of flags of the mapping that holds this address.
    fn flags(address: usize) -> String {
        let smaps = std::fs::read_to_string("/proc/self/smaps").unwrap();
        let hex = |text: &str| usize::from_str_radix(text, 16).ok();
        let mut inside = false;
        for line in smaps.lines() {
            let range = line.split(' ').next().and_then(|range| range.split_once('-'));
            if let Some((Some(start), Some(end))) = range.map(|(start, end)| (hex(start), hex(end))) {
                inside = (start..end).contains(&address);
            }
            if inside && line.starts_with("VmFlags:") {
                return format!("{line} ");
            }
        }
        panic!("{address:x} is mapped nowhere")
    }

    #[test]
    fn a_buffer_is_left_out_of_core_dumps() {
        let buf = Buf::new(3 * PAGE_MIN, 512);
        let last = buf.as_ptr() as usize + buf.capacity() - 1;
        assert!(flags(buf.as_ptr() as usize).contains(" dd ") && flags(last).contains(" dd "));
    }

    #[test]
    fn parts_of_a_buffer_are_the_same_bytes_and_keep_them() {
        let mut buf = Buf::new(8192, 512);
        buf[4096..].fill(7);
        let part = buf.share(4000, 200);
        assert_eq!((part[0], part[95], part[96], part.len()), (0, 0, 7, 200));
        assert_eq!(part.as_ptr(), buf[4000..].as_ptr());
        drop(buf);
        assert_eq!(part.share(96, 104)[..], [7; 104]);
    }

    #[test]
    #[should_panic(expected = "is not shared")]
    fn a_shared_buffer_cannot_be_changed() {
        let mut buf = Buf::new(4096, 512);
        let _part = buf.share(0, 512);
        buf.fill(1);
    }

    #[test]
    #[should_panic(expected = "512 bytes from 0 on")]
    fn only_what_the_next_operation_uses_is_shared() {
        let mut buf = Buf::new(4096, 512);
        buf.set_len(511);
        buf.share(0, 512);
    }

    #[test]
    #[should_panic(expected = "11 bytes in a buffer of 10")]
    fn a_buffer_never_grows() {
        Buf::new(10, 1).set_len(11);
    }
}
