//! Stopping long work from any thread.

use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};

use crate::{Error, Result};

/// A switch that stops the calls it was given to.
///
/// Clones share the switch. It is sticky: once set it stays set, so that a call that has not begun yet stops
/// too. Setting it costs one store and can be done from any thread, a signal handler included.
#[derive(Clone, Default, Debug)]
pub struct CancelToken {
    own: Arc<AtomicBool>,
    /// Another switch that counts as this one.
    outer: Option<Arc<CancelToken>>,
}

impl CancelToken {
    /// A switch that is not set.
    pub fn new() -> Self {
        Self::default()
    }

    /// Sets it, for good.
    pub fn cancel(&self) {
        self.own.store(true, Ordering::Release);
    }

    /// Whether it was set.
    pub fn is_cancelled(&self) -> bool {
        self.own.load(Ordering::Acquire) || self.outer.as_ref().is_some_and(|o| o.is_cancelled())
    }

    /// A switch that is also set when this one is, but not the other way round: for one call among those that this one
    /// stops.
    #[cfg(feature = "capi")]
    pub(crate) fn child(self) -> Self {
        CancelToken { own: Arc::default(), outer: Some(Arc::new(self)) }
    }

    /// [`Error::Cancelled`] once it was set.
    pub fn check(&self) -> Result<()> {
        if self.is_cancelled() { Err(Error::Cancelled) } else { Ok(()) }
    }
}
