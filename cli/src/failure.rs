//! What ends the program early, and the exit code that says so.

use std::fmt;
use std::io;
use std::process::ExitCode;

use carat::{Error, ErrorKind};

/// Why a command stopped.
#[derive(Debug)]
pub enum Failure {
    /// The command line, or what it was given to read, is wrong: exit code 2, as clap's own.
    Usage(String),
    /// A file is wrong, missing or not to be had: exit code 3.
    File(String),
    /// The machine or the network could not do it: exit code 1.
    Runtime(String),
    /// What the library says; its kind decides.
    Carat(Error),
    /// Ctrl-C: exit code 130, as shells have it.
    Cancelled,
    /// Nobody reads the output any more: no error.
    OutputClosed,
}

/// The result of a command.
pub type Result<T = (), E = Failure> = std::result::Result<T, E>;

impl Failure {
    /// Tells it on standard error.
    pub fn report(self) -> ExitCode {
        let code = match &self {
            Failure::OutputClosed => return ExitCode::SUCCESS,
            Failure::Runtime(_) => 1,
            Failure::Usage(_) => 2,
            Failure::File(_) => 3,
            Failure::Cancelled => 130,
            Failure::Carat(e) => match e.kind() {
                ErrorKind::Usage => 2,
                ErrorKind::File => 3,
                ErrorKind::Cancelled => 130,
                _ => 1,
            },
        };
        eprintln!("carat: {self}");
        ExitCode::from(code)
    }

    /// Reading or writing a file of the user's.
    pub fn file(path: impl AsRef<std::path::Path>, action: &str, error: io::Error) -> Failure {
        Failure::File(format!("{}: cannot {action}: {error}", path.as_ref().display()))
    }

    /// Writing to standard output.
    pub fn output(error: io::Error) -> Failure {
        match error.kind() {
            io::ErrorKind::BrokenPipe => Failure::OutputClosed,
            _ => Failure::Runtime(format!("cannot write to standard output: {error}")),
        }
    }
}

impl fmt::Display for Failure {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Failure::Usage(m) | Failure::File(m) | Failure::Runtime(m) => f.write_str(m),
            Failure::Carat(e) => e.fmt(f),
            Failure::Cancelled => f.write_str("cancelled"),
            Failure::OutputClosed => f.write_str("standard output was closed"),
        }
    }
}

impl From<Error> for Failure {
    fn from(e: Error) -> Self {
        match e {
            Error::Cancelled => Failure::Cancelled,
            e => Failure::Carat(e),
        }
    }
}
