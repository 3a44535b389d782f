//! Text for standard output, and progress for standard error.

use std::io::{self, Write};
use std::ops::ControlFlow;
use std::time::Duration;

use indicatif::{ProgressBar, ProgressDrawTarget, ProgressStyle};

use crate::failure::{Failure, Result};

/// Writes and flushes, so that a reader at the other end of a pipe has it at once.
pub fn emit(text: impl AsRef<[u8]>) -> Result {
    let mut out = io::stdout().lock();
    out.write_all(text.as_ref()).and_then(|()| out.flush()).map_err(Failure::output)
}

/// A bar of bytes on standard error; nothing where that is no terminal.
pub fn bytes_bar(total: u64, what: &str) -> ProgressBar {
    let bar = ProgressBar::with_draw_target(Some(total), ProgressDrawTarget::stderr());
    bar.set_style(
        ProgressStyle::with_template("{msg} {wide_bar} {bytes}/{total_bytes} {bytes_per_sec} {eta}")
            .expect("the template is sound"),
    );
    bar.set_message(what.to_string());
    bar.enable_steady_tick(Duration::from_millis(200));
    bar
}

/// 1.2 GB and the like.
pub fn human_bytes(bytes: u64) -> String {
    let mut value = bytes as f64;
    for unit in ["B", "kB", "MB", "GB"] {
        if value < 1000.0 {
            return if unit == "B" { format!("{value:.0} B") } else { format!("{value:.1} {unit}") };
        }
        value /= 1000.0;
    }
    format!("{value:.1} TB")
}

/// A model's words on standard output, as they come.
pub struct Stream {
    failed: Option<io::Error>,
    ends_line: bool,
}

impl Stream {
    /// Nothing yet.
    pub fn new() -> Stream {
        Stream { failed: None, ends_line: false }
    }

    /// Writes a piece; breaks off when that is not possible.
    pub fn write(&mut self, text: &str) -> ControlFlow<()> {
        if text.is_empty() {
            return ControlFlow::Continue(());
        }
        self.ends_line = text.ends_with('\n');
        let mut out = io::stdout().lock();
        match out.write_all(text.as_bytes()).and_then(|()| out.flush()) {
            Ok(()) => ControlFlow::Continue(()),
            Err(e) => {
                self.failed = Some(e);
                ControlFlow::Break(())
            }
        }
    }

    /// Ends the line, if need be.
    pub fn finish(self) -> Result {
        match self.failed {
            Some(e) => Err(Failure::output(e)),
            None if self.ends_line => Ok(()),
            None => emit("\n"),
        }
    }
}
