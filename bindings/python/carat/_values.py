"""Plain values: the numbers of carat.h by name, and what calls tell."""

from __future__ import annotations

from enum import IntEnum
from typing import NamedTuple, TypeVar

from ._native import ffi, lib


class Status(IntEnum):
    """What a call came to."""

    OK = lib.CARAT_OK
    INVALID_ARGUMENT = lib.CARAT_INVALID_ARGUMENT
    BUSY = lib.CARAT_BUSY
    CANCELLED = lib.CARAT_CANCELLED
    BUFFER_TOO_SMALL = lib.CARAT_BUFFER_TOO_SMALL
    IO = lib.CARAT_IO
    FORMAT = lib.CARAT_FORMAT
    METADATA = lib.CARAT_METADATA
    TENSOR = lib.CARAT_TENSOR
    UNSUPPORTED = lib.CARAT_UNSUPPORTED
    SPLIT_MISSING = lib.CARAT_SPLIT_MISSING
    VOCABULARY = lib.CARAT_VOCABULARY
    TOKEN_OUT_OF_RANGE = lib.CARAT_TOKEN_OUT_OF_RANGE
    EMPTY_PROMPT = lib.CARAT_EMPTY_PROMPT
    PROMPT_TOO_LONG = lib.CARAT_PROMPT_TOO_LONG
    CONTEXT_FULL = lib.CARAT_CONTEXT_FULL
    REWIND = lib.CARAT_REWIND
    INVALID_OPTION = lib.CARAT_INVALID_OPTION
    NAN_LOGITS = lib.CARAT_NAN_LOGITS
    FILE_CHANGED = lib.CARAT_FILE_CHANGED
    STATE = lib.CARAT_STATE
    OUT_OF_MEMORY = lib.CARAT_OUT_OF_MEMORY
    CHAT = lib.CARAT_CHAT
    FORKED = lib.CARAT_FORKED
    INTERNAL = lib.CARAT_INTERNAL
    NO_LOGITS = lib.CARAT_NO_LOGITS


class Kind(IntEnum):
    """Whose matter an error is."""

    USAGE = lib.CARAT_KIND_USAGE
    FILE = lib.CARAT_KIND_FILE
    CANCELLED = lib.CARAT_KIND_CANCELLED
    RUNTIME = lib.CARAT_KIND_RUNTIME


class Finish(IntEnum):
    """Why a generation ended."""

    #: The model ended its turn or the text.
    END_OF_TURN = lib.CARAT_FINISH_END_OF_TURN
    #: `max_tokens`.
    LIMIT = lib.CARAT_FINISH_LIMIT
    #: A stop string.
    STOP = lib.CARAT_FINISH_STOP
    #: The stream was closed, or a callback returned False.
    CALLBACK = lib.CARAT_FINISH_CALLBACK
    #: The cancel token.
    CANCELLED = lib.CARAT_FINISH_CANCELLED
    #: There is no room for another token.
    CONTEXT_FULL = lib.CARAT_FINISH_CONTEXT_FULL


class Arch(IntEnum):
    """The family of a model."""

    GEMMA = lib.CARAT_ARCH_GEMMA
    GEMMA2 = lib.CARAT_ARCH_GEMMA2
    GEMMA3 = lib.CARAT_ARCH_GEMMA3


class Isa(IntEnum):
    """An instruction set that there are kernels for."""

    AUTO = lib.CARAT_ISA_AUTO
    SCALAR = lib.CARAT_ISA_SCALAR
    AVX2 = lib.CARAT_ISA_AVX2
    AVX512_VNNI = lib.CARAT_ISA_AVX512_VNNI
    NEON = lib.CARAT_ISA_NEON
    NEON_DOTPROD = lib.CARAT_ISA_NEON_DOTPROD
    NEON_I8MM = lib.CARAT_ISA_NEON_I8MM

    @property
    def label(self) -> str:
        """Its name for people, such as `avx2`."""
        return str(ffi.string(lib.carat_isa_name(self)).decode())

    @property
    def available(self) -> bool:
        """Whether this processor has it."""
        return bool(lib.carat_isa_available(self))


class Engine(IntEnum):
    """What turns text into ids."""

    BUILTIN = lib.CARAT_ENGINE_BUILTIN
    SENTENCEPIECE = lib.CARAT_ENGINE_SENTENCEPIECE


class KvType(IntEnum):
    """How a session stores keys and values."""

    #: f16, but f32 for a model whose matrices are all F32.
    AUTO = lib.CARAT_KV_AUTO
    F16 = lib.CARAT_KV_F16
    Q8_0 = lib.CARAT_KV_Q8_0
    F32 = lib.CARAT_KV_F32


class PieceKind(IntEnum):
    """What a piece of the vocabulary is."""

    NORMAL = lib.CARAT_PIECE_NORMAL
    UNKNOWN = lib.CARAT_PIECE_UNKNOWN
    CONTROL = lib.CARAT_PIECE_CONTROL
    USER_DEFINED = lib.CARAT_PIECE_USER_DEFINED
    UNUSED = lib.CARAT_PIECE_UNUSED
    BYTE = lib.CARAT_PIECE_BYTE


class Role(IntEnum):
    """Who speaks."""

    SYSTEM = lib.CARAT_ROLE_SYSTEM
    USER = lib.CARAT_ROLE_USER
    MODEL = lib.CARAT_ROLE_MODEL


