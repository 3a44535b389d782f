//! What a model is, what the machine can do, and which version this is.

use std::ffi::c_char;

use super::*;
use crate::gguf::Value;
use crate::{Arch, Isa, Limits, MemoryLock};

/// Gemma: 2B and 7B.
pub const CARAT_ARCH_GEMMA: i32 = 1;
/// Gemma 2.
pub const CARAT_ARCH_GEMMA2: i32 = 2;
/// Gemma 3, text.
pub const CARAT_ARCH_GEMMA3: i32 = 3;

/// Nobody asked for the file to be locked in memory.
pub const CARAT_MEMORY_NOT_LOCKED: i32 = 0;
/// The file is locked in memory as long as the model lives.
pub const CARAT_MEMORY_LOCKED: i32 = 1;
/// The system refused to lock the file in memory; the log says why.
pub const CARAT_MEMORY_LOCK_REFUSED: i32 = 2;

/// What carat_abi_version() returns: raised when a function or field is added; nothing is ever removed or changed.
pub const CARAT_ABI_VERSION: u32 = 1;

/// The shape of a model and how it runs here.
#[repr(C)]
#[derive(Clone, Copy)]
pub struct carat_model_info {
    /// sizeof(carat_model_info), as the caller was compiled.
    pub struct_size: u32,
    /// CARAT_ARCH_*
    pub arch: i32,
    /// CARAT_ISA_*: the kernels in use.
    pub isa: i32,
    /// Threads in use, the caller's included: fewer than asked where the system refused.
    pub threads: i32,
    /// Layers.
    pub n_layers: u32,
    /// Width of the residual stream.
    pub d_model: u32,
    /// Width of the feed-forward.
    pub d_ff: u32,
    /// Query heads.
    pub n_heads: u32,
    /// Key and value heads.
    pub n_kv_heads: u32,
    /// Values in a head.
    pub head_dim: u32,
    /// Rows of the embedding: the number of logits.
    pub vocab: u32,
    /// Positions that a windowed layer sees; 0 where no layer is windowed.
    pub sliding_window: u32,
    /// CARAT_MEMORY_*: whether the file is locked in memory.
    pub memory_lock: i32,
    /// Zero.
    pub reserved: i32,
    /// Positions that the model was trained for.
    pub context_length: u64,
    /// Bytes of the file, all parts.
    pub file_bytes: u64,
    /// Number of tensors.
    pub n_tensors: u64,
}

// SAFETY: repr(C), its size first, of integers.
unsafe impl sized::Grows for carat_model_info {
    fn defaults() -> Self {
        carat_model_info {
            struct_size: size_of::<Self>() as u32,
            arch: 0,
            isa: 0,
            threads: 0,
            n_layers: 0,
            d_model: 0,
            d_ff: 0,
            n_heads: 0,
            n_kv_heads: 0,
            head_dim: 0,
            vocab: 0,
            sliding_window: 0,
            memory_lock: CARAT_MEMORY_NOT_LOCKED,
            reserved: 0,
            context_length: 0,
            file_bytes: 0,
            n_tensors: 0,
        }
    }
}

/// A tensor of a model's file.
#[repr(C)]
#[derive(Clone, Copy)]
pub struct carat_tensor_info {
    /// sizeof(carat_tensor_info), as the caller was compiled.
    pub struct_size: u32,
    /// Dimensions in use.
    pub n_dims: u32,
    /// Its name: UTF-8, not ended by a NUL, valid as long as the model.
    pub name: *const c_char,
    /// Bytes of the name.
    pub name_len: usize,
    /// The name of its type, such as `Q4_K`: static, not ended by a NUL.
    pub type_name: *const c_char,
    /// Bytes of that name.
    pub type_name_len: usize,
    /// Sizes, the innermost first; 1 beyond `n_dims`.
    pub dims: [u64; 4],
    /// Its first byte, from the start of the file (of its part, where the model is split).
    pub offset: u64,
    /// Its bytes.
    pub size: u64,
}

// SAFETY: repr(C), its size first, of integers and pointers.
unsafe impl sized::Grows for carat_tensor_info {
    fn defaults() -> Self {
        carat_tensor_info {
            struct_size: size_of::<Self>() as u32,
            n_dims: 0,
            name: std::ptr::null(),
            name_len: 0,
            type_name: std::ptr::null(),
            type_name_len: 0,
            dims: [1; 4],
            offset: 0,
            size: 0,
        }
    }
}

/// The machine's limits, measured: the yardstick for figures of speed.
#[repr(C)]
#[derive(Clone, Copy)]
pub struct carat_limits {
    /// sizeof(carat_limits), as the caller was compiled.
    pub struct_size: u32,
    /// Zero.
    pub reserved: u32,
    /// Bytes a second that can be read from memory in order: the limit of decoding.
    pub read_bytes_per_s: f64,
    /// Multiply-adds of bytes a second: the limit of prefill over quantized weights.
    pub dot_macs_per_s: f64,
    /// Multiply-adds of f32 a second: the limit of attention.
    pub fma_macs_per_s: f64,
}

