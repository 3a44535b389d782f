//! Where the real model is; the library's own tests take this file too.
// Each user takes a part of it.
#![allow(dead_code)]

use std::path::PathBuf;

/// The real 270M file: where CARAT_TEST_MODEL says, else in the user's cache directory. Says so when it is missing.
pub fn real_model() -> Option<PathBuf> {
    let path = std::env::var_os("CARAT_TEST_MODEL").map(PathBuf::from).or_else(|| {
        let cache = std::env::var_os("XDG_CACHE_HOME")
            .map(PathBuf::from)
            .or_else(|| Some(PathBuf::from(std::env::var_os("HOME")?).join(".cache")))?;
        Some(cache.join("carat/gemma-3-270m-q4_k_m.gguf"))
    });
    let found = path.filter(|p| p.exists());
    if found.is_none() {
        eprintln!("SKIPPED: the real model is not here: run `make test`, or set CARAT_TEST_MODEL");
    }
    found
}

/// Whether the tests run on an emulated processor, some hundred times slower than a real one. Their script says so.
pub fn emulated() -> bool {
    std::env::var_os("CARAT_EMULATED").is_some()
}

/// The real model, for a test that computes hundreds of tokens with it: not on an emulated processor, where it would take
/// hours. Kernels have the same bits there as on a real one that is told to use them, which other runs do.
pub fn real_model_at_length() -> Option<PathBuf> {
    if emulated() {
        eprintln!("SKIPPED: too long for an emulated processor");
        return None;
    }
    real_model()
}
