import Foundation

/// Standard normal numbers that depend on a seed and an index alone: those of `s2ditc stream --seed`, bit for bit.
///
/// The generator is ChaCha with 8 rounds; the seed makes its key, and the index is its stream. Normal numbers are drawn by the ziggurat method in Double and
/// rounded to Float.
public struct Noise {
    private var key: [UInt32]
    private let stream: UInt64
    private var counter: UInt64 = 0
    private var block: [UInt32] = []
    private var used = 0

    /// - Parameters:
    ///   - seed: The seed.
    ///   - index: One of many independent sequences of the seed.
    public init(seed: UInt64, index: UInt64 = 0) {
        var state = seed
        key = (0..<8).map { _ in
            state = state &* 6_364_136_223_846_793_005 &+ 11_634_580_027_462_260_723
            let mixed = UInt32(truncatingIfNeeded: ((state >> 18) ^ state) >> 27)
            let turn = UInt32(truncatingIfNeeded: state >> 59)
            return mixed >> turn | mixed << (32 &- turn & 31)
        }
        stream = index
    }

    /// A tensor of standard normal numbers, drawn from the start of the sequence.
    public static func tensor(seed: UInt64, index: UInt64, shape: [Int]) -> Tensor {
        var noise = Noise(seed: seed, index: index)
        return Tensor(shape: shape, data: (0..<shape.reduce(1, *)).map { _ in Float(noise.next()) })
    }

    /// The noise of a chunk of a stream, a tensor a step, each of the chunk's shape.
    public static func chunk(_ chunk: UInt64, seed: UInt64, contract: KernelContract) -> [Tensor] {
        let steps = UInt64(contract.sampler.steps)
        return (0..<steps).map { tensor(seed: seed, index: chunk &* steps &+ $0, shape: contract.chunk.shape) }
    }

    /// The made-up prompt of `s2ditc stream --prompt-seed`, for trials without a text encoder.
    public static func prompt(seed: UInt64, shape: [Int]) -> Tensor {
        tensor(seed: seed, index: .max, shape: shape)
    }

    /// What counts of that prompt, `[1, tokens]`: the first tokens, and not all of them.
    public static func mask(seed: UInt64, shape: [Int]) -> Tensor {
        let tokens = shape.last ?? 1
        let counting = Int(seed % UInt64(max(tokens - 1, 1))) + 1
        return Tensor(shape: shape, data: (0..<tokens).map { $0 < counting ? 1 : 0 })
    }

    /// The next standard normal number.
    public mutating func next() -> Double {
        while true {
            let bits = nextWord()
            let box = Int(bits & 0xff)
            // From -1 to 1, of the upper 52 bits.
            let place = Double(bitPattern: bits >> 12 | 0x4000_0000_0000_0000) - 3
            let x = place * normalBoxes[box]
            if abs(x) < normalBoxes[box + 1] { return x }
            if box == 0 { return tail(isBelow: place < 0) }
            let (low, high) = (Self.heights[box + 1], Self.heights[box])
            if low + (high - low) * uniform() < Self.height(x) { return x }
        }
    }

    /// A number beyond the boxes.
    private mutating func tail(isBelow: Bool) -> Double {
        let edge = normalBoxes[1]
        var (x, y) = (1.0, 0.0)
        while -2 * y < x * x {
            x = log(uniformAboveZero()) / edge
            y = log(uniformAboveZero())
        }
        return isBelow ? x - edge : edge - x
    }

    private static func height(_ x: Double) -> Double { exp(-x * x / 2) }
    private static let heights = normalBoxes.map(height)

    /// From 0 to 1, 1 excluded.
    private mutating func uniform() -> Double { Double(nextWord() >> 11) * 0x1p-53 }

    /// From 0 to 1, both excluded.
    private mutating func uniformAboveZero() -> Double {
        Double(bitPattern: nextWord() >> 12 | 0x3ff0_0000_0000_0000) - (1 - Double.ulpOfOne / 2)
    }

    /// The next 64 bits.
    private mutating func nextWord() -> UInt64 {
        if used == block.count {
            block = Self.chacha8(key: key, counter: counter, stream: stream)
            counter &+= 1
            used = 0
        }
        defer { used += 2 }
        return UInt64(block[used + 1]) << 32 | UInt64(block[used])
    }

    private static func chacha8(key: [UInt32], counter: UInt64, stream: UInt64) -> [UInt32] {
        let halves = { (x: UInt64) in [UInt32(truncatingIfNeeded: x), UInt32(truncatingIfNeeded: x >> 32)] }
        let start: [UInt32] = [0x6170_7865, 0x3320_646e, 0x7962_2d32, 0x6b20_6574] + key + halves(counter) + halves(stream)
        var x = start
        x.withUnsafeMutableBufferPointer { x in
            func quarter(_ a: Int, _ b: Int, _ c: Int, _ d: Int) {
                func turn(_ at: Int, _ with: Int, _ into: Int, _ by: UInt32) {
                    x[at] = x[at] &+ x[with]
                    let mixed = x[into] ^ x[at]
                    x[into] = mixed << by | mixed >> (32 - by)
                }
                turn(a, b, d, 16)
                turn(c, d, b, 12)
                turn(a, b, d, 8)
                turn(c, d, b, 7)
            }
            for _ in 0..<4 {
                for i in 0..<4 { quarter(i, 4 + i, 8 + i, 12 + i) }
                for i in 0..<4 { quarter(i, 4 + (i + 1) % 4, 8 + (i + 2) % 4, 12 + (i + 3) % 4) }
            }
        }
        return zip(x, start).map { $0 &+ $1 }
    }
}
