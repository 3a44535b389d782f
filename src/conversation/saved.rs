//! Saved conversations: a session's state (see `state`), and beside it a transcript, all numbers little-endian:
//!
//! | bytes | what |
//! |---|---|
//! | u32 | 1 where there is a system's text, else 0 |
//! | text | the system's, or an empty one |
//! | u32 | ids |
//! | u32 each | the ids |
//! | u32 | exchanges |
//! | | each: five u32, where it begins, the user's and the model's `<start_of_turn>`, begin and end of the answer; the user's text, the model's |
//!
//! A text is a u32, its bytes, and so many bytes of UTF-8.

use std::path::Path;

use super::snapshots::Snapshots;
use super::transcript::{Exchange, Transcript};
use super::{ContextPolicy, Conversation};
use crate::error::{try_text, try_with_capacity};
use crate::state::{Extras, Found};
use crate::{CancelToken, Error, Model, Result, Session, SessionOptions};

impl Conversation {
    /// Saves the conversation: its session as [`Session::save`] does, the texts of its turns and the system's, and
    /// the snapshots that going back to its last turns takes. [`Session::load`] takes the file too.
    ///
    /// # Errors
    /// As [`Session::save`].
    pub fn save(&self, path: impl AsRef<Path>, cancel: Option<&CancelToken>) -> Result<()> {
        let transcript = self.transcript.to_bytes()?;
        let snapshots = self.snapshots.needed(&self.session);
        self.session.save_with(path.as_ref(), &Extras { transcript: &transcript, snapshots }, cancel)
    }

    /// Opens a conversation that [`Self::save`] wrote, with options of its own, and goes on where it was: turns, the
    /// system's text and ids are the same. Its [`ContextPolicy`] is not part of it.
    ///
    /// Answering the last question again processes that question only, where the options leave room for a snapshot
    /// ([`SessionOptions::snapshots`]) or the windows still reach back so far; else all of the conversation.
    /// [`Summary::prompt_tokens`](crate::Summary::prompt_tokens) tells.
    ///
    /// A file that [`Session::save`] wrote does too, as [`Self::resume`] has it.
    ///
    /// # Errors
    /// Those of [`Session::load`] and [`Self::resume`].
    pub fn load(
        model: &Model,
        options: SessionOptions,
        path: impl AsRef<Path>,
        cancel: Option<&CancelToken>,
    ) -> Result<Conversation> {
        let path = path.as_ref();
        let mut found = Found::default();
        let session = Session::load_with(model, options, path, Some(&mut found), cancel)?;
        if found.transcript.is_empty() {
            return Conversation::resume(session);
        }
        let vocab = model.config().vocab;
        let transcript = Transcript::from_bytes(&found.transcript, vocab)?.ok_or_else(|| Error::State {
            file: path.display().to_string(),
            what: "conversation",
            expected: "texts in UTF-8, and turns one after the other".into(),
            found: "something else".into(),
        })?;
        model.tokenizer()?;
        let snapshots = Snapshots::new(&session, found.snapshots)?;
        Ok(Conversation { session, transcript, snapshots, policy: ContextPolicy::default() })
    }
}

impl Transcript {
    fn to_bytes(&self) -> Result<Vec<u8>> {
        let texts: usize = self.exchanges.iter().map(|e| 28 + e.user.len() + e.answer.len()).sum();
        let system = self.system.as_deref();
        let len = 16 + system.map_or(0, str::len) + 4 * self.ids.len() + texts;
        let mut out = try_with_capacity(len, "a conversation to be saved")?;
        let number = |out: &mut Vec<u8>, n: usize| out.extend((n as u32).to_le_bytes());
        let text = |out: &mut Vec<u8>, text: &str| {
            number(out, text.len());
            out.extend(text.as_bytes());
        };
        number(&mut out, system.is_some() as usize);
        text(&mut out, system.unwrap_or_default());
        number(&mut out, self.ids.len());
        self.ids.iter().for_each(|&id| number(&mut out, id as usize));
        number(&mut out, self.exchanges.len());
        for e in &self.exchanges {
            for at in [e.begin, e.user_at, e.model_at, e.answer_ids.start, e.answer_ids.end] {
                number(&mut out, at);
            }
            text(&mut out, &e.user);
            text(&mut out, &e.answer);
        }
        debug_assert_eq!(out.len(), len);
        Ok(out)
    }

