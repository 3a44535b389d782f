//! Generating text.

use std::cell::Cell;
use std::ffi::{c_char, c_void};
use std::ops::ControlFlow;

use super::*;
use crate::{FinishReason, GenerateOptions, Piece, SamplingOptions, Summary, TokenLogProb};

/// The model ended its turn or the text.
pub const CARAT_FINISH_END_OF_TURN: i32 = 0;
/// `max_tokens`.
pub const CARAT_FINISH_LIMIT: i32 = 1;
/// A stop string.
pub const CARAT_FINISH_STOP: i32 = 2;
/// A callback returned 0.
pub const CARAT_FINISH_CALLBACK: i32 = 3;
/// The cancel token.
pub const CARAT_FINISH_CANCELLED: i32 = 4;
/// There is no room for another token.
pub const CARAT_FINISH_CONTEXT_FULL: i32 = 5;

/// A number added to the logit of a token.
#[repr(C)]
#[derive(Clone, Copy)]
pub struct carat_logit_bias {
    /// Its id.
    pub token: u32,
    /// Added to its logit; −INFINITY forbids it.
    pub bias: f32,
}

/// A token and its log-probability.
#[repr(C)]
#[derive(Clone, Copy)]
pub struct carat_token_log_prob {
    /// Its id.
    pub token: u32,
    /// Natural logarithm of its probability.
    pub log_prob: f32,
}

// What the callback gets is the library's own array.
const _: () = assert!(
    size_of::<TokenLogProb>() == size_of::<carat_token_log_prob>()
        && align_of::<TokenLogProb>() == align_of::<carat_token_log_prob>()
        && std::mem::offset_of!(TokenLogProb, token) == 0
        && std::mem::offset_of!(TokenLogProb, log_prob) == 4
);

/// What a token added to the text. The library fills it for a callback: `struct_size` says how much of it there is.
#[repr(C)]
#[derive(Clone, Copy)]
pub struct carat_piece {
    /// The size of this struct as the library was compiled.
    pub struct_size: u32,
    /// 0 for text that was held back when the generation ended, else 1.
    pub has_token: i32,
    /// Whole characters, often none, UTF-8, not ended by a NUL. Valid during the call.
    pub text: *const c_char,
    /// Bytes of the text.
    pub text_len: usize,
    /// The token, where there is one.
    pub token: u32,
    /// Its log-probability by the model's own logits, where `top_log_probs` asked for any; else NaN.
    pub log_prob: f32,
    /// The likeliest tokens in its place, likeliest first. Valid during the call.
    pub top: *const carat_token_log_prob,
    /// How many.
    pub n_top: usize,
}

/// Takes a piece of the text. Returns 1 to go on, 0 to stop: the piece's token is part of the session then.
pub type carat_piece_fn =
    Option<unsafe extern "C" fn(user_data: *mut c_void, piece: *const carat_piece) -> i32>;

/// Changes the logits `[n_logits]` of the next token before it is chosen, given the tokens so far. Both are valid
/// during the call. Returns 1 to go on, 0 to stop: no further callback is made.
pub type carat_hook_fn = Option<
    unsafe extern "C" fn(
        user_data: *mut c_void,
        tokens: *const u32,
        n_tokens: usize,
        logits: *mut f32,
        n_logits: usize,
    ) -> i32,
>;

