import Foundation

/// From a prompt to a video, with the folder of a compiled pipeline. Not for several tasks at a time.
public final class VideoPipeline<E: Engine> {
    /// What stays in memory.
    public enum Memory: Sendable {
        /// All parts, for the next prompt.
        case all
        /// The part that works: text encoder, transformer and decoder after one another; of a stream the transformer and the decoder together.
        case working
    }

    /// Embeddings of a prompt.
    public struct Embedding: Sendable {
        public var text: Tensor
        /// 1 where a token counts.
        public var mask: Tensor
        public var pooled: Tensor?
        /// Tokens of the prompt that were left out, since it is too long.
        public var leftOut: Int
    }

    /// What is asked for; what is nil is as the pipeline has it.
    public struct Request: Sendable {
        public var prompt: String
        public var negative: String?
        public var seed: UInt64
        public var steps: Int?
        public var guidance: Double?
        /// Chunks of a stream.
        public var chunks: Int
        /// What a clip starts from, of the latent's shape, instead of the seed's noise.
        public var noise: Tensor?

        public init(prompt: String, negative: String? = nil, seed: UInt64 = 0, steps: Int? = nil, guidance: Double? = nil, chunks: Int = 1) {
            (self.prompt, self.negative, self.seed, self.steps, self.guidance, self.chunks) = (prompt, negative, seed, steps, guidance, chunks)
        }
    }

    /// What is told while a video is made: the part that works, calls done and calls in all.
    public typealias Progress = (_ part: String, _ done: Int, _ all: Int) -> Void

    public let contract: PipelineContract
    private let folder: URL
    private let engine: E
    private let memory: Memory
    private let tokenizer: Tokenizer

    /// - Parameters:
    ///   - folder: The folder of the pipeline, which is the engine's root too.
    ///   - memory: What stays in memory.
    public init(folder: URL, engine: E, memory: Memory = .working) throws {
        contract = try PipelineContract.read(folder)
        (self.folder, self.engine, self.memory) = (folder, engine, memory)
        guard let asset = contract.assets.tokenizer else { throw HostError("\(folder.path): a pipeline without a tokenizer") }
        tokenizer = try Tokenizer(file: folder.appendingPathComponent(asset.path).appendingPathComponent("tokenizer.json"))
    }

    private func path(_ asset: PipelineContract.Asset?, _ name: String) throws -> String {
        guard let asset else { throw HostError("\(folder.path): a pipeline without the asset `\(name)`: compile it again with that component") }
        return asset.path
    }

    /// Token ids of a prompt, cut or padded to the length of the text, how many of them count, and how many were left out.
    public func tokens(_ prompt: String) throws -> (ids: [Int], counting: Int, leftOut: Int) {
        let clean = contract.text.cleaning == .wan ? cleanedAsWan(prompt) : prompt
        let (ids, leftOut) = try tokenizer.encoded(clean, most: contract.text.tokens)
        guard !ids.isEmpty, ids.allSatisfy({ 0 <= $0 && $0 < contract.text.vocabulary }) else {
            throw HostError("prompt: found token ids that the text encoder does not know: the tokenizer is of another model")
        }
        return (ids + Array(repeating: contract.text.padding, count: contract.text.tokens - ids.count), ids.count, leftOut)
    }

    /// Embeddings of prompts. The text encoder is unloaded afterwards, unless all stays in memory.
    public func embed(_ prompts: [String]) async throws -> [Embedding] {
        let path = try path(contract.assets.textEncoder, "text_encoder")
        let encoder = try await Step(path, root: folder, engine: engine)
        var made: [Embedding] = []
        for prompt in prompts {
            let (ids, counting, leftOut) = try tokens(prompt)
            let shape = [1, ids.count]
            let mask = Tensor(shape: shape, data: ids.indices.map { $0 < counting ? 1 : 0 })
            var roles = ["tokens": Tensor(shape: shape, data: ids.map(Float.init))]
            switch contract.text.encoderMask {
            case .none: break
            case .tokens: roles["text_mask"] = mask
            case .ones: roles["text_mask"] = Tensor(shape: shape, data: ids.map { _ in 1 })
            }
            let results = try await encoder.call(roles)
            guard let text = results["text"] else { throw HostError("\(path): returns no result with the role `text`") }
            made.append(Embedding(text: text, mask: mask, pooled: results["pooled"], leftOut: leftOut))
        }
        if memory == .working { await engine.unload(path) }
        return made
    }

