//! Runs a case. `None` of a field means that the case does not say it.

use std::collections::HashMap;
use std::fs;
use std::ops::ControlFlow;
use std::path::{Path, PathBuf};

use carat::chat::{Role, Turn, render};
use carat::{
    CancelToken, ContextPolicy, Conversation, EncodeOptions, Engine, Error, FinishReason, GenerateOptions,
    Isa, Model, Piece, Reply, Session, SessionOptions, Storage, StreamDecoder, Summary,
};
use serde_json::Value as Json;
use tempfile::TempDir;

use crate::common::{data, real_model};

/// What the golden logits are reproduced within; a log-probability has the error of two of them.
pub const LOGIT: f64 = 2e-3;
pub const LOG_PROB: f64 = 4e-3;

type Checked = Result<(), String>;

/// All cases, file by file.
pub fn cases() -> Vec<Json> {
    let folder = Path::new(env!("CARGO_MANIFEST_DIR")).join("tests/conformance");
    let mut files: Vec<PathBuf> = fs::read_dir(folder).unwrap().map(|e| e.unwrap().path()).collect();
    files.retain(|f| f.extension().is_some_and(|e| e == "json"));
    files.sort();
    let read = |f: &PathBuf| serde_json::from_slice::<Vec<Json>>(&fs::read(f).unwrap()).unwrap();
    files.iter().flat_map(read).collect()
}

macro_rules! same {
    ($found:expr, $expected:expr, $($what:tt)+) => {
        match (&$found, &$expected) {
            (found, expected) if *found != *expected => {
                return Err(format!("{}: expected {expected:?}, found {found:?}", format!($($what)+)));
            }
            _ => {}
        }
    };
}

fn close(found: f64, expected: &Json, tolerance: f64, what: &str) -> Checked {
    let expected = expected.as_f64().unwrap();
    // A NaN is not close to anything.
    if (found - expected).abs() <= tolerance {
        Ok(())
    } else {
        Err(format!("{what}: expected {expected}, found {found}"))
    }
}

pub fn ids(json: &Json) -> Vec<u32> {
    json.as_array().into_iter().flatten().map(|i| i.as_u64().unwrap() as u32).collect()
}

fn size(json: &Json) -> usize {
    json.as_u64().unwrap() as usize
}

fn text(json: &Json) -> &str {
    json.as_str().unwrap()
}

fn turns(json: &Json) -> Vec<Turn<'_>> {
    let role = |r: &str| match r {
        "system" => Role::System,
        "user" => Role::User,
        "model" => Role::Model,
        other => panic!("role {other}"),
    };
    json.as_array().unwrap().iter().map(|t| Turn::new(role(text(&t[0])), text(&t[1]))).collect()
}

pub fn session_options(json: &Json) -> SessionOptions {
    let mut o = SessionOptions::default();
    for (key, value) in json.as_object().into_iter().flatten() {
        match key.as_str() {
            "context" => o.context = Some(size(value)),
            "batch" => o.batch = size(value),
            "snapshots" => o.snapshots = size(value),
            other => panic!("session option {other}"),
        }
    }
    o
}

pub fn generate_options(json: &Json) -> GenerateOptions {
    let mut o = GenerateOptions::default();
    let float = |v: &Json| v.as_f64().unwrap() as f32;
    for (key, value) in json.as_object().into_iter().flatten() {
        match key.as_str() {
            "max_tokens" => o.max_tokens = size(value),
            "temperature" => o.sampling.temperature = float(value),
            "top_k" => o.sampling.top_k = size(value),
            "top_p" => o.sampling.top_p = float(value),
            "min_p" => o.sampling.min_p = float(value),
            "repetition_penalty" => o.sampling.repetition_penalty = float(value),
            "presence_penalty" => o.sampling.presence_penalty = float(value),
            "frequency_penalty" => o.sampling.frequency_penalty = float(value),
            "penalty_window" => o.sampling.penalty_window = size(value),
            "seed" => o.sampling.seed = value.as_u64(),
            "top_log_probs" => o.top_log_probs = size(value),
            "ignore_end" => o.ignore_end = value.as_bool().unwrap(),
            "stop" => o.stop = value.as_array().unwrap().iter().map(|s| text(s).into()).collect(),
            "logit_bias" => {
                let bias = |b: &Json| b.as_f64().map_or(f32::NEG_INFINITY, |b| b as f32);
                o.sampling.logit_bias =
                    value.as_array().unwrap().iter().map(|b| (size(&b[0]) as u32, bias(&b[1]))).collect();
            }
            other => panic!("option {other}"),
        }
    }
    o
}

