//! Typed and bounded reading of the keys under `{arch}.`.

use std::fmt::Display;
use std::ops::RangeInclusive;

use super::config::Arch;
use crate::gguf::Gguf;
use crate::{Error, Result};

/// The metadata of a file of a known architecture.
pub(crate) struct Metadata<'a> {
    gguf: &'a Gguf,
    arch: Arch,
}

impl<'a> Metadata<'a> {
    /// Refuses what this library does not run.
    pub(crate) fn new(gguf: &'a Gguf) -> Result<Self> {
        let unsupported = |what: String| Error::Unsupported {
            file: gguf.name().to_string(),
            what,
            supported: "the text models gemma, gemma2, gemma3".into(),
        };
        let key = "general.architecture";
        let value = gguf.metadata().get(key);
        let name = value.and_then(|v| v.as_str());
        // Some of these name the architecture of the model that they belong to.
        let ty = gguf.metadata().get("general.type").and_then(|v| v.as_str());
        let other = match (ty, name) {
            (Some("mmproj"), _) | (_, Some("clip")) => Some("a vision projector"),
            (Some("adapter"), _) => Some("an adapter (LoRA)"),
            (Some("imatrix"), _) => Some("an importance matrix"),
            _ => None,
        };
        if let Some(other) = other {
            let name = value.map_or(String::new(), |name| format!(" (architecture {name})"));
            return Err(unsupported(format!("{other}{name}")));
        }
        let (Some(name), Some(value)) = (name, value) else {
            return Err(Error::Metadata {
                file: gguf.name().to_string(),
                key: key.into(),
                expected: "the name of an architecture".into(),
                found: value.map_or("nothing".into(), |v| v.to_string()),
            });
        };
        let known = [Arch::Gemma, Arch::Gemma2, Arch::Gemma3];
        let Some(arch) = known.into_iter().find(|a| a.name() == name) else {
            // As a value, which is quoted, and cut when it is long.
            return Err(unsupported(format!("architecture {value}")));
        };
        Ok(Metadata { gguf, arch })
    }

    pub(crate) fn arch(&self) -> Arch {
        self.arch
    }

    fn key(&self, key: &str) -> String {
        format!("{}.{key}", self.arch.name())
    }

    /// The error of a key whose value is `found`.
    pub(crate) fn bad(&self, key: &str, expected: &str, found: impl Display) -> Error {
        Error::Metadata {
            file: self.gguf.name().to_string(),
            key: self.key(key),
            expected: expected.to_string(),
            found: found.to_string(),
        }
    }

    /// The error of a key that is not there.
    pub(crate) fn missing(&self, key: &str, expected: &str) -> Error {
        self.bad(key, expected, "nothing")
    }

    /// A count within a range.
    pub(crate) fn size(&self, key: &str, range: RangeInclusive<u64>) -> Result<usize> {
        let expected = format!("a number from {} to {}", range.start(), range.end());
        self.optional_size(key, range)?.ok_or_else(|| self.missing(key, &expected))
    }

    /// A count within a range, where the key is there.
    pub(crate) fn optional_size(&self, key: &str, range: RangeInclusive<u64>) -> Result<Option<usize>> {
        let Some(value) = self.gguf.metadata().get(&self.key(key)) else { return Ok(None) };
        match value.as_u64() {
            Some(n) if range.contains(&n) => Ok(Some(n as usize)),
            _ => {
                let expected = format!("a number from {} to {}", range.start(), range.end());
                Err(self.bad(key, &expected, value))
            }
        }
    }

    /// A width of rows: they are processed in blocks of 32.
    pub(crate) fn width(&self, key: &str, max: u64) -> Result<usize> {
        let n = self.size(key, 1..=max)?;
        if n.is_multiple_of(32) { Ok(n) } else { Err(self.bad(key, "a multiple of 32", n)) }
    }

    /// The first of `keys` that is there, and its finite number.
    pub(crate) fn float<'k>(&self, keys: &[&'k str]) -> Result<Option<(&'k str, f32)>> {
        for &key in keys {
            if let Some(value) = self.gguf.metadata().get(&self.key(key)) {
                return match value.as_f64().map(|v| v as f32) {
                    Some(v) if v.is_finite() => Ok(Some((key, v))),
                    _ => Err(self.bad(key, "a finite number", value)),
                };
            }
        }
        Ok(None)
    }

    /// A positive number under the first of `keys` that is there, else `default`.
    pub(crate) fn positive(&self, keys: &[&str], default: f32) -> Result<f32> {
        match self.float(keys)? {
            None => Ok(default),
            Some((_, v)) if v > 0.0 => Ok(v),
            Some((key, v)) => Err(self.bad(key, "a positive number", v)),
        }
    }

    /// A text, where the key is there.
    pub(crate) fn text(&self, key: &str) -> Result<Option<&'a str>> {
        match self.gguf.metadata().get(&self.key(key)) {
            None => Ok(None),
            Some(value) => value.as_str().map(Some).ok_or_else(|| self.bad(key, "a text", value)),
        }
    }

    /// Which layers are windowed: an array says it outright; a number n (or `default`) means all but each n-th.
    pub(crate) fn window_pattern(&self, n_layers: usize, default: usize) -> Result<Vec<bool>> {
        let key = "attention.sliding_window_pattern";
        if let Some(value) = self.gguf.metadata().get(&self.key(key))
            && let Some(array) = value.as_array()
        {
            let Some(flags) = array.elements::<bool>() else {
                return Err(self.bad(key, "an array of bool, or a number", value));
            };
            let pattern: Vec<bool> = flags.collect();
            if pattern.len() != n_layers {
                let expected = format!("{n_layers} values, one for each layer");
                return Err(self.bad(key, &expected, pattern.len()));
            }
            return Ok(pattern);
        }
        let n = self.optional_size(key, 1..=1024)?.unwrap_or(default);
        Ok((0..n_layers).map(|l| l % n < n - 1).collect())
    }
}
