//! Any bytes given as a saved session are refused with an error about the file, or make a session that goes on.
//! Checksums are not looked at when fuzzing.
#![no_main]

use std::path::PathBuf;
use std::sync::LazyLock;

use carat::{Conversation, ErrorKind, GenerateOptions, Model, Session, SessionOptions, Storage};
use libfuzzer_sys::fuzz_target;

static MODEL: LazyLock<Model> = LazyLock::new(|| {
    let bytes = include_bytes!("../../tests/data/tiny-gemma3.gguf").to_vec();
    Model::builder().threads(1).open_storage(vec![Storage::from_bytes(bytes)]).unwrap()
});

static PATH: LazyLock<PathBuf> =
    LazyLock::new(|| std::env::temp_dir().join(format!("carat-fuzz-state-{}", std::process::id())));

fuzz_target!(|bytes: &[u8]| {
    let mut options = SessionOptions::default();
    options.context = Some(64);
    options.batch = 16;
    std::fs::write(&*PATH, bytes).unwrap();
    let loaded = Session::load(&MODEL, options.clone(), &*PATH, None);
    let conversation = Conversation::load(&MODEL, options, &*PATH, None);
    let _ = std::fs::remove_file(&*PATH);
    match conversation {
        Ok(mut conversation) => {
            let mut options = GenerateOptions::default();
            options.max_tokens = 2;
            let quiet = |_: carat::Piece<'_>| std::ops::ControlFlow::Continue(());
            // What does not fit, or was never asked, is an error.
            let _ = conversation.regenerate(&options, quiet);
            let _ = conversation.send("Hi", &options, quiet);
        }
        // A session's tokens need not be a conversation.
        Err(e) => assert!(matches!(e.kind(), ErrorKind::File | ErrorKind::Usage), "{e}"),
    }
    let mut session = match loaded {
        Ok(session) => session,
        Err(e) => {
            assert_eq!(e.kind(), ErrorKind::File, "{e}");
            return;
        }
    };
    let len = session.len();
    assert!(len <= 64);
    match session.step(5) {
        Ok(logits) => assert_eq!(logits.len(), MODEL.config().vocab),
        Err(e) => assert!(len == 64, "{e}"),
    }
    session.truncate(0).unwrap();
    session.prefill(&[2, 3, 4]).unwrap();
});
