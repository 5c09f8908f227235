import SwiftUI

struct VideoView: View {
    @State private var model = VideoModel()
    @Environment(\.scenePhase) private var phase

    var body: some View {
        VStack(spacing: 16) {
            picture
                .frame(maxWidth: .infinity, maxHeight: .infinity)
                .background(.black)
            TextField("Prompt", text: $model.prompt, axis: .vertical)
                .textFieldStyle(.roundedBorder)
            HStack {
                Text(model.status)
                    .font(.footnote)
                    .foregroundStyle(.secondary)
                Spacer()
                if model.isRunning {
                    Button("Stop", action: model.stop)
                } else {
                    Button("Make", action: model.start).disabled(model.prompt.isEmpty)
                }
            }
        }
        .padding()
        // The Neural Engine and the GPU are not there in the background.
        .onChange(of: phase) { _, phase in
            if phase == .background { model.stop() }
        }
    }

    /// The frames so far, again and again.
    @ViewBuilder private var picture: some View {
        if model.frames.isEmpty {
            ContentUnavailableView("No video yet", systemImage: "film")
        } else {
            TimelineView(.periodic(from: .now, by: 1 / model.fps)) { timeline in
                let frame = Int(timeline.date.timeIntervalSinceReferenceDate * model.fps) % model.frames.count
                Image(model.frames[frame], scale: 1, label: Text("A frame of the video"))
                    .resizable()
                    .scaledToFit()
            }
        }
    }
}
