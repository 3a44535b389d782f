import Foundation
import XCTest

@testable import Carat

/// The root of the repository.
let root = URL(fileURLWithPath: #filePath)
    .deletingLastPathComponent().deletingLastPathComponent().deletingLastPathComponent()
    .deletingLastPathComponent().deletingLastPathComponent()

/// A file of tests/data.
func data(_ name: String) -> String { root.appendingPathComponent("tests/data/\(name)").path }

func tiny(_ options: ModelOptions = ModelOptions(threads: 1)) throws -> Model {
    try Model(path: data("tiny-gemma3.gguf"), options: options)
}

/// The real model, where CARAT_TEST_MODEL names one.
func real() throws -> Model {
    guard let path = ProcessInfo.processInfo.environment["CARAT_TEST_MODEL"] else {
        throw XCTSkip("CARAT_TEST_MODEL is not set")
    }
    return try Model(path: path, options: ModelOptions(threads: 2))
}

let someIDs: [Token] = [2, 512, 527, 425, 364, 330, 687, 690, 283, 486, 297, 461]

/// Greedy, and on after the end.
func greedy(_ maxTokens: Int?) -> GenerateOptions {
    var options = GenerateOptions(maxTokens: maxTokens, temperature: 0)
    options.ignoreEnd = true
    return options
}

/// A folder that is removed after the test.
func scratch(_ test: XCTestCase) throws -> URL {
    let url = FileManager.default.temporaryDirectory.appendingPathComponent(UUID().uuidString)
    try FileManager.default.createDirectory(at: url, withIntermediateDirectories: true)
    test.addTeardownBlock { try? FileManager.default.removeItem(at: url) }
    return url
}

/// The status of the ``CaratError`` that a call throws.
func status(
    file: StaticString = #filePath, line: UInt = #line, of call: () throws -> Void
) -> CaratError.Status? {
    do {
        try call()
        XCTFail("no error", file: file, line: line)
    } catch let error as CaratError {
        XCTAssertFalse(error.message.isEmpty, file: file, line: line)
        return error.status
    } catch {
        XCTFail("\(error)", file: file, line: line)
    }
    return nil
}

/// A value that several threads change.
final class Shared<T>: @unchecked Sendable {
    // SAFETY of @unchecked: `value` is only touched under `lock`.
    private let lock = NSLock()
    private var value: T
    init(_ value: T) { self.value = value }
    func with<R>(_ body: (inout T) throws -> R) rethrows -> R { try lock.withLock { try body(&value) } }
}

/// An error of the tests' own.
struct Thrown: Error, Equatable {}
