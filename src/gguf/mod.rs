//! GGUF files: reading them in place, and writing them.
//!
//! [`Gguf`] reads versions 2 and 3, little-endian, whole or split into parts as llama.cpp does. It looks at the
//! header only: tensors are views of the mapped file. [`Builder`] and [`Writer`] write version 3.
//!
//! ```
//! use carat::gguf::{Builder, Gguf};
//! use carat::{CancelToken, DType, Storage};
//!
//! let mut header = Builder::new();
//! header.set("general.architecture", "gemma3")?;
//! header.set_strings("tokenizer.ggml.tokens", ["<pad>", "<eos>"])?;
//! header.tensor("output_norm.weight", DType::F32, &[4])?;
//! let mut file = header.write(Vec::new(), "small.gguf")?;
//! file.write(&[0; 16])?; // all of a tensor, or a piece
//! let bytes = file.finish()?;
//!
//! let gguf = Gguf::from_parts(vec![Storage::from_bytes(bytes)], &CancelToken::new())?;
//! assert_eq!(gguf.metadata().require::<&str>("general.architecture")?, "gemma3");
//! let norm = gguf.tensor("output_norm.weight")?.unwrap();
//! assert_eq!((norm.dims(), norm.data().len()), ([4].as_slice(), 16));
//! # Ok::<(), carat::Error>(())
//! ```
//!
//! The format: <https://github.com/ggml-org/ggml/blob/master/docs/gguf.md>.

mod metadata;
mod reader;
mod sniff;
mod split;
mod types;
mod writer;

use std::path::Path;

pub use metadata::{Array, Elements, FromValue, Metadata, Scalar, Strings, Value, ValueType, Values};
pub(crate) use split::parts_len;
pub use types::ggml_type_name;
pub use writer::{Builder, Writer};

use crate::{Advice, CancelToken, DType, Error, Result, Storage};

/// The most dimensions a tensor has.
pub const MAX_DIMS: usize = 4;

/// The key that says to how many bytes the data of tensors is aligned, and what holds without it.
const ALIGNMENT_KEY: &str = "general.alignment";
const DEFAULT_ALIGNMENT: u32 = 32;
const ALIGNMENTS: &str = "a power of two from 8 to 1048576";

/// The format asks for a multiple of 8, ggml for a power of two; padding beyond a megabyte is no alignment.
fn is_alignment(n: u32) -> bool {
    n.is_power_of_two() && (8..=1 << 20).contains(&n)
}

/// A GGUF file, or the several that one was split into.
#[derive(Debug)]
pub struct Gguf {
    version: u32,
    metadata: Metadata,
    tensors: Vec<TensorInfo>,
    /// Indices into `tensors`, sorted by name.
    by_name: Vec<u32>,
    unsupported: Vec<UnsupportedTensor>,
    parts: Vec<Storage>,
}

impl Gguf {
    /// Maps and reads a file; of a model split into parts, give the first.
    ///
    /// # Errors
    ///
    /// [`Error::Io`] when a file cannot be opened; [`Error::SplitMissing`]; [`Error::Format`],
    /// [`Error::Metadata`], [`Error::Tensor`] or [`Error::Unsupported`] when its header is not in order.
    pub fn open(path: impl AsRef<Path>) -> Result<Gguf> {
        Self::open_with(path.as_ref(), &CancelToken::new(), &mut |path| Storage::open(path))
    }

    /// The same with the caller's way to open each part, such as [`Storage::read`], and a token that stops it.
    ///
    /// # Errors
    ///
    /// As [`Gguf::open`], those of `storage`, and [`Error::Cancelled`].
    pub fn open_with(
        path: &Path,
        cancel: &CancelToken,
        storage: &mut dyn FnMut(&Path) -> Result<Storage>,
    ) -> Result<Gguf> {
        let first = storage(path)?;
        Self::join(first, cancel, &mut |part, count| {
            let part_path = split::path(path, part, count)?;
            storage(&part_path).map_err(|e| match e {
                Error::Io { source, .. } if source.kind() == std::io::ErrorKind::NotFound => {
                    Error::SplitMissing {
                        file: path.display().to_string(),
                        part: part + 1,
                        count,
                        looked_for: part_path,
                    }
                }
                e => e,
            })
        })
    }

    /// Reads what is already open: one storage, or the parts of a split model in order.
    ///
    /// # Errors
    ///
    /// As [`Gguf::open`], [`Error::Cancelled`], and [`Error::InvalidOption`] when there are more parts, or none.
    pub fn from_parts(parts: Vec<Storage>, cancel: &CancelToken) -> Result<Gguf> {
        let given = parts.len();
        let mut parts = parts.into_iter();
        let wrong =
            |expected: String| Error::InvalidOption { option: "parts", expected, found: given.to_string() };
        let first = parts.next().ok_or_else(|| wrong("at least one".into()))?;
        let name = first.name().to_owned();
        let gguf = Self::join(first, cancel, &mut |part, count| {
            parts.next().ok_or_else(|| Error::SplitMissing {
                file: name.clone(),
                part: part + 1,
                count,
                looked_for: "the parts given".into(),
            })
        })?;
        if gguf.parts.len() != given {
            return Err(wrong(format!("{}, as {name} says", gguf.parts.len())));
        }
        Ok(gguf)
    }

