//! Models split into several files by llama.cpp: `NAME-00001-of-00004.gguf` and so on. The first part has the
//! metadata; each has tensors of its own, and says which part it is.

use std::path::{Path, PathBuf};

use super::{Metadata, reader};
use crate::{CancelToken, Error, Result, Storage};

const NO: &str = "split.no";
const COUNT: &str = "split.count";
const TENSORS: &str = "split.tensors.count";
/// File names have five digits.
const MAX_PARTS: usize = 99999;

/// How many parts a model has whose first file this is: 1 when it is not split.
///
/// # Errors
///
/// [`Error::Metadata`] when it is not the first.
pub(super) fn count(first: &Metadata) -> Result<usize> {
    let count = match first.get_as::<usize>(COUNT)? {
        None | Some(0) => 1,
        Some(n) if n <= MAX_PARTS => n,
        Some(n) => return Err(first.error(COUNT, format!("at most {MAX_PARTS}"), n.to_string())),
    };
    if count > 1 {
        let no: usize = first.require(NO)?;
        if no != 0 {
            let expected = format!("0: the first of the {count} parts is the one to open");
            return Err(first.error(NO, expected, no.to_string()));
        }
    }
    Ok(count)
}

/// Where part `part` (from 0) of a model lies, given the path of the first.
///
/// # Errors
///
/// [`Error::SplitMissing`] when the first is not named as llama.cpp names parts.
pub(super) fn path(first: &Path, part: usize, count: usize) -> Result<PathBuf> {
    let stem = first
        .file_name()
        .and_then(|name| name.to_str())
        .and_then(|name| name.strip_suffix(&format!("-00001-of-{count:05}.gguf")));
    match stem {
        Some(stem) => Ok(first.with_file_name(format!("{stem}-{:05}-of-{count:05}.gguf", part + 1))),
        None => Err(Error::SplitMissing {
            file: first.display().to_string(),
            part: part + 1,
            count,
            looked_for: format!("a first part named …-00001-of-{count:05}.gguf").into(),
        }),
    }
}

/// Bytes of all parts of a model, by the name of the first and before any is read; 0 when one is not there.
pub(crate) fn parts_len(first: &Path) -> u64 {
    let name = first.file_name().and_then(|name| name.to_str()).and_then(|name| name.strip_suffix(".gguf"));
    let count = name
        .and_then(|name| name.rsplit_once("-00001-of-"))
        .filter(|(_, count)| count.len() == 5)
        .and_then(|(_, count)| count.parse().ok())
        .unwrap_or(1);
    let len = |part| {
        let path = if part == 0 { first.to_owned() } else { path(first, part, count).ok()? };
        Some(std::fs::metadata(path).ok()?.len())
    };
    (0..count).map(len).sum::<Option<u64>>().unwrap_or(0)
}

/// Reads a part after the first and checks that it belongs there.
pub(super) fn read(
    storage: &Storage,
    part: usize,
    count: usize,
    cancel: &CancelToken,
) -> Result<reader::Part> {
    let read = reader::read(storage, cancel)?;
    for (key, expected) in [(NO, part), (COUNT, count)] {
        let found: usize = read.metadata.require(key)?;
        if found != expected {
            let expected = format!("{expected} in part {} of {count}", part + 1);
            return Err(read.metadata.error(key, expected, found.to_string()));
        }
    }
    Ok(read)
}

/// Checks that the parts together have as many tensors as the first says.
pub(super) fn check_total(first: &Metadata, tensors: usize) -> Result<()> {
    match first.get_as::<usize>(TENSORS)? {
        Some(n) if n != tensors => {
            Err(first.error(TENSORS, format!("{tensors}, as the parts have together"), n.to_string()))
        }
        _ => Ok(()),
    }
}
