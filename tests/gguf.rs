//! The GGUF reader and writer on sound files. `gguf-facts.json` is what the reference reader (ggml's own Python
//! package) says of the files beside it; the split files are its writer's.

mod common;
mod raw_gguf;

use carat::gguf::{Builder, Gguf, Value, ValueType};
use carat::{CancelToken, DType, Error, Storage};
use common::data;
use raw_gguf::{Raw, parse};
use serde_json::Value as Json;

fn facts() -> Json {
    serde_json::from_str(&std::fs::read_to_string(data("gguf-facts.json")).unwrap()).unwrap()
}

/// A value beside what the reference reader calls it and its content.
fn assert_value(key: &str, value: Value, types: &Json, content: &Json) {
    let name = |t: ValueType| if t == ValueType::Bool { "BOOL".into() } else { t.name().to_uppercase() };
    assert_eq!(types[0], name(value.value_type()), "{key}");
    match value {
        Value::Array(array) => {
            assert_eq!(types[1], name(array.element_type()), "{key}");
            let content = content.as_array().unwrap();
            // Of a long array there are the first four and the last four.
            let all: Vec<Value> = array.values().collect();
            assert_eq!(all.len(), array.len(), "{key}");
            let picked: Vec<Value> =
                if all.len() > 8 { [&all[..4], &all[all.len() - 4..]].concat() } else { all };
            assert_eq!(picked.len(), content.len(), "{key}");
            for (value, content) in picked.into_iter().zip(content) {
                assert_value(key, value, &Json::Array(vec![types[1].clone()]), content);
            }
        }
        Value::Bool(v) => assert_eq!(content, v, "{key}"),
        Value::Str(_) => assert_eq!(content, value.as_str().unwrap(), "{key}"),
        Value::U64(v) => assert_eq!(content, v, "{key}"),
        Value::F32(_) | Value::F64(_) => assert_eq!(content.as_f64(), value.as_f64(), "{key}"),
        _ => assert_eq!(content.as_i64(), value.as_i64(), "{key}"),
    }
}

fn assert_facts(gguf: &Gguf, facts: &Json) {
    let keys = facts["metadata"].as_array().unwrap();
    assert_eq!(gguf.metadata().len(), keys.len());
    for ((key, value), fact) in gguf.metadata().iter().zip(keys) {
        assert_eq!(key, fact[0]);
        assert_value(key, value, &fact[1], &fact[3]);
        if let Value::Array(array) = value {
            assert_eq!(fact[2], array.len(), "{key}");
        }
    }
    let tensors = facts["tensors"].as_array().unwrap();
    let (unsupported, tensors): (Vec<_>, Vec<_>) = tensors.iter().partition(|t| t[2] == "MXFP4");
    assert_eq!(unsupported.len(), gguf.unsupported().len());
    for (t, fact) in gguf.unsupported().iter().zip(unsupported) {
        assert_eq!(t.name(), fact[0]);
        assert_eq!(t.ggml_type(), 39);
        refused!(gguf.tensor(t.name()), Error::Unsupported { .. }, t.name(), "39 (MXFP4)", "F32, F16, Q4_0");
    }
    assert_eq!(gguf.tensors().len(), tensors.len());
    for (t, fact) in gguf.tensors().iter().zip(tensors) {
        assert_eq!(t.name(), fact[0]);
        assert_eq!(serde_json::to_value(t.dims()).unwrap(), fact[1], "{}", t.name());
        assert_eq!(t.dtype().name(), fact[2], "{}", t.name());
        assert_eq!(t.offset(), fact[3].as_u64().unwrap(), "{}", t.name());
        assert_eq!(t.data().len() as u64, fact[4].as_u64().unwrap(), "{}", t.name());
        assert_eq!(
            t.data().iter().map(|b| *b as u64).sum::<u64>(),
            fact[5].as_u64().unwrap(),
            "{}",
            t.name()
        );
        assert_eq!(gguf.tensor(t.name()).unwrap().unwrap().offset(), t.offset());
    }
}

#[test]
fn reads_what_the_reference_reader_reads() {
    for name in ["quants.gguf", "tiny-gemma3.gguf"] {
        let gguf = Gguf::open(data(name)).unwrap();
        assert_eq!(gguf.version(), 3);
        assert_facts(&gguf, &facts()[name]);
    }
}

