//! The command line of carat.

mod synth;

use std::process::ExitCode;

use clap::Parser;

/// Run Google's Gemma models on the CPU.
#[derive(Parser)]
#[command(name = "carat", version)]
enum Command {
    /// Write a file of a published model's exact shapes with random weights, to measure speed and memory
    Synth(synth::Args),
}

fn main() -> ExitCode {
    let Command::Synth(args) = Command::parse();
    match synth::run(&args, &carat::CancelToken::new(), &mut |_, _| {}) {
        Ok(()) => ExitCode::SUCCESS,
        Err(error) => {
            eprintln!("carat: {error}");
            ExitCode::FAILURE
        }
    }
}
