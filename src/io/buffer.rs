//! Memory that a device can read and write directly.

use std::alloc::{Layout, alloc_zeroed, dealloc, handle_alloc_error};
use std::fmt;
use std::ops::{Deref, DerefMut};
use std::ptr::NonNull;

use nix::sys::mman::{MmapAdvise, madvise};
use zeroize::Zeroize;

/// No device asks for more than a page; pages are what direct I/O pins.
const ALIGN_MIN: usize = 4096;

/// An aligned buffer with one owner; it can be shortened for the operation at hand.
pub struct Buf {
    memory: NonNull<u8>,
    layout: Layout,
    len: usize,
    /// Its number among the buffers that were registered with the kernel.
    slot: Option<u16>,
}

// SAFETY: a Buf owns its memory alone and has no interior mutability, like a Box<[u8]>.
unsafe impl Send for Buf {}
// SAFETY: as above: a shared reference gives only shared access to the bytes.
unsafe impl Sync for Buf {}

impl Buf {
    /// `capacity` zeroed bytes, aligned to `align` (a power of two) and to a page.
    ///
    /// # Panics
    /// Where `capacity` is 0, or `align` is no power of two.
    pub fn new(capacity: usize, align: usize) -> Buf {
        assert!(capacity > 0, "a buffer without bytes");
        let layout = Layout::from_size_align(capacity, align.max(ALIGN_MIN)).expect("a buffer's layout");
        // SAFETY: the layout's size is not zero, as asserted above.
        let memory =
            NonNull::new(unsafe { alloc_zeroed(layout) }).unwrap_or_else(|| handle_alloc_error(layout));
        let buf = Buf { memory, layout, len: capacity, slot: None };
        // What disks hold is kept out of core dumps, should one be written all the same.
        buf.advise(MmapAdvise::MADV_DONTDUMP);
        buf
    }

    /// Best effort: a kernel may know larger pages than these buffers are aligned to.
    fn advise(&self, advice: MmapAdvise) {
        // SAFETY: the range is this buffer's memory, to the end of its last page, and this advice
        // changes only what a dump holds.
        unsafe { madvise(self.memory.cast(), self.capacity(), advice) }.ok();
    }

    /// The bytes that it was made with; its length as a slice is what [`Buf::set_len`] set.
    pub fn capacity(&self) -> usize {
        self.layout.size()
    }

    /// Sets how many bytes the next operation uses.
    ///
    /// # Panics
    /// Where `len` is above the capacity.
    pub fn set_len(&mut self, len: usize) {
        assert!(len <= self.capacity(), "{len} bytes in a buffer of {}", self.capacity());
        self.len = len;
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
        // SAFETY: the memory holds `capacity >= len` initialized bytes and lives as long as self.
        unsafe { std::slice::from_raw_parts(self.memory.as_ptr(), self.len) }
    }
}

impl DerefMut for Buf {
    fn deref_mut(&mut self) -> &mut [u8] {
        // SAFETY: as in `deref`; `&mut self` makes the access the only one.
        unsafe { std::slice::from_raw_parts_mut(self.memory.as_ptr(), self.len) }
    }
}

impl Drop for Buf {
    fn drop(&mut self) {
        // It may have held a key.
        self.len = self.capacity();
        self.zeroize();
        // The allocator gives the pages to others.
        self.advise(MmapAdvise::MADV_DODUMP);
        // SAFETY: allocated in `new` with this layout, and freed only here.
        unsafe { dealloc(self.memory.as_ptr(), self.layout) }
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
    #[should_panic(expected = "11 bytes in a buffer of 10")]
    fn a_buffer_never_grows() {
        Buf::new(10, 1).set_len(11);
    }
}
