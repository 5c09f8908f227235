import Foundation

/// DPM-Solver++, a multistep solver (arXiv 2211.01095), for flow matching: diffusers' `DPMSolverMultistepScheduler`.
struct DPMSolverScheduler: Scheduler {
    fileprivate let shift: Double
    fileprivate let order: Int
    /// Whether a step that follows two estimates is Heun's, and not that of the midpoint.
    fileprivate let isHeun: Bool
    /// Whether the last steps of a few follow fewer estimates.
    fileprivate let lowerOrderFinal: Bool
    private let spacing: Spacing

    init(_ fields: inout SchedulerFields, _ spacing: Spacing) throws {
        for (field, standard, supported) in [
            ("num_train_timesteps", JSON.number(1000), JSON.number(1000)),
            ("prediction_type", .string("epsilon"), .string("flow_prediction")),
            ("use_flow_sigmas", .bool(false), .bool(true)),
            ("algorithm_type", .string("dpmsolver++"), .string("dpmsolver++")),
            ("final_sigmas_type", .string("zero"), .string("zero")),
            ("thresholding", .bool(false), .bool(false)),
            ("variance_type", .null, .null),
            ("use_dynamic_shifting", .bool(false), .bool(false)),
            ("use_karras_sigmas", .bool(false), .bool(false)),
            ("use_exponential_sigmas", .bool(false), .bool(false)),
            ("use_beta_sigmas", .bool(false), .bool(false)),
            ("use_lu_lambdas", .bool(false), .bool(false)),
        ] {
            try fields.only(field, standard: standard, supported)
        }
        // What the class reads for noise that is not that of flow matching; and a last step to σ = 0 follows one estimate anyway.
        fields.ignore(["beta_start", "beta_end", "beta_schedule", "trained_betas", "rescale_betas_zero_snr", "timestep_spacing", "steps_offset"])
        fields.ignore(["dynamic_thresholding_ratio", "sample_max_value", "lambda_min_clipped", "time_shift_type", "euler_at_final"])
        shift = try fields.number("flow_shift", 1, above: 0)
        let order = try fields.number("solver_order", 2)
        guard (1...3).contains(order), order == order.rounded() else { throw HostError("scheduler: solver_order: found \(order), expected 1 to 3") }
        self.order = Int(order)
        let type = fields.take("solver_type") ?? .string("midpoint")
        guard type == .string("midpoint") || type == .string("heun") else {
            throw HostError("scheduler: solver_type: found \(type), expected \"midpoint\" or \"heun\"")
        }
        isHeun = type == .string("heun")
        lowerOrderFinal = try fields.flag("lower_order_final", true)
        self.spacing = spacing
    }

    func levels(steps: Int, places: Int) throws -> NoiseLevels {
        guard spacing == .scheduler else {
            throw HostError("scheduler: found DPMSolverMultistepScheduler, expected another: the pipeline passes noise levels, which this class does not take")
        }
        let highest: Double = 1 - 1.0 / 1000
        let sigmas = (0..<steps).map { i -> Double in shifted(highest * Double(steps - i) / Double(steps), by: shift) }
        // The class hands out whole timesteps, and keeps levels in fp32.
        let timesteps = sigmas.map { (1000 * $0).rounded(.towardZero) }
        return try NoiseLevels(sigmas: sigmas.map { Double(Float($0)) } + [0], timesteps: timesteps).checked()
    }

    func begin(_ levels: NoiseLevels) -> any SchedulerRun { DPMSolverRun(self, levels.sigmas) }
}

private final class DPMSolverRun: SchedulerRun {
    private let settings: DPMSolverScheduler
    private let sigmas: [Double]
    private var done = 0
    /// Estimates of the clean latent, the newest first.
    private var estimates: [[Double]] = []

    init(_ settings: DPMSolverScheduler, _ sigmas: [Double]) { (self.settings, self.sigmas) = (settings, sigmas) }

    func step(_ x: inout [Double], velocity: [Double]) {
        let (begin, end) = (sigmas[done], sigmas[done + 1])
        estimates.insert(zip(x, velocity).map { $0 - begin * $1 }, at: 0)
        if estimates.count > settings.order { estimates.removeLast() }
        let weights = self.weights(order())
        for i in x.indices {
            var next = end / begin * x[i]
            for (estimate, weight) in zip(estimates, weights) { next += weight * estimate[i] }
            x[i] = next
        }
        done += 1
    }

    /// Estimates that the next step follows.
    private func order() -> Int {
        let steps = sigmas.count - 1
        let most: Int
        switch steps - done {
        // To σ = 0.
        case 1: most = 1
        case 2 where settings.lowerOrderFinal && steps < 15: most = 2
        default: most = 3
        }
        return min(settings.order, estimates.count, most)
    }

    private func lambda(_ level: Int) -> Double { log(1 - sigmas[level]) - log(sigmas[level]) }

    /// Weights of the estimates in the next step, the newest first.
    private func weights(_ order: Int) -> [Double] {
        let h: Double = lambda(done + 1) - lambda(done)
        let (alpha, phi1) = (1 - sigmas[done + 1], expm1(-h))
        /// The distance in λ from an older estimate to the one after it, in units of the step.
        func apart(_ older: Int) -> Double { (lambda(done + 1 - older) - lambda(done - older)) / h }
        let own: Double = -alpha * phi1
        switch order {
        case 2:
            let change: Double = settings.isHeun ? phi1 / h + 1 : -0.5 * phi1
            let first: Double = alpha * change / apart(1)
            return [own + first, -first]
        case 3:
            let (near, far) = (apart(1), apart(2))
            let first: Double = alpha * (phi1 / h + 1)
            let second: Double = -alpha * ((phi1 + h) / (h * h) - 0.5)
            let bend: Double = (first * near + second) / (near + far)
            let newer: Double = (first + bend) / near
            let older: Double = -bend / far
            return [own + newer, older - newer, -older]
        default: return [own]
        }
    }
}
