//! Guessing ahead changes nothing but the time: the same tokens, pieces, log-probabilities, ends and bits as a step at a
//! time gives, for every option.

mod common;

use std::ops::ControlFlow;

use carat::{
    CancelToken, ContextPolicy, Conversation, Error, FinishReason, GenerateOptions, KvType, Model,
    SamplingOptions, Session, SessionOptions,
};
use common::{TINY, bits, emulated, ids, options, real_model_at_length, tiny};

/// A session that guesses as far as it may.
fn drafting(model: &Model, o: &SessionOptions, draft: usize) -> Session {
    let mut o = o.clone();
    o.draft = draft;
    let mut s = Session::new(model, o).unwrap();
    s.draft_eagerly();
    s
}

/// Text, token, bits of the log-probability, and of those of the likeliest.
type SeenPiece = (String, Option<u32>, Option<u32>, Vec<(u32, u32)>);

/// All that a caller can tell of a generation.
#[derive(PartialEq, Debug)]
struct Seen {
    pieces: Vec<SeenPiece>,
    /// A hash of the logits that the hook was given for each token, and how many tokens there were.
    hooked: Vec<(usize, u64)>,
    reason: Result<FinishReason, String>,
    counts: Option<(usize, usize, usize)>,
    tokens: Vec<u32>,
    /// The bits of the logits at the end.
    logits: Option<Vec<u32>>,
}

#[derive(Default)]
struct Drafted {
    tried: usize,
    accepted: usize,
}

impl Drafted {
    /// Both what came true and what did not must have happened for a test to say something.
    #[track_caller]
    fn check(&self) {
        assert!(self.accepted > 20 && self.tried > self.accepted + 20, "{} of {}", self.accepted, self.tried);
    }
}

/// How far back the hook looks for what it makes likely.
const PERIOD: usize = 13;

/// Generates. With `hook` the text repeats itself now and then; `each` is called after each piece.
fn see(
    s: &mut Session,
    prompt: &[u32],
    o: &GenerateOptions,
    hook: bool,
    drafted: &mut Drafted,
    mut each: impl FnMut(usize) -> ControlFlow<()>,
) -> Seen {
    let (mut pieces, mut hooked) = (Vec::new(), Vec::new());
    let on_piece = |p: carat::Piece<'_>| {
        let top = p.top.iter().map(|t| (t.token, t.log_prob.to_bits())).collect();
        pieces.push((p.text.to_string(), p.token, p.log_prob.map(f32::to_bits), top));
        each(pieces.len())
    };
    let result = if hook {
        let nudge = |tokens: &[u32], logits: &mut [f32]| {
            let hash = bits(logits).iter().fold(7u64, |h, &b| (h ^ b as u64).wrapping_mul(0x0100_0000_01b3));
            hooked.push((tokens.len(), hash));
            let max = logits.iter().fold(f32::NEG_INFINITY, |m, &l| m.max(l));
            // Of four tokens three are those of a period before, or likely to be.
            if tokens.len() % 4 != 3 {
                logits[tokens[tokens.len() - PERIOD] as usize] = max + 5.0;
            }
        };
        s.generate_with_hook(prompt, o, nudge, on_piece)
    } else {
        s.generate(prompt, o, on_piece)
    };
    if let Ok(summary) = &result {
        drafted.tried += summary.drafted_tokens;
        drafted.accepted += summary.accepted_tokens;
    }
    Seen {
        pieces,
        hooked,
        counts: result.as_ref().ok().map(|s| (s.prompt_tokens, s.reused_tokens, s.generated_tokens)),
        reason: result.map(|s| s.reason).map_err(|e| e.to_string()),
        tokens: s.tokens().to_vec(),
        logits: s.logits().map(bits),
    }
}

/// Generates with both and compares; then goes on with the sessions' own random numbers, and compares again.
#[track_caller]
fn compare(plain: &mut Session, with: &mut Session, o: &GenerateOptions, hook: bool, drafted: &mut Drafted) {
    let go_on = |_| ControlFlow::Continue(());
    let expected = see(plain, &ids(30), o, hook, &mut Drafted::default(), go_on);
    assert_eq!(see(with, &ids(30), o, hook, drafted, go_on), expected, "{o:?}");
    // Where nothing was drawn, the sessions' random numbers are still their own.
    if plain.logits().is_some() && o.max_tokens > 0 {
        let mut more = o.clone();
        more.sampling.seed = None;
        more.max_tokens = 5;
        let expected = see(plain, &[], &more, hook, &mut Drafted::default(), go_on);
        assert_eq!(see(with, &[], &more, hook, drafted, go_on), expected, "going on: {o:?}");
    }
}

