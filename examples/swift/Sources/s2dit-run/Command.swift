// s2dit-run FOLDER -o OUT: runs a compiled folder as an app would, and times it.

import DeviceReport
import Foundation
import S2DiTHost
import S2DiTKit
import S2DiTServe

@main
struct Command {
    static func main() async {
        let words = Array(CommandLine.arguments.dropFirst())
        guard !words.isEmpty, !words.contains("--help"), !words.contains("-h") else {
            print(usage)
            exit(words.isEmpty ? 2 : 0)
        }
        do {
            let arguments = try Arguments(words)
            if let program = arguments.text("--s2ditc") ?? ProcessInfo.processInfo.environment["S2DITC"] {
                let engine = try ServeEngine(root: arguments.folder, program: URL(fileURLWithPath: program), fp16: arguments.has("--fp16"))
                try await Run(arguments, engine).all { path, functions in
                    DeviceReport(model: URL(fileURLWithPath: path).lastPathComponent, functions: functions, computeUnits: "cpu_only")
                }
                return
            }
            #if canImport(CoreML)
            let engine = CoreMLEngine(folder: arguments.folder)
            try await Run(arguments, engine).all { path, functions in
                var report = try await DeviceReport(model: engine.compiled(path))
                report.model = URL(fileURLWithPath: path).lastPathComponent
                for timed in functions {
                    for i in report.functions.indices where report.functions[i].name == timed.name || report.functions.count == 1 {
                        report.functions[i].callMs = timed.callMs
                    }
                }
                return report
            }
            #else
            throw HostError("there is no Core ML here: name an s2ditc with --s2ditc, or in S2DITC")
            #endif
        } catch {
            FileHandle.standardError.write(Data("error: \(error.localizedDescription)\n".utf8))
            exit(1)
        }
    }
}

/// One run with an engine.
struct Run<E: Engine> {
    let arguments: Arguments
    let engine: TimedEngine<E>

    init(_ arguments: Arguments, _ engine: E) {
        self.arguments = arguments
        self.engine = TimedEngine(engine)
    }

    func all(report: (String, [DeviceReport.Function]) async throws -> DeviceReport) async throws {
        let folder = arguments.folder
        let has = { (name: String) in FileManager.default.fileExists(atPath: folder.appendingPathComponent(name).path) }
        if has(PipelineContract.file) {
            try await pipeline()
        } else if let contract = try? JSON(file: folder.appendingPathComponent(KernelContract.file)) {
            if contract["format"]?.text == "s2dit-decoder" { try await decoder() } else { try await kernel() }
        } else {
            throw HostError("\(folder.path): found neither pipeline.json nor contract.json, expected a folder that s2ditc compile wrote")
        }
        tell()
        if let place = arguments.text("--report") { try await write(to: URL(fileURLWithPath: place), report) }
    }

    private func pipeline() async throws {
        guard let prompt = arguments.text("--prompt") else { throw HostError("--prompt: missing, expected a text") }
        let pipeline = try VideoPipeline(folder: arguments.folder, engine: engine, memory: arguments.has("--keep") ? .all : .working)
        let leftOut = try pipeline.tokens(prompt).leftOut
        if leftOut > 0 { say("note: the prompt is too long: its last \(leftOut) tokens were left out") }
        var request = VideoPipeline<TimedEngine<E>>.Request(prompt: prompt, negative: arguments.text("--negative"))
        request.seed = try arguments.number("--seed", UInt64.self) ?? 0
        request.steps = try arguments.number("--steps", Int.self)
        request.guidance = try arguments.number("--guidance", Double.self)
        request.chunks = try arguments.number("--chunks", Int.self) ?? 1
        request.noise = try arguments.tensors("--noise")?["noise"]
        let pictures = try Pictures(to: arguments.out, fps: pipeline.contract.video.fps)
        for try await frames in pipeline.video(request, progress: { part, done, all in say("\(part) \(done)/\(all)") }) { try await pictures.add(frames) }
        try await pictures.finish()
        print("\(arguments.out.path): \(pictures.count) frames")
    }

