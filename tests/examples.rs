//! The programs in examples/ do what they say.

mod common;

use std::path::PathBuf;
use std::process::Output;

/// Runs an example, which Cargo has built beside this test.
fn example(name: &str, args: &[&str]) -> Output {
    let mut path = std::env::current_exe().unwrap();
    path.pop();
    path.pop();
    path.push("examples");
    path.push(format!("{name}{}", std::env::consts::EXE_SUFFIX));
    assert!(path.exists(), "{} is not built: cargo build --examples", path.display());
    common::command(path).args(args).output().unwrap()
}

fn printed(name: &str, args: &[&str]) -> String {
    let output = example(name, args);
    assert!(output.status.success(), "{name}: {}", String::from_utf8_lossy(&output.stderr));
    String::from_utf8(output.stdout).unwrap()
}

fn tiny() -> String {
    let path = PathBuf::from(env!("CARGO_MANIFEST_DIR")).join("tests/data/tiny-gemma3.gguf");
    path.into_os_string().into_string().unwrap()
}

#[test]
fn generate_goes_on_with_a_text() {
    let once = printed("generate", &[&tiny(), "Once"]);
    assert!(once.trim_end().chars().count() > 10, "{once:?}");
    assert_eq!(printed("generate", &[&tiny(), "Once"]), once);
    assert_ne!(printed("generate", &[&tiny(), "Twice"]), once);
}

#[test]
fn score_compares_endings() {
    let text = printed("score", &[&tiny(), "Once", " a", " time", " a"]);
    let lines: Vec<&str> = text.lines().collect();
    assert_eq!(lines.len(), 3);
    assert_eq!(lines[0], lines[2]);
    for line in &lines {
        let score: f32 = line.split_whitespace().next().unwrap().parse().unwrap();
        assert!(score < 0.0 && score.is_finite(), "{line}");
    }
    assert!(lines[1].contains("\" time\""));
}

#[test]
fn tokenize_prints_a_token_a_line() {
    let text = printed("tokenize", &[&tiny(), "two words"]);
    assert!(text.lines().count() >= 2);
    let pieces: String = text.lines().map(|l| l.split('"').nth(1).unwrap()).collect();
    assert_eq!(pieces, "two words");
}

#[test]
fn chat_reuses_what_was_said() {
    let output = example("chat", &[&tiny(), "Hello", "And then?"]);
    assert!(output.status.success(), "{}", String::from_utf8_lossy(&output.stderr));
    let text = String::from_utf8_lossy(&output.stdout);
    assert!(text.starts_with("> Hello\n") && text.contains("\n> And then?\n"), "{text}");
    let said = String::from_utf8_lossy(&output.stderr);
    let lines: Vec<&str> = said.lines().collect();
    assert_eq!(lines.len(), 2);
    assert!(lines[0].contains(" 0 reused") && !lines[1].contains(" 0 reused"), "{said}");
}

#[test]
fn examples_say_how_to_use_them() {
    for name in ["chat", "generate", "score", "tokenize"] {
        let output = example(name, &[]);
        assert!(!output.status.success());
        assert!(String::from_utf8_lossy(&output.stderr).contains("usage"), "{name}");
        assert!(!example(name, &["absent.gguf", "x"]).status.success());
    }
}
