//! The library and the machine.

use std::ffi::CStr;

use jni_sys::{jboolean, jdoubleArray, jint, jstring};

use crate::env::{call, init};
use crate::ffi::*;
use crate::native;

native! {
    fn Java_ai_carat_Native_version(env) -> jstring {
        // SAFETY: static text, ended by a NUL.
        env.string(unsafe { CStr::from_ptr(carat_version()) }.to_bytes())
    }
}

native! {
    fn Java_ai_carat_Native_abiVersion(_env) -> jint {
        // SAFETY: takes nothing.
        Ok(unsafe { carat_abi_version() } as jint)
    }
}

native! {
    fn Java_ai_carat_Native_statusName(env, status: jint) -> jstring {
        // SAFETY: as in version.
        env.string(unsafe { CStr::from_ptr(carat_status_name(status)) }.to_bytes())
    }
}

native! {
    fn Java_ai_carat_Native_isaName(env, isa: jint) -> jstring {
        // SAFETY: as in version.
        env.string(unsafe { CStr::from_ptr(carat_isa_name(isa)) }.to_bytes())
    }
}

native! {
    fn Java_ai_carat_Native_isaAvailable(_env, isa: jint) -> jboolean {
        // SAFETY: takes a number.
        Ok(jboolean::from(unsafe { carat_isa_available(isa) } != 0))
    }
}

native! {
    fn Java_ai_carat_Native_limits(env, threads: jint, isa: jint) -> jdoubleArray {
        let mut limits = init(carat_limits_init);
        // SAFETY: a struct made by its _init function.
        call(|error| unsafe { carat_limits_measure(threads, isa, &mut limits, error) })?;
        env.new_doubles(&[limits.read_bytes_per_s, limits.dot_macs_per_s, limits.fma_macs_per_s])
    }
}
