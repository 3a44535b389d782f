package ai.carat.tests

import ai.carat.CancelToken
import ai.carat.CaratException
import ai.carat.GenerateOptions
import ai.carat.Model
import ai.carat.ModelOptions
import ai.carat.Session
import ai.carat.SessionOptions
import ai.carat.Status
import kotlin.system.exitProcess

/** Collects the tests of the files beside this one, and counts. */
class Checks {
    var passed = 0
    var failed = 0

    fun test(name: String, body: () -> Unit) {
        try {
            body()
            passed++
            println("ok     $name")
        } catch (e: Throwable) {
            failed++
            println("FAILED $name")
            e.printStackTrace(System.out)
        }
    }
}

fun that(condition: Boolean, what: () -> String = { "not so" }) {
    if (!condition) throw AssertionError(what())
}

fun <T> same(expected: T, found: T) = that(expected == found) { "expected $expected, found $found" }

/** The exception that a block ends with. */
inline fun <reified E : Throwable> throws(block: () -> Unit): E {
    try {
        block()
    } catch (e: Throwable) {
        return e as? E ?: throw AssertionError("expected ${E::class}, found $e", e)
    }
    throw AssertionError("expected ${E::class}, found none")
}

fun fails(status: Status, block: () -> Unit): CaratException =
    throws<CaratException>(block).also { same(status, it.status) }

/** tests/data */
lateinit var data: String

fun tiny(threads: Int = 1, name: String = "tiny-gemma3"): Model =
    Model.open("$data/$name.gguf", ModelOptions(threads = threads))

/** A session on the tiny model, closed with it at the end. */
fun <T> inSession(options: SessionOptions = SessionOptions(context = 256, batch = 64), block: (Session) -> T): T =
    tiny().use { model -> model.newSession(options).use(block) }

fun someIds(n: Int): IntArray = IntArray(n) { 259 + it * 37 % 480 }.also { it[0] = 2 }

/** The likeliest token each time, however the text ends. */
val greedy = GenerateOptions(temperature = 0f, ignoreEnd = true)

/** Sets a token some time from now; the time it did so, in nanoseconds, is in the result. */
fun cancelSoon(token: CancelToken, millis: Long): LongArray {
    val at = LongArray(1)
    Thread {
        Thread.sleep(millis)
        at[0] = System.nanoTime()
        token.cancel()
    }.start()
    return at
}

fun main(args: Array<String>) {
    data = args[0]
    val checks = Checks()
    checks.files()
    checks.texts()
    checks.sessions()
    checks.callbacks()
    checks.streams()
    checks.conversations()
    checks.lifetimes()
    checks.conformance(args[1])
    println("${checks.passed} passed, ${checks.failed} failed")
    exitProcess(if (checks.failed == 0) 0 else 1)
}
