//! Saved sessions: the same bits after loading, in another process too; and files that are not what they should be.

mod common;

use std::ops::ControlFlow;
use std::path::Path;
use std::process::Command;

use carat::{CancelToken, Error, GenerateOptions, KvType, Model, Session, SessionOptions};
use common::{TINY, command, continued, ids, now, options, real_model_at_length, session, tiny};

fn load(model: &Model, options: SessionOptions, path: &Path) -> Result<Session, Error> {
    Session::load(model, options, path, None)
}

/// What is wrong with the file, and the whole message.
fn refused(model: &Model, options: SessionOptions, path: &Path) -> (&'static str, String) {
    match load(model, options, path).map(|_| ()) {
        Err(ref e @ Error::State { ref file, what, .. }) => {
            assert_eq!(file, &path.display().to_string());
            (what, e.to_string())
        }
        other => panic!("{other:?}"),
    }
}

fn names(dir: &Path) -> Vec<String> {
    std::fs::read_dir(dir).unwrap().map(|f| f.unwrap().file_name().into_string().unwrap()).collect()
}

const CHILD: &str = "CARAT_TEST_CHILD";

/// Runs one of the ignored tests below in a process of its own.
fn child(test: &str, arguments: &str) -> Command {
    let mut c = command(std::env::current_exe().unwrap());
    c.args([test, "--exact", "--ignored", "--quiet"]).env(CHILD, arguments);
    c
}

#[test]
#[ignore = "run by the tests in a process of its own"]
fn child_continues() {
    let Ok(arguments) = std::env::var(CHILD) else { return };
    let [model, kv, state, out] = arguments.split('\n').collect::<Vec<_>>()[..] else { panic!() };
    let model = Model::builder().threads(2).open(model).unwrap();
    let mut o = SessionOptions::default();
    o.kv = KvType::from_name(kv);
    o.batch = 100;
    let mut session = load(&model, o, Path::new(state)).unwrap();
    std::fs::write(out, format!("{:?}", continued(&mut session, 64))).unwrap();
}

/// Saves after `prompt`, continues here and in a new process, and compares the bits.
fn continues_in_a_new_process(model: &Path, kv: Option<KvType>, prompt: &[u32], batch: usize) {
    let dir = tempfile::tempdir().unwrap();
    let (state, out) = (dir.path().join("state"), dir.path().join("out"));
    let mut o = SessionOptions::default();
    o.kv = kv;
    o.batch = batch;
    let opened = Model::builder().threads(1).open(model).unwrap();
    let mut session = Session::new(&opened, o).unwrap();
    session.prefill(prompt).unwrap();
    session.save(&state, None).unwrap();
    let path = |p: &Path| p.to_str().unwrap().to_string();
    let kv = kv.map_or("", KvType::name).to_string();
    let arguments = [path(model), kv, path(&state), path(&out)].join("\n");
    let ran = child("child_continues", &arguments).output().unwrap();
    assert!(ran.status.success(), "{}", String::from_utf8_lossy(&ran.stdout));
    let expected = format!("{:?}", continued(&mut session, 64));
    assert!(std::fs::read_to_string(out).unwrap() == expected, "{}", model.display());
}

#[test]
fn the_next_64_logits_have_the_same_bits_in_a_new_process() {
    for name in TINY {
        continues_in_a_new_process(&common::data(&format!("{name}.gguf")), None, &ids(150), 64);
    }
    let model = common::data("tiny-gemma3.gguf");
    for kv in [KvType::F16, KvType::Q8_0] {
        continues_in_a_new_process(&model, Some(kv), &ids(150), 16);
    }
    if let Some(path) = real_model_at_length() {
        // Longer than the rings: 512 positions and a batch.
        continues_in_a_new_process(&path, None, &ids(640), 64);
    }
}

