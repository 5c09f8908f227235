import Foundation

/// A tokenizer in the format of the library `tokenizers`, `tokenizer.json`: a prompt to token ids, as transformers makes them.
///
/// It reads what CLIP, T5, UMT5 and Gemma have: the models BPE and Unigram, and the steps around them that their files name. A file with another step is
/// refused by name.
public struct Tokenizer: Sendable {
    private let added: AddedTokens
    private let normalize: Normalizer?
    private let split: PreTokenizer?
    private let model: any TokenModel
    private let around: PostProcessor

    /// Reads `tokenizer.json`.
    public init(file: URL) throws {
        let json = try JSON(file: file)
        do {
            try self.init(json)
        } catch let error as HostError {
            throw HostError("\(file.path): \(error)")
        }
    }

    init(_ json: JSON) throws {
        normalize = try field(json["normalizer"]).map(Normalizer.init)
        split = try field(json["pre_tokenizer"]).map(PreTokenizer.init)
        around = try PostProcessor(field(json["post_processor"]))
        guard let model = json["model"] else { throw HostError("not a tokenizer: field `model`: missing") }
        // Older files of BPE do not name the type.
        switch model["type"]?.text ?? (model["merges"] == nil ? "Unigram" : "BPE") {
        case "BPE": self.model = try BytePairs(model)
        case "Unigram": self.model = try Unigram(model)
        case let other: throw HostError("field `model.type`: found \(other), expected BPE or Unigram")
        }
        added = try AddedTokens(json["added_tokens"]?.array ?? [], normalize)
    }

    /// The token ids of a text, with those that the tokenizer puts around it. Of a long text the last ids before the end are left out, so that `most` are left.
    public func encode(_ text: String, most: Int = .max) throws -> [Int] { try encoded(text, most: most).ids }

    /// The token ids of a text, and how many were left out.
    public func encoded(_ text: String, most: Int = .max) throws -> (ids: [Int], leftOut: Int) {
        var own: [Int] = []
        for piece in try added.pieces(of: text, normalize) {
            switch piece {
            case .token(let id): own.append(id)
            case .text(let text):
                guard !text.scalars.isEmpty else { continue }
                for word in try split?.words(of: [text]) ?? [text] where !word.scalars.isEmpty {
                    own += try model.ids(of: word.scalars)
                }
            }
        }
        let room = most - around.count
        guard room >= 0 else { throw HostError("text: found room for \(most) tokens, expected \(around.count) and more: so many are put around it") }
        let leftOut = max(0, own.count - room)
        return (around.process(Array(own.dropLast(leftOut))), leftOut)
    }
}

/// A field that is there and not null.
func field(_ json: JSON?) -> JSON? { json == .null ? nil : json }

/// A stretch of a text. Scalars, and not characters, are what tokenizers compare.
struct Stretch: Sendable {
    var scalars: [Unicode.Scalar]
    /// Whether it begins where the text does.
    var isFirst: Bool
}

/// Makes ids of a word.
protocol TokenModel: Sendable {
    func ids(of word: [Unicode.Scalar]) throws -> [Int]
}

extension Sequence where Element == Unicode.Scalar {
    var string: String {
        var made = String.UnicodeScalarView()
        made.append(contentsOf: self)
        return String(made)
    }

    var utf8: JSON.Bytes { flatMap { UTF8.encode($0)! } }
}

extension String {
    var scalarArray: [Unicode.Scalar] { Array(unicodeScalars) }
}

/// White space, as Rust and Oniguruma have it.
func isSpace(_ scalar: Unicode.Scalar) -> Bool { scalar.properties.isWhitespace }

/// A regular expression of a `tokenizer.json`.
struct Pattern: @unchecked Sendable {
    private let regex: NSRegularExpression

    /// - Parameter json: `{"Regex": …}`, or `{"String": …}` for a text as it stands.
    init(_ json: JSON?) throws {
        guard let json, let pattern = json["Regex"]?.text ?? json["String"]?.text.map(NSRegularExpression.escapedPattern) ?? json.text else {
            throw HostError("pattern: found \(json?.description ?? "nothing"), expected a Regex or a String")
        }
        try self.init(pattern)
    }

    init(_ pattern: String) throws {
        // Foundation's \s lacks two of the white spaces.
        let space = "\\t-\\r\\u0085\\p{Z}"
        let plain = pattern.replacingOccurrences(of: "\\s", with: "[\(space)]").replacingOccurrences(of: "\\S", with: "[^\(space)]")
        guard let regex = try? NSRegularExpression(pattern: plain) else { throw HostError("pattern: found \(pattern), which Foundation does not take") }
        self.regex = regex
    }

    /// What matches and what lies between, in order.
    func parts(of scalars: [Unicode.Scalar]) -> [(part: [Unicode.Scalar], isMatch: Bool)] {
        // Foundation counts in units of UTF-16: the scalar at each of them.
        var places: [Int] = []
        for (i, scalar) in scalars.enumerated() { places += Array(repeating: i, count: UTF16.width(scalar)) }
        places.append(scalars.count)
        var parts: [(part: [Unicode.Scalar], isMatch: Bool)] = []
        var at = 0
        for match in regex.matches(in: scalars.string, range: NSRange(location: 0, length: places.count - 1)) where match.range.length > 0 {
            let (begin, end) = (places[match.range.location], places[match.range.location + match.range.length])
            if at < begin { parts.append((Array(scalars[at..<begin]), false)) }
            parts.append((Array(scalars[begin..<end]), true))
            at = end
        }
        if at < scalars.count { parts.append((Array(scalars[at...]), false)) }
        return parts
    }
}
