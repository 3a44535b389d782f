//! The forward pass: embed · layers (attention, feed-forward) · final norm · logits.
//!
//! A pass is one dispatch to the team. Every step below is run by all workers, who share its work by claims and wait
//! for each other at its end; shapes are those of the buffers in [`Scratch`], with `n` the tokens of the pass.

use std::ops::Range;

use super::kv_cache::{KvCache, SharedCache};
use super::scratch::{Scratch, WorkerScratch};
use super::weights::{LayerWeights, Norm};
use super::{Config, Inner, MAX_LOGIT_ROWS};
use crate::kernels::{Kernels, Rows};
use crate::ops::Arithmetic;
use crate::ops::activations::SharedActivations;
use crate::ops::attention::{Heads, attend};
use crate::ops::linear::{Product, gate_up, linear};
use crate::parallel::{SharedMut, Stop, Worker};
use crate::{CancelToken, Result, quant};

type Step = Result<(), Stop>;

/// What to compute.
pub(crate) struct Pass<'a> {
    /// Ids within the vocabulary, at most a batch of them.
    pub(crate) tokens: &'a [u32],
    /// Position of the first.
    pub(crate) start: usize,
    pub(crate) arithmetic: Arithmetic,
    /// Of how many of the last tokens the logits are wanted (in `scratch.logits`, which has room for them).
    pub(crate) logits: usize,
}

/// Everything that the steps of a pass touch.
struct Run<'a> {
    model: &'a Inner,
    c: &'a Config,
    k: &'a Kernels,
    arithmetic: Arithmetic,
    tokens: &'a [u32],
    start: usize,
    /// Rows of `x` whose logits are wanted.
    wanted: Range<usize>,
    x: SharedMut<'a, f32>,
    delta: SharedMut<'a, f32>,
    q: SharedMut<'a, f32>,
    key: SharedMut<'a, f32>,
    value: SharedMut<'a, f32>,
    rope: SharedMut<'a, f32>,
    model_in: SharedActivations<'a>,
    heads_in: SharedActivations<'a>,
    ff_in: SharedActivations<'a>,
    logits: SharedMut<'a, f32>,
    workers: SharedMut<'a, WorkerScratch>,
}

impl Inner {
    /// Processes the tokens of `pass`: adds their keys and values to the cache, and leaves the last layer's output in
    /// `scratch.x`. After an error the rows of these positions hold nothing of use, as before.
    pub(crate) fn forward(
        &self,
        pass: &Pass<'_>,
        cache: &mut KvCache,
        scratch: &mut Scratch,
        cancel: Option<&CancelToken>,
    ) -> Result<()> {
        let n = pass.tokens.len();
        assert!(n <= scratch.batch);
        self.gguf.check_unchanged()?;
        cache.will_write(pass.start + n);
        assert!(pass.logits <= n && pass.logits * self.config.vocab <= scratch.logits.len());
        let wanted = n - pass.logits..n;
        let run = Run::new(self, pass, wanted, scratch)?;
        let cache = cache.share();
        self.team.run(cancel, &|w| run.pass(w, &cache))
    }

    /// The logits [rows, vocab] of `rows` (at most [`MAX_LOGIT_ROWS`]) of the last pass, which had this arithmetic.
    pub(crate) fn head(
        &self,
        arithmetic: Arithmetic,
        rows: Range<usize>,
        scratch: &mut Scratch,
        out: &mut [f32],
        cancel: Option<&CancelToken>,
    ) -> Result<()> {
        assert!(rows.len() <= MAX_LOGIT_ROWS && rows.end <= scratch.batch);
        assert_eq!(out.len(), rows.len() * self.config.vocab);
        self.gguf.check_unchanged()?;
        let pass = Pass { tokens: &[], start: 0, arithmetic, logits: 0 };
        let run = Run { logits: SharedMut::new(out), ..Run::new(self, &pass, rows, scratch)? };
        self.team.run(cancel, &|w| run.head(w))
    }
}

