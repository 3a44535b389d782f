//! `carat info`: what a file holds, and the memory that it will take.

use std::collections::BTreeMap;
use std::fmt::Write;

use carat::{DType, MemoryLock, Model};

use crate::args::{DraftArgs, ModelArgs, SessionArgs};
use crate::failure::Result;
use crate::output::human_bytes;
use crate::{interrupt, output};

/// Arguments of `carat info`.
#[derive(Debug, clap::Args)]
pub struct Args {
    /// With -v every tensor and every metadata key is listed
    #[command(flatten)]
    model: ModelArgs,
    #[command(flatten)]
    session: SessionArgs,
    #[command(flatten)]
    draft: DraftArgs,
}

/// Prints it.
pub fn run(args: &Args) -> Result {
    let model = args.model.open(&interrupt::token())?;
    let text = describe(&model, args)?;
    output::emit(text)
}

fn describe(model: &Model, args: &Args) -> Result<String> {
    let c = model.config();
    let gguf = model.gguf();
    let mut text = String::new();
    let mut line =
        |name: &str, value: String| writeln!(text, "{name:<22}{value}").expect("a string takes all");

    line("file", gguf.name().to_string());
    line("format", format!("GGUF version {}, {} file(s)", gguf.version(), gguf.parts().len()));
    if let Ok(Some(name)) = gguf.metadata().get_as::<&str>("general.name") {
        line("name", name.to_string());
    }
    line("architecture", c.arch.name().to_string());
    line("layers", c.n_layers.to_string());
    line("model width", c.d_model.to_string());
    line("feed-forward width", c.d_ff.to_string());
    line("heads", format!("{} queries, {} keys and values, of {}", c.n_heads, c.n_kv_heads, c.head_dim));
    line("vocabulary", c.vocab.to_string());
    line("context", format!("{} tokens", c.context_length));
    let windowed = c.windowed.iter().filter(|w| **w).count();
    if windowed > 0 {
        line(
            "sliding window",
            format!("{} tokens, in {windowed} of {} layers", c.sliding_window, c.n_layers),
        );
    }
    let rope = match c.rope_factor {
        1.0 => format!("base {}", c.rope_base),
        factor => format!("base {}, positions divided by {factor}", c.rope_base),
    };
    line("rotary embedding", rope);
    if windowed > 0 {
        line("  of windowed layers", format!("base {}", c.rope_base_windowed));
    }
    if let Some(cap) = c.attention_softcap {
        line("attention soft cap", cap.to_string());
    }
    if let Some(cap) = c.final_softcap {
        line("logit soft cap", cap.to_string());
    }

    let mut types: BTreeMap<u32, (DType, usize, u64, u64)> = BTreeMap::new();
    let (mut values, mut bytes) = (0, 0);
    for t in gguf.tensors() {
        let n = t.rows() as u64 * t.cols() as u64;
        let len = t.data().len() as u64;
        let entry = types.entry(t.dtype() as u32).or_insert((t.dtype(), 0, 0, 0));
        *entry = (entry.0, entry.1 + 1, entry.2 + n, entry.3 + len);
        values += n;
        bytes += len;
    }
    line(
        "tensors",
        format!(
            "{}, {:.1} million parameters, {}, {:.2} bits each",
            gguf.tensors().len(),
            values as f64 / 1e6,
            human_bytes(bytes),
            8.0 * bytes as f64 / values.max(1) as f64
        ),
    );
    for (dtype, count, n, len) in types.values() {
        let millions = *n as f64 / 1e6;
        line(&format!("  {dtype}"), format!("{count:>4}, {millions:>8.2} million, {}", human_bytes(*len)));
    }

    let mut options = args.session.options();
    options.draft = args.draft.draft;
    let plan = model.plan_session(&options)?;
    let context = args.session.context.unwrap_or(c.context_length.min(4096));
    line("memory", format!("{} for a context of {context}, of these", human_bytes(plan.total)));
    line("  file, shared", human_bytes(plan.file));
    line("  keys and values", human_bytes(plan.kv_cache));
    line("  scratch", human_bytes(plan.scratch));
    line("  snapshots", human_bytes(plan.snapshots));
    line("  tokenizer", human_bytes(plan.tokenizer));
    line("  other", human_bytes(plan.other));
    line("and while it scores", human_bytes(plan.score));
    if let Some(available) = plan.available {
        let enough = match plan.fits() {
            Some(false) => ": NOT ENOUGH, the file will be read again and again",
            _ => "",
        };
        line("available here", format!("{}{enough}", human_bytes(available)));
    }
    match model.memory_lock() {
        MemoryLock::Locked => line("locked in memory", "yes".into()),
        MemoryLock::Refused(why) => line("locked in memory", format!("no: {why}")),
        _ => {}
    }
    line("computed with", format!("{} threads, {}", model.threads(), model.isa()));

    if args.model.verbose {
        text.push('\n');
        for (key, value) in gguf.metadata().iter() {
            let value = match value.as_array() {
                Some(array) => format!("{} of {}", array.len(), array.element_type().name()),
                None => format!("{value}"),
            };
            writeln!(text, "{key} = {value}").expect("a string takes all");
        }
        text.push('\n');
        for t in gguf.tensors() {
            let dims = t.dims().iter().map(usize::to_string).collect::<Vec<_>>().join(" x ");
            writeln!(text, "{:<36} {:<6} {dims}", t.name(), t.dtype().name()).expect("a string takes all");
        }
    }
    Ok(text)
}
