//! What tests share.
#![allow(dead_code)]

mod real_model;
mod start;

use std::path::PathBuf;

use carat::{Model, Session, SessionOptions};
#[allow(unused_imports)] // not every test needs it
pub use real_model::{emulated, real_model, real_model_at_length};
#[allow(unused_imports)]
pub use start::command;

pub const TINY: [&str; 4] = ["tiny-gemma-mqa", "tiny-gemma-mha", "tiny-gemma2", "tiny-gemma3"];

pub fn data(name: &str) -> PathBuf {
    PathBuf::from(env!("CARGO_MANIFEST_DIR")).join("tests/data").join(name)
}

/// One of the tiny models: window 16, context 256.
pub fn tiny(name: &str, threads: usize) -> Model {
    Model::builder().threads(threads).open(data(&format!("{name}.gguf"))).unwrap()
}

/// `n` ids that every tiny model knows, BOS first.
pub fn ids(n: usize) -> Vec<u32> {
    (0..n as u32).map(|i| if i == 0 { 2 } else { 300 + (i * 37 + i * i) % 400 }).collect()
}

pub fn options(context: usize, batch: usize) -> SessionOptions {
    let mut o = SessionOptions::default();
    o.context = Some(context);
    o.batch = batch;
    o
}

pub fn session(model: &Model, context: usize, batch: usize) -> Session {
    Session::new(model, options(context, batch)).unwrap()
}

pub fn bits(logits: &[f32]) -> Vec<u32> {
    logits.iter().map(|l| l.to_bits()).collect()
}

/// The bits of the logits now.
pub fn now(session: &Session) -> Vec<u32> {
    bits(session.logits().expect("logits"))
}

fn argmax(logits: &[f32]) -> u32 {
    (0..logits.len()).max_by(|&a, &b| logits[a].total_cmp(&logits[b])).unwrap() as u32
}

/// A hash (FNV-1a) of the bits of the logits now and after each of `n` greedy steps.
pub fn continued(session: &mut Session, n: usize) -> Vec<u64> {
    let hash = |logits: &[f32]| {
        logits.iter().fold(0xcbf2_9ce4_8422_2325u64, |h, l| {
            (h ^ l.to_bits() as u64).wrapping_mul(0x0000_0100_0000_01b3)
        })
    };
    let mut all = vec![hash(session.logits().expect("logits"))];
    for _ in 0..n {
        let token = argmax(session.logits().unwrap());
        all.push(hash(session.step(token).unwrap()));
    }
    all
}
