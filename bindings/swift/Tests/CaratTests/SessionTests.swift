import Foundation
import XCTest

@testable import Carat

final class SessionTests: XCTestCase {
    let options = SessionOptions(context: 256, batch: 16)

    func testTheSameTokensGiveTheSameLogits() throws {
        let model = try tiny()
        let atOnce = try Session(model, options: options)
        XCTAssertEqual(status { _ = try atOnce.logits() }, .noLogits)
        try atOnce.prefill(someIDs)
        let kept = try atOnce.logits()
        XCTAssertEqual(kept.count, 768)
        let copy = Array(kept)

        let oneByOne = try Session(model, options: options)
        for id in someIDs { try oneByOne.step(id) }
        XCTAssertEqual(try oneByOne.tokens, someIDs)
        XCTAssertEqual(try oneByOne.count, someIDs.count)
        XCTAssertEqual(try oneByOne.contextLength, 256)
        for (a, b) in zip(try oneByOne.logits(), copy) { XCTAssertEqual(a, b, accuracy: 2e-3) }
        XCTAssertEqual(Int(kept.greatest), copy.indices.max { copy[$0] < copy[$1] })

        // Logits that are kept neither change nor dangle.
        try atOnce.step(301)
        XCTAssertEqual(Array(kept), copy)
        XCTAssertNotEqual(Array(try atOnce.logits()), copy)
        XCTAssertEqual(kept[7], copy[7])
        XCTAssertEqual(kept.withUnsafeBufferPointer { $0[7] }, copy[7])

        var rows = 0
        let each = try Session(model, options: options)
        try each.prefill(someIDs) { index, logits in
            XCTAssertEqual(index, rows)
            XCTAssertEqual(logits.count, 768)
            rows += 1
            return .proceed
        }
        XCTAssertEqual(rows, someIDs.count)
        XCTAssertEqual(status { try each.prefill(someIDs) { _, _ in .stop } }, .cancelled)
        XCTAssertThrowsError(try each.prefill(someIDs) { _, _ in throw Thrown() }) { XCTAssertTrue($0 is Thrown) }
    }

    func testGuessingAheadChangesNothingButTheTime() throws {
        let model = try tiny()
        var generate = greedy(40)
        // Always the same word: it is guessed.
        generate.logitBias = [400: 40]
        func generated(_ options: SessionOptions) throws -> ([Token], Summary) {
            let session = try Session(model, options: options)
            let summary = try session.generate(someIDs, options: generate) { _ in .proceed }
            return (try session.tokens, summary)
        }
        var drafts = options
        drafts.draft = 15
        let (tokens, plain) = try generated(options)
        let (ahead, drafting) = try generated(drafts)
        XCTAssertEqual(tokens.count, someIDs.count + 40)
        XCTAssertEqual(ahead, tokens)
        XCTAssertEqual([plain.draftedTokens, plain.acceptedTokens], [0, 0])
        XCTAssertGreaterThan(drafting.acceptedTokens, 0)
        XCTAssertLessThanOrEqual(drafting.acceptedTokens, drafting.draftedTokens)
        drafts.draft = 16
        XCTAssertEqual(status { _ = try Session(model, options: drafts) }, .invalidOption)
    }

    func testForksTruncatesSavesAndLoads() async throws {
        let model = try tiny()
        let session = try Session(model, options: options)
        try await session.prefill(someIDs)
        let fork = try session.fork()
        let path = try scratch(self).appendingPathComponent("saved").path
        try await session.save(to: path)
        let loaded = try await Session.load(model, from: path, options: options)
        for s in [session, fork, loaded] { try await s.step(301) }
        XCTAssertEqual(Array(try fork.logits()), Array(try session.logits()))
        XCTAssertEqual(Array(try loaded.logits()), Array(try session.logits()))
        try fork.truncate(to: 5)
        XCTAssertEqual(try fork.count, 5)
        XCTAssertEqual(status { try fork.truncate(to: 6) }, .invalidOption)
        XCTAssertEqual(status { try fork.truncate(to: -1) }, .invalidOption)
        try await session.trim()

        try await session.prefill(Array(repeating: 300, count: 200))
        do {
            try session.truncate(to: 5)
            XCTFail("no error")
        } catch {
            XCTAssertEqual(error.status, .rewind)
            XCTAssertEqual(error.kind, .usage)
            try session.truncate(to: XCTUnwrap(error.nearest))
        }
        try Data([1, 2]).write(to: URL(fileURLWithPath: path))
        do {
            _ = try await Session.load(model, from: path)
            XCTFail("no error")
        } catch let error as CaratError { XCTAssertEqual(error.status, .state) }
    }

    func testScores() async throws {
        let session = try Session(tiny(), options: options)
        let scores = try await session.score(someIDs)
        XCTAssertEqual(scores.map(\.token), Array(someIDs.dropFirst()))
        XCTAssertTrue(scores.allSatisfy { $0.logProb < 0 && $0.rank < 768 })
        let more = try await session.score([300, 301], from: 1)
        XCTAssertEqual(more.map(\.token), [301])
        for from in [3, -1, Int.max] {
            do {
                _ = try await session.score([300, 301], from: from)
                XCTFail("no error")
            } catch let error as CaratError { XCTAssertEqual(error.status, .invalidOption) }
        }
    }

