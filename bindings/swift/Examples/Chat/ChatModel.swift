import Carat
import Foundation

#if canImport(Darwin)
    import Observation
#endif

/// What the views show: a model that is opened, and a conversation with it.
@available(macOS 14, iOS 17, tvOS 17, watchOS 10, visionOS 1, *)
@MainActor
// Where there are views. (On Linux Swift 6.0's libswiftObservation cannot be linked.)
#if canImport(Darwin)
    @Observable
#endif
final class ChatModel {
    enum Phase: Equatable {
        case empty, opening, ready, answering
        case failed(String)
    }

    private(set) var phase = Phase.empty
    /// The turns so far; the last one grows while the model answers.
    private(set) var turns: [Turn] = []
    /// Tokens a second of the last answer.
    private(set) var speed: Double?

    private var conversation: Conversation?
    private var answering: Task<Void, Never>?

    /// Opens a file that the user picked or that is part of the app.
    func open(_ url: URL) async {
        phase = .opening
        #if canImport(Darwin)
            let scoped = url.startAccessingSecurityScopedResource()
            defer { if scoped { url.stopAccessingSecurityScopedResource() } }
        #endif
        do {
            let model = try await Model(contentsOf: url)
            conversation = try Conversation(Session(model), system: "Answer briefly.")
            try conversation?.setPolicy(.dropOldest)
            turns = []
            phase = .ready
        } catch {
            phase = .failed(error.localizedDescription)
        }
    }

    func send(_ text: String) {
        guard let conversation, phase == .ready else { return }
        turns.append(Turn(.user, text))
        turns.append(Turn(.model, ""))
        phase = .answering
        answering = Task {
            do {
                for try await piece in conversation.send(text) {
                    turns[turns.count - 1].text += piece.text
                    if let summary = piece.summary, summary.generateNanoseconds > 0 {
                        speed = Double(summary.generatedTokens) / (Double(summary.generateNanoseconds) / 1e9)
                    }
                }
                phase = .ready
            } catch {
                phase = .failed(error.localizedDescription)
            }
        }
    }

    /// What was said until now stays.
    func stop() { answering?.cancel() }

    /// For when the system says that memory is short.
    func trim() async { try? await conversation?.trim() }

    /// Ends when the answer does.
    func answered() async { await answering?.value }
}
