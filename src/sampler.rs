//! From logits to a token.
//!
//! The order is fixed: logit bias · repetition, presence and frequency penalties · the caller's hook · greedy when the
//! temperature is 0, else temperature · top-k · top-p · min-p · draw. The defaults are those that Gemma 3 is published
//! with: temperature 1, top-k 64, top-p 0.95.

use crate::kernels::Kernels;
use crate::{Error, Result};

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

/// xoshiro256++ by Blackman and Vigna, seeded through SplitMix64 (<https://prng.di.unimi.it>).
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub(crate) struct Rng(pub(crate) [u64; 4]);

impl Rng {
    pub(crate) fn new(mut seed: u64) -> Rng {
        Rng(std::array::from_fn(|_| {
            seed = seed.wrapping_add(0x9e37_79b9_7f4a_7c15);
            let z = (seed ^ (seed >> 30)).wrapping_mul(0xbf58_476d_1ce4_e5b9);
            let z = (z ^ (z >> 27)).wrapping_mul(0x94d0_49bb_1331_11eb);
            z ^ (z >> 31)
        }))
    }

    /// One that begins somewhere else each time.
    pub(crate) fn unpredictable() -> Rng {
        use std::hash::{BuildHasher, Hasher};
        Rng::new(std::hash::RandomState::new().build_hasher().finish())
    }

    fn next(&mut self) -> u64 {
        let s = &mut self.0;
        let result = s[0].wrapping_add(s[3]).rotate_left(23).wrapping_add(s[0]);
        let t = s[1] << 17;
        s[2] ^= s[0];
        s[3] ^= s[1];
        s[1] ^= s[2];
        s[0] ^= s[3];
        s[2] ^= t;
        s[3] = s[3].rotate_left(45);
        result
    }

    /// In [0, 1), in steps of 2⁻⁵³.
    fn uniform(&mut self) -> f64 {
        (self.next() >> 11) as f64 * (1.0 / (1u64 << 53) as f64)
    }
}

/// A token and a value that ranks it.
#[derive(Clone, Copy, PartialEq, Debug)]
struct Candidate {
    id: u32,
    value: f32,
}

impl Candidate {
    /// Likelier first; of equals, the lower id.
    fn order(&self, other: &Candidate) -> std::cmp::Ordering {
        other.value.total_cmp(&self.value).then(self.id.cmp(&other.id))
    }
}

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

/// Up to this many candidates are found in one pass over the logits; more are selected from a list of all.
const SHORT_LIST: usize = 1024;
/// Logits that are looked at together.
const RUN: usize = 32;
/// Candidates that finding a short list may hold for a moment.
const SHORT_LIST_ROOM: usize = 2 * SHORT_LIST + RUN;

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

/// The highest logit and the lowest id that has it; or the lowest id whose logit is not a number.
fn highest(k: &Kernels, logits: &[f32]) -> Result<(f32, usize), usize> {
    // Parts that stay in the innermost cache between looking for the highest and looking for what is no number.
    const PART: usize = 2048;
    let (mut max, mut best) = (f32::NEG_INFINITY, 0);
    for (part, values) in logits.chunks(PART).enumerate() {
        // A fold that looks at all values is a few wide instructions; a search that may end early is not.
        if values.iter().fold(false, |any, v| any | v.is_nan()) {
            return Err(part * PART + values.iter().position(|v| v.is_nan()).unwrap_or(0));
        }
        let m = k.max(values);
        if m > max {
            (max, best) = (m, part);
        }
    }
    let first = best * PART;
    let id = logits[first..].iter().position(|&l| l == max).unwrap_or(0);
    Ok((max, first + id))
}

/// The `n` highest logits, in any order: one pass that looks only at what exceeds the lowest found so far.
fn likeliest(logits: &[f32], n: usize, out: &mut Vec<Candidate>) {
    out.clear();
    let mut floor = f32::NEG_INFINITY;
    // Short runs are skipped whole where none of their values counts, which the compiler makes a few instructions.
    for (run, values) in logits.chunks(RUN).enumerate() {
        if out.len() >= n && !values.iter().fold(false, |any, &v| any | (v > floor)) {
            continue;
        }
        for (i, &value) in values.iter().enumerate() {
            if out.len() < n || value > floor {
                out.push(Candidate { id: (run * RUN + i) as u32, value });
            }
        }
        if out.len() >= 2 * n.max(32) || (out.len() >= n && floor == f32::NEG_INFINITY) {
            out.select_nth_unstable_by(n - 1, Candidate::order);
            out.truncate(n);
            floor = out.iter().fold(f32::INFINITY, |m, c| m.min(c.value));
        }
    }
    if out.len() > n {
        out.select_nth_unstable_by(n - 1, Candidate::order);
        out.truncate(n);
    }
}

