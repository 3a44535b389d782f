//! The C ABI: a thin skin over the public Rust API, one file a C type. `include/carat.h` is generated from here.
//!
//! The rules, which the header repeats for its readers:
//!
//! * Handles are opaque. Behind each pointer is an [`Arc`]: `_free` gives up the caller's share, and a call holds one
//!   of its own, so that freeing during a call is deferred to the call's end.
//! * Every function that can fail returns a [`carat_status`] and, when asked, an error object. Out-parameters are
//!   written on success only, the error on failure only.
//! * Structs begin with their size; see [`sized`]. Enums and booleans are `i32` and are checked.
//! * Nothing unwinds into C: [`guard`] turns a panic into `CARAT_INTERNAL`.
//! * A handle that one call at a time may use is an [`Exclusive`]; a second call gets `CARAT_BUSY`.

#![allow(non_camel_case_types)] // the names are C's
#![allow(clippy::missing_safety_doc)] // one contract holds for all: that of the header

mod cancel;
mod conversation;
mod error;
mod generate;
mod info;
mod logits;
mod model;
mod session;
mod sized;
#[cfg(test)]
mod tests;
mod tokenizer;

use std::ffi::c_char;
use std::panic::{AssertUnwindSafe, catch_unwind};
use std::sync::{Arc, Mutex, TryLockError};

pub use cancel::*;
pub use conversation::*;
pub use error::*;
pub use generate::*;
pub use info::*;
pub use logits::*;
pub use model::*;
pub use session::*;
pub use tokenizer::*;

#[cfg(all(panic = "abort", not(target_family = "wasm")))]
compile_error!("the C ABI catches panics: build with panic = \"unwind\"");

/// Why an entry point failed.
enum Failure {
    Error(crate::Error),
    /// What only exists at this border.
    Border(carat_status, String),
}

type Outcome<T = ()> = Result<T, Failure>;

impl From<crate::Error> for Failure {
    fn from(e: crate::Error) -> Self {
        Failure::Error(e)
    }
}

impl Failure {
    fn argument(what: impl Into<String>) -> Failure {
        Failure::Border(CARAT_INVALID_ARGUMENT, what.into())
    }
}

/// Runs the body of an entry point. What it returns becomes a status, and an error object where one is asked for.
fn guard(error: *mut *mut carat_error, body: impl FnOnce() -> Outcome) -> carat_status {
    status(
        error,
        catch_unwind(AssertUnwindSafe(|| {
            #[cfg(test)]
            tests::panic_if_asked();
            body()
        })),
    )
}

/// What has become of a body, as [`guard`] returns it. Apart, so that it is not there once for each entry point.
#[inline(never)]
fn status(error: *mut *mut carat_error, result: std::thread::Result<Outcome>) -> carat_status {
    let failure = match result {
        Ok(Ok(())) => return CARAT_OK,
        Ok(Err(failure)) => failure,
        Err(panic) => {
            let what = crate::parallel::message_of(&*panic);
            // A panic's payload may panic when it is dropped.
            std::mem::forget(panic);
            Failure::Error(crate::Error::Internal { what })
        }
    };
    // Making the message allocates, and could panic in turn.
    catch_unwind(AssertUnwindSafe(|| carat_error::hand_out(failure, error))).unwrap_or(CARAT_INTERNAL)
}

/// As [`guard`], for what cannot fail: `otherwise` after a panic.
fn guard_value<T>(otherwise: T, body: impl FnOnce() -> T) -> T {
    catch_unwind(AssertUnwindSafe(|| {
        #[cfg(test)]
        tests::panic_if_asked();
        body()
    }))
    .unwrap_or_else(|panic| {
        std::mem::forget(panic);
        otherwise
    })
}

/// A new handle, of which the caller has the only share.
fn give<T>(value: T) -> *mut T {
    Arc::into_raw(Arc::new(value)).cast_mut()
}

/// A share of a handle for the time of a call.
///
/// # Safety
/// `handle` is NULL or came from [`give`] and was not freed before the call began.
unsafe fn hold<T>(handle: *const T, name: &str) -> Outcome<Arc<T>> {
    if handle.is_null() {
        return Err(Failure::argument(format!("{name} is NULL")));
    }
    // SAFETY: it came from Arc::into_raw and the caller still has its share, so that the count is at least 1.
    unsafe {
        Arc::increment_strong_count(handle);
        Ok(Arc::from_raw(handle))
    }
}

/// Gives up the caller's share of a handle.
///
/// # Safety
/// As [`hold`].
unsafe fn release<T>(handle: *mut T) {
    guard_value((), || {
        if !handle.is_null() {
            // SAFETY: it came from Arc::into_raw, and the caller gives up the share that it was given.
            drop(unsafe { Arc::from_raw(handle.cast_const()) });
        }
    });
}

fn given_away() -> Failure {
    Failure::argument("the handle's contents were given away: it can only be freed")
}

/// What one call at a time may use.
struct Exclusive<T>(Mutex<Option<T>>);

impl<T> Exclusive<T> {
    fn new(value: T) -> Self {
        Exclusive(Mutex::new(Some(value)))
    }

    /// Runs `f` on the value, or fails where another call is at it, here or in another thread.
    fn with<R>(&self, f: impl FnOnce(&mut T) -> Outcome<R>) -> Outcome<R> {
        self.with_slot(|slot| match slot {
            Some(value) => f(value),
            None => Err(given_away()),
        })
    }

    /// Takes the value out: afterwards there is none.
    fn take(&self) -> Outcome<T> {
        self.with_slot(|slot| slot.take().ok_or_else(given_away))
    }

