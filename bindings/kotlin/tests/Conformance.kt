package ai.carat.tests

import ai.carat.CancelToken
import ai.carat.CaratException
import ai.carat.Conversation
import ai.carat.GenerateOptions
import ai.carat.LogitsHook
import ai.carat.Model
import ai.carat.ModelOptions
import ai.carat.Piece
import ai.carat.Policy
import ai.carat.Role
import ai.carat.SessionOptions
import ai.carat.Summary
import ai.carat.Turn
import java.io.File
import java.io.RandomAccessFile
import kotlin.math.abs

private typealias Case = Map<*, *>

private const val LOGIT = 2e-3
private const val LOG_PROB = 4e-3

private fun Any?.ids(): IntArray = this?.let { list -> (list as List<*>).map { (it as Long).toInt() }.toIntArray() } ?: IntArray(0)
private fun Any?.rows(): List<List<*>> = (this as List<*>?).orEmpty().map { it as List<*> }
private fun Any?.int(): Int = (this as Long).toInt()
private fun Any?.number(): Double = (this as Number).toDouble()
private fun Any?.map(): Case = this as Case? ?: emptyMap<String, Any?>()
private fun Any?.turns(): List<Turn> =
    rows().map { (role, text) -> Turn(Role.valueOf((role as String).uppercase()), text as String) }

private fun <T> equal(expected: T, found: T, what: String) = that(expected == found) { "$what: expected $expected, found $found" }
private fun near(expected: Any?, found: Double, tolerance: Double, what: String) =
    that(abs(found - expected.number()) <= tolerance) { "$what: expected $expected, found $found" }

private fun session(json: Any?): SessionOptions {
    var o = SessionOptions()
    for ((key, value) in json.map()) {
        o = when (key) {
            "context" -> o.copy(context = value as Long)
            "batch" -> o.copy(batch = value.int())
            "snapshots" -> o.copy(snapshots = value.int())
            else -> error("session option $key")
        }
    }
    return o
}

private fun options(json: Any?, cancel: CancelToken? = null): GenerateOptions {
    var o = GenerateOptions(cancel = cancel)
    for ((key, value) in json.map()) {
        fun float() = value.number().toFloat()
        o = when (key) {
            "max_tokens" -> o.copy(maxTokens = value as Long)
            "temperature" -> o.copy(temperature = float())
            "top_k" -> o.copy(topK = value.int())
            "top_p" -> o.copy(topP = float())
            "min_p" -> o.copy(minP = float())
            "repetition_penalty" -> o.copy(repetitionPenalty = float())
            "presence_penalty" -> o.copy(presencePenalty = float())
            "frequency_penalty" -> o.copy(frequencyPenalty = float())
            "penalty_window" -> o.copy(penaltyWindow = value.int())
            "seed" -> o.copy(seed = value as Long)
            "top_log_probs" -> o.copy(topLogProbs = value.int())
            "ignore_end" -> o.copy(ignoreEnd = value as Boolean)
            "stop" -> o.copy(stop = (value as List<*>).map { it as String })
            "logit_bias" -> o.copy(
                logitBias = value.rows().associate { (id, bias) -> id.int() to (bias?.number()?.toFloat() ?: Float.NEGATIVE_INFINITY) },
            )
            else -> error("option $key")
        }
    }
    return o
}

/** Runs the cases of tests/conformance: see the README there. */
private class Runner(val scratch: File) {
    val models = HashMap<String, Model>()

    fun path(name: Any?): String =
        if (name == "real") System.getenv("CARAT_TEST_MODEL") ?: error("no real model") else "$data/$name"

    fun run(case: Case) {
        if (case["kind"] == "error") return error(case)
        if (case["kind"] == "model") return info(case)
        val model = models.getOrPut(case["model"] as String) { Model.open(path(case["model"]), ModelOptions(threads = 2)) }
        when (case["kind"]) {
            "tokenize" -> tokenize(model, case)
            "vocabulary" -> vocabulary(model, case)
            "logits" -> logits(model, case)
            "score" -> score(model, case)
            "generate" -> generate(model, case)
            "render" -> equal(case["ids"].ids().toList(), model.tokenizer.render(case["turns"].turns()).toList(), "ids")
            "chat" -> chat(model, case)
            else -> error("kind ${case["kind"]}")
        }
    }

