//! Models: opening and planning.

use std::ffi::{c_char, c_void};

use super::*;
use crate::tokenizer::TokenizerOptions;
use crate::{CancelToken, Engine, Isa, KvType, LogLevel, Model, ModelBuilder, Plan, SessionOptions, Storage};

/// An opened model: immutable. It may be used from many threads; passes of its sessions take turns.
pub struct carat_model(pub(super) Model);

/// The instruction set: the best that the processor has.
pub const CARAT_ISA_AUTO: i32 = 0;
/// Plain code, on every processor.
pub const CARAT_ISA_SCALAR: i32 = 1;
/// x86-64 with AVX2, FMA and F16C.
pub const CARAT_ISA_AVX2: i32 = 2;
/// x86-64 with AVX-512 F, BW, VL, DQ, VBMI and VNNI.
pub const CARAT_ISA_AVX512_VNNI: i32 = 3;
/// 64-bit ARM.
pub const CARAT_ISA_NEON: i32 = 4;
/// 64-bit ARM with the dot product of bytes.
pub const CARAT_ISA_NEON_DOTPROD: i32 = 5;
/// 64-bit ARM with the matrix product of bytes too.
pub const CARAT_ISA_NEON_I8MM: i32 = 6;

/// The tokenizer of this library.
pub const CARAT_ENGINE_BUILTIN: i32 = 0;
/// Google's SentencePiece, where it is compiled in.
pub const CARAT_ENGINE_SENTENCEPIECE: i32 = 1;

/// A log message: something did not go as asked, but on.
pub const CARAT_LOG_WARN: i32 = 1;
/// A log message: what was done.
pub const CARAT_LOG_INFO: i32 = 2;

/// Keys and values in f16, but in f32 for a model whose matrices are all F32.
pub const CARAT_KV_AUTO: i32 = 0;
/// Keys and values in f16.
pub const CARAT_KV_F16: i32 = 1;
/// Keys and values in Q8_0: about half of f16's memory.
pub const CARAT_KV_Q8_0: i32 = 2;
/// Keys and values in f32.
pub const CARAT_KV_F32: i32 = 3;

/// Told how far opening has come, in bytes; `done` never falls and ends as `total`. Returns 1 to go on, 0 to stop.
/// Called on the thread that opens, before the call returns.
pub type carat_progress_fn =
    Option<unsafe extern "C" fn(user_data: *mut c_void, done: u64, total: u64) -> i32>;

/// Takes a log message: its level (CARAT_LOG_*) and text, which is UTF-8, not ended by a NUL, and valid during the call.
/// Called from any thread that uses the model, perhaps from several at once. No message holds any part of a prompt.
pub type carat_log_fn =
    Option<unsafe extern "C" fn(user_data: *mut c_void, level: i32, text: *const c_char, len: usize)>;

/// Gives back what was lent to carat_model_open_bytes(). Called once, from any thread.
pub type carat_release_fn = Option<unsafe extern "C" fn(user_data: *mut c_void)>;

/// How to open a model. Made by carat_model_options_init().
#[repr(C)]
#[derive(Clone, Copy)]
pub struct carat_model_options {
    /// sizeof(carat_model_options), as the caller was compiled.
    pub struct_size: u32,
    /// Threads to compute with, the caller's included, 1 to 256; 0: one for each core that the process may use.
    pub threads: i32,
    /// CARAT_ISA_*: the instruction set to use.
    pub isa: i32,
    /// 1: read the file into memory instead of mapping it, for a file that cannot be trusted not to shrink meanwhile.
    pub private_copy: i32,
    /// 1: read the whole file ahead before returning, so that the first tokens come at full speed.
    pub preload: i32,
    /// CARAT_ENGINE_*: what turns text into ids.
    pub tokenizer_engine: i32,
    /// 1: lock the file in memory, so that the system cannot take its pages back. Where the system refuses, the model
    /// works without: see `memory_lock` of carat_model_info.
    pub lock: i32,
    /// Zero.
    pub reserved: i32,
    /// Stops opening, and making the tokenizer later; NULL for none. Borrowed during the call.
    pub cancel: *const carat_cancel,
    /// Told how far opening has come; NULL for none.
    pub progress: carat_progress_fn,
    /// Handed to `progress`.
    pub progress_data: *mut c_void,
    /// Takes log messages while the model lives; NULL, the default, for silence.
    pub log: carat_log_fn,
    /// Handed to `log`; must be usable from any thread as long as the model or a session of it lives.
    pub log_data: *mut c_void,
}

