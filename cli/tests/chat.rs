//! `carat chat`, with what a pipe says.

mod common;

use std::process::{Command, Output};

use common::{carat, data, with_input};

fn chat() -> Command {
    let mut c = carat();
    // The same words each time, but not the same word again and again.
    c.args(["chat", "--temp", "3", "--top-k", "0", "--top-p", "1", "--seed", "5"]);
    c.args(["-n", "12", "-c", "256", "-m"]).arg(data("tiny-gemma3.gguf"));
    c
}

/// What the model said, and what was said about it.
#[track_caller]
fn talk(command: &mut Command, lines: &str) -> (String, String) {
    let Output { status, stdout, stderr } = with_input(command, lines.as_bytes());
    let said = String::from_utf8(stderr).unwrap();
    assert!(status.success(), "{said}");
    (String::from_utf8(stdout).unwrap(), said)
}

#[test]
fn turns_are_answered_on_standard_output() {
    let (one, said) = talk(&mut chat(), "Hello there\n");
    assert!(one.len() > 1 && one.ends_with('\n'));
    assert_eq!(said, "");
    let (two, _) = talk(&mut chat(), "Hello there\nAnd then?");
    assert!(two.starts_with(&one) && two.len() > one.len());
    // The first turn is part of the second's prompt.
    let (alone, _) = talk(&mut chat(), "And then?\n");
    assert_ne!(&two[one.len()..], alone);
}

#[test]
fn commands_change_the_conversation() {
    let (hello, _) = talk(&mut chat(), "Hello there\n");
    let (text, said) = talk(chat().arg("-v"), "Hello there\n/regenerate\n/reset\nHello there\n/quit\nmore\n");
    assert_eq!(text, hello.repeat(3));
    // Nothing but the question is processed again.
    assert!(said.lines().filter(|l| l.contains("reused")).count() == 3, "{said}");

    let (told, said) = talk(&mut chat(), "/system Be brief.\n/system\nHello there\n");
    assert!(said.contains("Be brief."));
    assert_ne!(told, hello);
    let (as_option, _) = talk(chat().args(["--system", "Be brief."]), "Hello there\n");
    assert_eq!(told, as_option);

    let (_, said) = talk(&mut chat(), "/help\n/nonsense\n/regenerate\n/save\n/save nowhere\n");
    for expected in ["/regenerate  ", "/nonsense: no such command", "expected the user's", "nothing to save"]
    {
        assert!(said.contains(expected), "{expected:?} is not in {said:?}");
    }
}

#[test]
fn conversations_are_saved_and_loaded() {
    let dir = tempfile::tempdir().unwrap();
    let file = dir.path().join("talk with spaces.carat");
    let file = file.to_str().unwrap();
    let (whole, _) = talk(&mut chat(), "Hello there\nAnd then?\nWhy?\n");
    let (first, said) = talk(&mut chat(), &format!("Hello there\nAnd then?\n/save {file}\n"));
    assert!(said.contains("saved"), "{said}");
    let (rest, said) = talk(chat().arg("-v"), &format!("/load {file}\nWhy?\n"));
    assert!(said.contains("loaded 2 questions"), "{said}");
    // Where it was.
    let last = first.lines().last().unwrap();
    assert!(said.contains("> And then?") && said.contains(last), "{said}");
    assert!(!said.contains("(0 reused)"), "{said}");
    assert_eq!(format!("{first}{rest}"), whole);

    // Another answer to the last question, which is the same one here.
    let (again, _) = talk(&mut chat(), &format!("/load {file}\n/regenerate\nWhy?\n"));
    assert!(first.ends_with(&again[..again.len() - rest.len()]), "{first:?} {again:?}");

    // The system's text is part of it.
    let told = format!("{file}.told");
    let with = |lines: &str| talk(chat().args(["--system", "Be brief."]), lines);
    let (whole_told, _) = with("Hello there\nWhy?\n");
    let (first_told, _) = with(&format!("Hello there\n/save {told}\n"));
    let (rest_told, said) = talk(&mut chat(), &format!("/load {told}\n/system\nWhy?\n"));
    assert!(said.matches("Be brief.").count() == 2, "{said}");
    assert_eq!(format!("{first_told}{rest_told}"), whole_told);

    // What cannot be loaded changes nothing.
    let (text, said) = talk(&mut chat(), &format!("Hello there\n/load {file}.absent\nAnd then?\nWhy?\n"));
    assert!(said.contains("cannot open"), "{said}");
    assert_eq!(text, whole);
    let mut other = carat();
    other.args(["chat", "-m"]).arg(data("tiny-gemma2.gguf"));
    let (_, said) = talk(&mut other, &format!("/load {file}\n"));
    assert!(said.contains("saved session"), "{said}");
}

#[test]
fn a_full_context_is_told() {
    let lines = "A few words to say.\n".repeat(12);
    let (_, said) = talk(&mut chat(), &lines);
    assert!(said.contains("does not fit") || said.contains("is full"), "{said}");
    let (_, said) = talk(chat().arg("--drop-oldest"), &lines);
    assert!(said.contains("turns are forgotten") && !said.contains("does not fit"), "{said}");
}
