import CCarat
import Foundation

/// Why a call failed.
///
/// Calls that are cancelled by their task throw `CancellationError` instead, and what a closure of yours throws comes
/// out of the call as it is.
public struct CaratError: Error, Sendable, Hashable {
    /// What went wrong.
    public let status: Status
    /// Whose matter it is: the caller's, the file's, or the machine's.
    public let kind: Kind
    /// What was wrong, where, what was expected and what was found.
    public let message: String
    /// Of ``Status/rewind``: the lowest number of tokens above 0 that the session can be cut to.
    public let nearest: Int?

    /// The number of what went wrong, one of `carat.h`. A newer library may have more than are named here.
    public struct Status: RawRepresentable, Hashable, Sendable, CustomStringConvertible {
        public let rawValue: Int32
        public init(rawValue: Int32) { self.rawValue = rawValue }
        /// Its name in `carat.h`, such as `CARAT_IO`.
        public var description: String { String(cString: carat_status_name(rawValue)) }

        /// An argument makes no sense here.
        public static let invalidArgument = Status(rawValue: CARAT_INVALID_ARGUMENT)
        /// Another call on the same object has not returned yet.
        public static let busy = Status(rawValue: CARAT_BUSY)
        /// The cancel token was set, or a closure returned ``Flow/stop``.
        public static let cancelled = Status(rawValue: CARAT_CANCELLED)
        /// A buffer was too small; never thrown here, where buffers grow.
        public static let bufferTooSmall = Status(rawValue: CARAT_BUFFER_TOO_SMALL)
        /// The operating system refused: no such file, no permission, a full disk.
        public static let io = Status(rawValue: CARAT_IO)
        /// The bytes of a GGUF file break the format's rules.
        public static let format = Status(rawValue: CARAT_FORMAT)
        /// A metadata value of the file is missing or makes no sense.
        public static let metadata = Status(rawValue: CARAT_METADATA)
        /// A tensor is missing, misplaced or of the wrong shape or type.
        public static let tensor = Status(rawValue: CARAT_TENSOR)
        /// The file is sound, but not something this library runs.
        public static let unsupported = Status(rawValue: CARAT_UNSUPPORTED)
        /// A part of a split model is not there.
        public static let splitMissing = Status(rawValue: CARAT_SPLIT_MISSING)
        /// The vocabulary cannot be used.
        public static let vocabulary = Status(rawValue: CARAT_VOCABULARY)
        /// A token id that the vocabulary does not have.
        public static let tokenOutOfRange = Status(rawValue: CARAT_TOKEN_OUT_OF_RANGE)
        /// A prompt with no token.
        public static let emptyPrompt = Status(rawValue: CARAT_EMPTY_PROMPT)
        /// A prompt that does not fit into the context.
        public static let promptTooLong = Status(rawValue: CARAT_PROMPT_TOO_LONG)
        /// The session cannot take another token.
        public static let contextFull = Status(rawValue: CARAT_CONTEXT_FULL)
        /// Going back further than the sliding windows remember: see ``CaratError/nearest``.
        public static let rewind = Status(rawValue: CARAT_REWIND)
        /// An option outside its range.
        public static let invalidOption = Status(rawValue: CARAT_INVALID_OPTION)
        /// The model or a hook produced a logit that is not a number.
        public static let nanLogits = Status(rawValue: CARAT_NAN_LOGITS)
        /// The mapped file is no longer what it was.
        public static let fileChanged = Status(rawValue: CARAT_FILE_CHANGED)
        /// A saved session that cannot be loaded.
        public static let state = Status(rawValue: CARAT_STATE)
        /// Memory that could not be had.
        public static let outOfMemory = Status(rawValue: CARAT_OUT_OF_MEMORY)
        /// Turns in an order that the template does not know.
        public static let chat = Status(rawValue: CARAT_CHAT)
        /// The process was forked after the model was opened.
        public static let forked = Status(rawValue: CARAT_FORKED)
        /// A bug: the object can only be let go, others go on.
        public static let `internal` = Status(rawValue: CARAT_INTERNAL)
        /// The session has no logits now: only a prefill or a step computes them.
        public static let noLogits = Status(rawValue: CARAT_NO_LOGITS)
    }

    /// The class of an error.
    public struct Kind: RawRepresentable, Hashable, Sendable {
        public let rawValue: Int32
        public init(rawValue: Int32) { self.rawValue = rawValue }

        /// The call was wrong: change the arguments.
        public static let usage = Kind(rawValue: CARAT_KIND_USAGE)
        /// The file is wrong, missing or not supported.
        public static let file = Kind(rawValue: CARAT_KIND_FILE)
        /// It was stopped by the caller.
        public static let cancelled = Kind(rawValue: CARAT_KIND_CANCELLED)
        /// The machine or the library could not do it.
        public static let runtime = Kind(rawValue: CARAT_KIND_RUNTIME)
    }
}

extension CaratError: CustomStringConvertible, LocalizedError {
    public var description: String { "\(status): \(message)" }
    public var errorDescription: String? { message }
}

extension CaratError {
    /// Of a call that failed; ends the error object.
    init(_ failed: carat_status, taking error: OpaquePointer?) {
        if let error {
            status = Status(rawValue: carat_error_status(error))
            kind = Kind(rawValue: carat_error_kind(error))
            message = String(cString: carat_error_message(error))
            let n = carat_error_nearest(error)
            nearest = n > 0 ? Int(clamping: n) : nil
            carat_error_free(error)
        } else {
            // There was no memory for the object.
            status = Status(rawValue: failed)
            kind = .runtime
            message = String(cString: carat_status_name(failed))
            nearest = nil
        }
    }

    /// An argument that cannot even be handed to the library.
    static func usage(_ status: Status, _ message: String) -> CaratError {
        CaratError(status: status, kind: .usage, message: message, nearest: nil)
    }
}
