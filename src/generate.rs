//! Generating text: prompt, then token after token until something ends it.

use std::ops::ControlFlow;
use std::time::{Duration, Instant};

use crate::sampler::{LogitsHook, Sampler, SamplingOptions, TokenLogProb, TopLogProbs};
use crate::session::Session;
use crate::stop::{StopFilter, Verdict};
use crate::tokenizer::StreamDecoder;
use crate::{CancelToken, Error, Result};

/// How to generate.
#[derive(Clone, Debug)]
#[non_exhaustive]
pub struct GenerateOptions {
    /// Most tokens to generate. Unless asked: as many as fit.
    pub max_tokens: usize,
    /// How to choose them.
    pub sampling: SamplingOptions,
    /// Texts that end the generation; no part of the one that does is emitted.
    pub stop: Vec<String>,
    /// For each token, so many of the likeliest ones with their log-probabilities. 0 unless asked, at most 1024.
    pub top_log_probs: usize,
    /// Go on after an end of turn or of the text, as benchmarks want it.
    pub ignore_end: bool,
    /// Stops it from any thread.
    pub cancel: Option<CancelToken>,
}

impl Default for GenerateOptions {
    fn default() -> Self {
        Self {
            max_tokens: usize::MAX,
            sampling: SamplingOptions::default(),
            stop: Vec::new(),
            top_log_probs: 0,
            ignore_end: false,
            cancel: None,
        }
    }
}

/// What a token added to the text.
#[derive(Clone, Copy, PartialEq, Debug)]
#[non_exhaustive]
pub struct Piece<'a> {
    /// Whole characters, often none: the beginning of a character, or of a stop string, is held back until it is
    /// decided. Bytes that are no UTF-8 come as U+FFFD.
    pub text: &'a str,
    /// The token; `None` for what was held back when the generation ended.
    pub token: Option<u32>,
    /// Its log-probability by the model's own logits, where [`GenerateOptions::top_log_probs`] asks for any.
    pub log_prob: Option<f32>,
    /// The likeliest tokens in its place, likeliest first.
    pub top: &'a [TokenLogProb],
}

/// Why a generation ended.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
#[non_exhaustive]
pub enum FinishReason {
    /// The model ended its turn or the text. That token is not part of the session's.
    EndOfTurn,
    /// [`GenerateOptions::max_tokens`].
    Limit,
    /// The stop string of this index.
    Stop(usize),
    /// The callback returned [`ControlFlow::Break`].
    Callback,
    /// The cancel token.
    Cancelled,
    /// The session holds as many tokens as it can. All that was emitted is part of it, and its logits are still there:
    /// saved, and loaded with a larger context, it goes on as if nothing had been in the way.
    ContextFull,
}

/// What a generation did.
#[derive(Clone, Copy, PartialEq, Debug)]
#[non_exhaustive]
pub struct Summary {
    /// Why it ended.
    pub reason: FinishReason,
    /// Tokens of the prompt that were processed.
    pub prompt_tokens: usize,
    /// Tokens of the prompt that the session held already.
    pub reused_tokens: usize,
    /// Tokens generated, an end of turn not counted.
    pub generated_tokens: usize,
    /// Tokens that were guessed and verified ahead: see [`SessionOptions::draft`](crate::SessionOptions::draft).
    pub drafted_tokens: usize,
    /// Those of them that came true: so many passes were saved.
    pub accepted_tokens: usize,
    /// From the call to the first logits.
    pub prompt_time: Duration,
    /// From there to the end.
    pub generate_time: Duration,
}

impl Summary {
    /// Of a generation that has got no further than its prompt.
    pub(crate) fn cancelled(prompt_tokens: usize, reused_tokens: usize, prompt_time: Duration) -> Summary {
        Summary {
            reason: FinishReason::Cancelled,
            prompt_tokens,
            reused_tokens,
            generated_tokens: 0,
            drafted_tokens: 0,
            accepted_tokens: 0,
            prompt_time,
            generate_time: Duration::ZERO,
        }
    }
}

/// Bytes of text that a token may add without an allocation: no piece of Gemma's is as long.
const PIECE_BYTES: usize = 1024;

/// The most bytes that generating takes, whatever its options, besides the caller's own stop strings and biases.
pub(crate) fn most_bytes(vocab: usize, context: usize) -> usize {
    Sampler::most_bytes(vocab, context)
        + TopLogProbs::MOST_BYTES
        + StreamDecoder::MOST_BYTES
        + 2 * StopFilter::room_bytes(&[], PIECE_BYTES)
}

