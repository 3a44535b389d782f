//! The configuration of every published model, from files of its exact shapes, as llama.cpp's converter and Ollama
//! write them.

mod altered;

use std::fs::File;
use std::path::PathBuf;

use altered::{Altered, New};
use carat::gguf::Builder;
use carat::{Arch, Config, DType, KvType, Model, SessionOptions};

/// A published model.
struct Shape {
    name: &'static str,
    arch: Arch,
    layers: usize,
    d: usize,
    ff: usize,
    heads: usize,
    kv_heads: usize,
    head_dim: usize,
    vocab: usize,
    context: usize,
    /// 0 where there is none.
    window: usize,
    rope_factor: f32,
    /// What the square of the queries' scale is one over.
    query_width: f32,
}

#[rustfmt::skip]
const SHAPES: [Shape; 10] = {
    use Arch::*;
    const fn shape(
        (name, arch): (&'static str, Arch),
        [layers, d, ff]: [usize; 3],
        [heads, kv_heads, head_dim]: [usize; 3],
        [vocab, context, window]: [usize; 3],
        rope_factor: f32,
        query_width: f32,
    ) -> Shape {
        Shape { name, arch, layers, d, ff, heads, kv_heads, head_dim, vocab, context, window, rope_factor, query_width }
    }
    [
        shape(("gemma-2b", Gemma), [18, 2048, 16384], [8, 1, 256], [256000, 8192, 0], 1.0, 256.0),
        shape(("gemma-7b", Gemma), [28, 3072, 24576], [16, 16, 256], [256000, 8192, 0], 1.0, 256.0),
        shape(("gemma-2-2b", Gemma2), [26, 2304, 9216], [8, 4, 256], [256000, 8192, 4096], 1.0, 256.0),
        shape(("gemma-2-9b", Gemma2), [42, 3584, 14336], [16, 8, 256], [256000, 8192, 4096], 1.0, 256.0),
        shape(("gemma-2-27b", Gemma2), [46, 4608, 36864], [32, 16, 128], [256000, 8192, 4096], 1.0, 144.0),
        shape(("gemma-3-270m", Gemma3), [18, 640, 2048], [4, 1, 256], [262144, 32768, 512], 1.0, 256.0),
        shape(("gemma-3-1b", Gemma3), [26, 1152, 6912], [4, 1, 256], [262144, 32768, 512], 1.0, 256.0),
        shape(("gemma-3-4b", Gemma3), [34, 2560, 10240], [8, 4, 256], [262208, 131072, 1024], 8.0, 256.0),
        shape(("gemma-3-12b", Gemma3), [48, 3840, 15360], [16, 8, 256], [262208, 131072, 1024], 8.0, 256.0),
        shape(("gemma-3-27b", Gemma3), [62, 5376, 21504], [32, 16, 128], [262208, 131072, 1024], 8.0, 168.0),
    ]
};

#[derive(Clone, Copy, PartialEq, Debug)]
enum Converter {
    LlamaCpp,
    Ollama,
}

impl Shape {
    /// Its file with matrices of Q4_0 that are all zero: a hole, which takes no room on the disk.
    fn write(&self, converter: Converter, dir: &tempfile::TempDir) -> PathBuf {
        let mut b = Builder::new();
        b.set("general.architecture", self.arch.name()).unwrap();
        let arch = self.arch.name();
        let key = |key: &str| format!("{arch}.{key}");
        for (name, n) in [
            ("block_count", self.layers),
            ("context_length", self.context),
            ("embedding_length", self.d),
            ("feed_forward_length", self.ff),
            ("attention.head_count", self.heads),
            ("attention.head_count_kv", self.kv_heads),
            ("attention.key_length", self.head_dim),
            ("attention.value_length", self.head_dim),
        ] {
            b.set(&key(name), n as u32).unwrap();
        }
        if self.window > 0 {
            b.set(&key("attention.sliding_window"), self.window as u32).unwrap();
        }
        let eps = "attention.layer_norm_rms_epsilon";
        match (self.arch, converter) {
            (Arch::Gemma2, _) => {
                b.set(&key(eps), 1e-6f32).unwrap();
                b.set(&key("attn_logit_softcapping"), 50f32).unwrap();
                b.set(&key("final_logit_softcapping"), 30f32).unwrap();
            }
            (Arch::Gemma3, Converter::LlamaCpp) => {
                b.set(&key(eps), 1e-6f32).unwrap();
                b.set(&key("rope.freq_base"), 1e6f32).unwrap();
                if self.rope_factor != 1.0 {
                    b.set(&key("rope.scaling.type"), "linear").unwrap();
                    b.set(&key("rope.scaling.factor"), self.rope_factor).unwrap();
                }
            }
            // Models that can see: hardly a key, and the eyes in the same file.
            (Arch::Gemma3, Converter::Ollama) if self.rope_factor != 1.0 => {
                b.set(&key("vision.block_count"), 27u32).unwrap();
                b.set(&key("vision.attention.layer_norm_epsilon"), 1e-5f32).unwrap();
                b.set(&key("mm.tokens_per_image"), 256u32).unwrap();
            }
            (Arch::Gemma3, Converter::Ollama) => {
                b.set(&key(eps), 1e-6f32).unwrap();
                b.set(&key("rope.global.freq_base"), 1e6f32).unwrap();
                b.set(&key("rope.local.freq_base"), 1e4f32).unwrap();
                let pattern: Vec<bool> = (1..=self.layers).map(|l| l % 6 != 0).collect();
                b.set_array(&key("attention.sliding_window_pattern"), &pattern).unwrap();
            }
            _ => _ = b.set(&key(eps), 1e-6f32).unwrap(),
        }

        for t in self.tensors(converter) {
            b.tensor(&t.0, t.1, &t.2).unwrap();
        }
        let path = dir.path().join(format!("{}-{converter:?}.gguf", self.name));
        let len = b.file_len();
        let file = File::create(&path).unwrap();
        b.write(&file, self.name).unwrap();
        file.set_len(len).unwrap();
        path
    }

    fn tensors(&self, converter: Converter) -> Vec<(String, DType, Vec<usize>)> {
        let (d, ff) = (self.d, self.ff);
        let (q, kv) = (self.heads * self.head_dim, self.kv_heads * self.head_dim);
        let mut all = Vec::new();
        let mut add = |name: String, dims: &[usize]| {
            let dtype = if dims.len() == 1 { DType::F32 } else { DType::Q4_0 };
            all.push((format!("{name}.weight"), dtype, dims.to_vec()));
        };
        add("token_embd".into(), &[d, self.vocab]);
        add("output_norm".into(), &[d]);
        for l in 0..self.layers {
            let mut add = |part: &str, dims: &[usize]| add(format!("blk.{l}.{part}"), dims);
            add("attn_norm", &[d]);
            add("attn_q", &[d, q]);
            add("attn_k", &[d, kv]);
            add("attn_v", &[d, kv]);
            add("attn_output", &[q, d]);
            add("ffn_norm", &[d]);
            add("ffn_gate", &[d, ff]);
            add("ffn_up", &[d, ff]);
            add("ffn_down", &[ff, d]);
            if self.arch != Arch::Gemma {
                add("post_attention_norm", &[d]);
                add("post_ffw_norm", &[d]);
            }
            if self.arch == Arch::Gemma3 {
                add("attn_q_norm", &[self.head_dim]);
                add("attn_k_norm", &[self.head_dim]);
            }
        }
        if converter == Converter::Ollama {
            add("v.blk.0.attn_k".into(), &[1152, 1152]);
            add("mm.mm_input_projection".into(), &[d, 1152]);
        }
        all
    }

    /// What a layer sees.
    fn window(&self, layer: usize) -> Option<usize> {
        let windowed = match self.arch {
            Arch::Gemma2 => layer.is_multiple_of(2),
            Arch::Gemma3 => layer % 6 < 5,
            _ => false,
        };
        windowed.then_some(self.window)
    }

    fn check(&self, c: &Config) {
        let name = self.name;
        assert_eq!(c.arch, self.arch, "{name}");
        assert_eq!([c.n_layers, c.d_model, c.d_ff], [self.layers, self.d, self.ff], "{name}");
        assert_eq!(
            [c.n_heads, c.n_kv_heads, c.head_dim],
            [self.heads, self.kv_heads, self.head_dim],
            "{name}"
        );
        assert_eq!([c.vocab, c.context_length], [self.vocab, self.context], "{name}");
        assert_eq!(c.rms_eps, 1e-6, "{name}");
        assert!((c.query_scale - 1.0 / self.query_width.sqrt()).abs() < 1e-7, "{name}: {}", c.query_scale);
        for layer in 0..self.layers {
            assert_eq!(c.window(layer), self.window(layer), "{name}, layer {layer}");
        }
        let gemma2 = self.arch == Arch::Gemma2;
        let gemma3 = self.arch == Arch::Gemma3;
        assert_eq!(c.attention_softcap, gemma2.then_some(50.0), "{name}");
        assert_eq!(c.final_softcap, gemma2.then_some(30.0), "{name}");
        assert_eq!(c.rope_base, if gemma3 { 1e6 } else { 1e4 }, "{name}");
        assert_eq!(c.rope_factor, self.rope_factor, "{name}");
        assert_eq!([c.rope_base_windowed, c.rope_factor_windowed], [1e4, 1.0], "{name}");
        assert_eq!([c.post_norms, c.qk_norms], [gemma2 || gemma3, gemma3], "{name}");
    }
}

#[test]
fn every_published_shape() {
    let dir = tempfile::tempdir().unwrap();
    for shape in SHAPES {
        for converter in [Converter::LlamaCpp, Converter::Ollama] {
            let path = shape.write(converter, &dir);
            let model = Model::builder().threads(1).open(&path).unwrap();
            shape.check(model.config());

            let mut options = SessionOptions::default();
            options.context = Some(shape.context);
            options.batch = 128;
            options.kv = Some(KvType::F16);
            let plan = Model::plan(&path, 1, &options).unwrap();
            let mut again = model.plan_session(&options).unwrap();
            // This changes from moment to moment.
            again.available = plan.available;
            assert_eq!(again, plan);
            assert_eq!(plan.file, std::fs::metadata(&path).unwrap().len());
            let rows = |layer| shape.window(layer).map_or(shape.context, |w| shape.context.min(w + 128));
            let rows: usize = (0..shape.layers).map(rows).sum();
            let kv = (rows * 2 * shape.kv_heads * shape.head_dim * 2) as u64;
            assert!((kv..kv + kv / 50).contains(&plan.kv_cache), "{}: {kv} {}", shape.name, plan.kv_cache);
            std::fs::remove_file(path).unwrap();
        }
    }
}

fn config(file: Altered) -> Config {
    file.open().unwrap().config().clone()
}

fn gemma3() -> Altered {
    Altered::tiny("tiny-gemma3")
}

#[test]
fn bases_and_factors_of_rope() {
    let rope = |file: Altered| {
        let c = config(file);
        [c.rope_base, c.rope_factor, c.rope_base_windowed, c.rope_factor_windowed]
    };
    let bare = || gemma3().without("rope.freq_base").without("rope.freq_base_swa");
    assert_eq!(rope(bare()), [1e6, 1.0, 1e4, 1.0]);
    let named = |full, windowed| bare().set(full, 5e5f32).set(windowed, 2e4f32);
    assert_eq!(rope(named("rope.freq_base", "rope.freq_base_swa")), [5e5, 1.0, 2e4, 1.0]);
    assert_eq!(rope(named("rope.global.freq_base", "rope.local.freq_base")), [5e5, 1.0, 2e4, 1.0]);
    // Integers and f64 are numbers too.
    assert_eq!(rope(bare().set("rope.freq_base", 500_000u32)), [5e5, 1.0, 1e4, 1.0]);
    assert_eq!(rope(bare().set("rope.freq_base", 5e5f64)), [5e5, 1.0, 1e4, 1.0]);

    // Long contexts are stretched where no key says otherwise.
    let long = |context: u32| bare().set("context_length", context);
    assert_eq!(rope(long(131_071)), [1e6, 1.0, 1e4, 1.0]);
    assert_eq!(rope(long(131_072)), [1e6, 8.0, 1e4, 1.0]);
    assert_eq!(rope(long(131_072).set("rope.scaling.type", "linear")), [1e6, 8.0, 1e4, 1.0]);
    assert_eq!(rope(long(131_072).set("rope.scaling.type", "none")), [1e6, 1.0, 1e4, 1.0]);
    assert_eq!(rope(long(131_072).set("rope.scaling.factor", 4f32)), [1e6, 4.0, 1e4, 1.0]);
    let both = bare().set("rope.scaling.type", "linear").set("rope.scaling.factor", 8f32);
    assert_eq!(rope(both), [1e6, 8.0, 1e4, 1.0]);

    // Before Gemma 3 all layers are alike.
    let gemma2 = || Altered::tiny("tiny-gemma2");
    assert_eq!(rope(gemma2()), [1e4, 1.0, 1e4, 1.0]);
    assert_eq!(rope(gemma2().set("context_length", 131_072u32)), [1e4, 1.0, 1e4, 1.0]);
    let stretched = gemma2().set("rope.freq_base", 1.6e5f32).set("rope.scaling.factor", 2f32);
    assert_eq!(rope(stretched), [1.6e5, 2.0, 1.6e5, 2.0]);
    assert_eq!(rope(Altered::tiny("tiny-gemma-mqa")), [1e4, 1.0, 1e4, 1.0]);
}

#[test]
fn absent_epsilon_caps_and_windows() {
    let eps = "attention.layer_norm_rms_epsilon";
    assert_eq!(config(gemma3().without(eps)).rms_eps, 1e-6);
    assert_eq!(config(gemma3().set(eps, 1e-5f64)).rms_eps, 1e-5);

    let caps = |file| {
        let c = config(file);
        (c.attention_softcap, c.final_softcap)
    };
    let gemma2 = || Altered::tiny("tiny-gemma2");
    let bare = || gemma2().without("attn_logit_softcapping").without("final_logit_softcapping");
    assert_eq!(caps(bare()), (Some(50.0), Some(30.0)));
    assert_eq!(caps(bare().set("attn_logit_softcapping", 20f32)), (Some(20.0), Some(30.0)));
    assert_eq!(caps(bare().set("final_logit_softcapping", 0f32)), (Some(50.0), None));
    assert_eq!(caps(gemma3()), (None, None));
    assert_eq!(caps(gemma3().set("final_logit_softcapping", 30f32)), (None, Some(30.0)));

    let c = config(gemma2().without("attention.sliding_window"));
    assert_eq!([c.window(0), c.window(1), c.window(2)], [Some(4096), None, Some(4096)]);
    // Gemma has no windows, whatever a key says.
    let c = config(Altered::tiny("tiny-gemma-mqa").set("attention.sliding_window", 16u32));
    assert_eq!(c.windowed, vec![false; c.n_layers]);
}

#[test]
fn patterns_of_windows() {
    let key = "attention.sliding_window_pattern";
    let windowed = |file: Altered| config(file).windowed.iter().map(|&w| w as u8).collect::<Vec<_>>();
    assert_eq!(windowed(gemma3()), [1, 1, 1, 1, 1, 0, 1]);
    assert_eq!(windowed(gemma3().set(key, 6u32)), [1, 1, 1, 1, 1, 0, 1]);
    assert_eq!(windowed(gemma3().set(key, 3u8)), [1, 1, 0, 1, 1, 0, 1]);
    assert_eq!(windowed(gemma3().set(key, 1u32)), [0; 7]);
    assert_eq!(windowed(gemma3().set(key, 8u32)), [1; 7]);
    let mixed = New::Bools(vec![false, true, true, false, true, false, false]);
    assert_eq!(windowed(gemma3().set(key, mixed)), [0, 1, 1, 0, 1, 0, 0]);
}

/// The logits after a prompt.
fn logits(model: &Model, ids: &[u32]) -> Vec<f32> {
    let mut options = SessionOptions::default();
    options.context = Some(128);
    let mut session = carat::Session::new(model, options).unwrap();
    session.prefill(ids).unwrap();
    session.logits().unwrap().to_vec()
}

#[test]
fn what_is_not_of_the_language_model_is_ignored() {
    let ids: Vec<u32> =
        serde_json::from_slice(&std::fs::read(altered::data("tiny-ids.json")).unwrap()).unwrap();
    let plain = gemma3().open().unwrap();
    let seeing = gemma3()
        .set("vision.block_count", 27u32)
        .set("vision.attention.head_count", 0u32)
        .set("mm.tokens_per_image", 256u32)
        .add("v.blk.0.attn_k.weight", DType::F16, &[48, 48])
        .add("v.patch_embd.weight", DType::F16, &[14, 14, 3, 48])
        .add("mm.mm_input_projection.weight", DType::BF16, &[64, 48])
        .add("mm.of_another_type", DType::F32, &[64]);
    let mut bytes = seeing.bytes();
    // I32, which no product is made with.
    let name = b"mm.of_another_type";
    let at = bytes.windows(name.len()).position(|w| w == name).unwrap() + name.len() + 4 + 8;
    bytes[at..at + 4].copy_from_slice(&26u32.to_le_bytes());
    let seeing = altered::open_bytes(bytes).unwrap();
    assert_eq!(seeing.gguf().unsupported().len(), 1);
    assert_eq!(seeing.config(), plain.config());
    assert_eq!(logits(&seeing, &ids), logits(&plain, &ids));
}

#[test]
fn rows_without_a_piece_and_pieces_without_a_row() {
    let ids: Vec<u32> =
        serde_json::from_slice(&std::fs::read(altered::data("tiny-ids.json")).unwrap()).unwrap();
    let plain = gemma3().open().unwrap();
    let expected = logits(&plain, &ids);
    let best = (0..768).max_by(|&a, &b| expected[a].total_cmp(&expected[b])).unwrap();
    // Surplus rows are ten times that of the likeliest piece.
    let rows = |n: usize| {
        let file = gemma3().tensor("token_embd.weight", |t| {
            let row = t.values()[best * 64..][..64]
                .iter()
                .flat_map(|x| (10.0 * x).to_le_bytes())
                .collect::<Vec<_>>();
            t.dims[1] = n;
            t.data.truncate(4 * 64 * n);
            while t.data.len() < 4 * 64 * n {
                t.data.extend_from_slice(&row);
            }
        });
        file.open().unwrap()
    };
    let more = rows(768 + 65);
    assert_eq!((more.config().vocab, more.tokenizer().unwrap().vocab_size()), (833, 768));
    let all = logits(&more, &ids);
    assert_eq!((all.len(), &all[..768]), (833, &expected[..]));
    // The ids without a piece are by far the likeliest, and yet never sampled.
    assert!(all[768..].iter().all(|&l| l > 5.0 * expected[best] && l > 1.0));
    let mut session = carat::Session::new(&more, SessionOptions::default()).unwrap();
    let mut options = carat::GenerateOptions::default();
    options.max_tokens = 8;
    let summary = session.generate(&ids, &options, |_| std::ops::ControlFlow::Continue(())).unwrap();
    assert!(summary.generated_tokens > 0);
    assert!(session.tokens().iter().all(|&id| id < 768));

    let fewer = rows(700);
    assert_eq!((fewer.config().vocab, fewer.tokenizer().unwrap().vocab_size()), (700, 700));
}
