import Foundation

@testable import Carat

/// Runs a case through the public API: see tests/conformance/README.md for what the kinds and fields mean.
final class ConformanceRunner {
    private let scratch: URL
    private let realPath: String?
    private var models: [String: Model] = [:]

    /// What the golden logits are reproduced within; a log-probability has the error of two of them.
    private let logit = 2e-3
    private let logProb = 4e-3

    init(scratch: URL, realPath: String?) {
        self.scratch = scratch
        self.realPath = realPath
    }

    func run(_ c: Case) throws {
        switch c.text("kind") {
        case "tokenize": try tokenize(c)
        case "vocabulary": try vocabulary(c)
        case "model": try info(c)
        case "logits": try logits(c)
        case "score": try score(c)
        case "generate": try generate(c)
        case "render": try same(try model(c).tokenizer.render(c.turns("turns")), c.ids("ids"), "ids")
        case "chat": try chat(c)
        case "error": try error(c)
        case let kind: throw Failed("kind \(kind)")
        }
    }

    private func path(_ name: String) -> String { name == "real" ? realPath ?? name : data(name) }

    private func model(_ c: Case) throws -> Model {
        let name = c.text("model")
        if let model = models[name] { return model }
        let model = try Model(path: path(name), options: ModelOptions(threads: 2))
        models[name] = model
        return model
    }

    private func close(_ found: Float?, _ expected: Any?, _ within: Double, _ what: String) throws {
        // A NaN is not close to anything.
        let off = abs(Double(found ?? .nan) - double(expected))
        if !(off <= within) { throw Failed("\(what): expected \(expected ?? "nothing"), found \(found ?? .nan)") }
    }

    // MARK: Models and vocabularies

    private func tokenize(_ c: Case) throws {
        let t = try model(c).tokenizer
        let found = try t.encode(c.text("text"), special: c.flag("special"), bos: c.flag("bos"))
        try same(found, c.ids("ids"), "ids")
        try same(t.decode(found), c.text("decoded"), "decoded")
        let decoder = try t.decoder()
        var streamed = ""
        for id in found { streamed += try decoder.push(id) }
        streamed += try decoder.flush()
        try same(streamed, c.text("decoded"), "decoded one by one")
    }

    private func vocabulary(_ c: Case) throws {
        let t = try model(c).tokenizer
        let s = try t.special
        let found: [String: Int?] = [
            "vocab_size": s.vocabularySize, "bos": Int(s.bos), "eos": Int(s.eos), "unk": Int(s.unknown),
            "pad": s.padding.map(Int.init), "start_of_turn": Int(s.startOfTurn), "end_of_turn": Int(s.endOfTurn),
        ]
        for (key, value) in c.object("special").json {
            guard let found = found[key] else { throw Failed("special token \(key)") }
            try same(found, value is NSNull ? nil : int(value), key)
        }
        let kinds: [String: PieceKind] = [
            "normal": .normal, "unknown": .unknown, "control": .control, "user_defined": .userDefined,
            "unused": .unused, "byte": .byte,
        ]
        for token in c.objects("tokens") {
            let id = Token(token.number("id") ?? 0)
            try same(t.bytes(of: id).map(Token.init), token.ids("bytes"), "bytes of \(id)")
            try same(t.kind(of: id), kinds[token.text("kind")], "kind of \(id)")
        }
        for row in c.rows("ids") {
            let piece = row[0] as? String ?? ""
            try same(t.id(of: piece), row[1] is NSNull ? nil : Token(int(row[1])), "id of \(piece)")
        }
    }

