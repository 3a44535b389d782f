import Foundation
import XCTest

@testable import Carat

/// Runs the cases of tests/conformance, and writes a line for each to the file that CARAT_CONFORMANCE_REPORT names.
final class ConformanceTests: XCTestCase {
    func testConformance() throws {
        let folder = root.appendingPathComponent("tests/conformance")
        let files = try FileManager.default.contentsOfDirectory(atPath: folder.path).filter { $0.hasSuffix(".json") }
        var cases: [Case] = []
        for file in files.sorted() {
            let json = try JSONSerialization.jsonObject(with: Data(contentsOf: folder.appendingPathComponent(file)))
            cases += try XCTUnwrap(json as? [[String: Any]], file).map(Case.init)
        }
        XCTAssertGreaterThan(cases.count, 100)

        let realPath = ProcessInfo.processInfo.environment["CARAT_TEST_MODEL"]
        let runner = ConformanceRunner(scratch: try scratch(self), realPath: realPath)
        if realPath == nil { print("CARAT_TEST_MODEL is not set: the cases of the real model are left out") }
        var report = ""
        var passed = 0
        for one in cases {
            let name = one.text("name")
            if one.json["model"] as? String == "real" && realPath == nil { continue }
            if let why = (one.json["not_in"] as? [String: Any])?["swift"] {
                report += "n/a \(name): \(why)\n"
                continue
            }
            do {
                try runner.run(one)
                passed += 1
                report += "pass \(name)\n"
            } catch {
                let why = "\(error)".replacingOccurrences(of: "\n", with: " ")
                report += "FAIL \(name): \(why)\n"
                XCTFail("\(name): \(why)")
            }
        }
        print("conformance: \(passed) of \(cases.count) cases passed")
        if let path = ProcessInfo.processInfo.environment["CARAT_CONFORMANCE_REPORT"] {
            try report.write(toFile: path, atomically: false, encoding: .utf8)
        }
    }
}

/// Why a case failed.
struct Failed: Error, CustomStringConvertible {
    let description: String
    init(_ description: String) { self.description = description }
}

func same<T: Equatable>(_ found: T, _ expected: T, _ what: String) throws {
    if found != expected { throw Failed("\(what): expected \(expected), found \(found)") }
}

/// A case, or an object in one.
struct Case {
    let json: [String: Any]

    init(_ json: [String: Any]) { self.json = json }
    init(_ value: Any?) { json = value as? [String: Any] ?? [:] }

    func has(_ key: String) -> Bool { json[key] != nil && !(json[key] is NSNull) }
    func text(_ key: String) -> String { json[key] as? String ?? "" }
    func number(_ key: String) -> Int? { (json[key] as? NSNumber)?.intValue }
    func flag(_ key: String) -> Bool { (json[key] as? NSNumber)?.boolValue ?? false }
    func ids(_ key: String) -> [Token] { tokenIDs(json[key]) }
    func list(_ key: String) -> [Any] { json[key] as? [Any] ?? [] }
    func object(_ key: String) -> Case { Case(json[key]) }
    func objects(_ key: String) -> [Case] { list(key).map { Case($0) } }
    func rows(_ key: String) -> [[Any]] { list(key).map { $0 as? [Any] ?? [] } }

    func turns(_ key: String) throws -> [Turn] {
        try rows(key).map { row in
            let roles: [String: Role] = ["system": .system, "user": .user, "model": .model]
            guard let role = roles[row[0] as? String ?? ""], let text = row[1] as? String else {
                throw Failed("turn \(row)")
            }
            return Turn(role, text)
        }
    }

    func sessionOptions() throws -> SessionOptions {
        var o = SessionOptions()
        for (key, value) in object("session").json {
            switch key {
            case "context": o.context = int(value)
            case "batch": o.batch = int(value)
            case "snapshots": o.snapshots = int(value)
            default: throw Failed("session option \(key)")
            }
        }
        return o
    }

    func generateOptions() throws -> GenerateOptions {
        var o = GenerateOptions()
        for (key, value) in object("options").json {
            switch key {
            case "max_tokens": o.maxTokens = int(value)
            case "temperature": o.temperature = Float(double(value))
            case "top_k": o.topK = int(value)
            case "top_p": o.topP = Float(double(value))
            case "min_p": o.minP = Float(double(value))
            case "repetition_penalty": o.repetitionPenalty = Float(double(value))
            case "presence_penalty": o.presencePenalty = Float(double(value))
            case "frequency_penalty": o.frequencyPenalty = Float(double(value))
            case "penalty_window": o.penaltyWindow = int(value)
            case "seed": o.seed = (value as? NSNumber)?.uint64Value
            case "top_log_probs": o.topLogProbs = int(value)
            case "ignore_end": o.ignoreEnd = value as? Bool ?? false
            case "stop": o.stop = value as? [String] ?? []
            case "logit_bias":
                for row in value as? [[Any]] ?? [] {
                    o.logitBias[Token(int(row[0]))] = row[1] is NSNull ? -.infinity : Float(double(row[1]))
                }
            default: throw Failed("option \(key)")
            }
        }
        return o
    }
}

func int(_ value: Any?) -> Int { (value as? NSNumber)?.intValue ?? Int.min }
func double(_ value: Any?) -> Double { (value as? NSNumber)?.doubleValue ?? .nan }
func tokenIDs(_ value: Any?) -> [Token] { (value as? [NSNumber] ?? []).map(\.uint32Value) }
