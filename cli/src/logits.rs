//! `carat logits`: the logits after every token of a text, for programs to compare.

use std::fs::File;
use std::io::{BufWriter, Write};
use std::path::PathBuf;

use carat::Session;

use crate::args::{ModelArgs, SessionArgs};
use crate::failure::{Failure, Result};
use crate::{input, interrupt};

/// Arguments of `carat logits`.
#[derive(Debug, clap::Args)]
pub struct Args {
    #[command(flatten)]
    model: ModelArgs,
    /// File of token ids, separated by spaces, commas or line breaks; they are taken as they are
    #[arg(long, value_name = "FILE")]
    ids: PathBuf,
    /// File to write: little-endian f32, [ids, vocabulary]
    #[arg(long, value_name = "FILE")]
    out: PathBuf,
    /// Compute with f32 activations and weights dequantized on the fly: slow, and the truth
    #[arg(long)]
    exact: bool,
    #[command(flatten)]
    session: SessionArgs,
}

/// Writes the file. A batch of 1 takes the tokens one step at a time.
pub fn run(args: &Args) -> Result {
    let cancel = interrupt::token();
    let ids = input::ids(&args.ids)?;
    let model = args.model.open(&cancel)?;
    let mut options = args.session.options();
    options.exact = args.exact;
    options.context = options.context.or(Some(ids.len().max(1)));
    let mut session = Session::new(&model, options)?;

    let failed = |e| Failure::file(&args.out, "write", e);
    let mut out = BufWriter::with_capacity(1 << 20, File::create(&args.out).map_err(failed)?);
    let mut bytes = Vec::with_capacity(4 * model.config().vocab);
    let mut write = |logits: &[f32]| {
        bytes.clear();
        bytes.extend(logits.iter().flat_map(|l| l.to_le_bytes()));
        out.write_all(&bytes)
    };
    if args.session.batch == Some(1) {
        if ids.is_empty() {
            return Err(carat::Error::EmptyPrompt.into());
        }
        for &id in &ids {
            write(session.step_with(id, Some(&cancel))?).map_err(failed)?;
        }
    } else {
        let path = args.out.display().to_string();
        session.prefill_each(&ids, Some(&cancel), |_, logits| {
            write(logits).map_err(|source| carat::Error::Io { path: path.clone(), action: "write", source })
        })?;
    }
    out.flush().map_err(failed)
}
