//! Runs the program as a user would.

// Every test file is a program of its own and uses a part of this.
#![allow(dead_code)]

#[path = "../../../tests/common/start.rs"]
mod start;

use std::io::Write;
use std::path::{Path, PathBuf};
use std::process::{Command, Output, Stdio};

/// The program, without the environment variables that it listens to.
pub fn carat() -> Command {
    let mut command = start::command(env!("CARGO_BIN_EXE_carat"));
    for name in ["CARAT_ISA", "CARAT_MODELS", "HF_TOKEN", "HF_HOME", "HF_ENDPOINT", "PYTHON"] {
        command.env_remove(name);
    }
    command.stdin(Stdio::null());
    command
}

/// Runs it with a standard input.
pub fn with_input(command: &mut Command, input: &[u8]) -> Output {
    let mut child =
        command.stdin(Stdio::piped()).stdout(Stdio::piped()).stderr(Stdio::piped()).spawn().unwrap();
    // It may end without reading all.
    let _ = child.stdin.take().unwrap().write_all(input);
    child.wait_with_output().unwrap()
}

/// Its standard output; it must have succeeded.
pub fn stdout(command: &mut Command) -> String {
    let output = command.output().unwrap();
    assert!(output.status.success(), "{command:?}: {}", String::from_utf8_lossy(&output.stderr));
    String::from_utf8(output.stdout).unwrap()
}

/// It must have failed with an exit code, have said something, and have printed nothing.
#[track_caller]
pub fn assert_fails(output: &Output, code: i32, says: &str) {
    let error = String::from_utf8_lossy(&output.stderr);
    assert_eq!(output.status.code(), Some(code), "{error}");
    assert!(error.contains(says), "expected {says:?} in {error:?}");
    assert!(output.stdout.is_empty(), "{}", String::from_utf8_lossy(&output.stdout));
}

/// A file of the library's test data.
pub fn data(name: &str) -> PathBuf {
    Path::new(env!("CARGO_MANIFEST_DIR")).join("../tests/data").join(name)
}

/// The ids that the golden logits of the tiny models belong to.
pub fn tiny_ids() -> Vec<u32> {
    serde_json::from_slice(&std::fs::read(data("tiny-ids.json")).unwrap()).unwrap()
}

/// Little-endian f32.
pub fn floats(path: &Path) -> Vec<f32> {
    let bytes = std::fs::read(path).unwrap();
    bytes.as_chunks().0.iter().map(|b| f32::from_le_bytes(*b)).collect()
}
