// What streaming costs: the median of microseconds a token through carat.h, the blocking call, and the stream.
// usage: StreamBench MODEL [TOKENS] [ROUNDS]

import CCarat
import Carat
import Foundation

/// The median of rounds taken in turn: other programs disturb all alike.
func median(_ values: [Double]) -> Double { values.sorted()[values.count / 2] }

@main
struct StreamBench {
    let path: String
    let tokens: Int
    let prompt: [Token] = [2]
    let model: Model
    let options: GenerateOptions

    init(path: String, tokens: Int) throws {
        self.path = path
        self.tokens = tokens
        model = try Model(path: path, options: ModelOptions(threads: 1))
        var options = GenerateOptions(maxTokens: tokens, temperature: 0)
        options.ignoreEnd = true
        self.options = options
    }

    static func main() async throws {
        let arguments = CommandLine.arguments
        guard arguments.count > 1 else {
            print("usage: StreamBench MODEL [TOKENS] [ROUNDS]")
            exit(2)
        }
        let bench = try StreamBench(path: arguments[1], tokens: arguments.count > 2 ? Int(arguments[2])! : 200)
        let rounds = arguments.count > 3 ? Int(arguments[3])! : 25
        var c: [Double] = []
        var calls: [Double] = []
        var streams: [Double] = []
        for _ in 0..<rounds {
            c.append(bench.throughC())
            calls.append(try bench.blocking())
            streams.append(try await bench.streaming())
        }
        for (way, took) in [("C: callback", c), ("Swift: callback", calls), ("Swift: stream", streams)] {
            print("\(way): \(String(format: "%.2f", median(took)))")
        }
    }

    func microseconds(since begin: DispatchTime) -> Double {
        Double(DispatchTime.now().uptimeNanoseconds - begin.uptimeNanoseconds) / 1000 / Double(tokens)
    }

    /// Over carat.h alone, with a callback in Swift that looks at the text.
    func throughC() -> Double {
        var c = carat_model_options()
        carat_model_options_init(&c, MemoryLayout<carat_model_options>.size)
        c.threads = 1
        var model: OpaquePointer?
        var session: OpaquePointer?
        precondition(carat_model_open(path, path.utf8.count, &c, &model, nil) == CARAT_OK)
        precondition(carat_session_new(model, nil, &session, nil) == CARAT_OK)
        var o = carat_generate_options()
        carat_generate_options_init(&o, MemoryLayout<carat_generate_options>.size)
        o.max_tokens = UInt64(tokens)
        o.temperature = 0
        o.ignore_end = 1
        var bytes = 0
        let begin = DispatchTime.now()
        let status = carat_session_generate(
            session, prompt, prompt.count, &o,
            { data, piece in
                data!.assumingMemoryBound(to: Int.self).pointee += piece!.pointee.text_len
                return 1
            }, &bytes, nil, nil)
        let spent = microseconds(since: begin)
        precondition(status == CARAT_OK && bytes > 0)
        carat_session_free(session)
        carat_model_free(model)
        return spent
    }

    func blocking() throws -> Double {
        let session = try Session(model)
        var bytes = 0
        let begin = DispatchTime.now()
        let summary = try session.generate(prompt, options: options) { piece in
            bytes += piece.text.utf8.count
            return .proceed
        }
        let spent = microseconds(since: begin)
        precondition(summary.generatedTokens == tokens && bytes > 0)
        return spent
    }

    func streaming() async throws -> Double {
        let session = try Session(model)
        var bytes = 0
        let begin = DispatchTime.now()
        for try await piece in session.generate(prompt, options: options) { bytes += piece.text.utf8.count }
        let spent = microseconds(since: begin)
        precondition(bytes > 0)
        return spent
    }
}