    fun tokenize(model: Model, case: Case) {
        val ids = model.tokenizer.encode(case["text"] as String, case["bos"] == true, case["special"] == true)
        equal(case["ids"].ids().toList(), ids.toList(), "ids")
        equal(case["decoded"], model.tokenizer.decode(ids), "decoded")
        model.tokenizer.decoder().use { decoder ->
            equal(case["decoded"], ids.map(decoder::push).joinToString("") + decoder.flush(), "decoded one by one")
        }
    }

    fun vocabulary(model: Model, case: Case) {
        val t = model.tokenizer.special
        val found = mapOf(
            "vocab_size" to t.vocabSize, "bos" to t.bos, "eos" to t.eos, "unk" to t.unk, "pad" to t.pad,
            "start_of_turn" to t.startOfTurn, "end_of_turn" to t.endOfTurn,
        )
        for ((key, value) in case["special"].map()) equal((value as Long?)?.toInt(), found.getValue(key as String), "$key")
        for (token in case["tokens"] as List<*>) {
            val (id, bytes, kind) = token.map().run { Triple(get("id").int(), get("bytes").ids(), get("kind")) }
            equal(bytes.toList(), model.tokenizer.bytes(id).map { it.toInt() and 255 }, "bytes of $id")
            equal(kind, model.tokenizer.kind(id).name.lowercase(), "kind of $id")
        }
        for ((text, id) in case["ids"].rows()) equal((id as Long?)?.toInt(), model.tokenizer.id(text as String), "id of $text")
    }

    fun info(case: Case) {
        val file = File(path(case["model"]))
        val opened = when (case["by"]) {
            "path" -> Model.open(file)
            "bytes" -> Model.open(file.readBytes())
            else -> error("by ${case["by"]}")
        }
        opened.use { model ->
            val i = model.info
            val found = mapOf(
                "arch" to i.arch.name.lowercase(), "n_layers" to i.nLayers, "d_model" to i.dModel, "d_ff" to i.dFf,
                "n_heads" to i.nHeads, "n_kv_heads" to i.nKvHeads, "head_dim" to i.headDim, "vocab" to i.vocab,
                "sliding_window" to i.slidingWindow, "context_length" to i.contextLength, "n_tensors" to i.nTensors,
                "file_bytes" to i.fileBytes,
            )
            for ((key, value) in case["info"].map()) equal("$value", "${found.getValue(key as String)}", key)
            for ((key, value) in case["metadata"].rows()) equal(value, model.metadata(key as String), key)
            for (row in case["tensors"].rows()) {
                val t = model.tensor(row[0] as Long)
                equal(row.drop(1), listOf(t.name, t.type, t.dims, t.offset, t.size), "tensor")
            }
        }
    }

    fun logits(model: Model, case: Case) {
        val ids = case["ids"].ids()
        val o = SessionOptions(context = 256, batch = 64)
        val last = ids.size - 1
        val left = (case["at"] as List<*>).associateBy { it.map()["position"].int() }.toMutableMap()
        fun check(position: Int, logits: FloatArray) {
            val row = left.remove(position).let { it ?: return }.map()
            equal(row["argmax"].int(), logits.indices.maxBy { logits[it] }, "the likeliest after $position")
            for ((id, value) in row["values"].rows()) near(value, logits[id.int()].toDouble(), LOGIT, "logit of $id after $position")
        }
        var s = model.newSession(o)
        try {
            fun now(position: Int) = s.logits().use { check(position, it.toFloatArray()) }
            when (val via = case["via"]) {
                "prefill" -> {
                    s.prefill(ids)
                    now(last)
                }
                "prefill_each" -> s.prefillEach(ids) { i, logits ->
                    check(i, logits)
                    true
                }
                "step" -> for ((i, id) in ids.withIndex()) {
                    s.step(id)
                    now(i)
                }
                else -> {
                    s.prefill(ids.copyOf(last))
                    when (via) {
                        "fork" -> s = s.use { it.fork() }
                        "trim" -> s.trim()
                        "save_and_load" -> {
                            val file = File(scratch, "session").path
                            s.use { it.save(file) }
                            s = model.loadSession(file, o)
                            equal(ids.take(last), s.tokens.toList(), "tokens")
                        }
                        "truncate" -> {
                            s.prefill(ids.copyOf(2))
                            s.truncate(last.toLong())
                        }
                        else -> error("via $via")
                    }
                    s.step(ids[last])
                    now(last)
                }
            }
            equal(emptySet<Int>(), left.keys.toSet(), "positions that were not seen")
            equal(ids.toList(), s.tokens.toList(), "tokens")
        } finally {
            s.close()
        }
    }

