//! The buffers of a forward pass, allocated once for a session.

use super::weights::WeightNeeds;
use super::{Config, MAX_LOGIT_ROWS};
use crate::Result;
use crate::kernels::{Aligned, MAX_STEP_ROWS};
use crate::ops::activations::Activations;
use crate::ops::attention::AttentionScratch;
use crate::ops::linear::LinearScratch;
use crate::session::LogitRows;

/// One worker's own buffers.
pub(crate) struct WorkerScratch {
    pub(crate) linear: LinearScratch,
    pub(crate) attention: AttentionScratch,
    /// [d]: a normed row on its way to the inputs of a product.
    pub(crate) row: Aligned<f32>,
}

/// A session's buffers, for batches of at most `batch` tokens.
pub(crate) struct Scratch {
    pub(crate) batch: usize,
    /// [batch, d]: the residual stream. After a pass it holds the last layer's output.
    pub(crate) x: Aligned<f32>,
    /// [batch, d]: what a projection adds to it.
    pub(crate) delta: Aligned<f32>,
    /// [batch, n_heads · head_dim]
    pub(crate) q: Aligned<f32>,
    /// [batch, n_kv_heads · head_dim]
    pub(crate) k: Aligned<f32>,
    /// [batch, n_kv_heads · head_dim]
    pub(crate) v: Aligned<f32>,
    /// [full, windowed][batch][cos, sin][head_dim / 2]
    pub(crate) rope: Aligned<f32>,
    /// Inputs of q, k, v, of gate and up, and of the head: [batch, d]
    pub(crate) model_in: Activations,
    /// Inputs of the attention's output projection: [batch, n_heads · head_dim]
    pub(crate) heads_in: Activations,
    /// Inputs of the down-projection: [batch, ff]
    pub(crate) ff_in: Activations,
    /// [logit_rows, vocab]: those of the last rows of a pass that asked for them.
    pub(crate) logits: LogitRows,
    pub(crate) workers: Vec<WorkerScratch>,
}

impl Scratch {
    /// For batches of at most `batch` tokens, the logits of `logit_rows` of them, and a team of `workers`.
    pub(crate) fn new(
        c: &Config,
        needs: &WeightNeeds,
        batch: usize,
        logit_rows: usize,
        workers: usize,
    ) -> Result<Scratch> {
        let what = "scratch";
        let heads = c.n_heads * c.head_dim;
        let kv = c.n_kv_heads * c.head_dim;
        let any = needs.any();
        Ok(Scratch {
            batch,
            x: Aligned::zeroed(batch * c.d_model, what)?,
            delta: Aligned::zeroed(batch * c.d_model, what)?,
            q: Aligned::zeroed(batch * heads, what)?,
            k: Aligned::zeroed(batch * kv, what)?,
            v: Aligned::zeroed(batch * kv, what)?,
            rope: Aligned::zeroed(2 * batch * c.head_dim, what)?,
            model_in: Activations::new(batch, c.d_model, needs.model)?,
            heads_in: Activations::new(batch, heads, needs.heads)?,
            ff_in: Activations::new(batch, c.d_ff, needs.ff)?,
            logits: LogitRows::new(logit_rows * c.vocab)?,
            workers: (0..workers)
                .map(|_| {
                    Ok(WorkerScratch {
                        linear: LinearScratch::new(batch.max(MAX_LOGIT_ROWS), any)?,
                        attention: AttentionScratch::new(c.head_dim)?,
                        row: Aligned::zeroed(c.d_model, what)?,
                    })
                })
                .collect::<Result<_>>()?,
        })
    }

    /// Bytes that `new` takes.
    pub(crate) fn bytes(
        c: &Config,
        needs: &WeightNeeds,
        batch: usize,
        logit_rows: usize,
        workers: usize,
    ) -> usize {
        let heads = c.n_heads * c.head_dim;
        let kv = c.n_kv_heads * c.head_dim;
        let floats = batch * (2 * c.d_model + heads + 2 * kv + 2 * c.head_dim) + logit_rows * c.vocab;
        let worker = LinearScratch::bytes(batch.max(MAX_LOGIT_ROWS), needs.any())
            + AttentionScratch::bytes(c.head_dim)
            + Aligned::<f32>::bytes(c.d_model);
        4 * floats
            + 7 * 64
            + Activations::bytes(batch, c.d_model, needs.model)
            + Activations::bytes(batch, heads, needs.heads)
            + Activations::bytes(batch, c.d_ff, needs.ff)
            + workers * worker
    }
}

const _: () = assert!(MAX_LOGIT_ROWS <= MAX_STEP_ROWS);
