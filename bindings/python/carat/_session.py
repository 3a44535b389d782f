"""Sessions."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any, Literal, TypedDict, cast, overload

from ._call import run
from ._cancel import CancelToken
from ._generate import GenerateOptions, Generation, OnPiece, Stream, each_logits, generation
from ._lib import (
    Closing,
    Handle,
    Ids,
    Path,
    array_of,
    check,
    file_path,
    filled,
    ids_view,
    made,
    put,
    size,
    struct,
    token_number,
)
from ._native import ffi, lib
from ._values import KvType, Summary, TokenScore, chosen

if TYPE_CHECKING:
    from typing_extensions import Unpack

    from ._generate import Floats
    from ._model import Model


class SessionOptions(TypedDict, total=False):
    """How a session is laid out: keywords of every call that makes one."""

    #: Tokens that the session can hold; 0, the default: the model's own context length, but at most 4096.
    context: int
    #: Most tokens that are processed at once, 1 to 4096: more is faster on long prompts and takes more memory.
    batch: int
    #: How keys and values are stored. "auto" by default: f16, but f32 for a model whose matrices are all F32.
    kv: KvType | Literal["auto", "f16", "q8_0", "f32"]
    #: Copies of the sliding windows that a conversation keeps to go back to its last turns, 0 to 64. 1 by default.
    snapshots: int
    #: Compute with f32 activations and weights: slow, and the truth that fast paths are tested against.
    exact: bool
    #: Keep every position in the windowed layers too, so that a text can be cut anywhere.
    full_history: bool
    #: Most tokens that generating guesses ahead where the text repeats itself, 0 to 15, and verifies in one pass: the
    #: same text bit for bit, sooner where it quotes. Each takes a row of logits of memory. 0 by default.
    draft: int


_NAMES = frozenset(SessionOptions.__annotations__)


def c_session_options(given: Any) -> Any:
    """The options of carat.h."""
    unknown = set(given) - _NAMES
    if unknown:
        raise TypeError(f"there is no option {sorted(unknown)[0]!r}; there are {', '.join(sorted(_NAMES))}")
    fields = dict(given)
    if "kv" in fields:
        fields["kv"] = chosen(KvType, fields["kv"], "kv")
    return put(struct("session_options"), **fields)


def loaded(
    function: Any, kind: str, free: Any, model: Model, path: Path, options: Any, cancel: CancelToken | None
) -> Handle:
    """The handle that one of the _load() functions makes."""
    name = file_path(path)
    c = c_session_options(options)

    def work(switch: Any) -> Handle:
        with model._handle as m:
            pointer = made(function, "carat_" + kind, m, name, len(name), c, switch, path=path)
        return Handle(pointer, free, kind, keep=model._handle.keep)

    return run(work, cancel)


def saved(function: Any, handle: Handle, path: Path, cancel: CancelToken | None) -> None:
    """Call one of the _save() functions."""
    name = file_path(path)

    def work(switch: Any) -> None:
        with handle as pointer:
            check(function, pointer, name, len(name), switch)

    run(work, cancel)


def tokens_of(function: Any, handle: Handle) -> list[int]:
    """The ids that one of the _tokens() functions gives."""
    with handle as pointer:
        return cast("list[int]", filled("uint32_t[]", 64, lambda *rest: function(pointer, *rest)))


class Session(Closing):
    """One text being read and written by a model.

    One call at a time, from any thread: a second one gets BusyError, also while a stream is in the middle.
    """

    def __init__(self, model: Model, **options: Unpack[SessionOptions]):
        """An empty session. All memory that it needs for its tokens is taken here: see plan().

        Raises UsageError, OutOfMemoryError.
        """
        with model._handle as pointer:
            made_ = made(lib.carat_session_new, "carat_session", pointer, c_session_options(options))
        self._handle = Handle(made_, lib.carat_session_free, "session", keep=model._handle.keep)

    @classmethod
    def _of(cls, handle: Handle) -> Session:
        session = cls.__new__(cls)
        session._handle = handle
        return session

    @classmethod
    def load(
        cls, model: Model, path: Path, *, cancel: CancelToken | None = None, **options: Unpack[SessionOptions]
    ) -> Session:
        """Open a session that save() wrote, with options of its own; another `kv` than the saved one's is an error.

        Raises FileMissingError, SystemFileError; FileError for a file of another model or kv, one that is damaged, or a
        text that does not fit; CancelledError; as Session().
        """
        handle = loaded(lib.carat_session_load, "session", lib.carat_session_free, model, path, options, cancel)
        return cls._of(handle)

    def fork(self) -> Session:
        """A copy that goes its own way from here. Raises OutOfMemoryError."""
        with self._handle as pointer:
            copy = made(lib.carat_session_fork, "carat_session", pointer)
        return Session._of(Handle(copy, lib.carat_session_free, "session", keep=self._handle.keep))

    def prefill(self, ids: Ids, *, cancel: CancelToken | None = None) -> None:
        """Add the tokens of a prompt, in batches, and compute the logits after the last.

        However they are split into calls, the same tokens give the same logits. Once cancelled, also by Ctrl-C, the
        session is left at its last completed batch. Raises PromptTooLongError, UsageError, CancelledError, FileError.
        """
        view = ids_view(ids)

        def work(switch: Any) -> None:
            with self._handle as pointer:
                check(lib.carat_session_prefill, pointer, view, len(view), switch)

        run(work, cancel)

    def prefill_each(self, ids: Ids, *, cancel: CancelToken | None = None) -> Stream[Floats]:
        """As prefill(), and hands out the logits [vocab] after each of the tokens: an iterator of arrays.

        The arrays are copies; logits() has none afterwards. Where the loop is left, the rest of the batch is part of
        the session and the rest of the tokens is not.
        """
        return each_logits(self._handle, ids_view(ids), cancel)

    def step(self, token: int, *, cancel: CancelToken | None = None) -> None:
        """Add one token and compute the logits of the next. Raises ContextFullError, and as prefill()."""
        number = token_number(token)

        def work(switch: Any) -> None:
            with self._handle as pointer:
                check(lib.carat_session_step, pointer, number, switch)

        run(work, cancel)

    def logits(self) -> Floats:
        """The logits [vocab] of the token that comes next, as they are after a prefill or a step: a NumPy array.

        Nothing is copied. The array is read-only, and keeps its memory: it does not change when the session goes on,
        and stays when the session is closed. Without NumPy it is a memoryview of floats.

        Raises NoLogitsError after anything but a prefill or a step.
        """
        with self._handle as pointer:
            logits = ffi.gc(made(lib.carat_session_logits, "carat_logits", pointer), lib.carat_logits_free)
        n = ffi.new("size_t *")
        data = lib.carat_logits_data(logits, n)
        # The memory refers to `owner`, which frees the logits when nothing refers to it any more.
        owner = ffi.gc(ffi.cast("float *", data), lambda _, logits=logits: None)
        return cast("Floats", array_of(memoryview(ffi.buffer(owner, 4 * n[0])).toreadonly(), "float32"))

    def score(self, ids: Ids, start: int = 0, *, cancel: CancelToken | None = None) -> list[TokenScore]:
        """Add the tokens of a text, and tell for those from index `start` on how likely they were.

        The very first token of a session has nothing before it and no score. Raises UsageError for a `start` beyond the
        text, and as prefill().
        """
        view = ids_view(ids)
        start = size("start", start)
        room = max(len(view) - start, 0)
        scores = ffi.new("carat_token_score[]", room)
        n = ffi.new("size_t *")

        def work(switch: Any) -> None:
            with self._handle as pointer:
                check(lib.carat_session_score, pointer, view, len(view), start, switch, scores, room, n)

        run(work, cancel)
        return [TokenScore(s.token, s.log_prob, s.rank) for s in scores[0 : n[0]]]

    @overload
    def generate(self, prompt: Ids = ..., **options: Unpack[GenerateOptions]) -> Generation: ...
    @overload
    def generate(self, prompt: Ids = ..., *, on_piece: OnPiece, **options: Unpack[GenerateOptions]) -> Summary: ...
    def generate(self, prompt: Ids = (), *, on_piece: Any = None, **options: Any) -> Any:
        """Add a prompt and generate what follows it: an iterator of pieces.

        An empty prompt goes on from where the session is. With `on_piece`, a function that is given each piece and may
        return False to stop, everything is generated before this returns the summary.

        Cancelling is not an error here: the summary tells. Raises PromptTooLongError, UsageError, FileError, and what
        the hook or `on_piece` raises; of a stream, from the iteration.
        """
        view = ids_view(prompt)
        return generation(self._handle, lib.carat_session_generate, (view, len(view)), options, on_piece)  # type: ignore[arg-type]

    def truncate(self, length: int) -> None:
        """Cut the text to its first `length` tokens.

        Raises RewindError when the sliding windows no longer hold what comes before: the session is as it was, and the
        error's `nearest` says how far back it can go. Raises UsageError when there are fewer tokens.
        """
        n = size("length", length)
        with self._handle as pointer:
            check(lib.carat_session_truncate, pointer, n)

    def save(self, path: Path, *, cancel: CancelToken | None = None) -> None:
        """Save the session to a file: loaded again it goes on with the same bits.

        A file that is there is replaced only when the new one is complete and on the disk. Raises SystemFileError, a
        full disk among them: the old file stays; CancelledError.
        """
        saved(lib.carat_session_save, self._handle, path, cancel)

    def tokens(self) -> list[int]:
        """The tokens so far."""
        return tokens_of(lib.carat_session_tokens, self._handle)

    def _len(self) -> tuple[int, int]:
        length, context = ffi.new("size_t *"), ffi.new("size_t *")
        with self._handle as pointer:
            check(lib.carat_session_len, pointer, length, context)
        return length[0], context[0]

    def __len__(self) -> int:
        """The number of tokens so far."""
        return self._len()[0]

    def __bool__(self) -> bool:
        # An empty session is there all the same.
        return True

    @property
    def context(self) -> int:
        """The number of tokens that the session can hold."""
        return self._len()[1]

    def trim(self) -> None:
        """Give back memory that can be had again, for when the system says that memory is short.

        The text stays as it is, and so do the logits; the next prompt of more than 16 tokens takes the memory again.
        """
        with self._handle as pointer:
            check(lib.carat_session_trim, pointer)