fn reason(summary: &Summary) -> (&'static str, Option<usize>) {
    match summary.reason {
        FinishReason::EndOfTurn => ("end_of_turn", None),
        FinishReason::Limit => ("limit", None),
        FinishReason::Stop(i) => ("stop", Some(i)),
        FinishReason::Callback => ("callback", None),
        FinishReason::Cancelled => ("cancelled", None),
        FinishReason::ContextFull => ("context_full", None),
        other => panic!("{other:?}"),
    }
}

/// An error as carat.h has it: its status and class, its message, and how far a session can go back.
struct Failed {
    status: String,
    kind: String,
    message: String,
    nearest: Option<usize>,
}

impl From<Error> for Failed {
    fn from(e: Error) -> Failed {
        // The statuses are named after the variants.
        let debug = format!("{e:?}");
        let variant = debug.split(|c: char| !c.is_alphanumeric()).next().unwrap();
        let mut status = "CARAT".to_string();
        for c in variant.chars() {
            if c.is_uppercase() {
                status.push('_');
            }
            status.push(c.to_ascii_uppercase());
        }
        let nearest = if let Error::Rewind { nearest, .. } = e { Some(nearest) } else { None };
        Failed { status, kind: format!("{:?}", e.kind()).to_lowercase(), message: e.to_string(), nearest }
    }
}

fn watch(margin: &mut Option<f32>, piece: &Piece<'_>) {
    if let (Some(margin), [first, second, ..]) = (margin, piece.top) {
        *margin = margin.min(first.log_prob - second.log_prob);
    }
}

/// What is absent is `None` in Rust, where C has a status.
fn absent(status: &str, message: impl Into<String>) -> Failed {
    Failed { status: status.into(), kind: "usage".into(), message: message.into(), nearest: None }
}

pub struct Runner {
    models: HashMap<PathBuf, Model>,
    scratch: TempDir,
    pub engine: Engine,
    pub isa: Isa,
    /// The least by which a greedy choice beat the next token, in logits, where that is watched.
    pub margin: Option<f32>,
}

impl Runner {
    pub fn new() -> Runner {
        let scratch = tempfile::tempdir().unwrap();
        Runner { models: HashMap::new(), scratch, engine: Engine::Builtin, isa: Isa::detect(), margin: None }
    }

    /// The path that a model's name stands for, where it is there.
    fn path(name: &str) -> Option<PathBuf> {
        if name == "real" { real_model() } else { Some(data(name)) }
    }

    pub fn model(&mut self, name: &str) -> Option<Model> {
        let path = Self::path(name)?;
        let (engine, isa) = (self.engine, self.isa);
        let open = |path: &PathBuf| {
            Model::builder().threads(2).isa(isa).tokenizer(engine.into()).open(path).unwrap()
        };
        Some(self.models.entry(path).or_insert_with_key(open).clone())
    }

    /// `None` where the real model is needed and absent.
    pub fn run(&mut self, case: &Json) -> Option<Checked> {
        if case["kind"] == "error" {
            return Some(self.error(case));
        }
        let model = self.model(text(&case["model"]))?;
        Some(match text(&case["kind"]) {
            "tokenize" => tokenize(&model, case),
            "vocabulary" => vocabulary(&model, case),
            "model" => self.info(case),
            "logits" => self.logits(&model, case),
            "score" => score(&model, case),
            "generate" => self.generate(&model, case),
            "render" => rendered(&model, case),
            "chat" => self.chat(&model, case).map_err(|e| e.to_string()).and_then(|checked| checked),
            other => panic!("kind {other}"),
        })
    }