#[test]
fn it_goes_into_any_session_that_has_room() {
    let model = tiny("tiny-gemma3", 1);
    let dir = tempfile::tempdir().unwrap();
    let path = dir.path().join("state");
    for (context, batch, whole) in [(256, 16, false), (256, 100, false), (256, 16, true), (200, 200, false)] {
        let mut o = options(context, batch);
        o.full_history = whole;
        let mut saved = Session::new(&model, o).unwrap();
        saved.prefill(&ids(180)).unwrap();
        saved.save(&path, None).unwrap();
        let expected = continued(&mut saved, 20);
        for (context, batch, whole) in
            [(256, 16, false), (210, 128, false), (256, 256, true), (200, 16, true)]
        {
            let mut o = options(context, batch);
            o.full_history = whole;
            let mut other = load(&model, o, &path).unwrap();
            assert_eq!(other.tokens(), ids(180));
            assert_eq!(continued(&mut other, 20), expected, "{context} {batch} {whole}");
        }
        let (what, message) = refused(&model, options(179, 16), &path);
        assert_eq!(what, "number of tokens");
        assert!(message.contains("at most 179") && message.contains("180"), "{message}");
        // Exactly full.
        let mut full = load(&model, options(180, 16), &path).unwrap();
        assert!(matches!(full.step(5), Err(Error::ContextFull { context: 180 })));
    }
}

#[test]
fn what_the_windows_had_lost_stays_lost_and_is_known_to_be() {
    let model = tiny("tiny-gemma3", 1);
    let dir = tempfile::tempdir().unwrap();
    let path = dir.path().join("state");
    let mut saved = session(&model, 256, 16);
    saved.prefill(&ids(200)).unwrap();
    saved.save(&path, None).unwrap();
    let Err(Error::Rewind { nearest, .. }) = saved.truncate(1) else { panic!() };
    let mut o = options(256, 16);
    o.full_history = true;
    for o in [options(256, 16), options(256, 100), o] {
        let mut other = load(&model, o, &path).unwrap();
        assert!(matches!(other.truncate(1), Err(Error::Rewind { nearest: n, .. }) if n == nearest));
        other.truncate(nearest).unwrap();
        other.prefill(&ids(200)[nearest..]).unwrap();
        assert_eq!(now(&other), now(&saved));
        // Saved again it is no better.
        other.save(&path, None).unwrap();
    }
}

#[test]
fn an_empty_session_and_one_without_logits() {
    let model = tiny("tiny-gemma2", 1);
    let dir = tempfile::tempdir().unwrap();
    let path = dir.path().join("state");
    let mut s = session(&model, 256, 16);
    s.save(&path, None).unwrap();
    let mut empty = load(&model, options(256, 16), &path).unwrap();
    assert!(empty.is_empty() && empty.logits().is_none());
    empty.prefill(&ids(30)).unwrap();
    s.prefill(&ids(40)).unwrap();
    s.truncate(30).unwrap();
    s.save(&path, None).unwrap();
    let mut cut = load(&model, options(256, 16), &path).unwrap();
    assert!(cut.logits().is_none() && cut.tokens() == ids(30));
    cut.step(400).unwrap();
    empty.step(400).unwrap();
    assert_eq!(now(&cut), now(&empty));
}

#[test]
fn random_numbers_go_on_where_they_were() {
    let model = tiny("tiny-gemma3", 1);
    let dir = tempfile::tempdir().unwrap();
    let path = dir.path().join("state");
    let mut o = GenerateOptions::default();
    o.max_tokens = 20;
    o.ignore_end = true;
    let mut s = session(&model, 256, 16);
    s.generate(&ids(10), &o, |_| ControlFlow::Continue(())).unwrap();
    s.save(&path, None).unwrap();
    let mut other = load(&model, options(256, 16), &path).unwrap();
    let mut third = load(&model, options(256, 16), &path).unwrap();
    let mut fork = s.fork().unwrap();
    for s in [&mut s, &mut other, &mut third, &mut fork] {
        s.generate(&[], &o, |_| ControlFlow::Continue(())).unwrap();
    }
    assert_eq!(s.tokens(), other.tokens());
    assert_eq!(s.tokens(), third.tokens());
    assert_eq!(s.tokens(), fork.tokens());
}

