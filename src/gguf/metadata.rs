//! Typed access to a file's metadata. Arrays, of which a vocabulary has three of 256k elements, stay in the file:
//! what is handed out are views that decode as they go.

use crate::{Error, Result, Storage};

/// The type of a metadata value. The numbers are GGUF's.
#[derive(Clone, Copy, PartialEq, Eq, Hash, Debug)]
#[repr(u32)]
#[allow(missing_docs)] // each is what it says
pub enum ValueType {
    U8 = 0,
    I8 = 1,
    U16 = 2,
    I16 = 3,
    U32 = 4,
    I32 = 5,
    F32 = 6,
    Bool = 7,
    Str = 8,
    Array = 9,
    U64 = 10,
    I64 = 11,
    F64 = 12,
}

impl ValueType {
    /// Every type, at the index of its number.
    pub const ALL: [ValueType; 13] = {
        use ValueType::*;
        [U8, I8, U16, I16, U32, I32, F32, Bool, Str, Array, U64, I64, F64]
    };

    /// The type with GGUF's number `n`.
    pub fn from_gguf(n: u32) -> Option<ValueType> {
        Self::ALL.get(n as usize).copied()
    }

    /// The type's name in the format's description.
    pub fn name(self) -> &'static str {
        use ValueType::*;
        match self {
            U8 => "uint8",
            I8 => "int8",
            U16 => "uint16",
            I16 => "int16",
            U32 => "uint32",
            I32 => "int32",
            F32 => "float32",
            Bool => "bool",
            Str => "string",
            Array => "array",
            U64 => "uint64",
            I64 => "int64",
            F64 => "float64",
        }
    }

    /// Bytes of a value, or `None` for strings and arrays, whose length is in the file.
    pub const fn size(self) -> Option<usize> {
        use ValueType::*;
        match self {
            U8 | I8 | Bool => Some(1),
            U16 | I16 => Some(2),
            U32 | I32 | F32 => Some(4),
            U64 | I64 | F64 => Some(8),
            Str | Array => None,
        }
    }
}

/// A metadata value: a number, or a view of a string or array in the file.
#[derive(Clone, Copy, PartialEq, Debug)]
#[allow(missing_docs)] // each is what it says
pub enum Value<'a> {
    U8(u8),
    I8(i8),
    U16(u16),
    I16(i16),
    U32(u32),
    I32(i32),
    F32(f32),
    Bool(bool),
    /// The format asks for UTF-8, which is checked only when asked for by [`Value::as_str`].
    Str(&'a [u8]),
    Array(Array<'a>),
    U64(u64),
    I64(i64),
    F64(f64),
}

impl<'a> Value<'a> {
    /// Its type.
    pub fn value_type(&self) -> ValueType {
        match self {
            Value::U8(_) => ValueType::U8,
            Value::I8(_) => ValueType::I8,
            Value::U16(_) => ValueType::U16,
            Value::I16(_) => ValueType::I16,
            Value::U32(_) => ValueType::U32,
            Value::I32(_) => ValueType::I32,
            Value::F32(_) => ValueType::F32,
            Value::Bool(_) => ValueType::Bool,
            Value::Str(_) => ValueType::Str,
            Value::Array(_) => ValueType::Array,
            Value::U64(_) => ValueType::U64,
            Value::I64(_) => ValueType::I64,
            Value::F64(_) => ValueType::F64,
        }
    }

    /// Any integer that is not negative.
    pub fn as_u64(&self) -> Option<u64> {
        match *self {
            Value::U64(v) => Some(v),
            other => u64::try_from(other.as_i64()?).ok(),
        }
    }

    /// Any integer that fits.
    pub fn as_i64(&self) -> Option<i64> {
        Some(match *self {
            Value::U8(v) => v.into(),
            Value::I8(v) => v.into(),
            Value::U16(v) => v.into(),
            Value::I16(v) => v.into(),
            Value::U32(v) => v.into(),
            Value::I32(v) => v.into(),
            Value::U64(v) => i64::try_from(v).ok()?,
            Value::I64(v) => v,
            _ => return None,
        })
    }

    /// Any number: some writers store whole numbers as integers.
    pub fn as_f64(&self) -> Option<f64> {
        match *self {
            Value::F32(v) => Some(v.into()),
            Value::F64(v) => Some(v),
            other => Some(other.as_i64()? as f64),
        }
    }

    /// A truth value.
    pub fn as_bool(&self) -> Option<bool> {
        if let Value::Bool(v) = *self { Some(v) } else { None }
    }

    /// A string, if it is valid UTF-8.
    pub fn as_str(&self) -> Option<&'a str> {
        std::str::from_utf8(self.as_bytes()?).ok()
    }

    /// The bytes of a string.
    pub fn as_bytes(&self) -> Option<&'a [u8]> {
        if let Value::Str(v) = *self { Some(v) } else { None }
    }

    /// An array.
    pub fn as_array(&self) -> Option<Array<'a>> {
        if let Value::Array(v) = *self { Some(v) } else { None }
    }

    /// Reads a number or string from the beginning of `bytes`, which may hold more, and says how many it took.
    /// `None` when they do not suffice.
    pub(super) fn decode(ty: ValueType, bytes: &'a [u8]) -> Option<(Value<'a>, usize)> {
        macro_rules! number {
            ($variant:ident, $t:ty) => {
                (Value::$variant(<$t>::from_le_bytes(*bytes.first_chunk()?)), size_of::<$t>())
            };
        }
        Some(match ty {
            ValueType::U8 => number!(U8, u8),
            ValueType::I8 => number!(I8, i8),
            ValueType::U16 => number!(U16, u16),
            ValueType::I16 => number!(I16, i16),
            ValueType::U32 => number!(U32, u32),
            ValueType::I32 => number!(I32, i32),
            ValueType::F32 => number!(F32, f32),
            ValueType::U64 => number!(U64, u64),
            ValueType::I64 => number!(I64, i64),
            ValueType::F64 => number!(F64, f64),
            ValueType::Bool => (Value::Bool(*bytes.first()? != 0), 1),
            ValueType::Str => {
                let s = decode_str(bytes)?;
                (Value::Str(s), 8 + s.len())
            }
            // Only at the top, where the reader has measured it; an array of arrays is refused.
            ValueType::Array => return None,
        })
    }
}

