import Foundation
import XCTest

@testable import S2DiTHost

#if os(Linux) || os(macOS)
import S2DiTServe
#endif

/// From a prompt to frames.
final class PipelineTests: XCTestCase {
    /// An engine whose networks are formulas: text is the tokens, a velocity tells text, mask and guidance apart, a video is its latent.
    final class Formulas: Engine {
        var events: [String] = []
        var asked: [[String: Tensor]] = []
        /// Prompts of a call of the transformer.
        var batch = 1

        func value(_ tensor: Tensor, for port: TensorPort) throws -> Tensor {
            guard tensor.data.count == port.count else { throw HostError("\(port.name): found \(tensor.shape)") }
            return Tensor(shape: port.shape, data: tensor.data)
        }

        func tensor(_ value: Tensor) throws -> Tensor { value }
        func load(_ call: Call) async throws {}
        func resetStates(below folder: String) async throws {}
        func copyStates(from: String, to: String) async throws {}
        func unload(_ path: String) async { events.append("unload \(path)") }

        func artifact(_ path: String) async throws -> Artifact {
            func port(_ name: String, _ shape: [Int]) -> TensorPort { TensorPort(name: name, dtype: .f32, shape: shape) }
            let latent = [1, 2, 3, 1, 1]
            let (inputs, outputs): ([(TensorPort, String)], [(TensorPort, String)])
            switch path.prefix(4) {
            case "Text": (inputs, outputs) = ([(port("ids", [1, 6]), "tokens"), (port("m", [1, 6]), "text_mask")], [(port("embeddings", [1, 6, 1]), "text")])
            case "Tran":
                let latents = [batch] + latent.dropFirst()
                inputs = [(port("x", latents), "latent"), (port("t", [1, 3]), "time"), (port("text", [batch, 6, 1]), "text"), (port("mask", [batch, 6]), "text_mask")]
                outputs = [(port("v", latents), "velocity")]
            default: (inputs, outputs) = ([(port("latent", latent), "latent")], [(port("video", [1, 3, 5, 2, 2]), "video")])
            }
            func roles(_ ports: [(TensorPort, String)]) -> String { ports.map { "{\"name\": \"\($0.0.name)\", \"role\": \"\($0.1)\"}" }.joined(separator: ",") }
            let interface = "{\"inputs\": [\(roles(inputs))], \"outputs\": [\(roles(outputs))]}"
            return Artifact(inputs: inputs.map(\.0), outputs: outputs.map(\.0), metadata: ["s2ditc.interface": interface])
        }

        func call(_ call: Call, inputs: [String: Tensor]) async throws -> [String: Tensor] {
            events.append(call.path)
            asked.append(inputs)
            if let ids = inputs["ids"] { return ["embeddings": ids] }
            if let x = inputs["x"], let text = inputs["text"] { return ["v": Tensor(shape: x.shape, data: x.data.indices.map { text.data[$0 * batch / x.data.count * 6] })] }
            return ["video": Tensor(shape: [1, 3, 5, 2, 2], data: Array(repeating: inputs["latent"]!.data[0], count: 60))]
        }
    }

    private let letters = """
        {"model": {"type": "Unigram", "unk_id": 2, "vocab": [["<pad>", 0], ["</s>", 0], ["<unk>", 0], ["a", -1], ["b", -2], ["c", -3]]},
         "post_processor": {"type": "TemplateProcessing", "single": [{"Sequence": {"id": "A", "type_id": 0}}, {"SpecialToken": {"id": "</s>", "type_id": 0}}],
                            "special_tokens": {"</s>": {"id": "</s>", "ids": [1], "tokens": ["</s>"]}}}}
        """

    private func contract(transformer: String = "Transformer.mlpackage", scheduler: String = "FlowMatchEulerDiscreteScheduler", config: String = "{\"shift\": 1.0}") -> String {
        func asset(_ name: String) -> String {
            "{\"path\": \"\(name)\", \"class\": \"C\", \"precision\": \"fp32\", \"weight_bytes\": 0, \"checkpoints\": [], \"files\": []}"
        }
        return """
            {"format": "s2dit-video-pipeline", "version": 2, "compiler": "by hand", "id": "blake3:0", "class": "WanPipeline", "target": "coreml", "mode": "clip",
             "latent": {"channels": 2, "frames": 3, "rows": 1, "cols": 1},
             "video": {"frames": 5, "rows": 2, "cols": 2, "fps": 16.0, "temporal_scale": 2, "spatial_scale": 2},
             "text": {"tokens": 6, "width": 1, "vocabulary": 6, "padding": 0, "cleaning": "wan", "encoder_mask": "tokens", "zero_padding": true, "step_mask": true, "pooled": false},
             "scheduler": {"kind": "flow_match_euler", "class": "\(scheduler)", "config": \(config)},
             "sampling": {"steps": 2, "levels": "scheduler", "batch": 1, "guidance": 3.0, "guidance_2": 1.0, "negative": "c"},
             "assets": {"tokenizer": \(asset("Tokenizer")), "text_encoder": \(asset("TextEncoder.mlpackage")), "transformer": \(asset(transformer)), "decoder": \(asset("Decoder.mlpackage"))},
             "source": {"name": null, "licence": null}}
            """
    }