fn base(max_tokens: usize) -> GenerateOptions {
    let mut o = GenerateOptions::default();
    o.max_tokens = max_tokens;
    o.ignore_end = true;
    o.sampling.seed = Some(11);
    o
}

/// The tiny models; on an emulated processor one, since all take half an hour there.
fn models() -> &'static [&'static str] {
    if emulated() { &TINY[3..] } else { &TINY }
}

/// Every option of sampling, by itself and together.
fn every_sampling() -> Vec<GenerateOptions> {
    let changes: [fn(&mut GenerateOptions); 14] = [
        |o| o.sampling = SamplingOptions::greedy(),
        |_| {},
        |o| o.sampling.temperature = 0.7,
        |o| o.sampling.temperature = 1.5,
        |o| o.sampling.top_k = 0,
        |o| o.sampling.top_k = 3,
        |o| o.sampling.top_p = 0.6,
        |o| o.sampling.min_p = 0.05,
        |o| o.sampling.repetition_penalty = 1.3,
        |o| o.sampling.presence_penalty = 0.5,
        |o| {
            o.sampling.frequency_penalty = 0.3;
            o.sampling.penalty_window = 17;
        },
        |o| o.sampling.logit_bias = vec![(400, 2.0), (401, f32::NEG_INFINITY)],
        |o| {
            o.top_log_probs = 4;
            o.stop = vec!["never said".into()];
        },
        |o| {
            o.sampling.temperature = 1.2;
            o.sampling.top_p = 0.9;
            o.sampling.repetition_penalty = 1.1;
            o.sampling.frequency_penalty = 0.05;
            o.sampling.logit_bias = vec![(500, 1.0)];
            o.top_log_probs = 2;
        },
    ];
    let with = |change: &fn(&mut GenerateOptions)| {
        let mut o = base(70);
        change(&mut o);
        o
    };
    changes.iter().map(with).collect()
}

#[test]
fn every_way_to_sample_gives_what_single_steps_give() {
    for &name in models() {
        let mut drafted = Drafted::default();
        for threads in [1, 2] {
            let model = tiny(name, threads);
            // Each thread more must give the same bits as ever: a few show it.
            let few = if threads == 1 { usize::MAX } else { 2 };
            for (i, o) in every_sampling().iter().take(few).enumerate() {
                let room = options(256, 32);
                let mut plain = Session::new(&model, room.clone()).unwrap();
                let mut with = drafting(&model, &room, [1, 4, 15][i % 3]);
                compare(&mut plain, &mut with, o, true, &mut drafted);
            }
        }
        drafted.check();
    }
}

#[test]
fn without_a_hook_too() {
    let mut drafted = Drafted::default();
    for &name in models() {
        let model = tiny(name, 1);
        for mut o in every_sampling() {
            // Of six tokens much repeats itself.
            o.sampling.logit_bias.extend((600..606).map(|id| (id, 40.0)));
            let mut plain = Session::new(&model, options(256, 32)).unwrap();
            let mut with = drafting(&model, &options(256, 32), 7);
            compare(&mut plain, &mut with, &o, false, &mut drafted);
        }
    }
    drafted.check();
}

#[test]
fn every_kind_of_cache_and_the_exact_mode() {
    let mut drafted = Drafted::default();
    for &name in models() {
        let model = tiny(name, 1);
        for change in [
            (|o| o.kv = Some(KvType::F16)) as fn(&mut SessionOptions),
            |o| o.kv = Some(KvType::Q8_0),
            |o| o.exact = true,
            |o| o.full_history = true,
            |o| o.batch = 1,
        ] {
            let mut room = options(256, 32);
            change(&mut room);
            let mut plain = Session::new(&model, room.clone()).unwrap();
            compare(&mut plain, &mut drafting(&model, &room, 15), &base(70), true, &mut drafted);
        }
    }
    drafted.check();
}

