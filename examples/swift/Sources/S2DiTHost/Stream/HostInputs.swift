import Foundation

/// Small inputs that depend on the position in the stream: computed in Double, rounded once.
public enum HostInputs {
    /// The host inputs that `function` takes for the chunk after `chunks` finished ones, with the shapes and types of its ports.
    public static func of(_ function: Function, contract: KernelContract, chunks: UInt64) throws -> [String: Tensor] {
        var made: [String: Tensor] = [:]
        for input in contract.hostInputs {
            guard let port = function.inputs.first(where: { $0.name == input.name }) else { continue }
            let values = try values(input, contract: contract, chunks: chunks)
            made[input.name] = Tensor(shape: port.shape, data: values.map(port.dtype.rounded))
        }
        return made
    }

    /// The values of one host input.
    public static func values(_ input: KernelContract.HostInput, contract: KernelContract, chunks: UInt64) throws -> [Double] {
        func field<T>(_ value: T?, _ name: String) throws -> T {
            guard let value else { throw HostError("host input `\(input.name)`: field `\(name)`: missing") }
            return value
        }
        let (begin, overflow) = chunks.multipliedReportingOverflow(by: UInt64(contract.chunk.frames))
        guard !overflow, chunks < 1 << 40 else { throw HostError("chunk \(chunks): expected fewer than 2^40 chunks") }
        let sinkFrames = contract.sinkFrames ?? 0
        /// So many frames, but not more than there is room for.
        func frames(_ n: UInt64, _ most: Int) -> Int { Int(min(n, UInt64(most))) }
        switch input.kind {
        case "rope":
            let (grid, dims) = (try field(input.grid, "grid"), try field(input.axisDims, "axis_dims"))
            guard grid.count == 3, dims.count == 3, grid.allSatisfy({ $0 > 0 }), dims.allSatisfy({ $0 >= 0 && $0 % 2 == 0 }) else {
                throw HostError("host input `\(input.name)`: found grid \(grid) and axis_dims \(dims), expected three each, axis_dims even")
            }
            return rope(part: try field(input.part, "part"), grid: grid, dims: dims, theta: try field(input.theta, "theta"), begin: begin)
        case "window_mask":
            let perFrame = try field(input.tokensPerFrame, "tokens_per_frame")
            let (sinks, window) = (input.sinkTokens ?? 0, try field(input.windowTokens, "window_tokens"))
            let (own, empty) = (try field(input.ownTokens, "own_tokens"), Double(try field(input.empty, "empty")))
            guard sinks == sinkFrames * perFrame, window == contract.windowFrames * perFrame, own >= 0, empty < 0 else {
                throw HostError("host input `\(input.name)`: found \(sinks) and \(window) tokens of sinks and window, expected whole frames of \(perFrame)")
            }
            let beforeWindow = begin > contract.windowFrames ? begin - UInt64(contract.windowFrames) : 0
            let apart = frames(beforeWindow, sinkFrames) * perFrame
            let filled = frames(begin, contract.windowFrames) * perFrame
            var mask = Array(repeating: 0.0, count: sinks + window + own)
            for i in apart..<sinks { mask[i] = empty }
            for i in sinks..<(sinks + window - filled) { mask[i] = empty }
            return mask
        case "sink_mask":
            let perFrame = try field(input.tokensPerFrame, "tokens_per_frame")
            let sinks = try field(input.sinkTokens, "sink_tokens")
            guard sinks == sinkFrames * perFrame else {
                throw HostError("host input `\(input.name)`: found \(sinks) tokens of sinks, expected \(sinkFrames) frames of \(perFrame)")
            }
            var mask = Array(repeating: 0.0, count: sinks)
            let end = frames(begin + UInt64(contract.chunk.frames), sinkFrames) * perFrame
            for i in frames(begin, sinkFrames) * perFrame..<end { mask[i] = 1 }
            return mask
        case "past_weight": return [Double(chunks) / (Double(chunks) + 1)]
        case "new_weight": return [1 / (Double(chunks) + 1)]
        default: throw HostError("host input `\(input.name)`: found kind \(input.kind), which this package does not know: take a newer one")
        }
    }

    /// Cosines or sines of the angles of every token, the three axes one after the other.
    private static func rope(part: String, grid: [Int], dims: [Int], theta: Double, begin: UInt64) -> [Double] {
        func axis(_ position: Double, _ dim: Int) -> [Double] {
            (0..<dim / 2).map { i in
                let angle = position * pow(theta, -2 * Double(i) / Double(dim))
                return part == "cos" ? cos(angle) : sin(angle)
            }
        }
        let rows = (0..<grid[1]).map { axis(Double($0), dims[1]) }
        let cols = (0..<grid[2]).map { axis(Double($0), dims[2]) }
        var table: [Double] = []
        table.reserveCapacity(grid.reduce(1, *) * dims.reduce(0, +) / 2)
        for frame in 0..<grid[0] {
            let time = axis(Double(begin + UInt64(frame)), dims[0])
            for row in rows {
                for col in cols {
                    table += time
                    table += row
                    table += col
                }
            }
        }
        return table
    }
}
