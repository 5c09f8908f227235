import Foundation

/// The place of states between calls.
public enum StatesPolicy: String, Codable, Sendable {
    /// With the host: inputs `NAME`, outputs `NAME_out`.
    case io
    /// With the model: Core ML states.
    case native
}

/// The latent `[1, channels, frames, rows, cols]` of a call.
public struct Chunk: Codable, Equatable, Sendable {
    public var channels, frames, rows, cols: Int

    public var shape: [Int] { [1, channels, frames, rows, cols] }
}

/// A function: where it is, and what it takes and returns.
public struct Function: Codable, Equatable, Sendable {
    public var file: String
    /// The function's name in the file.
    public var function: String
    /// What the host passes; native states are not among them.
    public var inputs: [TensorPort]
    public var outputs: [TensorPort]
    /// If it is spread over packages: all of them, in the order in which they run.
    public var parts: [PartOfFunction]?
}

/// What is carried from chunk to chunk; all start as zeros.
public struct StreamState: Codable, Equatable, Sendable {
    public var name: String
    public var dtype: DType
    public var shape: [Int]
    public var kind: String
}

/// `contract.json` of a kernel folder: all that a host needs to stream.
public struct KernelContract: Decodable, Equatable, Sendable {
    public static let file = "contract.json"

    public struct Text: Codable, Equatable, Sendable {
        public var tokens, dim: Int

        public var shape: [Int] { [1, tokens, dim] }
    }

    public struct Sampler: Codable, Equatable, Sendable {
        public var kind: String
        /// What `denoise` takes at each step, 1000·σ.
        public var timesteps: [Double]
        /// Noise levels, 1 first.
        public var sigmas: [Double]

        public var steps: Int { sigmas.count }
    }

    public enum StateWrite: String, Codable, Sendable {
        /// The function `commit` writes the states of a finished chunk.
        case commit
        /// The function `lastStep` takes the place of the last `denoise` and writes them.
        case lastStep = "last_step"
    }

    public struct Functions: Codable, Equatable, Sendable {
        public var prompt, denoise: Function
        public var commit, lastStep: Function?
    }

    public struct HostInput: Codable, Equatable, Sendable {
        public var name: String
        public var kind: String
        public var part: String?
        public var grid: [Int]?
        public var axisDims: [Int]?
        public var theta: Double?
        public var sinkTokens: Int?
        public var windowTokens: Int?
        public var tokensPerFrame: Int?
        public var ownTokens: Int?
        public var empty: Float?
    }

    public var target: String
    public var precision: String
    public var statesPolicy: StatesPolicy
    public var functionsPolicy: String
    /// Content hash of the checkpoint.
    public var checkpoint: String
    public var chunk: Chunk
    public var interface: Interface?
    public var windowFrames: Int
    public var sinkFrames: Int?
    public var stateWrite: StateWrite?
    public var text: Text
    public var sampler: Sampler
    public var functions: Functions
    public var hostInputs: [HostInput]
    public var states: [StreamState]

    public var latentName: String { interface?.input("latent") ?? "latent" }
    public var timeName: String { interface?.input("time") ?? "timestep" }
    public var textName: String { interface?.input("text") ?? "text" }
    /// The input that says which text tokens count, if the kernel takes it.
    public var textMaskName: String? { interface?.input("text_mask") }
    /// Extents of what it takes.
    public var maskShape: [Int]? { textMaskName.map { _ in Array(text.shape.prefix(2)) } }
    public var velocityName: String { interface?.outputs.first?.name ?? "velocity" }

    /// The function that writes the states.
    public var writer: Function {
        get throws {
            let lasts = stateWrite == .lastStep
            guard let function = lasts ? functions.lastStep : functions.commit else {
                throw HostError("field `functions.\((stateWrite ?? .commit).rawValue)`: missing, expected the function that writes the states")
            }
            return function
        }
    }

    /// All functions, in the order in which they are called.
    public var all: [(name: String, function: Function)] {
        let writers = [("commit", functions.commit), ("last_step", functions.lastStep)]
        return [("prompt", functions.prompt), ("denoise", functions.denoise)] + writers.compactMap { name, f in f.map { (name, $0) } }
    }

    /// Reads and checks the contract of a kernel folder.
    public static func read(_ folder: URL) throws -> KernelContract {
        let path = folder.appendingPathComponent(file)
        let contract = try parsed(KernelContract.self, at: path, format: "s2dit-kernel", version: 1)
        do {
            try contract.check()
        } catch let error as HostError {
            throw HostError("\(path.path): \(error)")
        }
        return contract
    }

    func check() throws {
        guard sampler.kind == "flow_matching_ar" else {
            throw HostError("field `sampler.kind`: found \(sampler.kind), expected flow_matching_ar")
        }
        let descends = { (list: [Double], most: Double) in
            list.allSatisfy { $0 >= 0 && $0 <= most * (1 + 1e-9) } && zip(list, list.dropFirst()).allSatisfy { $0 > $1 }
        }
        guard !sampler.sigmas.isEmpty, sampler.sigmas.count == sampler.timesteps.count, descends(sampler.sigmas, 1),
            descends(sampler.timesteps, 1000)
        else { throw HostError("field `sampler`: expected as many timesteps as sigmas, at least one, which descend") }
        _ = try writer
        try checkShape(chunk.shape, of: "field `chunk`")
        try checkShape(text.shape, of: "field `text`")
        try checkFunctions(all, states: states)
        for input in hostInputs {
            let count = try HostInputs.values(input, contract: self, chunks: 0).count
            for (name, function) in all {
                guard let port = function.inputs.first(where: { $0.name == input.name }), port.count != count else { continue }
                throw HostError("host input `\(input.name)` of `\(name)`: found shape \(port.shape), expected \(count) elements")
            }
        }
    }
}

/// Checks files and shapes of functions and states.
func checkFunctions(_ functions: [(name: String, function: Function)], states: [StreamState]) throws {
    for state in states { try checkShape(state.shape, of: "state `\(state.name)`") }
    for (name, function) in functions {
        let parts = function.parts ?? []
        for file in [function.file] + parts.map(\.file) where !isPlainName(file) {
            throw HostError("function `\(name)`: found file \(file), expected a name in the folder")
        }
        let ports = function.inputs + function.outputs + parts.flatMap { $0.inputs + $0.outputs }
        for port in ports { try checkShape(port.shape, of: "function `\(name)`: `\(port.name)`") }
    }
}