// SAFETY: repr(C), its size first, of integers, pointers and optional function pointers.
unsafe impl sized::Grows for carat_model_options {
    fn defaults() -> Self {
        carat_model_options {
            struct_size: size_of::<Self>() as u32,
            threads: 0,
            isa: CARAT_ISA_AUTO,
            private_copy: 0,
            preload: 0,
            tokenizer_engine: CARAT_ENGINE_BUILTIN,
            lock: 0,
            reserved: 0,
            cancel: std::ptr::null(),
            progress: None,
            progress_data: std::ptr::null_mut(),
            log: None,
            log_data: std::ptr::null_mut(),
        }
    }
}

/// How a session is laid out. Made by carat_session_options_init().
#[repr(C)]
#[derive(Clone, Copy)]
pub struct carat_session_options {
    /// sizeof(carat_session_options), as the caller was compiled.
    pub struct_size: u32,
    /// CARAT_KV_*: how keys and values are stored.
    pub kv: i32,
    /// Tokens that the session can hold; 0: the model's own context length, but at most 4096.
    pub context: u64,
    /// Most tokens that are processed at once, 1 to 4096: more is faster on long prompts and takes more memory.
    pub batch: u32,
    /// Copies of the sliding windows that a conversation keeps to go back to its last turns, 0 to 64.
    pub snapshots: u32,
    /// 1: compute with f32 activations and weights: slow, and the truth that fast paths are tested against.
    pub exact: i32,
    /// 1: keep every position in the windowed layers too, so that a text can be cut anywhere.
    pub full_history: i32,
    /// Most tokens that generating guesses ahead where the text repeats itself, 0 to 15, and verifies in one pass: the
    /// same text bit for bit, sooner where it quotes. Each takes a row of logits of memory.
    pub draft: u32,
    /// Zero.
    pub reserved: u32,
}

// SAFETY: as above, of integers.
unsafe impl sized::Grows for carat_session_options {
    fn defaults() -> Self {
        let rust = SessionOptions::default();
        carat_session_options {
            struct_size: size_of::<Self>() as u32,
            kv: CARAT_KV_AUTO,
            context: 0,
            batch: rust.batch as u32,
            snapshots: rust.snapshots as u32,
            exact: 0,
            full_history: 0,
            draft: rust.draft as u32,
            reserved: 0,
        }
    }
}

/// Bytes of memory that a model and one session on it take: an upper bound, and a close one.
#[repr(C)]
#[derive(Clone, Copy)]
pub struct carat_plan {
    /// sizeof(carat_plan), as the caller was compiled.
    pub struct_size: u32,
    /// 1 where the system told what is available.
    pub has_available: i32,
    /// The mapped file, whose pages are shared between processes.
    pub file: u64,
    /// Keys and values of a full context.
    pub kv_cache: u64,
    /// Buffers of a pass and of sampling.
    pub scratch: u64,
    /// Copies of the sliding windows.
    pub snapshots: u64,
    /// The tokenizer; 0 for a file without a vocabulary.
    pub tokenizer: u64,
    /// The rest: the file's header as it was read, tokens and texts, stacks, whole pages.
    pub other: u64,
    /// All of the above.
    pub total: u64,
    /// What scoring and carat_session_prefill_each() take more while they run. Not part of the total.
    pub score: u64,
    /// What could be had now without pushing others out, where the system told: of the machine's memory, and within
    /// the limits of the process's control group. Where the total is more, the file is read again and again.
    pub available: u64,
}

// SAFETY: as above, of integers.
unsafe impl sized::Grows for carat_plan {
    fn defaults() -> Self {
        carat_plan {
            struct_size: size_of::<Self>() as u32,
            has_available: 0,
            file: 0,
            kv_cache: 0,
            scratch: 0,
            snapshots: 0,
            tokenizer: 0,
            other: 0,
            total: 0,
            score: 0,
            available: 0,
        }
    }
}

impl From<Plan> for carat_plan {
    fn from(p: Plan) -> Self {
        carat_plan {
            struct_size: size_of::<Self>() as u32,
            has_available: p.available.is_some() as i32,
            file: p.file,
            kv_cache: p.kv_cache,
            scratch: p.scratch,
            snapshots: p.snapshots,
            tokenizer: p.tokenizer,
            other: p.other,
            total: p.total,
            score: p.score,
            available: p.available.unwrap_or(0),
        }
    }
}