    func testGenerates() throws {
        let session = try Session(tiny(), options: options)
        var pieces: [Piece] = []
        var o = greedy(8)
        o.topLogProbs = 3
        let summary = try session.generate(someIDs, options: o) {
            pieces.append($0)
            return .proceed
        }
        XCTAssertEqual(summary.reason, .limit)
        XCTAssertNil(summary.stopIndex)
        XCTAssertEqual(summary.promptTokens, someIDs.count)
        XCTAssertEqual(summary.generatedTokens, 8)
        XCTAssertGreaterThan(summary.promptNanoseconds, 0)
        XCTAssertEqual(pieces.compactMap(\.token).count, 8)
        for piece in pieces where piece.token != nil {
            XCTAssertEqual(piece.top.count, 3)
            XCTAssertEqual(piece.top.first?.token, piece.token)
            XCTAssertEqual(piece.top.first?.logProb, piece.logProb)
            XCTAssertNil(piece.summary)
        }
        // An empty prompt goes on, from a callback's end as well.
        XCTAssertEqual(try session.generate([], options: greedy(8)) { _ in .stop }.reason, .callback)
        XCTAssertEqual(status { _ = try Session(tiny()).generate([]) { _ in .proceed } }, .emptyPrompt)
        let wrong: [(String, (inout GenerateOptions) -> Void)] = [
            ("topK", { $0.topK = -1 }), ("maxTokens", { $0.maxTokens = -1 }), ("penaltyWindow", { $0.penaltyWindow = .max }),
            ("top", { $0.topLogProbs = 1025 }), ("temperature", { $0.temperature = -1 }), ("top_p", { $0.topP = .nan }),
            ("bias", { $0.logitBias = [300: .nan] }),
        ]
        for (name, change) in wrong {
            var o = greedy(1)
            change(&o)
            XCTAssertThrowsError(try session.generate([300], options: o) { _ in .proceed }, name) {
                let error = $0 as? CaratError
                XCTAssertEqual(error?.status, .invalidOption)
                XCTAssertTrue(error?.message.contains(name) ?? false, "\($0)")
            }
        }
    }

    func testWhatClosuresThrowComesOut() throws {
        let session = try Session(tiny(), options: options)
        var calls = 0
        XCTAssertThrowsError(
            try session.generate(someIDs, options: greedy(8)) { _ in
                calls += 1
                throw Thrown()
            }
        ) { XCTAssertTrue($0 is Thrown) }
        XCTAssertEqual(calls, 1)
        var o = greedy(8)
        o.hook = { _, _ in throw Thrown() }
        XCTAssertThrowsError(try session.generate([300], options: o) { _ in .proceed }) { XCTAssertTrue($0 is Thrown) }
        // A hook that allows one token.
        let seen = Shared(0)
        o.hook = { tokens, logits in
            seen.with { $0 = tokens.count }
            for i in logits.indices { logits[i] = i == 723 ? 0 : -.infinity }
            return .proceed
        }
        var tokens: [Token] = []
        try session.generate([300], options: o) {
            if let t = $0.token { tokens.append(t) }
            return .proceed
        }
        XCTAssertEqual(tokens, Array(repeating: 723, count: 8))
        XCTAssertGreaterThan(seen.with { $0 }, someIDs.count)
        o.hook = { _, _ in .stop }
        XCTAssertEqual(try session.generate([300], options: o) { _ in .proceed }.reason, .callback)
    }

    func testASecondBlockingCallIsBusy() throws {
        let session = try Session(tiny(), options: options)
        var inside: CaratError.Status?
        try session.generate(someIDs, options: greedy(1)) { _ in
            inside = status { try session.prefill([300]) }
            return .proceed
        }
        XCTAssertEqual(inside, .busy)
        XCTAssertNoThrow(try session.prefill([300]))
    }

    func testCancelTokensStopCalls() throws {
        let session = try Session(tiny(), options: options)
        let token = CancelToken()
        var o = greedy(nil)
        o.cancel = token
        var pieces = 0
        let summary = try session.generate(someIDs, options: o) { _ in
            pieces += 1
            if pieces == 3 { token.cancel() }
            return .proceed
        }
        XCTAssertEqual(summary.reason, .cancelled)
        XCTAssertEqual(summary.generatedTokens, 3)
        XCTAssertEqual(status { try session.prefill(someIDs, cancel: token) }, .cancelled)
        XCTAssertEqual(status { try session.step(300, cancel: token) }, .cancelled)
        XCTAssertEqual(status { _ = try session.score(someIDs, cancel: token) }, .cancelled)
        let path = try scratch(self).appendingPathComponent("saved").path
        XCTAssertEqual(status { try session.save(to: path, cancel: token) }, .cancelled)
        try session.save(to: path)
        XCTAssertEqual(status { _ = try Session.load(session.model, from: path, cancel: token) }, .cancelled)
    }
}
