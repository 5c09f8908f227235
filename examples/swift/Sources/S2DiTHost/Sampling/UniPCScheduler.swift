import Foundation

/// UniPC, a multistep predictor and corrector (arXiv 2302.04867), for flow matching: diffusers' `UniPCMultistepScheduler` as Wan's pipelines configure it.
struct UniPCScheduler: Scheduler {
    fileprivate let shift: Double
    fileprivate let terminal: Double?
    fileprivate let order: Int
    /// Steps after which nothing is corrected.
    fileprivate let uncorrected: Set<Int>
    private let spacing: Spacing

    init(_ fields: inout SchedulerFields, _ spacing: Spacing) throws {
        for (field, standard, supported) in [
            ("num_train_timesteps", JSON.number(1000), JSON.number(1000)),
            ("prediction_type", .string("epsilon"), .string("flow_prediction")),
            ("use_flow_sigmas", .bool(false), .bool(true)),
            ("predict_x0", .bool(true), .bool(true)),
            ("solver_type", .string("bh2"), .string("bh2")),
            ("final_sigmas_type", .string("zero"), .string("zero")),
            ("lower_order_final", .bool(true), .bool(true)),
            ("thresholding", .bool(false), .bool(false)),
            ("solver_p", .null, .null),
            ("use_dynamic_shifting", .bool(false), .bool(false)),
            ("use_karras_sigmas", .bool(false), .bool(false)),
            ("use_exponential_sigmas", .bool(false), .bool(false)),
            ("use_beta_sigmas", .bool(false), .bool(false)),
        ] {
            try fields.only(field, standard: standard, supported)
        }
        // What the class reads for noise that is not that of flow matching.
        fields.ignore(["beta_start", "beta_end", "beta_schedule", "trained_betas", "rescale_betas_zero_snr", "timestep_spacing", "steps_offset"])
        fields.ignore(["dynamic_thresholding_ratio", "sample_max_value", "sigma_min", "sigma_max", "time_shift_type"])
        var uncorrected: Set<Int> = []
        if let value = fields.take("disable_corrector") {
            guard case .array(let steps) = value else { throw HostError("scheduler: disable_corrector: found \(value), expected a list of steps") }
            for step in steps {
                guard case .number(let number) = step, let index = Int(exactly: number) else {
                    throw HostError("scheduler: disable_corrector: found \(value), expected a list of steps")
                }
                uncorrected.insert(index)
            }
        }
        self.uncorrected = uncorrected
        shift = try fields.number("flow_shift", 1, above: 0)
        terminal = try fields.terminal()
        let order = try fields.number("solver_order", 2)
        guard (1...3).contains(order), order == order.rounded() else { throw HostError("scheduler: solver_order: found \(order), expected 1 to 3") }
        self.order = Int(order)
        self.spacing = spacing
    }

    func levels(steps: Int, places: Int) throws -> NoiseLevels {
        var sigmas: [Double]
        switch spacing {
        case .linear: sigmas = Spacing.linear(steps)
        case .scheduler:
            let change: Double = 1.0 / 1000 - 1
            sigmas = (0..<steps).map { i -> Double in 1 + change * Double(i) / Double(steps) }
        }
        sigmas = try stretched(sigmas.map { shifted($0, by: shift) }, to: terminal)
        // Where log(1 − σ) is finite.
        if let first = sigmas.first, abs(first - 1) < 1e-6 { sigmas[0] -= 1e-6 }
        // The class hands out whole timesteps, and keeps levels in fp32.
        let timesteps = sigmas.map { (1000 * $0).rounded(.towardZero) }
        return try NoiseLevels(sigmas: sigmas.map { Double(Float($0)) } + [0], timesteps: timesteps).checked()
    }

    func begin(_ levels: NoiseLevels) -> any SchedulerRun { UniPCRun(self, levels.sigmas) }
}

private final class UniPCRun: SchedulerRun {
    private let settings: UniPCScheduler
    private let sigmas: [Double]
    private var done = 0
    /// Estimates of the clean latent, the newest last.
    private var estimates: [[Double]] = []
    /// The latent that the last step began with, and how many estimates that step followed.
    private var before: (latent: [Double], order: Int)?

