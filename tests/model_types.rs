//! Models of every tensor type: they compute what their values say, and whatever their bytes are, they are safe.

mod altered;
mod raw_gguf;

use altered::{Altered, Tensor, data};
use carat::{DType, Error, GenerateOptions, Isa, KvType, Model, Session, SessionOptions, Storage};
use raw_gguf::Random;

const D: usize = 256;
const FF: usize = 256;
const HEADS: usize = 4;
const KV_HEADS: usize = 2;
const HEAD_DIM: usize = 64;
/// No multiple of anything.
const VOCAB: usize = 301;

fn isas() -> impl Iterator<Item = Isa> {
    Isa::ALL.into_iter().filter(|i| i.is_available())
}

/// A Gemma 3 of two layers, one of them windowed, that is wide enough for every type.
fn wide(mut tensor: impl FnMut(&str, &[usize]) -> (DType, Vec<u8>)) -> Vec<u8> {
    let mut file = Altered::tiny("tiny-gemma3")
        .set("embedding_length", D as u32)
        .set("feed_forward_length", FF as u32)
        .set("block_count", 2u32)
        .set("attention.head_count", HEADS as u32)
        .set("attention.head_count_kv", KV_HEADS as u32)
        .set("attention.key_length", HEAD_DIM as u32)
        .set("attention.value_length", HEAD_DIM as u32)
        .set("attention.sliding_window_pattern", 2u32);
    file.tensors.retain(|t| !t.name.starts_with("blk.") || t.name.as_str() < "blk.2");
    let (q, kv) = (HEADS * HEAD_DIM, KV_HEADS * HEAD_DIM);
    for t in &mut file.tensors {
        let part = t.name.strip_suffix(".weight").unwrap().rsplit('.').next().unwrap();
        t.dims = match part {
            "token_embd" => vec![D, VOCAB],
            "attn_q" => vec![D, q],
            "attn_k" | "attn_v" => vec![D, kv],
            "attn_output" => vec![q, D],
            "ffn_gate" | "ffn_up" => vec![D, FF],
            "ffn_down" => vec![FF, D],
            "attn_q_norm" | "attn_k_norm" => vec![HEAD_DIM],
            _ => vec![D],
        };
        (t.dtype, t.data) = tensor(&t.name, &t.dims);
    }
    file.bytes()
}

fn uniform(random: &mut Random) -> f32 {
    (random.next() >> 40) as f32 / (1 << 23) as f32 - 1.0
}

/// The same values for the same tensor, of a size that keeps a model alive.
fn values(name: &str, dims: &[usize]) -> Vec<f32> {
    let mut random = Random(name.bytes().fold(7, |h, b| h.wrapping_mul(31) + b as u64));
    let n = dims.iter().product();
    match dims.len() {
        1 => (0..n).map(|_| 1.0 + 0.2 * uniform(&mut random)).collect(),
        _ => (0..n).map(|_| uniform(&mut random) * 1.7 / (dims[0] as f32).sqrt()).collect(),
    }
}

/// A model whose matrices are `ty`, and one that has the same values in F32.
fn twins(ty: DType) -> [Vec<u8>; 2] {
    let quantized = |name: &str, dims: &[usize]| {
        let ty = if dims.len() == 1 { DType::F32 } else { ty };
        let values = values(name, dims);
        let mut t = Tensor {
            name: name.into(),
            dtype: DType::F32,
            dims: dims.into(),
            data: vec![0; 4 * values.len()],
        };
        DType::F32.quantize(&values, &mut t.data).unwrap();
        t.convert(ty);
        t
    };
    let a = wide(|name, dims| {
        let t = quantized(name, dims);
        (t.dtype, t.data)
    });
    let b = wide(|name, dims| {
        let mut t = quantized(name, dims);
        t.convert(DType::F32);
        (t.dtype, t.data)
    });
    [a, b]
}

fn open(bytes: &[u8], isa: Isa, threads: usize) -> Model {
    let storage = Storage::from_bytes(bytes.to_vec());
    Model::builder().isa(isa).threads(threads).open_storage(vec![storage]).unwrap()
}

fn options(exact: bool, kv: KvType) -> SessionOptions {
    let mut o = SessionOptions::default();
    o.context = Some(128);
    o.batch = 20;
    o.exact = exact;
    o.kv = Some(kv);
    o
}