/// How to generate. Made by carat_generate_options_init(). Tokens are chosen in this order: logit bias, repetition,
/// presence and frequency penalties, the hook, greedy where the temperature is 0, else temperature, top-k, top-p,
/// min-p, draw.
#[repr(C)]
#[derive(Clone, Copy)]
pub struct carat_generate_options {
    /// sizeof(carat_generate_options), as the caller was compiled.
    pub struct_size: u32,
    /// 1: go on after an end of turn or of the text, as benchmarks want it.
    pub ignore_end: i32,
    /// Most tokens to generate; UINT64_MAX, the default: as many as fit.
    pub max_tokens: u64,
    /// Logits are divided by it; 0 chooses the likeliest token. 1 by default.
    pub temperature: f32,
    /// Only the likeliest tokens that together have this probability are drawn from. 0.95 by default.
    pub top_p: f32,
    /// Only tokens with at least this share of the likeliest one's probability are drawn from. 0 by default.
    pub min_p: f32,
    /// The logit of a token that occurred is divided by it where it is positive, else multiplied. 1 by default.
    pub repetition_penalty: f32,
    /// Subtracted from the logit of a token that occurred. 0 by default.
    pub presence_penalty: f32,
    /// Subtracted from the logit of a token for each time it occurred. 0 by default.
    pub frequency_penalty: f32,
    /// Only this many of the likeliest tokens are drawn from; 0 for all. 64 by default.
    pub top_k: u32,
    /// How many of the last tokens, the prompt's included, the penalties look at. 64 by default.
    pub penalty_window: u32,
    /// For each token, so many of the likeliest ones with their log-probabilities, at most 1024. 0 by default.
    pub top_log_probs: u32,
    /// 1: `seed` is one. 0: go on with the session's own random numbers.
    pub has_seed: i32,
    /// Where the random numbers begin: the same seed gives the same text.
    pub seed: u64,
    /// Added to logits; may be NULL where there are none. Borrowed during the call.
    pub logit_bias: *const carat_logit_bias,
    /// How many.
    pub n_logit_bias: usize,
    /// Texts that end the generation; may be NULL where there are none. Borrowed during the call.
    pub stop: *const carat_text,
    /// How many.
    pub n_stop: usize,
    /// Stops it from any thread; NULL for none.
    pub cancel: *const carat_cancel,
    /// Changes the logits; NULL for none. Not for conversations.
    pub hook: carat_hook_fn,
    /// Handed to `hook`.
    pub hook_data: *mut c_void,
}

// SAFETY: repr(C), its size first, of integers, floats, pointers and an optional function pointer.
unsafe impl sized::Grows for carat_generate_options {
    fn defaults() -> Self {
        let s = SamplingOptions::default();
        carat_generate_options {
            struct_size: size_of::<Self>() as u32,
            ignore_end: 0,
            max_tokens: u64::MAX,
            temperature: s.temperature,
            top_p: s.top_p,
            min_p: s.min_p,
            repetition_penalty: s.repetition_penalty,
            presence_penalty: s.presence_penalty,
            frequency_penalty: s.frequency_penalty,
            top_k: s.top_k as u32,
            penalty_window: s.penalty_window as u32,
            top_log_probs: 0,
            has_seed: 0,
            seed: 0,
            logit_bias: std::ptr::null(),
            n_logit_bias: 0,
            stop: std::ptr::null(),
            n_stop: 0,
            cancel: std::ptr::null(),
            hook: None,
            hook_data: std::ptr::null_mut(),
        }
    }
}

/// What a generation did.
#[repr(C)]
#[derive(Clone, Copy)]
pub struct carat_summary {
    /// sizeof(carat_summary), as the caller was compiled.
    pub struct_size: u32,
    /// CARAT_FINISH_*
    pub reason: i32,
    /// With CARAT_FINISH_STOP, the index of the stop string; else 0.
    pub stop_index: u64,
    /// Tokens of the prompt that were processed.
    pub prompt_tokens: u64,
    /// Tokens of the prompt that the session held already.
    pub reused_tokens: u64,
    /// Tokens generated, an end of turn not counted.
    pub generated_tokens: u64,
    /// From the call to the first logits, in nanoseconds.
    pub prompt_ns: u64,
    /// From there to the end, in nanoseconds.
    pub generate_ns: u64,
    /// Tokens that were guessed and verified ahead: see carat_session_options.
    pub drafted_tokens: u64,
    /// Those of them that came true: so many passes were saved.
    pub accepted_tokens: u64,
}

