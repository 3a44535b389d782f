//! What was said, as texts and as the ids that stand for it.

use std::ops::Range;

use crate::tokenizer::Tokenizer;
use crate::{CancelToken, Error, Result, chat};

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
    /// The conversation that `ids` are, up to its last answer: a question at the end that is not whole, or whose answer
    /// has not begun, is left out. A system's text is part of the first question.
    pub(super) fn read(t: &Tokenizer, ids: &[u32]) -> Result<Transcript> {
        let wrong = |turn: usize, what: &str| Error::Chat { turn, what: what.into() };
        let closed = |from: usize| ids[from..].iter().position(|&id| id == t.end_of_turn()).map(|n| from + n);
        let starts = ids.iter().enumerate().filter(|(_, id)| **id == t.start_of_turn()).map(|(at, _)| at);
        let starts: Vec<usize> = starts.collect();
        let opening = chat::model_opening(t)?;
        let mut transcript = Transcript::default();
        let mut begin = 0;
        let mut end = 0;
        for (i, &[user_at, model_at]) in starts.as_chunks::<2>().0.iter().enumerate() {
            let before = ids.get(begin..user_at);
            let expected = if i == 0 { vec![t.bos()] } else { chat::close_model_turn(t)? };
            let asked_end = closed(user_at).filter(|&at| at < model_at);
            let asked_end = asked_end.ok_or_else(|| wrong(2 * i, "it does not end"))?;
            let user = t.decode(&ids[user_at + 1..asked_end])?;
            let user = user.strip_prefix("user\n").ok_or_else(|| wrong(2 * i, "it is not the user's"))?;
            if before != Some(&expected[..]) {
                return Err(wrong(2 * i, "something else stands before it"));
            }
            let said_at = model_at + opening.len();
            if !ids[model_at..].starts_with(&opening) {
                if ids.len() < said_at {
                    break;
                }
                return Err(wrong(2 * i + 1, "it is not the model's"));
            }
            end = closed(said_at).unwrap_or(ids.len());
            transcript.exchanges.push(Exchange {
                user: user.into(),
                answer: t.decode(&ids[said_at..end])?,
                begin,
                user_at,
                model_at,
                answer_ids: said_at..end,
            });
            begin = end;
        }
        if transcript.exchanges.is_empty() {
            return Err(wrong(0, "there is none"));
        }
        transcript.ids = ids[..end].to_vec();
        Ok(transcript)
    }

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

#[cfg(test)]
mod tests {
    use super::*;
    use crate::Model;

    #[test]
    fn conversations_are_read_from_their_ids() {
        let model = Model::open("tests/data/tiny-gemma3.gguf").unwrap();
        let t = model.tokenizer().unwrap();
        let mut whole = Transcript { system: Some("Be brief.".into()), ..Default::default() };
        whole.quote(t, "Hello", "Hi there", None).unwrap();
        whole.quote(t, "How are you?", "", None).unwrap();
        whole.ask(t, "And now?", None).unwrap();
        whole.answer(&t.encode(" fine\n").unwrap());

        let read = Transcript::read(t, &whole.ids).unwrap();
        assert_eq!(read.ids, whole.ids);
        assert_eq!(read.exchanges.len(), 3);
        for (found, expected) in read.exchanges.iter().zip(&whole.exchanges) {
            let place = |e: &Exchange| (e.begin, e.user_at, e.model_at, e.answer_ids.clone());
            assert_eq!(place(found), place(expected));
        }
        let said: Vec<_> = read.exchanges.iter().map(|e| (e.user.as_str(), e.answer.as_str())).collect();
        assert_eq!(said, [("Be brief.\n\nHello", "Hi there"), ("How are you?", ""), ("And now?", " fine\n")]);

        // Every beginning of it gives what it holds of the exchanges, or an error; nothing panics.
        for n in 0..whole.ids.len() {
            let begun = whole.exchanges.iter().filter(|e| e.answer_ids.start <= n).count();
            match Transcript::read(t, &whole.ids[..n]) {
                Ok(read) => assert_eq!(read.exchanges.len(), begun, "{n} ids"),
                Err(Error::Chat { .. }) => assert_eq!(begun, 0, "{n} ids"),
                Err(e) => panic!("{e}"),
            }
        }
        // Ids that are no conversation: a mark is missing. (Without one of the last question's there is no answer.)
        for n in 0..whole.exchanges[2].user_at {
            let mut ids = whole.ids.clone();
            if [t.bos(), t.start_of_turn(), t.end_of_turn()].contains(&ids.remove(n)) {
                assert!(matches!(Transcript::read(t, &ids), Err(Error::Chat { .. })), "without id {n}");
            }
        }
    }
}
