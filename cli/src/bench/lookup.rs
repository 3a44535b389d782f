//! `carat bench --lookup`: generating answers that are given, with and without guessing ahead.
//!
//! Each answer is forced, token for token, so that what is measured does not depend on what the model would have said.
//! The file is JSON: `{"pairs": [{"name": …, "quotes": true, "prompt": …, "answer": …}, …]}`.

use std::ops::ControlFlow;
use std::path::Path;
use std::time::Duration;

use carat::chat::{self, Role, Turn};
use carat::{CancelToken, FinishReason, GenerateOptions, Model, SamplingOptions, Session, Summary};
use serde_json::{Value, json};

use super::Args;
use crate::failure::{Failure, Result};
use crate::output::emit;

/// A prompt and what is said to it.
struct Pair {
    name: String,
    /// Whether the answer quotes the prompt.
    quotes: bool,
    prompt: Vec<u32>,
    answer: Vec<u32>,
}

/// What was measured of a pair.
struct Row {
    pair: Pair,
    drafted: usize,
    accepted: usize,
    /// Tokens a second, at the median.
    plain: f64,
    with_drafts: f64,
}

impl Row {
    fn times(&self) -> f64 {
        self.with_drafts / self.plain
    }
}

/// Measures and prints.
pub fn run(args: &Args, file: &Path, model: &Model, cancel: &CancelToken) -> Result {
    let mut rows = Vec::new();
    for pair in read(file, model, cancel)? {
        let mut options = args.session.options();
        let needed = pair.prompt.len() + pair.answer.len();
        options.context = Some(options.context.unwrap_or(needed).max(needed));
        // One after the other each time: the machine may change its pace. In sessions of their own, as nothing that
        // one has learned may help the next.
        let (mut plain, mut with_drafts, mut counts) = (Vec::new(), Vec::new(), (0, 0));
        for _ in 0..args.repeat {
            options.draft = 0;
            plain.push(forced(model, &options, &pair, cancel)?.generate_time);
            options.draft = args.draft;
            let summary = forced(model, &options, &pair, cancel)?;
            with_drafts.push(summary.generate_time);
            counts = (summary.drafted_tokens, summary.accepted_tokens);
        }
        let rate = |times: &mut Vec<Duration>| {
            times.sort();
            pair.answer.len() as f64 / times[times.len() / 2].as_secs_f64()
        };
        let (plain, with_drafts) = (rate(&mut plain), rate(&mut with_drafts));
        if args.model.verbose {
            eprintln!("carat: {}: {plain:.2} and {with_drafts:.2} tokens/s", pair.name);
        }
        rows.push(Row { drafted: counts.0, accepted: counts.1, plain, with_drafts, pair });
    }
    emit(if args.json { json_text(args, model, &rows) } else { table(&rows) })
}

/// Has a session say the answer.
fn forced(model: &Model, o: &carat::SessionOptions, pair: &Pair, cancel: &CancelToken) -> Result<Summary> {
    let mut session = Session::new(model, o.clone())?;
    let mut options = GenerateOptions::default();
    options.sampling = SamplingOptions::greedy();
    options.max_tokens = pair.answer.len();
    options.ignore_end = true;
    options.cancel = Some(cancel.clone());
    let begin = pair.prompt.len();
    let force = |tokens: &[u32], logits: &mut [f32]| {
        logits[pair.answer[tokens.len() - begin] as usize] = f32::INFINITY;
    };
    let go_on = |_: carat::Piece<'_>| ControlFlow::Continue(());
    let summary = session.generate_with_hook(&pair.prompt, &options, force, go_on)?;
    match summary.reason {
        FinishReason::Cancelled => Err(Failure::Cancelled),
        _ => Ok(summary),
    }
}

