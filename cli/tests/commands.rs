//! The commands, on the tiny models.

mod common;

use std::fs;
use std::io::Read;
use std::process::Stdio;

use carat::gguf::Gguf;
use carat::{EncodeOptions, Isa, Tokenizer, TokenizerOptions};
use common::{assert_fails, carat, data, floats, stdout, tiny_ids, with_input};

const TINY: [&str; 4] = ["tiny-gemma-mqa", "tiny-gemma-mha", "tiny-gemma2", "tiny-gemma3"];

#[test]
fn logits_are_the_golden_ones() {
    let dir = tempfile::tempdir().unwrap();
    let (ids, out) = (dir.path().join("ids"), dir.path().join("out"));
    // Spaces, commas and line breaks all separate.
    let text: String = tiny_ids()
        .iter()
        .enumerate()
        .map(|(i, id)| format!("{id}{}", [" ", ",", "\n", ", "][i % 4]))
        .collect();
    fs::write(&ids, text).unwrap();
    for model in TINY {
        let golden = floats(&data(&format!("{model}.logits.f32")));
        for options in [&[][..], &["--batch", "7"], &["--batch", "1"], &["--exact"]] {
            for isa in Isa::ALL.into_iter().filter(|i| i.is_available()) {
                let mut c = carat();
                c.arg("logits").arg("-m").arg(data(&format!("{model}.gguf")));
                c.arg("--ids").arg(&ids).arg("--out").arg(&out).args(options);
                assert_eq!(stdout(c.env("CARAT_ISA", isa.name())), "");
                let found = floats(&out);
                assert_eq!(found.len(), golden.len());
                let worst = found.iter().zip(&golden).map(|(a, b)| (a - b).abs()).fold(0.0, f32::max);
                assert!(worst <= 2e-3, "{model} {options:?} {isa}: {worst}");
            }
        }
    }
}

#[test]
fn scores_are_those_of_the_golden_logits() {
    let dir = tempfile::tempdir().unwrap();
    let ids_file = dir.path().join("ids");
    let ids = tiny_ids();
    fs::write(&ids_file, ids.iter().map(|i| format!("{i} ")).collect::<String>()).unwrap();
    let golden = floats(&data("tiny-gemma3.logits.f32"));
    let model = data("tiny-gemma3.gguf");
    let text = stdout(carat().arg("score").arg("-m").arg(model).arg("--ids").arg(&ids_file));
    let lines: Vec<Vec<&str>> = text.lines().map(|l| l.split('\t').collect()).collect();
    assert_eq!(lines.len(), ids.len() - 1);
    for (i, line) in lines.iter().enumerate() {
        let logits = &golden[i * 768..(i + 1) * 768];
        let own = logits[ids[i + 1] as usize];
        let sum: f64 = logits.iter().map(|l| (*l as f64).exp()).sum();
        let log_prob: f64 = line[1].parse().unwrap();
        assert_eq!(line[0], ids[i + 1].to_string());
        assert!((log_prob - (own as f64 - sum.ln())).abs() < 4e-3, "position {i}: {log_prob}");
        // Near ties may fall either way.
        let likelier = |margin: f32| logits.iter().filter(|l| **l > own + margin).count();
        let rank: usize = line[2].parse().unwrap();
        assert!((likelier(4e-3)..=likelier(-4e-3)).contains(&rank), "position {i}: rank {rank}");
    }
}

#[test]
fn texts_are_scored_after_a_beginning_of_sequence() {
    let model = data("tiny-gemma3.gguf");
    let text = stdout(carat().arg("score").arg("-m").arg(&model).arg("The sea."));
    let tokenizer = Tokenizer::from_gguf(&Gguf::open(&model).unwrap(), &TokenizerOptions::default()).unwrap();
    let ids: Vec<u32> = text.lines().map(|l| l.split('\t').next().unwrap().parse().unwrap()).collect();
    assert_eq!(ids, tokenizer.encode("The sea.").unwrap());
    let output = with_input(carat().arg("score").arg("-m").arg(&model), b"The sea.");
    assert_eq!(String::from_utf8(output.stdout).unwrap(), text);
    assert!(String::from_utf8(output.stderr).unwrap().contains("perplexity"));
}

