//! llama.cpp (ggml) through `llama-cpp-sys-2`.

use std::ffi::{CStr, CString, c_char, c_void};
use std::process::ExitCode;

use llama_cpp_sys_2 as ll;
use peer_protocol::{CONTEXT, Engine, Options, Result};
use serde_json::{Value, json};

/// Freed by the end of the process.
struct Ggml {
    vocab: *const ll::llama_vocab,
    context: *mut ll::llama_context,
    n_vocab: usize,
    batch: usize,
}

unsafe extern "C" fn silent(_: ll::ggml_log_level, _: *const c_char, _: *mut c_void) {}

impl Engine for Ggml {
    const NAME: &'static str = "llama.cpp";

    fn open(options: &Options) -> Result<Self> {
        let path = CString::new(options.model.to_str().ok_or("the path is not UTF-8")?)?;
        let (flash, repack) = (options.setting("flash_attn")? != 0, options.setting("repack")? != 0);
        // SAFETY: plain calls in the order that llama.h asks for; the pointers that come back are looked at before
        // they are used, and live as long as the process.
        unsafe {
            if std::env::var_os("PEER_VERBOSE").is_none() {
                ll::llama_log_set(Some(silent), std::ptr::null_mut());
            }
            ll::llama_backend_init();
            let mut params = ll::llama_model_default_params();
            params.use_extra_bufts = repack;
            let model = ll::llama_model_load_from_file(path.as_ptr(), params);
            if model.is_null() {
                return Err("cannot load the model".into());
            }
            let mut params = ll::llama_context_default_params();
            params.n_ctx = CONTEXT;
            params.n_batch = options.setting("batch")?;
            params.n_ubatch = options.setting("ubatch")?;
            params.n_threads = options.threads as i32;
            params.n_threads_batch = options.threads as i32;
            // Windowed layers keep their window only, as its own programs have it.
            params.swa_full = false;
            params.flash_attn_type =
                if flash { ll::LLAMA_FLASH_ATTN_TYPE_ENABLED } else { ll::LLAMA_FLASH_ATTN_TYPE_DISABLED };
            let context = ll::llama_init_from_model(model, params);
            if context.is_null() {
                return Err("cannot make a context".into());
            }
            let vocab = ll::llama_model_get_vocab(model);
            Ok(Ggml {
                vocab,
                context,
                n_vocab: ll::llama_vocab_n_tokens(vocab) as usize,
                batch: params.n_batch as usize,
            })
        }
    }

    fn vocab(&self) -> usize {
        self.n_vocab
    }

    fn encode(&self, text: &str) -> Result<Vec<u32>> {
        let mut ids = vec![0i32; text.len() + 2];
        // SAFETY: both buffers are as long as they are said to be; the vocabulary lives as long as the process.
        let n = unsafe {
            ll::llama_tokenize(
                self.vocab,
                text.as_ptr().cast(),
                text.len() as i32,
                ids.as_mut_ptr(),
                ids.len() as i32,
                true,
                false,
            )
        };
        ids.truncate(usize::try_from(n).map_err(|_| "cannot tokenize")?);
        Ok(ids.into_iter().map(|id| id as u32).collect())
    }

    fn process(&mut self, ids: &[u32]) -> Result<()> {
        let mut ids: Vec<i32> = ids.iter().map(|&id| id as i32).collect();
        for part in ids.chunks_mut(self.batch) {
            // SAFETY: the batch points into `part`, which outlives the call; the context is whole.
            let status = unsafe {
                let batch = ll::llama_batch_get_one(part.as_mut_ptr(), part.len() as i32);
                let status = ll::llama_decode(self.context, batch);
                ll::llama_synchronize(self.context);
                status
            };
            if status != 0 {
                return Err(format!("llama_decode: {status}").into());
            }
        }
        Ok(())
    }

    fn logits(&self) -> Result<&[f32]> {
        // SAFETY: the last token's logits are `n_vocab` floats that stay until the next decode, which needs `&mut`.
        unsafe {
            let logits = ll::llama_get_logits_ith(self.context, -1);
            if logits.is_null() {
                return Err("no logits".into());
            }
            Ok(std::slice::from_raw_parts(logits, self.n_vocab))
        }
    }

    fn clear(&mut self) -> Result<()> {
        // SAFETY: the context is whole. The data need not be zeroed: no cell is in use afterwards.
        unsafe { ll::llama_memory_clear(ll::llama_get_memory(self.context), false) };
        Ok(())
    }

    fn about(&self) -> Value {
        // SAFETY: a string that lives as long as the process.
        let info = unsafe { CStr::from_ptr(ll::llama_print_system_info()) };
        json!({ "system_info": info.to_string_lossy().trim() })
    }
}

fn main() -> ExitCode {
    peer_protocol::main::<Ggml>()
}
