//! Writing GGUF version 3 as a stream: the header at once, then the data piece by piece.

use std::collections::BTreeSet;
use std::io::Write;

use super::metadata::{Array, Scalar, Value, ValueType};
use super::{ALIGNMENT_KEY, ALIGNMENTS, DEFAULT_ALIGNMENT, MAX_DIMS, is_alignment};
use crate::{DType, Error, Result};

const VERSION: u32 = 3;

/// The header of a file to be: metadata, and the tensors that will follow. [`Builder::write`] begins the file.
#[derive(Debug)]
pub struct Builder {
    alignment: u64,
    keys: BTreeSet<String>,
    /// The metadata as it will lie in the file.
    metadata: Vec<u8>,
    names: BTreeSet<String>,
    tensors: Vec<Planned>,
    /// Where the next tensor goes, from the start of the data.
    data_len: u64,
}

#[derive(Debug)]
struct Planned {
    name: String,
    dtype: DType,
    dims: Vec<u64>,
    offset: u64,
    len: u64,
}

impl Default for Builder {
    fn default() -> Self {
        Self::new()
    }
}

impl Builder {
    /// A file of nothing. Tensors are aligned to 32 bytes unless `general.alignment` is set before the first.
    pub fn new() -> Self {
        Builder {
            alignment: DEFAULT_ALIGNMENT.into(),
            keys: BTreeSet::new(),
            metadata: Vec::new(),
            names: BTreeSet::new(),
            tensors: Vec::new(),
            data_len: 0,
        }
    }

    /// Adds a key: a number, a `bool`, a `&str`, or an [`Array`] of another file, which is copied as it is.
    ///
    /// # Errors
    ///
    /// [`Error::InvalidOption`] when the key is there already, or is an alignment that cannot be.
    pub fn set<'a>(&mut self, key: &str, value: impl Into<Value<'a>>) -> Result<&mut Self> {
        let value = value.into();
        if key == ALIGNMENT_KEY {
            self.alignment = match value {
                Value::U32(n) if is_alignment(n) && self.tensors.is_empty() => n.into(),
                _ => {
                    return Err(Error::InvalidOption {
                        option: ALIGNMENT_KEY,
                        expected: format!("a u32, {ALIGNMENTS}, set before the first tensor"),
                        found: value.to_string(),
                    });
                }
            };
        }
        self.begin(key, value.value_type())?;
        match value {
            Value::U8(v) => v.put_le(&mut self.metadata),
            Value::I8(v) => v.put_le(&mut self.metadata),
            Value::U16(v) => v.put_le(&mut self.metadata),
            Value::I16(v) => v.put_le(&mut self.metadata),
            Value::U32(v) => v.put_le(&mut self.metadata),
            Value::I32(v) => v.put_le(&mut self.metadata),
            Value::F32(v) => v.put_le(&mut self.metadata),
            Value::Bool(v) => v.put_le(&mut self.metadata),
            Value::U64(v) => v.put_le(&mut self.metadata),
            Value::I64(v) => v.put_le(&mut self.metadata),
            Value::F64(v) => v.put_le(&mut self.metadata),
            Value::Str(v) => put_str(&mut self.metadata, v),
            Value::Array(Array { elem, len, bytes }) => {
                self.array_header(elem, len);
                self.metadata.extend_from_slice(bytes);
            }
        }
        Ok(self)
    }

    /// Adds a key with an array of numbers or truth values.
    ///
    /// # Errors
    ///
    /// As [`Builder::set`].
    pub fn set_array<T: Scalar>(&mut self, key: &str, values: &[T]) -> Result<&mut Self> {
        self.begin(key, ValueType::Array)?;
        self.array_header(T::TYPE, values.len());
        for v in values {
            v.put_le(&mut self.metadata);
        }
        Ok(self)
    }

    /// Adds a key with an array of strings.
    ///
    /// # Errors
    ///
    /// As [`Builder::set`].
    pub fn set_strings<S: AsRef<[u8]>>(
        &mut self,
        key: &str,
        values: impl IntoIterator<Item = S>,
    ) -> Result<&mut Self> {
        self.begin(key, ValueType::Array)?;
        let start = self.metadata.len();
        self.array_header(ValueType::Str, 0);
        let mut len = 0u64;
        for v in values {
            put_str(&mut self.metadata, v.as_ref());
            len += 1;
        }
        self.metadata[start + 4..start + 12].copy_from_slice(&len.to_le_bytes());
        Ok(self)
    }

    /// Adds a tensor; `dims` are innermost first. Its data is due in this order.
    ///
    /// # Errors
    ///
    /// [`Error::InvalidOption`] when the name is there already, or the shape cannot be of that type.
    pub fn tensor(&mut self, name: &str, dtype: DType, dims: &[usize]) -> Result<&mut Self> {
        let wrong =
            |expected: String, found: String| Error::InvalidOption { option: "tensor", expected, found };
        if !self.names.insert(name.to_owned()) {
            return Err(wrong("names that differ".into(), format!("{name} twice")));
        }
        let rows = dims.iter().skip(1).try_fold(1usize, |rows, d| rows.checked_mul(*d));
        let len = match dims {
            [] => None,
            _ if dims.len() > MAX_DIMS || dims.contains(&0) => None,
            [cols, ..] => dtype.row_bytes(*cols).and_then(|row| row.checked_mul(rows?)),
        };
        let end = len.and_then(|len| (self.data_len + len as u64).checked_next_multiple_of(self.alignment));
        let (Some(len), Some(end)) = (len, end) else {
            return Err(wrong(
                format!(
                    "1 to {MAX_DIMS} dimensions of at least 1, the first a multiple of {} ({dtype})",
                    dtype.block_len()
                ),
                format!("{dims:?} for {name}"),
            ));
        };
        let dims = dims.iter().map(|d| *d as u64).collect();
        self.tensors.push(Planned {
            name: name.to_owned(),
            dtype,
            dims,
            offset: self.data_len,
            len: len as u64,
        });
        self.data_len = end;
        Ok(self)
    }

    /// Bytes that the whole file will have.
    pub fn file_len(&self) -> u64 {
        self.header().len() as u64 + self.data_len
    }

    /// Writes the header. `name` is what errors call the file.
    ///
    /// # Errors
    ///
    /// [`Error::Io`].
    pub fn write<W: Write>(self, mut out: W, name: &str) -> Result<Writer<W>> {
        out.write_all(&self.header()).map_err(|e| write_error(name, e))?;
        Ok(Writer {
            out,
            name: name.to_owned(),
            tensors: self.tensors,
            alignment: self.alignment,
            current: 0,
            done: 0,
        })
    }

    /// The header, padded to where the data begins.
    fn header(&self) -> Vec<u8> {
        let mut h = b"GGUF".to_vec();
        VERSION.put_le(&mut h);
        (self.tensors.len() as u64).put_le(&mut h);
        (self.keys.len() as u64).put_le(&mut h);
        h.extend_from_slice(&self.metadata);
        for t in &self.tensors {
            put_str(&mut h, t.name.as_bytes());
            (t.dims.len() as u32).put_le(&mut h);
            for d in &t.dims {
                d.put_le(&mut h);
            }
            (t.dtype as u32).put_le(&mut h);
            t.offset.put_le(&mut h);
        }
        h.resize(h.len().next_multiple_of(self.alignment as usize), 0);
        h
    }

    fn begin(&mut self, key: &str, ty: ValueType) -> Result<()> {
        if !self.keys.insert(key.to_owned()) {
            return Err(Error::InvalidOption {
                option: "key",
                expected: "keys that differ".into(),
                found: format!("{key} twice"),
            });
        }
        put_str(&mut self.metadata, key.as_bytes());
        (ty as u32).put_le(&mut self.metadata);
        Ok(())
    }

    fn array_header(&mut self, elem: ValueType, len: usize) {
        (elem as u32).put_le(&mut self.metadata);
        (len as u64).put_le(&mut self.metadata);
    }
}

