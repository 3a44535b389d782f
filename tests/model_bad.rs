//! Models that cannot be run: each is refused with an error of its own, which names the file, the key or tensor, what
//! was expected and what was found, before anything large is allocated.

mod altered;
mod raw_gguf;

use std::alloc::{GlobalAlloc, Layout, System};
use std::cell::Cell;

use altered::{Altered, New, TINY, data};
use carat::gguf::Value;
use carat::{DType, Error, ErrorKind, Model, Result, SessionOptions, Storage};

thread_local! {
    /// Bytes that this thread has allocated in all.
    static ALLOCATED: Cell<usize> = const { Cell::new(0) };
}

struct Counting;

// SAFETY: every call is the system allocator's.
unsafe impl GlobalAlloc for Counting {
    unsafe fn alloc(&self, layout: Layout) -> *mut u8 {
        // The last allocations of a thread come after its thread-locals.
        _ = ALLOCATED.try_with(|n| n.set(n.get() + layout.size()));
        // SAFETY: the caller's promises are passed on.
        unsafe { System.alloc(layout) }
    }

    unsafe fn dealloc(&self, ptr: *mut u8, layout: Layout) {
        // SAFETY: the caller's promises are passed on.
        unsafe { System.dealloc(ptr, layout) }
    }
}

#[global_allocator]
static ALLOCATOR: Counting = Counting;

/// Opens a file and asks for its plan: both must fail alike, and take little memory to find out. Gives the error.
fn refusal(file: &Altered) -> Error {
    let bytes = file.bytes();
    let dir = tempfile::tempdir().unwrap();
    let path = dir.path().join("bad.gguf");
    std::fs::write(&path, &bytes).unwrap();

    let before = ALLOCATED.get();
    let opened = Model::open(&path).map(|_| ()).expect_err("a bad file was opened");
    let allocated = ALLOCATED.get() - before;
    assert!(allocated < 512 << 10, "{allocated} bytes to find that {opened}");
    assert_eq!(opened.kind(), ErrorKind::File);
    assert!(opened.to_string().contains(path.to_str().unwrap()), "{opened}");

    let planned = Model::plan(&path, 2, &SessionOptions::default()).expect_err("a bad file was planned for");
    assert_eq!(planned.to_string(), opened.to_string());
    assert_eq!(format!("{planned:?}"), format!("{opened:?}"));
    opened
}

/// Asserts the variant of a refusal and that its message has these facts.
macro_rules! bad {
    ($file:expr, $variant:pat, $($fact:expr),+) => {
        refused!(Err::<(), Error>(refusal(&$file)), $variant, $($fact),+)
    };
}

#[test]
fn the_tiny_models_are_sound_and_so_are_their_copies() {
    for name in TINY {
        let original = Model::open(data(&format!("{name}.gguf"))).unwrap();
        let copy = Altered::tiny(name).open().unwrap();
        assert_eq!(original.config(), copy.config());
    }
}

#[test]
fn every_tensor_is_needed() {
    for name in TINY {
        let tensors: Vec<String> = Altered::tiny(name).tensors.iter().map(|t| t.name.clone()).collect();
        // All layers are alike: those of the last, and what is outside of layers.
        let last = Model::open(data(&format!("{name}.gguf"))).unwrap().config().n_layers - 1;
        let last = format!("blk.{last}.");
        let mut missing = 0;
        for tensor in tensors.iter().filter(|t| t.starts_with(&last) || !t.starts_with("blk.")) {
            bad!(
                Altered::tiny(name).without_tensor(tensor),
                Error::Tensor { what: "presence", .. },
                format!("tensor {tensor} "),
                "no such tensor"
            );
            missing += 1;
        }
        assert!(missing >= 11, "{name}: {missing}");
    }
    let mut none = Altered::tiny("tiny-gemma3");
    none.tensors.clear();
    bad!(none, Error::Tensor { .. }, "tensor token_embd.weight", "rows (the vocabulary)", "no such tensor");
}

