package ai.carat

import java.io.File
import java.nio.ByteBuffer

/** What turns text into ids. */
public enum class Engine(internal val number: Int) {
    /** The tokenizer of this library. */
    BUILTIN(0),
    /** Google's SentencePiece, where it is compiled in. */
    SENTENCEPIECE(1),
}

/** How grave a log message is. */
public enum class LogLevel(internal val number: Int) {
    /** Something did not go as asked, but on. */
    WARN(1),
    /** What was done. */
    INFO(2),
}

/** Told how far opening has come. */
public fun interface Progress {
    /** Bytes done, which never fall, and in all. Returns whether to go on; runs in the thread that opens. */
    public fun report(done: Long, total: Long): Boolean
}

/** How to open a model. */
public data class ModelOptions(
    /** Threads to compute with, the caller's included, 1 to 256; 0: one for each core that the process may use. */
    val threads: Int = 0,
    /** The instruction set to use. */
    val isa: Isa = Isa.AUTO,
    /** Read the file into memory instead of mapping it, where it cannot be trusted not to shrink meanwhile. */
    val privateCopy: Boolean = false,
    /** Read the whole file ahead, so that the first tokens come at full speed. */
    val preload: Boolean = false,
    /** What turns text into ids. */
    val engine: Engine = Engine.BUILTIN,
    /** Lock the file in memory, where the system allows it: see [ModelInfo.memoryLock]. */
    val lock: Boolean = false,
    /** Stops opening, and making the tokenizer later. */
    val cancel: CancelToken? = null,
    /** Told how far opening has come. */
    val progress: Progress? = null,
    /**
     * Takes log messages while the model or a session of it lives, in any thread, perhaps in several at once. No message
     * holds any part of a prompt. What it throws is dropped.
     */
    val log: ((LogLevel, String) -> Unit)? = null,
) {
    internal inline fun <T> use(block: (LongArray, LogCall?) -> T): T = cancel.during { token ->
        val sink = log
        val call = if (sink == null) null else LogCall { level, message ->
            sink(if (level == LogLevel.WARN.number) LogLevel.WARN else LogLevel.INFO, message)
        }
        block(
            longArrayOf(
                threads.toLong(), isa.number.toLong(), privateCopy.toLong(), preload.toLong(), engine.number.toLong(),
                lock.toLong(), token,
            ),
            call,
        )
    }
}

internal fun Boolean.toLong(): Long = if (this) 1 else 0

/** How keys and values are stored. */
public enum class KvType(internal val number: Int) {
    /** f16, but f32 for a model whose matrices are all F32. */
    AUTO(0),
    F16(1),
    /** About half of f16's memory. */
    Q8_0(2),
    F32(3),
}

/** How a session is laid out. */
public data class SessionOptions(
    /** Tokens that the session can hold; 0: the model's own context length, but at most 4096. */
    val context: Long = 0,
    /** Most tokens that are processed at once, 1 to 4096: more is faster on long prompts and takes more memory. */
    val batch: Int = 256,
    val kv: KvType = KvType.AUTO,
    /** Copies of the sliding windows that a conversation keeps to go back to its last turns, 0 to 64. */
    val snapshots: Int = 1,
    /** Compute with f32 activations and weights: slow, and the truth that fast paths are tested against. */
    val exact: Boolean = false,
    /** Keep every position in the windowed layers too, so that a text can be cut anywhere. */
    val fullHistory: Boolean = false,
    /**
     * Most tokens that generating guesses ahead where the text repeats itself, 0 to 15, and verifies in one pass: the same
     * text bit for bit, sooner where it quotes. Each takes a row of logits of memory.
     */
    val draft: Int = 0,
) {
    internal fun packed(): LongArray = longArrayOf(
        context, batch.toLong(), kv.number.toLong(), snapshots.toLong(), exact.toLong(), fullHistory.toLong(),
        draft.toLong(),
    )
}

