import Foundation

/// What is done to the text before it is split.
indirect enum Normalizer: Sendable {
    case sequence([Normalizer])
    case form(@Sendable (String) -> String)
    case lowercase
    case replace(Pattern, [Unicode.Scalar])
    case prepend([Unicode.Scalar])
    case strip(left: Bool, right: Bool)
    case precompiled(CharacterMap)

    init(_ json: JSON) throws {
        switch json["type"]?.text {
        case "Sequence": self = .sequence(try (json["normalizers"]?.array ?? []).map(Normalizer.init))
        case "NFC": self = .form { $0.precomposedStringWithCanonicalMapping }
        case "NFKC": self = .form { $0.precomposedStringWithCompatibilityMapping }
        case "NFD": self = .form { $0.decomposedStringWithCanonicalMapping }
        case "NFKD": self = .form { $0.decomposedStringWithCompatibilityMapping }
        case "Lowercase": self = .lowercase
        case "Replace": self = .replace(try Pattern(json["pattern"]), (json["content"]?.text ?? "").scalarArray)
        case "Prepend": self = .prepend((json["prepend"]?.text ?? "").scalarArray)
        case "Strip": self = .strip(left: json["strip_left"]?.flag ?? true, right: json["strip_right"]?.flag ?? true)
        case "Precompiled": self = .precompiled(try CharacterMap(base64: json["precompiled_charsmap"]?.text ?? ""))
        case let other: throw HostError("field `normalizer`: found \(other ?? "no type"), which this package does not know")
        }
    }

    func apply(_ text: [Unicode.Scalar]) -> [Unicode.Scalar] {
        switch self {
        case .sequence(let all): return all.reduce(text) { $1.apply($0) }
        case .form(let form): return form(text.string).scalarArray
        case .lowercase: return text.flatMap { $0.properties.lowercaseMapping.unicodeScalars }
        case .replace(let pattern, let content): return pattern.parts(of: text).flatMap { $0.isMatch ? content : $0.part }
        case .prepend(let content): return text.isEmpty ? text : content + text
        case .strip(let left, let right):
            let begin = left ? text.firstIndex { !isSpace($0) } ?? text.endIndex : 0
            let end = right ? text.lastIndex { !isSpace($0) }.map { $0 + 1 } ?? begin : text.endIndex
            return Array(text[begin..<max(begin, end)])
        case .precompiled(let map): return map.apply(text)
        }
    }
}

/// The table of sentencepiece: what some characters become. A double-array trie over UTF-8, and the texts that its leaves point at.
struct CharacterMap: Sendable {
    private let units: [UInt32]
    private let texts: [UInt8]

    init(base64: String) throws {
        guard let data = Data(base64Encoded: base64), data.count >= 4 else { throw HostError("precompiled_charsmap: expected a table in base64") }
        let bytes = Array(data)
        let word = { (at: Int) in (0..<4).reduce(UInt32(0)) { $0 | UInt32(bytes[at + $1]) << (8 * UInt32($1)) } }
        let size = Int(word(0))
        guard size % 4 == 0, size > 0, 4 + size <= bytes.count else { throw HostError("precompiled_charsmap: found a trie of \(size) bytes in \(bytes.count)") }
        units = stride(from: 4, to: 4 + size, by: 4).map(word)
        texts = Array(bytes[(4 + size)...])
    }

    func apply(_ text: [Unicode.Scalar]) -> [Unicode.Scalar] {
        var made: [Unicode.Scalar] = []
        for character in text.string {
            // A short grapheme as a whole; else scalar by scalar.
            if character.utf8.count < 6, let other = mapped(Array(character.utf8)) {
                made += other
                continue
            }
            for scalar in character.unicodeScalars { made += mapped([scalar].utf8) ?? [scalar] }
        }
        return made
    }

    /// What the shortest beginning of `key` that is in the table becomes.
    private func mapped(_ key: [UInt8]) -> [Unicode.Scalar]? {
        let offset = { (unit: UInt32) in Int((unit >> 10) << ((unit & 1 << 9) >> 6)) }
        var at = offset(units[0])
        for byte in key where byte != 0 {
            at ^= Int(byte)
            guard units.indices.contains(at), units[at] & 0x8000_00ff == UInt32(byte) else { return nil }
            let unit = units[at]
            at ^= offset(unit)
            guard unit >> 8 & 1 == 1, units.indices.contains(at) else { continue }
            let begin = Int(units[at] & 0x7fff_ffff)
            guard begin <= texts.count else { return nil }
            return String(decoding: texts[begin...].prefix { $0 != 0 }, as: UTF8.self).scalarArray
        }
        return nil
    }
}
