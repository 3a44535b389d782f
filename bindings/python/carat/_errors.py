"""The errors: one class for each thing that a program may want to tell apart."""

from __future__ import annotations

import errno
import os
from typing import Any

from ._native import ffi, lib
from ._values import Kind, Status


class Error(Exception):
    """What carat raises. `status` says what went wrong, `kind` whose matter it is, the text where and how."""

    def __init__(self, message: str, status: int = lib.CARAT_INTERNAL, kind: int = lib.CARAT_KIND_USAGE):
        """Made by the library."""
        super().__init__(message)
        self.message = message
        self.status = Status(status)
        self.kind = Kind(kind)

    def __str__(self) -> str:
        return self.message

    def __reduce__(self) -> Any:
        return _remade, (type(self), self.message, self.status, self.kind, self.__dict__)


def _remade(kind_of: type[Error], message: str, status: int, kind: int, fields: dict[str, Any]) -> Error:
    error = kind_of.__new__(kind_of)
    Error.__init__(error, message, status, kind)
    error.__dict__.update(fields)
    return error


class UsageError(Error, ValueError):
    """The call was wrong: an argument, an option, a token, a turn out of order."""


class PromptTooLongError(UsageError):
    """The prompt does not fit into the context."""


class ContextFullError(UsageError):
    """The session cannot take another token."""


class NoLogitsError(UsageError):
    """The session has no logits now: only a prefill or a step computes them."""


class RewindError(UsageError):
    """The sliding windows no longer hold what comes before the place to cut at.

    `nearest` is the lowest number of tokens above 0 that the session can be cut to; 0 where there is none.
    """

    nearest: int = 0


class ClosedError(UsageError):
    """A model, session or conversation that was closed, or whose contents went elsewhere."""

    def __init__(self, name: str):
        """Of what was closed."""
        super().__init__(f"the {name} was closed", lib.CARAT_INVALID_ARGUMENT)


class BusyError(Error, RuntimeError):
    """Another call on the same session, conversation or decoder has not returned yet, or its stream has not ended."""


class FileError(Error):
    """The file is wrong, damaged, or not supported."""


class SystemFileError(FileError, OSError):
    """The operating system refused: no permission, a full disk."""


class FileMissingError(SystemFileError, FileNotFoundError):
    """There is no such file."""


class CancelledError(Error):
    """The cancel token was set, or a callback returned False."""


class OutOfMemoryError(Error, MemoryError):
    """Memory that could not be had."""


class ForkedError(Error, RuntimeError):
    """The process was forked after the model was opened: open it again in the child."""


class InternalError(Error, RuntimeError):
    """A bug in the library: what it happened to can only be closed, others go on."""


_BY_STATUS: dict[int, type[Error]] = {
    lib.CARAT_BUSY: BusyError,
    lib.CARAT_CANCELLED: CancelledError,
    lib.CARAT_IO: SystemFileError,
    lib.CARAT_PROMPT_TOO_LONG: PromptTooLongError,
    lib.CARAT_CONTEXT_FULL: ContextFullError,
    lib.CARAT_REWIND: RewindError,
    lib.CARAT_OUT_OF_MEMORY: OutOfMemoryError,
    lib.CARAT_FORKED: ForkedError,
    lib.CARAT_INTERNAL: InternalError,
    lib.CARAT_NO_LOGITS: NoLogitsError,
}
_BY_KIND: dict[int, type[Error]] = {
    lib.CARAT_KIND_USAGE: UsageError,
    lib.CARAT_KIND_FILE: FileError,
    lib.CARAT_KIND_CANCELLED: CancelledError,
}


def error_of(status: int, error: Any, path: Any = None) -> Error:
    """The error that a call returned; frees it. `path` is the file that the call was about."""
    if error == ffi.NULL:  # No memory to say more.
        return _BY_STATUS.get(status, Error)(ffi.string(lib.carat_status_name(status)).decode(), status)
    try:
        status = lib.carat_error_status(error)
        kind = lib.carat_error_kind(error)
        message = ffi.string(lib.carat_error_message(error)).decode(errors="replace")
        raised = _BY_STATUS.get(status) or _BY_KIND.get(kind, Error)
        missing = status == lib.CARAT_IO and path is not None and not os.path.lexists(path)
        made = (FileMissingError if missing else raised)(message, status, kind)
        if isinstance(made, RewindError):
            made.nearest = lib.carat_error_nearest(error)
        if isinstance(made, FileMissingError):
            made.errno, made.strerror, made.filename = errno.ENOENT, os.strerror(errno.ENOENT), os.fspath(path)
        return made
    finally:
        lib.carat_error_free(error)
