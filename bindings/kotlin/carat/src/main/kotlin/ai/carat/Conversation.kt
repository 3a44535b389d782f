package ai.carat

import kotlinx.coroutines.CoroutineDispatcher
import kotlinx.coroutines.Dispatchers
import kotlinx.coroutines.flow.Flow

/** Who speaks. */
public enum class Role(internal val number: Int) {
    /** Says how to answer; at most one, the first. */
    SYSTEM(0),
    USER(1),
    MODEL(2),
    ;

    internal companion object {
        fun of(number: Int): Role = entries.first { it.number == number }
    }
}

/** What one of the speakers says. */
public data class Turn(val role: Role, val text: String)

internal fun List<Turn>.roles() = IntArray(size) { this[it].role.number }
internal fun List<Turn>.texts() = Array(size) { this[it].text }

/** What to do when the context is full. */
public enum class Policy(internal val number: Int) {
    /** An answer ends; a turn that does not fit is an error. */
    STOP(0),
    /** The oldest turns are forgotten: see [Conversation.dropped]. */
    DROP_OLDEST(1),
}

/**
 * A user and a model in turn, over one session, in Gemma's template. One call at a time: a second one fails with
 * [Status.BUSY].
 *
 * Each way to go on is there twice: as a cold flow, which runs when it is collected (and again when it is collected again),
 * and as a blocking call. See [Session.generate].
 */
public class Conversation internal constructor(handle: Long) :
    Resource(Handle(handle, "conversation", Native::conversationFree)) {

    /** An empty conversation over a session, with a system text that says how to answer. The session is closed: its contents are here. */
    public constructor(session: Session, system: String? = null) :
        this(take(session) { Native.conversationNew(it, system) })

    /** Says something to the model; its answer. */
    public fun send(
        text: String,
        options: GenerateOptions = GenerateOptions(),
        dispatcher: CoroutineDispatcher = Dispatchers.IO,
        onEnd: (Summary) -> Unit = {},
    ): Flow<String> = streaming(options, dispatcher, onEnd) { o, sink -> sendBlocking(text, o, sink) }.texts()

    public fun sendBlocking(
        text: String,
        options: GenerateOptions = GenerateOptions(),
        onPiece: PieceSink? = null,
    ): Summary = run(options, onPiece) { it, ints, floats, ids, bias, stop, piece ->
        Native.send(it, text, ints, floats, ids, bias, stop, piece)
    }

    /** Drops the last answer and generates another. */
    public fun regenerate(
        options: GenerateOptions = GenerateOptions(),
        dispatcher: CoroutineDispatcher = Dispatchers.IO,
        onEnd: (Summary) -> Unit = {},
    ): Flow<String> = streaming(options, dispatcher, onEnd) { o, sink -> regenerateBlocking(o, sink) }.texts()

    public fun regenerateBlocking(options: GenerateOptions = GenerateOptions(), onPiece: PieceSink? = null): Summary =
        run(options, onPiece, Native::regenerate)

    /** Drops the last answer and question, and says something else. */
    public fun editLast(
        text: String,
        options: GenerateOptions = GenerateOptions(),
        dispatcher: CoroutineDispatcher = Dispatchers.IO,
        onEnd: (Summary) -> Unit = {},
    ): Flow<String> = streaming(options, dispatcher, onEnd) { o, sink -> editLastBlocking(text, o, sink) }.texts()

    public fun editLastBlocking(
        text: String,
        options: GenerateOptions = GenerateOptions(),
        onPiece: PieceSink? = null,
    ): Summary = run(options, onPiece) { it, ints, floats, ids, bias, stop, piece ->
        Native.editLast(it, text, ints, floats, ids, bias, stop, piece)
    }

    /**
     * Takes a whole conversation, as a service does that is told all of it each time, and answers its last turn; what it has
     * in common with the turns held is not processed again.
     */
    public fun respond(
        turns: List<Turn>,
        options: GenerateOptions = GenerateOptions(),
        dispatcher: CoroutineDispatcher = Dispatchers.IO,
        onEnd: (Summary) -> Unit = {},
    ): Flow<String> = streaming(options, dispatcher, onEnd) { o, sink -> respondBlocking(turns, o, sink) }.texts()

    public fun respondBlocking(
        turns: List<Turn>,
        options: GenerateOptions = GenerateOptions(),
        onPiece: PieceSink? = null,
    ): Summary = run(options, onPiece) { it, ints, floats, ids, bias, stop, piece ->
        Native.respond(it, turns.roles(), turns.texts(), ints, floats, ids, bias, stop, piece)
    }

    private inline fun run(
        options: GenerateOptions,
        onPiece: PieceSink?,
        ask: (Long, LongArray, FloatArray, IntArray, FloatArray, Array<String>, PieceCall?) -> LongArray,
    ): Summary {
        require(options.hook == null) { "hooks are for sessions: a conversation has none" }
        return options.cancel.during { token ->
            summaryOf(
                handle.use {
                    ask(
                        it, options.ints(token), options.floats(), options.biasIds(), options.bias(), options.stops(),
                        onPiece.native(),
                    )
                },
            )
        }
    }

    /** Number of turns so far, without the system's. */
    public val nTurns: Int get() = handle.use(Native::nTurns)

    /** The turns so far, without the system's. */
    public val turns: List<Turn>
        get() {
            val role = IntArray(1)
            return handle.use { h -> List(Native.nTurns(h)) { i -> turn(role, Native.turn(h, i, role)) } }
        }

    /** The turns that the last reply dropped to make room, the oldest first. */
    public val dropped: List<Turn>
        get() {
            val role = IntArray(1)
            return handle.use { h ->
                buildList { while (true) add(turn(role, Native.dropped(h, size, role) ?: break)) }
            }
        }

    private fun turn(role: IntArray, text: String) = Turn(Role.of(role[0]), text)

    /** The tokens of the conversation. */
    public val tokens: IntArray get() = handle.use(Native::conversationTokens)

    /** The system's text, empty where there is none. When it changes, everything is processed again. */
    public var system: String
        get() = handle.use(Native::system)
        set(text) = handle.use { Native.setSystem(it, text.ifEmpty { null }) }

    /** What to do when the context is full; [Policy.STOP] unless set. */
    public fun setPolicy(policy: Policy): Unit = handle.use { Native.setPolicy(it, policy.number) }

    /** Forgets all turns, and keeps the system's text. */
    public fun reset(): Unit = handle.use(Native::reset)

    /** Saves it to a file: turns, the system's text, the session. See [Model.loadConversation]. */
    public fun save(path: String, cancel: CancelToken? = null): Unit =
        cancel.during { token -> handle.use { Native.conversationSave(it, path, token) } }

    /** Gives back memory that can be had again, as [Session.trim] does. */
    public fun trim(): Unit = handle.use(Native::conversationTrim)

    /** Takes the session out; the conversation is closed. */
    public fun intoSession(): Session = Session(handle.use(Native::conversationIntoSession)).also { close() }

    public companion object {
        /** Goes on with the conversation whose tokens a session holds. The session is closed: its contents are here. */
        public fun resume(session: Session): Conversation = Conversation(take(session, Native::conversationResume))

        /** The session's contents go over also where this fails, unless the session was busy. */
        private fun take(session: Session, make: (Long) -> Long): Long {
            val made = try {
                session.handle.use(make)
            } catch (e: CaratException) {
                if (e.status != Status.BUSY) session.close()
                throw e
            }
            session.close()
            return made
        }
    }
}
