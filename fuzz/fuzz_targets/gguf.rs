//! Any bytes given as a GGUF file are refused with an error about the file, or can be looked at in full.
#![no_main]

use std::hint::black_box;

use carat::gguf::{Gguf, Value};
use carat::{CancelToken, ErrorKind, Storage};
use libfuzzer_sys::fuzz_target;

fuzz_target!(|bytes: &[u8]| {
    let storage = Storage::from_bytes(bytes.to_vec());
    let gguf = match Gguf::from_parts(vec![storage], &CancelToken::new()) {
        Ok(gguf) => gguf,
        Err(e) => {
            assert_eq!(e.kind(), ErrorKind::File, "{e}");
            return;
        }
    };
    for (key, value) in gguf.metadata().iter() {
        assert!(gguf.metadata().get(key).is_some());
        black_box(value.to_string());
        if let Value::Array(array) = value {
            assert_eq!(array.values().count(), array.len());
            assert!(array.strings().is_none_or(|s| s.count() == array.len()));
        }
    }
    let mut data = 0;
    for t in gguf.tensors() {
        assert!(gguf.tensor(t.name()).is_ok_and(|found| found.is_some()));
        assert_eq!(Some(t.data().len()), t.dtype().row_bytes(t.cols()).map(|row| row * t.rows()));
        black_box(t.data().iter().fold(0, |sum: u8, b| sum.wrapping_add(*b)));
        data += t.data().len();
    }
    // No byte belongs to two tensors.
    assert!(data <= bytes.len());
    for t in gguf.unsupported() {
        assert!(gguf.tensor(t.name()).is_err());
    }
});