/// Longer than the window of 16, and in two batches.
fn ids() -> Vec<u32> {
    (0..23u32).map(|i| if i == 0 { 2 } else { (i * 37 + i * i) % VOCAB as u32 }).collect()
}

/// The logits after every token, prefilled.
fn prefilled(model: &Model, o: SessionOptions, ids: &[u32]) -> Vec<f32> {
    let mut all = Vec::new();
    let mut session = Session::new(model, o).unwrap();
    let each = |_: usize, logits: &[f32]| {
        all.extend_from_slice(logits);
        Ok(())
    };
    session.prefill_each(ids, None, each).unwrap();
    all
}

/// The logits after every token, stepped.
fn stepped(model: &Model, o: SessionOptions, ids: &[u32]) -> Vec<f32> {
    let mut session = Session::new(model, o).unwrap();
    ids.iter().flat_map(|&id| session.step(id).unwrap().to_vec()).collect()
}

/// How far `a` is from `b`: root of the mean square, in units of that of `b`.
fn distance(a: &[f32], b: &[f32]) -> f64 {
    assert_eq!(a.len(), b.len());
    let square = |x: f64| x * x;
    let off: f64 = a.iter().zip(b).map(|(a, b)| square(*a as f64 - *b as f64)).sum();
    let size: f64 = b.iter().map(|b| square(*b as f64)).sum();
    assert!(size > 0.0 && off.is_finite());
    (off / size).sqrt()
}

#[test]
fn each_type_computes_what_its_values_say() {
    let ids = ids();
    let f32_cache = |exact| options(exact, KvType::F32);
    for ty in DType::ALL {
        let [file, twin] = twins(ty);
        let truth = prefilled(&open(&twin, Isa::Scalar, 1), f32_cache(true), &ids);
        for isa in isas() {
            let model = open(&file, isa, 1);
            let exact = distance(&prefilled(&model, f32_cache(true), &ids[..7]), &truth[..7 * VOCAB]);
            let prefill = distance(&prefilled(&model, f32_cache(false), &ids), &truth);
            let step = distance(&stepped(&model, f32_cache(false), &ids[..7]), &truth[..7 * VOCAB]);
            println!("{isa} {ty}: exact {exact:.1e}, prefilled {prefill:.1e}, stepped {step:.1e}");
            // The order of sums is the instruction set's own.
            let sums = 5e-6;
            assert!(exact <= sums, "{ty} on {isa}: exact {exact}");
            // Inputs of quantized weights have 8 bits in a prompt and 16 in a step.
            let (eight, sixteen) = if ty.is_float() { (sums, sums) } else { (2e-2, 1e-4) };
            assert!(prefill <= eight, "{ty} on {isa}: prefilled {prefill}");
            assert!(step <= sixteen, "{ty} on {isa}: stepped {step}");
        }
    }
}

#[test]
fn smaller_caches_are_close() {
    let ids = ids();
    let [file, _] = twins(DType::F32);
    for isa in isas() {
        let model = open(&file, isa, 1);
        let truth = prefilled(&model, options(true, KvType::F32), &ids);
        for (kv, bound) in [(KvType::F16, 1e-3), (KvType::Q8_0, 1.5e-2)] {
            for got in
                [prefilled(&model, options(false, kv), &ids), stepped(&model, options(false, kv), &ids)]
            {
                let off = distance(&got, &truth);
                println!("{isa}, {kv:?}: {off:.1e}");
                assert!(off <= bound, "{kv:?} on {isa}: {off}");
            }
        }
    }
}

#[test]
fn other_types_are_close_to_the_golden_logits() {
    let ids: Vec<u32> = serde_json::from_slice(&std::fs::read(data("tiny-ids.json")).unwrap()).unwrap();
    for name in altered::TINY {
        let golden = std::fs::read(data(&format!("{name}.logits.f32"))).unwrap();
        let golden: Vec<f32> =
            golden.chunks_exact(4).map(|b| f32::from_le_bytes(b.try_into().unwrap())).collect();
        // About twice what was measured; the logits go from −6 to 7.
        for (ty, bound) in [(DType::F16, 0.03), (DType::BF16, 0.15), (DType::Q8_0, 0.6)] {
            let mut file = Altered::tiny(name);
            for t in file.tensors.iter_mut().filter(|t| t.is_matrix()) {
                t.convert(ty);
            }
            let bytes = file.bytes();
            for isa in isas() {
                let model = open(&bytes, isa, 1);
                let mut o = options(false, KvType::F16);
                o.batch = 96;
                let worst =
                    |got: &[f32]| got.iter().zip(&golden).map(|(a, b)| (a - b).abs()).fold(0f32, f32::max);
                let off = [worst(&prefilled(&model, o.clone(), &ids)), worst(&stepped(&model, o, &ids))];
                println!("{name} {ty} {isa}: {off:?}");
                assert!(off.iter().all(|&off| off <= bound), "{name}, {ty} on {isa}: {off:?}");
            }
        }
    }
}

