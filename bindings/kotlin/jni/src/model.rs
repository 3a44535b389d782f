//! Cancel tokens; models: opening, planning, what is in the file.

use std::ptr::{null, null_mut};
use std::sync::Arc;

use jni_sys::{jboolean, jint, jlong, jlongArray, jobject, jobjectArray, jstring, jvalue};

use crate::env::{Env, Outcome, Raise, bytes_of, call, filled, init, jni};
use crate::ffi::*;
use crate::native;
use crate::upcall::{self, Callbacks, Global, Method};

/// A handle of carat.h with what must live as long: behind each `long` but those of cancel tokens and logits.
pub struct Handle<T> {
    pub raw: *mut T,
    /// What takes the model's messages, for as long as something may send one.
    pub log: Option<Arc<Global>>,
}

impl<T> Handle<T> {
    /// Hands it to the Kotlin side.
    pub fn give(raw: *mut T, log: Option<Arc<Global>>) -> jlong {
        Box::into_raw(Box::new(Handle { raw, log })) as jlong
    }

    /// # Safety
    /// `handle` came from [`Handle::give`] and is not freed during `'a`: Kotlin's contract.
    pub unsafe fn get<'a>(handle: jlong) -> &'a Handle<T> {
        // SAFETY: the caller's promise.
        unsafe { &*(handle as *const Handle<T>) }
    }

    /// Frees it, the C handle first.
    ///
    /// # Safety
    /// As [`Handle::get`], and it is not used again.
    pub unsafe fn free(handle: jlong, f: unsafe extern "C" fn(*mut T)) {
        // SAFETY: the caller's promise.
        unsafe {
            let handle = Box::from_raw(handle as *mut Handle<T>);
            f(handle.raw);
        }
    }
}

/// A cancel token that Kotlin handed in; 0 is none.
pub fn token(handle: jlong) -> *const carat_cancel {
    handle as *const carat_cancel
}

native! {
    fn Java_ai_carat_Native_cancelNew(_env) -> jlong {
        // SAFETY: takes nothing.
        let made = unsafe { carat_cancel_new() };
        if made.is_null() { Err(no_memory()) } else { Ok(made as jlong) }
    }
}

native! {
    fn Java_ai_carat_Native_cancelClone(_env, handle: jlong) -> jlong {
        // SAFETY: Kotlin's contract.
        let made = unsafe { carat_cancel_clone(token(handle)) };
        if made.is_null() { Err(no_memory()) } else { Ok(made as jlong) }
    }
}

fn no_memory() -> Raise {
    Raise::Failed {
        status: CARAT_OUT_OF_MEMORY,
        kind: CARAT_KIND_RUNTIME,
        nearest: 0,
        message: "no memory for a cancel token".into(),
    }
}

native! {
    fn Java_ai_carat_Native_cancelSet(_env, handle: jlong) {
        // SAFETY: Kotlin's contract.
        unsafe { carat_cancel_set(token(handle)) };
        Ok(())
    }
}

native! {
    fn Java_ai_carat_Native_cancelIsSet(_env, handle: jlong) -> jboolean {
        // SAFETY: Kotlin's contract.
        Ok(jboolean::from(unsafe { carat_cancel_is_set(token(handle)) } != 0))
    }
}

native! {
    fn Java_ai_carat_Native_cancelFree(_env, handle: jlong) {
        // SAFETY: Kotlin's contract: once, and not again.
        unsafe { carat_cancel_free(token(handle).cast_mut()) };
        Ok(())
    }
}

/// Opens a model by one of carat.h's three ways. `options` is `[threads, isa, private copy, preload, engine, lock, cancel
/// token]`.
fn open(
    env: Env,
    options: jlongArray,
    progress: jobject,
    log: jobject,
    by: impl FnOnce(*const carat_model_options, *mut *mut carat_model, *mut *mut carat_error) -> carat_status,
) -> Outcome<jlong> {
    let given = env.longs(options)?;
    let [threads, isa, private_copy, preload, engine, lock, cancel] = given[..] else {
        return Err(Raise::argument("a model has 7 options"));
    };
    let log = if log.is_null() { None } else { Some(Arc::new(Global::new(env, log)?)) };
    let callbacks = Callbacks::new(env);
    let reporting = Reporting { callbacks: &callbacks, object: progress };

    let mut o = init(carat_model_options_init);
    o.threads = threads as i32;
    o.isa = isa as i32;
    o.private_copy = private_copy as i32;
    o.preload = preload as i32;
    o.tokenizer_engine = engine as i32;
    o.lock = lock as i32;
    o.cancel = token(cancel);
    if !progress.is_null() {
        o.progress = Some(report);
        o.progress_data = (&raw const reporting).cast_mut().cast();
    }
    if let Some(log) = &log {
        o.log = Some(upcall::log);
        o.log_data = Arc::as_ptr(log).cast_mut().cast();
    }
    let mut model = null_mut();
    let outcome = call(|error| by(&o, &mut model, error));
    match callbacks.outcome(outcome) {
        Ok(()) => Ok(Handle::give(model, log)),
        Err(raise) => {
            // Where the last report threw, the model may be open all the same.
            // SAFETY: NULL, or made above and handed to nobody.
            unsafe { carat_model_free(model) };
            Err(raise)
        }
    }
}

