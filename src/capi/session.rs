//! Sessions: the state of one text.

use std::ffi::{c_char, c_void};

use super::*;
use crate::{Error, Session, TokenScore};

/// One text being read and written by a model. One call at a time: a second one gets CARAT_BUSY.
pub struct carat_session(pub(super) Exclusive<Session>);

/// How likely a token of a given text is, after those before it.
#[repr(C)]
#[derive(Clone, Copy)]
pub struct carat_token_score {
    /// Its id.
    pub token: u32,
    /// Natural logarithm of its probability.
    pub log_prob: f32,
    /// How many tokens are likelier.
    pub rank: u32,
}

/// Takes the logits `[n_logits]` after token `index` of the given ones. Valid during the call. Returns 1 to go on,
/// 0 to stop.
pub type carat_logits_fn = Option<
    unsafe extern "C" fn(user_data: *mut c_void, index: usize, logits: *const f32, n_logits: usize) -> i32,
>;

/// Runs `f` on a session.
///
/// # Safety
/// As [`hold`].
unsafe fn with<R>(session: *const carat_session, f: impl FnOnce(&mut Session) -> Outcome<R>) -> Outcome<R> {
    // SAFETY: the caller's promise.
    unsafe { hold(session, "session") }?.0.with(f)
}

/// An empty session. All memory that it needs for its tokens is taken here: see carat_model_plan(). `options` may be
/// NULL.
///
/// Ownership: `*out` is the caller's, ended by carat_session_free(). It keeps the model alive.
/// Threads: any.
/// Errors: CARAT_INVALID_OPTION, CARAT_OUT_OF_MEMORY.
#[unsafe(no_mangle)]
pub unsafe extern "C" fn carat_session_new(
    model: *const carat_model,
    options: *const carat_session_options,
    out: *mut *mut carat_session,
    error: *mut *mut carat_error,
) -> carat_status {
    guard(error, || {
        // SAFETY: the header's contract, here and below.
        unsafe {
            hand_out(out, || {
                let model = hold(model, "model")?;
                let options = sized::read(options, "options")?.to_rust()?;
                Ok(carat_session(Exclusive::new(Session::new(&model.0, options)?)))
            })
        }
    })
}

/// Frees a session; NULL is nothing to do.
///
/// Ownership: ends that of `session`.
/// Threads: any, once; during a call on it (from another thread, or from its own callback) deferred to the call's end.
#[unsafe(no_mangle)]
pub unsafe extern "C" fn carat_session_free(session: *mut carat_session) {
    // SAFETY: the header's contract.
    unsafe { release(session) }
}

/// A copy that goes its own way from here.
///
/// Ownership: `*out` is the caller's, ended by carat_session_free().
/// Threads: any, one call at a time.
/// Errors: CARAT_OUT_OF_MEMORY, CARAT_BUSY.
#[unsafe(no_mangle)]
pub unsafe extern "C" fn carat_session_fork(
    session: *const carat_session,
    out: *mut *mut carat_session,
    error: *mut *mut carat_error,
) -> carat_status {
    guard(error, || {
        // SAFETY: the header's contract, here and below.
        unsafe { hand_out(out, || with(session, |s| Ok(carat_session(Exclusive::new(s.fork()?))))) }
    })
}

/// Adds the tokens of a prompt, in batches, and computes the logits after the last. However they are split into calls,
/// the same tokens give the same logits. `cancel` may be NULL; once it is set the session is left at its last completed
/// batch.
///
/// Ownership: all is borrowed.
/// Threads: any, one call at a time.
/// Errors: before anything is done, CARAT_EMPTY_PROMPT, CARAT_TOKEN_OUT_OF_RANGE, CARAT_PROMPT_TOO_LONG; CARAT_BUSY;
/// CARAT_CANCELLED; CARAT_FILE_CHANGED; CARAT_FORKED; CARAT_OUT_OF_MEMORY after carat_session_trim().
#[unsafe(no_mangle)]
pub unsafe extern "C" fn carat_session_prefill(
    session: *mut carat_session,
    ids: *const u32,
    n_ids: usize,
    cancel: *const carat_cancel,
    error: *mut *mut carat_error,
) -> carat_status {
    guard(error, || {
        // SAFETY: the header's contract, here and below.
        unsafe {
            let (ids, cancel) = (slice(ids, n_ids, "ids")?, cancel::token(cancel));
            with(session, |s| Ok(s.prefill_with(ids, cancel.as_ref())?))
        }
    })
}

