import Foundation
import S2DiTHost
import S2DiTKit

/// Writes frames: to a folder of PPM pictures, or to an MP4 file where AVFoundation is.
final class Pictures {
    private let out: URL
    private(set) var count = 0
    #if canImport(AVFoundation)
    private var movie: MovieWriter?
    private let fps: Double
    #endif

    init(to out: URL, fps: Double) throws {
        self.out = out
        #if canImport(AVFoundation)
        self.fps = fps
        if out.pathExtension == "mp4" { return }
        #endif
        guard out.pathExtension != "mp4" else { throw HostError("\(out.path): .mp4 is written on Apple's systems only: name a folder") }
        try FileManager.default.createDirectory(at: out, withIntermediateDirectories: true)
    }

    func add(_ video: Tensor) async throws {
        defer { count += video.shape[2] }
        #if canImport(AVFoundation)
        if out.pathExtension == "mp4" {
            let movie = try movie ?? MovieWriter(to: out, rows: video.shape[3], cols: video.shape[4], fps: fps)
            self.movie = movie
            return try await movie.append(video)
        }
        #endif
        for frame in 0..<video.shape[2] {
            let pixels = video.pixels(ofFrame: frame)
            var file = Array("P6\n\(video.shape[4]) \(video.shape[3])\n255\n".utf8)
            for at in stride(from: 0, to: pixels.count, by: 4) { file += pixels[at..<at + 3] }
            let name = String(count + frame)
            try Data(file).write(to: out.appendingPathComponent("\(String(repeating: "0", count: max(0, 5 - name.count)))\(name).ppm"))
        }
    }

    func finish() async throws {
        #if canImport(AVFoundation)
        try await movie?.finish()
        #endif
    }
}