struct Reporting<'a> {
    callbacks: &'a Callbacks,
    object: jobject,
}

unsafe extern "C" fn report(data: *mut std::ffi::c_void, done: u64, total: u64) -> i32 {
    // SAFETY: it points to `reporting` in open(), during the call that is made there.
    let reporting = unsafe { &*data.cast::<Reporting>() };
    reporting.callbacks.run(|env| {
        let arguments = [jvalue { j: done as jlong }, jvalue { j: total as jlong }];
        Callbacks::ask(env, reporting.object, Method::Progress, &arguments)
    })
}

native! {
    fn Java_ai_carat_Native_modelOpen(env, path: jstring, options: jlongArray, progress: jobject, log: jobject) -> jlong {
        let path = env.name(path)?;
        open(env, options, progress, log, |o, out, error| {
            // SAFETY: a text with its length; options and places that live during the call.
            unsafe { carat_model_open(path.as_ptr().cast(), path.len(), o, out, error) }
        })
    }
}

native! {
    fn Java_ai_carat_Native_modelOpenFd(
        env, fd: jint, offset: jlong, len: jlong, options: jlongArray, progress: jobject, log: jobject
    ) -> jlong {
        open(env, options, progress, log, |o, out, error| {
            // SAFETY: as in modelOpen; any number is a descriptor or an error. −1 for the length is the header's "all".
            unsafe { carat_model_open_fd(fd, offset as u64, len as u64, o, out, error) }
        })
    }
}

native! {
    fn Java_ai_carat_Native_modelOpenBytes(
        env, buffer: jobject, offset: jlong, len: jlong, options: jlongArray, progress: jobject, log: jobject
    ) -> jlong {
        let start = jni!(env, GetDirectBufferAddress, buffer).cast::<u8>();
        let capacity = jni!(env, GetDirectBufferCapacity, buffer);
        let within = offset >= 0 && len >= 0 && offset.checked_add(len).is_some_and(|end| end <= capacity);
        if start.is_null() || !within {
            return Err(Raise::argument("the buffer is not direct, or the range not within it"));
        }
        let lent = Box::new(Global::new(env, buffer)?);
        open(env, options, progress, log, |o, out, error| {
            let lent = Box::into_raw(lent).cast();
            // SAFETY: the range lies within the buffer, which `lent` keeps until carat gives it back, once, also where
            // this fails.
            unsafe {
                let bytes = start.add(offset as usize);
                carat_model_open_bytes(bytes, len as usize, Some(upcall::release), lent, o, out, error)
            }
        })
    }
}

native! {
    fn Java_ai_carat_Native_modelFree(_env, model: jlong) {
        // SAFETY: Kotlin's contract.
        unsafe { Handle::<carat_model>::free(model, carat_model_free) };
        Ok(())
    }
}

/// # Safety
/// Kotlin's contract.
pub unsafe fn model(handle: jlong) -> *const carat_model {
    // SAFETY: the caller's promise.
    unsafe { Handle::<carat_model>::get(handle) }.raw
}

native! {
    fn Java_ai_carat_Native_modelInfo(env, model: jlong) -> jlongArray {
        let mut i = init(carat_model_info_init);
        // SAFETY: Kotlin's contract; a struct made by its _init function.
        call(|error| unsafe { carat_model_get_info(self::model(model), &mut i, error) })?;
        env.new_longs(&[
            i.arch.into(), i.isa.into(), i.threads.into(), i.n_layers.into(), i.d_model.into(), i.d_ff.into(),
            i.n_heads.into(), i.n_kv_heads.into(), i.head_dim.into(), i.vocab.into(), i.sliding_window.into(),
            i.memory_lock.into(), i.context_length as i64, i.file_bytes as i64, i.n_tensors as i64,
        ])
    }
}

