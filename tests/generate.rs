//! Generating: the same text for the same seed, whole characters, and every way to end.

mod common;

use std::ops::ControlFlow;
use std::sync::mpsc;

use carat::{CancelToken, Error, FinishReason, GenerateOptions, SamplingOptions, Session, Summary};
use common::{TINY, ids, options, session, tiny};

fn sampled(seed: u64, max_tokens: usize) -> GenerateOptions {
    let mut o = GenerateOptions::default();
    o.sampling.seed = Some(seed);
    o.max_tokens = max_tokens;
    o.ignore_end = true;
    o
}

/// The tokens, the pieces of text and the summary.
fn run(s: &mut Session, prompt: &[u32], o: &GenerateOptions) -> (Vec<u32>, Vec<String>, Summary) {
    let (mut tokens, mut texts) = (Vec::new(), Vec::new());
    let summary = s
        .generate(prompt, o, |piece| {
            tokens.extend(piece.token);
            texts.push(piece.text.to_string());
            ControlFlow::Continue(())
        })
        .unwrap();
    (tokens, texts, summary)
}

#[test]
fn the_same_seed_gives_the_same_text_for_any_threads() {
    for name in TINY {
        let mut texts = Vec::new();
        for (threads, seed) in [(1, 7), (2, 7), (5, 7), (2, 8)] {
            let model = tiny(name, threads);
            let mut s = session(&model, 256, 32);
            let (tokens, _, summary) = run(&mut s, &ids(20), &sampled(seed, 60));
            assert_eq!(summary.reason, FinishReason::Limit);
            assert_eq!((summary.prompt_tokens, summary.generated_tokens), (20, 60));
            assert_eq!(s.tokens(), [ids(20), tokens.clone()].concat());
            texts.push(tokens);
        }
        assert!(texts[0] == texts[1] && texts[0] == texts[2] && texts[0] != texts[3], "{name}");
    }
}

#[test]
fn pieces_are_whole_characters_and_together_the_decoded_text() {
    let mut held_back = 0;
    for name in TINY {
        let model = tiny(name, 1);
        for seed in 0..10 {
            let mut s = session(&model, 256, 32);
            let (tokens, texts, _) = run(&mut s, &ids(5), &sampled(seed, 100));
            assert_eq!(texts.concat(), model.tokenizer().unwrap().decode(&tokens).unwrap());
            held_back += texts.iter().filter(|t| t.is_empty()).count();
        }
    }
    // Random models write many bytes that begin a character.
    assert!(held_back > 0);
}

#[test]
fn a_stop_string_ends_the_text_before_it_wherever_it_lies() {
    let model = tiny("tiny-gemma3", 1);
    let (_, texts, _) = run(&mut session(&model, 256, 32), &ids(5), &sampled(3, 60));
    let whole = texts.concat();
    let starts: Vec<usize> = whole.char_indices().map(|(i, _)| i).collect();
    let mut across = 0;
    for window in starts.windows(6).step_by(5) {
        let stop = &whole[window[0]..window[5]];
        let mut o = sampled(3, 60);
        o.stop = vec!["not in there".into(), stop.into()];
        let mut s = session(&model, 256, 32);
        let (tokens, texts, summary) = run(&mut s, &ids(5), &o);
        assert_eq!(summary.reason, FinishReason::Stop(1), "{stop:?}");
        assert_eq!(texts.concat(), whole[..whole.find(stop).unwrap()]);
        assert_eq!(s.len(), 5 + tokens.len());
        let last = model.tokenizer().unwrap().decode(&tokens[tokens.len() - 1..]).unwrap();
        across += (last.len() < stop.len()) as usize;
    }
    assert!(across > 5, "{across}");
}

