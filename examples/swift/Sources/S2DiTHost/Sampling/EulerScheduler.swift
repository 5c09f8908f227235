import Foundation

/// Euler's method, `x ← x + (σᵢ₊₁ − σᵢ)·v`: diffusers' `FlowMatchEulerDiscreteScheduler`.
struct EulerScheduler: Scheduler {
    private enum Shift {
        case fixed(Double)
        /// A line of μ through two numbers of places; the shift is e^μ, or μ itself.
        case dynamic(from: (Double, Double), to: (Double, Double), isExponential: Bool)
    }

    private let shift: Shift
    private let terminal: Double?
    private let spacing: Spacing

    init(_ fields: inout SchedulerFields, _ spacing: Spacing) throws {
        try fields.only("num_train_timesteps", standard: .number(1000), .number(1000))
        let fixed = try fields.number("shift", 1, above: 0)
        let from = (try fields.number("base_image_seq_len", 256, above: 0), try fields.number("base_shift", 0.5))
        let to = (try fields.number("max_image_seq_len", 4096, above: 0), try fields.number("max_shift", 1.15))
        let kind = fields.take("time_shift_type") ?? .string("exponential")
        guard kind == .string("exponential") || kind == .string("linear") else {
            throw HostError("scheduler: time_shift_type: found \(kind), expected \"exponential\" or \"linear\"")
        }
        if try fields.flag("use_dynamic_shifting", false) {
            guard from.0 < to.0 else { throw HostError("scheduler: max_image_seq_len: found \(to.0), expected more than base_image_seq_len, \(from.0)") }
            shift = .dynamic(from: from, to: to, isExponential: kind == .string("exponential"))
        } else {
            shift = .fixed(fixed)
        }
        terminal = try fields.terminal()
        for field in ["use_karras_sigmas", "use_exponential_sigmas", "use_beta_sigmas", "invert_sigmas", "stochastic_sampling"] {
            try fields.only(field, standard: .bool(false), .bool(false))
        }
        self.spacing = spacing
    }

    func levels(steps: Int, places: Int) throws -> NoiseLevels {
        var sigmas: [Double]
        switch (spacing, shift) {
        case (.linear, _): sigmas = Spacing.linear(steps)
        case (.scheduler, .fixed(let shift)):
            // The class shifts the lowest level when it is made, and all of them again here.
            let lowest = shifted(1 / 1000, by: shift)
            let last = Double(max(steps, 2) - 1)
            sigmas = (0..<steps).map { i -> Double in 1 + (lowest - 1) * Double(i) / last }
        case (.scheduler, .dynamic):
            throw HostError("scheduler: use_dynamic_shifting: found true, expected false: the pipeline passes no noise levels")
        }
        sigmas = sigmas.map { sigma in
            switch shift {
            case .fixed(let shift): return shifted(sigma, by: shift)
            case .dynamic(let from, let to, let isExponential):
                let slope: Double = (to.1 - from.1) / (to.0 - from.0)
                let mu: Double = from.1 + slope * (Double(places) - from.0)
                return shifted(sigma, by: isExponential ? exp(mu) : mu)
            }
        }
        sigmas = try stretched(sigmas, to: terminal)
        return try NoiseLevels(sigmas: sigmas + [0], timesteps: sigmas.map { 1000 * $0 }).checked()
    }

    func begin(_ levels: NoiseLevels) -> any SchedulerRun { Run(levels.sigmas) }

    private final class Run: SchedulerRun {
        private let sigmas: [Double]
        private var done = 0

        init(_ sigmas: [Double]) { self.sigmas = sigmas }

        func step(_ x: inout [Double], velocity: [Double]) {
            let change = sigmas[done + 1] - sigmas[done]
            for i in x.indices { x[i] += change * velocity[i] }
            done += 1
        }
    }
}
