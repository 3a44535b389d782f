import CCarat
import Dispatch
import Foundation

/// One text being read and written by a model.
///
/// A session takes one call at a time. It is `Sendable`, and no actor, because the library itself watches over that: a
/// second blocking call gets ``CaratError`` with `busy`. The `async` calls and streams of a session never meet each other:
/// they run one after the other, in the order they were made, on a thread of the session's own queue and not on one of
/// Swift's. In asynchronous code the compiler accepts the latter alone.
///
/// Calls that compute stop within 200 ms when they are cancelled, and leave the session at its last completed batch. Any
/// of them may throw ``CaratError`` with `busy`, `fileChanged`, `forked` and `outOfMemory` besides what they name.
public final class Session: Sendable {
    /// The model, which lives as long as the session.
    public let model: Model
    let handle: Handle
    let queue: DispatchQueue

    init(_ raw: OpaquePointer, model: Model, queue: DispatchQueue? = nil) {
        self.model = model
        self.queue = queue ?? DispatchQueue(label: "carat.session", qos: .userInitiated)
        handle = Handle(raw, keeping: model.handle) { carat_session_free($0) }
    }

    /// An empty session. All memory that it needs for its tokens is taken here: see ``Model/plan(_:)``.
    ///
    /// - Throws: ``CaratError`` with `invalidOption` or `outOfMemory`.
    public convenience init(_ model: Model, options: SessionOptions = SessionOptions()) throws(CaratError) {
        var c = try options.c()
        self.init(try made { carat_session_new(model.handle.raw, &c, $0, $1) }, model: model)
    }

    /// A copy that goes its own way from here.
    public func fork() throws(CaratError) -> Session {
        Session(try made { carat_session_fork(handle.raw, $0, $1) }, model: model)
    }

    // MARK: Reading

    /// Adds the tokens of a prompt, in batches, and computes the logits after the last. However they are split into
    /// calls, the same tokens give the same logits.
    ///
    /// - Throws: ``CaratError``: before anything is done `emptyPrompt`, `tokenOutOfRange`, `promptTooLong`; `cancelled`.
    @available(*, noasync, message: "This blocks the thread: in asynchronous code, `await` the other form.")
    public func prefill(_ ids: [Token], cancel: CancelToken? = nil) throws(CaratError) {
        try withExtendedLifetime(cancel) { () throws(CaratError) in
            try check { carat_session_prefill(handle.raw, ids, ids.count, cancel?.raw, $0) }
        }
    }

    /// Adds the tokens of a prompt, in batches, and computes the logits after the last. However they are split into
    /// calls, the same tokens give the same logits.
    ///
    /// - Throws: ``CaratError``: before anything is done `emptyPrompt`, `tokenOutOfRange`, `promptTooLong`;
    ///   `CancellationError`.
    public func prefill(_ ids: [Token]) async throws {
        try await offloaded(to: queue) { [self] in try prefill(ids, cancel: $0) }
    }

    /// Adds tokens, and hands the logits `[vocabularySize]` after each to `each`, with its index in `ids`. They are valid
    /// during that call. Where it answers ``Flow/stop``, the rest of the batch is part of the session and the rest of the
    /// tokens is not, and `cancelled` is thrown.
    @available(*, noasync, message: "This blocks the thread: in asynchronous code, `await` the other form.")
    public func prefill(
        _ ids: [Token], cancel: CancelToken? = nil,
        each: (_ index: Int, _ logits: UnsafeBufferPointer<Float>) throws -> Flow
    ) throws {
        try withoutActuallyEscaping(each) { each in
            let closure = Each(each)
            try withExtendedLifetime((closure, cancel)) {
                do {
                    try check { error in
                        carat_session_prefill_each(
                            handle.raw, ids, ids.count, cancel?.raw,
                            { data, index, logits, n in
                                guard let e = data?.object(as: Each.self) else { return 0 }
                                return e.caught.run { try e.body(index, UnsafeBufferPointer(start: logits, count: n)) }
                            }, address(of: closure), error)
                    }
                } catch {
                    try closure.caught.rethrow()
                    throw error
                }
                try closure.caught.rethrow()
            }
        }
    }

    /// Adds tokens, and hands the logits `[vocabularySize]` after each to `each`, with its index in `ids`, on the thread
    /// that computes. They are valid during that call. Where it answers ``Flow/stop``, the rest of the batch is part of
    /// the session and the rest of the tokens is not, and ``CaratError`` with `cancelled` is thrown.
    public func prefill(
        _ ids: [Token], each: @escaping @Sendable (_ index: Int, _ logits: UnsafeBufferPointer<Float>) throws -> Flow
    ) async throws {
        try await offloaded(to: queue) { [self] in try prefill(ids, cancel: $0, each: each) }
    }