#[test]
fn a_split_model_is_one() {
    let gguf = Gguf::open(data("split-00001-of-00003.gguf")).unwrap();
    let all = facts();
    let names = [1, 2, 3].map(|i| format!("split-0000{i}-of-00003.gguf"));
    let expected: Vec<&str> = names
        .iter()
        .flat_map(|n| all[n]["tensors"].as_array().unwrap())
        .map(|t| t[0].as_str().unwrap())
        .collect();
    assert_eq!(gguf.tensors().iter().map(|t| t.name()).collect::<Vec<_>>(), expected);
    assert_eq!(expected, ["one", "two", "three", "four", "five"]);
    assert_eq!(gguf.parts().len(), 3);
    for (part, name) in gguf.parts().iter().zip(&names) {
        assert_eq!(part.name(), data(name).to_str().unwrap());
        for fact in all[name]["tensors"].as_array().unwrap() {
            let t = gguf.tensor(fact[0].as_str().unwrap()).unwrap().unwrap();
            assert_eq!(t.storage().name(), part.name());
            assert_eq!(t.offset(), fact[3].as_u64().unwrap());
            assert_eq!(t.data().iter().map(|b| *b as u64).sum::<u64>(), fact[5].as_u64().unwrap());
        }
    }
    assert_eq!(gguf.file_len(), names.iter().map(|n| std::fs::metadata(data(n)).unwrap().len()).sum::<u64>());
    // The same from parts that were opened by the caller.
    let parts = names.iter().map(|n| Storage::open(data(n)).unwrap()).collect();
    let same = Gguf::from_parts(parts, &CancelToken::new()).unwrap();
    assert_eq!(same.tensors().len(), 5);
    // The first part has the metadata.
    assert_eq!(gguf.metadata().require::<u64>("t.u64").unwrap(), (1 << 63) + 5);
}

#[test]
fn versions_2_and_3_are_laid_out_alike() {
    let mut bytes = Raw::sample().bytes;
    for version in [2, 3] {
        bytes[4] = version;
        let gguf = parse(&bytes).unwrap();
        assert_eq!(gguf.version(), version as u32);
        assert_eq!(gguf.tensor("b").unwrap().unwrap().data(), [2; 36]);
    }
}

#[test]
fn typed_access_converts_without_loss_or_says_why_not() {
    let gguf = parse(&Raw::sample().bytes).unwrap();
    let m = gguf.metadata();
    assert_eq!(m.keys().next(), Some("u8"));
    assert_eq!(m.require::<u32>("u8").unwrap(), 200);
    assert_eq!(m.require::<u64>("u64").unwrap(), u64::MAX);
    assert_eq!(m.require::<i64>("i64").unwrap(), i64::MIN);
    assert_eq!(m.require::<i32>("i16").unwrap(), -30000);
    assert_eq!(m.require::<f32>("f32").unwrap(), 1.5);
    assert_eq!(m.require::<f64>("i8").unwrap(), -100.0);
    assert_eq!(m.require::<f64>("f64").unwrap(), -0.1);
    assert_eq!(m.require::<usize>("u16").unwrap(), 60000);
    assert!(m.require::<bool>("bool").unwrap());
    assert_eq!(m.require::<&str>("str").unwrap(), "hello");
    assert_eq!(m.get_as::<u32>("absent").unwrap(), None);
    assert!(m.get("absent").is_none());
    let tokens = m.require::<carat::gguf::Array>("tokens").unwrap();
    assert_eq!(tokens.strings().unwrap().collect::<Vec<_>>(), [b"<pad>", "".as_bytes(), "▁a".as_bytes()]);
    assert!(tokens.elements::<f32>().is_none());
    assert_eq!(
        m.get("bools").unwrap().as_array().unwrap().elements::<bool>().unwrap().collect::<Vec<_>>(),
        [true, false, true]
    );
    assert!(m.get("none").unwrap().as_array().unwrap().is_empty());

    refused!(
        m.require::<u32>("absent"),
        Error::Metadata { .. },
        "bad.gguf",
        "absent",
        "4294967295",
        "nothing"
    );
    refused!(m.require::<u32>("i32"), Error::Metadata { .. }, "i32", "0 to 4294967295", "-7 (int32)");
    refused!(m.require::<u32>("u64"), Error::Metadata { .. }, "u64", u64::MAX);
    refused!(m.get_as::<bool>("u8"), Error::Metadata { .. }, "true or false", "200 (uint8)");
    refused!(m.get_as::<&str>("scores"), Error::Metadata { .. }, "a UTF-8 string", "array of 2 float32");
    refused!(m.get_as::<f32>("str"), Error::Metadata { .. }, "a number", "\"hello\" (string)");
}

