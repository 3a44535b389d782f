//! Every way to open a model gives the same model, tells how far it has come, and can be stopped.

mod altered;

use std::cell::RefCell;
use std::fs::File;
use std::io::Write;
use std::path::{Path, PathBuf};
use std::sync::Arc;

use altered::{Altered, data};
use carat::gguf::{Builder, Gguf};
use carat::{
    CancelToken, DType, Error, MemoryLock, Model, ModelBuilder, Progress, Result, Session, SessionOptions,
    Storage,
};

fn ids() -> Vec<u32> {
    serde_json::from_slice(&std::fs::read(data("tiny-ids.json")).unwrap()).unwrap()
}

/// The bits of the logits after a prompt, and after three steps more.
fn logits(model: &Model) -> Vec<u32> {
    let mut options = SessionOptions::default();
    options.context = Some(128);
    options.batch = 32;
    let mut session = Session::new(model, options).unwrap();
    session.prefill(&ids()).unwrap();
    let mut all = session.logits().unwrap().to_vec();
    for token in [400, 500, 600] {
        all.extend(session.step(token).unwrap());
    }
    assert!(all.iter().all(|l| l.is_finite()));
    all.iter().map(|l| l.to_bits()).collect()
}

/// Writes a file as three parts, as llama.cpp splits: metadata in the first, tensors dealt out. Gives their paths.
fn split(bytes: &[u8], dir: &Path) -> [PathBuf; 3] {
    let gguf = Gguf::from_parts(vec![Storage::from_bytes(bytes.to_vec())], &CancelToken::new()).unwrap();
    [0, 1, 2].map(|part| {
        let mut b = Builder::new();
        if part == 0 {
            for (key, value) in gguf.metadata().iter() {
                b.set(key, value).unwrap();
            }
        }
        b.set("split.no", part as u16).unwrap();
        b.set("split.count", 3u16).unwrap();
        b.set("split.tensors.count", gguf.tensors().len() as i32).unwrap();
        let mine = || gguf.tensors().iter().enumerate().filter(|(i, _)| i % 3 == part).map(|(_, t)| t);
        for t in mine() {
            b.tensor(t.name(), t.dtype(), t.dims()).unwrap();
        }
        let path = dir.join(format!("tiny-0000{}-of-00003.gguf", part + 1));
        let mut w = b.write(File::create(&path).unwrap(), "a part").unwrap();
        for t in mine() {
            w.write(t.data()).unwrap();
        }
        w.finish().unwrap();
        path
    })
}

/// A model with tensors of every size of element, so that each meets the odd addresses below.
fn mixed() -> Vec<u8> {
    let types = [DType::F32, DType::F16, DType::BF16, DType::Q8_0, DType::Q4_0, DType::Q5_1];
    let mut file = Altered::tiny("tiny-gemma3");
    let mut matrices = 0;
    for t in &mut file.tensors {
        if t.is_matrix() {
            t.convert(types[matrices % types.len()]);
            matrices += 1;
        }
    }
    file.tensor("blk.1.ffn_norm.weight", |t| t.convert(DType::F16))
        .tensor("blk.2.attn_q_norm.weight", |t| t.convert(DType::BF16))
        .bytes()
}

