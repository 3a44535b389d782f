package ai.carat.tests

/** A reader of JSON, as much of it as the conformance suite has: maps, lists, strings, doubles, longs, booleans, nulls. */
class Json private constructor(private val text: String) {
    private var at = 0

    companion object {
        fun read(text: String): Any? = Json(text).run {
            val value = value()
            space()
            require(at == text.length) { "more after the end" }
            value
        }
    }

    private fun space() {
        while (at < text.length && text[at].isWhitespace()) at++
    }

    private fun next(c: Char): Boolean {
        space()
        return (at < text.length && text[at] == c).also { if (it) at++ }
    }

    private fun expect(c: Char) = require(next(c)) { "expected $c at $at" }

    private fun word(word: String): Boolean = text.startsWith(word, at).also { if (it) at += word.length }

    private fun value(): Any? {
        space()
        return when {
            next('{') -> buildMap {
                if (next('}')) return@buildMap
                do {
                    expect('"')
                    val key = string()
                    expect(':')
                    put(key, value())
                } while (next(','))
                expect('}')
            }
            next('[') -> buildList {
                if (next(']')) return@buildList
                do add(value()) while (next(','))
                expect(']')
            }
            next('"') -> string()
            word("true") -> true
            word("false") -> false
            word("null") -> null
            else -> {
                val start = at
                while (at < text.length && text[at] in "+-.eE0123456789") at++
                val number = text.substring(start, at)
                number.toLongOrNull() ?: number.toDouble()
            }
        }
    }

    private fun string() = buildString {
        while (text[at] != '"') {
            if (text[at] != '\\') {
                append(text[at++])
                continue
            }
            at += 2
            when (val c = text[at - 1]) {
                'n' -> append('\n')
                't' -> append('\t')
                'r' -> append('\r')
                'b' -> append('\b')
                'f' -> append('\u000c')
                'u' -> {
                    append(text.substring(at, at + 4).toInt(16).toChar())
                    at += 4
                }
                else -> append(c)
            }
        }
        at++
    }
}