/** A generation of Gemma. */
public enum class Arch(internal val number: Int) { GEMMA(1), GEMMA2(2), GEMMA3(3), UNKNOWN(-1) }

/** Whether a model's file is locked in memory. */
public enum class MemoryLock(internal val number: Int) {
    /** Nobody asked for it. */
    NOT_LOCKED(0),
    /** It is, as long as the model lives. */
    LOCKED(1),
    /** The system refused; the log says why. */
    REFUSED(2),
}

/** The shape of a model and how it runs here. */
public data class ModelInfo(
    val arch: Arch,
    /** The kernels in use. */
    val isa: Isa,
    /** Threads in use, the caller's included: fewer than asked where the system refused. */
    val threads: Int,
    val nLayers: Int,
    /** Width of the residual stream. */
    val dModel: Int,
    /** Width of the feed-forward. */
    val dFf: Int,
    /** Query heads. */
    val nHeads: Int,
    /** Key and value heads. */
    val nKvHeads: Int,
    /** Values in a head. */
    val headDim: Int,
    /** Rows of the embedding: the number of logits. */
    val vocab: Int,
    /** Positions that a windowed layer sees; 0 where no layer is windowed. */
    val slidingWindow: Int,
    val memoryLock: MemoryLock,
    /** Positions that the model was trained for. */
    val contextLength: Long,
    /** Bytes of the file, all parts. */
    val fileBytes: Long,
    /** Number of tensors. */
    val nTensors: Long,
)

/** A tensor of a model's file. */
public data class TensorInfo(
    val name: String,
    /** The name of its type, such as `Q4_K`. */
    val type: String,
    /** Sizes, the innermost first. */
    val dims: List<Long>,
    /** Its first byte, from the start of the file (of its part, where the model is split). */
    val offset: Long,
    /** Its bytes. */
    val size: Long,
)

/** Bytes of memory that a model and one session on it take: an upper bound, and a close one. */
public data class Plan(
    /** The mapped file, whose pages are shared between processes. */
    val file: Long,
    /** Keys and values of a full context. */
    val kvCache: Long,
    /** Buffers of a pass and of sampling. */
    val scratch: Long,
    /** Copies of the sliding windows. */
    val snapshots: Long,
    /** The tokenizer; 0 for a file without a vocabulary. */
    val tokenizer: Long,
    /** The rest: the file's header, tokens and texts, stacks, whole pages. The JVM's own memory is not in it. */
    val other: Long,
    /** All of the above. */
    val total: Long,
    /** What scoring and [Session.prefillEach] take more while they run. Not part of the total. */
    val score: Long,
    /** What could be had now without pushing others out; null where the system did not tell. */
    val available: Long?,
)

/** An opened model: immutable. It may be used from many threads; passes of its sessions take turns. */
public class Model private constructor(handle: Long) : Resource(Handle(handle, "model", Native::modelFree)) {
    /** Its tokenizer, which is usable as long as the model is open. */
    public val tokenizer: Tokenizer = Tokenizer(this)

    /** The shape of the model and how it runs here. */
    public val info: ModelInfo
        get() {
            val i = handle.use(Native::modelInfo)
            return ModelInfo(
                Arch.entries.firstOrNull { it.number.toLong() == i[0] } ?: Arch.UNKNOWN,
                Isa.of(i[1].toInt()), i[2].toInt(), i[3].toInt(), i[4].toInt(), i[5].toInt(), i[6].toInt(), i[7].toInt(),
                i[8].toInt(), i[9].toInt(), i[10].toInt(),
                MemoryLock.entries.firstOrNull { it.number.toLong() == i[11] } ?: MemoryLock.NOT_LOCKED,
                i[12], i[13], i[14],
            )
        }

    /** A metadata value of the file as text: a number in decimal, a bool as true or false, a string as it is. */
    public fun metadata(key: String): String = handle.use { Native.modelMetadata(it, key) }

