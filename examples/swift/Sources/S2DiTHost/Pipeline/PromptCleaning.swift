import Foundation

/// A prompt as Wan's pipelines clean it before it is tokenized: quotes, ligatures, wide forms and control characters as ftfy mends them, canonical composition,
/// references of HTML to characters (twice), and runs of white space as one space. ftfy's mending of wrongly decoded text (`Ã©` for `é`) is not done, and names of
/// references are those of HTML 4.
public func cleanedAsWan(_ prompt: String) -> String {
    var lines: [[Unicode.Scalar]] = [[]]
    for scalar in prompt.unicodeScalars {
        lines[lines.count - 1].append(scalar)
        if scalar == "\n" { lines.append([]) }
    }
    let plain = unescaped(unescaped(lines.flatMap(mended), wholeOnly: false), wholeOnly: false)
    let isGap = { (scalar: Unicode.Scalar) in isSpace(scalar) || (0x1c...0x1f).contains(scalar.value) }
    return plain.split(whereSeparator: isGap).map { $0.string }.joined(separator: " ")
}

/// A line as ftfy mends it: again and again until nothing changes.
private func mended(_ line: [Unicode.Scalar]) -> [Unicode.Scalar] {
    var text = line
    for _ in 0...line.count {
        let referenced = line.contains("<") ? text : unescaped(text, wholeOnly: true)
        let visible = withoutEscapes(referenced.flatMap(plainly)).filter { !isControl($0) }
        let next = visible.string.precomposedStringWithCanonicalMapping.scalarArray
        if next == text { break }
        text = next
    }
    return text
}

/// What the control characters from U+0080 on are in Windows-1252, where they are mostly meant.
private let windows = "€\u{81}‚ƒ„…†‡ˆ‰Š‹Œ\u{8d}Ž\u{8f}\u{90}‘’“”•–—˜™š›œ\u{9d}žŸ".scalarArray

private let letters: [Unicode.Scalar: String] = [
    "Ĳ": "IJ", "ĳ": "ij", "ŉ": "'n", "Ǳ": "DZ", "ǲ": "Dz", "ǳ": "dz", "Ǆ": "DŽ", "ǅ": "Dž", "ǆ": "dž", "Ǉ": "LJ", "ǈ": "Lj", "ǉ": "lj", "Ǌ": "NJ",
    "ǋ": "Nj", "ǌ": "nj", "\u{fb00}": "ff", "\u{fb01}": "fi", "\u{fb02}": "fl", "\u{fb03}": "ffi", "\u{fb04}": "ffl", "\u{fb05}": "ſt", "\u{fb06}": "st",
    "\u{2bc}": "'", "\u{3000}": " ", "\u{2028}": "\n", "\u{2029}": "\n",
]

/// A character without ligature, wide or narrow form and curled quote.
private func plainly(_ scalar: Unicode.Scalar) -> [Unicode.Scalar] {
    if let text = letters[scalar] { return text.scalarArray }
    switch scalar.value {
    case 0x2018...0x201b: return ["'"]
    case 0x201c...0x201f: return ["\""]
    case 0x80...0x9f: return [windows[Int(scalar.value) - 0x80]]
    case 0xff01...0xffef: return String(scalar).precomposedStringWithCompatibilityMapping.scalarArray
    default: return [scalar]
    }
}

/// Without the escapes that colour a terminal: ESC, `[`, numbers and a letter.
private func withoutEscapes(_ text: [Unicode.Scalar]) -> [Unicode.Scalar] {
    var (made, at): ([Unicode.Scalar], Int) = ([], 0)
    while at < text.count {
        if text[at] == "\u{1b}", at + 1 < text.count, text[at + 1] == "[" {
            let end = text[(at + 2)...].firstIndex { !("0"..."9" ~= $0 || $0 == ";") } ?? text.endIndex
            if end < text.endIndex, isLetter(text[end]) {
                at = end + 1
                continue
            }
        }
        made.append(text[at])
        at += 1
    }
    return made
}

private func isLetter(_ scalar: Unicode.Scalar) -> Bool { "a"..."z" ~= scalar || "A"..."Z" ~= scalar }

/// Characters that show nothing and that nobody means.
private func isControl(_ scalar: Unicode.Scalar) -> Bool {
    switch scalar.value {
    case 0...8, 0xb, 0xe...0x1f, 0x7f, 0x206a...0x206f, 0xfeff, 0xfff9...0xfffc: return true
    default: return false
    }
}

/// Replaces references of HTML. With `wholeOnly` those that end in a semicolon; without it also those of old names that do not (`&amp`, `&eacute`).
private func unescaped(_ text: [Unicode.Scalar], wholeOnly: Bool) -> [Unicode.Scalar] {
    var (made, at): ([Unicode.Scalar], Int) = ([], 0)
    while at < text.count {
        guard text[at] == "&" else {
            made.append(text[at])
            at += 1
            continue
        }
        let isName = { (scalar: Unicode.Scalar) in isLetter(scalar) || "0"..."9" ~= scalar || scalar == "#" }
        let end = text[(at + 1)...].firstIndex { !isName($0) } ?? text.endIndex
        let name = Array(text[(at + 1)..<end])
        let isWhole = end < text.count && text[end] == ";"
        if let character = named(name), isWhole || (name.first == "#" && !wholeOnly) {
            made += character
            at = isWhole ? end + 1 : end
        } else if !wholeOnly, let length = (1...max(name.count, 1)).reversed().first(where: { $0 <= name.count && isOld(Array(name[..<$0])) }) {
            made += named(Array(name[..<length]))!
            at += 1 + length
        } else {
            made.append("&")
            at += 1
        }
    }
    return made
}

/// The character of a name or a number; nil if there is none.
private func named(_ name: [Unicode.Scalar]) -> [Unicode.Scalar]? {
    guard name.first == "#" else { return htmlNames[name.string].flatMap(Unicode.Scalar.init).map { [$0] } }
    let digits = name.dropFirst()
    let isHexadecimal = digits.first == "x" || digits.first == "X"
    guard let code = UInt32((isHexadecimal ? digits.dropFirst() : digits).string, radix: isHexadecimal ? 16 : 10) else { return nil }
    if (0x80...0x9f).contains(code) { return [windows[Int(code) - 0x80]] }
    guard code != 0, let scalar = Unicode.Scalar(code) else { return ["\u{fffd}"] }
    return [scalar]
}

/// Whether a name counts without a semicolon: those of Latin-1.
private func isOld(_ name: [Unicode.Scalar]) -> Bool {
    let name = name.string
    return ["amp", "lt", "gt", "quot", "AMP", "LT", "GT", "QUOT", "COPY", "REG"].contains(name) || (0xa0...0xff).contains(htmlNames[name] ?? 0)
}