fn read(file: &Path, model: &Model, cancel: &CancelToken) -> Result<Vec<Pair>> {
    let wrong = |what: String| Failure::File(format!("{}: {what}", file.display()));
    let text = std::fs::read(file).map_err(|e| Failure::file(file, "read", e))?;
    let json: Value = serde_json::from_slice(&text).map_err(|e| wrong(format!("not JSON: {e}")))?;
    let pairs = json["pairs"].as_array().ok_or_else(|| wrong("expected an array \"pairs\"".into()))?;
    let tokenizer = model.tokenizer()?;
    let mut read = Vec::new();
    for (i, pair) in pairs.iter().enumerate() {
        let string = |key: &str| {
            pair[key].as_str().ok_or_else(|| wrong(format!("pair {i}: expected a string {key:?}")))
        };
        let quotes = pair["quotes"].as_bool();
        let answer = tokenizer.encode(string("answer")?)?;
        if answer.is_empty() {
            return Err(wrong(format!("pair {i}: the answer is empty")));
        }
        read.push(Pair {
            name: string("name")?.into(),
            quotes: quotes
                .ok_or_else(|| wrong(format!("pair {i}: expected \"quotes\" to be true or false")))?,
            prompt: chat::render(tokenizer, &[Turn::new(Role::User, string("prompt")?)], Some(cancel))?,
            answer,
        });
    }
    match read.is_empty() {
        true => Err(wrong("expected at least one pair".into())),
        false => Ok(read),
    }
}

/// Of the pairs that quote or do not: the lowest, the median and the highest of how many times as fast drafts are.
fn times(rows: &[Row], quotes: bool) -> Option<[f64; 3]> {
    let mut times: Vec<f64> = rows.iter().filter(|r| r.pair.quotes == quotes).map(Row::times).collect();
    times.sort_by(f64::total_cmp);
    let n = times.len();
    (n > 0).then(|| [times[0], (times[(n - 1) / 2] + times[n / 2]) / 2.0, times[n - 1]])
}

fn table(rows: &[Row]) -> String {
    let width = rows.iter().map(|r| r.pair.name.chars().count()).max().unwrap_or(0).max(4);
    let mut text = format!(
        "| {:<width$} | quotes | prompt | answer | guessed | came true | plain t/s | with t/s | times |\n",
        "pair"
    );
    text += &format!(
        "| {} | ------ | -----: | -----: | ------: | --------: | --------: | -------: | ----: |\n",
        "-".repeat(width)
    );
    for r in rows {
        text += &format!(
            "| {:<width$} | {:<6} | {:>6} | {:>6} | {:>7} | {:>9} | {:>9.2} | {:>8.2} | {:>5.2} |\n",
            r.pair.name,
            if r.pair.quotes { "yes" } else { "no" },
            r.pair.prompt.len(),
            r.pair.answer.len(),
            r.drafted,
            r.accepted,
            r.plain,
            r.with_drafts,
            r.times()
        );
    }
    text.push('\n');
    for (quotes, what) in [(true, "that quote"), (false, "that do not quote")] {
        if let Some([low, median, high]) = times(rows, quotes) {
            text += &format!("pairs {what}: {median:.2} times at the median, {low:.2} to {high:.2}\n");
        }
    }
    text
}

fn json_text(args: &Args, model: &Model, rows: &[Row]) -> String {
    let range = |quotes| {
        times(rows, quotes).map(|[min, median, max]| json!({"min": min, "median": median, "max": max}))
    };
    let pairs: Vec<_> = rows
        .iter()
        .map(|r| {
            json!({
                "name": r.pair.name,
                "quotes": r.pair.quotes,
                "prompt_tokens": r.pair.prompt.len(),
                "answer_tokens": r.pair.answer.len(),
                "drafted_tokens": r.drafted,
                "accepted_tokens": r.accepted,
                "plain_tokens_per_s": r.plain,
                "drafted_tokens_per_s": r.with_drafts,
                "times": r.times(),
            })
        })
        .collect();
    let json = json!({
        "threads": model.threads(),
        "isa": model.isa().name(),
        "draft": args.draft,
        "times_that_quote": range(true),
        "times_that_do_not": range(false),
        "pairs": pairs,
    });
    format!("{json:#}\n")
}
