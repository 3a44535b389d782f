//! The likeliest of many tokens, found without sorting them all.

use crate::kernels::Kernels;

/// Up to this many candidates are found in one pass over the logits; more are selected from a list of all.
pub(super) const SHORT_LIST: usize = 1024;
/// Logits that are looked at together.
const RUN: usize = 32;
/// Candidates that finding a short list may hold for a moment.
pub(super) const SHORT_LIST_ROOM: usize = 2 * SHORT_LIST + RUN;

/// A token and a value that ranks it.
#[derive(Clone, Copy, PartialEq, Debug)]
pub(super) struct Candidate {
    pub(super) id: u32,
    pub(super) value: f32,
}

impl Candidate {
    /// Likelier first; of equals, the lower id.
    pub(super) fn order(&self, other: &Candidate) -> std::cmp::Ordering {
        other.value.total_cmp(&self.value).then(self.id.cmp(&other.id))
    }
}

/// The highest logit and the lowest id that has it; or the lowest id whose logit is not a number.
pub(super) fn highest(k: &Kernels, logits: &[f32]) -> Result<(f32, usize), usize> {
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
pub(super) fn likeliest(logits: &[f32], n: usize, out: &mut Vec<Candidate>) {
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
pub(super) fn sort_until(candidates: &mut [Candidate], sum: f64) -> usize {
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

#[cfg(test)]
mod tests {
    use super::super::Rng;
    use super::*;
    use crate::Isa;

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
}