// SAFETY: repr(C), its size first, of integers and floats.
unsafe impl sized::Grows for carat_limits {
    fn defaults() -> Self {
        carat_limits {
            struct_size: size_of::<Self>() as u32,
            reserved: 0,
            read_bytes_per_s: 0.0,
            dot_macs_per_s: 0.0,
            fma_macs_per_s: 0.0,
        }
    }
}

/// As carat_model_options_init().
///
/// Threads: any.
#[unsafe(no_mangle)]
pub unsafe extern "C" fn carat_model_info_init(info: *mut carat_model_info, struct_size: usize) {
    // SAFETY: the header's contract.
    guard_value((), || unsafe { sized::init(info, struct_size) });
}

/// As carat_model_options_init().
///
/// Threads: any.
#[unsafe(no_mangle)]
pub unsafe extern "C" fn carat_tensor_info_init(info: *mut carat_tensor_info, struct_size: usize) {
    // SAFETY: the header's contract.
    guard_value((), || unsafe { sized::init(info, struct_size) });
}

/// As carat_model_options_init().
///
/// Threads: any.
#[unsafe(no_mangle)]
pub unsafe extern "C" fn carat_limits_init(limits: *mut carat_limits, struct_size: usize) {
    // SAFETY: the header's contract.
    guard_value((), || unsafe { sized::init(limits, struct_size) });
}

/// The shape of a model and how it runs here.
///
/// Ownership: all is borrowed. `info` is the caller's struct, made by carat_model_info_init().
/// Threads: any.
/// Errors: CARAT_INVALID_ARGUMENT.
#[unsafe(no_mangle)]
pub unsafe extern "C" fn carat_model_get_info(
    model: *const carat_model,
    info: *mut carat_model_info,
    error: *mut *mut carat_error,
) -> carat_status {
    guard(error, || {
        // SAFETY: the header's contract.
        let model = unsafe { hold(model, "model") }?;
        let c = model.0.config();
        let value = carat_model_info {
            struct_size: size_of::<carat_model_info>() as u32,
            arch: match c.arch {
                Arch::Gemma => CARAT_ARCH_GEMMA,
                Arch::Gemma2 => CARAT_ARCH_GEMMA2,
                Arch::Gemma3 => CARAT_ARCH_GEMMA3,
            },
            isa: model::isa_number(model.0.isa()),
            threads: model.0.threads() as i32,
            n_layers: c.n_layers as u32,
            d_model: c.d_model as u32,
            d_ff: c.d_ff as u32,
            n_heads: c.n_heads as u32,
            n_kv_heads: c.n_kv_heads as u32,
            head_dim: c.head_dim as u32,
            vocab: c.vocab as u32,
            sliding_window: if c.windowed.contains(&true) { c.sliding_window as u32 } else { 0 },
            memory_lock: match model.0.memory_lock() {
                MemoryLock::NotAsked => CARAT_MEMORY_NOT_LOCKED,
                MemoryLock::Locked => CARAT_MEMORY_LOCKED,
                MemoryLock::Refused(_) => CARAT_MEMORY_LOCK_REFUSED,
            },
            reserved: 0,
            context_length: c.context_length as u64,
            file_bytes: model.0.gguf().file_len(),
            n_tensors: model.0.gguf().tensors().len() as u64,
        };
        // SAFETY: as above.
        unsafe { sized::write(info, &value, "info") }
    })
}

/// A metadata value of the model's file as text: a number in decimal, a bool as true or false, a string as it is.
///
/// Writes the text and, where there is room, a NUL to `text` (of `capacity` bytes), and its bytes without the NUL to
/// `*len`, which may be NULL.
///
/// Ownership: all is borrowed.
/// Threads: any.
/// Errors: CARAT_METADATA where there is no such key; CARAT_UNSUPPORTED for an array; CARAT_BUFFER_TOO_SMALL, with
/// `*len` written.
#[unsafe(no_mangle)]
pub unsafe extern "C" fn carat_model_metadata(
    model: *const carat_model,
    key: *const c_char,
    key_len: usize,
    text: *mut c_char,
    capacity: usize,
    len: *mut usize,
    error: *mut *mut carat_error,
) -> carat_status {
    guard(error, || {
        // SAFETY: the header's contract.
        let (model, key) = unsafe { (hold(model, "model")?, super::text(key, key_len, "key")?) };
        let gguf = model.0.gguf();
        let value = gguf.metadata().get(key).ok_or_else(|| crate::Error::Metadata {
            file: gguf.name().into(),
            key: key.into(),
            expected: "a value".into(),
            found: "nothing".into(),
        })?;
        let value = match value {
            Value::Str(s) => String::from_utf8_lossy(s).into_owned(),
            Value::Bool(b) => b.to_string(),
            Value::F32(v) => v.to_string(),
            Value::F64(v) => v.to_string(),
            Value::U64(v) => v.to_string(),
            Value::Array(_) => {
                return Err(Failure::Error(crate::Error::Unsupported {
                    file: gguf.name().into(),
                    what: format!("the array {key} as text"),
                    supported: "numbers, bools and strings".into(),
                }));
            }
            other => other.as_i64().map(|v| v.to_string()).unwrap_or_default(),
        };
        // SAFETY: as above.
        unsafe { fill_text(&value, text, capacity, len) }
    })
}

