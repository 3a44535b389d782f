//! Calls into the JVM: exceptions that are thrown from here, and callbacks.

use std::cell::Cell;
use std::ffi::{CStr, c_void};
use std::ptr::null_mut;
use std::sync::OnceLock;

use jni_sys::{
    JNI_ERR, JNI_OK, JNI_TRUE, JNI_VERSION_1_6, JavaVM, jclass, jint, jmethodID, jobject, jthrowable, jvalue,
};

use crate::env::{Env, Outcome, Raise, enter, jni};
use crate::ffi;

/// What is called from here: found once, when the library is loaded, by the class loader that loads it.
struct Classes {
    vm: *mut JavaVM,
    /// Held by global references, so that the methods stay.
    exception: jclass,
    make_exception: jmethodID,
    piece: jmethodID,
    hook: jmethodID,
    each: jmethodID,
    progress: jmethodID,
    log: jmethodID,
}

// SAFETY: global references, method ids and the JVM itself may be used from any thread.
unsafe impl Send for Classes {}
// SAFETY: as above; nothing changes after it was made.
unsafe impl Sync for Classes {}

static CLASSES: OnceLock<Classes> = OnceLock::new();

fn classes() -> &'static Classes {
    CLASSES.get().expect("JNI_OnLoad ran before any native method")
}

/// # Safety
/// `vm` is the JVM's.
pub unsafe fn load(vm: *mut JavaVM) -> jint {
    let mut env = null_mut();
    // SAFETY: the JVM's table is complete, and this thread is one of its own.
    let got = unsafe { ((**vm).GetEnv.expect("the JNI table is complete"))(vm, &mut env, JNI_VERSION_1_6) };
    if got != JNI_OK {
        return JNI_ERR;
    }
    // SAFETY: it is the environment of this thread. A failure leaves an exception, which loading then throws.
    unsafe { enter(env.cast(), |env| find(env, vm).map(|found| i32::from(CLASSES.set(found).is_ok()))) };
    // SAFETY: as above.
    if unsafe { Env::new(env.cast()) }.check().is_ok() { JNI_VERSION_1_6 } else { JNI_ERR }
}

fn find(env: Env, vm: *mut JavaVM) -> Outcome<Classes> {
    let class = |name: &CStr| -> Outcome<jclass> {
        let local = jni!(env, FindClass, name.as_ptr());
        env.check()?;
        let global = jni!(env, NewGlobalRef, local);
        env.forget(local);
        if global.is_null() { Err(Raise::Pending) } else { Ok(global) }
    };
    let method = |of: &CStr, name: &CStr, signature: &CStr| -> Outcome<jmethodID> {
        let id = jni!(env, GetMethodID, class(of)?, name.as_ptr(), signature.as_ptr());
        env.check()?;
        Ok(id)
    };
    let exception = class(c"ai/carat/CaratException")?;
    let make_exception = jni!(
        env,
        GetStaticMethodID,
        exception,
        c"make".as_ptr(),
        c"(ILjava/lang/String;IJLjava/lang/String;)Lai/carat/CaratException;".as_ptr()
    );
    env.check()?;
    Ok(Classes {
        vm,
        exception,
        make_exception,
        piece: method(c"ai/carat/PieceCall", c"piece", c"(Ljava/lang/String;IZF[I[F)Z")?,
        hook: method(c"ai/carat/LogitsHook", c"apply", c"([I[F)Z")?,
        each: method(c"ai/carat/EachLogits", c"take", c"(I[F)Z")?,
        progress: method(c"ai/carat/Progress", c"report", c"(JJ)Z")?,
        log: method(c"ai/carat/LogCall", c"log", c"(ILjava/lang/String;)V")?,
    })
}

/// Throws.
pub fn raise(env: Env, raise: Raise) {
    let (status, kind, nearest, message) = match raise {
        Raise::Pending => return,
        Raise::Thrown(exception) => {
            jni!(env, Throw, exception);
            return;
        }
        Raise::Failed { status, kind, nearest, message } => (status, kind, nearest, message),
    };
    // SAFETY: static text, ended by a NUL.
    let name = unsafe { CStr::from_ptr(ffi::carat_status_name(status)) };
    let (Ok(name), Ok(message)) = (env.string(name.to_bytes()), env.string(message.as_bytes())) else {
        return; // no memory: the JVM has thrown that
    };
    let arguments = [
        jvalue { i: status },
        jvalue { l: name },
        jvalue { i: kind },
        jvalue { j: i64::try_from(nearest).unwrap_or(i64::MAX) },
        jvalue { l: message },
    ];
    let Classes { exception, make_exception, .. } = *classes();
    let made = jni!(env, CallStaticObjectMethodA, exception, make_exception, arguments.as_ptr());
    if env.check().is_ok() {
        jni!(env, Throw, made);
    }
}

/// The callbacks of one call: what one of them throws is kept, and no other is made after it.
pub struct Callbacks {
    env: Env,
    thrown: Cell<jthrowable>,
}