impl std::fmt::Display for Value<'_> {
    /// Elements and strings as they are (strings cut after 60 characters), arrays by type and length.
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        match self {
            Value::U8(v) => v.fmt(f),
            Value::I8(v) => v.fmt(f),
            Value::U16(v) => v.fmt(f),
            Value::I16(v) => v.fmt(f),
            Value::U32(v) => v.fmt(f),
            Value::I32(v) => v.fmt(f),
            Value::F32(v) => v.fmt(f),
            Value::U64(v) => v.fmt(f),
            Value::I64(v) => v.fmt(f),
            Value::F64(v) => v.fmt(f),
            Value::Bool(v) => v.fmt(f),
            Value::Str(v) => {
                // 60 characters take at most 240 bytes; one more byte tells whether there are more.
                let text = String::from_utf8_lossy(&v[..v.len().min(241)]);
                match text.char_indices().nth(60) {
                    Some((end, _)) => write!(f, "{:?}…", &text[..end]),
                    None => write!(f, "{text:?}"),
                }
            }
            Value::Array(v) => write!(f, "array of {} {}", v.len, v.elem.name()),
        }
    }
}

/// The string that begins at `bytes`: its length in 8 bytes, then as many.
fn decode_str(bytes: &[u8]) -> Option<&[u8]> {
    let len = usize::try_from(u64::from_le_bytes(*bytes.first_chunk()?)).ok()?;
    bytes[8..].get(..len)
}

/// An array in the file: a view, decoded as it is read.
#[derive(Clone, Copy, PartialEq, Debug)]
pub struct Array<'a> {
    pub(super) elem: ValueType,
    pub(super) len: usize,
    pub(super) bytes: &'a [u8],
}

impl<'a> Array<'a> {
    /// The type of its elements.
    pub fn element_type(&self) -> ValueType {
        self.elem
    }

    /// The number of its elements.
    pub fn len(&self) -> usize {
        self.len
    }

    /// Whether it has none.
    pub fn is_empty(&self) -> bool {
        self.len == 0
    }

    /// Its elements as they lie in the file, little-endian (strings each with its length before it).
    pub fn as_bytes(&self) -> &'a [u8] {
        self.bytes
    }

    /// The elements of an array of `T`; `None` when it is of another type.
    ///
    /// `array.elements::<f32>()`: the type is matched exactly, see [`Array::values`] to accept several.
    pub fn elements<T: Scalar>(&self) -> Option<Elements<'a, T>> {
        (self.elem == T::TYPE).then_some(Elements { bytes: self.bytes, _type: std::marker::PhantomData })
    }

    /// The elements of an array of strings, as bytes; `None` when it is of another type.
    pub fn strings(&self) -> Option<Strings<'a>> {
        (self.elem == ValueType::Str).then_some(Strings { bytes: self.bytes, left: self.len })
    }

    /// The elements of an array of any type.
    pub fn values(&self) -> Values<'a> {
        Values { elem: self.elem, bytes: self.bytes, left: self.len }
    }
}

