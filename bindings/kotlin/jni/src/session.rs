//! Sessions and logits.

use std::ffi::c_void;
use std::ptr::null_mut;

use jni_sys::{jfloatArray, jint, jintArray, jlong, jlongArray, jobject, jobjectArray, jstring, jvalue};

use crate::env::{Raise, buffer, call, filled};
use crate::ffi::*;
use crate::generate::{Arguments, generate};
use crate::model::{Handle, pointer, session_options, token};
use crate::native;
use crate::upcall::{Callbacks, Method};

/// # Safety
/// Kotlin's contract.
unsafe fn session(handle: jlong) -> *mut carat_session {
    // SAFETY: the caller's promise.
    unsafe { Handle::<carat_session>::get(handle) }.raw
}

native! {
    fn Java_ai_carat_Native_sessionNew(env, model: jlong, options: jlongArray) -> jlong {
        let o = session_options(env, options)?;
        // SAFETY: Kotlin's contract.
        let model = unsafe { Handle::<carat_model>::get(model) };
        let mut made = null_mut();
        // SAFETY: as above; options made by their _init function.
        call(|error| unsafe { carat_session_new(model.raw, &o, &mut made, error) })?;
        Ok(Handle::give(made, model.log.clone()))
    }
}

native! {
    fn Java_ai_carat_Native_sessionLoad(env, model: jlong, path: jstring, options: jlongArray, cancel: jlong) -> jlong {
        let path = env.name(path)?;
        let o = session_options(env, options)?;
        // SAFETY: Kotlin's contract.
        let model = unsafe { Handle::<carat_model>::get(model) };
        let mut made = null_mut();
        call(|error| {
            // SAFETY: as above; a text with its length.
            unsafe {
                carat_session_load(model.raw, path.as_ptr().cast(), path.len(), &o, token(cancel), &mut made, error)
            }
        })?;
        Ok(Handle::give(made, model.log.clone()))
    }
}

native! {
    fn Java_ai_carat_Native_sessionFork(_env, session: jlong) -> jlong {
        // SAFETY: Kotlin's contract.
        let session = unsafe { Handle::<carat_session>::get(session) };
        let mut made = null_mut();
        // SAFETY: as above.
        call(|error| unsafe { carat_session_fork(session.raw, &mut made, error) })?;
        Ok(Handle::give(made, session.log.clone()))
    }
}

native! {
    fn Java_ai_carat_Native_sessionFree(_env, session: jlong) {
        // SAFETY: Kotlin's contract.
        unsafe { Handle::<carat_session>::free(session, carat_session_free) };
        Ok(())
    }
}

native! {
    fn Java_ai_carat_Native_prefill(env, session: jlong, ids: jintArray, cancel: jlong) {
        let ids = env.ids(ids)?;
        call(|error| {
            // SAFETY: Kotlin's contract; ids with their number.
            unsafe { carat_session_prefill(self::session(session), pointer(&ids), ids.len(), token(cancel), error) }
        })
    }
}

struct Each<'a> {
    callbacks: &'a Callbacks,
    object: jobject,
}

unsafe extern "C" fn on_each(data: *mut c_void, index: usize, logits: *const f32, n_logits: usize) -> i32 {
    // SAFETY: it points to `each` in prefillEach, during the call that is made there.
    let each = unsafe { &*data.cast::<Each>() };
    each.callbacks.run(|env| {
        // SAFETY: valid during this call.
        let logits = env.new_floats(unsafe { std::slice::from_raw_parts(logits, n_logits) })?;
        let go_on = Callbacks::ask(
            env,
            each.object,
            Method::Each,
            &[jvalue { i: index as jint }, jvalue { l: logits }],
        )?;
        env.forget(logits);
        Ok(go_on)
    })
}

native! {
    fn Java_ai_carat_Native_prefillEach(env, session: jlong, ids: jintArray, cancel: jlong, each: jobject) {
        let ids = env.ids(ids)?;
        let callbacks = Callbacks::new(env);
        let each = Each { callbacks: &callbacks, object: each };
        let data = (&raw const each).cast_mut().cast();
        let outcome = call(|error| {
            // SAFETY: Kotlin's contract; ids with their number; `data` lives during the call.
            unsafe {
                let (session, ids, n) = (self::session(session), pointer(&ids), ids.len());
                carat_session_prefill_each(session, ids, n, token(cancel), Some(on_each), data, error)
            }
        });
        callbacks.outcome(outcome)
    }
}

native! {
    fn Java_ai_carat_Native_step(_env, session: jlong, id: jint, cancel: jlong) {
        // SAFETY: Kotlin's contract.
        call(|error| unsafe { carat_session_step(self::session(session), id as u32, token(cancel), error) })
    }
}

native! {
    fn Java_ai_carat_Native_sessionLogits(_env, session: jlong) -> jlong {
        let mut made = null_mut();
        // SAFETY: Kotlin's contract.
        call(|error| unsafe { carat_session_logits(self::session(session), &mut made, error) })?;
        Ok(made as jlong)
    }
}

/// # Safety
/// `handle` came from sessionLogits and is not freed during `'a`: Kotlin's contract.
unsafe fn logits<'a>(handle: jlong) -> &'a [f32] {
    let mut n = 0;
    // SAFETY: the caller's promise; the array lives as long as the handle.
    unsafe {
        let values = carat_logits_data(handle as *const carat_logits, &mut n);
        if values.is_null() { &[] } else { std::slice::from_raw_parts(values, n) }
    }
}

