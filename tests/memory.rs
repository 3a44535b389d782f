//! [`Model::plan`] beside what the system counts: an upper bound of the memory that a process takes, and a close one.
//!
//! Every case runs in a process of its own, this program again, which is told its case by the environment.
#![cfg(target_os = "linux")]

mod common;

use std::fs::File;
use std::io::{BufRead, BufReader, BufWriter, Write};
use std::path::{Path, PathBuf};
use std::process::{Child, ChildStdout, Command, Stdio};

use carat::gguf::{Array, Builder, Gguf};
use carat::{
    CancelToken, Conversation, DType, Error, FinishReason, GenerateOptions, KvType, Model, Piece, Session,
    SessionOptions,
};
use common::{data, options, real_model};

/// Where a process is told its case.
const CASE: &str = "CARAT_MEMORY_CASE";

/// What a process does with a file.
#[derive(Clone)]
struct Case {
    path: PathBuf,
    work: Work,
    kv: KvType,
    threads: usize,
    context: usize,
    batch: usize,
}

#[derive(Clone, Copy, PartialEq)]
enum Work {
    /// Two turns of a conversation, until the context is full.
    Talk,
    /// The same with options of sampling that take the most memory.
    TalkWide,
    /// Scores a text that fills the context.
    Score,
}

/// What it found, in bytes.
#[derive(Debug)]
struct Measured {
    /// Of the plan.
    file: u64,
    private: u64,
    score: u64,
    /// The growth of its own memory, at most and at the end.
    most: u64,
    end: u64,
}

impl Measured {
    fn ratio(&self) -> f64 {
        self.most as f64 / self.private as f64
    }
}

impl Case {
    fn new(path: &Path, kv: KvType, threads: usize, context: usize) -> Case {
        Case { path: path.into(), work: Work::Talk, kv, threads, context, batch: 256 }
    }

    fn options(&self) -> SessionOptions {
        let mut o = options(self.context, self.batch);
        o.kv = Some(self.kv);
        o
    }

    fn to_env(&self) -> String {
        let Case { path, work, kv, threads, context, batch } = self;
        let work = *work as u8;
        format!("{work} {} {threads} {context} {batch} {}", kv.name(), path.display())
    }

    fn from_env(text: &str) -> Case {
        let f: Vec<&str> = text.splitn(6, ' ').collect();
        let number = |i: usize| f[i].parse().unwrap();
        Case {
            work: [Work::Talk, Work::TalkWide, Work::Score][number(0)],
            kv: KvType::from_name(f[1]).unwrap(),
            threads: number(2),
            context: number(3),
            batch: number(4),
            path: f[5].into(),
        }
    }

    /// Starts the process; it ends when its input does. `None` where programs run emulated, whose memory is the
    /// emulator's.
    fn start(&self) -> Option<(Child, BufReader<ChildStdout>)> {
        let program = std::env::current_exe().unwrap();
        let child = Command::new(&program)
            .args(["--exact", "measured_process", "--ignored", "--nocapture", "--test-threads=1"])
            .env(CASE, self.to_env())
            .stdin(Stdio::piped())
            .stdout(Stdio::piped())
            .spawn();
        let mut child = match child {
            Err(e) if e.raw_os_error() == Some(libc::ENOEXEC) => {
                eprintln!("SKIPPED: this system cannot run {} itself", program.display());
                return None;
            }
            child => child.unwrap(),
        };
        let out = BufReader::new(child.stdout.take().unwrap());
        if std::fs::read_link(format!("/proc/{}/exe", child.id())).unwrap() != program {
            eprintln!("SKIPPED: {} runs emulated", program.display());
            child.kill().unwrap();
            child.wait().unwrap();
            return None;
        }
        Some((child, out))
    }

    fn measure(&self) -> Option<Measured> {
        let (child, mut out) = self.start()?;
        let measured = result(&mut out);
        finish(child, out);
        println!("{}: {measured:?}, {:.3}", self.to_env(), measured.ratio());
        Some(measured)
    }

    /// The bounds that the plan promises.
    fn check(&self) {
        let Some(m) = self.measure() else { return };
        assert!(m.most <= m.private, "{} of {} bytes planned, {:.3}", m.most, m.private, m.ratio());
        assert!(m.end as f64 >= 0.8 * m.private as f64, "only {} of {} bytes planned", m.end, m.private);
    }
}

