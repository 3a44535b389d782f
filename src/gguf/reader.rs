//! One pass over a file's header. Every count is capped by the bytes left, every sum and product is checked, and
//! every error says where.

use std::ops::Range;

use super::metadata::{Entry, Metadata};
use super::sniff::looks_like;
use super::{
    ALIGNMENT_KEY, ALIGNMENTS, DEFAULT_ALIGNMENT, MAX_DIMS, TensorInfo, UnsupportedTensor, ValueType,
    is_alignment,
};
use crate::error::{try_text, try_with_capacity};
use crate::{CancelToken, DType, Error, Result, Storage};

/// The least that a key and its value take: an empty key (8), a type (4), a value of one byte.
const MIN_ENTRY: usize = 8 + 4 + 1;
/// The least that the description of a tensor takes: an empty name (8), dimensions (4), a type (4), an offset (8).
const MIN_TENSOR: usize = 8 + 4 + 4 + 8;
/// The format's limit on the length of a key, and more than anyone gives a tensor's name.
const MAX_NAME: usize = 65535;
/// Array elements looked at between two looks at the cancel token.
const CANCEL_EVERY: usize = 1 << 14;

/// One file, read and checked.
pub(super) struct Part {
    pub(super) version: u32,
    pub(super) metadata: Metadata,
    pub(super) tensors: Vec<TensorInfo>,
    pub(super) unsupported: Vec<UnsupportedTensor>,
}

pub(super) fn read(storage: &Storage, cancel: &CancelToken) -> Result<Part> {
    let mut c = Cursor { bytes: storage.as_slice(), at: 0, file: storage.name(), cancel };
    let version = c.version()?;
    let n_tensors = c.u64(&"number of tensors")?;
    let n_tensors = c.cap(n_tensors, MIN_TENSOR, &"number of tensors")?;
    let n_entries = c.u64(&"number of metadata keys")?;
    let n_entries = c.cap(n_entries, MIN_ENTRY, &"number of metadata keys")?;

    let mut entries = try_with_capacity(n_entries, "the metadata keys")?;
    for i in 0..n_entries {
        entries.push(c.entry(i)?);
    }
    let by_key = sorted_index(&entries, |e| &e.key, "the metadata keys")?;
    let metadata = Metadata { storage: storage.clone(), entries, by_key };
    if let Some([first, second]) = duplicate(&metadata.by_key, &metadata.entries, |e| &e.key) {
        let found = format!("two, at bytes {} and {}", first.offset, second.offset);
        return Err(metadata.error(&first.key, "one value", found));
    }
    let alignment = alignment(&metadata)?;

    let mut infos = try_with_capacity(n_tensors, "the tensor descriptions")?;
    for i in 0..n_tensors {
        infos.push(c.tensor(i)?);
    }
    // A file without tensors may end at the header's last byte, so the start of the data may lie beyond the end.
    let data_start = c.at.next_multiple_of(alignment);
    let mut tensors = try_with_capacity(n_tensors, "the tensor descriptions")?;
    let mut unsupported = Vec::new();
    for info in infos {
        match DType::from_ggml(info.ty) {
            Some(dtype) => tensors.push(info.place(dtype, storage, data_start, alignment)?),
            None => {
                let Unplaced { info_at, name, ty, .. } = info;
                let tensor = UnsupportedTensor { info_at, name, ty, storage: storage.clone() };
                extend(&mut unsupported, vec![tensor], "the tensor descriptions")?;
            }
        }
    }
    check_overlap(&tensors)?;
    Ok(Part { version, metadata, tensors, unsupported })
}

/// Indices of `items`, sorted by name.
pub(super) fn sorted_index<T>(
    items: &[T],
    name: impl Fn(&T) -> &str,
    what: &'static str,
) -> Result<Vec<u32>> {
    let mut index: Vec<u32> = try_with_capacity(items.len(), what)?;
    // A file with 2^32 names would have been refused: they do not fit into memory.
    index.extend((0..items.len()).map(|i| i as u32));
    sort_by_name(&mut index, &|i| name(&items[i as usize]));
    Ok(index)
}

/// Apart, since sorting is much code, and the same for whatever has names.
fn sort_by_name<'a>(index: &mut [u32], name: &dyn Fn(u32) -> &'a str) {
    index.sort_unstable_by(|a, b| name(*a).cmp(name(*b)).then(a.cmp(b)));
}

