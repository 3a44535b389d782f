//! Reading files when memory runs out: each large allocation fails in turn, and each time that is an error.

mod failing_alloc;
mod raw_gguf;

use carat::gguf::Gguf;
use carat::{CancelToken, Storage};
use failing_alloc::fail_each;
use raw_gguf::Raw;

#[test]
fn a_header_that_does_not_fit() {
    const N: u64 = 20_000;
    let mut raw = Raw::header(3, 2 * N, N);
    for i in 0..N {
        raw = raw.key(&format!("key{i}"), 0, &[1]);
    }
    for i in 0..N {
        raw = raw.tensor(&format!("t{i}"), &[8], 0, 32 * i).tensor(&format!("u{i}"), &[8], 99, 0);
    }
    let bytes = raw.pad(32).raw(&vec![0; 32 * N as usize]).bytes;
    let storage = Storage::from_bytes(bytes);
    let n = fail_each(|| Gguf::from_parts(vec![storage.clone()], &CancelToken::new()));
    // Keys and their index; descriptions as read, supported (with index and order) and not.
    assert!(n >= 7, "{n}");
}

#[test]
fn a_private_copy_that_does_not_fit() {
    let dir = tempfile::tempdir().unwrap();
    let path = dir.path().join("model.gguf");
    std::fs::write(&path, vec![0; 1 << 20]).unwrap();
    let n = fail_each(|| Storage::read(&path, &CancelToken::new(), &mut |_, _| {}));
    assert_eq!(n, 1);
}
