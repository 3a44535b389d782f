//! How long it takes to stop: from setting a cancel token to the call's return.

use std::path::PathBuf;
use std::time::{Duration, Instant};

use carat::{CancelToken, EncodeOptions, Model, Session, SessionOptions};
use serde_json::json;

use super::{Args, tokens};
use crate::failure::{Failure, Result};
use crate::interrupt;
use crate::output::emit;

/// Runs `call` with a token that another thread sets after `delay`. How long it went on then; `None` where it had
/// ended already.
pub fn time_to_stop(
    delay: Duration,
    call: impl FnOnce(&CancelToken) -> carat::Result<()>,
) -> Result<Option<Duration>> {
    let stop = CancelToken::new();
    std::thread::scope(|scope| {
        let setter = scope.spawn(|| {
            std::thread::sleep(delay);
            let set = Instant::now();
            stop.cancel();
            set
        });
        let result = call(&stop);
        let returned = Instant::now();
        let set = setter.join().map_err(|_| Failure::Runtime("the cancelling thread panicked".into()))?;
        match result {
            Ok(()) => Ok(None),
            Err(carat::Error::Cancelled) => Ok(Some(returned.saturating_duration_since(set))),
            Err(e) => Err(Failure::from(e)),
        }
    })
}

/// One kind of call.
struct Row {
    what: String,
    /// What it takes when it is not stopped.
    whole: Duration,
    /// How long it went on, of every time that it was stopped.
    went_on: Vec<Duration>,
}

impl Row {
    /// Measures `call` as it is (the shorter of two, as the first may find cold pages), then stops it as often as
    /// asked, at times spread evenly over what it took.
    /// `prepare` makes what it needs, beforehand.
    fn measure<T>(
        what: impl Into<String>,
        args: &Args,
        mut prepare: impl FnMut() -> Result<T>,
        mut call: impl FnMut(&mut T, &CancelToken) -> carat::Result<()>,
    ) -> Result<Row> {
        let interrupt = interrupt::token();
        let mut row = Row { what: what.into(), whole: Duration::MAX, went_on: Vec::new() };
        for _ in 0..2 {
            let mut ready = prepare()?;
            let began = Instant::now();
            call(&mut ready, &interrupt)?;
            row.whole = row.whole.min(began.elapsed());
        }
        for i in 0..args.repeat {
            if interrupt.is_cancelled() {
                return Err(Failure::Cancelled);
            }
            let delay = row.whole.mul_f64((i as f64 + 0.5) / args.repeat as f64);
            let mut ready = prepare()?;
            row.went_on.extend(time_to_stop(delay, |stop| call(&mut ready, stop))?);
        }
        Ok(row)
    }

    fn worst(&self) -> Option<Duration> {
        self.went_on.iter().max().copied()
    }
}

/// A file that is removed at the end.
struct StateFile(PathBuf);

impl Drop for StateFile {
    fn drop(&mut self) {
        // There is nobody left to tell.
        let _ = std::fs::remove_file(&self.0);
    }
}

/// Stops each kind of call that can be, and prints how long each went on.
pub fn run(args: &Args, model: &Model, mut options: SessionOptions) -> Result {
    let n = args.prompt.max(1);
    options.context = Some(options.context.unwrap_or(n).max(n).max(args.generate));
    let path = args.model.path(&interrupt::token())?;
    let tokenizer = model.tokenizer()?;
    let some_text = tokenizer.decode(&tokens(model, 4096))?;
    let text = some_text.repeat((1 << 20) / some_text.len().max(1) + 1);
    let ids = tokens(model, n);
    let file = StateFile(std::env::temp_dir().join(format!("carat-bench-{}.state", std::process::id())));
    let session = || Ok(Session::new(model, options.clone())?);
    let filled = || {
        let mut session = Session::new(model, options.clone())?;
        session.prefill_with(&ids, Some(&interrupt::token()))?;
        Ok(session)
    };

    let mut rows = Vec::new();
    rows.push(Row::measure(
        "open, read ahead, tokenizer",
        args,
        || Ok(()),
        |(), stop| {
            let model = args.model.builder().preload(true).cancel(stop).open(&path)?;
            model.tokenizer().map(|_| ())
        },
    )?);
    rows.push(Row::measure(
        format!("encode {:.1} MB", text.len() as f64 / 1e6),
        args,
        || Ok(()),
        |(), stop| {
            let mut options = EncodeOptions::default();
            options.cancel = Some(stop.clone());
            tokenizer.encode_with(&text, &options).map(|_| ())
        },
    )?);
    rows.push(Row::measure(format!("prefill {n}"), args, session, |s, stop| {
        s.prefill_with(&ids, Some(stop))
    })?);
    if args.generate > 0 {
        let ids = tokens(model, args.generate);
        rows.push(Row::measure(format!("decode {}", args.generate), args, session, |s, stop| {
            ids.iter().try_for_each(|&id| s.step_with(id, Some(stop)).map(|_| ()))
        })?);
    }
    rows.push(Row::measure(format!("score {n}"), args, session, |s, stop| {
        s.score(&ids, 0, Some(stop)).map(|_| ())
    })?);
    rows.push(Row::measure(format!("save {n}"), args, filled, |s, stop| s.save(&file.0, Some(stop)))?);
    emit(if args.json { json_text(model, &path, &rows) } else { table(model, &rows) })
}

fn ms(time: Duration) -> f64 {
    time.as_secs_f64() * 1e3
}

fn table(model: &Model, rows: &[Row]) -> String {
    let mut text = format!("{} threads, {}\n\n", model.threads(), model.isa());
    text += &format!("| {:<28} | {:>12} | {:>7} | {:>18} |\n", "call", "takes", "stopped", "went on at most");
    text +=
        &format!("| {} | {}: | {}: | {}: |\n", "-".repeat(28), "-".repeat(11), "-".repeat(6), "-".repeat(17));
    for row in rows {
        let worst = row.worst().map_or("-".into(), |w| format!("{:.1} ms", ms(w)));
        text += &format!(
            "| {:<28} | {:>12} | {:>7} | {worst:>18} |\n",
            row.what,
            format!("{:.1} ms", ms(row.whole)),
            row.went_on.len(),
        );
    }
    text
}

fn json_text(model: &Model, path: &std::path::Path, rows: &[Row]) -> String {
    let rows: Vec<_> = rows
        .iter()
        .map(|row| {
            json!({
                "call": row.what,
                "takes_ms": ms(row.whole),
                "went_on_ms": row.went_on.iter().map(|&t| ms(t)).collect::<Vec<_>>(),
            })
        })
        .collect();
    let json = json!({
        "model": path,
        "threads": model.threads(),
        "isa": model.isa().name(),
        "cancel": rows,
    });
    format!("{json:#}\n")
}
