//! The shapes of the published models, and the types that llama.cpp's quantizer gives their tensors.

use carat::DType;
use clap::ValueEnum;

/// A published model.
#[derive(Clone, Copy, PartialEq, Eq, Debug, ValueEnum)]
pub enum Published {
    /// Gemma 2B: one key-value head
    #[value(name = "2b")]
    Gemma2B,
    /// Gemma 7B
    #[value(name = "7b")]
    Gemma7B,
    /// Gemma 2 2B
    #[value(name = "gemma2-2b")]
    Gemma2_2B,
    /// Gemma 3 1B, text
    #[value(name = "gemma3-1b")]
    Gemma3_1B,
    /// Gemma 3 270M
    #[value(name = "gemma3-270m")]
    Gemma3_270M,
}

/// What a whole file is quantized to.
#[derive(Clone, Copy, PartialEq, Eq, Debug, ValueEnum)]
#[allow(non_camel_case_types)] // llama.cpp's names
pub enum FileType {
    /// 4 bits, blocks of 32; embedding Q6_K
    #[value(name = "q4_0")]
    Q4_0,
    /// 4 bits, blocks of 256, some tensors in 6 bits
    #[value(name = "q4_k_m")]
    Q4_K_M,
    /// 8 bits
    #[value(name = "q8_0")]
    Q8_0,
}

impl FileType {
    /// Its number under `general.file_type`.
    pub fn number(self) -> u32 {
        match self {
            FileType::Q4_0 => 2,
            FileType::Q8_0 => 7,
            FileType::Q4_K_M => 15,
        }
    }
}

/// The sizes that a file's metadata and tensors follow from.
#[derive(Clone, Copy, Debug)]
pub struct Shape {
    /// `gemma`, `gemma2` or `gemma3`.
    pub arch: &'static str,
    pub size_label: &'static str,
    pub context: u32,
    pub layers: usize,
    pub d: usize,
    pub ff: usize,
    pub heads: usize,
    pub kv_heads: usize,
    pub head_dim: usize,
    pub vocab: usize,
    /// 0 where the generation has none.
    pub window: u32,
}

impl Published {
    pub fn shape(self) -> Shape {
        let gemma = Shape {
            arch: "gemma",
            size_label: "2B",
            context: 8192,
            layers: 18,
            d: 2048,
            ff: 16384,
            heads: 8,
            kv_heads: 1,
            head_dim: 256,
            vocab: 256_000,
            window: 0,
        };
        let gemma3 = Shape {
            arch: "gemma3",
            size_label: "270M",
            context: 32768,
            d: 640,
            ff: 2048,
            heads: 4,
            vocab: 262_144,
            window: 512,
            ..gemma
        };
        match self {
            Published::Gemma2B => gemma,
            Published::Gemma7B => {
                Shape { size_label: "7B", layers: 28, d: 3072, ff: 24576, heads: 16, kv_heads: 16, ..gemma }
            }
            Published::Gemma2_2B => {
                Shape { arch: "gemma2", layers: 26, d: 2304, ff: 9216, kv_heads: 4, window: 4096, ..gemma }
            }
            Published::Gemma3_1B => Shape { size_label: "1B", layers: 26, d: 1152, ff: 6912, ..gemma3 },
            Published::Gemma3_270M => gemma3,
        }
    }
}

/// A tensor of a file.
#[derive(Clone, PartialEq, Eq, Debug)]
pub struct Tensor {
    pub name: String,
    pub dtype: DType,
    /// Innermost first.
    pub dims: Vec<usize>,
}

impl Shape {
    /// Every tensor, in the order of llama.cpp's quantizer: those of no layer, then layer by layer, sorted by name.
    pub fn tensors(&self, file: FileType) -> Vec<Tensor> {
        let Shape { d, ff, head_dim, .. } = *self;
        let (q, kv) = (self.heads * head_dim, self.kv_heads * head_dim);
        let norm = |name: String, n: usize| Tensor { name, dtype: DType::F32, dims: vec![n] };
        let mut tensors = vec![
            norm("output_norm.weight".into(), d),
            Tensor {
                name: "token_embd.weight".into(),
                dtype: fallback(if file == FileType::Q8_0 { DType::Q8_0 } else { DType::Q6_K }, d),
                dims: vec![d, self.vocab],
            },
        ];
        for layer in 0..self.layers {
            let name = |part: &str| format!("blk.{layer}.{part}.weight");
            let plain = match file {
                FileType::Q4_0 => DType::Q4_0,
                FileType::Q4_K_M => DType::Q4_K,
                FileType::Q8_0 => DType::Q8_0,
            };
            let better =
                if file == FileType::Q4_K_M && more_bits(layer, self.layers) { DType::Q6_K } else { plain };
            let matrix = |part: &str, dtype: DType, cols: usize, rows: usize| Tensor {
                name: name(part),
                dtype: fallback(dtype, cols),
                dims: vec![cols, rows],
            };
            let mut of_layer = vec![
                matrix("attn_q", plain, d, q),
                matrix("attn_k", plain, d, kv),
                matrix("attn_v", better, d, kv),
                matrix("attn_output", plain, q, d),
                matrix("ffn_gate", plain, d, ff),
                matrix("ffn_up", plain, d, ff),
                matrix("ffn_down", better, ff, d),
                norm(name("attn_norm"), d),
                norm(name("ffn_norm"), d),
            ];
            if self.arch != "gemma" {
                of_layer.push(norm(name("post_attention_norm"), d));
                of_layer.push(norm(name("post_ffw_norm"), d));
            }
            if self.arch == "gemma3" {
                of_layer.push(norm(name("attn_q_norm"), head_dim));
                of_layer.push(norm(name("attn_k_norm"), head_dim));
            }
            of_layer.sort_by(|a, b| a.name.cmp(&b.name));
            tensors.append(&mut of_layer);
        }
        tensors
    }
}

