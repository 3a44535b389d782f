//! Conversations.

use std::ptr::{null, null_mut};

use jni_sys::{jfloatArray, jint, jintArray, jlong, jlongArray, jobject, jobjectArray, jstring};

use crate::env::{Env, Outcome, Raise, call, filled};
use crate::ffi::*;
use crate::generate::{Arguments, generate};
use crate::model::{Handle, pointer, session_options, token};
use crate::native;
use crate::tokenizer::Turns;

/// # Safety
/// Kotlin's contract.
unsafe fn conversation(handle: jlong) -> *mut carat_conversation {
    // SAFETY: the caller's promise.
    unsafe { Handle::<carat_conversation>::get(handle) }.raw
}

native! {
    fn Java_ai_carat_Native_conversationNew(env, session: jlong, system: jstring) -> jlong {
        let system = env.text_if_any(system)?;
        let (text, len) = system.as_ref().map_or((null(), 0), |s| (s.as_ptr().cast(), s.len()));
        // SAFETY: Kotlin's contract.
        let session = unsafe { Handle::<carat_session>::get(session) };
        let mut made = null_mut();
        // SAFETY: as above; a text with its length.
        call(|error| unsafe { carat_conversation_new(session.raw, text, len, &mut made, error) })?;
        Ok(Handle::give(made, session.log.clone()))
    }
}

native! {
    fn Java_ai_carat_Native_conversationResume(_env, session: jlong) -> jlong {
        // SAFETY: Kotlin's contract.
        let session = unsafe { Handle::<carat_session>::get(session) };
        let mut made = null_mut();
        // SAFETY: as above.
        call(|error| unsafe { carat_conversation_resume(session.raw, &mut made, error) })?;
        Ok(Handle::give(made, session.log.clone()))
    }
}

native! {
    fn Java_ai_carat_Native_conversationLoad(
        env, model: jlong, path: jstring, options: jlongArray, cancel: jlong
    ) -> jlong {
        let path = env.name(path)?;
        let o = session_options(env, options)?;
        // SAFETY: Kotlin's contract.
        let model = unsafe { Handle::<carat_model>::get(model) };
        let mut made = null_mut();
        call(|error| {
            // SAFETY: as above; a text with its length.
            unsafe {
                let (path, len) = (path.as_ptr().cast(), path.len());
                carat_conversation_load(model.raw, path, len, &o, token(cancel), &mut made, error)
            }
        })?;
        Ok(Handle::give(made, model.log.clone()))
    }
}

native! {
    fn Java_ai_carat_Native_conversationIntoSession(_env, conversation: jlong) -> jlong {
        // SAFETY: Kotlin's contract.
        let conversation = unsafe { Handle::<carat_conversation>::get(conversation) };
        let mut made = null_mut();
        // SAFETY: as above.
        call(|error| unsafe { carat_conversation_into_session(conversation.raw, &mut made, error) })?;
        Ok(Handle::give(made, conversation.log.clone()))
    }
}

native! {
    fn Java_ai_carat_Native_conversationFree(_env, conversation: jlong) {
        // SAFETY: Kotlin's contract.
        unsafe { Handle::<carat_conversation>::free(conversation, carat_conversation_free) };
        Ok(())
    }
}

native! {
    fn Java_ai_carat_Native_send(
        env, conversation: jlong, text: jstring, ints: jlongArray, floats: jfloatArray, bias_ids: jintArray,
        bias: jfloatArray, stop: jobjectArray, on_piece: jobject
    ) -> jlongArray {
        let text = env.text(text)?;
        let arguments = Arguments { ints, floats, bias_ids, bias, stop, hook: null_mut(), on_piece };
        generate(env, &arguments, |o, piece, data, summary, error| {
            // SAFETY: Kotlin's contract; a text with its length; the rest lives during the call.
            unsafe {
                let (it, text, len) = (self::conversation(conversation), text.as_ptr().cast(), text.len());
                carat_conversation_send(it, text, len, o, piece, data, summary, error)
            }
        })
    }
}

native! {
    fn Java_ai_carat_Native_regenerate(
        env, conversation: jlong, ints: jlongArray, floats: jfloatArray, bias_ids: jintArray, bias: jfloatArray,
        stop: jobjectArray, on_piece: jobject
    ) -> jlongArray {
        let arguments = Arguments { ints, floats, bias_ids, bias, stop, hook: null_mut(), on_piece };
        generate(env, &arguments, |o, piece, data, summary, error| {
            // SAFETY: Kotlin's contract; the rest lives during the call.
            unsafe { carat_conversation_regenerate(self::conversation(conversation), o, piece, data, summary, error) }
        })
    }
}

native! {
    fn Java_ai_carat_Native_editLast(
        env, conversation: jlong, text: jstring, ints: jlongArray, floats: jfloatArray, bias_ids: jintArray,
        bias: jfloatArray, stop: jobjectArray, on_piece: jobject
    ) -> jlongArray {
        let text = env.text(text)?;
        let arguments = Arguments { ints, floats, bias_ids, bias, stop, hook: null_mut(), on_piece };
        generate(env, &arguments, |o, piece, data, summary, error| {
            // SAFETY: as in send.
            unsafe {
                let (it, text, len) = (self::conversation(conversation), text.as_ptr().cast(), text.len());
                carat_conversation_edit_last(it, text, len, o, piece, data, summary, error)
            }
        })
    }
}

