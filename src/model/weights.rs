//! The tensors of a model, found by name and checked against the shape that the metadata promises. They stay where
//! they lie in the file.

use super::Config;
use crate::gguf::{Gguf, TensorInfo};
use crate::kernels::{Rows, as_f32};
use crate::ops::activations::Needs;
use crate::{DType, Error, Result};

/// A matrix [rows, cols].
#[derive(Clone, Debug)]
pub(crate) struct Matrix {
    pub(crate) ty: DType,
    pub(crate) cols: usize,
    row_bytes: usize,
    tensor: TensorInfo,
}

impl Matrix {
    /// Its rows in the file.
    pub(crate) fn view(&self) -> Rows<'_> {
        Rows { ty: self.ty, cols: self.cols, row_bytes: self.row_bytes, data: self.tensor.data() }
    }

    /// What its products need of their inputs.
    fn needs(&self) -> Needs {
        Needs { quantized: !self.ty.is_float(), float: self.ty.is_float() }
    }
}

/// A norm's weights, which hold 1 + w already: a view of the file, or a copy where its bytes cannot be used as they
/// are.
#[derive(Clone, Debug)]
pub(crate) enum Norm {
    InFile(TensorInfo),
    Copied(Vec<f32>),
}

impl Norm {
    pub(crate) fn values(&self) -> &[f32] {
        match self {
            // Finder::norm() made sure that the bytes can be seen as f32.
            Norm::InFile(tensor) => as_f32(tensor.data()).unwrap_or_default(),
            Norm::Copied(v) => v,
        }
    }
}

/// Bytes of memory that a norm takes besides its own size.
fn norm_bytes(norm: &Norm) -> usize {
    match norm {
        Norm::InFile(tensor) => tensor.heap_bytes(),
        Norm::Copied(v) => v.capacity() * size_of::<f32>(),
    }
}

/// One layer.
#[derive(Clone, Debug)]
pub(crate) struct LayerWeights {
    /// [d]
    pub(crate) attn_norm: Norm,
    /// [n_heads · head_dim, d]
    pub(crate) q: Matrix,
    /// [n_kv_heads · head_dim, d]
    pub(crate) k: Matrix,
    /// [n_kv_heads · head_dim, d]
    pub(crate) v: Matrix,
    /// Of queries and keys, [head_dim] each.
    pub(crate) qk_norms: Option<(Norm, Norm)>,
    /// [d, n_heads · head_dim]
    pub(crate) attn_output: Matrix,
    /// [d]
    pub(crate) post_attention_norm: Option<Norm>,
    /// [d]
    pub(crate) ffn_norm: Norm,
    /// [ff, d]
    pub(crate) gate: Matrix,
    /// [ff, d]
    pub(crate) up: Matrix,
    /// [d, ff]
    pub(crate) down: Matrix,
    /// [d]
    pub(crate) post_ffw_norm: Option<Norm>,
}

/// All tensors of a model.
#[derive(Clone, Debug)]
pub(crate) struct Weights {
    /// [vocab, d]
    pub(crate) embedding: Matrix,
    pub(crate) layers: Vec<LayerWeights>,
    /// [d]
    pub(crate) output_norm: Norm,
    /// [vocab, d]: the embedding, where the file has no matrix of its own.
    pub(crate) output: Matrix,
}

/// What the inputs of each group of matrices must be.
#[derive(Clone, Copy, Debug)]
pub(crate) struct WeightNeeds {
    /// Inputs of width d: q, k, v, gate, up and the head.
    pub(crate) model: Needs,
    /// Inputs of the attention's output projection.
    pub(crate) heads: Needs,
    /// Inputs of the down-projection.
    pub(crate) ff: Needs,
}

impl WeightNeeds {
    /// The union.
    pub(crate) fn any(&self) -> Needs {
        union(union(self.model, self.heads), self.ff)
    }
}

fn union(a: Needs, b: Needs) -> Needs {
    Needs { quantized: a.quantized || b.quantized, float: a.float || b.float }
}

impl Weights {
    /// Finds every tensor that `c` calls for.
    pub(crate) fn find(gguf: &Gguf, c: &Config) -> Result<Weights> {
        let f = Finder { gguf };
        let (d, ff, hd) = (c.d_model, c.d_ff, c.head_dim);
        let embedding = f.matrix("token_embd.weight", c.vocab, d)?;
        let output = match gguf.tensor("output.weight")? {
            Some(_) => f.matrix("output.weight", c.vocab, d)?,
            None => embedding.clone(),
        };
        let mut layers = Vec::new();
        for l in 0..c.n_layers {
            // One by one: the memory taken follows the tensors found, not the number in the metadata.
            layers.try_reserve(1).map_err(|_| Error::OutOfMemory {
                what: "the list of layers",
                bytes: (l + 1) * size_of::<LayerWeights>(),
            })?;
            let name = |part: &str| format!("blk.{l}.{part}.weight");
            let norm = |part: &str, n: usize| f.norm(&name(part), n);
            let matrix = |part: &str, rows: usize, cols: usize| f.matrix(&name(part), rows, cols);
            layers.push(LayerWeights {
                attn_norm: norm("attn_norm", d)?,
                q: matrix("attn_q", c.n_heads * hd, d)?,
                k: matrix("attn_k", c.n_kv_heads * hd, d)?,
                v: matrix("attn_v", c.n_kv_heads * hd, d)?,
                qk_norms: match c.qk_norms {
                    true => Some((norm("attn_q_norm", hd)?, norm("attn_k_norm", hd)?)),
                    false => None,
                },
                attn_output: matrix("attn_output", d, c.n_heads * hd)?,
                post_attention_norm: match c.post_norms {
                    true => Some(norm("post_attention_norm", d)?),
                    false => None,
                },
                ffn_norm: norm("ffn_norm", d)?,
                gate: matrix("ffn_gate", ff, d)?,
                up: matrix("ffn_up", ff, d)?,
                down: matrix("ffn_down", d, ff)?,
                post_ffw_norm: match c.post_norms {
                    true => Some(norm("post_ffw_norm", d)?),
                    false => None,
                },
            });
        }
        Ok(Weights { embedding, layers, output_norm: f.norm("output_norm.weight", d)?, output })
    }

