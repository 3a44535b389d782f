import Foundation
import XCTest

@testable import Carat

final class StreamTests: XCTestCase {
    let options = SessionOptions(context: 256, batch: 16)

    func testAStreamHasWhatTheBlockingCallHas() async throws {
        let session = try Session(tiny(), options: options)
        var o = greedy(40)
        o.topLogProbs = 2
        let expected = try blocking(session.fork(), o)
        for buffer in [-1, 1, 3, 1000] {
            var pieces: [Piece] = []
            for try await piece in try session.fork().generate(someIDs, options: o, buffer: buffer) {
                pieces.append(piece)
            }
            let summary = try XCTUnwrap(pieces.last?.summary)
            XCTAssertEqual(Array(pieces.dropLast()), expected)
            XCTAssertEqual(pieces.last?.text, "")
            XCTAssertNil(pieces.last?.token)
            XCTAssertEqual(summary.generatedTokens, 40)
            XCTAssertEqual(summary.reason, .limit)
        }
    }

    private func blocking(_ session: Session, _ options: GenerateOptions) throws -> [Piece] {
        var pieces: [Piece] = []
        try session.generate(someIDs, options: options) {
            pieces.append($0)
            return .proceed
        }
        return pieces
    }

    func testAStreamThrows() async throws {
        let session = try Session(tiny(), options: options)
        await thrown(session.generate([])) { XCTAssertEqual(($0 as? CaratError)?.status, .emptyPrompt) }
        await thrown(session.generate([768])) { XCTAssertEqual(($0 as? CaratError)?.status, .tokenOutOfRange) }
        var o = greedy(8)
        o.topK = -1
        await thrown(session.generate([300], options: o)) { XCTAssertEqual(($0 as? CaratError)?.status, .invalidOption) }
        o = greedy(8)
        o.hook = { _, _ in throw Thrown() }
        await thrown(session.generate([300], options: o)) { XCTAssertTrue($0 is Thrown) }
    }

    private func thrown(_ stream: AsyncThrowingStream<Piece, any Error>, _ check: (any Error) -> Void) async {
        do {
            for try await _ in stream {}
            XCTFail("no error")
        } catch { check(error) }
    }

    func testAGenerationWaitsForItsReader() async throws {
        let session = try Session(tiny(), options: options)
        let computed = Shared(0)
        var o = greedy(100)
        o.hook = { _, _ in
            computed.with { $0 += 1 }
            return .proceed
        }
        var reader = session.generate(someIDs, options: o, buffer: 4).makeAsyncIterator()
        for _ in 0..<3 { _ = try await reader.next() }
        try await Task.sleep(nanoseconds: 200_000_000)
        // Three read, four waiting, and one at hand.
        XCTAssertEqual(computed.with { $0 }, 8)
        var rest = 0
        while try await reader.next() != nil { rest += 1 }
        XCTAssertEqual(rest, 98)
        XCTAssertEqual(computed.with { $0 }, 100)
    }

    func testLeavingTheLoopStopsTheGeneration() async throws {
        let session = try Session(tiny(), options: options)
        var pieces = 0
        for try await _ in session.generate(someIDs, options: greedy(nil), buffer: 4) {
            pieces += 1
            if pieces == 3 { break }
        }
        // This waits for the generation, which would have filled the context.
        try await session.trim()
        XCTAssertLessThan(try session.count, someIDs.count + 12)
        // One that nobody reads stops as well.
        _ = session.generate([300], options: greedy(nil), buffer: 4)
        try await session.trim()
        XCTAssertLessThan(try session.count, someIDs.count + 24)
    }

    func testCallsComeInOrder() async throws {
        let session = try Session(tiny(), options: options)
        let stream = session.generate(someIDs, options: greedy(20), buffer: 2)
        async let later: Void = session.prefill([300, 301])
        var pieces = 0
        for try await _ in stream { pieces += 1 }
        try await later
        XCTAssertEqual(pieces, 21)
        XCTAssertEqual(try session.count, someIDs.count + 20 + 2)
        XCTAssertEqual(try session.tokens.suffix(2), [300, 301])
    }

    func testATokenEndsAStreamWithItsSummary() async throws {
        let session = try Session(tiny(), options: options)
        var o = greedy(nil)
        let token = CancelToken()
        o.cancel = token
        var summary: Summary?
        var pieces = 0
        for try await piece in session.generate(someIDs, options: o, buffer: 4) {
            pieces += 1
            if pieces == 3 { token.cancel() }
            summary = piece.summary
        }
        XCTAssertEqual(summary?.reason, .cancelled)
        XCTAssertLessThan(try session.count, someIDs.count + 12)
    }

