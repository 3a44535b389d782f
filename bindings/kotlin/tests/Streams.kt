package ai.carat.tests

import ai.carat.CancelToken
import ai.carat.CaratException
import ai.carat.Finish
import ai.carat.Model
import ai.carat.ModelOptions
import ai.carat.Resource
import ai.carat.Session
import ai.carat.SessionOptions
import ai.carat.Status
import ai.carat.Summary
import ai.carat.cancellable
import java.util.concurrent.CountDownLatch
import java.util.concurrent.Executors
import kotlinx.coroutines.CancellationException
import kotlinx.coroutines.CoroutineStart
import kotlinx.coroutines.Dispatchers
import kotlinx.coroutines.Job
import kotlinx.coroutines.asCoroutineDispatcher
import kotlinx.coroutines.cancelAndJoin
import kotlinx.coroutines.delay
import kotlinx.coroutines.flow.collect
import kotlinx.coroutines.flow.take
import kotlinx.coroutines.flow.toList
import kotlinx.coroutines.launch
import kotlinx.coroutines.runBlocking
import kotlinx.coroutines.withTimeoutOrNull
import kotlinx.coroutines.yield

/** A session on the real model, which is slow enough to be stopped in the midst. */
private fun <T> inReal(block: (Session) -> T): T {
    val real = System.getenv("CARAT_TEST_MODEL") ?: error("CARAT_TEST_MODEL names no model")
    return Model.open(real).use { model -> model.newSession(SessionOptions(context = 4096)).use(block) }
}

