//! Sessions: the same bits however they are reached, the errors, going back, and stopping.

mod common;

use std::sync::atomic::{AtomicBool, Ordering::SeqCst};

use carat::{CancelToken, Error, KvType, Model, Session};
use common::{TINY, bits, continued, ids, now, options, real_model, session, tiny};

/// Fills a session in calls of these many tokens, the rest in one.
fn fill(s: &mut Session, prompt: &[u32], calls: &[usize]) {
    let mut rest = prompt;
    for &n in calls {
        let (now, later) = rest.split_at(n.min(rest.len()));
        if !now.is_empty() {
            s.prefill(now).unwrap();
        }
        rest = later;
    }
    if !rest.is_empty() {
        s.prefill(rest).unwrap();
    }
}

#[test]
fn the_same_bits_for_any_threads_any_split_and_any_batch() {
    let prompt = ids(130);
    let splits: [&[usize]; 5] = [&[], &[1, 1, 1], &[64, 64], &[7; 18], &[100, 29, 1]];
    for name in TINY {
        for kv in [None, Some(KvType::Q8_0)] {
            let mut expected = None;
            for threads in [1, 2, 5] {
                let model = tiny(name, threads);
                for (split, batch) in splits.into_iter().zip([256, 16, 33, 64, 100]) {
                    let mut o = options(200, batch);
                    o.kv = kv;
                    let mut s = Session::new(&model, o).unwrap();
                    fill(&mut s, &prompt, split);
                    let got = continued(&mut s, 8);
                    let expected = expected.get_or_insert_with(|| got.clone());
                    assert!(*expected == got, "{name} {kv:?}, {threads} threads, {split:?}, batch {batch}");
                }
            }
        }
    }
}

#[test]
fn the_real_model_gives_the_same_bits_for_any_threads_and_any_split() {
    let Some(path) = real_model() else { return };
    let prompt: Vec<u32> = (0..70).map(|i| if i == 0 { 2 } else { 1000 + i * 97 }).collect();
    let mut expected = None;
    for (threads, batch, split) in [(1, 128, &[][..]), (2, 16, &[33, 1]), (5, 64, &[69])] {
        let model = Model::builder().threads(threads).open(&path).unwrap();
        let mut s = session(&model, 128, batch);
        fill(&mut s, &prompt, split);
        let got = continued(&mut s, 4);
        assert!(*expected.get_or_insert_with(|| got.clone()) == got, "{threads} threads, {split:?}");
    }
}

#[test]
fn another_session_at_work_changes_nothing() {
    let model = tiny("tiny-gemma3", 2);
    let mut alone = session(&model, 256, 32);
    alone.prefill(&ids(100)).unwrap();
    let expected = continued(&mut alone, 64);
    let done = AtomicBool::new(false);
    std::thread::scope(|scope| {
        let other = scope.spawn(|| {
            let mut passes = 0;
            let mut s = session(&model, 256, 64);
            while !done.load(SeqCst) {
                s.truncate(0).unwrap();
                s.prefill(&ids(77)).unwrap();
                s.step(5).unwrap();
                passes += 2;
            }
            passes
        });
        let mut s = session(&model, 256, 32);
        for call in ids(100).chunks(20) {
            s.prefill(call).unwrap();
        }
        let got = continued(&mut s, 64);
        done.store(true, SeqCst);
        assert!(got == expected);
        assert!(other.join().unwrap() > 2);
    });
}

#[test]
fn a_fork_goes_on_as_the_original_would_and_each_its_own_way() {
    let model = tiny("tiny-gemma3", 2);
    let mut a = session(&model, 256, 16);
    a.prefill(&ids(150)).unwrap();
    let mut b = a.fork().unwrap();
    assert_eq!(b.tokens(), a.tokens());
    let mut c = b.fork().unwrap();
    c.prefill(&ids(60)).unwrap();
    let expected = continued(&mut a, 30);
    assert_eq!(continued(&mut b, 30), expected);
    assert_eq!(c.len(), 210);
}

#[test]
fn going_back_and_on_again_gives_the_same_bits() {
    for name in TINY {
        let model = tiny(name, 2);
        let mut o = options(256, 32);
        o.full_history = true;
        let mut s = Session::new(&model, o).unwrap();
        let prompt = ids(180);
        let mut at = Vec::new();
        for len in [1, 15, 16, 17, 63, 64, 65, 100, 180] {
            let mut fresh = session(&model, 256, 32);
            fresh.prefill(&prompt[..len]).unwrap();
            at.push((len, now(&fresh)));
        }
        s.prefill(&prompt).unwrap();
        for (len, expected) in at.into_iter().rev() {
            // One less, so that the last is processed again.
            s.truncate(len - 1).unwrap();
            assert!(s.logits().is_none());
            s.prefill(&prompt[len - 1..len]).unwrap();
            assert!(now(&s) == expected, "{name}: back to {len}");
        }
    }
}

