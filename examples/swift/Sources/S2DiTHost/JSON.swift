import Foundation

/// A value of JSON. Keys stay in their order and are compared byte by byte: vocabularies have tokens that differ in their composition only, which Swift's
/// dictionaries of strings take for equal.
public enum JSON: Equatable, Sendable, CustomStringConvertible {
    case null
    case bool(Bool)
    case number(Double)
    case string(Bytes)
    case array([JSON])
    case object([Bytes: JSON])

    /// UTF-8 text.
    public typealias Bytes = [UInt8]

    public static func string(_ text: String) -> JSON { .string(Array(text.utf8)) }

    /// The field of an object.
    public subscript(_ key: String) -> JSON? {
        guard case .object(let fields) = self else { return nil }
        return fields[Array(key.utf8)]
    }

    public var bytes: Bytes? {
        guard case .string(let bytes) = self else { return nil }
        return bytes
    }

    public var text: String? { bytes.map { String(decoding: $0, as: UTF8.self) } }

    public var flag: Bool? {
        guard case .bool(let flag) = self else { return nil }
        return flag
    }

    public var number: Double? {
        guard case .number(let number) = self else { return nil }
        return number
    }

    public var integer: Int? { number.flatMap { Int(exactly: $0) } }

    public var array: [JSON]? {
        guard case .array(let items) = self else { return nil }
        return items
    }

    public var object: [Bytes: JSON]? {
        guard case .object(let fields) = self else { return nil }
        return fields
    }

    public var description: String {
        switch self {
        case .null: return "null"
        case .bool(let flag): return "\(flag)"
        case .number(let number): return Int(exactly: number).map(String.init) ?? "\(number)"
        case .string: return "\"\(text ?? "")\""
        case .array(let items): return "[\(items.map(\.description).joined(separator: ", "))]"
        case .object(let fields): return "an object of \(fields.count) fields"
        }
    }

    /// Parses a text.
    public init(_ text: Bytes) throws {
        self = try text.withUnsafeBufferPointer { text in
            var parser = Parser(text: text)
            let value = try parser.value(depth: 0)
            parser.skipSpace()
            guard parser.at == text.count else { throw parser.wrong("the end") }
            return value
        }
    }

    /// Parses a file.
    public init(file: URL) throws {
        guard let data = try? Data(contentsOf: file) else { throw HostError("\(file.path): cannot be read") }
        do {
            self = try JSON(Array(data))
        } catch let error as HostError {
            throw HostError("\(file.path): \(error)")
        }
    }
}

private struct Parser {
    let text: UnsafeBufferPointer<UInt8>
    var at = 0

    func wrong(_ expected: String) -> HostError {
        let found = at < text.count ? "byte \(text[at])" : "the end"
        return HostError("not JSON: at byte \(at): found \(found), expected \(expected)")
    }

    mutating func skipSpace() {
        while at < text.count, [0x20, 0x09, 0x0a, 0x0d].contains(text[at]) { at += 1 }
    }

    /// Takes the next character if it is this one.
    mutating func take(_ character: Unicode.Scalar) -> Bool {
        skipSpace()
        guard at < text.count, text[at] == UInt8(ascii: character) else { return false }
        at += 1
        return true
    }

    mutating func value(depth: Int) throws -> JSON {
        skipSpace()
        guard at < text.count, depth < 128 else { throw wrong("a value") }
        switch Unicode.Scalar(text[at]) {
        case "{":
            at += 1
            var fields: [JSON.Bytes: JSON] = [:]
            if take("}") { return .object(fields) }
            repeat {
                skipSpace()
                let key = try string()
                guard take(":") else { throw wrong("`:`") }
                fields[key] = try value(depth: depth + 1)
            } while take(",")
            guard take("}") else { throw wrong("`,` or `}`") }
            return .object(fields)
        case "[":
            at += 1
            var items: [JSON] = []
            if take("]") { return .array(items) }
            repeat { items.append(try value(depth: depth + 1)) } while take(",")
            guard take("]") else { throw wrong("`,` or `]`") }
            return .array(items)
        case "\"": return .string(try string())
        case "t": return try word("true", .bool(true))
        case "f": return try word("false", .bool(false))
        case "n": return try word("null", .null)
        default: return try number()
        }
    }

    private mutating func word(_ word: String, _ value: JSON) throws -> JSON {
        let bytes = Array(word.utf8)
        guard at + bytes.count <= text.count, zip(bytes, text[at...]).allSatisfy({ $0 == $1 }) else { throw wrong("a value") }
        at += bytes.count
        return value
    }

    private mutating func number() throws -> JSON {
        let start = at
        let allowed = Array("+-0123456789.eE".utf8)
        while at < text.count, allowed.contains(text[at]) { at += 1 }
        guard at > start, let number = Double(String(decoding: text[start..<at], as: UTF8.self)) else { throw wrong("a value") }
        return .number(number)
    }

    private mutating func string() throws -> JSON.Bytes {
        guard at < text.count, text[at] == UInt8(ascii: "\"") else { throw wrong("a string") }
        at += 1
        var bytes: JSON.Bytes = []
        while at < text.count {
            let byte = text[at]
            at += 1
            switch byte {
            case UInt8(ascii: "\""): return bytes
            case UInt8(ascii: "\\"):
                guard at < text.count else { throw wrong("an escape") }
                let escape = text[at]
                at += 1
                switch Unicode.Scalar(escape) {
                case "n": bytes.append(0x0a)
                case "t": bytes.append(0x09)
                case "r": bytes.append(0x0d)
                case "b": bytes.append(0x08)
                case "f": bytes.append(0x0c)
                case "\"", "\\", "/": bytes.append(escape)
                case "u":
                    var code = try unit()
                    if code >> 10 == 0x36, at + 1 < text.count, text[at] == UInt8(ascii: "\\"), text[at + 1] == UInt8(ascii: "u") {
                        at += 2
                        let low = try unit()
                        code = 0x10000 + (code & 0x3ff) << 10 + (low & 0x3ff)
                    }
                    bytes += Array(String(Unicode.Scalar(code) ?? "\u{fffd}").utf8)
                default: throw wrong("an escape")
                }
            default: bytes.append(byte)
            }
        }
        throw wrong("`\"`")
    }

    private mutating func unit() throws -> UInt32 {
        guard at + 4 <= text.count, let code = UInt32(String(decoding: text[at..<at + 4], as: UTF8.self), radix: 16) else {
            throw wrong("four hexadecimal digits")
        }
        at += 4
        return code
    }
}
