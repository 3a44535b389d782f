//! Starting programs that were built with the tests; the command line's tests take this file too.

use std::path::Path;
use std::process::Command;

/// Cargo's own variable for tests on an emulated processor: what they start must run there too.
const RUNNER: &str = if cfg!(target_arch = "aarch64") {
    "CARGO_TARGET_AARCH64_UNKNOWN_LINUX_GNU_RUNNER"
} else {
    "CARGO_TARGET_X86_64_UNKNOWN_LINUX_GNU_RUNNER"
};

/// A program, on the processor that the tests run on.
pub fn command(program: impl AsRef<Path>) -> Command {
    match std::env::var(RUNNER) {
        Ok(runner) if cfg!(target_os = "linux") && !runner.is_empty() => {
            let mut words = runner.split_whitespace();
            let mut command = Command::new(words.next().unwrap());
            command.args(words).arg(program.as_ref());
            command
        }
        _ => Command::new(program.as_ref()),
    }
}
