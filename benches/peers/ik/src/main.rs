//! ik_llama.cpp, through a shim in C.

use std::ffi::{CStr, CString, c_char};
use std::process::ExitCode;

use peer_protocol::{CONTEXT, Engine, Options, Result};
use serde_json::{Value, json};

unsafe extern "C" {
    fn ik_open(
        path: *const c_char,
        threads: u32,
        n_ctx: u32,
        batch: u32,
        ubatch: u32,
        flash_attn: i32,
        repack: i32,
        verbose: i32,
    ) -> i32;
    fn ik_vocab() -> i32;
    fn ik_encode(text: *const c_char, length: i32, ids: *mut i32, room: i32) -> i32;
    fn ik_process(ids: *mut i32, n: i32, position: i32) -> i32;
    fn ik_logits() -> *const f32;
    fn ik_clear();
    fn ik_about() -> *const c_char;
}

/// The shim has one model and one context; `open` is called once.
struct Ik {
    n_vocab: usize,
    batch: usize,
    position: usize,
}

impl Engine for Ik {
    const NAME: &'static str = "ik_llama.cpp";

    fn open(options: &Options) -> Result<Self> {
        let path = CString::new(options.model.to_str().ok_or("the path is not UTF-8")?)?;
        let batch = options.setting("batch")?;
        // SAFETY: the path is a C string; numbers and switches are what llama.h takes.
        let status = unsafe {
            ik_open(
                path.as_ptr(),
                options.threads,
                CONTEXT,
                batch,
                options.setting("ubatch")?,
                options.setting("flash_attn")? as i32,
                options.setting("repack")? as i32,
                std::env::var_os("PEER_VERBOSE").is_some() as i32,
            )
        };
        if status != 0 {
            return Err(["", "cannot load the model", "cannot make a context"][status as usize].into());
        }
        // SAFETY: the model is loaded.
        let n_vocab = unsafe { ik_vocab() } as usize;
        Ok(Ik { n_vocab, batch: batch as usize, position: 0 })
    }

    fn vocab(&self) -> usize {
        self.n_vocab
    }

    fn encode(&self, text: &str) -> Result<Vec<u32>> {
        let mut ids = vec![0i32; text.len() + 2];
        // SAFETY: both buffers are as long as they are said to be.
        let n =
            unsafe { ik_encode(text.as_ptr().cast(), text.len() as i32, ids.as_mut_ptr(), ids.len() as i32) };
        ids.truncate(usize::try_from(n).map_err(|_| "cannot tokenize")?);
        Ok(ids.into_iter().map(|id| id as u32).collect())
    }

    fn process(&mut self, ids: &[u32]) -> Result<()> {
        let mut ids: Vec<i32> = ids.iter().map(|&id| id as i32).collect();
        for part in ids.chunks_mut(self.batch) {
            // SAFETY: `part` outlives the call, and the context is there.
            let status = unsafe { ik_process(part.as_mut_ptr(), part.len() as i32, self.position as i32) };
            if status != 0 {
                return Err(format!("llama_decode: {status}").into());
            }
            self.position += part.len();
        }
        Ok(())
    }

    fn logits(&self) -> Result<&[f32]> {
        // SAFETY: the last token's logits are `n_vocab` floats that stay until the next decode, which needs `&mut`.
        unsafe {
            let logits = ik_logits();
            if logits.is_null() {
                return Err("no logits".into());
            }
            Ok(std::slice::from_raw_parts(logits, self.n_vocab))
        }
    }

    fn clear(&mut self) -> Result<()> {
        // SAFETY: the context is there.
        unsafe { ik_clear() };
        self.position = 0;
        Ok(())
    }

    fn about(&self) -> Value {
        // SAFETY: a string that lives as long as the process.
        let info = unsafe { CStr::from_ptr(ik_about()) };
        json!({ "system_info": info.to_string_lossy().trim() })
    }
}

fn main() -> ExitCode {
    peer_protocol::main::<Ik>()
}
