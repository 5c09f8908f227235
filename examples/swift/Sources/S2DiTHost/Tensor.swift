import Foundation

/// Numbers in row-major order, on the host.
public struct Tensor: Equatable, Sendable {
    /// Extents, the outermost first.
    public var shape: [Int]
    /// The elements; as many as the shape has.
    public var data: [Float]

    public init(shape: [Int], data: [Float]) {
        self.shape = shape
        self.data = data
    }

    /// A tensor of zeros.
    public static func zeros(_ shape: [Int]) -> Tensor {
        Tensor(shape: shape, data: Array(repeating: 0, count: shape.reduce(1, *)))
    }

    /// Whether there is neither NaN nor infinity.
    public var isFinite: Bool { data.allSatisfy { $0.isFinite } }
}

/// Types of elements in contracts.
public enum DType: String, Codable, Sendable {
    case f16, f32, i32

    /// Bytes of an element.
    public var bytes: Int { self == .f16 ? 2 : 4 }

    /// The number as this type holds it, rounded to nearest and, halfway, to even.
    public func rounded(_ x: Double) -> Float {
        switch self {
        case .f32: return Float(x)
        case .i32: return Float(x.rounded())
        case .f16:
            guard x.isFinite, x != 0 else { return Float(x) }
            // The distance of halves at x; below 2^-14 they are evenly spaced.
            let step = scalbn(1.0, max(x.exponent, -14) - 10)
            let near = (x / step).rounded(.toNearestOrEven) * step
            return abs(near) > 65504 ? Float(sign: near.sign, exponent: 0, significand: .infinity) : Float(near)
        }
    }
}

extension Float {
    /// The bits of the nearest half. (`Float16` is not there on every Mac.)
    public var halfBits: UInt16 {
        let sign: UInt16 = sign == .minus ? 0x8000 : 0
        if isNaN { return sign | 0x7e00 }
        let near = abs(DType.f16.rounded(Double(self)))
        if near.isInfinite { return sign | 0x7c00 }
        if near < 0x1p-14 { return sign | UInt16(near * 0x1p24) }
        let fraction = UInt16((near / scalbn(Float(1), Int(near.exponent)) - 1) * 1024)
        return sign | UInt16(Int(near.exponent) + 15) << 10 | fraction
    }

    /// The number of a half with these bits.
    public init(halfBits bits: UInt16) {
        let (exponent, fraction) = (Int(bits >> 10 & 0x1f), Float(bits & 0x3ff))
        let size: Float
        switch exponent {
        case 0: size = fraction * 0x1p-24
        case 31: size = fraction == 0 ? .infinity : .nan
        default: size = scalbn(1 + fraction / 1024, exponent - 15)
        }
        self = bits & 0x8000 == 0 ? size : -size
    }
}

/// What is wrong with a folder, an input or a result: the place, what was found, what was expected.
public struct HostError: Error, LocalizedError, CustomStringConvertible, Equatable {
    public let description: String
    public var errorDescription: String? { description }

    public init(_ description: String) { self.description = description }
}
