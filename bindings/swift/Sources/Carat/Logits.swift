import CCarat

/// The logits `[vocabularySize]` that a session had at one moment: not copied, and never changing, whatever becomes of
/// the session. Any thread may read them.
public final class Logits: Sendable, RandomAccessCollection {
    private let handle: Handle
    public let count: Int

    init(_ raw: OpaquePointer) {
        var n = 0
        _ = carat_logits_data(raw, &n)
        count = n
        handle = Handle(raw) { carat_logits_free($0) }
    }

    public var startIndex: Int { 0 }
    public var endIndex: Int { count }

    /// The logit of a token; the index is checked, as that of an array.
    public subscript(index: Int) -> Float {
        precondition(index >= 0 && index < count, "no logit \(index) of \(count)")
        return withUnsafeBufferPointer { $0[index] }
    }

    /// Reads them in place. The pointer is valid during the closure.
    public func withUnsafeBufferPointer<R, E: Error>(
        _ body: (UnsafeBufferPointer<Float>) throws(E) -> R
    ) throws(E) -> R {
        defer { withExtendedLifetime(self) {} }
        return try body(UnsafeBufferPointer(start: carat_logits_data(handle.raw, nil), count: count))
    }

    public func withContiguousStorageIfAvailable<R>(
        _ body: (UnsafeBufferPointer<Float>) throws -> R
    ) rethrows -> R? {
        try withUnsafeBufferPointer(body)
    }

    /// The likeliest token.
    public var greatest: Token {
        withUnsafeBufferPointer { values in
            Token(values.indices.max { values[$0] < values[$1] } ?? 0)
        }
    }
}
