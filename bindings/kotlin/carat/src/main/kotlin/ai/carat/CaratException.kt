package ai.carat

/** What a call came to: the statuses of carat.h. */
public enum class Status(internal val number: Int) {
    /** An argument makes no sense here. */
    INVALID_ARGUMENT(1),
    /** Another call on the same session, conversation or decoder has not returned yet. */
    BUSY(2),
    /** The cancel token was set, or a callback returned false. */
    CANCELLED(3),
    /** A buffer was too small: of the binding's own, so that it never shows. */
    BUFFER_TOO_SMALL(4),
    /** The operating system refused: no such file, no permission, a full disk. */
    IO(5),
    /** The bytes of a GGUF file break the format's rules. */
    FORMAT(6),
    /** A metadata value of the file is missing or makes no sense. */
    METADATA(7),
    /** A tensor is missing, misplaced or of the wrong shape or type. */
    TENSOR(8),
    /** The file is sound, but not something this library runs. */
    UNSUPPORTED(9),
    /** A part of a split model is not there. */
    SPLIT_MISSING(10),
    /** The vocabulary cannot be used. */
    VOCABULARY(11),
    /** A token id that the vocabulary does not have. */
    TOKEN_OUT_OF_RANGE(12),
    /** A prompt with no token. */
    EMPTY_PROMPT(13),
    /** A prompt that does not fit into the context. */
    PROMPT_TOO_LONG(14),
    /** The session cannot take another token. */
    CONTEXT_FULL(15),
    /** Going back further than the sliding windows remember. */
    REWIND(16),
    /** An option outside its range. */
    INVALID_OPTION(17),
    /** The model or a hook produced a logit that is not a number. */
    NAN_LOGITS(18),
    /** The mapped file is no longer what it was. */
    FILE_CHANGED(19),
    /** A saved session that cannot be loaded. */
    STATE(20),
    /** Memory that could not be had. */
    OUT_OF_MEMORY(21),
    /** Turns in an order that the template does not know. */
    CHAT(22),
    /** The process was forked after the model was opened. */
    FORKED(23),
    /** A bug: the object can only be closed, others go on. */
    INTERNAL(24),
    /** The session has no logits now: only a prefill or a step computes them. */
    NO_LOGITS(25),
    /** One that a newer library has. */
    UNKNOWN(-1),
    ;

    /** Its name in carat.h, such as `CARAT_IO`. */
    public val cName: String get() = Native.statusName(number)

    internal companion object {
        fun of(number: Int): Status = entries.firstOrNull { it.number == number } ?: UNKNOWN
    }
}

/** Why a call failed: a [status], and a message for a person that says what was wrong and where. */
public sealed class CaratException(public val status: Status, message: String) : RuntimeException(message) {
    /** The call was wrong: change the arguments. */
    public class Usage internal constructor(status: Status, message: String) : CaratException(status, message)

    /** Going back further than the sliding windows remember; the session is as it was. */
    public class Rewind internal constructor(
        /** The lowest number of tokens above 0 that the session can be cut to. */
        public val nearest: Long,
        message: String,
    ) : CaratException(Status.REWIND, message)

    /** The file is wrong, missing or not supported. */
    public class File internal constructor(status: Status, message: String) : CaratException(status, message)

    /** It was stopped by the caller's [CancelToken] or callback. A coroutine's own cancelling never shows as this. */
    public class Cancelled internal constructor(status: Status, message: String) : CaratException(status, message)

    /** The machine or the library could not do it. */
    public class Runtime internal constructor(status: Status, message: String) : CaratException(status, message)

    internal companion object {
        /** Called by the native library. */
        @JvmStatic
        fun make(status: Int, name: String, kind: Int, nearest: Long, message: String): CaratException {
            val known = Status.of(status)
            val text = "$name: $message"
            return when {
                known == Status.REWIND -> Rewind(nearest, text)
                kind == 0 -> Usage(known, text)
                kind == 1 -> File(known, text)
                kind == 2 -> Cancelled(known, text)
                else -> Runtime(known, text)
            }
        }
    }
}
