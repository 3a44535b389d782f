//! Conversations: turns over a session.

use std::ffi::{c_char, c_void};

use super::*;
use crate::chat::Role;
use crate::{ContextPolicy, Conversation, DroppedTurn, GenerateOptions, Piece, Reply, Session};
use std::ops::ControlFlow;

/// When the context is full, an answer ends (CARAT_FINISH_CONTEXT_FULL); a turn that does not fit is an error.
pub const CARAT_POLICY_STOP: i32 = 0;
/// When the context is full, the oldest turns are forgotten: see carat_conversation_dropped().
pub const CARAT_POLICY_DROP_OLDEST: i32 = 1;

/// A conversation and what its last reply dropped.
pub(super) struct Talk {
    conversation: Conversation,
    dropped: Vec<DroppedTurn>,
}

/// A user and a model in turn, over one session, in Gemma's template. One call at a time: a second one gets CARAT_BUSY.
pub struct carat_conversation(Exclusive<Talk>);

impl From<Conversation> for carat_conversation {
    fn from(conversation: Conversation) -> Self {
        carat_conversation(Exclusive::new(Talk { conversation, dropped: Vec::new() }))
    }
}

/// Runs `f` on a conversation.
///
/// # Safety
/// As [`hold`].
unsafe fn with<R>(
    conversation: *const carat_conversation,
    f: impl FnOnce(&mut Talk) -> Outcome<R>,
) -> Outcome<R> {
    // SAFETY: the caller's promise.
    unsafe { hold(conversation, "conversation") }?.0.with(f)
}

/// A text that may be left out: a NULL pointer.
///
/// # Safety
/// As [`slice`].
unsafe fn optional_text<'a>(chars: *const c_char, len: usize, name: &str) -> Outcome<Option<&'a str>> {
    if chars.is_null() && len == 0 {
        return Ok(None);
    }
    // SAFETY: the caller's promise.
    unsafe { text(chars, len, name) }.map(Some)
}

/// Makes a conversation of a session's contents by `f`. Where that fails they are lost with it, as the session may be.
///
/// # Safety
/// As the entry points that call it.
unsafe fn make(
    session: *mut carat_session,
    out: *mut *mut carat_conversation,
    f: impl FnOnce(Session) -> crate::Result<Conversation>,
) -> Outcome {
    // SAFETY: the caller's promise.
    unsafe { hand_out(out, || Ok(f(hold(session, "session")?.0.take()?)?.into())) }
}

/// An empty conversation over a session, with a system text (NULL for none) that says how to answer.
///
/// Ownership: the contents of `session` go to the conversation, also where this fails: the handle is then good for
/// carat_session_free() alone, which is still the caller's to call. `*out` is the caller's, ended by
/// carat_conversation_free().
/// Threads: any.
/// Errors: CARAT_BUSY (the session keeps its contents); CARAT_OUT_OF_MEMORY; CARAT_VOCABULARY.
#[unsafe(no_mangle)]
pub unsafe extern "C" fn carat_conversation_new(
    session: *mut carat_session,
    system: *const c_char,
    system_len: usize,
    out: *mut *mut carat_conversation,
    error: *mut *mut carat_error,
) -> carat_status {
    guard(error, || {
        // SAFETY: the header's contract, here and below.
        unsafe {
            let system = optional_text(system, system_len, "system")?;
            make(session, out, |s| Conversation::new(s, system))
        }
    })
}

/// Goes on with the conversation whose tokens a session holds, such as one that was saved without its texts. A system text is
/// part of the first question then. A last question without an answer is left out.
///
/// Ownership: as carat_conversation_new().
/// Threads: any.
/// Errors: CARAT_CHAT where the tokens are not a conversation; as carat_conversation_new().
#[unsafe(no_mangle)]
pub unsafe extern "C" fn carat_conversation_resume(
    session: *mut carat_session,
    out: *mut *mut carat_conversation,
    error: *mut *mut carat_error,
) -> carat_status {
    // SAFETY: the header's contract.
    guard(error, || unsafe { make(session, out, Conversation::resume) })
}