#[test]
fn what_was_held_back_comes_out_at_the_limit() {
    let model = tiny("tiny-gemma3", 1);
    let (_, texts, _) = run(&mut session(&model, 256, 32), &ids(5), &sampled(3, 30));
    let whole = texts.concat();
    let mut o = sampled(3, 30);
    let tail: String = whole.chars().rev().take(3).collect::<Vec<_>>().into_iter().rev().collect();
    o.stop = vec![tail + "and more"];
    let (_, texts, summary) = run(&mut session(&model, 256, 32), &ids(5), &o);
    assert_eq!((texts.concat(), summary.reason), (whole, FinishReason::Limit));
}

#[test]
fn every_way_to_end() {
    let model = tiny("tiny-gemma3", 2);
    let mut s = session(&model, 40, 16);
    let (tokens, _, summary) = run(&mut s, &ids(30), &sampled(1, 0));
    assert_eq!((tokens.len(), summary.reason, s.len()), (0, FinishReason::Limit, 30));
    // On from where it is, with no prompt, until the context is full.
    let (tokens, _, summary) = run(&mut s, &[], &sampled(1, usize::MAX));
    assert_eq!(summary.reason, FinishReason::ContextFull);
    assert_eq!((summary.prompt_tokens, s.len()), (0, 40));
    // What was told is what is there.
    assert_eq!(tokens, s.tokens()[30..]);
    assert!(s.logits().is_some());
    let (tokens, _, summary) = run(&mut s, &[], &sampled(1, 5));
    assert_eq!((tokens.len(), summary.reason, summary.generated_tokens), (0, FinishReason::ContextFull, 0));

    let mut s = session(&model, 256, 16);
    let mut seen = 0;
    let summary = s
        .generate(&ids(5), &sampled(1, 50), |_| {
            seen += 1;
            if seen == 3 { ControlFlow::Break(()) } else { ControlFlow::Continue(()) }
        })
        .unwrap();
    assert_eq!((summary.reason, summary.generated_tokens, seen), (FinishReason::Callback, 3, 3));
    assert_eq!(s.len(), 8);

    // A hook that leaves only the end of the turn, after two tokens.
    let end = model.tokenizer().unwrap().eos();
    let mut s = session(&model, 256, 16);
    let mut o = sampled(1, 50);
    o.ignore_end = false;
    let hook = |tokens: &[u32], logits: &mut [f32]| {
        logits.fill(f32::NEG_INFINITY);
        logits[if tokens.len() == 7 { end as usize } else { 400 }] = 1.0;
    };
    let summary = s.generate_with_hook(&ids(5), &o, hook, |_| ControlFlow::Continue(())).unwrap();
    assert_eq!((summary.reason, summary.generated_tokens), (FinishReason::EndOfTurn, 2));
    assert_eq!(s.tokens(), [&ids(5)[..], &[400, 400]].concat());
}

#[test]
fn the_likeliest_tokens_come_with_log_probabilities() {
    let model = tiny("tiny-gemma3", 1);
    let mut s = session(&model, 256, 16);
    let mut o = GenerateOptions::default();
    o.sampling = SamplingOptions::greedy();
    o.max_tokens = 20;
    o.ignore_end = true;
    o.top_log_probs = 4;
    let mut told = Vec::new();
    s.generate(&ids(5), &o, |piece| {
        if let Some(token) = piece.token {
            assert_eq!(piece.top.len(), 4);
            assert!(piece.top.windows(2).all(|w| w[0].log_prob >= w[1].log_prob));
            assert_eq!((token, piece.log_prob), (piece.top[0].token, Some(piece.top[0].log_prob)));
            told.push(piece.log_prob.unwrap());
        }
        ControlFlow::Continue(())
    })
    .unwrap();
    // As they come out when the same text is stepped through.
    let mut again = session(&model, 256, 16);
    again.prefill(&ids(5)).unwrap();
    for (log_prob, &token) in told.iter().zip(&s.tokens()[5..]) {
        let logits = again.logits().unwrap();
        let sum: f64 = logits.iter().map(|&l| (l as f64).exp()).sum();
        assert!((logits[token as usize] as f64 - sum.ln() - *log_prob as f64).abs() < 1e-4);
        again.step(token).unwrap();
    }
}

