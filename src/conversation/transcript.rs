//! What was said, as texts and as the ids that stand for it.

use std::ops::Range;

use crate::tokenizer::Tokenizer;
use crate::{CancelToken, Result, chat};

/// What a user said and what the model answered.
#[derive(Clone, Debug)]
pub(super) struct Exchange {
    pub(super) user: String,
    pub(super) answer: String,
    /// Where its ids begin: with those that close the turn before, or with the beginning of the sequence.
    pub(super) begin: usize,
    /// The user's `<start_of_turn>`.
    pub(super) user_at: usize,
    /// The model's `<start_of_turn>`.
    pub(super) model_at: usize,
    /// What the model itself said.
    pub(super) answer_ids: Range<usize>,
}

/// A whole conversation. The last turn of the model is never closed: the next exchange does that.
#[derive(Clone, Debug, Default)]
pub(super) struct Transcript {
    pub(super) system: Option<String>,
    pub(super) ids: Vec<u32>,
    pub(super) exchanges: Vec<Exchange>,
}

impl Transcript {
    /// Adds a turn of the user and opens the model's.
    pub(super) fn ask(&mut self, t: &Tokenizer, user: &str, cancel: Option<&CancelToken>) -> Result<()> {
        self.push(t, user, "", &chat::model_opening(t)?, cancel)
    }

    /// Adds an exchange of which there are only the texts.
    pub(super) fn quote(
        &mut self,
        t: &Tokenizer,
        user: &str,
        answer: &str,
        cancel: Option<&CancelToken>,
    ) -> Result<()> {
        self.push(t, user, answer, &chat::model_turn(t, answer, cancel)?, cancel)
    }

    /// Adds an exchange, given the ids of the model's turn from its `<start_of_turn>` on.
    fn push(
        &mut self,
        t: &Tokenizer,
        user: &str,
        answer: &str,
        model: &[u32],
        cancel: Option<&CancelToken>,
    ) -> Result<()> {
        let begin = self.ids.len();
        let first = self.exchanges.is_empty();
        let before = if first { vec![t.bos()] } else { chat::close_model_turn(t)? };
        let system = if first { self.system.as_deref() } else { None };
        let asked = chat::user_turn(t, system, user, cancel)?;
        let user_at = begin + before.len();
        let model_at = user_at + asked.len();
        let opening = chat::model_opening(t)?.len().min(model.len());
        self.ids.extend(before);
        self.ids.extend(asked);
        self.ids.extend(model);
        self.exchanges.push(Exchange {
            user: user.into(),
            answer: answer.into(),
            begin,
            user_at,
            model_at,
            answer_ids: model_at + opening..model_at + model.len(),
        });
        Ok(())
    }

    /// Adds what the model went on to say.
    pub(super) fn answer(&mut self, ids: &[u32]) {
        self.ids.extend(ids);
        if let Some(e) = self.exchanges.last_mut() {
            e.answer_ids.end = self.ids.len();
        }
    }

    /// Keeps the first `n` exchanges.
    pub(super) fn keep(&mut self, n: usize) {
        if let Some(e) = self.exchanges.get(n) {
            self.ids.truncate(e.begin);
            self.exchanges.truncate(n);
        }
    }

    /// The same without the first `n` exchanges, where the first that is left is told the system's text. The ids of
    /// answers stay what they are.
    pub(super) fn without_oldest(
        &self,
        t: &Tokenizer,
        n: usize,
        cancel: Option<&CancelToken>,
    ) -> Result<Transcript> {
        let mut new = Transcript { system: self.system.clone(), ..Default::default() };
        for e in &self.exchanges[n..] {
            new.push(t, &e.user, &e.answer, &self.ids[e.model_at..e.answer_ids.end], cancel)?;
        }
        Ok(new)
    }
}
