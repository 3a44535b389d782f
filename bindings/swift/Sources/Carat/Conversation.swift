import CCarat
import Dispatch
import Foundation

/// A user and a model in turn, over one session, in Gemma's template.
///
/// Threads and tasks: as for ``Session``. Replies throw ``CaratError`` as ``Session/generate(_:options:buffer:)`` does, and
/// `promptTooLong`; the conversation is then as it was. Once the model is at work, cancelling is not an error of a
/// blocking call, and what was generated until then is part of the conversation.
public final class Conversation: Sendable {
    /// The model, which lives as long as the conversation.
    public let model: Model
    private let handle: Handle
    private let queue: DispatchQueue

    private init(_ raw: OpaquePointer, model: Model, queue: DispatchQueue) {
        self.model = model
        self.queue = queue
        handle = Handle(raw, keeping: model.handle) { carat_conversation_free($0) }
    }

    /// An empty conversation over a session, with a text of the system (nil for none) that says how to answer. What the
    /// session holds goes to the conversation, also where this fails: it is good for nothing else then.
    ///
    /// - Throws: ``CaratError`` with `busy` (the session keeps what it holds), `outOfMemory`, `vocabulary`.
    public convenience init(_ session: consuming Session, system: String? = nil) throws(CaratError) {
        let raw = try made { out, error in
            withText(system) { carat_conversation_new(session.handle.raw, $0, $1, out, error) }
        }
        self.init(raw, model: session.model, queue: session.queue)
    }

    /// Goes on with the conversation whose tokens a session holds, such as one that was saved without its texts. A text of
    /// the system is part of the first question then. A last question without an answer is left out. Else as
    /// ``init(_:system:)``.
    ///
    /// - Throws: ``CaratError`` with `chat` where the tokens are not a conversation; as ``init(_:system:)``.
    public convenience init(resuming session: consuming Session) throws(CaratError) {
        let raw = try made { carat_conversation_resume(session.handle.raw, $0, $1) }
        self.init(raw, model: session.model, queue: session.queue)
    }

    /// Opens a conversation that ``save(to:cancel:)`` wrote, with options of its own: its turns and the system's text are
    /// the same. ``setPolicy(_:)`` is not part of it. A saved session is opened as by ``init(resuming:)``.
    ///
    /// - Throws: ``CaratError`` as ``Session/load(_:from:options:cancel:)`` and ``init(resuming:)``.
    @available(*, noasync, message: "This blocks the thread: in asynchronous code, `await` the other form.")
    public static func load(
        _ model: Model, from path: String, options: SessionOptions = SessionOptions(), cancel: CancelToken? = nil
    ) throws(CaratError) -> Conversation {
        var c = try options.c()
        return try withExtendedLifetime(cancel) { () throws(CaratError) in
            let raw = try made { out, error in
                withText(path) { carat_conversation_load(model.handle.raw, $0, $1, &c, cancel?.raw, out, error) }
            }
            return Conversation(
                raw, model: model, queue: DispatchQueue(label: "carat.conversation", qos: .userInitiated))
        }
    }

    /// Opens a conversation that ``save(to:)`` wrote, with options of its own: its turns and the system's text are the
    /// same. ``setPolicy(_:)`` is not part of it. A saved session is opened as by ``init(resuming:)``.
    ///
    /// - Throws: ``CaratError`` as ``Session/load(_:from:options:)`` and ``init(resuming:)``; `CancellationError`.
    public static func load(
        _ model: Model, from path: String, options: SessionOptions = SessionOptions()
    ) async throws -> Conversation {
        try await offloaded(to: loading) { try load(model, from: path, options: options, cancel: $0) }
    }

    /// Takes the session out. The conversation is good for nothing else then.
    ///
    /// - Throws: ``CaratError`` with `busy`.
    public func intoSession() throws(CaratError) -> Session {
        Session(try made { carat_conversation_into_session(handle.raw, $0, $1) }, model: model, queue: queue)
    }

    // MARK: Talking

    /// Says something to the model and streams its answer, as ``Session/generate(_:options:buffer:)`` does.
    public func send(
        _ text: String, options: GenerateOptions = GenerateOptions(), buffer: Int = 16
    ) -> AsyncThrowingStream<Piece, any Error> {
        pieceStream(on: queue, buffer: buffer) { [self] in try send(text, options, task: $0, $1) }
    }

