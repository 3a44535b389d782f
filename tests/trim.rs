//! What a session gives back when memory is short, and that nothing else changes.

mod common;

use std::alloc::{GlobalAlloc, Layout, System};
use std::sync::atomic::{AtomicUsize, Ordering::SeqCst};

use carat::{KvType, Model, Session, SessionOptions};
use common::{TINY, continued, ids, now, options, real_model_at_length, tiny};

static LIVE: AtomicUsize = AtomicUsize::new(0);
static ALLOCATIONS: AtomicUsize = AtomicUsize::new(0);

struct Counting;

// SAFETY: every call is the system allocator's.
unsafe impl GlobalAlloc for Counting {
    unsafe fn alloc(&self, layout: Layout) -> *mut u8 {
        LIVE.fetch_add(layout.size(), SeqCst);
        ALLOCATIONS.fetch_add(1, SeqCst);
        // SAFETY: the caller's promises are passed on.
        unsafe { System.alloc(layout) }
    }

    unsafe fn alloc_zeroed(&self, layout: Layout) -> *mut u8 {
        LIVE.fetch_add(layout.size(), SeqCst);
        ALLOCATIONS.fetch_add(1, SeqCst);
        // SAFETY: the caller's promises are passed on.
        unsafe { System.alloc_zeroed(layout) }
    }

    unsafe fn dealloc(&self, ptr: *mut u8, layout: Layout) {
        LIVE.fetch_sub(layout.size(), SeqCst);
        // SAFETY: the caller's promises are passed on.
        unsafe { System.dealloc(ptr, layout) }
    }
}

#[global_allocator]
static ALLOCATOR: Counting = Counting;

fn same_text(a: &Session, b: &Session) {
    assert_eq!(a.tokens(), b.tokens());
    assert_eq!(a.logits().map(<[f32]>::len), b.logits().map(<[f32]>::len));
    if a.logits().is_some() {
        assert_eq!(now(a), now(b));
    }
}

/// Trims at every kind of moment, beside a session that is never trimmed.
fn nothing_else_changes(model: &Model, o: SessionOptions, what: &str) {
    let mut whole = Session::new(model, o).unwrap();
    whole.trim();
    whole.prefill(&ids(70)).unwrap();
    let mut trimmed = whole.fork().unwrap();
    trimmed.trim();
    same_text(&whole, &trimmed);
    assert_eq!(continued(&mut whole, 8), continued(&mut trimmed, 8), "{what}: stepped");
    for s in [&mut whole, &mut trimmed] {
        s.prefill(&ids(50)[1..]).unwrap();
    }
    same_text(&whole, &trimmed);
    // Cut, so that rows beyond the text are given back, also where a ring has wrapped.
    for s in [&mut whole, &mut trimmed] {
        s.truncate(115).unwrap();
    }
    trimmed.trim();
    for s in [&mut whole, &mut trimmed] {
        s.prefill(&ids(30)[1..]).unwrap();
    }
    assert_eq!(continued(&mut whole, 8), continued(&mut trimmed, 8), "{what}: after cutting");
    for s in [&mut whole, &mut trimmed] {
        s.truncate(0).unwrap();
    }
    trimmed.trim();
    let scores = [&mut whole, &mut trimmed].map(|s| s.score(&ids(60), 0, None).unwrap());
    assert_eq!(scores[0], scores[1], "{what}: from the beginning");
}

/// Bytes of memory that are this process's own.
fn anonymous() -> usize {
    let status = std::fs::read_to_string("/proc/self/status").unwrap();
    let line = status.lines().find_map(|l| l.strip_prefix("RssAnon:")).unwrap();
    1024 * line.trim().trim_end_matches(" kB").parse::<usize>().unwrap()
}

// One test only: the counters see all threads of the process.
#[test]
fn memory_comes_back_and_nothing_else_changes() {
    for name in TINY {
        for kv in [None, Some(KvType::F16), Some(KvType::Q8_0)] {
            let model = tiny(name, 2);
            let mut o = options(256, 32);
            o.kv = kv;
            nothing_else_changes(&model, o, &format!("{name} {kv:?}"));
        }
    }

    let model = tiny("tiny-gemma3", 1);
    let plan = |batch| model.plan_session(&options(256, batch)).unwrap().scratch as usize;
    let foretold = plan(256) - plan(16);
    let before = LIVE.load(SeqCst);
    let mut session = common::session(&model, 256, 256);
    session.prefill(&ids(200)).unwrap();
    let full = LIVE.load(SeqCst) - before;
    session.trim();
    let trimmed = LIVE.load(SeqCst) - before;
    // What is left is the buffers of the smallest batches.
    assert_eq!(full - trimmed, foretold);
    let count = ALLOCATIONS.load(SeqCst);
    for i in 0..16 {
        session.step(300 + i).unwrap();
    }
    assert_eq!(ALLOCATIONS.load(SeqCst), count, "steps after trimming allocate nothing");
    session.prefill(&ids(17)[1..]).unwrap();
    assert_eq!(LIVE.load(SeqCst) - before, trimmed, "a short prompt needs no more");
    session.prefill(&ids(20)[1..]).unwrap();
    assert_eq!(LIVE.load(SeqCst) - before, full, "a longer one does");

    if cfg!(target_os = "linux")
        && let Some(path) = real_model_at_length()
    {
        let model = Model::builder().threads(2).open(path).unwrap();
        let mut session = Session::new(&model, options(2048, 256)).unwrap();
        let empty = anonymous();
        let prompt: Vec<u32> = (0..1500).map(|i| 1000 + i * 37 % 5000).collect();
        session.prefill(&prompt).unwrap();
        let full = anonymous() - empty;
        session.truncate(0).unwrap();
        session.trim();
        let trimmed = anonymous().saturating_sub(empty);
        assert!(trimmed * 4 < full, "{full} bytes, after trimming {trimmed}");
    }
}
