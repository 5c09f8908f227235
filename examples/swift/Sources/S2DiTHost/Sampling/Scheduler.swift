import Foundation

/// The noise levels of a clip.
public struct NoiseLevels: Equatable, Sendable {
    /// σ before each step, and that after the last one.
    public var sigmas: [Double]
    /// What the network gets at each step, in 0 to 1000.
    public var timesteps: [Double]

    func checked() throws -> NoiseLevels {
        guard sigmas.allSatisfy({ $0 >= 0 && $0 <= 1 + 1e-9 }), zip(sigmas, sigmas.dropFirst()).allSatisfy({ $0 > $1 }) else {
            throw HostError("steps: found \(timesteps.count), for which noise levels do not descend: \(sigmas); ask for another number of steps")
        }
        return self
    }
}

/// Who spaces noise levels before they are shifted.
public enum Spacing: String, Codable, Sendable {
    /// The scheduler, as its class in diffusers does.
    case scheduler
    /// The pipeline: evenly from 1 to 1/steps.
    case linear

    static func linear(_ steps: Int) -> [Double] { (0..<steps).map { 1 - Double($0) / Double(steps) } }
}

/// A way to make a clip from noise: diffusers' schedulers of flow matching.
public protocol Scheduler {
    /// The noise levels of a clip in so many steps. `places` is F·H·W of the latent, on which some shifts depend.
    func levels(steps: Int, places: Int) throws -> NoiseLevels

    /// A run over `levels`, before its first step.
    func begin(_ levels: NoiseLevels) -> any SchedulerRun
}

/// A run over noise levels.
public protocol SchedulerRun: AnyObject {
    /// Makes the next latent of `x` and the velocity that the network gave for it.
    func step(_ x: inout [Double], velocity: [Double])
}

/// Reads a scheduler of diffusers: its class, and the fields of its `scheduler_config.json`.
public func scheduler(class name: String, config: [String: JSON], spacing: Spacing) throws -> any Scheduler {
    var fields = SchedulerFields(config)
    let made: any Scheduler
    switch name {
    case "FlowMatchEulerDiscreteScheduler": made = try EulerScheduler(&fields, spacing)
    case "UniPCMultistepScheduler": made = try UniPCScheduler(&fields, spacing)
    case "DPMSolverMultistepScheduler": made = try DPMSolverScheduler(&fields, spacing)
    default: throw HostError("scheduler: found \(name), expected FlowMatchEulerDiscreteScheduler, UniPCMultistepScheduler or DPMSolverMultistepScheduler")
    }
    try fields.finish()
    return made
}

/// Makes a clip from noise. `velocity` is the network, guidance included: it gets the latent, the timestep and the index of the step.
public func clip(
    _ scheduler: any Scheduler, _ levels: NoiseLevels, noise: Tensor, velocity: (Tensor, Double, Int) async throws -> [Double]
) async throws -> Tensor {
    var x = noise.data.map(Double.init)
    var latent = noise
    let run = scheduler.begin(levels)
    for (step, timestep) in levels.timesteps.enumerated() {
        let v = try await velocity(latent, timestep, step)
        guard v.count == x.count else { throw HostError("velocity: found \(v.count) elements, expected \(x.count)") }
        run.step(&x, velocity: v)
        for i in x.indices { latent.data[i] = Float(x[i]) }
    }
    return latent
}

/// `n + g·(p − n)` of the velocities with the prompt and with the negative one; without a negative the velocity as it is.
public func guided(_ positive: Tensor, _ negative: Tensor?, by guidance: Double) -> [Double] {
    guard let negative else { return positive.data.map(Double.init) }
    return zip(positive.data, negative.data).map { p, n in Double(n) + guidance * (Double(p) - Double(n)) }
}

/// The noise level that a shift makes of another: `s·σ / (1 + (s − 1)·σ)`.
public func shifted(_ sigma: Double, by shift: Double) -> Double { shift * sigma / (1 + (shift - 1) * sigma) }

/// Stretches levels from 1 so that the last is `terminal`. The level of a single step is 1, which diffusers makes NaN of.
func stretched(_ sigmas: [Double], to terminal: Double?) throws -> [Double] {
    guard let terminal, let last = sigmas.last else { return sigmas }
    let factor = (1 - last) / (1 - terminal)
    guard factor > 0 else { throw HostError("steps: found \(sigmas.count), expected at least 2, between which shift_terminal of this scheduler stretches the noise levels") }
    return sigmas.map { 1 - (1 - $0) / factor }
}

/// The fields of a scheduler's configuration that were not read yet. One that is not there has the default of its class.
struct SchedulerFields {
    private var left: [String: JSON]

    init(_ config: [String: JSON]) { left = config.filter { !$0.key.hasPrefix("_") } }

    mutating func take(_ field: String) -> JSON? { left.removeValue(forKey: field) }

    mutating func number(_ field: String, _ standard: Double, above least: Double = -.infinity) throws -> Double {
        guard let value = take(field) else { return standard }
        guard case .number(let number) = value, number > least else { throw HostError("scheduler: \(field): found \(value), expected a number") }
        return number
    }

    mutating func flag(_ field: String, _ standard: Bool) throws -> Bool {
        guard let value = take(field) else { return standard }
        guard case .bool(let flag) = value else { throw HostError("scheduler: \(field): found \(value), expected true or false") }
        return flag
    }

    mutating func terminal() throws -> Double? {
        switch take("shift_terminal") {
        case nil, .null?, .number(0)?: return nil
        case .number(let level)? where level > 0 && level < 1: return level
        case let other?: throw HostError("scheduler: shift_terminal: found \(other), expected null or a level between 0 and 1")
        }
    }

    /// Fields that are supported with one value only; `standard` is the class's own.
    mutating func only(_ field: String, standard: JSON, _ supported: JSON) throws {
        let found = take(field) ?? standard
        guard found == supported else { throw HostError("scheduler: \(field): found \(found), expected \(supported): nothing else is supported") }
    }

    mutating func ignore(_ fields: [String]) { for field in fields { left[field] = nil } }

    func finish() throws {
        guard let unknown = left.keys.min() else { return }
        throw HostError("scheduler: \(unknown): found a field that is unknown here, expected those of the class in diffusers 0.42")
    }
}
