import Foundation

/// How a normalized text is split into words.
indirect enum PreTokenizer: Sendable {
    enum Behavior: String, Sendable {
        case removed = "Removed"
        case isolated = "Isolated"
        case withPrevious = "MergedWithPrevious"
        case withNext = "MergedWithNext"
        case contiguous = "Contiguous"
    }

    case sequence([PreTokenizer])
    case split(Pattern, Behavior, invert: Bool)
    case bytes(prefix: Bool, Pattern?)
    case whitespace
    case metaspace(Unicode.Scalar, prepend: String, split: Bool)

    init(_ json: JSON) throws {
        switch json["type"]?.text {
        case "Sequence": self = .sequence(try (json["pretokenizers"]?.array ?? []).map(PreTokenizer.init))
        case "Split":
            guard let behavior = json["behavior"]?.text.flatMap(Behavior.init) else {
                throw HostError("field `pre_tokenizer`: Split: behavior: found \(json["behavior"]?.description ?? "nothing")")
            }
            self = .split(try Pattern(json["pattern"]), behavior, invert: json["invert"]?.flag ?? false)
        case "ByteLevel":
            let pattern = json["use_regex"]?.flag ?? true
                ? try Pattern("'s|'t|'re|'ve|'m|'ll|'d| ?\\p{L}+| ?\\p{N}+| ?[^\\s\\p{L}\\p{N}]+|\\s+(?!\\S)|\\s+") : nil
            self = .bytes(prefix: json["add_prefix_space"]?.flag ?? true, pattern)
        case "WhitespaceSplit": self = .whitespace
        case "Metaspace":
            let prepend = json["prepend_scheme"]?.text ?? (json["add_prefix_space"]?.flag == false ? "never" : "always")
            guard let replacement = json["replacement"]?.text?.unicodeScalars.first, ["always", "first", "never"].contains(prepend) else {
                throw HostError("field `pre_tokenizer`: Metaspace: expected a replacement and a prepend_scheme")
            }
            self = .metaspace(replacement, prepend: prepend, split: json["split"]?.flag ?? true)
        case let other: throw HostError("field `pre_tokenizer`: found \(other ?? "no type"), which this package does not know")
        }
    }

    func words(of texts: [Stretch]) throws -> [Stretch] {
        if case .sequence(let all) = self { return try all.reduce(texts) { try $1.words(of: $0) } }
        return texts.flatMap { text -> [Stretch] in
            var isFirst = text.isFirst
            return parts(of: text).compactMap { part -> Stretch? in
                guard !part.isEmpty else { return nil }
                defer { isFirst = false }
                return Stretch(scalars: part, isFirst: isFirst)
            }
        }
    }

    private func parts(of text: Stretch) -> [[Unicode.Scalar]] {
        let scalars = text.scalars
        switch self {
        case .sequence: return [scalars]
        case .whitespace: return scalars.split(whereSeparator: isSpace).map(Array.init)
        case .split(let pattern, let behavior, let invert):
            return Self.merged(pattern.parts(of: scalars).map { ($0.part, $0.isMatch != invert) }, behavior)
        case .bytes(let prefix, let pattern):
            let whole = prefix && scalars.first != " " ? [" "] + scalars : scalars
            let words = pattern.map { $0.parts(of: whole).map(\.part) } ?? [whole]
            return words.map { $0.utf8.map { Self.letters[Int($0)] } }
        case .metaspace(let replacement, let prepend, let split):
            var marked = scalars.map { $0 == " " ? replacement : $0 }
            let prepends = prepend == "always" || (prepend == "first" && text.isFirst)
            if prepends, marked.first != replacement { marked.insert(replacement, at: 0) }
            guard split else { return [marked] }
            return Self.merged(marked.map { ([$0], $0 == replacement) }, .withNext, joins: true)
        }
    }

    /// Words of parts, some of which separate. With `joins` parts that do not separate are letters of one word.
    private static func merged(_ parts: [([Unicode.Scalar], Bool)], _ behavior: Behavior, joins: Bool = false) -> [[Unicode.Scalar]] {
        var words: [[Unicode.Scalar]] = []
        var wasSeparator = false
        for (part, isSeparator) in parts {
            switch behavior {
            case .removed: if !isSeparator { words.append(part) }
            case .isolated: words.append(part)
            case .contiguous:
                if isSeparator == wasSeparator, !words.isEmpty { words[words.count - 1] += part } else { words.append(part) }
            case .withPrevious:
                if isSeparator, !wasSeparator, !words.isEmpty { words[words.count - 1] += part } else { words.append(part) }
            case .withNext:
                if !isSeparator, !words.isEmpty, wasSeparator || joins { words[words.count - 1] += part } else { words.append(part) }
            }
            wasSeparator = isSeparator
        }
        return words
    }

    /// A letter for each byte: itself if it can be seen, else one from U+0100 on.
    private static let letters: [Unicode.Scalar] = {
        var next: UInt32 = 256
        return (0..<256).map { (byte: UInt32) -> Unicode.Scalar in
            let isSeen = (33...126).contains(byte) || (161...172).contains(byte) || (174...255).contains(byte)
            if isSeen { return Unicode.Scalar(byte)! }
            defer { next += 1 }
            return Unicode.Scalar(next)!
        }
    }()
}

/// The tokens that are put around a text.
struct PostProcessor: Sendable {
    private var before: [Int] = []
    private var behind: [Int] = []

    /// How many they are.
    var count: Int { before.count + behind.count }

    init(_ json: JSON?) throws {
        guard let json else { return }
        switch json["type"]?.text {
        case "Sequence":
            for inner in json["processors"]?.array ?? [] {
                let inner = try PostProcessor(inner)
                before = inner.before + before
                behind += inner.behind
            }
        case "ByteLevel": break
        case "RobertaProcessing", "BertProcessing":
            guard let first = json["cls"]?.array?.last?.integer, let last = json["sep"]?.array?.last?.integer else {
                throw HostError("field `post_processor`: expected cls and sep")
            }
            (before, behind) = ([first], [last])
        case "TemplateProcessing":
            var isBehind = false
            for item in json["single"]?.array ?? [] {
                if let token = item["SpecialToken"]?["id"]?.text {
                    guard let ids = json["special_tokens"]?[token]?["ids"]?.array?.compactMap(\.integer) else {
                        throw HostError("field `post_processor.special_tokens`: found no \(token)")
                    }
                    if isBehind { behind += ids } else { before += ids }
                } else {
                    isBehind = true
                }
            }
        case let other: throw HostError("field `post_processor`: found \(other ?? "no type"), which this package does not know")
        }
    }

    func process(_ ids: [Int]) -> [Int] { before + ids + behind }
}