    /// Adds one token and computes the logits of the next.
    ///
    /// - Throws: ``CaratError`` with `contextFull`, `tokenOutOfRange`, `cancelled`.
    @available(*, noasync, message: "This blocks the thread: in asynchronous code, `await` the other form.")
    public func step(_ token: Token, cancel: CancelToken? = nil) throws(CaratError) {
        try withExtendedLifetime(cancel) { () throws(CaratError) in
            try check { carat_session_step(handle.raw, token, cancel?.raw, $0) }
        }
    }

    /// Adds one token and computes the logits of the next.
    ///
    /// - Throws: ``CaratError`` with `contextFull`, `tokenOutOfRange`; `CancellationError`.
    public func step(_ token: Token) async throws {
        try await offloaded(to: queue) { [self] in try step(token, cancel: $0) }
    }

    /// The logits of the token that comes next, as they are after a prefill or a step. They are not copied: a session that
    /// goes on while they are kept computes into other memory.
    ///
    /// - Throws: ``CaratError`` with `noLogits` after anything but a prefill or a step.
    public func logits() throws(CaratError) -> Logits {
        Logits(try made { carat_session_logits(handle.raw, $0, $1) })
    }

    /// Adds the tokens of a text, and tells for those from index `from` on how likely they were after those before them.
    /// The very first token of a session has nothing before it and no score.
    ///
    /// - Throws: ``CaratError`` as ``prefill(_:cancel:)``; `invalidOption` for a `from` beyond the text; `nanLogits`.
    @available(*, noasync, message: "This blocks the thread: in asynchronous code, `await` the other form.")
    public func score(_ ids: [Token], from: Int = 0, cancel: CancelToken? = nil) throws(CaratError) -> [TokenScore] {
        let begin: UInt = try unsigned(from, "from")
        let none = carat_token_score(token: 0, log_prob: 0, rank: 0)
        return try withExtendedLifetime(cancel) { () throws(CaratError) in
            // There is room for all: scores are not computed twice.
            try filled(max(ids.count - from, 0), none) { scores, room, n, error in
                carat_session_score(
                    handle.raw, ids, ids.count, Int(clamping: begin), cancel?.raw, scores, room, n, error)
            }
        }.map { TokenScore(token: $0.token, logProb: $0.log_prob, rank: Int(clamping: $0.rank)) }
    }

    /// Adds the tokens of a text, and tells for those from index `from` on how likely they were after those before them.
    /// The very first token of a session has nothing before it and no score.
    ///
    /// - Throws: ``CaratError`` as ``prefill(_:)``; `invalidOption` for a `from` beyond the text; `nanLogits`.
    public func score(_ ids: [Token], from: Int = 0) async throws -> [TokenScore] {
        try await offloaded(to: queue) { [self] in try score(ids, from: from, cancel: $0) }
    }

    // MARK: Writing

    /// Adds a prompt and generates what follows it, one piece a token. An empty prompt goes on from where the session is.
    ///
    /// The generation begins at once and runs at most `buffer` pieces ahead of the reader; then it waits, and so do later
    /// calls on this session. It ends with a piece that has the ``Piece/summary``. It is cancelled when the task that reads
    /// is (the stream ends without a summary and without an error, as streams do: `Task.checkCancellation()` tells), and
    /// when the stream is let go, as by leaving the loop. Tokens that were generated and not read are part of the session.
    ///
    /// The stream throws ``CaratError``: as ``prefill(_:)``, `emptyPrompt` where there is nothing to go on from,
    /// `invalidOption`, `nanLogits`; and what the hook throws.
    public func generate(
        _ prompt: [Token], options: GenerateOptions = GenerateOptions(), buffer: Int = 16
    ) -> AsyncThrowingStream<Piece, any Error> {
        pieceStream(on: queue, buffer: buffer) { [self] task, onPiece in
            try generate(prompt, options, task: task, onPiece)
        }
    }

    /// Adds a prompt and generates what follows it; `onPiece` gets one piece a token, on this thread. Cancelling is not an
    /// error: the summary says so. What `onPiece` or the hook throws ends the generation and comes out of the call.
    ///
    /// - Throws: ``CaratError``: as ``prefill(_:cancel:)``, `emptyPrompt` where there is nothing to go on from,
    ///   `invalidOption`, `nanLogits`.
    @available(*, noasync, message: "This blocks the thread: in asynchronous code, read the stream.")
    @discardableResult
    public func generate(
        _ prompt: [Token], options: GenerateOptions = GenerateOptions(), onPiece: (Piece) throws -> Flow
    ) throws -> Summary {
        try generate(prompt, options, task: nil, onPiece)
    }

    private func generate(
        _ prompt: [Token], _ options: GenerateOptions, task: CancelToken?, _ onPiece: (Piece) throws -> Flow
    ) throws -> Summary {
        try options.generate(task: task, onPiece) {
            carat_session_generate(handle.raw, prompt, prompt.count, $0, $1, $2, $3, $4)
        }
    }

