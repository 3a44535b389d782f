"""Models: opening, the tokenizer, what is in the file."""

from __future__ import annotations

import logging
import os
import sys
from collections.abc import Callable, Iterable, Mapping
from typing import TYPE_CHECKING, Any, Optional, Union, cast

from ._call import Call, run, run_with_callbacks
from ._cancel import CancelToken
from ._lib import (
    Closing,
    Handle,
    Ids,
    Path,
    Text,
    check,
    file_path,
    filled,
    ids_view,
    made,
    put,
    size,
    struct,
    token_number,
    utf8,
)
from ._native import ffi, lib
from ._values import (
    Arch,
    Engine,
    Isa,
    Limits,
    MemoryLock,
    ModelInfo,
    PieceKind,
    Plan,
    Role,
    SpecialTokens,
    TensorInfo,
    Turn,
    chosen,
)

if TYPE_CHECKING:
    if sys.version_info >= (3, 12):
        from collections.abc import Buffer
    else:
        from typing_extensions import Buffer


Progress = Callable[[int, int], Optional[bool]]
Log = Callable[[int, str], object]
Turns = Iterable[Union[Turn, tuple[Union[Role, str], Text], Mapping[str, str]]]

logger = logging.getLogger("carat")
logger.addHandler(logging.NullHandler())

# Above so many bytes of text, tokenizing takes long enough for Ctrl-C to matter more than a change of threads.
_LONG_TEXT = 1 << 16

_LEVELS = {lib.CARAT_LOG_WARN: logging.WARNING, lib.CARAT_LOG_INFO: logging.INFO}


@ffi.callback("carat_progress_fn", error=0)  # type: ignore[untyped-decorator]
def _on_progress(user_data: Any, done: int, total: int) -> int:
    call, progress = ffi.from_handle(user_data)
    try:
        return cast(bool, call.ask(lambda: progress(done, total)))
    except BaseException as e:
        call.fail(e)
        return 0


@ffi.callback("carat_log_fn")  # type: ignore[untyped-decorator]
def _on_log(user_data: Any, level: int, text: Any, length: int) -> None:
    # Nobody is there to be told of an exception: cffi prints it.
    log: Log = ffi.from_handle(user_data)
    log(_LEVELS.get(level, logging.INFO), ffi.buffer(text, length)[:].decode(errors="replace"))


# What was lent to carat_model_open_bytes() and was not given back yet, by the numbers given to it.
_lent: dict[int, Any] = {}


@ffi.callback("carat_release_fn")  # type: ignore[untyped-decorator]
def _on_release(user_data: Any, lent: dict[int, Any] = _lent, address: Any = ffi.cast) -> None:
    lent.pop(int(address("uintptr_t", user_data)), None)


