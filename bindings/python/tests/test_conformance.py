"""The cases of tests/conformance, which every language runs: see its README."""

from __future__ import annotations

import json
import math
import os
from pathlib import Path

import pytest
from conftest import DATA, ROOT

import carat

LOGIT, LOG_PROB = 2e-3, 4e-3
CASES = [case for file in sorted((ROOT / "tests/conformance").glob("*.json")) for case in json.loads(file.read_text())]
REAL = os.environ.get("CARAT_TEST_MODEL")
SESSION = {"context": 256, "batch": 64}

_models: dict[str, carat.Model] = {}


def path_of(name):
    """The path that a model's name stands for."""
    return Path(REAL) if name == "real" else DATA / name


def model_of(case):
    """The model of a case, opened once."""
    name = case["model"]
    if name not in _models:
        _models[name] = carat.Model(path_of(name), threads=2)
    return _models[name]


def known(case, *fields):
    """Fail on a field that nobody looks at."""
    rest = set(case) - {"name", "kind", "model", "not_in", *fields}
    assert not rest, f"unknown fields {rest}"


def same(found, expected, what):
    """Compare, and say what it was."""
    assert found == expected, f"{what}: expected {expected!r}, found {found!r}"


def options_of(given):
    """Generate options in our words."""
    options = dict(given)
    if "logit_bias" in options:
        options["logit_bias"] = {token: -math.inf if b is None else b for token, b in options["logit_bias"]}
    return options


def tokenize(case, _):
    known(case, "text", "ids", "special", "bos", "decoded")
    model = model_of(case)
    ids = model.tokenize(case["text"], special=case.get("special", False), bos=case.get("bos", False))
    same(ids, case["ids"], "ids")
    same(model.detokenize(ids), case["decoded"], "decoded")
    decoder = model.decoder()
    same("".join(map(decoder.push, ids)) + decoder.flush(), case["decoded"], "decoded one by one")


def vocabulary(case, _):
    known(case, "special", "tokens", "ids")
    model = model_of(case)
    special = model.special_tokens()._asdict()
    for name, expected in case["special"].items():
        same(special[name], expected, name)
    for row in case["tokens"]:
        same(list(model.token_bytes(row["id"])), list(row["bytes"]), f"bytes of {row['id']}")
        same(model.token_kind(row["id"]).name.lower(), row["kind"], f"kind of {row['id']}")
    for text, expected in case["ids"]:
        same(model.token_id(text), expected, f"id of {text!r}")


def model(case, _):
    known(case, "by", "info", "metadata", "tensors")
    path = path_of(case["model"])
    by = {"path": carat.Model, "bytes": lambda p: carat.Model.open_bytes(p.read_bytes())}
    with by[case["by"]](path) as model:
        info = model.info._asdict()
        info["arch"] = info["arch"].name.lower()
        for name, expected in case["info"].items():
            same(info[name], expected, name)
        for key, expected in case["metadata"]:
            same(model.metadata(key), expected, key)
        tensors = model.tensors()
        for index, name, kind, dims, offset, size in case["tensors"]:
            same(tensors[index], (name, kind, tuple(dims), offset, size), f"tensor {index}")


def logits(case, folder):
    known(case, "ids", "at", "via")
    model, ids, via = model_of(case), case["ids"], case["via"]
    session = carat.Session(model, **SESSION)
    rows = {}
    if via == "prefill":
        session.prefill(ids)
        rows[len(ids) - 1] = session.logits()
    elif via == "prefill_each":
        rows = dict(enumerate(session.prefill_each(ids)))
    elif via == "step":
        for i, token in enumerate(ids):
            session.step(token)
            rows[i] = session.logits()
    else:
        session.prefill(ids[:-1])
        if via == "fork":
            session = session.fork()
        elif via == "trim":
            session.trim()
        elif via == "save_and_load":
            session.save(folder / "session")
            session = carat.Session.load(model, folder / "session", **SESSION)
        elif via == "truncate":
            session.prefill(ids[:2])
            session.truncate(len(ids) - 1)
        else:
            pytest.fail(f"via {via}")
        session.step(ids[-1])
        rows[len(ids) - 1] = session.logits()
    for row in case["at"]:
        found = rows[row["position"]]
        same(int(found.argmax()), row["argmax"], f"the likeliest after {row['position']}")
        for token, value in row["values"]:
            assert abs(found[token] - value) <= LOGIT, (row["position"], token, found[token], value)
    same(session.tokens(), ids, "tokens")


def score(case, _):
    known(case, "before", "ids", "from", "scores")
    with carat.Session(model_of(case), **SESSION) as session:
        if case.get("before"):
            session.prefill(case["before"])
        scores = session.score(case["ids"], case.get("from", 0))
    same(len(scores), len(case["scores"]), "number of scores")
    for found, (token, log_prob, lowest, highest) in zip(scores, case["scores"]):
        same(found.token, token, "token")
        assert abs(found.log_prob - log_prob) <= LOG_PROB, (found, log_prob)
        assert lowest <= found.rank <= highest, (found, lowest, highest)