class Policy(IntEnum):
    """What a conversation does when its context is full."""

    #: The answer ends there; a turn that does not fit is an error.
    STOP = lib.CARAT_POLICY_STOP
    #: The oldest turns are forgotten: see Conversation.dropped().
    DROP_OLDEST = lib.CARAT_POLICY_DROP_OLDEST


class MemoryLock(IntEnum):
    """Whether the file is locked in memory."""

    NOT_LOCKED = lib.CARAT_MEMORY_NOT_LOCKED
    LOCKED = lib.CARAT_MEMORY_LOCKED
    #: The system refused; the log says why.
    REFUSED = lib.CARAT_MEMORY_LOCK_REFUSED


E = TypeVar("E", bound=IntEnum)


def chosen(of: type[E], value: E | str | int, name: str) -> E:
    """A member of an enum, which may be given by its name in small letters."""
    from ._errors import UsageError

    try:
        return of[value.upper()] if isinstance(value, str) else of(value)
    except (KeyError, ValueError):
        names = ", ".join(repr(member.name.lower()) for member in of)
        raise UsageError(f"{name} is one of {names}, not {value!r}", lib.CARAT_INVALID_OPTION) from None


class TokenLogProb(NamedTuple):
    """A token and the natural logarithm of its probability."""

    token: int
    log_prob: float


class TokenScore(NamedTuple):
    """How likely a token of a given text is, after those before it; `rank` tokens are likelier."""

    token: int
    log_prob: float
    rank: int


class Piece(NamedTuple):
    """What a token added to the text. `print(piece, end="")` prints its text."""

    #: Whole characters, often none.
    text: str
    #: The token; None for text that was held back when the generation ended.
    token: int | None
    #: Its log-probability by the model's own logits, where `top_log_probs` asked for any.
    log_prob: float | None
    #: The likeliest tokens in its place, likeliest first, as many as `top_log_probs` asked for.
    top: tuple[TokenLogProb, ...]

    def __str__(self) -> str:
        return self.text


class Summary(NamedTuple):
    """What a generation did."""

    reason: Finish
    #: With Finish.STOP, the index of the stop string; else 0.
    stop_index: int
    #: Tokens of the prompt that were processed.
    prompt_tokens: int
    #: Tokens of the prompt that the session held already.
    reused_tokens: int
    #: Tokens generated, an end of turn not counted.
    generated_tokens: int
    #: Seconds from the call to the first logits.
    prompt_seconds: float
    #: Seconds from there to the end. In a stream, the time that the loop took between pieces is part of it.
    generate_seconds: float
    #: Tokens that were guessed and verified ahead: see the session's option `draft`.
    drafted_tokens: int
    #: Those of them that came true: so many passes were saved.
    accepted_tokens: int


class Turn(NamedTuple):
    """What one of the speakers says."""

    role: Role
    text: str


class ModelInfo(NamedTuple):
    """The shape of a model and how it runs here."""

    arch: Arch
    #: The kernels in use.
    isa: Isa
    #: Threads in use, the caller's included: fewer than asked where the system refused.
    threads: int
    n_layers: int
    #: Width of the residual stream.
    d_model: int
    #: Width of the feed-forward.
    d_ff: int
    #: Query heads.
    n_heads: int
    #: Key and value heads.
    n_kv_heads: int
    #: Values in a head.
    head_dim: int
    #: Rows of the embedding: the number of logits.
    vocab: int
    #: Positions that a windowed layer sees; 0 where no layer is windowed.
    sliding_window: int
    memory_lock: MemoryLock
    #: Positions that the model was trained for.
    context_length: int
    #: Bytes of the file, all parts.
    file_bytes: int
    n_tensors: int


class TensorInfo(NamedTuple):
    """A tensor of a model's file."""

    name: str
    #: Such as `Q4_K`.
    type_name: str
    #: Sizes, the innermost first.
    dims: tuple[int, ...]
    #: Its first byte, from the start of the file (of its part, where the model is split).
    offset: int
    #: Its bytes.
    size: int


class SpecialTokens(NamedTuple):
    """The ids of the special tokens."""

    #: Number of pieces: ids go from 0 to one below.
    vocab_size: int
    #: Beginning of the sequence.
    bos: int
    #: End of the sequence.
    eos: int
    #: The unknown token.
    unk: int
    start_of_turn: int
    end_of_turn: int
    #: Padding; None where there is none.
    pad: int | None


class Plan(NamedTuple):
    """Bytes of memory that a model and one session on it take: an upper bound, and a close one."""

    #: The mapped file, whose pages are shared between processes.
    file: int
    #: Keys and values of a full context.
    kv_cache: int
    #: Buffers of a pass and of sampling.
    scratch: int
    #: Copies of the sliding windows.
    snapshots: int
    #: The tokenizer; 0 for a file without a vocabulary.
    tokenizer: int
    #: The rest.
    other: int
    #: All of the above.
    total: int
    #: What Session.score() and Session.prefill_each() take more while they run. Not part of the total.
    score: int
    #: What could be had now without pushing others out; None where the system does not tell.
    available: int | None


class Limits(NamedTuple):
    """The machine's limits, measured: the yardstick for figures of speed."""

    #: Bytes a second that can be read from memory in order: the limit of decoding.
    read_bytes_per_s: float
    #: Multiply-adds of bytes a second: the limit of prefill over quantized weights.
    dot_macs_per_s: float
    #: Multiply-adds of f32 a second: the limit of attention.
    fma_macs_per_s: float
