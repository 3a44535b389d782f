import Foundation
import XCTest

@testable import Carat

final class ConversationTests: XCTestCase {
    let options = SessionOptions(context: 256, batch: 16)

    private func text(_ stream: AsyncThrowingStream<Piece, any Error>) async throws -> String {
        var text = ""
        for try await piece in stream { text += piece.text }
        return text
    }

    func testTalks() async throws {
        let model = try tiny()
        let c = try Conversation(Session(model, options: options), system: "Be brief.")
        XCTAssertEqual(try c.system, "Be brief.")
        let first = try await text(c.send("Hello", options: greedy(8)))
        XCTAssertEqual(first, " me me me me me me me me")
        let again = try await text(c.regenerate(options: greedy(4)))
        XCTAssertEqual(again, " me me me me")
        _ = try await text(c.editLast("You may copy", options: greedy(4)))
        var turns = try c.turns
        XCTAssertEqual(turns.map(\.role), [.user, .model])
        XCTAssertEqual(turns[0].text, "You may copy")
        XCTAssertEqual(try c.dropped, [])

        // Saved, loaded, and told all of it: nothing but the new turn is processed.
        let path = try scratch(self).appendingPathComponent("saved").path
        try await c.save(to: path)
        let loaded = try await Conversation.load(model, from: path, options: options)
        XCTAssertEqual(try loaded.turns, turns)
        XCTAssertEqual(try loaded.tokens, try c.tokens)
        turns.append(Turn(.user, "Hello"))
        var summary: Summary?
        for try await piece in loaded.respond(to: [Turn(.system, "Be brief.")] + turns, options: greedy(4)) {
            summary = piece.summary
        }
        XCTAssertGreaterThan(try XCTUnwrap(summary).reusedTokens, 20)
        XCTAssertEqual(try loaded.turns.count, 4)

        try await c.trim()
        try c.setSystem("")
        XCTAssertEqual(try c.system, "")
        try c.setSystem(nil)
        try c.reset()
        XCTAssertEqual(try c.turns, [])
        let session = try loaded.intoSession()
        XCTAssertGreaterThan(try session.count, 20)
        XCTAssertEqual(status { _ = try loaded.turns }, .invalidArgument)
        let resumed = try Conversation(resuming: session)
        XCTAssertEqual(try resumed.turns.count, 4)
        XCTAssertEqual(status { _ = try session.count }, .invalidArgument)
    }

    func testBlockingForms() throws {
        let c = try Conversation(Session(tiny(), options: options))
        var answer = ""
        let onPiece: (Piece) throws -> Flow = {
            answer += $0.text
            return .proceed
        }
        XCTAssertEqual(status { _ = try c.regenerate(onPiece: onPiece) }, .chat)
        XCTAssertEqual(try c.send("Hello The Library", options: greedy(8), onPiece: onPiece).reason, .limit)
        XCTAssertEqual(answer, " lin me me me me me me me")
        XCTAssertEqual(try c.regenerate(options: greedy(2), onPiece: onPiece).generatedTokens, 2)
        XCTAssertEqual(try c.editLast("Hello", options: greedy(2), onPiece: onPiece).generatedTokens, 2)
        let turns = [Turn(.user, "Hello")]
        XCTAssertEqual(try c.respond(to: turns, options: greedy(3), onPiece: onPiece).generatedTokens, 3)
        XCTAssertEqual(status { _ = try c.respond(to: turns + turns, onPiece: onPiece) }, .chat)
        XCTAssertThrowsError(try c.send("x") { _ in throw Thrown() }) { XCTAssertTrue($0 is Thrown) }
        try c.trim()
        let path = try scratch(self).appendingPathComponent("saved").path
        try c.save(to: path)
        XCTAssertEqual(try Conversation.load(c.model, from: path, options: options).turns, try c.turns)
    }

    func testDropsTheOldest() async throws {
        let c = try Conversation(Session(tiny(), options: SessionOptions(context: 72, batch: 16)))
        try c.setPolicy(.dropOldest)
        for text in ["Hello The Library", "notice License"] {
            for try await _ in c.send(text, options: greedy(8)) {}
        }
        XCTAssertEqual(try c.dropped, [])
        for try await _ in c.send("The Library the terms", options: greedy(8)) {}
        XCTAssertEqual(try c.dropped.first, Turn(.user, "Hello The Library"))
        try c.setPolicy(.stop)
        do {
            for try await _ in c.send(String(repeating: "notice License ", count: 20)) {}
            XCTFail("no error")
        } catch let error as CaratError { XCTAssertEqual(error.status, .promptTooLong) }
    }
}
