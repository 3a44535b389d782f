import CCarat
import Foundation
import XCTest

@testable import Carat

final class ModelTests: XCTestCase {
    func testTheLibraryTellsItsVersion() {
        XCTAssertEqual(Library.version.split(separator: ".").count, 3)
        XCTAssertGreaterThanOrEqual(Library.abiVersion, Int(CARAT_ABI_VERSION))
        XCTAssertTrue(ISA.scalar.isAvailable)
        XCTAssertEqual(ISA.scalar.description, "scalar")
        XCTAssertFalse(ISA(rawValue: 999).isAvailable)
    }

    func testOpensAPathAURLADescriptorAndData() throws {
        let path = data("tiny-gemma3.gguf")
        let expected = try tiny().info
        XCTAssertEqual(expected.architecture, .gemma3)
        XCTAssertEqual(expected.vocabularySize, 768)
        XCTAssertEqual(expected.slidingWindow, 16)
        XCTAssertEqual(expected.tensorCount, 93)

        let options = ModelOptions(threads: 1)
        XCTAssertEqual(try Model(contentsOf: URL(fileURLWithPath: path), options: options).info, expected)
        XCTAssertEqual(status { _ = try Model(contentsOf: URL(string: "https://example.com/x")!) }, .invalidArgument)

        // At an odd offset of another file, with something behind it.
        let file = try Data(contentsOf: URL(fileURLWithPath: path))
        let inside = try scratch(self).appendingPathComponent("inside")
        try (Data(repeating: 7, count: 4099) + file + Data(repeating: 9, count: 100)).write(to: inside)
        let handle = try FileHandle(forReadingFrom: inside)
        let fromDescriptor = try Model(
            fileDescriptor: handle.fileDescriptor, offset: 4099, length: UInt64(file.count), options: options)
        try handle.close()
        XCTAssertEqual(try ids(fromDescriptor), try ids(tiny()))
        XCTAssertEqual(status { _ = try Model(fileDescriptor: -1) }, .invalidArgument)

        // The model keeps the bytes.
        var model: Model? = try Model(data: Data(contentsOf: URL(fileURLWithPath: path), options: .alwaysMapped), options: options)
        XCTAssertEqual(try ids(model!), try ids(tiny()))
        let session = try Session(model!)
        model = nil
        XCTAssertNoThrow(try session.prefill(someIDs))
    }

    func testOpensInTasks() async throws {
        let path = data("tiny-gemma3.gguf")
        let url = URL(fileURLWithPath: path)
        let handle = try FileHandle(forReadingFrom: url)
        let options = ModelOptions(threads: 1)
        for model in [
            try await Model(path: path, options: options),
            try await Model(contentsOf: url, options: options),
            try await Model(fileDescriptor: handle.fileDescriptor, options: options),
            try await Model(data: Data(contentsOf: url), options: options),
        ] {
            XCTAssertEqual(model.info.tensorCount, 93)
            XCTAssertEqual(try ids(model), [723, 672, 367, 674])
        }
        try handle.close()
        do {
            _ = try await Model(path: data("nowhere.gguf"))
            XCTFail("no error")
        } catch let error as CaratError { XCTAssertEqual(error.status, .io) }
        do {
            _ = try await Model(data: Data([1, 2, 3]))
            XCTFail("no error")
        } catch let error as CaratError { XCTAssertEqual(error.status, .format) }
    }

    private func ids(_ model: Model) throws -> [Token] { try model.tokenizer.encode("Hello") }

    func testTellsWhatIsWrongWithAFile() throws {
        XCTAssertEqual(status { _ = try Model(path: data("nowhere.gguf")) }, .io)
        XCTAssertEqual(status { _ = try Model(data: Data([1, 2, 3])) }, .format)
        XCTAssertEqual(status { _ = try Model(data: Data()) }, .format)
        XCTAssertEqual(status { _ = try Model(path: data("tiny-gemma3.gguf"), options: ModelOptions(threads: -1)) }, .invalidOption)
        XCTAssertEqual(status { _ = try Model(path: data("tiny-gemma3.gguf"), options: ModelOptions(threads: Int.max)) }, .invalidOption)
        XCTAssertThrowsError(try Model(path: "a\0b")) {
            guard let error = $0 as? CaratError else { return XCTFail("\($0)") }
            XCTAssertEqual(error.kind, .file)
            XCTAssertTrue(error.description.hasPrefix("CARAT_"), error.description)
            XCTAssertEqual(error.localizedDescription, error.message)
        }
    }