/// The instruction set of a number, or `None` for that of [`CARAT_ISA_AUTO`].
pub(super) fn isa_of(n: i32) -> Outcome<Option<Isa>> {
    Ok(Some(match n {
        CARAT_ISA_AUTO => return Ok(None),
        CARAT_ISA_SCALAR => Isa::Scalar,
        CARAT_ISA_AVX2 => Isa::Avx2,
        CARAT_ISA_AVX512_VNNI => Isa::Avx512Vnni,
        CARAT_ISA_NEON => Isa::Neon,
        CARAT_ISA_NEON_DOTPROD => Isa::NeonDotprod,
        CARAT_ISA_NEON_I8MM => Isa::NeonI8mm,
        n => return Err(Failure::argument(format!("isa {n} is no CARAT_ISA_*"))),
    }))
}

pub(super) fn isa_number(isa: Isa) -> i32 {
    match isa {
        Isa::Scalar => CARAT_ISA_SCALAR,
        Isa::Avx2 => CARAT_ISA_AVX2,
        Isa::Avx512Vnni => CARAT_ISA_AVX512_VNNI,
        Isa::Neon => CARAT_ISA_NEON,
        Isa::NeonDotprod => CARAT_ISA_NEON_DOTPROD,
        Isa::NeonI8mm => CARAT_ISA_NEON_I8MM,
    }
}

impl carat_session_options {
    pub(super) fn to_rust(self) -> Outcome<SessionOptions> {
        let size = |n: u64| {
            usize::try_from(n).map_err(|_| Failure::argument(format!("context {n} is beyond this machine")))
        };
        Ok(SessionOptions {
            context: if self.context == 0 { None } else { Some(size(self.context)?) },
            batch: self.batch as usize,
            kv: match self.kv {
                CARAT_KV_AUTO => None,
                CARAT_KV_F16 => Some(KvType::F16),
                CARAT_KV_Q8_0 => Some(KvType::Q8_0),
                CARAT_KV_F32 => Some(KvType::F32),
                n => return Err(Failure::argument(format!("kv {n} is no CARAT_KV_*"))),
            },
            exact: boolean(self.exact, "exact")?,
            full_history: boolean(self.full_history, "full_history")?,
            snapshots: self.snapshots as usize,
            draft: self.draft as usize,
        })
    }
}

/// A pointer of the caller's that goes along with its callback.
#[derive(Clone, Copy)]
pub(super) struct UserData(pub(super) *mut c_void);
// SAFETY: the library never looks behind it; whether the callback may be called from another thread is said where
// each callback is documented.
unsafe impl Send for UserData {}
// SAFETY: as above.
unsafe impl Sync for UserData {}

impl UserData {
    /// Its pointer. (A method, so that a closure captures the whole.)
    pub(super) fn get(&self) -> *mut c_void {
        self.0
    }
}

/// Opens by the caller's options; `open` gets the builder and a token for what it does before.
///
/// # Safety
/// `options` is as the header's contract says, and `out` NULL or valid for a write.
unsafe fn open_with(
    options: *const carat_model_options,
    out: *mut *mut carat_model,
    open: impl FnOnce(ModelBuilder<'_>, bool, &CancelToken) -> crate::Result<Model>,
) -> Outcome {
    // SAFETY: the caller's promise.
    unsafe { hand_out(out, || opened(options, Box::new(open)).map(carat_model)) }
}

/// What [`opened`] calls.
type Open<'a> = Box<dyn FnOnce(ModelBuilder<'_>, bool, &CancelToken) -> crate::Result<Model> + 'a>;

/// [`open_with`] without the place for the result. One function for all ways to open: most of each would be the same.
///
/// # Safety
/// As that.
unsafe fn opened(options: *const carat_model_options, open: Open<'_>) -> Outcome<Model> {
    // SAFETY: the caller's promise.
    let o = unsafe { sized::read(options, "options") }?;
    // SAFETY: as above.
    let outer = unsafe { cancel::token(o.cancel) };
    // What a progress callback stops is this call, not whatever else the caller's token is used for.
    let own = outer.unwrap_or_default().child();
    let private = boolean(o.private_copy, "private_copy")?;
    let engine = match o.tokenizer_engine {
        CARAT_ENGINE_BUILTIN => Engine::Builtin,
        CARAT_ENGINE_SENTENCEPIECE => Engine::SentencePiece,
        n => return Err(Failure::argument(format!("tokenizer_engine {n} is no CARAT_ENGINE_*"))),
    };
    let mut builder = Model::builder()
        .cancel(&own)
        .private_copy(private)
        .preload(boolean(o.preload, "preload")?)
        .lock(boolean(o.lock, "lock")?)
        .tokenizer(TokenizerOptions::from(engine));
    if o.threads != 0 {
        // Of a negative number the builder says what it expects.
        builder = builder.threads(usize::try_from(o.threads).unwrap_or(usize::MAX));
    }
    if let Some(isa) = isa_of(o.isa)? {
        builder = builder.isa(isa);
    }
    if let Some(progress) = o.progress {
        let stop = own.clone();
        builder = builder.progress(move |p| {
            // SAFETY: the caller's callback with the caller's data, on the caller's thread.
            if unsafe { progress(o.progress_data, p.done, p.total) } == 0 {
                stop.cancel();
            }
        });
    }
    if let Some(log) = o.log {
        let data = UserData(o.log_data);
        builder = builder.log(move |level, text| {
            let level = match level {
                LogLevel::Warn => CARAT_LOG_WARN,
                LogLevel::Info => CARAT_LOG_INFO,
            };
            // SAFETY: the caller's callback with data that it promised to be usable from any thread.
            unsafe { log(data.get(), level, text.as_ptr().cast(), text.len()) }
        });
    }
    Ok(open(builder, private, &own)?)
}