    fn options(&self, json: &Json) -> GenerateOptions {
        let mut o = generate_options(json);
        if self.margin.is_some() {
            o.top_log_probs = o.top_log_probs.max(2);
        }
        o
    }

    fn info(&mut self, case: &Json) -> Checked {
        let path = data(text(&case["model"]));
        let model = match text(&case["by"]) {
            "path" => Model::open(path).unwrap(),
            _ => Model::builder().open_storage(vec![Storage::from_bytes(fs::read(path).unwrap())]).unwrap(),
        };
        let (c, gguf) = (model.config(), model.gguf());
        for (key, expected) in case["info"].as_object().unwrap() {
            let found = match key.as_str() {
                "arch" => Json::from(c.arch.name()),
                "n_layers" => c.n_layers.into(),
                "d_model" => c.d_model.into(),
                "d_ff" => c.d_ff.into(),
                "n_heads" => c.n_heads.into(),
                "n_kv_heads" => c.n_kv_heads.into(),
                "head_dim" => c.head_dim.into(),
                "vocab" => c.vocab.into(),
                "sliding_window" => c.sliding_window.into(),
                "context_length" => c.context_length.into(),
                "n_tensors" => gguf.tensors().len().into(),
                "file_bytes" => gguf.file_len().into(),
                other => panic!("info {other}"),
            };
            same!(found, *expected, "{key}");
        }
        for pair in case["metadata"].as_array().unwrap() {
            let value = gguf.metadata().get(text(&pair[0])).unwrap();
            let found = match (value.as_str(), value.as_bool()) {
                (Some(s), _) => s.to_string(),
                (_, Some(b)) => b.to_string(),
                _ => value.as_i64().unwrap().to_string(),
            };
            same!(found, *text(&pair[1]), "{}", pair[0]);
        }
        for row in case["tensors"].as_array().unwrap() {
            let t = &gguf.tensors()[size(&row[0])];
            let found = (t.name(), t.dtype().name(), t.dims(), t.offset(), t.data().len());
            let dims: Vec<usize> = row[3].as_array().unwrap().iter().map(size).collect();
            same!(
                found,
                (text(&row[1]), text(&row[2]), &dims[..], size(&row[4]) as u64, size(&row[5])),
                "tensor"
            );
        }
        Ok(())
    }

    fn logits(&mut self, model: &Model, case: &Json) -> Checked {
        let ids = ids(&case["ids"]);
        let mut options = SessionOptions::default();
        (options.context, options.batch) = (Some(256), 64);
        let mut s = Session::new(model, options.clone()).unwrap();
        let last = ids.len() - 1;
        let at = case["at"].as_array().unwrap();
        let mut left = at.len();
        let mut check = |position: usize, logits: &[f32]| -> Checked {
            let Some(row) = at.iter().find(|r| size(&r["position"]) == position) else { return Ok(()) };
            left -= 1;
            let argmax = (0..logits.len()).max_by(|&a, &b| logits[a].total_cmp(&logits[b])).unwrap();
            same!(argmax, size(&row["argmax"]), "the likeliest after {position}");
            for v in row["values"].as_array().unwrap() {
                close(
                    logits[size(&v[0])] as f64,
                    &v[1],
                    LOGIT,
                    &format!("logit of {} after {position}", v[0]),
                )?;
            }
            Ok(())
        };
        let mut checked = Ok(());
        match text(&case["via"]) {
            "prefill" => {
                s.prefill(&ids).unwrap();
                check(last, s.logits().ok_or("no logits")?)?;
            }
            "prefill_each" => s
                .prefill_each(&ids, None, |i, logits| {
                    checked = std::mem::replace(&mut checked, Ok(())).and_then(|()| check(i, logits));
                    Ok(())
                })
                .unwrap(),
            "step" => {
                for (i, &id) in ids.iter().enumerate() {
                    check(i, s.step(id).unwrap())?;
                }
            }
            via => {
                s.prefill(&ids[..last]).unwrap();
                match via {
                    "fork" => s = s.fork().unwrap(),
                    "trim" => s.trim(),
                    "save_and_load" => {
                        let path = self.scratch.path().join("session");
                        s.save(&path, None).unwrap();
                        s = Session::load(model, options, path, None).unwrap();
                        same!(*s.tokens(), ids[..last], "tokens");
                    }
                    "truncate" => {
                        s.prefill(&ids[..2]).unwrap();
                        s.truncate(last).unwrap();
                    }
                    other => panic!("via {other}"),
                }
                check(last, s.step(ids[last]).unwrap())?;
            }
        }
        checked?;
        same!(left, 0, "positions that were not seen");
        same!(*s.tokens(), ids[..], "tokens");
        Ok(())
    }