    /// Whether every matrix is F32.
    pub(crate) fn all_f32(&self) -> bool {
        let layers =
            self.layers.iter().flat_map(|l| [&l.q, &l.k, &l.v, &l.attn_output, &l.gate, &l.up, &l.down]);
        layers.chain([&self.embedding, &self.output]).all(|m| m.ty == DType::F32)
    }

    /// Bytes of memory that this takes: where tensors lie, and the norms that had to be copied.
    pub(crate) fn heap_bytes(&self) -> usize {
        let of_layer = |l: &LayerWeights| {
            let matrices = [&l.q, &l.k, &l.v, &l.attn_output, &l.gate, &l.up, &l.down];
            let qk_norms = l.qk_norms.iter().flat_map(|(q, k)| [q, k]);
            let norms = [&l.attn_norm, &l.ffn_norm].into_iter().chain(qk_norms);
            let norms = norms.chain(&l.post_attention_norm).chain(&l.post_ffw_norm);
            matrices.map(|m| m.tensor.heap_bytes()).iter().sum::<usize>()
                + norms.map(norm_bytes).sum::<usize>()
        };
        self.layers.iter().map(of_layer).sum::<usize>()
            + self.layers.capacity() * size_of::<LayerWeights>()
            + self.embedding.tensor.heap_bytes()
            + self.output.tensor.heap_bytes()
            + norm_bytes(&self.output_norm)
    }

    /// What the inputs must be; in the exact mode, f32 for all.
    pub(crate) fn needs(&self, exact: bool) -> WeightNeeds {
        let f32_only = Needs { quantized: false, float: true };
        if exact {
            return WeightNeeds { model: f32_only, heads: f32_only, ff: f32_only };
        }
        let mut n = WeightNeeds { model: self.output.needs(), heads: Needs::default(), ff: Needs::default() };
        for l in &self.layers {
            for m in [&l.q, &l.k, &l.v, &l.gate, &l.up] {
                n.model = union(n.model, m.needs());
            }
            n.heads = union(n.heads, l.attn_output.needs());
            n.ff = union(n.ff, l.down.needs());
        }
        n
    }
}

struct Finder<'a> {
    gguf: &'a Gguf,
}

impl Finder<'_> {
    /// The tensor of a name, which must have these dimensions (innermost first).
    fn find(&self, name: &str, dims: &[usize]) -> Result<&TensorInfo> {
        let Some(t) = self.gguf.tensor(name)? else {
            return Err(Error::Tensor {
                file: self.gguf.name().to_string(),
                tensor: name.to_string(),
                offset: 0,
                what: "presence",
                expected: format!("a tensor of {dims:?}"),
                found: "no such tensor".into(),
            });
        };
        // Trailing dimensions of 1 say nothing.
        let significant = |d: &[usize]| d.len() - d.iter().rev().take_while(|&&n| n == 1).count();
        let found = t.dims();
        if found[..significant(found)] != dims[..significant(dims)] {
            return Err(t.error("shape", format!("{dims:?}"), format!("{found:?}")));
        }
        Ok(t)
    }

    fn matrix(&self, name: &str, rows: usize, cols: usize) -> Result<Matrix> {
        let t = self.find(name, &[cols, rows])?;
        let row_bytes = t.dtype().row_bytes(cols).ok_or_else(|| {
            let expected = format!("a multiple of {} for {}", t.dtype().block_len(), t.dtype());
            t.error("row length", expected, cols.to_string())
        })?;
        Ok(Matrix { ty: t.dtype(), cols, row_bytes, tensor: t.clone() })
    }

    fn norm(&self, name: &str, n: usize) -> Result<Norm> {
        let t = self.find(name, &[n])?;
        if !t.dtype().is_float() {
            return Err(t.error("type", "F32, F16 or BF16, as norms are", t.dtype().name()));
        }
        if t.dtype() == DType::F32 && as_f32(t.data()).is_some() {
            return Ok(Norm::InFile(t.clone()));
        }
        let mut v = crate::error::try_vec(n, 0f32, "a norm's weights")?;
        t.dtype().dequantize(t.data(), &mut v)?;
        Ok(Norm::Copied(v))
    }
}