native! {
    fn Java_ai_carat_Native_modelMetadata(env, model: jlong, key: jstring) -> jstring {
        let key = env.name(key)?;
        let text = filled::<u8>(256, |to, room, n, error| {
            // SAFETY: Kotlin's contract; a text with its length; a buffer with its capacity.
            unsafe { carat_model_metadata(self::model(model), key.as_ptr().cast(), key.len(), to.cast(), room, n, error) }
        })?;
        env.string(&text)
    }
}

native! {
    fn Java_ai_carat_Native_modelTensor(env, model: jlong, index: jlong, names: jobjectArray) -> jlongArray {
        let mut t = init(carat_tensor_info_init);
        // SAFETY: Kotlin's contract; a struct made by its _init function.
        call(|error| unsafe { carat_model_tensor(self::model(model), index as u64, &mut t, error) })?;
        // SAFETY: they live as long as the model.
        let (name, kind) = unsafe { (bytes_of(t.name, t.name_len), bytes_of(t.type_name, t.type_name_len)) };
        for (i, text) in [name, kind].into_iter().enumerate() {
            let string = env.string(text)?;
            jni!(env, SetObjectArrayElement, names, i as i32, string);
            env.check()?;
        }
        let mut values = vec![t.offset as i64, t.size as i64];
        values.extend(t.dims.iter().take(t.n_dims as usize).map(|d| *d as i64));
        env.new_longs(&values)
    }
}

/// `[context, batch, kv, snapshots, exact, full history, draft]`
pub fn session_options(env: Env, options: jlongArray) -> Outcome<carat_session_options> {
    let given = env.longs(options)?;
    let [context, batch, kv, snapshots, exact, full_history, draft] = given[..] else {
        return Err(Raise::argument("a session has 7 options"));
    };
    let mut o = init(carat_session_options_init);
    o.context = context as u64;
    o.batch = batch as u32;
    o.kv = kv as i32;
    o.snapshots = snapshots as u32;
    o.exact = exact as i32;
    o.full_history = full_history as i32;
    o.draft = draft as u32;
    Ok(o)
}

fn plan(
    env: Env,
    by: impl FnOnce(*mut carat_plan, *mut *mut carat_error) -> carat_status,
) -> Outcome<jlongArray> {
    let mut p = init(carat_plan_init);
    call(|error| by(&mut p, error))?;
    let available = if p.has_available != 0 { p.available as i64 } else { -1 };
    env.new_longs(&[
        p.file as i64,
        p.kv_cache as i64,
        p.scratch as i64,
        p.snapshots as i64,
        p.tokenizer as i64,
        p.other as i64,
        p.total as i64,
        p.score as i64,
        available,
    ])
}

native! {
    fn Java_ai_carat_Native_modelPlan(env, path: jstring, threads: jint, options: jlongArray) -> jlongArray {
        let path = env.name(path)?;
        let o = session_options(env, options)?;
        plan(env, |p, error| {
            // SAFETY: a text with its length; structs made by their _init functions.
            unsafe { carat_model_plan(path.as_ptr().cast(), path.len(), threads, &o, p, error) }
        })
    }
}

native! {
    fn Java_ai_carat_Native_modelPlanSession(env, model: jlong, options: jlongArray) -> jlongArray {
        let o = session_options(env, options)?;
        plan(env, |p, error| {
            // SAFETY: Kotlin's contract; structs made by their _init functions.
            unsafe { carat_model_plan_session(self::model(model), &o, p, error) }
        })
    }
}

/// The defaults of carat.h's options, for the tests to hold Kotlin's against.
#[rustfmt::skip]
fn defaults() -> Vec<f64> {
    let m = init(carat_model_options_init);
    let s = init(carat_session_options_init);
    let t = init(carat_tokenize_options_init);
    let g = init(carat_generate_options_init);
    vec![
        m.threads.into(), m.isa.into(), m.private_copy.into(), m.preload.into(), m.tokenizer_engine.into(), m.lock.into(),
        s.context as f64, s.batch.into(), s.kv.into(), s.snapshots.into(), s.exact.into(), s.full_history.into(),
        s.draft.into(),
        t.special.into(), t.bos.into(),
        g.ignore_end.into(), g.max_tokens as i64 as f64, g.temperature.into(), g.top_p.into(), g.min_p.into(),
        g.repetition_penalty.into(), g.presence_penalty.into(), g.frequency_penalty.into(), g.top_k.into(),
        g.penalty_window.into(), g.top_log_probs.into(), g.has_seed.into(),
    ]
}

native! {
    fn Java_ai_carat_Native_defaults(env) -> jni_sys::jdoubleArray {
        env.new_doubles(&defaults())
    }
}

/// `NULL`, or the first of some values.
pub fn pointer<T>(values: &[T]) -> *const T {
    if values.is_empty() { null() } else { values.as_ptr() }
}