/// What the process says when it is done, and holds everything still.
fn result(out: &mut BufReader<ChildStdout>) -> Measured {
    let mut line = String::new();
    while out.read_line(&mut line).unwrap() > 0 {
        if let Some(numbers) = line.strip_prefix("MEASURED ") {
            let n: Vec<u64> = numbers.split_whitespace().map(|n| n.parse().unwrap()).collect();
            return Measured { file: n[0], private: n[1], score: n[2], most: n[3], end: n[4] };
        }
        line.clear();
    }
    panic!("the process ended without a result");
}

fn finish(mut child: Child, mut out: BufReader<ChildStdout>) {
    drop(child.stdin.take());
    std::io::copy(&mut out, &mut std::io::sink()).unwrap();
    assert!(child.wait().unwrap().success());
}

/// A line of a file in /proc, in bytes.
fn proc_bytes(path: &str, name: &str) -> u64 {
    let text = std::fs::read_to_string(path).unwrap();
    let line = text.lines().find_map(|l| l.strip_prefix(name)).unwrap_or_else(|| panic!("{name} in {path}"));
    1024 * line.trim().trim_end_matches(" kB").parse::<u64>().unwrap()
}

/// Memory of this process's own that is in use.
fn anonymous() -> u64 {
    proc_bytes("/proc/self/status", "RssAnon:")
}

/// A text of about `tokens` tokens.
fn text(model: &Model, tokens: usize) -> String {
    const SENTENCE: &str =
        "The weather in the mountains was fine, and nobody had thought of taking an umbrella. ";
    let each = model.tokenizer().unwrap().encode(&SENTENCE.repeat(8)).unwrap().len() / 8;
    let words: Vec<&str> = SENTENCE.split_inclusive(' ').cycle().take(tokens * 15 / each).collect();
    words.concat()
}

/// What a process of a case does. The text fills the context, past a batch of full size and past a window.
#[test]
#[ignore = "the other tests start it, in processes of their own"]
fn measured_process() {
    let Ok(case) = std::env::var(CASE) else { return };
    let case = Case::from_env(&case);
    let before = anonymous();
    let plan = Model::plan(&case.path, case.threads, &case.options()).unwrap();
    let planning = anonymous() - before;
    assert!(planning < 1 << 20, "{planning} bytes to plan");
    let model = Model::builder().threads(case.threads).open(&case.path).unwrap();
    assert_eq!(model.threads(), case.threads);
    let session = Session::new(&model, case.options()).unwrap();
    let mut most = 0;
    let mut look = || {
        let now = anonymous() - before;
        most = now.max(most);
        now
    };
    let (end, kept);
    if case.work == Work::Score {
        let ids = model.tokenizer().unwrap().encode(&text(&model, 2 * case.context)).unwrap();
        let mut session = session;
        let mut scores = Vec::new();
        // In the middle of it the rows are there.
        session
            .prefill_each(&ids[..case.context / 2], None, |_, _| {
                look();
                Ok(())
            })
            .unwrap();
        scores.extend(session.score(&ids[case.context / 2..case.context], 0, None).unwrap());
        assert_eq!(session.len(), case.context);
        assert_eq!(scores.len(), case.context - case.context / 2 - 1);
        end = look();
        kept = (None, Some(session));
    } else {
        let mut o = GenerateOptions::default();
        o.ignore_end = true;
        if case.work == Work::TalkWide {
            o.sampling.top_k = 0;
            o.sampling.repetition_penalty = 1.1;
            o.sampling.penalty_window = usize::MAX;
            o.top_log_probs = 1024;
        }
        let mut each = |_: Piece<'_>| {
            look();
            std::ops::ControlFlow::Continue(())
        };
        let mut conversation = Conversation::new(session, None).unwrap();
        o.max_tokens = 4;
        let first = (case.context * 3 / 4).max(case.batch + 10);
        conversation.send(&text(&model, first), &o, &mut each).unwrap();
        let so_far = conversation.tokens().len();
        assert!(so_far > case.batch, "{so_far}");
        o.max_tokens = usize::MAX;
        let second = (case.context - so_far).saturating_sub(30);
        let reply = conversation.send(&text(&model, second), &o, &mut each).unwrap();
        assert_eq!(reply.summary.reason, FinishReason::ContextFull);
        assert_eq!(conversation.session().len(), case.context);
        assert!(reply.summary.generated_tokens > 4);
        end = look();
        kept = (Some(conversation), None);
    }
    println!("\nMEASURED {} {} {} {most} {end}", plan.file, plan.private(), plan.score);
    std::io::stdout().flush().unwrap();
    std::io::stdin().read_line(&mut String::new()).unwrap();
    drop(kept);
}

