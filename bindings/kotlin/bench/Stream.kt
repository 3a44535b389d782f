import ai.carat.GenerateOptions
import ai.carat.Model
import ai.carat.ModelOptions
import ai.carat.Session
import ai.carat.SessionOptions
import java.util.Locale
import kotlinx.coroutines.flow.collect
import kotlinx.coroutines.runBlocking

/** As benches/stream.rs, through a callback and through a flow. usage: StreamKt MODEL */
fun main(args: Array<String>) {
    val tokens = 200
    val rounds = 25
    val options = GenerateOptions(maxTokens = tokens.toLong(), temperature = 0f, ignoreEnd = true)
    var seen = 0
    val ways = mapOf<String, (Session) -> Unit>(
        "callback" to { session -> session.generateBlocking(IntArray(0), options) { ++seen > 0 } },
        "flow" to { session -> runBlocking { session.pieces(IntArray(0), options).collect { seen++ } } },
    )
    val took = ways.keys.associateWith { mutableListOf<Double>() }
    Model.open(args[0], ModelOptions(threads = 1)).use { model ->
        // In turn, so that all have the same weather. What comes first warms up the virtual machine.
        for (round in -rounds until rounds) {
            for ((way, generate) in ways) {
                model.newSession(SessionOptions(context = 256)).use { session ->
                    session.prefill(intArrayOf(2, 300, 301))
                    val began = System.nanoTime()
                    generate(session)
                    val each = (System.nanoTime() - began) / 1e3 / tokens
                    if (round >= 0) took.getValue(way).add(each)
                }
            }
        }
    }
    check(seen >= 2 * rounds * tokens) { "$seen pieces" }
    for ((way, all) in took) println("Kotlin: %s: %.2f".format(Locale.ROOT, way, all.sorted()[rounds / 2]))
}
