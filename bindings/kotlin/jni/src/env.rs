//! The JVM's environment of a thread: strings, arrays, exceptions.

use std::ffi::CStr;
use std::panic::{AssertUnwindSafe, catch_unwind};
use std::ptr::null_mut;

use jni_sys::{
    JNI_TRUE, JNIEnv, jarray, jboolean, jbyteArray, jdoubleArray, jfloatArray, jintArray, jlong, jlongArray,
    jobject, jobjectArray, jsize, jstring, jthrowable,
};

use crate::{ffi, text, upcall};

/// Why a native method ends early. Whichever it is, an exception is pending when the method has returned.
pub enum Raise {
    /// The JVM has thrown one already.
    Pending,
    /// What a callback threw, a local reference.
    Thrown(jthrowable),
    /// A failure, to be thrown as a `CaratException`.
    Failed {
        /// A CARAT_* of the header.
        status: i32,
        /// CARAT_KIND_*
        kind: i32,
        /// Of a CARAT_REWIND.
        nearest: u64,
        /// For a person.
        message: String,
    },
}

pub type Outcome<T = ()> = Result<T, Raise>;

impl Raise {
    pub fn argument(message: impl Into<String>) -> Raise {
        Raise::Failed {
            status: ffi::CARAT_INVALID_ARGUMENT,
            kind: ffi::CARAT_KIND_USAGE,
            nearest: 0,
            message: message.into(),
        }
    }

    fn internal(message: String) -> Raise {
        Raise::Failed { status: ffi::CARAT_INTERNAL, kind: ffi::CARAT_KIND_RUNTIME, nearest: 0, message }
    }
}

/// What the JVM ignores of a method's result when an exception is pending, but must be something.
pub trait Nothing {
    const NOTHING: Self;
}
impl Nothing for () {
    const NOTHING: Self = ();
}
impl Nothing for jboolean {
    const NOTHING: Self = 0;
}
impl Nothing for i32 {
    const NOTHING: Self = 0;
}
impl Nothing for jlong {
    const NOTHING: Self = 0;
}
impl Nothing for f32 {
    const NOTHING: Self = 0.0;
}
impl<T> Nothing for *mut T {
    const NOTHING: Self = null_mut();
}

/// The environment of the current thread, during a native method or an upcall's.
#[derive(Clone, Copy)]
pub struct Env(*mut JNIEnv);

/// Calls a function of the JNI's table.
macro_rules! jni {
    ($env:expr, $function:ident $(, $arg:expr)*) => {{
        let env = $env.raw();
        // SAFETY: `env` is the environment of this thread and its table is complete in every JVM since JNI 1.6; what the
        // arguments must be is argued where they are made: references that this native method holds, ranges within arrays.
        #[allow(clippy::macro_metavars_in_unsafe)]
        unsafe { ((**env).$function.expect("the JNI table is complete"))(env $(, $arg)*) }
    }};
}
pub(crate) use jni;

/// Runs a native method: what it fails with is thrown, and so is a panic.
///
/// # Safety
/// `env` is the environment of this thread.
pub unsafe fn enter<T: Nothing>(env: *mut JNIEnv, body: impl FnOnce(Env) -> Outcome<T>) -> T {
    let env = Env(env);
    let caught = catch_unwind(AssertUnwindSafe(|| match body(env) {
        Ok(value) => value,
        Err(raise) => {
            upcall::raise(env, raise);
            T::NOTHING
        }
    }));
    caught.unwrap_or_else(|panic| {
        let what = message_of(&*panic);
        // A panic's payload may panic when it is dropped.
        std::mem::forget(panic);
        // Making the exception allocates, and could panic in turn: the JVM then gets a method that did nothing.
        let _ = catch_unwind(AssertUnwindSafe(|| upcall::raise(env, Raise::internal(what))));
        T::NOTHING
    })
}

fn message_of(panic: &(dyn std::any::Any + Send)) -> String {
    if let Some(text) = panic.downcast_ref::<&str>() {
        (*text).to_string()
    } else if let Some(text) = panic.downcast_ref::<String>() {
        text.clone()
    } else {
        "a panic".to_string()
    }
}

