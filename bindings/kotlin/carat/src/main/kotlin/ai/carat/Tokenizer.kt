package ai.carat

/** What a piece of the vocabulary is. */
public enum class PieceKind(internal val number: Int) {
    /** Text, reached by merging characters. */
    NORMAL(1),
    /** What stands for text that has no piece. */
    UNKNOWN(2),
    /** A mark without text, such as the end of a turn. */
    CONTROL(3),
    /** Text that is taken whole wherever it stands. */
    USER_DEFINED(4),
    /** A placeholder. */
    UNUSED(5),
    /** One byte of a character that has no piece. */
    BYTE(6),
}

/** The ids of the special tokens. */
public data class SpecialTokens(
    /** Number of pieces: ids go from 0 to one below. */
    val vocabSize: Int,
    /** Beginning of the sequence. */
    val bos: Int,
    /** End of the sequence. */
    val eos: Int,
    /** The unknown token. */
    val unk: Int,
    /** Begins a turn. */
    val startOfTurn: Int,
    /** Ends a turn. */
    val endOfTurn: Int,
    /** Padding; null where there is none. */
    val pad: Int?,
)

/** Text to ids and back. Usable from many threads, as long as its model is open. */
public class Tokenizer internal constructor(private val model: Model) {
    /**
     * The ids of a text; half a surrogate pair counts as U+FFFD. With [special], control tokens written out in the text
     * become their ids, else they are text, as in what a user typed. With [bos] it begins with the beginning-of-sequence
     * token, unless the text does so itself.
     */
    public fun encode(
        text: String,
        bos: Boolean = false,
        special: Boolean = false,
        cancel: CancelToken? = null,
    ): IntArray = cancel.during { token -> model.handle.use { Native.tokenize(it, text, special, bos, token) } }

    /** The text of ids: control tokens have none, bytes that are not UTF-8 become U+FFFD. */
    public fun decode(ids: IntArray): String = model.handle.use { Native.detokenize(it, ids) }

    /**
     * The bytes that a piece stands for, with spaces as spaces; of a control token, its name. They need not be UTF-8:
     * pieces for bytes are one byte.
     */
    public fun bytes(id: Int): ByteArray = model.handle.use { Native.tokenBytes(it, id) }

    public fun kind(id: Int): PieceKind {
        val number = model.handle.use { Native.tokenKind(it, id) }
        return PieceKind.entries.firstOrNull { it.number == number } ?: PieceKind.UNKNOWN
    }

    /** The id of the piece that reads exactly [text], control tokens included; null where there is none. */
    public fun id(text: String): Int? = model.handle.use { Native.tokenId(it, text) }.takeIf { it >= 0 }

    public val special: SpecialTokens
        get() {
            val t = model.handle.use(Native::specialTokens)
            return SpecialTokens(t[0], t[1], t[2], t[3], t[4], t[5], t[6].takeIf { it >= 0 })
        }

    /**
     * The ids of a whole conversation in Gemma's turns, from the beginning-of-sequence token to the open turn of the model
     * that is to answer. Control tokens written out in a text are text.
     */
    public fun render(turns: List<Turn>, cancel: CancelToken? = null): IntArray = cancel.during { token ->
        model.handle.use { Native.chatRender(it, turns.roles(), turns.texts(), token) }
    }

    /** A decoder at the beginning of a text. */
    public fun decoder(): Decoder = Decoder(model.handle.use(Native::decoderNew))
}

/** Turns ids into text as they come, whole characters at a time. One call at a time: a second one fails with BUSY. */
public class Decoder internal constructor(handle: Long) : Resource(Handle(handle, "decoder", Native::decoderFree)) {
    /** Takes the next id; returns the text that is now certain, which may be empty. */
    public fun push(id: Int): String = handle.use { Native.decoderPush(it, id) }

    /** The end of the text: what was held back becomes U+FFFD. The decoder is then at the beginning of a text again. */
    public fun flush(): String = handle.use(Native::decoderFlush)
}
