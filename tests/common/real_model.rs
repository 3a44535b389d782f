//! Where the real model is; the library's own tests take this file too.

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