    private func info(_ c: Case) throws {
        let path = path(c.text("model"))
        let model: Model
        switch c.text("by") {
        case "path": model = try Model(path: path, options: ModelOptions(threads: 1))
        case "bytes":
            model = try Model(data: Data(contentsOf: URL(fileURLWithPath: path)), options: ModelOptions(threads: 1))
        case let by: throw Failed("by \(by)")
        }
        let i = model.info
        let architectures: [String: Architecture] = ["gemma": .gemma, "gemma2": .gemma2, "gemma3": .gemma3]
        let found = [
            "n_layers": i.layerCount, "d_model": i.modelWidth, "d_ff": i.feedForwardWidth, "n_heads": i.headCount,
            "n_kv_heads": i.keyValueHeadCount, "head_dim": i.headWidth, "vocab": i.vocabularySize,
            "sliding_window": i.slidingWindow ?? 0, "context_length": i.contextLength, "n_tensors": i.tensorCount,
            "file_bytes": i.fileBytes,
        ]
        for (key, value) in c.object("info").json {
            if key == "arch" {
                try same(i.architecture, architectures[value as? String ?? ""], key)
            } else if let found = found[key] {
                try same(found, int(value), key)
            } else {
                throw Failed("info \(key)")
            }
        }
        for row in c.rows("metadata") {
            try same(try model.metadata(row[0] as? String ?? ""), row[1] as? String, "\(row[0])")
        }
        for row in c.rows("tensors") {
            let t = try model.tensor(at: int(row[0]))
            try same(t.name, row[1] as? String, "name")
            try same(t.type, row[2] as? String, "type of \(t.name)")
            try same(t.shape, (row[3] as? [Any] ?? []).map(int), "shape of \(t.name)")
            try same(Int(t.offset), int(row[4]), "offset of \(t.name)")
            try same(t.byteCount, int(row[5]), "bytes of \(t.name)")
        }
    }

    // MARK: Sessions

    private func logits(_ c: Case) throws {
        let options = SessionOptions(context: 256, batch: 64)
        var s = try Session(model(c), options: options)
        let ids = c.ids("ids")
        let at = c.objects("at")
        func check(_ position: Int, _ found: some Collection<Float>) throws {
            let values = Array(found)
            for row in at where row.number("position") == position {
                let greatest = values.indices.max { values[$0] < values[$1] }
                try same(greatest, row.number("argmax"), "argmax at \(position)")
                for pair in row.rows("values") {
                    try close(values[int(pair[0])], pair[1], logit, "logit \(pair[0]) at \(position)")
                }
            }
        }
        let last = ids[ids.count - 1]
        switch c.text("via") {
        case "prefill":
            try s.prefill(ids)
            try check(ids.count - 1, s.logits())
        case "prefill_each":
            try s.prefill(ids) { index, logits in
                try check(index, logits)
                return .proceed
            }
        case "step":
            for (index, id) in ids.enumerated() {
                try s.step(id)
                try check(index, s.logits())
            }
        case let via:
            if ids.count > 1 { try s.prefill(Array(ids.dropLast())) }
            switch via {
            case "fork": s = try s.fork()
            case "save_and_load":
                let path = scratch.appendingPathComponent("saved").path
                try s.save(to: path)
                s = try Session.load(s.model, from: path, options: options)
            case "trim": try s.trim()
            case "truncate":
                try s.prefill(Array(ids.prefix(2)))
                try s.truncate(to: ids.count - 1)
            default: throw Failed("via \(via)")
            }
            try s.step(last)
            try check(ids.count - 1, s.logits())
        }
        try same(s.tokens, ids, "the session's tokens")
    }

    private func score(_ c: Case) throws {
        let s = try Session(model(c), options: SessionOptions(context: 256, batch: 64))
        if !c.ids("before").isEmpty { try s.prefill(c.ids("before")) }
        let found = try s.score(c.ids("ids"), from: c.number("from") ?? 0)
        let expected = c.rows("scores")
        try same(found.count, expected.count, "number of scores")
        for (i, (found, row)) in zip(found, expected).enumerated() {
            try same(found.token, Token(int(row[0])), "token \(i)")
            try close(found.logProb, row[1], logProb, "score \(i)")
            if found.rank < int(row[2]) || found.rank > int(row[3]) {
                throw Failed("rank \(i): expected \(row[2]) to \(row[3]), found \(found.rank)")
            }
        }
    }

