import CoreGraphics
import Foundation
import Observation
import S2DiTKit
import os

/// What the view shows, and the task that makes it.
@MainActor
@Observable
final class VideoModel {
    var prompt = "A cat walks through the snow."
    private(set) var frames: [CGImage] = []
    private(set) var status = ""
    private(set) var isRunning = false
    /// Frames in a second.
    private(set) var fps = 16.0

    private var task: Task<Void, Never>?
    private var pipeline: VideoPipeline<CoreMLEngine>?

    /// The folder of the pipeline: `Pipeline` in the app, a folder reference.
    private var folder: URL? { Bundle.main.url(forResource: "Pipeline", withExtension: nil) }

    func start() {
        guard task == nil else { return }
        (frames, isRunning, status) = ([], true, "Loading; the first time takes minutes")
        task = Task {
            do {
                try await make()
                status = "\(frames.count) frames"
            } catch is CancellationError {
                status = "Stopped"
            } catch {
                status = error.localizedDescription
            }
            (task, isRunning) = (nil, false)
        }
    }

    func stop() { task?.cancel() }

    private func make() async throws {
        guard let folder else { throw HostError("the app has no folder `Pipeline`") }
        let pipeline = try pipeline ?? VideoPipeline(folder: folder, engine: CoreMLEngine(folder: folder))
        self.pipeline = pipeline
        fps = pipeline.contract.video.fps
        let tokens = try pipeline.tokens(prompt)
        if tokens.leftOut > 0 { status = "The prompt is too long: its end is left out" }
        let request = VideoPipeline<CoreMLEngine>.Request(prompt: prompt, seed: UInt64.random(in: 0...UInt64.max), chunks: 8)
        let video = pipeline.video(request) { part, done, all in
            Task { @MainActor [weak self] in self?.status = "\(part) \(done) of \(all)" }
        }
        for try await made in video {
            try await coolDown()
            for frame in 0..<made.shape[2] {
                if let image = made.image(ofFrame: frame) { frames.append(image) }
            }
        }
    }

    /// Waits while the device is hot, and gives up before the system ends the app.
    private func coolDown() async throws {
        while ProcessInfo.processInfo.thermalState == .critical {
            status = "The device is hot: waiting"
            try await Task.sleep(for: .seconds(5))
        }
        #if os(iOS)
        guard os_proc_available_memory() > 200 << 20 else { throw HostError("There is too little memory: close other apps") }
        #endif
    }
}
