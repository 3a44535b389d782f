//! Reading files when memory runs out: each large allocation fails in turn, and each time that is an error.

mod raw_gguf;

use std::alloc::{GlobalAlloc, Layout, System};
use std::cell::Cell;

use carat::gguf::Gguf;
use carat::{CancelToken, Error, Storage};
use raw_gguf::Raw;

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
fn fail_each<T>(run: impl Fn() -> Result<T, Error>) -> usize {
    for k in 0.. {
        FAILED.set(false);
        LEFT.set(k);
        let result = run();
        LEFT.set(-1);
        if !FAILED.get() {
            assert!(result.is_ok());
            return k as usize;
        }
        match result.map(|_| ()) {
            Err(Error::OutOfMemory { bytes, .. }) => assert!(bytes > LARGE, "{bytes}"),
            other => panic!("allocation {k} failed: {other:?}"),
        }
    }
    unreachable!()
}

#[test]
fn a_header_that_does_not_fit() {
    const N: u64 = 20_000;
    let mut raw = Raw::header(3, 2 * N, N);
    for i in 0..N {
        raw = raw.key(&format!("key{i}"), 0, &[1]);
    }
    for i in 0..N {
        raw = raw.tensor(&format!("t{i}"), &[8], 0, 32 * i).tensor(&format!("u{i}"), &[8], 99, 0);
    }
    let bytes = raw.pad(32).raw(&vec![0; 32 * N as usize]).bytes;
    let storage = Storage::from_bytes(bytes);
    let n = fail_each(|| Gguf::from_parts(vec![storage.clone()], &CancelToken::new()));
    // Keys and their index; descriptions as read, supported (with index and order) and not.
    assert!(n >= 7, "{n}");
}

#[test]
fn a_private_copy_that_does_not_fit() {
    let dir = tempfile::tempdir().unwrap();
    let path = dir.path().join("model.gguf");
    std::fs::write(&path, vec![0; 1 << 20]).unwrap();
    let n = fail_each(|| Storage::read(&path, &CancelToken::new(), &mut |_, _| {}));
    assert_eq!(n, 1);
}
