import Foundation

/// A video that is decoded chunk by chunk, with the folder of a decoder. Not for several tasks at a time.
public final class DecodeSession<E: Engine> {
    public let contract: DecoderContract
    /// Chunks decoded so far.
    public private(set) var chunks = 0

    private let engine: E
    private let caller: Caller<E>
    private var states: [String: E.Value] = [:]

    /// - Parameters:
    ///   - contract: The contract of the decoder folder.
    ///   - folder: The folder's path in the engine's root; empty if it is the root.
    public init(contract: DecoderContract, folder: String = "", engine: E) {
        self.contract = contract
        self.engine = engine
        let functions = [("first", contract.functions.first), ("next", contract.functions.next)]
        caller = Caller(engine: engine, folder: folder, isNative: contract.statesPolicy == .native, functions: functions)
    }

    /// Loads both functions, which takes minutes the first time on a device.
    public func load() async throws {
        for function in [contract.functions.first, contract.functions.next] { try await caller.load(function, keepsStates: true) }
    }

    /// Starts another video.
    public func restart() async throws {
        chunks = 0
        states = [:]
        if contract.statesPolicy == .native { try await engine.resetStates(below: caller.folder) }
    }

    /// Decodes the next chunk of latents `[1, C, F, h, w]` to frames `[1, 3, T, H, W]` in -1 to 1.
    public func decode(_ latent: Tensor) async throws -> Tensor {
        guard latent.shape == contract.chunk.shape, latent.isFinite else {
            throw HostError("latent: found shape \(latent.shape), expected finite numbers of shape \(contract.chunk.shape)")
        }
        let isFirst = chunks == 0
        if isFirst { try await restart() }
        let (first, next) = (contract.functions.first, contract.functions.next)
        let made = try await caller.call(isFirst ? first : next, keepsStates: true) { port in
            if port.name == contract.latentName { return try engine.value(latent, for: port) }
            if let state = states[port.name] { return state }
            guard contract.states.contains(where: { $0.name == port.name }) else { return nil }
            return try engine.value(.zeros(port.shape), for: port)
        }
        guard let value = made[contract.videoName] else { throw HostError("the decoder returns no `\(contract.videoName)`") }
        let video = try engine.tensor(value)
        guard video.isFinite else { throw HostError("chunk \(chunks): the decoder's result has NaN or infinite elements") }
        for state in contract.states {
            // The first chunk need not write them all: they are zeros.
            if let value = made["\(state.name)_out"] { states[state.name] = value }
        }
        if isFirst, contract.statesPolicy == .native, first.file != next.file {
            try await caller.load(next, keepsStates: true)
            try await engine.copyStates(from: caller.path(first.file), to: caller.path(next.file))
        }
        chunks += 1
        return video
    }

    /// Decodes a whole latent `[1, C, F, h, w]` of any number of frames as a new video, a chunk at a time, and gives the frames of each chunk.
    public func frames(of latent: Tensor) -> AsyncThrowingStream<Tensor, any Error> {
        let size = contract.chunk
        var begin = 0
        return AsyncThrowingStream {
            let all = latent.shape.count == 5 ? latent.shape[2] : 0
            guard begin < all, !Task.isCancelled else { return nil }
            if begin == 0 { try await self.restart() }
            let chunk = latent.frames(begin, size.frames)
            let made = try await self.decode(chunk)
            let left = all - begin
            begin += size.frames
            guard left < size.frames else { return made }
            // A chunk that is not full was filled up; its last frames are of nothing.
            let scale = self.contract.video.nextFrames / size.frames
            let short = made.shape[2] - (size.frames - left) * scale
            return made.frames(0, short)
        }
    }
}

extension Tensor {
    /// Frames of `[1, C, F, H, W]` from `begin` on, `count` of them; where there are no more, the last one again.
    public func frames(_ begin: Int, _ count: Int) -> Tensor {
        let (channels, all, plane) = (shape[1], shape[2], shape[3] * shape[4])
        var taken = Tensor(shape: [1, channels, count, shape[3], shape[4]], data: [])
        taken.data.reserveCapacity(channels * count * plane)
        for channel in 0..<channels {
            for frame in begin..<begin + count {
                let at = (channel * all + min(frame, all - 1)) * plane
                taken.data += data[at..<at + plane]
            }
        }
        return taken
    }
}
