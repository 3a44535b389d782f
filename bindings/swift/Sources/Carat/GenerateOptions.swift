import CCarat

/// How to generate. The defaults are the library's.
///
/// Tokens are chosen in this order: logit bias, repetition, presence and frequency penalties, the hook, greedy where the
/// temperature is 0, else temperature, top-k, top-p, min-p, draw.
public struct GenerateOptions: Sendable {
    /// Changes the logits `[vocabularySize]` of the next token before it is chosen, given the tokens so far. Both are
    /// valid during the call, which is made on the thread that generates. What it throws ends the generation.
    public typealias Hook = @Sendable (
        _ tokens: UnsafeBufferPointer<Token>, _ logits: UnsafeMutableBufferPointer<Float>
    ) throws -> Flow

    /// Most tokens to generate; nil: as many as fit.
    public var maxTokens: Int?
    /// Logits are divided by it; 0 chooses the likeliest token.
    public var temperature: Float
    /// Only this many of the likeliest tokens are drawn from; 0 for all.
    public var topK: Int
    /// Only the likeliest tokens that together have this probability are drawn from.
    public var topP: Float
    /// Only tokens with at least this share of the likeliest one's probability are drawn from.
    public var minP: Float
    /// The logit of a token that occurred is divided by it where it is positive, else multiplied.
    public var repetitionPenalty: Float
    /// Subtracted from the logit of a token that occurred.
    public var presencePenalty: Float
    /// Subtracted from the logit of a token for each time it occurred.
    public var frequencyPenalty: Float
    /// How many of the last tokens, the prompt's included, the penalties look at.
    public var penaltyWindow: Int
    /// Added to the logits of tokens; −∞ forbids one.
    public var logitBias: [Token: Float] = [:]
    /// Where the random numbers begin: the same seed gives the same text. Nil: go on with the session's own.
    public var seed: UInt64?
    /// Texts that end the generation, and are not part of it.
    public var stop: [String] = []
    /// For each token, so many of the likeliest ones with their log-probabilities, at most 1024.
    public var topLogProbs: Int
    /// Go on after an end of turn or of the text, as benchmarks want it.
    public var ignoreEnd: Bool
    /// Ends the generation from any thread, with ``FinishReason/cancelled``. Tasks need none.
    public var cancel: CancelToken?
    /// Changes the logits. Not for conversations.
    public var hook: Hook?

    public init() {
        var c = carat_generate_options()
        carat_generate_options_init(&c, MemoryLayout<carat_generate_options>.size)
        maxTokens = c.max_tokens == UInt64.max ? nil : Int(clamping: c.max_tokens)
        temperature = c.temperature
        topK = Int(clamping: c.top_k)
        topP = c.top_p
        minP = c.min_p
        repetitionPenalty = c.repetition_penalty
        presencePenalty = c.presence_penalty
        frequencyPenalty = c.frequency_penalty
        penaltyWindow = Int(clamping: c.penalty_window)
        seed = c.has_seed != 0 ? c.seed : nil
        topLogProbs = Int(clamping: c.top_log_probs)
        ignoreEnd = c.ignore_end != 0
    }

    /// The defaults, but for what is given.
    public init(maxTokens: Int?, temperature: Float? = nil, seed: UInt64? = nil, stop: [String] = []) {
        self.init()
        self.maxTokens = maxTokens
        self.temperature = temperature ?? self.temperature
        self.seed = seed
        self.stop = stop
    }
}

/// What a generation did.
public struct Summary: Sendable, Hashable {
    public let reason: FinishReason
    /// With ``FinishReason/stop``, the index of the stop string; else nil.
    public let stopIndex: Int?
    /// Tokens of the prompt that were processed.
    public let promptTokens: Int
    /// Tokens of the prompt that the session held already.
    public let reusedTokens: Int
    /// Tokens generated, an end of turn not counted.
    public let generatedTokens: Int
    /// From the call to the first logits.
    public let promptNanoseconds: UInt64
    /// From there to the end.
    public let generateNanoseconds: UInt64
    /// Tokens that were guessed and verified ahead: see ``SessionOptions/draft``.
    public let draftedTokens: Int
    /// Those of them that came true: so many passes were saved.
    public let acceptedTokens: Int

    init(_ c: carat_summary) {
        reason = FinishReason(rawValue: c.reason)
        stopIndex = reason == .stop ? Int(clamping: c.stop_index) : nil
        promptTokens = Int(clamping: c.prompt_tokens)
        reusedTokens = Int(clamping: c.reused_tokens)
        generatedTokens = Int(clamping: c.generated_tokens)
        promptNanoseconds = c.prompt_ns
        generateNanoseconds = c.generate_ns
        draftedTokens = Int(clamping: c.drafted_tokens)
        acceptedTokens = Int(clamping: c.accepted_tokens)
    }
}

/// Why a generation ended.
public struct FinishReason: RawRepresentable, Hashable, Sendable {
    public let rawValue: Int32
    public init(rawValue: Int32) { self.rawValue = rawValue }