    /// Says something to the model and generates its answer; `onPiece` gets one piece a token, on this thread.
    @available(*, noasync, message: "This blocks the thread: in asynchronous code, read the stream.")
    @discardableResult
    public func send(
        _ text: String, options: GenerateOptions = GenerateOptions(), onPiece: (Piece) throws -> Flow
    ) throws -> Summary {
        try send(text, options, task: nil, onPiece)
    }

    /// Drops the last answer and streams another.
    ///
    /// The stream throws ``CaratError`` with `chat` where there is no answer.
    public func regenerate(
        options: GenerateOptions = GenerateOptions(), buffer: Int = 16
    ) -> AsyncThrowingStream<Piece, any Error> {
        pieceStream(on: queue, buffer: buffer) { [self] in try regenerate(options, task: $0, $1) }
    }

    /// Drops the last answer and generates another; `onPiece` gets one piece a token, on this thread.
    ///
    /// - Throws: ``CaratError`` with `chat` where there is no answer.
    @available(*, noasync, message: "This blocks the thread: in asynchronous code, read the stream.")
    @discardableResult
    public func regenerate(
        options: GenerateOptions = GenerateOptions(), onPiece: (Piece) throws -> Flow
    ) throws -> Summary {
        try regenerate(options, task: nil, onPiece)
    }

    /// Drops the last answer and question, says something else and streams the answer.
    ///
    /// The stream throws ``CaratError`` with `chat` where there is no answer.
    public func editLast(
        _ text: String, options: GenerateOptions = GenerateOptions(), buffer: Int = 16
    ) -> AsyncThrowingStream<Piece, any Error> {
        pieceStream(on: queue, buffer: buffer) { [self] in try editLast(text, options, task: $0, $1) }
    }

    /// Drops the last answer and question, and says something else; `onPiece` gets one piece a token, on this thread.
    ///
    /// - Throws: ``CaratError`` with `chat` where there is no answer.
    @available(*, noasync, message: "This blocks the thread: in asynchronous code, read the stream.")
    @discardableResult
    public func editLast(
        _ text: String, options: GenerateOptions = GenerateOptions(), onPiece: (Piece) throws -> Flow
    ) throws -> Summary {
        try editLast(text, options, task: nil, onPiece)
    }

    /// Takes a whole conversation, as a service does that is told all of it each time, and streams the answer to its last
    /// turn; what it has in common with the turns held is not processed again.
    ///
    /// The stream throws ``CaratError`` with `chat` where the turns are not at most one of the system, then user and model
    /// in turn, the last the user's.
    public func respond(
        to turns: [Turn], options: GenerateOptions = GenerateOptions(), buffer: Int = 16
    ) -> AsyncThrowingStream<Piece, any Error> {
        pieceStream(on: queue, buffer: buffer) { [self] in try respond(turns, options, task: $0, $1) }
    }

    /// Takes a whole conversation, as a service does that is told all of it each time, and answers its last turn; what it
    /// has in common with the turns held is not processed again. `onPiece` gets one piece a token, on this thread.
    ///
    /// - Throws: ``CaratError`` with `chat` where the turns are not at most one of the system, then user and model in
    ///   turn, the last the user's.
    @available(*, noasync, message: "This blocks the thread: in asynchronous code, read the stream.")
    @discardableResult
    public func respond(
        to turns: [Turn], options: GenerateOptions = GenerateOptions(), onPiece: (Piece) throws -> Flow
    ) throws -> Summary {
        try respond(turns, options, task: nil, onPiece)
    }

    private typealias OnPiece = (Piece) throws -> Flow

    private func send(
        _ text: String, _ options: GenerateOptions, task: CancelToken?, _ onPiece: OnPiece
    ) throws -> Summary {
        try options.generate(task: task, onPiece) { o, piece, data, summary, error in
            withText(text) { carat_conversation_send(handle.raw, $0, $1, o, piece, data, summary, error) }
        }
    }

    private func regenerate(_ options: GenerateOptions, task: CancelToken?, _ onPiece: OnPiece) throws -> Summary {
        try options.generate(task: task, onPiece) {
            carat_conversation_regenerate(handle.raw, $0, $1, $2, $3, $4)
        }
    }

    private func editLast(
        _ text: String, _ options: GenerateOptions, task: CancelToken?, _ onPiece: OnPiece
    ) throws -> Summary {
        try options.generate(task: task, onPiece) { o, piece, data, summary, error in
            withText(text) { carat_conversation_edit_last(handle.raw, $0, $1, o, piece, data, summary, error) }
        }
    }