/// Two items of the same name, in the order of the file.
pub(super) fn duplicate<'a, T>(
    index: &[u32],
    items: &'a [T],
    name: impl Fn(&T) -> &str,
) -> Option<[&'a T; 2]> {
    index.windows(2).map(|w| [&items[w[0] as usize], &items[w[1] as usize]]).find(|[a, b]| name(a) == name(b))
}

/// Adds the items of `more`, of which a file may have any number.
pub(super) fn extend<T>(items: &mut Vec<T>, more: Vec<T>, what: &'static str) -> Result<()> {
    let bytes = (items.len() + more.len()).saturating_mul(size_of::<T>());
    items.try_reserve(more.len()).map_err(|_| Error::OutOfMemory { what, bytes })?;
    items.extend(more);
    Ok(())
}

fn alignment(metadata: &Metadata) -> Result<usize> {
    match metadata.get_as::<u32>(ALIGNMENT_KEY)? {
        None => Ok(DEFAULT_ALIGNMENT as usize),
        Some(n) if is_alignment(n) => Ok(n as usize),
        Some(n) => Err(metadata.error(ALIGNMENT_KEY, ALIGNMENTS, n.to_string())),
    }
}

/// Tensors whose bytes are also another's.
fn check_overlap(tensors: &[TensorInfo]) -> Result<()> {
    let mut by_offset = try_with_capacity(tensors.len(), "the tensor descriptions")?;
    by_offset.extend(tensors.iter());
    by_offset.sort_unstable_by_key(|t| t.offset);
    for pair in by_offset.windows(2) {
        let (a, b) = (pair[0], pair[1]);
        if a.offset + a.len > b.offset {
            let expected =
                format!("a place of its own, after the end of {} at byte {}", a.name, a.offset + a.len);
            return Err(b.error(
                "place",
                expected,
                format!("an overlap of {} bytes", (a.offset + a.len) - b.offset),
            ));
        }
    }
    Ok(())
}

/// What is being read, told only when it turns out wrong.
type What<'a> = &'a dyn std::fmt::Display;

struct Cursor<'a> {
    bytes: &'a [u8],
    at: usize,
    file: &'a str,
    cancel: &'a CancelToken,
}

impl<'a> Cursor<'a> {
    fn left(&self) -> usize {
        self.bytes.len() - self.at
    }

    fn error(&self, at: usize, what: What, expected: impl Into<String>, found: impl Into<String>) -> Error {
        Error::Format {
            file: self.file.to_owned(),
            offset: at as u64,
            what: what.to_string(),
            expected: expected.into(),
            found: found.into(),
        }
    }

    fn unsupported(&self, what: String, supported: impl Into<String>) -> Error {
        Error::Unsupported { file: self.file.to_owned(), what, supported: supported.into() }
    }

