"""Sessions: what they compute, and that arrays of logits neither change nor dangle."""

import array
import gc
import math

import numpy as np
import pytest
from conftest import DATA, TINY

import carat


@pytest.mark.parametrize("name", ["tiny-gemma-mqa", "tiny-gemma-mha", "tiny-gemma2", "tiny-gemma3"])
def test_logits_are_golden(name, ids):
    with carat.Model(DATA / f"{name}.gguf", threads=2) as model:
        golden = np.fromfile(DATA / f"{name}.logits.f32", np.float32).reshape(len(ids), model.info.vocab)
        with carat.Session(model, context=256, batch=64) as session:
            rows = np.stack(list(session.prefill_each(ids)))
            assert rows.shape == golden.shape
            assert np.abs(rows - golden).max() < 2e-3
        with carat.Session(model, context=256) as session:
            for token, row in zip(ids, golden):
                session.step(token)
                assert np.abs(session.logits() - row).max() < 2e-3


def test_logits_that_are_kept_neither_change_nor_dangle():
    model = carat.Model(TINY, threads=1)
    session = carat.Session(model, context=64)
    with pytest.raises(carat.NoLogitsError):
        session.logits()
    session.prefill(range(300, 308))
    kept = session.logits()
    copy = kept.copy()
    assert (kept.dtype, kept.shape) == (np.dtype(np.float32), (model.info.vocab,))
    session.step(301)
    now = session.logits()
    assert kept.tobytes() == copy.tobytes() != now.tobytes()
    session.prefill(range(310, 330))
    assert kept.tobytes() == copy.tobytes()
    session.close()
    model.close()
    del session, model, now
    gc.collect()
    # Whatever the memory could be used for again.
    with carat.Model(TINY, threads=1) as other, carat.Session(other, context=64) as session:
        session.prefill(range(400, 430))
        assert kept.tobytes() == copy.tobytes()
    view = kept[10:20]
    del kept
    gc.collect()
    assert view.tobytes() == copy[10:20].tobytes()


def test_logits_are_not_copied_and_cannot_be_written(session):
    session.prefill([2, 300, 301])
    first, second = session.logits(), session.logits()
    assert first.__array_interface__["data"] == second.__array_interface__["data"]
    assert not first.flags.writeable
    assert not first.flags.owndata
    with pytest.raises(ValueError, match="read-only"):
        first[0] = 1
    with pytest.raises(ValueError, match="."):
        first.flags.writeable = True


def test_logits_that_are_dropped_are_freed(session):
    resident = lambda: int(open("/proc/self/statm").read().split()[1]) * 4096  # noqa: E731
    for token in range(2, 150):
        session.step(token)
        session.logits()
    before = resident()
    for _ in range(100):
        session.step(300)
        session.logits()
    assert resident() - before < 4 << 20


def test_ids_come_in_any_form(tiny, ids):
    def after(given):
        with carat.Session(tiny, context=128) as session:
            session.prefill(given)
            return session.logits().tobytes(), session.tokens()

    wanted = after(ids)
    assert wanted[1] == ids
    forms = [tuple(ids), iter(ids), array.array("I", ids), array.array("q", ids), memoryview(array.array("I", ids))]
    forms += [np.array(ids, t) for t in (np.uint32, np.int64, np.int32)]
    forms += [np.repeat(np.array(ids, np.uint32), 2)[::2]]
    for form in forms:
        assert after(form) == wanted, form


def test_errors_of_a_prompt(session, tiny):
    with pytest.raises(carat.UsageError) as e:
        session.prefill([])
    assert e.value.status is carat.Status.EMPTY_PROMPT
    for bad in (-1, tiny.info.vocab, 1 << 32):
        with pytest.raises(ValueError, match=".") as e:
            session.prefill([2, bad])
        assert e.value.status is carat.Status.TOKEN_OUT_OF_RANGE
        with pytest.raises(ValueError, match="."):
            session.step(bad)
    with pytest.raises(carat.PromptTooLongError):
        session.prefill([2] * 257)
    assert len(session) == 0
    session.prefill([2] * 256)
    with pytest.raises(carat.ContextFullError):
        session.step(2)
    with pytest.raises(TypeError):
        session.prefill(None)
    with pytest.raises(TypeError):
        session.prefill("text")


def test_prefill_each_may_be_left(session, ids):
    for i, _ in enumerate(session.prefill_each(ids)):
        if i == 3:
            break
    assert session.tokens() == ids[:16]
    with pytest.raises(ZeroDivisionError):
        for _ in session.prefill_each(ids):
            raise ZeroDivisionError
    assert session.tokens() == ids[:16] * 2
    rows = list(session.prefill_each([300, 301]))
    assert len(rows) == 2
    with pytest.raises(carat.NoLogitsError):
        session.logits()
    with pytest.raises(carat.UsageError):
        next(session.prefill_each([]))


