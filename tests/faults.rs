//! What goes wrong around a session ends in an error, never in a hang or an abort, and hurts nobody else.

mod common;
mod failing_alloc;

use std::ops::ControlFlow;
use std::sync::mpsc;
use std::time::Duration;

use carat::{Error, GenerateOptions, Model, Result, Session};
use common::{bits, continued, emulated, ids, now, options, real_model_at_length, session, tiny};
use failing_alloc::fail_each;

fn few_tokens() -> GenerateOptions {
    let mut o = GenerateOptions::default();
    o.max_tokens = 3;
    o.ignore_end = true;
    // A list of all candidates, and a copy of the logits.
    o.sampling.top_k = 0;
    o.sampling.logit_bias = vec![(5, 1.0)];
    // What the caller gives may be large too.
    o.sampling.logit_bias.extend((0..20_000).map(|_| (6, 0.001)));
    o.stop = vec!["never ".repeat(20_000)];
    o
}

#[test]
fn each_large_allocation_that_fails_is_an_error() {
    let few = few_tokens();
    let all = |path: &std::path::Path, draft: usize| {
        let model = Model::builder().threads(2).open(path)?;
        let mut with_drafts = options(256, 64);
        with_drafts.draft = draft;
        let mut session = Session::new(&model, with_drafts)?;
        let prompt = model.tokenizer()?.encode("Hello")?;
        session.prefill(&prompt)?;
        session.generate(&[5], &few, |_| ControlFlow::Continue(()))?;
        session.score(&[5, 6], 0, None)?;
        session.fork()?;
        Ok(())
    };
    let path = common::data("tiny-gemma3.gguf");
    for draft in [0, 15] {
        let n = fail_each(|| all(&path, draft));
        assert!(n > 10, "{n}");
    }
    if let Some(path) = real_model_at_length() {
        // Here the tokenizer and the sampler have large ones too.
        for draft in [0, 15] {
            let n = fail_each(|| all(&path, draft));
            assert!(n > 30, "{n}");
        }
    }
}

/// Runs `work` on a thread of its own, and fails when it hangs: when it takes over a minute, on an emulated processor an
/// hour.
fn or_it_hangs(work: impl FnOnce() + Send + 'static) {
    let (done, wait) = mpsc::channel();
    let thread = std::thread::spawn(move || {
        work();
        done.send(()).unwrap();
    });
    match wait.recv_timeout(Duration::from_secs(if emulated() { 3600 } else { 60 })) {
        Err(mpsc::RecvTimeoutError::Timeout) => panic!("it hangs"),
        _ => thread.join().unwrap(),
    }
}

fn is_internal<T>(r: Result<T>) -> bool {
    matches!(r.map(|_| ()), Err(Error::Internal { what }) if what.contains("injected"))
}

#[test]
fn a_panic_in_any_worker_ends_one_session_only() {
    or_it_hangs(|| {
        for threads in [1, 2, 3] {
            let model = tiny("tiny-gemma3", threads);
            let mut other = session(&model, 256, 16);
            other.prefill(&ids(20)).unwrap();
            let expected = continued(&mut other.fork().unwrap(), 5);
            for worker in 0..threads {
                let mut s = session(&model, 256, 16);
                s.prefill(&ids(20)).unwrap();
                model.inject_panic(worker);
                match worker % 2 {
                    0 => assert!(is_internal(s.step(5).map(|_| ()))),
                    _ => assert!(is_internal(s.prefill(&ids(40)))),
                }
                let dir = tempfile::tempdir().unwrap();
                assert!(is_internal(s.prefill(&[5])));
                assert!(is_internal(s.step(5).map(|_| ())));
                assert!(is_internal(s.score(&[5, 6], 0, None)));
                assert!(is_internal(s.generate(&[5], &few_tokens(), |_| ControlFlow::Continue(()))));
                assert!(is_internal(s.truncate(0)));
                assert!(is_internal(s.fork()));
                assert!(is_internal(s.save(dir.path().join("state"), None)));
                assert_eq!(continued(&mut other.fork().unwrap(), 5), expected);
                assert!(session(&model, 64, 16).prefill(&[5]).is_ok());
            }
        }
    });
}

#[test]
fn a_panic_while_guesses_are_verified_ends_that_session_only() {
    or_it_hangs(|| {
        let model = tiny("tiny-gemma3", 2);
        for worker in 0..2 {
            let mut o = options(256, 16);
            o.draft = 15;
            let mut s = Session::new(&model, o).unwrap();
            s.draft_eagerly();
            let mut few = GenerateOptions::default();
            few.ignore_end = true;
            // What repeats itself is guessed.
            let again = |tokens: &[u32], logits: &mut [f32]| {
                logits[tokens[tokens.len() - 5] as usize] = f32::INFINITY;
            };
            let mut pieces = 0;
            let result = s.generate_with_hook(&ids(20), &few, again, |_| {
                pieces += 1;
                // Passes of 16 follow one another by now.
                if pieces == 40 {
                    model.inject_panic(worker);
                }
                ControlFlow::Continue(())
            });
            assert!(is_internal(result));
            assert_eq!(s.len() - 20, (pieces - 1).max(39));
            assert!(is_internal(s.generate(&[5], &few_tokens(), |_| ControlFlow::Continue(()))));
            assert!(session(&model, 64, 16).prefill(&[5]).is_ok());
        }
    });
}