def generate(case, _):
    known(case, "session", "before", "prompt", "options", "force", "cancelled", "cancel_after", "stop_after", "expect")
    session = carat.Session(model_of(case), **case.get("session", {}))
    if case.get("before"):
        session.prefill(case["before"])
    token = carat.CancelToken()
    if case.get("cancelled"):
        token.cancel()
    options = options_of(case.get("options", {}))
    if case.get("force"):
        left = iter(case["force"])

        def force(tokens, logits):
            logits[:] = -math.inf
            logits[next(left)] = 0

        options["hook"] = force
    pieces, tokens = [], []
    stream = session.generate(case.get("prompt", ()), cancel=token, **options)
    for piece in stream:
        pieces.append(piece)
        if piece.token is not None:
            tokens.append(piece.token)
            if len(tokens) == case.get("cancel_after"):
                token.cancel()
            if len(tokens) == case.get("stop_after"):
                break
    stream.close()
    expect = dict(case["expect"])
    summary = stream.summary._asdict()
    same(tokens, expect.pop("tokens"), "tokens")
    same("".join(map(str, pieces)), expect.pop("text", "".join(map(str, pieces))), "text")
    same([p.text for p in pieces], expect.pop("pieces", [p.text for p in pieces]), "pieces")
    same(summary.pop("reason").name.lower(), expect.pop("reason"), "reason")
    same(summary.pop("stop_index"), expect.pop("stop_index", 0), "stop index")
    same(len(session), expect.pop("len", len(session)), "len")
    if "top" in expect:
        top = expect.pop("top")
        assert abs(pieces[0].log_prob - expect.pop("log_prob")) <= LOG_PROB
        same([t.token for t in pieces[0].top], [t for t, _ in top], "the likeliest")
        for found, (_, log_prob) in zip(pieces[0].top, top):
            assert abs(found.log_prob - log_prob) <= LOG_PROB, (found, log_prob)
    for name, expected in expect.items():
        same(summary[name], expected, name)


def render(case, _):
    known(case, "turns", "ids")
    same(model_of(case).render_chat(map(tuple, case["turns"])), case["ids"], "ids")


def texts_of(turns):
    """Turns as the cases have them."""
    return [[turn.role.name.lower(), turn.text] for turn in turns]


def chat(case, folder):
    known(case, "system", "session", "policy", "actions", "turns", "tokens")
    model, session = model_of(case), case.get("session", {})
    talk = carat.Conversation(
        carat.Session(model, **session), case.get("system"), policy=case.get("policy", carat.Policy.STOP)
    )
    for action in case["actions"]:
        do, options = action["do"], options_of(action.get("options", {}))
        assert not set(action) - {"do", "text", "turns", "options", "expect"}, action
        if do == "send":
            stream = talk.send(action["text"], **options)
        elif do == "edit_last":
            stream = talk.edit_last(action["text"], **options)
        elif do == "regenerate":
            stream = talk.regenerate(**options)
        elif do == "respond":
            stream = talk.respond(map(tuple, action["turns"]), **options)
        else:
            if do == "reset":
                talk.reset()
            elif do == "set_system":
                talk.set_system(action["text"])
            elif do == "trim":
                talk.trim()
            elif do == "save_and_load":
                talk.save(folder / "talk")
                talk = carat.Conversation.load(model, folder / "talk", **session)
                if "policy" in case:
                    talk.set_policy(case["policy"])
            else:
                pytest.fail(f"do {do}")
            continue
        answer = stream.read()
        expect, summary = dict(action.get("expect", {})), stream.summary._asdict()
        same(texts_of(talk.dropped()), expect.pop("dropped", []), "dropped")
        same(answer, expect.pop("answer", answer), "answer")
        same(summary["reason"].name.lower(), expect.pop("reason", summary["reason"].name.lower()), "reason")
        for name, expected in expect.items():
            same(summary[name], expected, name)
    same(texts_of(talk.turns()), case["turns"], "turns")
    same(talk.tokens(), case["tokens"], "tokens")


def made_file(recipe, folder):
    """The file that a recipe describes."""
    assert not set(recipe) - {"of", "bytes", "keep", "set", "replace", "name"}, recipe
    path = folder / recipe.get("name", "case.gguf")
    if "of" in recipe:
        data = bytearray((DATA / recipe["of"]).read_bytes())
    elif "bytes" in recipe:
        data = bytearray(recipe["bytes"])
    else:
        return path
    del data[recipe.get("keep", len(data)) :]
    for offset, byte in recipe.get("set", ()):
        data[offset] = byte
    if "replace" in recipe:
        old, new = (text.encode() for text in recipe["replace"])
        assert len(old) == len(new)
        assert old in data
        data = data.replace(old, new, 1)
    path.write_bytes(data)
    return path


