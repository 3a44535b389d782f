//! `carat chat`: a conversation in a terminal, or with what a pipe says line by line.

mod lines;

use carat::chat::Role;
use carat::{ContextPolicy, Conversation, ErrorKind, FinishReason, Model, Reply, Session, SessionOptions};

use crate::args::{DraftArgs, ModelArgs, SamplingArgs, SessionArgs};
use crate::failure::{Failure, Result};
use crate::interrupt;
use crate::output::Stream;
use crate::run::describe;
use lines::Lines;

/// Arguments of `carat chat`.
#[derive(Debug, clap::Args)]
pub struct Args {
    /// What the model is told before the first turn
    #[arg(long, value_name = "TEXT")]
    system: Option<String>,
    /// Forget the oldest turns when the context is full, instead of stopping
    #[arg(long)]
    drop_oldest: bool,
    #[command(flatten)]
    model: ModelArgs,
    #[command(flatten)]
    session: SessionArgs,
    #[command(flatten)]
    draft: DraftArgs,
    #[command(flatten)]
    sampling: SamplingArgs,
}

const HELP: &str = "\
/reset            forget the conversation, but for the system's text
/regenerate       answer the last question again
/system [TEXT]    show, or change, what the model is told before the first turn
/save FILE        save the conversation
/load FILE        go on with one that was saved
/quit, Ctrl-D     leave
Ctrl-C            stop an answer";

/// Asks and answers until there is no more input.
pub fn run(args: &Args) -> Result {
    let model = args.model.open(&interrupt::token())?;
    let mut options = args.session.options();
    options.draft = args.draft.draft;
    let conversation = Conversation::new(Session::new(&model, options.clone())?, args.system.as_deref())?;
    let mut chat = Chat { args, model: &model, options, conversation };
    chat.conversation.set_context_policy(chat.policy());
    interrupt::idle();
    let mut lines = Lines::new()?;
    if lines.is_interactive() {
        eprintln!("Ctrl-C stops an answer, Ctrl-D leaves, /help tells more.");
    }
    while let Some(line) = lines.next()? {
        let line = line.trim();
        let done = match line.split_once(char::is_whitespace).map_or((line, ""), |(c, rest)| (c, rest.trim()))
        {
            ("", _) => Ok(()),
            ("/quit" | "/exit", _) => return Ok(()),
            ("/help", _) => {
                eprintln!("{HELP}");
                Ok(())
            }
            ("/reset", "") => {
                chat.conversation.reset();
                Ok(())
            }
            ("/regenerate", "") => chat.answer(None),
            ("/system", text) => chat.system(text),
            ("/save", path) if !path.is_empty() => chat.save(path),
            ("/load", path) if !path.is_empty() => chat.load(path),
            (command, _) if command.starts_with('/') => {
                eprintln!("carat: {command}: no such command, or not used so:\n{HELP}");
                Ok(())
            }
            _ => chat.answer(Some(line)),
        };
        interrupt::idle();
        match done {
            // What was asked cannot be done, but something else can.
            Err(Failure::Carat(e)) if matches!(e.kind(), ErrorKind::Usage | ErrorKind::File) => {
                eprintln!("carat: {e}");
            }
            Err(Failure::Cancelled) => eprintln!("carat: cancelled"),
            Err(Failure::Usage(message)) => eprintln!("carat: {message}"),
            other => other?,
        }
    }
    Ok(())
}

struct Chat<'a> {
    args: &'a Args,
    model: &'a Model,
    options: SessionOptions,
    conversation: Conversation,
}

impl Chat<'_> {
    fn policy(&self) -> ContextPolicy {
        if self.args.drop_oldest { ContextPolicy::DropOldest } else { ContextPolicy::Stop }
    }

    /// Prints an answer to a question, or another to the last one.
    fn answer(&mut self, question: Option<&str>) -> Result {
        let cancel = interrupt::token();
        let options = self.args.sampling.options(usize::MAX, &cancel);
        let mut out = Stream::new();
        let write = |piece: carat::Piece<'_>| out.write(piece.text);
        let reply = match question {
            None => self.conversation.regenerate(&options, write)?,
            Some(question) => self.conversation.send(question, &options, write)?,
        };
        out.finish()?;
        if question.is_none() {
            // The answer before the one that was asked for again.
            let before = self.conversation.turns().rev().nth(2).map_or(0, |t| t.tokens.end);
            if let Some(n @ 1..) = before.checked_sub(reply.summary.reused_tokens) {
                eprintln!("carat: {n} tokens from before the question were processed again");
            }
        }
        self.tell(&reply);
        Ok(())
    }

    fn tell(&self, reply: &Reply) {
        if !reply.dropped.is_empty() {
            eprintln!("carat: the context was full: the oldest {} turns are forgotten", reply.dropped.len());
        }
        match reply.summary.reason {
            FinishReason::ContextFull => eprintln!(
                "carat: the context of {} tokens is full: /reset, or begin again with a larger one (-c)",
                self.conversation.session().context()
            ),
            FinishReason::Cancelled => eprintln!("carat: stopped"),
            _ => {}
        }
        if self.args.model.verbose {
            eprintln!("carat: {}", describe(&reply.summary));
        }
    }

    fn system(&mut self, text: &str) -> Result {
        if text.is_empty() {
            eprintln!("{}", self.conversation.system().unwrap_or("(nothing)"));
            return Ok(());
        }
        Ok(self.conversation.set_system(Some(text))?)
    }

    fn save(&mut self, path: &str) -> Result {
        let turns = self.conversation.turns().count();
        if turns == 0 {
            return Err(Failure::Usage("there is nothing to save yet".into()));
        }
        self.conversation.save(path, Some(&interrupt::token()))?;
        eprintln!("carat: saved {} questions and answers to {path}", turns / 2);
        Ok(())
    }

    fn load(&mut self, path: &str) -> Result {
        let cancel = interrupt::token();
        self.conversation = Conversation::load(self.model, self.options.clone(), path, Some(&cancel))?;
        self.conversation.set_context_policy(self.policy());
        eprintln!("carat: loaded {} questions and answers", self.conversation.turns().count() / 2);
        if let Some(system) = self.conversation.system() {
            eprintln!("carat: the system's text: {system}");
        }
        // Where it ended.
        let last: Vec<_> = self.conversation.turns().rev().take(2).collect();
        for turn in last.iter().rev() {
            let mark = if turn.role == Role::User { "> " } else { "" };
            eprintln!("{mark}{}", turn.text.trim_end());
        }
        Ok(())
    }
}
