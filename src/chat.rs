//! Gemma's turn template: who speaks when, as ids.
//!
//! `<bos>`, then for each turn `<start_of_turn>`, `user` or `model`, a line break, the content without white space
//! around it, `<end_of_turn>` and a line break; at the end an open turn of the model. There is no system role: a
//! system text goes before the first user's content, followed by a blank line
//! (<https://ai.google.dev/gemma/docs/core/prompt-structure>).
//!
//! Control tokens come from the template alone: one written out in somebody's text is text. What stands between two
//! control tokens is encoded as one string, as in training.
//!
//! A conversation that goes on keeps the ids that the model generated, which encoding its text again might not give:
//! it begins with [`Tokenizer::bos`] and [`open_user_turn`], and goes on with [`close_model_turn`] and
//! [`open_user_turn`] after each answer. [`render`] gives the whole at once when there are only texts.

use crate::tokenizer::{EncodeOptions, Tokenizer};
use crate::{CancelToken, Error, Result};

/// Who speaks.
#[derive(Clone, Copy, PartialEq, Eq, Hash, Debug)]
pub enum Role {
    /// Says how to answer; at most once, at the beginning.
    System,
    /// Asks.
    User,
    /// Answers.
    Model,
}

impl Role {
    /// `system`, `user` or `model`.
    pub fn name(self) -> &'static str {
        match self {
            Role::System => "system",
            Role::User => "user",
            Role::Model => "model",
        }
    }
}

impl std::fmt::Display for Role {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.write_str(self.name())
    }
}

/// What one of them says.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub struct Turn<'a> {
    /// Who.
    pub role: Role,
    /// What.
    pub text: &'a str,
}

impl<'a> Turn<'a> {
    /// A turn.
    pub fn new(role: Role, text: &'a str) -> Self {
        Turn { role, text }
    }
}

/// The ids of a whole conversation, from the beginning-of-sequence token to the open turn of the model that is to
/// answer.
///
/// # Errors
///
/// [`Error::Chat`] when the turns are not: at most one of the system, then user and model in turn, the last the
/// user's; and those of [`Tokenizer::encode_with`].
pub fn render(tokenizer: &Tokenizer, turns: &[Turn], cancel: Option<&CancelToken>) -> Result<Vec<u32>> {
    let (mut system, turns) = check(turns)?;
    let mut ids = Ids::new(tokenizer, cancel);
    ids.control(tokenizer.bos())?;
    for turn in turns {
        match turn.role {
            Role::Model => ids.turn(&[MODEL_OPENING, turn.text.trim()])?,
            _ => ids.user_turn(system.take(), turn.text)?,
        }
    }
    ids.open_model_turn()?;
    Ok(ids.ids)
}

