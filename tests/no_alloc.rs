//! Once a session is made and has run, producing a token takes no allocation, in any thread.

mod common;

use std::alloc::{GlobalAlloc, Layout, System};
use std::ops::ControlFlow;
use std::sync::atomic::{AtomicUsize, Ordering::SeqCst};

use carat::{GenerateOptions, KvType, SamplingOptions, Session};
use common::{TINY, ids, options, tiny};

static ALLOCATIONS: AtomicUsize = AtomicUsize::new(0);

struct Counting;

// SAFETY: every call is the system allocator's.
unsafe impl GlobalAlloc for Counting {
    unsafe fn alloc(&self, layout: Layout) -> *mut u8 {
        ALLOCATIONS.fetch_add(1, SeqCst);
        // SAFETY: the caller's promises are passed on.
        unsafe { System.alloc(layout) }
    }

    unsafe fn dealloc(&self, ptr: *mut u8, layout: Layout) {
        // SAFETY: the caller's promises are passed on.
        unsafe { System.dealloc(ptr, layout) }
    }

    unsafe fn realloc(&self, ptr: *mut u8, layout: Layout, size: usize) -> *mut u8 {
        ALLOCATIONS.fetch_add(1, SeqCst);
        // SAFETY: the caller's promises are passed on.
        unsafe { System.realloc(ptr, layout, size) }
    }
}

#[global_allocator]
static ALLOCATOR: Counting = Counting;

/// Everything that a token may go through.
fn busy_options() -> GenerateOptions {
    let mut o = GenerateOptions::default();
    o.max_tokens = 66;
    o.ignore_end = true;
    o.top_log_probs = 5;
    o.stop = vec!["no such text".into(), "nor this".into()];
    o.sampling.repetition_penalty = 1.1;
    o.sampling.frequency_penalty = 0.1;
    o.sampling.logit_bias = vec![(400, 0.5)];
    o.sampling.min_p = 0.01;
    o.sampling.seed = Some(1);
    o.cancel = Some(Default::default());
    o
}

// One test only: the counter sees all threads of the process.
#[test]
fn producing_a_token_allocates_nothing() {
    let before = ALLOCATIONS.load(SeqCst);
    drop(std::hint::black_box(vec![1]));
    assert_eq!(ALLOCATIONS.load(SeqCst), before + 1, "the counter counts");

    // All of them take longer than a minute on an emulated processor, when the harness allocates to say that.
    let few = if common::emulated() { 2 } else { usize::MAX };
    for (name, kv) in [("tiny-gemma3", Some(KvType::F16)), ("tiny-gemma3", Some(KvType::Q8_0))]
        .into_iter()
        .chain(TINY.map(|n| (n, None)))
        .take(few)
    {
        for (threads, draft) in [(1, 0), (2, 0), (1, 15), (2, 15)] {
            let model = tiny(name, threads);
            let mut o = options(256, 32);
            o.kv = kv;
            o.draft = draft;
            let mut session = Session::new(&model, o).unwrap();
            session.draft_eagerly();
            session.prefill(&ids(40)).unwrap();
            session.step(400).unwrap();
            let before = ALLOCATIONS.load(SeqCst);
            for i in 0..64 {
                session.step(300 + i).unwrap();
            }
            let after = ALLOCATIONS.load(SeqCst);
            assert_eq!(after - before, 0, "{name} {kv:?}: 64 steps on {threads} threads");

            let mut unpenalized = busy_options();
            unpenalized.sampling = SamplingOptions::default();
            let mut whole = busy_options();
            whole.sampling.top_k = 0;
            whole.sampling.top_p = 0.9;
            let mut accepted = 0;
            for mut o in [busy_options(), unpenalized, whole] {
                if draft > 0 {
                    // Of four tokens much repeats itself.
                    o.sampling.logit_bias = (600..604).map(|id| (id, 40.0)).collect();
                }
                session.truncate(0).unwrap();
                let (mut first, mut last, mut pieces) = (0, 0, 0);
                let mut bytes = 0;
                let summary = session
                    .generate(&ids(10), &o, |piece| {
                        bytes += piece.text.len() + piece.top.len();
                        pieces += piece.token.is_some() as usize;
                        last = ALLOCATIONS.load(SeqCst);
                        if pieces == 1 {
                            first = last;
                        }
                        ControlFlow::Continue(())
                    })
                    .unwrap();
                assert_eq!((summary.generated_tokens, pieces), (66, 66));
                accepted += summary.accepted_tokens;
                assert!(bytes > 66);
                assert_eq!(last - first, 0, "{name} {kv:?}: generating on {threads} threads, {o:?}");
            }
            assert_eq!(accepted > 0, draft > 0, "{name}: {accepted}");
        }
    }
}
