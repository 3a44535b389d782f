"""Ctrl-C: SIGINT to a child process cancels what it is doing within 200 ms, and is a KeyboardInterrupt there."""

import json
import os
import signal
import sys
import time

import pytest
from conftest import TINY, start

pytestmark = pytest.mark.skipif(sys.platform == "win32", reason="there is no SIGINT for a single process")

PRELUDE = """
import json, signal, sys, time
import carat
def interrupted(function, *args):
    try:
        print("ready", flush=True)
        function(*args)
    except KeyboardInterrupt:
        print(json.dumps(time.monotonic()), flush=True)
        return True
    print("it ended", flush=True)
model = carat.Model(sys.argv[1], threads=2)
session = carat.Session(model, context=int(sys.argv[2]))
long = [2] + [500 + i % 200 for i in range(int(sys.argv[2]) - 20)]
"""

AFTERWARDS = """
session.truncate(0) if len(session) else None
session.prefill([2, 600, 601])
assert len(session) == 3
print("usable", flush=True)
"""

CALLS = {
    "prefill": "interrupted(session.prefill, long)",
    "score": "interrupted(session.score, long)",
    "prefill_each": "interrupted(list, session.prefill_each(long))",
    "the prompt of a generation": "interrupted(session.generate(long, max_tokens=1).read)",
    "generate": "interrupted(session.generate([2, 500], ignore_end=True).read)",
    "on_piece": "interrupted(lambda: session.generate([2, 500], ignore_end=True, on_piece=lambda p: None))",
    "a loop's body": """
def loop():
    for piece in session.generate([2, 500], ignore_end=True):
        time.sleep(0.001)
interrupted(loop)
""",
    "steps": """
def loop():
    for i in range(4000):
        session.step(500)
interrupted(loop)
""",
    "a hook": """
interrupted(session.generate([2, 500], ignore_end=True, hook=lambda t, l: time.sleep(0.01)).read)
""",
}


def seconds_to_interrupt(code, delay, *args):
    """How long after a SIGINT the child caught KeyboardInterrupt."""
    child = start(code, *args)
    assert child.stdout.readline() == "ready\n"
    time.sleep(delay)
    # The clock is the system's: the same in both processes.
    sent = time.monotonic()
    os.kill(child.pid, signal.SIGINT)
    out, err = child.communicate(timeout=60)
    assert (child.returncode, err) == (0, "")
    caught, usable = out.splitlines()
    assert usable == "usable"
    return json.loads(caught) - sent


@pytest.mark.parametrize("name", CALLS)
def test_ctrl_c_cancels(name, real):
    # A machine that is busy with other things may be late now and then.
    took = []
    for delay in (0.15, 0.4, 0.3, 0.2):
        took.append(seconds_to_interrupt(PRELUDE + CALLS[name] + AFTERWARDS, delay, real, 4000))
        if took[-1] < 0.2:
            return
    pytest.fail(f"{took} s")


def test_ctrl_c_again_and_again_leaves_a_sound_process(real):
    code = """
    import sys, time
    import carat
    model = carat.Model(sys.argv[1], threads=2)
    session = carat.Session(model, context=4000)
    long = [2] + [500 + i % 200 for i in range(300)]
    print("ready", flush=True)
    end, caught = time.monotonic() + 5, 0
    while time.monotonic() < end:
        try:
            try:
                session.prefill(long)
                session.truncate(0)
                for piece in session.generate([2, 500], max_tokens=5, ignore_end=True):
                    pass
            finally:
                session.truncate(0)
        except KeyboardInterrupt:
            caught += 1
    print(caught, flush=True)
    """
    child = start(code, real)
    assert child.stdout.readline() == "ready\n"
    sent = 0
    end = time.monotonic() + 4
    while time.monotonic() < end:
        time.sleep(0.011 * (1 + sent % 7))
        os.kill(child.pid, signal.SIGINT)
        sent += 1
    out, err = child.communicate(timeout=60)
    # An interrupt that comes where nobody catches it ends the process in Python's way, which is no fault of ours;
    # anything else (a crash, a hang, another exception) is.
    last = err.strip().splitlines()[-1] if err else ""
    assert (child.returncode, last) == (0, "") or last == "KeyboardInterrupt", (child.returncode, err)
    assert sent > 50
    assert out == "" or int(out) > 20


def test_another_handler_is_called_while_the_library_works(real):
    code = (
        PRELUDE
        + """
calls = []
token = carat.CancelToken()
signal.signal(signal.SIGUSR1, lambda *_: (calls.append(len(calls)), token.cancel()))
print("ready", flush=True)
try:
    session.prefill(long, cancel=token)
except carat.CancelledError:
    print(len(calls), json.dumps(time.monotonic()), flush=True)
"""
    )
    child = start(code, real, 4000)
    assert child.stdout.readline() == "ready\n"
    time.sleep(0.2)
    sent = time.monotonic()
    os.kill(child.pid, signal.SIGUSR1)
    out, err = child.communicate(timeout=60)
    calls, caught = out.split()
    assert (calls, err) == ("1", "")
    assert float(caught) - sent < 0.2


def test_ctrl_c_does_not_set_the_caller_s_token():
    code = """
    import os, signal, sys, threading
    import carat
    token = carat.CancelToken()
    session = carat.Session(carat.Model(sys.argv[1]), context=256)
    def interrupt(piece):
        os.kill(os.getpid(), signal.SIGINT)
    try:
        session.generate([2, 300], ignore_end=True, cancel=token, on_piece=interrupt)
    except KeyboardInterrupt:
        session.prefill([300], cancel=token)
        print(token.is_cancelled)
    """
    process = start(code, TINY)
    assert process.communicate(timeout=60) == ("False\n", "")
