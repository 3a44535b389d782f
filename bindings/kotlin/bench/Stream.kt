import ai.carat.GenerateOptions
import ai.carat.Model
import ai.carat.ModelOptions
import ai.carat.SessionOptions
import kotlinx.coroutines.flow.collect
import kotlinx.coroutines.runBlocking

/**
 * Microseconds a token: through a flow, and by the blocking call with a callback. The model's own time is that of the C
 * interface, which bench/stream.c measures in the same way.
 * usage: StreamKt MODEL [TOKENS [ROUNDS]]
 */
fun main(args: Array<String>) {
    val tokens = args.getOrNull(1)?.toLong() ?: 2000
    val rounds = args.getOrNull(2)?.toInt() ?: 7
    val prompt = intArrayOf(2, 300, 301, 302)
    val options = GenerateOptions(maxTokens = tokens, temperature = 0f, ignoreEnd = true)
    Model.open(args[0], ModelOptions(threads = 1)).use { model ->
        model.newSession(SessionOptions(context = tokens + 16)).use { session ->
            fun best(run: () -> Unit): Double = (1..rounds).minOf {
                session.truncate(0)
                val start = System.nanoTime()
                run()
                (System.nanoTime() - start) / 1e3 / tokens
            }
            var seen = 0L
            val blocking = best { session.generateBlocking(prompt, options) { ++seen > 0 } }
            val flow = best { runBlocking { session.pieces(prompt, options).collect { seen++ } } }
            check(seen >= 2 * rounds * tokens) { "$seen pieces" }
            println("kotlin blocking %.2f us a token".format(blocking))
            println("kotlin flow %.2f us a token".format(flow))
        }
    }
}