#[test]
fn tokenize_prints_ids_on_one_line() {
    let model = data("tiny-gemma3.gguf");
    let tokenizer = Tokenizer::from_gguf(&Gguf::open(&model).unwrap(), &TokenizerOptions::default()).unwrap();
    let line = |ids: &[u32]| ids.iter().map(u32::to_string).collect::<Vec<_>>().join(" ") + "\n";
    let tokenize = || {
        let mut c = carat();
        c.arg("tokenize").arg("-m").arg(&model);
        c
    };
    for text in ["Hello, world", "  two spaces\n", "<start_of_turn>user", "日本語 ♥", "-5"] {
        let plain = line(&tokenizer.encode(text).unwrap());
        assert_eq!(stdout(tokenize().arg("--").arg(text)), plain);
        let output = with_input(&mut tokenize(), text.as_bytes());
        assert_eq!(String::from_utf8(output.stdout).unwrap(), plain);
        let mut special = EncodeOptions::default();
        special.special = true;
        let special = line(&tokenizer.encode_with(text, &special).unwrap());
        assert_eq!(stdout(tokenize().arg("--special").arg("--").arg(text)), special);
        assert_eq!(special != plain, text.starts_with('<'));

        let mut other = tokenize();
        other.args(["--engine", "sentencepiece", "--"]).arg(text);
        if cfg!(feature = "sentencepiece") {
            assert_eq!(stdout(&mut other), plain);
        } else {
            assert_fails(&other.output().unwrap(), 3, "not supported");
        }
    }
    // To the byte: what is not UTF-8 is no error here.
    let output = with_input(&mut tokenize(), b"a\xffb\n");
    assert_eq!(String::from_utf8(output.stdout).unwrap(), line(&tokenizer.encode("a\u{fffd}b\n").unwrap()));
    assert_eq!(stdout(tokenize().arg("")), "\n");
}

#[test]
fn run_prints_the_text_and_nothing_else() {
    let model = data("tiny-gemma3.gguf");
    let run = || {
        let mut c = carat();
        c.arg("run").arg("-m").arg(&model).args(["-n", "40"]);
        c
    };
    let output = run().args(["--temp", "0", "Once"]).output().unwrap();
    assert!(output.status.success());
    assert!(output.stderr.is_empty(), "{}", String::from_utf8_lossy(&output.stderr));
    let greedy = String::from_utf8(output.stdout).unwrap();
    assert!(greedy.len() > 1 && greedy.ends_with('\n'), "{greedy:?}");

    // The same from standard input, for any number of threads, any batch.
    for args in [&["-"][..], &["-t", "1", "-"], &["-b", "1", "-"]] {
        let output = with_input(run().args(["--temp", "0"]).args(args), b"Once");
        assert_eq!(String::from_utf8(output.stdout).unwrap(), greedy, "{args:?}");
    }
    // Guessing ahead changes nothing that is said.
    assert_eq!(stdout(run().args(["--temp", "0", "--draft", "15", "Once"])), greedy);
    assert_fails(&run().args(["--draft", "16", "Once"]).output().unwrap(), 2, "draft");
    let seeded = |seed: &str| stdout(run().args(["--seed", seed, "Once"]));
    assert_eq!(seeded("7"), seeded("7"));
    assert_ne!(seeded("7"), seeded("8"));

    // A stop string ends the text before it.
    let stop: String = greedy.trim_end().chars().skip(5).take(4).collect();
    let stopped = stdout(run().args(["--temp", "0", "Once", "--stop", &stop]));
    let before = &greedy[..greedy.find(&stop).unwrap()];
    assert_eq!(stopped.strip_suffix('\n').unwrap(), before.strip_suffix('\n').unwrap_or(before));

    let output = run().args(["-v", "--temp", "0", "Once"]).output().unwrap();
    assert_eq!(String::from_utf8(output.stdout).unwrap(), greedy);
    let said = String::from_utf8(output.stderr).unwrap();
    assert!(said.contains("tokens/s") && said.contains("ended by"), "{said}");
}

