//! What a test's own thread has allocated. The other tests of this binary run on other threads and are not counted.

use std::alloc::{GlobalAlloc, Layout, System};
use std::cell::Cell;

thread_local! {
    /// Bytes that this thread allocated, without those that it freed.
    static LIVE: Cell<isize> = const { Cell::new(0) };
    /// The most that `LIVE` was since [`restart_peak`].
    static PEAK: Cell<isize> = const { Cell::new(0) };
}

struct Accounting;

#[global_allocator]
static ACCOUNTING: Accounting = Accounting;

#[expect(unsafe_code, reason = "an allocator cannot be written without; this one only counts what goes through")]
// SAFETY: every call goes on to the system's allocator as it came.
unsafe impl GlobalAlloc for Accounting {
    unsafe fn alloc(&self, layout: Layout) -> *mut u8 {
        count(layout.size().cast_signed());
        // SAFETY: the caller keeps the contract, which is the same.
        unsafe { System.alloc(layout) }
    }

    unsafe fn alloc_zeroed(&self, layout: Layout) -> *mut u8 {
        count(layout.size().cast_signed());
        // SAFETY: the caller keeps the contract, which is the same.
        unsafe { System.alloc_zeroed(layout) }
    }

    unsafe fn realloc(&self, pointer: *mut u8, layout: Layout, size: usize) -> *mut u8 {
        count(size.cast_signed() - layout.size().cast_signed());
        // SAFETY: the caller keeps the contract, which is the same.
        unsafe { System.realloc(pointer, layout, size) }
    }

    unsafe fn dealloc(&self, pointer: *mut u8, layout: Layout) {
        count(-layout.size().cast_signed());
        // SAFETY: the caller keeps the contract, which is the same.
        unsafe { System.dealloc(pointer, layout) }
    }
}

/// A thread that ends allocates after its own counters are gone: nobody asks for these.
fn count(bytes: isize) {
    let _ = LIVE.try_with(|live| {
        live.set(live.get() + bytes);
        let _ = PEAK.try_with(|peak| peak.set(peak.get().max(live.get())));
    });
}

/// Bytes that this thread holds.
pub(crate) fn live_bytes() -> isize {
    LIVE.get()
}

/// The most bytes that this thread held since [`restart_peak`].
pub(crate) fn peak_bytes() -> isize {
    PEAK.get()
}

pub(crate) fn restart_peak() {
    PEAK.set(LIVE.get());
}