// SAFETY: repr(C), its size first, of integers.
unsafe impl sized::Grows for carat_summary {
    fn defaults() -> Self {
        carat_summary {
            struct_size: size_of::<Self>() as u32,
            reason: 0,
            stop_index: 0,
            prompt_tokens: 0,
            reused_tokens: 0,
            generated_tokens: 0,
            prompt_ns: 0,
            generate_ns: 0,
            drafted_tokens: 0,
            accepted_tokens: 0,
        }
    }
}

impl From<Summary> for carat_summary {
    fn from(s: Summary) -> Self {
        let ns = |t: std::time::Duration| u64::try_from(t.as_nanos()).unwrap_or(u64::MAX);
        let (reason, stop_index) = match s.reason {
            FinishReason::EndOfTurn => (CARAT_FINISH_END_OF_TURN, 0),
            FinishReason::Limit => (CARAT_FINISH_LIMIT, 0),
            FinishReason::Stop(i) => (CARAT_FINISH_STOP, i as u64),
            FinishReason::Callback => (CARAT_FINISH_CALLBACK, 0),
            FinishReason::Cancelled => (CARAT_FINISH_CANCELLED, 0),
            FinishReason::ContextFull => (CARAT_FINISH_CONTEXT_FULL, 0),
        };
        carat_summary {
            struct_size: size_of::<Self>() as u32,
            reason,
            stop_index,
            prompt_tokens: s.prompt_tokens as u64,
            reused_tokens: s.reused_tokens as u64,
            generated_tokens: s.generated_tokens as u64,
            prompt_ns: ns(s.prompt_time),
            generate_ns: ns(s.generate_time),
            drafted_tokens: s.drafted_tokens as u64,
            accepted_tokens: s.accepted_tokens as u64,
        }
    }
}

impl carat_generate_options {
    /// Not inlined: half a dozen entry points call it.
    ///
    /// # Safety
    /// Its pointers are as the header's contract says.
    #[inline(never)]
    pub(super) unsafe fn to_rust(self) -> Outcome<GenerateOptions> {
        // SAFETY: the caller's promise, here and below.
        let biases = unsafe { slice(self.logit_bias, self.n_logit_bias, "logit_bias") }?;
        // SAFETY: as above.
        let stops = unsafe { slice(self.stop, self.n_stop, "stop") }?;
        let size = |n: u64| usize::try_from(n).unwrap_or(usize::MAX);
        Ok(GenerateOptions {
            max_tokens: size(self.max_tokens),
            sampling: SamplingOptions {
                temperature: self.temperature,
                top_k: self.top_k as usize,
                top_p: self.top_p,
                min_p: self.min_p,
                repetition_penalty: self.repetition_penalty,
                presence_penalty: self.presence_penalty,
                frequency_penalty: self.frequency_penalty,
                penalty_window: self.penalty_window as usize,
                logit_bias: biases.iter().map(|b| (b.token, b.bias)).collect(),
                seed: boolean(self.has_seed, "has_seed")?.then_some(self.seed),
            },
            stop: stops
                .iter()
                // SAFETY: as above.
                .map(|s| unsafe { text(s.ptr, s.len, "a stop string") }.map(String::from))
                .collect::<Outcome<_>>()?,
            top_log_probs: self.top_log_probs as usize,
            ignore_end: boolean(self.ignore_end, "ignore_end")?,
            // SAFETY: as above.
            cancel: unsafe { cancel::token(self.cancel) },
        })
    }
}

/// Hands a piece to the caller; without a callback there is nobody to stop it.
///
/// # Safety
/// As the header's contract for callbacks.
pub(super) unsafe fn emit(on_piece: carat_piece_fn, data: *mut c_void, piece: &Piece<'_>) -> ControlFlow<()> {
    let Some(on_piece) = on_piece else { return ControlFlow::Continue(()) };
    let value = carat_piece {
        struct_size: size_of::<carat_piece>() as u32,
        has_token: piece.token.is_some() as i32,
        text: piece.text.as_ptr().cast(),
        text_len: piece.text.len(),
        token: piece.token.unwrap_or(0),
        log_prob: piece.log_prob.unwrap_or(f32::NAN),
        top: piece.top.as_ptr().cast(),
        n_top: piece.top.len(),
    };
    // SAFETY: the caller's promise.
    match unsafe { on_piece(data, &value) } {
        0 => ControlFlow::Break(()),
        _ => ControlFlow::Continue(()),
    }
}

