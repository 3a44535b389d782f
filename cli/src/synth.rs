//! `carat synth`: a file of a published model's exact shapes with random weights.
//!
//! The real Gemma 1 and 2 weights are gated, but speed and memory do not depend on the values. The weights are
//! normal, scaled so that every layer keeps the size of what it is given; a few thousand blocks of each tensor type
//! are quantized and then drawn from at random, which is as fast as the disk.

mod shapes;
mod vocab;

use std::collections::HashMap;
use std::collections::hash_map::Entry;
use std::fs::File;
use std::path::{Path, PathBuf};

use carat::gguf::{Builder, Gguf};
use carat::{CancelToken, DType, Error, Result};
use shapes::{FileType, Published, Shape, Tensor};

/// Arguments of `carat synth`.
#[derive(Clone, Debug, clap::Args)]
pub struct Args {
    /// The model whose shapes to take
    #[arg(value_enum)]
    model: Published,
    /// The file to write; it takes its place when complete
    out: PathBuf,
    /// What the weights are quantized to
    #[arg(long = "type", value_enum, default_value = "q4_0")]
    file_type: FileType,
    /// A GGUF file to take the vocabulary from, instead of a made-up one
    #[arg(long, value_name = "GGUF")]
    vocab_from: Option<PathBuf>,
    /// Fewer (or more) layers than the model has
    #[arg(long, value_name = "N", value_parser = clap::value_parser!(u32).range(1..=1024))]
    layers: Option<u32>,
    /// Another seed gives other weights
    #[arg(long, default_value_t = 0)]
    seed: u64,
}

/// Writes the file. `progress` is called with bytes written and bytes in all.
///
/// # Errors
///
/// [`Error::Io`], [`Error::Cancelled`], and those of reading the vocabulary's file. Nothing is left behind then.
pub fn run(args: &Args, cancel: &CancelToken, progress: &mut dyn FnMut(u64, u64)) -> Result<()> {
    let mut shape = args.model.shape();
    if let Some(layers) = args.layers {
        shape.layers = layers as usize;
    }
    let vocabulary = args.vocab_from.as_ref().map(Gguf::open).transpose()?;
    write(&shape, args.file_type, vocabulary.as_ref(), args.seed, &args.out, cancel, progress)
}

fn write(
    shape: &Shape,
    file_type: FileType,
    vocabulary: Option<&Gguf>,
    seed: u64,
    out: &Path,
    cancel: &CancelToken,
    progress: &mut dyn FnMut(u64, u64),
) -> Result<()> {
    let tensors = shape.tensors(file_type);
    let mut builder = Builder::new();
    describe(&mut builder, shape, file_type)?;
    match vocabulary {
        Some(from) => vocab::copy(&mut builder, from, shape.vocab)?,
        None => vocab::make_up(&mut builder, shape.arch, shape.vocab)?,
    }
    for t in &tensors {
        builder.tensor(&t.name, t.dtype, &t.dims)?;
    }

    let mut part = out.as_os_str().to_owned();
    part.push(".part");
    let part = PathBuf::from(part);
    let io = |path: &Path, action| {
        let path = path.display().to_string();
        move |source| Error::Io { path, action, source }
    };
    let file = File::create(&part).map_err(io(&part, "create"))?;
    let written = fill(builder, file, &part, &tensors, seed, cancel, progress)
        .and_then(|()| std::fs::rename(&part, out).map_err(io(out, "replace")));
    if written.is_err() {
        // The first error is the one to tell.
        let _ = std::fs::remove_file(&part);
    }
    written
}

