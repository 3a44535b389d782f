//! `carat bench`: tokens a second, and how far that is from what the machine can do.

mod cancel;
mod lookup;
mod work;

use std::path::PathBuf;
use std::time::{Duration, Instant};

use carat::{CancelToken, Limits, Model, Session};
use serde_json::json;

use crate::args::{ModelArgs, SessionArgs, at_least_one};
use crate::failure::{Failure, Result};
use crate::output::{emit, human_bytes};
use crate::{interrupt, models};
use cancel::time_to_stop;
use work::Work;

/// Arguments of `carat bench`.
#[derive(Debug, clap::Args)]
pub struct Args {
    #[command(flatten)]
    model: ModelArgs,
    #[command(flatten)]
    session: SessionArgs,
    /// Tokens of the prompt that is processed; 0 leaves it out
    #[arg(short, long, value_name = "N", default_value_t = 512)]
    prompt: usize,
    /// Tokens that are generated; 0 leaves it out
    #[arg(short = 'n', long, value_name = "N", default_value_t = 64)]
    generate: usize,
    /// Times that each is measured
    #[arg(short, long, value_name = "N", default_value_t = 3, value_parser = at_least_one)]
    repeat: usize,
    /// Measure how long calls go on when they are cancelled, instead: opening, encoding a megabyte, processing a
    /// prompt, generating, scoring, saving. Each is cancelled as often as --repeat says
    #[arg(long)]
    cancel: bool,
    /// Measure guessing ahead instead: the pairs of prompt and answer of a JSON file, with and without
    #[arg(long, value_name = "FILE", conflicts_with_all = ["prompt", "generate"])]
    lookup: Option<PathBuf>,
    /// With --lookup, guess up to this many tokens ahead, at most 15
    #[arg(long, value_name = "N", default_value_t = 15, requires = "lookup")]
    draft: usize,
    /// Print JSON instead of a table
    #[arg(long)]
    json: bool,
}

/// What was measured of one kind of work.
struct Row {
    /// As llama-bench names it: pp512, tg64.
    test: String,
    /// Tokens a second, of every repetition, in ascending order.
    rates: Vec<f64>,
    /// What one repetition takes.
    work: Work,
    tokens: usize,
    /// Whether it is bound by memory, not by multiplying.
    by_memory: bool,
    /// From setting the cancel token to the call's return.
    cancel: Duration,
}

/// Measures and prints.
pub fn run(args: &Args) -> Result {
    if args.prompt == 0 && args.generate == 0 {
        return Err(Failure::Usage("nothing to measure: -p and -n are both 0".into()));
    }
    let cancel = interrupt::token();
    let model = args.model.open(&cancel)?;
    if let Some(file) = &args.lookup {
        return lookup::run(args, file, &model, &cancel);
    }
    let mut options = args.session.options();
    if args.cancel {
        return cancel::run(args, &model, options);
    }
    let needed = args.prompt.max(args.generate);
    options.context = Some(options.context.unwrap_or(needed).max(needed));
    let mut session = Session::new(&model, options)?;
    // A bound that was seen before the work and one after: the machine may have changed its pace.
    let before = Limits::measure(model.threads(), model.isa())?;

    let mut rows = Vec::new();
    if args.prompt > 0 {
        let ids = tokens(&model, args.prompt);
        let work = Work::prefill(&model, &session, args.prompt);
        let test = format!("pp{}", args.prompt);
        rows.push(measure(test, args, work, false, &mut session, &cancel, |session, cancel| {
            session.prefill_with(&ids, Some(cancel))
        })?);
    }
    if args.generate > 0 {
        let ids = tokens(&model, args.generate);
        let work = Work::decode(&model, &session, args.generate);
        let test = format!("tg{}", args.generate);
        rows.push(measure(test, args, work, true, &mut session, &cancel, |session, cancel| {
            ids.iter().try_for_each(|&id| session.step_with(id, Some(cancel)).map(|_| ()))
        })?);
    }
    let after = Limits::measure(model.threads(), model.isa())?;
    let limits = Bounds {
        read: before.read_bytes_per_s.max(after.read_bytes_per_s),
        dot: before.dot_macs_per_s.max(after.dot_macs_per_s),
        fma: before.fma_macs_per_s.max(after.fma_macs_per_s),
    };

    let path = args.model.model.clone().map_or_else(models::default_model, Ok)?;
    emit(if args.json {
        json_text(&model, &path, &limits, &rows)
    } else {
        table(&model, &path, &limits, &rows)
    })
}

/// The machine's limits, in units a second.
struct Bounds {
    read: f64,
    dot: f64,
    fma: f64,
}

