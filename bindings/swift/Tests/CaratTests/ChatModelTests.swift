import Carat
import Foundation
import XCTest

@testable import ChatModel

final class ChatModelTests: XCTestCase {
    func testTheExampleAppsModel() async throws {
        guard #available(macOS 14, iOS 17, tvOS 17, watchOS 10, *) else { throw XCTSkip("no Observation here") }
        try await talk()
    }
}

/// The example app's model, as its views use it.
@available(macOS 14, iOS 17, tvOS 17, watchOS 10, *)
@MainActor
private func talk() async throws {
    let chat = ChatModel()
    chat.send("nobody listens")
    XCTAssertEqual(chat.turns, [])
    await chat.open(URL(fileURLWithPath: data("nowhere.gguf")))
    guard case .failed(let why) = chat.phase else { return XCTFail("\(chat.phase)") }
    XCTAssertTrue(why.contains("nowhere.gguf"), why)

    await chat.open(URL(fileURLWithPath: data("tiny-gemma3.gguf")))
    XCTAssertEqual(chat.phase, .ready)
    chat.send("Hello")
    XCTAssertEqual(chat.phase, .answering)
    await chat.answered()
    XCTAssertEqual(chat.phase, .ready)
    XCTAssertEqual(chat.turns.map(\.role), [.user, .model])
    XCTAssertFalse(chat.turns[1].text.isEmpty)
    XCTAssertGreaterThan(chat.speed ?? 0, 0)
    await chat.trim()
    chat.send("Hello")
    chat.stop()
    await chat.answered()
    XCTAssertEqual(chat.phase, .ready)
    XCTAssertEqual(chat.turns.count, 4)
}
