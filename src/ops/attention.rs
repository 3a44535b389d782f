//! Attention with an online softmax over tiles of the KV cache.
//!
//! Tiles are counted from position 0 whatever the batch, and every query row goes through its own tiles in order:
//! its sums do not depend on the rows beside it.

use std::ops::Range;

use super::Arithmetic;
use super::activations::SharedActivations;
use crate::Result;
use crate::kernels::{Aligned, Kernels, MAX_STEP_ROWS};
use crate::model::kv_cache::{SharedLayer, TILE};
use crate::parallel::{SharedMut, Worker};

/// Query rows in one unit of prefill work: enough to pay for unpacking a tile of keys and values.
const QUERY_ROWS: usize = 64;
const NEG_INF: f32 = f32::NEG_INFINITY;

/// The shape of a layer's attention.
#[derive(Clone, Copy)]
pub(crate) struct Heads {
    /// Query heads.
    pub n_heads: usize,
    /// Key and value heads.
    pub n_kv_heads: usize,
    /// Values in a head.
    pub head_dim: usize,
    /// A query sees this many positions, itself included; all of them where there is no window.
    pub window: Option<usize>,
    /// Scores become `cap · tanh(score / cap)`.
    pub softcap: Option<f32>,
}

/// One worker's buffers.
pub(crate) struct AttentionScratch {
    /// [2, head_dim, TILE / 2]: keys of a tile, transposed.
    keys: Aligned<f32>,
    /// [TILE, head_dim]
    rows: Aligned<f32>,
    /// [QUERY_ROWS, head_dim]
    q: Aligned<f32>,
    /// [QUERY_ROWS, head_dim]
    out: Aligned<f32>,
    /// [QUERY_ROWS, TILE]
    scores: Aligned<f32>,
    /// [QUERY_ROWS]: the largest score so far.
    max: Aligned<f32>,
    /// [QUERY_ROWS]: the sum of exp(score − max) so far.
    sum: Aligned<f32>,
}

impl AttentionScratch {
    pub(crate) fn new(head_dim: usize) -> Result<Self> {
        let what = "a worker's attention scratch";
        Ok(Self {
            keys: Aligned::zeroed(TILE * head_dim, what)?,
            rows: Aligned::zeroed(TILE * head_dim, what)?,
            q: Aligned::zeroed(QUERY_ROWS * head_dim, what)?,
            out: Aligned::zeroed(QUERY_ROWS * head_dim, what)?,
            scores: Aligned::zeroed(QUERY_ROWS * TILE, what)?,
            max: Aligned::zeroed(QUERY_ROWS, what)?,
            sum: Aligned::zeroed(QUERY_ROWS, what)?,
        })
    }

    /// Bytes that `new` takes.
    pub(crate) fn bytes(head_dim: usize) -> usize {
        let floats = 2 * (TILE + QUERY_ROWS) * head_dim + QUERY_ROWS * (TILE + 2);
        floats * size_of::<f32>() + 7 * 64
    }
}

/// Attention of the batch's `n` queries, whose first is at position `start`: stores the heads' outputs as inputs of
/// the output projection. `q` [n, n_heads · head_dim] is already rotated and scaled, and the cache holds the batch's
/// own keys and values.
///
/// # Safety
/// `q` and the cache were written before the last barrier; rows of `out` are touched by nobody else in this step.
#[allow(clippy::too_many_arguments)]
pub(crate) unsafe fn attend(
    w: &mut Worker<'_>,
    k: &Kernels,
    a: Arithmetic,
    heads: &Heads,
    q: &SharedMut<'_, f32>,
    cache: &SharedLayer<'_>,
    start: usize,
    n: usize,
    out: &SharedActivations<'_>,
    s: &mut AttentionScratch,
) {
    let group = heads.n_heads / heads.n_kv_heads;
    // A unit of work: some tokens × some of the query heads of one KV head.
    let (tokens, parts) = match a {
        Arithmetic::Step => {
            let to_share = w.count().div_ceil(n * heads.n_kv_heads);
            (1, to_share.max(group.div_ceil(MAX_STEP_ROWS)).min(group))
        }
        _ => ((QUERY_ROWS / group).max(1), group.div_ceil(QUERY_ROWS)),
    };
    let part = group.div_ceil(parts);
    let spans = n.div_ceil(tokens);
    while let Some(i) = w.claim(spans * heads.n_kv_heads * parts) {
        // The last tokens see the most positions: they go first, so that no worker is left with one at the end.
        let span = spans - 1 - i / (heads.n_kv_heads * parts);
        let kv_head = i / parts % heads.n_kv_heads;
        let first_head = kv_head * group + i % parts * part;
        let n_heads = part.min((kv_head + 1) * group - first_head);
        if first_head >= (kv_head + 1) * group {
            continue;
        }
        let t0 = span * tokens;
        let unit = Unit { kv_head, first_head, n_heads, t0, tokens: tokens.min(n - t0), start };
        // SAFETY: the caller's promise; this worker claimed the unit's rows and columns of `out`.
        unsafe { unit.attend(w, k, a, heads, q, cache, out, s) };
    }
}

struct Unit {
    kv_head: usize,
    first_head: usize,
    n_heads: usize,
    t0: usize,
    tokens: usize,
    start: usize,
}

