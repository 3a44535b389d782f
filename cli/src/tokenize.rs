//! `carat tokenize`: the ids of a text.

use carat::gguf::Gguf;
use carat::{EncodeOptions, Engine, Tokenizer, TokenizerOptions};
use clap::ValueEnum;
use std::path::PathBuf;

use crate::failure::Result;
use crate::{input, interrupt, output, pull};

/// Arguments of `carat tokenize`.
#[derive(Debug, clap::Args)]
pub struct Args {
    /// The text [default: standard input, to the byte]
    text: Option<String>,
    /// The model whose vocabulary to use; a file without tensors will do
    #[arg(short, long, value_name = "GGUF")]
    model: Option<PathBuf>,
    /// Take control tokens written out in the text, such as <start_of_turn>, for what they name
    #[arg(long)]
    special: bool,
    /// Which implementation to use: the ids are the same
    #[arg(long, value_enum, default_value = "builtin")]
    engine: EngineName,
}

#[derive(Clone, Copy, Debug, ValueEnum)]
enum EngineName {
    /// carat's own
    Builtin,
    /// Google's SentencePiece, where it is built in
    Sentencepiece,
}

/// Prints the ids on one line, without a beginning-of-sequence token.
pub fn run(args: &Args) -> Result {
    let text = input::text(args.text.as_deref(), "text")?;
    let cancel = interrupt::token();
    let path = match &args.model {
        Some(path) => path.clone(),
        None => pull::default_model(&cancel)?,
    };
    let mut options = TokenizerOptions::default();
    options.engine = match args.engine {
        EngineName::Builtin => Engine::Builtin,
        EngineName::Sentencepiece => Engine::SentencePiece,
    };
    options.cancel = Some(cancel.clone());
    let tokenizer = Tokenizer::from_gguf(&Gguf::open(path)?, &options)?;
    let mut options = EncodeOptions::default();
    options.special = args.special;
    options.cancel = Some(cancel);
    let ids = tokenizer.encode_with(text, &options)?;
    let mut line = ids.iter().map(u32::to_string).collect::<Vec<_>>().join(" ");
    line.push('\n');
    output::emit(line)
}
