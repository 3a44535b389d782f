import CCarat

/// How a session is laid out. The defaults are the library's.
public struct SessionOptions: Sendable, Hashable {
    /// Tokens that the session can hold; nil: the model's own context length, but at most 4096.
    public var context: Int?
    /// Most tokens that are processed at once, 1 to 4096: more is faster on long prompts and takes more memory.
    public var batch: Int
    /// How keys and values are stored.
    public var keyValues: KeyValueType
    /// Copies of the sliding windows that a conversation keeps to go back to its last turns, 0 to 64.
    public var snapshots: Int
    /// Compute with `Float` activations and weights: slow, and the truth that fast paths are tested against.
    public var exact: Bool
    /// Keep every position in the windowed layers too, so that a text can be cut anywhere.
    public var fullHistory: Bool
    /// Most tokens that generating guesses ahead where the text repeats itself, 0 to 15, and verifies in one pass: the same
    /// text bit for bit, sooner where it quotes. Each takes a row of logits of memory.
    public var draft: Int

    public init() {
        var c = carat_session_options()
        carat_session_options_init(&c, MemoryLayout<carat_session_options>.size)
        context = c.context > 0 ? Int(clamping: c.context) : nil
        batch = Int(clamping: c.batch)
        keyValues = KeyValueType(rawValue: c.kv) ?? .auto
        snapshots = Int(clamping: c.snapshots)
        exact = c.exact != 0
        fullHistory = c.full_history != 0
        draft = Int(clamping: c.draft)
    }

    public init(context: Int?, batch: Int? = nil, keyValues: KeyValueType = .auto) {
        self.init()
        self.context = context
        self.batch = batch ?? self.batch
        self.keyValues = keyValues
    }

    func c() throws(CaratError) -> carat_session_options {
        var c = carat_session_options()
        carat_session_options_init(&c, MemoryLayout<carat_session_options>.size)
        // Zero is no context to ask for: in carat.h it stands for the default.
        if context == 0 { throw .usage(.invalidOption, "context: 0 tokens") }
        c.context = try unsigned(context ?? 0, "context")
        c.batch = try unsigned(batch, "batch")
        c.kv = keyValues.rawValue
        c.snapshots = try unsigned(snapshots, "snapshots")
        c.exact = exact ? 1 : 0
        c.full_history = fullHistory ? 1 : 0
        c.draft = try unsigned(draft, "draft")
        return c
    }
}

/// How keys and values are stored.
public enum KeyValueType: Int32, Sendable {
    /// In 16 bits, but in 32 for a model whose matrices are all F32: `CARAT_KV_AUTO`.
    case auto = 0
    /// In 16 bits: `CARAT_KV_F16`.
    case f16 = 1
    /// In Q8_0, about half of f16's memory: `CARAT_KV_Q8_0`.
    case q8_0 = 2
    /// In 32 bits: `CARAT_KV_F32`.
    case f32 = 3
}