class Model(Closing):
    """An opened model: immutable, and usable from many threads at the same time; passes of its sessions take turns.

    It may be closed before its sessions, which keep what they need of it.
    """

    def __init__(
        self,
        path: Path,
        *,
        threads: int = 0,
        isa: Isa | str = Isa.AUTO,
        private_copy: bool = False,
        preload: bool = False,
        lock: bool = False,
        tokenizer_engine: Engine | str = Engine.BUILTIN,
        cancel: CancelToken | None = None,
        progress: Progress | None = None,
        log: Log | None = None,
    ):
        """Open a GGUF file; of a model that was split into several, give the first.

        threads: to compute with, the caller's included, 1 to 256; 0: one for each core that the process may use.
        isa: the instruction set to use; "auto": the best that the processor has.
        private_copy: read the file into memory instead of mapping it, for one that may shrink or change meanwhile.
        preload: read the whole file ahead before returning, so that the first tokens come at full speed.
        lock: lock the file in memory; where the system refuses, the model works without: see info.memory_lock.
        tokenizer_engine: what turns text into ids.
        cancel: stops opening, and making the tokenizer later.
        progress: progress(done, total) is told the bytes that are done; it may return False to stop.
        log: log(level, text) takes messages, from any thread, with the levels of the module logging. By default they
            go to the logger "carat". No message holds any part of a prompt.

        Raises FileMissingError, SystemFileError, FileError, UsageError, CancelledError, OutOfMemoryError.
        """
        name = file_path(path)
        self._open(
            lambda options: made(lib.carat_model_open, "carat_model", name, len(name), options, path=path),
            threads,
            isa,
            private_copy,
            preload,
            lock,
            tokenizer_engine,
            cancel,
            progress,
            log,
        )

    @classmethod
    def open_fd(cls, fd: int, offset: int = 0, length: int | None = None, **options: Any) -> Model:
        """Open `length` bytes (None: all) from byte `offset` of a file descriptor, which may be closed afterwards.

        The offset need not be a multiple of the page size. Options and errors are those of Model().
        """
        number = fd if isinstance(fd, int) else cast(Any, fd).fileno()
        start = size("offset", offset)
        n = 0xFFFFFFFFFFFFFFFF if length is None else size("length", length)
        return cls._made(lambda c: made(lib.carat_model_open_fd, "carat_model", number, start, n, c), options)

    @classmethod
    def open_bytes(cls, data: Buffer, **options: Any) -> Model:
        """Open a GGUF file that lies in memory: bytes, an mmap, a memoryview; without copying it.

        The memory is kept until the model and its sessions are freed; it must not change. Options and errors are those
        of Model().
        """
        memory = ffi.from_buffer("uint8_t[]", data)

        def open_it(c: Any) -> Any:
            key = max(_lent, default=0) + 1
            _lent[key] = memory
            # Given back also where this fails.
            user_data = ffi.cast("void *", key)
            return made(lib.carat_model_open_bytes, "carat_model", memory, len(memory), _on_release, user_data, c)

        return cls._made(open_it, options)

    @classmethod
    def _made(cls, open_it: Callable[[Any], Any], options: dict[str, Any]) -> Model:
        defaults: dict[str, Any] = dict(cls.__init__.__kwdefaults__ or {})
        unknown = set(options) - set(defaults)
        if unknown:
            raise TypeError(f"there is no option {sorted(unknown)[0]!r}")
        defaults.update(options)
        model = cls.__new__(cls)
        model._open(open_it, **defaults)
        return model

    def _open(
        self,
        open_it: Callable[[Any], Any],
        threads: int,
        isa: Isa | str,
        private_copy: bool,
        preload: bool,
        lock: bool,
        tokenizer_engine: Engine | str,
        cancel: CancelToken | None,
        progress: Progress | None,
        log: Log | None,
    ) -> None:
        options = put(
            struct("model_options"),
            threads=threads,
            isa=chosen(Isa, isa, "isa"),
            private_copy=private_copy,
            preload=preload,
            lock=lock,
            tokenizer_engine=chosen(Engine, tokenizer_engine, "tokenizer_engine"),
        )
        log_data = ffi.new_handle(log if log is not None else logger.log)

        def work(call: Call) -> Handle:
            options.cancel = call.switch.pointer
            options.log = _on_log
            options.log_data = log_data
            progress_data = ffi.new_handle((call, progress))
            if progress is not None:
                options.progress = _on_progress
                options.progress_data = progress_data
            pointer = open_it(options)
            del progress_data
            # The switch too lives as long as the model: making the tokenizer looks at it.
            return Handle(pointer, lib.carat_model_free, "model", keep=(log_data, call.switch))

        self._handle = run_with_callbacks(work, cancel)
        self._has_tokenizer = False

    # ---- What it is ----

    @property
    def info(self) -> ModelInfo:
        """The shape of the model and how it runs here."""
        c = struct("model_info")
        with self._handle as pointer:
            check(lib.carat_model_get_info, pointer, c)
        values: dict[str, Any] = {name: getattr(c, name) for name in ModelInfo._fields}
        values.update(arch=Arch(c.arch), isa=Isa(c.isa), memory_lock=MemoryLock(c.memory_lock))
        return ModelInfo(**values)

    def metadata(self, key: str) -> str:
        """A metadata value of the file as text: a number in decimal, a bool as true or false, a string as it is.

        Raises FileError where there is no such key, or where the value is an array.
        """
        name = utf8(key)
        with self._handle as pointer:
            text: bytes = filled(
                "char[]",
                256,
                lambda to, room, n, error: lib.carat_model_metadata(pointer, name, len(name), to, room, n, error),
            )
        return text.decode()

    def tensors(self) -> list[TensorInfo]:
        """The tensors of the file, in its order."""
        c = struct("tensor_info")
        tensors = []
        with self._handle as pointer:
            info = struct("model_info")
            check(lib.carat_model_get_info, pointer, info)
            for i in range(info.n_tensors):
                check(lib.carat_model_tensor, pointer, i, c)
                tensors.append(
                    TensorInfo(
                        ffi.buffer(c.name, c.name_len)[:].decode(),
                        ffi.buffer(c.type_name, c.type_name_len)[:].decode(),
                        tuple(c.dims[0 : c.n_dims]),
                        c.offset,
                        c.size,
                    )
                )
        return tensors

    def plan(self, **options: Any) -> Plan:
        """The memory that the model and one session on it take; options are those of Session(). See plan()."""
        from ._session import c_session_options

        c = struct("plan")
        with self._handle as pointer:
            check(lib.carat_model_plan_session, pointer, c_session_options(options), c)
        return _plan(c)

    # ---- The tokenizer ----

    def _with_tokenizer(self, function: Callable[[Any, Any], Any], size: int, cancel: CancelToken | None) -> Any:
        """Call `function(pointer, switch)`, so that Ctrl-C interrupts it where it may take long."""

        def work(switch: Any) -> Any:
            with self._handle as pointer:
                return function(pointer, switch)

        if self._has_tokenizer and size < _LONG_TEXT and cancel is None:
            return work(ffi.NULL)
        result = run(work, cancel)
        self._has_tokenizer = True
        return result

    def tokenize(
        self, text: Text, *, bos: bool = False, special: bool = False, cancel: CancelToken | None = None
    ) -> list[int]:
        """The ids of a text; of one in bytes, each byte that is not UTF-8 counts as U+FFFD.

        bos: begin with the beginning-of-sequence token, unless the text does so itself (with `special`).
        special: control tokens written out in the text become their ids; else they are text, as in what a user typed.

        Raises FileError for a vocabulary that is not sound, at the first use; CancelledError; OutOfMemoryError.
        """
        encoded = utf8(text)
        options = put(struct("tokenize_options"), bos=bos, special=special)

        def work(pointer: Any, switch: Any) -> list[int]:
            options.cancel = switch
            ids: list[int] = filled(
                "uint32_t[]",
                len(encoded) // 2 + 16,
                lambda to, room, n, error: lib.carat_tokenize(
                    pointer, encoded, len(encoded), options, to, room, n, error
                ),
            )
            return ids

        return cast("list[int]", self._with_tokenizer(work, len(encoded), cancel))

    def detokenize(self, ids: Ids) -> str:
        """The text of ids: control tokens have none, bytes that are not UTF-8 become U+FFFD.

        Raises UsageError for an id that the vocabulary does not have, and as tokenize().
        """
        view = ids_view(ids)

        def work(pointer: Any, _: Any) -> bytes:
            text: bytes = filled(
                "char[]",
                16 + 8 * len(view),
                lambda to, room, n, error: lib.carat_detokenize(pointer, view, len(view), to, room, n, error),
            )
            return text

        return cast(bytes, self._with_tokenizer(work, len(view), None)).decode()

    def token_bytes(self, token: int) -> bytes:
        """The bytes that a piece stands for, with spaces as spaces; of a control token, its name.

        They need not be UTF-8: pieces for bytes are one byte. Errors are those of detokenize().
        """
        number = token_number(token)

        def work(pointer: Any, _: Any) -> Any:
            return filled(
                "uint8_t[]", 64, lambda to, room, n, error: lib.carat_token_bytes(pointer, number, to, room, n, error)
            )

        return cast(bytes, self._with_tokenizer(work, 0, None))

    def token_kind(self, token: int) -> PieceKind:
        """The kind of a piece. Errors are those of detokenize()."""
        kind = ffi.new("int32_t *")
        number = token_number(token)
        self._with_tokenizer(lambda pointer, _: check(lib.carat_token_kind, pointer, number, kind), 0, None)
        return PieceKind(kind[0])

    def token_id(self, text: Text) -> int | None:
        """The id of the piece that reads exactly `text`, control tokens included; None where there is none."""
        token = ffi.new("uint32_t *")
        encoded = utf8(text)
        self._with_tokenizer(
            lambda pointer, _: check(lib.carat_token_id, pointer, encoded, len(encoded), token), 0, None
        )
        return None if token[0] == 0xFFFFFFFF else int(token[0])

    def special_tokens(self) -> SpecialTokens:
        """The ids of the special tokens. Raises FileError for a vocabulary that is not sound."""
        c = struct("special_tokens")
        self._with_tokenizer(lambda pointer, _: check(lib.carat_model_special_tokens, pointer, c), 0, None)
        pad = None if c.pad == 0xFFFFFFFF else c.pad
        return SpecialTokens(c.vocab_size, c.bos, c.eos, c.unk, c.start_of_turn, c.end_of_turn, pad)

    def render_chat(self, turns: Turns, *, cancel: CancelToken | None = None) -> list[int]:
        """The ids of a whole conversation in Gemma's turns, up to the open turn of the model that is to answer.

        Turns are pairs of role and text: at most one of the system, then user and model in turn, the last the user's;
        else UsageError. Control tokens written out in a text are text. Else the errors are those of tokenize().
        """
        c, n, memory = c_turns(turns)

        def work(pointer: Any, switch: Any) -> Any:
            return filled(
                "uint32_t[]",
                1024,
                lambda to, room, n_ids, error: lib.carat_chat_render(pointer, c, n, switch, to, room, n_ids, error),
            )

        ids = self._with_tokenizer(work, sum(map(len, memory)), cancel)
        return cast("list[int]", ids)

    def decoder(self) -> Decoder:
        """A decoder at the beginning of a text."""
        return Decoder(self)