/// Runs `pass` once to warm up, then as often as asked, and once more to be cancelled in the middle.
fn measure(
    test: String,
    args: &Args,
    work: Work,
    by_memory: bool,
    session: &mut Session,
    cancel: &CancelToken,
    mut pass: impl FnMut(&mut Session, &CancelToken) -> carat::Result<()>,
) -> Result<Row> {
    let tokens = work.tokens;
    let mut times = Vec::new();
    for round in 0..=args.repeat {
        session.truncate(0)?;
        let began = Instant::now();
        pass(session, cancel)?;
        if round > 0 {
            times.push(began.elapsed());
        }
        if args.model.verbose {
            eprintln!("carat: {test}: {:.2} tokens/s", tokens as f64 / began.elapsed().as_secs_f64());
        }
    }
    let mut rates: Vec<f64> = times.iter().map(|t| tokens as f64 / t.as_secs_f64()).collect();
    rates.sort_by(f64::total_cmp);

    session.truncate(0)?;
    let half = times.iter().min().copied().unwrap_or_default() / 2;
    let cancel = time_to_stop(half, |stop| pass(session, stop))?.unwrap_or_default();
    Ok(Row { test, rates, tokens, work, by_memory, cancel })
}

impl Row {
    fn median(&self) -> f64 {
        let n = self.rates.len();
        (self.rates[(n - 1) / 2] + self.rates[n / 2]) / 2.0
    }

    /// Seconds that a repetition took, at the median.
    fn seconds(&self) -> f64 {
        self.tokens as f64 / self.median()
    }

    /// Bytes, or multiply-adds, a second.
    fn rate(&self) -> f64 {
        let units = if self.by_memory { self.work.bytes } else { self.work.dots + self.work.fmas };
        units / self.seconds()
    }

    /// The part of the time that the machine's limit explains.
    fn share(&self, limits: &Bounds) -> f64 {
        let least = if self.by_memory {
            self.work.bytes / limits.read
        } else {
            self.work.dots / limits.dot + self.work.fmas / limits.fma
        };
        least / self.seconds()
    }

    fn unit(&self) -> &'static str {
        if self.by_memory { "GB/s" } else { "GMAC/s" }
    }
}

/// Ids that are never special, the same each time.
fn tokens(model: &Model, n: usize) -> Vec<u32> {
    let vocab = model.config().vocab as u64;
    let first = vocab.min(512) / 2;
    (0..n as u64).map(|i| (first + (i * 7919 + 13) % (vocab - first)) as u32).collect()
}

fn parameters(model: &Model) -> f64 {
    model.gguf().tensors().iter().map(|t| t.rows() as f64 * t.cols() as f64).sum()
}

fn table(model: &Model, path: &std::path::Path, limits: &Bounds, rows: &[Row]) -> String {
    let name = path.file_stem().unwrap_or_default().to_string_lossy();
    let width = name.len().max(5);
    let mut text = format!(
        "| {:<width$} | {:>9} | {:>9} | {:>7} | {:<11} | {:>8} | {:>20} | {:>14} | {:>9} | {:>9} |\n",
        "model", "size", "params", "threads", "isa", "test", "t/s", "rate", "of limit", "cancel"
    );
    let dashes = |n: usize| "-".repeat(n);
    text += &format!(
        "| {} | {}: | {}: | {}: | {} | {}: | {}: | {}: | {}: | {}: |\n",
        dashes(width),
        dashes(8),
        dashes(8),
        dashes(6),
        dashes(11),
        dashes(7),
        dashes(19),
        dashes(13),
        dashes(8),
        dashes(8)
    );
    for row in rows {
        let spread = (row.rates[row.rates.len() - 1] - row.rates[0]) / 2.0;
        text += &format!(
            "| {:<width$} | {:>9} | {:>7.1} M | {:>7} | {:<11} | {:>8} | {:>20} | {:>14} | {:>7.0} % | {:>9} |\n",
            name,
            human_bytes(model.gguf().file_len()),
            parameters(model) / 1e6,
            model.threads(),
            model.isa().name(),
            row.test,
            format!("{:.2} ± {spread:.2}", row.median()),
            format!("{:.1} {}", row.rate() / 1e9, row.unit()),
            100.0 * row.share(limits),
            format!("{:.1} ms", row.cancel.as_secs_f64() * 1e3),
        );
    }
    text += &format!(
        "\nlimits measured in this run: {:.1} GB/s read, {:.0} GMAC/s of bytes, {:.0} GMAC/s of f32\n",
        limits.read / 1e9,
        limits.dot / 1e9,
        limits.fma / 1e9
    );
    text
}

fn json_text(model: &Model, path: &std::path::Path, limits: &Bounds, rows: &[Row]) -> String {
    let results: Vec<_> = rows
        .iter()
        .map(|row| {
            let gauge = if row.by_memory { "gb_per_s" } else { "gmac_per_s" };
            json!({
                "test": row.test,
                "tokens_per_s": {
                    "median": row.median(),
                    "min": row.rates[0],
                    "max": row.rates[row.rates.len() - 1],
                },
                gauge: row.rate() / 1e9,
                "share_of_limit": row.share(limits),
                "cancel_ms": row.cancel.as_secs_f64() * 1e3,
            })
        })
        .collect();
    let json = json!({
        "model": path,
        "file_bytes": model.gguf().file_len(),
        "parameters": parameters(model),
        "threads": model.threads(),
        "isa": model.isa().name(),
        "limits": {
            "read_gb_per_s": limits.read / 1e9,
            "dot_gmac_per_s": limits.dot / 1e9,
            "fma_gmac_per_s": limits.fma / 1e9,
        },
        "results": results,
    });
    format!("{json:#}\n")
}