    /// Reads the first part and those that it asks for.
    fn join(
        first: Storage,
        cancel: &CancelToken,
        next: &mut dyn FnMut(usize, usize) -> Result<Storage>,
    ) -> Result<Gguf> {
        const WHAT: &str = "the tensor descriptions";
        let reader::Part { version, metadata, mut tensors, mut unsupported } = reader::read(&first, cancel)?;
        let mut parts = vec![first];
        let count = split::count(&metadata)?;
        for part in 1..count {
            let storage = next(part, count)?;
            let read = split::read(&storage, part, count, cancel)?;
            reader::extend(&mut tensors, read.tensors, WHAT)?;
            reader::extend(&mut unsupported, read.unsupported, WHAT)?;
            parts.push(storage);
        }
        if count > 1 {
            split::check_total(&metadata, tensors.len() + unsupported.len())?;
        }
        unsupported.sort_unstable_by(|a, b| a.name.cmp(&b.name));
        let by_name = reader::sorted_index(&tensors, |t| &t.name, WHAT)?;
        let gguf = Gguf { version, metadata, tensors, by_name, unsupported, parts };
        gguf.check_names()?;
        Ok(gguf)
    }

    /// Refuses two tensors of one name, whether supported or not.
    fn check_names(&self) -> Result<()> {
        let twice = |name: &str, a: (&Storage, usize), b: (&Storage, usize)| {
            let at = |(storage, info_at): (&Storage, usize)| format!("byte {info_at} of {}", storage.name());
            Error::Tensor {
                file: self.name().to_owned(),
                tensor: name.to_owned(),
                offset: 0,
                what: "name",
                expected: "one tensor of this name".into(),
                found: format!("two, described at {} and {}", at(a), at(b)),
            }
        };
        if let Some([a, b]) = reader::duplicate(&self.by_name, &self.tensors, |t| &t.name) {
            return Err(twice(&a.name, (&a.storage, a.info_at), (&b.storage, b.info_at)));
        }
        if let Some([a, b]) = self.unsupported.windows(2).find(|w| w[0].name == w[1].name) {
            return Err(twice(&a.name, (&a.storage, a.info_at), (&b.storage, b.info_at)));
        }
        for a in &self.unsupported {
            if let Some(b) = self.find(&a.name) {
                return Err(twice(&a.name, (&a.storage, a.info_at), (&b.storage, b.info_at)));
            }
        }
        Ok(())
    }

    /// What messages call it: the name of its first part.
    pub fn name(&self) -> &str {
        self.parts[0].name()
    }

    /// The version of the format: 2 or 3.
    pub fn version(&self) -> u32 {
        self.version
    }

    /// The files it is made of: one, or the parts of a split model.
    pub fn parts(&self) -> &[Storage] {
        &self.parts
    }

    /// Bytes of all its files.
    pub fn file_len(&self) -> u64 {
        self.parts.iter().map(|p| p.as_slice().len() as u64).sum()
    }

    /// Bytes of memory that the header takes as it was read.
    pub(crate) fn heap_bytes(&self) -> usize {
        let names = self.tensors.iter().map(TensorInfo::heap_bytes).sum::<usize>()
            + self.unsupported.iter().map(|t| name_bytes(&t.name)).sum::<usize>();
        self.metadata.heap_bytes()
            + names
            + self.tensors.capacity() * size_of::<TensorInfo>()
            + self.unsupported.capacity() * size_of::<UnsupportedTensor>()
            + self.by_name.capacity() * size_of::<u32>()
            + self.parts.capacity() * size_of::<Storage>()
    }

    /// The metadata (of a split model, the first part's).
    pub fn metadata(&self) -> &Metadata {
        &self.metadata
    }

    /// Every tensor of a supported type, in the order of the file.
    pub fn tensors(&self) -> &[TensorInfo] {
        &self.tensors
    }

    /// The tensors of types that are not supported, by name: a file may have some that nobody asks for.
    pub fn unsupported(&self) -> &[UnsupportedTensor] {
        &self.unsupported
    }

    /// The tensor of a name, `None` when the file does not have it.
    ///
    /// # Errors
    ///
    /// [`Error::Unsupported`] when it is of a type that is not supported.
    pub fn tensor(&self, name: &str) -> Result<Option<&TensorInfo>> {
        if let Some(t) = self.find(name) {
            return Ok(Some(t));
        }
        match self.unsupported.binary_search_by(|t| t.name.as_str().cmp(name)) {
            Ok(i) => Err(self.unsupported[i].error()),
            Err(_) => Ok(None),
        }
    }