#[test]
fn what_is_refused() {
    let model = tiny("tiny-gemma3", 1);
    let mut s = session(&model, 40, 16);
    let mut refused = |prompt: &[u32], o: &GenerateOptions| {
        s.generate(prompt, o, |_| panic!("nothing is generated")).unwrap_err()
    };
    assert!(matches!(refused(&[], &sampled(1, 5)), Error::EmptyPrompt));
    assert!(matches!(refused(&[9999], &sampled(1, 5)), Error::TokenOutOfRange { token: 9999, .. }));
    let long = refused(&ids(41), &sampled(1, 5));
    assert!(matches!(long, Error::PromptTooLong { tokens: 41, context: 40, used: 0 }));
    for (option, change) in [
        ("temperature", (|o| o.temperature = f32::NAN) as fn(&mut SamplingOptions)),
        ("temperature", |o| o.temperature = -1.0),
        ("temperature", |o| o.temperature = f32::INFINITY),
        ("top_p", |o| o.top_p = f32::NAN),
        ("top_p", |o| o.top_p = 0.0),
        ("min_p", |o| o.min_p = 1.5),
        ("repetition_penalty", |o| o.repetition_penalty = 0.0),
        ("presence_penalty", |o| o.presence_penalty = f32::NAN),
        ("frequency_penalty", |o| o.frequency_penalty = f32::INFINITY),
        ("logit_bias", |o| o.logit_bias = vec![(5, f32::NAN)]),
    ] {
        let mut o = sampled(1, 5);
        change(&mut o.sampling);
        match refused(&ids(5), &o) {
            Error::InvalidOption { option: named, .. } => assert_eq!(named, option),
            other => panic!("{other}"),
        }
    }
    let mut o = sampled(1, 5);
    o.top_log_probs = 2000;
    assert!(matches!(refused(&ids(5), &o), Error::InvalidOption { option: "top_log_probs", .. }));
    assert!(s.is_empty());

    let nan = |_: &[u32], logits: &mut [f32]| logits[77] = f32::NAN;
    let e = s.generate_with_hook(&ids(5), &sampled(1, 5), nan, |_| ControlFlow::Continue(())).unwrap_err();
    assert!(matches!(e, Error::NanLogits { token: 77, position: 5 }), "{e}");
    // It goes on all the same.
    assert_eq!(run(&mut s, &[], &sampled(1, 5)).0.len(), 5);
}

#[test]
fn another_thread_cancels_between_two_tokens() {
    let model = tiny("tiny-gemma3", 2);
    let mut s = session(&model, 256, 16);
    let token = CancelToken::new();
    let (ask, asked) = mpsc::channel();
    let (answer, answered) = mpsc::channel();
    let summary = std::thread::scope(|scope| {
        let set = token.clone();
        scope.spawn(move || {
            asked.recv().unwrap();
            set.cancel();
            answer.send(()).unwrap();
        });
        let mut o = sampled(1, 100);
        o.cancel = Some(token.clone());
        let mut pieces = 0;
        s.generate(&ids(5), &o, |piece| {
            pieces += piece.token.is_some() as usize;
            assert!(pieces <= 10, "a token after it was cancelled");
            if pieces == 10 && piece.token.is_some() {
                ask.send(()).unwrap();
                answered.recv().unwrap();
            }
            ControlFlow::Continue(())
        })
        .unwrap()
    });
    assert_eq!((summary.reason, summary.generated_tokens), (FinishReason::Cancelled, 10));
    // What was told, but for the last token.
    assert_eq!(s.len(), 5 + 9);
    let (tokens, ..) = run(&mut session(&model, 256, 16), &ids(5), &sampled(1, 9));
    assert_eq!(s.tokens()[5..], tokens);
    s.step(400).unwrap();
    assert_eq!(run(&mut s, &[], &sampled(2, 5)).0.len(), 5);

    // Before the prompt: an end of its own, not an error.
    let mut o = sampled(1, 100);
    o.cancel = Some(token);
    let (tokens, _, summary) = run(&mut s, &ids(50), &o);
    assert_eq!((tokens.len(), summary.reason, summary.prompt_tokens), (0, FinishReason::Cancelled, 0));
}