#[test]
fn files_that_are_not_what_they_should_be() {
    let model = tiny("tiny-gemma3", 1);
    let dir = tempfile::tempdir().unwrap();
    let path = dir.path().join("state");
    let mut s = session(&model, 64, 16);
    s.prefill(&ids(3)).unwrap();
    s.save(&path, None).unwrap();
    let good = std::fs::read(&path).unwrap();
    let what = |bytes: &[u8]| {
        std::fs::write(&path, bytes).unwrap();
        refused(&model, options(64, 16), &path)
    };

    let (w, message) = what(b"");
    assert_eq!(w, "beginning");
    assert!(message.contains("caratKV"), "{message}");
    assert_eq!(what(b"GGUF, or anything else").0, "beginning");
    let mut other = good.clone();
    other[8] = 3;
    let (w, message) = what(&other);
    assert_eq!(w, "version of the format");
    assert!(message.contains("expected 1 to 2, found 3"), "{message}");

    for len in (0..good.len()).filter(|l| *l < 300 || l % 7 == 0 || good.len() - l < 20) {
        let w = what(&good[..len]).0;
        assert_eq!(w, if len < 8 { "beginning" } else { "length in bytes" }, "cut after {len}");
    }
    assert_eq!(what(&[&good[..], b"x"].concat()).0, "length in bytes");

    // A bit of every byte, and every bit of the header.
    for at in 0..good.len() {
        for bit in if at < 136 { 0..8 } else { at % 8..at % 8 + 1 } {
            let mut bad = good.clone();
            bad[at] ^= 1 << bit;
            let w = what(&bad).0;
            let expected = match at {
                0..8 => "beginning",
                8..12 => "version of the format",
                12..128 => "checksum of the header",
                // An id that no model has is seen first.
                _ if w == "token" => "token",
                _ => "checksum",
            };
            assert_eq!(w, expected, "bit {bit} of byte {at}");
        }
    }
    std::fs::write(&path, &good).unwrap();
    assert_eq!(now(&load(&model, options(64, 16), &path).unwrap()), now(&s));
}

#[test]
fn another_model_or_another_type_of_cache() {
    let model = tiny("tiny-gemma3", 1);
    let dir = tempfile::tempdir().unwrap();
    let path = dir.path().join("state");
    let mut s = session(&model, 64, 16);
    s.prefill(&ids(3)).unwrap();
    s.save(&path, None).unwrap();
    for name in &TINY[..3] {
        let (what, message) = refused(&tiny(name, 1), options(64, 16), &path);
        assert_eq!(what, "model");
        assert!(message.contains("fingerprint"), "{message}");
    }
    // One byte of one tensor: the last.
    let mut bytes = std::fs::read(common::data("tiny-gemma3.gguf")).unwrap();
    *bytes.last_mut().unwrap() ^= 1;
    let parts = vec![carat::Storage::from_bytes(bytes)];
    let retrained = Model::builder().threads(1).open_storage(parts).unwrap();
    assert_eq!(refused(&retrained, options(64, 16), &path).0, "model");
    // The same file from somewhere else.
    let copy = dir.path().join("copy.gguf");
    std::fs::copy(common::data("tiny-gemma3.gguf"), &copy).unwrap();
    assert!(load(&Model::open(copy).unwrap(), options(64, 16), &path).is_ok());

    for kv in [KvType::F16, KvType::Q8_0] {
        let mut o = options(64, 16);
        o.kv = Some(kv);
        let (what, message) = refused(&model, o, &path);
        assert_eq!(what, "type of keys and values");
        assert!(message.contains(&format!("expected {}, found f32", kv.name())), "{message}");
    }
}

#[test]
fn exact_sessions_and_others_do_not_go_on_with_each_others_texts() {
    let model = tiny("tiny-gemma3", 1);
    let dir = tempfile::tempdir().unwrap();
    let path = dir.path().join("state");
    let with = |exact: bool| {
        let mut o = options(64, 16);
        (o.kv, o.exact) = (Some(KvType::F32), exact);
        o
    };
    for exact in [false, true] {
        let mut s = Session::new(&model, with(exact)).unwrap();
        s.prefill(&ids(40)).unwrap();
        s.save(&path, None).unwrap();
        let (what, message) = refused(&model, with(!exact), &path);
        assert_eq!(what, "type of keys and values");
        assert!(message.contains("f32") && message.contains("exact"), "{message}");
        let mut same = load(&model, with(exact), &path).unwrap();
        assert_eq!(continued(&mut same, 10), continued(&mut s, 10));
    }
}

#[test]
fn what_the_system_refuses() {
    let model = tiny("tiny-gemma3", 1);
    let dir = tempfile::tempdir().unwrap();
    let io = |r: Result<(), Error>, path: &Path| match r {
        Err(Error::Io { path: named, .. }) => assert_eq!(named, path.display().to_string()),
        other => panic!("{other:?}"),
    };
    for path in [dir.path().join("missing"), dir.path().to_path_buf()] {
        io(load(&model, options(64, 16), &path).map(|_| ()), &path);
    }
    let s = session(&model, 64, 16);
    let nowhere = dir.path().join("no/such/directory");
    io(s.save(&nowhere, None), &nowhere);
    // Onto a directory.
    io(s.save(dir.path(), None), dir.path());
    assert!(names(dir.path()).is_empty());
}