    private func kernel() async throws {
        let contract = try KernelContract.read(arguments.folder)
        let session = try StreamSession(contract: contract, engine: engine)
        if let file = try arguments.tensors("--prompt-file") {
            guard let text = file["text"] else { throw HostError("--prompt-file: found no tensor `text`") }
            let masked = contract.textMaskName != nil
            if masked, file["text_mask"] == nil { throw HostError("--prompt-file: found no tensor `text_mask`") }
            try await session.setPrompt(text, mask: masked ? file["text_mask"] : nil)
        } else if let seed = try arguments.number("--prompt-seed", UInt64.self) {
            try await session.setPrompt(
                Noise.prompt(seed: seed, shape: contract.text.shape), mask: contract.maskShape.map { Noise.mask(seed: seed, shape: $0) })
        } else {
            throw HostError("expected --prompt-file or --prompt-seed")
        }
        let noise = try arguments.tensors("--noise")?["stream.noise"]
        let seed = try arguments.number("--seed", UInt64.self) ?? 0
        let chunks = try arguments.number("--chunks", Int.self) ?? noise?.shape[0] ?? 1
        let size = contract.chunk.shape.reduce(1, *)
        var latents = Tensor(shape: [chunks] + contract.chunk.shape, data: [])
        for chunk in 0..<chunks {
            let own = try noise.map { noise in
                let steps = contract.sampler.steps
                guard noise.shape == [noise.shape[0], steps] + contract.chunk.shape, chunk < noise.shape[0] else {
                    throw HostError("--noise: found shape \(noise.shape), expected [\(chunks), \(steps)] and \(contract.chunk.shape)")
                }
                return (0..<steps).map { Tensor(shape: contract.chunk.shape, data: Array(noise.data[(chunk * steps + $0) * size..<(chunk * steps + $0 + 1) * size])) }
            }
            latents.data += try await session.nextChunk(own ?? Noise.chunk(UInt64(chunk), seed: seed, contract: contract)).data
            say("chunk \(chunk + 1)/\(chunks)")
        }
        try Safetensors.write(["stream.latents": (latents, .f32)], to: arguments.out)
        print("\(arguments.out.path): \(chunks) chunks")
    }

    private func decoder() async throws {
        let file = try arguments.tensors("--latents") ?? [:]
        guard let latents = file["latent"] ?? file["stream.latents"] else { throw HostError("--latents: expected a file with `latent` or stream.latents") }
        let session = DecodeSession(contract: try DecoderContract.read(arguments.folder), engine: engine)
        let pictures = try Pictures(to: arguments.out, fps: 16)
        for try await frames in session.frames(of: latents.shape.count == 6 ? latents.joined() : latents) {
            try await pictures.add(frames)
            say("\(pictures.count) frames")
        }
        try await pictures.finish()
        print("\(arguments.out.path): \(pictures.count) frames")
    }

    /// Prints how long everything took.
    private func tell() {
        func cell(_ text: String, _ width: Int) -> String { String(repeating: " ", count: max(0, width - text.count)) + text }
        func ms(_ seconds: Double?) -> String { seconds.map { String(Int(($0 * 1e4).rounded()) / 10) + "." + String(Int(($0 * 1e4).rounded()) % 10) } ?? "-" }
        let names = engine.times.map { call, times in ("\(call.path)\(call.function.map { ", \($0)" } ?? "")", times) }.sorted { $0.0 < $1.0 }
        let width = names.map(\.0.count).max() ?? 0
        print("\("function".padding(toLength: width, withPad: " ", startingAt: 0))  calls   load ms  first ms  median ms")
        for (name, times) in names {
            let row = [cell("\(times.calls.count)", 5), cell(ms(times.loads.first), 8), cell(ms(times.calls.first), 8), cell(ms(times.median), 9)]
            print("\(name.padding(toLength: width, withPad: " ", startingAt: 0))  \(row.joined(separator: "  "))")
        }
    }

    private func write(to folder: URL, _ report: (String, [DeviceReport.Function]) async throws -> DeviceReport) async throws {
        try FileManager.default.createDirectory(at: folder, withIntermediateDirectories: true)
        for (path, entries) in Dictionary(grouping: engine.times, by: \.key.path).sorted(by: { $0.key < $1.key }) {
            let functions = entries.compactMap { call, times in times.median.map { DeviceReport.Function(name: call.function ?? "main", callMs: $0 * 1000) } }
            let file = folder.appendingPathComponent(path.replacingOccurrences(of: "/", with: "-") + ".json")
            try await report(path, functions.sorted { $0.name < $1.name }).json().write(to: file)
            print(file.path)
        }
    }

    private func say(_ text: String) { FileHandle.standardError.write(Data("\(text)\n".utf8)) }
}

extension Tensor {
    /// The chunks of a stream `[chunks, 1, C, F, H, W]` as one latent.
    fileprivate func joined() -> Tensor {
        let (chunks, channels, frames, plane) = (shape[0], shape[2], shape[3], shape[4] * shape[5])
        var made = Tensor(shape: [1, channels, chunks * frames, shape[4], shape[5]], data: [])
        for channel in 0..<channels {
            for chunk in 0..<chunks {
                let begin = (chunk * channels + channel) * frames * plane
                made.data += data[begin..<begin + frames * plane]
            }
        }
        return made
    }
}
