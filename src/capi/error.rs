//! Statuses and error objects.

use std::ffi::{CString, c_char};

use super::{Failure, guard_value};
use crate::Error;

/// What a call came to. 0 is success; a number is never used for anything else.
pub type carat_status = i32;

/// Done.
pub const CARAT_OK: carat_status = 0;
/// An argument makes no sense here: NULL, a wrong struct_size, an unknown enum value, text that is not UTF-8.
pub const CARAT_INVALID_ARGUMENT: carat_status = 1;
/// Another call on the same handle has not returned yet.
pub const CARAT_BUSY: carat_status = 2;
/// The cancel token was set, or a callback returned 0.
pub const CARAT_CANCELLED: carat_status = 3;
/// The buffer is too small: the size needed was reported.
pub const CARAT_BUFFER_TOO_SMALL: carat_status = 4;
/// The operating system refused: no such file, no permission, a full disk.
pub const CARAT_IO: carat_status = 5;
/// The bytes of a GGUF file break the format's rules.
pub const CARAT_FORMAT: carat_status = 6;
/// A metadata value of the file is missing or makes no sense.
pub const CARAT_METADATA: carat_status = 7;
/// A tensor is missing, misplaced or of the wrong shape or type.
pub const CARAT_TENSOR: carat_status = 8;
/// The file is sound, but not something this library runs.
pub const CARAT_UNSUPPORTED: carat_status = 9;
/// A part of a split model is not there.
pub const CARAT_SPLIT_MISSING: carat_status = 10;
/// The vocabulary cannot be used.
pub const CARAT_VOCABULARY: carat_status = 11;
/// A token id that the vocabulary does not have.
pub const CARAT_TOKEN_OUT_OF_RANGE: carat_status = 12;
/// A prompt with no token.
pub const CARAT_EMPTY_PROMPT: carat_status = 13;
/// A prompt that does not fit into the context.
pub const CARAT_PROMPT_TOO_LONG: carat_status = 14;
/// The session cannot take another token.
pub const CARAT_CONTEXT_FULL: carat_status = 15;
/// Going back further than the sliding windows remember: see carat_error_nearest().
pub const CARAT_REWIND: carat_status = 16;
/// An option outside its range.
pub const CARAT_INVALID_OPTION: carat_status = 17;
/// The model or a hook produced a logit that is not a number.
pub const CARAT_NAN_LOGITS: carat_status = 18;
/// The mapped file is no longer what it was.
pub const CARAT_FILE_CHANGED: carat_status = 19;
/// A saved session that cannot be loaded.
pub const CARAT_STATE: carat_status = 20;
/// Memory that could not be had.
pub const CARAT_OUT_OF_MEMORY: carat_status = 21;
/// Turns in an order that the template does not know.
pub const CARAT_CHAT: carat_status = 22;
/// The process was forked after the model was opened.
pub const CARAT_FORKED: carat_status = 23;
/// A bug: the handle can only be freed, others go on.
pub const CARAT_INTERNAL: carat_status = 24;
/// The session has no logits now: only a prefill or a step computes them.
pub const CARAT_NO_LOGITS: carat_status = 25;

/// Why a call failed: its status and a message for a person.
pub struct carat_error {
    status: carat_status,
    kind: i32,
    nearest: u64,
    message: CString,
}

/// The call was wrong: change the arguments.
pub const CARAT_KIND_USAGE: i32 = 0;
/// The file is wrong, missing or not supported.
pub const CARAT_KIND_FILE: i32 = 1;
/// It was stopped by the caller.
pub const CARAT_KIND_CANCELLED: i32 = 2;
/// The machine or the library could not do it.
pub const CARAT_KIND_RUNTIME: i32 = 3;

fn status_of(e: &Error) -> carat_status {
    match e {
        Error::Io { .. } => CARAT_IO,
        Error::Format { .. } => CARAT_FORMAT,
        Error::Metadata { .. } => CARAT_METADATA,
        Error::Tensor { .. } => CARAT_TENSOR,
        Error::Unsupported { .. } => CARAT_UNSUPPORTED,
        Error::SplitMissing { .. } => CARAT_SPLIT_MISSING,
        Error::Vocabulary { .. } => CARAT_VOCABULARY,
        Error::TokenOutOfRange { .. } => CARAT_TOKEN_OUT_OF_RANGE,
        Error::EmptyPrompt => CARAT_EMPTY_PROMPT,
        Error::PromptTooLong { .. } => CARAT_PROMPT_TOO_LONG,
        Error::ContextFull { .. } => CARAT_CONTEXT_FULL,
        Error::Rewind { .. } => CARAT_REWIND,
        Error::InvalidOption { .. } => CARAT_INVALID_OPTION,
        Error::NanLogits { .. } => CARAT_NAN_LOGITS,
        Error::Cancelled => CARAT_CANCELLED,
        Error::FileChanged { .. } => CARAT_FILE_CHANGED,
        Error::State { .. } => CARAT_STATE,
        Error::OutOfMemory { .. } => CARAT_OUT_OF_MEMORY,
        Error::Chat { .. } => CARAT_CHAT,
        Error::Forked { .. } => CARAT_FORKED,
        Error::Internal { .. } => CARAT_INTERNAL,
    }
}

