//! Generating: options, and the callbacks for pieces and logits.

use std::ffi::c_void;

use jni_sys::{jfloatArray, jint, jintArray, jlongArray, jobject, jobjectArray, jvalue};

use crate::env::{Env, Outcome, Raise, bytes_of, call, init, jni};
use crate::ffi::*;
use crate::model::{pointer, token};
use crate::upcall::{Callbacks, Method};

/// The arguments of a native method that generates.
pub struct Arguments {
    /// `[ignore end, max tokens, top-k, penalty window, top log probs, has seed, seed, cancel token]`
    pub ints: jlongArray,
    /// `[temperature, top-p, min-p, repetition, presence, frequency penalty]`
    pub floats: jfloatArray,
    /// Logit bias: ids and what is added.
    pub bias_ids: jintArray,
    pub bias: jfloatArray,
    pub stop: jobjectArray,
    /// A `LogitsHook` or null.
    pub hook: jobject,
    /// A `PieceCall` or null.
    pub on_piece: jobject,
}

/// What the callbacks of a generation get.
struct Generation<'a> {
    callbacks: &'a Callbacks,
    on_piece: jobject,
    hook: jobject,
    /// The hook's array `[vocab]`, made at its first call.
    logits: std::cell::Cell<jfloatArray>,
}

/// Generates by one of carat.h's ways, and returns its summary: `[reason, stop index, prompt, reused, generated tokens,
/// prompt ns, generate ns, drafted, accepted tokens]`.
pub fn generate(
    env: Env,
    arguments: &Arguments,
    by: impl FnOnce(
        *const carat_generate_options,
        carat_piece_fn,
        *mut c_void,
        *mut carat_summary,
        *mut *mut carat_error,
    ) -> carat_status,
) -> Outcome<jlongArray> {
    let (ints, floats) = (env.longs(arguments.ints)?, env.floats(arguments.floats)?);
    let [ignore_end, max_tokens, top_k, penalty_window, top_log_probs, has_seed, seed, cancel] = ints[..]
    else {
        return Err(Raise::argument("8 whole options"));
    };
    let [temperature, top_p, min_p, repetition_penalty, presence_penalty, frequency_penalty] = floats[..]
    else {
        return Err(Raise::argument("6 options in fractions"));
    };
    let (ids, added) = (env.ids(arguments.bias_ids)?, env.floats(arguments.bias)?);
    let bias: Vec<carat_logit_bias> =
        std::iter::zip(ids, added).map(|(token, bias)| carat_logit_bias { token, bias }).collect();
    let stop = env.texts(arguments.stop)?;
    let stop: Vec<carat_text> =
        stop.iter().map(|s| carat_text { ptr: s.as_ptr().cast(), len: s.len() }).collect();

    let callbacks = Callbacks::new(env);
    let generation = Generation {
        callbacks: &callbacks,
        on_piece: arguments.on_piece,
        hook: arguments.hook,
        logits: std::cell::Cell::new(std::ptr::null_mut()),
    };
    let data = (&raw const generation).cast_mut().cast::<c_void>();

    let mut o = init(carat_generate_options_init);
    o.ignore_end = ignore_end as i32;
    o.max_tokens = max_tokens as u64;
    o.temperature = temperature;
    o.top_p = top_p;
    o.min_p = min_p;
    o.repetition_penalty = repetition_penalty;
    o.presence_penalty = presence_penalty;
    o.frequency_penalty = frequency_penalty;
    o.top_k = top_k as u32;
    o.penalty_window = penalty_window as u32;
    o.top_log_probs = top_log_probs as u32;
    o.has_seed = has_seed as i32;
    o.seed = seed as u64;
    o.logit_bias = pointer(&bias);
    o.n_logit_bias = bias.len();
    o.stop = pointer(&stop);
    o.n_stop = stop.len();
    o.cancel = token(cancel);
    if !arguments.hook.is_null() {
        o.hook = Some(on_logits);
        o.hook_data = data;
    }
    let piece: carat_piece_fn = if arguments.on_piece.is_null() { None } else { Some(on_piece) };
    let mut s = init(carat_summary_init);
    let outcome = call(|error| by(&o, piece, data, &mut s, error));
    callbacks.outcome(outcome)?;
    env.new_longs(&[
        s.reason.into(),
        s.stop_index as i64,
        s.prompt_tokens as i64,
        s.reused_tokens as i64,
        s.generated_tokens as i64,
        s.prompt_ns as i64,
        s.generate_ns as i64,
        s.drafted_tokens as i64,
        s.accepted_tokens as i64,
    ])
}

unsafe extern "C" fn on_piece(data: *mut c_void, piece: *const carat_piece) -> i32 {
    // SAFETY: it points to `generation` in generate(), during the call that is made there.
    let generation = unsafe { &*data.cast::<Generation>() };
    generation.callbacks.run(|env| {
        // SAFETY: valid during this call, with the library that this crate is linked with.
        let piece = unsafe { &*piece };
        // SAFETY: as above.
        let text = unsafe { bytes_of(piece.text, piece.text_len) };
        // Most tokens that have no text yet are spared a string.
        let text = if text.is_empty() { std::ptr::null_mut() } else { env.string(text)? };
        let (mut ids, mut log_probs) = (std::ptr::null_mut(), std::ptr::null_mut());
        if piece.n_top > 0 {
            // SAFETY: as above.
            let top = unsafe { std::slice::from_raw_parts(piece.top, piece.n_top) };
            ids = env.new_ids(&top.iter().map(|t| t.token).collect::<Vec<_>>())?;
            log_probs = env.new_floats(&top.iter().map(|t| t.log_prob).collect::<Vec<_>>())?;
        }
        let arguments = [
            jvalue { l: text },
            jvalue { i: piece.token as jint },
            jvalue { z: u8::from(piece.has_token != 0) },
            jvalue { f: piece.log_prob },
            jvalue { l: ids },
            jvalue { l: log_probs },
        ];
        let go_on = Callbacks::ask(env, generation.on_piece, Method::Piece, &arguments)?;
        for local in [text, ids, log_probs] {
            env.forget(local);
        }
        Ok(go_on)
    })
}

unsafe extern "C" fn on_logits(
    data: *mut c_void,
    tokens: *const u32,
    n_tokens: usize,
    logits: *mut f32,
    n_logits: usize,
) -> i32 {
    // SAFETY: it points to `generation` in generate(), during the call that is made there.
    let generation = unsafe { &*data.cast::<Generation>() };
    generation.callbacks.run(|env| {
        // SAFETY: both are valid during this call, and nobody else has the logits.
        let (tokens, logits) = unsafe {
            let tokens = if n_tokens == 0 { &[][..] } else { std::slice::from_raw_parts(tokens, n_tokens) };
            (tokens, std::slice::from_raw_parts_mut(logits, n_logits))
        };
        // A copy that the hook changes: it may keep the array, but never the engine's memory.
        if generation.logits.get().is_null() {
            generation.logits.set(env.new_floats(logits)?);
        } else {
            env.set_floats(generation.logits.get(), logits)?;
        }
        let ids = env.new_ids(tokens)?;
        let arguments = [jvalue { l: ids }, jvalue { l: generation.logits.get() }];
        let go_on = Callbacks::ask(env, generation.hook, Method::Hook, &arguments)?;
        env.forget(ids);
        jni!(env, GetFloatArrayRegion, generation.logits.get(), 0, Env::size(n_logits)?, logits.as_mut_ptr());
        env.check()?;
        Ok(go_on)
    })
}
