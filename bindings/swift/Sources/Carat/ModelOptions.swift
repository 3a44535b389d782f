import CCarat

/// How to open a model. The defaults are the library's.
public struct ModelOptions: Sendable {
    /// Threads to compute with, the caller's included, 1 to 256; 0: one for each core that the process may use.
    public var threads: Int
    /// The instruction set to use.
    public var isa: ISA
    /// Read the file into memory instead of mapping it, for a file that cannot be trusted not to shrink meanwhile.
    public var privateCopy: Bool
    /// Read the whole file ahead before returning, so that the first tokens come at full speed.
    public var preload: Bool
    /// Lock the file in memory, so that the system cannot take its pages back. Where the system refuses, the model works
    /// without: see ``ModelInfo/memoryLock``.
    public var lock: Bool
    /// What turns text into ids.
    public var tokenizerEngine: TokenizerEngine
    /// Stops opening, and making the tokenizer later.
    public var cancel: CancelToken?
    /// Told how far opening has come, in bytes; `done` never falls and ends as `total`. Called on the thread that opens.
    public var progress: (@Sendable (_ done: UInt64, _ total: UInt64) throws -> Flow)?
    /// Takes log messages while the model or a session of it lives: from any thread, perhaps from several at once. No
    /// message holds any part of a prompt.
    public var log: (@Sendable (LogLevel, String) -> Void)?

    public init() {
        var c = carat_model_options()
        carat_model_options_init(&c, MemoryLayout<carat_model_options>.size)
        threads = Int(c.threads)
        isa = ISA(rawValue: c.isa)
        privateCopy = c.private_copy != 0
        preload = c.preload != 0
        lock = c.lock != 0
        tokenizerEngine = TokenizerEngine(rawValue: c.tokenizer_engine) ?? .builtin
    }

    public init(
        threads: Int = 0, preload: Bool = false, cancel: CancelToken? = nil,
        progress: (@Sendable (_ done: UInt64, _ total: UInt64) throws -> Flow)? = nil,
        log: (@Sendable (LogLevel, String) -> Void)? = nil
    ) {
        self.init()
        self.threads = threads
        self.preload = preload
        self.cancel = cancel
        self.progress = progress
        self.log = log
    }
}

/// What turns text into ids.
public enum TokenizerEngine: Int32, Sendable {
    /// The tokenizer of this library: `CARAT_ENGINE_BUILTIN`.
    case builtin = 0
    /// Google's SentencePiece, where it is compiled in: `CARAT_ENGINE_SENTENCEPIECE`.
    case sentencePiece = 1
}

/// How grave a log message is.
public struct LogLevel: RawRepresentable, Hashable, Sendable {
    public let rawValue: Int32
    public init(rawValue: Int32) { self.rawValue = rawValue }

    /// Something did not go as asked, but on.
    public static let warn = LogLevel(rawValue: CARAT_LOG_WARN)
    /// What was done.
    public static let info = LogLevel(rawValue: CARAT_LOG_INFO)
}

/// What must live as long as a model and all sessions of it.
private final class Kept: Sendable {
    let log: (@Sendable (LogLevel, String) -> Void)?
    /// Stops making the tokenizer.
    let cancel: CancelToken?

    init(log: (@Sendable (LogLevel, String) -> Void)?, cancel: CancelToken?) {
        self.log = log
        self.cancel = cancel
    }
}

private final class Progress {
    let told: (UInt64, UInt64) throws -> Flow
    let caught = Caught()
    init(_ told: @escaping (UInt64, UInt64) throws -> Flow) { self.told = told }
}

extension ModelOptions {
    /// Opens a model with these options; `task` is the token of the task that waits for it.
    func open(
        task: CancelToken? = nil,
        _ call: (UnsafePointer<carat_model_options>, UnsafeMutablePointer<OpaquePointer?>, ErrorOut) -> carat_status
    ) throws -> Handle {
        try Library.checkVersion()
        var c = carat_model_options()
        carat_model_options_init(&c, MemoryLayout<carat_model_options>.size)
        c.threads = try threadCount(threads)
        c.isa = isa.rawValue
        c.private_copy = privateCopy ? 1 : 0
        c.preload = preload ? 1 : 0
        c.lock = lock ? 1 : 0
        c.tokenizer_engine = tokenizerEngine.rawValue
        task?.follow(cancel)
        let kept = Kept(log: log, cancel: task ?? cancel)
        c.cancel = kept.cancel?.raw
        if log != nil {
            c.log_data = address(of: kept)
            c.log = { data, level, text, len in
                let bytes = UnsafeRawBufferPointer(start: text, count: len)
                data?.object(as: Kept.self).log?(LogLevel(rawValue: level), String(decoding: bytes, as: UTF8.self))
            }
        }
        let telling = progress.map(Progress.init)
        if let telling {
            c.progress_data = address(of: telling)
            c.progress = { data, done, total in
                guard let p = data?.object(as: Progress.self) else { return 0 }
                return p.caught.run { try p.told(done, total) }
            }
        }
        return try withExtendedLifetime((kept, telling)) {
            do {
                let handle = Handle(try made { call(&c, $0, $1) }, keeping: kept) { carat_model_free($0) }
                // Where the closure threw at its last call, there was nothing left to stop.
                try telling?.caught.rethrow()
                return handle
            } catch {
                try telling?.caught.rethrow()
                throw error
            }
        }
    }
}