    fn take(&mut self, n: u64, what: What) -> Result<&'a [u8]> {
        match usize::try_from(n) {
            Ok(n) if n <= self.left() => {
                let taken = &self.bytes[self.at..self.at + n];
                self.at += n;
                Ok(taken)
            }
            _ => Err(self.error(self.at, what, format!("{n} bytes"), self.the_end())),
        }
    }

    fn the_end(&self) -> String {
        format!("{} before the end of the file at {}", self.left(), self.bytes.len())
    }

    fn u32(&mut self, what: What) -> Result<u32> {
        let bytes = self.take(4, what)?;
        Ok(u32::from_le_bytes(bytes.try_into().expect("4 bytes were taken")))
    }

    fn u64(&mut self, what: What) -> Result<u64> {
        let bytes = self.take(8, what)?;
        Ok(u64::from_le_bytes(bytes.try_into().expect("8 bytes were taken")))
    }

    /// A count just read, if so many items of at least `min` bytes can follow.
    fn cap(&self, count: u64, min: usize, what: What) -> Result<usize> {
        let most = self.left() / min;
        match usize::try_from(count) {
            Ok(n) if n <= most => Ok(n),
            _ => {
                let expected = format!("at most {most}, all that fit into the {} bytes left", self.left());
                let found = format!("{count} (the file ends at byte {})", self.bytes.len());
                Err(self.error(self.at - 8, what, expected, found))
            }
        }
    }

    /// A key or a tensor's name.
    fn name(&mut self, what: What) -> Result<String> {
        let start = self.at;
        let len = self.u64(&format_args!("length of {what}"))?;
        if len > MAX_NAME as u64 {
            let what = format!("length of {what}");
            return Err(self.error(start, &what, format!("at most {MAX_NAME}"), len.to_string()));
        }
        let bytes = self.take(len, what)?;
        let text = std::str::from_utf8(bytes).map_err(|e| {
            let found = format!("byte {:#04x}", bytes[e.valid_up_to()]);
            self.error(start + 8 + e.valid_up_to(), what, "UTF-8", found)
        })?;
        let mut name = try_text(text.len(), "a name")?;
        name.push_str(text);
        Ok(name)
    }

    /// Magic and version.
    fn version(&mut self) -> Result<u32> {
        if !self.bytes.starts_with(b"GGUF") {
            // A file cut within the magic is a truncated GGUF file, not something else.
            let found = match self.bytes {
                [] => looks_like(self.bytes),
                bytes if b"GGUF".starts_with(bytes) => self.the_end(),
                bytes => looks_like(bytes),
            };
            return Err(self.error(0, &"magic", "\"GGUF\"", found));
        }
        self.at = 4;
        let version = self.u32(&"version")?;
        match version {
            2 | 3 => Ok(version),
            // The bytes of a small number in the other order.
            v if (1..=0xffff).contains(&v.swap_bytes()) => Err(self.unsupported(
                format!("a big-endian GGUF file (version {}, at byte 4)", v.swap_bytes()),
                "little-endian",
            )),
            v => Err(self.unsupported(format!("GGUF version {v} (at byte 4)"), "versions 2 and 3")),
        }
    }

    fn value_type(&mut self, what: What) -> Result<ValueType> {
        let n = self.u32(what)?;
        ValueType::from_gguf(n)
            .ok_or_else(|| self.error(self.at - 4, what, "a value type from 0 to 12", n.to_string()))
    }

    /// A key and the extent of its value.
    fn entry(&mut self, i: usize) -> Result<Entry> {
        self.cancel.check()?;
        let key = self.name(&format_args!("metadata key {i}"))?;
        let ty = self.value_type(&format_args!("type of {key}"))?;
        let start = self.at;
        let what = format_args!("value of {key}");
        let (mut elem, mut count) = (ty, 1);
        match ty {
            ValueType::Array => (elem, count) = self.array(&key)?,
            ValueType::Str => self.string(&what)?,
            ValueType::Bool => self.bools(1, &what)?,
            _ => {
                let size = ty.size().expect("strings and arrays are dealt with above");
                self.take(size as u64, &what)?;
            }
        }
        Ok(Entry { key, ty, offset: start, len: self.at - start, elem, count })
    }

    fn string(&mut self, what: What) -> Result<()> {
        let len = self.u64(&format_args!("length of {what}"))?;
        self.take(len, what)?;
        Ok(())
    }

    /// Where the string ends that begins here.
    fn next_string(&self) -> Option<usize> {
        let rest = &self.bytes[self.at..];
        let len = u64::from_le_bytes(*rest.first_chunk()?);
        (len <= (rest.len() - 8) as u64).then(|| self.at + 8 + len as usize)
    }

    fn bools(&mut self, count: usize, what: What) -> Result<()> {
        let start = self.at;
        let bytes = self.take(count as u64, what)?;
        match bytes.iter().position(|b| *b > 1) {
            Some(i) => Err(self.error(start + i, what, "0 or 1", bytes[i].to_string())),
            None => Ok(()),
        }
    }

    fn array(&mut self, key: &str) -> Result<(ValueType, usize)> {
        let elem = self.value_type(&format_args!("element type of {key}"))?;
        if elem == ValueType::Array {
            let what = format!("an array of arrays (metadata {key}, at byte {})", self.at - 4);
            return Err(self.unsupported(what, "arrays of numbers, bools and strings"));
        }
        let what = format_args!("length of {key}");
        let count = self.u64(&what)?;
        let count = self.cap(count, elem.size().unwrap_or(8), &what)?;
        let what = format_args!("elements of {key}");
        match (elem, elem.size()) {
            (ValueType::Bool, _) => self.bools(count, &what)?,
            // `cap` has multiplied: it fits.
            (_, Some(size)) => _ = self.take((count * size) as u64, &what)?,
            (_, None) => {
                for i in 0..count {
                    if i % CANCEL_EVERY == 0 {
                        self.cancel.check()?;
                    }
                    // The lean way for a vocabulary; what it cannot step over goes the way that says why.
                    match self.next_string() {
                        Some(end) => self.at = end,
                        None => self.string(&format_args!("element {i} of {key}"))?,
                    }
                }
            }
        }
        Ok((elem, count))
    }

    /// The description of a tensor.
    fn tensor(&mut self, i: usize) -> Result<Unplaced> {
        self.cancel.check()?;
        let info_at = self.at;
        let name = self.name(&format_args!("name of tensor {i}"))?;
        let what = format_args!("number of dimensions of tensor {name}");
        let n_dims = self.u32(&what)?;
        if n_dims as usize > MAX_DIMS {
            return Err(self.error(self.at - 4, &what, format!("at most {MAX_DIMS}"), n_dims.to_string()));
        }
        let mut dims = [1; MAX_DIMS];
        for (d, dim) in dims.iter_mut().enumerate().take(n_dims as usize) {
            let what = format_args!("dimension {d} of tensor {name}");
            let n = self.u64(&what)?;
            *dim = match usize::try_from(n) {
                Ok(n) if (1..=isize::MAX as usize).contains(&n) => n,
                _ => {
                    let expected = format!("1 to {}", isize::MAX);
                    return Err(self.error(self.at - 8, &what, expected, n.to_string()));
                }
            };
        }
        let ty = self.u32(&format_args!("type of tensor {name}"))?;
        let offset = self.u64(&format_args!("offset of tensor {name}"))?;
        Ok(Unplaced { info_at, name, ty, dims, n_dims: (n_dims as usize).max(1), offset })
    }
}