/** Flows and coroutines. */
fun Checks.streams() {
    test("a flow has the text that the blocking call has, and its end is told") {
        inSession { session ->
            val text = StringBuilder()
            val told = session.generateBlocking(someIds(8), greedy.copy(maxTokens = 40)) { text.append(it.text).length >= 0 }
            session.truncate(0)
            var summary: Summary? = null
            val parts = runBlocking { session.generate(someIds(8), greedy.copy(maxTokens = 40), onEnd = { summary = it }).toList() }
            same(text.toString(), parts.joinToString(""))
            that(parts.none { it.isEmpty() })
            same(told.generatedTokens, summary!!.generatedTokens)
            session.truncate(0)
            val pieces = runBlocking { session.pieces(someIds(8), greedy.copy(maxTokens = 40, topLogProbs = 2)).toList() }
            same(40, pieces.count { it.token != null })
            same(text.toString(), pieces.joinToString("") { it.text })
            same(2, pieces[0].top.size)
        }
    }
    test("a flow is cold: nothing runs until it is collected, and it runs again") {
        inSession { session ->
            val flow = session.pieces(someIds(8), greedy.copy(maxTokens = 3))
            same(0L, session.length)
            runBlocking { flow.collect() }
            same(11L, session.length)
            runBlocking { flow.collect() }
            same(22L, session.length)
        }
    }
    test("ending a collection early stops the engine before it returns") {
        inSession { session ->
            val taken = runBlocking { session.pieces(someIds(8), greedy).take(5).toList() }
            same(5, taken.size)
            val length = session.length // would be BUSY if the engine still ran
            that(length in 13..200) { "$length tokens" }
        }
    }
    test("a failure of the engine, and one of the collector, come out of the collection") {
        inSession { session ->
            runBlocking { fails(Status.EMPTY_PROMPT) { runBlocking { session.generate(IntArray(0)).collect() } } }
            val mine = IllegalArgumentException("mine")
            val caught = throws<IllegalArgumentException> {
                runBlocking { session.generate(someIds(8), greedy).collect { throw mine } }
            }
            // Coroutines may hand on a copy, whose cause is the original.
            that(caught === mine || caught.cause === mine)
            that(session.length > 0)
            val hook = throws<IllegalArgumentException> {
                runBlocking { session.generate(someIds(8), greedy.copy(hook = { _, _ -> throw mine })).collect() }
            }
            that(hook === mine || hook.cause === mine)
        }
    }
    test("cancelling the collector stops the engine within 200 ms, and it has stopped when the job has") {
        inReal { session ->
            val late = (1..3).minOf {
                session.truncate(0)
                runBlocking {
                    val job = launch(Dispatchers.Default) { session.generate(someIds(8), greedy).collect() }
                    while (true) {
                        delay(20)
                        // It runs: the session is busy.
                        if (runCatching { session.length }.isFailure) break
                    }
                    delay(50)
                    val at = System.nanoTime()
                    job.cancelAndJoin()
                    session.length
                    (System.nanoTime() - at) / 1_000_000
                }
            }
            println("       a generation ended $late ms after its coroutine was cancelled")
            that(late <= 200) { "$late ms" }
        }
    }
    test("cancelling reaches a prefill, on a dispatcher of one thread too") {
        val one = Executors.newSingleThreadExecutor().asCoroutineDispatcher()
        val prompt = IntArray(4000) { 1000 + it }
        inReal { session ->
            for (dispatcher in listOf(Dispatchers.IO, one)) {
                val late = (1..3).minOf {
                    session.truncate(0)
                    runBlocking {
                        val job = launch(Dispatchers.Default) {
                            session.generate(prompt, dispatcher = dispatcher).collect { error("it cannot be that far") }
                        }
                        delay(300)
                        that(job.isActive) { "the prefill ended before it could be cancelled" }
                        val at = System.nanoTime()
                        job.cancelAndJoin()
                        (System.nanoTime() - at) / 1_000_000
                    }
                }
                println("       a prefill in a flow ended $late ms after its coroutine was cancelled")
                that(late <= 200) { "$late ms" }
                that(session.length < 4000)
            }
            // A timeout is a cancellation too, and a suspending call ends as one.
            session.truncate(0)
            val nothing = runBlocking {
                withTimeoutOrNull(200) { cancellable { session.prefill(prompt, it) } }
            }
            same(null, nothing)
            that(session.length < 4000)
        }
        one.close()
    }
    test("the options' own token ends a flow without an exception, and the coroutine goes on") {
        inSession { session ->
            CancelToken().use { token ->
                var summary: Summary? = null
                runBlocking {
                    session.pieces(someIds(8), greedy.copy(cancel = token), onEnd = { summary = it }).collect { token.cancel() }
                }
                same(Finish.CANCELLED, summary!!.reason)
                // It is sticky: the next call ends at once.
                runBlocking { session.pieces(intArrayOf(300), greedy.copy(cancel = token), onEnd = { summary = it }).collect() }
                same(0L, summary.generatedTokens)
            }
            // And cancelling a coroutine does not set it.
            CancelToken().use { token ->
                runBlocking { session.pieces(intArrayOf(300), greedy.copy(cancel = token)).take(1).collect() }
                that(!token.isCancelled)
            }
        }
    }
    test("a suspending call gives its result, or the engine's own failure") {
        runBlocking {
            cancellable { Model.open("$data/tiny-gemma3.gguf", ModelOptions(cancel = it)) }.close()
            fails(Status.IO) { runBlocking { cancellable { Model.open("/nowhere", ModelOptions(cancel = it)) } } }
            throws<CaratException.Cancelled> {
                runBlocking {
                    cancellable {
                        it.cancel()
                        Model.open("$data/tiny-gemma3.gguf", ModelOptions(cancel = it))
                    }
                }
            }
        }
    }
    test("a result that a cancelled coroutine does not get is closed at once") {
        val before = Resource.alive
        lateinit var made: Model
        runBlocking {
            lateinit var job: Job
            job = launch(start = CoroutineStart.LAZY) {
                cancellable {
                    made = tiny()
                    job.cancel()
                    made
                }
                throw AssertionError("the coroutine went on")
            }
            job.join()
            that(job.isCancelled)
        }
        throws<IllegalStateException> { made.info }
        that(Resource.alive <= before) { "${Resource.alive - before} are open" }
        // Nor does one get what was ready before it was cancelled, but had yet to be taken.
        runBlocking {
            val (waits, ready) = List(2) { CountDownLatch(1) }
            val job = launch {
                cancellable<Model> {
                    waits.await()
                    made = tiny()
                    ready.countDown()
                    made
                }
            }
            yield() // to the job, which comes back when it waits for its result
            waits.countDown()
            ready.await()
            job.cancelAndJoin()
        }
        throws<IllegalStateException> { made.info }
        runBlocking { cancellable { tiny() } }.use { same(1, it.info.threads) }
    }
    test("a slow collector makes the engine wait") {
        inSession { session ->
            val taken = runBlocking {
                var n = 0
                session.pieces(someIds(8), greedy).take(20).collect {
                    delay(5)
                    n++
                }
                n
            }
            same(20, taken)
            that(session.length < 200) { "${session.length} tokens: the engine ran ahead" }
        }
    }
    test("many flows on one model, at the same time") {
        tiny(2).use { model ->
            runBlocking(Dispatchers.Default) {
                repeat(4) {
                    launch {
                        repeat(5) {
                            model.newSession(SessionOptions(context = 64)).use { session ->
                                val n = session.pieces(someIds(8), greedy.copy(maxTokens = 10)).toList().size
                                that(n >= 10)
                            }
                        }
                    }
                }
            }
        }
    }
    test("a cancelled coroutine ends by its own exception, not by the engine's") {
        inReal { session ->
            runBlocking {
                var ended: Throwable? = null
                val job = launch(Dispatchers.Default) {
                    try {
                        cancellable { session.prefillEach(IntArray(4000) { 300 }, it) { _, _ -> true } }
                    } catch (e: Throwable) {
                        ended = e
                        throw e
                    }
                }
                delay(100)
                job.cancelAndJoin()
                that(ended is CancellationException) { "$ended" }
            }
        }
    }
}