/// A type of fixed size that arrays are made of.
pub trait Scalar: Copy + sealed::Sealed {
    /// Its type in the file.
    const TYPE: ValueType;
    #[doc(hidden)]
    fn from_le(bytes: &[u8]) -> Self;
    #[doc(hidden)]
    fn put_le(self, out: &mut Vec<u8>);
}

mod sealed {
    pub trait Sealed {}
}

macro_rules! scalars {
    ($($t:ty = $ty:ident),*) => {$(
        impl sealed::Sealed for $t {}
        impl Scalar for $t {
            const TYPE: ValueType = ValueType::$ty;
            fn from_le(bytes: &[u8]) -> Self {
                <$t>::from_le_bytes(*bytes.first_chunk().expect("Elements cuts pieces of this size"))
            }
            fn put_le(self, out: &mut Vec<u8>) {
                out.extend_from_slice(&self.to_le_bytes());
            }
        }
        impl From<$t> for Value<'_> {
            fn from(v: $t) -> Self {
                Value::$ty(v)
            }
        }
    )*};
}
scalars!(
    u8 = U8,
    i8 = I8,
    u16 = U16,
    i16 = I16,
    u32 = U32,
    i32 = I32,
    f32 = F32,
    u64 = U64,
    i64 = I64,
    f64 = F64
);

impl sealed::Sealed for bool {}
impl Scalar for bool {
    const TYPE: ValueType = ValueType::Bool;
    fn from_le(bytes: &[u8]) -> Self {
        bytes[0] != 0
    }
    fn put_le(self, out: &mut Vec<u8>) {
        out.push(self.into());
    }
}
impl From<bool> for Value<'_> {
    fn from(v: bool) -> Self {
        Value::Bool(v)
    }
}

impl<'a> From<&'a str> for Value<'a> {
    fn from(v: &'a str) -> Self {
        Value::Str(v.as_bytes())
    }
}

impl<'a> From<Array<'a>> for Value<'a> {
    fn from(v: Array<'a>) -> Self {
        Value::Array(v)
    }
}

/// The elements of an array of numbers or truth values.
#[derive(Clone, Debug)]
pub struct Elements<'a, T> {
    bytes: &'a [u8],
    _type: std::marker::PhantomData<T>,
}

impl<T: Scalar> Iterator for Elements<'_, T> {
    type Item = T;

    fn next(&mut self) -> Option<T> {
        let (head, rest) = self.bytes.split_at_checked(size_of::<T>())?;
        self.bytes = rest;
        Some(T::from_le(head))
    }

    fn size_hint(&self) -> (usize, Option<usize>) {
        let n = self.bytes.len() / size_of::<T>();
        (n, Some(n))
    }
}

impl<T: Scalar> ExactSizeIterator for Elements<'_, T> {}

/// The elements of an array of strings.
///
/// Ends early when another process has overwritten the lengths in a mapped file since it was opened.
#[derive(Clone, Debug)]
pub struct Strings<'a> {
    bytes: &'a [u8],
    left: usize,
}

impl<'a> Iterator for Strings<'a> {
    type Item = &'a [u8];

    fn next(&mut self) -> Option<&'a [u8]> {
        self.left = self.left.checked_sub(1)?;
        let s = decode_str(self.bytes)?;
        self.bytes = &self.bytes[8 + s.len()..];
        Some(s)
    }

    fn size_hint(&self) -> (usize, Option<usize>) {
        (0, Some(self.left))
    }
}

/// The elements of an array of any type. Ends early where [`Strings`] does.
#[derive(Clone, Debug)]
pub struct Values<'a> {
    elem: ValueType,
    bytes: &'a [u8],
    left: usize,
}

impl<'a> Iterator for Values<'a> {
    type Item = Value<'a>;

    fn next(&mut self) -> Option<Value<'a>> {
        self.left = self.left.checked_sub(1)?;
        let (value, used) = Value::decode(self.elem, self.bytes)?;
        self.bytes = &self.bytes[used..];
        Some(value)
    }

    fn size_hint(&self) -> (usize, Option<usize>) {
        (0, Some(self.left))
    }
}

/// One key: where its value lies in the file.
#[derive(Debug)]
pub(super) struct Entry {
    pub(super) key: String,
    pub(super) ty: ValueType,
    /// Offset and length of the value, its length fields included.
    pub(super) offset: usize,
    pub(super) len: usize,
    /// Arrays only, kept so that looking one up does not walk its strings again.
    pub(super) elem: ValueType,
    pub(super) count: usize,
}

/// The metadata of a file: keys in the file's order, values read from it when asked for.
#[derive(Debug)]
pub struct Metadata {
    pub(super) storage: Storage,
    pub(super) entries: Vec<Entry>,
    /// Indices into `entries`, sorted by key.
    pub(super) by_key: Vec<u32>,
}

