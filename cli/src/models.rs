//! Where models lie on this machine.

use std::path::PathBuf;

use crate::failure::{Failure, Result};

/// The default model's file name.
pub const DEFAULT_MODEL: &str = "gemma-3-270m-q4_k_m.gguf";

/// The directory of models: `CARAT_MODELS`, else `carat` in the user's cache directory.
pub fn directory() -> Result<PathBuf> {
    let var = |name: &str| std::env::var_os(name).filter(|v| !v.is_empty()).map(PathBuf::from);
    if let Some(dir) = var("CARAT_MODELS") {
        return Ok(dir);
    }
    let cache = if cfg!(windows) {
        var("LOCALAPPDATA")
    } else if cfg!(target_os = "macos") {
        var("HOME").map(|home| home.join("Library").join("Caches"))
    } else {
        // Relative paths are to be ignored, says the XDG base directory specification.
        var("XDG_CACHE_HOME")
            .filter(|dir| dir.is_absolute())
            .or_else(|| var("HOME").map(|home| home.join(".cache")))
    };
    cache.map(|dir| dir.join("carat")).ok_or_else(|| {
        Failure::Usage(
            "no home directory: say where models lie with CARAT_MODELS, or give one with -m".into(),
        )
    })
}

/// Where the default model lies, whether or not it is there.
pub fn default_model() -> Result<PathBuf> {
    Ok(directory()?.join(DEFAULT_MODEL))
}