    fun score(model: Model, case: Case) = model.newSession(SessionOptions(context = 256, batch = 64)).use { s ->
        case["before"].ids().let { if (it.isNotEmpty()) s.prefill(it) }
        val found = s.score(case["ids"].ids(), case["from"].int())
        val expected = case["scores"].rows()
        equal(expected.size, found.size, "number of scores")
        for ((f, e) in found.zip(expected)) {
            equal(e[0].int(), f.token, "token")
            near(e[1], f.logProb.toDouble(), LOG_PROB, "score of ${f.token}")
            that(f.rank in e[2].int()..e[3].int()) { "rank of ${f.token}: ${f.rank}" }
        }
    }

    fun generate(model: Model, case: Case) = CancelToken().use { cancel ->
        model.newSession(session(case["session"])).use { s ->
            case["before"].ids().let { if (it.isNotEmpty()) s.prefill(it) }
            if (case["cancelled"] == true) cancel.cancel()
            val force = case["force"].ids().iterator()
            val hook = if (case["force"] == null) null else LogitsHook { _, logits ->
                logits.fill(Float.NEGATIVE_INFINITY)
                logits[force.nextInt()] = 0f
                true
            }
            val pieces = mutableListOf<Piece>()
            val summary = s.generateBlocking(case["prompt"].ids(), options(case["options"], cancel).copy(hook = hook)) { piece ->
                pieces += piece
                val n = pieces.count { it.token != null }.toLong()
                if (piece.token != null && case["cancel_after"] == n) cancel.cancel()
                piece.token == null || case["stop_after"] != n
            }
            val expect = case["expect"].map()
            equal(expect["tokens"].ids().toList(), pieces.mapNotNull { it.token }, "tokens")
            for ((key, value) in expect) {
                when (key) {
                    "tokens" -> {}
                    "text" -> equal(value, pieces.joinToString("") { it.text }, "text")
                    "pieces" -> equal(value, pieces.map { it.text }, "pieces")
                    "reason" -> equal(value, summary.reason.name.lowercase(), "reason")
                    "stop_index" -> equal(value.int(), summary.stopIndex, "stop_index")
                    "prompt_tokens" -> equal(value, summary.promptTokens, "prompt_tokens")
                    "generated_tokens" -> equal(value, summary.generatedTokens, "generated_tokens")
                    "len" -> equal(value, s.length, "len")
                    "log_prob" -> near(value, pieces[0].logProb!!.toDouble(), LOG_PROB, "log_prob")
                    "top" -> {
                        val rows = value.rows()
                        equal(rows.map { it[0].int() }, pieces[0].top.map { it.token }, "top")
                        for ((e, f) in rows.zip(pieces[0].top)) near(e[1], f.logProb.toDouble(), LOG_PROB, "top")
                    }
                    else -> error("expect $key")
                }
            }
        }
    }

