//! From logits to a token.
//!
//! The order is fixed: logit bias · repetition, presence and frequency penalties · the caller's hook · greedy when the
//! temperature is 0, else temperature · top-k · top-p · min-p · draw. The defaults are those that Gemma 3 is published
//! with: temperature 1, top-k 64, top-p 0.95.

mod candidates;
mod log_probs;
mod rng;

#[cfg(test)]
mod tests;

use crate::kernels::Kernels;
use crate::{Error, Result};
use candidates::{Candidate, SHORT_LIST, SHORT_LIST_ROOM, highest, likeliest, sort_until};
pub use log_probs::TokenLogProb;
pub(crate) use log_probs::{TopLogProbs, log_prob, log_sum_exp};
pub(crate) use rng::Rng;

/// How to choose the next token.
#[derive(Clone, PartialEq, Debug)]
#[non_exhaustive]
pub struct SamplingOptions {
    /// Logits are divided by it; 0 chooses the likeliest token (of equals, the lowest id). 1 unless asked.
    pub temperature: f32,
    /// Only this many of the likeliest tokens are drawn from; 0 for all. 64 unless asked.
    pub top_k: usize,
    /// Only the likeliest tokens that together have this probability are drawn from; 1 for all. 0.95 unless asked.
    pub top_p: f32,
    /// Only tokens with at least this share of the likeliest one's probability are drawn from. 0 unless asked.
    pub min_p: f32,
    /// The logit of a token that occurred is divided by it where it is positive, else multiplied. 1 unless asked.
    pub repetition_penalty: f32,
    /// Subtracted from the logit of a token that occurred. 0 unless asked.
    pub presence_penalty: f32,
    /// Subtracted from the logit of a token for each time it occurred. 0 unless asked.
    pub frequency_penalty: f32,
    /// How many of the last tokens, the prompt's included, the penalties look at. 64 unless asked.
    pub penalty_window: usize,
    /// Added to the logits of these ids; −∞ forbids one.
    pub logit_bias: Vec<(u32, f32)>,
    /// Where the random numbers begin: the same seed gives the same text. `None` goes on with the session's own
    /// numbers, which begin somewhere else for each session and are saved with it.
    pub seed: Option<u64>,
}

impl Default for SamplingOptions {
    fn default() -> Self {
        Self {
            temperature: 1.0,
            top_k: 64,
            top_p: 0.95,
            min_p: 0.0,
            repetition_penalty: 1.0,
            presence_penalty: 0.0,
            frequency_penalty: 0.0,
            penalty_window: 64,
            logit_bias: Vec::new(),
            seed: None,
        }
    }
}

impl SamplingOptions {
    /// The likeliest token each time.
    pub fn greedy() -> Self {
        Self { temperature: 0.0, ..Default::default() }
    }

    fn check(&self, vocab: usize) -> Result<()> {
        let range = |option, value: f32, ok: bool, expected: &str| match ok {
            true => Ok(()),
            false => {
                Err(Error::InvalidOption { option, expected: expected.to_string(), found: value.to_string() })
            }
        };
        let t = self.temperature;
        range("temperature", t, t.is_finite() && t >= 0.0, "a finite number, 0 or more")?;
        range("top_p", self.top_p, self.top_p > 0.0 && self.top_p <= 1.0, "above 0, at most 1")?;
        range("min_p", self.min_p, (0.0..=1.0).contains(&self.min_p), "0 to 1")?;
        let r = self.repetition_penalty;
        range("repetition_penalty", r, r.is_finite() && r > 0.0, "a finite number above 0")?;
        range(
            "presence_penalty",
            self.presence_penalty,
            self.presence_penalty.is_finite(),
            "a finite number",
        )?;
        range(
            "frequency_penalty",
            self.frequency_penalty,
            self.frequency_penalty.is_finite(),
            "a finite number",
        )?;
        for &(id, bias) in &self.logit_bias {
            range("logit_bias", bias, !bias.is_nan() && bias < f32::INFINITY, "a number below infinity")?;
            if id as usize >= vocab {
                return Err(Error::TokenOutOfRange { token: id, position: 0, vocab });
            }
        }
        Ok(())
    }

    /// A copy; the list of biases is the caller's and may be long.
    pub(crate) fn try_clone(&self) -> Result<Self> {
        let mut logit_bias = crate::error::try_with_capacity(self.logit_bias.len(), "the logit biases")?;
        logit_bias.extend_from_slice(&self.logit_bias);
        Ok(SamplingOptions { logit_bias, ..*self })
    }

    fn has_penalties(&self) -> bool {
        self.penalty_window > 0
            && (self.repetition_penalty != 1.0
                || self.presence_penalty != 0.0
                || self.frequency_penalty != 0.0)
    }
}

/// Changes the logits before sampling: given the tokens so far and the logits `[vocab]` of the next.
pub type LogitsHook<'a> = dyn FnMut(&[u32], &mut [f32]) + 'a;

/// Chooses tokens, one after the other. Everything it needs is allocated when it is made.
pub(crate) struct Sampler {
    options: SamplingOptions,
    pub(crate) rng: Rng,
    /// `[vocab]`, where the options or a hook change logits.
    logits: Vec<f32>,
    candidates: Vec<Candidate>,
    /// The tokens that the penalties look at, sorted.
    recent: Vec<u32>,
}

