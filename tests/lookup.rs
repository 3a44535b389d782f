//! The pairs of prompt and answer that guessing ahead is measured on are what they are said to be.

mod common;

use std::collections::{HashMap, HashSet};

/// Characters of the shortest run that counts as quoted; ideographs say more.
fn shortest(language: &str) -> usize {
    if language == "ja" { 8 } else { 20 }
}

/// The part of the answer's characters that lie in runs, at least so long, that the prompt has too.
fn quoted(prompt: &str, answer: &str, shortest: usize) -> f64 {
    let (prompt, answer): (Vec<char>, Vec<char>) = (prompt.chars().collect(), answer.chars().collect());
    let said: HashSet<&[char]> = prompt.windows(shortest).collect();
    let mut is_quoted = vec![false; answer.len()];
    for (at, run) in answer.windows(shortest).enumerate() {
        if said.contains(run) {
            is_quoted[at..at + shortest].fill(true);
        }
    }
    is_quoted.iter().filter(|q| **q).count() as f64 / answer.len() as f64
}

/// How often the most frequent run of so many characters occurs.
fn most_frequent(text: &str, length: usize) -> usize {
    let text: Vec<char> = text.chars().collect();
    let mut counts = HashMap::new();
    for run in text.windows(length) {
        *counts.entry(run).or_insert(0) += 1;
    }
    counts.into_values().max().unwrap_or(0)
}

#[test]
fn twenty_answers_quote_as_much_as_is_stated_and_ten_do_not() {
    let text = std::fs::read(common::data("lookup/pairs.json")).unwrap();
    let json: serde_json::Value = serde_json::from_slice(&text).unwrap();
    let stated = std::fs::read_to_string(common::data("lookup/README.md")).unwrap();
    let mut shares = Vec::new();
    let mut others = 0;
    for pair in json["pairs"].as_array().unwrap() {
        let string = |key: &str| pair[key].as_str().unwrap();
        let (name, language) = (string("name"), string("language"));
        let share = quoted(string("prompt"), string("answer"), shortest(language));
        if pair["quotes"] == true {
            let line = format!("| {name} | {language} | {} | {:.0}% |", string("kind"), 100.0 * share);
            println!("{line}");
            assert!(stated.contains(&line), "README.md lacks: {line}");
            assert!((0.6..1.0).contains(&share), "{name}: {share}");
            shares.push(share);
        } else {
            assert_eq!(share, 0.0, "{name}");
            others += 1;
        }
        // No text that goes round in circles.
        let frequent = most_frequent(string("answer"), 2 * shortest(language));
        assert!(frequent <= 2, "{name}: {frequent}");
    }
    assert_eq!((shares.len(), others), (20, 10));
    shares.sort_by(f64::total_cmp);
    let median = format!("{:.0}% at the median", 50.0 * (shares[9] + shares[10]));
    assert!(stated.contains(&median), "README.md lacks: {median}");
}