/// Opens a conversation that carat_conversation_save() wrote, with options of its own: its turns and the system's text
/// are the same. What to do when the context is full is not part of it. A saved session is opened as by
/// carat_conversation_resume(). `options` and `cancel` may be NULL.
///
/// Ownership: `*out` is the caller's, ended by carat_conversation_free(). It keeps the model alive.
/// Threads: any.
/// Errors: as carat_session_load() and carat_conversation_resume().
#[unsafe(no_mangle)]
pub unsafe extern "C" fn carat_conversation_load(
    model: *const carat_model,
    path: *const c_char,
    path_len: usize,
    options: *const carat_session_options,
    cancel: *const carat_cancel,
    out: *mut *mut carat_conversation,
    error: *mut *mut carat_error,
) -> carat_status {
    guard(error, || {
        // SAFETY: the header's contract, here and below.
        unsafe {
            hand_out(out, || {
                let model = hold(model, "model")?;
                let (path, cancel) = (super::path(path, path_len, "path")?, cancel::token(cancel));
                let options = sized::read(options, "options")?.to_rust()?;
                Ok(Conversation::load(&model.0, options, path, cancel.as_ref())?.into())
            })
        }
    })
}

/// Takes the session out of a conversation.
///
/// Ownership: `*out` is the caller's, ended by carat_session_free(). The conversation's handle is then good for
/// carat_conversation_free() alone.
/// Threads: any, one call at a time.
/// Errors: CARAT_BUSY.
#[unsafe(no_mangle)]
pub unsafe extern "C" fn carat_conversation_into_session(
    conversation: *mut carat_conversation,
    out: *mut *mut carat_session,
    error: *mut *mut carat_error,
) -> carat_status {
    guard(error, || {
        // SAFETY: the header's contract, here and below.
        unsafe {
            hand_out(out, || {
                let talk = hold(conversation, "conversation")?.0.take()?;
                Ok(carat_session(Exclusive::new(talk.conversation.into_session())))
            })
        }
    })
}

/// Frees a conversation and its session; NULL is nothing to do.
///
/// Ownership: ends that of `conversation`.
/// Threads: any, once; during a call on it (from another thread, or from its own callback) deferred to the call's end.
#[unsafe(no_mangle)]
pub unsafe extern "C" fn carat_conversation_free(conversation: *mut carat_conversation) {
    // SAFETY: the header's contract.
    unsafe { release(conversation) }
}