class Decoder(Closing):
    """Turns ids into text as they come, whole characters at a time. One call at a time: a second gets BusyError."""

    def __init__(self, model: Model):
        """A decoder at the beginning of a text; the model may be closed before it."""
        pointer = model._with_tokenizer(lambda m, _: made(lib.carat_decoder_new, "carat_decoder", m), 0, None)
        self._handle = Handle(pointer, lib.carat_decoder_free, "decoder", keep=model._handle.keep)

    def push(self, token: int) -> str:
        """Take the next id; gives the text that is now certain, which may be empty.

        Raises UsageError for an id that the vocabulary does not have: the decoder is then as it was.
        """
        number = token_number(token)
        return self._text(lambda p, to, room, n, error: lib.carat_decoder_push(p, number, to, room, n, error))

    def flush(self) -> str:
        """End the text: what was held back becomes U+FFFD. The decoder is then at the beginning of a text again."""
        return self._text(lib.carat_decoder_flush)

    def _text(self, function: Callable[..., int]) -> str:
        with self._handle as pointer:
            text: bytes = filled("char[]", 2048, lambda *rest: function(pointer, *rest))
        return text.decode()


def c_turns(turns: Turns) -> tuple[Any, int, list[bytes]]:
    """Turns as `carat_turn[]`, their number, and the memory that they point to."""
    pairs: list[tuple[Role, bytes]] = []
    for turn in turns:
        role: Any
        text: Any
        role, text = (turn["role"], turn["content"]) if isinstance(turn, Mapping) else turn
        pairs.append((chosen(Role, "model" if role == "assistant" else role, "role"), utf8(text)))
    c = ffi.new("carat_turn[]", len(pairs))
    memory = [text for _, text in pairs]
    buffers = [ffi.from_buffer("char[]", text) for text in memory]
    for i, (who, said) in enumerate(pairs):
        c[i].role = who
        c[i].text.ptr = buffers[i]
        c[i].text.len = len(said)
    # The array refers to the texts by their addresses alone; they are bytes, and the list keeps them.
    return c, len(pairs), memory


