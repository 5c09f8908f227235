/// A unigram model: of all ways to cut a word into pieces of the vocabulary, the one with the greatest sum of scores.
struct Unigram: TokenModel {
    private let pieces: [JSON.Bytes]
    private let scores: [Double]
    /// Indices of pieces in the order of their bytes.
    private let sorted: [Int]
    private let unknown: Int?
    private let unknownScore: Double
    private let byteIds: [Int?]

    init(_ json: JSON) throws {
        var pieces: [JSON.Bytes] = []
        var scores: [Double] = []
        for entry in json["vocab"]?.array ?? [] {
            guard let entry = entry.array, entry.count == 2, let piece = entry[0].bytes, let score = entry[1].number else {
                throw HostError("field `model.vocab`: found \(entry), expected a piece and its score")
            }
            pieces.append(piece)
            scores.append(score)
        }
        (self.pieces, self.scores) = (pieces, scores)
        sorted = pieces.indices.sorted { pieces[$0].lexicographicallyPrecedes(pieces[$1]) }
        unknown = field(json["unk_id"])?.integer
        guard unknown.map({ pieces.indices.contains($0) }) ?? true, !pieces.isEmpty else {
            throw HostError("field `model.unk_id`: found \(json["unk_id"] ?? .null), expected one of \(pieces.count) pieces")
        }
        unknownScore = (scores.min() ?? 0) - 10
        let falls = json["byte_fallback"]?.flag ?? false
        let ids = falls ? Dictionary(zip(pieces, pieces.indices), uniquingKeysWith: { $1 }) : [:]
        byteIds = falls ? (0...255).map { ids[byteToken($0)] } : []
    }

    private struct Node {
        var id = 0
        var score = 0.0
        var begin: Int?
    }

    func ids(of word: [Unicode.Scalar]) throws -> [Int] {
        let text = word.utf8
        var best = Array(repeating: Node(), count: text.count + 1)
        var at = 0
        for scalar in word {
            let (here, width) = (best[at].score, UTF8.width(scalar))
            func offer(_ end: Int, _ id: Int, _ score: Double) {
                if best[end].begin == nil || score > best[end].score { best[end] = Node(id: id, score: score, begin: at) }
            }
            var hasWhole = false
            for (length, id) in beginnings(of: text[at...]) {
                offer(at + length, id, here + scores[id])
                hasWhole = hasWhole || length == width
            }
            if !hasWhole {
                guard let unknown else { throw HostError("text: found \(String(scalar)), which is in no piece of the vocabulary") }
                offer(at + width, unknown, here + unknownScore)
            }
            at += width
        }
        // From the end: what is unknown in a row is one token.
        var ids: [Int] = []
        var end = text.count
        var unknownEnd: Int?
        func close(at begin: Int) {
            guard let last = unknownEnd, let unknown else { return }
            unknownEnd = nil
            let bytes = byteIds.isEmpty ? [] : text[begin..<last].compactMap { byteIds[Int($0)] }
            ids += bytes.count == last - begin ? bytes.reversed() : [unknown]
        }
        while end > 0, let begin = best[end].begin {
            if best[end].id == unknown {
                unknownEnd = unknownEnd ?? end
            } else {
                close(at: end)
                ids.append(best[end].id)
            }
            end = begin
        }
        close(at: 0)
        return ids.reversed()
    }

    /// The pieces that a text begins with, the shortest first.
    private func beginnings(of text: ArraySlice<UInt8>) -> [(length: Int, id: Int)] {
        var found: [(Int, Int)] = []
        var range = sorted.startIndex..<sorted.endIndex
        for (depth, byte) in text.enumerated() {
            // Pieces in `range` begin with the text so far; those of that length come first.
            let begin = bound(range) { pieces[$0].count > depth && pieces[$0][depth] >= byte }
            let end = bound(begin..<range.upperBound) { pieces[$0].count > depth && pieces[$0][depth] > byte }
            range = begin..<end
            guard !range.isEmpty else { break }
            // Of equal pieces the last one counts.
            if pieces[sorted[range.lowerBound]].count == depth + 1 {
                let same = bound(range) { pieces[$0].count > depth + 1 }
                found.append((depth + 1, sorted[range.lowerBound..<same].max()!))
            }
        }
        return found
    }

    /// The first place of a range where a condition holds, which then holds up to its end.
    private func bound(_ range: Range<Int>, _ holds: (Int) -> Bool) -> Int {
        var (low, high) = (range.lowerBound, range.upperBound)
        while low < high {
            let middle = (low + high) / 2
            if holds(sorted[middle]) { high = middle } else { low = middle + 1 }
        }
        return low
    }
}
