"""Conversations."""

import pytest
from conftest import DATA

import carat

SHORT = {"max_tokens": 6, "temperature": 0}


@pytest.fixture
def talk(tiny):
    with carat.Conversation(carat.Session(tiny, context=256, snapshots=2), "Be brief.") as talk:
        yield talk


def test_turns_go_in_turn(talk, tiny):
    stream = talk.send("Hello", **SHORT)
    answer = stream.read()
    assert stream.summary.generated_tokens <= 6
    assert talk.turns() == [
        carat.Turn(carat.Role.USER, "Hello"),
        carat.Turn(carat.Role.MODEL, answer),
    ]
    assert talk.system == "Be brief."
    seen = []
    summary = talk.send("And now?", on_piece=seen.append, **SHORT)
    assert summary.reused_tokens > 0
    assert talk.n_turns == 4
    assert talk.turns()[-1].text == "".join(p.text for p in seen)
    # What was generated stays as it was; encoded again, its text might be other tokens.
    rendered = tiny.render_chat([("system", "Be brief."), ("user", "Hello")])
    assert talk.tokens()[: len(rendered)] == rendered
    assert talk.dropped() == []


def test_the_last_answer_can_be_had_anew_and_the_question_be_another(talk):
    with pytest.raises(carat.UsageError) as e:
        talk.regenerate(**SHORT).read()
    assert e.value.status is carat.Status.CHAT
    first = talk.send("Hello", **SHORT).read()
    assert talk.regenerate(**SHORT).read() == first
    assert talk.n_turns == 2
    talk.edit_last("Bye", **SHORT).read()
    assert [t.text for t in talk.turns()[::2]] == ["Bye"]


def test_a_whole_conversation_is_answered(talk):
    talk.send("Hello", **SHORT).read()
    turns = [("system", "Be brief."), *talk.turns(), ("user", "More")]
    stream = talk.respond(turns, **SHORT)
    stream.read()
    assert stream.summary.reused_tokens > 0
    assert talk.n_turns == 4
    with pytest.raises(carat.UsageError):
        talk.respond([("model", "no")], **SHORT).read()
    with pytest.raises(carat.UsageError):
        talk.respond([], **SHORT).read()


def test_an_answer_that_is_left_is_a_turn(talk):
    for i, piece in enumerate(talk.send("Hello", ignore_end=True)):
        if i == 3:
            break
    with pytest.raises(carat.BusyError):
        for piece in talk.send("Hello", ignore_end=True):
            assert piece.token is not None
            talk.turns()
    talk.send("And?", **SHORT).read()
    assert [t.role.name for t in talk.turns()] == ["USER", "MODEL"] * 3


def test_a_saved_conversation_is_the_same(talk, tiny, tmp_path):
    path = tmp_path / "talk"
    talk.send("Hello", **SHORT).read()
    talk.save(path)
    with carat.Conversation.load(tiny, path, context=256) as again:
        assert (again.turns(), again.system, again.tokens()) == (talk.turns(), talk.system, talk.tokens())
        assert again.send("More", **SHORT).read() == talk.send("More", **SHORT).read()
    with pytest.raises(FileNotFoundError):
        carat.Conversation.load(tiny, tmp_path / "none")
    with pytest.raises(carat.FileError):
        carat.Conversation.load(tiny, DATA / "tiny-ids.json")


def test_a_session_comes_and_goes(talk, tiny):
    talk.send("Hello", **SHORT).read()
    tokens, turns = talk.tokens(), talk.turns()
    session = talk.into_session()
    assert talk.closed
    with pytest.raises(carat.ClosedError, match="the conversation was closed"):
        talk.turns()
    with pytest.raises(carat.ClosedError):
        talk.dropped()
    assert session.tokens() == tokens
    again = carat.Conversation.resume(session)
    assert session.closed
    assert again.turns()[-1] == turns[-1]
    with pytest.raises(carat.ClosedError):
        carat.Conversation(session)
    other = carat.Session(tiny, context=64)
    other.prefill([300, 301])
    with pytest.raises(carat.UsageError):
        carat.Conversation.resume(other)
    assert other.closed


def test_a_busy_session_keeps_its_contents(tiny):
    with carat.Session(tiny, context=64) as session:
        with session.generate([2, 300], ignore_end=True) as stream:
            next(stream)
            with pytest.raises(carat.BusyError):
                carat.Conversation(session)
        assert len(session) == 3


def test_the_system_s_text_may_change(talk):
    talk.set_system("Speak up.")
    assert talk.system == "Speak up."
    talk.set_system(None)
    assert talk.system == ""
    talk.send("Hello", **SHORT).read()
    talk.trim()
    talk.reset()
    assert talk.turns() == []


def test_the_oldest_turns_make_room(tiny):
    with carat.Conversation(carat.Session(tiny, context=64), policy="drop_oldest") as talk:
        for i in range(12):
            talk.send(f"Say {i}", max_tokens=4, temperature=0).read()
        assert talk.n_turns < 24
        # What the last reply dropped, if it did; some did.
        assert all(isinstance(t, carat.Turn) for t in talk.dropped())
        talk.set_policy(carat.Policy.STOP)
        with pytest.raises(carat.PromptTooLongError):
            talk.send("word " * 200).read()
        with pytest.raises(ValueError, match="drop_oldest"):
            talk.set_policy("forget")
