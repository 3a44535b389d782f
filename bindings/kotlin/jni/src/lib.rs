//! The Java native interface of carat, for its Kotlin binding.
//!
//! Over the C ABI alone, as any other language: the functions of `carat.h` are declared by `build.rs`. Each `native!`
//! here is an `external fun` of `Native.kt`, whose comments say what its arguments mean. The rules:
//!
//! * Handles cross as `long`. The Kotlin side hands in only what it got from here and has not freed, and frees nothing
//!   during a call on it (`Handle.kt`): that is the contract that the SAFETY comments call *Kotlin's*.
//! * Nothing unwinds into the JVM: a panic becomes a `CaratException` with `CARAT_INTERNAL`.
//! * A failure is thrown as a `CaratException`. After every call into the JVM that can throw, the exception is looked
//!   for; one that a callback threw stops the engine and is thrown when the engine has returned.
//! * Text crosses as UTF-16 that is converted here. The JVM's own "modified UTF-8" is never used: it writes NUL and
//!   everything beyond the basic plane in ways that are not UTF-8.

#![cfg(feature = "capi")]
#![allow(non_snake_case)] // the names are JNI's

#[allow(
    missing_docs,
    non_camel_case_types,
    dead_code,
    clippy::too_many_arguments,
    reason = "made from the header's record"
)]
mod ffi {
    include!(concat!(env!("OUT_DIR"), "/carat.rs"));
}
#[cfg(all(target_os = "android", feature = "debian-libunwind"))]
mod bionic;
mod conversation;
mod env;
mod generate;
mod info;
mod model;
mod session;
mod text;
mod tokenizer;
mod upcall;

use carat as _; // for the linker

/// A function of `ai.carat.Native`: its body gets the environment and may fail by `Raise`.
macro_rules! native {
    ($(#[$doc:meta])* fn $name:ident($env:ident $(, $arg:ident: $ty:ty)* $(,)?) $(-> $ret:ty)? $body:block) => {
        $(#[$doc])*
        ///
        /// # Safety
        /// Called by the JVM; handles are valid, by the contract of the Kotlin side.
        #[unsafe(no_mangle)]
        pub unsafe extern "system" fn $name(
            env: *mut jni_sys::JNIEnv,
            _class: jni_sys::jclass
            $(, $arg: $ty)*
        ) $(-> $ret)? {
            let body = |$env: $crate::env::Env| $body;
            // SAFETY: the JVM hands in the environment of this thread, which is valid during the call.
            unsafe { $crate::env::enter(env, body) }
        }
    };
}
pub(crate) use native;

/// What the JVM calls when the library is loaded: finds the classes and methods that are called from here.
///
/// # Safety
/// Called by the JVM, with its own pointer.
#[unsafe(no_mangle)]
pub unsafe extern "system" fn JNI_OnLoad(
    vm: *mut jni_sys::JavaVM,
    _reserved: *mut std::ffi::c_void,
) -> jni_sys::jint {
    // SAFETY: the JVM's promise.
    unsafe { upcall::load(vm) }
}
