//! What the vocabulary takes of the heap, and that streaming takes nothing.

use std::alloc::{GlobalAlloc, Layout, System};
use std::path::Path;
use std::sync::atomic::{AtomicBool, AtomicI64, AtomicUsize, Ordering::SeqCst};

use carat::chat::{Role, Turn, render};
use carat::gguf::Gguf;
use carat::{Error, Result, StreamDecoder, Tokenizer, TokenizerOptions};

/// Counts the bytes in use, the most there were, and the calls; refuses one large request when told to.
struct Counting;

static USED: AtomicUsize = AtomicUsize::new(0);
static PEAK: AtomicUsize = AtomicUsize::new(0);
static CALLS: AtomicUsize = AtomicUsize::new(0);

/// How many more large requests are granted before one is refused; negative: all are.
static LEFT: AtomicI64 = AtomicI64::new(-1);
static REFUSED: AtomicBool = AtomicBool::new(false);
const LARGE: usize = 64 << 10;

/// Counts a request, or says that it is to be refused.
fn grants(bytes: usize) -> bool {
    if bytes > LARGE && LEFT.load(SeqCst) >= 0 && LEFT.fetch_sub(1, SeqCst) == 0 {
        REFUSED.store(true, SeqCst);
        return false;
    }
    CALLS.fetch_add(1, SeqCst);
    PEAK.fetch_max(USED.fetch_add(bytes, SeqCst) + bytes, SeqCst);
    true
}

// SAFETY: every call goes to the system's allocator unchanged or is refused; the counters do not allocate.
unsafe impl GlobalAlloc for Counting {
    unsafe fn alloc(&self, layout: Layout) -> *mut u8 {
        if !grants(layout.size()) {
            return std::ptr::null_mut();
        }
        // SAFETY: the caller's promises are passed on.
        unsafe { System.alloc(layout) }
    }

    unsafe fn alloc_zeroed(&self, layout: Layout) -> *mut u8 {
        if !grants(layout.size()) {
            return std::ptr::null_mut();
        }
        // SAFETY: the caller's promises are passed on.
        unsafe { System.alloc_zeroed(layout) }
    }

    unsafe fn dealloc(&self, ptr: *mut u8, layout: Layout) {
        USED.fetch_sub(layout.size(), SeqCst);
        // SAFETY: the caller's promises are passed on.
        unsafe { System.dealloc(ptr, layout) }
    }

    unsafe fn realloc(&self, ptr: *mut u8, layout: Layout, new_size: usize) -> *mut u8 {
        if !grants(new_size) {
            return std::ptr::null_mut();
        }
        USED.fetch_sub(layout.size(), SeqCst);
        // SAFETY: the caller's promises are passed on.
        unsafe { System.realloc(ptr, layout, new_size) }
    }
}

#[global_allocator]
static ALLOCATOR: Counting = Counting;

/// Refuses the first large request of `run`, then the second, and so on until there are no more; says how many there
/// are.
fn refuse_each<T>(run: impl Fn() -> Result<T>) -> i64 {
    for n in 0.. {
        REFUSED.store(false, SeqCst);
        LEFT.store(n, SeqCst);
        let result = run();
        LEFT.store(-1, SeqCst);
        match result {
            Ok(_) => {
                assert!(!REFUSED.load(SeqCst));
                return n;
            }
            Err(Error::OutOfMemory { bytes, .. }) => assert!(bytes > LARGE / 2, "{bytes}"),
            Err(e) => panic!("{e}"),
        }
    }
    unreachable!()
}

/// One test, so that no other thread allocates meanwhile.
#[test]
fn a_vocabulary_of_256000_pieces() {
    let path = Path::new(env!("CARGO_MANIFEST_DIR")).join("tests/data/gemma1-vocab.gguf");
    let gguf = Gguf::open(path).unwrap();
    let options = TokenizerOptions::default();

    let before = USED.load(SeqCst);
    PEAK.store(before, SeqCst);
    let tokenizer = Tokenizer::from_gguf(&gguf, &options).unwrap();
    let took = USED.load(SeqCst) - before;
    let peak = PEAK.load(SeqCst) - before;
    let bound = Tokenizer::heap_bytes_bound(&gguf).unwrap();
    eprintln!("{took} bytes, {peak} while loading, {bound} foretold");
    assert!(peak <= 16_000_000, "{peak} bytes while loading");
    assert!(took.abs_diff(tokenizer.heap_bytes()) < 4096, "{took}, not {}", tokenizer.heap_bytes());
    assert!(took <= bound && bound < took * 21 / 20, "{took} bytes, {bound} foretold");

    let text = "Grüezi\u{e000} mitenand 🏔️\u{10fffd}\t漢字\n".repeat(50);
    let mut ids = tokenizer.encode(&text).unwrap();
    // The longest pieces, and bytes that end nothing.
    ids.extend(0..tokenizer.vocab_size() as u32);
    let mut decoder = StreamDecoder::new(&tokenizer).unwrap();
    let calls = CALLS.load(SeqCst);
    let mut len = 0;
    for id in &ids {
        len += decoder.push(*id).unwrap().len();
    }
    len += decoder.flush().len();
    assert_eq!(CALLS.load(SeqCst) - calls, 0, "streaming allocated");
    assert!(len > text.len());

    assert!(refuse_each(|| Tokenizer::from_gguf(&gguf, &options)) >= 8);
    let long = "ab\u{2581}".repeat(100_000);
    let one_part = "ab".repeat(100_000);
    assert!(refuse_each(|| tokenizer.encode(&one_part)) >= 3); // characters, merges, ids
    assert!(refuse_each(|| tokenizer.encode(&long)) >= 2); // a copy, ids
    assert!(refuse_each(|| tokenizer.decode(&ids)) >= 1);
    let turns = [Turn::new(Role::System, &long), Turn::new(Role::User, &long)];
    assert!(refuse_each(|| render(&tokenizer, &turns, None)) >= 3);

    drop((decoder, ids, tokenizer, one_part, long));
    assert!(USED.load(SeqCst) < before + 100_000, "what was taken is given back");
}