impl carat_error {
    /// The status of a failure; where `out` is not NULL, it gets an object that says more.
    pub(super) fn hand_out(failure: Failure, out: *mut *mut carat_error) -> carat_status {
        let (status, kind, nearest, message) = match failure {
            Failure::Error(e) => {
                let nearest = match e {
                    Error::Rewind { nearest, .. } => nearest as u64,
                    _ => 0,
                };
                let kind = match e.kind() {
                    crate::ErrorKind::Usage => CARAT_KIND_USAGE,
                    crate::ErrorKind::File => CARAT_KIND_FILE,
                    crate::ErrorKind::Cancelled => CARAT_KIND_CANCELLED,
                    crate::ErrorKind::Runtime => CARAT_KIND_RUNTIME,
                };
                (status_of(&e), kind, nearest, if out.is_null() { String::new() } else { e.to_string() })
            }
            Failure::Border(status, message) => (status, CARAT_KIND_USAGE, 0, message),
        };
        if !out.is_null() {
            // A path may hold a NUL, which a C string cannot.
            let message = CString::new(message.replace('\0', "\u{fffd}")).unwrap_or_default();
            let error = Box::new(carat_error { status, kind, nearest, message });
            // SAFETY: the contract of every entry point: `error` is NULL or valid for a write.
            unsafe { out.write(Box::into_raw(error)) };
        }
        status
    }
}

/// The status that the call returned too. Of NULL: CARAT_OK.
///
/// Threads: any.
#[unsafe(no_mangle)]
pub unsafe extern "C" fn carat_error_status(error: *const carat_error) -> carat_status {
    // SAFETY: NULL or an error object that was not freed, by the header's contract.
    guard_value(CARAT_OK, || unsafe { error.as_ref() }.map_or(CARAT_OK, |e| e.status))
}

/// The class of the error: one of CARAT_KIND_*. Of NULL: CARAT_KIND_USAGE.
///
/// Threads: any.
#[unsafe(no_mangle)]
pub unsafe extern "C" fn carat_error_kind(error: *const carat_error) -> i32 {
    // SAFETY: as in carat_error_status().
    guard_value(CARAT_KIND_USAGE, || unsafe { error.as_ref() }.map_or(CARAT_KIND_USAGE, |e| e.kind))
}

/// What was wrong, where, what was expected and what was found: UTF-8, ended by a NUL. Of NULL: an empty text.
///
/// Ownership: the text is the error's and lives as long.
/// Threads: any.
#[unsafe(no_mangle)]
pub unsafe extern "C" fn carat_error_message(error: *const carat_error) -> *const c_char {
    // SAFETY: as in carat_error_status().
    guard_value(c"".as_ptr(), || unsafe { error.as_ref() }.map_or(c"".as_ptr(), |e| e.message.as_ptr()))
}

/// Of a CARAT_REWIND: the lowest number of tokens above 0 that the session can be cut to; else 0.
///
/// Threads: any.
#[unsafe(no_mangle)]
pub unsafe extern "C" fn carat_error_nearest(error: *const carat_error) -> u64 {
    // SAFETY: as in carat_error_status().
    guard_value(0, || unsafe { error.as_ref() }.map_or(0, |e| e.nearest))
}

/// Frees an error; NULL is nothing to do.
///
/// Ownership: ends that of `error`.
/// Threads: any, once.
#[unsafe(no_mangle)]
pub unsafe extern "C" fn carat_error_free(error: *mut carat_error) {
    guard_value((), || {
        if !error.is_null() {
            // SAFETY: it came from Box::into_raw() in hand_out(), and is freed once by the header's contract.
            drop(unsafe { Box::from_raw(error) });
        }
    });
}

/// The name of a status, such as `CARAT_IO`, ended by a NUL; `CARAT_?` for a number that is none.
///
/// Ownership: the text is static.
/// Threads: any.
#[unsafe(no_mangle)]
pub extern "C" fn carat_status_name(status: carat_status) -> *const c_char {
    guard_value(c"".as_ptr(), || {
        match status {
            CARAT_OK => c"CARAT_OK",
            CARAT_INVALID_ARGUMENT => c"CARAT_INVALID_ARGUMENT",
            CARAT_BUSY => c"CARAT_BUSY",
            CARAT_CANCELLED => c"CARAT_CANCELLED",
            CARAT_BUFFER_TOO_SMALL => c"CARAT_BUFFER_TOO_SMALL",
            CARAT_IO => c"CARAT_IO",
            CARAT_FORMAT => c"CARAT_FORMAT",
            CARAT_METADATA => c"CARAT_METADATA",
            CARAT_TENSOR => c"CARAT_TENSOR",
            CARAT_UNSUPPORTED => c"CARAT_UNSUPPORTED",
            CARAT_SPLIT_MISSING => c"CARAT_SPLIT_MISSING",
            CARAT_VOCABULARY => c"CARAT_VOCABULARY",
            CARAT_TOKEN_OUT_OF_RANGE => c"CARAT_TOKEN_OUT_OF_RANGE",
            CARAT_EMPTY_PROMPT => c"CARAT_EMPTY_PROMPT",
            CARAT_PROMPT_TOO_LONG => c"CARAT_PROMPT_TOO_LONG",
            CARAT_CONTEXT_FULL => c"CARAT_CONTEXT_FULL",
            CARAT_REWIND => c"CARAT_REWIND",
            CARAT_INVALID_OPTION => c"CARAT_INVALID_OPTION",
            CARAT_NAN_LOGITS => c"CARAT_NAN_LOGITS",
            CARAT_FILE_CHANGED => c"CARAT_FILE_CHANGED",
            CARAT_STATE => c"CARAT_STATE",
            CARAT_OUT_OF_MEMORY => c"CARAT_OUT_OF_MEMORY",
            CARAT_CHAT => c"CARAT_CHAT",
            CARAT_FORKED => c"CARAT_FORKED",
            CARAT_INTERNAL => c"CARAT_INTERNAL",
            CARAT_NO_LOGITS => c"CARAT_NO_LOGITS",
            _ => c"CARAT_?",
        }
        .as_ptr()
    })
}
