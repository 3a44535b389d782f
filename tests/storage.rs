//! Where the bytes come from: paths, descriptors, memory and private copies, and what befalls them.
#![cfg(unix)]

mod raw_gguf;

use std::fs::{File, OpenOptions};
use std::io::Write;
use std::path::PathBuf;
use std::sync::Arc;

use carat::gguf::Gguf;
use carat::{Advice, CancelToken, Error, Storage};
use raw_gguf::Raw;

fn no_progress() -> impl FnMut(u64, u64) {
    |_, _| {}
}

/// A file of the given bytes in a directory of its own.
fn file(bytes: &[u8]) -> (tempfile::TempDir, PathBuf) {
    let dir = tempfile::tempdir().unwrap();
    let path = dir.path().join("model.gguf");
    std::fs::write(&path, bytes).unwrap();
    (dir, path)
}

/// Bytes of which no two pages are alike.
fn pattern(len: usize) -> Vec<u8> {
    (0..len).map(|i| (i % 251) as u8 ^ (i / 4096) as u8).collect()
}

#[test]
fn a_mapped_file() {
    let bytes = pattern(10_000);
    let (_dir, path) = file(&bytes);
    let s = Storage::open(&path).unwrap();
    assert_eq!(s.as_slice(), bytes);
    assert_eq!(s.name(), path.to_str().unwrap());
    assert!(s.is_mapped());
    s.check_unchanged().unwrap();
    // Clones share the pages.
    assert_eq!(s.clone().as_slice().as_ptr(), s.as_slice().as_ptr());
    // A mapping shows what another process writes; a private copy does not.
    let copy = Storage::read(&path, &CancelToken::new(), &mut no_progress()).unwrap();
    std::os::unix::fs::FileExt::write_all_at(
        &OpenOptions::new().write(true).open(&path).unwrap(),
        b"!",
        5000,
    )
    .unwrap();
    assert_eq!(s.as_slice()[5000], b'!');
    assert_eq!(copy.as_slice(), bytes);
    assert!(!copy.is_mapped());
    for advice in [Advice::Sequential, Advice::Random, Advice::WillNeed, Advice::Normal] {
        s.advise(advice).unwrap();
        copy.advise(advice).unwrap();
    }
}

#[test]
fn bytes_in_memory_are_not_copied() {
    let v = pattern(100);
    let at = v.as_ptr();
    let s = Storage::from_bytes(v);
    assert_eq!((s.as_slice().as_ptr(), s.name(), s.is_mapped()), (at, "<memory>", false));
    let a: Arc<[u8]> = pattern(100).into();
    let s = Storage::from_bytes(a.clone()).with_name("weights");
    assert_eq!((s.as_slice().as_ptr(), s.name()), (a.as_ptr(), "weights"));
    s.check_unchanged().unwrap();
}

#[test]
fn a_range_of_an_open_file() {
    // An asset within a package: at no multiple of any page size, with other bytes on both sides.
    let gguf = Raw::sample().bytes;
    for offset in [0usize, 1, 4095, 4096, 16_388, 123_457] {
        let bytes = [&pattern(offset), gguf.as_slice(), &pattern(777)].concat();
        let (_dir, path) = file(&bytes);
        let (start, len) = (offset as u64, gguf.len() as u64);
        let check = |s: Storage| {
            assert_eq!(s.as_slice(), gguf);
            let read = Gguf::from_parts(vec![s.clone()], &CancelToken::new()).unwrap();
            assert_eq!(read.tensor("b").unwrap().unwrap().data(), [2; 36]);
            // The tensor is a view of the map.
            assert!(s.as_slice().as_ptr_range().contains(&read.tensors()[0].data().as_ptr()));
            s
        };
        let s = check(Storage::from_file(File::open(&path).unwrap(), start, Some(len)).unwrap());
        assert!(s.name().contains(&format!("from byte {offset}")), "{}", s.name());
        s.advise(Advice::WillNeed).unwrap();
        s.read_ahead(&CancelToken::new(), &mut no_progress()).unwrap();
        let rest = Storage::from_file(File::open(&path).unwrap(), start, None).unwrap();
        assert_eq!(rest.as_slice().len(), gguf.len() + 777);

        use std::os::fd::{AsFd, OwnedFd};
        check(Storage::from_file(OwnedFd::from(File::open(&path).unwrap()), start, Some(len)).unwrap());
        // Borrowed: the caller's is closed before the bytes are read.
        let borrowed = File::open(&path).unwrap();
        let s = Storage::from_fd(borrowed.as_fd(), start, Some(len)).unwrap();
        drop(borrowed);
        check(s).check_unchanged().unwrap();
        // Copied, without moving the caller's position.
        let mut open = File::open(&path).unwrap();
        let s = Storage::read_file(&open, start, Some(len), &CancelToken::new(), &mut no_progress()).unwrap();
        check(s);
        assert_eq!(std::io::Seek::stream_position(&mut open).unwrap(), 0);
    }
}