/// The tensor of an index below the `n_tensors` of carat_model_info.
///
/// Ownership: the texts in `*info` are the model's and static ones. `info` is the caller's struct, made by
/// carat_tensor_info_init().
/// Threads: any.
/// Errors: CARAT_INVALID_ARGUMENT for an index beyond.
#[unsafe(no_mangle)]
pub unsafe extern "C" fn carat_model_tensor(
    model: *const carat_model,
    index: u64,
    info: *mut carat_tensor_info,
    error: *mut *mut carat_error,
) -> carat_status {
    guard(error, || {
        // SAFETY: the header's contract.
        let model = unsafe { hold(model, "model") }?;
        let tensors = model.0.gguf().tensors();
        let tensor = usize::try_from(index)
            .ok()
            .and_then(|i| tensors.get(i))
            .ok_or_else(|| Failure::argument(format!("tensor {index}: there are {}", tensors.len())))?;
        let mut dims = [1; 4];
        for (to, from) in dims.iter_mut().zip(tensor.dims()) {
            *to = *from as u64;
        }
        let value = carat_tensor_info {
            struct_size: size_of::<carat_tensor_info>() as u32,
            n_dims: tensor.dims().len() as u32,
            name: tensor.name().as_ptr().cast(),
            name_len: tensor.name().len(),
            type_name: tensor.dtype().name().as_ptr().cast(),
            type_name_len: tensor.dtype().name().len(),
            dims,
            offset: tensor.offset(),
            size: tensor.data().len() as u64,
        };
        // SAFETY: as above.
        unsafe { sized::write(info, &value, "info") }
    })
}

/// The name of an instruction set (CARAT_ISA_*), such as `avx2`, ended by a NUL; `?` for a number that is none.
///
/// Ownership: the text is static.
/// Threads: any.
#[unsafe(no_mangle)]
pub extern "C" fn carat_isa_name(isa: i32) -> *const c_char {
    guard_value(c"?".as_ptr(), || {
        match isa {
            CARAT_ISA_AUTO => c"auto",
            CARAT_ISA_SCALAR => c"scalar",
            CARAT_ISA_AVX2 => c"avx2",
            CARAT_ISA_AVX512_VNNI => c"avx512_vnni",
            CARAT_ISA_NEON => c"neon",
            CARAT_ISA_NEON_DOTPROD => c"neon_dotprod",
            CARAT_ISA_NEON_I8MM => c"neon_i8mm",
            _ => c"?",
        }
        .as_ptr()
    })
}

/// 1 where this processor has an instruction set (CARAT_ISA_*), else 0.
///
/// Threads: any.
#[unsafe(no_mangle)]
pub extern "C" fn carat_isa_available(isa: i32) -> i32 {
    guard_value(0, || match model::isa_of(isa) {
        Ok(None) => 1,
        Ok(Some(isa)) => isa.is_available() as i32,
        Err(_) => 0,
    })
}

/// Measures the machine's limits with a number of threads and an instruction set, in about a second and 256 MiB of
/// memory.
///
/// Ownership: `limits` is the caller's struct, made by carat_limits_init().
/// Threads: any.
/// Errors: CARAT_INVALID_OPTION for an instruction set that the processor lacks or a number of threads that cannot be;
/// CARAT_OUT_OF_MEMORY.
#[unsafe(no_mangle)]
pub unsafe extern "C" fn carat_limits_measure(
    threads: i32,
    isa: i32,
    limits: *mut carat_limits,
    error: *mut *mut carat_error,
) -> carat_status {
    guard(error, || {
        // SAFETY: the header's contract.
        unsafe { sized::check(limits, "limits") }?;
        let isa = model::isa_of(isa)?.unwrap_or_else(Isa::detect);
        let found = Limits::measure(usize::try_from(threads).unwrap_or(usize::MAX), isa)?;
        let value = carat_limits {
            struct_size: size_of::<carat_limits>() as u32,
            reserved: 0,
            read_bytes_per_s: found.read_bytes_per_s,
            dot_macs_per_s: found.dot_macs_per_s,
            fma_macs_per_s: found.fma_macs_per_s,
        };
        // SAFETY: as above.
        unsafe { sized::write(limits, &value, "limits") }
    })
}

/// The version of the library, such as `0.1.0`, ended by a NUL.
///
/// Ownership: the text is static.
/// Threads: any.
#[unsafe(no_mangle)]
pub extern "C" fn carat_version() -> *const c_char {
    const VERSION: &str = concat!(env!("CARGO_PKG_VERSION"), "\0");
    guard_value(c"".as_ptr(), || VERSION.as_ptr().cast())
}

/// The CARAT_ABI_VERSION of the library. A program works with any library whose number is not below its header's.
///
/// Threads: any.
#[unsafe(no_mangle)]
pub extern "C" fn carat_abi_version() -> u32 {
    guard_value(0, || CARAT_ABI_VERSION)
}
