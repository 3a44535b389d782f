import CCarat

/// The shape of a model and how it runs here.
public struct ModelInfo: Sendable, Hashable {
    public let architecture: Architecture
    /// The kernels in use.
    public let isa: ISA
    /// Threads in use, the caller's included: fewer than asked where the system refused.
    public let threads: Int
    public let layerCount: Int
    /// Width of the residual stream.
    public let modelWidth: Int
    /// Width of the feed-forward.
    public let feedForwardWidth: Int
    /// Query heads.
    public let headCount: Int
    /// Key and value heads.
    public let keyValueHeadCount: Int
    /// Values in a head.
    public let headWidth: Int
    /// Rows of the embedding: the number of logits.
    public let vocabularySize: Int
    /// Positions that a windowed layer sees; nil where no layer is windowed.
    public let slidingWindow: Int?
    /// Whether the file is locked in memory.
    public let memoryLock: MemoryLock
    /// Positions that the model was trained for.
    public let contextLength: Int
    /// Bytes of the file, all parts.
    public let fileBytes: Int
    public let tensorCount: Int

    init(of model: Handle) throws(CaratError) {
        var c = carat_model_info()
        carat_model_info_init(&c, MemoryLayout<carat_model_info>.size)
        try check { carat_model_get_info(model.raw, &c, $0) }
        architecture = Architecture(rawValue: c.arch)
        isa = ISA(rawValue: c.isa)
        threads = Int(c.threads)
        layerCount = Int(clamping: c.n_layers)
        modelWidth = Int(clamping: c.d_model)
        feedForwardWidth = Int(clamping: c.d_ff)
        headCount = Int(clamping: c.n_heads)
        keyValueHeadCount = Int(clamping: c.n_kv_heads)
        headWidth = Int(clamping: c.head_dim)
        vocabularySize = Int(clamping: c.vocab)
        slidingWindow = c.sliding_window > 0 ? Int(clamping: c.sliding_window) : nil
        memoryLock = MemoryLock(rawValue: c.memory_lock)
        contextLength = Int(clamping: c.context_length)
        fileBytes = Int(clamping: c.file_bytes)
        tensorCount = Int(clamping: c.n_tensors)
    }
}

/// A generation of Gemma.
public struct Architecture: RawRepresentable, Hashable, Sendable {
    public let rawValue: Int32
    public init(rawValue: Int32) { self.rawValue = rawValue }

    /// 2B and 7B.
    public static let gemma = Architecture(rawValue: CARAT_ARCH_GEMMA)
    public static let gemma2 = Architecture(rawValue: CARAT_ARCH_GEMMA2)
    /// Its text models.
    public static let gemma3 = Architecture(rawValue: CARAT_ARCH_GEMMA3)
}

/// Whether a model's file is locked in memory.
public struct MemoryLock: RawRepresentable, Hashable, Sendable {
    public let rawValue: Int32
    public init(rawValue: Int32) { self.rawValue = rawValue }

    /// Nobody asked for it.
    public static let notLocked = MemoryLock(rawValue: CARAT_MEMORY_NOT_LOCKED)
    /// As long as the model lives.
    public static let locked = MemoryLock(rawValue: CARAT_MEMORY_LOCKED)
    /// The system refused; the log says why.
    public static let refused = MemoryLock(rawValue: CARAT_MEMORY_LOCK_REFUSED)
}

/// A tensor of a model's file.
public struct TensorInfo: Sendable, Hashable {
    public let name: String
    /// The name of its type, such as `Q4_K`.
    public let type: String
    /// Sizes, the innermost first.
    public let shape: [Int]
    /// Its first byte, from the start of the file (of its part, where the model is split).
    public let offset: UInt64
    /// Its bytes.
    public let byteCount: Int

    init(_ c: carat_tensor_info) {
        name = String(decoding: UnsafeRawBufferPointer(start: c.name, count: c.name_len), as: UTF8.self)
        type = String(decoding: UnsafeRawBufferPointer(start: c.type_name, count: c.type_name_len), as: UTF8.self)
        let sizes = [c.dims.0, c.dims.1, c.dims.2, c.dims.3]
        shape = sizes.prefix(Int(c.n_dims)).map { Int(clamping: $0) }
        offset = c.offset
        byteCount = Int(clamping: c.size)
    }
}

/// Bytes of memory that a model and one session on it take: an upper bound, and a close one.
public struct Plan: Sendable, Hashable {
    /// The mapped file, whose pages are shared between processes.
    public let file: Int
    /// Keys and values of a full context.
    public let kvCache: Int
    /// Buffers of a pass and of sampling.
    public let scratch: Int
    /// Copies of the sliding windows.
    public let snapshots: Int
    /// The tokenizer; 0 for a file without a vocabulary.
    public let tokenizer: Int
    /// The rest: the file's header as it was read, tokens and texts, stacks, whole pages.
    public let other: Int
    /// All of the above.
    public let total: Int
    /// What scoring and ``Session/prefill(_:cancel:each:)`` take more while they run. Not part of the total.
    public let score: Int
    /// What could be had now without pushing others out, where the system told. Where the total is more, the file is read
    /// again and again.
    public let available: Int?

    init(_ c: carat_plan) {
        file = Int(clamping: c.file)
        kvCache = Int(clamping: c.kv_cache)
        scratch = Int(clamping: c.scratch)
        snapshots = Int(clamping: c.snapshots)
        tokenizer = Int(clamping: c.tokenizer)
        other = Int(clamping: c.other)
        total = Int(clamping: c.total)
        score = Int(clamping: c.score)
        available = c.has_available != 0 ? Int(clamping: c.available) : nil
    }
}