/// A file of the shapes of Gemma 2B in Q4_0 with the real vocabulary, whose tensors lie in a hole: all zeros.
fn gemma_2b(dir: &tempfile::TempDir) -> PathBuf {
    let (d, ff, head_dim, heads, layers) = (2048, 16384, 256, 8, 18);
    let vocabulary = Gguf::open(data("gemma1-vocab.gguf")).unwrap();
    let mut b = Builder::new();
    b.set("general.architecture", "gemma").unwrap();
    for (key, value) in [
        ("context_length", 8192),
        ("embedding_length", d),
        ("block_count", layers),
        ("feed_forward_length", ff),
        ("attention.head_count", heads),
        ("attention.head_count_kv", 1),
        ("attention.key_length", head_dim),
        ("attention.value_length", head_dim),
    ] {
        b.set(&format!("gemma.{key}"), value as u32).unwrap();
    }
    b.set("gemma.attention.layer_norm_rms_epsilon", 1e-6f32).unwrap();
    let metadata = vocabulary.metadata();
    for (key, value) in metadata.iter().filter(|(key, _)| key.starts_with("tokenizer.")) {
        b.set(key, value).unwrap();
    }
    let vocab = metadata.require::<Array<'_>>("tokenizer.ggml.tokens").unwrap().len();
    assert_eq!(vocab, 256_000);
    b.tensor("token_embd.weight", DType::Q6_K, &[d, vocab]).unwrap();
    b.tensor("output_norm.weight", DType::F32, &[d]).unwrap();
    for layer in 0..layers {
        let mut add = |part: &str, dtype, dims: &[usize]| {
            b.tensor(&format!("blk.{layer}.{part}.weight"), dtype, dims).unwrap();
        };
        add("attn_norm", DType::F32, &[d]);
        add("attn_q", DType::Q4_0, &[d, heads * head_dim]);
        add("attn_k", DType::Q4_0, &[d, head_dim]);
        add("attn_v", DType::Q4_0, &[d, head_dim]);
        add("attn_output", DType::Q4_0, &[heads * head_dim, d]);
        add("ffn_norm", DType::F32, &[d]);
        add("ffn_gate", DType::Q4_0, &[d, ff]);
        add("ffn_up", DType::Q4_0, &[d, ff]);
        add("ffn_down", DType::Q4_0, &[ff, d]);
    }
    let path = dir.path().join("gemma-2b.gguf");
    let len = b.file_len();
    assert!((1_500_000_000..1_600_000_000).contains(&len), "{len}");
    let mut file = BufWriter::new(File::create(&path).unwrap());
    b.write(&mut file, "gemma-2b.gguf").unwrap();
    file.into_inner().unwrap().set_len(len).unwrap();
    path
}

/// A place on the disk, as models lie on: pages of a file in memory would be counted otherwise.
fn dir() -> tempfile::TempDir {
    tempfile::tempdir_in(env!("CARGO_TARGET_TMPDIR")).unwrap()
}

const CONTEXT_270M: usize = 1024;
const CONTEXT_2B: usize = 320;

#[test]
fn the_270m() {
    let Some(path) = real_model() else { return };
    for kv in [KvType::F16, KvType::Q8_0] {
        for threads in [1, 2] {
            Case::new(&path, kv, threads, CONTEXT_270M).check();
        }
    }
}

#[test]
fn the_270m_where_sampling_and_batches_take_the_most() {
    let Some(path) = real_model() else { return };
    Case { work: Work::TalkWide, ..Case::new(&path, KvType::F16, 2, CONTEXT_270M) }.check();
    Case { batch: 768, ..Case::new(&path, KvType::F16, 2, CONTEXT_270M) }.check();
}

