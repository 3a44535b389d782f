package ai.carat.tests

import ai.carat.CaratException
import ai.carat.PieceKind
import ai.carat.Role
import ai.carat.SessionOptions
import ai.carat.Status
import ai.carat.Turn

/** Every code point, in order; of surrogates, none. */
private fun codePoints() = (0..0x10ffff).asSequence().filter { it !in 0xd800..0xdfff }

private fun text(points: List<Int>) = buildString { points.forEach(::appendCodePoint) }

/** UTF-16 to UTF-8 and back, and the tokenizer. */
fun Checks.texts() {
    test("every code point goes to the library and comes back") {
        tiny().use { model ->
            model.newConversation(options = SessionOptions(context = 64)).use { talk ->
                codePoints().chunked(4096).forEach { chunk ->
                    val sent = text(chunk)
                    talk.system = sent
                    same(sent, talk.system)
                }
            }
        }
    }
    test("every code point goes through the tokenizer, but the mark that stands for a space") {
        tiny().use { model ->
            val tokenizer = model.tokenizer
            codePoints().filter { it != 0x2581 }.chunked(8192).forEach { chunk ->
                val sent = text(chunk)
                same(sent, tokenizer.decode(tokenizer.encode(sent)))
            }
            same(" ", tokenizer.decode(tokenizer.encode("\u2581")))
        }
    }
    test("half a surrogate pair becomes U+FFFD, wherever it stands") {
        tiny().use { model ->
            model.newConversation(options = SessionOptions(context = 64)).use { talk ->
                for (half in '\uD800'..'\uDFFF') {
                    talk.system = "a${half}b"
                    same("a\uFFFDb", talk.system)
                }
                talk.system = "\uDE42\uD83D"
                same("\uFFFD\uFFFD", talk.system)
            }
            val tokenizer = model.tokenizer
            same("x\uFFFD", tokenizer.decode(tokenizer.encode("x\uD83D")))
            throws<CaratException.Usage> { model.loadSession("a\uD83D") }
        }
    }
    test("a decoder hands out whole characters only") {
        tiny().use { model ->
            val sent = "\u00e9\uD83D\uDE42 \u0000 \u4f60\u597d"
            model.tokenizer.decoder().use { decoder ->
                val parts = model.tokenizer.encode(sent).map(decoder::push) + decoder.flush()
                same(sent, parts.joinToString(""))
                that(parts.none { part -> part.any { it == '\uFFFD' } })
                that(parts.any { it.isEmpty() }) { "no character of several pieces" }
                // The beginning of a character that never ends.
                decoder.push(model.tokenizer.encode("\uD83D\uDE42").first())
                same("\uFFFD", decoder.flush())
                fails(Status.TOKEN_OUT_OF_RANGE) { decoder.push(1 shl 30) }
            }
        }
    }
    test("the vocabulary") {
        tiny().use { model ->
            val tokenizer = model.tokenizer
            val special = tokenizer.special
            same(model.info.vocab, special.vocabSize)
            same(special.bos, tokenizer.id("<bos>"))
            same(null, tokenizer.id("no piece reads like this"))
            same(PieceKind.CONTROL, tokenizer.kind(special.startOfTurn))
            same("<start_of_turn>", tokenizer.bytes(special.startOfTurn).decodeToString())
            val byte = (0 until special.vocabSize).first { tokenizer.kind(it) == PieceKind.BYTE }
            same(1, tokenizer.bytes(byte).size)
            fails(Status.TOKEN_OUT_OF_RANGE) { tokenizer.kind(special.vocabSize) }
            fails(Status.TOKEN_OUT_OF_RANGE) { tokenizer.bytes(-1) }
            fails(Status.TOKEN_OUT_OF_RANGE) { tokenizer.decode(intArrayOf(special.vocabSize)) }
            same("", tokenizer.decode(IntArray(0)))
            same(0, tokenizer.encode("").size)
            same(special.bos, tokenizer.encode("a", bos = true)[0])
            same(special.startOfTurn, tokenizer.encode("<start_of_turn>", special = true).single())
            that(special.startOfTurn !in tokenizer.encode("<start_of_turn>"))
        }
    }
    test("turns become ids, and an order that the template does not know is an error") {
        tiny().use { model ->
            val tokenizer = model.tokenizer
            val ids = tokenizer.render(listOf(Turn(Role.SYSTEM, "Be kind."), Turn(Role.USER, "Hi\u0000 \uD83D\uDE42")))
            same(tokenizer.special.bos, ids[0])
            that("Hi\u0000 \uD83D\uDE42" in tokenizer.decode(ids))
            fails(Status.CHAT) { tokenizer.render(listOf(Turn(Role.MODEL, "Hi"))) }
            fails(Status.CHAT) { tokenizer.render(emptyList()) }
        }
    }
}
