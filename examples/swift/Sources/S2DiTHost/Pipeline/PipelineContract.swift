import Foundation

/// `pipeline.json`: all that a host needs to make a video from a prompt.
public struct PipelineContract: Decodable, Sendable {
    public static let file = "pipeline.json"

    public enum Mode: String, Decodable, Sendable {
        /// A whole clip, a call a step.
        case clip
        /// A stream of chunks: the transformer is a kernel folder.
        case stream
    }

    public struct Video: Decodable, Sendable {
        /// Frames of a clip; a stream has any number.
        public var frames: Int?
        public var rows, cols: Int
        /// Frames in a second.
        public var fps: Double
        /// Frames that a latent frame becomes; the first one becomes one.
        public var temporalScale, spatialScale: Int
    }

    public struct Text: Decodable, Sendable {
        public enum Cleaning: String, Decodable, Sendable { case none, wan }
        public enum EncoderMask: String, Decodable, Sendable {
            /// The text encoder takes no mask.
            case none
            /// 1 where a token counts, 0 where it is padding.
            case tokens
            /// 1 everywhere.
            case ones
        }

        /// Tokens, padding included: a longer prompt is cut.
        public var tokens: Int
        public var width: Int
        /// Ids that the text encoder knows, from 0 on.
        public var vocabulary: Int
        /// The id that fills up a prompt.
        public var padding: Int
        public var cleaning: Cleaning
        public var encoderMask: EncoderMask
        /// Whether the transformer takes `text_mask`.
        public var stepMask: Bool
        /// Whether the transformer takes `pooled`.
        public var pooled: Bool
    }

    public struct SchedulerChoice: Decodable, Sendable {
        public var kind: String
        /// Its class in diffusers; absent for the sampler of a kernel.
        public var `class`: String?
    }

    public struct Sampling: Decodable, Sendable {
        public var steps: Int
        /// Who spaces the noise levels.
        public var levels: Spacing
        /// Prompts of a call of the transformer: 2 if a call serves a prompt and its negative.
        public var batch: Int
        /// `uncond + g·(cond − uncond)`; 1 or less is none.
        public var guidance: Double
        /// The same below the boundary of two experts, if it is another one.
        public var guidance2: Double?
        public var negative: String
    }

    public struct File: Decodable, Sendable {
        public var path: String
        public var bytes: Int
    }

    public struct Asset: Decodable, Sendable {
        /// The file, package or folder beside the contract.
        public var path: String
        public var `class`: String
        /// The engine that a package is meant for: `ane`, `gpu` or `any`.
        public var compute: String?
        public var weightBytes: Int?
        public var files: [File]
    }

    public struct Assets: Decodable, Sendable {
        public var tokenizer, textEncoder, transformer, decoder: Asset?
    }

    /// Identity of the compile.
    public var id: String
    public var `class`: String
    public var target: String
    public var mode: Mode
    public var latent: Chunk
    public var video: Video
    public var text: Text
    public var scheduler: SchedulerChoice
    public var sampling: Sampling
    public var assets: Assets
    /// The fields of `scheduler_config.json`.
    public private(set) var schedulerConfig: [String: JSON] = [:]

    private enum CodingKeys: CodingKey { case id, `class`, target, mode, latent, video, text, scheduler, sampling, assets }

    /// Reads and checks the contract of a pipeline's folder. Files of an asset need not be there: an app may ship packages compiled.
    public static func read(_ folder: URL) throws -> PipelineContract {
        let path = folder.appendingPathComponent(file)
        var contract = try parsed(PipelineContract.self, at: path, format: "s2dit-video-pipeline", version: 2)
        for (key, value) in try JSON(file: path)["scheduler"]?["config"]?.object ?? [:] {
            contract.schedulerConfig[String(decoding: key, as: UTF8.self)] = value
        }
        let (latent, video, assets) = (contract.latent, contract.video, contract.assets)
        func check(_ holds: Bool, _ what: String) throws { if !holds { throw HostError("\(path.path): \(what)") } }
        try checkShape(latent.shape, of: "\(path.path): field `latent`")
        try checkShape([1, contract.text.tokens, contract.text.width], of: "\(path.path): field `text`")
        try check(
            video.rows == latent.rows * video.spatialScale && video.cols == latent.cols * video.spatialScale,
            "field `video`: found \(video.rows)x\(video.cols), expected what `latent` and `spatial_scale` say")
        try check((1...(contract.mode == .clip ? 2 : 1)).contains(contract.sampling.batch), "field `sampling.batch`: found \(contract.sampling.batch), expected 1, or 2 of a clip")
        try check((contract.mode == .stream) == (contract.scheduler.kind == "kernel"), "field `scheduler.kind`: does not go with the `mode`")
        for asset in [assets.tokenizer, assets.textEncoder, assets.transformer, assets.decoder].compactMap({ $0 }) {
            try check(isPlainName(asset.path), "field `assets`: found path \(asset.path), expected a plain name of something beside it")
            for file in asset.files { try check(file.path.split(separator: "/").map(String.init).allSatisfy(isPlainName), "found file \(file.path)") }
        }
        return contract
    }

    /// Checks that the files of the folder are as long as the contract says: a download that broke off is found before it is loaded.
    public func checkSizes(in folder: URL) throws {
        for asset in [assets.tokenizer, assets.textEncoder, assets.transformer, assets.decoder].compactMap({ $0 }) {
            for file in asset.files {
                let path = folder.appendingPathComponent(file.path).path
                let size = try? FileManager.default.attributesOfItem(atPath: path)[.size] as? Int
                guard size == file.bytes else {
                    throw HostError("\(path): found \(size.map { "\($0) bytes" } ?? "no file"), expected \(file.bytes) bytes, as \(Self.file) says")
                }
            }
        }
    }
}

/// Packages that make one step, one after the other: `partition.json`.
struct Partition: Decodable {
    var inputs, outputs: [TensorPort]
    var parts: [PartOfFunction]

    /// The partition of a folder; nil if it has none.
    static func read(_ folder: URL) throws -> (Partition, metadata: [String: String])? {
        let path = folder.appendingPathComponent("partition.json")
        guard FileManager.default.fileExists(atPath: path.path) else { return nil }
        let partition = try parsed(Partition.self, at: path, format: "s2dit-partition", version: 1)
        let files = partition.parts.map(\.file)
        guard files.allSatisfy(isPlainName) else { throw HostError("\(path.path): found files \(files), expected names in the folder") }
        // Keys of metadata stay as they are.
        let metadata = try JSON(file: path)["metadata"]?.object ?? [:]
        let texts = metadata.map { (String(decoding: $0.key, as: UTF8.self), $0.value.text ?? "") }
        return (partition, Dictionary(texts, uniquingKeysWith: { $1 }))
    }
}

/// Two transformers that share the timesteps: `experts.json`.
struct Experts: Decodable {
    struct Expert: Decodable {
        var name, file: String
    }

    /// From this timestep on the first expert is asked, below it the second one.
    var boundary: Double
    var experts: [Expert]

    /// The experts of a folder; nil if it has none.
    static func read(_ folder: URL) throws -> Experts? {
        let path = folder.appendingPathComponent("experts.json")
        guard FileManager.default.fileExists(atPath: path.path) else { return nil }
        let pair = try parsed(Experts.self, at: path, format: "s2dit-experts", version: 1)
        guard pair.experts.count == 2, pair.experts.allSatisfy({ isPlainName($0.file) }) else {
            throw HostError("\(path.path): experts: expected two, each a name in the folder")
        }
        return pair
    }
}
