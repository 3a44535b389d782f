//! What a token does not see cannot reach it, not even when it is no number.

mod altered;
mod common;

use altered::Altered;
use carat::{DType, KvType, Model, Session, SessionOptions};
use common::{TINY, bits, ids, options};

/// Its embedding is infinite: keys and values at its position, and what sees them, are no numbers.
const POISON: u32 = 7;
/// Where the prompts have it: amid a tile of 64 positions.
const AT: usize = 70;
const CONTEXT: usize = 256;

fn poison(file: Altered) -> Altered {
    let mut head = file.tensors.iter().find(|t| t.name == "token_embd.weight").unwrap().clone();
    let mut file = file.tensor("token_embd.weight", |t| {
        let d = t.dims[0];
        let mut values = t.values();
        values[POISON as usize * d..][..d].fill(f32::INFINITY);
        t.data = vec![0; 4 * values.len()];
        DType::F32.quantize(&values, &mut t.data).unwrap();
        t.dtype = DType::F32;
    });
    // The token's own logit stays a number.
    head.name = "output.weight".into();
    file.tensors.push(head);
    file
}

/// The bits of the logits after each token, or `None` where they are no numbers.
type AllRows = Vec<Option<Vec<u32>>>;

fn row(logits: &[f32]) -> Option<Vec<u32>> {
    logits.iter().all(|l| l.is_finite()).then(|| bits(logits))
}

fn prefilled(s: &mut Session, ids: &[u32]) -> AllRows {
    let mut all = Vec::new();
    s.prefill_each(ids, None, |_, logits| {
        all.push(row(logits));
        Ok(())
    })
    .unwrap();
    all
}

fn stepped(s: &mut Session, ids: &[u32]) -> AllRows {
    ids.iter().map(|&id| row(s.step(id).unwrap())).collect()
}

fn session(model: &Model, batch: usize, kv: KvType, exact: bool) -> Session {
    let mut o: SessionOptions = options(CONTEXT, batch);
    (o.kv, o.exact) = (Some(kv), exact);
    Session::new(model, o).unwrap()
}

/// Every way through `prompt`, by the same arithmetic, gives the same rows; returns them for prefill and for steps.
fn same_rows(model: &Model, prompt: &[u32], kv: KvType, exact: bool) -> [AllRows; 2] {
    let whole = prefilled(&mut session(model, CONTEXT, kv, exact), prompt);
    for batch in [7, 64] {
        let parts = prefilled(&mut session(model, batch, kv, exact), prompt);
        assert!(parts == whole, "batches of {batch}, {kv:?}, exact: {exact}");
    }
    let steps = stepped(&mut session(model, 16, kv, exact), prompt);
    if exact {
        assert!(steps == whole, "steps, {kv:?}");
    }
    [whole, steps]
}

const WAYS: [(KvType, bool); 4] =
    [(KvType::F16, false), (KvType::Q8_0, false), (KvType::F32, false), (KvType::F32, true)];

#[test]
fn what_comes_later_does_not_reach_the_rows_before_it() {
    for name in TINY {
        let model = poison(Altered::tiny(name)).open().unwrap();
        let clean = ids(130);
        let mut prompt = clean.clone();
        prompt[AT] = POISON;
        for (kv, exact) in WAYS {
            let expected = same_rows(&model, &clean, kv, exact);
            let found = same_rows(&model, &prompt, kv, exact);
            for (found, expected) in found.iter().zip(&expected) {
                assert!(expected.iter().all(Option::is_some), "{name} {kv:?}: not even without it");
                assert!(found[..AT] == expected[..AT], "{name} {kv:?}, exact: {exact}");
                assert!(found[AT].is_none(), "{name} {kv:?}");
            }
        }
    }
}

#[test]
fn what_a_window_has_left_behind_is_gone() {
    let file = Altered::tiny("tiny-gemma3");
    let layers = Model::open(altered::data("tiny-gemma3.gguf")).unwrap().config().n_layers;
    let file = file.set("attention.sliding_window_pattern", altered::New::Bools(vec![true; layers]));
    let model = poison(file).open().unwrap();
    assert!(model.config().windowed.iter().all(|w| *w));
    // A layer sees its window of 16, the token itself included.
    let reach = AT + layers * 15;
    let mut prompt = ids(CONTEXT);
    prompt[AT] = POISON;
    assert!(reach + 40 < CONTEXT);
    for (kv, exact) in WAYS {
        for rows in same_rows(&model, &prompt, kv, exact) {
            for (i, row) in rows.iter().enumerate() {
                assert_eq!(row.is_some(), !(AT..=reach).contains(&i), "row {i}, {kv:?}, exact: {exact}");
            }
        }
    }
}

#[test]
fn what_was_cut_off_is_gone() {
    for name in TINY {
        let model = poison(Altered::tiny(name)).open().unwrap();
        let clean = ids(130);
        for (kv, exact) in WAYS {
            let mut used = session(&model, 64, kv, exact);
            used.prefill(&[POISON; 200]).unwrap();
            for way in [prefilled, stepped] {
                used.truncate(0).unwrap();
                let expected = way(&mut session(&model, 64, kv, exact), &clean);
                assert!(expected.iter().all(Option::is_some));
                assert!(way(&mut used, &clean) == expected, "{name} {kv:?}, exact: {exact}");
                used.truncate(0).unwrap();
                used.prefill(&[POISON; 200]).unwrap();
            }
        }
    }
}
