//! What distinguishes one Gemma from another: every difference between the generations is a field here.
//!
//! Read from a GGUF file's metadata as llama.cpp's converter writes it, or Ollama's own.

use super::metadata::Metadata;
use crate::gguf::{Gguf, Value};
use crate::{Error, Result};

/// The generation of a model.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
#[non_exhaustive]
pub enum Arch {
    /// Gemma: 2B and 7B.
    Gemma,
    /// Gemma 2: 2B, 9B and 27B.
    Gemma2,
    /// Gemma 3, text: 270M to 27B.
    Gemma3,
}

impl Arch {
    /// The name in `general.architecture`, which is also the prefix of the keys.
    pub fn name(self) -> &'static str {
        match self {
            Arch::Gemma => "gemma",
            Arch::Gemma2 => "gemma2",
            Arch::Gemma3 => "gemma3",
        }
    }
}

/// The shape of a model.
#[derive(Clone, PartialEq, Debug)]
#[non_exhaustive]
pub struct Config {
    /// The generation.
    pub arch: Arch,
    /// Layers (blocks).
    pub n_layers: usize,
    /// Width of the residual stream.
    pub d_model: usize,
    /// Width of the feed-forward.
    pub d_ff: usize,
    /// Query heads.
    pub n_heads: usize,
    /// Key and value heads.
    pub n_kv_heads: usize,
    /// Values in a head; `n_heads · head_dim` need not be `d_model`.
    pub head_dim: usize,
    /// Rows of the embedding: the number of logits. Ids without a piece are among them in some files.
    pub vocab: usize,
    /// Positions that the model was trained for.
    pub context_length: usize,
    /// Of RMSNorm.
    pub rms_eps: f32,
    /// Queries are multiplied by it after the rotation.
    pub query_scale: f32,
    /// Attention scores become `cap · tanh(score / cap)` (Gemma 2).
    pub attention_softcap: Option<f32>,
    /// Logits become `cap · tanh(logit / cap)` (Gemma 2).
    pub final_softcap: Option<f32>,
    /// Positions that a windowed layer sees.
    pub sliding_window: usize,
    /// Which layers are windowed.
    pub windowed: Vec<bool>,
    /// RoPE's base in layers with full attention.
    pub rope_base: f32,
    /// Positions are divided by it in layers with full attention (linear scaling).
    pub rope_factor: f32,
    /// RoPE's base in windowed layers.
    pub rope_base_windowed: f32,
    /// Positions are divided by it in windowed layers: 1 in Gemma 3, whose windows are not stretched.
    pub rope_factor_windowed: f32,
    /// Norms after attention and feed-forward too (Gemma 2 and 3).
    pub post_norms: bool,
    /// Norms of queries and keys (Gemma 3).
    pub qk_norms: bool,
}

/// Largest values that make sense: they keep products of them far from overflow.
const MAX_LAYERS: u64 = 1024;
const MAX_WIDTH: u64 = 1 << 20;
const MAX_HEADS: u64 = 1024;
const MAX_VOCAB: usize = 1 << 24;
const MAX_CONTEXT: u64 = 1 << 24;

impl Config {
    /// Positions that a layer sees, where it does not see all.
    pub fn window(&self, layer: usize) -> Option<usize> {
        self.windowed[layer].then_some(self.sliding_window)
    }

