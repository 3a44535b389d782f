package ai.carat.tests

import ai.carat.Conversation
import ai.carat.Finish
import ai.carat.Policy
import ai.carat.Role
import ai.carat.SessionOptions
import ai.carat.Status
import ai.carat.Turn
import java.io.File
import kotlinx.coroutines.flow.toList
import kotlinx.coroutines.runBlocking

private val short = greedy.copy(maxTokens = 6)

/** Turns over a session. */
fun Checks.conversations() {
    test("turns: sending, regenerating, editing, answering a whole conversation") {
        tiny().use { model ->
            model.newConversation("Be kind.", SessionOptions(context = 256)).use { talk ->
                same("Be kind.", talk.system)
                val answer = StringBuilder()
                talk.sendBlocking("Hello", short) { answer.append(it.text).length >= 0 }
                same(listOf(Turn(Role.USER, "Hello"), Turn(Role.MODEL, answer.toString())), talk.turns)
                same(2, talk.nTurns)
                val again = runBlocking { talk.regenerate(short).toList().joinToString("") }
                same(answer.toString(), again)
                runBlocking { talk.editLast("Good morning", short).toList() }
                same("Good morning", talk.turns[0].text)
                val streamed = runBlocking { talk.send("And \u00e9\uD83D\uDE42?", short).toList().joinToString("") }
                same(4, talk.nTurns)
                same(Turn(Role.MODEL, streamed), talk.turns[3])
                val all = listOf(Turn(Role.SYSTEM, "Be kind.")) + talk.turns.take(2) + Turn(Role.USER, "Then?")
                val summary = talk.respondBlocking(all, short)
                that(summary.reusedTokens > 0) { "nothing reused" }
                same("Then?", talk.turns[2].text)
                runBlocking { talk.respond(all, short).toList() }
                talk.editLastBlocking("Other", short)
                talk.regenerateBlocking(short)
                that(talk.tokens.isNotEmpty())
                fails(Status.CHAT) { talk.respondBlocking(listOf(Turn(Role.MODEL, "x")), short) }
                throws<IllegalArgumentException> { talk.sendBlocking("x", short.copy(hook = { _, _ -> true })) }
                talk.system = ""
                same("", talk.system)
                talk.trim()
                talk.reset()
                same(0, talk.nTurns)
                fails(Status.CHAT) { talk.regenerateBlocking(short) }
            }
        }
    }
    test("a conversation that is saved and loaded goes on the same") {
        val file = File.createTempFile("carat", ".talk").path
        tiny().use { model ->
            val options = SessionOptions(context = 256)
            model.newConversation("\u00e9", options).use { talk ->
                talk.sendBlocking("Hello", short)
                talk.save(file)
                model.loadConversation(file, options).use { loaded ->
                    same(talk.turns, loaded.turns)
                    same(talk.system, loaded.system)
                    same(talk.tokens.toList(), loaded.tokens.toList())
                    talk.sendBlocking("Go on", short)
                    loaded.sendBlocking("Go on", short)
                    same(talk.turns, loaded.turns)
                }
                val turns = talk.turns.size
                val session = talk.intoSession()
                throws<IllegalStateException> { talk.turns }
                Conversation.resume(session).use { resumed ->
                    same(turns, resumed.nTurns)
                    throws<IllegalStateException> { session.length }
                }
            }
            // A session that holds no conversation is gone all the same.
            val session = model.newSession(options)
            session.prefill(someIds(9))
            fails(Status.CHAT) { Conversation.resume(session) }
            throws<IllegalStateException> { session.length }
        }
        File(file).delete()
    }
    test("a busy session is not taken") {
        inSession { session ->
            session.generateBlocking(someIds(8), short) {
                fails(Status.BUSY) { Conversation(session) }
                true
            }
            same(14L, session.length)
        }
    }
    test("when the context is full, an answer ends or the oldest turns go") {
        tiny().use { model ->
            model.newConversation(options = SessionOptions(context = 96)).use { talk ->
                talk.setPolicy(Policy.DROP_OLDEST)
                var n = 0
                while (talk.dropped.isEmpty() && n++ < 40) talk.sendBlocking("Hello", greedy.copy(maxTokens = 8))
                same(Turn(Role.USER, "Hello"), talk.dropped[0])
                talk.setPolicy(Policy.STOP)
                talk.reset()
                same(Finish.CONTEXT_FULL, talk.sendBlocking("Hello", greedy).reason)
            }
        }
    }
}
