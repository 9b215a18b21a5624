//! Memory that a device can read and write directly.

use std::alloc::{Layout, alloc_zeroed, dealloc, handle_alloc_error};
use std::fmt;
use std::ops::{Deref, DerefMut};
use std::ptr::NonNull;
use std::sync::Arc;

use nix::sys::mman::{MmapAdvise, madvise};
use zeroize::Zeroize;

/// No device asks for more than a page; pages are what direct I/O pins.
const ALIGN_MIN: usize = 4096;

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

struct Memory {
    bytes: NonNull<u8>,
    layout: Layout,
}

// SAFETY: the allocation belongs to this Memory alone and has no interior mutability, like a Box<[u8]>.
unsafe impl Send for Memory {}
// SAFETY: as above: a shared reference gives only shared access to the bytes.
unsafe impl Sync for Memory {}

impl Memory {
    /// Best effort: a kernel may know larger pages than these buffers are aligned to.
    fn advise(&self, advice: MmapAdvise) {
        // SAFETY: the range is this memory, to the end of its last page, and this advice changes only
        // what a dump holds.
        unsafe { madvise(self.bytes.cast(), self.layout.size(), advice) }.ok();
    }
}

impl Buf {
    /// `capacity` zeroed bytes, aligned to `align` (a power of two) and to a page.
    ///
    /// # Panics
    /// Where `capacity` is 0, or `align` is no power of two.
    pub fn new(capacity: usize, align: usize) -> Buf {
        assert!(capacity > 0, "a buffer without bytes");
        let layout = Layout::from_size_align(capacity, align.max(ALIGN_MIN)).expect("a buffer's layout");
        // SAFETY: the layout's size is not zero, as asserted above.
        let bytes =
            NonNull::new(unsafe { alloc_zeroed(layout) }).unwrap_or_else(|| handle_alloc_error(layout));
        let memory = Memory { bytes, layout };
        // What disks hold is kept out of core dumps, should one be written all the same.
        memory.advise(MmapAdvise::MADV_DONTDUMP);
        Buf { memory: Arc::new(memory), start: 0, len: capacity, slot: None }
    }

    /// The bytes that it was made with; its length as a slice is what [`Buf::set_len`] set.
    pub fn capacity(&self) -> usize {
        self.memory.layout.size() - self.start
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
        unsafe { std::slice::from_raw_parts_mut(self.bytes.as_ptr(), self.layout.size()) }.zeroize();
        // The allocator gives the pages to others.
        self.advise(MmapAdvise::MADV_DODUMP);
        // SAFETY: allocated in `Buf::new` with this layout, and freed only here.
        unsafe { dealloc(self.bytes.as_ptr(), self.layout) }
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
        assert_eq!(buf.as_ptr() as usize % ALIGN_MIN, 0);
        assert!(buf.iter().all(|&byte| byte == 0));
        buf.set_len(7);
        buf.fill(1);
        buf.set_len(9);
        assert_eq!(buf[..], [1, 1, 1, 1, 1, 1, 1, 0, 0]);
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
        let buf = Buf::new(3 * ALIGN_MIN, 512);
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
