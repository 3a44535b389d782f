//! Ctrl-C: stops what is being done, through the library's cancel token.

use std::sync::Mutex;

use carat::CancelToken;

use crate::failure::{Failure, Result};

/// What the next Ctrl-C stops.
static CURRENT: Mutex<Option<CancelToken>> = Mutex::new(None);

/// From here on Ctrl-C sets the token of the work under way; a second one, or one without work, ends the program.
pub fn install() -> Result {
    ctrlc::set_handler(|| {
        let current = CURRENT.lock().unwrap_or_else(|e| e.into_inner());
        match &*current {
            Some(token) if !token.is_cancelled() => token.cancel(),
            _ => std::process::exit(130),
        }
    })
    .map_err(|e| Failure::Runtime(format!("cannot listen for Ctrl-C: {e}")))
}

/// A fresh token for work that begins now: what went before can no longer be stopped.
pub fn token() -> CancelToken {
    let token = CancelToken::new();
    *CURRENT.lock().unwrap_or_else(|e| e.into_inner()) = Some(token.clone());
    token
}

/// Nothing is under way: Ctrl-C ends the program.
pub fn idle() {
    *CURRENT.lock().unwrap_or_else(|e| e.into_inner()) = None;
}
