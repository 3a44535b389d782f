//! That nothing gets through the border that must not: panics, wrong pointers, wrong sizes.

use std::cell::Cell;
use std::ptr::{null, null_mut};

use super::*;

thread_local! {
    /// Makes the next entry point on this thread panic.
    static PANIC: Cell<bool> = const { Cell::new(false) };
}

pub(super) fn panic_if_asked() {
    if PANIC.take() {
        panic!("injected");
    }
}

/// What an entry point returned.
enum Returned {
    Status(carat_status),
    Other,
}

impl From<carat_status> for Returned {
    fn from(status: carat_status) -> Self {
        Returned::Status(status)
    }
}

macro_rules! other {
    ($($t:ty),*) => { $(impl From<$t> for Returned { fn from(_: $t) -> Self { Returned::Other } })* };
}
other!((), u32, u64, *const std::ffi::c_char, *mut carat_cancel, *const f32);

/// An entry point's name, and a call of it with nothing but NULL and 0.
type EntryPoint = (&'static str, fn(*mut *mut carat_error) -> Returned);

fn entry_points() -> Vec<EntryPoint> {
    macro_rules! list {
        ($($name:ident($($arg:expr),*);)*) => {
            vec![$((stringify!($name), {
                #[allow(unused_unsafe, unused_variables)]
                fn call(error: *mut *mut carat_error) -> Returned {
                    // SAFETY: NULL is something that every function takes or refuses.
                    unsafe { $name($($arg(error)),*) }.into()
                }
                call
            })),*]
        };
    }
    fn n<T>(_: *mut *mut carat_error) -> *const T {
        null()
    }
    fn m<T>(_: *mut *mut carat_error) -> *mut T {
        null_mut()
    }
    fn z(_: *mut *mut carat_error) -> usize {
        0
    }
    fn i(_: *mut *mut carat_error) -> i32 {
        0
    }
    fn u(_: *mut *mut carat_error) -> u32 {
        0
    }
    fn w(_: *mut *mut carat_error) -> u64 {
        0
    }
    fn f<T>(_: *mut *mut carat_error) -> Option<T> {
        None
    }
    fn e(error: *mut *mut carat_error) -> *mut *mut carat_error {
        error
    }
    list! {
        carat_error_status(n);
        carat_error_kind(n);
        carat_error_message(n);
        carat_error_nearest(n);
        carat_error_free(m);
        carat_status_name(i);
        carat_cancel_new();
        carat_cancel_clone(n);
        carat_cancel_set(n);
        carat_cancel_is_set(n);
        carat_cancel_free(m);
        carat_model_options_init(m, z);
        carat_session_options_init(m, z);
        carat_plan_init(m, z);
        carat_model_open(n, z, n, m, e);
        carat_model_open_fd(i, w, w, n, m, e);
        carat_model_open_bytes(n, z, f, m, n, m, e);
        carat_model_free(m);
        carat_model_plan(n, z, i, n, m, e);
        carat_model_plan_session(n, n, m, e);
        carat_model_info_init(m, z);
        carat_tensor_info_init(m, z);
        carat_limits_init(m, z);
        carat_model_get_info(n, m, e);
        carat_model_metadata(n, n, z, m, z, m, e);
        carat_model_tensor(n, w, m, e);
        carat_isa_name(i);
        carat_isa_available(i);
        carat_limits_measure(i, i, m, e);
        carat_version();
        carat_abi_version();
        carat_tokenize_options_init(m, z);
        carat_special_tokens_init(m, z);
        carat_tokenize(n, n, z, n, m, z, m, e);
        carat_detokenize(n, n, z, m, z, m, e);
        carat_token_bytes(n, u, m, z, m, e);
        carat_token_kind(n, u, m, e);
        carat_token_id(n, n, z, m, e);
        carat_model_special_tokens(n, m, e);
        carat_chat_render(n, n, z, n, m, z, m, e);
        carat_decoder_new(n, m, e);
        carat_decoder_push(m, u, m, z, m, e);
        carat_decoder_flush(m, m, z, m, e);
        carat_decoder_free(m);
        carat_logits_data(n, m);
        carat_logits_free(m);
        carat_session_new(n, n, m, e);
        carat_session_free(m);
        carat_session_fork(n, m, e);
        carat_session_prefill(m, n, z, n, e);
        carat_session_prefill_each(m, n, z, n, f, m, e);
        carat_session_step(m, u, n, e);
        carat_session_logits(n, m, e);
        carat_session_score(m, n, z, z, n, m, z, m, e);
        carat_session_truncate(m, z, e);
        carat_session_save(n, n, z, n, e);
        carat_session_load(n, n, z, n, n, m, e);
        carat_session_len(n, m, m, e);
        carat_session_tokens(n, m, z, m, e);
        carat_session_trim(m, e);
        carat_generate_options_init(m, z);
        carat_summary_init(m, z);
        carat_session_generate(m, n, z, n, f, m, m, e);
        carat_conversation_new(m, n, z, m, e);
        carat_conversation_resume(m, m, e);
        carat_conversation_load(n, n, z, n, n, m, e);
        carat_conversation_into_session(m, m, e);
        carat_conversation_free(m);
        carat_conversation_send(m, n, z, n, f, m, m, e);
        carat_conversation_regenerate(m, n, f, m, m, e);
        carat_conversation_edit_last(m, n, z, n, f, m, m, e);
        carat_conversation_respond(m, n, z, n, f, m, m, e);
        carat_conversation_set_policy(m, i, e);
        carat_conversation_n_turns(n, m, e);
        carat_conversation_turn(n, z, m, m, z, m, e);
        carat_conversation_dropped(n, z, m, m, z, m, e);
        carat_conversation_tokens(n, m, z, m, e);
        carat_conversation_system(n, m, z, m, e);
        carat_conversation_set_system(m, n, z, e);
        carat_conversation_reset(m, e);
        carat_conversation_save(n, n, z, n, e);
        carat_conversation_trim(m, e);
    }
}

/// The functions that the header declares.
fn declared() -> Vec<String> {
    let header = include_str!("../../include/carat.h");
    let code: String =
        header.lines().filter(|l| !l.trim_start().starts_with("//")).collect::<Vec<_>>().join("\n");
    let comment_end = code.find("*/").unwrap();
    let mut names: Vec<String> = code[comment_end..]
        .split('(')
        .filter_map(|before| before.rsplit([' ', '*', '\n']).next())
        .filter(|name| name.starts_with("carat_") && !name.ends_with(')')) // types of callbacks do
        .map(String::from)
        .collect();
    names.sort();
    names
}

#[test]
fn the_list_of_entry_points_is_the_headers() {
    let mut listed: Vec<String> = entry_points().iter().map(|(name, _)| name.to_string()).collect();
    listed.sort();
    assert_eq!(listed, declared());
}

#[test]
fn no_panic_leaves_an_entry_point() {
    let hook = std::panic::take_hook();
    std::panic::set_hook(Box::new(|_| {}));
    let outcomes: Vec<_> = entry_points()
        .into_iter()
        .map(|(name, call)| {
            let mut error = null_mut();
            PANIC.set(true);
            let returned = call(&mut error);
            (name, returned, PANIC.take(), error)
        })
        .collect();
    std::panic::set_hook(hook);
    for (name, returned, not_reached, error) in outcomes {
        assert!(!not_reached, "{name} runs outside the guard");
        // carat_error_status(), carat_error_kind() and the like return numbers of their own.
        if let Returned::Status(status) = returned
            && !error.is_null()
        {
            assert_eq!(status, CARAT_INTERNAL, "{name}");
            // SAFETY: it was just handed out.
            unsafe {
                let message = std::ffi::CStr::from_ptr(carat_error_message(error));
                assert!(message.to_str().unwrap().contains("injected"), "{name}: {message:?}");
                carat_error_free(error);
            }
        }
    }
}

#[test]
fn nothing_but_null_is_refused_or_harmless() {
    for (name, call) in entry_points() {
        let mut error = null_mut();
        let returned = call(&mut error);
        if let Returned::Status(status) = returned
            && !error.is_null()
        {
            let expected = match name {
                "carat_decoder_push" | "carat_decoder_flush" => CARAT_BUFFER_TOO_SMALL,
                _ => CARAT_INVALID_ARGUMENT,
            };
            assert_eq!(status, expected, "{name}");
            // SAFETY: it was just handed out.
            unsafe { carat_error_free(error) };
        }
        // And without anywhere to say why.
        call(null_mut());
    }
}

#[test]
fn structs_of_older_and_newer_headers() {
    // SAFETY: all pointers are to locals of the sizes that they say.
    unsafe {
        // An older program's struct ends early: nothing beyond is read or written.
        let mut bytes = [0xaau8; size_of::<carat_generate_options>() + 64];
        let old = std::mem::offset_of!(carat_generate_options, top_k);
        let options = bytes.as_mut_ptr().cast::<carat_generate_options>();
        assert!(options.is_aligned());
        carat_generate_options_init(options, old);
        assert!(bytes[old..].iter().all(|b| *b == 0xaa), "written past the end");
        let read = sized::read(bytes.as_ptr().cast::<carat_generate_options>(), "options").ok().unwrap();
        assert_eq!((read.temperature, read.top_k, read.n_stop), (1.0, 64, 0), "defaults for what is missing");

        // A newer one: unknown fields must be zero.
        let new = size_of::<carat_generate_options>() + 32;
        carat_generate_options_init(bytes.as_mut_ptr().cast(), new);
        assert!(bytes[size_of::<carat_generate_options>()..new].iter().all(|b| *b == 0));
        assert!(bytes[new..].iter().all(|b| *b == 0xaa));
        assert!(sized::read(bytes.as_ptr().cast::<carat_generate_options>(), "options").is_ok());
        bytes[new - 1] = 1;
        let refused = sized::read(bytes.as_ptr().cast::<carat_generate_options>(), "options");
        assert!(matches!(refused, Err(Failure::Border(CARAT_INVALID_ARGUMENT, _))));

        // Sizes that no header had.
        for size in [0u32, 4, 12, 1 << 20, u32::MAX] {
            bytes[..4].copy_from_slice(&size.to_ne_bytes());
            assert!(
                sized::read(bytes.as_ptr().cast::<carat_generate_options>(), "options").is_err(),
                "{size}"
            );
        }

        // What the library fills in goes the same way.
        let mut summary = [0xaau8; size_of::<carat_summary>() + 64];
        for size in [8usize, 24, size_of::<carat_summary>(), size_of::<carat_summary>() + 16] {
            summary.fill(0xaa);
            summary[..4].copy_from_slice(&(size as u32).to_ne_bytes());
            let value = carat_summary { reason: 5, prompt_tokens: 7, ..sized::Grows::defaults() };
            sized::write(summary.as_mut_ptr().cast::<carat_summary>(), &value, "summary").ok().unwrap();
            assert!(summary[size..].iter().all(|b| *b == 0xaa), "written past the end of {size}");
            assert_eq!(summary[..4], (size as u32).to_ne_bytes(), "its size is the caller's");
            assert_eq!(summary[4], 5);
        }
    }
}