impl Sampler {
    /// For logits of `vocab` tokens; `hooked` where a hook will be given; `rng` is what a seed of `None` goes on with.
    pub(crate) fn new(options: SamplingOptions, vocab: usize, hooked: bool, rng: Rng) -> Result<Sampler> {
        options.check(vocab)?;
        let what = "the sampler's candidates";
        let changes = hooked || !options.logit_bias.is_empty() || options.has_penalties();
        let short = options.temperature == 0.0 || (1..=SHORT_LIST).contains(&options.top_k);
        let none = Candidate { id: 0, value: 0.0 };
        let mut candidates = crate::error::try_vec(
            if short { SHORT_LIST_ROOM } else { vocab.max(SHORT_LIST_ROOM) },
            none,
            what,
        )?;
        candidates.clear();
        let window = if options.has_penalties() { options.penalty_window.min(1 << 20) } else { 0 };
        let mut recent = crate::error::try_vec(window, 0, what)?;
        recent.clear();
        Ok(Sampler {
            rng: options.seed.map_or(rng, Rng::new),
            logits: crate::error::try_vec(if changes { vocab } else { 0 }, 0.0, what)?,
            candidates,
            recent,
            options,
        })
    }

    /// The most bytes that `new` takes, whatever the options, where penalties look at no more than `context` tokens.
    /// The caller's list of biases is not among them.
    pub(crate) fn most_bytes(vocab: usize, context: usize) -> usize {
        size_of::<f32>() * vocab
            + size_of::<Candidate>() * vocab.max(SHORT_LIST_ROOM)
            + size_of::<u32>() * context
    }

    /// The next token of a text whose tokens so far are `tokens`, by the `logits` `[vocab]` of the last. Ids from
    /// `pieces` on have no piece and are never chosen.
    pub(crate) fn sample(
        &mut self,
        k: &Kernels,
        tokens: &[u32],
        logits: &[f32],
        pieces: usize,
        hook: Option<&mut LogitsHook<'_>>,
    ) -> Result<u32> {
        let Sampler { options: o, rng, logits: changed, candidates, recent } = self;
        let pieces = pieces.min(logits.len());
        let logits = if changed.is_empty() {
            &logits[..pieces]
        } else {
            changed.copy_from_slice(logits);
            for &(id, bias) in &o.logit_bias {
                changed[id as usize] += bias;
            }
            if o.has_penalties() {
                penalize(o, tokens, recent, changed);
            }
            if let Some(hook) = hook {
                hook(tokens, changed);
            }
            &changed[..pieces]
        };
        let (max, likeliest_id) =
            highest(k, logits).map_err(|id| Error::NanLogits { token: id as u32, position: tokens.len() })?;
        if max == f32::NEG_INFINITY {
            // Everything is forbidden: there is no probability to draw from.
            return Err(Error::InvalidOption {
                option: "logit_bias",
                expected: "a token that may be chosen".into(),
                found: "all logits −∞".into(),
            });
        }
        if o.temperature == 0.0 || max == f32::INFINITY {
            return Ok(likeliest_id as u32);
        }
        if (1..=SHORT_LIST).contains(&o.top_k) {
            likeliest(logits, o.top_k, candidates);
        } else {
            candidates.clear();
            candidates
                .extend(logits.iter().enumerate().map(|(id, &value)| Candidate { id: id as u32, value }));
            if o.top_k > 0 && o.top_k < candidates.len() {
                candidates.select_nth_unstable_by(o.top_k - 1, Candidate::order);
                candidates.truncate(o.top_k);
            }
        }
        // From logits to weights: probabilities times a constant, 1 for the likeliest. (Not by a reciprocal, which
        // is infinite for the lowest temperatures.)
        let mut total = 0f64;
        for c in candidates.iter_mut() {
            c.value = ((c.value - max) / o.temperature).exp();
            total += c.value as f64;
        }
        // A weight of 0 is never drawn, not even where rounding leaves nothing for the end of a draw. Those below
        // the share that each has in what top-p leaves out are part of that: of a long list that is nearly all, and
        // need not be sorted.
        let left_out = (1.0 - o.top_p as f64) * total / candidates.len() as f64;
        let floor = o.min_p.max((0.5 * left_out) as f32);
        candidates.retain(|c| c.value > 0.0 && c.value >= floor);
        // All of a vocabulary may stay in the order of ids.
        if o.top_p < 1.0 || o.top_k > 0 {
            let kept = sort_until(candidates, o.top_p as f64 * total);
            candidates.truncate(kept);
        }
        let total: f64 = candidates.iter().map(|c| c.value as f64).sum();
        let mut left = rng.uniform() * total;
        for c in candidates.iter() {
            left -= c.value as f64;
            if left < 0.0 {
                return Ok(c.id);
            }
        }
        Ok(candidates.last().map_or(0, |c| c.id))
    }
}

/// The penalties, over the last tokens.
fn penalize(o: &SamplingOptions, tokens: &[u32], recent: &mut Vec<u32>, logits: &mut [f32]) {
    recent.clear();
    let window = recent.capacity().min(o.penalty_window);
    recent.extend_from_slice(&tokens[tokens.len().saturating_sub(window)..]);
    recent.sort_unstable();
    for run in recent.chunk_by(|a, b| a == b) {
        let Some(l) = logits.get_mut(run[0] as usize) else { continue };
        *l = if *l > 0.0 { *l / o.repetition_penalty } else { *l * o.repetition_penalty };
        *l -= o.presence_penalty + o.frequency_penalty * run.len() as f32;
    }
}