    fun chat(model: Model, case: Case) {
        val o = session(case["session"])
        var c = model.newConversation(case["system"] as String?, o)
        try {
            when (case["policy"]) {
                null -> {}
                "drop_oldest" -> c.setPolicy(Policy.DROP_OLDEST)
                else -> error("policy ${case["policy"]}")
            }
            for (action in (case["actions"] as List<*>).map { it.map() }) {
                val answer = StringBuilder()
                val take = { piece: Piece -> answer.append(piece.text).length >= 0 }
                val how = options(action["options"])
                val summary: Summary? = when (action["do"]) {
                    "send" -> c.sendBlocking(action["text"] as String, how, take)
                    "edit_last" -> c.editLastBlocking(action["text"] as String, how, take)
                    "regenerate" -> c.regenerateBlocking(how, take)
                    "respond" -> c.respondBlocking(action["turns"].turns(), how, take)
                    "reset" -> null.also { c.reset() }
                    "set_system" -> null.also { c.system = action["text"] as String }
                    "trim" -> null.also { c.trim() }
                    "save_and_load" -> null.also {
                        val file = File(scratch, "conversation").path
                        c.use { it.save(file) }
                        c = model.loadConversation(file, o)
                    }
                    else -> error("action ${action["do"]}")
                }
                if (summary == null) continue
                val expect = action["expect"].map()
                equal(expect["answer"], answer.toString(), "answer")
                equal(expect["reason"], summary.reason.name.lowercase(), "reason")
                equal(expect["prompt_tokens"], summary.promptTokens, "prompt_tokens")
                equal(expect["reused_tokens"], summary.reusedTokens, "reused_tokens")
                equal(expect["generated_tokens"], summary.generatedTokens, "generated_tokens")
                equal(expect["dropped"].turns(), c.dropped, "dropped")
            }
            equal(case["turns"].turns(), c.turns, "turns")
            equal(case["tokens"].ids().toList(), c.tokens.toList(), "tokens")
        } finally {
            c.close()
        }
    }

    /** The file that a recipe describes. */
    fun cook(recipe: Case): File {
        val file = File(scratch, recipe["name"] as String? ?: "case.gguf")
        var bytes = when {
            recipe["of"] != null -> File("$data/${recipe["of"]}").readBytes()
            recipe["bytes"] != null -> recipe["bytes"].ids().map { it.toByte() }.toByteArray()
            else -> return file
        }
        recipe["keep"]?.let { bytes = bytes.copyOf(it.int()) }
        for ((at, byte) in recipe["set"].rows()) bytes[at.int()] = byte.int().toByte()
        (recipe["replace"] as List<*>?)?.let { (old, new) ->
            val (o, n) = (old as String).encodeToByteArray() to (new as String).encodeToByteArray()
            require(o.size == n.size)
            val at = (0..bytes.size - o.size).first { i -> o.indices.all { bytes[i + it] == o[it] } }
            n.copyInto(bytes, at)
        }
        file.delete() // a model that was opened may have it mapped
        file.writeBytes(bytes)
        return file
    }

    fun error(case: Case) {
        var after: Long? = null
        val e = throws<CaratException> { provoke(case) { after = it } }
        equal(case["status"], e.status.cName, "status (${e.message})")
        val kind = when (e) {
            is CaratException.Usage, is CaratException.Rewind -> "usage"
            is CaratException.File -> "file"
            is CaratException.Cancelled -> "cancelled"
            is CaratException.Runtime -> "runtime"
        }
        equal(case["error_kind"], kind, "kind")
        that(case["message"] as String in e.message!!) { "message: ${e.message}" }
        equal(case["nearest"] == true, e is CaratException.Rewind, "whether there is a nearest length")
        case["len_after"]?.let { equal(it, after, "length after") }
    }

    fun provoke(case: Case, lengthAfter: (Long) -> Unit) {
        val path = (case["model"] as String?)?.let(::path) ?: cook(case["file"].map()).path
        CancelToken().use { token ->
            if (case["cancelled"] == true) token.cancel()
            val o = session(case["session"])
            val threads = case["open"].map()["threads"]?.int() ?: 1
            val call = case["call"] as String
            if (call == "plan") {
                Model.plan(path, 1, o)
                return
            }
            // The token is that of the call, which may be the opening.
            val how = ModelOptions(threads = threads, cancel = token.takeIf { call == "open" })
            val opened = if (case["by"] == "bytes") Model.open(File(path).readBytes(), how) else Model.open(path, how)
            opened.use { model -> with(model, path, case, call, o, token, lengthAfter) }
        }
    }