    /// The reverse, or `None` for bytes that are no transcript. Memory is taken only for what is there.
    fn from_bytes(bytes: &[u8], vocab: usize) -> Result<Option<Transcript>> {
        let mut from = Bytes(bytes);
        let Some((system, ids)) = from.beginning() else { return Ok(None) };
        let system = system.map(own).transpose()?;
        let mut transcript = Transcript { system, ..Default::default() };
        transcript.ids = try_with_capacity(ids.len(), WHAT)?;
        transcript.ids.extend(ids.iter().map(|id| u32::from_le_bytes(*id)));
        let known = transcript.ids.iter().all(|&id| (id as usize) < vocab);
        let Some(exchanges) = from.number().filter(|_| known) else { return Ok(None) };
        let mut begin = 0;
        for _ in 0..exchanges {
            let Some((at, user, answer)) = from.exchange() else { return Ok(None) };
            // One after the other, and each with its parts in order.
            if at[0] != begin || !at.is_sorted() || at[4] > transcript.ids.len() {
                return Ok(None);
            }
            begin = at[4];
            let exchange = Exchange {
                user: own(user)?,
                answer: own(answer)?,
                begin: at[0],
                user_at: at[1],
                model_at: at[2],
                answer_ids: at[3]..at[4],
            };
            let bytes = size_of::<Exchange>();
            transcript.exchanges.try_reserve(1).map_err(|_| Error::OutOfMemory { what: WHAT, bytes })?;
            transcript.exchanges.push(exchange);
        }
        Ok((from.0.is_empty() && begin == transcript.ids.len()).then_some(transcript))
    }
}

const WHAT: &str = "a saved conversation";

fn own(text: &str) -> Result<String> {
    let mut own = try_text(text.len(), WHAT)?;
    own.push_str(text);
    Ok(own)
}

/// Bytes still to be read; `None` where they end, or are not what they should be.
struct Bytes<'a>(&'a [u8]);

impl<'a> Bytes<'a> {
    fn take(&mut self, n: usize) -> Option<&'a [u8]> {
        let (now, later) = self.0.split_at_checked(n)?;
        self.0 = later;
        Some(now)
    }

    fn number(&mut self) -> Option<usize> {
        Some(u32::from_le_bytes(*self.take(4)?.first_chunk()?) as usize)
    }

    fn text(&mut self) -> Option<&'a str> {
        let n = self.number()?;
        std::str::from_utf8(self.take(n)?).ok()
    }

    /// The system's text, and the ids.
    fn beginning(&mut self) -> Option<(Option<&'a str>, &'a [[u8; 4]])> {
        let there = self.number().filter(|n| *n < 2)? == 1;
        let system = self.text()?;
        let n = self.number()?;
        Some((there.then_some(system), self.take(n.checked_mul(4)?)?.as_chunks().0))
    }

    /// The places of an exchange, the user's text, the model's.
    fn exchange(&mut self) -> Option<([usize; 5], &'a str, &'a str)> {
        let mut at = [0; 5];
        for at in &mut at {
            *at = self.number()?;
        }
        Some((at, self.text()?, self.text()?))
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn what_is_no_transcript_is_refused() {
        let model = Model::open("tests/data/tiny-gemma3.gguf").unwrap();
        let t = model.tokenizer().unwrap();
        let vocab = model.config().vocab;
        for system in [None, Some("Be brief.".to_string())] {
            let mut whole = Transcript { system, ..Default::default() };
            whole.quote(t, "Hello", "Hi thére", None).unwrap();
            whole.ask(t, "And now?", None).unwrap();
            whole.answer(&t.encode(" fine\n").unwrap());
            let bytes = whole.to_bytes().unwrap();
            let same = Transcript::from_bytes(&bytes, vocab).unwrap().unwrap();
            assert_eq!(format!("{same:?}"), format!("{whole:?}"));

            for n in 0..bytes.len() {
                assert!(Transcript::from_bytes(&bytes[..n], vocab).unwrap().is_none(), "cut after {n}");
            }
            let longer = [&bytes[..], &[0]].concat();
            assert!(Transcript::from_bytes(&longer, vocab).unwrap().is_none());
            let highest = *whole.ids.iter().max().unwrap() as usize;
            assert!(Transcript::from_bytes(&bytes, highest).unwrap().is_none());
            // Whatever bytes are changed, it is refused or a transcript whose parts are where it says.
            for at in 0..bytes.len() {
                for to in [0, 1, 0x7f, 0xff] {
                    let mut other = bytes.clone();
                    other[at] = to;
                    let Some(read) = Transcript::from_bytes(&other, vocab).unwrap() else { continue };
                    for e in &read.exchanges {
                        let places = [e.begin, e.user_at, e.model_at, e.answer_ids.start, e.answer_ids.end];
                        assert!(places.is_sorted() && e.answer_ids.end <= read.ids.len(), "byte {at}");
                    }
                    for n in 0..=read.exchanges.len() {
                        read.without_oldest(t, n, None).unwrap();
                    }
                }
            }
        }
    }
}