    private func folder(_ contract: String) throws -> URL {
        let folder = try written(contract, as: "pipeline.json", for: self)
        try FileManager.default.createDirectory(at: folder.appendingPathComponent("Tokenizer"), withIntermediateDirectories: true)
        try Data(letters.utf8).write(to: folder.appendingPathComponent("Tokenizer/tokenizer.json"))
        return folder
    }

    func testAClipIsMadeWithGuidanceAndUnloadsWhatIsDone() async throws {
        let engine = Formulas()
        let pipeline = try VideoPipeline(folder: folder(contract()), engine: engine)
        XCTAssertEqual(try pipeline.tokens(" a  b ").ids, [3, 2, 4, 1, 0, 0])
        let long = try pipeline.tokens("abcabcabc")
        XCTAssertEqual([long.ids, [long.counting, long.leftOut]], [[3, 4, 5, 3, 4, 1], [6, 4]])
        var told: [String] = []
        var frames: [Tensor] = []
        for try await made in pipeline.video(.init(prompt: "a", seed: 4), progress: { told.append("\($0) \($1)/\($2)") }) { frames.append(made) }
        XCTAssertEqual(engine.events, [
            "TextEncoder.mlpackage", "TextEncoder.mlpackage", "unload TextEncoder.mlpackage", "Transformer.mlpackage", "Transformer.mlpackage", "Transformer.mlpackage",
            "Transformer.mlpackage", "unload Transformer.mlpackage", "Decoder.mlpackage", "unload Decoder.mlpackage",
        ])
        XCTAssertEqual(told, ["text_encoder 2/2", "transformer 1/2", "transformer 2/2", "decoder 1/1"])
        XCTAssertEqual(engine.asked[0]["m"]?.data, [1, 1, 0, 0, 0, 0])
        // The time fills its port, and the negative prompt is asked second.
        XCTAssertEqual(engine.asked[2]["t"]?.data, [1000, 1000, 1000])
        XCTAssertEqual([engine.asked[2]["text"]!.data[0], engine.asked[3]["text"]!.data[0]], [3, 5])
        // 5 + 3·(3 − 5) at every step, from level 1 to 0.
        let noise = Noise.tensor(seed: 4, index: 0, shape: [1, 2, 3, 1, 1])
        XCTAssertEqual(frames.count, 1)
        XCTAssertEqual(frames[0].data[0], noise.data[0] + 1, accuracy: 1e-5)
    }

    func testACallOfTwoPromptsMakesTheSameClip() async throws {
        func made(_ batch: Int, guidance: Double) async throws -> ([Tensor], [String]) {
            let engine = Formulas()
            engine.batch = batch
            let text = contract().replacingOccurrences(of: "\"batch\": 1", with: "\"batch\": \(batch)")
            var frames: [Tensor] = []
            let request = VideoPipeline<Formulas>.Request(prompt: "a", seed: 4, guidance: guidance)
            for try await some in try VideoPipeline(folder: folder(text), engine: engine).video(request) { frames.append(some) }
            return (frames, engine.events.filter { $0.hasPrefix("Transformer") })
        }
        for guidance in [3.0, 0.5] {
            let (one, two) = (try await made(1, guidance: guidance), try await made(2, guidance: guidance))
            XCTAssertEqual(one.0, two.0)
            XCTAssertEqual([one.1.count, two.1.count], [guidance > 1 ? 4 : 2, 2])
        }
    }