    fn generate(&mut self, model: &Model, case: &Json) -> Checked {
        let (prompt, before) = (ids(&case["prompt"]), ids(&case["before"]));
        let mut s = Session::new(model, session_options(&case["session"])).unwrap();
        if !before.is_empty() {
            s.prefill(&before).unwrap();
        }
        let cancel = CancelToken::new();
        if case["cancelled"] == true {
            cancel.cancel();
        }
        let mut o = self.options(&case["options"]);
        o.cancel = Some(cancel.clone());
        let (mut tokens, mut pieces, mut first) = (Vec::new(), Vec::new(), None);
        let on_piece = |p: Piece<'_>| {
            watch(&mut self.margin, &p);
            pieces.push(p.text.to_string());
            tokens.extend(p.token);
            first.get_or_insert((p.log_prob, p.top.to_vec()));
            let n = Some(tokens.len() as u64);
            if p.token.is_some() && case["cancel_after"].as_u64() == n {
                cancel.cancel();
            }
            if p.token.is_some() && case["stop_after"].as_u64() == n {
                return ControlFlow::Break(());
            }
            ControlFlow::Continue(())
        };
        let force = ids(&case["force"]);
        let result = if force.is_empty() {
            s.generate(&prompt, &o, on_piece)
        } else {
            let mut left = force.iter();
            let hook = |_: &[u32], logits: &mut [f32]| {
                logits.fill(f32::NEG_INFINITY);
                logits[*left.next().unwrap() as usize] = 0.0;
            };
            s.generate_with_hook(&prompt, &o, hook, on_piece)
        };
        let summary = result.map_err(|e| e.to_string())?;
        let expect = &case["expect"];
        same!(tokens, ids(&expect["tokens"]), "tokens");
        if let Some(expected) = expect["text"].as_str() {
            same!(pieces.concat(), *expected, "text");
        }
        if let Some(expected) = expect["pieces"].as_array() {
            let expected: Vec<&str> = expected.iter().map(text).collect();
            same!(pieces, expected, "pieces");
        }
        let (name, stop) = reason(&summary);
        same!(name, text(&expect["reason"]), "reason");
        same!(stop, expect["stop_index"].as_u64().map(|i| i as usize), "stop index");
        for (key, found) in [
            ("prompt_tokens", summary.prompt_tokens),
            ("generated_tokens", summary.generated_tokens),
            ("len", s.len()),
        ] {
            if let Some(expected) = expect[key].as_u64() {
                same!(found as u64, expected, "{key}");
            }
        }
        if expect["top"].is_array() {
            let (log_prob, top) = first.ok_or("no piece")?;
            close(log_prob.unwrap_or(f32::NAN) as f64, &expect["log_prob"], LOG_PROB, "log_prob")?;
            let expected = expect["top"].as_array().unwrap();
            same!(top.len(), expected.len(), "number of the likeliest");
            for (found, expected) in top.iter().zip(expected) {
                same!(found.token as usize, size(&expected[0]), "one of the likeliest");
                close(
                    found.log_prob as f64,
                    &expected[1],
                    LOG_PROB,
                    "log-probability of one of the likeliest",
                )?;
            }
        }
        Ok(())
    }

    /// The outer error is one that the case did not expect.
    fn chat(&mut self, model: &Model, case: &Json) -> carat::Result<Checked> {
        let options = session_options(&case["session"]);
        let mut c = Conversation::new(Session::new(model, options.clone())?, case["system"].as_str())?;
        if let Some(policy) = case["policy"].as_str() {
            assert_eq!(policy, "drop_oldest");
            c.set_context_policy(ContextPolicy::DropOldest);
        }
        for action in case["actions"].as_array().unwrap() {
            let o = self.options(&action["options"]);
            let mut answer = String::new();
            let on_piece = |p: Piece<'_>| {
                watch(&mut self.margin, &p);
                answer.push_str(p.text);
                ControlFlow::Continue(())
            };
            let reply = match text(&action["do"]) {
                "send" => c.send(text(&action["text"]), &o, on_piece)?,
                "edit_last" => c.edit_last(text(&action["text"]), &o, on_piece)?,
                "regenerate" => c.regenerate(&o, on_piece)?,
                "respond" => c.respond(&turns(&action["turns"]), &o, on_piece)?,
                other => {
                    match other {
                        "reset" => c.reset(),
                        "set_system" => c.set_system(Some(text(&action["text"])))?,
                        "trim" => c.trim(),
                        "save_and_load" => {
                            let path = self.scratch.path().join("conversation");
                            c.save(&path, None)?;
                            c = Conversation::load(model, options.clone(), path, None)?;
                        }
                        other => panic!("action {other}"),
                    }
                    continue;
                }
            };
            if let Err(why) = replied(&reply, &answer, &action["expect"]) {
                return Ok(Err(why));
            }
        }
        let found: Vec<Turn> = c.turns().map(|t| Turn::new(t.role, t.text)).collect();
        Ok((|| {
            same!(found, turns(&case["turns"]), "turns");
            same!(*c.tokens(), ids(&case["tokens"])[..], "tokens");
            Ok(())
        })())
    }

    /// The file that a recipe describes.
    fn cook(&self, recipe: &Json) -> PathBuf {
        let path = self.scratch.path().join(recipe["name"].as_str().unwrap_or("case.gguf"));
        let mut bytes = match (recipe["of"].as_str(), recipe["bytes"].as_array()) {
            (Some(of), _) => fs::read(data(of)).unwrap(),
            (_, Some(bytes)) => bytes.iter().map(|b| size(b) as u8).collect(),
            _ => return path,
        };
        if let Some(keep) = recipe["keep"].as_u64() {
            bytes.truncate(keep as usize);
        }
        for at in recipe["set"].as_array().into_iter().flatten() {
            bytes[size(&at[0])] = size(&at[1]) as u8;
        }
        if recipe["replace"].is_array() {
            let (old, new) = (text(&recipe["replace"][0]).as_bytes(), text(&recipe["replace"][1]).as_bytes());
            assert_eq!(old.len(), new.len());
            let at = bytes.windows(old.len()).position(|w| w == old).unwrap();
            bytes[at..at + new.len()].copy_from_slice(new);
        }
        // A model that was opened may have the file of this name mapped.
        let _ = fs::remove_file(&path);
        fs::write(&path, bytes).unwrap();
        path
    }

    fn error(&mut self, case: &Json) -> Checked {
        let path = match case["model"].as_str() {
            Some(name) => data(name),
            None => self.cook(&case["file"]),
        };
        let mut len_after = None;
        let failed = match self.provoke(case, &path, &mut len_after) {
            Err(failed) => failed,
            Ok(()) => return Err("no error".into()),
        };
        same!(failed.status, *text(&case["status"]), "status ({})", failed.message);
        same!(failed.kind, *text(&case["error_kind"]), "kind");
        if !failed.message.contains(text(&case["message"])) {
            return Err(format!("message: expected {} in {:?}", case["message"], failed.message));
        }
        same!(failed.nearest.is_some(), case["nearest"] == true, "whether there is a nearest length");
        if let Some(expected) = case["len_after"].as_u64() {
            same!(len_after, Some(expected as usize), "length after");
        }
        Ok(())
    }

    fn provoke(&mut self, case: &Json, path: &Path, len_after: &mut Option<usize>) -> Result<(), Failed> {
        let token = CancelToken::new();
        if case["cancelled"] == true {
            token.cancel();
        }
        let cancel = Some(&token);
        let (call, options) = (text(&case["call"]), session_options(&case["session"]));
        match call {
            "open" => {
                let threads = case["open"]["threads"].as_u64().unwrap_or(1) as usize;
                let builder = Model::builder().threads(threads).cancel(&token);
                match case["by"].as_str() {
                    None => builder.open(path)?,
                    _ => builder.open_storage(vec![Storage::from_bytes(fs::read(path).unwrap())])?,
                };
                return Ok(());
            }
            "plan" => return Ok(Model::plan(path, 1, &options).map(drop)?),
            _ => {}
        }
        let model = Model::builder().threads(1).open(path)?;
        let id = || size(&case["id"]) as u32;
        let tokenizer = || model.tokenizer();
        match call {
            "tokenize" => {
                let mut o = EncodeOptions::default();
                o.cancel = cancel.cloned();
                return Ok(tokenizer()?.encode_with(text(&case["text"]), &o).map(drop)?);
            }
            "detokenize" => return Ok(tokenizer()?.decode(&ids(&case["ids"])).map(drop)?),
            "decoder" => return Ok(StreamDecoder::new(tokenizer()?)?.push(id()).map(drop)?),
            "token_bytes" if tokenizer()?.piece(id()).is_none() => {
                return Err(absent("CARAT_TOKEN_OUT_OF_RANGE", id().to_string()));
            }
            "token_kind" if tokenizer()?.kind(id()).is_none() => {
                return Err(absent("CARAT_TOKEN_OUT_OF_RANGE", id().to_string()));
            }
            "metadata" => {
                return Ok(model.gguf().metadata().require::<&str>(text(&case["key"])).map(drop)?);
            }
            "render" => return Ok(render(tokenizer()?, &turns(&case["turns"]), cancel).map(drop)?),
            "load" => {
                return Ok(
                    Session::load(&model, options, self.cook(&case["file_to_load"]), cancel).map(drop)?
                );
            }
            "load_conversation" => {
                let path = self.cook(&case["file_to_load"]);
                return Ok(Conversation::load(&model, options, path, cancel).map(drop)?);
            }
            _ => {}
        }
        let mut s = Session::new(&model, options)?;
        let before = ids(&case["before"]);
        if !before.is_empty() {
            s.prefill(&before).unwrap();
        }
        if let Some(cut) = case["cut"].as_u64() {
            s.truncate(cut as usize).unwrap();
        }
        if let Some(len) = case["shrink_to"].as_u64() {
            fs::OpenOptions::new().write(true).open(path).unwrap().set_len(len).unwrap();
        }
        let ids = ids(&case["ids"]);
        let mut o = generate_options(&case["options"]);
        o.cancel = cancel.cloned();
        let quiet = |_: Piece<'_>| ControlFlow::Continue(());
        if matches!(call, "send" | "regenerate" | "edit_last" | "respond" | "resume") {
            if call == "resume" {
                return Ok(Conversation::resume(s).map(drop)?);
            }
            let mut c = Conversation::new(s, None)?;
            let result = match call {
                "send" => c.send(text(&case["text"]), &o, quiet),
                "regenerate" => c.regenerate(&o, quiet),
                "edit_last" => c.edit_last(text(&case["text"]), &o, quiet),
                _ => c.respond(&turns(&case["turns"]), &o, quiet),
            };
            return Ok(result.map(drop)?);
        }
        let result = match call {
            "session" => Ok(()),
            "prefill" => s.prefill_with(&ids, cancel),
            "prefill_each" => s.prefill_each(&ids, cancel, |i, _| match case["stop_after"].as_u64() {
                // Rust's callback says why it stops.
                Some(n) if i as u64 + 1 == n => Err(Error::Cancelled),
                _ => Ok(()),
            }),
            "step" => s.step_with(size(&case["token"]) as u32, cancel).map(drop),
            "score" => s.score(&ids, size(&case["from"]), cancel).map(drop),
            "truncate" => s.truncate(size(&case["to"])),
            "generate" => s.generate(&self::ids(&case["prompt"]), &o, quiet).map(drop),
            "save" => {
                let name = case["to_file"].as_str().unwrap_or("session");
                s.save(self.scratch.path().join(name), cancel)
            }
            "logits" if s.keep_logits().is_none() => return Err(absent("CARAT_NO_LOGITS", "")),
            other => panic!("call {other}"),
        };
        *len_after = Some(s.len());
        if let Err(Error::Rewind { nearest, .. }) = result {
            s.truncate(nearest)?;
            assert_eq!(s.len(), nearest);
        }
        Ok(result?)
    }
}