    func testTellsProgressAndLogs() throws {
        let told = Shared<[UInt64]>([])
        let logged = Shared<[String]>([])
        var options = ModelOptions(
            threads: 1, preload: true,
            progress: { done, total in
                told.with { $0.append(contentsOf: [done, total]) }
                return .proceed
            },
            log: { level, text in logged.with { $0.append("\(level == .info) \(text)") } })
        do {
            let session = try Session(tiny(options))
            XCTAssertEqual(told.with { $0.last }, UInt64(session.model.info.fileBytes))
            _ = try session.model.tokenizer.encode("x")
            XCTAssertTrue(logged.with { $0.contains { $0.hasPrefix("true ") && $0.contains("tokenizer") } })
        }
        options.progress = { _, _ in throw Thrown() }
        XCTAssertThrowsError(try tiny(options)) { XCTAssertTrue($0 is Thrown) }
        options.progress = { _, _ in .stop }
        XCTAssertEqual(status { _ = try tiny(options) }, .cancelled)
    }

    func testATokenCancelsOpening() throws {
        let token = CancelToken()
        token.cancel()
        XCTAssertTrue(token.isCancelled)
        XCTAssertEqual(status { _ = try tiny(ModelOptions(cancel: token)) }, .cancelled)
    }

    func testATaskCancelsOpening() async throws {
        // By its own token it is an error of the library, by its task the language's.
        let token = CancelToken()
        token.cancel()
        do {
            _ = try await Model(path: data("tiny-gemma3.gguf"), options: ModelOptions(cancel: token))
            XCTFail("no error")
        } catch let error as CaratError { XCTAssertEqual(error.status, .cancelled) }
        let task = Task {
            while !Task.isCancelled { await Task.yield() }
            return try await Model(path: data("tiny-gemma3.gguf"))
        }
        task.cancel()
        do {
            _ = try await task.value
            XCTFail("no error")
        } catch { XCTAssertTrue(error is CancellationError, "\(error)") }
        let thrown = Task {
            try await Model(path: data("tiny-gemma3.gguf"), options: ModelOptions(progress: { _, _ in throw Thrown() }))
        }
        do {
            _ = try await thrown.value
            XCTFail("no error")
        } catch { XCTAssertTrue(error is Thrown, "\(error)") }
    }

    func testTokensFollowOthers() {
        let parent = CancelToken(), child = CancelToken(), late = CancelToken()
        child.follow(parent)
        child.follow(nil)
        XCTAssertFalse(child.isCancelled)
        parent.cancel()
        XCTAssertTrue(child.isCancelled)
        late.follow(parent)
        XCTAssertTrue(late.isCancelled)
        let other = CancelToken(), alone = CancelToken()
        alone.follow(other)
        alone.cancel()
        XCTAssertFalse(other.isCancelled)
        // Those that are gone are nothing to set.
        do { CancelToken().follow(other) }
        other.cancel()
    }

    func testMetadataAndTensors() throws {
        let model = try tiny()
        XCTAssertEqual(try model.metadata("general.architecture"), "gemma3")
        XCTAssertNil(try model.metadata("no.such.key"))
        XCTAssertEqual(status { _ = try model.metadata("tokenizer.ggml.tokens") }, .unsupported)
        let first = try model.tensor(at: 0)
        XCTAssertEqual(first.name, "token_embd.weight")
        XCTAssertEqual(first.type, "F32")
        XCTAssertEqual(first.shape, [64, 768])
        XCTAssertEqual(first.byteCount, 64 * 768 * 4)
        XCTAssertEqual(status { _ = try model.tensor(at: 93) }, .invalidArgument)
        XCTAssertEqual(status { _ = try model.tensor(at: -1) }, .invalidOption)
    }

    func testPlansMemory() throws {
        let path = data("tiny-gemma3.gguf")
        let options = SessionOptions(context: 64)
        let plan = try Model.plan(path: path, threads: 1, options: options)
        XCTAssertEqual(
            plan.total, plan.file + plan.kvCache + plan.scratch + plan.snapshots + plan.tokenizer + plan.other)
        XCTAssertGreaterThan(plan.kvCache, 0)
        XCTAssertEqual(try tiny().plan(options).kvCache, plan.kvCache)
        XCTAssertEqual(status { _ = try Model.plan(path: path, threads: 1, options: SessionOptions(context: 1 << 40)) }, .invalidOption)
        XCTAssertEqual(status { _ = try Model.plan(path: path, threads: 0) }, .invalidOption)
        XCTAssertEqual(status { _ = try tiny().plan(SessionOptions(context: -1)) }, .invalidOption)
        XCTAssertEqual(status { _ = try tiny().plan(SessionOptions(context: 0)) }, .invalidOption)
    }

    func testMeasuresTheMachine() throws {
        let limits = try Library.measureLimits(threads: 1)
        XCTAssertGreaterThan(limits.readBytesPerSecond, 1e6)
        XCTAssertGreaterThan(limits.dotMACsPerSecond, 1e6)
        XCTAssertGreaterThan(limits.fmaMACsPerSecond, 1e6)
        XCTAssertEqual(status { _ = try Library.measureLimits(threads: 257) }, .invalidOption)
    }

