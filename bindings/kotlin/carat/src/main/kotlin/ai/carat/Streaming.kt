package ai.carat

import kotlinx.coroutines.CoroutineDispatcher
import kotlinx.coroutines.Dispatchers
import kotlinx.coroutines.awaitCancellation
import kotlinx.coroutines.channels.trySendBlocking
import kotlinx.coroutines.coroutineScope
import kotlinx.coroutines.ensureActive
import kotlinx.coroutines.flow.Flow
import kotlinx.coroutines.flow.channelFlow
import kotlinx.coroutines.flow.filter
import kotlinx.coroutines.flow.flowOn
import kotlinx.coroutines.flow.map
import kotlinx.coroutines.launch
import kotlinx.coroutines.withContext

/**
 * Runs a blocking call of this library in [dispatcher], and stops it when the coroutine is cancelled: [block] gets a token
 * to hand to the call. It returns when the call has, within 200 ms of being cancelled. A result that nobody gets any more,
 * as the coroutine was cancelled meanwhile, is closed where it is [AutoCloseable]: return what the block made and nothing
 * else.
 *
 *     val model = cancellable { Model.open(path, ModelOptions(cancel = it)) }
 */
public suspend fun <T> cancellable(
    dispatcher: CoroutineDispatcher = Dispatchers.IO,
    block: (CancelToken) -> T,
): T {
    var made: Any? = null
    try {
        return withContext(dispatcher) { stoppable(null) { token -> block(token).also { made = it } } }
    } catch (e: Throwable) {
        try {
            (made as? AutoCloseable)?.close()
        } catch (other: Throwable) {
            e.addSuppressed(other)
        }
        throw e
    }
}

/** Runs a blocking call with a token that is set when this coroutine, or the caller's own token, is cancelled. */
private suspend fun <T> stoppable(also: CancelToken?, block: (CancelToken) -> T): T = CancelToken().use { token ->
    // The scope ends when the watch has, so that the token is open as long.
    coroutineScope {
        // Unconfined: it runs in the thread that cancels, whatever this coroutine's own thread is busy with.
        val watch = launch(Dispatchers.Unconfined) {
            try {
                awaitCancellation()
            } finally {
                token.cancel()
            }
        }
        also?.link(token)
        try {
            block(token)
        } catch (e: CaratException.Cancelled) {
            ensureActive() // a coroutine that was cancelled hears of that
            throw e
        } finally {
            also?.unlink(token)
            watch.cancel()
        }
    }
}

/** A generation as a cold flow of its pieces. */
internal fun streaming(
    options: GenerateOptions,
    dispatcher: CoroutineDispatcher,
    onEnd: (Summary) -> Unit,
    run: (GenerateOptions, PieceSink) -> Summary,
): Flow<Piece> = channelFlow {
    val summary = stoppable(options.cancel) { token ->
        // A collector that is slower than the engine makes it wait; one that is gone ends it.
        run(options.copy(cancel = token)) { piece -> trySendBlocking(piece).isSuccess }
    }
    ensureActive()
    onEnd(summary)
}.flowOn(dispatcher)

/** The texts of pieces that have any. */
internal fun Flow<Piece>.texts(): Flow<String> = map { it.text }.filter { it.isNotEmpty() }
