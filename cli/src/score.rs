//! `carat score`: how likely each token of a text is after those before it.

use std::path::PathBuf;

use carat::{EncodeOptions, Session};

use crate::args::{ModelArgs, SessionArgs};
use crate::failure::Result;
use crate::{input, interrupt, output};

/// Arguments of `carat score`.
#[derive(Debug, clap::Args)]
pub struct Args {
    /// The text [default, and with -: standard input]
    #[arg(conflicts_with = "ids")]
    text: Option<String>,
    /// File of token ids to take as they are, instead of a text
    #[arg(long, value_name = "FILE")]
    ids: Option<PathBuf>,
    #[command(flatten)]
    model: ModelArgs,
    #[command(flatten)]
    session: SessionArgs,
}

/// Prints a line for each token: its id, the natural logarithm of its probability, how many tokens were likelier, and
/// its text. The mean and the perplexity go to standard error.
pub fn run(args: &Args) -> Result {
    let text = match args.ids {
        Some(_) => None,
        None => Some(input::utf8(args.text.as_deref(), "text")?),
    };
    let cancel = interrupt::token();
    let model = args.model.open(&cancel)?;
    let tokenizer = model.tokenizer()?;
    let ids = match (&args.ids, text) {
        (Some(path), _) => input::ids(path)?,
        (None, text) => {
            let mut options = EncodeOptions::default();
            options.bos = true;
            options.cancel = Some(cancel.clone());
            tokenizer.encode_with(text.unwrap_or_default(), &options)?
        }
    };
    let mut options = args.session.options();
    options.context = options.context.or(Some(ids.len().max(1)));
    let scores = Session::new(&model, options)?.score(&ids, 0, Some(&cancel))?;

    let mut lines = String::new();
    for score in &scores {
        let piece = String::from_utf8_lossy(tokenizer.piece(score.token).unwrap_or_default()).into_owned();
        lines += &format!("{}\t{:.6}\t{}\t{piece:?}\n", score.token, score.log_prob, score.rank);
    }
    output::emit(lines)?;
    let mean = scores.iter().map(|s| s.log_prob as f64).sum::<f64>() / scores.len().max(1) as f64;
    eprintln!(
        "carat: {} tokens scored, mean log-probability {mean:.4}, perplexity {:.3}",
        scores.len(),
        (-mean).exp()
    );
    Ok(())
}
