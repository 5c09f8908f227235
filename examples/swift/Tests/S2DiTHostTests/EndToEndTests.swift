#if os(Linux) || os(macOS)
import Foundation
import S2DiTServe
import XCTest

@testable import S2DiTHost

/// The host with the packages that ship, run by `s2ditc` in fp16 as the Neural Engine stores it: what comes out is what `s2ditc stream` makes, bit for bit.
/// Needs the binary in the environment variable S2DITC.
final class EndToEndTests: XCTestCase {
    /// A golden, its latent and a policy.
    private static let policies = [
        ["stream_tiny", "8x8", "io", "shared"], ["stream_sink", "6x10", "io", "separate"], ["stream_last_step", "8x4", "native", "shared"],
        ["stream_last_sink", "6x8", "native", "separate"],
    ]

    private var work: URL!

    private func s2ditc(_ words: String...) throws {
        let process = Process()
        process.executableURL = try program()
        process.arguments = words
        try process.run()
        process.waitUntilExit()
        XCTAssertEqual(process.terminationStatus, 0, words.joined(separator: " "))
    }

    private func program() throws -> URL {
        guard let path = ProcessInfo.processInfo.environment["S2DITC"] else { throw XCTSkip("S2DITC: names no s2ditc to run packages with") }
        return URL(fileURLWithPath: path)
    }

    override func setUpWithError() throws {
        _ = try program()
        work = FileManager.default.temporaryDirectory.appendingPathComponent("s2dit-\(UUID().uuidString)")
        try FileManager.default.createDirectory(at: work, withIntermediateDirectories: true)
    }

    override func tearDownWithError() throws {
        if let work { try FileManager.default.removeItem(at: work) }
    }

    func testStreamsAreThoseOfRust() async throws {
        for kernel in Self.policies {
            let (folder, latents) = (work.appendingPathComponent(kernel[0]), work.appendingPathComponent("latents.safetensors"))
            let checkpoint = repository.appendingPathComponent("tests/goldens/\(kernel[0])/checkpoint").path
            try s2ditc(
                "compile", "-q", checkpoint, "--target", "coreml", "--mode", "stream", "--latent", kernel[1], "--states", kernel[2], "--functions", kernel[3],
                "-o", folder.path)
            try s2ditc("stream", "-q", folder.path, "--fp16", "--prompt-seed", "5", "--seed", "9", "--chunks", "4", "--force", "-o", latents.path)
            let expected = try Safetensors.read(latents)["stream.latents"]!
            let contract = try KernelContract.read(folder)
            let session = try StreamSession(contract: contract, engine: ServeEngine(root: folder, program: program(), fp16: true))
            try await session.setPrompt(Noise.prompt(seed: 5, shape: contract.text.shape))
            var made: [Float] = []
            for try await chunk in session.stream(seed: 9, chunks: 4) { made += chunk.data }
            XCTAssertEqual(made, expected.data, "\(kernel)")
        }
    }

    func testADecoderIsThatOfRust() async throws {
        let golden = repository.appendingPathComponent("tests/goldens/taehv_tiny")
        let (weights, config) = (golden.appendingPathComponent("checkpoint/taehv.pth").path, golden.appendingPathComponent("checkpoint/config.json").path)
        let latents = golden.appendingPathComponent("golden.safetensors")
        for (states, functions) in [("io", "shared"), ("native", "separate")] {
            let (folder, video) = (work.appendingPathComponent(states), work.appendingPathComponent("video.safetensors"))
            try s2ditc(
                "compile", "-q", weights, "--config", config, "--target", "coreml", "--mode", "stream", "--latent", "3x4", "--chunk", "2", "--states", states,
                "--functions", functions, "-o", folder.path)
            try s2ditc("decode", "-q", folder.path, "--fp16", "--latents", latents.path, "--force", "-o", video.path)
            let expected = try Safetensors.read(video)["video"]!
            let session = DecodeSession(contract: try DecoderContract.read(folder), engine: try ServeEngine(root: folder, program: program(), fp16: true))
            var (frames, begin) = (0, 0)
            for try await made in session.frames(of: try Safetensors.read(latents)["latent"]!) {
                XCTAssertEqual(made.data, expected.frames(begin, made.shape[2]).data, "\(states)")
                begin += made.shape[2]
                frames += made.shape[2]
            }
            XCTAssertEqual(frames, expected.shape[2])
        }
    }
}
#endif