    fn with_slot<R>(&self, f: impl FnOnce(&mut Option<T>) -> Outcome<R>) -> Outcome<R> {
        match self.0.try_lock() {
            Ok(mut slot) => f(&mut slot),
            Err(TryLockError::WouldBlock) => Err(Failure::Border(
                CARAT_BUSY,
                "another call on the same handle has not returned yet".into(),
            )),
            Err(TryLockError::Poisoned(_)) => Err(Failure::Error(crate::Error::Internal {
                what: "an earlier call on this handle panicked: it can only be freed".into(),
            })),
        }
    }
}

/// A place for a result.
///
/// # Safety
/// `out` is NULL or valid for writes.
unsafe fn put<T>(out: *mut T, value: T, name: &str) -> Outcome {
    if out.is_null() {
        return Err(Failure::argument(format!("{name} is NULL")));
    }
    // SAFETY: the caller's promise.
    unsafe { out.write(value) };
    Ok(())
}

/// [`put`] where NULL says that nobody wants to know.
///
/// # Safety
/// As [`put`].
unsafe fn put_if_asked<T>(out: *mut T, value: T) {
    if !out.is_null() {
        // SAFETY: the caller's promise.
        unsafe { out.write(value) };
    }
}

/// Makes a handle and hands it out; where it would have no place, fails before any work is done.
///
/// # Safety
/// As [`put`].
unsafe fn hand_out<T>(out: *mut *mut T, make: impl FnOnce() -> Outcome<T>) -> Outcome {
    if out.is_null() {
        return Err(Failure::argument("out is NULL"));
    }
    // SAFETY: the caller's promise.
    unsafe { put(out, give(make()?), "out") }
}

/// An array of the caller's; NULL with a length of 0 is an empty one.
///
/// # Safety
/// Unless NULL, `items` is valid for reads of `n` items for as long as the result is used.
unsafe fn slice<'a, T>(items: *const T, n: usize, name: &str) -> Outcome<&'a [T]> {
    if n == 0 {
        return Ok(&[]);
    }
    if items.is_null() {
        return Err(Failure::argument(format!("{name} is NULL, its length {n}")));
    }
    if !items.is_aligned() || n > isize::MAX as usize / size_of::<T>().max(1) {
        return Err(Failure::argument(format!("{name} cannot be an array of {n}")));
    }
    // SAFETY: not NULL, aligned, not too long, and the caller's promise.
    Ok(unsafe { std::slice::from_raw_parts(items, n) })
}

/// Text of the caller's, which must be UTF-8.
///
/// # Safety
/// As [`slice`].
unsafe fn text<'a>(chars: *const c_char, len: usize, name: &str) -> Outcome<&'a str> {
    // SAFETY: the caller's promise; a char has the size of a byte.
    let bytes = unsafe { slice(chars.cast::<u8>(), len, name) }?;
    std::str::from_utf8(bytes)
        .map_err(|e| Failure::argument(format!("{name} is not UTF-8 at byte {}", e.valid_up_to())))
}

/// A path of the caller's: UTF-8, and on Unix any bytes.
///
/// # Safety
/// As [`slice`].
unsafe fn path<'a>(chars: *const c_char, len: usize, name: &str) -> Outcome<&'a std::path::Path> {
    #[cfg(unix)]
    {
        // SAFETY: the caller's promise.
        let bytes = unsafe { slice(chars.cast::<u8>(), len, name) }?;
        let os: &std::ffi::OsStr = std::os::unix::ffi::OsStrExt::from_bytes(bytes);
        Ok(os.as_ref())
    }
    #[cfg(not(unix))]
    {
        // SAFETY: the caller's promise.
        Ok(unsafe { text(chars, len, name) }?.as_ref())
    }
}

/// A boolean, which crosses as 0 or 1.
fn boolean(value: i32, name: &str) -> Outcome<bool> {
    match value {
        0 => Ok(false),
        1 => Ok(true),
        n => Err(Failure::argument(format!("{name}: expected 0 or 1, found {n}"))),
    }
}

/// Copies `from` to a buffer of the caller's with room for `capacity` items, and reports how many there are; where
/// they do not fit, copies nothing and fails.
///
/// # Safety
/// `to` is NULL or valid for writes of `capacity` items, `needed` NULL or valid for a write.
unsafe fn fill<T: Copy>(from: &[T], to: *mut T, capacity: usize, needed: *mut usize) -> Outcome {
    // SAFETY: the caller's promise.
    unsafe { put_if_asked(needed, from.len()) };
    if from.is_empty() {
        return Ok(());
    }
    if to.is_null() && capacity > 0 {
        return Err(Failure::argument(format!("the buffer is NULL, its capacity {capacity}")));
    }
    if from.len() > capacity {
        let what = format!("the buffer has room for {capacity}, {} are needed", from.len());
        return Err(Failure::Border(CARAT_BUFFER_TOO_SMALL, what));
    }
    // SAFETY: `to` has room for `capacity` items, not fewer than there are; the buffer is the caller's own and
    // `from` is the library's, so that they do not overlap.
    unsafe { std::ptr::copy_nonoverlapping(from.as_ptr(), to, from.len()) };
    Ok(())
}

/// [`fill`] for text: a NUL follows where there is room for it, and is not counted.
///
/// # Safety
/// As [`fill`].
unsafe fn fill_text(from: &str, to: *mut c_char, capacity: usize, needed: *mut usize) -> Outcome {
    // SAFETY: the caller's promise; a char has the size of a byte.
    unsafe { fill(from.as_bytes(), to.cast::<u8>(), capacity, needed) }?;
    if from.len() < capacity && !to.is_null() {
        // SAFETY: there is room for one more.
        unsafe { to.add(from.len()).write(0) };
    }
    Ok(())
}