    // MARK: The text

    /// The number of tokens so far.
    public var count: Int {
        get throws(CaratError) {
            var len = 0
            try check { carat_session_len(handle.raw, &len, nil, $0) }
            return len
        }
    }

    /// The number of tokens that the session can hold.
    public var contextLength: Int {
        get throws(CaratError) {
            var context = 0
            try check { carat_session_len(handle.raw, nil, &context, $0) }
            return context
        }
    }

    /// The tokens so far.
    public var tokens: [Token] {
        get throws(CaratError) {
            try filled(256, 0 as Token) { carat_session_tokens(handle.raw, $0, $1, $2, $3) }
        }
    }

    /// Cuts the text to its first `count` tokens.
    ///
    /// - Throws: ``CaratError`` with `rewind` when the sliding windows no longer hold what comes before: the session is as
    ///   it was, and ``CaratError/nearest`` says how far back it can go; `invalidOption` when there are fewer tokens.
    public func truncate(to count: Int) throws(CaratError) {
        let len: UInt = try unsigned(count, "count")
        try check { carat_session_truncate(handle.raw, Int(clamping: len), $0) }
    }

    /// Gives back memory that can be had again, for when the system says that memory is short. The text stays as it is,
    /// and so do the logits. This is for threads that know that the session has no call; the `async` form waits for it.
    @available(*, noasync, message: "In asynchronous code, `await` the other form.")
    public func trim() throws(CaratError) {
        try check { carat_session_trim(handle.raw, $0) }
    }

    /// Gives back memory that can be had again, for when the system says that memory is short, after the calls that were
    /// made before. The text stays as it is, and so do the logits.
    public func trim() async throws {
        try await offloaded(to: queue) { [self] _ in try trim() }
    }

    // MARK: Files

    /// Saves the session to a file: loaded again it goes on with the same bits. A file that is there is replaced only when
    /// the new one is complete and on the disk.
    ///
    /// - Throws: ``CaratError`` with `io`, a full disk among them: the old file stays; `cancelled`.
    @available(*, noasync, message: "This blocks the thread: in asynchronous code, `await` the other form.")
    public func save(to path: String, cancel: CancelToken? = nil) throws(CaratError) {
        try withExtendedLifetime(cancel) { () throws(CaratError) in
            try check { error in withText(path) { carat_session_save(handle.raw, $0, $1, cancel?.raw, error) } }
        }
    }

    /// Saves the session to a file: loaded again it goes on with the same bits. A file that is there is replaced only when
    /// the new one is complete and on the disk.
    ///
    /// - Throws: ``CaratError`` with `io`, a full disk among them: the old file stays; `CancellationError`.
    public func save(to path: String) async throws {
        try await offloaded(to: queue) { [self] in try save(to: path, cancel: $0) }
    }

    /// Opens a session that ``save(to:cancel:)`` wrote, with options of its own; another `keyValues` than the saved
    /// session's is an error.
    ///
    /// - Throws: ``CaratError`` with `state` for a file of another model or `keyValues`, one that is damaged, or a text
    ///   that does not fit; `io`; `cancelled`; as ``init(_:options:)``.
    @available(*, noasync, message: "This blocks the thread: in asynchronous code, `await` the other form.")
    public static func load(
        _ model: Model, from path: String, options: SessionOptions = SessionOptions(), cancel: CancelToken? = nil
    ) throws(CaratError) -> Session {
        var c = try options.c()
        return try withExtendedLifetime(cancel) { () throws(CaratError) in
            Session(
                try made { out, error in
                    withText(path) { carat_session_load(model.handle.raw, $0, $1, &c, cancel?.raw, out, error) }
                }, model: model)
        }
    }

    /// Opens a session that ``save(to:)`` wrote, with options of its own; another `keyValues` than the saved session's is
    /// an error.
    ///
    /// - Throws: ``CaratError`` with `state` for a file of another model or `keyValues`, one that is damaged, or a text
    ///   that does not fit; `io`; as ``init(_:options:)``; `CancellationError`.
    public static func load(
        _ model: Model, from path: String, options: SessionOptions = SessionOptions()
    ) async throws -> Session {
        try await offloaded(to: loading) { try load(model, from: path, options: options, cancel: $0) }
    }
}

/// Where saved sessions are opened.
let loading = DispatchQueue(label: "carat.load", qos: .userInitiated, attributes: .concurrent)

/// How likely a token of a given text is, after those before it.
public struct TokenScore: Sendable, Hashable {
    public let token: Token
    /// Natural logarithm of its probability.
    public let logProb: Float
    /// How many tokens are likelier.
    public let rank: Int
}

private final class Each {
    let body: (Int, UnsafeBufferPointer<Float>) throws -> Flow
    let caught = Caught()
    init(_ body: @escaping (Int, UnsafeBufferPointer<Float>) throws -> Flow) { self.body = body }
}