#[test]
fn every_end_comes_where_it_would() {
    let model = tiny("tiny-gemma3", 1);
    let mut drafted = Drafted::default();
    let room = options(256, 32);
    let fresh = || (Session::new(&model, room.clone()).unwrap(), drafting(&model, &room, 15));
    for n in (0..40).step_by(if emulated() { 7 } else { 1 }) {
        // The limit.
        let (mut plain, mut with) = fresh();
        compare(&mut plain, &mut with, &base(n), true, &mut drafted);

        // A context that fills up.
        let small = options(30 + n, 16);
        let mut plain = Session::new(&model, small.clone()).unwrap();
        compare(&mut plain, &mut drafting(&model, &small, 15), &base(usize::MAX), true, &mut drafted);
        assert_eq!(plain.len(), 30 + n);

        // The callback stops, or cancels: in the middle of what was guessed rightly, too.
        for cancels in [false, true] {
            let (mut plain, mut with) = fresh();
            let seen = |s: &mut Session, drafted: &mut Drafted| {
                let mut o = base(70);
                let token = CancelToken::new();
                o.cancel = Some(token.clone());
                see(s, &ids(30), &o, true, drafted, |pieces| match pieces > n {
                    true if cancels => {
                        token.cancel();
                        ControlFlow::Continue(())
                    }
                    true => ControlFlow::Break(()),
                    false => ControlFlow::Continue(()),
                })
            };
            let expected = seen(&mut plain, &mut Drafted::default());
            assert_eq!(seen(&mut with, &mut drafted), expected);
            let emitted = n + 1;
            assert_eq!(
                (expected.reason, expected.tokens.len()),
                match cancels {
                    true => (Ok(FinishReason::Cancelled), 30 + emitted - 1),
                    false => (Ok(FinishReason::Callback), 30 + emitted),
                }
            );
        }
    }
    drafted.check();
}

#[test]
fn stop_strings_and_ends_of_turn_within_what_was_guessed() {
    let model = tiny("tiny-gemma3", 1);
    let mut drafted = Drafted::default();
    let room = options(256, 32);
    let mut whole = Session::new(&model, room.clone()).unwrap();
    let all =
        see(&mut whole, &ids(30), &base(70), true, &mut Drafted::default(), |_| ControlFlow::Continue(()));
    let text: String = all.pieces.iter().map(|p| p.0.as_str()).collect();
    let starts: Vec<usize> = text.char_indices().map(|(i, _)| i).collect();
    for window in starts.windows(4).step_by(3) {
        let mut o = base(70);
        o.stop = vec![text[window[0]..window[3]].into()];
        let mut plain = Session::new(&model, room.clone()).unwrap();
        compare(&mut plain, &mut drafting(&model, &room, 15), &o, true, &mut drafted);
    }
    drafted.check();

    // The end of a turn is said again where it was said before, and is not part of the text.
    let end = model.tokenizer().unwrap().end_of_turn();
    let mut prompt = ids(30);
    prompt[20] = end;
    for at in 30..60 {
        let say = |s: &mut Session| {
            let mut o = base(70);
            o.ignore_end = false;
            o.sampling = SamplingOptions::greedy();
            let source = prompt.clone();
            let force = |tokens: &[u32], logits: &mut [f32]| {
                let next = if tokens.len() == at { end } else { source[(tokens.len() - 12) % 8] };
                logits[next as usize] = f32::INFINITY;
            };
            let summary = s.generate_with_hook(&prompt, &o, force, |_| ControlFlow::Continue(())).unwrap();
            assert_eq!((summary.reason, summary.generated_tokens), (FinishReason::EndOfTurn, at - 30));
            (s.tokens().to_vec(), s.logits().map(bits), summary.accepted_tokens)
        };
        let plain = say(&mut Session::new(&model, room.clone()).unwrap());
        let with = say(&mut drafting(&model, &room, 15));
        assert_eq!((&plain.0, &plain.1, plain.2), (&with.0, &with.1, 0));
        assert!(with.2 > 0 || at < 50);
    }
}

#[test]
fn rejected_guesses_leave_the_windows_whole() {
    let mut drafted = Drafted::default();
    for (name, draft) in models().iter().flat_map(|n| [(n, 3), (n, 15)]) {
        let model = tiny(name, 1);
        let room = options(256, 16);
        let mut plain = Session::new(&model, room.clone()).unwrap();
        let mut with = drafting(&model, &room, draft);
        // Several times round the rings.
        compare(&mut plain, &mut with, &base(200), true, &mut drafted);
        // Back as far as a batch, and on from there.
        for back in 0..=16 {
            let (mut a, mut b) = (plain.fork().unwrap(), with.fork().unwrap());
            let len = a.len() - back;
            a.truncate(len).unwrap();
            b.truncate(len).unwrap();
            assert_eq!(bits(a.step(400).unwrap()), bits(b.step(400).unwrap()), "{name}: {back} back");
        }
        // A saved session goes on as well, with guesses or without.
        let dir = tempfile::tempdir().unwrap();
        let path = dir.path().join("state");
        with.save(&path, None).unwrap();
        let mut loaded = Session::load(&model, room, &path, None).unwrap();
        assert_eq!(loaded.logits().map(bits), plain.logits().map(bits));
        assert_eq!(bits(loaded.step(333).unwrap()), bits(plain.step(333).unwrap()));
        assert_eq!(with.step(333).map(bits).unwrap(), plain.logits().map(bits).unwrap());
    }
    drafted.check();
}