/// Random blocks: any bytes at all, or only such as are numbers of a size that a model can compute with.
fn random_blocks(ty: DType, n: usize, wild: bool, random: &mut Random) -> Vec<u8> {
    let mut bytes = Vec::new();
    let mut values = vec![0.0; ty.block_len()];
    while bytes.len() < n / ty.block_len() * ty.block_bytes() {
        let mut block: Vec<u8> =
            (0..ty.block_bytes().div_ceil(8)).flat_map(|_| random.next().to_le_bytes()).collect();
        block.truncate(ty.block_bytes());
        ty.dequantize(&block, &mut values).unwrap();
        if wild || values.iter().all(|v| v.abs() < 100.0) {
            bytes.extend_from_slice(&block);
        }
    }
    bytes
}

#[test]
fn any_bytes_are_safe() {
    let ids = ids();
    for ty in DType::ALL {
        let mut random = Random(ty as u64 + 1000);
        let file = wide(|_, dims| {
            let ty = if dims.len() == 1 && !ty.is_float() { DType::F32 } else { ty };
            (ty, random_blocks(ty, dims.iter().product(), true, &mut random))
        });
        for isa in isas() {
            let model = open(&file, isa, 2);
            for kv in [KvType::F16, KvType::Q8_0] {
                let logits = prefilled(&model, options(false, kv), &ids[..5]);
                assert_eq!(logits.len(), 5 * VOCAB);
                stepped(&model, options(false, kv), &ids[..2]);
            }
            prefilled(&model, options(true, KvType::F32), &ids[..2]);
            // What is made of such logits ends in an error that says so, if not in a result.
            let mut session = Session::new(&model, options(false, KvType::F16)).unwrap();
            match session.score(&ids[..5], 1, None) {
                Ok(scores) => assert_eq!(scores.len(), 4),
                Err(e) => assert!(matches!(e, Error::NanLogits { .. }), "{ty} on {isa}: {e}"),
            }
            let mut session = Session::new(&model, options(false, KvType::F16)).unwrap();
            let mut generate = GenerateOptions::default();
            generate.max_tokens = 2;
            match session.generate(&ids[..5], &generate, |_| std::ops::ControlFlow::Continue(())) {
                Ok(summary) => assert!(summary.generated_tokens <= 2),
                Err(e) => assert!(matches!(e, Error::NanLogits { .. }), "{ty} on {isa}: {e}"),
            }
        }
    }
}

#[test]
fn random_blocks_of_numbers_give_numbers_and_the_same_bits() {
    let ids = &ids()[..12];
    for ty in DType::ALL {
        let mut random = Random(ty as u64 + 1);
        let file = wide(|name, dims| match dims.len() {
            1 => {
                let mut bytes = vec![0; 4 * dims[0]];
                DType::F32.quantize(&values(name, dims), &mut bytes).unwrap();
                (DType::F32, bytes)
            }
            _ => (ty, random_blocks(ty, dims.iter().product(), false, &mut random)),
        });
        for isa in isas() {
            let o = |batch| {
                // Values of this size may be beyond f16.
                let mut o = options(false, KvType::F32);
                o.batch = batch;
                o
            };
            let [one, two] = [1, 2].map(|threads| open(&file, isa, threads));
            let expected = prefilled(&one, o(16), ids);
            assert!(expected.iter().all(|l| l.is_finite()), "{ty} on {isa}");
            assert!(prefilled(&two, o(16), ids) == expected, "{ty} on {isa}: two threads");
            let mut session = Session::new(&two, o(16)).unwrap();
            for part in ids.chunks(5) {
                session.prefill(part).unwrap();
            }
            let last = &expected[expected.len() - VOCAB..];
            assert!(session.logits().unwrap() == last, "{ty} on {isa}: by five");
            let [a, b] = [&one, &two].map(|m| stepped(m, o(16), &ids[..2]));
            assert!(a == b && a.iter().all(|l| l.is_finite()), "{ty} on {isa}: stepped");
        }
    }
}