    /// The model ended its turn or the text.
    public static let endOfTurn = FinishReason(rawValue: CARAT_FINISH_END_OF_TURN)
    /// ``GenerateOptions/maxTokens``.
    public static let limit = FinishReason(rawValue: CARAT_FINISH_LIMIT)
    /// A stop string.
    public static let stop = FinishReason(rawValue: CARAT_FINISH_STOP)
    /// A closure returned ``Flow/stop``.
    public static let callback = FinishReason(rawValue: CARAT_FINISH_CALLBACK)
    /// The cancel token.
    public static let cancelled = FinishReason(rawValue: CARAT_FINISH_CANCELLED)
    /// There is no room for another token.
    public static let contextFull = FinishReason(rawValue: CARAT_FINISH_CONTEXT_FULL)
}

/// What a token added to the text.
public struct Piece: Sendable, Hashable {
    /// Whole characters, often none.
    public let text: String
    /// The token; nil for text that was held back when the generation ended, and in the last piece of a stream.
    public let token: Token?
    /// Its log-probability by the model's own logits, where ``GenerateOptions/topLogProbs`` asked for any.
    public let logProb: Float?
    /// The likeliest tokens in its place, likeliest first.
    public let top: [TokenLogProb]
    /// What the generation did: in the last piece of a stream, which has no text, and nowhere else.
    public let summary: Summary?

    init(_ c: carat_piece) {
        text = String(decoding: UnsafeRawBufferPointer(start: c.text, count: c.text_len), as: UTF8.self)
        token = c.has_token != 0 ? c.token : nil
        logProb = c.log_prob.isNaN ? nil : c.log_prob
        top = c.n_top == 0 ? [] : UnsafeBufferPointer(start: c.top, count: c.n_top).map {
            TokenLogProb(token: $0.token, logProb: $0.log_prob)
        }
        summary = nil
    }

    init(_ summary: Summary) {
        text = ""
        token = nil
        logProb = nil
        top = []
        self.summary = summary
    }
}

/// A token and its log-probability.
public struct TokenLogProb: Sendable, Hashable {
    public let token: Token
    /// Natural logarithm of its probability.
    public let logProb: Float
}

/// The closures of one generation.
private final class Generating {
    let onPiece: (Piece) throws -> Flow
    let hook: GenerateOptions.Hook?
    let caught = Caught()

    init(_ onPiece: @escaping (Piece) throws -> Flow, _ hook: GenerateOptions.Hook?) {
        self.onPiece = onPiece
        self.hook = hook
    }
}

extension GenerateOptions {
    typealias Ask = (
        UnsafePointer<carat_generate_options>, carat_piece_fn, UnsafeMutableRawPointer,
        UnsafeMutablePointer<carat_summary>, ErrorOut
    ) -> carat_status

    /// Generates with these options on this thread; `task` is the token of the task that waits for it.
    func generate(task: CancelToken? = nil, _ onPiece: (Piece) throws -> Flow, _ ask: Ask) throws -> Summary {
        var c = carat_generate_options()
        carat_generate_options_init(&c, MemoryLayout<carat_generate_options>.size)
        if let maxTokens { c.max_tokens = try unsigned(maxTokens, "maxTokens") }
        c.ignore_end = ignoreEnd ? 1 : 0
        c.temperature = temperature
        c.top_k = try unsigned(topK, "topK")
        c.top_p = topP
        c.min_p = minP
        c.repetition_penalty = repetitionPenalty
        c.presence_penalty = presencePenalty
        c.frequency_penalty = frequencyPenalty
        c.penalty_window = try unsigned(penaltyWindow, "penaltyWindow")
        c.top_log_probs = try unsigned(topLogProbs, "topLogProbs")
        c.has_seed = seed == nil ? 0 : 1
        c.seed = seed ?? 0
        task?.follow(cancel)
        let token = task ?? cancel
        c.cancel = token?.raw

        var summary = carat_summary()
        carat_summary_init(&summary, MemoryLayout<carat_summary>.size)
        return try withoutActuallyEscaping(onPiece) { onPiece in
            let closures = Generating(onPiece, hook)
            if hook != nil {
                c.hook_data = address(of: closures)
                c.hook = { data, tokens, n, logits, nLogits in
                    guard let g = data?.object(as: Generating.self), let hook = g.hook else { return 0 }
                    let tokens = UnsafeBufferPointer(start: tokens, count: n)
                    return g.caught.run { try hook(tokens, UnsafeMutableBufferPointer(start: logits, count: nLogits)) }
                }
            }
            return try withExtendedLifetime((closures, token)) {
                let bias = logitBias.map { carat_logit_bias(token: $0.key, bias: $0.value) }
                do {
                    try check { error in
                        withTexts(stop) { stop in
                            stop.withUnsafeBufferPointer { stop in
                                bias.withUnsafeBufferPointer { bias in
                                    c.logit_bias = bias.baseAddress
                                    c.n_logit_bias = bias.count
                                    c.stop = stop.baseAddress
                                    c.n_stop = stop.count
                                    return ask(&c, takePiece, address(of: closures), &summary, error)
                                }
                            }
                        }
                    }
                } catch {
                    try closures.caught.rethrow()
                    throw error
                }
                try closures.caught.rethrow()
                return Summary(summary)
            }
        }
    }
}

private let takePiece: carat_piece_fn = { data, piece in
    guard let g = data?.object(as: Generating.self), let piece else { return 0 }
    return g.caught.run { try g.onPiece(Piece(piece.pointee)) }
}
