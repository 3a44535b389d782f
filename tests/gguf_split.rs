//! Models split into parts, of which some are missing or do not belong: each its own error.

mod raw_gguf;

use std::path::{Path, PathBuf};

use carat::gguf::Gguf;
use carat::{CancelToken, Error, Storage};
use raw_gguf::{Raw, parse};

fn data(name: &str) -> PathBuf {
    Path::new(env!("CARGO_MANIFEST_DIR")).join("tests/data").join(name)
}

/// The golden split model in a directory of its own.
fn split() -> (tempfile::TempDir, [PathBuf; 3]) {
    let dir = tempfile::tempdir().unwrap();
    let paths = [1, 2, 3].map(|i| {
        let name = format!("split-0000{i}-of-00003.gguf");
        std::fs::copy(data(&name), dir.path().join(&name)).unwrap();
        dir.path().join(name)
    });
    assert_eq!(Gguf::open(&paths[0]).unwrap().tensors().len(), 5);
    (dir, paths)
}

#[test]
fn a_part_missing() {
    for missing in [1, 2] {
        let (_dir, paths) = split();
        std::fs::remove_file(&paths[missing]).unwrap();
        refused!(
            Gguf::open(&paths[0]),
            Error::SplitMissing { count: 3, .. },
            paths[0].display(),
            format!("part {} of 3", missing + 1),
            paths[missing].display()
        );
    }
    // Opened by the caller, who gives too few, or too many.
    let (_dir, paths) = split();
    let open = |which: &[usize]| {
        let parts = which.iter().map(|i| Storage::open(&paths[*i]).unwrap()).collect();
        Gguf::from_parts(parts, &CancelToken::new())
    };
    refused!(open(&[0, 1]), Error::SplitMissing { part: 3, count: 3, .. }, "part 3 of 3", "the parts given");
    refused!(open(&[0, 1, 2, 2]), Error::InvalidOption { option: "parts", .. }, "3, as", "found 4");
    refused!(open(&[]), Error::InvalidOption { option: "parts", .. }, "at least one", "found 0");
    refused!(open(&[0, 2, 1]), Error::Metadata { .. }, "split.no", "1 in part 2 of 3", "found 2");
}

#[test]
fn not_the_first_part() {
    let (_dir, paths) = split();
    refused!(
        Gguf::open(&paths[1]),
        Error::Metadata { .. },
        "00002-of-00003",
        "split.no",
        "the first of the 3",
        "found 1"
    );
}

#[test]
fn a_first_part_renamed() {
    let (dir, paths) = split();
    let renamed = dir.path().join("model.gguf");
    std::fs::rename(&paths[0], &renamed).unwrap();
    refused!(
        Gguf::open(&renamed),
        Error::SplitMissing { part: 2, count: 3, .. },
        "model.gguf",
        "-00001-of-00003.gguf"
    );
}

#[test]
fn parts_that_do_not_belong_together() {
    let (_dir, paths) = split();
    // The first part twice: as the second it says that it is the first.
    std::fs::copy(&paths[0], &paths[1]).unwrap();
    refused!(
        Gguf::open(&paths[0]),
        Error::Metadata { .. },
        "00002-of-00003",
        "split.no",
        "1 in part 2 of 3",
        "found 0"
    );
    // A file that is not split.
    std::fs::copy(data("quants.gguf"), &paths[1]).unwrap();
    refused!(Gguf::open(&paths[0]), Error::Metadata { .. }, "00002-of-00003", "split.no", "nothing");
    // Cut short.
    let bytes = std::fs::read(data("split-00002-of-00003.gguf")).unwrap();
    std::fs::write(&paths[1], &bytes[..bytes.len() - 64]).unwrap();
    refused!(
        Gguf::open(&paths[0]),
        Error::Tensor { what: "data", .. },
        "00002-of-00003",
        "before the end of the file"
    );
    // A directory in its place.
    std::fs::remove_file(&paths[1]).unwrap();
    std::fs::create_dir(&paths[1]).unwrap();
    refused!(Gguf::open(&paths[0]), Error::Io { .. }, "00002-of-00003", "directory");
}

/// Parts written here, each with tensors of the given names.
fn split_of(total: u64, parts: &[&[&str]]) -> Result<Gguf, Error> {
    let storages = parts.iter().enumerate().map(|(i, names)| {
        let mut raw = Raw::header(3, names.len() as u64, 3)
            .key("split.no", 2, &(i as u16).to_le_bytes())
            .key("split.count", 2, &(parts.len() as u16).to_le_bytes())
            .key("split.tensors.count", 5, &(total as u32).to_le_bytes());
        for (j, name) in names.iter().enumerate() {
            raw = raw.tensor(name, &[8], 0, 32 * j as u64);
        }
        Storage::from_bytes(raw.pad(32).raw(&vec![0; 32 * names.len()]).bytes).with_name(format!("part{i}"))
    });
    Gguf::from_parts(storages.collect(), &CancelToken::new())
}

#[test]
fn tensors_counted_and_named_across_parts() {
    assert_eq!(split_of(3, &[&["a", "b"], &["c"]]).unwrap().tensors().len(), 3);
    refused!(
        split_of(4, &[&["a", "b"], &["c"]]),
        Error::Metadata { .. },
        "part0",
        "split.tensors.count",
        "3",
        "found 4"
    );
    refused!(
        split_of(3, &[&["a", "b"], &["a"]]),
        Error::Tensor { what: "name", .. },
        "tensor a",
        "of part0",
        "of part1"
    );
    let raw = Raw::header(3, 0, 1).key("split.count", 4, &u32::MAX.to_le_bytes());
    refused!(parse(&raw.bytes), Error::Metadata { .. }, "split.count", "at most 99999", u32::MAX);
    let raw = Raw::header(3, 0, 1).key("split.count", 4, &2u32.to_le_bytes());
    refused!(parse(&raw.bytes), Error::Metadata { .. }, "split.no", "nothing");
}

#[test]
fn cancelled_between_two_parts() {
    // Between two parts.
    let (_dir, paths) = split();
    let cancel = CancelToken::new();
    let mut opened = 0;
    let result = Gguf::open_with(&paths[0], &cancel, &mut |path| {
        opened += 1;
        if opened == 2 {
            cancel.cancel();
        }
        Storage::open(path)
    });
    refused!(result, Error::Cancelled, "cancelled");
    assert_eq!(opened, 2);
}