/// Sorts the front of the candidates, likeliest first, as far as is needed for their values to reach `sum`; returns
/// how many that takes. Only few do, of a long list.
fn sort_until(candidates: &mut [Candidate], sum: f64) -> usize {
    let mut sorted = 0;
    let mut reached = 0f64;
    let mut step = 128;
    while sorted < candidates.len() {
        let rest = &mut candidates[sorted..];
        let n = step.min(rest.len());
        if n < rest.len() {
            rest.select_nth_unstable_by(n - 1, Candidate::order);
        }
        rest[..n].sort_unstable_by(Candidate::order);
        for (i, c) in rest[..n].iter().enumerate() {
            reached += c.value as f64;
            if reached >= sum {
                return sorted + i + 1;
            }
        }
        sorted += n;
        step *= 4;
    }
    candidates.len()
}

/// A token with its log-probability.
#[derive(Clone, Copy, PartialEq, Debug)]
#[non_exhaustive]
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
        let max = k.max(logits);
        let log_sum = max + k.sum_exp(logits, max).ln();
        likeliest(&logits[..pieces.min(logits.len())], self.n, &mut self.candidates);
        self.candidates.sort_unstable_by(Candidate::order);
        self.top.clear();
        self.top.extend(
            self.candidates.iter().map(|c| TokenLogProb { token: c.id, log_prob: c.value - log_sum }),
        );
        Some(logits[token as usize] - log_sum)
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::Isa;

    fn sampler(options: SamplingOptions, vocab: usize) -> Sampler {
        Sampler::new(options, vocab, false, Rng::new(0)).unwrap()
    }

    fn draw(s: &mut Sampler, logits: &[f32]) -> u32 {
        let k = Kernels::new(Isa::Scalar).unwrap();
        s.sample(&k, &[], logits, logits.len(), None).unwrap()
    }

    #[test]
    fn xoshiro_matches_its_published_sequence() {
        // The first outputs for the state 1, 2, 3, 4, as the authors' C code gives them.
        let mut rng = Rng([1, 2, 3, 4]);
        assert_eq!([rng.next(), rng.next(), rng.next()], [41943041, 58720359, 3588806011781223]);
        // SplitMix64 from 0, its published first output.
        assert_eq!(Rng::new(0).0[0], 0xe220_a839_7b1d_cdaf);
    }

    #[test]
    fn greedy_takes_the_lowest_id_of_the_highest() {
        let mut s = sampler(SamplingOptions::greedy(), 5);
        assert_eq!(draw(&mut s, &[0.0, 3.0, -1.0, 3.0, 2.0]), 1);
    }

    #[test]
    fn draws_have_the_probabilities_of_the_softmax() {
        let logits = [1.0f32, 0.0, 2.0, -1.0];
        let options = SamplingOptions { top_k: 0, top_p: 1.0, temperature: 0.7, ..Default::default() };
        let mut s = sampler(options, 4);
        let mut counts = [0u32; 4];
        let n = 200_000;
        for _ in 0..n {
            counts[draw(&mut s, &logits) as usize] += 1;
        }
        let weights = logits.map(|l| (l as f64 / 0.7).exp());
        let total: f64 = weights.iter().sum();
        for (count, w) in counts.iter().zip(weights) {
            let p = w / total;
            let sigma = (p * (1.0 - p) / n as f64).sqrt();
            assert!((*count as f64 / n as f64 - p).abs() < 5.0 * sigma, "{counts:?}");
        }
    }

    #[test]
    fn top_k_top_p_and_min_p_keep_the_likeliest() {
        // Probabilities 0.5, 0.3, 0.15, 0.05.
        let logits = [0.5f32, 0.3, 0.15, 0.05].map(f32::ln);
        for (options, allowed) in [
            (SamplingOptions { top_k: 2, top_p: 1.0, ..Default::default() }, 2),
            (SamplingOptions { top_k: 0, top_p: 0.79, ..Default::default() }, 2),
            (SamplingOptions { top_k: 0, top_p: 0.81, ..Default::default() }, 3),
            (SamplingOptions { top_k: 0, top_p: 1.0, min_p: 0.25, ..Default::default() }, 3),
            (SamplingOptions { top_k: 0, top_p: 0.01, ..Default::default() }, 1),
        ] {
            let mut s = sampler(options.clone(), 4);
            let mut seen = [false; 4];
            for _ in 0..2000 {
                seen[draw(&mut s, &logits) as usize] = true;
            }
            let expected: Vec<bool> = (0..4).map(|i| i < allowed).collect();
            assert_eq!(seen.to_vec(), expected, "{options:?}");
        }
    }

    #[test]
    fn the_short_list_is_the_top_of_a_sort() {
        let mut rng = Rng::new(5);
        for n in [1, 2, 31, 64, 1000] {
            let logits: Vec<f32> = (0..5000).map(|_| (rng.uniform() * 100.0).floor() as f32).collect();
            let mut found = Vec::new();
            likeliest(&logits, n, &mut found);
            found.sort_unstable_by(Candidate::order);
            let mut all: Vec<Candidate> =
                logits.iter().enumerate().map(|(id, &value)| Candidate { id: id as u32, value }).collect();
            all.sort_unstable_by(Candidate::order);
            // Of equal values at the end any may be taken, but the values are the same.
            let values = |c: &[Candidate]| c.iter().map(|c| c.value).collect::<Vec<_>>();
            assert_eq!(values(&found), values(&all[..n]));
        }
    }

    #[test]
    fn penalties_bias_and_hook_change_the_choice() {
        let k = Kernels::new(Isa::Scalar).unwrap();
        let logits = [2.0f32, 1.9, -1.0];
        let pick = |options: SamplingOptions, tokens: &[u32]| {
            let mut s = Sampler::new(options, 3, false, Rng::new(0)).unwrap();
            s.sample(&k, tokens, &logits, 3, None).unwrap()
        };
        let greedy = SamplingOptions::greedy;
        assert_eq!(pick(greedy(), &[0]), 0);
        assert_eq!(pick(SamplingOptions { repetition_penalty: 1.1, ..greedy() }, &[0]), 1);
        assert_eq!(pick(SamplingOptions { repetition_penalty: 1.1, ..greedy() }, &[0, 1]), 0);
        assert_eq!(pick(SamplingOptions { presence_penalty: 0.2, ..greedy() }, &[0]), 1);
        assert_eq!(pick(SamplingOptions { frequency_penalty: 0.06, ..greedy() }, &[0]), 0);
        assert_eq!(pick(SamplingOptions { frequency_penalty: 0.06, ..greedy() }, &[0, 0]), 1);
        assert_eq!(pick(SamplingOptions { logit_bias: vec![(2, 5.0)], ..greedy() }, &[]), 2);
        assert_eq!(pick(SamplingOptions { logit_bias: vec![(0, f32::NEG_INFINITY)], ..greedy() }, &[]), 1);
        let mut s = Sampler::new(greedy(), 3, true, Rng::new(0)).unwrap();
        let mut hook = |tokens: &[u32], l: &mut [f32]| l[tokens[0] as usize] = 9.0;
        assert_eq!(s.sample(&k, &[2], &logits, 3, Some(&mut hook)).unwrap(), 2);
    }

    #[test]
    fn the_lowest_temperatures_are_as_good_as_none() {
        for temperature in [1e-30, 1e-38, 1e-40, f32::from_bits(1)] {
            for top_k in [0, 3] {
                let mut s = sampler(SamplingOptions { temperature, top_k, ..Default::default() }, 4);
                for _ in 0..100 {
                    assert_eq!(draw(&mut s, &[1.0, 4.0, 3.0, 2.0]), 1, "{temperature:e}, top-k {top_k}");
                    assert!(s.candidates.iter().all(|c| c.value.is_finite()), "{:?}", s.candidates);
                }
            }
        }
    }

    #[test]
    fn what_is_forbidden_is_no_candidate() {
        // Sums of weights this far apart depend on their order, so that comparing with their total excludes nothing.
        let mut rng = Rng::new(11);
        for _ in 0..50 {
            let logits: Vec<f32> = (0..900)
                .map(|i| if i % 3 == 0 { f32::NEG_INFINITY } else { -60.0 * rng.uniform() as f32 })
                .collect();
            for top_k in [0, 899] {
                let mut s = sampler(SamplingOptions { top_k, top_p: 1.0, ..Default::default() }, 900);
                draw(&mut s, &logits);
                assert!(!s.candidates.is_empty());
                assert!(s.candidates.iter().all(|c| c.id % 3 != 0), "top-k {top_k}");
            }
        }
    }

    #[test]
    fn top_p_of_a_whole_vocabulary_keeps_what_sorting_all_of_it_does() {
        let mut rng = Rng::new(3);
        for (spread, top_p) in [(30.0, 0.95), (3.0, 0.95), (0.0, 0.5), (30.0, 0.999_999), (8.0, 0.3)] {
            let logits: Vec<f32> = (0..5000).map(|_| (spread * rng.uniform()) as f32).collect();
            let mut s = sampler(SamplingOptions { top_k: 0, top_p, ..Default::default() }, 5000);
            draw(&mut s, &logits);
            let mut all: Vec<f64> = logits.iter().map(|&l| (l as f64).exp()).collect();
            all.sort_unstable_by(|a, b| b.total_cmp(a));
            let enough = top_p as f64 * all.iter().sum::<f64>();
            let mut sum = 0.0;
            let expected = all.iter().take_while(|w| (sum < enough, sum += *w).0).count();
            let kept = s.candidates.len();
            assert!(kept.abs_diff(expected) <= 1, "{spread} {top_p}: {kept}, expected {expected}");
        }
    }

    #[test]
    fn the_highest_is_found_wherever_it_lies() {
        for isa in Isa::ALL.into_iter().filter(|i| i.is_available()) {
            let k = Kernels::new(isa).unwrap();
            for n in [1, 31, 2047, 2048, 2049, 5000] {
                let mut logits: Vec<f32> = (0..n).map(|i| ((i * 7919) % 97) as f32 - 200.0).collect();
                for at in [0, n / 2, n - 1] {
                    let was = std::mem::replace(&mut logits[at], 1.0);
                    assert_eq!(highest(&k, &logits), Ok((1.0, at)), "{isa}, {at} of {n}");
                    logits[at] = f32::NAN;
                    assert_eq!(highest(&k, &logits), Err(at), "{isa}, {at} of {n}");
                    logits[at] = was;
                }
                assert_eq!(highest(&k, &vec![f32::NEG_INFINITY; n]), Ok((f32::NEG_INFINITY, 0)));
            }
        }
    }

    #[test]
    fn ids_without_a_piece_and_nan_are_never_chosen() {
        let k = Kernels::new(Isa::Scalar).unwrap();
        let mut s = sampler(SamplingOptions::greedy(), 3);
        assert_eq!(s.sample(&k, &[], &[0.0, 1.0, 9.0], 2, None).unwrap(), 1);
        // Nor are they among the likeliest, though their share of the probability is theirs.
        let mut top = TopLogProbs::new(3).unwrap();
        let own = top.of(&k, &[0.0, 1.0, 9.0], 2, 1).unwrap();
        assert_eq!(top.top.iter().map(|t| t.token).collect::<Vec<_>>(), [1, 0]);
        assert!((own - (1.0 - 9.0)).abs() < 1e-3, "{own}");
        let e = s.sample(&k, &[7, 8], &[0.0, f32::NAN, 9.0], 3, None);
        assert!(matches!(e, Err(Error::NanLogits { token: 1, position: 2 })));
    }

    #[test]
    fn options_out_of_range_are_refused_by_name() {
        let nan = f32::NAN;
        for (options, name) in [
            (SamplingOptions { temperature: nan, ..Default::default() }, "temperature"),
            (SamplingOptions { temperature: -1.0, ..Default::default() }, "temperature"),
            (SamplingOptions { top_p: 0.0, ..Default::default() }, "top_p"),
            (SamplingOptions { top_p: nan, ..Default::default() }, "top_p"),
            (SamplingOptions { min_p: 1.5, ..Default::default() }, "min_p"),
            (SamplingOptions { repetition_penalty: 0.0, ..Default::default() }, "repetition_penalty"),
            (SamplingOptions { presence_penalty: nan, ..Default::default() }, "presence_penalty"),
            (SamplingOptions { frequency_penalty: f32::INFINITY, ..Default::default() }, "frequency_penalty"),
            (SamplingOptions { logit_bias: vec![(0, nan)], ..Default::default() }, "logit_bias"),
        ] {
            match Sampler::new(options, 4, false, Rng::new(0)).err() {
                Some(Error::InvalidOption { option, .. }) => assert_eq!(option, name),
                other => panic!("{name}: {other:?}"),
            }
        }
        let e = Sampler::new(
            SamplingOptions { logit_bias: vec![(4, 0.0)], ..Default::default() },
            4,
            false,
            Rng::new(0),
        );
        assert!(matches!(e.err(), Some(Error::TokenOutOfRange { token: 4, .. })));
    }
}