/// The keys that llama.cpp's converter writes for the architecture.
fn describe(b: &mut Builder, shape: &Shape, file_type: FileType) -> Result<()> {
    b.set("general.architecture", shape.arch)?;
    b.set("general.type", "model")?;
    let name = format!("{} {} with random weights", shape.arch, shape.size_label);
    b.set("general.name", name.as_str())?;
    b.set("general.size_label", shape.size_label)?;
    let key = |key: &str| format!("{}.{key}", shape.arch);
    for (name, value) in [
        ("context_length", shape.context as usize),
        ("embedding_length", shape.d),
        ("block_count", shape.layers),
        ("feed_forward_length", shape.ff),
        ("attention.head_count", shape.heads),
        ("attention.head_count_kv", shape.kv_heads),
        ("attention.key_length", shape.head_dim),
        ("attention.value_length", shape.head_dim),
    ] {
        b.set(&key(name), value as u32)?;
    }
    b.set(&key("attention.layer_norm_rms_epsilon"), 1e-6f32)?;
    match shape.arch {
        "gemma2" => {
            b.set(&key("attn_logit_softcapping"), 50f32)?;
            b.set(&key("final_logit_softcapping"), 30f32)?;
            b.set(&key("attention.sliding_window"), shape.window)?;
        }
        "gemma3" => {
            b.set(&key("rope.freq_base"), 1e6f32)?;
            b.set(&key("rope.freq_base_swa"), 1e4f32)?;
            b.set(&key("attention.sliding_window"), shape.window)?;
        }
        _ => {}
    }
    b.set("general.file_type", file_type.number())?;
    b.set("general.quantization_version", 2u32)?;
    Ok(())
}

/// Writes the header and the data of every tensor.
fn fill(
    builder: Builder,
    file: File,
    path: &Path,
    tensors: &[Tensor],
    seed: u64,
    cancel: &CancelToken,
    progress: &mut dyn FnMut(u64, u64),
) -> Result<()> {
    const PIECE: usize = 4 << 20;
    let blocks = |t: &Tensor| t.dims.iter().product::<usize>() / t.dtype.block_len();
    let total = tensors.iter().map(|t| (blocks(t) * t.dtype.block_bytes()) as u64).sum();
    let mut writer = builder.write(file, &path.display().to_string())?;
    let mut weights = Weights { random: Random(seed), pools: HashMap::new() };
    let mut piece = Vec::with_capacity(PIECE);
    let mut done = 0;
    for tensor in tensors {
        let per_piece = PIECE / tensor.dtype.block_bytes();
        for start in (0..blocks(tensor)).step_by(per_piece) {
            cancel.check()?;
            piece.clear();
            weights.append(tensor, per_piece.min(blocks(tensor) - start), &mut piece)?;
            writer.write(&piece)?;
            done += piece.len() as u64;
            progress(done, total);
        }
    }
    writer.finish()?;
    Ok(())
}

/// Random weights: norms about 1, matrices with a variance of 1 / columns.
struct Weights {
    random: Random,
    /// Quantized blocks, by type and columns.
    pools: HashMap<(DType, usize), Vec<u8>>,
}

impl Weights {
    /// Values in a pool: 8192 blocks of 32, 1024 of 256.
    const POOL: usize = 1 << 18;

    /// Appends the next `blocks` of a tensor.
    fn append(&mut self, tensor: &Tensor, blocks: usize, out: &mut Vec<u8>) -> Result<()> {
        if let [_] = tensor.dims[..] {
            for _ in 0..blocks {
                out.extend((1.0 + 0.1 * self.random.normal()).to_le_bytes());
            }
            return Ok(());
        }
        let (dtype, cols) = (tensor.dtype, tensor.dims[0]);
        let len = dtype.block_bytes();
        let Weights { random, pools } = self;
        let pool = match pools.entry((dtype, cols)) {
            Entry::Occupied(pool) => pool.into_mut(),
            Entry::Vacant(empty) => {
                let deviation = 1.0 / (cols as f32).sqrt();
                let values: Vec<f32> = (0..Self::POOL).map(|_| deviation * random.normal()).collect();
                let mut pool = vec![0; Self::POOL / dtype.block_len() * len];
                dtype.quantize(&values, &mut pool)?;
                empty.insert(pool)
            }
        };
        let choices = (pool.len() / len) as u64;
        for _ in 0..blocks {
            let i = (random.next() % choices) as usize;
            out.extend_from_slice(&pool[i * len..(i + 1) * len]);
        }
        Ok(())
    }
}

/// SplitMix64 (Steele, Lea and Flood, 2014).
struct Random(u64);

impl Random {
    fn next(&mut self) -> u64 {
        self.0 = self.0.wrapping_add(0x9E37_79B9_7F4A_7C15);
        let mut z = self.0;
        z = (z ^ (z >> 30)).wrapping_mul(0xBF58_476D_1CE4_E5B9);
        z = (z ^ (z >> 27)).wrapping_mul(0x94D0_49BB_1331_11EB);
        z ^ (z >> 31)
    }

