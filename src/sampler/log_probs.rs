//! Log-probabilities.

use super::candidates::{Candidate, SHORT_LIST, SHORT_LIST_ROOM, likeliest};
use crate::kernels::Kernels;
use crate::{Error, Result};

/// ln Σ exp(logits), or what is not finite where a logit is not.
pub(crate) fn log_sum_exp(k: &Kernels, logits: &[f32]) -> f64 {
    let max = k.max(logits);
    max as f64 + (k.sum_exp(logits, max) as f64).ln()
}

/// The log-probability of a logit among others, whose [`log_sum_exp`] is given.
pub(crate) fn log_prob(logit: f32, log_sum: f64) -> f32 {
    (logit as f64 - log_sum) as f32
}

/// A token with its log-probability.
#[derive(Clone, Copy, PartialEq, Debug)]
#[non_exhaustive]
#[repr(C)] // handed out by the C ABI as it is
pub struct TokenLogProb {
    /// Its id.
    pub token: u32,
    /// Natural logarithm of its probability, by the model's own logits: before bias, penalties, hook and temperature.
    pub log_prob: f32,
}

/// Finds the likeliest tokens of each step without allocating.
pub(crate) struct TopLogProbs {
    candidates: Vec<Candidate>,
    /// The likeliest, first.
    pub(crate) top: Vec<TokenLogProb>,
    n: usize,
}

impl TopLogProbs {
    /// The most bytes that `new` takes.
    pub(crate) const MOST_BYTES: usize =
        SHORT_LIST_ROOM * size_of::<Candidate>() + SHORT_LIST * size_of::<TokenLogProb>();

    pub(crate) fn new(n: usize) -> Result<TopLogProbs> {
        if n > SHORT_LIST {
            return Err(Error::InvalidOption {
                option: "top_log_probs",
                expected: format!("0 to {SHORT_LIST}"),
                found: n.to_string(),
            });
        }
        let room = if n == 0 { 0 } else { SHORT_LIST_ROOM };
        Ok(TopLogProbs { candidates: Vec::with_capacity(room), top: Vec::with_capacity(n), n })
    }

    /// Fills `top` from the logits of the ids before `pieces`, which are those that have a piece, and returns the
    /// log-probability of `token`.
    pub(crate) fn of(&mut self, k: &Kernels, logits: &[f32], pieces: usize, token: u32) -> Option<f32> {
        if self.n == 0 {
            return None;
        }
        let log_sum = log_sum_exp(k, logits);
        likeliest(&logits[..pieces.min(logits.len())], self.n, &mut self.candidates);
        self.candidates.sort_unstable_by(Candidate::order);
        self.top.clear();
        self.top.extend(
            self.candidates
                .iter()
                .map(|c| TokenLogProb { token: c.id, log_prob: log_prob(c.value, log_sum) }),
        );
        Some(log_prob(logits[token as usize], log_sum))
    }
}