def test_scores_are_of_the_tokens(session, ids):
    rows = list(session.prefill_each(ids))
    session.truncate(0)
    scores = session.score(ids)
    assert [s.token for s in scores] == ids[1:]
    for score, row, token in zip(scores, rows, ids[1:]):
        row = row.astype(np.float64)
        expected = row[token] - row.max() - math.log(np.exp(row - row.max()).sum())
        assert abs(score.log_prob - expected) < 1e-4
        assert score.rank == (row > row[token]).sum()
    session.truncate(0)
    assert session.score(ids, 90) == scores[89:]
    for wrong in (-1, len(ids) + 1):
        with pytest.raises(ValueError, match="."):
            session.score(ids, wrong)


def test_a_cut_goes_as_far_as_the_windows_remember(tiny, ids):
    with carat.Session(tiny, context=256, batch=16) as session:
        session.prefill(ids * 2)
        with pytest.raises(carat.RewindError) as e:
            session.truncate(20)
        assert 20 < e.value.nearest <= len(session)
        session.truncate(e.value.nearest)
        assert len(session) == e.value.nearest
        for wrong in (-1, 10_000):
            with pytest.raises(ValueError, match="."):
                session.truncate(wrong)
    with carat.Session(tiny, context=256, full_history=True) as session:
        session.prefill(ids * 2)
        session.truncate(20)
        assert session.tokens() == ids[:20]


def test_a_fork_goes_its_own_way(session, ids):
    session.prefill(ids)
    fork = session.fork()
    assert fork.tokens() == ids
    fork.step(300)
    session.step(300)
    assert fork.logits().tobytes() == session.logits().tobytes()
    fork.step(301)
    assert (len(fork), len(session)) == (len(ids) + 2, len(ids) + 1)


def test_a_saved_session_goes_on_with_the_same_bits(tiny, session, ids, tmp_path):
    path = tmp_path / "state"
    session.prefill(ids)
    session.save(path)
    session.step(300)
    with carat.Session.load(tiny, path, context=256) as loaded:
        assert (loaded.tokens(), loaded.context) == (ids, 256)
        loaded.step(300)
        assert loaded.logits().tobytes() == session.logits().tobytes()
    with pytest.raises(carat.FileError) as e:
        carat.Session.load(tiny, path, kv="q8_0")
    assert e.value.status is carat.Status.STATE
    with pytest.raises(FileNotFoundError):
        carat.Session.load(tiny, tmp_path / "none")
    with pytest.raises(carat.SystemFileError):
        session.save(tmp_path / "no folder" / "state")
    token = carat.CancelToken()
    token.cancel()
    with pytest.raises(carat.CancelledError):
        session.save(path, cancel=token)
    with pytest.raises(carat.CancelledError):
        carat.Session.load(tiny, path, cancel=token)
    path.write_bytes(path.read_bytes()[:-5])
    with pytest.raises(carat.FileError):
        carat.Session.load(tiny, path)


def test_trim_keeps_text_and_logits(session, ids):
    session.prefill(ids)
    before = session.logits().tobytes()
    session.trim()
    assert session.logits().tobytes() == before
    session.step(300)
    assert session.tokens() == [*ids, 300]


def test_options_are_checked(tiny):
    with pytest.raises(TypeError, match="contxt"):
        carat.Session(tiny, contxt=5)
    for options in ({"batch": 0}, {"batch": 1 << 40}, {"context": -1}, {"kv": "q4"}, {"snapshots": 65}):
        with pytest.raises(ValueError, match="."):
            carat.Session(tiny, **options)
    with carat.Session(tiny, context=100, kv="f32", exact=True) as session:
        assert session.context == 100
        assert session


def test_a_cancelled_prefill_is_an_error_and_leaves_the_session(session, ids):
    token = carat.CancelToken()
    token.cancel()
    for call in (session.prefill, session.score):
        with pytest.raises(carat.CancelledError):
            call(ids, cancel=token)
    with pytest.raises(carat.CancelledError):
        session.step(2, cancel=token)
    assert len(session) == 0
    session.prefill(ids)
    assert len(session) == len(ids)


def test_a_session_outlives_its_model(ids):
    model = carat.Model(TINY, threads=1)
    session = carat.Session(model, context=128)
    model.close()
    session.prefill(ids)
    session.close()
    for call in (session.logits, session.tokens, session.fork, session.trim, session.generate, session.__len__):
        with pytest.raises(carat.ClosedError, match="the session was closed"):
            call()
    with pytest.raises(carat.ClosedError):
        session.prefill(ids)