    func testTheSecondExpertIsAskedBelowTheBoundary() async throws {
        let folder = try folder(contract(transformer: "Transformer"))
        try FileManager.default.createDirectory(at: folder.appendingPathComponent("Transformer"), withIntermediateDirectories: true)
        let pair = "{\"format\": \"s2dit-experts\", \"version\": 1, \"boundary\": 875.0, \"experts\": [{\"name\": \"a\", \"file\": \"a.mlpackage\"}, {\"name\": \"b\", \"file\": \"b.mlpackage\"}]}"
        try Data(pair.utf8).write(to: folder.appendingPathComponent("Transformer/experts.json"))
        let engine = Formulas()
        for try await _ in try VideoPipeline(folder: folder, engine: engine).video(.init(prompt: "a")) {}
        // The first with guidance, the second without.
        XCTAssertEqual(engine.events.filter { $0.hasPrefix("Transformer") }, ["Transformer/a.mlpackage", "Transformer/a.mlpackage", "Transformer/b.mlpackage"])
        XCTAssertTrue(engine.events.contains("unload Transformer/a.mlpackage"))
    }

    func testWhatIsWrongWithAPipelineIsNamed() throws {
        func told(_ old: String, _ new: String) throws -> String {
            let text = contract()
            XCTAssertTrue(text.contains(old), old)
            do {
                let pipeline = try VideoPipeline(folder: folder(text.replacingOccurrences(of: old, with: new)), engine: Formulas())
                _ = try pipeline.tokens("a")
                return "nothing"
            } catch { return "\(error)" }
        }
        for (old, new, part) in [
            ("\"version\": 2", "\"version\": 3", "found 3, expected 2"), ("\"rows\": 2", "\"rows\": 3", "field `video`: found 3x2"),
            ("\"mode\": \"clip\"", "\"mode\": \"stream\"", "does not go with the `mode`"), ("\"vocabulary\": 6", "\"vocabulary\": 3", "the tokenizer is of another model"),
            ("\"Decoder.mlpackage\"", "\"../Decoder\"", "found path ../Decoder"), ("\"tokenizer\":", "\"other\":", "a pipeline without a tokenizer"),
        ] {
            let found = try told(old, new)
            XCTAssertTrue(found.contains(part), found)
        }
    }

    #if os(Linux) || os(macOS)
    /// A golden of `examples/reference/pipeline_goldens.py`: what it was made with, as the fields of a contract.
    private struct Golden {
        var name, latent, video, scales, text, guidance: String
        var size: String
        var tokens, steps: Int
        var transformer: String
        /// Fields of the transformer's configuration.
        var fields = ""
        var scheduler: (kind: String, class: String)
        /// Other fields, before and after.
        var others: [(String, String)] = []
    }

    /// Packages that `s2ditc` compiles of a pipeline that diffusers saved, from the prompt to the pixels that diffusers makes.
    func testVideosAreThoseOfDiffusers() async throws {
        let wan = Golden(
            name: "pipeline_wan", latent: "\"channels\": 4, \"frames\": 3, \"rows\": 4, \"cols\": 6", video: "\"frames\": 9, \"rows\": 32, \"cols\": 48",
            scales: "\"temporal_scale\": 4, \"spatial_scale\": 8", text: "\"width\": 24, \"vocabulary\": 288", guidance: "\"guidance\": 5.0", size: "3x4x6", tokens: 512,
            steps: 4, transformer: "Transformer.mlpackage", scheduler: ("unipc", "UniPCMultistepScheduler"))
        try await checkGolden(wan)
        var pair = wan
        (pair.name, pair.latent) = ("pipeline_wan22", "\"channels\": 4, \"frames\": 2, \"rows\": 4, \"cols\": 4")
        (pair.video, pair.guidance) = ("\"frames\": 5, \"rows\": 32, \"cols\": 32", "\"guidance\": 4.0, \"guidance_2\": 3.0")
        (pair.size, pair.steps, pair.transformer) = ("2x4x4", 6, "Transformer")
        try await checkGolden(pair)
        var ltx = wan
        (ltx.name, ltx.latent) = ("pipeline_ltx", "\"channels\": 6, \"frames\": 2, \"rows\": 2, \"cols\": 3")
        (ltx.video, ltx.guidance) = ("\"frames\": 9, \"rows\": 64, \"cols\": 96", "\"guidance\": 3.0")
        (ltx.scales, ltx.size, ltx.tokens, ltx.steps) = ("\"temporal_scale\": 8, \"spatial_scale\": 32", "2x2x3", 128, 3)
        ltx.fields = "\"text_len\": 128, \"causal_temporal_positioning\": false,"
        ltx.scheduler = ("flow_match_euler", "FlowMatchEulerDiscreteScheduler")
        ltx.others = [
            ("\"cleaning\": \"wan\"", "\"cleaning\": \"none\""), ("\"encoder_mask\": \"tokens\"", "\"encoder_mask\": \"ones\""), ("\"levels\": \"scheduler\"", "\"levels\": \"linear\""),
        ]
        try await checkGolden(ltx)
    }