#[test]
fn windows_remember_so_much_and_say_how_much() {
    let model = tiny("tiny-gemma3", 1);
    assert_eq!(model.config().sliding_window, 16);
    let prompt = ids(240);
    let mut s = session(&model, 256, 16);
    // Rings of 64 rows: nothing is lost yet.
    s.prefill(&prompt[..64]).unwrap();
    s.truncate(1).unwrap();
    s.prefill(&prompt[1..]).unwrap();
    let before = s.tokens().to_vec();
    let Err(Error::Rewind { requested: 20, nearest }) = s.truncate(20) else { panic!() };
    assert_eq!(s.tokens(), before);
    assert!(s.logits().is_some());
    // 64 rows are there, and the window needs the 15 before the next.
    assert_eq!(nearest, 240 - 64 + 15);
    assert!(matches!(s.truncate(nearest - 1), Err(Error::Rewind { .. })));
    s.truncate(nearest).unwrap();
    s.prefill(&prompt[nearest..]).unwrap();
    let mut fresh = session(&model, 256, 64);
    fresh.prefill(&prompt).unwrap();
    assert!(now(&s) == now(&fresh));
    // From the beginning always, and then all is remembered again.
    s.truncate(0).unwrap();
    s.prefill(&prompt[..50]).unwrap();
    s.truncate(3).unwrap();
    // A model without windows, and an option, remember all.
    let mut o = options(256, 16);
    o.full_history = true;
    let mut whole = Session::new(&model, o).unwrap();
    let first = tiny("tiny-gemma-mqa", 1);
    let mut unwindowed = session(&first, 256, 16);
    for s in [&mut whole, &mut unwindowed] {
        s.prefill(&prompt).unwrap();
        s.truncate(20).unwrap();
        s.prefill(&prompt[20..]).unwrap();
    }
    assert!(now(&whole) == now(&fresh));
    let e = whole.truncate(241).unwrap_err();
    assert!(matches!(e, Error::InvalidOption { option: "len", .. }));
}

#[test]
fn what_prefill_and_step_refuse_before_doing_anything() {
    let model = tiny("tiny-gemma3", 1);
    let vocab = model.config().vocab;
    let mut s = session(&model, 40, 16);
    s.prefill(&ids(30)).unwrap();
    let before = now(&s);
    assert!(matches!(s.prefill(&[]), Err(Error::EmptyPrompt)));
    for bad in [vocab as u32, u32::MAX] {
        match s.prefill(&[2, 3, bad, 4]) {
            Err(Error::TokenOutOfRange { token, position: 2, vocab: v }) => {
                assert_eq!((token, v), (bad, vocab))
            }
            other => panic!("{other:?}"),
        }
        assert!(matches!(s.step(bad), Err(Error::TokenOutOfRange { position: 0, .. })));
        assert!(matches!(s.score(&[bad], 0, None), Err(Error::TokenOutOfRange { .. })));
    }
    let e = s.prefill(&ids(11)).unwrap_err();
    assert!(matches!(e, Error::PromptTooLong { tokens: 11, context: 40, used: 30 }));
    assert!(e.to_string().contains("11") && e.to_string().contains("40"), "{e}");
    assert!(matches!(s.score(&[5], 2, None), Err(Error::InvalidOption { option: "from", .. })));
    assert_eq!((now(&s), s.len()), (before, 30));
    s.prefill(&ids(10)).unwrap();
    assert!(matches!(s.step(5), Err(Error::ContextFull { context: 40 })));
    assert!(matches!(s.prefill(&[5]), Err(Error::PromptTooLong { tokens: 1, context: 40, used: 40 })));
    for (context, batch, option) in
        [(0, 16, "context"), (257, 16, "context"), (64, 0, "batch"), (64, 5000, "batch")]
    {
        match Session::new(&model, options(context, batch)).map(|_| ()) {
            Err(Error::InvalidOption { option: o, .. }) => assert_eq!(o, option),
            other => panic!("{other:?}"),
        }
    }
}

#[test]
fn scores_are_those_of_the_logits() {
    let model = tiny("tiny-gemma2", 2);
    let text = ids(60);
    let mut s = session(&model, 256, 16);
    let mut all = Vec::new();
    s.prefill_each(&text, None, |i, logits| {
        assert_eq!(i, all.len());
        all.push(logits.to_vec());
        Ok(())
    })
    .unwrap();
    for (i, row) in all.iter().enumerate() {
        let mut fresh = session(&model, 256, 32);
        fresh.prefill(&text[..=i]).unwrap();
        assert!(now(&fresh) == bits(row), "{i}");
    }
    let expected = |i: usize| {
        let row = &all[i - 1];
        let max = row.iter().fold(f64::NEG_INFINITY, |m, &l| m.max(l as f64));
        let sum: f64 = row.iter().map(|&l| (l as f64 - max).exp()).sum();
        let own = row[text[i] as usize];
        (own as f64 - max - sum.ln(), row.iter().filter(|&&l| l > own).count() as u32)
    };
    for from in [0, 1, 30, 60] {
        // In one piece, and with the first ten there already.
        for first in [0, 10] {
            let mut s = session(&model, 256, 16);
            if first > 0 {
                s.prefill(&text[..first]).unwrap();
            }
            let from = from.max(first);
            let scores = s.score(&text[first..], from - first, None).unwrap();
            assert_eq!(scores.len(), 60 - from.max(1));
            for (score, i) in scores.iter().zip(from.max(1)..) {
                let (log_prob, rank) = expected(i);
                assert_eq!((score.token, score.rank), (text[i], rank));
                assert!((score.log_prob as f64 - log_prob).abs() < 1e-4, "{score:?} {log_prob}");
            }
        }
    }
}