#[test]
fn ranges_beyond_the_file() {
    let (_dir, path) = file(&pattern(100));
    let open = |offset, len| Storage::from_file(File::open(&path).unwrap(), offset, len);
    assert_eq!(open(100, None).unwrap().as_slice(), b"");
    refused!(open(101, None), Error::InvalidOption { option: "offset", .. }, "at most the file's 100", "101");
    refused!(open(u64::MAX, Some(1)), Error::InvalidOption { option: "offset", .. }, u64::MAX);
    refused!(
        open(40, Some(61)),
        Error::InvalidOption { option: "length", .. },
        "60 bytes from byte 40",
        "61"
    );
    refused!(open(40, Some(u64::MAX)), Error::InvalidOption { option: "length", .. }, u64::MAX);
}

#[test]
fn paths_that_cannot_be_opened() {
    let dir = tempfile::tempdir().unwrap();
    let absent = dir.path().join("absent.gguf");
    let not_found = |e: &std::io::Error| e.kind() == std::io::ErrorKind::NotFound;
    match Storage::open(&absent) {
        Err(Error::Io { path, action: "open", source }) if not_found(&source) => {
            assert_eq!(path, absent.display().to_string());
        }
        other => panic!("{other:?}"),
    }
    refused!(Storage::open(dir.path()), Error::Io { .. }, dir.path().display(), "directory");
    refused!(Gguf::open(dir.path()), Error::Io { .. }, dir.path().display(), "directory");
    refused!(
        Storage::read(dir.path(), &CancelToken::new(), &mut no_progress()),
        Error::Io { .. },
        dir.path().display(),
        "directory"
    );
    let empty = dir.path().join("empty.gguf");
    std::fs::write(&empty, b"").unwrap();
    refused!(Gguf::open(&empty), Error::Format { offset: 0, .. }, empty.display(), "an empty file");
    // A pipe has no length and no pages.
    let (pipe, _writer) = std::io::pipe().unwrap();
    let pipe = std::os::fd::OwnedFd::from(pipe);
    refused!(Storage::from_file(pipe, 0, None), Error::Io { .. }, "not a regular file");
    // A descriptor that may only write.
    let writer = OpenOptions::new().write(true).open(&empty).unwrap();
    std::fs::write(&empty, b"GGUF").unwrap();
    match Storage::from_file(writer, 0, None) {
        Err(Error::Io { action: "map", source, .. }) => {
            assert_eq!(source.kind(), std::io::ErrorKind::PermissionDenied);
        }
        other => panic!("{other:?}"),
    }
}

/// Set in the process that runs a test again without root's rights.
const UNPRIVILEGED: &str = "CARAT_TEST_UNPRIVILEGED_FILE";

#[test]
fn no_permission() {
    use std::os::unix::fs::PermissionsExt;
    use std::os::unix::process::CommandExt;
    if let Some(path) = std::env::var_os(UNPRIVILEGED) {
        return assert_no_permission(path.into());
    }
    let (dir, path) = file(&Raw::sample().bytes);
    std::fs::set_permissions(&path, PermissionsExt::from_mode(0o000)).unwrap();
    if File::open(&path).is_err() {
        return assert_no_permission(path);
    }
    // Root may open anything: run this test again as nobody, from a place where nobody can.
    std::fs::set_permissions(dir.path(), PermissionsExt::from_mode(0o755)).unwrap();
    let program = dir.path().join("test");
    std::fs::copy(std::env::current_exe().unwrap(), &program).unwrap();
    let out = std::process::Command::new(&program)
        .args(["--exact", "no_permission", "--nocapture"])
        .env(UNPRIVILEGED, &path)
        .current_dir("/")
        .uid(65534)
        .gid(65534)
        .output();
    let out = match out {
        // ENOEXEC: this process is emulated, and the system does not know how to run another such.
        Err(e) if e.raw_os_error() == Some(8) => return eprintln!("SKIPPED no_permission: {e}"),
        out => out.unwrap(),
    };
    let text = String::from_utf8_lossy(&out.stdout);
    assert!(
        out.status.success() && text.contains("1 passed"),
        "{text}{}",
        String::from_utf8_lossy(&out.stderr)
    );
}

fn assert_no_permission(path: PathBuf) {
    match Gguf::open(&path) {
        Err(Error::Io { path: named, action: "open", source }) => {
            assert_eq!(named, path.display().to_string());
            assert_eq!(source.kind(), std::io::ErrorKind::PermissionDenied);
        }
        other => panic!("{other:?}"),
    }
}

