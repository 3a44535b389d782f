//! Guessing what comes next from what the text says already: where its last tokens stood before, what followed them
//! then may follow again. Answers that quote or edit what they were given are guessed well, and a guess is verified
//! with the step that is due anyway.
//!
//! How far to guess is a matter of what it gains: how often guesses came true after a match as long, against what
//! another row costs a pass here. Both are learned as the text goes on, from every token, whether it was guessed in
//! earnest or not: so a text that does not repeat itself is soon left alone.

use std::time::Duration;

use crate::model::MAX_DRAFT;

/// Tokens that are compared at most: a longer match says no more.
const LONGEST: usize = 16;
/// Tokens that are looked at together, which the compiler makes a few instructions.
const RUN: usize = 64;
/// How often a guess comes true after a match of 1, 2, 3 tokens or more, before anything has been seen; and how many
/// tokens must have been seen to count as much.
const USUAL: [f32; 6] = [0.15, 0.35, 0.5, 0.6, 0.7, 0.8];
const USUAL_WEIGHT: f32 = 3.0;
/// Of every count, what is left of it when the next comes.
const FADE: f32 = 0.95;
/// What must be expected of a draft, as the plain step's rate is 1: less may be lost in what is not known.
const WORTH: f32 = 1.05;
/// [`Cost::further`] before passes of more than one token were timed.
const USUAL_FURTHER: f32 = 0.25;
/// Most tokens of a draft until then.
const FIRST: usize = 3;
/// Of every pass's time, what is left of it when the next comes.
const COST_FADE: f32 = 0.97;

/// Where the text stands and what it is guessed to say next.
pub(crate) struct Drafts {
    /// The tokens of the last pass: one of the text, and the draft that was verified with it.
    pass: [u32; MAX_DRAFT + 1],
    len: usize,
    /// How many of them are part of the text by now.
    taken: usize,
    guess: Option<Guess>,
    /// By the length of a match.
    seen: [Seen; LONGEST],
    cost: Cost,
    /// For tests: guess as far as there is a guess.
    pub(crate) eager: bool,
    /// Tokens that were verified in this generation, and those of them that came true.
    pub(crate) drafted: usize,
    pub(crate) accepted: usize,
}

/// The tokens from `at` on may come next, as the `matched` before it are those that came last.
#[derive(Clone, Copy, PartialEq, Debug)]
struct Guess {
    at: usize,
    matched: usize,
}

/// How often a guess was tried and came true, of late.
#[derive(Clone, Copy)]
struct Seen {
    tried: f32,
    came_true: f32,
}

impl Drafts {
    pub(crate) fn new() -> Drafts {
        let seen = std::array::from_fn(|i| Seen {
            tried: USUAL_WEIGHT,
            came_true: USUAL_WEIGHT * USUAL[i.min(USUAL.len() - 1)],
        });
        Drafts {
            pass: [0; MAX_DRAFT + 1],
            len: 0,
            taken: 0,
            guess: None,
            seen,
            cost: Cost::new(),
            eager: false,
            drafted: 0,
            accepted: 0,
        }
    }

    /// Forgets what was verified, and looks for a guess of what follows `text`.
    pub(crate) fn begin(&mut self, text: &[u32]) {
        (self.len, self.taken) = (0, 0);
        self.guess = text.split_last().and_then(|(&last, before)| find(before, last));
    }

    /// Whether `token`, which follows, was verified. If so it is taken.
    pub(crate) fn take(&mut self, text: &[u32], token: u32) -> bool {
        let ahead = self.pass[self.taken..self.len].first() == Some(&token);
        if ahead {
            self.taken += 1;
            self.accepted += 1;
        } else {
            (self.len, self.taken) = (0, 0);
        }
        self.learn(text, token);
        ahead
    }

    /// Looks whether `token`, which follows `text`, was guessed.
    fn learn(&mut self, text: &[u32], token: u32) {
        if let Some(g) = &mut self.guess {
            let hit = text.get(g.at) == Some(&token);
            let seen = &mut self.seen[g.matched - 1];
            seen.tried = FADE * seen.tried + 1.0;
            seen.came_true = FADE * seen.came_true + hit as u8 as f32;
            if hit {
                *g = Guess { at: g.at + 1, matched: (g.matched + 1).min(LONGEST) };
                return;
            }
        }
        self.guess = find(text, token);
    }