#[test]
fn every_shape_is_checked() {
    for name in TINY {
        let file = Altered::tiny(name);
        for i in 0..file.tensors.len() {
            let tensor = &file.tensors[i];
            if !tensor.name.starts_with("blk.1.") && tensor.name != "output_norm.weight" {
                continue;
            }
            let found = tensor.dims.clone();
            // One row more, or one value more.
            let mut longer = Altered::tiny(name);
            let dims = &mut longer.tensors[i].dims;
            *dims.last_mut().unwrap() += 1;
            let changed = dims.clone();
            let len = changed.iter().product::<usize>() * 4;
            longer.tensors[i].data.resize(len, 0);
            bad!(
                longer,
                Error::Tensor { what: "shape", .. },
                format!("tensor {} at byte ", tensor.name),
                format!("expected {found:?}, found {changed:?}")
            );
        }
    }
    // Transposed, of the same number of values; and with a dimension too many.
    let transposed = Altered::tiny("tiny-gemma3").tensor("blk.2.ffn_down.weight", |t| t.dims.reverse());
    bad!(
        transposed,
        Error::Tensor { what: "shape", .. },
        "blk.2.ffn_down.weight",
        "[128, 64], found [64, 128]"
    );
    let cube = Altered::tiny("tiny-gemma3").tensor("blk.2.ffn_up.weight", |t| t.dims = vec![64, 64, 2]);
    bad!(cube, Error::Tensor { what: "shape", .. }, "blk.2.ffn_up.weight", "[64, 128], found [64, 64, 2]");
    // Dimensions of 1 at the end say nothing.
    Altered::tiny("tiny-gemma3").tensor("blk.2.ffn_up.weight", |t| t.dims.push(1)).open().unwrap();
    // The widths of rows in the metadata are those of the embedding.
    bad!(
        Altered::tiny("tiny-gemma3").set("embedding_length", 96u32),
        Error::Tensor { what: "shape", .. },
        "token_embd.weight",
        "[96, 768], found [64, 768]"
    );
    // A head of its own must have as many rows.
    Altered::tiny("tiny-gemma3").add("output.weight", DType::F32, &[64, 768]).open().unwrap();
    bad!(
        Altered::tiny("tiny-gemma3").add("output.weight", DType::F32, &[64, 767]),
        Error::Tensor { what: "shape", .. },
        "output.weight",
        "[64, 768], found [64, 767]"
    );
    let one_row = Altered::tiny("tiny-gemma3").tensor("token_embd.weight", |t| {
        t.dims = vec![64];
        t.data.truncate(4 * 64);
    });
    assert_eq!(one_row.open().unwrap().config().vocab, 1);
    // 2^25 rows without a byte of data is what the reader refuses, so that no vocabulary is larger than its file.
    let mut huge = Altered::tiny("tiny-gemma3").bytes();
    let at = find(&huge, b"token_embd.weight") + "token_embd.weight".len() + 4 + 8;
    assert_eq!(huge[at..at + 8], 768u64.to_le_bytes());
    huge[at..at + 8].copy_from_slice(&(1u64 << 25).to_le_bytes());
    refused!(altered::open_bytes(huge), Error::Tensor { what: "data", .. }, "token_embd.weight", "bad.gguf");
}

fn find(bytes: &[u8], what: &[u8]) -> usize {
    bytes.windows(what.len()).position(|w| w == what).unwrap()
}

#[test]
fn rows_that_are_no_whole_blocks() {
    // The writer does not write these: the type in the description is changed afterwards, to Q4_K (12).
    let mut bytes = Altered::tiny("tiny-gemma3").bytes();
    let name = b"blk.3.attn_q.weight";
    let at = find(&bytes, name) + name.len() + 4 + 2 * 8;
    assert_eq!(bytes[at..at + 4], 0u32.to_le_bytes());
    bytes[at..at + 4].copy_from_slice(&12u32.to_le_bytes());
    refused!(
        altered::open_bytes(bytes.clone()),
        Error::Tensor { what: "row length", .. },
        "bad.gguf",
        "tensor blk.3.attn_q.weight at byte",
        "a multiple of 256, the block of Q4_K",
        "64"
    );
    // I32 (26): a type that nobody multiplies with.
    bytes[at..at + 4].copy_from_slice(&26u32.to_le_bytes());
    refused!(
        altered::open_bytes(bytes),
        Error::Unsupported { .. },
        "bad.gguf",
        "type 26 (I32) of tensor blk.3.attn_q.weight",
        "Q4_0"
    );
}