    /// Reads and checks the metadata of a file.
    pub(crate) fn from_gguf(gguf: &Gguf) -> Result<Config> {
        let m = Metadata::new(gguf)?;
        let arch = m.arch();
        let n_layers = m.size("block_count", 1..=MAX_LAYERS)?;
        if gguf.tensor(&format!("blk.{n_layers}.attn_norm.weight"))?.is_some() {
            // Running a part of the layers would give nonsense without a word.
            let expected = format!("all layers: there are tensors of blk.{n_layers}");
            return Err(m.bad("block_count", &expected, n_layers));
        }
        let d_model = m.width("embedding_length", MAX_WIDTH)?;
        let d_ff = m.width("feed_forward_length", MAX_WIDTH)?;
        let n_heads = m.size("attention.head_count", 1..=MAX_HEADS)?;
        let n_kv_heads = m.size("attention.head_count_kv", 1..=n_heads as u64)?;
        if n_heads % n_kv_heads != 0 {
            return Err(m.bad(
                "attention.head_count_kv",
                &format!("a divisor of the {n_heads} heads"),
                n_kv_heads,
            ));
        }
        let head_dim = m.width("attention.key_length", 4096)?;
        let value_dim = m.width("attention.value_length", 4096)?;
        if value_dim != head_dim {
            return Err(m.bad("attention.value_length", &format!("the key length, {head_dim}"), value_dim));
        }
        let context_length = m.size("context_length", 1..=MAX_CONTEXT)?;
        let vocab = embedding_rows(gguf)?;
        // The rows count, whatever some writers say, but a file that says 0 is not sound.
        m.optional_size("vocab_size", 1..=MAX_VOCAB as u64)?;

        let gemma2 = arch == Arch::Gemma2;
        let gemma3 = arch == Arch::Gemma3;
        let sliding_window = if arch == Arch::Gemma {
            context_length
        } else {
            match m.optional_size("attention.sliding_window", 1..=MAX_CONTEXT)? {
                Some(w) => w,
                None if gemma2 => 4096,
                None => return Err(m.missing("attention.sliding_window", "the windowed layers' window")),
            }
        };
        let windowed = match arch {
            Arch::Gemma => vec![false; n_layers],
            Arch::Gemma2 => (0..n_layers).map(|l| l % 2 == 0).collect(),
            Arch::Gemma3 => m.window_pattern(n_layers, 6)?,
        };
        let default_factor = if gemma3 && context_length >= 131_072 { 8.0 } else { 1.0 };
        let factor = m.positive(&["rope.scaling.factor"], default_factor)?;
        let scaling_key = "rope.scaling.type";
        let rope_factor = match m.text(scaling_key)? {
            None | Some("linear") => factor,
            Some("none") => 1.0,
            Some(other) => {
                let other = Value::from(other);
                return Err(Error::Unsupported {
                    file: gguf.name().to_string(),
                    what: format!("rope scaling of type {other} ({}.{scaling_key})", arch.name()),
                    supported: "none, linear".into(),
                });
            }
        };
        let rope_base =
            m.positive(&["rope.freq_base", "rope.global.freq_base"], if gemma3 { 1e6 } else { 1e4 })?;
        // Before Gemma 3 all layers are rotated alike.
        let (windowed_base, rope_factor_windowed) =
            if gemma3 { (1e4, 1.0) } else { (rope_base, rope_factor) };
        let rope_base_windowed =
            m.positive(&["rope.freq_base_swa", "rope.local.freq_base"], windowed_base)?;
        // No key tells the 27B models, whose queries are scaled by the width per head.
        let per_head = (gemma2 && n_layers == 46) || (gemma3 && n_layers == 62);
        let query_width = if per_head { d_model as f32 / n_heads as f32 } else { head_dim as f32 };
        let softcap = |key: &str, default: Option<f32>| -> Result<Option<f32>> {
            match m.float(&[key])? {
                None => Ok(default),
                // None, as converters write it.
                Some((_, 0.0)) => Ok(None),
                Some(_) => m.positive(&[key], 1.0).map(Some),
            }
        };
        Ok(Config {
            arch,
            n_layers,
            d_model,
            d_ff,
            n_heads,
            n_kv_heads,
            head_dim,
            vocab,
            context_length,
            rms_eps: m.positive(&["attention.layer_norm_rms_epsilon"], 1e-6)?,
            query_scale: 1.0 / query_width.sqrt(),
            attention_softcap: softcap("attn_logit_softcapping", gemma2.then_some(50.0))?,
            final_softcap: softcap("final_logit_softcapping", gemma2.then_some(30.0))?,
            sliding_window,
            windowed,
            rope_base,
            rope_factor,
            rope_base_windowed,
            rope_factor_windowed,
            post_norms: gemma2 || gemma3,
            qk_norms: gemma3,
        })
    }
}

/// The vocabulary is the rows of the embedding.
fn embedding_rows(gguf: &Gguf) -> Result<usize> {
    let name = "token_embd.weight";
    let expected = format!("1 to {MAX_VOCAB} rows (the vocabulary)");
    match gguf.tensor(name)? {
        Some(t) if (1..=MAX_VOCAB).contains(&t.rows()) => Ok(t.rows()),
        Some(t) => Err(t.error("shape", expected, format!("{:?}", t.dims()))),
        None => Err(Error::Tensor {
            file: gguf.name().to_string(),
            tensor: name.into(),
            offset: 0,
            what: "presence",
            expected,
            found: "no such tensor".into(),
        }),
    }
}