    /// The tokens of the next pass: `token`, which follows `text`, and a draft of at most `most` tokens.
    pub(crate) fn pass(&mut self, text: &[u32], token: u32, most: usize) -> &[u32] {
        self.pass[0] = token;
        (self.len, self.taken) = (1, 1);
        if let Some(g) = self.guess {
            let most = most.min(MAX_DRAFT);
            let draft = if self.eager { most } else { self.worth(g.matched, most) };
            self.drafted += draft;
            for at in g.at..g.at + draft {
                // A match that overlaps its own guess goes round.
                self.pass[self.len] = *text.get(at).unwrap_or(&self.pass[at.saturating_sub(text.len())]);
                self.len += 1;
            }
        }
        &self.pass[..self.len]
    }

    /// Notes what a pass of this many tokens took.
    pub(crate) fn took(&mut self, tokens: usize, time: Duration) {
        self.cost.note(tokens, time);
    }

    /// The length of the draft that is expected to give the most tokens in a time.
    fn worth(&self, matched: usize, most: usize) -> usize {
        // The first draft is a short one, as its cost is not known.
        let most = if self.cost.measured { most } else { most.min(FIRST) };
        let (mut best, mut best_rate) = (0, WORTH);
        let (mut reaches, mut tokens) = (1.0, 1.0);
        for draft in 1..=most {
            let seen = self.seen[(matched + draft - 1).min(LONGEST) - 1];
            reaches *= seen.came_true / seen.tried;
            tokens += reaches;
            let rate = tokens / self.cost.of(1 + draft);
            if rate > best_rate {
                (best, best_rate) = (draft, rate);
            }
        }
        best
    }
}

/// What a pass takes by its tokens: a line through the times of late.
struct Cost {
    /// Fading sums over the passes: their number, of tokens n, seconds t, n², n · t.
    count: f32,
    n: f32,
    t: f32,
    nn: f32,
    nt: f32,
    /// What each further token adds, as the step of one token takes 1.
    further: f32,
    /// Whether that was measured.
    measured: bool,
}

impl Cost {
    fn new() -> Cost {
        Cost { count: 0.0, n: 0.0, t: 0.0, nn: 0.0, nt: 0.0, further: USUAL_FURTHER, measured: false }
    }

    /// The cost of a pass of `n` tokens.
    fn of(&self, n: usize) -> f32 {
        1.0 + self.further * (n - 1) as f32
    }

    fn note(&mut self, n: usize, time: Duration) {
        let (n, mut t) = (n as f32, time.as_secs_f32());
        if self.count > 0.0 {
            // One that was interrupted says little.
            t = t.min(3.0 * self.t / self.count);
        }
        for (sum, value) in [
            (&mut self.count, 1.0),
            (&mut self.n, n),
            (&mut self.t, t),
            (&mut self.nn, n * n),
            (&mut self.nt, n * t),
        ] {
            *sum = COST_FADE * *sum + value;
        }
        let (n, t) = (self.n / self.count, self.t / self.count);
        let spread = self.nn / self.count - n * n;
        // Passes that were all as long say nothing of others.
        if self.count > 2.0 && spread > 0.1 {
            self.measured = true;
            let slope = (self.nt / self.count - n * t) / spread;
            let one = (t - slope * (n - 1.0)).max(0.1 * t);
            self.further = (slope / one).clamp(0.01, 1.0);
        }
    }
}

/// Where in `text` followed by `last` the longest match of its end ends, the latest of several: what comes after it.
fn find(text: &[u32], last: u32) -> Option<Guess> {
    let mut best: Option<Guess> = None;
    let mut end = text.len();
    while end > 0 {
        let from = end.saturating_sub(RUN);
        let run = &text[from..end];
        if run.iter().fold(false, |any, &t| any | (t == last)) {
            for (i, _) in run.iter().enumerate().rev().filter(|(_, t)| **t == last) {
                let before = text[..from + i].iter().rev().zip(text.iter().rev());
                let matched = 1 + before.take(LONGEST - 1).take_while(|(a, b)| a == b).count();
                if best.is_none_or(|b| matched > b.matched) {
                    best = Some(Guess { at: from + i + 1, matched });
                }
                if matched == LONGEST {
                    return best;
                }
            }
        }
        end = from;
    }
    best
}

#[cfg(test)]
mod tests;
