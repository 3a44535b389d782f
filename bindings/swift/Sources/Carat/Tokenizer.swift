import CCarat

/// What turns text into ids and back. It is made when it is first used; until then, calls may throw ``CaratError`` with
/// `vocabulary` for a vocabulary that is not sound, `outOfMemory`, and `cancelled` (the token of ``ModelOptions``).
public struct Tokenizer: Sendable {
    let model: Model

    private var raw: OpaquePointer { model.handle.raw }

    /// The ids of a text.
    ///
    /// - Parameters:
    ///   - special: Whether control tokens written out in the text become their ids. Else they are text, as in what a
    ///     user typed.
    ///   - bos: Whether to begin with the beginning-of-sequence token, unless the text does so itself (with `special`).
    public func encode(
        _ text: String, special: Bool = false, bos: Bool = false, cancel: CancelToken? = nil
    ) throws(CaratError) -> [Token] {
        var o = carat_tokenize_options()
        carat_tokenize_options_init(&o, MemoryLayout<carat_tokenize_options>.size)
        o.special = special ? 1 : 0
        o.bos = bos ? 1 : 0
        o.cancel = cancel?.raw
        return try withExtendedLifetime(cancel) { () throws(CaratError) in
            // Mostly some characters make a token. In the worst case the second try has the room.
            try filled(text.utf8.count / 2 + 16, 0 as Token) { ids, room, n, error in
                withText(text) { carat_tokenize(raw, $0, $1, &o, ids, room, n, error) }
            }
        }
    }

    /// The text of ids: control tokens have none, bytes that are not UTF-8 become U+FFFD.
    ///
    /// - Throws: ``CaratError`` with `tokenOutOfRange`.
    public func decode(_ ids: [Token]) throws(CaratError) -> String {
        try filledText(16 + 8 * ids.count) { carat_detokenize(raw, ids, ids.count, $0, $1, $2, $3) }
    }

    /// The bytes that a piece stands for, with spaces as spaces; of a control token, its name. They need not be UTF-8:
    /// pieces for bytes are one byte.
    ///
    /// - Throws: ``CaratError`` with `tokenOutOfRange`.
    public func bytes(of id: Token) throws(CaratError) -> [UInt8] {
        try filled(64, 0 as UInt8) { carat_token_bytes(raw, id, $0, $1, $2, $3) }
    }

    /// The kind of a piece.
    ///
    /// - Throws: ``CaratError`` with `tokenOutOfRange`.
    public func kind(of id: Token) throws(CaratError) -> PieceKind {
        var kind: Int32 = 0
        try check { carat_token_kind(raw, id, &kind, $0) }
        return PieceKind(rawValue: kind)
    }

    /// The id of the piece that reads exactly `piece`, control tokens included; nil where there is none.
    public func id(of piece: String) throws(CaratError) -> Token? {
        var id: Token = 0
        try check { error in withText(piece) { carat_token_id(raw, $0, $1, &id, error) } }
        return id == Token.max ? nil : id
    }

    /// The ids of the special tokens.
    public var special: SpecialTokens {
        get throws(CaratError) {
            var c = carat_special_tokens()
            carat_special_tokens_init(&c, MemoryLayout<carat_special_tokens>.size)
            try check { carat_model_special_tokens(raw, &c, $0) }
            return SpecialTokens(
                vocabularySize: Int(clamping: c.vocab_size), bos: c.bos, eos: c.eos, unknown: c.unk,
                startOfTurn: c.start_of_turn, endOfTurn: c.end_of_turn, padding: c.pad == Token.max ? nil : c.pad)
        }
    }

    /// The ids of a whole conversation in Gemma's turns, from the beginning-of-sequence token to the open turn of the
    /// model that is to answer. Control tokens written out in a text are text.
    ///
    /// - Throws: ``CaratError`` with `chat` where the turns are not at most one of the system, then user and model in
    ///   turn, the last the user's.
    public func render(_ turns: [Turn], cancel: CancelToken? = nil) throws(CaratError) -> [Token] {
        let bytes = turns.reduce(64) { $0 + $1.text.utf8.count / 2 + 16 }
        return try withExtendedLifetime(cancel) { () throws(CaratError) in
            try filled(bytes, 0 as Token) { ids, room, n, error in
                withTurns(turns) { carat_chat_render(raw, $0, $1, cancel?.raw, ids, room, n, error) }
            }
        }
    }

