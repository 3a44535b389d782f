import Dispatch
import Foundation

/// Hands pieces from the thread that generates to the task that reads them.
///
/// Back-pressure: the thread waits when `limit` pieces have not been read, so that a slow reader costs no memory and a
/// generation that nobody reads does not run on. The thread is that of a queue, never one of Swift's own.
final class PieceFeed: @unchecked Sendable {
    // SAFETY of @unchecked: all that changes is only touched while `changed` is locked.
    private let changed = NSCondition()
    private var pieces: [Piece] = []
    private var readers: [CheckedContinuation<Piece?, any Error>] = []
    private var end: Result<Piece?, any Error>?
    private var abandoned = false
    private let limit: Int
    /// Stops the generation.
    let token = CancelToken()

    init(limit: Int) { self.limit = max(limit, 1) }

    /// The thread that generates: hands over a piece, waiting until there is room.
    func put(_ piece: Piece) -> Flow {
        let (flow, reader) = changed.withLock { () -> (Flow, CheckedContinuation<Piece?, any Error>?) in
            while pieces.count >= limit && !abandoned { changed.wait() }
            if abandoned { return (.stop, nil) }
            if readers.isEmpty {
                pieces.append(piece)
                return (.proceed, nil)
            }
            return (.proceed, readers.removeFirst())
        }
        reader?.resume(returning: piece)
        return flow
    }

    /// The thread that generates: nothing follows but the summary.
    func finish(_ result: Result<Summary, any Error>) {
        let waiting = changed.withLock {
            switch result {
            case .success(let summary): pieces.append(Piece(summary)); end = .success(nil)
            case .failure(let error): end = .failure(error)
            }
            defer { readers = [] }
            return readers.map { ($0, ready()!) }
        }
        for (reader, result) in waiting { reader.resume(with: result) }
    }

    /// The reader: the next piece, nil at the end. When its task is cancelled, so is the generation, and nothing more comes.
    func next() async throws -> Piece? {
        try await withTaskCancellationHandler {
            try await withCheckedThrowingContinuation { reader in
                let result = changed.withLock {
                    let result = ready()
                    if result == nil { readers.append(reader) }
                    return result
                }
                if let result { reader.resume(with: result) }
            }
        } onCancel: {
            abandon()
        }
    }

    /// What a reader gets now; nil where it must wait. Call it locked.
    private func ready() -> Result<Piece?, any Error>? {
        // As every AsyncThrowingStream, it ends without an error when its task is cancelled.
        if abandoned { return end.map { _ in .success(nil) } }
        if pieces.isEmpty { return end }
        changed.signal()
        return .success(pieces.removeFirst())
    }

    /// Nobody reads any more: the generation stops.
    func abandon() {
        token.cancel()
        changed.withLock {
            abandoned = true
            changed.broadcast()
        }
    }
}

/// Ends the generation when the stream that holds it is gone.
private final class PieceReader: Sendable {
    let feed: PieceFeed
    init(_ feed: PieceFeed) { self.feed = feed }
    deinit { feed.abandon() }
}

/// A stream of what `generate` makes on the thread of a queue, beginning now.
func pieceStream(
    on queue: DispatchQueue, buffer: Int,
    _ generate: @escaping @Sendable (CancelToken, (Piece) throws -> Flow) throws -> Summary
) -> AsyncThrowingStream<Piece, any Error> {
    let feed = PieceFeed(limit: buffer)
    let reader = PieceReader(feed)
    queue.async { feed.finish(Result { try generate(feed.token) { feed.put($0) } }) }
    return AsyncThrowingStream { try await reader.feed.next() }
}