impl Unit {
    /// # Safety
    /// As [`attend`].
    #[allow(clippy::too_many_arguments)]
    unsafe fn attend(
        &self,
        w: &Worker<'_>,
        k: &Kernels,
        a: Arithmetic,
        heads: &Heads,
        q: &SharedMut<'_, f32>,
        cache: &SharedLayer<'_>,
        out: &SharedActivations<'_>,
        s: &mut AttentionScratch,
    ) {
        let hd = heads.head_dim;
        let m = self.tokens * self.n_heads;
        let width = heads.n_heads * hd;
        for t in 0..self.tokens {
            let at = (self.t0 + t) * width + self.first_head * hd;
            // SAFETY: the caller's promise.
            let rows = unsafe { q.get(at..at + self.n_heads * hd) };
            s.q[t * self.n_heads * hd..][..rows.len()].copy_from_slice(rows);
        }
        s.out[..m * hd].fill(0.0);
        s.max[..m].fill(NEG_INF);
        s.sum[..m].fill(0.0);

        let position = |t: usize| self.start + self.t0 + t;
        let lowest = |t: usize| heads.window.map_or(0, |w| (position(t) + 1).saturating_sub(w));
        let last = position(self.tokens - 1);
        for tile in lowest(0) / TILE..=last / TILE {
            // A long context has many tiles.
            if w.is_stopped() {
                return;
            }
            let at = tile * TILE;
            // The rows of the tile that token `t` sees. Both ends grow with `t`.
            let visible = |t: usize| {
                lowest(t).saturating_sub(at).min(TILE)..(position(t) + 1).saturating_sub(at).min(TILE)
            };
            if a == Arithmetic::Step {
                // One token: what it does not see is not even read.
                let seen = visible(0);
                // SAFETY: the caller's promise: rows of this batch were written before the last barrier.
                let (keys, _) = unsafe { cache.tile(self.kv_head, at + seen.start, seen.len()) };
                k.attend_scores(m, &s.q[..m * hd], keys, seen.len(), &mut s.scores[seen.start..], TILE);
            } else {
                // A full tile is needed for the panels.
                // SAFETY: as above.
                let (keys, _) = unsafe { cache.tile(self.kv_head, at, TILE) };
                k.kv_row_to_f32(keys, &mut s.rows);
                for half in 0..TILE / 32 {
                    let panel = &mut s.keys[half * 32 * hd..][..32 * hd];
                    k.transpose32(&s.rows[half * 32 * hd..], hd, 32, hd, panel);
                    k.gemm_f32(m, hd, &s.q, hd, panel, 32, &mut s.scores[half * 32..], TILE, false);
                }
            }
            for r in 0..m {
                let seen = visible(r / self.n_heads);
                if seen.is_empty() {
                    continue;
                }
                let scores = &mut s.scores[r * TILE..][..TILE];
                if let Some(cap) = heads.softcap {
                    k.softcap(&mut scores[seen.clone()], cap);
                }
                scores[..seen.start].fill(NEG_INF);
                scores[seen.end..].fill(NEG_INF);
                let max = s.max[r].max(k.max(scores));
                if max == NEG_INF {
                    // Every score is −∞ or not a number; what a file like that says does not matter.
                    scores.fill(0.0);
                    continue;
                }
                let shrink = (s.max[r] - max).exp();
                s.sum[r] = s.sum[r] * shrink + k.exp_sub_sum(scores, max);
                if shrink != 1.0 {
                    k.scale(&mut s.out[r * hd..][..hd], shrink);
                }
                s.max[r] = max;
            }
            if a == Arithmetic::Step {
                let seen = visible(0);
                // SAFETY: as above.
                let (_, values) = unsafe { cache.tile(self.kv_head, at + seen.start, seen.len()) };
                let p = &s.scores[seen.start..];
                k.attend_values(m, p, TILE, values, seen.len(), &mut s.out[..m * hd]);
            } else {
                // SAFETY: as above.
                let (_, values) = unsafe { cache.tile(self.kv_head, at, TILE) };
                k.kv_row_to_f32(values, &mut s.rows);
                self.add_values(k, hd, visible, s);
            }
        }
        for r in 0..m {
            let out_row = &mut s.out[r * hd..][..hd];
            k.scale(out_row, 1.0 / s.sum[r]);
            let (t, head) = (self.t0 + r / self.n_heads, self.first_head + r % self.n_heads);
            // SAFETY: this worker claimed these columns of the row.
            unsafe { out.store(k, a, t, head * hd, out_row) };
        }
    }

    /// Adds a tile's values `s.rows` [TILE, head_dim], weighted with `s.scores`, to `s.out`. Each token's sum takes the
    /// rows that are `visible` to it and no others, in order: a value that is not finite would make even 0 times it
    /// part of the sum.
    fn add_values(
        &self,
        k: &Kernels,
        hd: usize,
        visible: impl Fn(usize) -> Range<usize>,
        s: &mut AttentionScratch,
    ) {
        let AttentionScratch { rows, scores, out, .. } = s;
        let mut add = |tokens: Range<usize>, seen: Range<usize>| {
            if seen.is_empty() {
                return;
            }
            let (first, m) = (tokens.start * self.n_heads, tokens.len() * self.n_heads);
            let p = &scores[first * TILE + seen.start..];
            for c in (0..hd).step_by(32) {
                let v = &rows[seen.start * hd + c..];
                k.gemm_f32(m, seen.len(), p, TILE, v, hd, &mut out[first * hd + c..], hd, true);
            }
        };
        let all = 0..self.tokens;
        // What all tokens see is one product; the edges of the mask, a token at a time, lie before and after it.
        let common = visible(all.end - 1).start..visible(0).end;
        if common.is_empty() {
            all.for_each(|t| add(t..t + 1, visible(t)));
            return;
        }
        all.clone().for_each(|t| add(t..t + 1, visible(t).start..common.start));
        add(all.clone(), common.clone());
        all.for_each(|t| add(t..t + 1, common.end..visible(t).end));
    }
}
