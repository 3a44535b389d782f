import CCarat
import Foundation

/// A switch that stops the calls it was given to, from any thread. It is sticky: once set it stays set.
///
/// Tasks need none: cancelling a task stops the call that it waits for. A token is for blocking calls, and for stopping a
/// generation without losing its ``Summary``.
public final class CancelToken: Sendable {
    private let handle: Handle
    private let followers = Followers()

    public init() {
        guard let raw = carat_cancel_new() else {
            // The allocator gave no 64 bytes; Swift itself ends here too.
            fatalError("out of memory")
        }
        handle = Handle(raw) { carat_cancel_free($0) }
    }

    /// Stops what was given this token. One store to memory, but for tokens that follow it.
    public func cancel() {
        carat_cancel_set(handle.raw)
        followers.cancel()
    }

    public var isCancelled: Bool { carat_cancel_is_set(handle.raw) != 0 }

    /// What carat.h takes. Valid as long as the token.
    var raw: OpaquePointer { handle.raw }

    /// Sets this token too when the other is set: so that a call can be stopped by its task and by its caller's token.
    func follow(_ other: CancelToken?) {
        guard let other else { return }
        other.followers.add(self)
        // Set before the line above, it has told its followers already.
        if other.isCancelled { cancel() }
    }
}

/// The tokens that follow another.
private final class Followers: @unchecked Sendable {
    // SAFETY of @unchecked: `list` is only touched under `lock`.
    private let lock = NSLock()
    /// A share of each one's switch, and the token itself, to see whether it is still there.
    private var list: [(switch: Handle, token: Weak)] = []

    private struct Weak {
        weak var token: CancelToken?
    }

    func add(_ token: CancelToken) {
        guard let share = carat_cancel_clone(token.raw) else { return }
        lock.lock()
        defer { lock.unlock() }
        list.removeAll { $0.token.token == nil }
        list.append((Handle(share) { carat_cancel_free($0) }, Weak(token: token)))
    }

    func cancel() {
        lock.lock()
        defer { lock.unlock() }
        for one in list { carat_cancel_set(one.switch.raw) }
    }
}