#[test]
fn opening_can_be_cancelled() {
    let dir = tempfile::tempdir().unwrap();
    let path = dir.path().join("padded.gguf");
    std::fs::copy(common::data("tiny-gemma3.gguf"), &path).unwrap();
    // Many pieces to read: what follows the tensors is a hole.
    std::fs::File::options().write(true).open(&path).unwrap().set_len(64 << 20).unwrap();
    for private in [true, false] {
        let all = std::cell::Cell::new(0);
        let count = |_: carat::Progress| all.set(all.get() + 1);
        Model::builder().private_copy(private).preload(true).progress(count).open(&path).unwrap();
        assert!(all.get() > 10);
        let token = CancelToken::new();
        let after = std::cell::Cell::new(0);
        let stop = |_: carat::Progress| {
            after.set(after.get() + token.is_cancelled() as usize);
            token.cancel();
        };
        let opened =
            Model::builder().private_copy(private).preload(true).cancel(&token).progress(stop).open(&path);
        assert!(matches!(opened.map(|_| ()), Err(Error::Cancelled)));
        assert_eq!(after.get(), 0);
    }
}

#[test]
fn a_token_that_is_set_stops_every_call_before_it_begins() {
    let model = tiny("tiny-gemma3", 2);
    let mut s = session(&model, 256, 16);
    s.prefill(&ids(20)).unwrap();
    let token = CancelToken::new();
    token.cancel();
    let cancelled = |r: carat::Result<()>| assert!(matches!(r, Err(Error::Cancelled)), "{r:?}");
    cancelled(s.prefill_with(&ids(100), Some(&token)));
    cancelled(s.step_with(5, Some(&token)).map(|_| ()));
    cancelled(s.score(&ids(100), 0, Some(&token)).map(|_| ()));
    assert_eq!(s.tokens(), ids(20));
    let mut fresh = session(&model, 256, 16);
    fresh.prefill(&ids(20)).unwrap();
    assert!(bits(s.step(5).unwrap()) == bits(fresh.step(5).unwrap()));
}

#[test]
fn cancelling_amid_a_text_leaves_the_last_completed_batch() {
    let model = tiny("tiny-gemma3", 2);
    let text = ids(200);
    let mut s = session(&model, 256, 32);
    let token = CancelToken::new();
    let mut after = 0;
    let result = s.prefill_each(&text, Some(&token), |i, _| {
        after += token.is_cancelled() as usize;
        if i == 70 {
            token.cancel();
        }
        Ok(())
    });
    assert!(matches!(result, Err(Error::Cancelled)));
    // The rest of 16 rows that were ready; the batch was complete.
    assert!(after < 16, "{after}");
    assert_eq!(s.tokens(), &text[..96]);
    s.prefill(&text[96..]).unwrap();
    let mut fresh = session(&model, 256, 256);
    fresh.prefill(&text).unwrap();
    assert!(now(&s) == now(&fresh));
}

#[test]
fn another_thread_cancels_a_long_prompt() {
    let Some(path) = real_model() else { return };
    let model = Model::builder().threads(2).open(path).unwrap();
    let mut s = session(&model, 1024, 32);
    let text: Vec<u32> = (0..1000).map(|i| 1000 + i * 31).collect();
    let token = CancelToken::new();
    let (result, waited) = std::thread::scope(|scope| {
        let canceller = scope.spawn(|| {
            std::thread::sleep(std::time::Duration::from_millis(300));
            token.cancel();
            std::time::Instant::now()
        });
        let result = s.prefill_with(&text, Some(&token));
        (result, canceller.join().unwrap().elapsed())
    });
    println!("it took {waited:?} to stop");
    assert!(matches!(result, Err(Error::Cancelled)));
    assert!(s.len() < text.len() && s.len().is_multiple_of(32), "{}", s.len());
    // And it goes on from there as if nothing had been.
    let done = s.len();
    s.prefill(&text[done..done + 8]).unwrap();
    let mut fresh = session(&model, 1024, 64);
    fresh.prefill(&text[..done + 8]).unwrap();
    assert!(now(&s) == now(&fresh));
}
