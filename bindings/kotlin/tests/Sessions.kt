package ai.carat.tests

import ai.carat.CancelToken
import ai.carat.CaratException
import ai.carat.Finish
import ai.carat.GenerateOptions
import ai.carat.Model
import ai.carat.SessionOptions
import ai.carat.Status
import java.io.File
import java.nio.ByteBuffer
import java.nio.ByteOrder
import kotlin.math.abs

/** Prefill, steps, logits, scores; what a text's state does. */
fun Checks.sessions() {
    test("logits are the golden ones, after each token of a prefill and after steps") {
        val ids = Regex("\\d+").findAll(File(data, "tiny-ids.json").readText()).map { it.value.toInt() }.toList().toIntArray()
        val bytes = ByteBuffer.wrap(File(data, "tiny-gemma3.logits.f32").readBytes()).order(ByteOrder.LITTLE_ENDIAN)
        val golden = FloatArray(bytes.remaining() / 4).also(bytes.asFloatBuffer()::get)
        inSession { session ->
            var rows = 0
            session.prefillEach(ids) { index, logits ->
                same(rows++, index)
                for (i in logits.indices) that(abs(logits[i] - golden[index * logits.size + i]) < 2e-3)
                true
            }
            same(ids.size, rows)
        }
        inSession { session ->
            for ((n, id) in ids.take(20).withIndex()) {
                session.step(id)
                session.logits().use { logits ->
                    val values = logits.toFloatArray()
                    for (i in values.indices) that(abs(values[i] - golden[n * values.size + i]) < 2e-3)
                    same(values[7], logits[7])
                    fails(Status.INVALID_ARGUMENT) { logits[values.size] }
                    fails(Status.INVALID_ARGUMENT) { logits[-1] }
                    throws<IllegalArgumentException> { logits.copyInto(FloatArray(values.size - 1)) }
                }
            }
        }
    }
    test("logits that are kept do not change, whatever is closed") {
        val model = tiny()
        val session = model.newSession(SessionOptions(context = 64))
        fails(Status.NO_LOGITS) { session.logits() }
        session.prefill(someIds(8))
        val kept = session.logits()
        val before = kept.toFloatArray()
        session.step(301)
        session.close()
        model.close()
        that(before.contentEquals(kept.toFloatArray()))
        kept.close()
    }
    test("generating says what it did, and the same seed gives the same text") {
        inSession { session ->
            val first = mutableListOf<Int?>()
            val options = GenerateOptions(maxTokens = 12, seed = -7, ignoreEnd = true, temperature = 2f)
            val summary = session.generateBlocking(someIds(8), options) { first.add(it.token) }
            same(Finish.LIMIT, summary.reason)
            same(listOf(8L, 0L, 12L), summary.run { listOf(promptTokens, reusedTokens, generatedTokens) })
            that(summary.promptNanos > 0 && summary.generateNanos > 0)
            same(20L, session.length)
            same(256L, session.context)
            same(someIds(8).toList() + first.filterNotNull(), session.tokens.toList())
            session.truncate(0)
            val second = mutableListOf<Int?>()
            session.generateBlocking(someIds(8), options) { second.add(it.token) }
            same(first, second)
        }
    }
    test("guessing ahead changes nothing but the time") {
        tiny().use { model ->
            fun generated(options: SessionOptions) = model.newSession(options).use { session ->
                val tokens = mutableListOf<Int?>()
                // Always the same word: it is guessed.
                val summary = session.generateBlocking(someIds(8), greedy.copy(maxTokens = 40, logitBias = mapOf(400 to 40f))) {
                    tokens.add(it.token)
                }
                same(40, tokens.filterNotNull().size)
                tokens to summary
            }
            val options = SessionOptions(context = 64)
            val (plainly, plain) = generated(options)
            val (ahead, drafting) = generated(options.copy(draft = 15))
            same(plainly, ahead)
            same(0L to 0L, plain.draftedTokens to plain.acceptedTokens)
            that(drafting.acceptedTokens in 1..drafting.draftedTokens) { "$drafting" }
            fails(Status.INVALID_OPTION) { model.newSession(options.copy(draft = 16)) }
        }
    }
    test("options reach the sampler: bias, stop strings, log-probabilities, the context's end") {
        inSession { session ->
            session.generateBlocking(someIds(8), greedy.copy(maxTokens = 1, logitBias = mapOf(301 to 1000f))) {
                same(301, it.token)
                true
            }
            session.truncate(0)
            val text = StringBuilder()
            session.generateBlocking(someIds(8), greedy.copy(maxTokens = 24)) { text.append(it.text).isNotEmpty() || true }
            val stop = text.substring(text.length / 2).take(2)
            session.truncate(0)
            val kept = StringBuilder()
            val summary = session.generateBlocking(someIds(8), greedy.copy(maxTokens = 24, stop = listOf("\u0000no\u0000", stop))) {
                kept.append(it.text).isNotEmpty() || true
            }
            same(Finish.STOP, summary.reason)
            same(1, summary.stopIndex)
            same(text.substring(0, text.indexOf(stop)), kept.toString())
            session.truncate(0)
            session.generateBlocking(someIds(8), greedy.copy(maxTokens = 4, topLogProbs = 3)) {
                same(3, it.top.size)
                same(it.token, it.top[0].token)
                same(it.logProb, it.top[0].logProb)
                that(it.top[0].logProb <= 0 && it.top[0].logProb >= it.top[1].logProb)
                true
            }
            session.generateBlocking(IntArray(0), greedy.copy(maxTokens = 1)) {
                same(null, it.logProb)
                true
            }
            same(Finish.CONTEXT_FULL, session.generateBlocking(IntArray(0), greedy).reason)
            fails(Status.INVALID_OPTION) { session.generateBlocking(IntArray(0), greedy.copy(topP = 2f)) }
        }
    }
    test("wrong calls are errors, and the session goes on") {
        inSession(SessionOptions(context = 16, batch = 16)) { session ->
            fails(Status.EMPTY_PROMPT) { session.prefill(IntArray(0)) }
            fails(Status.EMPTY_PROMPT) { session.generateBlocking(IntArray(0)) }
            fails(Status.TOKEN_OUT_OF_RANGE) { session.step(1 shl 20) }
            fails(Status.PROMPT_TOO_LONG) { session.prefill(someIds(17)) }
            fails(Status.INVALID_OPTION) { session.truncate(1) }
            fails(Status.INVALID_ARGUMENT) { session.truncate(-1) }
            fails(Status.INVALID_ARGUMENT) { session.score(someIds(4), -1) }
            fails(Status.INVALID_OPTION) { session.score(someIds(4), 5) }
            session.prefill(someIds(16))
            fails(Status.CONTEXT_FULL) { session.step(300) }
            same(16L, session.length)
        }
        tiny().use { fails(Status.INVALID_OPTION) { it.newSession(SessionOptions(batch = 0)) } }
    }
    test("scores") {
        inSession { session ->
            val scores = session.score(someIds(12))
            same(someIds(12).drop(1), scores.map { it.token })
            that(scores.all { it.logProb < 0 && it.rank >= 0 })
            same(4, session.score(someIds(10), from = 6).size)
        }
    }
    test("forking, saving, loading, trimming; how far back a text can be cut") {
        val file = File.createTempFile("carat", ".session").path
        tiny().use { model ->
            val options = SessionOptions(context = 256, batch = 16)
            model.newSession(options).use { session ->
                session.prefill(someIds(8))
                val expected = mutableListOf<Int?>()
                session.fork().use { it.generateBlocking(IntArray(0), greedy.copy(maxTokens = 6)) { p -> expected.add(p.token) } }
                same(8L, session.length)
                session.trim()
                session.save(file)
                model.loadSession(file, options).use { loaded ->
                    val found = mutableListOf<Int?>()
                    loaded.generateBlocking(IntArray(0), greedy.copy(maxTokens = 6)) { found.add(it.token) }
                    same(expected, found)
                }
                fails(Status.IO) { session.save("/nowhere/at/all") }
                session.prefill(someIds(200))
                val rewind = throws<CaratException.Rewind> { session.truncate(3) }
                that(rewind.nearest in 4..208) { "nearest ${rewind.nearest}" }
                same(208L, session.length)
                session.truncate(rewind.nearest)
                same(rewind.nearest, session.length)
            }
            File(file).writeText("no session")
            fails(Status.STATE) { model.loadSession(file) }
        }
        File(file).delete()
    }
    test("a token stops each blocking call, from another thread and before it begins") {
        inSession { session ->
            CancelToken().use { token ->
                token.share().use { other ->
                    other.cancel()
                    that(token.isCancelled && other.isCancelled)
                }
                that(token.isCancelled)
                fails(Status.CANCELLED) { session.prefill(someIds(8), token) }
                fails(Status.CANCELLED) { session.step(300, token) }
                fails(Status.CANCELLED) { session.score(someIds(8), 0, token) }
                same(Finish.CANCELLED, session.generateBlocking(someIds(8), greedy.copy(cancel = token)).reason)
                same(0L, session.length)
                session.prefill(someIds(8))
                val never = File.createTempFile("carat", ".session")
                fails(Status.CANCELLED) { session.save(never.path, token) }
                same(0L, never.length())
                never.delete()
            }
        }
        val real = System.getenv("CARAT_TEST_MODEL") ?: error("CARAT_TEST_MODEL names no model")
        Model.open(real).use { model ->
            model.newSession(SessionOptions(context = 4096)).use { session ->
                // The long prompt takes many seconds. The bound is the engine's: a scheduler that is busy elsewhere is
                // given two more chances.
                val late = (1..3).minOf {
                    session.truncate(0)
                    CancelToken().use { token ->
                        val at = cancelSoon(token, 300)
                        fails(Status.CANCELLED) { session.prefill(IntArray(4000) { 1000 + it }, token) }
                        (System.nanoTime() - at[0]) / 1_000_000
                    }
                }
                println("       a prefill ended $late ms after it was cancelled")
                that(late <= 200) { "$late ms after it was cancelled" }
            }
        }
    }
}
