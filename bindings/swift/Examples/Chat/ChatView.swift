import Carat
import SwiftUI
import UniformTypeIdentifiers

@available(macOS 14, iOS 17, *)
struct ChatView: View {
    @State private var chat = ChatModel()
    @State private var draft = ""
    @State private var picking = false

    var body: some View {
        VStack(spacing: 0) {
            ScrollView {
                LazyVStack(alignment: .leading, spacing: 12) {
                    ForEach(Array(chat.turns.enumerated()), id: \.offset) { _, turn in
                        Bubble(turn: turn)
                    }
                }
                .padding()
            }
            .defaultScrollAnchor(.bottom)
            status
            HStack {
                TextField("Message", text: $draft, axis: .vertical)
                    .textFieldStyle(.roundedBorder)
                    .onSubmit(send)
                if chat.phase == .answering {
                    Button("Stop", systemImage: "stop.circle.fill", action: chat.stop)
                } else {
                    Button("Send", systemImage: "arrow.up.circle.fill", action: send)
                        .disabled(draft.isEmpty || chat.phase != .ready)
                }
            }
            .labelStyle(.iconOnly)
            .padding()
        }
        .toolbar { Button("Open…", systemImage: "folder") { picking = true } }
        .fileImporter(isPresented: $picking, allowedContentTypes: [.data]) { picked in
            guard case .success(let url) = picked else { return }
            Task { await chat.open(url) }
        }
        #if os(iOS)
            .onReceive(NotificationCenter.default.publisher(for: UIApplication.didReceiveMemoryWarningNotification)) { _ in
                Task { await chat.trim() }
            }
        #endif
    }

    @ViewBuilder private var status: some View {
        switch chat.phase {
        case .empty: Text("Open a GGUF file of a Gemma model.").foregroundStyle(.secondary)
        case .opening: ProgressView()
        case .failed(let why): Text(why).foregroundStyle(.red)
        case .ready, .answering:
            if let speed = chat.speed {
                Text("\(speed, format: .number.precision(.fractionLength(1))) tokens/s").foregroundStyle(.secondary)
            }
        }
    }

    private func send() {
        guard !draft.isEmpty else { return }
        chat.send(draft)
        draft = ""
    }
}

@available(macOS 14, iOS 17, *)
private struct Bubble: View {
    let turn: Turn

    var body: some View {
        Text(turn.text)
            .padding(10)
            .background(turn.role == .user ? Color.accentColor.opacity(0.2) : Color.gray.opacity(0.15))
            .clipShape(RoundedRectangle(cornerRadius: 12))
            .frame(maxWidth: .infinity, alignment: turn.role == .user ? .trailing : .leading)
            .textSelection(.enabled)
    }
}
