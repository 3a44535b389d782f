package ai.carat.tests

import ai.carat.CaratException
import ai.carat.Decoder
import ai.carat.Finish
import ai.carat.Model
import ai.carat.Resource
import ai.carat.SessionOptions
import java.io.File
import java.lang.ref.WeakReference
import java.nio.ByteBuffer
import java.util.concurrent.CountDownLatch
import java.util.concurrent.atomic.AtomicInteger

/** Closing: in any order, twice, during a call, never. */
fun Checks.lifetimes() {
    test("use after close is an IllegalStateException, closing twice is nothing") {
        val model = tiny()
        val session = model.newSession(SessionOptions(context = 64))
        val decoder: Decoder = model.tokenizer.decoder()
        for (it in listOf(model, session, decoder)) {
            it.close()
            it.close()
        }
        throws<IllegalStateException> { model.info }
        throws<IllegalStateException> { model.tokenizer.encode("a") }
        throws<IllegalStateException> { model.newSession() }
        throws<IllegalStateException> { session.length }
        throws<IllegalStateException> { session.generateBlocking(someIds(8)) }
        throws<IllegalStateException> { decoder.push(300) }
    }
    test("a session outlives its model") {
        val model = tiny()
        val session = model.newSession(SessionOptions(context = 64))
        model.close()
        same(4L, session.generateBlocking(someIds(8), greedy.copy(maxTokens = 4)).generatedTokens)
        session.close()
    }
    test("closing during a call takes effect at its end") {
        val model = tiny()
        val session = model.newSession(SessionOptions(context = 64))
        val summary = session.generateBlocking(someIds(8), greedy.copy(maxTokens = 9)) {
            session.close()
            model.close()
            true
        }
        same(Finish.LIMIT, summary.reason)
        same(9L, summary.generatedTokens)
        throws<IllegalStateException> { session.length }
    }
    test("closing from many threads while others call ends in calls that worked or were refused") {
        repeat(20) {
            val model = tiny(2)
            val session = model.newSession(SessionOptions(context = 256))
            val start = CountDownLatch(1)
            val odd = AtomicInteger()
            val threads = List(6) { n ->
                Thread {
                    start.await()
                    try {
                        when (n) {
                            0 -> session.close()
                            1 -> model.close()
                            2 -> session.generateBlocking(someIds(8), greedy.copy(maxTokens = 20))
                            3 -> model.tokenizer.encode("Hello")
                            4 -> session.fork().close()
                            else -> session.length
                        }
                    } catch (_: IllegalStateException) {
                    } catch (e: CaratException) {
                        if (e.status != ai.carat.Status.BUSY) odd.incrementAndGet()
                    } catch (_: Throwable) {
                        odd.incrementAndGet()
                    }
                }.also(Thread::start)
            }
            start.countDown()
            threads.forEach(Thread::join)
            same(0, odd.get())
            session.close()
            model.close()
        }
    }
    test("what was forgotten is given back when it is garbage") {
        val before = Resource.alive
        repeat(50) { tiny().newSession(SessionOptions(context = 64)).length }
        that(Resource.alive >= before + 1)
        val until = System.nanoTime() + 20_000_000_000
        while (Resource.alive > before && System.nanoTime() < until) {
            System.gc()
            Thread.sleep(20)
        }
        that(Resource.alive <= before) { "${Resource.alive - before} of 100 still there" }
    }
    test("a lent buffer is kept while the model or a session lives, and let go after") {
        fun lend(): Pair<Model, WeakReference<ByteBuffer>> {
            val bytes = File(data, "tiny-gemma3.gguf").readBytes()
            val buffer = ByteBuffer.allocateDirect(bytes.size)
            buffer.put(bytes).flip()
            return Model.open(buffer) to WeakReference(buffer)
        }
        val (model, buffer) = lend()
        val session = model.newSession(SessionOptions(context = 64))
        model.close()
        repeat(5) { System.gc() }
        that(buffer.get() != null)
        same(4L, session.generateBlocking(someIds(8), greedy.copy(maxTokens = 4)).generatedTokens)
        session.close()
        val until = System.nanoTime() + 20_000_000_000
        while (buffer.get() != null && System.nanoTime() < until) {
            System.gc()
            Thread.sleep(20)
        }
        same(null, buffer.get())
    }
}