native! {
    fn Java_ai_carat_Native_logitsSize(_env, logits: jlong) -> jint {
        // SAFETY: Kotlin's contract.
        Ok(unsafe { self::logits(logits) }.len() as jint)
    }
}

native! {
    fn Java_ai_carat_Native_logitsCopy(env, logits: jlong, to: jfloatArray) {
        // SAFETY: Kotlin's contract.
        env.set_floats(to, unsafe { self::logits(logits) })
    }
}

native! {
    fn Java_ai_carat_Native_logitsGet(_env, logits: jlong, index: jint) -> f32 {
        // SAFETY: Kotlin's contract.
        let logits = unsafe { self::logits(logits) };
        let value = usize::try_from(index).ok().and_then(|i| logits.get(i));
        value.copied().ok_or_else(|| Raise::argument(format!("there are {} logits, none at {index}", logits.len())))
    }
}

native! {
    fn Java_ai_carat_Native_logitsFree(_env, logits: jlong) {
        // SAFETY: Kotlin's contract: once, and not again.
        unsafe { carat_logits_free(logits as *mut carat_logits) };
        Ok(())
    }
}

native! {
    fn Java_ai_carat_Native_score(
        env, session: jlong, ids: jintArray, from: jint, cancel: jlong,
        tokens: jintArray, log_probs: jfloatArray, ranks: jintArray
    ) -> jint {
        let ids = env.ids(ids)?;
        let from = usize::try_from(from).map_err(|_| Raise::argument("`from` is below 0"))?;
        let mut scores = Vec::<carat_token_score>::new();
        let room = buffer::<u8>(ids.len().saturating_sub(from) * size_of::<carat_token_score>())?.len()
            / size_of::<carat_token_score>();
        scores.resize(room, carat_token_score { token: 0, log_prob: 0.0, rank: 0 });
        let mut n = 0;
        call(|error| {
            // SAFETY: Kotlin's contract; ids with their number; a buffer with its capacity.
            unsafe {
                let (session, to) = (self::session(session), scores.as_mut_ptr());
                carat_session_score(session, pointer(&ids), ids.len(), from, token(cancel), to, room, &mut n, error)
            }
        })?;
        scores.truncate(n);
        env.set_ids(tokens, &scores.iter().map(|s| s.token).collect::<Vec<_>>())?;
        env.set_floats(log_probs, &scores.iter().map(|s| s.log_prob).collect::<Vec<_>>())?;
        env.set_ids(ranks, &scores.iter().map(|s| s.rank).collect::<Vec<_>>())?;
        Ok(n as jint)
    }
}

native! {
    fn Java_ai_carat_Native_sessionGenerate(
        env, session: jlong, prompt: jintArray, ints: jlongArray, floats: jfloatArray, bias_ids: jintArray,
        bias: jfloatArray, stop: jobjectArray, hook: jobject, on_piece: jobject
    ) -> jlongArray {
        let prompt = env.ids(prompt)?;
        let arguments = Arguments { ints, floats, bias_ids, bias, stop, hook, on_piece };
        generate(env, &arguments, |o, piece, data, summary, error| {
            // SAFETY: Kotlin's contract; ids with their number; the rest lives during the call.
            unsafe {
                let (session, n) = (self::session(session), prompt.len());
                carat_session_generate(session, pointer(&prompt), n, o, piece, data, summary, error)
            }
        })
    }
}

native! {
    fn Java_ai_carat_Native_truncate(_env, session: jlong, len: jlong) {
        let len = usize::try_from(len).map_err(|_| Raise::argument("a length below 0"))?;
        // SAFETY: Kotlin's contract.
        call(|error| unsafe { carat_session_truncate(self::session(session), len, error) })
    }
}

native! {
    fn Java_ai_carat_Native_sessionSave(env, session: jlong, path: jstring, cancel: jlong) {
        let path = env.name(path)?;
        call(|error| {
            // SAFETY: Kotlin's contract; a text with its length.
            unsafe {
                carat_session_save(self::session(session), path.as_ptr().cast(), path.len(), token(cancel), error)
            }
        })
    }
}

native! {
    fn Java_ai_carat_Native_sessionLen(env, session: jlong) -> jlongArray {
        let (mut len, mut context) = (0, 0);
        // SAFETY: Kotlin's contract.
        call(|error| unsafe { carat_session_len(self::session(session), &mut len, &mut context, error) })?;
        env.new_longs(&[len as i64, context as i64])
    }
}

native! {
    fn Java_ai_carat_Native_sessionTokens(env, session: jlong) -> jintArray {
        let ids = filled::<u32>(256, |to, room, n, error| {
            // SAFETY: Kotlin's contract; a buffer with its capacity.
            unsafe { carat_session_tokens(self::session(session), to, room, n, error) }
        })?;
        env.new_ids(&ids)
    }
}

native! {
    fn Java_ai_carat_Native_sessionTrim(_env, session: jlong) {
        // SAFETY: Kotlin's contract.
        call(|error| unsafe { carat_session_trim(self::session(session), error) })
    }
}