    /// Makes a video: frames `[1, 3, T, H, W]` in -1 to 1, as many at a time as the decoder makes. Nothing runs ahead of the one who reads: the next frames are
    /// made when they are asked for, and a reader who stops costs nothing more.
    public func video(_ request: Request, progress: @escaping Progress = { _, _, _ in }) -> AsyncThrowingStream<Tensor, any Error> {
        var next: (() async throws -> Tensor?)?
        return AsyncThrowingStream {
            try Task.checkCancellation()
            if let next { return try await next() }
            let begun: () async throws -> Tensor?
            switch self.contract.mode {
            case .clip: begun = try await self.clip(request, progress)
            case .stream: begun = try await self.stream(request, progress)
            }
            next = begun
            return try await begun()
        }
    }

    /// Samples a clip, and gives what decodes it.
    private func clip(_ request: Request, _ progress: @escaping Progress) async throws -> () async throws -> Tensor? {
        let guidance = request.guidance ?? contract.sampling.guidance
        let low = request.guidance ?? contract.sampling.guidance2 ?? guidance
        // As in diffusers, whose pipelines ask the first strength only.
        let negative = guidance > 1 ? [request.negative ?? contract.sampling.negative] : []
        let embeddings = try await embed([request.prompt] + negative)
        progress("text_encoder", embeddings.count, embeddings.count)
        let latent = try await sampled(request, embeddings, guidance: [guidance, low], progress)
        let path = try path(contract.assets.decoder, "decoder")
        let unload = { [engine, memory] in if memory == .working { await engine.unload(path) } }
        if let session = try decodeSession(path) {
            var frames = session.frames(of: latent).makeAsyncIterator()
            return {
                if let made = try await frames.next() { return made }
                await unload()
                return nil
            }
        }
        var isDone = false
        return {
            if isDone { return nil }
            isDone = true
            let decoder = try await Step(path, root: self.folder, engine: self.engine)
            let results = try await decoder.call(["latent": latent])
            progress("decoder", 1, 1)
            guard let video = results["video"] else { throw HostError("\(path): returns no result with the role `video`") }
            await unload()
            return video
        }
    }

    /// A clip's latent. `guidance` is that of the first expert and of the second.
    private func sampled(_ request: Request, _ embeddings: [Embedding], guidance: [Double], _ progress: Progress) async throws -> Tensor {
        let path = try path(contract.assets.transformer, "transformer")
        let pair = try Experts.read(folder.appendingPathComponent(path))
        let files = pair.map { $0.experts.map { "\(path)/\($0.file)" } } ?? [path]
        let scheduler = try scheduler(class: contract.scheduler.class ?? "", config: contract.schedulerConfig, spacing: contract.sampling.levels)
        let size = contract.latent
        let levels = try scheduler.levels(steps: request.steps ?? contract.sampling.steps, places: size.frames * size.rows * size.cols)
        let noise = request.noise ?? Noise.tensor(seed: request.seed, index: 0, shape: size.shape)
        guard noise.shape == size.shape, noise.isFinite else {
            throw HostError("noise: found shape \(noise.shape), expected finite numbers of shape \(size.shape)")
        }
        var (network, asked): (Step<E>?, Int?) = (nil, nil)
        let clean = try await S2DiTHost.clip(scheduler, levels, noise: noise) { x, timestep, step in
            try Task.checkCancellation()
            let expert = pair.map { timestep < $0.boundary ? 1 : 0 } ?? 0
            if asked != expert {
                network = nil
                if memory == .working, let asked { await engine.unload(files[asked]) }
                network = try await Step(files[expert], root: folder, engine: engine)
                asked = expert
            }
            guard let network else { throw HostError("\(path): no network") }
            // A strength of 1 is the velocity of the prompt alone.
            let prompts = guidance[expert] == 1 ? [embeddings[0]] : embeddings
            let velocities = try await self.velocities(of: prompts, at: x, timestep, by: network, path)
            progress("transformer", step + 1, levels.timesteps.count)
            return guided(velocities[0], velocities.count > 1 ? velocities[1] : nil, by: guidance[expert])
        }
        guard clean.isFinite else { throw HostError("\(path): the result has NaN or infinite elements") }
        if memory == .working { for file in files { await engine.unload(file) } }
        return clean
    }

