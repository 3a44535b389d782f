import SwiftUI

@main
@available(macOS 14, iOS 17, *)
struct ChatApp: App {
    var body: some Scene {
        WindowGroup { NavigationStack { ChatView().navigationTitle("carat") } }
    }
}
