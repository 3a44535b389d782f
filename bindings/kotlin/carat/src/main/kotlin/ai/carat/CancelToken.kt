package ai.carat

import java.util.concurrent.CopyOnWriteArraySet

/**
 * A switch that stops the calls it was given to, from any thread: each ends within 200 ms. It is sticky: once set it stays
 * set.
 *
 * Coroutines need none: cancelling the coroutine that collects or waits stops the engine. A token is for the blocking
 * calls, and for stopping some calls of a coroutine that goes on.
 */
public class CancelToken private constructor(handle: Long, private val links: MutableSet<CancelToken>) :
    Resource(Handle(handle, "cancel token", Native::cancelFree)) {
    public constructor() : this(Native.cancelNew(), CopyOnWriteArraySet())

    /** Sets it, for good. */
    public fun cancel() {
        handle.use(Native::cancelSet)
        links.forEach { link ->
            // One whose call has ended meanwhile is closed, and needs no stopping.
            try {
                link.cancel()
            } catch (_: IllegalStateException) {
            }
        }
    }

    /** Whether it was set. */
    public val isCancelled: Boolean get() = handle.use(Native::cancelIsSet)

    /** Another handle to the same switch, with an end of its own. */
    public fun share(): CancelToken = CancelToken(handle.use(Native::cancelClone), links)

    /** Another token is set with this one from now on. */
    internal fun link(token: CancelToken) {
        links.add(token)
        if (isCancelled) token.cancel()
    }

    internal fun unlink(token: CancelToken) {
        links.remove(token)
    }
}

/** Its native handle during a call; 0 for none. */
internal inline fun <T> CancelToken?.during(block: (Long) -> T): T = if (this == null) block(0) else handle.use(block)
