"""Generating: streams, callbacks, hooks, options."""

import copy
import gc
import math
import threading
import time

import numpy as np
import pytest

import carat

PROMPT = [2, 300, 301, 302]


def started(tiny, **options):
    return carat.Session(tiny, context=256, **options)


def test_a_stream_gives_what_a_callback_is_given(tiny):
    with started(tiny) as a, started(tiny) as b:
        stream = a.generate(PROMPT, max_tokens=40, seed=7, ignore_end=True)
        assert iter(stream) is stream
        assert stream.summary is None
        assert len(a) == 0, "nothing is computed before the first piece is asked for"
        streamed = list(stream)
        called = []
        summary = b.generate(PROMPT, on_piece=called.append, max_tokens=40, seed=7, ignore_end=True)
        assert streamed == called
        assert stream.summary[:5] == summary[:5] == (carat.Finish.LIMIT, 0, 4, 0, 40)
        assert a.tokens() == b.tokens() == PROMPT + [p.token for p in streamed if p.token is not None]
        text = "".join(map(str, streamed))
        assert text == tiny.detokenize(a.tokens()[4:])
        assert next(stream, None) is None
        assert summary.prompt_seconds > 0
        assert summary.generate_seconds > 0


def test_guessing_ahead_changes_nothing_but_the_time(tiny):
    # Always the same word: it is guessed.
    options = dict(temperature=0, max_tokens=40, ignore_end=True, logit_bias={400: 40})
    with started(tiny) as plain, started(tiny, draft=15) as drafting:
        first, second = plain.generate(PROMPT, **options), drafting.generate(PROMPT, **options)
        assert list(first) == list(second)
        assert (first.summary.drafted_tokens, first.summary.accepted_tokens) == (0, 0)
        assert 0 < second.summary.accepted_tokens <= second.summary.drafted_tokens
        assert plain.tokens() == drafting.tokens()
    with pytest.raises(carat.UsageError):
        started(tiny, draft=16)


def test_a_loop_that_is_left_stops_at_what_was_seen(tiny):
    with started(tiny) as session:
        seen = []
        for piece in session.generate(PROMPT, ignore_end=True, seed=1):
            seen.append(piece.token)
            if len(seen) == 5:
                break
        assert session.tokens() == PROMPT + seen
        with pytest.raises(ZeroDivisionError):
            for piece in session.generate(ignore_end=True):
                seen.append(piece.token)
                raise ZeroDivisionError
        # The traceback has let go of the loop.
        assert session.tokens() == PROMPT + seen
        stream = session.generate(ignore_end=True)
        seen.append(next(stream).token)
        with pytest.raises(carat.BusyError):
            session.step(300)
        with pytest.raises(carat.BusyError):
            len(session)
        stream.close()
        stream.close()
        assert stream.summary.reason is carat.Finish.CALLBACK
        assert next(stream, None) is None
        assert session.tokens() == PROMPT + seen
        with session.generate(ignore_end=True) as stream:
            seen += [next(stream).token, next(stream).token]
        assert session.tokens() == PROMPT + seen
        session.generate(ignore_end=True).close()
        assert session.tokens() == PROMPT + seen
        assert next(session.generate(max_tokens=1, ignore_end=True)).token is not None