/// The reader goes away: no error, no noise.
#[test]
fn a_closed_pipe_is_no_error() {
    let model = data("tiny-gemma3.gguf");
    for args in
        [&["run", "--temp", "0", "-n", "200", "Once"][..], &["info", "-v"], &["score", "Once upon a time"]]
    {
        let mut child = carat()
            .args(args)
            .arg("-m")
            .arg(&model)
            .stdout(Stdio::piped())
            .stderr(Stdio::piped())
            .spawn()
            .unwrap();
        drop(child.stdout.take());
        let mut said = String::new();
        child.stderr.take().unwrap().read_to_string(&mut said).unwrap();
        assert_eq!(child.wait().unwrap().code(), Some(0), "{args:?}: {said}");
        assert!(!said.contains("carat: cannot") && !said.contains("panicked"), "{said}");
    }
}

#[test]
fn info_tells_shape_types_and_plan() {
    let text = stdout(carat().args(["info", "-v", "-c", "128", "-m"]).arg(data("tiny-gemma3.gguf")));
    for expected in [
        "gemma3",
        "vocabulary            768",
        "16 tokens, in 6 of 7",
        "F32",
        "context of 128",
        "blk.6.ffn_down.weight",
    ] {
        assert!(text.contains(expected), "{expected:?} is not in {text}");
    }
    let scalar =
        stdout(carat().env("CARAT_ISA", "scalar").arg("info").arg("-m").arg(data("tiny-gemma2.gguf")));
    assert!(scalar.contains("scalar") && scalar.contains("soft cap"), "{scalar}");
}

#[test]
fn bench_measures_what_was_asked() {
    let bench = || {
        let mut c = carat();
        c.args(["bench", "-p", "32", "-n", "8", "-r", "3", "-t", "2", "-m"]).arg(data("tiny-gemma3.gguf"));
        c
    };
    let json: serde_json::Value = serde_json::from_str(&stdout(bench().arg("--json"))).unwrap();
    let results = json["results"].as_array().unwrap();
    let tests: Vec<&str> = results.iter().map(|r| r["test"].as_str().unwrap()).collect();
    assert_eq!(tests, ["pp32", "tg8"]);
    for result in results {
        let rate = |name: &str| result["tokens_per_s"][name].as_f64().unwrap();
        assert!(0.0 < rate("min") && rate("min") <= rate("median") && rate("median") <= rate("max"));
        let share = result["share_of_limit"].as_f64().unwrap();
        assert!(share > 0.0 && share.is_finite(), "{result}");
        assert!(result["cancel_ms"].as_f64().unwrap() < 200.0, "{result}");
    }
    assert!(results[0]["gmac_per_s"].as_f64().unwrap() > 0.0);
    assert!(results[1]["gb_per_s"].as_f64().unwrap() > 0.0);
    assert_eq!(json["threads"], 2);
    assert!(json["limits"]["read_gb_per_s"].as_f64().unwrap() > 0.0);

    let table = stdout(&mut bench());
    let widths: Vec<usize> = table.lines().take(4).map(|l| l.chars().count()).collect();
    assert_eq!(widths, [widths[0]; 4], "{table}");
    assert!(table.contains("| pp32") || table.contains(" pp32 |"), "{table}");
}

#[test]
fn bench_cancels_every_kind_of_call() {
    let mut c = carat();
    c.args(["bench", "--cancel", "-p", "200", "-n", "20", "-r", "3", "--json", "-m"]);
    let json: serde_json::Value = serde_json::from_str(&stdout(c.arg(data("tiny-gemma3.gguf")))).unwrap();
    let rows = json["cancel"].as_array().unwrap();
    let calls: Vec<&str> = rows.iter().map(|r| r["call"].as_str().unwrap()).collect();
    let expected = ["open", "encode 1.", "prefill 200", "decode 20", "score 200", "save 200"];
    assert!(calls.len() == 6 && calls.iter().zip(expected).all(|(c, e)| c.starts_with(e)), "{calls:?}");
    for row in rows {
        let takes = row["takes_ms"].as_f64().unwrap();
        let went_on = row["went_on_ms"].as_array().unwrap();
        assert!(takes > 0.0 && went_on.len() <= 3, "{row}");
        assert!(went_on.iter().all(|t| t.as_f64().unwrap() >= 0.0), "{row}");
    }
    // Encoding takes long enough to be caught at it each time.
    assert_eq!(rows[1]["went_on_ms"].as_array().unwrap().len(), 3);
}

