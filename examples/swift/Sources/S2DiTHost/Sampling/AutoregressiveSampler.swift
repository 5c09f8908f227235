import Foundation

extension KernelContract.Sampler {
    /// Makes a chunk: every step estimates the clean chunk, and noise of the next step's level is added to the estimate.
    ///
    /// - Parameters:
    ///   - noise: A tensor a step: the first starts the chunk, the others go to the steps after the first.
    ///   - velocity: The network: it gets the noisy chunk, the timestep and the index of the step.
    public func sample(_ noise: [Tensor], velocity: (Tensor, Double, Int) async throws -> Tensor) async throws -> Tensor {
        guard noise.count == steps, var x = noise.first else {
            throw HostError("noise: found \(noise.count) tensors, expected \(steps), one a step")
        }
        if let wrong = noise.first(where: { $0.shape != x.shape || $0.data.count != x.data.count }) {
            throw HostError("noise: found shape \(wrong.shape), expected \(x.shape)")
        }
        for (step, (timestep, sigma)) in zip(timesteps, sigmas).enumerated() {
            let v = try await velocity(x, timestep, step)
            guard v.data.count == x.data.count else { throw HostError("velocity: found shape \(v.shape), expected \(x.shape)") }
            for i in x.data.indices { x.data[i] = Float(Double(x.data[i]) - sigma * Double(v.data[i])) }
            guard step + 1 < steps else { break }
            let next = sigmas[step + 1]
            for i in x.data.indices { x.data[i] = Float((1 - next) * Double(x.data[i]) + next * Double(noise[step + 1].data[i])) }
        }
        return x
    }
}