/// Which method of a callback's interface.
#[derive(Clone, Copy)]
pub enum Method {
    Piece,
    Hook,
    Each,
    Progress,
}

impl Callbacks {
    pub fn new(env: Env) -> Callbacks {
        Callbacks { env, thrown: Cell::new(null_mut()) }
    }

    /// Runs a callback, which says whether to go on. What it throws, or fails with, stops the call.
    pub fn run(&self, body: impl FnOnce(Env) -> Outcome<bool>) -> i32 {
        if !self.thrown.get().is_null() {
            return 0;
        }
        let env = self.env;
        // A panic must not unwind into the engine, and one here is a bug that the caller should hear of.
        let outcome = std::panic::catch_unwind(std::panic::AssertUnwindSafe(|| body(env)));
        let outcome = outcome.unwrap_or_else(|panic| {
            std::mem::forget(panic);
            Err(Raise::argument("a panic in a callback"))
        });
        match outcome {
            Ok(go_on) => return i32::from(go_on),
            Err(failed) => raise(env, failed),
        }
        // Nothing may be called while an exception is pending.
        self.thrown.set(jni!(env, ExceptionOccurred));
        jni!(env, ExceptionClear);
        0
    }

    /// Calls a method of a callback object, which says whether to go on.
    pub fn ask(env: Env, object: jobject, method: Method, arguments: &[jvalue]) -> Outcome<bool> {
        let all = classes();
        let id = match method {
            Method::Piece => all.piece,
            Method::Hook => all.hook,
            Method::Each => all.each,
            Method::Progress => all.progress,
        };
        let go_on = jni!(env, CallBooleanMethodA, object, id, arguments.as_ptr());
        env.check()?;
        Ok(go_on == JNI_TRUE)
    }

    /// What the engine's call came to, unless a callback threw.
    pub fn outcome<T>(&self, outcome: Outcome<T>) -> Outcome<T> {
        match self.thrown.get() {
            thrown if thrown.is_null() => outcome,
            thrown => Err(Raise::Thrown(thrown)),
        }
    }
}

/// An object of the JVM that is held beyond a call, and may be let go in any thread.
pub struct Global(jobject);

// SAFETY: a global reference may be used and deleted in any thread.
unsafe impl Send for Global {}
// SAFETY: as above.
unsafe impl Sync for Global {}

impl Global {
    pub fn new(env: Env, object: jobject) -> Outcome<Global> {
        let global = jni!(env, NewGlobalRef, object);
        if global.is_null() { Err(Raise::Pending) } else { Ok(Global(global)) }
    }
}

impl Drop for Global {
    fn drop(&mut self) {
        with_env(|env| jni!(env, DeleteGlobalRef, self.0));
    }
}

/// Runs something in a thread that may be none of the JVM's: it is one for the time being. A thread that the JVM does
/// not get may only leak.
fn with_env(f: impl FnOnce(Env)) {
    let vm = classes().vm;
    let mut env = null_mut();
    // SAFETY: the JVM lives as long as the process, and its table is complete. A thread that was attached here is
    // detached again: Android ends a process whose attached threads end.
    unsafe {
        let table = &**vm;
        if table.GetEnv.expect("the JNI table is complete")(vm, &mut env, JNI_VERSION_1_6) == JNI_OK {
            f(Env::new(env.cast()));
        } else if table.AttachCurrentThreadAsDaemon.expect("the JNI table is complete")(
            vm,
            &mut env,
            null_mut(),
        ) == JNI_OK
        {
            f(Env::new(env.cast()));
            table.DetachCurrentThread.expect("the JNI table is complete")(vm);
        }
    }
}

/// Takes the log messages of a model; what the callback throws is dropped, as there may be nobody to catch it.
///
/// # Safety
/// `data` is a `Global` that lives, `text` valid for reads of `len` bytes.
pub unsafe extern "C" fn log(data: *mut c_void, level: i32, text: *const std::ffi::c_char, len: usize) {
    let _ = std::panic::catch_unwind(|| {
        // SAFETY: the caller's promise.
        let (object, message) = unsafe { (&*data.cast::<Global>(), crate::env::bytes_of(text, len)) };
        with_env(|env| {
            if env.check().is_err() {
                return;
            }
            if let Ok(message) = env.string(message) {
                let arguments = [jvalue { i: level }, jvalue { l: message }];
                jni!(env, CallVoidMethodA, object.0, classes().log, arguments.as_ptr());
                jni!(env, ExceptionClear);
                env.forget(message);
            } else {
                jni!(env, ExceptionClear);
            }
        });
    });
}

/// Gives back the buffer that was lent to `carat_model_open_bytes`.
///
/// # Safety
/// `data` is a `Box<Global>` that was given up for this.
pub unsafe extern "C" fn release(data: *mut c_void) {
    let _ = std::panic::catch_unwind(|| {
        // SAFETY: the caller's promise; it is called once.
        drop(unsafe { Box::from_raw(data.cast::<Global>()) });
    });
}
