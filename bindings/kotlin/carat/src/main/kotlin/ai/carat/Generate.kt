package ai.carat

/** Changes the logits of the next token before it is chosen. */
public fun interface LogitsHook {
    /**
     * Changes [logits] `[vocab]` in place, given the [tokens] so far. Returns whether to go on. The array is used again for
     * the next token. What it throws stops the generation and comes out of it.
     */
    public fun apply(tokens: IntArray, logits: FloatArray): Boolean
}

/** Takes the logits after each token of a prompt. */
public fun interface EachLogits {
    /** The [logits] `[vocab]` after token [index] of the given ones. Returns whether to go on. */
    public fun take(index: Int, logits: FloatArray): Boolean
}

/**
 * How to generate. Tokens are chosen in this order: logit bias, repetition, presence and frequency penalties, the hook,
 * greedy where the temperature is 0, else temperature, top-k, top-p, min-p, draw.
 */
public data class GenerateOptions(
    /** Most tokens to generate; −1: as many as fit. */
    val maxTokens: Long = -1,
    /** Logits are divided by it; 0 chooses the likeliest token. */
    val temperature: Float = 1f,
    /** Only this many of the likeliest tokens are drawn from; 0 for all. */
    val topK: Int = 64,
    /** Only the likeliest tokens that together have this probability are drawn from. */
    val topP: Float = 0.95f,
    /** Only tokens with at least this share of the likeliest one's probability are drawn from. */
    val minP: Float = 0f,
    /** The logit of a token that occurred is divided by it where it is positive, else multiplied. */
    val repetitionPenalty: Float = 1f,
    /** Subtracted from the logit of a token that occurred. */
    val presencePenalty: Float = 0f,
    /** Subtracted from the logit of a token for each time it occurred. */
    val frequencyPenalty: Float = 0f,
    /** How many of the last tokens, the prompt's included, the penalties look at. */
    val penaltyWindow: Int = 64,
    /** Added to the logits of tokens, by their ids; −∞ forbids one. */
    val logitBias: Map<Int, Float> = emptyMap(),
    /** Where the random numbers begin: the same seed gives the same text. Null: go on with the session's own. */
    val seed: Long? = null,
    /** Texts that end the generation; no part of one is ever handed out. */
    val stop: List<String> = emptyList(),
    /** For each token, so many of the likeliest ones with their log-probabilities, at most 1024. */
    val topLogProbs: Int = 0,
    /** Go on after an end of turn or of the text, as benchmarks want it. */
    val ignoreEnd: Boolean = false,
    /** Stops it from any thread. Cancelling a coroutine needs none. */
    val cancel: CancelToken? = null,
    /** Changes the logits. Not for conversations. */
    val hook: LogitsHook? = null,
) {
    internal fun ints(token: Long): LongArray = longArrayOf(
        ignoreEnd.toLong(), maxTokens, topK.toLong(), penaltyWindow.toLong(), topLogProbs.toLong(),
        (seed != null).toLong(), seed ?: 0, token,
    )

    internal fun floats(): FloatArray =
        floatArrayOf(temperature, topP, minP, repetitionPenalty, presencePenalty, frequencyPenalty)

    internal fun biasIds(): IntArray = logitBias.keys.toIntArray()
    internal fun bias(): FloatArray = logitBias.values.toFloatArray()
    internal fun stops(): Array<String> = stop.toTypedArray()
}

/** A token and the natural logarithm of its probability. */
public data class TokenLogProb(val token: Int, val logProb: Float)

/** What a token added to the text. */
public data class Piece(
    /** Whole characters, often none. */
    val text: String,
    /** The token; null for text that was held back when the generation ended. */
    val token: Int?,
    /** Its log-probability by the model's own logits, where [GenerateOptions.topLogProbs] asked for any. */
    val logProb: Float?,
    /** The likeliest tokens in its place, likeliest first. */
    val top: List<TokenLogProb>,
)

/** Takes a piece of the text; returns whether to go on. What it throws stops the generation and comes out of it. */
public fun interface PieceSink {
    public fun take(piece: Piece): Boolean
}

internal fun PieceSink?.native(): PieceCall? = this?.let { sink ->
    PieceCall { text, token, hasToken, logProb, topIds, topLogProbs ->
        val top = if (topIds == null || topLogProbs == null) {
            emptyList()
        } else {
            List(topIds.size) { TokenLogProb(topIds[it], topLogProbs[it]) }
        }
        sink.take(Piece(text ?: "", token.takeIf { hasToken }, logProb.takeUnless { it.isNaN() }, top))
    }
}

/** Why a generation ended. */
public enum class Finish(internal val number: Int) {
    /** The model ended its turn or the text. */
    END_OF_TURN(0),
    /** [GenerateOptions.maxTokens]. */
    LIMIT(1),
    /** One of [GenerateOptions.stop]: see [Summary.stopIndex]. */
    STOP(2),
    /** A callback returned false. */
    CALLBACK(3),
    /** The cancel token. */
    CANCELLED(4),
    /** There is no room for another token. */
    CONTEXT_FULL(5),
    /** One that a newer library has. */
    UNKNOWN(-1),
}

/** What a generation did. */
public data class Summary(
    val reason: Finish,
    /** With [Finish.STOP], the index of the stop string; else 0. */
    val stopIndex: Int,
    /** Tokens of the prompt that were processed. */
    val promptTokens: Long,
    /** Tokens of the prompt that the session held already. */
    val reusedTokens: Long,
    /** Tokens generated, an end of turn not counted. */
    val generatedTokens: Long,
    /** From the call to the first logits, in nanoseconds. */
    val promptNanos: Long,
    /** From there to the end, in nanoseconds. */
    val generateNanos: Long,
    /** Tokens that were guessed and verified ahead: see [SessionOptions.draft]. */
    val draftedTokens: Long,
    /** Those of them that came true: so many passes were saved. */
    val acceptedTokens: Long,
)

internal fun summaryOf(s: LongArray) = Summary(
    Finish.entries.firstOrNull { it.number.toLong() == s[0] } ?: Finish.UNKNOWN, s[1].toInt(), s[2], s[3], s[4], s[5], s[6],
    s[7], s[8],
)