    fn find(&self, name: &str) -> Option<&TensorInfo> {
        let i = self.by_name.binary_search_by(|i| self.tensors[*i as usize].name.as_str().cmp(name)).ok()?;
        Some(&self.tensors[self.by_name[i] as usize])
    }

    /// [`Storage::check_unchanged`] of every part.
    ///
    /// # Errors
    ///
    /// [`Error::FileChanged`] or [`Error::Io`].
    pub fn check_unchanged(&self) -> Result<()> {
        self.parts.iter().try_for_each(Storage::check_unchanged)
    }

    /// [`Storage::advise`] on every part.
    ///
    /// # Errors
    ///
    /// [`Error::Io`] with the system's first refusal.
    pub fn advise(&self, advice: Advice) -> Result<()> {
        self.parts.iter().try_for_each(|p| p.advise(advice))
    }

    /// [`Storage::lock`] on every part.
    ///
    /// # Errors
    ///
    /// [`Error::Io`] with the system's first refusal.
    pub fn lock(&self) -> Result<()> {
        self.parts.iter().try_for_each(Storage::lock)
    }

    /// [`Storage::read_ahead`] on every part in turn; `progress` counts the bytes of all.
    ///
    /// # Errors
    ///
    /// [`Error::Cancelled`] or [`Error::FileChanged`].
    pub fn read_ahead(&self, cancel: &CancelToken, progress: &mut dyn FnMut(u64, u64)) -> Result<()> {
        let total = self.file_len();
        let mut before = 0;
        for part in &self.parts {
            part.read_ahead(cancel, &mut |done, _| progress(before + done, total))?;
            before += part.as_slice().len() as u64;
        }
        Ok(())
    }
}

/// Bytes of memory that a name takes: with what an allocator adds to a small piece and rounds it up by.
fn name_bytes(name: &String) -> usize {
    name.capacity() + 32
}

/// A tensor: its description, and a view of its data.
///
/// Holds on to the file's mapping, so it may outlive the [`Gguf`] it came from. Clones share the data.
#[derive(Clone, Debug)]
pub struct TensorInfo {
    info_at: usize,
    name: String,
    dtype: DType,
    dims: [usize; MAX_DIMS],
    n_dims: usize,
    storage: Storage,
    offset: usize,
    len: usize,
}

impl TensorInfo {
    /// Its name, such as `blk.0.attn_q.weight`.
    pub fn name(&self) -> &str {
        &self.name
    }

    /// How its values are stored.
    pub fn dtype(&self) -> DType {
        self.dtype
    }

    /// Its dimensions, innermost first, one to four of at least 1 each.
    pub fn dims(&self) -> &[usize] {
        &self.dims[..self.n_dims]
    }

    /// Values in a row: the innermost dimension, a whole number of the type's blocks.
    pub fn cols(&self) -> usize {
        self.dims[0]
    }

    /// Rows: the product of the other dimensions.
    pub fn rows(&self) -> usize {
        self.dims[1..].iter().product()
    }

    /// Bytes of memory that it takes besides its own size.
    pub(crate) fn heap_bytes(&self) -> usize {
        name_bytes(&self.name)
    }

    /// Where its data begins, in bytes from the start of its file.
    pub fn offset(&self) -> u64 {
        self.offset as u64
    }

    /// Its data, row by row, at any alignment in memory.
    pub fn data(&self) -> &[u8] {
        &self.storage.as_slice()[self.offset..self.offset + self.len]
    }

    /// The file that it lies in.
    pub fn storage(&self) -> &Storage {
        &self.storage
    }

    /// An [`Error::Tensor`] about it.
    pub fn error(&self, what: &'static str, expected: impl Into<String>, found: impl Into<String>) -> Error {
        Error::Tensor {
            file: self.storage.name().to_owned(),
            tensor: self.name.clone(),
            offset: self.offset as u64,
            what,
            expected: expected.into(),
            found: found.into(),
        }
    }
}

/// A tensor whose type is not supported: nothing is known of it but its name and the type's number.
#[derive(Clone, Debug)]
pub struct UnsupportedTensor {
    info_at: usize,
    name: String,
    ty: u32,
    storage: Storage,
}

impl UnsupportedTensor {
    /// Its name.
    pub fn name(&self) -> &str {
        &self.name
    }

    /// The number of its type; [`ggml_type_name`] may know its name.
    pub fn ggml_type(&self) -> u32 {
        self.ty
    }

    /// The refusal of it.
    pub fn error(&self) -> Error {
        let Self { info_at, name, ty, storage } = self;
        let known = ggml_type_name(*ty).unwrap_or("unknown to ggml too");
        Error::Unsupported {
            file: storage.name().to_owned(),
            what: format!("type {ty} ({known}) of tensor {name} (described at byte {info_at})"),
            supported: DType::ALL.map(DType::name).join(", "),
        }
    }
}
