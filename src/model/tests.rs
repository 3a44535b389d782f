//! The forward pass against golden logits, on every instruction set of this machine.

#[path = "../../tests/common/real_model.rs"]
pub(crate) mod real_model;

use std::path::PathBuf;

use super::forward::Pass;
use super::kv_cache::KvCache;
use super::scratch::Scratch;
use super::{MAX_LOGIT_ROWS, Model, SessionOptions};
use crate::ops::Arithmetic;
use crate::{CancelToken, Error, Isa};

fn data(name: &str) -> PathBuf {
    PathBuf::from(env!("CARGO_MANIFEST_DIR")).join("tests/data").join(name)
}

fn tiny_ids() -> Vec<u32> {
    serde_json::from_slice(&std::fs::read(data("tiny-ids.json")).unwrap()).unwrap()
}

fn floats(name: &str) -> Vec<f32> {
    let bytes = std::fs::read(data(name)).unwrap();
    bytes.chunks_exact(4).map(|b| f32::from_le_bytes(b.try_into().unwrap())).collect()
}

/// The logits [ids, vocab] of `ids`, processed in batches of `batch`.
fn logits(model: &Model, ids: &[u32], batch: usize, arithmetic: Arithmetic) -> Vec<f32> {
    let options = SessionOptions {
        context: Some(model.config().context_length.min(512)),
        batch: batch.max(MAX_LOGIT_ROWS),
        exact: arithmetic == Arithmetic::Exact,
        ..Default::default()
    };
    let m = &*model.0;
    let shape = options.shape(&m.config, &m.weights).unwrap();
    let mut cache = KvCache::new(&m.config, &shape).unwrap();
    let needs = m.weights.needs(options.exact);
    let mut scratch = Scratch::new(&m.config, &needs, shape.batch, 1, m.team.threads()).unwrap();
    let mut all = Vec::new();
    for (i, tokens) in ids.chunks(batch).enumerate() {
        let pass = Pass { tokens, start: i * batch, arithmetic, logits: 1 };
        m.forward(&pass, &mut cache, &mut scratch, None).unwrap();
        let last = scratch.logits.to_vec();
        if tokens.len() == 1 {
            all.extend(last);
            continue;
        }
        for rows in (0..tokens.len()).step_by(MAX_LOGIT_ROWS) {
            let rows = rows..(rows + MAX_LOGIT_ROWS).min(tokens.len());
            let mut out = vec![0.0; rows.len() * m.config.vocab];
            m.head(arithmetic, rows, &mut scratch, &mut out, None).unwrap();
            all.extend(out);
        }
        assert!(all.ends_with(&last), "the last row's logits come out alike alone and among others");
    }
    all
}

fn bits(x: &[f32]) -> Vec<u32> {
    x.iter().map(|x| x.to_bits()).collect()
}

fn isas() -> impl Iterator<Item = Isa> {
    Isa::ALL.into_iter().filter(|i| i.is_available())
}

#[test]
fn tiny_models_give_the_golden_logits() {
    let ids = tiny_ids();
    for name in ["tiny-gemma-mqa", "tiny-gemma-mha", "tiny-gemma2", "tiny-gemma3"] {
        let golden = floats(&format!("{name}.logits.f32"));
        for isa in isas() {
            let model = Model::builder().isa(isa).threads(2).open(data(&format!("{name}.gguf"))).unwrap();
            for (how, batch, arithmetic) in [
                ("prefilled at once", 96, Arithmetic::Prefill),
                ("prefilled by 7", 7, Arithmetic::Prefill),
                ("stepped", 1, Arithmetic::Step),
                ("exact", 96, Arithmetic::Exact),
            ] {
                let got = logits(&model, &ids, batch, arithmetic);
                assert_eq!(got.len(), golden.len());
                let worst = got.iter().zip(&golden).map(|(a, b)| (a - b).abs()).fold(0f32, f32::max);
                assert!(worst <= 2e-3, "{name} {how} on {isa}: {worst}");
            }
        }
    }
}

