//! Text and ids that commands are given to read.

use std::fs;
use std::io::{self, IsTerminal, Read};
use std::path::Path;

use crate::failure::{Failure, Result};

/// A text from the command line; from standard input, to the byte, where it is `-` or absent.
pub fn text(argument: Option<&str>, what: &str) -> Result<Vec<u8>> {
    match argument {
        Some(text) if text != "-" => Ok(text.into()),
        None if io::stdin().is_terminal() => {
            Err(Failure::Usage(format!("no {what}: give one, or pipe it to standard input")))
        }
        _ => {
            let mut bytes = Vec::new();
            io::stdin()
                .read_to_end(&mut bytes)
                .map_err(|e| Failure::Runtime(format!("cannot read standard input: {e}")))?;
            Ok(bytes)
        }
    }
}

/// As [`text`], where only UTF-8 will do.
pub fn utf8(argument: Option<&str>, what: &str) -> Result<String> {
    String::from_utf8(text(argument, what)?).map_err(|e| {
        Failure::Usage(format!("the {what} is not UTF-8: byte {}", e.utf8_error().valid_up_to()))
    })
}

/// Token ids in a file, separated by spaces, commas or line breaks.
pub fn ids(path: &Path) -> Result<Vec<u32>> {
    let text = fs::read_to_string(path).map_err(|e| Failure::file(path, "read", e))?;
    let words = text.split(|c: char| c.is_ascii_whitespace() || c == ',').filter(|w| !w.is_empty());
    words
        .enumerate()
        .map(|(i, word)| {
            word.parse().map_err(|_| {
                Failure::File(format!(
                    "{}: id {i}: expected a token id, found {:?}",
                    path.display(),
                    word.chars().take(20).collect::<String>()
                ))
            })
        })
        .collect()
}
