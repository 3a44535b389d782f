//! What goes wrong has its exit code, says why on standard error, and leaves standard output alone.

mod common;

use std::fs;

use common::{assert_fails, carat, data, with_input};

#[test]
fn usage_errors_exit_with_2() {
    let tiny = data("tiny-gemma3.gguf");
    let tiny = tiny.to_str().unwrap();
    for (args, says) in [
        (&["frobnicate"][..], "frobnicate"),
        (&["run", "-m", tiny, "--bogus", "x"], "--bogus"),
        (&["run", "-m", tiny, "-t", "0", "x"], "1 or more"),
        (&["run", "-m", tiny, "-n", "many", "x"], "whole number"),
        (&["run", "-m", tiny, "--kv", "q3", "x"], "f16 or q8_0"),
        (&["run", "-m", tiny, "--isa", "mmx", "x"], "scalar"),
        (&["run", "-m", tiny, "--temp", "nan", "x"], "temperature"),
        (&["run", "-m", tiny, "--temp", "-1", "x"], "temp"),
        (&["run", "-m", tiny, "--top-p", "1.5", "x"], "top_p"),
        (&["run", "-m", tiny, "-t", "100000", "x"], "threads"),
        (&["run", "-m", tiny, "-c", "100000", "x"], "context"),
        (&["run", "-m", tiny, "-c", "2", "a longer prompt than that"], "does not fit"),
        (&["run", "-m", tiny, ""], "empty"),
        (&["score", "-m", tiny, "--ids", "x", "text"], "--ids"),
        (&["pull", "not-a-repository"], "OWNER/REPO"),
        (&["completions", "dos"], "dos"),
        (&["bench", "-m", tiny, "-p", "0", "-n", "0"], "nothing to measure"),
        (&["synth", "3b", "out.gguf"], "3b"),
    ] {
        assert_fails(&carat().args(args).output().unwrap(), 2, says);
    }
    // The environment variable is checked as the option is.
    assert_fails(&carat().args(["info", "-m", tiny]).env("CARAT_ISA", "mmx").output().unwrap(), 2, "mmx");
}

#[test]
fn input_that_cannot_be_used_exits_with_2() {
    let tiny = data("tiny-gemma3.gguf");
    let run = |input: &[u8]| with_input(carat().arg("run").arg("-m").arg(&tiny).arg("-"), input);
    assert_fails(&run(b"fine so far \xff"), 2, "not UTF-8: byte 12");
    assert_fails(&run(b""), 2, "empty");
}

#[test]
fn file_errors_exit_with_3() {
    let dir = tempfile::tempdir().unwrap();
    let file = |name: &str, bytes: &[u8]| {
        let path = dir.path().join(name);
        fs::write(&path, bytes).unwrap();
        path
    };
    let whole = fs::read(data("tiny-gemma3.gguf")).unwrap();
    for (path, says) in [
        (dir.path().join("absent.gguf"), "cannot open"),
        (dir.path().to_path_buf(), "directory"),
        (file("empty.gguf", b""), "empty"),
        (file("text.gguf", b"This is not a model, but a text."), "magic"),
        (file("cut.gguf", &whole[..whole.len() / 2]), "cut.gguf"),
        (data("big-endian.gguf"), "big-endian"),
    ] {
        for command in ["run", "info", "tokenize", "score"] {
            let mut c = carat();
            c.arg(command).arg("-m").arg(&path);
            if command != "info" {
                c.arg("text");
            }
            let output = c.output().unwrap();
            // Tokenizing needs no tensors; a cut file still has a vocabulary, or an error.
            if command == "tokenize" && output.status.success() {
                continue;
            }
            assert_fails(&output, 3, says);
        }
    }
}

#[test]
fn ids_are_checked() {
    let dir = tempfile::tempdir().unwrap();
    let (ids, out) = (dir.path().join("ids"), dir.path().join("out"));
    let logits = || {
        let mut c = carat();
        c.arg("logits").arg("-m").arg(data("tiny-gemma3.gguf")).arg("--ids").arg(&ids).arg("--out").arg(&out);
        c
    };
    assert_fails(&logits().output().unwrap(), 3, "cannot read");
    fs::write(&ids, "1, 2, three").unwrap();
    assert_fails(&logits().output().unwrap(), 3, "id 2: expected a token id, found \"three\"");
    fs::write(&ids, "1 2 768").unwrap();
    assert_fails(&logits().output().unwrap(), 2, "token id 768 at position 2");
    assert_fails(&logits().args(["--batch", "1"]).output().unwrap(), 2, "token id 768");
    for batch in ["1", "7"] {
        fs::write(&ids, " \n").unwrap();
        assert_fails(&logits().args(["--batch", batch]).output().unwrap(), 2, "empty");
    }
    fs::write(&ids, "1 2").unwrap();
    let output = logits().arg("--out").arg(dir.path()).output().unwrap();
    assert!(!output.status.success());
    let mut elsewhere = carat();
    elsewhere.arg("logits").arg("-m").arg(data("tiny-gemma3.gguf")).arg("--ids").arg(&ids);
    assert_fails(&elsewhere.arg("--out").arg(dir.path()).output().unwrap(), 3, "cannot write");
}

#[test]
fn a_missing_pip_exits_with_1_and_says_what_to_do() {
    let dir = tempfile::tempdir().unwrap();
    let models = dir.path().join("models");
    for args in [&["pull"][..], &["run", "x"]] {
        let output =
            carat().args(args).env("CARAT_MODELS", &models).env("PYTHON", "no-such-python").output().unwrap();
        assert_fails(&output, 1, "no-such-python");
        let error = String::from_utf8_lossy(&output.stderr).into_owned();
        assert!(error.contains("Gemma Terms of Use"), "{error}");
    }
}

#[cfg(target_os = "linux")]
#[test]
fn a_full_disk_is_told() {
    let dir = tempfile::tempdir().unwrap();
    let ids = dir.path().join("ids");
    fs::write(&ids, "2 3").unwrap();
    let mut logits = carat();
    logits.arg("logits").arg("-m").arg(data("tiny-gemma3.gguf")).arg("--ids").arg(&ids);
    assert_fails(&logits.args(["--out", "/dev/full"]).output().unwrap(), 3, "No space left");
    // Standard output is no file of the user's.
    let full = fs::File::options().write(true).open("/dev/full").unwrap();
    let output = carat().arg("info").arg("-m").arg(data("tiny-gemma3.gguf")).stdout(full).output().unwrap();
    assert_fails(&output, 1, "standard output");
}

/// Ctrl-C: what was begun is given up, and the exit code is the shells'.
#[cfg(unix)]
#[test]
fn an_interrupt_exits_with_130_and_leaves_nothing() {
    use std::time::{Duration, Instant};

    let dir = tempfile::tempdir().unwrap();
    let out = dir.path().join("big.gguf");
    let mut child =
        carat().args(["synth", "2b"]).arg(&out).stderr(std::process::Stdio::piped()).spawn().unwrap();
    let part = dir.path().join("big.gguf.part");
    let began = Instant::now();
    while !part.exists() && began.elapsed() < Duration::from_secs(60) {
        std::thread::sleep(Duration::from_millis(5));
    }
    let kill = std::process::Command::new("kill").args(["-INT", &child.id().to_string()]).status().unwrap();
    assert!(kill.success());
    assert_eq!(child.wait().unwrap().code(), Some(130));
    assert_eq!(fs::read_dir(dir.path()).unwrap().count(), 0);
}