#[test]
fn what_is_written_is_read() {
    let mut b = Builder::new();
    b.set("general.architecture", "gemma3").unwrap();
    b.set("general.alignment", 64u32).unwrap();
    b.set("u8", 1u8).unwrap().set("i8", -1i8).unwrap().set("u16", 2u16).unwrap().set("i16", -2i16).unwrap();
    b.set("u32", 3u32)
        .unwrap()
        .set("i32", -3i32)
        .unwrap()
        .set("u64", 4u64)
        .unwrap()
        .set("i64", -4i64)
        .unwrap();
    b.set("f32", 0.5f32).unwrap().set("f64", 0.25f64).unwrap().set("bool", true).unwrap();
    b.set_array("scores", &[1.5f32, -2.0]).unwrap();
    b.set_array("pattern", &[true, false]).unwrap();
    b.set_strings("tokens", ["<pad>", "", "▁a"]).unwrap();
    b.tensor("a", DType::F32, &[3]).unwrap();
    b.tensor("b", DType::Q4_0, &[64, 2]).unwrap();
    b.tensor("c", DType::F16, &[1, 2, 3, 4]).unwrap();
    let len = b.file_len();
    let mut w = b.write(Vec::new(), "test").unwrap();
    w.write(&[1; 12]).unwrap();
    assert_eq!(w.due(), Some(("b", 72)));
    w.write(&[2; 50]).unwrap();
    assert_eq!(w.due(), Some(("b", 22)));
    w.write(&[3; 22]).unwrap();
    w.write(&[4; 48]).unwrap();
    assert_eq!(w.due(), None);
    let bytes = w.finish().unwrap();
    assert_eq!(bytes.len() as u64, len);

    let gguf = parse(&bytes).unwrap();
    let m = gguf.metadata();
    let expected: [(&str, Value); 12] = [
        ("general.architecture", "gemma3".into()),
        ("u8", 1u8.into()),
        ("i8", (-1i8).into()),
        ("u16", 2u16.into()),
        ("i16", (-2i16).into()),
        ("u32", 3u32.into()),
        ("i32", (-3i32).into()),
        ("u64", 4u64.into()),
        ("i64", (-4i64).into()),
        ("f32", 0.5f32.into()),
        ("f64", 0.25f64.into()),
        ("bool", true.into()),
    ];
    for (key, value) in expected {
        assert_eq!(m.get(key), Some(value), "{key}");
    }
    let array = |key| m.get(key).unwrap().as_array().unwrap();
    assert_eq!(array("scores").elements::<f32>().unwrap().collect::<Vec<_>>(), [1.5, -2.0]);
    assert_eq!(array("pattern").elements::<bool>().unwrap().collect::<Vec<_>>(), [true, false]);
    assert_eq!(array("tokens").strings().unwrap().nth(2), Some("▁a".as_bytes()));
    assert!(gguf.tensors().iter().all(|t| t.offset() % 64 == 0));
    assert_eq!(gguf.tensor("a").unwrap().unwrap().data(), [1; 12]);
    assert_eq!(gguf.tensor("b").unwrap().unwrap().data(), [[2; 50].as_slice(), &[3; 22]].concat());
    assert_eq!(gguf.tensor("c").unwrap().unwrap().dims(), [1, 2, 3, 4]);
    assert_eq!(
        (gguf.tensor("c").unwrap().unwrap().cols(), gguf.tensor("c").unwrap().unwrap().rows()),
        (1, 24)
    );

    // Copying another file's metadata gives the same bytes.
    let mut copy = Builder::new();
    for (key, value) in m.iter() {
        copy.set(key, value).unwrap();
    }
    for t in gguf.tensors() {
        copy.tensor(t.name(), t.dtype(), t.dims()).unwrap();
    }
    let mut w = copy.write(Vec::new(), "copy").unwrap();
    for t in gguf.tensors() {
        w.write(t.data()).unwrap();
    }
    assert_eq!(w.finish().unwrap(), bytes);
}

