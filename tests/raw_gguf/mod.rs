//! GGUF files byte by byte, for tests that need them wrong: written without the library's own writer, so that a
//! mistake in one is not hidden by the same mistake in the other.
#![allow(dead_code)] // each test takes what it needs

use carat::gguf::{Gguf, Value};
use carat::{CancelToken, Error, Storage};

/// Bytes so far, and where each field begins.
#[derive(Clone, Default)]
pub struct Raw {
    pub bytes: Vec<u8>,
    pub fields: Vec<usize>,
}

impl Raw {
    /// Magic, version and the two counts.
    pub fn header(version: u32, n_tensors: u64, n_keys: u64) -> Raw {
        Raw::default().raw(b"GGUF").u32(version).u64(n_tensors).u64(n_keys)
    }

    pub fn raw(mut self, bytes: &[u8]) -> Raw {
        self.fields.push(self.bytes.len());
        self.bytes.extend_from_slice(bytes);
        self
    }

    pub fn u32(self, v: u32) -> Raw {
        self.raw(&v.to_le_bytes())
    }

    pub fn u64(self, v: u64) -> Raw {
        self.raw(&v.to_le_bytes())
    }

    pub fn str(self, s: &str) -> Raw {
        self.u64(s.len() as u64).raw(s.as_bytes())
    }

    /// A key, the number of its type, and the bytes of its value.
    pub fn key(self, key: &str, ty: u32, value: &[u8]) -> Raw {
        self.str(key).u32(ty).raw(value)
    }

    /// A key with an array: its elements' type, their number, and their bytes.
    pub fn array(self, key: &str, elem: u32, len: u64, bytes: &[u8]) -> Raw {
        self.str(key).u32(9).u32(elem).u64(len).raw(bytes)
    }

    pub fn tensor(mut self, name: &str, dims: &[u64], ty: u32, offset: u64) -> Raw {
        self = self.str(name).u32(dims.len() as u32);
        for d in dims {
            self = self.u64(*d);
        }
        self.u32(ty).u64(offset)
    }

    pub fn pad(mut self, alignment: usize) -> Raw {
        self.bytes.resize(self.bytes.len().next_multiple_of(alignment), 0);
        self
    }

    /// Every type of value, and two tensors whose data ends with the file.
    pub fn sample() -> Raw {
        let mut strings = Vec::new();
        for s in ["<pad>", "", "▁a"] {
            strings.extend_from_slice(&(s.len() as u64).to_le_bytes());
            strings.extend_from_slice(s.as_bytes());
        }
        Raw::header(3, 2, 16)
            .key("u8", 0, &[200])
            .key("i8", 1, &[0x9c])
            .key("u16", 2, &60000u16.to_le_bytes())
            .key("i16", 3, &(-30000i16).to_le_bytes())
            .key("u32", 4, &7u32.to_le_bytes())
            .key("i32", 5, &(-7i32).to_le_bytes())
            .key("f32", 6, &1.5f32.to_le_bytes())
            .key("bool", 7, &[1])
            .str("str")
            .u32(8)
            .str("hello")
            .key("u64", 10, &u64::MAX.to_le_bytes())
            .key("i64", 11, &i64::MIN.to_le_bytes())
            .key("f64", 12, &(-0.1f64).to_le_bytes())
            .array("scores", 6, 2, &[0; 8])
            .array("bools", 7, 3, &[1, 0, 1])
            .array("tokens", 8, 3, &strings)
            .array("none", 5, 0, &[])
            .tensor("a", &[3], 0, 0)
            .tensor("b", &[32, 2], 2, 32)
            .pad(32)
            .raw(&[1; 12])
            .pad(32)
            .raw(&[2; 36])
    }
}

/// Reads a file in memory.
pub fn parse(bytes: &[u8]) -> Result<Gguf, Error> {
    let storage = Storage::from_bytes(bytes.to_vec()).with_name("bad.gguf");
    Gguf::from_parts(vec![storage], &CancelToken::new())
}

/// Looks at all that a file says of itself; returns the number of things seen.
pub fn walk(gguf: &Gguf) -> usize {
    let mut seen = 0;
    for (key, value) in gguf.metadata().iter() {
        assert!(gguf.metadata().get(key).is_some());
        seen += value.to_string().len();
        if let Value::Array(array) = value {
            assert_eq!(array.values().count(), array.len());
            assert!(array.strings().is_none_or(|s| s.count() == array.len()));
            assert!(array.elements::<f32>().is_none_or(|s| s.count() == array.len()));
        }
    }
    for t in gguf.tensors() {
        assert_eq!(t.data().len(), t.rows() * t.dtype().row_bytes(t.cols()).unwrap());
        seen += t.data().iter().map(|b| *b as usize).sum::<usize>();
        assert!(gguf.tensor(t.name()).unwrap().is_some());
    }
    seen
}

/// Asserts that a file is refused with the given variant and that the message has the given facts.
#[macro_export]
macro_rules! refused {
    ($result:expr, $variant:pat, $($fact:expr),+) => {{
        let error = match $result {
            Ok(_) => panic!("accepted, expected {}", stringify!($variant)),
            Err(e) => e,
        };
        let message = error.to_string();
        assert!(matches!(error, $variant), "expected {}, found {error:?}", stringify!($variant));
        $(assert!(message.contains(&$fact.to_string()), "no {:?} in: {message}", $fact);)+
    }};
}

/// A small generator (xorshift64*), so that random cases are the same in every run.
pub struct Random(pub u64);

impl Random {
    pub fn next(&mut self) -> u64 {
        self.0 ^= self.0 >> 12;
        self.0 ^= self.0 << 25;
        self.0 ^= self.0 >> 27;
        self.0.wrapping_mul(0x2545_f491_4f6c_dd1d)
    }

    pub fn below(&mut self, n: usize) -> usize {
        (self.next() % n as u64) as usize
    }
}