/// The layers whose values and down projections Q4_K_M keeps in 6 bits: the first and last eighth, and every third
/// between.
fn more_bits(layer: usize, layers: usize) -> bool {
    let eighth = layers / 8;
    layer < eighth || layer >= 7 * layers / 8 || (layer - eighth) % 3 == 2
}

/// What takes the place of a type of blocks of 256 where rows are not whole numbers of them.
fn fallback(dtype: DType, cols: usize) -> DType {
    match dtype {
        _ if dtype.row_bytes(cols).is_some() => dtype,
        DType::Q4_K => DType::Q5_0,
        DType::Q6_K => DType::Q8_0,
        _ => DType::F16,
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    /// The list was read from the published file.
    #[test]
    fn tensors_are_those_of_the_published_270m() {
        let found: Vec<String> = Published::Gemma3_270M
            .shape()
            .tensors(FileType::Q4_K_M)
            .iter()
            .map(|t| {
                let dims: Vec<String> = t.dims.iter().map(usize::to_string).collect();
                format!("{} {} {}", t.name, t.dtype, dims.join(" "))
            })
            .collect();
        let published = include_str!("../../tests/data/gemma-3-270m-q4_k_m.tensors");
        assert_eq!(found, published.lines().collect::<Vec<_>>());
    }

    /// As the model cards count them (a tied embedding once).
    #[test]
    fn parameters_are_as_many_as_published() {
        for (model, parameters) in [
            (Published::Gemma2B, 2_506_172_416),
            (Published::Gemma7B, 8_537_680_896),
            (Published::Gemma2_2B, 2_614_341_888),
            (Published::Gemma3_1B, 999_885_952),
            (Published::Gemma3_270M, 268_098_176),
        ] {
            let tensors = model.shape().tensors(FileType::Q8_0);
            let found: usize = tensors.iter().map(|t| t.dims.iter().product::<usize>()).sum();
            assert_eq!(found, parameters, "{model:?}");
        }
    }

    #[test]
    fn types_follow_the_file_type() {
        let dtype = |model: Published, file, name: &str| {
            let tensors = model.shape().tensors(file);
            tensors.iter().find(|t| t.name == format!("{name}.weight")).unwrap().dtype
        };
        use Published::*;
        assert_eq!(dtype(Gemma2B, FileType::Q4_0, "token_embd"), DType::Q6_K);
        assert_eq!(dtype(Gemma2B, FileType::Q4_0, "blk.0.ffn_down"), DType::Q4_0);
        assert_eq!(dtype(Gemma2B, FileType::Q4_0, "blk.0.attn_norm"), DType::F32);
        assert_eq!(dtype(Gemma2B, FileType::Q8_0, "token_embd"), DType::Q8_0);
        assert_eq!(dtype(Gemma3_270M, FileType::Q4_0, "token_embd"), DType::Q8_0);
        assert_eq!(dtype(Gemma3_270M, FileType::Q4_0, "blk.0.attn_q"), DType::Q4_0);
        // 7B, 28 layers: 0..3 and 24..28 whole, and 5, 8, …, 23.
        for (layer, expected) in [
            (2, DType::Q6_K),
            (3, DType::Q4_K),
            (4, DType::Q4_K),
            (5, DType::Q6_K),
            (6, DType::Q4_K),
            (23, DType::Q6_K),
            (22, DType::Q4_K),
            (24, DType::Q6_K),
            (27, DType::Q6_K),
        ] {
            for part in ["attn_v", "ffn_down"] {
                assert_eq!(dtype(Gemma7B, FileType::Q4_K_M, &format!("blk.{layer}.{part}")), expected);
            }
            assert_eq!(dtype(Gemma7B, FileType::Q4_K_M, &format!("blk.{layer}.attn_k")), DType::Q4_K);
        }
        // Rows of 1152 are no whole blocks of 256, rows of 6912 are.
        assert_eq!(dtype(Gemma3_1B, FileType::Q4_K_M, "blk.3.ffn_gate"), DType::Q5_0);
        assert_eq!(dtype(Gemma3_1B, FileType::Q4_K_M, "blk.3.ffn_down"), DType::Q4_K);
        assert_eq!(dtype(Gemma3_1B, FileType::Q4_K_M, "blk.0.attn_v"), DType::Q8_0);
        assert_eq!(dtype(Gemma3_1B, FileType::Q4_K_M, "blk.0.ffn_down"), DType::Q6_K);
    }
}
