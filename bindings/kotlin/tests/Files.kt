package ai.carat.tests

import ai.carat.CancelToken
import ai.carat.Carat
import ai.carat.CaratException
import ai.carat.Arch
import ai.carat.Engine
import ai.carat.GenerateOptions
import ai.carat.Isa
import ai.carat.LogLevel
import ai.carat.MemoryLock
import ai.carat.Model
import ai.carat.ModelOptions
import ai.carat.Native
import ai.carat.SessionOptions
import ai.carat.Status
import ai.carat.toLong
import java.io.File
import java.io.FileDescriptor
import java.io.RandomAccessFile
import java.nio.ByteBuffer
import java.util.concurrent.ConcurrentLinkedQueue

/** The number of a descriptor, which Android hands out and the JVM hides: needs --add-opens java.base/java.io=ALL-UNNAMED. */
private fun number(descriptor: FileDescriptor): Int =
    FileDescriptor::class.java.getDeclaredField("fd").also { it.isAccessible = true }.getInt(descriptor)

private fun answers(model: Model): String = buildString {
    model.newSession(SessionOptions(context = 64)).use { session ->
        session.generateBlocking(someIds(8), greedy.copy(maxTokens = 8)) { append("${it.token} ").isNotEmpty() }
    }
}

/** Opening, what is in a file, and the library itself. */
fun Checks.files() {
    test("the statuses are those of carat.h, by number and name") {
        val header = File(data, "../../include/carat.abi").readLines()
        val constants = header.mapNotNull { Regex("constant (CARAT_[A-Z0-9_]+): (\\d+)").matchEntire(it)?.destructured }
            .associate { (name, value) -> name to value.toInt() }
        val known = Status.entries.filter { it != Status.UNKNOWN }
        for (status in known) {
            same("CARAT_${status.name}", status.cName)
            same(constants["CARAT_${status.name}"], status.number)
        }
        // Those that the header has are the numbers from 1 on.
        same(known.size, known.maxOf { it.number })
        same("CARAT_?", Native.statusName(known.size + 1))
        same(Carat.abiVersion, constants["CARAT_ABI_VERSION"])
        for ((name, value) in constants) {
            if (name.startsWith("CARAT_ISA_")) same(value, Isa.valueOf(name.removePrefix("CARAT_ISA_")).number)
            if (name.startsWith("CARAT_ARCH_")) same(value, Arch.valueOf(name.removePrefix("CARAT_ARCH_")).number)
        }
    }
    test("defaults are the library's") {
        val (m, s, g) = Triple(ModelOptions(), SessionOptions(), GenerateOptions())
        val ours = doubleArrayOf(
            m.threads.toDouble(), m.isa.number.toDouble(), m.privateCopy.toLong().toDouble(),
            m.preload.toLong().toDouble(), m.engine.number.toDouble(), m.lock.toLong().toDouble(),
            s.context.toDouble(), s.batch.toDouble(), s.kv.number.toDouble(), s.snapshots.toDouble(),
            s.exact.toLong().toDouble(), s.fullHistory.toLong().toDouble(), s.draft.toDouble(),
            0.0, 0.0,
            g.ignoreEnd.toLong().toDouble(), g.maxTokens.toDouble(), g.temperature.toDouble(), g.topP.toDouble(),
            g.minP.toDouble(), g.repetitionPenalty.toDouble(), g.presencePenalty.toDouble(),
            g.frequencyPenalty.toDouble(), g.topK.toDouble(), g.penaltyWindow.toDouble(), g.topLogProbs.toDouble(), 0.0,
        )
        same(Native.defaults().toList(), ours.toList())
    }
    test("the version and the machine") {
        that(Regex("\\d+\\.\\d+\\.\\d+").matches(Carat.version)) { Carat.version }
        that(Isa.SCALAR.isAvailable)
        same("scalar", Isa.SCALAR.cName)
        that(Carat.measureLimits(1, Isa.SCALAR).readBytesPerSecond > 1e6)
        fails(Status.INVALID_OPTION) { Carat.measureLimits(-1) }
    }
    test("a model opened by path, file, descriptor and bytes is the same") {
        val file = File(data, "tiny-gemma3.gguf")
        val expected = tiny().use(::answers)
        Model.open(file).use { same(expected, answers(it)) }
        val bytes = file.readBytes()
        Model.open(bytes).use { same(expected, answers(it)) }
        val direct = ByteBuffer.allocateDirect(bytes.size + 3)
        direct.position(3)
        direct.put(bytes).position(3)
        Model.open(direct).use {
            same(3, direct.position())
            same(expected, answers(it))
        }
        RandomAccessFile(file, "r").use { f ->
            val model = Model.open(number(f.fd))
            f.close()
            model.use { same(expected, answers(it)) }
        }
        // As an asset lies in a package: in the midst of another file.
        val package_ = File.createTempFile("carat", ".apk")
        package_.writeBytes(ByteArray(4097) { 7 } + bytes + ByteArray(99) { 9 })
        RandomAccessFile(package_, "r").use { f ->
            Model.open(number(f.fd), 4097, bytes.size.toLong()).use { same(expected, answers(it)) }
            fails(Status.INVALID_OPTION) { Model.open(number(f.fd), 4097, bytes.size + 100L) }
            throws<IllegalArgumentException> { Model.open(number(f.fd), -1) }
        }
        package_.delete()
    }
    test("what is wrong with a file is said by an exception of its kind") {
        val missing = throws<CaratException.File> { Model.open("/nowhere/\u00e9\uD83D\uDE42.gguf") }
        same(Status.IO, missing.status)
        that("/nowhere/\u00e9\uD83D\uDE42.gguf" in missing.message!!) { missing.message!! }
        that(missing.message!!.startsWith("CARAT_IO: "))
        same(Status.FORMAT, throws<CaratException.File> { Model.open(ByteArray(64)) }.status)
        same(Status.FORMAT, throws<CaratException.File> { Model.open(ByteArray(0)) }.status)
        throws<CaratException.Usage> { Model.open("half\uD83Da.gguf") }
        same(Status.INVALID_OPTION, throws<CaratException.Usage> {
            Model.open("$data/tiny-gemma3.gguf", ModelOptions(threads = 257))
        }.status)
        fails(Status.IO) { Model.plan("/nowhere", 1) }
        Model.open("$data/tiny-gemma3.gguf", ModelOptions(engine = Engine.SENTENCEPIECE)).use {
            fails(Status.UNSUPPORTED) { it.tokenizer.encode("a") }
        }
    }
    test("what a file holds") {
        tiny(2).use { model ->
            val info = model.info
            same(Arch.GEMMA3, info.arch)
            same(2, info.threads)
            same(MemoryLock.NOT_LOCKED, info.memoryLock)
            same(File(data, "tiny-gemma3.gguf").length(), info.fileBytes)
            same("gemma3", model.metadata("general.architecture"))
            fails(Status.METADATA) { model.metadata("no.such.key") }
            val tensors = (0 until info.nTensors).map(model::tensor)
            val embedding = tensors.first { it.name == "token_embd.weight" }
            same(listOf(info.dModel.toLong(), info.vocab.toLong()), embedding.dims)
            that(tensors.all { it.size > 0 && it.type.isNotEmpty() })
            fails(Status.INVALID_ARGUMENT) { model.tensor(info.nTensors) }
            val plan = model.plan(SessionOptions(context = 64))
            same(plan, Model.plan("$data/tiny-gemma3.gguf", 2, SessionOptions(context = 64)).copy(available = plan.available))
            same(plan.total, plan.run { file + kvCache + scratch + snapshots + tokenizer + other })
            that(model.plan(SessionOptions(context = 256)).kvCache > plan.kvCache)
        }
    }
    test("opening tells how far it is, and is stopped by what it tells or by a token") {
        val path = "$data/tiny-gemma3.gguf"
        val seen = mutableListOf<Pair<Long, Long>>()
        val options = ModelOptions(preload = true, progress = { done, total -> seen.add(done to total) })
        Model.open(path, options).close()
        that(seen.isNotEmpty() && seen.zipWithNext().all { (a, b) -> a.first <= b.first })
        same(seen.last().second, seen.last().first)
        throws<CaratException.Cancelled> { Model.open(path, options.copy(progress = { _, _ -> false })) }
        val mine = RuntimeException("mine")
        that(throws<RuntimeException> { Model.open(path, options.copy(progress = { _, _ -> throw mine })) } === mine)
        CancelToken().use { token ->
            token.cancel()
            same(Status.CANCELLED, throws<CaratException.Cancelled> { Model.open(path, ModelOptions(cancel = token)) }.status)
        }
    }
    test("log messages come, and what the log throws goes") {
        val said = ConcurrentLinkedQueue<Pair<LogLevel, String>>()
        Model.open("$data/tiny-gemma3.gguf", ModelOptions(log = { level, text -> said.add(level to text) })).use {
            it.tokenizer.encode("a")
            that(said.any { (level, text) -> level == LogLevel.INFO && "tokenizer" in text }) { said.toString() }
        }
        Model.open("$data/tiny-gemma3.gguf", ModelOptions(log = { _, _ -> error("no") })).use {
            that(it.tokenizer.encode("a").isNotEmpty())
        }
    }
}
