"""Generating: options, pieces, streams."""

from __future__ import annotations

from collections.abc import Callable, Iterable, Iterator, Mapping
from typing import TYPE_CHECKING, Any, Generic, Optional, TypedDict, TypeVar

from ._call import Call
from ._cancel import CancelToken
from ._lib import Handle, Text, check, copied, put, struct, token_number, utf8
from ._native import ffi, lib
from ._values import Finish, Piece, Summary, TokenLogProb

if TYPE_CHECKING:
    import numpy as np
    from numpy.typing import NDArray

    Floats = NDArray[np.float32]
    Hook = Callable[[NDArray[np.uint32], Floats], Optional[bool]]

OnPiece = Callable[[Piece], Optional[bool]]
T = TypeVar("T")


class GenerateOptions(TypedDict, total=False):
    """How to generate: keywords of every call that does.

    Tokens are chosen in this order: logit bias, repetition, presence and frequency penalties, the hook, greedy where
    the temperature is 0, else temperature, top-k, top-p, min-p, draw.
    """

    #: Most tokens to generate; None, the default: as many as fit.
    max_tokens: int | None
    #: Logits are divided by it; 0 chooses the likeliest token. 1 by default.
    temperature: float
    #: Only this many of the likeliest tokens are drawn from; 0 for all. 64 by default.
    top_k: int
    #: Only the likeliest tokens that together have this probability are drawn from. 0.95 by default.
    top_p: float
    #: Only tokens with at least this share of the likeliest one's probability are drawn from. 0 by default.
    min_p: float
    #: The logit of a token that occurred is divided by it where it is positive, else multiplied. 1 by default.
    repetition_penalty: float
    #: Subtracted from the logit of a token that occurred. 0 by default.
    presence_penalty: float
    #: Subtracted from the logit of a token for each time it occurred. 0 by default.
    frequency_penalty: float
    #: How many of the last tokens, the prompt's included, the penalties look at. 64 by default.
    penalty_window: int
    #: Added to the logits of tokens, by their ids; -math.inf forbids one.
    logit_bias: Mapping[int, float]
    #: Where the random numbers begin: the same seed gives the same text. None: go on with the session's own.
    seed: int | None
    #: A text that ends the generation, or several; it is not part of the pieces.
    stop: Text | Iterable[Text]
    #: For each token, so many of the likeliest ones with their log-probabilities, at most 1024. 0 by default.
    top_log_probs: int
    #: Go on after an end of turn or of the text, as benchmarks want it.
    ignore_end: bool
    #: Stops it from any thread. That is not an error: the summary tells.
    cancel: CancelToken | None
    #: `hook(tokens, logits)` may change the logits [vocab] of the next token, given the tokens [n] so far, and return
    #: False to stop. Both arrays are copies: they may be kept. Not for conversations.
    hook: Hook


class Stream(Generic[T]):
    """What a call hands out as it goes: an iterator.

    Nothing is computed before the first is asked for; then the call waits between one and the next. Until the end, or
    close(), the session is busy. A loop that is left by `break` or an exception lets go of its stream, which closes it.
    """

    def __init__(self, call: Call):
        """Made by the methods that stream."""
        self._call = call

    def __iter__(self) -> Iterator[T]:
        return self

    def __next__(self) -> T:
        event: T | None = self._call.next()
        if event is None:
            raise StopIteration
        return event

    def close(self) -> None:
        """Stop: what was handed out stays part of the session. Closing again does nothing."""
        self._call.stop()

    def __enter__(self) -> Any:
        return self

    def __exit__(self, *_: object) -> None:
        self.close()

    def __del__(self) -> None:
        call = getattr(self, "_call", None)
        if call is not None:
            call.stop()


class Generation(Stream[Piece]):
    """The pieces of a text as it is generated."""

    @property
    def summary(self) -> Summary | None:
        """What was done; None as long as it is not over."""
        result: Summary | None = self._call.result
        return result

    def read(self) -> str:
        """All that is still to come, as one text."""
        return "".join([piece.text for piece in self])


@ffi.callback("carat_piece_fn", error=0)  # type: ignore[untyped-decorator]
def _on_piece(user_data: Any, c: Any) -> int:
    call: Call = ffi.from_handle(user_data)
    try:
        top: tuple[TokenLogProb, ...] = ()
        log_prob = None
        n = c.n_top
        if n:
            top = tuple([TokenLogProb(t.token, t.log_prob) for t in c.top[0:n]])
            log_prob = c.log_prob
        length = c.text_len
        text = ffi.buffer(c.text, length)[:].decode() if length else ""
        return call.hand_over(Piece(text, c.token if c.has_token else None, log_prob, top))
    except BaseException as e:
        call.fail(e)
        return 0


