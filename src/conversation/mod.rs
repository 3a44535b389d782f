//! A user and a model in turn, over one session.
//!
//! What was said is kept as ids in a [`Transcript`]; the session is the cache of a beginning of it, or of one that was
//! left. Every call writes down the ids that it wants processed, keeps the longest beginning that the session can go
//! back to, and processes the rest. A call that fails leaves the transcript as it was.

mod saved;
mod snapshots;
mod transcript;

use std::ops::{ControlFlow, Range};
use std::time::Instant;

use crate::chat::{self, Role, Turn};
use crate::generate::{GenerateOptions, Piece, Summary};
use crate::session::Session;
use crate::{CancelToken, Error, Result};
use snapshots::Snapshots;
use transcript::Transcript;

/// What to do when the context is full.
#[derive(Clone, Copy, PartialEq, Eq, Hash, Debug, Default)]
#[non_exhaustive]
pub enum ContextPolicy {
    /// An answer ends ([`FinishReason::ContextFull`](crate::FinishReason::ContextFull)); a turn that does not fit is an error.
    #[default]
    Stop,
    /// Forget the oldest turns, a question and its answer at a time, until what is left takes at most three quarters
    /// of the context. The beginning of the sequence and the system's text stay. What is left is processed again,
    /// with the arithmetic of a prompt. The last question is never dropped: when it alone does not fit, as [`Self::Stop`].
    DropOldest,
}

/// One of the turns of a [`Conversation`].
#[derive(Clone, PartialEq, Eq, Debug)]
#[non_exhaustive]
pub struct ConversationTurn<'a> {
    /// The user or the model.
    pub role: Role,
    /// What was said: a user's text as it was given, a model's as it was emitted.
    pub text: &'a str,
    /// Where it lies in the conversation's tokens. A user's turn includes the beginning of the model's, a model's is
    /// what was generated alone.
    pub tokens: Range<usize>,
}

/// A turn that is no longer part of the conversation.
#[derive(Clone, PartialEq, Eq, Debug)]
#[non_exhaustive]
pub struct DroppedTurn {
    /// The user or the model.
    pub role: Role,
    /// What was said.
    pub text: String,
}

/// What a turn of the model was like. Its text is that of the last of [`Conversation::turns`].
#[derive(Clone, PartialEq, Debug)]
#[non_exhaustive]
pub struct Reply {
    /// Why it ended, with counts and times. The prompt is the whole conversation: [`Summary::reused_tokens`] of it
    /// the session held, [`Summary::prompt_tokens`] were processed.
    pub summary: Summary,
    /// The turns dropped to make room, oldest first: see [`ContextPolicy::DropOldest`].
    pub dropped: Vec<DroppedTurn>,
}

/// Bytes of text that a token stands for, in the plan: Gemma's run at 4 or 5 in most languages.
const TEXT_BYTES_A_TOKEN: usize = 8;

/// The most memory that a conversation takes besides its session and snapshots, when the context is full of such text.
pub(crate) fn most_bytes(context: usize) -> usize {
    // The ids as they are and as they will be, lists that grow by doubling; those of the last question twice.
    let ids = 2 * 2 + 2 + 1;
    // The texts in the same way; those of the last question as a turn, and as the tokenizer wants it.
    let texts = 2 + 2;
    context * (ids * size_of::<u32>() + texts * TEXT_BYTES_A_TOKEN)
}

/// A conversation with a model in Gemma's turns (see [`chat`]).
///
/// The ids that the model generated are kept as they came. When an answer ended by a limit, a stop string or a
/// cancellation, its turn is closed when the next begins. Before each question the sliding windows are copied
/// ([`SessionOptions::snapshots`](crate::SessionOptions::snapshots)), so that asking again or otherwise processes
/// nothing but the last question, however long the answer was.
pub struct Conversation {
    session: Session,
    transcript: Transcript,
    snapshots: Snapshots,
    policy: ContextPolicy,
}

impl Conversation {
    /// An empty conversation over a session. The tokens that the session holds are used where the conversation turns
    /// out to begin like them. The memory for the snapshots is taken here.
    ///
    /// # Errors
    /// [`Error::OutOfMemory`], [`Error::Vocabulary`].
    pub fn new(session: Session, system: Option<&str>) -> Result<Conversation> {
        session.model().tokenizer()?;
        Ok(Conversation {
            snapshots: Snapshots::new(&session, Vec::new())?,
            transcript: Transcript { system: system.map(Into::into), ..Default::default() },
            session,
            policy: ContextPolicy::default(),
        })
    }

    /// Goes on with the conversation whose tokens a session holds, such as one that was saved by itself
    /// ([`Session::save`], [`Session::load`]; for whole conversations see [`Self::save`]). All ids stay what they are.
    /// A system's text is part of the first question then. A last question without an answer is left out.
    ///
    /// # Errors
    /// [`Error::Chat`] where the tokens are not a conversation, and as [`Self::new`].
    pub fn resume(session: Session) -> Result<Conversation> {
        let transcript = Transcript::read(session.model().tokenizer()?, session.tokens())?;
        Ok(Conversation { transcript, ..Conversation::new(session, None)? })
    }

