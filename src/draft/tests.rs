use super::*;
use crate::chat::{self, Role, Turn};
use crate::model::tests::real_model;
use crate::sampler::Rng;
use crate::{Model, Tokenizer};

/// What `find` is to find, the slow way.
fn slow(text: &[u32], last: u32) -> Option<Guess> {
    let whole: Vec<u32> = text.iter().copied().chain([last]).collect();
    let matched = |at: usize| {
        let ends = whole[..at].iter().rev().zip(whole.iter().rev());
        ends.take(LONGEST).take_while(|(a, b)| a == b).count()
    };
    let longest = (1..whole.len()).map(matched).max().filter(|&m| m > 0)?;
    let at = (1..whole.len()).rev().find(|&at| matched(at) == longest)?;
    Some(Guess { at, matched: longest })
}

#[test]
fn the_longest_match_is_found_and_of_several_the_latest() {
    let mut rng = Rng::new(5);
    let mut lengths = [0; LONGEST + 1];
    for round in 0..2000 {
        let letters = [2, 3, 20, 200][round % 4];
        let n = (rng.uniform() * 300.0) as usize;
        let mut text: Vec<u32> = (0..n).map(|_| (rng.uniform() * letters as f64) as u32).collect();
        // Some end as something before them does.
        let copied = ((rng.uniform() * 30.0) as usize).min(n / 3);
        if copied > 0 {
            let from = (rng.uniform() * (n - copied) as f64) as usize;
            let (head, tail) = text.split_at_mut(n - copied);
            let end = (from + copied).min(head.len());
            tail[copied - (end - from)..].copy_from_slice(&head[from..end]);
        }
        let Some((&last, before)) = text.split_last() else { continue };
        let found = find(before, last);
        assert_eq!(found, slow(before, last), "{text:?}");
        lengths[found.map_or(0, |g| g.matched)] += 1;
    }
    assert!(lengths.iter().all(|&n| n > 0), "{lengths:?}");
    assert_eq!(find(&[], 7), None);
}

#[test]
fn a_draft_is_what_followed_and_goes_round_at_the_end() {
    let mut d = Drafts::new();
    d.eager = true;
    let text = [9, 1, 2, 3, 4, 5, 1, 2];
    d.begin(&text[..7]);
    assert!(!d.take(&text[..7], 2));
    assert_eq!(d.pass(&text[..7], 2, 4), [2, 3, 4, 5, 1]);
    assert!(d.take(&text, 3));
    // What comes otherwise is not taken, nor what was guessed after it.
    assert!(!d.take(&[&text[..], &[3]].concat(), 8));
    assert!(!d.take(&[&text[..], &[3, 8]].concat(), 5));
    assert_eq!((d.drafted, d.accepted), (4, 1));
    d.begin(&[1, 2, 1]);
    d.take(&[1, 2, 1], 2);
    assert_eq!(d.pass(&[1, 2, 1], 2, 7), [2, 1, 2, 1, 2, 1, 2, 1]);
    // Without room there is only the token itself.
    assert_eq!(d.pass(&[1, 2, 1], 2, 0), [2]);
}

/// The times of plain steps that saying `answer` after `prompt` takes, where a pass of n tokens costs what `cost`
/// says.
fn passes(prompt: &[u32], answer: &[u32], most: usize, cost: impl Fn(usize) -> f64) -> f64 {
    let mut d = Drafts::new();
    let mut text = prompt.to_vec();
    d.begin(&text);
    let mut total = 0.0;
    for (i, &token) in answer.iter().enumerate() {
        if !d.take(&text, token) {
            let n = d.pass(&text, token, most.min(answer.len() - i - 1)).len();
            d.took(n, Duration::from_secs_f64(0.01 * cost(n)));
            total += cost(n);
        }
        text.push(token);
    }
    total
}

#[test]
fn what_a_pass_costs_is_learned_and_obeyed() {
    let mut rng = Rng::new(1);
    let prompt: Vec<u32> =
        (0..2000).map(|i| if i % 7 == 0 { 5 } else { (rng.uniform() * 5000.0) as u32 }).collect();
    let quoted = &prompt[500..1500];
    let times =
        |further: f64| quoted.len() as f64 / passes(&prompt, quoted, 15, |n| 1.0 + further * (n - 1) as f64);
    // The best there is: 16 tokens for the price of one and 15 further rows.
    for (further, least) in [(0.0, 14.0), (0.1, 6.0), (0.3, 2.7), (0.5, 1.8)] {
        assert!(times(further) > least, "{further}: {}", times(further));
    }
    // Where a further row costs what a step does there is nothing to gain, and little is lost in finding out.
    assert!(times(1.0) > 0.97, "{}", times(1.0));
}