native! {
    fn Java_ai_carat_Native_respond(
        env, conversation: jlong, roles: jintArray, texts: jobjectArray, ints: jlongArray, floats: jfloatArray,
        bias_ids: jintArray, bias: jfloatArray, stop: jobjectArray, on_piece: jobject
    ) -> jlongArray {
        let held = Turns::new(env, roles, texts)?;
        let arguments = Arguments { ints, floats, bias_ids, bias, stop, hook: null_mut(), on_piece };
        generate(env, &arguments, |o, piece, data, summary, error| {
            // SAFETY: Kotlin's contract; turns with their number, whose texts live; the rest lives during the call.
            unsafe {
                let (it, turns, n) = (self::conversation(conversation), pointer(&held.turns), held.turns.len());
                carat_conversation_respond(it, turns, n, o, piece, data, summary, error)
            }
        })
    }
}

native! {
    fn Java_ai_carat_Native_setPolicy(_env, conversation: jlong, policy: jint) {
        // SAFETY: Kotlin's contract.
        call(|error| unsafe { carat_conversation_set_policy(self::conversation(conversation), policy, error) })
    }
}

native! {
    fn Java_ai_carat_Native_nTurns(_env, conversation: jlong) -> jint {
        let mut n = 0;
        // SAFETY: Kotlin's contract.
        call(|error| unsafe { carat_conversation_n_turns(self::conversation(conversation), &mut n, error) })?;
        Ok(n as jint)
    }
}

type TurnAt = unsafe extern "C" fn(
    *const carat_conversation,
    usize,
    *mut i32,
    *mut std::ffi::c_char,
    usize,
    *mut usize,
    *mut *mut carat_error,
) -> carat_status;

/// A turn by its index: its text, and its role to `role[0]`.
fn turn_at(env: Env, conversation: jlong, index: jint, role: jintArray, one: TurnAt) -> Outcome<jstring> {
    let index = usize::try_from(index).map_err(|_| Raise::argument("an index below 0"))?;
    let mut says = 0;
    let text = filled::<u8>(1024, |to, room, n, error| {
        // SAFETY: Kotlin's contract; a buffer with its capacity.
        unsafe { one(self::conversation(conversation), index, &mut says, to.cast(), room, n, error) }
    })?;
    env.set_ints(role, &[says])?;
    env.string(&text)
}

native! {
    fn Java_ai_carat_Native_turn(env, conversation: jlong, index: jint, role: jintArray) -> jstring {
        turn_at(env, conversation, index, role, carat_conversation_turn)
    }
}

native! {
    /// As `turn`; null at the end.
    fn Java_ai_carat_Native_dropped(env, conversation: jlong, index: jint, role: jintArray) -> jstring {
        match turn_at(env, conversation, index, role, carat_conversation_dropped) {
            Err(Raise::Failed { status: CARAT_INVALID_ARGUMENT, .. }) => Ok(null_mut()),
            outcome => outcome,
        }
    }
}

native! {
    fn Java_ai_carat_Native_conversationTokens(env, conversation: jlong) -> jintArray {
        let ids = filled::<u32>(256, |to, room, n, error| {
            // SAFETY: Kotlin's contract; a buffer with its capacity.
            unsafe { carat_conversation_tokens(self::conversation(conversation), to, room, n, error) }
        })?;
        env.new_ids(&ids)
    }
}

native! {
    fn Java_ai_carat_Native_system(env, conversation: jlong) -> jstring {
        let text = filled::<u8>(1024, |to, room, n, error| {
            // SAFETY: Kotlin's contract; a buffer with its capacity.
            unsafe { carat_conversation_system(self::conversation(conversation), to.cast(), room, n, error) }
        })?;
        env.string(&text)
    }
}

native! {
    fn Java_ai_carat_Native_setSystem(env, conversation: jlong, text: jstring) {
        let text = env.text_if_any(text)?;
        let (text, len) = text.as_ref().map_or((null(), 0), |s| (s.as_ptr().cast(), s.len()));
        // SAFETY: Kotlin's contract; a text with its length.
        call(|error| unsafe { carat_conversation_set_system(self::conversation(conversation), text, len, error) })
    }
}

native! {
    fn Java_ai_carat_Native_reset(_env, conversation: jlong) {
        // SAFETY: Kotlin's contract.
        call(|error| unsafe { carat_conversation_reset(self::conversation(conversation), error) })
    }
}

native! {
    fn Java_ai_carat_Native_conversationSave(env, conversation: jlong, path: jstring, cancel: jlong) {
        let path = env.name(path)?;
        call(|error| {
            // SAFETY: Kotlin's contract; a text with its length.
            unsafe {
                let (it, path, len) = (self::conversation(conversation), path.as_ptr().cast(), path.len());
                carat_conversation_save(it, path, len, token(cancel), error)
            }
        })
    }
}

native! {
    fn Java_ai_carat_Native_conversationTrim(_env, conversation: jlong) {
        // SAFETY: Kotlin's contract.
        call(|error| unsafe { carat_conversation_trim(self::conversation(conversation), error) })
    }
}
