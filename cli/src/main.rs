//! The command line of carat.
//!
//! Text goes to standard output, all else to standard error. Exit codes: 1 when the machine or the network could not
//! do it, 2 for a wrong command line or input, 3 for a wrong file, 130 when stopped by Ctrl-C.

mod args;
mod bench;
mod chat;
mod failure;
mod info;
mod input;
mod interrupt;
mod logits;
mod models;
mod output;
mod pull;
mod run;
mod score;
mod synth;
mod tokenize;

use std::process::ExitCode;

use clap::{CommandFactory, Parser};

use failure::Result;

/// Run Google's Gemma models on the CPU.
#[derive(Debug, Parser)]
#[command(name = "carat", version)]
enum Command {
    /// Go on with a text
    Run(run::Args),
    /// Talk with a model, turn by turn
    Chat(chat::Args),
    /// Show what a model file holds, and the memory that it will take
    Info(info::Args),
    /// Print the ids of a text
    Tokenize(tokenize::Args),
    /// Write the logits after every token of a text to a file
    Logits(logits::Args),
    /// Print how likely each token of a text is
    Score(score::Args),
    /// Measure tokens a second, and how far that is from the machine's limits
    Bench(bench::Args),
    /// Fetch a model and print where it lies
    Pull(pull::Args),
    /// Write a file of a published model's exact shapes with random weights, to measure speed and memory
    Synth(synth::Args),
    /// Print a shell's completions
    Completions {
        /// The shell
        shell: clap_complete::Shell,
    },
}

fn main() -> ExitCode {
    match interrupt::install().and_then(|()| run(&Command::parse())) {
        Ok(()) => ExitCode::SUCCESS,
        Err(failure) => failure.report(),
    }
}

fn run(command: &Command) -> Result {
    match command {
        Command::Run(args) => run::run(args),
        Command::Chat(args) => chat::run(args),
        Command::Info(args) => info::run(args),
        Command::Tokenize(args) => tokenize::run(args),
        Command::Logits(args) => logits::run(args),
        Command::Score(args) => score::run(args),
        Command::Bench(args) => bench::run(args),
        Command::Pull(args) => pull::run(args),
        Command::Synth(args) => synthesize(args),
        Command::Completions { shell } => completions(*shell),
    }
}

fn synthesize(args: &synth::Args) -> Result {
    let bar = output::bytes_bar(0, "writing");
    synth::run(args, &interrupt::token(), &mut |done, total| {
        bar.set_length(total);
        bar.set_position(done);
    })?;
    bar.finish_and_clear();
    Ok(())
}

fn completions(shell: clap_complete::Shell) -> Result {
    // Through memory: clap_complete panics when its writer fails.
    let mut script = Vec::new();
    clap_complete::generate(shell, &mut Command::command(), "carat", &mut script);
    output::emit(script)
}
