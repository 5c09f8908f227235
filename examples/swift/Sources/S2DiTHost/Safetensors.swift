import Foundation

/// A safetensors file: named tensors. Halves and 32-bit floats and integers are read, as the files of `s2ditc` have them.
public enum Safetensors {
    /// Reads all tensors of a file.
    public static func read(_ file: URL) throws -> [String: Tensor] {
        func wrong(_ what: String) -> HostError { HostError("\(file.path): \(what)") }
        guard let data = try? Data(contentsOf: file), data.count >= 8 else { throw wrong("cannot be read, or is no safetensors file") }
        let bytes = [UInt8](data)
        let size = bytes[0..<8].reversed().reduce(UInt64(0)) { $0 << 8 | UInt64($1) }
        guard size <= UInt64(bytes.count - 8) else { throw wrong("found a header of \(size) bytes, expected at most \(bytes.count - 8)") }
        let start = 8 + Int(size)
        guard case .object(let header) = try JSON(Array(bytes[8..<start])) else { throw wrong("found no header") }
        var tensors: [String: Tensor] = [:]
        for (key, about) in header {
            let name = String(decoding: key, as: UTF8.self)
            if name == "__metadata__" { continue }
            guard let shape = about["shape"]?.array?.compactMap(\.integer), let span = about["data_offsets"]?.array?.compactMap(\.integer),
                span.count == 2, 0 <= span[0], span[0] <= span[1], start + span[1] <= bytes.count
            else { throw wrong("tensor `\(name)`: found no shape and place in the file") }
            let own = bytes[start + span[0]..<start + span[1]]
            let width = about["dtype"]?.text == "F16" ? 2 : 4
            guard own.count == shape.reduce(width, *) else { throw wrong("tensor `\(name)`: found \(own.count) bytes for shape \(shape)") }
            let words = stride(from: own.startIndex, to: own.endIndex, by: width).map { at in
                (0..<width).reversed().reduce(UInt32(0)) { $0 << 8 | UInt32(own[at + $1]) }
            }
            switch about["dtype"]?.text {
            case "F32": tensors[name] = Tensor(shape: shape, data: words.map(Float.init(bitPattern:)))
            case "F16": tensors[name] = Tensor(shape: shape, data: words.map { Float(halfBits: UInt16($0)) })
            case "I32": tensors[name] = Tensor(shape: shape, data: words.map { Float(Int32(bitPattern: $0)) })
            case let other: throw wrong("tensor `\(name)`: found dtype \(other ?? "none"), expected F16, F32 or I32")
            }
        }
        return tensors
    }

    /// Writes tensors, each in its type.
    public static func write(_ tensors: [String: (tensor: Tensor, dtype: DType)], to file: URL) throws {
        var (header, body): ([String], [UInt8]) = ([], [])
        for (name, (tensor, dtype)) in tensors.sorted(by: { $0.key < $1.key }) {
            let begin = body.count
            for x in tensor.data {
                switch dtype {
                case .f16: withUnsafeBytes(of: x.halfBits.littleEndian) { body += $0 }
                case .f32: withUnsafeBytes(of: x.bitPattern.littleEndian) { body += $0 }
                case .i32: withUnsafeBytes(of: Int32(x).littleEndian) { body += $0 }
                }
            }
            let quoted = String(decoding: try JSONEncoder().encode(name), as: UTF8.self)
            let shape = tensor.shape.map(String.init).joined(separator: ",")
            header.append("\(quoted):{\"dtype\":\"\(dtype.rawValue.uppercased())\",\"shape\":[\(shape)],\"data_offsets\":[\(begin),\(body.count)]}")
        }
        var text = Array("{\(header.joined(separator: ","))}".utf8)
        while text.count % 8 != 0 { text.append(0x20) }
        var size: [UInt8] = []
        withUnsafeBytes(of: UInt64(text.count).littleEndian) { size += $0 }
        try Data(size + text + body).write(to: file)
    }
}
