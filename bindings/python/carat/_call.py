"""Calls that take time.

Python runs signal handlers on the main thread only, and only while that thread is in Python. A call that may take long
is therefore made on a thread of our own, and the one that asked for it waits in Python, where Ctrl-C reaches it: the
call is cancelled, waited for, and KeyboardInterrupt goes on. The same makes iterators of calls that have callbacks: a
piece is handed over, and the library waits until the next one is asked for.
"""

from __future__ import annotations

import _thread
import atexit
import os
import sys
import threading
import weakref
from collections.abc import Callable
from typing import Any, ClassVar, TypeVar

from ._cancel import CallSwitch, CancelToken
from ._errors import BusyError, ForkedError
from ._native import lib

T = TypeVar("T")

# On Windows nothing interrupts a thread that waits for a lock.
_PATIENCE = 0.05 if os.name == "nt" else -1


def _signal(lock: Any) -> None:
    """Wake who waits for the lock, or will. What it waits for is told by other variables; once too often is no harm."""
    # Called twice a token, where contextlib.suppress() would cost more than all the rest.
    try:  # noqa: SIM105
        lock.release()
    except RuntimeError:
        pass


def _held() -> Any:
    lock = _thread.allocate_lock()
    lock.acquire()
    return lock


class _Worker:
    """A thread that runs one job after the other."""

    idle: ClassVar[list[_Worker]] = []

    def __init__(self) -> None:
        self._wake = _held()
        self._job: Call | None = None
        threading.Thread(target=self._run, name="carat", daemon=True).start()

    @classmethod
    def start(cls, job: Call) -> None:
        try:
            worker = cls.idle.pop()
        except IndexError:
            worker = cls()
        worker._job = job
        _signal(worker._wake)

    def _run(self) -> None:
        while True:
            self._wake.acquire()
            job, self._job = self._job, None
            if job is not None:
                job.work(self)
            # Nothing of the job is kept while this thread waits for the next.
            del job


class Call:
    """A call of the library, and what it hands out on its way.

    `function(call)` runs on another thread, gives `call.switch.pointer` to the library as the cancel token, and calls
    hand_over() and ask() from callbacks. next() and stop() are the other side.
    """

    def __init__(self, function: Callable[[Call], Any], cancel: CancelToken | None = None):
        self.switch = CallSwitch(cancel)
        self.result: Any = None
        self._function: Callable[[Call], Any] | None = function
        self._error: BaseException | None = None
        self._pid = os.getpid()
        # Whoever takes it decides whether the function runs at all: the worker, or stop() before it.
        self._chance = [True]
        self._started = False
        self._done = False
        self._stopping = False
        self._inside = False
        # The event that waits for its answer, the answer that waits to be seen, and locks that wake who waits for them.
        self._event: Any = None
        self._answer: bool | None = None
        self._to_caller = _held()
        self._to_worker = _held()

    # ---- On the worker's thread ----

    def work(self, worker: _Worker) -> None:
        try:
            self._chance.pop()
        except IndexError:
            _Worker.idle.append(worker)
            return
        function, self._function = self._function, None
        try:
            assert function is not None
            self.result = function(self)
        except BaseException as e:
            self._error = self._error or e
        # What the function holds, such as a session, is let go before anyone goes on.
        del function
        _Worker.idle.append(worker)
        self._done = True
        _signal(self._to_caller)

    def hand_over(self, event: Any) -> bool:
        """Give something to the caller, wait until it asks for more: False where it does not."""
        if self._stopping:
            return False
        self._answer = None
        self._event = event
        _signal(self._to_caller)
        while self._answer is None:
            self._to_worker.acquire()
        return self._answer

    def ask(self, function: Callable[[], object]) -> bool:
        """Have a callback of the user's run on the caller's thread: False where it returns False, or raises."""
        return self.hand_over(_Ask(function))

    def fail(self, error: BaseException) -> None:
        """What our side of a callback raised: it stops the call, and comes out of it."""
        self._stopping = True
        self._error = self._error or error

    # ---- On the caller's thread ----

    def next(self) -> Any:
        """What the call hands out next; None once it is over, with its `result`. Raises what it failed with."""
        if os.getpid() != self._pid:
            raise ForkedError("this stream belongs to the process that was forked", lib.CARAT_FORKED)
        if self._inside:
            raise BusyError("the stream is in use", lib.CARAT_BUSY)
        try:
            self._inside = True
            if not self._started:
                self._started = True
                _live.add(self)
                _Worker.start(self)
            else:
                self._reply(True)
            while True:
                while self._event is None and not self._done:
                    self._to_caller.acquire(True, _PATIENCE)
                event = self._event
                if event is None:
                    _signal(self._to_caller)  # For another thread, that waits in stop().
                    error, self._error = self._error, None
                    if error is None:
                        return None
                    try:
                        raise error
                    finally:
                        del error  # Its traceback holds this frame.
                if not isinstance(event, _Ask):
                    return event
                self._reply(event.function() is not False)
        except BaseException:
            self.stop()
            raise
        finally:
            self._inside = False

    def _reply(self, answer: bool) -> None:
        if self._event is not None:
            self._event = None
            self._answer = answer
            _signal(self._to_worker)

    def stop(self) -> None:
        """End the call and wait for its end: at once where it waits for us, else by its cancel token."""
        try:
            self._chance.pop()
            self._function = None
            self._done = True
        except IndexError:
            pass
        if self._done or os.getpid() != self._pid or sys.is_finalizing():
            return
        interrupt: BaseException | None = None
        waits = self._event is not None
        while not self._done:
            # Whatever interrupts us, we go on: the library must be out before the caller goes on.
            try:
                self._stopping = True
                if not waits:
                    self.switch.set()
                self._event = None
                self._answer = False
                _signal(self._to_worker)
                while not self._done:
                    if self._event is not None:
                        self._event = None
                        self._answer = False
                        _signal(self._to_worker)
                    self._to_caller.acquire(True, _PATIENCE)
            except BaseException as e:
                interrupt = e
        _signal(self._to_caller)
        self._error = None
        if interrupt is not None:
            raise interrupt


class _Ask:
    def __init__(self, function: Callable[[], object]):
        self.function = function


def run(function: Callable[[Any], T], cancel: CancelToken | None = None) -> T:
    """Call `function(switch)`, with a cancel token of the library's, so that Ctrl-C cancels it."""
    if threading.current_thread() is not threading.main_thread():
        return function(CallSwitch(cancel).pointer)
    return run_with_callbacks(lambda call: function(call.switch.pointer), cancel)


def run_with_callbacks(function: Callable[[Call], T], cancel: CancelToken | None = None) -> T:
    """Call `function(call)`; what it asks by `call.ask()` runs on this thread."""
    call = Call(function, cancel)
    call.next()
    result: T = call.result
    return result


# Calls that were begun. At the end of the program a stream may be left in the middle; its thread would never answer
# once the interpreter is being taken down.
_live: weakref.WeakSet[Call] = weakref.WeakSet()


@atexit.register
def _stop_all() -> None:
    for call in list(_live):
        call.stop()


def _forget_threads() -> None:
    _Worker.idle.clear()
    _live.clear()


if hasattr(os, "register_at_fork"):
    os.register_at_fork(after_in_child=_forget_threads)