    private func respond(
        _ turns: [Turn], _ options: GenerateOptions, task: CancelToken?, _ onPiece: OnPiece
    ) throws -> Summary {
        try options.generate(task: task, onPiece) { o, piece, data, summary, error in
            withTurns(turns) { carat_conversation_respond(handle.raw, $0, $1, o, piece, data, summary, error) }
        }
    }

    // MARK: The turns

    /// What to do when the context is full; ``Policy/stop`` unless set.
    public func setPolicy(_ policy: Policy) throws(CaratError) {
        try check { carat_conversation_set_policy(handle.raw, policy.rawValue, $0) }
    }

    /// The turns so far, without the system's.
    public var turns: [Turn] {
        get throws(CaratError) {
            var n = 0
            try check { carat_conversation_n_turns(handle.raw, &n, $0) }
            var turns: [Turn] = []
            for index in 0..<n {
                turns.append(try turn { carat_conversation_turn(handle.raw, index, $0, $1, $2, $3, $4) })
            }
            return turns
        }
    }

    /// The turns that the last reply dropped to make room, the oldest first.
    public var dropped: [Turn] {
        get throws(CaratError) {
            var turns: [Turn] = []
            while true {
                do {
                    let index = turns.count
                    turns.append(try turn { carat_conversation_dropped(handle.raw, index, $0, $1, $2, $3, $4) })
                } catch where error.status == .invalidArgument {
                    return turns
                }
            }
        }
    }

    private func turn(
        _ call: (
            UnsafeMutablePointer<Int32>, UnsafeMutablePointer<CChar>?, Int, UnsafeMutablePointer<Int>, ErrorOut
        ) -> carat_status
    ) throws(CaratError) -> Turn {
        var role: Int32 = 0
        let text = try filledText(1024) { call(&role, $0, $1, $2, $3) }
        return Turn(role == CARAT_ROLE_USER ? .user : .model, text)
    }

    /// The tokens of the conversation.
    public var tokens: [Token] {
        get throws(CaratError) {
            try filled(256, 0 as Token) { carat_conversation_tokens(handle.raw, $0, $1, $2, $3) }
        }
    }

    /// The system's text; an empty one where there is none.
    public var system: String {
        get throws(CaratError) {
            try filledText(1024) { carat_conversation_system(handle.raw, $0, $1, $2, $3) }
        }
    }

    /// Changes the system's text (nil for none). As it is part of the first turn, everything is processed again when the
    /// conversation goes on.
    public func setSystem(_ text: String?) throws(CaratError) {
        try check { error in withText(text) { carat_conversation_set_system(handle.raw, $0, $1, error) } }
    }

    /// Forgets all turns, and keeps the system's text.
    public func reset() throws(CaratError) {
        try check { carat_conversation_reset(handle.raw, $0) }
    }

    /// Gives back memory that can be had again, as ``Session/trim()`` does. Snapshots stay.
    @available(*, noasync, message: "In asynchronous code, `await` the other form.")
    public func trim() throws(CaratError) {
        try check { carat_conversation_trim(handle.raw, $0) }
    }

    /// Gives back memory that can be had again, for when the system says that memory is short, after the replies that were
    /// asked for before. Snapshots stay.
    public func trim() async throws {
        try await offloaded(to: queue) { [self] _ in try trim() }
    }

    /// Saves the conversation to a file, its turns, the system's text and its session: see ``Session/save(to:cancel:)``.
    @available(*, noasync, message: "This blocks the thread: in asynchronous code, `await` the other form.")
    public func save(to path: String, cancel: CancelToken? = nil) throws(CaratError) {
        try withExtendedLifetime(cancel) { () throws(CaratError) in
            try check { error in withText(path) { carat_conversation_save(handle.raw, $0, $1, cancel?.raw, error) } }
        }
    }

    /// Saves the conversation to a file, its turns, the system's text and its session: see ``Session/save(to:)``.
    public func save(to path: String) async throws {
        try await offloaded(to: queue) { [self] in try save(to: path, cancel: $0) }
    }
}

/// What to do when the context is full.
public enum Policy: Int32, Sendable {
    /// An answer ends (``FinishReason/contextFull``); a turn that does not fit is an error: `CARAT_POLICY_STOP`.
    case stop = 0
    /// The oldest turns are forgotten: see ``Conversation/dropped``. `CARAT_POLICY_DROP_OLDEST`.
    case dropOldest = 1
}
