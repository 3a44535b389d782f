//! What needs the inside: work done after cancelling. The rest is in `tests/tokenizer.rs`.

use super::*;

/// Every byte, the special pieces, and letters that pair up: "a", "aa", "aaaa".
fn tiny() -> Tokenizer {
    let mut pieces: Vec<(String, f32, i64)> = Vec::new();
    for name in ["<pad>", "<eos>", "<bos>", "<unk>", START, END] {
        pieces.push((name.into(), 0.0, 3));
    }
    pieces.extend((0..=255).map(|b| (format!("<0x{b:02X}>"), 0.0, 6)));
    for (i, text) in ["a", "aa", "aaaa", " ", "b"].into_iter().enumerate() {
        pieces.push((text.into(), -(i as f32), 1));
    }
    Tokenizer::from_pieces("test", &pieces, &SpecialIds::default(), &TokenizerOptions::default()).unwrap()
}

const START: &str = "<start_of_turn>";
const END: &str = "<end_of_turn>";

#[test]
fn few_steps_follow_cancelling() {
    let tokenizer = tiny();
    // One part without a cut, many parts, no piece at all, and a search for control tokens.
    let texts = ["a".repeat(200_000), "ab ".repeat(60_000), "é".repeat(100_000), "<".repeat(200_000)];
    for text in &texts {
        let mut options = EncodeOptions { special: true, ..Default::default() };
        let mut whole = Work::new(None);
        tokenizer.encode_counting(text.as_bytes(), &options, &mut whole, &mut Vec::new()).unwrap();
        for share in 0..20 {
            let cancel = CancelToken::new();
            options.cancel = Some(cancel.clone());
            let mut work = Work::new(Some(&cancel));
            let at = 1 + whole.steps * share / 20;
            work.cancel_at = Some(at);
            let error = tokenizer.encode_counting(text.as_bytes(), &options, &mut work, &mut Vec::new());
            assert!(matches!(error, Err(Error::Cancelled)), "{error:?}");
            assert!(work.steps - at <= u64::from(Work::STEPS_A_CHECK), "{} steps after", work.steps - at);
        }
    }
}

#[test]
fn steps_grow_as_the_text_does() {
    let tokenizer = tiny();
    let steps = |text: String| {
        let mut work = Work::new(None);
        tokenizer
            .encode_counting(text.as_bytes(), &EncodeOptions::default(), &mut work, &mut Vec::new())
            .unwrap();
        work.steps
    };
    for unit in ["a", "aab", "ab ", "é"] {
        let (small, large) = (steps(unit.repeat(1000)), steps(unit.repeat(100_000)));
        assert!(large <= small * 101, "{unit:?}: {small} steps became {large}");
    }
}