    /// From the normal distribution, by Box and Muller's transform.
    fn normal(&mut self) -> f32 {
        // Both in (0, 1].
        let mut unit = || ((self.next() >> 40) + 1) as f32 / (1u64 << 24) as f32;
        let (u, v) = (unit(), unit());
        (-2.0 * u.ln()).sqrt() * (std::f32::consts::TAU * v).cos()
    }
}

#[cfg(test)]
mod tests {
    use carat::gguf::Array;

    use super::*;

    const TINY: Shape = Shape {
        arch: "gemma3",
        size_label: "tiny",
        context: 64,
        layers: 2,
        d: 96,
        ff: 512,
        heads: 4,
        kv_heads: 1,
        head_dim: 64,
        vocab: 4096,
        window: 16,
    };

    fn make(
        shape: &Shape,
        file_type: FileType,
        vocabulary: Option<&Gguf>,
        seed: u64,
        out: &Path,
    ) -> Result<()> {
        write(shape, file_type, vocabulary, seed, out, &CancelToken::new(), &mut |_, _| {})
    }

    fn left_in(dir: &Path) -> Vec<String> {
        let names = std::fs::read_dir(dir).unwrap().map(|e| e.unwrap().file_name().into_string().unwrap());
        let mut names: Vec<_> = names.collect();
        names.sort();
        names
    }

    #[test]
    fn files_hold_what_was_planned() {
        let dir = tempfile::tempdir().unwrap();
        let out = dir.path().join("tiny.gguf");
        for (file_type, types) in [
            (FileType::Q4_0, vec![DType::F32, DType::Q4_0, DType::Q8_0]),
            (FileType::Q4_K_M, vec![DType::F32, DType::Q5_0, DType::Q8_0, DType::Q4_K, DType::Q6_K]),
            (FileType::Q8_0, vec![DType::F32, DType::Q8_0]),
        ] {
            let (mut last, mut calls) = ((0, 0), 0);
            write(&TINY, file_type, None, 1, &out, &CancelToken::new(), &mut |done, total| {
                assert!(done > last.0 && done <= total);
                (last, calls) = ((done, total), calls + 1);
            })
            .unwrap();
            assert_eq!(last.0, last.1);
            assert!(calls >= 28);
            assert_eq!(left_in(dir.path()), ["tiny.gguf"]);

            let gguf = Gguf::open(&out).unwrap();
            let planned = TINY.tensors(file_type);
            assert_eq!(gguf.tensors().len(), planned.len());
            for (found, planned) in gguf.tensors().iter().zip(&planned) {
                assert_eq!(
                    (found.name(), found.dtype(), found.dims()),
                    (planned.name.as_str(), planned.dtype, &planned.dims[..])
                );
                assert!(types.contains(&found.dtype()), "{}: {}", found.name(), found.dtype());
                let mut values = vec![0f32; found.cols() * found.rows()];
                found.dtype().dequantize(found.data(), &mut values).unwrap();
                let n = values.len() as f64;
                let mean = values.iter().map(|v| *v as f64).sum::<f64>() / n;
                let deviation = (values.iter().map(|v| (*v as f64 - mean).powi(2)).sum::<f64>() / n).sqrt();
                let expected = if found.dims().len() == 1 {
                    (1.0, 0.1)
                } else {
                    (0.0, 1.0 / (found.cols() as f64).sqrt())
                };
                // Four standard errors of a sample of n, and 1% for quantization.
                let error = 4.0 * expected.1 / n.sqrt();
                assert!(
                    (mean - expected.0).abs() < error + 0.01 * expected.1,
                    "{}: mean {mean}",
                    found.name()
                );
                assert!(
                    (deviation - expected.1).abs() < error + 0.01 * expected.1,
                    "{}: deviation {deviation}, expected {}",
                    found.name(),
                    expected.1
                );
            }
            let metadata = gguf.metadata();
            assert_eq!(metadata.require::<u32>("general.file_type").unwrap(), file_type.number());
            assert_eq!(metadata.require::<u32>("gemma3.attention.sliding_window").unwrap(), 16);
        }
    }

    #[test]
    fn the_seed_decides_every_byte() {
        let dir = tempfile::tempdir().unwrap();
        let [a, b, c] = [("a", 7), ("b", 7), ("c", 8)].map(|(name, seed)| {
            let out = dir.path().join(name);
            make(&TINY, FileType::Q4_K_M, None, seed, &out).unwrap();
            std::fs::read(out).unwrap()
        });
        assert!(a == b);
        assert!(a.len() == c.len() && a != c);
    }