/// Runs a function of carat.h that has an error parameter; its failure is thrown.
pub fn call(f: impl FnOnce(*mut *mut ffi::carat_error) -> ffi::carat_status) -> Outcome {
    let mut error = null_mut();
    let status = f(&mut error);
    if status == ffi::CARAT_OK {
        return Ok(());
    }
    Err(failure(status, error))
}

fn failure(status: ffi::carat_status, error: *mut ffi::carat_error) -> Raise {
    // SAFETY: `error` is NULL or what the failed call handed out, freed here and nowhere else; its message lives as long.
    unsafe {
        debug_assert!(error.is_null() || ffi::carat_error_status(error) == status);
        let message = CStr::from_ptr(ffi::carat_error_message(error)).to_string_lossy().into_owned();
        let raise = Raise::Failed {
            status,
            kind: ffi::carat_error_kind(error),
            nearest: ffi::carat_error_nearest(error),
            message,
        };
        ffi::carat_error_free(error);
        raise
    }
}

/// Runs a function that fills a buffer, again with room enough where there was not. `f` gets the buffer, its capacity
/// and where to write the length.
pub fn filled<T: Copy + Default>(
    guess: usize,
    mut f: impl FnMut(*mut T, usize, *mut usize, *mut *mut ffi::carat_error) -> ffi::carat_status,
) -> Outcome<Vec<T>> {
    let mut buffer = buffer::<T>(guess)?;
    loop {
        let (mut n, mut error) = (0, null_mut());
        let status = f(buffer.as_mut_ptr(), buffer.len(), &mut n, &mut error);
        if status == ffi::CARAT_OK {
            buffer.truncate(n);
            return Ok(buffer);
        }
        if status != ffi::CARAT_BUFFER_TOO_SMALL || n <= buffer.len() {
            return Err(failure(status, error));
        }
        // SAFETY: it came from the call above and is freed once.
        unsafe { ffi::carat_error_free(error) };
        buffer = self::buffer(n)?;
    }
}

/// `n` default values, or an error where there is no memory for them.
pub fn buffer<T: Copy + Default>(n: usize) -> Outcome<Vec<T>> {
    let mut buffer = Vec::new();
    buffer.try_reserve_exact(n).map_err(|_| Raise::Failed {
        status: ffi::CARAT_OUT_OF_MEMORY,
        kind: ffi::CARAT_KIND_RUNTIME,
        nearest: 0,
        message: format!("no memory for {n} values of {} bytes", size_of::<T>()),
    })?;
    buffer.resize(n, T::default());
    Ok(buffer)
}

/// A struct of carat.h, filled by its `_init` function.
pub fn init<T: Copy>(f: unsafe extern "C" fn(*mut T, usize)) -> T {
    let mut value = std::mem::MaybeUninit::<T>::zeroed();
    // SAFETY: the function writes at most the bytes that it is told; the structs of carat.h are made of numbers, raw
    // pointers and optional functions, for which zeros are values too.
    unsafe {
        f(value.as_mut_ptr(), size_of::<T>());
        value.assume_init()
    }
}

/// Makes the two functions that copy a primitive array out of and into the JVM.
macro_rules! arrays {
    ($($get:ident $new:ident $set:ident: $array:ty, $element:ty, $GetRegion:ident $New:ident $SetRegion:ident;)*) => {$(
        #[allow(dead_code)]
        pub fn $get(self, array: $array) -> Outcome<Vec<$element>> {
            let n = self.length(array)?;
            let mut values = buffer::<$element>(n)?;
            jni!(self, $GetRegion, array, 0, n as jsize, values.as_mut_ptr().cast());
            self.check()?;
            Ok(values)
        }

        #[allow(dead_code)]
        pub fn $new(self, values: &[$element]) -> Outcome<$array> {
            let array = jni!(self, $New, Env::size(values.len())?);
            if array.is_null() {
                return Err(Raise::Pending);
            }
            self.$set(array, values)?;
            Ok(array)
        }

        /// Writes the first elements of an array; more than it has is an exception of the JVM.
        #[allow(dead_code)]
        pub fn $set(self, array: $array, values: &[$element]) -> Outcome {
            jni!(self, $SetRegion, array, 0, Env::size(values.len())?, values.as_ptr().cast());
            self.check()
        }
    )*};
}

