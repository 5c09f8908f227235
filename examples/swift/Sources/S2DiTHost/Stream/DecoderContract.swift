import Foundation

/// `contract.json` of the folder of a decoder that streams.
public struct DecoderContract: Decodable, Equatable, Sendable {
    /// The frames that calls make.
    public struct Video: Codable, Equatable, Sendable {
        public var firstFrames, nextFrames, rows, cols: Int

        public func shape(isFirst: Bool) -> [Int] { [1, 3, isFirst ? firstFrames : nextFrames, rows, cols] }
    }

    public struct Functions: Codable, Equatable, Sendable {
        /// Decodes the first chunk of a video.
        public var first: Function
        /// Decodes each other chunk.
        public var next: Function
    }

    public var target: String
    public var precision: String
    /// The engine that packages are meant for: `ane`, `gpu` or `any`.
    public var compute: String?
    public var statesPolicy: StatesPolicy
    public var functionsPolicy: String
    public var checkpoint: String
    public var chunk: Chunk
    public var interface: Interface
    public var video: Video
    public var functions: Functions
    public var states: [StreamState]

    public var latentName: String { interface.input("latent") ?? "latent" }
    public var videoName: String { interface.outputs.first?.name ?? "video" }

    /// Reads and checks the contract of a decoder folder.
    public static func read(_ folder: URL) throws -> DecoderContract {
        let path = folder.appendingPathComponent(KernelContract.file)
        let contract = try parsed(DecoderContract.self, at: path, format: "s2dit-decoder", version: 1)
        do {
            try checkShape(contract.chunk.shape, of: "field `chunk`")
            let functions = [("first", contract.functions.first), ("next", contract.functions.next)]
            try checkFunctions(functions, states: contract.states)
            for (name, function) in functions {
                let expected = contract.video.shape(isFirst: name == "first")
                guard function.outputs.contains(where: { $0.name == contract.videoName && $0.shape == expected }) else {
                    throw HostError("function `\(name)`: expected an output `\(contract.videoName)` of shape \(expected), as `video` says")
                }
            }
        } catch let error as HostError {
            throw HostError("\(path.path): \(error)")
        }
        return contract
    }
}