/// Fills `options` with the defaults, as much of it as `struct_size` (sizeof *options) says. NULL is nothing to do.
///
/// Threads: any.
#[unsafe(no_mangle)]
pub unsafe extern "C" fn carat_model_options_init(options: *mut carat_model_options, struct_size: usize) {
    // SAFETY: the header's contract.
    guard_value((), || unsafe { sized::init(options, struct_size) });
}

/// As carat_model_options_init().
///
/// Threads: any.
#[unsafe(no_mangle)]
pub unsafe extern "C" fn carat_session_options_init(options: *mut carat_session_options, struct_size: usize) {
    // SAFETY: the header's contract.
    guard_value((), || unsafe { sized::init(options, struct_size) });
}

/// As carat_model_options_init().
///
/// Threads: any.
#[unsafe(no_mangle)]
pub unsafe extern "C" fn carat_plan_init(plan: *mut carat_plan, struct_size: usize) {
    // SAFETY: the header's contract.
    guard_value((), || unsafe { sized::init(plan, struct_size) });
}

/// Opens a GGUF file; of a model that was split into several, give the first. `path` (of `path_len` bytes) is UTF-8,
/// on Unix any bytes. `options` may be NULL for the defaults.
///
/// Ownership: `*out` is the caller's, ended by carat_model_free(); all else is borrowed during the call.
/// Threads: any; the call computes on its own thread.
/// Errors: whatever is wrong with the file, by name and place; CARAT_INVALID_OPTION; CARAT_CANCELLED.
#[unsafe(no_mangle)]
pub unsafe extern "C" fn carat_model_open(
    path: *const c_char,
    path_len: usize,
    options: *const carat_model_options,
    out: *mut *mut carat_model,
    error: *mut *mut carat_error,
) -> carat_status {
    guard(error, || {
        // SAFETY: the header's contract.
        unsafe {
            let path = super::path(path, path_len, "path")?;
            open_with(options, out, |builder, _, _| builder.open(path))
        }
    })
}

/// Opens the `len` bytes from byte `offset` of an open file, such as an Android asset: the offset need not be a
/// multiple of the page size. UINT64_MAX for `len` takes all that follow.
///
/// Ownership: the descriptor stays the caller's, who may close it when this returns: it is duplicated. Else as
/// carat_model_open().
/// Threads: any.
/// Errors: as carat_model_open(), CARAT_INVALID_OPTION for a range that is not within the file, and CARAT_UNSUPPORTED
/// on systems without descriptors.
#[unsafe(no_mangle)]
pub unsafe extern "C" fn carat_model_open_fd(
    fd: i32,
    offset: u64,
    len: u64,
    options: *const carat_model_options,
    out: *mut *mut carat_model,
    error: *mut *mut carat_error,
) -> carat_status {
    guard(error, || {
        let len = (len != u64::MAX).then_some(len);
        if fd < 0 {
            return Err(Failure::argument(format!("descriptor {fd} is none")));
        }
        let open = |builder: ModelBuilder<'_>, private: bool, own: &CancelToken| {
            let storage = storage_of(fd, offset, len, private, own)?;
            builder.open_storage(vec![storage])
        };
        // SAFETY: the header's contract.
        unsafe { open_with(options, out, open) }
    })
}