fn tokenize(model: &Model, case: &Json) -> Checked {
    let t = model.tokenizer().unwrap();
    let mut o = EncodeOptions::default();
    (o.special, o.bos) = (case["special"] == true, case["bos"] == true);
    let found = t.encode_with(text(&case["text"]), &o).unwrap();
    same!(found, ids(&case["ids"]), "ids");
    same!(t.decode(&found).unwrap(), *text(&case["decoded"]), "decoded");
    let mut decoder = StreamDecoder::new(t).unwrap();
    let mut streamed = String::new();
    for id in found {
        streamed.push_str(decoder.push(id).unwrap());
    }
    streamed.push_str(decoder.flush());
    same!(streamed, *text(&case["decoded"]), "decoded one by one");
    Ok(())
}

fn rendered(model: &Model, case: &Json) -> Checked {
    let found = render(model.tokenizer().unwrap(), &turns(&case["turns"]), None);
    same!(found.unwrap(), ids(&case["ids"]), "ids");
    Ok(())
}

fn vocabulary(model: &Model, case: &Json) -> Checked {
    let t = model.tokenizer().unwrap();
    let special = serde_json::json!({
        "vocab_size": t.vocab_size(), "bos": t.bos(), "eos": t.eos(), "unk": t.unk(), "pad": t.pad(),
        "start_of_turn": t.start_of_turn(), "end_of_turn": t.end_of_turn(),
    });
    same!(special, case["special"], "special tokens");
    for token in case["tokens"].as_array().unwrap() {
        let id = size(&token["id"]) as u32;
        let bytes: Vec<u8> = ids(&token["bytes"]).iter().map(|&b| b as u8).collect();
        same!(t.piece(id), Some(&bytes[..]), "bytes of {id}");
        let kind = format!("{:?}", t.kind(id).unwrap()).to_lowercase();
        same!(kind, text(&token["kind"]).replace('_', ""), "kind of {id}");
    }
    for pair in case["ids"].as_array().unwrap() {
        same!(t.id_of(text(&pair[0])), pair[1].as_u64().map(|i| i as u32), "id of {}", pair[0]);
    }
    Ok(())
}

