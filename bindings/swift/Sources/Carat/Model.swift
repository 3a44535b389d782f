import CCarat
import Dispatch
import Foundation

/// An opened model: immutable. It may be used from many threads and tasks at once; passes of its sessions take turns.
///
/// Every initializer is there twice: the plain one opens on the calling thread, the `async` one on a thread of its own,
/// and stops when its task is cancelled. Both throw ``CaratError``, which names what is wrong with a file and where.
public final class Model: Sendable {
    let handle: Handle
    /// The shape of the model and how it runs here.
    public let info: ModelInfo

    private init(_ handle: Handle) throws(CaratError) {
        self.handle = handle
        info = try ModelInfo(of: handle)
    }

    /// Opens a GGUF file; of a model that was split into several, give the first.
    public convenience init(path: String, options: ModelOptions = ModelOptions()) throws {
        try self.init(options.open { o, out, error in
            withText(path) { carat_model_open($0, $1, o, out, error) }
        })
    }

    /// Opens a GGUF file; of a model that was split into several, give the first.
    public convenience init(path: String, options: ModelOptions = ModelOptions()) async throws {
        try await self.init(offloaded(to: opening) { task in
            try options.open(task: task) { o, out, error in
                withText(path) { carat_model_open($0, $1, o, out, error) }
            }
        })
    }

    /// Opens the GGUF file of a `file:` URL. Where it is security-scoped, access must last until this returns.
    public convenience init(contentsOf url: URL, options: ModelOptions = ModelOptions()) throws {
        try self.init(path: Self.path(of: url), options: options)
    }

    /// Opens the GGUF file of a `file:` URL. Where it is security-scoped, access must last until this returns.
    public convenience init(contentsOf url: URL, options: ModelOptions = ModelOptions()) async throws {
        try await self.init(path: Self.path(of: url), options: options)
    }

    /// Opens `length` bytes (nil: all that follow) from byte `offset` of an open file; the offset need not be a multiple
    /// of the page size. The descriptor stays the caller's, who may close it when this returns.
    public convenience init(
        fileDescriptor: Int32, offset: UInt64 = 0, length: UInt64? = nil, options: ModelOptions = ModelOptions()
    ) throws {
        try self.init(options.open {
            carat_model_open_fd(fileDescriptor, offset, length ?? UInt64.max, $0, $1, $2)
        })
    }

    /// Opens `length` bytes (nil: all that follow) from byte `offset` of an open file; the offset need not be a multiple
    /// of the page size. The descriptor stays the caller's, who may close it when this returns.
    public convenience init(
        fileDescriptor: Int32, offset: UInt64 = 0, length: UInt64? = nil, options: ModelOptions = ModelOptions()
    ) async throws {
        try await self.init(offloaded(to: opening) { task in
            try options.open(task: task) {
                carat_model_open_fd(fileDescriptor, offset, length ?? UInt64.max, $0, $1, $2)
            }
        })
    }

    /// Opens a GGUF file that lies in memory. The model keeps the data and does not copy them, mapped ones
    /// (`.alwaysMapped`) neither.
    public convenience init(data: Data, options: ModelOptions = ModelOptions()) throws {
        try self.init(Self.open(data, options, task: nil))
    }

    /// Opens a GGUF file that lies in memory. The model keeps the data and does not copy them, mapped ones
    /// (`.alwaysMapped`) neither.
    public convenience init(data: Data, options: ModelOptions = ModelOptions()) async throws {
        try await self.init(offloaded(to: opening) { try Self.open(data, options, task: $0) })
    }

    private static func open(_ data: Data, _ options: ModelOptions, task: CancelToken?) throws -> Handle {
        try options.open(task: task) { o, out, error in
            // An NSData's bytes stay where they are while it lives; a Data's only during a closure.
            let lent = data as NSData
            return carat_model_open_bytes(
                lent.bytes.assumingMemoryBound(to: UInt8.self), lent.length,
                { Unmanaged<NSData>.fromOpaque($0!).release() }, Unmanaged.passRetained(lent).toOpaque(), o, out, error)
        }
    }

    private static func path(of url: URL) throws(CaratError) -> String {
        guard url.isFileURL else { throw .usage(.invalidArgument, "\(url) is not the URL of a file") }
        return url.path
    }

    /// What turns text into ids and back.
    public var tokenizer: Tokenizer { Tokenizer(model: self) }

    /// The memory that this model and one session on it take.
    ///
    /// - Throws: ``CaratError`` with `invalidOption`.
    public func plan(_ options: SessionOptions = SessionOptions()) throws(CaratError) -> Plan {
        var c = try options.c()
        var plan = carat_plan()
        carat_plan_init(&plan, MemoryLayout<carat_plan>.size)
        try check { carat_model_plan_session(handle.raw, &c, &plan, $0) }
        return Plan(plan)
    }

    /// The memory that a model file and one session on it will take, without loading anything. Throws as opening does.
    ///
    /// - Parameter threads: Those of ``ModelOptions``, but at least 1.
    public static func plan(
        path: String, threads: Int, options: SessionOptions = SessionOptions()
    ) throws(CaratError) -> Plan {
        var c = try options.c()
        var plan = carat_plan()
        carat_plan_init(&plan, MemoryLayout<carat_plan>.size)
        let n = try threadCount(threads)
        try check { error in withText(path) { carat_model_plan($0, $1, n, &c, &plan, error) } }
        return Plan(plan)
    }

    /// A metadata value of the model's file as text: a number in decimal, a bool as true or false, a string as it is. Nil
    /// where there is no such key.
    ///
    /// - Throws: ``CaratError`` with `unsupported` for an array.
    public func metadata(_ key: String) throws(CaratError) -> String? {
        do {
            return try filledText(256) { text, room, n, error in
                withText(key) { carat_model_metadata(handle.raw, $0, $1, text, room, n, error) }
            }
        } catch where error.status == .metadata {
            return nil
        }
    }

    /// The tensor of an index below ``ModelInfo/tensorCount``.
    ///
    /// - Throws: ``CaratError`` with `invalidArgument` for an index beyond.
    public func tensor(at index: Int) throws(CaratError) -> TensorInfo {
        var c = carat_tensor_info()
        carat_tensor_info_init(&c, MemoryLayout<carat_tensor_info>.size)
        let i: UInt64 = try unsigned(index, "index")
        try check { carat_model_tensor(handle.raw, i, &c, $0) }
        return TensorInfo(c)
    }
}

/// Where models are opened: several at once, and never on a thread of Swift's own.
private let opening = DispatchQueue(label: "carat.open", qos: .userInitiated, attributes: .concurrent)