impl Metadata {
    /// The number of keys.
    pub fn len(&self) -> usize {
        self.entries.len()
    }

    /// Whether there are none.
    pub fn is_empty(&self) -> bool {
        self.entries.is_empty()
    }

    /// Bytes of memory that keys and places take; the values stay in the file.
    pub(super) fn heap_bytes(&self) -> usize {
        self.entries.iter().map(|e| super::name_bytes(&e.key)).sum::<usize>()
            + self.entries.capacity() * size_of::<Entry>()
            + self.by_key.capacity() * size_of::<u32>()
    }

    /// The keys in the file's order.
    pub fn keys(&self) -> impl ExactSizeIterator<Item = &str> {
        self.entries.iter().map(|e| e.key.as_str())
    }

    /// Keys and values in the file's order.
    pub fn iter(&self) -> impl Iterator<Item = (&str, Value<'_>)> {
        self.entries.iter().map(|e| (e.key.as_str(), self.value(e)))
    }

    /// The value of a key, if the file has it.
    pub fn get(&self, key: &str) -> Option<Value<'_>> {
        self.find(key).map(|e| self.value(e))
    }

    /// The value of a key as a `T`, `None` when the file does not have it.
    ///
    /// `T` is an integer (any integer type in the file, if the value fits), `f32` or `f64` (any number), `bool`,
    /// `&str`, `&[u8]` (a string) or [`Array`].
    ///
    /// # Errors
    ///
    /// [`Error::Metadata`] when the value is something else.
    pub fn get_as<'a, T: FromValue<'a>>(&'a self, key: &str) -> Result<Option<T>> {
        let Some(value) = self.get(key) else { return Ok(None) };
        match T::from_value(value) {
            Some(v) => Ok(Some(v)),
            None => Err(self.error(key, T::EXPECTED, format!("{value} ({})", value.value_type().name()))),
        }
    }

    /// The value of a key that must be there.
    ///
    /// # Errors
    ///
    /// [`Error::Metadata`] when it is not, or when its value is not a `T` (see [`Metadata::get_as`]).
    pub fn require<'a, T: FromValue<'a>>(&'a self, key: &str) -> Result<T> {
        self.get_as(key)?.ok_or_else(|| self.error(key, T::EXPECTED, "nothing"))
    }

    /// An [`Error::Metadata`] about a key of this file.
    pub fn error(&self, key: &str, expected: impl Into<String>, found: impl Into<String>) -> Error {
        Error::Metadata {
            file: self.storage.name().to_owned(),
            key: key.to_owned(),
            expected: expected.into(),
            found: found.into(),
        }
    }

    fn find(&self, key: &str) -> Option<&Entry> {
        let i = self.by_key.binary_search_by(|i| self.entries[*i as usize].key.as_str().cmp(key)).ok()?;
        Some(&self.entries[self.by_key[i] as usize])
    }

    fn value(&self, e: &Entry) -> Value<'_> {
        let bytes = &self.storage.as_slice()[e.offset..e.offset + e.len];
        match e.ty {
            ValueType::Array => Value::Array(Array { elem: e.elem, len: e.count, bytes: &bytes[12..] }),
            ValueType::Str => Value::Str(&bytes[8..]),
            ty => Value::decode(ty, bytes).expect("the reader measured the value").0,
        }
    }
}

/// What [`Metadata::get_as`] can read a value as.
pub trait FromValue<'a>: Sized {
    /// What an error message calls it.
    const EXPECTED: &'static str;
    /// The value as this type, if it can be had without loss.
    fn from_value(value: Value<'a>) -> Option<Self>;
}

macro_rules! from_value {
    ($($t:ty, $expected:literal, $value:ident => $read:expr;)*) => {$(
        impl<'a> FromValue<'a> for $t {
            const EXPECTED: &'static str = $expected;
            fn from_value($value: Value<'a>) -> Option<Self> {
                $read
            }
        }
    )*};
}
from_value! {
    u16, "an integer from 0 to 65535", v => v.as_u64()?.try_into().ok();
    u32, "an integer from 0 to 4294967295", v => v.as_u64()?.try_into().ok();
    i32, "an integer of 32 bits", v => v.as_i64()?.try_into().ok();
    u64, "an integer that is not negative", v => v.as_u64();
    usize, "an integer that is not negative", v => v.as_u64()?.try_into().ok();
    i64, "an integer", v => v.as_i64();
    f32, "a number", v => Some(v.as_f64()? as f32);
    f64, "a number", v => v.as_f64();
    bool, "true or false", v => v.as_bool();
    &'a str, "a UTF-8 string", v => v.as_str();
    &'a [u8], "a string", v => v.as_bytes();
    Array<'a>, "an array", v => v.as_array();
}
