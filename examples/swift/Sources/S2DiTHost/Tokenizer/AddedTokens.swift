/// Tokens that are looked for in the text before anything else: `</s>`, `<extra_id_0>`.
struct AddedTokens: Sendable {
    enum Piece {
        case token(Int)
        case text(Stretch)
    }

    private struct Token: Sendable {
        var id: Int
        var scalars: [Unicode.Scalar]
        var isWord, eatsBefore, eatsBehind: Bool
    }

    /// Looked for in the text as it is, and in the normalized text. By the first scalar, the longest first.
    private var plain: [Unicode.Scalar: [Token]] = [:]
    private var normalized: [Unicode.Scalar: [Token]] = [:]

    init(_ list: [JSON], _ normalizer: Normalizer?) throws {
        for json in list {
            guard let id = json["id"]?.integer, let content = json["content"]?.text else {
                throw HostError("field `added_tokens`: found \(json), expected an id and a content")
            }
            let isNormalized = json["normalized"]?.flag ?? false
            let scalars = isNormalized ? normalizer?.apply(content.scalarArray) ?? content.scalarArray : content.scalarArray
            guard let first = scalars.first else { continue }
            let flag = { json[$0]?.flag ?? false }
            let token = Token(id: id, scalars: scalars, isWord: flag("single_word"), eatsBefore: flag("lstrip"), eatsBehind: flag("rstrip"))
            if isNormalized { normalized[first, default: []].append(token) } else { plain[first, default: []].append(token) }
        }
        let longestFirst = { (tokens: [Token]) in tokens.sorted { $0.scalars.count > $1.scalars.count } }
        plain = plain.mapValues(longestFirst)
        normalized = normalized.mapValues(longestFirst)
    }

    /// Added tokens and the normalized text between them.
    func pieces(of text: String, _ normalizer: Normalizer?) throws -> [Piece] {
        Self.split(Stretch(scalars: text.scalarArray, isFirst: true), plain).flatMap { piece -> [Piece] in
            guard case .text(let stretch) = piece else { return [piece] }
            let scalars = normalizer?.apply(stretch.scalars) ?? stretch.scalars
            return Self.split(Stretch(scalars: scalars, isFirst: stretch.isFirst), normalized)
        }
    }

    private static func split(_ text: Stretch, _ tokens: [Unicode.Scalar: [Token]]) -> [Piece] {
        let scalars = text.scalars
        var (pieces, begin, at): ([Piece], Int, Int) = ([], 0, 0)
        func add(to end: Int) {
            if begin < end { pieces.append(.text(Stretch(scalars: Array(scalars[begin..<end]), isFirst: text.isFirst && begin == 0))) }
        }
        while at < scalars.count {
            let fits = { (token: Token) in token.scalars.count <= scalars.count - at && zip(token.scalars, scalars[at...]).allSatisfy { $0 == $1 } }
            guard let token = tokens[scalars[at]]?.first(where: fits) else {
                at += 1
                continue
            }
            var (start, end) = (at, at + token.scalars.count)
            at = end
            if token.isWord, (start > 0 && isWord(scalars[start - 1])) || (end < scalars.count && isWord(scalars[end])) { continue }
            if token.eatsBefore { while start > begin, isSpace(scalars[start - 1]) { start -= 1 } }
            if token.eatsBehind { while end < scalars.count, isSpace(scalars[end]) { end += 1 } }
            add(to: start)
            pieces.append(.token(token.id))
            (begin, at) = (end, max(at, end))
        }
        add(to: scalars.count)
        return pieces
    }

    private static func isWord(_ scalar: Unicode.Scalar) -> Bool {
        scalar.properties.isAlphabetic || scalar.properties.numericType == .decimal || scalar.properties.generalCategory == .connectorPunctuation
    }
}
