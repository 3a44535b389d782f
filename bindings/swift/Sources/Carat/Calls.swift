// How functions of carat.h are called: errors, handles, buffers that grow, closures as callbacks.

import CCarat
import Dispatch
import Foundation

typealias ErrorOut = UnsafeMutablePointer<OpaquePointer?>

/// Calls a function that can fail.
func check(_ call: (ErrorOut) -> carat_status) throws(CaratError) {
    var error: OpaquePointer?
    let status = call(&error)
    if status != CARAT_OK { throw CaratError(status, taking: error) }
}

/// Calls a function that hands out a handle.
func made(_ call: (UnsafeMutablePointer<OpaquePointer?>, ErrorOut) -> carat_status) throws(CaratError) -> OpaquePointer {
    var out: OpaquePointer?
    try check { call(&out, $0) }
    guard let out else { throw CaratError(CARAT_INTERNAL, taking: nil) }
    return out
}

/// Calls a function that fills a buffer, again with room enough where there was not.
func filled<T>(
    _ guess: Int, _ zero: T,
    _ call: (UnsafeMutablePointer<T>?, Int, UnsafeMutablePointer<Int>, ErrorOut) -> carat_status
) throws(CaratError) -> [T] {
    var room = guess
    while true {
        var n = 0
        var error: OpaquePointer?
        var status = CARAT_OK
        let values = [T](unsafeUninitializedCapacity: room) { buffer, count in
            buffer.initialize(repeating: zero)
            status = call(buffer.baseAddress, room, &n, &error)
            count = status == CARAT_OK ? min(n, room) : 0
        }
        if status == CARAT_OK { return values }
        if status == CARAT_BUFFER_TOO_SMALL && n > room {
            carat_error_free(error)
            room = n
        } else {
            throw CaratError(status, taking: error)
        }
    }
}

/// As ``filled(_:_:_:)``, for text.
func filledText(
    _ guess: Int, _ call: (UnsafeMutablePointer<CChar>?, Int, UnsafeMutablePointer<Int>, ErrorOut) -> carat_status
) throws(CaratError) -> String {
    let bytes = try filled(guess, 0 as CChar, call)
    return bytes.withUnsafeBytes { String(decoding: $0, as: UTF8.self) }
}

/// The bytes of a text, lent during the call.
func withText<R>(_ text: String, _ body: (UnsafePointer<CChar>?, Int) -> R) -> R {
    var text = text
    return text.withUTF8 { utf8 in
        utf8.withMemoryRebound(to: CChar.self) { body($0.baseAddress, $0.count) }
    }
}

/// As ``withText(_:_:)``; nil is NULL, and an empty text is not.
func withText<R>(_ text: String?, _ body: (UnsafePointer<CChar>?, Int) -> R) -> R {
    guard let text, !text.isEmpty else { return text == nil ? body(nil, 0) : "".withCString { body($0, 0) } }
    return withText(text, body)
}

/// A count for the library, which has no negative ones.
func unsigned<T: FixedWidthInteger & UnsignedInteger>(_ value: Int, _ name: String) throws(CaratError) -> T {
    guard let n = T(exactly: value) else {
        throw .usage(.invalidOption, "\(name): \(value) is not from 0 to \(T.max)")
    }
    return n
}

/// A handle of the library, freed with this object.
final class Handle: @unchecked Sendable {
    // SAFETY of @unchecked: `raw` never changes, and carat.h allows calls from any thread: models and cancel tokens take
    // many at once, the rest answer CARAT_BUSY to a second one. ARC calls `deinit` once, after the last use.
    let raw: OpaquePointer
    private let free: @Sendable (OpaquePointer?) -> Void
    /// What must outlive the handle, such as the closure that its model logs to.
    private let kept: AnyObject?

    init(_ raw: OpaquePointer, keeping kept: AnyObject? = nil, free: @escaping @Sendable (OpaquePointer?) -> Void) {
        self.raw = raw
        self.kept = kept
        self.free = free
    }

    deinit {
        free(raw)
        withExtendedLifetime(kept) {}
    }
}

/// What a closure threw is kept until the call has returned: no error may pass through the library.
final class Caught {
    private var error: (any Error)?

    func run(_ body: () throws -> Flow) -> Int32 {
        // After an error there is nothing more to tell the closure.
        guard error == nil else { return 0 }
        do {
            return try body() == .proceed ? 1 : 0
        } catch {
            self.error = error
            return 0
        }
    }

    func rethrow() throws {
        if let error { throw error }
    }
}

extension UnsafeMutableRawPointer {
    /// The object whose address was handed over as `user_data`, and which outlives the call.
    func object<T: AnyObject>(as type: T.Type) -> T {
        Unmanaged<T>.fromOpaque(self).takeUnretainedValue()
    }
}

func address(of object: AnyObject) -> UnsafeMutableRawPointer {
    Unmanaged.passUnretained(object).toOpaque()
}

/// Runs a call that blocks on a queue's thread, not on one of Swift's own, of which there are as few as cores. When the
/// task is cancelled, so is the call, and `CancellationError` comes out of it.
func offloaded<T: Sendable>(
    to queue: DispatchQueue, _ call: @escaping @Sendable (CancelToken) throws -> T
) async throws -> T {
    let token = CancelToken()
    do {
        return try await withTaskCancellationHandler {
            try await withCheckedThrowingContinuation { done in
                queue.async { done.resume(with: Result { try call(token) }) }
            }
        } onCancel: {
            token.cancel()
        }
    } catch let error as CaratError where error.status == .cancelled && Task.isCancelled {
        throw CancellationError()
    }
}
