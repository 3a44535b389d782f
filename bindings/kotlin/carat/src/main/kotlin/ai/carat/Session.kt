package ai.carat

import kotlinx.coroutines.CoroutineDispatcher
import kotlinx.coroutines.Dispatchers
import kotlinx.coroutines.flow.Flow

/** How likely a token of a given text is, after those before it. */
public data class TokenScore(
    val token: Int,
    /** Natural logarithm of its probability. */
    val logProb: Float,
    /** How many tokens are likelier. */
    val rank: Int,
)

/** The logits `[vocab]` that a session had at one moment. They never change, whatever becomes of the session. */
public class Logits internal constructor(handle: Long) : Resource(Handle(handle, "logits", Native::logitsFree)) {
    public val size: Int get() = handle.use(Native::logitsSize)

    public operator fun get(id: Int): Float = handle.use { Native.logitsGet(it, id) }

    /** A copy of them. */
    public fun toFloatArray(): FloatArray = FloatArray(size).also(::copyInto)

    /** Copies them to the beginning of [to], which has room for [size]. */
    public fun copyInto(to: FloatArray) {
        require(to.size >= size) { "$size logits and room for ${to.size}" }
        handle.use { Native.logitsCopy(it, to) }
    }
}

/**
 * One text being read and written by a model. One call at a time, from any thread: a second one fails with [Status.BUSY].
 * It keeps its model's memory, so that the order of closing does not matter.
 */
public class Session internal constructor(handle: Long) : Resource(Handle(handle, "session", Native::sessionFree)) {
    /** Number of tokens so far. */
    public val length: Long get() = handle.use(Native::sessionLen)[0]

    /** Number of tokens that it can hold. */
    public val context: Long get() = handle.use(Native::sessionLen)[1]

    /** The tokens so far. */
    public val tokens: IntArray get() = handle.use(Native::sessionTokens)

    /**
     * Adds a prompt and generates what follows it: a cold flow of texts, each of whole characters. An empty prompt goes on
     * from where the session is.
     *
     * The engine runs in [dispatcher] while the flow is collected. Cancelling the collector, or ending the collection early,
     * stops the engine, which leaves the session at its last token. [onEnd] is told what was done, before the flow ends.
     */
    public fun generate(
        prompt: IntArray,
        options: GenerateOptions = GenerateOptions(),
        dispatcher: CoroutineDispatcher = Dispatchers.IO,
        onEnd: (Summary) -> Unit = {},
    ): Flow<String> = pieces(prompt, options, dispatcher, onEnd).texts()

    /** As [generate], with the tokens and, where asked for, their log-probabilities. */
    public fun pieces(
        prompt: IntArray,
        options: GenerateOptions = GenerateOptions(),
        dispatcher: CoroutineDispatcher = Dispatchers.IO,
        onEnd: (Summary) -> Unit = {},
    ): Flow<Piece> = streaming(options, dispatcher, onEnd) { o, sink -> generateBlocking(prompt, o, sink) }

    /** As [generate], in the calling thread; [onPiece] is called in it for every token. */
    public fun generateBlocking(
        prompt: IntArray,
        options: GenerateOptions = GenerateOptions(),
        onPiece: PieceSink? = null,
    ): Summary = options.cancel.during { token ->
        summaryOf(
            handle.use {
                Native.sessionGenerate(
                    it, prompt, options.ints(token), options.floats(), options.biasIds(), options.bias(),
                    options.stops(), options.hook, onPiece.native(),
                )
            },
        )
    }

    /** Adds the tokens of a prompt, and computes the logits after the last. However they are split, the result is the same. */
    public fun prefill(ids: IntArray, cancel: CancelToken? = null): Unit =
        cancel.during { token -> handle.use { Native.prefill(it, ids, token) } }

    /** As [prefill], and hands the logits after each of the tokens to [each], in this thread. */
    public fun prefillEach(ids: IntArray, cancel: CancelToken? = null, each: EachLogits): Unit =
        cancel.during { token -> handle.use { Native.prefillEach(it, ids, token, each) } }

    /** Adds one token and computes the logits of the next. */
    public fun step(id: Int, cancel: CancelToken? = null): Unit =
        cancel.during { token -> handle.use { Native.step(it, id, token) } }

    /** The logits of the token that comes next, as they are after a prefill or a step. */
    public fun logits(): Logits = Logits(handle.use(Native::sessionLogits))

    /**
     * Adds the tokens of a text, and tells for those from index [from] on how likely they were after those before them. The
     * very first token of a session has nothing before it and no score.
     */
    public fun score(ids: IntArray, from: Int = 0, cancel: CancelToken? = null): List<TokenScore> {
        val room = maxOf(0, ids.size - maxOf(0, from))
        val tokens = IntArray(room)
        val logProbs = FloatArray(room)
        val ranks = IntArray(room)
        val n = cancel.during { token -> handle.use { Native.score(it, ids, from, token, tokens, logProbs, ranks) } }
        return List(n) { TokenScore(tokens[it], logProbs[it], ranks[it]) }
    }

    /** Cuts the text to its first [length] tokens; [CaratException.Rewind] says how far back it can go where that is too far. */
    public fun truncate(length: Long): Unit = handle.use { Native.truncate(it, length) }

    /** A copy that goes its own way from here. */
    public fun fork(): Session = Session(handle.use(Native::sessionFork))

    /** Saves it to a file, which is replaced only when the new one is complete and on the disk. */
    public fun save(path: String, cancel: CancelToken? = null): Unit =
        cancel.during { token -> handle.use { Native.sessionSave(it, path, token) } }

    /** Gives back memory that can be had again, for when the system says that memory is short. */
    public fun trim(): Unit = handle.use(Native::sessionTrim)
}