#[test]
fn a_host_calls_from_its_own_pool() {
    or_it_hangs(|| {
        let model = tiny("tiny-gemma3", 2);
        let mut alone = session(&model, 256, 16);
        alone.prefill(&ids(30)).unwrap();
        let expected = continued(&mut alone, 20);
        let pool = rayon::ThreadPoolBuilder::new().num_threads(2).build().unwrap();
        let work = || {
            let mut s = session(&model, 256, 16);
            s.prefill(&ids(30)).unwrap();
            continued(&mut s, 20)
        };
        // More jobs than threads, nested: a worker that waited by running others' jobs would meet its own pass.
        let results = pool.install(|| {
            let pair = || rayon::join(work, work);
            rayon::join(|| rayon::join(pair, pair), || rayon::join(pair, pair))
        });
        let ((a, b), (c, d)) = results;
        for (x, y) in [a, b, c, d] {
            assert_eq!(x, expected);
            assert_eq!(y, expected);
        }
        // From a callback within a pass of another session.
        let mut outer = session(&model, 256, 16);
        pool.install(|| {
            let more = |_: carat::Piece<'_>| {
                let (x, y) = rayon::join(work, work);
                assert!(x == expected && y == expected);
                ControlFlow::Continue(())
            };
            outer.generate(&ids(3), &few_tokens(), more).unwrap();
        });
    });
}

#[test]
fn two_sessions_of_one_model_from_two_threads() {
    or_it_hangs(|| {
        for threads in [1, 2, 5] {
            let model = tiny("tiny-gemma3", threads);
            let run = |first: u32| {
                let mut s = session(&model, 256, 16);
                s.prefill(&[2, first, 400]).unwrap();
                continued(&mut s, 50)
            };
            let expected = (run(300), run(301));
            let both = std::thread::scope(|s| {
                let a = s.spawn(|| run(300));
                let b = s.spawn(|| run(301));
                (a.join().unwrap(), b.join().unwrap())
            });
            assert_eq!(both, expected);
        }
    });
}

#[test]
fn a_file_that_shrinks_between_passes() {
    let dir = tempfile::tempdir().unwrap();
    let path = dir.path().join("model.gguf");
    std::fs::copy(common::data("tiny-gemma3.gguf"), &path).unwrap();
    let model = Model::builder().threads(2).open(&path).unwrap();
    let mut s = session(&model, 256, 16);
    s.prefill(&ids(20)).unwrap();
    let len = std::fs::metadata(&path).unwrap().len();
    let file = std::fs::File::options().write(true).open(&path).unwrap();
    file.set_len(len / 2).unwrap();
    let changed = |r: Result<()>| match r {
        Err(Error::FileChanged { file, expected, found }) => {
            assert_eq!((file, expected, found), (path.display().to_string(), len, len / 2));
        }
        other => panic!("{other:?}"),
    };
    changed(s.step(5).map(|_| ()));
    changed(s.prefill(&[5, 6]));
    changed(s.score(&[5, 6], 0, None).map(|_| ()));
    changed(s.save(dir.path().join("state"), None));
    assert_eq!(s.tokens(), ids(20));
    // A private copy does not care.
    std::fs::copy(common::data("tiny-gemma3.gguf"), &path).unwrap();
    let model = Model::builder().threads(2).private_copy(true).open(&path).unwrap();
    let mut t = session(&model, 256, 16);
    file.set_len(0).unwrap();
    t.prefill(&ids(20)).unwrap();
}

#[cfg(unix)]
#[test]
fn a_forked_process_is_told_to_open_the_model_again() {
    let model = tiny("tiny-gemma3", 2);
    let mut s = session(&model, 256, 16);
    s.prefill(&ids(20)).unwrap();
    let expected = bits(s.fork().unwrap().step(5).unwrap());
    let (mut model, mut s) = (Some(model), Some(s));
    let mut in_child = || {
        let Some(mut s) = s.take() else { return false };
        let forked = |r: Result<()>| matches!(r, Err(Error::Forked { opened_by, here }) if opened_by != here);
        let told = forked(s.step(5).map(|_| ())) && forked(s.prefill(&[5, 6]));
        drop(s);
        drop(model.take());
        // User-mode emulation ends a forked process that makes a thread.
        let again = tiny("tiny-gemma3", if emulated() { 1 } else { 2 });
        let mut s = session(&again, 256, 16);
        s.prefill(&ids(20)).unwrap();
        s.step(5).unwrap();
        told && now(&s) == expected
    };
    // SAFETY: the child touches nothing that another thread may have held at the moment of the fork but the
    // allocator, which the C library keeps usable; it leaves by _exit.
    let child = unsafe { libc::fork() };
    assert!(child >= 0);
    if child == 0 {
        // SAFETY: kills the child, and only it, should it hang.
        unsafe { libc::alarm(60) };
        let ok = std::panic::catch_unwind(std::panic::AssertUnwindSafe(&mut in_child)).unwrap_or(false);
        // SAFETY: ends the child without running anything of the parent's.
        unsafe { libc::_exit(if ok { 0 } else { 1 }) };
    }
    let mut status = 0;
    // SAFETY: waits for the child just made.
    let waited = unsafe { libc::waitpid(child, &mut status, 0) };
    assert_eq!(waited, child);
    assert!(libc::WIFEXITED(status) && libc::WEXITSTATUS(status) == 0, "status {status:x}");
    // The parent goes on.
    assert_eq!(bits(s.unwrap().step(5).unwrap()), expected);
}