/// What all replies have in common.
///
/// # Safety
/// As the entry points that call it.
unsafe fn reply(
    conversation: *mut carat_conversation,
    options: *const carat_generate_options,
    on_piece: carat_piece_fn,
    user_data: *mut c_void,
    summary: *mut carat_summary,
    ask: impl FnOnce(
        &mut Conversation,
        &GenerateOptions,
        &mut dyn FnMut(Piece<'_>) -> ControlFlow<()>,
    ) -> crate::Result<Reply>,
) -> Outcome {
    // SAFETY: the caller's promise, here and below.
    unsafe {
        sized::check_if_asked(summary, "summary")?;
        let o = sized::read(options, "options")?;
        if o.hook.is_some() {
            return Err(Failure::argument("hook: a conversation takes none"));
        }
        let options = o.to_rust()?;
        let done = with(conversation, |talk| {
            let reply = ask(&mut talk.conversation, &options, &mut |p| emit(on_piece, user_data, &p))?;
            talk.dropped = reply.dropped;
            Ok(reply.summary)
        })?;
        sized::write_if_asked(summary, &done.into(), "summary")
    }
}

/// Says something to the model and generates its answer. `on_piece` is called for every token, on this thread, before
/// the call returns; it may be NULL. Once the model is at work, cancelling is not an error. `options` and `summary` may
/// be NULL.
///
/// Ownership: all is borrowed. `summary` is the caller's struct, made by carat_summary_init().
/// Threads: any, one call at a time; the callback gets CARAT_BUSY from this conversation.
/// Errors: CARAT_CANCELLED while the text is still being encoded; CARAT_PROMPT_TOO_LONG; those of
/// carat_session_generate(). The conversation is then as it was.
#[unsafe(no_mangle)]
pub unsafe extern "C" fn carat_conversation_send(
    conversation: *mut carat_conversation,
    text: *const c_char,
    text_len: usize,
    options: *const carat_generate_options,
    on_piece: carat_piece_fn,
    user_data: *mut c_void,
    summary: *mut carat_summary,
    error: *mut *mut carat_error,
) -> carat_status {
    guard(error, || {
        // SAFETY: the header's contract, here and below.
        unsafe {
            let text = super::text(text, text_len, "text")?;
            reply(conversation, options, on_piece, user_data, summary, |c, o, f| c.send(text, o, f))
        }
    })
}

/// Drops the last answer and generates another. Else as carat_conversation_send().
///
/// Ownership: as carat_conversation_send().
/// Threads: any, one call at a time.
/// Errors: CARAT_CHAT where there is no answer; as carat_conversation_send().
#[unsafe(no_mangle)]
pub unsafe extern "C" fn carat_conversation_regenerate(
    conversation: *mut carat_conversation,
    options: *const carat_generate_options,
    on_piece: carat_piece_fn,
    user_data: *mut c_void,
    summary: *mut carat_summary,
    error: *mut *mut carat_error,
) -> carat_status {
    guard(error, || {
        // SAFETY: the header's contract, here and below.
        unsafe { reply(conversation, options, on_piece, user_data, summary, |c, o, f| c.regenerate(o, f)) }
    })
}

/// Drops the last answer and question, and says something else. Else as carat_conversation_send().
///
/// Ownership: as carat_conversation_send().
/// Threads: any, one call at a time.
/// Errors: as carat_conversation_regenerate().
#[unsafe(no_mangle)]
pub unsafe extern "C" fn carat_conversation_edit_last(
    conversation: *mut carat_conversation,
    text: *const c_char,
    text_len: usize,
    options: *const carat_generate_options,
    on_piece: carat_piece_fn,
    user_data: *mut c_void,
    summary: *mut carat_summary,
    error: *mut *mut carat_error,
) -> carat_status {
    guard(error, || {
        // SAFETY: the header's contract, here and below.
        unsafe {
            let text = super::text(text, text_len, "text")?;
            reply(conversation, options, on_piece, user_data, summary, |c, o, f| c.edit_last(text, o, f))
        }
    })
}

/// Takes a whole conversation, as a service does that is told all of it each time, and answers its last turn; what it
/// has in common with the turns held is not processed again. Else as carat_conversation_send().
///
/// Ownership: as carat_conversation_send().
/// Threads: any, one call at a time.
/// Errors: CARAT_CHAT where the turns are not at most one of the system, then user and model in turn, the last the
/// user's; as carat_conversation_send().
#[unsafe(no_mangle)]
pub unsafe extern "C" fn carat_conversation_respond(
    conversation: *mut carat_conversation,
    turns: *const carat_turn,
    n_turns: usize,
    options: *const carat_generate_options,
    on_piece: carat_piece_fn,
    user_data: *mut c_void,
    summary: *mut carat_summary,
    error: *mut *mut carat_error,
) -> carat_status {
    guard(error, || {
        // SAFETY: the header's contract, here and below.
        unsafe {
            let turns = turns_of(turns, n_turns)?;
            reply(conversation, options, on_piece, user_data, summary, |c, o, f| c.respond(&turns, o, f))
        }
    })
}

/// What to do when the context is full: CARAT_POLICY_*. CARAT_POLICY_STOP unless set.
///
/// Threads: any, one call at a time.
/// Errors: CARAT_BUSY.
#[unsafe(no_mangle)]
pub unsafe extern "C" fn carat_conversation_set_policy(
    conversation: *mut carat_conversation,
    policy: i32,
    error: *mut *mut carat_error,
) -> carat_status {
    guard(error, || {
        let policy = match policy {
            CARAT_POLICY_STOP => ContextPolicy::Stop,
            CARAT_POLICY_DROP_OLDEST => ContextPolicy::DropOldest,
            n => return Err(Failure::argument(format!("policy {n} is no CARAT_POLICY_*"))),
        };
        // SAFETY: the header's contract, here and below.
        unsafe {
            with(conversation, |talk| {
                talk.conversation.set_context_policy(policy);
                Ok(())
            })
        }
    })
}

/// The number of turns so far, without the system's, to `*n`.
///
/// Threads: any, one call at a time.
/// Errors: CARAT_BUSY.
#[unsafe(no_mangle)]
pub unsafe extern "C" fn carat_conversation_n_turns(
    conversation: *const carat_conversation,
    n: *mut usize,
    error: *mut *mut carat_error,
) -> carat_status {
    // SAFETY: the header's contract.
    guard(error, || unsafe { with(conversation, |talk| put(n, talk.conversation.turns().count(), "n")) })
}

/// What is told of a turn.
///
/// # Safety
/// As [`fill_text`], and `to_role` is NULL or valid for a write.
unsafe fn fill_turn(
    role: Role,
    said: &str,
    to_role: *mut i32,
    text: *mut c_char,
    capacity: usize,
    len: *mut usize,
) -> Outcome {
    // SAFETY: the caller's promise.
    unsafe {
        fill_text(said, text, capacity, len)?;
        put_if_asked(to_role, tokenizer::role_number(role));
    }
    Ok(())
}

/// A turn, by its index: its role (CARAT_ROLE_*) to `*role`, which may be NULL, and its text to `text` as in
/// carat_detokenize().
///
/// Ownership: all is borrowed.
/// Threads: any, one call at a time.
/// Errors: CARAT_INVALID_ARGUMENT for an index beyond; CARAT_BUFFER_TOO_SMALL, with `*len` written; CARAT_BUSY.
#[unsafe(no_mangle)]
pub unsafe extern "C" fn carat_conversation_turn(
    conversation: *const carat_conversation,
    index: usize,
    role: *mut i32,
    text: *mut c_char,
    capacity: usize,
    len: *mut usize,
    error: *mut *mut carat_error,
) -> carat_status {
    guard(error, || {
        // SAFETY: the header's contract, here and below.
        unsafe {
            with(conversation, |talk| {
                let turn = talk.conversation.turns().nth(index);
                let turn = turn.ok_or_else(|| Failure::argument(format!("there is no turn {index}")))?;
                fill_turn(turn.role, turn.text, role, text, capacity, len)
            })
        }
    })
}

/// A turn that the last reply dropped to make room, by its index from the oldest, as carat_conversation_turn().
///
/// Ownership: all is borrowed.
/// Threads: any, one call at a time.
/// Errors: as carat_conversation_turn(): CARAT_INVALID_ARGUMENT tells the end.
#[unsafe(no_mangle)]
pub unsafe extern "C" fn carat_conversation_dropped(
    conversation: *const carat_conversation,
    index: usize,
    role: *mut i32,
    text: *mut c_char,
    capacity: usize,
    len: *mut usize,
    error: *mut *mut carat_error,
) -> carat_status {
    guard(error, || {
        // SAFETY: the header's contract, here and below.
        unsafe {
            with(conversation, |talk| {
                let turn = talk.dropped.get(index);
                let turn = turn.ok_or_else(|| Failure::argument(format!("no turn {index} was dropped")))?;
                fill_turn(turn.role, &turn.text, role, text, capacity, len)
            })
        }
    })
}

/// The tokens of the conversation, to `ids`, which has room for `capacity`, and their number to `*n`, which may be NULL.
///
/// Ownership: all is borrowed.
/// Threads: any, one call at a time.
/// Errors: CARAT_BUFFER_TOO_SMALL, with `*n` written; CARAT_BUSY.
#[unsafe(no_mangle)]
pub unsafe extern "C" fn carat_conversation_tokens(
    conversation: *const carat_conversation,
    ids: *mut u32,
    capacity: usize,
    n: *mut usize,
    error: *mut *mut carat_error,
) -> carat_status {
    guard(error, || {
        // SAFETY: the header's contract, here and below.
        unsafe { with(conversation, |talk| fill(talk.conversation.tokens(), ids, capacity, n)) }
    })
}

/// The system's text, as in carat_detokenize(); an empty one where there is none.
///
/// Ownership: all is borrowed.
/// Threads: any, one call at a time.
/// Errors: CARAT_BUFFER_TOO_SMALL, with `*len` written; CARAT_BUSY.
#[unsafe(no_mangle)]
pub unsafe extern "C" fn carat_conversation_system(
    conversation: *const carat_conversation,
    text: *mut c_char,
    capacity: usize,
    len: *mut usize,
    error: *mut *mut carat_error,
) -> carat_status {
    guard(error, || {
        // SAFETY: the header's contract, here and below.
        unsafe {
            with(conversation, |talk| {
                fill_text(talk.conversation.system().unwrap_or_default(), text, capacity, len)
            })
        }
    })
}

/// Changes the system's text (NULL for none). As it is part of the first turn, everything is processed again when the
/// conversation goes on.
///
/// Ownership: all is borrowed.
/// Threads: any, one call at a time.
/// Errors: CARAT_OUT_OF_MEMORY; CARAT_BUSY.
#[unsafe(no_mangle)]
pub unsafe extern "C" fn carat_conversation_set_system(
    conversation: *mut carat_conversation,
    text: *const c_char,
    text_len: usize,
    error: *mut *mut carat_error,
) -> carat_status {
    guard(error, || {
        // SAFETY: the header's contract, here and below.
        unsafe {
            let system = optional_text(text, text_len, "text")?;
            with(conversation, |talk| Ok(talk.conversation.set_system(system)?))
        }
    })
}

/// Forgets all turns, and keeps the system's text.
///
/// Threads: any, one call at a time.
/// Errors: CARAT_BUSY.
#[unsafe(no_mangle)]
pub unsafe extern "C" fn carat_conversation_reset(
    conversation: *mut carat_conversation,
    error: *mut *mut carat_error,
) -> carat_status {
    guard(error, || {
        // SAFETY: the header's contract, here and below.
        unsafe {
            with(conversation, |talk| {
                talk.conversation.reset();
                talk.dropped.clear();
                Ok(())
            })
        }
    })
}

/// Saves the conversation to a file, its turns, the system's text and its session: see carat_session_save().
///
/// Ownership: all is borrowed.
/// Threads: any, one call at a time.
/// Errors: as carat_session_save().
#[unsafe(no_mangle)]
pub unsafe extern "C" fn carat_conversation_save(
    conversation: *const carat_conversation,
    path: *const c_char,
    path_len: usize,
    cancel: *const carat_cancel,
    error: *mut *mut carat_error,
) -> carat_status {
    guard(error, || {
        // SAFETY: the header's contract, here and below.
        unsafe {
            let (path, cancel) = (super::path(path, path_len, "path")?, cancel::token(cancel));
            with(conversation, |talk| Ok(talk.conversation.save(path, cancel.as_ref())?))
        }
    })
}

/// Gives back memory that can be had again, as carat_session_trim() does. Snapshots stay.
///
/// Threads: any, one call at a time.
/// Errors: CARAT_BUSY.
#[unsafe(no_mangle)]
pub unsafe extern "C" fn carat_conversation_trim(
    conversation: *mut carat_conversation,
    error: *mut *mut carat_error,
) -> carat_status {
    guard(error, || {
        // SAFETY: the header's contract, here and below.
        unsafe {
            with(conversation, |talk| {
                talk.conversation.trim();
                Ok(())
            })
        }
    })
}
