#if canImport(AVFoundation)
import AVFoundation
import CoreVideo
import Foundation
import S2DiTHost

/// Writes frames to an MP4 file as they are made.
public final class MovieWriter {
    private let writer: AVAssetWriter
    private let input: AVAssetWriterInput
    private let adaptor: AVAssetWriterInputPixelBufferAdaptor
    private let fps: Double
    private var frames = 0

    /// - Parameters:
    ///   - file: The file, which is replaced.
    ///   - fps: Frames in a second.
    public init(to file: URL, rows: Int, cols: Int, fps: Double) throws {
        try? FileManager.default.removeItem(at: file)
        writer = try AVAssetWriter(outputURL: file, fileType: .mp4)
        let settings: [String: Any] = [AVVideoCodecKey: AVVideoCodecType.h264, AVVideoWidthKey: cols, AVVideoHeightKey: rows]
        input = AVAssetWriterInput(mediaType: .video, outputSettings: settings)
        let pixels: [String: Any] = [
            kCVPixelBufferPixelFormatTypeKey as String: kCVPixelFormatType_32BGRA,
            kCVPixelBufferWidthKey as String: cols,
            kCVPixelBufferHeightKey as String: rows,
        ]
        adaptor = AVAssetWriterInputPixelBufferAdaptor(assetWriterInput: input, sourcePixelBufferAttributes: pixels)
        self.fps = fps
        writer.add(input)
        guard writer.startWriting() else { throw writer.error ?? HostError("\(file.path): cannot be written") }
        writer.startSession(atSourceTime: .zero)
    }

    /// Appends the frames of a video `[1, 3, T, H, W]`.
    public func append(_ video: Tensor) async throws {
        for frame in 0..<video.shape[2] {
            while !input.isReadyForMoreMediaData { try await Task.sleep(nanoseconds: 1_000_000) }
            var made: CVPixelBuffer?
            guard let pool = adaptor.pixelBufferPool, CVPixelBufferPoolCreatePixelBuffer(nil, pool, &made) == kCVReturnSuccess, let buffer = made else {
                throw HostError("no memory for a frame")
            }
            let (pixels, rows, cols) = (video.pixels(ofFrame: frame), video.shape[3], video.shape[4])
            CVPixelBufferLockBaseAddress(buffer, [])
            let stride = CVPixelBufferGetBytesPerRow(buffer)
            if let base = CVPixelBufferGetBaseAddress(buffer)?.assumingMemoryBound(to: UInt8.self) {
                for row in 0..<rows {
                    for col in 0..<cols {
                        let (from, to) = ((row * cols + col) * 4, row * stride + col * 4)
                        (base[to], base[to + 1], base[to + 2], base[to + 3]) = (pixels[from + 2], pixels[from + 1], pixels[from], 255)
                    }
                }
            }
            CVPixelBufferUnlockBaseAddress(buffer, [])
            let time = CMTime(seconds: Double(frames) / fps, preferredTimescale: 90_000)
            guard adaptor.append(buffer, withPresentationTime: time) else { throw writer.error ?? HostError("a frame cannot be written") }
            frames += 1
        }
    }

    /// Ends the file.
    public func finish() async throws {
        input.markAsFinished()
        await writer.finishWriting()
        if let error = writer.error { throw error }
    }
}
#endif