    /// The velocity for each prompt: a call each, or one call of two prompts.
    private func velocities(of prompts: [Embedding], at x: Tensor, _ timestep: Double, by network: Step<E>, _ path: String) async throws -> [Tensor] {
        let count = contract.sampling.batch
        var velocities: [Tensor] = []
        for begin in stride(from: 0, to: prompts.count, by: count) {
            // A call of two prompts takes a single one twice.
            let asked = (begin..<begin + count).map { prompts[min($0, prompts.count - 1)] }
            func joined(_ tensors: [Tensor]) -> Tensor {
                Tensor(shape: [tensors.count] + tensors[0].shape.dropFirst(), data: tensors.flatMap(\.data))
            }
            var roles = ["latent": x, "time": Tensor(shape: [1], data: [Float(timestep)]), "text": joined(asked.map(\.text)), "text_mask": joined(asked.map(\.mask))]
            let pooled = asked.compactMap(\.pooled)
            if pooled.count == asked.count { roles["pooled"] = joined(pooled) }
            let results = try await network.call(roles)
            guard let made = results["velocity"] else { throw HostError("\(path): returns no result with the role `velocity`") }
            guard made.data.count == count * x.data.count else {
                throw HostError("\(path): returns a velocity of shape \(made.shape), expected \(count) of shape \(x.shape): a part of another compile")
            }
            for place in 0..<min(count, prompts.count - begin) {
                velocities.append(Tensor(shape: x.shape, data: Array(made.data[place * x.data.count..<(place + 1) * x.data.count])))
            }
        }
        return velocities
    }

    /// The session of a decoder that streams; nil for one that decodes a whole clip.
    private func decodeSession(_ path: String) throws -> DecodeSession<E>? {
        let own = folder.appendingPathComponent(path)
        guard FileManager.default.fileExists(atPath: own.appendingPathComponent(KernelContract.file).path) else { return nil }
        return DecodeSession(contract: try DecoderContract.read(own), folder: path, engine: engine)
    }

    /// Sets a stream up, and gives what makes its chunks and decodes them.
    private func stream(_ request: Request, _ progress: @escaping Progress) async throws -> () async throws -> Tensor? {
        let embedding = try await embed([request.prompt])[0]
        progress("text_encoder", 1, 1)
        let path = try path(contract.assets.transformer, "transformer")
        let kernel = try KernelContract.read(folder.appendingPathComponent(path))
        let session = try StreamSession(contract: kernel, folder: path, engine: engine)
        let decoderPath = try self.path(contract.assets.decoder, "decoder")
        guard let decoder = try decodeSession(decoderPath) else { throw HostError("\(decoderPath): found no contract.json, expected a decoder that streams") }
        let (own, taken) = (kernel.chunk.frames, decoder.contract.chunk.frames)
        guard own % taken == 0 else { throw HostError("\(decoderPath): found chunks of \(taken) frames, expected a part of \(own), the kernel's") }
        try await session.setPrompt(embedding.text, mask: kernel.textMaskName == nil ? nil : embedding.mask)
        var (latent, begin): (Tensor?, Int) = (nil, 0)
        return {
            if latent == nil {
                guard session.chunks < UInt64(request.chunks) else {
                    if self.memory == .working { for part in [path, decoderPath] { await self.engine.unload(part) } }
                    return nil
                }
                latent = try await session.nextChunk(Noise.chunk(session.chunks, seed: request.seed, contract: kernel))
                begin = 0
                progress("transformer", Int(session.chunks), request.chunks)
            }
            guard let chunk = latent else { return nil }
            let frames = try await decoder.decode(chunk.frames(begin, taken))
            begin += taken
            if begin == own { latent = nil }
            return frames
        }
    }
}