/// The system's text and the other turns, of turns that are in the order that [`render`] asks for.
pub(crate) fn check<'a, 't>(turns: &'a [Turn<'t>]) -> Result<(Option<&'t str>, &'a [Turn<'t>])> {
    let wrong = |turn: usize, what: String| Error::Chat { turn, what };
    let (system, begin) = match turns.first() {
        Some(Turn { role: Role::System, text }) => (Some(*text), 1),
        _ => (None, 0),
    };
    for (i, turn) in turns.iter().enumerate().skip(begin) {
        let due = if (i - begin).is_multiple_of(2) { Role::User } else { Role::Model };
        if turn.role != due {
            return Err(wrong(i, format!("it is the {}'s, expected the {due}'s", turn.role)));
        }
    }
    if (turns.len() - begin).is_multiple_of(2) {
        return Err(wrong(turns.len(), "there is none, expected the user's".into()));
    }
    Ok((system, &turns[begin..]))
}

const USER_OPENING: &str = "user\n";
const MODEL_OPENING: &str = "model\n";

/// The ids of a turn of the user and of the beginning of the model's answer. A `system` text is for the first turn of
/// a conversation. Without the beginning-of-sequence token, which the first turn must be preceded by.
///
/// # Errors
///
/// Those of [`Tokenizer::encode_with`].
pub fn open_user_turn(
    tokenizer: &Tokenizer,
    system: Option<&str>,
    content: &str,
    cancel: Option<&CancelToken>,
) -> Result<Vec<u32>> {
    let mut ids = Ids::new(tokenizer, cancel);
    ids.user_turn(system, content)?;
    ids.open_model_turn()?;
    Ok(ids.ids)
}

/// The ids that end a turn: `<end_of_turn>` and a line break. A model that has sampled `<end_of_turn>` has not
/// processed it yet: it is given these too, as one that was stopped otherwise.
///
/// # Errors
///
/// [`Error::OutOfMemory`].
pub fn close_model_turn(tokenizer: &Tokenizer) -> Result<Vec<u32>> {
    let mut ids = Ids::new(tokenizer, None);
    ids.close_turn()?;
    Ok(ids.ids)
}

/// The ids of a turn of the user alone.
pub(crate) fn user_turn(
    tokenizer: &Tokenizer,
    system: Option<&str>,
    content: &str,
    cancel: Option<&CancelToken>,
) -> Result<Vec<u32>> {
    let mut ids = Ids::new(tokenizer, cancel);
    ids.user_turn(system, content)?;
    Ok(ids.ids)
}

/// The ids that open a turn of the model.
pub(crate) fn model_opening(tokenizer: &Tokenizer) -> Result<Vec<u32>> {
    let mut ids = Ids::new(tokenizer, None);
    ids.open_model_turn()?;
    Ok(ids.ids)
}

/// The ids of a turn of the model of which there is only the text, not closed.
pub(crate) fn model_turn(
    tokenizer: &Tokenizer,
    content: &str,
    cancel: Option<&CancelToken>,
) -> Result<Vec<u32>> {
    let mut ids = Ids::new(tokenizer, cancel);
    ids.control(tokenizer.start_of_turn())?;
    ids.text(&[MODEL_OPENING, content.trim()])?;
    Ok(ids.ids)
}

/// Ids in the making.
struct Ids<'t> {
    tokenizer: &'t Tokenizer,
    options: EncodeOptions,
    ids: Vec<u32>,
}

impl<'t> Ids<'t> {
    fn new(tokenizer: &'t Tokenizer, cancel: Option<&CancelToken>) -> Self {
        let options = EncodeOptions { cancel: cancel.cloned(), ..Default::default() };
        Ids { tokenizer, options, ids: Vec::new() }
    }

    fn control(&mut self, id: u32) -> Result<()> {
        let bytes = self.ids.len() * size_of::<u32>() + size_of::<u32>();
        self.ids.try_reserve(1).map_err(|_| Error::OutOfMemory { what: "the token ids", bytes })?;
        self.ids.push(id);
        Ok(())
    }

    /// Encodes the parts as one string, as plain text.
    fn text(&mut self, parts: &[&str]) -> Result<()> {
        let bytes = parts.iter().map(|p| p.len()).sum();
        let mut text = crate::error::try_text(bytes, "the text of a turn")?;
        text.extend(parts.iter().copied());
        self.tokenizer.encode_onto(&text, &self.options, &mut self.ids)
    }

    /// A whole turn: its role's opening and what is said.
    fn turn(&mut self, parts: &[&str]) -> Result<()> {
        self.control(self.tokenizer.start_of_turn())?;
        self.text(parts)?;
        self.close_turn()
    }

    fn user_turn(&mut self, system: Option<&str>, content: &str) -> Result<()> {
        match system {
            Some(system) => self.turn(&[USER_OPENING, system, "\n\n", content.trim()]),
            None => self.turn(&[USER_OPENING, content.trim()]),
        }
    }

    fn close_turn(&mut self) -> Result<()> {
        self.control(self.tokenizer.end_of_turn())?;
        self.text(&["\n"])
    }

    fn open_model_turn(&mut self) -> Result<()> {
        self.control(self.tokenizer.start_of_turn())?;
        self.text(&[MODEL_OPENING])
    }
}
