package ai.carat

import java.nio.ByteBuffer

/**
 * The native library: one function for each of carat.h, or as many as it takes. Handles are the library's; [Handle] keeps
 * them from being used after they were freed.
 */
internal object Native {
    init {
        // Where it lies, where it is not among the JVM's or the app's libraries.
        val path = System.getProperty("carat.library")
        if (path != null) System.load(path) else System.loadLibrary("carat_jni")
    }

    @JvmStatic external fun version(): String
    @JvmStatic external fun abiVersion(): Int
    @JvmStatic external fun statusName(status: Int): String
    @JvmStatic external fun isaName(isa: Int): String
    @JvmStatic external fun isaAvailable(isa: Int): Boolean
    /** `[read bytes/s, dot MAC/s, fma MAC/s]` */
    @JvmStatic external fun limits(threads: Int, isa: Int): DoubleArray
    /** The library's defaults of all options, in the order of the classes: for the tests. */
    @JvmStatic external fun defaults(): DoubleArray

    @JvmStatic external fun cancelNew(): Long
    @JvmStatic external fun cancelClone(token: Long): Long
    @JvmStatic external fun cancelSet(token: Long)
    @JvmStatic external fun cancelIsSet(token: Long): Boolean
    @JvmStatic external fun cancelFree(token: Long)

    // Options of a model: `[threads, isa, private copy, preload, engine, lock, cancel token]`; of a session: `[context,
    // batch, kv, snapshots, exact, full history]`. A cancel token of 0 is none.
    @JvmStatic external fun modelOpen(path: String, options: LongArray, progress: Progress?, log: LogCall?): Long
    @JvmStatic external fun modelOpenFd(
        fd: Int, offset: Long, length: Long, options: LongArray, progress: Progress?, log: LogCall?,
    ): Long
    @JvmStatic external fun modelOpenBytes(
        bytes: ByteBuffer, offset: Long, length: Long, options: LongArray, progress: Progress?, log: LogCall?,
    ): Long
    @JvmStatic external fun modelFree(model: Long)
    @JvmStatic external fun modelInfo(model: Long): LongArray
    @JvmStatic external fun modelMetadata(model: Long, key: String): String
    /** Name and type to `names`; `[offset, size, dimensions...]`. */
    @JvmStatic external fun modelTensor(model: Long, index: Long, names: Array<String?>): LongArray
    @JvmStatic external fun modelPlan(path: String, threads: Int, options: LongArray): LongArray
    @JvmStatic external fun modelPlanSession(model: Long, options: LongArray): LongArray

    @JvmStatic external fun tokenize(model: Long, text: String, special: Boolean, bos: Boolean, cancel: Long): IntArray
    @JvmStatic external fun detokenize(model: Long, ids: IntArray): String
    @JvmStatic external fun tokenBytes(model: Long, id: Int): ByteArray
    @JvmStatic external fun tokenKind(model: Long, id: Int): Int
    @JvmStatic external fun tokenId(model: Long, text: String): Int
    /** `[vocab size, bos, eos, unk, start of turn, end of turn, pad]` */
    @JvmStatic external fun specialTokens(model: Long): IntArray
    @JvmStatic external fun chatRender(model: Long, roles: IntArray, texts: Array<String>, cancel: Long): IntArray
    @JvmStatic external fun decoderNew(model: Long): Long
    @JvmStatic external fun decoderPush(decoder: Long, id: Int): String
    @JvmStatic external fun decoderFlush(decoder: Long): String
    @JvmStatic external fun decoderFree(decoder: Long)

