"""Cancel tokens."""

from __future__ import annotations

from typing import Any

from ._native import ffi, lib


def _owned(pointer: Any) -> Any:
    if pointer == ffi.NULL:
        raise MemoryError
    return ffi.gc(pointer, lib.carat_cancel_free)


class CancelToken:
    """A switch that stops the calls it was given to, from any thread and from signal handlers.

    It is sticky: once set it stays set. `copy.copy(token)` is another name for the same switch.
    """

    def __init__(self) -> None:
        """A switch that is not set."""
        self._pointer = _owned(lib.carat_cancel_new())
        # The switches of the calls that were given this one, by their addresses. No lock: each use is one operation on
        # the dict, and a signal handler may come in between.
        self._calls: dict[int, Any] = {}

    def cancel(self) -> None:
        """Set it, for good."""
        lib.carat_cancel_set(self._pointer)
        for pointer in tuple(self._calls.values()):
            lib.carat_cancel_set(pointer)

    @property
    def is_cancelled(self) -> bool:
        """Whether it was set."""
        return bool(lib.carat_cancel_is_set(self._pointer))

    def __copy__(self) -> CancelToken:
        copy = CancelToken.__new__(CancelToken)
        copy._pointer = _owned(lib.carat_cancel_clone(self._pointer))
        copy._calls = self._calls
        return copy


class CallSwitch:
    """The switch of one call: set by the caller's token, and by Ctrl-C, which must not set the caller's token."""

    def __init__(self, token: CancelToken | None):
        self.pointer = _owned(lib.carat_cancel_new())
        self._key = int(ffi.cast("uintptr_t", self.pointer))
        self._calls: dict[int, Any] = {}
        if token is not None:
            self._calls = token._calls
            self._calls[self._key] = self.pointer
            if token.is_cancelled:  # Looked at last, so that no cancel() is missed.
                self.set()

    def set(self) -> None:
        lib.carat_cancel_set(self.pointer)

    def __del__(self) -> None:
        calls = getattr(self, "_calls", None)
        if calls is not None:
            calls.pop(self._key, None)
