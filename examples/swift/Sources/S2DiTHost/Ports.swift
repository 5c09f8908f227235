import Foundation

/// An input or an output of a function.
public struct TensorPort: Codable, Equatable, Sendable {
    public var name: String
    public var dtype: DType
    public var shape: [Int]

    public init(name: String, dtype: DType, shape: [Int]) {
        self.name = name
        self.dtype = dtype
        self.shape = shape
    }

    /// The number of elements.
    public var count: Int { shape.reduce(1, *) }
}

/// One of several packages that run one after the other; tensors are passed on by name.
public struct PartOfFunction: Codable, Equatable, Sendable {
    public var file: String
    public var inputs: [TensorPort]
    public var outputs: [TensorPort]
}

/// What inputs and results are for.
public struct Interface: Codable, Equatable, Sendable {
    public struct Entry: Codable, Equatable, Sendable {
        public var name: String
        public var role: String
        /// Ids of tokens are below it.
        public var vocabulary: Int?
    }

    public var inputs: [Entry]
    public var outputs: [Entry]

    /// The name of the input with a role.
    public func input(_ role: String) -> String? { inputs.first { $0.role == role }?.name }

    /// The name of the first result with a role.
    public func output(_ role: String) -> String? { outputs.first { $0.role == role }?.name }
}

private struct Head: Decodable {
    var format: String?
    var version: Int?
}

/// The text of a contract, parsed; errors name the file and the field.
func parsed<Contract: Decodable>(_ type: Contract.Type, at file: URL, format: String, version: Int) throws -> Contract {
    guard let text = try? Data(contentsOf: file) else { throw HostError("\(file.path): cannot be read") }
    func decoded<T: Decodable>(_ type: T.Type) throws -> T {
        do {
            let decoder = JSONDecoder()
            decoder.keyDecodingStrategy = .convertFromSnakeCase
            return try decoder.decode(type, from: text)
        } catch let error as DecodingError {
            throw HostError("\(file.path): \(told(error))")
        }
    }
    // Before the fields: another version may have others.
    let head = try decoded(Head.self)
    guard head.format == format else {
        throw HostError("\(file.path): field `format`: found \(head.format ?? "nothing"), expected \(format)")
    }
    guard head.version == version else {
        let found = head.version.map(String.init) ?? "nothing"
        throw HostError("\(file.path): field `version`: found \(found), expected \(version): compile again with the s2ditc of this package")
    }
    return try decoded(type)
}

private func told(_ error: DecodingError) -> String {
    func place(_ context: DecodingError.Context, _ last: String? = nil) -> String {
        let keys = context.codingPath.map { $0.intValue.map { "[\($0)]" } ?? $0.stringValue } + (last.map { [$0] } ?? [])
        return keys.isEmpty ? "the file" : "field `\(keys.joined(separator: "."))`"
    }
    switch error {
    case .keyNotFound(let key, let context): return "\(place(context, key.stringValue)): missing"
    case .typeMismatch(let type, let context): return "\(place(context)): found another type, expected \(type)"
    case .valueNotFound(_, let context): return "\(place(context)): found null"
    case .dataCorrupted(let context): return "\(place(context)): \(context.debugDescription)"
    @unknown default: return "\(error)"
    }
}

/// Whether a contract names something of its own folder.
func isPlainName(_ name: String) -> Bool {
    !name.isEmpty && name != "." && name != ".." && !name.contains("/") && !name.contains("\\")
}

/// No tensor of a contract has more elements.
private let mostElements = 1 << 31

/// Checks a shape: between 1 and 2^31 elements.
func checkShape(_ shape: [Int], of place: String) throws {
    var count = 1
    for extent in shape {
        let (product, overflow) = count.multipliedReportingOverflow(by: extent)
        guard extent > 0, !overflow, product <= mostElements else {
            throw HostError("\(place): found shape \(shape), expected 1 to \(mostElements) elements")
        }
        count = product
    }
}