impl Session {
    /// Adds a prompt and generates what follows it. `on_piece` is called for every token, on this thread.
    ///
    /// An empty prompt goes on from where the session is. Afterwards the session holds the prompt and every token that
    /// was emitted, whatever ended it, with one exception: cancelling, which is not an error here, may leave the last
    /// one out. After the first token nothing is allocated.
    ///
    /// # Errors
    /// Those of [`Session::prefill`]; [`Error::EmptyPrompt`] where there is nothing to go on from;
    /// [`Error::InvalidOption`]; [`Error::NanLogits`].
    pub fn generate(
        &mut self,
        prompt: &[u32],
        options: &GenerateOptions,
        on_piece: impl FnMut(Piece<'_>) -> ControlFlow<()>,
    ) -> Result<Summary> {
        self.run(prompt, options, None, &mut |_| Ok(false), on_piece)
    }

    /// As [`Self::generate`], with a hook that changes the logits before each token is chosen.
    ///
    /// # Errors
    /// As [`Self::generate`].
    pub fn generate_with_hook(
        &mut self,
        prompt: &[u32],
        options: &GenerateOptions,
        mut hook: impl FnMut(&[u32], &mut [f32]),
        on_piece: impl FnMut(Piece<'_>) -> ControlFlow<()>,
    ) -> Result<Summary> {
        self.run(prompt, options, Some(&mut hook), &mut |_| Ok(false), on_piece)
    }

    /// As [`Self::generate`]. When the context is full, `make_room` may shorten the text and say that it did; the
    /// logits are needed no more then.
    pub(crate) fn run(
        &mut self,
        prompt: &[u32],
        options: &GenerateOptions,
        mut hook: Option<&mut LogitsHook<'_>>,
        make_room: &mut dyn FnMut(&mut Session) -> Result<bool>,
        mut on_piece: impl FnMut(Piece<'_>) -> ControlFlow<()>,
    ) -> Result<Summary> {
        let began = Instant::now();
        self.check_usable()?;
        if !prompt.is_empty() || self.logits().is_none() {
            self.check_prompt(prompt)?;
        }
        let model = self.model().clone();
        let tokenizer = model.tokenizer()?;
        let vocab = model.config().vocab;
        let mut sampling = options.sampling.try_clone()?;
        // There are no more tokens to look at, and none to make room for.
        sampling.penalty_window = sampling.penalty_window.min(self.context());
        let mut sampler = Sampler::new(sampling, vocab, hook.is_some(), self.rng)?;
        let mut top = TopLogProbs::new(options.top_log_probs)?;
        let mut decoder = StreamDecoder::new(tokenizer)?;
        let mut stops = StopFilter::new(&options.stop, PIECE_BYTES)?;
        let mut text = StopFilter::room(&options.stop, PIECE_BYTES)?;
        let cancel = options.cancel.as_ref();
        let mut summary = Summary::cancelled(prompt.len(), 0, Duration::ZERO);
        if !prompt.is_empty() {
            let before = self.len();
            match self.prefill_with(prompt, cancel) {
                Err(Error::Cancelled) => {
                    summary.prompt_tokens = self.len() - before;
                    summary.prompt_time = began.elapsed();
                    return Ok(summary);
                }
                other => other?,
            }
        }
        summary.prompt_time = began.elapsed();
        let kernels = model.0.kernels;
        self.begin_drafts(true);
        summary.reason = loop {
            if summary.generated_tokens == options.max_tokens {
                break FinishReason::Limit;
            }
            if cancel.is_some_and(CancelToken::is_cancelled) {
                break FinishReason::Cancelled;
            }
            let logits = self.logits().ok_or(Error::EmptyPrompt)?;
            let pieces = tokenizer.vocab_size();
            let token = sampler.sample(&kernels, self.tokens(), logits, pieces, hook.as_deref_mut())?;
            if tokenizer.is_end_of_generation(token) && !options.ignore_end {
                self.rng = sampler.rng;
                break FinishReason::EndOfTurn;
            }
            let log_prob = top.of(&kernels, self.logits().unwrap_or_default(), pieces, token);
            if self.len() == self.context() {
                // What the session has no room for is not shown, nor are random numbers spent on it: where there is
                // more room it will be drawn again.
                match make_room(self) {
                    Ok(true) => self.begin_drafts(false),
                    Ok(false) => break FinishReason::ContextFull,
                    Err(Error::Cancelled) => break FinishReason::Cancelled,
                    Err(e) => return Err(e),
                }
            }
            self.rng = sampler.rng;
            summary.generated_tokens += 1;
            text.clear();
            let verdict = stops.push(decoder.push(token)?, &mut text);
            let piece = Piece { text: &text, token: Some(token), log_prob, top: &top.top };
            let flow = on_piece(piece);
            let ended = match (verdict, flow) {
                (Verdict::Stop(i), _) => Some(FinishReason::Stop(i)),
                (_, ControlFlow::Break(())) => Some(FinishReason::Callback),
                _ => None,
            };
            let wanted = if ended.is_some() { 0 } else { options.max_tokens - summary.generated_tokens };
            match self.advance(token, wanted, cancel) {
                Err(Error::Cancelled) => break ended.unwrap_or(FinishReason::Cancelled),
                other => other?,
            }
            if let Some(reason) = ended {
                break reason;
            }
        };
        // What was held back is text after all, unless a stop string or the caller ended it.
        if !matches!(summary.reason, FinishReason::Stop(_) | FinishReason::Callback) {
            text.clear();
            if stops.push(decoder.flush(), &mut text) == Verdict::Continue {
                stops.flush(&mut text);
            }
            if !text.is_empty() {
                let _ = on_piece(Piece { text: &text, token: None, log_prob: None, top: &[] });
            }
        }
        (summary.drafted_tokens, summary.accepted_tokens) = self.drafts();
        summary.generate_time = began.elapsed() - summary.prompt_time;
        Ok(summary)
    }
}