def error(case, folder):
    known(
        case,
        *("call", "status", "error_kind", "message", "nearest", "len_after", "file", "open", "by", "session", "before"),
        *("cut", "shrink_to", "cancelled", "text", "ids", "id", "key", "turns", "token", "from", "to"),
        *("prompt", "options", "to_file", "file_to_load"),
    )
    path = made_file(case["file"], folder) if "file" in case else path_of(case["model"])
    call, token = case["call"], carat.CancelToken()
    if case.get("cancelled"):
        token.cancel()
    state = {}

    def session():
        return state["session"]

    def opened():
        options = dict(case.get("open", {}))
        if call == "open":
            options["cancel"] = token
        if case.get("by") == "bytes":
            return carat.Model.open_bytes(path.read_bytes(), **options)
        return carat.Model(path, **options)

    def busy():
        def prefill(_):
            session().prefill([300])

        session().generate(case["prompt"], on_piece=prefill)

    def conversation():
        return carat.Conversation(session())

    options = options_of(case.get("options", {}))
    layout = case.get("session", {})
    loaded = made_file(case["file_to_load"], folder) if "file_to_load" in case else None
    calls = {
        "open": opened,
        "plan": lambda: carat.plan(path, **layout),
        "tokenize": lambda: state["model"].tokenize(case["text"], cancel=token),
        "detokenize": lambda: state["model"].detokenize(case["ids"]),
        "decoder": lambda: state["model"].decoder().push(case["id"]),
        "token_bytes": lambda: state["model"].token_bytes(case["id"]),
        "token_kind": lambda: state["model"].token_kind(case["id"]),
        "metadata": lambda: state["model"].metadata(case["key"]),
        "render": lambda: state["model"].render_chat(map(tuple, case["turns"]), cancel=token),
        "session": lambda: carat.Session(state["model"], **layout),
        "prefill": lambda: session().prefill(case["ids"], cancel=token),
        "prefill_each": lambda: list(session().prefill_each(case["ids"], cancel=token)),
        "step": lambda: session().step(case["token"], cancel=token),
        "score": lambda: session().score(case["ids"], case.get("from", 0), cancel=token),
        "logits": lambda: session().logits(),
        "truncate": lambda: session().truncate(case["to"]),
        "generate": lambda: session().generate(case.get("prompt", ()), cancel=token, **options).read(),
        "busy": busy,
        "save": lambda: session().save(folder / case.get("to_file", "session"), cancel=token),
        "load": lambda: carat.Session.load(state["model"], loaded, cancel=token, **layout),
        "load_conversation": lambda: carat.Conversation.load(state["model"], loaded, cancel=token, **layout),
        "resume": lambda: carat.Conversation.resume(session()),
        "send": lambda: conversation().send(case["text"], cancel=token, **options).read(),
        "edit_last": lambda: conversation().edit_last(case["text"], cancel=token, **options).read(),
        "regenerate": lambda: conversation().regenerate(cancel=token, **options).read(),
        "respond": lambda: conversation().respond(map(tuple, case["turns"]), cancel=token, **options).read(),
    }
    if call not in ("open", "plan"):
        state["model"] = opened()
        of_the_model = ("tokenize", "detokenize", "decoder", "token_bytes", "token_kind", "metadata", "render")
        if call not in (*of_the_model, "session", "load", "load_conversation"):
            state["session"] = carat.Session(state["model"], **layout)
            if case.get("before"):
                session().prefill(case["before"])
            if "cut" in case:
                session().truncate(case["cut"])
    if "shrink_to" in case:
        os.truncate(path, case["shrink_to"])
    with pytest.raises(carat.Error) as e:
        calls[call]()
    same(f"CARAT_{e.value.status.name}", case["status"], "status")
    same(e.value.kind.name.lower(), case["error_kind"], "error kind")
    assert case.get("message", "") in str(e.value)
    if "len_after" in case:
        same(len(session()), case["len_after"], "len")
    if "nearest" in case:
        assert e.value.nearest > 0
        session().truncate(e.value.nearest)
        same(len(session()), e.value.nearest, "length after the cut")


KINDS = {f.__name__: f for f in (tokenize, vocabulary, model, logits, score, generate, render, chat, error)}


@pytest.fixture(scope="module")
def report():
    """Takes the lines of the report."""
    name = os.environ.get("CARAT_CONFORMANCE_REPORT")
    with open(name or os.devnull, "w", encoding="utf-8") as file:
        yield lambda line: print(line.replace("\n", " "), file=file)


@pytest.mark.parametrize("case", CASES, ids=lambda case: case["name"])
def test_conformance(case, report, tmp_path):
    name = case["name"]
    if case.get("model") == "real" and not REAL:
        pytest.skip("CARAT_TEST_MODEL is not set")
    if "python" in case.get("not_in", {}):
        why = case["not_in"]["python"]
        report(f"n/a {name}: {why}")
        pytest.skip(why)
    try:
        KINDS[case["kind"]](case, tmp_path)
    except BaseException as e:
        report(f"FAIL {name}: {e}")
        raise
    report(f"pass {name}")


def test_there_are_cases():
    assert len(CASES) > 200
    assert len({case["name"] for case in CASES}) == len(CASES)