    #[test]
    fn made_up_vocabularies_are_sound() {
        let dir = tempfile::tempdir().unwrap();
        let out = dir.path().join("v.gguf");
        for (arch, start) in [("gemma", 106), ("gemma3", 105)] {
            let shape = Shape { arch, ..TINY };
            make(&shape, FileType::Q8_0, None, 0, &out).unwrap();
            let gguf = Gguf::open(&out).unwrap();
            let array = |key: &str| gguf.metadata().require::<Array<'_>>(key).unwrap();
            let tokens: Vec<String> = array("tokenizer.ggml.tokens")
                .strings()
                .unwrap()
                .map(|s| String::from_utf8(s.to_vec()).unwrap())
                .collect();
            let types: Vec<i32> = array("tokenizer.ggml.token_type").elements().unwrap().collect();
            assert_eq!((tokens.len(), types.len()), (4096, 4096));
            assert_eq!(array("tokenizer.ggml.scores").len(), 4096);
            let unique: std::collections::HashSet<&String> = tokens.iter().collect();
            assert_eq!(unique.len(), 4096);
            assert!(tokens.iter().all(|t| !t.is_empty()));
            assert_eq!(&tokens[..4], ["<pad>", "<eos>", "<bos>", "<unk>"]);
            assert_eq!(&tokens[start..start + 2], ["<start_of_turn>", "<end_of_turn>"]);
            let bytes: Vec<&String> = tokens.iter().zip(&types).filter(|t| *t.1 == 6).map(|t| t.0).collect();
            assert_eq!(bytes.len(), 256);
            assert_eq!((bytes[0].as_str(), bytes[255].as_str()), ("<0x00>", "<0xFF>"));
        }
        let error = make(&Shape { vocab: 300, ..TINY }, FileType::Q8_0, None, 0, &out).unwrap_err();
        assert!(error.to_string().contains("300"), "{error}");
    }

    #[test]
    fn vocabularies_are_copied_whole() {
        let dir = tempfile::tempdir().unwrap();
        let (from, out) = (dir.path().join("from.gguf"), dir.path().join("out.gguf"));
        make(&TINY, FileType::Q8_0, None, 0, &from).unwrap();
        let from = Gguf::open(from).unwrap();
        make(&Shape { arch: "gemma2", ..TINY }, FileType::Q4_0, Some(&from), 0, &out).unwrap();
        let found = Gguf::open(&out).unwrap();
        let of = |g: &Gguf| -> Vec<String> {
            let tokenizer = g.metadata().iter().filter(|(key, _)| key.starts_with("tokenizer."));
            tokenizer.map(|(key, value)| format!("{key} {:?}", value)).collect()
        };
        assert_eq!(of(&found), of(&from));
        // Turns of Gemma 3, though gemma2 would make up others.
        assert_eq!(found.metadata().require::<u32>("tokenizer.ggml.eot_token_id").unwrap(), 106);

        std::fs::remove_file(&out).unwrap();
        let other = Shape { vocab: 4000, ..TINY };
        let error = make(&other, FileType::Q4_0, Some(&from), 0, &out).unwrap_err();
        assert!(matches!(error, Error::Metadata { .. }), "{error}");
        assert_eq!(left_in(dir.path()), ["from.gguf"]);
    }

    #[test]
    fn nothing_is_left_of_what_fails() {
        let dir = tempfile::tempdir().unwrap();
        let out = dir.path().join("kept.gguf");
        std::fs::write(&out, "kept").unwrap();
        let cancel = CancelToken::new();
        let mut calls = 0;
        let error = write(&TINY, FileType::Q4_0, None, 0, &out, &cancel, &mut |_, _| {
            calls += 1;
            if calls == 5 {
                cancel.cancel();
            }
        })
        .unwrap_err();
        assert!(matches!(error, Error::Cancelled), "{error}");
        assert_eq!(calls, 5);
        assert_eq!(left_in(dir.path()), ["kept.gguf"]);
        assert_eq!(std::fs::read(&out).unwrap(), b"kept");

        let nowhere = dir.path().join("none").join("x.gguf");
        let error = make(&TINY, FileType::Q4_0, None, 0, &nowhere).unwrap_err();
        assert!(error.to_string().contains("x.gguf.part: cannot create"), "{error}");
    }
}
