"""What every module needs of carat.h: errors, handles, buffers, options."""

from __future__ import annotations

import operator
import os
import threading
from collections.abc import Callable, Iterable
from types import TracebackType
from typing import Any, Union

from ._errors import ClosedError, UsageError, error_of
from ._native import ffi, lib

# Anything that gives ids: those with a buffer of uint32 (NumPy's, array.array("I")) are not copied.
Ids = Union[Iterable[int], memoryview]
Path = Union[str, bytes, "os.PathLike[str]", "os.PathLike[bytes]"]
Text = Union[str, bytes]

if lib.carat_abi_version() < lib.CARAT_ABI_VERSION:
    raise ImportError("the shared library in the package is older than the package")

# One lock for all handles: held for the time of a count, and by nobody else when the process forks. Reentrant, as a
# signal handler may close what the main thread is about to use.
_lock = threading.RLock()
if hasattr(os, "register_at_fork"):
    os.register_at_fork(before=_lock.acquire, after_in_parent=_lock.release, after_in_child=_lock.release)


class Handle:
    """A handle of the library: `with handle as pointer` keeps it from being freed meanwhile, close() frees it after."""

    def __init__(self, pointer: Any, free: Callable[[Any], None], name: str, keep: object = None):
        """`keep` lives until the handle is freed, and then as long as this object."""
        self._pointer = pointer
        self._free = free
        self._name = name
        self._users = 0
        self._closed = False
        self.keep = keep

    def __enter__(self) -> Any:
        with _lock:
            self.check_open()
            self._users += 1
        return self._pointer

    def __exit__(self, *_: object) -> None:
        self._leave(1)

    def check_open(self) -> None:
        if self._closed:
            raise ClosedError(self._name)

    @property
    def closed(self) -> bool:
        return self._closed

    def close(self) -> None:
        self._closed = True
        self._leave(0)

    def _leave(self, users: int) -> None:
        last = None
        with _lock:
            self._users -= users
            if self._closed and not self._users:
                last, self._pointer = self._pointer, None
        if last is not None:
            self._free(last)

    def __del__(self) -> None:
        # Whoever uses the handle refers to this object: nobody does any more.
        pointer = getattr(self, "_pointer", None)
        if pointer is not None:
            self._pointer = None
            self._free(pointer)


class Closing:
    """What has a handle: closes it when it leaves a `with`."""

    _handle: Handle

    def close(self) -> None:
        """Free the memory now, or as soon as the calls that are running have returned. Closing again does nothing."""
        self._handle.close()

    @property
    def closed(self) -> bool:
        """Whether it was closed."""
        return self._handle.closed

    def __enter__(self) -> Any:
        self._handle.check_open()
        return self

    def __exit__(self, kind: type[BaseException] | None, value: BaseException | None, at: TracebackType | None) -> None:
        self.close()


def check(function: Callable[..., int], *args: Any, path: Path | None = None) -> None:
    """Call a function that returns a status and takes an error last; raises the error."""
    error = ffi.new("carat_error **")
    status = function(*args, error)
    if status:
        raise error_of(status, error[0], path)


def made(function: Callable[..., int], kind: str, *args: Any, path: Path | None = None) -> Any:
    """Call a function that hands out a handle."""
    out = ffi.new(kind + " **")
    check(function, *args, out, path=path)
    return out[0]


def filled(kind: str, guess: int, fill: Callable[[Any, int, Any, Any], int]) -> Any:
    """Call `fill(buffer, capacity, n, error)`, again with room enough where there was not; gives what was written.

    A `bytes` for the kind "char[]" and "uint8_t[]", a list of ids for "uint32_t[]".
    """
    n = ffi.new("size_t *")
    capacity = guess
    while True:
        buffer = ffi.new(kind, capacity)
        error = ffi.new("carat_error **")
        status = fill(buffer, capacity, n, error)
        if status == lib.CARAT_BUFFER_TOO_SMALL and n[0] > capacity:
            lib.carat_error_free(error[0])
            capacity = n[0]
        elif status:
            raise error_of(status, error[0])
        elif kind == "uint32_t[]":
            return ffi.unpack(buffer, n[0])
        else:
            return ffi.buffer(buffer, n[0])[:]


def struct(name: str) -> Any:
    """A struct of carat.h, filled by its own _init()."""
    made = ffi.new(f"carat_{name} *")
    getattr(lib, f"carat_{name}_init")(made, ffi.sizeof(made[0]))
    return made


def put(options: Any, **fields: Any) -> Any:
    """Set fields of a struct: a number that does not fit is an error of the caller's."""
    for name, value in fields.items():
        try:
            setattr(options, name, value)
        except OverflowError:
            raise UsageError(f"{name} cannot be {value}", lib.CARAT_INVALID_OPTION) from None
    return options


def utf8(text: Text) -> bytes:
    """The bytes of a text."""
    if isinstance(text, str):
        return text.encode()
    if isinstance(text, bytes):
        return text
    raise TypeError(f"a text is a str or bytes, not {type(text).__name__}")


def file_path(path: Path) -> bytes:
    """The bytes of a path."""
    return os.fsencode(path)


def ids_view(ids: Ids) -> Any:
    """Ids as `uint32_t[]`: memory of the caller's where it has that form, else a copy."""
    if not isinstance(ids, (list, tuple)):
        try:
            view = memoryview(ids)  # type: ignore[arg-type]
        except TypeError:
            pass
        else:
            if (
                view.format in ("I", "L", "@I", "=I", "<I")
                and view.itemsize == 4
                and view.ndim == 1
                and view.c_contiguous
            ):
                return ffi.from_buffer("uint32_t[]", view.cast("B"))
    try:
        return ffi.new("uint32_t[]", [operator.index(i) for i in ids])
    except OverflowError as e:
        raise UsageError(f"not a token: {e}", lib.CARAT_TOKEN_OUT_OF_RANGE) from None


def token_number(token: int) -> int:
    """A token as `uint32_t`."""
    number = operator.index(token)
    if not 0 <= number <= 0xFFFFFFFF:
        raise UsageError(f"token {number} is out of range", lib.CARAT_TOKEN_OUT_OF_RANGE)
    return number


def size(name: str, value: int) -> int:
    """A number as `uint64_t` or `size_t`."""
    number = operator.index(value)
    if not 0 <= number <= 0xFFFFFFFFFFFFFFFF:
        raise UsageError(f"{name} cannot be {number}", lib.CARAT_INVALID_OPTION)
    return number


def array_of(view: memoryview, dtype: str) -> Any:
    """A NumPy array over memory, which it keeps alive; the memory itself where there is no NumPy."""
    try:
        import numpy
    except ImportError:
        return view.cast("f" if dtype == "float32" else "I")
    return numpy.frombuffer(view, dtype=dtype)


def copied(pointer: Any, n: int, dtype: str) -> tuple[Any, bytearray]:
    """An array with a copy of `n` values of 4 bytes, and the copy."""
    copy = bytearray(ffi.buffer(pointer, 4 * n))
    return array_of(memoryview(copy), dtype), copy


def optional_text(text: Text | None) -> tuple[Any, int]:
    """Pointer and length of a text that may be none, which is not the same as an empty one."""
    if text is None:
        return ffi.NULL, 0
    encoded = utf8(text)
    return encoded, len(encoded)


def version() -> str:
    """The version of the library."""
    return str(ffi.string(lib.carat_version()).decode())
