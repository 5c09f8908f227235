// A small app: a prompt, a video. See README.md for how to make an Xcode project of these files.

import SwiftUI

@main
struct VideoApp: App {
    var body: some Scene {
        WindowGroup { VideoView() }
    }
}