    func testOptionsAreTheLibrarys() {
        var c = carat_generate_options()
        carat_generate_options_init(&c, MemoryLayout<carat_generate_options>.size)
        let o = GenerateOptions()
        XCTAssertNil(o.maxTokens)
        XCTAssertEqual(o.temperature, c.temperature)
        XCTAssertEqual(o.topK, Int(c.top_k))
        XCTAssertEqual(o.topP, c.top_p)
        XCTAssertEqual(o.penaltyWindow, Int(c.penalty_window))
        XCTAssertEqual(GenerateOptions(maxTokens: 3).topK, Int(c.top_k))
        var s = carat_session_options()
        carat_session_options_init(&s, MemoryLayout<carat_session_options>.size)
        XCTAssertEqual(SessionOptions().batch, Int(s.batch))
        XCTAssertEqual(SessionOptions(context: 9).snapshots, Int(s.snapshots))
        XCTAssertNil(SessionOptions().context)
    }

    func testNumbersAreThoseOfTheHeader() {
        XCTAssertEqual(TokenizerEngine.builtin.rawValue, CARAT_ENGINE_BUILTIN)
        XCTAssertEqual(TokenizerEngine.sentencePiece.rawValue, CARAT_ENGINE_SENTENCEPIECE)
        XCTAssertEqual(KeyValueType.auto.rawValue, CARAT_KV_AUTO)
        XCTAssertEqual(KeyValueType.f16.rawValue, CARAT_KV_F16)
        XCTAssertEqual(KeyValueType.q8_0.rawValue, CARAT_KV_Q8_0)
        XCTAssertEqual(KeyValueType.f32.rawValue, CARAT_KV_F32)
        XCTAssertEqual(Role.system.rawValue, CARAT_ROLE_SYSTEM)
        XCTAssertEqual(Role.user.rawValue, CARAT_ROLE_USER)
        XCTAssertEqual(Role.model.rawValue, CARAT_ROLE_MODEL)
        XCTAssertEqual(Policy.stop.rawValue, CARAT_POLICY_STOP)
        XCTAssertEqual(Policy.dropOldest.rawValue, CARAT_POLICY_DROP_OLDEST)
    }

    func testTokenizes() throws {
        let t = try tiny().tokenizer
        let text = "Hello, world! é🙂 <start_of_turn>"
        let ids = try t.encode(text)
        XCTAssertEqual(try t.decode(ids), text)
        XCTAssertEqual(try t.encode("Hello", bos: true), [2, 723, 672, 367, 674])
        XCTAssertEqual(try t.encode("<bos>", special: true, bos: true), [2])
        XCTAssertEqual(try t.encode(""), [])
        // One id a byte: more than guessed at first.
        let bytes = String(repeating: "\u{1F9FF}", count: 500)
        XCTAssertEqual(try t.encode(bytes).count, 2000)
        XCTAssertEqual(try t.decode(t.encode(bytes)), bytes)

        let special = try t.special
        XCTAssertEqual(special.vocabularySize, 768)
        XCTAssertEqual([special.bos, special.eos, special.unknown, special.startOfTurn, special.endOfTurn], [2, 1, 3, 5, 6])
        XCTAssertEqual(special.padding, 0)
        XCTAssertEqual(try t.bytes(of: 2), Array("<bos>".utf8))
        XCTAssertEqual(try t.kind(of: 2), .control)
        XCTAssertEqual(try t.kind(of: 11), .byte)
        XCTAssertEqual(try t.id(of: "<end_of_turn>"), 6)
        XCTAssertNil(try t.id(of: "no piece reads like this"))
        XCTAssertEqual(status { _ = try t.decode([300, 768]) }, .tokenOutOfRange)
        XCTAssertEqual(status { _ = try t.bytes(of: 768) }, .tokenOutOfRange)
        XCTAssertEqual(try t.render([Turn(.user, "Hello")]).prefix(3), [2, 5, 518])
        XCTAssertEqual(status { _ = try t.render([]) }, .chat)
        let token = CancelToken()
        token.cancel()
        XCTAssertEqual(status { _ = try t.encode("Hello", cancel: token) }, .cancelled)
        XCTAssertEqual(status { _ = try t.render([Turn(.user, "Hello")], cancel: token) }, .cancelled)
    }

    func testDecodesAsTokensCome() throws {
        let t = try tiny().tokenizer
        let decoder = try t.decoder()
        var texts: [String] = []
        for id in try t.encode("a🙂") { texts.append(try decoder.push(id)) }
        XCTAssertEqual(texts.joined(), "a🙂")
        // The four bytes come as one character.
        XCTAssertEqual(texts.suffix(4), ["", "", "", "🙂"])
        _ = try decoder.push(251)
        XCTAssertEqual(try decoder.flush(), "\u{FFFD}")
        XCTAssertEqual(try decoder.flush(), "")
        XCTAssertEqual(status { _ = try decoder.push(768) }, .tokenOutOfRange)
    }
}