#[test]
fn every_way_gives_the_same_bits() {
    let read = |name: &str| std::fs::read(data(&format!("{name}.gguf"))).unwrap();
    let files = [read("tiny-gemma-mqa"), read("tiny-gemma2"), read("tiny-gemma3"), mixed()];
    for bytes in files {
        let dir = tempfile::tempdir().unwrap();
        let path = dir.path().join("model.gguf");
        std::fs::write(&path, &bytes).unwrap();
        let len = bytes.len() as u64;
        let new = || Model::builder().threads(1);
        let storage = |storage: Storage| new().open_storage(vec![storage]).unwrap();

        let expected = logits(&new().open(&path).unwrap());
        let same = |how: &str, model: Model| {
            assert_eq!(model.gguf().file_len(), len, "{how}");
            assert!(logits(&model) == expected, "{how}");
        };
        same("a private copy", new().private_copy(true).open(&path).unwrap());
        same("preloaded", new().preload(true).open(&path).unwrap());
        same("bytes", storage(Storage::from_bytes(bytes.clone())));
        same("shared bytes", storage(Storage::from_bytes(Arc::<[u8]>::from(bytes.clone()))));

        // Within a larger file, at every address that is not a multiple of four, and at one that is no page.
        let outer = dir.path().join("outer.bin");
        for offset in [1u64, 2, 3, 4096 + 32] {
            let mut f = File::create(&outer).unwrap();
            f.write_all(&vec![0x55; offset as usize]).unwrap();
            f.write_all(&bytes).unwrap();
            f.write_all(&[0xaa; 77]).unwrap();
            drop(f);
            let file = || File::open(&outer).unwrap();
            let how = format!("byte {offset} of a file");
            same(&how, storage(Storage::from_file(file(), offset, Some(len)).unwrap()));
            #[cfg(unix)]
            {
                use std::os::fd::AsFd;
                let file = file();
                let borrowed = Storage::from_fd(file.as_fd(), offset, Some(len)).unwrap();
                drop(file);
                same(&how, storage(borrowed));
            }
            let copy =
                Storage::read_file(&file(), offset, Some(len), &CancelToken::new(), &mut |_, _| {}).unwrap();
            same(&how, storage(copy));
        }

        let parts = split(&bytes, dir.path());
        let same = |how: &str, model: Model| {
            assert_eq!(model.gguf().parts().len(), 3, "{how}");
            assert!(logits(&model) == expected, "{how}");
        };
        same("parts", new().open(&parts[0]).unwrap());
        same("copies of parts", new().private_copy(true).open(&parts[0]).unwrap());
        let opened = parts.iter().map(|p| Storage::open(p).unwrap()).collect();
        same("parts opened by the caller", new().open_storage(opened).unwrap());
    }
}

/// A model of some size, most of which nobody computes with: pieces of progress are two megabytes.
fn large() -> Vec<u8> {
    Altered::tiny("tiny-gemma3").add("v.large", DType::F32, &[1024, 2048]).bytes()
}