#[test]
fn norms_are_floats() {
    for ty in [DType::F16, DType::BF16] {
        for norm in ["blk.0.attn_norm.weight", "blk.5.attn_q_norm.weight", "output_norm.weight"] {
            Altered::tiny("tiny-gemma3").tensor(norm, |t| t.convert(ty)).open().unwrap();
        }
    }
    for ty in [DType::Q4_0, DType::Q8_0, DType::IQ4_NL] {
        for norm in ["blk.0.attn_norm.weight", "blk.5.attn_q_norm.weight", "output_norm.weight"] {
            bad!(
                Altered::tiny("tiny-gemma3").tensor(norm, |t| t.convert(ty)),
                Error::Tensor { what: "type", .. },
                format!("tensor {norm} at byte"),
                "F32, F16 or BF16",
                format!("found {ty}")
            );
        }
    }
}

/// Keys without which each generation is not known.
const REQUIRED: [&str; 8] = [
    "block_count",
    "embedding_length",
    "feed_forward_length",
    "attention.head_count",
    "attention.head_count_kv",
    "attention.key_length",
    "attention.value_length",
    "context_length",
];

#[test]
fn missing_metadata() {
    for name in TINY {
        let arch = name.split('-').nth(1).unwrap();
        for key in REQUIRED {
            bad!(
                Altered::tiny(name).without(key),
                Error::Metadata { .. },
                format!("metadata {arch}.{key}: "),
                "expected a number from 1 to ",
                "found nothing"
            );
        }
    }
    bad!(
        Altered::tiny("tiny-gemma3").without("attention.sliding_window"),
        Error::Metadata { .. },
        "metadata gemma3.attention.sliding_window: ",
        "found nothing"
    );
    bad!(
        Altered::tiny("tiny-gemma3").without("general.architecture"),
        Error::Metadata { .. },
        "metadata general.architecture: expected the name of an architecture, found nothing"
    );
    bad!(
        Altered::tiny("tiny-gemma3").set("general.architecture", 3u32),
        Error::Metadata { .. },
        "metadata general.architecture: expected the name of an architecture, found 3"
    );
}

