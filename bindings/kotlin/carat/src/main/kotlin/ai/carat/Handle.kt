package ai.carat

import java.lang.ref.PhantomReference
import java.lang.ref.ReferenceQueue
import java.util.concurrent.ConcurrentHashMap

/**
 * A native handle: not used once it is closed, and not freed while it is in use. Closing during a call takes effect at the
 * call's end.
 */
internal class Handle(private val raw: Long, private val what: String, private val free: (Long) -> Unit) {
    private var users = 0
    private var closed = false

    inline fun <T> use(block: (Long) -> T): T {
        val handle = enter()
        try {
            return block(handle)
        } finally {
            leave()
        }
    }

    fun enter(): Long = synchronized(this) {
        check(!closed) { "this $what is closed" }
        users++
        raw
    }

    fun leave() {
        val last = synchronized(this) { --users == 0 && closed }
        if (last) free(raw)
    }

    fun close() {
        val last = synchronized(this) {
            if (closed) return
            closed = true
            users == 0
        }
        if (last) free(raw)
    }
}

/**
 * What has a native handle. [close] gives it back; what was forgotten is given back when it is garbage, at some time, so
 * that a leak does not last. Java's Cleaner would do the same, but Android has it only from version 13 on.
 */
public abstract class Resource internal constructor(internal val handle: Handle) : AutoCloseable {
    private val guard = Guard(this, handle)

    init {
        guards.add(guard)
    }

    /** Gives back its memory; during a call on it, at the call's end. Closing again does nothing. */
    override fun close() {
        guards.remove(guard)
        handle.close()
    }

    private class Guard(owner: Resource, val handle: Handle) : PhantomReference<Resource>(owner, garbage)

    internal companion object {
        private val garbage = ReferenceQueue<Resource>()
        // Guards must be reachable for as long as what they guard.
        private val guards: MutableSet<Guard> = ConcurrentHashMap.newKeySet()

        /** How many are open or not yet collected: for the tests. */
        internal val alive: Int get() = guards.size

        init {
            val collector = Thread({
                while (true) {
                    val guard = garbage.remove() as Guard
                    guards.remove(guard)
                    guard.handle.close()
                }
            }, "carat-collector")
            collector.isDaemon = true
            collector.start()
        }
    }
}
