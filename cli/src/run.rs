//! `carat run`: goes on with a text.

use carat::chat::{self, Role, Turn};
use carat::{EncodeOptions, FinishReason, Session};

use crate::args::{DraftArgs, ModelArgs, SamplingArgs, SessionArgs};
use crate::failure::{Failure, Result};
use crate::output::Stream;
use crate::{input, interrupt};

/// Arguments of `carat run`.
#[derive(Debug, clap::Args)]
pub struct Args {
    /// The text to go on with [default, and with -: standard input]
    prompt: Option<String>,
    /// Give the text as a user's turn, and print the model's answer: for instruction-tuned models
    #[arg(long)]
    chat: bool,
    #[command(flatten)]
    model: ModelArgs,
    #[command(flatten)]
    session: SessionArgs,
    #[command(flatten)]
    draft: DraftArgs,
    #[command(flatten)]
    sampling: SamplingArgs,
}

/// Enough for a look; -n says otherwise.
const DEFAULT_TOKENS: usize = 128;

/// Prints what comes after the prompt, as it comes.
pub fn run(args: &Args) -> Result {
    let prompt = input::utf8(args.prompt.as_deref(), "prompt")?;
    if prompt.is_empty() {
        return Err(carat::Error::EmptyPrompt.into());
    }
    let cancel = interrupt::token();
    let model = args.model.open(&cancel)?;
    let tokenizer = model.tokenizer()?;
    let ids = if args.chat {
        chat::render(tokenizer, &[Turn::new(Role::User, &prompt)], Some(&cancel))?
    } else {
        let mut options = EncodeOptions::default();
        options.bos = true;
        options.cancel = Some(cancel.clone());
        tokenizer.encode_with(&prompt, &options)?
    };
    let mut session_options = args.session.options();
    session_options.draft = args.draft.draft;
    let mut session = Session::new(&model, session_options)?;
    let options = args.sampling.options(if args.chat { usize::MAX } else { DEFAULT_TOKENS }, &cancel);
    let mut out = Stream::new();
    let summary = session.generate(&ids, &options, |piece| out.write(piece.text))?;
    out.finish()?;
    if args.model.verbose {
        eprintln!("carat: {}", describe(&summary));
    }
    match summary.reason {
        FinishReason::Cancelled => Err(Failure::Cancelled),
        _ => Ok(()),
    }
}

/// One line on a generation.
pub fn describe(s: &carat::Summary) -> String {
    let rate = |n: usize, time: std::time::Duration| n as f64 / time.as_secs_f64().max(1e-9);
    let reason = match s.reason {
        FinishReason::EndOfTurn => "end of turn",
        FinishReason::Limit => "limit",
        FinishReason::Stop(_) => "stop string",
        FinishReason::Callback => "output closed",
        FinishReason::Cancelled => "cancelled",
        FinishReason::ContextFull => "context full",
        _ => "other",
    };
    let drafts = match s.drafted_tokens {
        0 => String::new(),
        n => format!(" ({} of {n} guesses came true)", s.accepted_tokens),
    };
    format!(
        "{} prompt tokens ({} reused) in {:.0} ms, {:.1} tokens/s; {} generated, {:.1} tokens/s{drafts}; ended by: {reason}",
        s.prompt_tokens + s.reused_tokens,
        s.reused_tokens,
        s.prompt_time.as_secs_f64() * 1e3,
        rate(s.prompt_tokens, s.prompt_time),
        s.generated_tokens,
        rate(s.generated_tokens, s.generate_time),
    )
}