#[test]
fn logits_have_the_same_bits_for_any_threads_and_any_split() {
    let ids = tiny_ids();
    for isa in isas() {
        for name in ["tiny-gemma-mqa", "tiny-gemma3"] {
            for arithmetic in [Arithmetic::Prefill, Arithmetic::Exact] {
                let mut reference = None;
                for threads in [1, 2, 5] {
                    let model = Model::builder()
                        .isa(isa)
                        .threads(threads)
                        .open(data(&format!("{name}.gguf")))
                        .unwrap();
                    for batch in [96, 64, 33, 7, 1] {
                        let got = bits(&logits(&model, &ids, batch, arithmetic));
                        let expected = reference.get_or_insert_with(|| got.clone());
                        assert!(*expected == got, "{name} on {isa}, {threads} threads, batches of {batch}");
                    }
                }
            }
            let mut reference = None;
            for threads in [1, 2, 5] {
                let model =
                    Model::builder().isa(isa).threads(threads).open(data(&format!("{name}.gguf"))).unwrap();
                for batch in [1, 3, 16] {
                    let got = bits(&logits(&model, &ids, batch, Arithmetic::Step));
                    let expected = reference.get_or_insert_with(|| got.clone());
                    assert!(*expected == got, "{name} on {isa}, {threads} threads, {batch} drafts at a time");
                }
            }
        }
    }
}

#[test]
fn a_cancelled_pass_says_so() {
    let model = Model::open(data("tiny-gemma3.gguf")).unwrap();
    let m = &*model.0;
    let shape =
        SessionOptions { context: Some(128), ..Default::default() }.shape(&m.config, &m.weights).unwrap();
    let mut cache = KvCache::new(&m.config, &shape).unwrap();
    let mut scratch =
        Scratch::new(&m.config, &m.weights.needs(false), shape.batch, 1, m.team.threads()).unwrap();
    let token = CancelToken::new();
    token.cancel();
    let pass = Pass { tokens: &[2], start: 0, arithmetic: Arithmetic::Prefill, logits: 1 };
    let e = m.forward(&pass, &mut cache, &mut scratch, Some(&token));
    assert!(matches!(e, Err(Error::Cancelled)));
}

/// The highest logit's id, and how far the next is.
fn winner(logits: &[f32]) -> (u32, f32) {
    let mut best = (0, f32::NEG_INFINITY);
    let mut second = f32::NEG_INFINITY;
    for (id, &l) in logits.iter().enumerate() {
        if l > best.1 {
            second = best.1;
            best = (id as u32, l);
        } else if l > second {
            second = l;
        }
    }
    (best.0, best.1 - second)
}