def plan(path: Path, *, threads: int = 0, **options: Any) -> Plan:
    """The memory that a model file and one session on it will take, without loading anything.

    threads: as in Model(); the other options are those of Session(). Errors are those of Model().
    """
    from ._session import c_session_options

    name = file_path(path)
    c = struct("plan")
    count = threads or _cores()
    check(lib.carat_model_plan, name, len(name), count, c_session_options(options), c, path=path)
    return _plan(c)


def _plan(c: Any) -> Plan:
    values = {name: getattr(c, name) for name in Plan._fields}
    if not c.has_available:
        values["available"] = None
    return Plan(**values)


def _cores() -> int:
    count = len(os.sched_getaffinity(0)) if hasattr(os, "sched_getaffinity") else os.cpu_count() or 1
    return min(count, 256)


def measure_limits(*, threads: int = 0, isa: Isa | str = Isa.AUTO) -> Limits:
    """Measure the machine's limits, in about a second and 256 MiB of memory.

    Raises UsageError for an instruction set that the processor lacks; OutOfMemoryError.
    """
    c = struct("limits")
    count = threads or _cores()
    wanted = chosen(Isa, isa, "isa")
    check(lib.carat_limits_measure, count, wanted, c)
    return Limits(c.read_bytes_per_s, c.dot_macs_per_s, c.fma_macs_per_s)