#[test]
fn a_text_that_does_not_repeat_itself_is_left_alone() {
    let mut rng = Rng::new(2);
    for letters in [3.0, 30.0, 300.0, 3000.0] {
        let random: Vec<u32> = (0..3000).map(|_| (rng.uniform() * letters) as u32).collect();
        let (prompt, answer) = random.split_at(1000);
        for further in [0.05, 0.25, 0.6] {
            let times = answer.len() as f64 / passes(prompt, answer, 15, |n| 1.0 + further * (n - 1) as f64);
            assert!(times > 0.97, "{letters} {further}: {times}");
        }
    }
}

/// The committed pairs of prompt and answer: name, whether it quotes, ids.
fn pairs(t: &Tokenizer) -> Vec<(String, bool, Vec<u32>, Vec<u32>)> {
    let text = std::fs::read("tests/data/lookup/pairs.json").unwrap();
    let json: serde_json::Value = serde_json::from_slice(&text).unwrap();
    let pairs = json["pairs"].as_array().unwrap().iter();
    pairs
        .map(|p| {
            let string = |key: &str| p[key].as_str().unwrap();
            let prompt = chat::render(t, &[Turn::new(Role::User, string("prompt"))], None).unwrap();
            let answer = t.encode(string("answer")).unwrap();
            (string("name").into(), p["quotes"].as_bool().unwrap(), prompt, answer)
        })
        .collect()
}

/// The policy alone, with passes that cost what they are said to.
#[test]
fn the_committed_pairs_gain_what_a_further_row_leaves_and_never_lose() {
    let Some(path) = real_model::real_model() else { return };
    let model = Model::open(path).unwrap();
    let pairs = pairs(model.tokenizer().unwrap());
    for (further, least) in [(0.02, 1.8), (0.1, 1.8), (0.2, 1.8), (0.3, 1.5), (0.5, 1.1), (0.9, 0.97)] {
        let mut quoting = Vec::new();
        for (name, quotes, prompt, answer) in &pairs {
            let times = answer.len() as f64 / passes(prompt, answer, 15, |n| 1.0 + further * (n - 1) as f64);
            println!("{further}: {name}: {} tokens, {times:.2} times", answer.len());
            match quotes {
                true => quoting.push(times),
                false => assert!(times > 0.97, "{further}: {name}: {times}"),
            }
        }
        quoting.sort_by(f64::total_cmp);
        let median = quoting[quoting.len() / 2];
        println!("{further}: {median:.2} at the median, {:.2} at least", quoting[0]);
        assert!(median >= least, "{further}: {median}");
    }
}

/// `cargo test --release --lib draft::tests::rows -- --ignored --nocapture`
#[test]
#[ignore = "measures"]
fn rows() {
    let Some(path) = real_model::real_model() else { return };
    for threads in [1, 2] {
        let model = Model::builder().threads(threads).open(&path).unwrap();
        let options = crate::SessionOptions { draft: MAX_DRAFT, ..Default::default() };
        let mut session = crate::Session::new(&model, options).unwrap();
        session.draft_eagerly();
        // Whatever comes next came before.
        let text: Vec<u32> = (0..320).map(|i| 1000 + i % 20).collect();
        session.prefill(&text[..319]).unwrap();
        let mut times = [const { Vec::new() }; MAX_DRAFT + 1];
        for _ in 0..11 {
            for (draft, times) in times.iter_mut().enumerate() {
                session.begin_drafts(true);
                let began = std::time::Instant::now();
                session.advance(text[319], draft, None).unwrap();
                times.push(began.elapsed().as_secs_f64() * 1e3);
                assert_eq!(session.drafts().0, draft);
                session.truncate(319).unwrap();
            }
        }
        let median = times.map(|mut t| {
            t.sort_by(f64::total_cmp);
            t[t.len() / 2]
        });
        println!("{threads} threads");
        for (draft, ms) in median.iter().enumerate() {
            println!("{:2} rows {ms:7.2} ms, {:.2} times one row's", draft + 1, ms / median[0]);
        }
    }
}

#[test]
#[ignore = "measures"]
fn looking_back() {
    let mut rng = Rng::new(9);
    for n in [4096, 32768, 131072] {
        let text: Vec<u32> = (0..n).map(|_| (rng.uniform() * 1000.0) as u32).collect();
        let began = std::time::Instant::now();
        for last in 0..200 {
            std::hint::black_box(find(&text, 2 * last));
        }
        println!("{n} tokens: {:.1} µs", began.elapsed().as_secs_f64() * 1e6 / 200.0);
    }
}