impl Env {
    /// # Safety
    /// `env` is the environment of this thread, and the value does not outlive its being so.
    pub unsafe fn new(env: *mut JNIEnv) -> Env {
        Env(env)
    }

    pub fn raw(self) -> *mut JNIEnv {
        self.0
    }

    /// Whether the JVM has thrown.
    pub fn check(self) -> Outcome {
        if jni!(self, ExceptionCheck) == JNI_TRUE { Err(Raise::Pending) } else { Ok(()) }
    }

    pub fn size(n: usize) -> Outcome<jsize> {
        jsize::try_from(n)
            .map_err(|_| Raise::argument(format!("{n} elements do not fit into an array of the JVM")))
    }

    fn length(self, array: jarray) -> Outcome<usize> {
        if array.is_null() {
            return Err(Raise::argument("an array is null"));
        }
        Ok(jni!(self, GetArrayLength, array) as usize)
    }

    arrays! {
        ints new_ints set_ints: jintArray, i32, GetIntArrayRegion NewIntArray SetIntArrayRegion;
        ids new_ids set_ids: jintArray, u32, GetIntArrayRegion NewIntArray SetIntArrayRegion;
        longs new_longs set_longs: jlongArray, i64, GetLongArrayRegion NewLongArray SetLongArrayRegion;
        floats new_floats set_floats: jfloatArray, f32, GetFloatArrayRegion NewFloatArray SetFloatArrayRegion;
        doubles new_doubles set_doubles: jdoubleArray, f64, GetDoubleArrayRegion NewDoubleArray SetDoubleArrayRegion;
        bytes new_bytes set_bytes: jbyteArray, u8, GetByteArrayRegion NewByteArray SetByteArrayRegion;
    }

    fn units(self, string: jstring) -> Outcome<Vec<u16>> {
        if string.is_null() {
            return Err(Raise::argument("a text is null"));
        }
        let n = jni!(self, GetStringLength, string);
        let mut units = buffer::<u16>(n as usize)?;
        jni!(self, GetStringRegion, string, 0, n, units.as_mut_ptr());
        self.check()?;
        Ok(units)
    }

    /// A string as UTF-8; lone surrogates become U+FFFD.
    pub fn text(self, string: jstring) -> Outcome<String> {
        Ok(text::from_utf16(&self.units(string)?))
    }

    /// As [`Env::text`], of NULL nothing.
    pub fn text_if_any(self, string: jstring) -> Outcome<Option<String>> {
        if string.is_null() { Ok(None) } else { self.text(string).map(Some) }
    }

    /// A string that names something: a lone surrogate is an error.
    pub fn name(self, string: jstring) -> Outcome<String> {
        text::from_utf16_strict(&self.units(string)?)
            .map_err(|at| Raise::argument(format!("half a surrogate pair at index {at} of a path or name")))
    }

    /// The strings of an array.
    pub fn texts(self, array: jobjectArray) -> Outcome<Vec<String>> {
        let n = self.length(array)?;
        let mut texts = Vec::with_capacity(n);
        for i in 0..n {
            let string = jni!(self, GetObjectArrayElement, array, i as jsize);
            self.check()?;
            texts.push(self.text(string)?);
            self.forget(string);
        }
        Ok(texts)
    }

    /// A string of UTF-8.
    pub fn string(self, utf8: &[u8]) -> Outcome<jstring> {
        let units = text::to_utf16(utf8);
        let string = jni!(self, NewString, units.as_ptr(), Env::size(units.len())?);
        if string.is_null() { Err(Raise::Pending) } else { Ok(string) }
    }

    /// Gives up a local reference, which a long call would pile up otherwise.
    pub fn forget(self, local: jobject) {
        jni!(self, DeleteLocalRef, local);
    }
}

/// The bytes of a text that carat handed out.
///
/// # Safety
/// `text` is NULL, with a `len` of 0, or valid for reads of `len` bytes for as long as `'a`.
pub unsafe fn bytes_of<'a>(text: *const std::ffi::c_char, len: usize) -> &'a [u8] {
    if len == 0 {
        return &[];
    }
    // SAFETY: the caller's promise.
    unsafe { std::slice::from_raw_parts(text.cast(), len) }
}