def test_on_piece_may_stop_or_raise(tiny):
    with started(tiny) as session:
        seen = []
        summary = session.generate(PROMPT, on_piece=lambda p: seen.append(p.token) or len(seen) < 3, ignore_end=True)
        assert (summary.reason, summary.generated_tokens) == (carat.Finish.CALLBACK, 3)
        assert session.tokens() == PROMPT + seen
        with pytest.raises(ZeroDivisionError):
            session.generate(on_piece=lambda p: 1 // 0, ignore_end=True)
        assert len(session) == 8
        assert session.generate(on_piece=lambda p: None, max_tokens=2, ignore_end=True).generated_tokens == 2


def test_callbacks_run_on_the_thread_of_the_caller(tiny):
    def look():
        threads = []
        with started(tiny) as session:
            session.generate(
                PROMPT,
                max_tokens=2,
                ignore_end=True,
                on_piece=lambda p: threads.append(threading.current_thread()),
                hook=lambda tokens, logits: threads.append(threading.current_thread()),
            )
        assert set(threads) == {threading.current_thread()}
        results.append(len(threads) >= 4)

    results = []
    look()
    other = threading.Thread(target=look)
    other.start()
    other.join()
    assert results == [True, True]


def test_a_hook_changes_the_logits(tiny):
    kept = []

    def only_305(tokens, logits):
        assert tokens.dtype == np.uint32
        assert logits.dtype == np.float32
        assert logits.shape == (tiny.info.vocab,)
        kept.append((tokens, tokens.tolist(), logits, logits.copy()))
        logits[:] = -math.inf
        logits[305] = 1

    with started(tiny) as session:
        pieces = list(session.generate(PROMPT, max_tokens=3, hook=only_305))
        assert [p.token for p in pieces if p.token is not None] == [305] * 3
        assert kept[-1][1] == [*PROMPT, 305, 305]
        session.step(300)
        # What was given may be kept: it holds what the hook wrote, and nothing that came later.
        for tokens, then, logits, before in kept:
            assert tokens.tolist() == then
            assert logits[305] == 1
            assert np.isneginf(logits[:305]).all()
            assert before.max() > -math.inf
        assert list(session.generate([300], hook=lambda t, x: False)) == []
        with pytest.raises(ZeroDivisionError):
            session.generate([300], hook=lambda t, x: 1 // 0).read()
        with pytest.raises(carat.Error) as e:
            session.generate([300], hook=lambda t, x: x.fill(math.nan)).read()
        assert e.value.status is carat.Status.NAN_LOGITS
        with pytest.raises(carat.BusyError):
            session.generate([300], hook=lambda t, x: session.step(1)).read()
        with pytest.raises(TypeError):
            session.generate([300], hook=3)
        with carat.Conversation(session) as conversation, pytest.raises(carat.UsageError):
            conversation.send("Hi", hook=only_305).read()


def test_options_choose_the_tokens(tiny):
    def tokens(**options):
        with started(tiny) as session:
            options = {"max_tokens": 12, "ignore_end": True, **options}
            return [p.token for p in session.generate(PROMPT, **options) if p.token is not None]

    greedy = tokens(temperature=0)
    assert greedy == tokens(top_k=1) == tokens(top_p=1e-9) == tokens(min_p=1.0)
    assert tokens(seed=1) == tokens(seed=1) != tokens(seed=2)
    assert greedy[0] not in tokens(temperature=0, logit_bias={greedy[0]: -math.inf})
    assert tokens(temperature=0, logit_bias={333: 1000.0}) == [333] * 12
    assert len(set(tokens(temperature=0, repetition_penalty=100.0, penalty_window=64))) == 12
    assert tokens(temperature=0, presence_penalty=0.0, frequency_penalty=0.0, top_p=1, max_tokens=None)[:12] == greedy


def test_log_probabilities_are_those_of_the_logits(tiny):
    with started(tiny) as session:
        session.prefill(PROMPT)
        logits = session.logits().astype(np.float64)
        (piece,) = [p for p in session.generate(max_tokens=1, top_log_probs=5, temperature=0, ignore_end=True) if p.top]
        log_probs = logits - logits.max() - math.log(np.exp(logits - logits.max()).sum())
        best = np.argsort(-logits)[:5]
        assert [t.token for t in piece.top] == best.tolist()
        assert np.allclose([t.log_prob for t in piece.top], log_probs[best], atol=1e-4)
        assert piece.log_prob == piece.top[0].log_prob
        (piece,) = [p for p in session.generate(max_tokens=1, ignore_end=True) if p.token]
        assert (piece.log_prob, piece.top) == (None, ())


def test_stop_strings_end_a_text_and_are_not_part_of_it(tiny):
    options = {"max_tokens": 60, "seed": 3, "ignore_end": True}
    with started(tiny) as session:
        text = session.generate(PROMPT, **options).read()
    stop = text[10:14]
    for stops in (stop, [stop], ("never in it at all", stop), stop.encode()):
        with started(tiny) as session:
            stream = session.generate(PROMPT, stop=stops, **options)
            assert stream.read() == text[: text.index(stop)]
            assert stream.summary.reason is carat.Finish.STOP
            assert stream.summary.stop_index == (1 if isinstance(stops, tuple) else 0)


def test_wrong_options_are_errors_at_once(tiny):
    with started(tiny) as session:
        with pytest.raises(TypeError, match="temprature"):
            session.generate(PROMPT, temprature=1)
        for wrong in ({"top_k": -1}, {"max_tokens": -1}, {"seed": -1}, {"seed": 1 << 64}, {"logit_bias": {-1: 0.0}}):
            with pytest.raises(ValueError, match="."):
                session.generate(PROMPT, **wrong)
        for wrong in ({"temperature": "hot"}, {"stop": [3]}, {"logit_bias": {1: "x"}}):
            with pytest.raises(TypeError):
                session.generate(PROMPT, **wrong)
        for wrong in ({"temperature": -1.0}, {"top_p": math.nan}, {"top_log_probs": 5000}):
            with pytest.raises(carat.UsageError):
                session.generate(PROMPT, **wrong).read()
        with pytest.raises(carat.UsageError) as e:
            session.generate().read()
        assert e.value.status is carat.Status.EMPTY_PROMPT
        with pytest.raises(carat.PromptTooLongError):
            session.generate([2] * 257).read()
        assert len(session) == 0


def test_a_token_cancels_from_another_thread(tiny):
    token = carat.CancelToken()
    with started(tiny) as session:
        stream = session.generate(PROMPT, ignore_end=True, cancel=copy.copy(token))
        next(stream)
        timer = threading.Timer(0.05, token.cancel)
        timer.start()
        for _ in stream:
            time.sleep(0.01)
        assert stream.summary.reason is carat.Finish.CANCELLED
        assert session.generate([300], on_piece=lambda p: None, cancel=token).reason is carat.Finish.CANCELLED
        # Closing a stream is not the token's matter.
        fresh = carat.CancelToken()
        with session.generate([300], ignore_end=True, cancel=fresh) as stream:
            next(stream)
        assert not fresh.is_cancelled


def test_a_context_that_is_full_ends_the_text(tiny):
    with carat.Session(tiny, context=16) as session:
        stream = session.generate(PROMPT, ignore_end=True)
        stream.read()
        assert stream.summary.reason is carat.Finish.CONTEXT_FULL
        assert len(session) == 16


def test_a_stream_is_used_by_one_at_a_time(tiny):
    with started(tiny) as session:
        stream = session.generate(PROMPT, ignore_end=True, hook=lambda t, x: next(stream))
        with pytest.raises(carat.BusyError):
            next(stream)
        assert next(stream, None) is None
        stream = None
        gc.collect()


def test_streams_in_many_threads(tiny):
    def work(i):
        with started(tiny) as session:
            texts[i] = session.generate(PROMPT, max_tokens=100, seed=i % 2, ignore_end=True).read()

    texts = {}
    threads = [threading.Thread(target=work, args=(i,)) for i in range(8)]
    for t in threads:
        t.start()
    for t in threads:
        t.join()
    assert len(texts) == 8
    assert len(set(texts.values())) == 2


def test_a_stream_may_be_closed_by_another_thread(tiny):
    with started(tiny) as session:
        stream = session.generate(PROMPT, ignore_end=True)
        next(stream)
        other = threading.Timer(0.02, stream.close)
        other.start()
        n = sum(1 for _ in stream)
        other.join()
        assert n <= 256
        session.truncate(0)


def test_a_stream_goes_on_when_its_session_is_closed(tiny):
    session = started(tiny)
    stream = session.generate(PROMPT, max_tokens=20, ignore_end=True)
    next(stream)
    session.close()
    stream.read()
    assert stream.summary.generated_tokens == 20