    private func checkGolden(_ about: Golden) async throws {
        guard let program = ProcessInfo.processInfo.environment["S2DITC"].map(URL.init(fileURLWithPath:)) else { throw XCTSkip("S2DITC: names no s2ditc") }
        let golden = repository.appendingPathComponent("tests/goldens/\(about.name)")
        guard FileManager.default.fileExists(atPath: golden.path) else { throw XCTSkip("\(golden.path): there is no golden") }
        let config = try String(contentsOf: golden.appendingPathComponent("pipeline/scheduler/scheduler_config.json"), encoding: .utf8)
        var text = contract(transformer: about.transformer, scheduler: about.scheduler.class, config: config)
        let edits: [(String, String)] = [
            ("\"channels\": 2, \"frames\": 3, \"rows\": 1, \"cols\": 1", about.latent),
            ("\"frames\": 5, \"rows\": 2, \"cols\": 2", about.video),
            ("\"temporal_scale\": 2, \"spatial_scale\": 2", about.scales),
            ("\"tokens\": 6, \"width\": 1, \"vocabulary\": 6", "\"tokens\": \(about.tokens), \(about.text)"),
            ("\"guidance\": 3.0, \"guidance_2\": 1.0", about.guidance),
            ("\"steps\": 2", "\"steps\": \(about.steps)"),
            ("\"flow_match_euler\"", "\"\(about.scheduler.kind)\""),
        ]
        for (old, new) in edits + about.others {
            XCTAssertTrue(text.contains(old), old)
            text = text.replacingOccurrences(of: old, with: new)
        }
        let folder = try folder(text)
        let tokenizer = folder.appendingPathComponent("Tokenizer/tokenizer.json")
        try FileManager.default.removeItem(at: tokenizer)
        try FileManager.default.copyItem(at: golden.appendingPathComponent("pipeline/tokenizer/tokenizer.json"), to: tokenizer)
        // The transformer's configuration with what diffusers has in the pipeline's code.
        let own = golden.appendingPathComponent("pipeline/transformer/config.json")
        let fields = try String(contentsOf: own, encoding: .utf8).replacingOccurrences(of: "{\n", with: "{\(about.fields)\n")
        let changed = folder.appendingPathComponent("config.json")
        try Data(fields.utf8).write(to: changed)
        let isPair = about.transformer == "Transformer"
        let transformer = ["--latent", about.size] + (isPair ? [] : ["--component", "transformer", "--config", changed.path])
        let parts: [(String, [String])] = [
            ("TextEncoder.mlpackage", ["--component", "text_encoder", "--tokens", String(about.tokens)]), (about.transformer, transformer),
            ("Decoder.mlpackage", ["--component", "vae", "--latent", about.size]),
        ]
        for (file, flags) in parts {
            let process = Process()
            process.executableURL = program
            let ends = ["--target", "coreml", "--precision", "fp32", "-o", folder.appendingPathComponent(file).path]
            process.arguments = ["compile", "-q", golden.appendingPathComponent("pipeline").path] + flags + ends
            try process.run()
            process.waitUntilExit()
            XCTAssertEqual(process.terminationStatus, 0, file)
        }
        let wanted = try Safetensors.read(golden.appendingPathComponent("golden.safetensors"))
        let pipeline = try VideoPipeline(folder: folder, engine: ServeEngine(root: folder, program: program))
        let prompt = "A cat walks through the snow; two dogs play with a red ball &amp; look at the camera."
        XCTAssertEqual(try pipeline.tokens(prompt).ids.map { Float($0) }, wanted["tokens"]!.data)
        var request = VideoPipeline<ServeEngine>.Request(prompt: prompt, negative: "worst quality, blurry")
        request.noise = wanted["noise"]
        var count = 0
        for try await frames in pipeline.video(request) {
            XCTAssertEqual(frames.shape, wanted["video"]!.shape)
            let error = zip(frames.data, wanted["video"]!.data).map { abs($0 - $1) }.max()!
            XCTAssertLessThan(error, 1e-3)
            print("\(about.name): largest difference of a pixel: \(error)")
            count += 1
        }
        XCTAssertEqual(count, 1)
    }