#[test]
fn a_foreign_file_copied_is_the_same_file() {
    let bytes = std::fs::read(data("tiny-gemma3.gguf")).unwrap();
    let gguf = Gguf::open(data("tiny-gemma3.gguf")).unwrap();
    let mut b = Builder::new();
    for (key, value) in gguf.metadata().iter() {
        b.set(key, value).unwrap();
    }
    for t in gguf.tensors() {
        b.tensor(t.name(), t.dtype(), t.dims()).unwrap();
    }
    let mut w = b.write(Vec::new(), "copy").unwrap();
    for t in gguf.tensors() {
        w.write(t.data()).unwrap();
    }
    assert!(w.finish().unwrap() == bytes);
}

#[test]
fn the_writer_refuses_what_no_reader_takes() {
    let mut b = Builder::new();
    b.set("k", 1u32).unwrap();
    refused!(b.set("k", 2u32), Error::InvalidOption { .. }, "k twice");
    refused!(b.set("general.alignment", 24u32), Error::InvalidOption { .. }, "a power of two", "24");
    b.tensor("t", DType::F32, &[2]).unwrap();
    refused!(b.tensor("t", DType::F32, &[2]), Error::InvalidOption { .. }, "t twice");
    refused!(b.tensor("u", DType::Q4_K, &[640, 2]), Error::InvalidOption { .. }, "256", "[640, 2]", "Q4_K");
    refused!(b.tensor("v", DType::F32, &[]), Error::InvalidOption { .. }, "1 to 4 dimensions");
    refused!(b.tensor("w", DType::F32, &[4, 0]), Error::InvalidOption { .. }, "[4, 0]");
    refused!(b.tensor("x", DType::F32, &[usize::MAX, 2]), Error::InvalidOption { .. }, "x");
    refused!(b.set("general.alignment", 64u32), Error::InvalidOption { .. }, "before the first tensor");

    let mut w = b.write(Vec::new(), "out.gguf").unwrap();
    refused!(w.write(&[0; 9]), Error::InvalidOption { .. }, "at most the 8 bytes that t lacks", "9 bytes");
    w.write(&[0; 5]).unwrap();
    refused!(w.finish(), Error::InvalidOption { .. }, "3 bytes lacking of t");

    struct Full;
    impl std::io::Write for Full {
        fn write(&mut self, _: &[u8]) -> std::io::Result<usize> {
            Err(std::io::ErrorKind::StorageFull.into())
        }
        fn flush(&mut self) -> std::io::Result<()> {
            Ok(())
        }
    }
    refused!(Builder::new().write(Full, "out.gguf"), Error::Io { action: "write", .. }, "out.gguf");
}

#[test]
fn the_real_model() {
    let Some(path) = common::real_model() else { return };
    let gguf = Gguf::open(&path).unwrap();
    assert_eq!(gguf.file_len(), 253_113_024);
    assert_eq!(gguf.metadata().len(), 33);
    assert_eq!(gguf.tensors().len(), 236);
    let tokens = gguf.metadata().require::<carat::gguf::Array>("tokenizer.ggml.tokens").unwrap();
    assert_eq!(tokens.len(), 262_144);
    assert_eq!(tokens.strings().unwrap().count(), 262_144);
    assert_eq!(tokens.strings().unwrap().nth(105), Some(b"<start_of_turn>".as_slice()));
    let t = gguf.tensor("token_embd.weight").unwrap().unwrap();
    assert_eq!(
        (t.dims(), t.dtype(), t.offset(), t.data().len()),
        ([640, 262_144].as_slice(), DType::Q8_0, 6_527_680, 178_257_920)
    );
    let t = gguf.tensor("blk.0.attn_k.weight").unwrap().unwrap();
    assert_eq!((t.dims(), t.dtype(), t.offset()), ([640, 256].as_slice(), DType::Q5_0, 184_785_600));
}