#[test]
fn the_real_model_gives_the_golden_winners_and_in_the_exact_mode_their_values() {
    let Some(path) = real_model::real_model() else { return };
    let golden: serde_json::Value =
        serde_json::from_slice(&std::fs::read(data("gemma3-270m.json")).unwrap()).unwrap();
    let numbers = |v: &serde_json::Value| -> Vec<u32> {
        v.as_array().unwrap().iter().map(|n| n.as_u64().unwrap() as u32).collect()
    };
    // One is an hour's work for an emulated processor.
    let (texts, enough) = if real_model::emulated() { (1, 15) } else { (usize::MAX, 100) };
    for isa in isas() {
        let model = Model::builder().isa(isa).threads(2).open(&path).unwrap();
        let vocab = model.config().vocab;
        let mut checked = 0;
        for text in golden.as_array().unwrap().iter().take(texts) {
            let (prompt, greedy) = (numbers(&text["ids"]), numbers(&text["greedy"]));
            let all = [&prompt[..], &greedy[..greedy.len() - 1]].concat();
            let exact = logits(&model, &all, 256, Arithmetic::Exact);
            for (p, position) in text["positions"].as_array().unwrap().iter().enumerate() {
                let row = &exact[p * vocab..(p + 1) * vocab];
                for pair in position["top"].as_array().unwrap() {
                    let (id, value) = (pair[0].as_u64().unwrap() as usize, pair[1].as_f64().unwrap());
                    assert!((row[id] as f64 - value).abs() < 1e-2, "{isa}: position {p}, id {id}");
                }
                let max = row.iter().fold(f32::NEG_INFINITY, |m, &l| m.max(l)) as f64;
                let sum: f64 = row.iter().map(|&l| (l as f64 - max).exp()).sum();
                let expected = position["logsumexp"].as_f64().unwrap();
                assert!((max + sum.ln() - expected).abs() < 1e-2, "{isa}: position {p}");
            }
            let prefilled = logits(&model, &all, 256, Arithmetic::Prefill);
            let stepped = logits(&model, &all, 1, Arithmetic::Step);
            for p in 0..all.len() {
                // The golden winner and margin: of the prompt from its positions, then from the greedy choices.
                let (id, margin) = if p + 1 < prompt.len() {
                    let top = &text["positions"][p]["top"];
                    (
                        top[0][0].as_u64().unwrap() as u32,
                        top[0][1].as_f64().unwrap() - top[1][1].as_f64().unwrap(),
                    )
                } else {
                    let g = p + 1 - prompt.len();
                    (greedy[g], text["greedy_margin"][g].as_f64().unwrap())
                };
                let row = p * vocab..(p + 1) * vocab;
                let (found, found_margin) = winner(&exact[row.clone()]);
                assert!((found_margin as f64 - margin).abs() < 1e-2 && (found == id || margin < 1e-2));
                if margin > 0.5 {
                    assert_eq!(winner(&prefilled[row.clone()]).0, id, "{isa}: prefilled, position {p}");
                    assert_eq!(winner(&stepped[row]).0, id, "{isa}: stepped, position {p}");
                    checked += 1;
                }
            }
        }
        println!("{isa}: {checked} positions");
        assert!(checked > enough);
    }
}

/// For emulated processors, which are too slow for the test above: the shortest prompt, and the first tokens of its
/// answer. Only where the environment variable CARAT_TEST_ONE_PROMPT names the real model.
#[test]
fn the_real_model_answers_one_prompt() {
    let Some(path) = std::env::var_os("CARAT_TEST_ONE_PROMPT") else { return };
    let golden: serde_json::Value =
        serde_json::from_slice(&std::fs::read(data("gemma3-270m.json")).unwrap()).unwrap();
    let numbers = |v: &serde_json::Value| -> Vec<u32> {
        v.as_array().unwrap().iter().map(|n| n.as_u64().unwrap() as u32).collect()
    };
    let text = golden.as_array().unwrap().iter().min_by_key(|t| t["ids"].as_array().unwrap().len()).unwrap();
    let (prompt, greedy) = (numbers(&text["ids"]), numbers(&text["greedy"]));
    let answer = &greedy[..greedy.len().min(6)];
    let model = Model::builder().threads(2).open(path).unwrap();
    let vocab = model.config().vocab;
    let all = [&prompt[..], &answer[..answer.len() - 1]].concat();
    for (batch, arithmetic) in [(256, Arithmetic::Prefill), (1, Arithmetic::Step)] {
        let logits = logits(&model, &all, batch, arithmetic);
        let mut checked = 0;
        for (i, id) in answer.iter().enumerate() {
            let row = (prompt.len() - 1 + i) * vocab;
            if text["greedy_margin"][i].as_f64().unwrap() > 0.5 {
                assert_eq!(winner(&logits[row..row + vocab]).0, *id, "{arithmetic:?}: token {i}");
                checked += 1;
            }
        }
        assert!(checked >= 3, "{checked} tokens have a margin that says anything");
    }
}
