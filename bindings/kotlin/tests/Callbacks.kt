package ai.carat.tests

import ai.carat.CancelToken
import ai.carat.CaratException
import ai.carat.Finish
import ai.carat.GenerateOptions
import ai.carat.SessionOptions
import ai.carat.Status

private class Mine : Exception("mine")

/** What callbacks return and throw. */
fun Checks.callbacks() {
    test("what a piece's callback throws stops the generation and reaches the caller") {
        inSession { session ->
            val mine = Mine()
            var calls = 0
            val caught = throws<Mine> {
                session.generateBlocking(someIds(8), greedy) { if (++calls == 3) throw mine else true }
            }
            that(caught === mine)
            same(3, calls)
            same(11L, session.length)
            // The session goes on as if the callback had stopped it.
            same(Finish.LIMIT, session.generateBlocking(IntArray(0), greedy.copy(maxTokens = 2)).reason)
        }
    }
    test("a callback that returns false stops the generation") {
        inSession { session ->
            var calls = 0
            val summary = session.generateBlocking(someIds(8), greedy) { ++calls < 4 }
            same(Finish.CALLBACK, summary.reason)
            same(4, calls)
        }
    }
    test("a hook sees the tokens and changes the logits; what it throws reaches the caller") {
        inSession { session ->
            var seen = 0
            val hook = { tokens: IntArray, logits: FloatArray ->
                that(tokens.size == 8 + seen)
                that(someIds(8).contentEquals(tokens.copyOf(8)))
                logits[400 + seen++] = 1e6f
                true
            }
            val ids = mutableListOf<Int?>()
            session.generateBlocking(someIds(8), greedy.copy(maxTokens = 5, hook = hook)) { ids.add(it.token) }
            same((400..404).toList(), ids.map { it!! })
            same(Finish.CALLBACK, session.generateBlocking(intArrayOf(300), greedy.copy(hook = { _, _ -> false })).reason)
            val mine = Mine()
            var pieces = 0
            that(
                throws<Mine> {
                    session.generateBlocking(intArrayOf(300), greedy.copy(hook = { _, _ -> throw mine })) { ++pieces > 0 }
                } === mine,
            )
            same(0, pieces)
            fails(Status.NAN_LOGITS) {
                session.generateBlocking(intArrayOf(300), greedy.copy(hook = { _, l -> l.fill(Float.NaN).let { true } }))
            }
        }
    }
    test("the callback of a prefill stops it, and what it throws reaches the caller") {
        inSession { session ->
            var calls = 0
            fails(Status.CANCELLED) { session.prefillEach(someIds(100)) { _, _ -> ++calls < 3 } }
            same(3, calls)
            val mine = Mine()
            that(throws<Mine> { session.prefillEach(someIds(9)) { i, _ -> if (i == 4) throw mine else true } } === mine)
        }
    }
    test("a second call on a session, from its own callback or another thread, is refused") {
        inSession { session ->
            val statuses = mutableListOf<Status>()
            session.generateBlocking(someIds(8), greedy.copy(maxTokens = 2)) {
                statuses += fails(Status.BUSY) { session.length }.status
                val other = Thread { statuses += fails(Status.BUSY) { session.step(300) }.status }
                other.start()
                other.join()
                true
            }
            same(4, statuses.size)
        }
    }
    test("a failure that a callback meets comes out of the call, as itself") {
        inSession { session ->
            val caught = throws<CaratException> {
                session.generateBlocking(someIds(8), greedy) { session.prefill(someIds(2)).let { true } }
            }
            same(Status.BUSY, caught.status)
        }
    }
    test("an error, not only an exception, comes out too, and a stack overflow ends nothing else") {
        inSession { session ->
            fun deep(n: Int): Int = if (n < 0) 0 else deep(n + 1) + 1
            throws<StackOverflowError> { session.generateBlocking(someIds(8), greedy) { deep(0) > 0 } }
            throws<OutOfMemoryError> { session.generateBlocking(IntArray(0), greedy) { throw OutOfMemoryError() } }
            same(Finish.LIMIT, session.generateBlocking(IntArray(0), greedy.copy(maxTokens = 2)).reason)
        }
    }
    test("many tokens with strings and arrays leave no references behind") {
        // HotSpot warns (with -Xcheck:jni) and then fails where references pile up; 16 is what a method is promised.
        inSession { session ->
            var n = 0
            session.generateBlocking(someIds(8), greedy.copy(topLogProbs = 8, hook = { _, _ -> true })) { ++n > 0 }
            that(n > 240) { "$n pieces" }
        }
    }
    test("a token may be closed while a call uses it") {
        inSession { session ->
            val token = CancelToken()
            val summary = session.generateBlocking(someIds(8), GenerateOptions(maxTokens = 3, ignoreEnd = true, cancel = token)) {
                token.close()
                true
            }
            same(Finish.LIMIT, summary.reason)
            throws<IllegalStateException> { token.cancel() }
        }
    }
}