    func testCancellingATaskEndsItsStreams() async throws {
        let session = try Session(tiny(), options: options)
        let begun = expectation(description: "reads")
        begun.assertForOverFulfill = false
        let slow = Shared(0)
        var o = greedy(nil)
        o.hook = { _, _ in
            // Slow enough not to fill the context meanwhile.
            slow.with { $0 += 1 }
            Thread.sleep(forTimeInterval: 0.01)
            return .proceed
        }
        let reading = Task { [o] in
            for try await piece in session.generate(someIDs, options: o) {
                XCTAssertNil(piece.summary)
                begun.fulfill()
            }
            XCTAssertTrue(Task.isCancelled)
        }
        await fulfillment(of: [begun], timeout: 10)
        let began = DispatchTime.now()
        reading.cancel()
        try await reading.value
        // This waits for the engine.
        try await session.trim()
        XCTAssertLessThan(seconds(since: began), 0.2)
        XCTAssertLessThan(try session.count, 256)
        let calls = slow.with { $0 }
        try await Task.sleep(nanoseconds: 100_000_000)
        XCTAssertEqual(slow.with { $0 }, calls)
        // One whose task was cancelled before.
        let count = try session.count
        let late = Task {
            while !Task.isCancelled { await Task.yield() }
            for try await _ in session.generate([300], options: greedy(nil)) { XCTFail("a piece") }
        }
        late.cancel()
        try await late.value
        try await session.trim()
        XCTAssertLessThan(try session.count, count + 5)
    }

    /// On the real model: within 200 ms, whatever it is at.
    func testCancellingATaskStopsTheEngineInTime() async throws {
        let model = try real()
        let prompt = try model.tokenizer.encode(String(repeating: "The quick brown fox. ", count: 300), bos: true)
        let session = try Session(model, options: SessionOptions(context: 4096))
        let calls: [(String, @Sendable () async throws -> Void)] = [
            ("prefill", { try await session.prefill(prompt) }),
            ("score", { _ = try await session.score(prompt) }),
            ("generate, in its prompt", { for try await _ in session.generate(prompt) {} }),
            ("generate", { for try await _ in session.generate([2], options: greedy(nil)) {} }),
        ]
        for (name, call) in calls {
            let task = Task { try await call() }
            try await Task.sleep(nanoseconds: 400_000_000)
            let began = DispatchTime.now()
            task.cancel()
            do {
                try await task.value
                XCTAssertTrue(name.hasPrefix("generate"), "\(name): no error")
            } catch { XCTAssertTrue(error is CancellationError, "\(name): \(error)") }
            // This waits for the engine.
            try await session.trim()
            let spent = seconds(since: began)
            print("cancelled \(name) in \(Int(spent * 1000)) ms")
            XCTAssertLessThan(spent, 0.2, name)
            XCTAssertLessThan(try session.count, name.hasSuffix("generate") ? 4096 : prompt.count)
            try session.truncate(to: 0)
        }
    }

    private func seconds(since begin: DispatchTime) -> Double {
        Double(DispatchTime.now().uptimeNanoseconds - begin.uptimeNanoseconds) / 1e9
    }

    /// Swift has as few threads as there are cores. Calls that block must not take them.
    func testManyGenerationsLeaveSwiftsThreadsFree() async throws {
        let model = try tiny()
        let waiting = Shared(0)
        let gate = Shared(false)
        var o = greedy(4)
        o.hook = { _, _ in
            waiting.with { $0 += 1 }
            while !gate.with({ $0 }) { Thread.sleep(forTimeInterval: 0.001) }
            return .proceed
        }
        let many = 4 * ProcessInfo.processInfo.activeProcessorCount
        try await withThrowingTaskGroup(of: Int.self) { [o] group in
            for _ in 0..<many {
                let session = try Session(model, options: SessionOptions(context: 64, batch: 16))
                group.addTask {
                    var pieces = 0
                    for try await _ in session.generate(someIDs, options: o) { pieces += 1 }
                    return pieces
                }
            }
            // All are inside the engine, and this task still runs.
            while waiting.with({ $0 }) < many { try await Task.sleep(nanoseconds: 1_000_000) }
            gate.with { $0 = true }
            for try await pieces in group { XCTAssertEqual(pieces, 5) }
        }
    }

    func testAModelServesManyTasks() async throws {
        let model = try tiny(ModelOptions(threads: 2))
        let expected = try blocking(Session(model, options: options), greedy(20)).compactMap(\.token)
        try await withThrowingTaskGroup(of: [Token].self) { [options] group in
            for _ in 0..<8 {
                group.addTask {
                    let session = try Session(model, options: options)
                    var tokens: [Token] = []
                    for try await piece in session.generate(someIDs, options: greedy(20)) {
                        if let t = piece.token { tokens.append(t) }
                    }
                    return tokens
                }
            }
            for try await tokens in group { XCTAssertEqual(tokens, expected) }
        }
    }
}