/// A tensor's description as the file gives it.
struct Unplaced {
    info_at: usize,
    name: String,
    /// ggml's number, supported or not.
    ty: u32,
    dims: [usize; MAX_DIMS],
    n_dims: usize,
    /// From the start of the data.
    offset: u64,
}

impl Unplaced {
    /// Checks that the data is in the file, and where it should be.
    fn place(
        self,
        dtype: DType,
        storage: &Storage,
        data_start: usize,
        alignment: usize,
    ) -> Result<TensorInfo> {
        let absolute = self.offset.saturating_add(data_start as u64);
        let error = |what, expected: String, found: String| Error::Tensor {
            file: storage.name().to_owned(),
            tensor: self.name.clone(),
            offset: absolute,
            what,
            expected,
            found,
        };
        let dims = self.dims;
        let shape = || format!("{:?} {dtype}", &dims[..self.n_dims]);
        if !dims[0].is_multiple_of(dtype.block_len()) {
            let expected = format!("a multiple of {}, the block of {dtype}", dtype.block_len());
            return Err(error("row length", expected, dims[0].to_string()));
        }
        let rows = dims[1..].iter().try_fold(1usize, |rows, d| rows.checked_mul(*d));
        let len = dtype.row_bytes(dims[0]).and_then(|row| row.checked_mul(rows?));
        let Some(len) = len.filter(|len| *len <= isize::MAX as usize) else {
            return Err(error("size", "one that can be addressed".into(), shape()));
        };
        if !self.offset.is_multiple_of(alignment as u64) {
            let expected =
                format!("a multiple of {alignment} from the start of the data at byte {data_start}");
            return Err(error("offset", expected, self.offset.to_string()));
        }
        let bytes = storage.as_slice().len();
        let range: Option<Range<usize>> =
            usize::try_from(absolute).ok().and_then(|start| Some(start..start.checked_add(len)?));
        match range {
            Some(range) if range.end <= bytes => Ok(TensorInfo {
                info_at: self.info_at,
                name: self.name,
                dtype,
                dims,
                n_dims: self.n_dims,
                storage: storage.clone(),
                offset: range.start,
                len,
            }),
            _ => {
                let there = (bytes as u64).saturating_sub(absolute);
                let found = format!("{there} before the end of the file at {bytes} (is it cut short?)");
                Err(error("data", format!("{len} bytes for {}", shape()), found))
            }
        }
    }
}