    /// Both ways: what the blocking call gives its closure and returns, and, where the closure does nothing, the stream.
    private func generate(_ c: Case) throws {
        for streamed in [false, true] {
            if streamed && (c.has("cancel_after") || c.has("stop_after")) { continue }
            let s = try Session(model(c), options: c.sessionOptions())
            if !c.ids("before").isEmpty { try s.prefill(c.ids("before")) }
            var o = try c.generateOptions()
            let token = CancelToken()
            if c.flag("cancelled") { token.cancel() }
            o.cancel = token
            if c.has("force") {
                let left = Shared(c.ids("force")[...])
                o.hook = { _, logits in
                    let id = left.with { Int($0.removeFirst()) }
                    for i in logits.indices { logits[i] = i == id ? 0 : -.infinity }
                    return .proceed
                }
            }
            var pieces: [Piece] = []
            let summary: Summary
            if streamed {
                (pieces, summary) = try read(s.generate(c.ids("prompt"), options: o))
            } else {
                var tokens = 0
                summary = try s.generate(c.ids("prompt"), options: o) { piece in
                    pieces.append(piece)
                    if piece.token != nil { tokens += 1 }
                    if tokens == c.number("cancel_after") { token.cancel() }
                    return tokens == c.number("stop_after") ? .stop : .proceed
                }
            }
            try generated(c.object("expect"), pieces, summary, length: s.count)
        }
    }

    private func generated(_ expect: Case, _ pieces: [Piece], _ summary: Summary, length: Int) throws {
        try same(pieces.compactMap(\.token), expect.ids("tokens"), "tokens")
        if expect.has("text") { try same(pieces.map(\.text).joined(), expect.text("text"), "text") }
        if expect.has("pieces") { try same(pieces.map(\.text), expect.list("pieces") as? [String], "pieces") }
        try ended(expect, summary)
        for (key, found) in [
            ("prompt_tokens", summary.promptTokens), ("generated_tokens", summary.generatedTokens), ("len", length),
        ] where expect.has(key) {
            try same(found, expect.number(key), key)
        }
        if expect.has("top") {
            try close(pieces.first?.logProb, expect.json["log_prob"], logProb, "log_prob")
            let top = pieces.first?.top ?? []
            try same(top.count, expect.rows("top").count, "number of the likeliest")
            for (found, row) in zip(top, expect.rows("top")) {
                try same(found.token, Token(int(row[0])), "one of the likeliest")
                try close(found.logProb, row[1], logProb, "log-probability of one of the likeliest")
            }
        }
    }

    private func ended(_ expect: Case, _ summary: Summary) throws {
        let reasons: [String: FinishReason] = [
            "end_of_turn": .endOfTurn, "limit": .limit, "stop": .stop, "callback": .callback, "cancelled": .cancelled,
            "context_full": .contextFull,
        ]
        try same(summary.reason, reasons[expect.text("reason")], "reason")
        try same(summary.stopIndex, expect.number("stop_index"), "stop index")
    }

    /// All of a stream, from a thread that is not one of Swift's own.
    private func read(_ stream: AsyncThrowingStream<Piece, any Error>) throws -> ([Piece], Summary) {
        let done = DispatchSemaphore(value: 0)
        let result = Shared<Result<[Piece], any Error>>(.success([]))
        Task.detached {
            do {
                var pieces: [Piece] = []
                for try await piece in stream { pieces.append(piece) }
                result.with { [pieces] in $0 = .success(pieces) }
            } catch {
                result.with { $0 = .failure(error) }
            }
            done.signal()
        }
        done.wait()
        let pieces = try result.with { $0 }.get()
        guard let summary = pieces.last?.summary else { throw Failed("a stream without a summary") }
        return (pieces.dropLast(), summary)
    }