    /** The tensor of an index below [ModelInfo.nTensors]. */
    public fun tensor(index: Long): TensorInfo {
        val names = arrayOfNulls<String>(2)
        val values = handle.use { Native.modelTensor(it, index, names) }
        return TensorInfo(names[0]!!, names[1]!!, values.drop(2), values[0], values[1])
    }

    /** The memory that this model and one session on it take. */
    public fun plan(options: SessionOptions = SessionOptions()): Plan =
        planOf(handle.use { Native.modelPlanSession(it, options.packed()) })

    /** An empty session. All memory that it needs for its tokens is taken here. */
    public fun newSession(options: SessionOptions = SessionOptions()): Session =
        Session(handle.use { Native.sessionNew(it, options.packed()) })

    /** Opens a session that [Session.save] wrote, with options of its own; another [SessionOptions.kv] is an error. */
    public fun loadSession(
        path: String,
        options: SessionOptions = SessionOptions(),
        cancel: CancelToken? = null,
    ): Session = cancel.during { token ->
        Session(handle.use { Native.sessionLoad(it, path, options.packed(), token) })
    }

    /** An empty conversation over a session of its own. */
    public fun newConversation(system: String? = null, options: SessionOptions = SessionOptions()): Conversation =
        newSession(options).use { Conversation(it, system) }

    /** Opens a conversation that [Conversation.save] wrote, or a saved session that holds one. */
    public fun loadConversation(
        path: String,
        options: SessionOptions = SessionOptions(),
        cancel: CancelToken? = null,
    ): Conversation = cancel.during { token ->
        Conversation(handle.use { Native.conversationLoad(it, path, options.packed(), token) })
    }

    public companion object {
        /** Opens a GGUF file; of a model that was split into several, give the first. Blocks: see [cancellable]. */
        public fun open(path: String, options: ModelOptions = ModelOptions()): Model =
            options.use { packed, log -> Model(Native.modelOpen(path, packed, options.progress, log)) }

        public fun open(file: File, options: ModelOptions = ModelOptions()): Model = open(file.path, options)

        /**
         * Opens the [length] bytes from byte [offset] of an open file, such as an Android asset; a length of −1 takes all
         * that follow. The descriptor stays the caller's, who may close it when this returns.
         */
        public fun open(fd: Int, offset: Long = 0, length: Long = -1, options: ModelOptions = ModelOptions()): Model {
            require(offset >= 0 && length >= -1) { "offset $offset, length $length" }
            return options.use { packed, log ->
                Model(Native.modelOpenFd(fd, offset, length, packed, options.progress, log))
            }
        }

        /**
         * Opens a GGUF file that lies in memory, between the buffer's position and limit. A direct buffer is lent, without
         * a copy, until the model and its sessions are closed: nobody may write to it. Another is copied.
         */
        public fun open(bytes: ByteBuffer, options: ModelOptions = ModelOptions()): Model {
            val direct = if (bytes.isDirect) {
                bytes.slice()
            } else {
                ByteBuffer.allocateDirect(bytes.remaining()).also { it.put(bytes.duplicate()).flip() }
            }
            return options.use { packed, log ->
                Model(Native.modelOpenBytes(direct, 0, direct.limit().toLong(), packed, options.progress, log))
            }
        }

        /** As for a buffer, of which a copy is made. */
        public fun open(bytes: ByteArray, options: ModelOptions = ModelOptions()): Model =
            open(ByteBuffer.wrap(bytes), options)

        /** The memory that a model file and one session on it will take, without loading anything. */
        public fun plan(path: String, threads: Int, options: SessionOptions = SessionOptions()): Plan =
            planOf(Native.modelPlan(path, threads, options.packed()))

        private fun planOf(p: LongArray) = Plan(p[0], p[1], p[2], p[3], p[4], p[5], p[6], p[7], p[8].takeIf { it >= 0 })
    }
}