/// A file being written: its header is out, the tensors' data follows in the order they were added.
#[derive(Debug)]
pub struct Writer<W> {
    out: W,
    name: String,
    tensors: Vec<Planned>,
    alignment: u64,
    /// The tensor whose data is due, and how much of it is there.
    current: usize,
    done: u64,
}

impl<W: Write> Writer<W> {
    /// The name of the tensor whose data is due, and the bytes it still lacks; `None` when all are complete.
    pub fn due(&self) -> Option<(&str, u64)> {
        self.tensors.get(self.current).map(|t| (t.name.as_str(), t.len - self.done))
    }

    /// Writes the next bytes of the tensor that is due, all of them or a piece.
    ///
    /// # Errors
    ///
    /// [`Error::InvalidOption`] when there are more than it lacks, [`Error::Io`].
    pub fn write(&mut self, data: &[u8]) -> Result<()> {
        if data.is_empty() {
            return Ok(());
        }
        let left = self.due().map_or(0, |(_, left)| left);
        if data.len() as u64 > left {
            let expected = match self.due() {
                Some((name, _)) => format!("at most the {left} bytes that {name} lacks"),
                None => "none: every tensor is complete".into(),
            };
            return Err(Error::InvalidOption {
                option: "data",
                expected,
                found: format!("{} bytes", data.len()),
            });
        }
        self.out.write_all(data).map_err(|e| write_error(&self.name, e))?;
        self.done += data.len() as u64;
        let len = self.tensors[self.current].len;
        if self.done == len {
            let padding = vec![0; (len.next_multiple_of(self.alignment) - len) as usize];
            self.out.write_all(&padding).map_err(|e| write_error(&self.name, e))?;
            self.current += 1;
            self.done = 0;
        }
        Ok(())
    }

    /// Ends the file and gives the writer back, flushed.
    ///
    /// # Errors
    ///
    /// [`Error::InvalidOption`] when data is lacking, [`Error::Io`].
    pub fn finish(mut self) -> Result<W> {
        if let Some((name, left)) = self.due() {
            return Err(Error::InvalidOption {
                option: "data",
                expected: "the data of every tensor".into(),
                found: format!("{left} bytes lacking of {name}"),
            });
        }
        self.out.flush().map_err(|e| write_error(&self.name, e))?;
        Ok(self.out)
    }
}

fn put_str(out: &mut Vec<u8>, s: &[u8]) {
    (s.len() as u64).put_le(out);
    out.extend_from_slice(s);
}

fn write_error(name: &str, source: std::io::Error) -> Error {
    Error::Io { path: name.to_owned(), action: "write", source }
}