#[test]
fn the_270m_scoring() {
    let Some(path) = real_model() else { return };
    let case = Case { work: Work::Score, ..Case::new(&path, KvType::F16, 2, 512) };
    let Some(m) = case.measure() else { return };
    assert!(m.most <= m.private + m.score, "{m:?}");
    assert!(m.most as f64 >= 0.8 * (m.private + m.score) as f64, "{m:?}");
}

#[test]
fn a_2b_with_f16() {
    let dir = dir();
    Case::new(&gemma_2b(&dir), KvType::F16, 2, CONTEXT_2B).check();
}

#[test]
fn a_2b_with_q8_0() {
    let dir = dir();
    Case::new(&gemma_2b(&dir), KvType::Q8_0, 2, CONTEXT_2B).check();
}

#[test]
fn a_2b_on_one_thread() {
    let dir = dir();
    Case::new(&gemma_2b(&dir), KvType::F16, 1, CONTEXT_2B).check();
}

/// Two processes on one file at the same time share it.
fn two_processes(case: &Case) {
    let [Some(first), Some(second)] = [case.start(), case.start()] else { return };
    let mut both = [first, second];
    let mut plan = None;
    for (_, out) in &mut both {
        plan = Some(result(out));
    }
    let pss =
        both.each_ref().map(|(child, _)| proc_bytes(&format!("/proc/{}/smaps_rollup", child.id()), "Pss:"));
    for (child, out) in both {
        finish(child, out);
    }
    let plan = plan.unwrap();
    let bound = plan.file + 2 * plan.private;
    println!("{}: {pss:?} of {bound}", case.to_env());
    assert!(pss[0] + pss[1] <= bound, "{pss:?}, more than {bound}: {plan:?}");
}

#[test]
fn two_processes_on_the_270m() {
    let Some(path) = real_model() else { return };
    two_processes(&Case::new(&path, KvType::F16, 1, CONTEXT_270M));
}

#[test]
fn two_processes_on_a_2b() {
    let dir = dir();
    two_processes(&Case::new(&gemma_2b(&dir), KvType::F16, 1, CONTEXT_2B));
}

#[test]
fn a_plan_adds_up_and_can_be_cancelled() {
    let dir = dir();
    let path = gemma_2b(&dir);
    let plan = Model::plan(&path, 2, &options(4096, 256)).unwrap();
    assert_eq!(plan.file, std::fs::metadata(&path).unwrap().len());
    let parts = [plan.file, plan.kv_cache, plan.scratch, plan.snapshots, plan.tokenizer, plan.other];
    assert_eq!(plan.total, parts.iter().sum());
    assert_eq!(plan.private(), plan.total - plan.file);
    assert_eq!(plan.fits(), Some(plan.total <= plan.available.unwrap()));
    assert!(plan.score >= 16 * 256_000 * 4);

    let token = CancelToken::new();
    let builder = Model::builder().threads(2).cancel(&token);
    let mut again = builder.plan(&path, &options(4096, 256)).unwrap();
    again.available = plan.available;
    assert_eq!(again, plan);
    token.cancel();
    assert!(matches!(builder.plan(&path, &options(4096, 256)), Err(Error::Cancelled)));
}

/// The table of the README.
#[test]
#[ignore = "some minutes of computing"]
fn table() {
    let dir = dir();
    let real = real_model().expect("the real model");
    for (name, path) in [("270M", real), ("2B", gemma_2b(&dir))] {
        for context in [2048, 4096] {
            let case = Case::new(&path, KvType::F16, 2, context);
            let plan = Model::plan(&path, 2, &case.options()).unwrap();
            let m = case.measure().expect("not emulated");
            let mb = |bytes: u64| format!("{:.1}", bytes as f64 / 1e6);
            println!(
                "| {name} | {context} | {} |",
                [
                    plan.kv_cache,
                    plan.scratch,
                    plan.snapshots,
                    plan.tokenizer,
                    plan.other,
                    plan.private(),
                    m.end
                ]
                .map(mb)
                .join(" | ")
            );
        }
    }
}