    private func chat(_ c: Case) throws {
        for streamed in [false, true] {
            let model = try model(c)
            let system = c.has("system") ? c.text("system") : nil
            var talk = try Conversation(Session(model, options: c.sessionOptions()), system: system)
            if c.has("policy") {
                try same(c.text("policy"), "drop_oldest", "policy")
                try talk.setPolicy(.dropOldest)
            }
            for action in c.objects("actions") {
                let o = try action.generateOptions()
                var answer = ""
                let onPiece: (Piece) throws -> Flow = {
                    answer += $0.text
                    return .proceed
                }
                let text = action.text("text")
                let summary: Summary
                switch (action.text("do"), streamed) {
                case ("send", false): summary = try talk.send(text, options: o, onPiece: onPiece)
                case ("edit_last", false): summary = try talk.editLast(text, options: o, onPiece: onPiece)
                case ("regenerate", false): summary = try talk.regenerate(options: o, onPiece: onPiece)
                case ("respond", false):
                    summary = try talk.respond(to: action.turns("turns"), options: o, onPiece: onPiece)
                case ("send", true): summary = try answered(talk.send(text, options: o), &answer)
                case ("edit_last", true): summary = try answered(talk.editLast(text, options: o), &answer)
                case ("regenerate", true): summary = try answered(talk.regenerate(options: o), &answer)
                case ("respond", true):
                    summary = try answered(talk.respond(to: action.turns("turns"), options: o), &answer)
                case ("reset", _):
                    try talk.reset()
                    continue
                case ("set_system", _):
                    try talk.setSystem(text)
                    continue
                case ("trim", _):
                    try talk.trim()
                    continue
                case ("save_and_load", _):
                    let path = scratch.appendingPathComponent("conversation").path
                    try talk.save(to: path)
                    talk = try Conversation.load(model, from: path, options: c.sessionOptions())
                    continue
                case (let other, _): throw Failed("action \(other)")
                }
                let expect = action.object("expect")
                try same(answer, expect.text("answer"), "answer")
                try ended(expect, summary)
                try same(summary.promptTokens, expect.number("prompt_tokens"), "prompt_tokens")
                try same(summary.reusedTokens, expect.number("reused_tokens"), "reused_tokens")
                try same(summary.generatedTokens, expect.number("generated_tokens"), "generated_tokens")
                try same(talk.dropped, expect.turns("dropped"), "dropped")
            }
            try same(talk.turns, c.turns("turns"), "turns")
            try same(talk.tokens, c.ids("tokens"), "tokens")
        }
    }

    private func answered(_ stream: AsyncThrowingStream<Piece, any Error>, _ answer: inout String) throws -> Summary {
        let (pieces, summary) = try read(stream)
        answer = pieces.map(\.text).joined()
        return summary
    }

    // MARK: Errors

    /// The file that a recipe describes.
    private func cook(_ recipe: Case) throws -> URL {
        let url = scratch.appendingPathComponent(recipe.has("name") ? recipe.text("name") : "case.gguf")
        var bytes: Data
        if recipe.has("of") {
            bytes = try Data(contentsOf: URL(fileURLWithPath: data(recipe.text("of"))))
        } else if recipe.has("bytes") {
            bytes = Data(recipe.list("bytes").map { UInt8(int($0)) })
        } else {
            return url
        }
        if let keep = recipe.number("keep") { bytes = bytes.prefix(keep) }
        for at in recipe.rows("set") { bytes[int(at[0])] = UInt8(int(at[1])) }
        let replace = recipe.list("replace").map { Data(($0 as? String ?? "").utf8) }
        if replace.count == 2 {
            guard replace[0].count == replace[1].count, let range = bytes.range(of: replace[0]) else {
                throw Failed("replace \(replace)")
            }
            bytes.replaceSubrange(range, with: replace[1])
        }
        // A model that was opened may have the file of this name mapped.
        try? FileManager.default.removeItem(at: url)
        try bytes.write(to: url)
        return url
    }

    private func error(_ c: Case) throws {
        let url = c.has("model") ? URL(fileURLWithPath: path(c.text("model"))) : try cook(c.object("file"))
        var lengthAfter: Int?
        let found: CaratError
        do {
            try provoke(c, url, &lengthAfter)
            throw Failed("no error")
        } catch let error as CaratError { found = error }
        try same(found.status.description, c.text("status"), "status (\(found.message))")
        let kinds: [String: CaratError.Kind] = [
            "usage": .usage, "file": .file, "cancelled": .cancelled, "runtime": .runtime,
        ]
        try same(found.kind, kinds[c.text("error_kind")], "kind")
        if !c.text("message").isEmpty && !found.message.contains(c.text("message")) {
            throw Failed("message: expected \(c.text("message")) in \(found.message)")
        }
        try same(found.nearest != nil, c.flag("nearest"), "whether there is a nearest length")
        if c.has("len_after") { try same(lengthAfter, c.number("len_after"), "length after") }
    }