@ffi.callback("carat_hook_fn", error=0)  # type: ignore[untyped-decorator]
def _on_hook(user_data: Any, c_tokens: Any, n_tokens: int, c_logits: Any, n_logits: int) -> int:
    call, hook = ffi.from_handle(user_data)
    try:
        tokens, _ = copied(c_tokens, n_tokens, "uint32")
        logits, memory = copied(c_logits, n_logits, "float32")
        if not call.ask(lambda: hook(tokens, logits)):
            return 0
        ffi.memmove(c_logits, memory, 4 * n_logits)
        return 1
    except BaseException as e:
        call.fail(e)
        return 0


_NAMES = frozenset(GenerateOptions.__annotations__)
_PLAIN = _NAMES - {"max_tokens", "logit_bias", "seed", "stop", "cancel", "hook"}


def _c_options(given: GenerateOptions) -> tuple[Any, object]:
    """The options of carat.h, without the cancel token and the hook, and the memory that they point to."""
    unknown = set(given) - _NAMES
    if unknown:
        raise TypeError(f"there is no option {sorted(unknown)[0]!r}; there are {', '.join(sorted(_NAMES))}")
    c = struct("generate_options")
    put(c, **{name: value for name, value in given.items() if name in _PLAIN})
    max_tokens = given.get("max_tokens")
    if max_tokens is not None:
        put(c, max_tokens=max_tokens)
    seed = given.get("seed")
    if seed is not None:
        put(c, has_seed=1, seed=seed)
    stop = given.get("stop", ())
    texts = [utf8(text) for text in ((stop,) if isinstance(stop, (str, bytes)) else stop)]
    buffers = [ffi.from_buffer("char[]", text) for text in texts]
    c_stop = ffi.new("carat_text[]", [(buffer, len(text)) for buffer, text in zip(buffers, texts)])
    put(c, stop=c_stop, n_stop=len(texts))
    bias = given.get("logit_bias") or {}
    c_bias = ffi.new("carat_logit_bias[]", [(token_number(token), value) for token, value in bias.items()])
    put(c, logit_bias=c_bias, n_logit_bias=len(bias))
    return c, (texts, buffers, c_stop, c_bias)


def generation(
    handle: Handle,
    ask: Callable[..., int],
    arguments: Iterable[Any],
    options: GenerateOptions,
    on_piece: OnPiece | None,
    memory: object = None,
) -> Any:
    """A stream over a call that generates; its summary, once it is over, where there is a function for the pieces.

    `memory` is what the arguments point to.
    """
    handle.check_open()
    c, options_memory = _c_options(options)
    hook = options.get("hook")
    if hook is not None and not callable(hook):
        raise TypeError("the hook is a function")

    kept = [memory, options_memory]

    def work(call: Call) -> Summary:
        user_data = ffi.new_handle(call)
        c.cancel = call.switch.pointer
        hook_data = ffi.new_handle((call, hook))
        if hook is not None:
            c.hook = _on_hook
            c.hook_data = hook_data
        s = struct("summary")
        with handle as pointer:
            check(ask, pointer, *arguments, c, _on_piece, user_data, s)
        del hook_data, kept[:]
        return Summary(
            Finish(s.reason),
            s.stop_index,
            s.prompt_tokens,
            s.reused_tokens,
            s.generated_tokens,
            s.prompt_ns / 1e9,
            s.generate_ns / 1e9,
            s.drafted_tokens,
            s.accepted_tokens,
        )

    stream = Generation(Call(work, options.get("cancel")))
    if on_piece is None:
        return stream
    with stream:
        for piece in stream:
            if on_piece(piece) is False:
                stream.close()
    return stream.summary


@ffi.callback("carat_logits_fn", error=0)  # type: ignore[untyped-decorator]
def _on_logits(user_data: Any, index: int, c_logits: Any, n_logits: int) -> int:
    call: Call = ffi.from_handle(user_data)
    try:
        return call.hand_over(copied(c_logits, n_logits, "float32")[0])
    except BaseException as e:
        call.fail(e)
        return 0


def each_logits(handle: Handle, ids: Any, cancel: CancelToken | None) -> Stream[Any]:
    """A stream over carat_session_prefill_each()."""
    handle.check_open()

    def work(call: Call) -> None:
        user_data = ffi.new_handle(call)
        with handle as pointer:
            check(lib.carat_session_prefill_each, pointer, ids, len(ids), call.switch.pointer, _on_logits, user_data)

    return Stream(Call(work, cancel))
