/// Byte-pair encoding: letters are merged pair by pair, the pair that was learned first before all others.
struct BytePairs: TokenModel {
    private struct Merge: Sendable {
        var rank, id: Int
    }

    private let vocabulary: [JSON.Bytes: Int]
    private let merges: [UInt64: Merge]
    private let suffix: JSON.Bytes
    private let unknown: Int?
    private let fusesUnknown, fallsBackToBytes, ignoresMerges: Bool

    init(_ json: JSON) throws {
        guard let vocab = json["vocab"]?.object, let list = json["merges"]?.array else { throw HostError("field `model`: expected vocab and merges") }
        let prefix = json["continuing_subword_prefix"]?.text ?? ""
        guard prefix.isEmpty else { throw HostError("field `model.continuing_subword_prefix`: found \(prefix), expected none") }
        var vocabulary: [JSON.Bytes: Int] = [:]
        for (token, id) in vocab {
            guard let id = id.integer, id >= 0 else { throw HostError("field `model.vocab`: found \(id), expected ids") }
            vocabulary[token] = id
        }
        var merges: [UInt64: Merge] = [:]
        for (rank, merge) in list.enumerated() {
            let pair = merge.array?.compactMap(\.bytes) ?? merge.bytes.map { $0.split(separator: 0x20).map(Array.init) } ?? []
            guard pair.count == 2, let left = vocabulary[pair[0]], let right = vocabulary[pair[1]], let id = vocabulary[pair[0] + pair[1]] else {
                throw HostError("field `model.merges`: found \(merge), expected two tokens of the vocabulary that make a third")
            }
            merges[Self.key(left, right)] = Merge(rank: rank, id: id)
        }
        (self.vocabulary, self.merges) = (vocabulary, merges)
        suffix = json["end_of_word_suffix"]?.bytes ?? []
        unknown = json["unk_token"]?.bytes.flatMap { vocabulary[$0] }
        fusesUnknown = json["fuse_unk"]?.flag ?? false
        fallsBackToBytes = json["byte_fallback"]?.flag ?? false
        ignoresMerges = json["ignore_merges"]?.flag ?? false
    }

    private static func key(_ left: Int, _ right: Int) -> UInt64 { UInt64(left) << 32 | UInt64(right) }

    func ids(of word: [Unicode.Scalar]) -> [Int] {
        if ignoresMerges, let id = vocabulary[word.utf8] { return [id] }
        var ids: [Int] = []
        var wasUnknown = false
        for (i, scalar) in word.enumerated() {
            let token = [scalar].utf8 + (i + 1 == word.count ? suffix : [])
            if let id = vocabulary[token] {
                ids.append(id)
                wasUnknown = false
                continue
            }
            if fallsBackToBytes {
                let bytes = token.compactMap { vocabulary[byteToken($0)] }
                if bytes.count == token.count {
                    ids += bytes
                    continue
                }
            }
            guard let unknown else { continue }
            if !(fusesUnknown && wasUnknown) { ids.append(unknown) }
            wasUnknown = true
        }
        while let (at, merge) = best(ids) { ids.replaceSubrange(at...at + 1, with: [merge.id]) }
        return ids
    }

    private func best(_ ids: [Int]) -> (Int, Merge)? {
        var best: (Int, Merge)?
        for i in ids.indices.dropLast() {
            guard let merge = merges[Self.key(ids[i], ids[i + 1])], merge.rank < best?.1.rank ?? .max else { continue }
            best = (i, merge)
        }
        return best
    }
}

/// The token of a byte, such as `<0x0A>`.
func byteToken(_ byte: UInt8) -> JSON.Bytes {
    let digits = Array("0123456789ABCDEF".utf8)
    return Array("<0x".utf8) + [digits[Int(byte >> 4)], digits[Int(byte & 15)], UInt8(ascii: ">")]
}