#[cfg(unix)]
#[test]
fn a_symbolic_link_stays_and_what_it_leads_to_is_replaced() {
    use std::os::unix::fs::symlink;
    let model = tiny("tiny-gemma3", 1);
    let dir = tempfile::tempdir().unwrap();
    let at = |name: &str| dir.path().join(name);
    std::fs::create_dir(at("elsewhere")).unwrap();
    symlink("second", at("first")).unwrap();
    symlink(at("elsewhere/state"), at("second")).unwrap();
    let mut s = session(&model, 64, 16);
    // Where there is nothing yet, and where there is.
    for n in 1..3 {
        s.prefill(&ids(3)).unwrap();
        s.save(at("first"), None).unwrap();
        assert!(at("first").is_symlink() && at("second").is_symlink());
        assert_eq!(names(&at("elsewhere")), ["state"]);
        assert_eq!(load(&model, options(64, 16), &at("elsewhere/state")).unwrap().len(), 3 * n);
    }
    let before = std::fs::read(at("elsewhere/state")).unwrap();
    let token = CancelToken::new();
    token.cancel();
    assert!(matches!(s.save(at("first"), Some(&token)), Err(Error::Cancelled)));
    assert!(std::fs::read(at("first")).unwrap() == before);

    symlink("round", at("about")).unwrap();
    symlink("about", at("round")).unwrap();
    assert!(matches!(s.save(at("round"), None), Err(Error::Io { .. })));
    // What is no file is not replaced by one.
    let socket = std::os::unix::net::UnixListener::bind(at("socket")).unwrap();
    symlink("socket", at("link")).unwrap();
    for name in ["socket", "link"] {
        let e = s.save(at(name), None).unwrap_err();
        assert!(matches!(e, Error::Io { .. }) && e.to_string().contains("not a regular file"), "{e}");
    }
    drop(socket);
    assert!(!at("socket").is_file());
}

#[test]
fn a_cancelled_save_or_load_leaves_all_as_it_was() {
    let model = tiny("tiny-gemma3", 1);
    let dir = tempfile::tempdir().unwrap();
    let path = dir.path().join("state");
    let mut s = session(&model, 64, 16);
    s.prefill(&ids(3)).unwrap();
    s.save(&path, None).unwrap();
    let before = std::fs::read(&path).unwrap();
    s.step(400).unwrap();
    let token = CancelToken::new();
    token.cancel();
    assert!(matches!(s.save(&path, Some(&token)), Err(Error::Cancelled)));
    assert!(std::fs::read(&path).unwrap() == before);
    assert_eq!(names(dir.path()), ["state"]);
    let loaded = Session::load(&model, options(64, 16), &path, Some(&token));
    assert!(matches!(loaded, Err(Error::Cancelled)));
}

#[test]
#[ignore = "run by the tests in a process of its own"]
fn child_saves() {
    let Ok(path) = std::env::var(CHILD) else { return };
    let model = tiny("tiny-gemma3", 1);
    let mut s = session(&model, 256, 16);
    s.prefill(&ids(200)).unwrap();
    let e = s.save(path, None).unwrap_err();
    assert!(matches!(e, Error::Io { .. }), "{e}");
    // The session is none the worse.
    s.step(400).unwrap();
}

/// The system's limit on the size of a file stands in for a full disk: writing fails in the same way.
#[cfg(unix)]
#[test]
fn when_the_disk_is_full_the_old_file_stays() {
    let dir = tempfile::tempdir().unwrap();
    let path = dir.path().join("state");
    std::fs::write(&path, "the old file").unwrap();
    for blocks in [0, 1, 100] {
        let c = child("child_saves", path.to_str().unwrap());
        let mut sh = Command::new("sh");
        sh.args(["-c", &format!("trap '' XFSZ; ulimit -f {blocks}; exec \"$0\" \"$@\"")]);
        sh.arg(c.get_program()).args(c.get_args()).env(CHILD, &path);
        let out = sh.output().unwrap();
        assert!(out.status.success(), "{}", String::from_utf8_lossy(&out.stdout));
        assert_eq!(std::fs::read(&path).unwrap(), b"the old file");
        assert_eq!(names(dir.path()), ["state"]);
    }
}