impl<'a> Run<'a> {
    /// The pass over `scratch`'s buffers.
    fn new(
        model: &'a Inner,
        pass: &Pass<'a>,
        wanted: Range<usize>,
        scratch: &'a mut Scratch,
    ) -> Result<Run<'a>> {
        Ok(Run {
            model,
            c: &model.config,
            k: &model.kernels,
            arithmetic: pass.arithmetic,
            tokens: pass.tokens,
            start: pass.start,
            wanted,
            x: SharedMut::new(&mut scratch.x),
            delta: SharedMut::new(&mut scratch.delta),
            q: SharedMut::new(&mut scratch.q),
            key: SharedMut::new(&mut scratch.k),
            value: SharedMut::new(&mut scratch.v),
            rope: SharedMut::new(&mut scratch.rope),
            model_in: scratch.model_in.share(),
            heads_in: scratch.heads_in.share(),
            ff_in: scratch.ff_in.share(),
            logits: SharedMut::new(scratch.logits.overwrite()?),
            workers: SharedMut::new(&mut scratch.workers),
        })
    }

    fn pass(&self, w: &mut Worker<'_>, cache: &SharedCache<'_>) -> Step {
        let weights = &self.model.weights;
        self.embed(w)?;
        for (l, layer) in weights.layers.iter().enumerate() {
            // Attention.
            self.qkv(w, layer)?;
            self.rotate_and_store(w, l, layer, cache)?;
            self.attention(w, l, cache)?;
            self.project(w, &self.heads_in, layer.attn_output.view())?;
            self.residual(w, layer.post_attention_norm.as_ref(), Some(&layer.ffn_norm))?;
            // Feed-forward.
            self.gate_up(w, layer)?;
            self.project(w, &self.ff_in, layer.down.view())?;
            let next = weights.layers.get(l + 1).map(|next| &next.attn_norm);
            self.residual(w, layer.post_ffw_norm.as_ref(), next)?;
        }
        if self.wanted.is_empty() { Ok(()) } else { self.head(w) }
    }

    /// x[t] = embedding[token] · √d, and the first norm.
    fn embed(&self, w: &mut Worker<'_>) -> Step {
        let c = self.c;
        let embedding = self.model.weights.embedding.view();
        let first = self.model.weights.layers.first().map(|l| &l.attn_norm);
        while let Some(t) = w.claim(self.tokens.len()) {
            let x = self.row(&self.x, t, c.d_model);
            quant::dequantize(embedding.ty, embedding.row(self.tokens[t] as usize), x);
            self.k.scale(x, (c.d_model as f32).sqrt());
            self.rope_angles(t);
            if let Some(norm) = first {
                self.norm_to_inputs(w, x, norm, self.arithmetic, t);
            }
        }
        w.barrier()
    }

    /// cos and sin of token `t`'s position, for both kinds of layers.
    fn rope_angles(&self, t: usize) {
        let half = self.c.head_dim / 2;
        let position = (self.start + t) as f64;
        for (kind, frequencies) in self.model.rope_frequencies.iter().enumerate() {
            // SAFETY: the caller claimed token `t`.
            let angles = unsafe { self.rope.get_mut(self.rope_span(kind, t)) };
            let (cos, sin) = angles.split_at_mut(half);
            for ((cos, sin), f) in cos.iter_mut().zip(sin).zip(frequencies) {
                let (s, c) = (position * f).sin_cos();
                *cos = c as f32;
                *sin = s as f32;
            }
        }
    }

    /// q, k, v [n, heads · head_dim] = W · inputs.
    fn qkv(&self, w: &mut Worker<'_>, layer: &LayerWeights) -> Step {
        let (q, kv) = (self.c.n_heads * self.c.head_dim, self.c.n_kv_heads * self.c.head_dim);
        let products = [
            Product { weights: layer.q.view(), out: self.q, width: q },
            Product { weights: layer.k.view(), out: self.key, width: kv },
            Product { weights: layer.v.view(), out: self.value, width: kv },
        ];
        self.linear(w, &self.model_in, &products)
    }

    /// Norms (Gemma 3) and rotates queries and keys, scales queries, and stores keys and values in the cache.
    fn rotate_and_store(
        &self,
        w: &mut Worker<'_>,
        l: usize,
        layer: &LayerWeights,
        cache: &SharedCache<'_>,
    ) -> Step {
        let c = self.c;
        let (hd, heads) = (c.head_dim, c.n_heads + c.n_kv_heads);
        let cache = cache.layer(l);
        // With few tokens a worker takes a head at a time, else all heads of a token.
        let n = self.tokens.len();
        let per_claim = if n < 4 * w.count() { 1 } else { heads };
        while let Some(i) = w.claim(n * heads / per_claim) {
            for unit in i * per_claim..(i + 1) * per_claim {
                let (t, head) = (unit / heads, unit % heads);
                let rope = self.rope_span(c.windowed[l] as usize, t);
                // SAFETY: only the first step writes the angles.
                let (cos, sin) = unsafe { self.rope.get(rope) }.split_at(hd / 2);
                let is_key = head >= c.n_heads;
                let (buffer, width, head) = match is_key {
                    false => (&self.q, c.n_heads * hd, head),
                    true => (&self.key, c.n_kv_heads * hd, head - c.n_heads),
                };
                let at = t * width + head * hd..t * width + (head + 1) * hd;
                // SAFETY: this head of this token was claimed; it was written before the last barrier.
                let x = unsafe { buffer.get_mut(at.clone()) };
                if let Some((q_norm, k_norm)) = &layer.qk_norms {
                    let norm = if is_key { k_norm } else { q_norm };
                    self.k.rms_norm_in_place(x, norm.values(), c.rms_eps);
                }
                self.k.rope(x, cos, sin);
                if is_key {
                    // SAFETY: nobody writes the values in this step; the cache's row is this unit's own.
                    unsafe { cache.store(self.k, head, self.start + t, x, self.value.get(at)) };
                } else {
                    self.k.scale(x, c.query_scale);
                }
            }
        }
        w.barrier()
    }

    /// heads_in [n, n_heads · head_dim] = softmax(q · Kᵀ) · V, head by head.
    fn attention(&self, w: &mut Worker<'_>, l: usize, cache: &SharedCache<'_>) -> Step {
        let c = self.c;
        let heads = Heads {
            n_heads: c.n_heads,
            n_kv_heads: c.n_kv_heads,
            head_dim: c.head_dim,
            window: c.window(l),
            softcap: c.attention_softcap,
        };
        let scratch = &mut self.mine(w).attention;
        // SAFETY: queries and cache were written before the last barrier; nobody else writes heads_in in this step.
        unsafe {
            attend(
                w,
                self.k,
                self.arithmetic,
                &heads,
                &self.q,
                &cache.layer(l),
                self.start,
                self.tokens.len(),
                &self.heads_in,
                scratch,
            )
        };
        w.barrier()
    }

    /// ff_in [n, ff] = gelu(gate · inputs) ⊙ (up · inputs).
    fn gate_up(&self, w: &mut Worker<'_>, layer: &LayerWeights) -> Step {
        // SAFETY: stored before the last barrier.
        let inputs = unsafe { self.model_in.inputs(self.arithmetic, 0..self.tokens.len()) };
        let (gate, up) = (layer.gate.view(), layer.up.view());
        let scratch = &mut self.mine(w).linear;
        gate_up(w, self.k, self.arithmetic, &inputs, gate, up, &self.ff_in, scratch);
        w.barrier()
    }

    /// delta [n, d] = W · inputs.
    fn project(&self, w: &mut Worker<'_>, inputs: &SharedActivations<'a>, weights: Rows<'a>) -> Step {
        let product = Product { weights, out: self.delta, width: self.c.d_model };
        self.linear(w, inputs, &[product])
    }

    /// x += [post-norm](delta), and the next norm.
    fn residual(&self, w: &mut Worker<'_>, post: Option<&Norm>, next: Option<&Norm>) -> Step {
        let d = self.c.d_model;
        while let Some(t) = w.claim(self.tokens.len()) {
            let (x, delta) = (self.row(&self.x, t, d), self.row(&self.delta, t, d));
            if let Some(norm) = post {
                self.k.rms_norm_in_place(delta, norm.values(), self.c.rms_eps);
            }
            self.k.add(x, delta);
            if let Some(norm) = next {
                self.norm_to_inputs(w, x, norm, self.arithmetic, t);
            }
        }
        w.barrier()
    }

    /// logits [wanted, vocab] = head · norm(x), capped where the model says so. The arithmetic is that of stepping
    /// whatever the pass's: the rows are few, and what is sampled from deserves it.
    fn head(&self, w: &mut Worker<'_>) -> Step {
        let arithmetic = match self.arithmetic {
            Arithmetic::Exact => Arithmetic::Exact,
            _ => Arithmetic::Step,
        };
        let rows = self.wanted.len();
        while let Some(i) = w.claim(rows) {
            let x = self.row(&self.x, self.wanted.start + i, self.c.d_model);
            self.norm_to_inputs(w, x, &self.model.weights.output_norm, arithmetic, i);
        }
        w.barrier()?;
        // SAFETY: stored before the last barrier.
        let inputs = unsafe { self.model_in.inputs(arithmetic, 0..rows) };
        let weights = self.model.weights.output.view();
        let product = Product { weights, out: self.logits, width: self.c.vocab };
        let scratch = &mut self.mine(w).linear;
        linear(w, self.k, arithmetic, &inputs, &[product], scratch);
        w.barrier()?;
        if let Some(cap) = self.c.final_softcap {
            let piece = 4096;
            let n = rows * self.c.vocab;
            while let Some(i) = w.claim(n.div_ceil(piece)) {
                // SAFETY: this piece was claimed, and written before the last barrier.
                let logits = unsafe { self.logits.get_mut(i * piece..((i + 1) * piece).min(n)) };
                self.k.softcap(logits, cap);
            }
            w.barrier()?;
        }
        Ok(())
    }

    fn linear(&self, w: &mut Worker<'_>, inputs: &SharedActivations<'a>, products: &[Product<'a>]) -> Step {
        // SAFETY: stored before the last barrier.
        let inputs = unsafe { inputs.inputs(self.arithmetic, 0..self.tokens.len()) };
        let scratch = &mut self.mine(w).linear;
        linear(w, self.k, self.arithmetic, &inputs, products, scratch);
        w.barrier()
    }

    /// Row `t` of the inputs of width d = norm(x).
    fn norm_to_inputs(&self, w: &Worker<'_>, x: &[f32], norm: &Norm, a: Arithmetic, t: usize) {
        let row = &mut self.mine(w).row;
        self.k.rms_norm(x, norm.values(), self.c.rms_eps, row);
        // SAFETY: the caller claimed row `t`.
        unsafe { self.model_in.store(self.k, a, t, 0, row) };
    }

    /// Row `t` of a buffer whose rows have `width` values; only the worker that claimed `t` calls this in a step.
    #[allow(clippy::mut_from_ref)]
    fn row(&self, buffer: &SharedMut<'a, f32>, t: usize, width: usize) -> &'a mut [f32] {
        // SAFETY: rows are claimed one by one, and read by others only after the next barrier.
        unsafe { buffer.get_mut(t * width..(t + 1) * width) }
    }

    /// Where the cos, then the sin, of token `t` lie, for full (0) or windowed (1) layers.
    fn rope_span(&self, kind: usize, t: usize) -> Range<usize> {
        let hd = self.c.head_dim;
        let at = (kind * (self.rope.len() / 2 / hd) + t) * hd;
        at..at + hd
    }

    /// This worker's scratch.
    #[allow(clippy::mut_from_ref)]
    fn mine(&self, w: &Worker<'_>) -> &'a mut WorkerScratch {
        // SAFETY: each worker has its own index, and never holds two of these that overlap in use.
        unsafe { &mut self.workers.get_mut(w.index..w.index + 1)[0] }
    }
}