    /// A decoder at the beginning of a text.
    public func decoder() throws(CaratError) -> TokenDecoder { try TokenDecoder(model) }
}

/// Turns ids into text as they come, whole characters at a time. One call at a time.
public final class TokenDecoder: Sendable {
    private let handle: Handle

    init(_ model: Model) throws(CaratError) {
        let raw = try made { carat_decoder_new(model.handle.raw, $0, $1) }
        handle = Handle(raw, keeping: model.handle) { carat_decoder_free($0) }
    }

    /// Takes the next id, and returns the text that is now certain, which may be empty.
    ///
    /// - Throws: ``CaratError`` with `tokenOutOfRange` or `busy`: the id is not taken then.
    public func push(_ id: Token) throws(CaratError) -> String {
        try filledText(2048) { carat_decoder_push(handle.raw, id, $0, $1, $2, $3) }
    }

    /// The end of the text: what was held back becomes U+FFFD. The decoder is then at the beginning of a text again.
    public func flush() throws(CaratError) -> String {
        try filledText(2048) { carat_decoder_flush(handle.raw, $0, $1, $2, $3) }
    }
}

/// The ids of the special tokens.
public struct SpecialTokens: Sendable, Hashable {
    /// Number of pieces: ids go from 0 to one below.
    public let vocabularySize: Int
    /// Beginning of the sequence.
    public let bos: Token
    /// End of the sequence.
    public let eos: Token
    public let unknown: Token
    public let startOfTurn: Token
    public let endOfTurn: Token
    public let padding: Token?
}

/// What a piece of the vocabulary is.
public struct PieceKind: RawRepresentable, Hashable, Sendable {
    public let rawValue: Int32
    public init(rawValue: Int32) { self.rawValue = rawValue }

    /// Text, reached by merging characters.
    public static let normal = PieceKind(rawValue: CARAT_PIECE_NORMAL)
    /// What stands for text that has no piece.
    public static let unknown = PieceKind(rawValue: CARAT_PIECE_UNKNOWN)
    /// A mark without text, such as the end of a turn.
    public static let control = PieceKind(rawValue: CARAT_PIECE_CONTROL)
    /// Text that is taken whole wherever it stands.
    public static let userDefined = PieceKind(rawValue: CARAT_PIECE_USER_DEFINED)
    /// A placeholder.
    public static let unused = PieceKind(rawValue: CARAT_PIECE_UNUSED)
    /// One byte of a character that has no piece.
    public static let byte = PieceKind(rawValue: CARAT_PIECE_BYTE)
}

/// Who speaks.
public enum Role: Int32, Sendable {
    /// Says how to answer; at most one turn, the first: `CARAT_ROLE_SYSTEM`.
    case system = 0
    /// `CARAT_ROLE_USER`.
    case user = 1
    /// `CARAT_ROLE_MODEL`.
    case model = 2
}

/// What one of the speakers says.
public struct Turn: Sendable, Hashable {
    public var role: Role
    public var text: String

    public init(_ role: Role, _ text: String) {
        self.role = role
        self.text = text
    }
}

/// Turns as carat.h takes them, lent during the call.
func withTurns<R>(_ turns: [Turn], _ body: (UnsafePointer<carat_turn>?, Int) -> R) -> R {
    withTexts(turns.map(\.text)) { texts in
        let c = zip(turns, texts).map { carat_turn(role: $0.role.rawValue, reserved: 0, text: $1) }
        return c.withUnsafeBufferPointer { body($0.baseAddress, $0.count) }
    }
}

/// The bytes of several texts, lent during the call.
func withTexts<R>(_ texts: [String], _ body: ([carat_text]) -> R) -> R {
    var bytes: [CChar] = []
    let ends = texts.map { text in
        bytes.append(contentsOf: text.utf8.lazy.map { CChar(bitPattern: $0) })
        return bytes.count
    }
    return bytes.withUnsafeBufferPointer { all in
        var begin = 0
        return body(ends.map { end in
            defer { begin = end }
            return carat_text(ptr: all.baseAddress.map { $0 + begin }, len: end - begin)
        })
    }
}