#[test]
fn a_file_that_changes_its_length_between_passes() {
    let bytes = Raw::sample().bytes;
    let len = bytes.len() as u64;
    let (_dir, path) = file(&bytes);
    let gguf = Gguf::open(&path).unwrap();
    gguf.check_unchanged().unwrap();
    let ranged = Storage::from_file(File::open(&path).unwrap(), 10, Some(20)).unwrap();

    let writer = OpenOptions::new().write(true).open(&path).unwrap();
    for changed in [len - 1, 0, len + 1, 1 << 20] {
        writer.set_len(changed).unwrap();
        match gguf.check_unchanged() {
            Err(Error::FileChanged { file, expected, found }) => {
                assert_eq!((file, expected, found), (path.display().to_string(), len, changed));
            }
            other => panic!("{other:?}"),
        }
        // A range is of the file that it is in, even where its own bytes are still there.
        refused!(ranged.check_unchanged(), Error::FileChanged { .. }, len, changed);
        // Reading ahead looks first, and does not touch pages that are gone.
        refused!(
            gguf.read_ahead(&CancelToken::new(), &mut no_progress()),
            Error::FileChanged { .. },
            changed
        );
    }
    writer.set_len(len).unwrap();
    gguf.check_unchanged().unwrap();
    // A file replaced by another of the same name is still the one that was opened.
    std::fs::remove_file(&path).unwrap();
    gguf.check_unchanged().unwrap();
}

#[test]
fn a_file_that_shrinks_while_it_is_copied() {
    let bytes = pattern(9 << 20);
    let (_dir, path) = file(&bytes);
    let shrink = OpenOptions::new().write(true).open(&path).unwrap();
    let mut progress = |_, _| shrink.set_len(5 << 20).unwrap();
    refused!(
        Storage::read(&path, &CancelToken::new(), &mut progress),
        Error::FileChanged { .. },
        path.display(),
        9 << 20,
        5 << 20
    );
}

/// Reads `total` bytes in pieces by `read`, checks what progress was told, then cancels after two pieces.
fn assert_pieces(total: u64, read: impl Fn(&CancelToken, &mut dyn FnMut(u64, u64)) -> Result<(), Error>) {
    let mut told = Vec::new();
    read(&CancelToken::new(), &mut |done, all| told.push((done, all))).unwrap();
    assert!(told.len() > 3, "{told:?}");
    assert!(told.windows(2).all(|w| w[0].0 < w[1].0 && w[1].0 - w[0].0 <= 2 << 20), "{told:?}");
    assert!(told.iter().all(|t| t.1 == total));
    assert_eq!(told.last(), Some(&(total, total)));

    // The unit of work is a piece of 2 MiB: none begins after the token is set.
    let cancel = CancelToken::new();
    let mut pieces = 0;
    let result = read(&cancel, &mut |_, _| {
        pieces += 1;
        if pieces == 2 {
            cancel.cancel();
        }
    });
    refused!(result, Error::Cancelled, "cancelled");
    assert_eq!(pieces, 2);
}

#[test]
fn long_reads_tell_and_stop() {
    let bytes = pattern((9 << 20) + 5);
    let (_dir, path) = file(&bytes);
    assert_pieces(bytes.len() as u64, |cancel, progress| {
        Storage::read(&path, cancel, progress).map(|s| assert!(s.as_slice() == bytes))
    });
    let mapped = Storage::open(&path).unwrap();
    assert_pieces(bytes.len() as u64, |cancel, progress| mapped.read_ahead(cancel, progress));
}

/// Kilobytes that this process has locked.
fn locked() -> u64 {
    let status = std::fs::read_to_string("/proc/self/status").unwrap();
    let line = status.lines().find(|l| l.starts_with("VmLck:")).unwrap();
    line.split_whitespace().nth(1).unwrap().parse().unwrap()
}

#[test]
#[cfg(target_os = "linux")]
fn locking_is_done_or_refused_aloud() {
    // Little enough for the smallest limit in use (64 KiB).
    let (_dir, path) = file(&pattern(32 << 10));
    let s = Storage::open(&path).unwrap();
    assert_eq!(locked(), 0);
    s.lock().unwrap();
    assert_eq!(locked(), 32);
    s.unlock().unwrap();
    assert_eq!(locked(), 0);
    refused!(Storage::from_bytes(pattern(10)).lock(), Error::Io { .. }, "<memory>", "lock in memory");
}

#[test]
fn a_tensor_outlives_the_file_object() {
    let (_dir, path) = file(&Raw::sample().bytes);
    let tensor = Gguf::open(&path).unwrap().tensor("b").unwrap().unwrap().clone();
    assert_eq!(tensor.data(), [2; 36]);
}

#[test]
fn a_write_of_the_header_under_the_reader_is_safe() {
    // Another process overwrites the lengths of the strings after the file was opened.
    let raw = Raw::sample();
    let (_dir, path) = file(&raw.bytes);
    let gguf = Gguf::open(&path).unwrap();
    let mut writer = OpenOptions::new().write(true).open(&path).unwrap();
    writer.write_all(&vec![0xff; raw.bytes.len()]).unwrap();
    let tokens = gguf.metadata().get("tokens").unwrap().as_array().unwrap();
    assert_eq!(tokens.len(), 3);
    assert_eq!(tokens.strings().unwrap().count(), 0);
    assert_eq!(gguf.metadata().require::<u32>("u8").unwrap(), 255);
    assert!(gguf.metadata().require::<&str>("str").is_err());
}
