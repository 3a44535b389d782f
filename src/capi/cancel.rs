//! Cancel tokens.

use super::{give, guard_value, hold, release};
use crate::CancelToken;

/// A switch that stops the calls it was given to. It is sticky: once set it stays set.
///
/// It is reference-counted: carat_cancel_clone() gives another handle to the same switch, and calls that were given it
/// have a share of their own, so that it may be freed while they run.
pub struct carat_cancel(pub(super) CancelToken);

/// The switch behind a handle that may be NULL.
///
/// # Safety
/// `cancel` is NULL or a handle that was not freed.
pub(super) unsafe fn token(cancel: *const carat_cancel) -> Option<CancelToken> {
    // SAFETY: the caller's promise.
    unsafe { hold(cancel, "cancel") }.ok().map(|c| c.0.clone())
}

/// A switch that is not set. NULL only when there is no memory.
///
/// Ownership: the result is the caller's, ended by carat_cancel_free().
/// Threads: any.
#[unsafe(no_mangle)]
pub extern "C" fn carat_cancel_new() -> *mut carat_cancel {
    guard_value(std::ptr::null_mut(), || give(carat_cancel(CancelToken::new())))
}

/// Another handle to the same switch; of NULL, NULL.
///
/// Ownership: the result is the caller's, ended by carat_cancel_free().
/// Threads: any.
#[unsafe(no_mangle)]
pub unsafe extern "C" fn carat_cancel_clone(cancel: *const carat_cancel) -> *mut carat_cancel {
    guard_value(std::ptr::null_mut(), || {
        // SAFETY: NULL or a handle that was not freed, by the header's contract.
        unsafe { token(cancel) }.map_or(std::ptr::null_mut(), |t| give(carat_cancel(t)))
    })
}

/// Sets it, for good: one store to memory. NULL is nothing to do.
///
/// Threads: any, also from a signal handler, and while calls that were given it run or end.
#[unsafe(no_mangle)]
pub unsafe extern "C" fn carat_cancel_set(cancel: *const carat_cancel) {
    guard_value((), || {
        // SAFETY: NULL or a handle that was not freed, by the header's contract.
        if let Some(c) = unsafe { cancel.as_ref() } {
            c.0.cancel();
        }
    });
}

/// 1 once it was set, else 0; of NULL 0.
///
/// Threads: any.
#[unsafe(no_mangle)]
pub unsafe extern "C" fn carat_cancel_is_set(cancel: *const carat_cancel) -> i32 {
    // SAFETY: NULL or a handle that was not freed, by the header's contract.
    guard_value(0, || unsafe { cancel.as_ref() }.is_some_and(|c| c.0.is_cancelled()) as i32)
}

/// Frees a handle; NULL is nothing to do. The switch lives on in its other handles and in the calls that have it.
///
/// Ownership: ends that of `cancel`.
/// Threads: any, once.
#[unsafe(no_mangle)]
pub unsafe extern "C" fn carat_cancel_free(cancel: *mut carat_cancel) {
    // SAFETY: the header's contract.
    unsafe { release(cancel) }
}