fn score(model: &Model, case: &Json) -> Checked {
    let mut options = SessionOptions::default();
    (options.context, options.batch) = (Some(256), 64);
    let mut s = Session::new(model, options).unwrap();
    let before = ids(&case["before"]);
    if !before.is_empty() {
        s.prefill(&before).unwrap();
    }
    let found = s.score(&ids(&case["ids"]), size(&case["from"]), None).unwrap();
    let expected = case["scores"].as_array().unwrap();
    same!(found.len(), expected.len(), "number of scores");
    for (i, (found, expected)) in found.iter().zip(expected).enumerate() {
        same!(found.token as usize, size(&expected[0]), "token {i}");
        close(found.log_prob as f64, &expected[1], LOG_PROB, &format!("score {i}"))?;
        let rank = found.rank as usize;
        if rank < size(&expected[2]) || rank > size(&expected[3]) {
            return Err(format!("rank {i}: expected {} to {}, found {rank}", expected[2], expected[3]));
        }
    }
    Ok(())
}

fn replied(reply: &Reply, answer: &str, expect: &Json) -> Checked {
    let s = &reply.summary;
    same!(answer, text(&expect["answer"]), "answer");
    same!(reason(s).0, text(&expect["reason"]), "reason");
    for (key, found) in [
        ("prompt_tokens", s.prompt_tokens),
        ("reused_tokens", s.reused_tokens),
        ("generated_tokens", s.generated_tokens),
    ] {
        same!(found, size(&expect[key]), "{key}");
    }
    let dropped: Vec<Turn> = reply.dropped.iter().map(|t| Turn::new(t.role, &t.text)).collect();
    let expected = if expect["dropped"].is_null() { Vec::new() } else { turns(&expect["dropped"]) };
    same!(dropped, expected, "dropped");
    Ok(())
}