/// As carat_session_prefill(), and hands the logits after each of the tokens to `each`, on this thread. Where that
/// returns 0, the rest of the batch is part of the session and the rest of the tokens is not. The session itself has no
/// logits then, whatever `each` returned: carat_session_logits() gets CARAT_NO_LOGITS until a prefill or a step.
///
/// Ownership: all is borrowed.
/// Threads: any, one call at a time.
/// Errors: as carat_session_prefill(); CARAT_CANCELLED where `each` returned 0.
#[unsafe(no_mangle)]
pub unsafe extern "C" fn carat_session_prefill_each(
    session: *mut carat_session,
    ids: *const u32,
    n_ids: usize,
    cancel: *const carat_cancel,
    each: carat_logits_fn,
    user_data: *mut c_void,
    error: *mut *mut carat_error,
) -> carat_status {
    guard(error, || {
        let Some(each) = each else { return Err(Failure::argument("each is NULL")) };
        // SAFETY: the header's contract, here and below.
        unsafe {
            let (ids, cancel) = (slice(ids, n_ids, "ids")?, cancel::token(cancel));
            with(session, |s| {
                Ok(s.prefill_each(ids, cancel.as_ref(), |index, logits| {
                    match each(user_data, index, logits.as_ptr(), logits.len()) {
                        0 => Err(Error::Cancelled),
                        _ => Ok(()),
                    }
                })?)
            })
        }
    })
}

/// Adds one token and computes the logits of the next. Nothing is allocated. `cancel` may be NULL; once it is set the
/// token is not added.
///
/// Ownership: all is borrowed.
/// Threads: any, one call at a time.
/// Errors: CARAT_CONTEXT_FULL, CARAT_TOKEN_OUT_OF_RANGE, CARAT_BUSY, CARAT_CANCELLED, CARAT_FILE_CHANGED, CARAT_FORKED.
#[unsafe(no_mangle)]
pub unsafe extern "C" fn carat_session_step(
    session: *mut carat_session,
    token: u32,
    cancel: *const carat_cancel,
    error: *mut *mut carat_error,
) -> carat_status {
    guard(error, || {
        // SAFETY: the header's contract, here and below.
        unsafe {
            let cancel = cancel::token(cancel);
            with(session, |s| Ok(s.step_with(token, cancel.as_ref()).map(|_| ())?))
        }
    })
}

/// The logits of the token that comes next, as a prefill, a step or generating left them, without copying: a session
/// that goes on while they are kept computes into other memory.
///
/// Ownership: `*out` is the caller's, ended by carat_logits_free(), whatever becomes of the session.
/// Threads: any, one call at a time.
/// Errors: CARAT_NO_LOGITS where the last pass left none: in a new session, after carat_session_prefill_each(), a score, a
/// cut, and a pass that was cancelled; CARAT_BUSY.
#[unsafe(no_mangle)]
pub unsafe extern "C" fn carat_session_logits(
    session: *const carat_session,
    out: *mut *mut carat_logits,
    error: *mut *mut carat_error,
) -> carat_status {
    guard(error, || {
        let kept = |s: &mut Session| {
            s.keep_logits().map(carat_logits).ok_or_else(|| {
                let what = "the session has no logits now: only a prefill or a step computes them";
                Failure::Border(CARAT_NO_LOGITS, what.into())
            })
        };
        // SAFETY: the header's contract, here and below.
        unsafe { hand_out(out, || with(session, kept)) }
    })
}

/// Adds the tokens of a text, and tells for those from index `from` on how likely they were after those before them.
/// The very first token of a session has nothing before it and no score. Writes the scores to `scores`, which has room
/// for `capacity`, and their number to `*n`, which may be NULL.
///
/// Ownership: all is borrowed.
/// Threads: any, one call at a time.
/// Errors: as carat_session_prefill(); CARAT_INVALID_OPTION for a `from` beyond the text; CARAT_NAN_LOGITS;
/// CARAT_BUFFER_TOO_SMALL for a `capacity` below `n_ids` − `from`, before anything is done, with `*n` written.
#[unsafe(no_mangle)]
pub unsafe extern "C" fn carat_session_score(
    session: *mut carat_session,
    ids: *const u32,
    n_ids: usize,
    from: usize,
    cancel: *const carat_cancel,
    scores: *mut carat_token_score,
    capacity: usize,
    n: *mut usize,
    error: *mut *mut carat_error,
) -> carat_status {
    guard(error, || {
        // SAFETY: the header's contract, here and below.
        unsafe {
            let (ids, cancel) = (slice(ids, n_ids, "ids")?, cancel::token(cancel));
            let most = n_ids.saturating_sub(from);
            if capacity < most || scores.is_null() && most > 0 {
                put_if_asked(n, most);
                let what = format!("the buffer has room for {capacity} scores, there may be {most}");
                return Err(Failure::Border(CARAT_BUFFER_TOO_SMALL, what));
            }
            let found: Vec<carat_token_score> =
                with(session, |s| Ok(s.score(ids, from, cancel.as_ref())?))?
                    .into_iter()
                    .map(|TokenScore { token, log_prob, rank }| carat_token_score { token, log_prob, rank })
                    .collect();
            fill(&found, scores, capacity, n)
        }
    })
}

