//! An allocator that fails a large allocation when told to: each test binary that takes this file has it.

use std::alloc::{GlobalAlloc, Layout, System};
use std::cell::Cell;

use carat::{Error, Result};

const LARGE: usize = 64 << 10;

thread_local! {
    /// How many more large allocations of this thread succeed; negative: all.
    static LEFT: Cell<i64> = const { Cell::new(-1) };
    static FAILED: Cell<bool> = const { Cell::new(false) };
}

struct Failing;

impl Failing {
    fn refuses(size: usize) -> bool {
        if size <= LARGE || LEFT.get() < 0 {
            return false;
        }
        let refuse = LEFT.get() == 0;
        // Only one fails, so that making the error is not what is tested.
        LEFT.set(LEFT.get() - 1);
        if refuse {
            FAILED.set(true);
        }
        refuse
    }
}

// SAFETY: every call is the system allocator's, or null, which callers must expect.
unsafe impl GlobalAlloc for Failing {
    unsafe fn alloc(&self, layout: Layout) -> *mut u8 {
        // SAFETY: the caller's promises are passed on.
        if Self::refuses(layout.size()) { std::ptr::null_mut() } else { unsafe { System.alloc(layout) } }
    }

    unsafe fn alloc_zeroed(&self, layout: Layout) -> *mut u8 {
        if Self::refuses(layout.size()) {
            return std::ptr::null_mut();
        }
        // SAFETY: the caller's promises are passed on.
        unsafe { System.alloc_zeroed(layout) }
    }

    unsafe fn dealloc(&self, ptr: *mut u8, layout: Layout) {
        // SAFETY: the caller's promises are passed on.
        unsafe { System.dealloc(ptr, layout) }
    }

    unsafe fn realloc(&self, ptr: *mut u8, layout: Layout, size: usize) -> *mut u8 {
        // SAFETY: the caller's promises are passed on.
        if Self::refuses(size) { std::ptr::null_mut() } else { unsafe { System.realloc(ptr, layout, size) } }
    }
}

#[global_allocator]
static ALLOCATOR: Failing = Failing;

/// Fails the first large allocation of `run`, then the second, and so on until it succeeds; says how many there are.
pub fn fail_each<T>(run: impl Fn() -> Result<T>) -> usize {
    for k in 0.. {
        FAILED.set(false);
        LEFT.set(k);
        let result = run().map(|_| ());
        LEFT.set(-1);
        if !FAILED.get() {
            assert!(result.is_ok(), "{result:?}");
            return k as usize;
        }
        match result {
            Err(Error::OutOfMemory { bytes, .. }) => assert!(bytes > LARGE, "{bytes}"),
            other => panic!("allocation {k} failed: {other:?}"),
        }
    }
    unreachable!()
}
