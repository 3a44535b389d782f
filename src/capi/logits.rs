//! Logits that outlive the step that made them.

use super::*;

/// The logits [vocab] that a session had at one moment. They never change, whatever becomes of the session.
pub struct carat_logits(pub(super) crate::Logits);

/// The logits `[n]`, and `n` to `*n`, which may be NULL. Of NULL: NULL.
///
/// Ownership: the array is that of `logits` and lives as long.
/// Threads: any.
#[unsafe(no_mangle)]
pub unsafe extern "C" fn carat_logits_data(logits: *const carat_logits, n: *mut usize) -> *const f32 {
    guard_value(std::ptr::null(), || {
        // SAFETY: NULL or a handle that was not freed, by the header's contract.
        let Some(logits) = (unsafe { logits.as_ref() }) else { return std::ptr::null() };
        // SAFETY: NULL or valid for a write.
        unsafe { put_if_asked(n, logits.0.len()) };
        logits.0.as_ptr()
    })
}

/// Frees logits; NULL is nothing to do.
///
/// Ownership: ends that of `logits` and its array.
/// Threads: any, once.
#[unsafe(no_mangle)]
pub unsafe extern "C" fn carat_logits_free(logits: *mut carat_logits) {
    // SAFETY: the header's contract.
    unsafe { release(logits) }
}