/// Cuts the text to its first `len` tokens.
///
/// Threads: any, one call at a time.
/// Errors: CARAT_REWIND when the sliding windows no longer hold what comes before `len`: the session is as it was, and
/// carat_error_nearest() says how far back it can go; CARAT_INVALID_OPTION when there are fewer tokens; CARAT_BUSY.
#[unsafe(no_mangle)]
pub unsafe extern "C" fn carat_session_truncate(
    session: *mut carat_session,
    len: usize,
    error: *mut *mut carat_error,
) -> carat_status {
    // SAFETY: the header's contract.
    guard(error, || unsafe { with(session, |s| Ok(s.truncate(len)?)) })
}

/// Saves the session to a file: loaded again it goes on with the same bits. A file that is there is replaced only when
/// the new one is complete and on the disk. `cancel` may be NULL.
///
/// Ownership: all is borrowed.
/// Threads: any, one call at a time.
/// Errors: CARAT_IO, a full disk among them: the old file stays; CARAT_CANCELLED; CARAT_BUSY; CARAT_FILE_CHANGED.
#[unsafe(no_mangle)]
pub unsafe extern "C" fn carat_session_save(
    session: *const carat_session,
    path: *const c_char,
    path_len: usize,
    cancel: *const carat_cancel,
    error: *mut *mut carat_error,
) -> carat_status {
    guard(error, || {
        // SAFETY: the header's contract, here and below.
        unsafe {
            let (path, cancel) = (super::path(path, path_len, "path")?, cancel::token(cancel));
            with(session, |s| Ok(s.save(path, cancel.as_ref())?))
        }
    })
}

/// Opens a session that carat_session_save() wrote, with options of its own; another `kv` than the saved session's is
/// an error. `options` and `cancel` may be NULL.
///
/// Ownership: `*out` is the caller's, ended by carat_session_free(). It keeps the model alive.
/// Threads: any.
/// Errors: CARAT_STATE for a file of another model or kv, one that is damaged, or a text that does not fit; CARAT_IO;
/// CARAT_CANCELLED; as carat_session_new().
#[unsafe(no_mangle)]
pub unsafe extern "C" fn carat_session_load(
    model: *const carat_model,
    path: *const c_char,
    path_len: usize,
    options: *const carat_session_options,
    cancel: *const carat_cancel,
    out: *mut *mut carat_session,
    error: *mut *mut carat_error,
) -> carat_status {
    guard(error, || {
        // SAFETY: the header's contract, here and below.
        unsafe {
            hand_out(out, || {
                let model = hold(model, "model")?;
                let (path, cancel) = (super::path(path, path_len, "path")?, cancel::token(cancel));
                let options = sized::read(options, "options")?.to_rust()?;
                Ok(carat_session(Exclusive::new(Session::load(&model.0, options, path, cancel.as_ref())?)))
            })
        }
    })
}

/// The number of tokens so far to `*len`, and of those that the session can hold to `*context`; either may be NULL.
///
/// Threads: any, one call at a time.
/// Errors: CARAT_BUSY.
#[unsafe(no_mangle)]
pub unsafe extern "C" fn carat_session_len(
    session: *const carat_session,
    len: *mut usize,
    context: *mut usize,
    error: *mut *mut carat_error,
) -> carat_status {
    guard(error, || {
        // SAFETY: the header's contract, here and below.
        unsafe {
            with(session, |s| {
                put_if_asked(len, s.len());
                put_if_asked(context, s.context());
                Ok(())
            })
        }
    })
}

/// The tokens so far, to `ids`, which has room for `capacity`, and their number to `*n`, which may be NULL.
///
/// Ownership: all is borrowed.
/// Threads: any, one call at a time.
/// Errors: CARAT_BUFFER_TOO_SMALL, with `*n` written; CARAT_BUSY.
#[unsafe(no_mangle)]
pub unsafe extern "C" fn carat_session_tokens(
    session: *const carat_session,
    ids: *mut u32,
    capacity: usize,
    n: *mut usize,
    error: *mut *mut carat_error,
) -> carat_status {
    // SAFETY: the header's contract.
    guard(error, || unsafe { with(session, |s| fill(s.tokens(), ids, capacity, n)) })
}

/// Gives back memory that can be had again, for when the system says that memory is short. The text stays as it is, and
/// so do the logits. Steps go on without an allocation; the next prompt of more than 16 tokens takes the memory again.
///
/// Threads: any, one call at a time.
/// Errors: CARAT_BUSY.
#[unsafe(no_mangle)]
pub unsafe extern "C" fn carat_session_trim(
    session: *mut carat_session,
    error: *mut *mut carat_error,
) -> carat_status {
    guard(error, || {
        // SAFETY: the header's contract, here and below.
        unsafe {
            with(session, |s| {
                s.trim();
                Ok(())
            })
        }
    })
}