#[cfg(unix)]
fn storage_of(
    fd: i32,
    offset: u64,
    len: Option<u64>,
    private: bool,
    own: &CancelToken,
) -> crate::Result<Storage> {
    // SAFETY: the caller's descriptor is open during the call, by the header's contract; one that is not is refused
    // by the system when it is duplicated.
    let fd = unsafe { std::os::fd::BorrowedFd::borrow_raw(fd) };
    if !private {
        return Storage::from_fd(fd, offset, len);
    }
    let file = fd.try_clone_to_owned().map_err(|source| crate::Error::Io {
        path: "<descriptor>".into(),
        action: "duplicate",
        source,
    })?;
    Storage::read_file(&file.into(), offset, len, own, &mut |_, _| {})
}

#[cfg(not(unix))]
fn storage_of(_: i32, _: u64, _: Option<u64>, _: bool, _: &CancelToken) -> crate::Result<Storage> {
    Err(crate::Error::Unsupported {
        file: "<descriptor>".into(),
        what: "opening a descriptor on this system".into(),
        supported: "carat_model_open() and carat_model_open_bytes()".into(),
    })
}

/// Opens a GGUF file that lies in memory, without copying it.
///
/// Ownership: the bytes are lent until `release(release_data)` is called, once: when the model and its sessions are
/// freed, or before this returns where it fails. With a NULL `release` they must outlive the model and its sessions.
/// Else as carat_model_open().
/// Threads: any; `release` may come from another thread.
/// Errors: as carat_model_open().
#[unsafe(no_mangle)]
pub unsafe extern "C" fn carat_model_open_bytes(
    bytes: *const u8,
    len: usize,
    release: carat_release_fn,
    release_data: *mut c_void,
    options: *const carat_model_options,
    out: *mut *mut carat_model,
    error: *mut *mut carat_error,
) -> carat_status {
    guard(error, || {
        let data = UserData(release_data);
        let given_back = crate::storage::OnDrop::new(move || {
            if let Some(release) = release {
                // SAFETY: the caller's callback with the data that it promised to be usable from any thread.
                unsafe { release(data.get()) }
            }
        });
        // SAFETY: the header's contract.
        let bytes = unsafe { slice(bytes, len, "bytes") }?;
        // SAFETY: the caller lends them until `release` is called, which is when `given_back` is dropped.
        let storage = unsafe { Storage::lent(bytes, given_back) };
        // SAFETY: the header's contract.
        unsafe { open_with(options, out, |builder, _, _| builder.open_storage(vec![storage])) }
    })
}

/// Gives up a model; NULL is nothing to do. Its memory goes when its sessions, conversations and running calls have
/// ended too, in any order.
///
/// Ownership: ends that of `model`.
/// Threads: any, once.
#[unsafe(no_mangle)]
pub unsafe extern "C" fn carat_model_free(model: *mut carat_model) {
    // SAFETY: the header's contract.
    unsafe { release(model) }
}

/// The memory that a model file and one session on it will take, without loading anything. `threads` as in
/// carat_model_options, but at least 1; `options` may be NULL.
///
/// Ownership: all is borrowed. `plan` is the caller's struct, made by carat_plan_init().
/// Threads: any.
/// Errors: as carat_model_open().
#[unsafe(no_mangle)]
pub unsafe extern "C" fn carat_model_plan(
    path: *const c_char,
    path_len: usize,
    threads: i32,
    options: *const carat_session_options,
    plan: *mut carat_plan,
    error: *mut *mut carat_error,
) -> carat_status {
    guard(error, || {
        // SAFETY: the header's contract.
        unsafe {
            sized::check(plan, "plan")?;
            let path = super::path(path, path_len, "path")?;
            let options = sized::read(options, "options")?.to_rust()?;
            let threads = usize::try_from(threads).unwrap_or(usize::MAX);
            sized::write(plan, &Model::plan(path, threads, &options)?.into(), "plan")
        }
    })
}

/// As carat_model_plan(), of an opened model and its own number of threads.
///
/// Ownership: all is borrowed. `plan` is the caller's struct, made by carat_plan_init().
/// Threads: any.
/// Errors: CARAT_INVALID_OPTION.
#[unsafe(no_mangle)]
pub unsafe extern "C" fn carat_model_plan_session(
    model: *const carat_model,
    options: *const carat_session_options,
    plan: *mut carat_plan,
    error: *mut *mut carat_error,
) -> carat_status {
    guard(error, || {
        // SAFETY: the header's contract.
        unsafe {
            sized::check(plan, "plan")?;
            let model = hold(model, "model")?;
            let options = sized::read(options, "options")?.to_rust()?;
            sized::write(plan, &model.0.plan_session(&options)?.into(), "plan")
        }
    })
}