    private func provoke(_ c: Case, _ url: URL, _ lengthAfter: inout Int?) throws {
        let token = CancelToken()
        if c.flag("cancelled") { token.cancel() }
        let options = try c.sessionOptions()
        let call = c.text("call")
        var opening = ModelOptions(threads: 1)
        for (key, value) in c.object("open").json {
            try same(key, "threads", "option")
            opening.threads = int(value)
        }
        if call == "plan" {
            _ = try Model.plan(path: url.path, threads: 1, options: options)
            return
        }
        if call == "open" { opening.cancel = token }
        let model = c.text("by") == "bytes"
            ? try Model(data: Data(contentsOf: url), options: opening)
            : try Model(path: url.path, options: opening)
        if call == "open" { return }
        let t = model.tokenizer
        let id = Token(c.number("id") ?? 0)
        switch call {
        case "tokenize": _ = try t.encode(c.text("text"), cancel: token); return
        case "detokenize": _ = try t.decode(c.ids("ids")); return
        case "decoder": _ = try t.decoder().push(id); return
        case "token_bytes": _ = try t.bytes(of: id); return
        case "token_kind": _ = try t.kind(of: id); return
        case "metadata":
            // Swift's answer to a key that is not there is nil.
            if try model.metadata(c.text("key")) == nil {
                throw CaratError(status: .metadata, kind: .file, message: c.text("key"), nearest: nil)
            }
            return
        case "render": _ = try t.render(c.turns("turns"), cancel: token); return
        case "load":
            _ = try Session.load(model, from: cook(c.object("file_to_load")).path, options: options, cancel: token)
            return
        case "load_conversation":
            _ = try Conversation.load(model, from: cook(c.object("file_to_load")).path, options: options, cancel: token)
            return
        default: break
        }

        let s = try Session(model, options: options)
        if c.has("before") { try s.prefill(c.ids("before")) }
        if let cut = c.number("cut") { try s.truncate(to: cut) }
        if let length = c.number("shrink_to") {
            let file = try FileHandle(forWritingTo: url)
            try file.truncate(atOffset: UInt64(length))
            try file.close()
        }
        var o = try c.generateOptions()
        o.cancel = token
        let quiet: (Piece) throws -> Flow = { _ in .proceed }
        switch call {
        case "resume": _ = try Conversation(resuming: s); return
        case "send": try Conversation(s).send(c.text("text"), options: o, onPiece: quiet); return
        case "edit_last": try Conversation(s).editLast(c.text("text"), options: o, onPiece: quiet); return
        case "regenerate": try Conversation(s).regenerate(options: o, onPiece: quiet); return
        case "respond": try Conversation(s).respond(to: c.turns("turns"), options: o, onPiece: quiet); return
        default: break
        }

        do {
            try called(call, c, s, o, token)
        } catch let error as CaratError {
            lengthAfter = try s.count
            if let nearest = error.nearest {
                try s.truncate(to: nearest)
                try same(s.count, nearest, "length after the cut")
            }
            throw error
        }
    }

    private func called(_ call: String, _ c: Case, _ s: Session, _ o: GenerateOptions, _ token: CancelToken) throws {
        switch call {
        case "session": break
        case "prefill": try s.prefill(c.ids("ids"), cancel: token)
        case "prefill_each":
            try s.prefill(c.ids("ids"), cancel: token) { index, _ in
                index + 1 == c.number("stop_after") ? .stop : .proceed
            }
        case "step": try s.step(Token(c.number("token") ?? 0), cancel: token)
        case "score": _ = try s.score(c.ids("ids"), from: c.number("from") ?? 0, cancel: token)
        case "logits": _ = try s.logits()
        case "truncate": try s.truncate(to: c.number("to") ?? -1)
        case "generate": try s.generate(c.ids("prompt"), options: o) { _ in .proceed }
        case "busy":
            try s.generate(c.ids("prompt"), options: o) { _ in
                try s.prefill([300])
                return .proceed
            }
        case "save":
            let name = c.has("to_file") ? c.text("to_file") : "session"
            try s.save(to: scratch.appendingPathComponent(name).path, cancel: token)
        default: throw Failed("call \(call)")
        }
    }
}
