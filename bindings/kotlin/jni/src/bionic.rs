//! What Debian's libunwind, built for glibc, asks of the system and Android's libc does not have: it is linked where there is
//! no NDK with a libunwind of its own (`scripts/android-native.sh`). All of it serves messages about broken unwind tables.

use std::ffi::{c_char, c_int, c_uint, c_void};

unsafe extern "C" {
    fn __errno() -> *mut c_int;
}

/// glibc's name of Android's `__errno()`.
#[unsafe(no_mangle)]
extern "C" fn __errno_location() -> *mut c_int {
    // SAFETY: takes nothing, and returns the place of this thread's errno.
    unsafe { __errno() }
}

/// An assertion that does not hold: the process cannot go on.
#[unsafe(no_mangle)]
extern "C" fn __assert_fail(
    _what: *const c_char,
    _file: *const c_char,
    _line: c_uint,
    _function: *const c_char,
) -> ! {
    std::process::abort()
}

/// Prints nothing, as this library does not. Its variable arguments are the caller's to clean up on both processors.
#[unsafe(no_mangle)]
extern "C" fn __fprintf_chk(_to: *mut c_void, _flag: c_int, _format: *const c_char) -> c_int {
    0
}