/// What opening reports, until `stop` says so; and how it ended.
fn reports(
    open: impl FnOnce(ModelBuilder<'_>) -> Result<Model>,
    stop: impl Fn(Progress) -> bool,
) -> (Vec<Progress>, Result<Model>) {
    let cancel = CancelToken::new();
    let all = RefCell::new(Vec::new());
    let builder = Model::builder().threads(1).cancel(&cancel).progress(|p| {
        all.borrow_mut().push(p);
        if stop(p) {
            cancel.cancel();
        }
    });
    let result = open(builder);
    (all.into_inner(), result)
}

#[test]
fn progress_never_falls_and_ends_at_the_total() {
    let dir = tempfile::tempdir().unwrap();
    let path = dir.path().join("large.gguf");
    let bytes = large();
    std::fs::write(&path, &bytes).unwrap();
    let parts = split(&bytes, dir.path());
    let storage = || vec![Storage::open(&path).unwrap()];
    type Open<'a> = Box<dyn FnOnce(ModelBuilder<'_>) -> Result<Model> + 'a>;
    let ways: [(&str, usize, Open<'_>); 8] = [
        ("mapped", 1, Box::new(|b| b.open(&path))),
        ("preloaded", 5, Box::new(|b| b.preload(true).open(&path))),
        ("copied", 5, Box::new(|b| b.private_copy(true).open(&path))),
        ("copied and preloaded", 5, Box::new(|b| b.private_copy(true).preload(true).open(&path))),
        ("parts preloaded", 6, Box::new(|b| b.preload(true).open(&parts[0]))),
        ("parts copied", 6, Box::new(|b| b.private_copy(true).open(&parts[0]))),
        ("storage", 1, Box::new(|b| b.open_storage(storage()))),
        ("storage preloaded", 5, Box::new(|b| b.preload(true).open_storage(storage()))),
    ];
    for (how, least, open) in ways {
        let (reports, model) = reports(open, |_| false);
        let len = model.unwrap().gguf().file_len();
        assert!(reports.len() >= least && reports.len() < 20, "{how}: {reports:?}");
        assert!(reports.iter().all(|p| p.total == len && p.done <= len), "{how}: {reports:?}");
        assert!(reports.windows(2).all(|p| p[0].done <= p[1].done), "{how}: {reports:?}");
        assert_eq!(reports.last().unwrap().done, len, "{how}");
    }
}

#[test]
fn opening_stops_at_the_next_piece() {
    let dir = tempfile::tempdir().unwrap();
    let path = dir.path().join("large.gguf");
    let bytes = large();
    std::fs::write(&path, &bytes).unwrap();
    let parts = split(&bytes, dir.path());
    type Open<'a> = &'a dyn Fn(ModelBuilder<'_>) -> Result<Model>;
    let ways: [(&str, Open<'_>); 6] = [
        ("mapped", &|b| b.open(&path)),
        ("preloaded", &|b| b.preload(true).open(&path)),
        ("copied", &|b| b.private_copy(true).open(&path)),
        ("parts preloaded", &|b| b.preload(true).open(&parts[0])),
        ("parts copied", &|b| b.private_copy(true).open(&parts[0])),
        ("storage preloaded", &|b| b.preload(true).open_storage(vec![Storage::open(&path).unwrap()])),
    ];
    for (how, open) in ways {
        let pieces = reports(open, |_| false).0.len();
        for stop_at in 0..pieces {
            let seen = std::cell::Cell::new(0);
            let (reports, result) = reports(open, |_| {
                seen.set(seen.get() + 1);
                seen.get() > stop_at
            });
            assert!(matches!(result, Err(Error::Cancelled)), "{how}, {stop_at}");
            // The last report of all may come twice: as the end of the last piece, and as the end of opening.
            assert!(reports.len() - stop_at <= 2, "{how}, {stop_at}: {reports:?}");
            if reports[stop_at].done < reports[stop_at].total {
                assert_eq!(reports.len(), stop_at + 1, "{how}, {stop_at}: {reports:?}");
            }
        }
    }
    // Set before: nothing is done at all.
    let cancel = CancelToken::new();
    cancel.cancel();
    let mut told = 0;
    let result = Model::builder().cancel(&cancel).progress(|_| told += 1).private_copy(true).open(&path);
    assert!(matches!(result, Err(Error::Cancelled)));
    let result = Model::builder().cancel(&cancel).open_storage(vec![Storage::open(&path).unwrap()]);
    assert!(matches!(result, Err(Error::Cancelled)));
    assert_eq!(told, 0);
}

/// Kilobytes that this process has locked, where the system tells.
fn locked_kb() -> Option<u64> {
    let status = std::fs::read_to_string("/proc/self/status").ok()?;
    status.lines().find_map(|l| l.strip_prefix("VmLck:"))?.trim().strip_suffix("kB")?.trim().parse().ok()
}

#[test]
fn locking_is_a_wish_and_what_came_of_it_is_told() {
    let path = data("tiny-gemma3.gguf");
    let plain = Model::open(&path).unwrap();
    assert_eq!(*plain.memory_lock(), MemoryLock::NotAsked);
    let model = Model::builder().threads(1).lock(true).open(&path).unwrap();
    match model.memory_lock() {
        MemoryLock::Locked => {
            let kb = std::fs::metadata(&path).unwrap().len() / 1024;
            assert!(locked_kb().is_none_or(|locked| locked >= kb), "{:?} of {kb}", locked_kb());
        }
        MemoryLock::Refused(why) => assert!(why.contains("lock in memory"), "{why}"),
        MemoryLock::NotAsked => panic!("it was asked for"),
        _ => unreachable!(),
    }
    assert!(logits(&model) == logits(&plain));
    // What cannot be locked is told, and opens all the same.
    let copy = Model::builder().threads(1).lock(true).private_copy(true).open(&path).unwrap();
    let bytes = vec![Storage::from_bytes(std::fs::read(&path).unwrap())];
    let memory = Model::builder().threads(1).lock(true).open_storage(bytes).unwrap();
    for model in [copy, memory] {
        assert!(matches!(model.memory_lock(), MemoryLock::Refused(why) if why.contains("lock in memory")));
        assert!(logits(&model) == logits(&plain));
    }
    let token = CancelToken::new();
    token.cancel();
    let cancelled = Model::builder().lock(true).cancel(&token).open(&path);
    assert!(matches!(cancelled.map(|_| ()), Err(Error::Cancelled)));
}

#[test]
fn of_a_split_model_all_parts_are_locked_or_none() {
    let dir = tempfile::tempdir().unwrap();
    let paths = split(&std::fs::read(data("tiny-gemma3.gguf")).unwrap(), dir.path());
    let whole = Model::builder().threads(1).lock(true).open(&paths[0]).unwrap();
    assert_ne!(*whole.memory_lock(), MemoryLock::NotAsked);
    // The last of them is not mapped.
    let mut parts: Vec<Storage> = paths.iter().map(|p| Storage::open(p).unwrap()).collect();
    parts[2] = Storage::from_bytes(std::fs::read(&paths[2]).unwrap());
    let mixed = Model::builder().threads(1).lock(true).open_storage(parts).unwrap();
    assert!(matches!(mixed.memory_lock(), MemoryLock::Refused(_)));
    assert!(logits(&mixed) == logits(&whole));
}