#[test]
fn a_locked_model_says_so_and_one_that_was_refused_why() {
    let text = stdout(carat().args(["info", "--lock", "-m"]).arg(data("tiny-gemma3.gguf")));
    assert!(
        text.contains("locked in memory      yes") || text.contains("locked in memory      no: "),
        "{text}"
    );
    let text = stdout(carat().args(["info", "-m"]).arg(data("tiny-gemma3.gguf")));
    assert!(!text.contains("locked"), "{text}");
}

#[test]
fn bench_compares_guessing_ahead_on_pairs() {
    let dir = tempfile::tempdir().unwrap();
    let file = dir.path().join("pairs.json");
    let bench = |pairs: &str| {
        fs::write(&file, pairs).unwrap();
        let mut c = carat();
        c.args(["bench", "-r", "1", "-t", "1", "--lookup"])
            .arg(&file)
            .arg("-m")
            .arg(data("tiny-gemma3.gguf"));
        c
    };
    let pairs = r#"{"pairs": [
        {"name": "echo", "quotes": true, "prompt": "say: one two three", "answer": "one two three"},
        {"name": "other", "quotes": false, "prompt": "say nothing", "answer": "12345"}]}"#;
    let json: serde_json::Value = serde_json::from_str(&stdout(bench(pairs).arg("--json"))).unwrap();
    let rows = json["pairs"].as_array().unwrap();
    assert_eq!(rows.iter().map(|r| r["name"].as_str().unwrap()).collect::<Vec<_>>(), ["echo", "other"]);
    for row in rows {
        let number = |key: &str| row[key].as_f64().unwrap();
        assert!(number("accepted_tokens") <= number("drafted_tokens"));
        let times = number("drafted_tokens_per_s") / number("plain_tokens_per_s");
        assert!(times > 0.0 && (times - number("times")).abs() < 1e-9, "{row}");
    }
    assert_eq!(json["times_that_quote"]["median"], rows[0]["times"]);
    let table = stdout(&mut bench(pairs));
    assert!(table.contains("| echo ") && table.contains("pairs that do not quote"), "{table}");

    for (wrong, says) in [
        ("{", "not JSON"),
        ("{}", "pairs"),
        (r#"{"pairs": []}"#, "at least one"),
        (r#"{"pairs": [{"name": "a", "quotes": 1, "prompt": "b", "answer": "c"}]}"#, "quotes"),
        (r#"{"pairs": [{"name": "a", "quotes": true, "prompt": "b", "answer": ""}]}"#, "empty"),
        (r#"{"pairs": [{"name": "a", "quotes": true, "answer": "c"}]}"#, "prompt"),
    ] {
        assert_fails(&bench(wrong).output().unwrap(), 3, says);
    }
}

#[test]
fn every_shell_has_completions() {
    for shell in ["bash", "zsh", "fish", "elvish", "powershell"] {
        let script = stdout(carat().args(["completions", shell]));
        assert!(script.contains("tokenize"), "{shell}");
    }
}

#[test]
fn synthesized_files_run() {
    let dir = tempfile::tempdir().unwrap();
    let out = dir.path().join("random.gguf");
    let mut synth = carat();
    synth.args(["synth", "gemma3-270m", "--type", "q4_0", "--layers", "1"]).arg(&out);
    assert_eq!(stdout(&mut synth), "");
    let text =
        stdout(carat().args(["run", "-n", "4", "--seed", "1", "-c", "64", "-m"]).arg(&out).arg("Hello"));
    assert!(!text.is_empty());
}
