"""Inference for Google's Gemma models on the CPU.

    import carat
    with carat.Model("gemma.gguf") as model, carat.Session(model) as session:
        for piece in session.generate(model.tokenize("The capital of France is", bos=True), max_tokens=20):
            print(piece, end="", flush=True)

Functions are called as in carat.h. Ids are any iterable of integers; paths are text, bytes or pathlib's; sizes are
bytes, times seconds, texts Unicode. Every error is a carat.Error. Arrays are NumPy's, and memoryviews where it is not
installed. Calls let other threads run; on the main thread Ctrl-C cancels them and raises KeyboardInterrupt.
"""

from ._cancel import CancelToken
from ._conversation import Conversation
from ._errors import (
    BusyError,
    CancelledError,
    ClosedError,
    ContextFullError,
    Error,
    FileError,
    FileMissingError,
    ForkedError,
    InternalError,
    NoLogitsError,
    OutOfMemoryError,
    PromptTooLongError,
    RewindError,
    SystemFileError,
    UsageError,
)
from ._generate import GenerateOptions, Generation, Stream
from ._lib import version
from ._model import Decoder, Model, measure_limits, plan
from ._session import Session, SessionOptions
from ._values import (
    Arch,
    Engine,
    Finish,
    Isa,
    Kind,
    KvType,
    Limits,
    MemoryLock,
    ModelInfo,
    Piece,
    PieceKind,
    Plan,
    Policy,
    Role,
    SpecialTokens,
    Status,
    Summary,
    TensorInfo,
    TokenLogProb,
    TokenScore,
    Turn,
)

__version__ = version()

__all__ = [
    "Arch",
    "BusyError",
    "CancelToken",
    "CancelledError",
    "ClosedError",
    "ContextFullError",
    "Conversation",
    "Decoder",
    "Engine",
    "Error",
    "FileError",
    "FileMissingError",
    "Finish",
    "ForkedError",
    "GenerateOptions",
    "Generation",
    "InternalError",
    "Isa",
    "Kind",
    "KvType",
    "Limits",
    "MemoryLock",
    "Model",
    "ModelInfo",
    "NoLogitsError",
    "OutOfMemoryError",
    "Piece",
    "PieceKind",
    "Plan",
    "Policy",
    "PromptTooLongError",
    "RewindError",
    "Role",
    "Session",
    "SessionOptions",
    "SpecialTokens",
    "Status",
    "Stream",
    "Summary",
    "SystemFileError",
    "TensorInfo",
    "TokenLogProb",
    "TokenScore",
    "Turn",
    "UsageError",
    "measure_limits",
    "plan",
]
