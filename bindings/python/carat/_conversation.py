"""Conversations."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any, Literal, Union, overload

from ._cancel import CancelToken
from ._errors import BusyError, Error
from ._generate import GenerateOptions, Generation, OnPiece, generation
from ._lib import Closing, Handle, Path, Text, check, filled, made, optional_text, utf8
from ._model import Model, Turns, c_turns
from ._native import ffi, lib
from ._session import Session, SessionOptions, loaded, saved, tokens_of
from ._values import Policy, Role, Status, Summary, Turn, chosen

if TYPE_CHECKING:
    from typing_extensions import Unpack

PolicyName = Union[Policy, Literal["stop", "drop_oldest"]]


class Conversation(Closing):
    """A user and a model in turn, over one session, in Gemma's template.

    One call at a time, from any thread: a second one gets BusyError, also while an answer is in the middle.
    """

    def __init__(self, session: Session, system: Text | None = None, *, policy: PolicyName = Policy.STOP):
        """An empty conversation over a session, with a text of the system that says how to answer.

        The contents of the session become the conversation's: the session is closed. Raises BusyError (the session
        keeps its contents), OutOfMemoryError, FileError for a vocabulary that is not sound.
        """
        wanted = chosen(Policy, policy, "policy")
        text, length = optional_text(system)
        self._handle = _taken(session, lib.carat_conversation_new, text, length)
        if wanted != Policy.STOP:
            self.set_policy(wanted)

    @classmethod
    def resume(cls, session: Session) -> Conversation:
        """Go on with the conversation whose tokens a session holds, such as one that was saved without its texts.

        The session is closed. A text of the system is part of the first question then, and a last question without an
        answer is left out. Raises UsageError where the tokens are not a conversation, and as Conversation().
        """
        conversation = cls.__new__(cls)
        conversation._handle = _taken(session, lib.carat_conversation_resume)
        return conversation

    @classmethod
    def load(
        cls, model: Model, path: Path, *, cancel: CancelToken | None = None, **options: Unpack[SessionOptions]
    ) -> Conversation:
        """Open a conversation that save() wrote, with options of its own: its turns and the system's text are the same.

        What to do when the context is full is not part of it. A saved session is opened as by resume(). Errors are
        those of Session.load() and resume().
        """
        conversation = cls.__new__(cls)
        conversation._handle = loaded(
            lib.carat_conversation_load, "conversation", lib.carat_conversation_free, model, path, options, cancel
        )
        return conversation

    def into_session(self) -> Session:
        """Take the session out of the conversation, which is closed."""
        with self._handle as pointer:
            session = made(lib.carat_conversation_into_session, "carat_session", pointer)
        self._handle.close()
        return Session._of(Handle(session, lib.carat_session_free, "session", keep=self._handle.keep))

    @overload
    def send(self, text: Text, **options: Unpack[GenerateOptions]) -> Generation: ...
    @overload
    def send(self, text: Text, *, on_piece: OnPiece, **options: Unpack[GenerateOptions]) -> Summary: ...
    def send(self, text: Text, *, on_piece: Any = None, **options: Any) -> Any:
        """Say something to the model: an iterator of the pieces of its answer, as Session.generate().

        Once the model is at work, cancelling is not an error: what there is of the answer is a turn. Raises
        PromptTooLongError and what Session.generate() raises; the conversation is then as it was.
        """
        said = utf8(text)
        return generation(self._handle, lib.carat_conversation_send, (said, len(said)), options, on_piece)  # type: ignore[arg-type]

    @overload
    def regenerate(self, **options: Unpack[GenerateOptions]) -> Generation: ...
    @overload
    def regenerate(self, *, on_piece: OnPiece, **options: Unpack[GenerateOptions]) -> Summary: ...
    def regenerate(self, *, on_piece: Any = None, **options: Any) -> Any:
        """Drop the last answer and generate another. Raises UsageError where there is none; else as send()."""
        return generation(self._handle, lib.carat_conversation_regenerate, (), options, on_piece)  # type: ignore[arg-type]

    @overload
    def edit_last(self, text: Text, **options: Unpack[GenerateOptions]) -> Generation: ...
    @overload
    def edit_last(self, text: Text, *, on_piece: OnPiece, **options: Unpack[GenerateOptions]) -> Summary: ...
    def edit_last(self, text: Text, *, on_piece: Any = None, **options: Any) -> Any:
        """Drop the last answer and question, and say something else. Else as regenerate()."""
        said = utf8(text)
        return generation(self._handle, lib.carat_conversation_edit_last, (said, len(said)), options, on_piece)  # type: ignore[arg-type]

    @overload
    def respond(self, turns: Turns, **options: Unpack[GenerateOptions]) -> Generation: ...
    @overload
    def respond(self, turns: Turns, *, on_piece: OnPiece, **options: Unpack[GenerateOptions]) -> Summary: ...
    def respond(self, turns: Turns, *, on_piece: Any = None, **options: Any) -> Any:
        """Take a whole conversation, as a service does that is told all of it each time, and answer its last turn.

        What it has in common with the turns held is not processed again. Turns are as in Model.render_chat(). Else as
        send().
        """
        c, n, memory = c_turns(turns)
        answer = generation(self._handle, lib.carat_conversation_respond, (c, n), options, on_piece, memory)  # type: ignore[arg-type]
        return answer

    def turns(self) -> list[Turn]:
        """The turns so far, without the system's."""
        return [self._turn(lib.carat_conversation_turn, i) for i in range(self.n_turns)]

    @property
    def n_turns(self) -> int:
        """The number of turns so far, without the system's."""
        n = ffi.new("size_t *")
        with self._handle as pointer:
            check(lib.carat_conversation_n_turns, pointer, n)
        return int(n[0])

    def dropped(self) -> list[Turn]:
        """The turns that the last reply dropped to make room, the oldest first."""
        turns: list[Turn] = []
        while True:
            try:
                turns.append(self._turn(lib.carat_conversation_dropped, len(turns)))
            except Error as e:
                if e.status != Status.INVALID_ARGUMENT or self.closed:
                    raise
                return turns

    def _turn(self, function: Any, index: int) -> Turn:
        role = ffi.new("int32_t *")
        with self._handle as pointer:
            text: bytes = filled("char[]", 1024, lambda *rest: function(pointer, index, role, *rest))
        return Turn(Role(role[0]), text.decode())

    def tokens(self) -> list[int]:
        """The tokens of the conversation."""
        return tokens_of(lib.carat_conversation_tokens, self._handle)

    @property
    def system(self) -> str:
        """The system's text; an empty one where there is none."""
        with self._handle as pointer:
            text: bytes = filled("char[]", 1024, lambda *rest: lib.carat_conversation_system(pointer, *rest))
        return text.decode()

    def set_system(self, text: Text | None) -> None:
        """Change the system's text (None for none).

        As it is part of the first turn, everything is processed again when the conversation goes on.
        """
        encoded, length = optional_text(text)
        with self._handle as pointer:
            check(lib.carat_conversation_set_system, pointer, encoded, length)

    def set_policy(self, policy: PolicyName) -> None:
        """Say what to do when the context is full: "stop" or "drop_oldest"."""
        wanted = chosen(Policy, policy, "policy")
        with self._handle as pointer:
            check(lib.carat_conversation_set_policy, pointer, wanted)

    def reset(self) -> None:
        """Forget all turns, and keep the system's text."""
        with self._handle as pointer:
            check(lib.carat_conversation_reset, pointer)

    def save(self, path: Path, *, cancel: CancelToken | None = None) -> None:
        """Save the conversation to a file, its turns, the system's text and its session: see Session.save()."""
        saved(lib.carat_conversation_save, self._handle, path, cancel)

    def trim(self) -> None:
        """Give back memory that can be had again, as Session.trim(). Snapshots stay."""
        with self._handle as pointer:
            check(lib.carat_conversation_trim, pointer)


def _taken(session: Session, function: Any, *arguments: Any) -> Handle:
    """The conversation that takes the contents of a session, also where it fails, unless the session is busy."""
    try:
        with session._handle as pointer:
            made_ = made(function, "carat_conversation", pointer, *arguments)
    except BusyError:
        raise
    except Error:
        session.close()
        raise
    session.close()
    return Handle(made_, lib.carat_conversation_free, "conversation", keep=session._handle.keep)
