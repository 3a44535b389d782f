//! What the user says, a line at a time: edited in a terminal, as it comes from a pipe.

use std::fs;
use std::io::{self, IsTerminal};
use std::path::PathBuf;

use rustyline::config::Behavior;
use rustyline::error::ReadlineError;
use rustyline::{Config, DefaultEditor};

use crate::failure::{Failure, Result};
use crate::models;

/// Where lines come from.
pub enum Lines {
    /// With editing and history.
    Terminal {
        /// The editor.
        editor: Box<DefaultEditor>,
        /// Where the history is kept, if anywhere.
        history: Option<PathBuf>,
    },
    /// To the end.
    Pipe,
}

impl Lines {
    /// From standard input.
    pub fn new() -> Result<Lines> {
        if !io::stdin().is_terminal() {
            return Ok(Lines::Pipe);
        }
        // The prompt goes to the terminal even where standard output does not.
        let config = Config::builder().behavior(Behavior::PreferTerm).auto_add_history(true).build();
        let mut editor = Box::new(DefaultEditor::with_config(config).map_err(failed)?);
        let history = models::directory().ok().map(|dir| dir.join("history"));
        if let Some(path) = &history {
            // There is none yet the first time.
            let _ = editor.load_history(path);
        }
        Ok(Lines::Terminal { editor, history })
    }

    /// Whether somebody sits there.
    pub fn is_interactive(&self) -> bool {
        matches!(self, Lines::Terminal { .. })
    }

    /// The next one; `None` at the end.
    pub fn next(&mut self) -> Result<Option<String>> {
        match self {
            Lines::Terminal { editor, .. } => loop {
                match editor.readline("> ") {
                    Ok(line) => return Ok(Some(line)),
                    Err(ReadlineError::Interrupted) => eprintln!("Ctrl-D leaves."),
                    Err(ReadlineError::Eof) => return Ok(None),
                    Err(e) => return Err(failed(e)),
                }
            },
            Lines::Pipe => {
                let mut line = String::new();
                match io::stdin().read_line(&mut line) {
                    Ok(0) => Ok(None),
                    Ok(_) => Ok(Some(line)),
                    Err(e) if e.kind() == io::ErrorKind::InvalidData => {
                        Err(Failure::Usage("standard input is not UTF-8".into()))
                    }
                    Err(e) => Err(Failure::Runtime(format!("cannot read standard input: {e}"))),
                }
            }
        }
    }
}

impl Drop for Lines {
    fn drop(&mut self) {
        // A history that cannot be kept is no reason to fail.
        if let Lines::Terminal { editor, history: Some(path) } = self {
            let _ = path.parent().map(fs::create_dir_all);
            let _ = editor.save_history(path);
        }
    }
}

fn failed(e: ReadlineError) -> Failure {
    Failure::Runtime(format!("cannot read from the terminal: {e}"))
}