/// As carat_model_options_init().
///
/// Threads: any.
#[unsafe(no_mangle)]
pub unsafe extern "C" fn carat_generate_options_init(
    options: *mut carat_generate_options,
    struct_size: usize,
) {
    // SAFETY: the header's contract.
    guard_value((), || unsafe { sized::init(options, struct_size) });
}

/// As carat_model_options_init().
///
/// Threads: any.
#[unsafe(no_mangle)]
pub unsafe extern "C" fn carat_summary_init(summary: *mut carat_summary, struct_size: usize) {
    // SAFETY: the header's contract.
    guard_value((), || unsafe { sized::init(summary, struct_size) });
}

/// Adds a prompt and generates what follows it. `on_piece` is called for every token, on this thread, before the call
/// returns; it may be NULL. `options` may be NULL for the defaults, `summary` where nobody wants to know.
///
/// An empty prompt goes on from where the session is, which needs logits: see carat_session_logits(). After a generation
/// that ended by its limit, a stop string or a callback it goes on behind the last token that was handed out; after an
/// end of turn, which is not part of the session, it chooses in its place again. After CARAT_FINISH_CANCELLED the session
/// may lack the last token that was handed out and have no logits: give that token as the prompt.
///
/// Cancelling is not an error here: the summary says so. After the first token nothing is allocated.
///
/// Ownership: all is borrowed. `summary` is the caller's struct, made by carat_summary_init().
/// Threads: any, one call at a time; the callbacks get CARAT_BUSY from this session.
/// Errors: those of carat_session_prefill(); CARAT_EMPTY_PROMPT where there is nothing to go on from;
/// CARAT_INVALID_OPTION; CARAT_NAN_LOGITS.
#[unsafe(no_mangle)]
pub unsafe extern "C" fn carat_session_generate(
    session: *mut carat_session,
    prompt: *const u32,
    n_prompt: usize,
    options: *const carat_generate_options,
    on_piece: carat_piece_fn,
    user_data: *mut c_void,
    summary: *mut carat_summary,
    error: *mut *mut carat_error,
) -> carat_status {
    guard(error, || {
        // SAFETY: the header's contract, here and below.
        unsafe {
            sized::check_if_asked(summary, "summary")?;
            let session = hold(session, "session")?;
            let prompt = slice(prompt, n_prompt, "prompt")?;
            let o = sized::read(options, "options")?;
            let mut options = o.to_rust()?;
            let done = session.0.with(|session| match o.hook {
                None => Ok(session.generate(prompt, &options, |p| emit(on_piece, user_data, &p))?),
                Some(hook) => {
                    // A hook cannot stop a generation, a cancel token can.
                    let stop = options.cancel.take().unwrap_or_default().child();
                    options.cancel = Some(stop.clone());
                    let stopped = Cell::new(false);
                    let hook = |tokens: &[u32], logits: &mut [f32]| {
                        let (n, n_logits) = (tokens.len(), logits.len());
                        if hook(o.hook_data, tokens.as_ptr(), n, logits.as_mut_ptr(), n_logits) == 0 {
                            stopped.set(true);
                            stop.cancel();
                        }
                    };
                    let mut done = session.generate_with_hook(prompt, &options, hook, |p| {
                        // The token that was chosen after the hook's last call is not the session's.
                        if stopped.get() { ControlFlow::Continue(()) } else { emit(on_piece, user_data, &p) }
                    })?;
                    if stopped.get() {
                        done.reason = FinishReason::Callback;
                        done.generated_tokens = done.generated_tokens.saturating_sub(1);
                    }
                    Ok(done)
                }
            })?;
            sized::write_if_asked(summary, &done.into(), "summary")
        }
    })
}
