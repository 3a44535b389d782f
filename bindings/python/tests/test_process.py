"""Threads, forks, the end of the program, handles that are closed while they are used."""

import sys
import threading
import time

import pytest
from conftest import TINY, child

import carat


def test_other_threads_run_while_the_library_works(real):
    # With the lock of the interpreter held, nothing would be counted meanwhile.
    counted = 0
    stop = threading.Event()

    def count():
        nonlocal counted
        while not stop.is_set():
            counted += 1
            time.sleep(0.001)

    with carat.Model(real, threads=2) as model, carat.Session(model, context=2048) as session:
        thread = threading.Thread(target=count)
        thread.start()
        try:
            for call in (session.prefill, session.score):
                session.truncate(0)
                before, began = counted, time.monotonic()
                call([2] + [500 + i % 100 for i in range(100)])
                took = time.monotonic() - began
                assert took > 0.05
                assert counted - before > took / 0.001 / 20
        finally:
            stop.set()
            thread.join()


def test_close_while_in_use_is_deferred(tiny):
    for _ in range(20):
        session = carat.Session(tiny, context=256)
        results = []

        def work(session=session, results=results):
            try:
                session.prefill([2] + [300] * 200)
                results.append(None)
            except carat.ClosedError as e:
                results.append(e)

        thread = threading.Thread(target=work)
        thread.start()
        time.sleep(0.002)
        session.close()
        thread.join()
        assert len(results) == 1
        with pytest.raises(carat.ClosedError):
            session.tokens()


def test_close_from_a_callback_is_deferred(tiny):
    session = carat.Session(tiny, context=256)
    summary = session.generate([2, 300], max_tokens=5, ignore_end=True, on_piece=lambda p: session.close())
    assert summary.generated_tokens == 5
    model = carat.Model(TINY, progress=lambda done, total: None)
    session = carat.Session(model, context=256)
    session.generate([2, 300], max_tokens=5, ignore_end=True, hook=lambda t, x: (model.close(), session.close())).read()
    assert session.closed


def test_one_call_at_a_time(tiny):
    session = carat.Session(tiny, context=256)
    inside, go_on = threading.Event(), threading.Event()

    def wait(piece):
        inside.set()
        go_on.wait()
        return False

    thread = threading.Thread(target=lambda: session.generate([2, 300], ignore_end=True, on_piece=wait))
    thread.start()
    inside.wait()
    for call in (session.tokens, session.fork, session.logits, lambda: session.prefill([300])):
        with pytest.raises(carat.BusyError):
            call()
    go_on.set()
    thread.join()
    assert len(session) == 3


@pytest.mark.skipif(not hasattr(__import__("os"), "fork"), reason="there is no fork")
def test_a_fork_is_told_so():
    out = child(
        """
        import os, sys, warnings
        warnings.simplefilter("ignore", DeprecationWarning)  # Of forking with threads.
        import carat
        model = carat.Model(sys.argv[1], threads=2)
        session = carat.Session(model, context=64)
        session.prefill([2, 300, 301])
        kept = session.logits()
        stream = session.fork().generate([300], ignore_end=True)
        next(stream)
        pid = os.fork()
        if pid == 0:
            for call in (lambda: session.step(300), lambda: session.prefill([300]), lambda: next(stream),
                         lambda: session.generate([300]).read()):
                try:
                    call()
                except carat.ForkedError:
                    print("forked")
            session.close()
            stream.close()
            model.close()
            with carat.Model(sys.argv[1], threads=2) as model, carat.Session(model, context=64) as session:
                session.prefill([2, 300, 301])
                print((session.logits() == kept).all())
            sys.exit()
        assert os.waitpid(pid, 0)[1] == 0
        session.step(300)
        print(next(stream).token is not None)
        """,
        TINY,
    )
    assert out.split() == ["forked"] * 4 + ["True", "True"]


@pytest.mark.parametrize("end", ["", "sys.exit()", "del model, session", "os.kill(os.getpid(), 2)"])
def test_a_program_ends_with_a_stream_in_the_middle(end):
    code = f"""
        import os, sys, threading
        import carat
        model = carat.Model(sys.argv[1])
        session = carat.Session(model, context=256)
        stream = session.generate([2, 300], ignore_end=True)
        next(stream)
        other = carat.Session(model, context=256).generate([2, 300], ignore_end=True)
        thread = threading.Thread(target=next, args=(other,))
        thread.start()
        thread.join()
        self_reference = [stream]
        self_reference.append(self_reference)
        print("end", flush=True)
        try:
            {end or "pass"}
        except KeyboardInterrupt:
            pass
        """
    assert child(code, TINY, timeout=20) == "end\n"


def test_everything_works_without_numpy_but_arrays_are_memoryviews():
    code = """
        import sys
        sys.modules["numpy"] = None
        import carat
        session = carat.Session(carat.Model(sys.argv[1]), context=64)
        session.prefill([2, 300])
        logits = session.logits()
        assert isinstance(logits, memoryview) and logits.readonly and logits.format == "f", logits
        copy = logits.tolist()
        session.step(300)
        session.close()
        assert logits.tolist() == copy
        def hook(tokens, logits):
            for i in range(len(logits)):
                logits[i] = 0 if i == 300 + len(tokens) else float("-inf")
        session = carat.Session(carat.Model(sys.argv[1]), context=64)
        print([p.token for p in session.generate([2, 300], max_tokens=3, hook=hook) if p.token])
        session.truncate(0)
        print(len(next(session.prefill_each([2, 300]))))
        """
    assert child(code, TINY).splitlines() == ["[302, 303, 304]", "768"]


def test_nothing_is_left_behind():
    out = child(
        """
        import gc, sys, threading
        import carat
        def resident():
            return int(open("/proc/self/statm").read().split()[1]) * 4096
        def once():
            with carat.Model(sys.argv[1], threads=2) as model:
                session = carat.Session(model, context=256)
                for piece in session.generate([2, 300], ignore_end=True):
                    if len(piece.text) > 2:
                        break
                try:
                    session.generate([2] * 300).read()
                except carat.Error:
                    pass
                carat.Conversation(session).send("Hi", max_tokens=3).read()
                carat.Model.open_bytes(open(sys.argv[1], "rb").read()).close()
        for _ in range(20):
            once()
        gc.collect()
        before, threads = resident(), threading.active_count()
        gc.disable()
        for _ in range(60):
            once()
        print(resident() - before < 3 << 20, threading.active_count() <= threads + 1)
        """,
        TINY,
    )
    assert out == "True True\n"


@pytest.mark.skipif(sys.platform != "linux", reason="it reads /proc")
def test_idle_calls_cost_no_processor():
    import resource

    with carat.Model(TINY) as model, carat.Session(model, context=64) as session:
        stream = session.generate([2, 300], ignore_end=True)
        next(stream)
        time.sleep(0.3)
        before = resource.getrusage(resource.RUSAGE_SELF)
        time.sleep(0.5)
        after = resource.getrusage(resource.RUSAGE_SELF)
        assert after.ru_utime + after.ru_stime - before.ru_utime - before.ru_stime < 0.1
