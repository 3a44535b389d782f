//! Structs that grow: each begins with `uint32_t struct_size`, the size that the caller was compiled with.
//!
//! A smaller struct is that of an older header, whose missing fields have their defaults; of a larger one, that of a
//! newer header, the unknown tail must be zero. Never is a byte touched past the caller's size.

use super::{Failure, Outcome};

/// A struct that crosses the border by its size.
///
/// # Safety
/// It is `repr(C)`, its first field is `struct_size: u32`, and it is made of integers, floats, pointers and optional
/// function pointers only, so that it has a value whatever its bytes (a caller's garbage pointers are the caller's).
pub(super) unsafe trait Grows: Copy {
    /// All fields at their defaults.
    fn defaults() -> Self;
}

/// Reads what the caller filled in; NULL for the defaults.
///
/// # Safety
/// `from` is NULL or valid for reads of the `struct_size` bytes that it begins with.
pub(super) unsafe fn read<T: Grows>(from: *const T, name: &str) -> Outcome<T> {
    let mut value = T::defaults();
    if from.is_null() {
        return Ok(value);
    }
    // SAFETY: the caller's promise: it has at least its first field.
    let size = unsafe { check_size(from, name) }?;
    if size > size_of::<T>() {
        // SAFETY: the caller says that it has so many bytes.
        let tail = unsafe {
            std::slice::from_raw_parts(from.cast::<u8>().add(size_of::<T>()), size - size_of::<T>())
        };
        if tail.iter().any(|b| *b != 0) {
            return Err(Failure::argument(format!(
                "{name}: its {size} bytes have options that this version (of {} bytes) does not know",
                size_of::<T>()
            )));
        }
    }
    let n = size.min(size_of::<T>());
    // SAFETY: both have at least `n` bytes, and T has a value whatever its bytes.
    unsafe { std::ptr::copy_nonoverlapping(from.cast::<u8>(), (&raw mut value).cast::<u8>(), n) };
    Ok(value)
}

/// Fills the caller's struct, as much of it as there is, and zeros beyond what is known; its size stays.
///
/// # Safety
/// `to` is NULL or valid for reads of 4 bytes and for writes of the size that these say.
pub(super) unsafe fn write<T: Grows>(to: *mut T, value: &T, name: &str) -> Outcome {
    if to.is_null() {
        return Err(Failure::argument(format!("{name} is NULL")));
    }
    // SAFETY: the caller's promise.
    unsafe {
        let size = check_size(to, name)?;
        fill(to, value, size);
    }
    Ok(())
}

/// Fails where [`write`] would, before any work is done.
///
/// # Safety
/// `to` is NULL or valid for reads of 4 bytes.
pub(super) unsafe fn check<T: Grows>(to: *const T, name: &str) -> Outcome {
    if to.is_null() {
        return Err(Failure::argument(format!("{name} is NULL")));
    }
    // SAFETY: the caller's promise.
    unsafe { check_size(to, name) }.map(|_| ())
}

/// [`check`], where NULL says that nobody wants to know.
///
/// # Safety
/// As [`check`].
pub(super) unsafe fn check_if_asked<T: Grows>(to: *const T, name: &str) -> Outcome {
    // SAFETY: the caller's promise.
    if to.is_null() { Ok(()) } else { unsafe { check(to, name) } }
}

/// [`write`], where NULL says that nobody wants to know.
///
/// # Safety
/// As [`write`].
pub(super) unsafe fn write_if_asked<T: Grows>(to: *mut T, value: &T, name: &str) -> Outcome {
    // SAFETY: the caller's promise.
    if to.is_null() { Ok(()) } else { unsafe { write(to, value, name) } }
}

/// The defaults in a struct of `size` bytes, for the `_init` functions.
///
/// # Safety
/// `to` is NULL or valid for writes of `size` bytes.
pub(super) unsafe fn init<T: Grows>(to: *mut T, size: usize) {
    if to.is_null() || size < size_of::<u32>() || size > MAX_SIZE {
        return;
    }
    // SAFETY: the caller's promise.
    unsafe {
        to.cast::<u32>().write_unaligned(size as u32);
        fill(to, &T::defaults(), size);
    }
}

/// Far beyond what a struct may grow to.
const MAX_SIZE: usize = 1 << 16;

/// # Safety
/// `at` is valid for reads of 4 bytes.
unsafe fn check_size<T>(at: *const T, name: &str) -> Outcome<usize> {
    // SAFETY: the caller's promise.
    let size = unsafe { at.cast::<u32>().read_unaligned() } as usize;
    // Structs end at a multiple of their alignment, so that no older one ends within a pointer.
    if size < align_of::<T>().max(8) || size > MAX_SIZE || !size.is_multiple_of(align_of::<T>()) {
        let what = format!("{name}: struct_size {size} is none that a header had (now {})", size_of::<T>());
        return Err(Failure::argument(what));
    }
    Ok(size)
}

/// Writes all but the first field.
///
/// # Safety
/// `to` is valid for writes of `size` bytes, at least 4.
unsafe fn fill<T: Grows>(to: *mut T, value: &T, size: usize) {
    const FIRST: usize = size_of::<u32>();
    let n = size.min(size_of::<T>());
    // SAFETY: `n` bytes are within both, and `size` within the caller's.
    unsafe {
        let (from, to) = ((&raw const *value).cast::<u8>(), to.cast::<u8>());
        std::ptr::copy_nonoverlapping(from.add(FIRST), to.add(FIRST), n - FIRST);
        to.add(n).write_bytes(0, size - n);
    }
}