    /// What to do when the context is full. [`ContextPolicy::Stop`] unless set.
    pub fn set_context_policy(&mut self, policy: ContextPolicy) {
        self.policy = policy;
    }

    /// What was set.
    pub fn context_policy(&self) -> ContextPolicy {
        self.policy
    }

    /// Says something to the model and generates its answer. `on_piece` is called for every token, on this thread.
    ///
    /// Once the model is at work, cancelling is not an error: the answer is what was emitted until then, perhaps
    /// nothing.
    ///
    /// # Errors
    /// [`Error::Cancelled`] while the text is still being encoded, [`Error::PromptTooLong`], and those of
    /// [`Session::generate`]: the conversation is as it was.
    pub fn send(
        &mut self,
        text: &str,
        options: &GenerateOptions,
        on_piece: impl FnMut(Piece<'_>) -> ControlFlow<()>,
    ) -> Result<Reply> {
        let transcript = self.transcript.clone();
        self.ask(transcript, text, options, on_piece)
    }

    /// Drops the last answer and generates another.
    ///
    /// # Errors
    /// [`Error::Chat`] where there is none, and as [`Self::send`].
    pub fn regenerate(
        &mut self,
        options: &GenerateOptions,
        on_piece: impl FnMut(Piece<'_>) -> ControlFlow<()>,
    ) -> Result<Reply> {
        let (transcript, text) = self.without_last()?;
        self.ask(transcript, &text, options, on_piece)
    }

    /// Drops the last answer and question, and says something else.
    ///
    /// # Errors
    /// As [`Self::regenerate`].
    pub fn edit_last(
        &mut self,
        text: &str,
        options: &GenerateOptions,
        on_piece: impl FnMut(Piece<'_>) -> ControlFlow<()>,
    ) -> Result<Reply> {
        let (transcript, _) = self.without_last()?;
        self.ask(transcript, text, options, on_piece)
    }

    /// Takes a whole conversation, as a service does that is told all of it each time, and answers its last turn.
    ///
    /// Turns that are equal to those held keep their ids; of the others the longest beginning whose ids are equal is
    /// kept. [`Summary::reused_tokens`] tells how much that was.
    ///
    /// # Errors
    /// [`Error::Chat`] when the turns are not: at most one of the system, then user and model in turn, the last the
    /// user's; and as [`Self::send`].
    pub fn respond(
        &mut self,
        turns: &[Turn<'_>],
        options: &GenerateOptions,
        on_piece: impl FnMut(Piece<'_>) -> ControlFlow<()>,
    ) -> Result<Reply> {
        let (system, turns) = chat::check(turns)?;
        let cancel = options.cancel.as_ref();
        let model = self.session.model().clone();
        let tokenizer = model.tokenizer()?;
        let (pairs, last) = turns.as_chunks::<2>();
        let mut transcript = self.with_system(system, cancel)?;
        let equal = (transcript.exchanges.iter().zip(pairs))
            .take_while(|(e, [user, answer])| e.user == user.text && e.answer == answer.text)
            .count();
        transcript.keep(equal);
        for [user, answer] in &pairs[equal..] {
            transcript.quote(tokenizer, user.text, answer.text, cancel)?;
        }
        self.ask(transcript, last[0].text, options, on_piece)
    }

    /// The turns so far, without the system's.
    pub fn turns(&self) -> impl DoubleEndedIterator<Item = ConversationTurn<'_>> {
        self.transcript.exchanges.iter().flat_map(|e| {
            [
                ConversationTurn { role: Role::User, text: &e.user, tokens: e.user_at..e.answer_ids.start },
                ConversationTurn { role: Role::Model, text: &e.answer, tokens: e.answer_ids.clone() },
            ]
        })
    }

    /// The tokens of the conversation. The session holds them too, or, after a call that was cancelled or failed, a
    /// beginning of them.
    pub fn tokens(&self) -> &[u32] {
        &self.transcript.ids
    }

    /// The system's text.
    pub fn system(&self) -> Option<&str> {
        self.transcript.system.as_deref()
    }

    /// Changes the system's text. As it is part of the first turn, everything is processed again when the
    /// conversation goes on.
    ///
    /// # Errors
    /// Those of [`Tokenizer::encode_with`](crate::Tokenizer::encode_with).
    pub fn set_system(&mut self, system: Option<&str>) -> Result<()> {
        self.transcript = self.with_system(system, None)?;
        Ok(())
    }

    /// Forgets all turns, and keeps the system's text.
    pub fn reset(&mut self) {
        self.transcript.keep(0);
    }

    /// The session below.
    pub fn session(&self) -> &Session {
        &self.session
    }

    /// Gives back memory that can be had again, as [`Session::trim`] does. Snapshots stay: without them the whole
    /// conversation might have to be processed again.
    pub fn trim(&mut self) {
        self.session.trim();
    }

    /// Gives it back.
    pub fn into_session(self) -> Session {
        self.session
    }

    fn with_system(&self, system: Option<&str>, cancel: Option<&CancelToken>) -> Result<Transcript> {
        let mut transcript = self.transcript.clone();
        if transcript.system.as_deref() != system {
            transcript.system = system.map(Into::into);
            transcript = transcript.without_oldest(self.session.model().tokenizer()?, 0, cancel)?;
        }
        Ok(transcript)
    }

    /// The transcript without the last exchange, and its question.
    fn without_last(&self) -> Result<(Transcript, String)> {
        let Some(last) = self.transcript.exchanges.last() else {
            return Err(Error::Chat { turn: 0, what: "there is none, expected the user's".into() });
        };
        let mut transcript = self.transcript.clone();
        transcript.keep(transcript.exchanges.len() - 1);
        Ok((transcript, last.user.clone()))
    }

    /// Adds a question to `transcript`, generates the answer, and makes it the conversation's.
    fn ask(
        &mut self,
        mut transcript: Transcript,
        text: &str,
        options: &GenerateOptions,
        mut on_piece: impl FnMut(Piece<'_>) -> ControlFlow<()>,
    ) -> Result<Reply> {
        let began = Instant::now();
        let cancel = options.cancel.as_ref();
        let model = self.session.model().clone();
        transcript.ask(model.tokenizer()?, text, cancel)?;
        let Conversation { session, snapshots, policy, .. } = self;
        let context = session.context();
        let mut dropped = Vec::new();
        // A context that the question fills to the brim leaves no room for an answer.
        if *policy == ContextPolicy::DropOldest && transcript.ids.len() >= context {
            drop_oldest(session, &mut transcript, &mut dropped, cancel)?;
        }
        if transcript.ids.len() > context {
            let used = transcript.exchanges.last().map_or(0, |e| e.begin);
            return Err(Error::PromptTooLong { tokens: transcript.ids.len() - used, context, used });
        }

        let reused = snapshots.rewind(session, &transcript)?;
        let mut answer = String::new();
        let mut summary = match snapshots.advance(session, &transcript, cancel) {
            Err(Error::Cancelled) => Summary::cancelled(session.len() - reused, reused, began.elapsed()),
            other => {
                other?;
                let ahead = session.len() - reused;
                let prepared = began.elapsed();
                let prompt = transcript.ids[session.len()..].to_vec();
                let mut make_room = |session: &mut Session| {
                    transcript.answer(&session.tokens()[transcript.ids.len()..]);
                    if *policy == ContextPolicy::Stop
                        || !drop_oldest(session, &mut transcript, &mut dropped, cancel)?
                    {
                        return Ok(false);
                    }
                    snapshots.rewind(session, &transcript)?;
                    snapshots.advance(session, &transcript, cancel)?;
                    session.prefill_with(&transcript.ids[session.len()..], cancel)?;
                    Ok(true)
                };
                let collect = |piece: Piece<'_>| {
                    answer.push_str(piece.text);
                    on_piece(piece)
                };
                let mut summary = session.run(&prompt, options, None, &mut make_room, collect)?;
                summary.prompt_tokens += ahead;
                summary.prompt_time += prepared;
                summary
            }
        };
        // Where the prompt was cancelled the session holds a beginning only.
        if let Some(ids) = session.tokens().get(transcript.ids.len()..) {
            transcript.answer(ids);
        }
        if let Some(e) = transcript.exchanges.last_mut() {
            e.answer = answer;
        }
        summary.reused_tokens = reused;
        self.transcript = transcript;
        Ok(Reply { summary, dropped })
    }
}

/// Drops as few of the oldest exchanges as leave a quarter of the context free, but not the last. Tells whether
/// what is left has room for another token.
fn drop_oldest(
    session: &Session,
    transcript: &mut Transcript,
    dropped: &mut Vec<DroppedTurn>,
    cancel: Option<&CancelToken>,
) -> Result<bool> {
    let tokenizer = session.model().tokenizer()?;
    let context = session.context();
    let enough = context - context / 4;
    for n in 1..transcript.exchanges.len() {
        let last = n + 1 == transcript.exchanges.len();
        if !last && transcript.ids.len() - transcript.exchanges[n].begin > enough {
            continue;
        }
        let shorter = transcript.without_oldest(tokenizer, n, cancel)?;
        if last || shorter.ids.len() <= enough {
            for e in transcript.exchanges.drain(..n) {
                dropped.push(DroppedTurn { role: Role::User, text: e.user });
                dropped.push(DroppedTurn { role: Role::Model, text: e.answer });
            }
            *transcript = shorter;
            break;
        }
    }
    Ok(transcript.ids.len() < context)
}