    /// A streaming pipeline of packages in fp16: its frames are those that `s2ditc` makes step by step of the same prompt and seed.
    func testAStreamedVideoIsThatOfRust() async throws {
        guard let program = ProcessInfo.processInfo.environment["S2DITC"].map(URL.init(fileURLWithPath:)) else { throw XCTSkip("S2DITC: names no s2ditc") }
        let goldens = repository.appendingPathComponent("tests/goldens")
        let encoder = goldens.appendingPathComponent("pipeline_wan/pipeline")
        guard FileManager.default.fileExists(atPath: encoder.path) else { throw XCTSkip("\(encoder.path): there is no golden") }
        func s2ditc(_ words: [String]) throws {
            let process = Process()
            process.executableURL = program
            process.arguments = words
            try process.run()
            process.waitUntilExit()
            XCTAssertEqual(process.terminationStatus, 0, words.joined(separator: " "))
        }
        var text = contract(transformer: "Transformer")
        for (old, new) in [
            ("\"channels\": 2, \"frames\": 3, \"rows\": 1, \"cols\": 1", "\"channels\": 4, \"frames\": 3, \"rows\": 8, \"cols\": 8"),
            ("\"frames\": 5, \"rows\": 2, \"cols\": 2", "\"rows\": 64, \"cols\": 64"), ("\"temporal_scale\": 2, \"spatial_scale\": 2", "\"temporal_scale\": 4, \"spatial_scale\": 8"),
            ("\"tokens\": 6, \"width\": 1, \"vocabulary\": 6", "\"tokens\": 8, \"width\": 24, \"vocabulary\": 288"), ("\"mode\": \"clip\"", "\"mode\": \"stream\""),
            ("\"kind\": \"flow_match_euler\", \"class\": \"FlowMatchEulerDiscreteScheduler\", \"config\": {\"shift\": 1.0}", "\"kind\": \"kernel\""),
            ("\"path\": \"Decoder.mlpackage\"", "\"path\": \"Decoder\""),
        ] {
            XCTAssertTrue(text.contains(old), old)
            text = text.replacingOccurrences(of: old, with: new)
        }
        let folder = try folder(text)
        let place = { (name: String) in folder.appendingPathComponent(name).path }
        let tiny = goldens.appendingPathComponent("taehv_tiny/checkpoint")
        try s2ditc(["compile", "-q", encoder.path, "--component", "text_encoder", "--target", "coreml", "--tokens", "8", "-o", place("TextEncoder.mlpackage")])
        try s2ditc(["compile", "-q", goldens.appendingPathComponent("stream_tiny/checkpoint").path, "--target", "coreml", "--mode", "stream", "--latent", "8x8", "-o", place("Transformer")])
        try s2ditc([
            "compile", "-q", tiny.appendingPathComponent("taehv.pth").path, "--config", tiny.appendingPathComponent("config.json").path, "--target", "coreml", "--mode", "stream",
            "--latent", "8x8", "--chunk", "1", "-o", place("Decoder"),
        ])
        let engine = TimedEngine(try ServeEngine(root: folder, program: program, fp16: true))
        let pipeline = try VideoPipeline(folder: folder, engine: engine)
        var made: [Tensor] = []
        for try await frames in pipeline.video(.init(prompt: "a cab", seed: 9, chunks: 2)) { made.append(frames) }
        // Three chunks of one latent frame for each chunk of the kernel.
        XCTAssertEqual(made.count, 6)
        let calls: [Int] = engine.times.values.map { $0.calls.count }
        XCTAssertEqual(calls.sorted(), [1, 1, 1, 2, 5, 8])

        let ids = try pipeline.tokens("a cab")
        let mask: [Float] = (0..<8).map { $0 < ids.counting ? 1 : 0 }
        var inputs: [String: (tensor: Tensor, dtype: DType)] = [:]
        inputs["tokens"] = (Tensor(shape: [1, 8], data: ids.ids.map { Float($0) }), .i32)
        inputs["text_mask"] = (Tensor(shape: [1, 8], data: mask), .f16)
        try Safetensors.write(inputs, to: folder.appendingPathComponent("tokens.safetensors"))
        try s2ditc(["run", "-q", place("TextEncoder.mlpackage"), "--fp16", "--inputs", place("tokens.safetensors"), "-o", place("text.safetensors")])
        try s2ditc(["stream", "-q", place("Transformer"), "--fp16", "--prompt", place("text.safetensors"), "--seed", "9", "--chunks", "2", "-o", place("latents.safetensors")])
        try s2ditc(["decode", "-q", place("Decoder"), "--fp16", "--latents", place("latents.safetensors"), "-o", place("video.safetensors")])
        let wanted = try Safetensors.read(folder.appendingPathComponent("video.safetensors"))["video"]!
        var begin = 0
        for frames in made {
            XCTAssertEqual(frames.data, wanted.frames(begin, frames.shape[2]).data)
            begin += frames.shape[2]
        }
        XCTAssertEqual(begin, wanted.shape[2])
    }
    #endif
}
