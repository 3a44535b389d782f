//! What a model's arithmetic asks of the machine, counted from its tensors.

use carat::{KvType, Model, Session};

/// What a number of tokens takes.
#[derive(Clone, Copy, PartialEq, Debug)]
pub struct Work {
    /// How many.
    pub tokens: usize,
    /// Bytes read: weights once a pass, keys and values once a token.
    pub bytes: f64,
    /// Multiply-adds with quantized weights.
    pub dots: f64,
    /// Multiply-adds in f32: attention, and float weights.
    pub fmas: f64,
}

impl Work {
    /// A prompt of `n` tokens, and the logits of its last.
    pub fn prefill(model: &Model, session: &Session, n: usize) -> Work {
        let weights = Weights::of(model);
        let batches = n.div_ceil(session.options().batch).max(1) as f64;
        let attention = Attention::of(model, session, n);
        Work {
            tokens: n,
            bytes: batches * weights.layers.bytes + weights.head.bytes + attention.bytes,
            dots: n as f64 * weights.layers.dots + weights.head.dots,
            fmas: n as f64 * weights.layers.fmas + weights.head.fmas + attention.macs,
        }
    }

    /// `n` tokens from an empty context, one at a time, with the logits of each.
    pub fn decode(model: &Model, session: &Session, n: usize) -> Work {
        let weights = Weights::of(model);
        let attention = Attention::of(model, session, n);
        Work {
            tokens: n,
            bytes: n as f64 * (weights.layers.bytes + weights.head.bytes) + attention.bytes,
            dots: n as f64 * (weights.layers.dots + weights.head.dots),
            fmas: n as f64 * (weights.layers.fmas + weights.head.fmas) + attention.macs,
        }
    }
}

/// One token's share.
#[derive(Clone, Copy, Default)]
struct Share {
    bytes: f64,
    dots: f64,
    fmas: f64,
}

struct Weights {
    layers: Share,
    head: Share,
}

impl Weights {
    fn of(model: &Model) -> Weights {
        let mut weights = Weights { layers: Share::default(), head: Share::default() };
        let tensors = model.gguf().tensors();
        // Without a head of its own the embedding is the head.
        let own_head = tensors.iter().any(|t| t.name() == "output.weight");
        let head = if own_head { "output.weight" } else { "token_embd.weight" };
        for t in tensors {
            let share = match t.name() {
                name if name == head => &mut weights.head,
                name if name.starts_with("blk.") || name == "output_norm.weight" => &mut weights.layers,
                _ => continue,
            };
            let macs = t.rows() as f64 * t.cols() as f64;
            share.bytes += t.data().len() as f64;
            if t.dtype().is_float() {
                share.fmas += macs;
            } else {
                share.dots += macs;
            }
        }
        weights
    }
}

/// Attention over the first `n` positions, all layers and heads.
struct Attention {
    macs: f64,
    bytes: f64,
}

impl Attention {
    fn of(model: &Model, session: &Session, n: usize) -> Attention {
        let c = model.config();
        let value_bytes = match session.options().kv {
            Some(KvType::Q8_0) => 34.0 / 32.0,
            Some(KvType::F32) => 4.0,
            _ => 2.0,
        };
        let mut seen = 0.0;
        for layer in 0..c.n_layers {
            let window = c.window(layer).unwrap_or(usize::MAX);
            seen += (1..=n).map(|positions| positions.min(window) as f64).sum::<f64>();
        }
        // Keys and values: twice the width.
        Attention {
            macs: seen * 2.0 * (c.n_heads * c.head_dim) as f64,
            bytes: seen * 2.0 * (c.n_kv_heads * c.head_dim) as f64 * value_bytes,
        }
    }
}
