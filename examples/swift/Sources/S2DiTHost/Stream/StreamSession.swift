import Foundation

/// A stream: a kernel folder with its states, called chunk by chunk. Not for several tasks at a time.
public final class StreamSession<E: Engine> {
    public let contract: KernelContract
    /// Chunks made so far.
    public private(set) var chunks: UInt64 = 0

    private let engine: E
    private let caller: Caller<E>
    private let writer: Function
    private var prompt: [String: E.Value]?
    private var states: [String: E.Value] = [:]

    /// - Parameters:
    ///   - contract: The contract of the kernel folder.
    ///   - folder: The kernel folder's path in the engine's root; empty if it is the root.
    public init(contract: KernelContract, folder: String = "", engine: E) throws {
        self.contract = contract
        self.engine = engine
        writer = try contract.writer
        caller = Caller(engine: engine, folder: folder, isNative: contract.statesPolicy == .native, functions: contract.all)
    }

    /// Loads all functions, which takes minutes the first time on a device.
    public func load() async throws {
        for (name, function) in contract.all { try await caller.load(function, keepsStates: name != "prompt") }
    }

    /// Starts another stream: states are zeros again. The prompt stays.
    public func restart() async throws {
        chunks = 0
        states = [:]
        if contract.statesPolicy == .native { try await engine.resetStates(below: caller.folder) }
    }

    /// Sets the prompt of the chunks that follow, `[1, tokens, dim]`; mid-stream too.
    ///
    /// - Parameter mask: For a kernel that takes one (`contract.textMaskName`), `[1, tokens]`: 1 where a token counts, 0 where it is padding.
    public func setPrompt(_ text: Tensor, mask: Tensor? = nil) async throws {
        guard text.shape == contract.text.shape, text.isFinite else {
            throw HostError("prompt: found shape \(text.shape), expected finite numbers of shape \(contract.text.shape)")
        }
        guard mask?.shape == contract.maskShape else {
            let shown = { (shape: [Int]?) in shape.map { "shape \($0)" } ?? "none" }
            throw HostError("mask of the prompt: found \(shown(mask?.shape)), expected \(shown(contract.maskShape))")
        }
        prompt = try await caller.call(contract.functions.prompt, keepsStates: false) { port in
            if let mask, port.name == contract.textMaskName { return try engine.value(mask, for: port) }
            return port.name == contract.textName ? try engine.value(text, for: port) : nil
        }
    }

    /// Makes the next chunk `[1, C, F, H, W]` and writes its states. If it throws, a stream whose states are inputs and outputs is where it was before;
    /// one whose packages keep them is to be restarted.
    ///
    /// - Parameter noise: A tensor of the chunk's shape for each step of the sampler.
    public func nextChunk(_ noise: [Tensor]) async throws -> Tensor {
        guard let prompt else { throw HostError("the stream has no prompt: set one before the first chunk") }
        if let wrong = noise.first(where: { $0.shape != contract.chunk.shape }) {
            throw HostError("noise: found shape \(wrong.shape), expected \(contract.chunk.shape), what the kernel was compiled for")
        }
        if chunks == 0, contract.statesPolicy == .native { try await engine.resetStates(below: caller.folder) }
        let commits = contract.stateWrite != .lastStep
        // The same for all steps of the chunk.
        let (host, writerHost) = (try hostValues(contract.functions.denoise), try hostValues(writer))
        var written: [String: E.Value]?
        let clean = try await contract.sampler.sample(noise) { x, timestep, step in
            let writes = !commits && step + 1 == contract.sampler.steps
            let function = writes ? writer : contract.functions.denoise
            let made = try await call(function, prompt, writes ? writerHost : host) { port in
                switch port.name {
                case contract.latentName: return x
                case contract.timeName: return Tensor(shape: [1], data: [Float(timestep)])
                default: return nil
                }
            }
            guard let velocity = made[contract.velocityName] else { throw HostError("denoise: returns no `\(contract.velocityName)`") }
            if writes { written = made }
            return try engine.tensor(velocity)
        }
        guard clean.isFinite else { throw HostError("chunk \(chunks): the network's result has NaN or infinite elements") }
        if commits {
            written = try await call(writer, prompt, writerHost) { $0.name == contract.latentName ? clean : nil }
        }
        switch contract.statesPolicy {
        case .io:
            var next: [String: E.Value] = [:]
            for state in contract.states {
                guard let value = written?["\(state.name)_out"] else { throw HostError("the writer returns no `\(state.name)_out`") }
                next[state.name] = value
            }
            states = next
        case .native where contract.functions.denoise.file != writer.file || contract.functions.denoise.parts != nil:
            try await copyStates()
        case .native: break
        }
        chunks += 1
        return Tensor(shape: contract.chunk.shape, data: clean.data)
    }

    /// Chunks of seeded noise, made as they are asked for; the stream goes on where it stands.
    public func stream(seed: UInt64, chunks count: Int) -> AsyncThrowingStream<Tensor, any Error> {
        // One chunk is made for each that is taken: `unfolding` waits for the one who reads.
        var left = count
        return AsyncThrowingStream {
            guard left > 0, !Task.isCancelled else { return nil }
            left -= 1
            return try await self.nextChunk(Noise.chunk(self.chunks, seed: seed, contract: self.contract))
        }
    }

    private func hostValues(_ function: Function) throws -> [String: E.Value] {
        var values: [String: E.Value] = [:]
        for (name, tensor) in try HostInputs.of(function, contract: contract, chunks: chunks) {
            guard let port = function.inputs.first(where: { $0.name == name }) else { continue }
            values[name] = try engine.value(tensor, for: port)
        }
        return values
    }

    private func call(
        _ function: Function, _ prompt: [String: E.Value], _ host: [String: E.Value], own: (TensorPort) -> Tensor?
    ) async throws -> [String: E.Value] {
        try await caller.call(function, keepsStates: true) { port in
            if let value = prompt[port.name] ?? states[port.name] ?? host[port.name] { return value }
            if let tensor = own(port) { return try engine.value(tensor, for: port) }
            guard contract.states.contains(where: { $0.name == port.name }) else { return nil }
            return try engine.value(.zeros(port.shape), for: port)
        }
    }

    /// Core ML does not share states between packages: what the writer's keeps goes to denoise's.
    private func copyStates() async throws {
        func files(_ function: Function) -> [String] { function.parts?.map(\.file) ?? [function.file] }
        let (from, to) = (files(writer), files(contract.functions.denoise))
        guard from.count == 1, to.count == 1 else {
            throw HostError("states_policy native: found functions of several packages, expected one each: compile with --states io")
        }
        try await engine.copyStates(from: caller.path(from[0]), to: caller.path(to[0]))
    }
}