#[test]
fn absurd_counts() {
    for name in TINY {
        let arch = name.split('-').nth(1).unwrap();
        for key in REQUIRED {
            let absurd: [(Value<'static>, &str); 8] = [
                (0u32.into(), "0"),
                ((-1i32).into(), "-1"),
                ((1u64 << 40).into(), "1099511627776"),
                ((1u64 << 63).into(), "9223372036854775808"),
                (u64::MAX.into(), "18446744073709551615"),
                (2.5f32.into(), "2.5"),
                ("many".into(), "\"many\""),
                (true.into(), "true"),
            ];
            for (value, found) in absurd {
                bad!(
                    Altered::tiny(name).set(key, value),
                    Error::Metadata { .. },
                    format!("metadata {arch}.{key}: "),
                    "expected a number from 1 to ",
                    format!("found {found}")
                );
            }
            bad!(
                Altered::tiny(name).set(key, New::Numbers(vec![4; 4])),
                Error::Metadata { .. },
                format!("metadata {arch}.{key}: "),
                "found array of 4 uint32"
            );
        }
        // Any type of integer will do.
        Altered::tiny(name).set("context_length", 256u64).set("attention.head_count", 4i8).open().unwrap();
        bad!(Altered::tiny(name).set("vocab_size", 0u32), Error::Metadata { .. }, "vocab_size", "found 0");
    }
}

#[test]
fn a_window_of_nothing() {
    for name in ["tiny-gemma2", "tiny-gemma3"] {
        for (value, found) in [(0u64, "0"), (1 << 63, "9223372036854775808")] {
            bad!(
                Altered::tiny(name).set("attention.sliding_window", value),
                Error::Metadata { .. },
                "attention.sliding_window: expected a number from 1 to",
                format!("found {found}")
            );
        }
    }
}

#[test]
fn heads_that_do_not_fit() {
    for (heads, kv) in [(4u32, 3u32), (5, 2), (7, 4)] {
        bad!(
            Altered::tiny("tiny-gemma2")
                .set("attention.head_count", heads)
                .set("attention.head_count_kv", kv),
            Error::Metadata { .. },
            "metadata gemma2.attention.head_count_kv: ",
            format!("a divisor of the {heads} heads"),
            format!("found {kv}")
        );
    }
    // More key heads than heads.
    bad!(
        Altered::tiny("tiny-gemma2").set("attention.head_count_kv", 8u32),
        Error::Metadata { .. },
        "metadata gemma2.attention.head_count_kv: ",
        "from 1 to 4",
        "found 8"
    );
    for width in [33u32, 31, 1, 16, 48, 100] {
        for key in ["attention.key_length", "embedding_length", "feed_forward_length"] {
            bad!(
                Altered::tiny("tiny-gemma3").set(key, width).set("attention.value_length", width),
                Error::Metadata { .. },
                format!("metadata gemma3.{}", if key == "attention.key_length" { key } else { "" }),
                "a multiple of 32",
                format!("found {width}")
            );
        }
    }
    bad!(
        Altered::tiny("tiny-gemma3").set("attention.value_length", 64u32),
        Error::Metadata { .. },
        "metadata gemma3.attention.value_length: expected the key length, 32, found 64"
    );
    // Sound, but not those of the tensors.
    bad!(
        Altered::tiny("tiny-gemma3").set("attention.head_count", 8u32),
        Error::Tensor { what: "shape", .. },
        "blk.0.attn_q.weight",
        "[64, 256], found [64, 128]"
    );
}

#[test]
fn layers_that_do_not_fit() {
    for more in [8u32, 1024] {
        bad!(
            Altered::tiny("tiny-gemma3").set("block_count", more),
            Error::Tensor { what: "presence", .. },
            "blk.7.attn_norm.weight",
            "no such tensor"
        );
    }
    for fewer in [6u32, 1] {
        bad!(
            Altered::tiny("tiny-gemma3").set("block_count", fewer),
            Error::Metadata { .. },
            "metadata gemma3.block_count: ",
            format!("there are tensors of blk.{fewer}"),
            format!("found {fewer}")
        );
    }
}

#[test]
fn numbers_that_are_none() {
    let cases = [
        "attention.layer_norm_rms_epsilon",
        "rope.freq_base",
        "rope.freq_base_swa",
        "rope.scaling.factor",
        "attn_logit_softcapping",
        "final_logit_softcapping",
    ];
    for name in TINY {
        let arch = name.split('-').nth(1).unwrap();
        for key in cases {
            let values: [Value<'static>; 8] = [
                f32::NAN.into(),
                f32::INFINITY.into(),
                f32::NEG_INFINITY.into(),
                1e300f64.into(),
                (-1f32).into(),
                (-1e-6f64).into(),
                0f32.into(),
                "ten".into(),
            ];
            for value in values {
                // 0 is how converters write that there is no cap.
                if key.ends_with("softcapping") && value.as_f64() == Some(0.0) {
                    let model = Altered::tiny(name).set(key, value).open().unwrap();
                    let c = model.config();
                    assert_eq!(
                        if key.starts_with("attn") { c.attention_softcap } else { c.final_softcap },
                        None
                    );
                    continue;
                }
                let finite = value.as_f64().is_some_and(|v| (v as f32).is_finite());
                bad!(
                    Altered::tiny(name).set(key, value),
                    Error::Metadata { .. },
                    format!("metadata {arch}.{key}: "),
                    format!(
                        "expected a {} number, found {value}",
                        if finite { "positive" } else { "finite" }
                    )
                );
            }
        }
    }
    // The other names of the bases are the ones named.
    for (with, without) in
        [("rope.global.freq_base", "rope.freq_base"), ("rope.local.freq_base", "rope.freq_base_swa")]
    {
        bad!(
            Altered::tiny("tiny-gemma3").without(without).set(with, 0f32),
            Error::Metadata { .. },
            format!("metadata gemma3.{with}: expected a positive number, found 0")
        );
    }
}

#[test]
fn patterns_of_windows() {
    let key = "attention.sliding_window_pattern";
    let cases: [(New, &str, &str); 8] = [
        (New::Bools(vec![true; 6]), "7 values, one for each layer", "found 6"),
        (New::Bools(vec![true; 8]), "7 values, one for each layer", "found 8"),
        (New::Bools(vec![]), "7 values, one for each layer", "found 0"),
        (New::Numbers(vec![1; 7]), "an array of bool, or a number", "found array of 7 uint32"),
        (New::Strings(vec!["true"; 7]), "an array of bool, or a number", "found array of 7 string"),
        (0u32.into(), "a number from 1 to", "found 0"),
        ((1u64 << 40).into(), "a number from 1 to", "found 1099511627776"),
        ("LLLLLG".into(), "a number from 1 to", "found \"LLLLLG\""),
    ];
    for (value, expected, found) in cases {
        bad!(
            Altered::tiny("tiny-gemma3").set(key, value),
            Error::Metadata { .. },
            format!("metadata gemma3.{key}: expected {expected}"),
            found
        );
    }
}

#[test]
fn other_scalings_of_rope() {
    for ty in ["yarn", "longrope", "dynamic"] {
        bad!(
            Altered::tiny("tiny-gemma3").set("rope.scaling.type", ty).set("rope.scaling.factor", 8f32),
            Error::Unsupported { .. },
            format!("rope scaling of type {ty:?} (gemma3.rope.scaling.type)"),
            "supported: none, linear"
        );
    }
    bad!(
        Altered::tiny("tiny-gemma3").set("rope.scaling.type", 2u32),
        Error::Metadata { .. },
        "metadata gemma3.rope.scaling.type: expected a text, found 2"
    );
}

#[test]
fn other_architectures_are_named() {
    const SUPPORTED: &str = "supported: the text models gemma, gemma2, gemma3";
    for arch in ["llama", "gemma3n", "gemma-embedding", "t5gemma", "qwen3", "Gemma3", "gemma4", ""] {
        bad!(
            Altered::tiny("tiny-gemma3").set("general.architecture", arch),
            Error::Unsupported { .. },
            format!("architecture {arch:?} is not supported"),
            SUPPORTED
        );
    }
    let long: &'static str = Box::leak("a".repeat(100_000).into_boxed_str());
    assert!(
        refusal(&Altered::tiny("tiny-gemma3").set("general.architecture", long)).to_string().len() < 1000
    );
    bad!(
        Altered::tiny("tiny-gemma3").set("general.architecture", "clip"),
        Error::Unsupported { .. },
        "a vision projector (architecture \"clip\") is not supported",
        SUPPORTED
    );
    for (ty, what) in [
        ("mmproj", "a vision projector"),
        ("adapter", "an adapter (LoRA)"),
        ("imatrix", "an importance matrix"),
    ] {
        bad!(
            Altered::tiny("tiny-gemma3").set("general.type", ty),
            Error::Unsupported { .. },
            format!("{what} (architecture \"gemma3\") is not supported"),
            SUPPORTED
        );
        bad!(
            Altered::tiny("tiny-gemma3").set("general.type", ty).without("general.architecture"),
            Error::Unsupported { .. },
            format!("{what} is not supported"),
            SUPPORTED
        );
    }
}

#[test]
fn a_vocabulary_of_nothing() {
    // Opening does not look at it: the tokenizer is built when first asked for.
    let none = || New::Strings(vec![]);
    let model = Altered::tiny("tiny-gemma3")
        .set("tokenizer.ggml.tokens", none())
        .set("tokenizer.ggml.scores", none())
        .set("tokenizer.ggml.token_type", none())
        .open()
        .unwrap();
    refused!(
        model.tokenizer(),
        Error::Metadata { .. },
        "bad.gguf",
        "tokenizer.ggml.tokens: expected at least one piece"
    );
    let model = Altered::tiny("tiny-gemma3").without("tokenizer.ggml.tokens").open().unwrap();
    refused!(model.tokenizer(), Error::Metadata { .. }, "bad.gguf", "tokenizer.ggml.tokens", "found nothing");
    let model = Altered::tiny("tiny-gemma3").set("tokenizer.ggml.model", "gpt2").open().unwrap();
    refused!(model.tokenizer(), Error::Unsupported { .. }, "bad.gguf", "\"gpt2\"", "\"llama\"");
}

/// What `Model::open` and `Model::plan` say of a path.
fn both(path: &std::path::Path) -> Error {
    let opened = Model::open(path).map(|_| ()).unwrap_err();
    let planned = Model::plan(path, 1, &SessionOptions::default()).unwrap_err();
    assert_eq!(opened.to_string(), planned.to_string());
    opened
}

#[test]
fn a_plan_fails_as_opening_does() {
    let dir = tempfile::tempdir().unwrap();
    let e = both(&dir.path().join("none.gguf"));
    refused!(Err::<(), _>(e), Error::Io { action: "open", .. }, "none.gguf");
    let e = both(dir.path());
    refused!(Err::<(), _>(e), Error::Io { .. }, dir.path().display());
    let empty = dir.path().join("empty.gguf");
    std::fs::write(&empty, b"").unwrap();
    refused!(Err::<(), _>(both(&empty)), Error::Format { .. }, "empty.gguf", "an empty file");
    let cut = dir.path().join("cut.gguf");
    let bytes = Altered::tiny("tiny-gemma3").bytes();
    std::fs::write(&cut, &bytes[..bytes.len() - 256]).unwrap();
    refused!(Err::<(), _>(both(&cut)), Error::Tensor { what: "data", .. }, "cut.gguf");
    let part = data("split-00002-of-00003.gguf");
    refused!(Err::<(), _>(both(&part)), Error::Metadata { .. }, "split-00002-of-00003.gguf", "split.no");
}

#[test]
fn options_that_cannot_be() {
    let path = data("tiny-gemma3.gguf");
    let model = Model::builder().threads(1).open(&path).unwrap();
    let with = |change: &dyn Fn(&mut SessionOptions)| {
        let mut options = SessionOptions::default();
        change(&mut options);
        let planned = Model::plan(&path, 1, &options).unwrap_err().to_string();
        assert_eq!(planned, model.plan_session(&options).unwrap_err().to_string());
        let made: Result<()> = carat::Session::new(&model, options).map(|_| ());
        assert_eq!(planned, made.unwrap_err().to_string());
        planned
    };
    assert!(with(&|o| o.context = Some(0)).contains("1 to 256, the model's context length"));
    assert!(with(&|o| o.context = Some(257)).contains("257"));
    assert!(with(&|o| o.context = Some(usize::MAX)).contains(&usize::MAX.to_string()));
    assert!(with(&|o| o.batch = 0).contains("1 to 4096"));
    assert!(with(&|o| o.batch = usize::MAX).contains(&usize::MAX.to_string()));
    assert!(with(&|o| o.snapshots = usize::MAX).contains("0 to 64"));
    for threads in [0, 257, usize::MAX] {
        let planned = Model::plan(&path, threads, &SessionOptions::default());
        refused!(planned, Error::InvalidOption { option: "threads", .. }, "1 to 256", threads);
        let opened = Model::builder().threads(threads).open(&path);
        refused!(opened, Error::InvalidOption { option: "threads", .. }, "1 to 256", threads);
    }
    let storage = || Storage::open(&path).unwrap();
    let two = Model::builder().open_storage(vec![storage(), storage()]);
    refused!(two, Error::InvalidOption { option: "parts", .. }, "1, as", "found 2");
    refused!(
        Model::builder().open_storage(vec![]),
        Error::InvalidOption { option: "parts", .. },
        "at least one"
    );
}