    @JvmStatic external fun sessionNew(model: Long, options: LongArray): Long
    @JvmStatic external fun sessionLoad(model: Long, path: String, options: LongArray, cancel: Long): Long
    @JvmStatic external fun sessionFork(session: Long): Long
    @JvmStatic external fun sessionFree(session: Long)
    @JvmStatic external fun prefill(session: Long, ids: IntArray, cancel: Long)
    @JvmStatic external fun prefillEach(session: Long, ids: IntArray, cancel: Long, each: EachLogits)
    @JvmStatic external fun step(session: Long, id: Int, cancel: Long)
    @JvmStatic external fun sessionLogits(session: Long): Long
    @JvmStatic external fun logitsSize(logits: Long): Int
    @JvmStatic external fun logitsCopy(logits: Long, to: FloatArray)
    @JvmStatic external fun logitsGet(logits: Long, index: Int): Float
    @JvmStatic external fun logitsFree(logits: Long)
    @JvmStatic external fun score(
        session: Long, ids: IntArray, from: Int, cancel: Long, tokens: IntArray, logProbs: FloatArray, ranks: IntArray,
    ): Int
    @JvmStatic external fun truncate(session: Long, length: Long)
    @JvmStatic external fun sessionSave(session: Long, path: String, cancel: Long)
    /** `[length, context]` */
    @JvmStatic external fun sessionLen(session: Long): LongArray
    @JvmStatic external fun sessionTokens(session: Long): IntArray
    @JvmStatic external fun sessionTrim(session: Long)

    // What generates takes `[ignore end, max tokens, top-k, penalty window, top log probs, has seed, seed, cancel token]`
    // and `[temperature, top-p, min-p, repetition, presence, frequency penalty]`, and returns `[reason, stop index, prompt
    // tokens, reused tokens, generated tokens, prompt ns, generate ns]`.
    @JvmStatic external fun sessionGenerate(
        session: Long, prompt: IntArray, ints: LongArray, floats: FloatArray, biasIds: IntArray, bias: FloatArray,
        stop: Array<String>, hook: LogitsHook?, piece: PieceCall?,
    ): LongArray

    @JvmStatic external fun conversationNew(session: Long, system: String?): Long
    @JvmStatic external fun conversationResume(session: Long): Long
    @JvmStatic external fun conversationLoad(model: Long, path: String, options: LongArray, cancel: Long): Long
    @JvmStatic external fun conversationIntoSession(conversation: Long): Long
    @JvmStatic external fun conversationFree(conversation: Long)
    @JvmStatic external fun send(
        conversation: Long, text: String, ints: LongArray, floats: FloatArray, biasIds: IntArray, bias: FloatArray,
        stop: Array<String>, piece: PieceCall?,
    ): LongArray
    @JvmStatic external fun regenerate(
        conversation: Long, ints: LongArray, floats: FloatArray, biasIds: IntArray, bias: FloatArray,
        stop: Array<String>, piece: PieceCall?,
    ): LongArray
    @JvmStatic external fun editLast(
        conversation: Long, text: String, ints: LongArray, floats: FloatArray, biasIds: IntArray, bias: FloatArray,
        stop: Array<String>, piece: PieceCall?,
    ): LongArray
    @JvmStatic external fun respond(
        conversation: Long, roles: IntArray, texts: Array<String>, ints: LongArray, floats: FloatArray,
        biasIds: IntArray, bias: FloatArray, stop: Array<String>, piece: PieceCall?,
    ): LongArray
    @JvmStatic external fun setPolicy(conversation: Long, policy: Int)
    @JvmStatic external fun nTurns(conversation: Long): Int
    /** A turn's text; its role to `role[0]`. */
    @JvmStatic external fun turn(conversation: Long, index: Int, role: IntArray): String
    /** As [turn]; null at the end. */
    @JvmStatic external fun dropped(conversation: Long, index: Int, role: IntArray): String?
    @JvmStatic external fun conversationTokens(conversation: Long): IntArray
    @JvmStatic external fun system(conversation: Long): String
    @JvmStatic external fun setSystem(conversation: Long, text: String?)
    @JvmStatic external fun reset(conversation: Long)
    @JvmStatic external fun conversationSave(conversation: Long, path: String, cancel: Long)
    @JvmStatic external fun conversationTrim(conversation: Long)
}

/** Called by the native library for a piece: a null text is an empty one. */
internal fun interface PieceCall {
    fun piece(
        text: String?, token: Int, hasToken: Boolean, logProb: Float, topIds: IntArray?, topLogProbs: FloatArray?,
    ): Boolean
}

/** Called by the native library for a log message. */
internal fun interface LogCall {
    fun log(level: Int, message: String)
}
