//! The GGUF reader on files that are not in order: each is refused with an error of its own, which says where and
//! what, and none brings the process down.

mod raw_gguf;

use std::path::{Path, PathBuf};

use carat::gguf::Gguf;
use carat::{CancelToken, Error, ErrorKind, Storage};
use raw_gguf::{Random, Raw, parse, walk};

fn data(name: &str) -> PathBuf {
    Path::new(env!("CARGO_MANIFEST_DIR")).join("tests/data").join(name)
}

#[test]
fn the_sample_is_sound() {
    assert!(walk(&parse(&Raw::sample().bytes).unwrap()) > 0);
}

#[test]
fn files_of_other_kinds_are_named() {
    let mut safetensors = 64u64.to_le_bytes().to_vec();
    safetensors.extend_from_slice(br#"{"a":{"dtype":"F32","shape":[1],"data_offsets":[0,4]}}"#);
    let cases: [(&[u8], &str); 14] = [
        (b"", "an empty file"),
        (b"PK\x03\x04rest", "a zip archive"),
        (b"\x1f\x8b\x08\x00", "a gzip archive"),
        (b"\x80\x02}q\x00", "a Python pickle"),
        (&safetensors, "a safetensors file"),
        (b"version https://git-lfs.github.com/spec/v1\noid sha256:00\n", "a Git LFS pointer"),
        (b"\n <!DOCTYPE html><html>", "a web page"),
        (b"<html><body>404", "a web page"),
        (b"{\"error\": \"gated\"}", "a JSON file"),
        (b"tjgg\x03\x00\x00\x00", "a GGML file from before GGUF"),
        (b"\x1c\x00\x00\x00TFL3", "a TensorFlow Lite model"),
        (b"\x0a\x0e\x0a\x05<pad>\x15\x00\x00\x00\x00\x18\x03", "a SentencePiece model"),
        (&[0; 64], "zeros"),
        (b"\xde\xad\xbe\xef rest", "bytes de ad be ef"),
    ];
    for (bytes, what) in cases {
        refused!(parse(bytes), Error::Format { offset: 0, .. }, "bad.gguf", "magic", "\"GGUF\"", what);
    }
    refused!(parse(b"x"), Error::Format { offset: 0, .. }, "bytes 78 and the end of the file");
}

#[test]
fn only_versions_2_and_3() {
    for version in [0, 1, 4, 77] {
        let bytes = Raw::header(version, 0, 0).bytes;
        refused!(
            parse(&bytes),
            Error::Unsupported { .. },
            "bad.gguf",
            format!("GGUF version {version} "),
            "2 and 3"
        );
    }
    assert!(parse(&Raw::header(2, 0, 0).bytes).is_ok());
    assert!(parse(&Raw::header(3, 0, 0).bytes).is_ok());
}

#[test]
fn big_endian() {
    // Made by the reference writer.
    refused!(
        Gguf::open(data("big-endian.gguf")),
        Error::Unsupported { .. },
        "big-endian.gguf",
        "a big-endian GGUF file (version 3",
        "little-endian"
    );
}

/// Whether a message tells where the file ends: one cut at `n` bytes.
fn assert_cut(result: Result<Gguf, Error>, n: usize) {
    let error = result.map(|_| ()).expect_err("a cut file was accepted");
    assert!(
        matches!(error, Error::Format { .. } | Error::Tensor { what: "data", .. }),
        "cut at {n}: {error:?}"
    );
    assert_eq!(error.kind(), ErrorKind::File);
    let message = error.to_string();
    let end = if n == 0 { "an empty file".into() } else { format!("of the file at {n}") };
    let counted = format!("(the file ends at byte {n})");
    assert!(message.contains(&end) || message.contains(&counted), "cut at {n}: {message}");
}

#[test]
fn truncated_at_every_byte() {
    let Raw { bytes, fields } = Raw::sample();
    assert!(fields.len() > 80);
    for n in 0..bytes.len() {
        assert_cut(parse(&bytes[..n]), n);
    }
    // The same of a mapped file, at the boundaries of its fields.
    let dir = tempfile::tempdir().unwrap();
    let path = dir.path().join("cut.gguf");
    for n in fields {
        std::fs::write(&path, &bytes[..n]).unwrap();
        assert_cut(Gguf::open(&path), n);
    }
}

#[test]
fn a_model_truncated_anywhere() {
    let bytes = std::fs::read(data("tiny-gemma3.gguf")).unwrap();
    let whole = parse(&bytes).unwrap();
    let last = whole.tensors().iter().max_by_key(|t| t.offset()).unwrap();
    let end = last.offset() as usize + last.data().len();
    let mut random = Random(1);
    let mut places: Vec<usize> = (0..64).map(|_| random.below(end)).collect();
    // Where each tensor begins, and in the middle of it.
    places.extend(
        whole.tensors().iter().flat_map(|t| [t.offset() as usize, t.offset() as usize + t.data().len() / 2]),
    );
    places.push(end - 1);
    for n in places {
        assert_cut(parse(&bytes[..n]), n);
    }
    assert!(parse(&bytes[..end]).is_ok());
}

#[test]
fn counts_and_lengths_that_overflow() {
    const HUGE: [u64; 5] = [1 << 20, 1 << 32, 1 << 61, u64::MAX - 7, u64::MAX];
    for n in HUGE {
        // 24 bytes of header and 96 more, for which 4 tensors (24) or 7 keys (13) are the most.
        let bytes = Raw::header(3, n, 0).raw(&[0; 96]).bytes;
        refused!(parse(&bytes), Error::Format { offset: 8, .. }, "number of tensors", "at most 4", n, "120");
        let bytes = Raw::header(3, 0, n).raw(&[0; 96]).bytes;
        refused!(parse(&bytes), Error::Format { offset: 16, .. }, "metadata keys", "at most 7", n, "120");

        // A key, a string, and an element of an array.
        let bytes = Raw::header(3, 0, 1).u64(n).raw(&[0; 96]).bytes;
        refused!(parse(&bytes), Error::Format { offset: 24, .. }, "length of metadata key 0", "65535", n);
        let bytes = Raw::header(3, 0, 1).str("s").u32(8).u64(n).raw(&[0; 96]).bytes;
        refused!(parse(&bytes), Error::Format { offset: 45, .. }, "value of s", n, "96 before the end");
        let bytes = Raw::header(3, 0, 1).str("s").u32(9).u32(8).u64(2).str("x").u64(n).raw(&[0; 96]).bytes;
        refused!(parse(&bytes), Error::Format { offset: 66, .. }, "element 1 of s", n, "96 before the end");

        // An array of each type of element: 96 bytes for elements of 1, 2, 4 or 8, strings taking 8 at least.
        for (elem, size) in [1, 1, 2, 2, 4, 4, 4, 1, 8, 0, 8, 8, 8].into_iter().enumerate() {
            if size > 0 {
                let bytes = Raw::header(3, 0, 1).array("a", elem as u32, n, &[0; 96]).bytes;
                let most = format!("at most {}", 96 / size);
                refused!(parse(&bytes), Error::Format { offset: 41, .. }, "length of a", most, n);
            }
        }

        // A tensor's name, and its sizes.
        let bytes = Raw::header(3, 1, 0).u64(n).raw(&[0; 96]).bytes;
        refused!(parse(&bytes), Error::Format { offset: 24, .. }, "length of name of tensor 0", "65535", n);
        let bytes = Raw::header(3, 1, 0).tensor("t", &[32, n], 0, 0).pad(32).raw(&[0; 96]).bytes;
        if n > i64::MAX as u64 {
            refused!(parse(&bytes), Error::Format { offset: 45, .. }, "dimension 1 of tensor t", n);
        } else {
            refused!(parse(&bytes), Error::Tensor { offset: 96, .. }, "tensor t", n);
        }
    }
    // Products that wrap to something small.
    for dims in [[1u64 << 32, 1 << 32, 1, 1], [32, 1 << 31, 1 << 31, 4], [1 << 40, 1 << 24, 1, 1]] {
        let bytes = Raw::header(3, 1, 0).tensor("t", &dims, 0, 0).pad(32).raw(&[0; 96]).bytes;
        refused!(
            parse(&bytes),
            Error::Tensor { what: "size", .. },
            "tensor t",
            format!("{dims:?}"),
            "addressed"
        );
    }
    // Elements that fit, bytes that do not.
    let bytes = Raw::header(3, 1, 0).tensor("t", &[1 << 62], 0, 0).pad(32).raw(&[0; 96]).bytes;
    refused!(parse(&bytes), Error::Tensor { what: "size", .. }, "[4611686018427387904] F32");
}

#[test]
fn values_that_the_format_does_not_know() {
    let bytes = Raw::header(3, 0, 1).key("k", 13, &[0; 8]).bytes;
    refused!(parse(&bytes), Error::Format { offset: 33, .. }, "type of k", "0 to 12", "13");
    let bytes = Raw::header(3, 0, 1).array("k", 255, 1, &[0; 8]).bytes;
    refused!(parse(&bytes), Error::Format { offset: 37, .. }, "element type of k", "255");
    let bytes = Raw::header(3, 0, 1).array("k", 9, 1, &[0; 32]).bytes;
    refused!(
        parse(&bytes),
        Error::Unsupported { .. },
        "an array of arrays (metadata k, at byte 37)",
        "strings"
    );
    let bytes = Raw::header(3, 0, 1).key("k", 7, &[2]).bytes;
    refused!(parse(&bytes), Error::Format { offset: 37, .. }, "value of k", "0 or 1", "found 2");
    let bytes = Raw::header(3, 0, 1).array("k", 7, 3, &[1, 0, 9]).bytes;
    refused!(parse(&bytes), Error::Format { offset: 51, .. }, "elements of k", "0 or 1", "found 9");
    let bytes = Raw::header(3, 0, 1).u64(3).raw(b"a\xffb").u32(0).raw(&[0]).bytes;
    refused!(parse(&bytes), Error::Format { offset: 33, .. }, "metadata key 0", "UTF-8", "0xff");
    let bytes = Raw::header(3, 1, 0).u64(3).raw(b"ab\xc3").u32(1).u64(1).u32(0).u64(0).bytes;
    refused!(parse(&bytes), Error::Format { offset: 34, .. }, "name of tensor 0", "UTF-8", "0xc3");
    // A string need not be UTF-8 until it is asked for as text.
    let gguf = parse(&Raw::header(3, 0, 1).str("s").u32(8).u64(2).raw(b"\xff!").bytes).unwrap();
    assert_eq!(gguf.metadata().require::<&[u8]>("s").unwrap(), b"\xff!");
    refused!(gguf.metadata().require::<&str>("s"), Error::Metadata { .. }, "a UTF-8 string", "string");
}

#[test]
fn duplicate_keys() {
    let bytes = Raw::header(3, 0, 3).key("k", 0, &[1]).key("j", 0, &[1]).key("k", 0, &[1]).bytes;
    refused!(
        parse(&bytes),
        Error::Metadata { .. },
        "bad.gguf",
        "metadata k",
        "one value",
        "two, at bytes 37 and 65"
    );
}

#[test]
fn duplicate_tensor_names() {
    let two = |a, b| {
        let raw = Raw::header(3, 2, 0).tensor("t", &[8], a, 0).tensor("t", &[8], b, 32).pad(32).raw(&[0; 64]);
        parse(&raw.bytes)
    };
    // Both supported, neither, and one of each.
    for (a, b) in [(0, 0), (77, 77), (0, 77), (77, 0)] {
        refused!(
            two(a, b),
            Error::Tensor { what: "name", .. },
            "tensor t",
            "one tensor of this name",
            "byte 24",
            "byte 57"
        );
    }
}

#[test]
fn unknown_types_are_refused_when_asked_for() {
    for (ty, name) in [
        (16, "IQ2_XXS"),
        (34, "TQ1_0"),
        (39, "MXFP4"),
        (31, "unknown"),
        (4, "unknown"),
        (u32::MAX, "unknown"),
    ] {
        let raw = Raw::header(3, 2, 0)
            .tensor("odd", &[256], ty, 0)
            .tensor("even", &[8], 0, 96)
            .pad(32)
            .raw(&[0; 128]);
        let gguf = parse(&raw.bytes).unwrap();
        let facts = format!("type {ty} ({name}");
        refused!(
            gguf.tensor("odd"),
            Error::Unsupported { .. },
            "bad.gguf",
            facts,
            "tensor odd",
            "byte 24",
            "F32, F16",
            "IQ4_XS, BF16"
        );
        assert_eq!(gguf.tensor("even").unwrap().unwrap().data(), [0; 32]);
        assert!(gguf.tensor("none").unwrap().is_none());
    }
}

#[test]
fn tensors_where_they_cannot_be() {
    let at = |dims: &[u64], ty, offset| {
        let raw = Raw::header(3, 2, 0)
            .tensor("first", &[8], 0, 0)
            .tensor("t", dims, ty, offset)
            .pad(32)
            .raw(&[0; 128]);
        assert!(dims.len() > 1 || raw.bytes.len() == 96 + 128);
        parse(&raw.bytes)
    };
    assert!(at(&[8], 0, 96).is_ok());
    // Outside the file: by a byte, by far, and so that the end wraps.
    refused!(
        at(&[9], 0, 96),
        Error::Tensor { what: "data", offset: 192, .. },
        "36 bytes",
        "[9] F32",
        "32 before",
        "at 224"
    );
    refused!(
        at(&[8], 0, 128),
        Error::Tensor { what: "data", offset: 224, .. },
        "32 bytes",
        "0 before",
        "at 224"
    );
    refused!(at(&[8], 0, 1 << 40), Error::Tensor { what: "data", .. }, "tensor t", "0 before the end");
    for offset in [u64::MAX - 31, u64::MAX - 127, 1 << 63] {
        refused!(at(&[8], 0, offset), Error::Tensor { what: "data", .. }, "tensor t", "0 before the end");
    }
    // Misaligned.
    for offset in [1, 16, 33, 95] {
        refused!(
            at(&[8], 0, offset),
            Error::Tensor { what: "offset", .. },
            "tensor t",
            "a multiple of 32",
            "byte 96",
            offset
        );
    }
    // Overlapping: the same place, and the middle of a longer one.
    refused!(
        at(&[8], 0, 0),
        Error::Tensor { what: "place", offset: 96, .. },
        "after the end of",
        "byte 128",
        "overlap of 32"
    );
    let raw =
        Raw::header(3, 2, 0).tensor("long", &[24], 0, 0).tensor("t", &[8], 0, 32).pad(32).raw(&[0; 128]);
    refused!(
        parse(&raw.bytes),
        Error::Tensor { what: "place", offset: 128, .. },
        "tensor t",
        "long",
        "byte 192",
        "overlap of 64"
    );
    // Rows that are no whole number of blocks.
    refused!(
        at(&[33], 2, 32),
        Error::Tensor { what: "row length", .. },
        "a multiple of 32, the block of Q4_0",
        "33"
    );
    refused!(
        at(&[640], 12, 32),
        Error::Tensor { what: "row length", .. },
        "a multiple of 256",
        "Q4_K",
        "640"
    );
    // Dimensions.
    refused!(at(&[8, 0], 0, 32), Error::Format { .. }, "dimension 1 of tensor t", "1 to", "found 0");
    let bytes = Raw::header(3, 1, 0).tensor("t", &[1, 1, 1, 1, 1], 0, 0).pad(32).raw(&[0; 32]).bytes;
    refused!(
        parse(&bytes),
        Error::Format { offset: 33, .. },
        "number of dimensions of tensor t",
        "at most 4",
        "5"
    );
    // No dimension: one value.
    assert_eq!(at(&[], 0, 32).unwrap().tensor("t").unwrap().unwrap().dims(), [1]);
}

#[test]
fn alignment() {
    let with = |alignment: u32, offset: u64| {
        let raw = Raw::header(3, 1, 1).key("general.alignment", 4, &alignment.to_le_bytes());
        parse(&raw.tensor("t", &[8], 0, offset).pad(alignment.clamp(8, 4096) as usize).raw(&[0; 8192]).bytes)
    };
    for good in [8, 16, 32, 64, 4096] {
        let gguf = with(good, good.into()).unwrap();
        assert_eq!(gguf.tensors()[0].offset(), 90u64.next_multiple_of(good.into()) + u64::from(good));
    }
    for bad in [0, 1, 4, 12, 24, 33, 100, 1 << 21, 1 << 31, u32::MAX] {
        refused!(with(bad, 0), Error::Metadata { .. }, "general.alignment", "a power of two from 8", bad);
    }
    refused!(with(64, 32), Error::Tensor { what: "offset", .. }, "a multiple of 64", "found 32");
    let bytes = Raw::header(3, 0, 1).key("general.alignment", 8, &[0; 8]).bytes;
    refused!(parse(&bytes), Error::Metadata { .. }, "general.alignment", "(string)");
}

#[test]
fn cancelled_before() {
    let cancel = CancelToken::new();
    cancel.cancel();
    let storage = Storage::from_bytes(Raw::sample().bytes);
    refused!(Gguf::from_parts(vec![storage], &cancel), Error::Cancelled, "cancelled");
}

#[test]
fn damaged_files_are_refused_or_read_never_worse() {
    let sample = Raw::sample();
    let mut random = Random(3);
    let (mut refused, mut read) = (0, 0);
    for _ in 0..20_000 {
        let mut bytes = sample.bytes.clone();
        for _ in 0..1 + random.below(3) {
            let place = if random.below(2) == 0 {
                sample.fields[random.below(sample.fields.len())]
            } else {
                random.below(bytes.len())
            };
            let place = place.min(bytes.len() - 1);
            match random.below(4) {
                0 => bytes[place] = random.next() as u8,
                1 => bytes[place] ^= 1 << random.below(8),
                2 => bytes.truncate(place + random.below(bytes.len() - place)),
                _ => {
                    const EDGES: [u64; 8] =
                        [0, 1, 31, 1 << 31, u32::MAX as u64, 1 << 63, u64::MAX - 7, u64::MAX];
                    let edge = EDGES[random.below(8)].to_le_bytes();
                    let n = edge.len().min(bytes.len() - place);
                    bytes[place..place + n].copy_from_slice(&edge[..n]);
                }
            }
            if bytes.is_empty() {
                break;
            }
        }
        match parse(&bytes) {
            Ok(gguf) => {
                walk(&gguf);
                read += 1;
            }
            Err(e) => {
                assert_eq!(e.kind(), ErrorKind::File, "{e:?}");
                refused += 1;
            }
        }
    }
    // Both happen, else the damage proves nothing.
    assert!(refused > 5000 && read > 1000, "{refused} refused, {read} read");
}

#[test]
fn random_bytes_after_a_good_beginning() {
    let mut random = Random(4);
    for round in 0..5000 {
        let mut bytes = Raw::header(2 + round % 2, random.below(4) as u64, random.below(4) as u64).bytes;
        // Small numbers mostly, so that lengths and types are often possible.
        for _ in 0..random.below(300) {
            let n = random.next();
            bytes.push(match n % 4 {
                0 => (n >> 8) as u8,
                1 => (n >> 8) as u8 % 13,
                _ => 0,
            });
        }
        if let Ok(gguf) = parse(&bytes) {
            walk(&gguf);
        }
    }
}