#[test]
fn a_conversation_that_forgets_its_oldest_turns_goes_on_the_same() {
    let model = tiny("tiny-gemma3", 1);
    let mut results = Vec::new();
    for draft in [0, 15] {
        let room = options(128, 16);
        let mut c = Conversation::new(drafting(&model, &room, draft), None).unwrap();
        c.set_context_policy(ContextPolicy::DropOldest);
        let mut o = base(60);
        o.sampling.logit_bias.extend((600..606).map(|id| (id, 40.0)));
        let (mut accepted, mut dropped) = (0, 0);
        let mut texts = Vec::new();
        for question in ["one", "two", "three", "four"] {
            let reply = c.send(question, &o, |_| ControlFlow::Continue(())).unwrap();
            accepted += reply.summary.accepted_tokens;
            dropped += reply.dropped.len();
            texts.push(c.turns().last().unwrap().text.to_string());
        }
        texts.push(
            c.regenerate(&o, |_| ControlFlow::Continue(())).map(|r| format!("{:?}", r.dropped)).unwrap(),
        );
        assert!(dropped > 0 && (accepted > 0) == (draft > 0), "{dropped} {accepted}");
        results.push((texts, c.tokens().to_vec(), c.session().logits().map(bits)));
    }
    assert_eq!(results[0], results[1]);
}

#[test]
fn another_thread_cancels_between_two_passes() {
    let model = tiny("tiny-gemma3", 2);
    let room = options(256, 32);
    for n in 1..30 {
        let token = CancelToken::new();
        let (ask, asked) = std::sync::mpsc::channel();
        let (answer, answered) = std::sync::mpsc::channel();
        let mut s = drafting(&model, &room, 15);
        std::thread::scope(|scope| {
            let set = token.clone();
            scope.spawn(move || {
                asked.recv().unwrap();
                set.cancel();
                answer.send(()).unwrap();
            });
            let mut o = base(70);
            o.cancel = Some(token.clone());
            let seen = see(&mut s, &ids(30), &o, true, &mut Drafted::default(), |pieces| {
                if pieces == n {
                    ask.send(()).unwrap();
                    answered.recv().unwrap();
                }
                ControlFlow::Continue(())
            });
            assert_eq!((seen.reason, seen.tokens.len()), (Ok(FinishReason::Cancelled), 30 + n - 1));
        });
        // It goes on as one that came there otherwise.
        let mut plain = Session::new(&model, room.clone()).unwrap();
        see(&mut plain, &ids(30), &base(n - 1), true, &mut Drafted::default(), |_| ControlFlow::Continue(()));
        assert_eq!(s.tokens(), plain.tokens());
        assert_eq!(bits(s.step(400).unwrap()), bits(plain.step(400).unwrap()));
    }
}

#[test]
fn more_than_fifteen_are_refused_and_their_room_is_planned() {
    let model = tiny("tiny-gemma3", 1);
    let mut o = options(64, 16);
    let before = model.plan_session(&o).unwrap();
    o.draft = 16;
    for result in [Session::new(&model, o.clone()).err(), model.plan_session(&o).err()] {
        assert!(matches!(result, Some(Error::InvalidOption { option: "draft", .. })), "{result:?}");
    }
    o.draft = 15;
    let with = model.plan_session(&o).unwrap();
    assert_eq!(with.scratch - before.scratch, 15 * 4 * model.config().vocab as u64);
}

#[test]
fn the_real_model_says_the_same_with_guesses() {
    let Some(path) = real_model_at_length() else { return };
    let model = Model::builder().threads(2).open(path).unwrap();
    let t = model.tokenizer().unwrap();
    let text =
        "The society met in March. Repeat this: the rent of the ground rises from 310 to 355 euros a year.";
    let prompt =
        carat::chat::render(t, &[carat::chat::Turn::new(carat::chat::Role::User, text)], None).unwrap();
    let mut accepted = 0;
    for greedy in [true, false] {
        let mut o = base(40);
        o.ignore_end = false;
        if greedy {
            o.sampling = SamplingOptions::greedy();
        }
        let room = options(256, 64);
        let mut said = Vec::new();
        for draft in [0, 15] {
            let mut s = drafting(&model, &room, draft);
            let mut drafted = Drafted::default();
            said.push(see(&mut s, &prompt, &o, false, &mut drafted, |_| ControlFlow::Continue(())));
            accepted += drafted.accepted;
        }
        assert!(said[0] == said[1], "{:?}", said.iter().map(|s| &s.tokens).collect::<Vec<_>>());
    }
    assert!(accepted > 0);
}