    init(_ settings: UniPCScheduler, _ sigmas: [Double]) { (self.settings, self.sigmas) = (settings, sigmas) }

    func step(_ x: inout [Double], velocity: [Double]) {
        let sigma = sigmas[done]
        let estimate = zip(x, velocity).map { $0 - sigma * $1 }
        if let before, !settings.uncorrected.contains(done - 1) { correct(&x, before.latent, estimate, before.order) }
        estimates.append(estimate)
        if estimates.count > settings.order { estimates.removeFirst() }
        let order = min(settings.order, sigmas.count - 1 - done, estimates.count)
        before = (x, order)
        predict(&x, order)
        done += 1
    }

    private func lambda(_ level: Int) -> Double { log(1 - sigmas[level]) - log(sigmas[level]) }

    private struct Weights {
        var latent, estimate, differences: Double
        /// Places of the older estimates in λ, from the newest one in units of the step; then 1, the step's end.
        var places: [Double]
        /// Right sides of the equations for the weights of the differences.
        var sides: [Double] = []
    }

    /// Weights of the step from a level to the next.
    private func weights(_ from: Int, _ order: Int) -> Weights {
        let (begin, end) = (sigmas[from], sigmas[from + 1])
        let h = lambda(from + 1) - lambda(from)
        let older = (1..<max(order, 1)).map { (lambda(from - $0) - lambda(from)) / h }
        let phi1 = expm1(-h)
        var made = Weights(latent: end / begin, estimate: -(1 - end) * phi1, differences: -(1 - end) * phi1, places: older + [1])
        var (phi, factorial) = (phi1 / -h - 1, 1.0)
        for i in 1...max(order, 1) {
            made.sides.append(phi * factorial / phi1)
            factorial *= Double(i + 1)
            phi = phi / -h - 1 / factorial
        }
        return made
    }

    /// The differences of older estimates from the newest one, each over its place.
    private func differences(_ order: Int, _ places: [Double]) -> [[Double]] {
        let newest = estimates.count - 1
        return (1..<max(order, 1)).map { i in zip(estimates[newest - i], estimates[newest]).map { ($0 - $1) / places[i - 1] } }
    }

    private func predict(_ x: inout [Double], _ order: Int) {
        let w = weights(done, order)
        let ofDifferences: [Double]
        switch order {
        case 1: ofDifferences = []
        // As the paper's code simplifies it.
        case 2: ofDifferences = [0.5]
        default: ofDifferences = solved(Array(w.places.dropLast()), Array(w.sides.dropLast()))
        }
        guard let newest = estimates.last else { return }
        for i in x.indices { x[i] = w.latent * x[i] + w.estimate * newest[i] }
        for (difference, weight) in zip(differences(order, w.places), ofDifferences) {
            for i in x.indices { x[i] += w.differences * weight * difference[i] }
        }
    }

    private func correct(_ x: inout [Double], _ before: [Double], _ estimate: [Double], _ order: Int) {
        let w = weights(done - 1, order)
        let ofDifferences = order == 1 ? [0.5] : solved(w.places, w.sides)
        guard let newest = estimates.last, let last = ofDifferences.last else { return }
        for i in x.indices {
            let change = w.differences * last * (estimate[i] - newest[i])
            x[i] = w.latent * before[i] + w.estimate * newest[i] + change
        }
        for (difference, weight) in zip(differences(order, w.places), ofDifferences) {
            for i in x.indices { x[i] += w.differences * weight * difference[i] }
        }
    }
}

/// Solves `Σₖ placesₖⁱ·wₖ = sidesᵢ` for i from 0, by Gauss's elimination.
private func solved(_ places: [Double], _ sides: [Double]) -> [Double] {
    let n = places.count
    var rows = (0..<n).map { i in places.map { pow($0, Double(i)) } + [sides[i]] }
    for i in 0..<n {
        let pivot = (i..<n).max { abs(rows[$0][i]) < abs(rows[$1][i]) } ?? i
        rows.swapAt(i, pivot)
        for j in 0..<n where j != i {
            let factor = rows[j][i] / rows[i][i]
            for k in 0...n { rows[j][k] -= factor * rows[i][k] }
        }
    }
    return (0..<n).map { rows[$0][n] / rows[$0][$0] }
}