#[test]
fn a_text_that_ends_with_its_last_token_says_why_and_the_callback_is_left_alone() {
    let model = tiny("tiny-gemma3", 1);
    let tail = |text: &str| text.chars().skip(text.chars().count() - 3).collect::<String>();
    // A text whose end comes up nowhere else in it, and is whole.
    let (seed, whole) = (0..50)
        .find_map(|seed| {
            let (_, texts, summary) = run(&mut session(&model, 40, 16), &ids(30), &sampled(seed, 60));
            assert_eq!((summary.reason, summary.generated_tokens), (FinishReason::ContextFull, 10));
            let whole = texts.concat();
            let found = texts.len() == 10
                && !texts[9].is_empty()
                && whole.find(&tail(&whole)) == Some(whole.len() - tail(&whole).len());
            found.then_some((seed, whole))
        })
        .expect("one of them is like that");
    // Up to a stop string that only the last token completes.
    let tail = tail(&whole);
    let mut o = sampled(seed, 60);
    o.stop = vec![tail.clone()];
    let (_, texts, summary) = run(&mut session(&model, 40, 16), &ids(30), &o);
    assert_eq!((summary.reason, summary.generated_tokens), (FinishReason::Stop(0), 10));
    assert_eq!(texts.concat(), whole[..whole.len() - tail.len()]);

    // The caller stops there, or cancels as well, while text is held back: it hears no more of it.
    o.stop = vec![tail + "and more"];
    for (context, cancels) in [(40, false), (256, true)] {
        o.cancel = Some(CancelToken::new());
        let mut calls = 0;
        let summary = session(&model, context, 16)
            .generate(&ids(30), &o, |_| {
                calls += 1;
                if calls < 10 {
                    return ControlFlow::Continue(());
                }
                if cancels {
                    o.cancel.as_ref().unwrap().cancel();
                }
                ControlFlow::Break(())
            })
            .unwrap();
        assert_eq!((summary.reason, calls), (FinishReason::Callback, 10), "context {context}");
    }
}

#[test]
fn a_full_context_loaded_with_more_room_goes_on_as_if_it_had_always_been_there() {
    let model = tiny("tiny-gemma3", 1);
    let dir = tempfile::tempdir().unwrap();
    let path = dir.path().join("state");
    let mut s = session(&model, 256, 16);
    s.prefill(&ids(30)).unwrap();
    s.save(&path, None).unwrap();
    let load = |context| Session::load(&model, options(context, 16), &path, None).unwrap();
    let (mut small, mut large) = (load(40), load(256));
    // The session's own random numbers.
    let mut o = sampled(1, 30);
    o.sampling.seed = None;
    let (expected, ..) = run(&mut large, &[], &o);
    let (mut tokens, _, summary) = run(&mut small, &[], &o);
    assert_eq!((summary.reason, tokens.len()), (FinishReason::ContextFull, 10));
    small.save(&path, None).unwrap();
    o.max_tokens = 20;
    tokens.extend(run(&mut load(256), &[], &o).0);
    assert_eq!(tokens, expected);
}

#[test]
fn log_probabilities_are_those_of_a_score() {
    let model = tiny("tiny-gemma2", 1);
    let mut o = options(256, 16);
    // Steps and prompts by the same arithmetic.
    o.exact = true;
    let mut s = Session::new(&model, o.clone()).unwrap();
    let mut sampling = sampled(1, 100);
    sampling.top_log_probs = 1;
    let mut generated = Vec::new();
    s.generate(&ids(5), &sampling, |piece| {
        generated.extend(piece.token.zip(piece.log_prob));
        ControlFlow::Continue(())
    })
    .unwrap();
    let scores = Session::new(&model, o).unwrap().score(s.tokens(), 5, None).unwrap();
    assert_eq!(scores.iter().map(|s| (s.token, s.log_prob)).collect::<Vec<_>>(), generated);
}