    fun with(model: Model, path: String, case: Case, call: String, o: SessionOptions, token: CancelToken, lengthAfter: (Long) -> Unit) {
        val id by lazy { case["id"].int() }
        fun file() = cook(case["file_to_load"].map()).path
        when (call) {
            "open" -> return
            "tokenize" -> return Unit.also { model.tokenizer.encode(case["text"] as String, cancel = token) }
            "detokenize" -> return Unit.also { model.tokenizer.decode(case["ids"].ids()) }
            "decoder" -> return model.tokenizer.decoder().use { it.push(id) }
            "token_bytes" -> return Unit.also { model.tokenizer.bytes(id) }
            "token_kind" -> return Unit.also { model.tokenizer.kind(id) }
            "metadata" -> return Unit.also { model.metadata(case["key"] as String) }
            "render" -> return Unit.also { model.tokenizer.render(case["turns"].turns(), token) }
            "load" -> return model.loadSession(file(), o, token).close()
            "load_conversation" -> return model.loadConversation(file(), o, token).close()
        }
        model.newSession(o).use { s ->
            case["before"].ids().let { if (it.isNotEmpty()) s.prefill(it) }
            case["cut"]?.let { s.truncate(it as Long) }
            case["shrink_to"]?.let { length -> RandomAccessFile(path, "rw").use { it.setLength(length as Long) } }
            val ids = case["ids"].ids()
            val how = options(case["options"], token)
            if (call == "resume") return Conversation.resume(s).close()
            if (call in listOf("send", "regenerate", "edit_last", "respond")) {
                Conversation(s).use { c ->
                    when (call) {
                        "send" -> c.sendBlocking(case["text"] as String, how)
                        "regenerate" -> c.regenerateBlocking(how)
                        "edit_last" -> c.editLastBlocking(case["text"] as String, how)
                        else -> c.respondBlocking(case["turns"].turns(), how)
                    }
                }
                return
            }
            try {
                when (call) {
                    "session" -> {}
                    "prefill" -> s.prefill(ids, token)
                    "prefill_each" -> s.prefillEach(ids, token) { i, _ -> case["stop_after"] != i + 1L }
                    "step" -> s.step(case["token"].int(), token)
                    "score" -> s.score(ids, case["from"].int(), token)
                    "logits" -> s.logits().close()
                    "truncate" -> s.truncate(case["to"] as Long)
                    "generate" -> s.generateBlocking(case["prompt"].ids(), how)
                    "busy" -> s.generateBlocking(case["prompt"].ids(), how) { s.prefill(intArrayOf(2)).let { true } }
                    "save" -> s.save(File(scratch, case["to_file"] as String? ?: "session").path, token)
                    else -> error("call $call")
                }
            } catch (e: CaratException.Rewind) {
                lengthAfter(s.length)
                s.truncate(e.nearest)
                equal(e.nearest, s.length, "length after the cut")
                throw e
            } catch (e: CaratException) {
                lengthAfter(s.length)
                throw e
            }
        }
    }
}

fun Checks.conformance(folder: String) {
    val report = System.getenv("CARAT_CONFORMANCE_REPORT")?.let { File(it).printWriter() }
    val scratch = kotlin.io.path.createTempDirectory("carat").toFile()
    val runner = Runner(scratch)
    val files = File(folder).listFiles { f -> f.extension == "json" }.orEmpty().sorted()
    test("there is a conformance suite") { that(files.isNotEmpty()) { "no cases in $folder" } }
    for (case in files.flatMap { Json.read(it.readText()) as List<*> }.map { it as Case }) {
        val name = case["name"] as String
        val why = (case["not_in"] as Case?)?.get("kotlin")
        if (why != null) {
            report?.println("n/a $name: $why")
            continue
        }
        if (case["model"] == "real" && System.getenv("CARAT_TEST_MODEL") == null) continue
        var failure: Throwable? = null
        test("conformance: $name") {
            try {
                runner.run(case)
            } catch (e: Throwable) {
                failure = e
                throw e
            }
        }
        report?.println(failure?.let { "FAIL $name: ${it.message?.replace('\n', ' ')}" } ?: "pass $name")
    }
    report?.close()
    runner.models.values.forEach(Model::close)
    scratch.deleteRecursively()
}
