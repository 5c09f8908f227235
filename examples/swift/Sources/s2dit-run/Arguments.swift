import Foundation
import S2DiTHost

let usage = """
    usage: s2dit-run FOLDER -o OUT [options]

    Runs a folder that `s2ditc compile` wrote, times every function, and writes what it makes.
      a pipeline   --prompt TEXT [--negative TEXT] [--steps N] [--guidance G]; OUT is a folder of pictures, or an .mp4 on Apple's systems
      a kernel     --prompt-file FILE (safetensors with `text`, and `text_mask` for a kernel that takes it) or --prompt-seed N; OUT is a safetensors file with stream.latents
      a decoder    --latents FILE (safetensors with `latent` or stream.latents); OUT as of a pipeline

      --seed N         seed of the noise [0]
      --chunks N       chunks of a stream [1]
      --noise FILE     recorded noise: a safetensors file with stream.noise of a kernel, or `noise` of a pipeline's clip
      --keep           keep every part of a pipeline in memory
      --report FOLDER  write a device report of each package, as `s2ditc lint --device-report` and `s2ditc estimate --fit` read it
      --s2ditc PATH    run packages with this s2ditc instead of Core ML [$S2DITC]
      --fp16           with it: round results to fp16, as the Neural Engine stores them

    """

/// The command line.
struct Arguments {
    var folder: URL
    var out: URL
    private var values: [String: String] = [:]
    private var flags: Set<String> = []

    static let withValue = [
        "--prompt", "--negative", "--steps", "--guidance", "--prompt-file", "--prompt-seed", "--latents", "--seed", "--chunks", "--noise", "--report", "--s2ditc",
    ]
    static let plain = ["--keep", "--fp16"]

    init(_ words: [String]) throws {
        var (folder, out): (String?, String?) = (nil, nil)
        var rest = words[...]
        while let word = rest.popFirst() {
            switch word {
            case _ where word == "-o" || Self.withValue.contains(word):
                guard let value = rest.popFirst() else { throw HostError("\(word): found nothing behind it, expected a value") }
                if word == "-o" { out = value } else { values[word] = value }
            case _ where Self.plain.contains(word): flags.insert(word)
            case _ where word.hasPrefix("-"): throw HostError("found \(word), which s2dit-run does not know: see s2dit-run --help")
            default:
                guard folder == nil else { throw HostError("found \(word), expected one folder") }
                folder = word
            }
        }
        guard let folder, let out else { throw HostError("expected a folder and -o OUT: see s2dit-run --help") }
        (self.folder, self.out) = (URL(fileURLWithPath: folder), URL(fileURLWithPath: out))
    }

    func text(_ name: String) -> String? { values[name] }

    func number<N: LosslessStringConvertible>(_ name: String, _ type: N.Type) throws -> N? {
        guard let text = values[name] else { return nil }
        guard let number = N(text) else { throw HostError("\(name): found \(text), expected a number") }
        return number
    }

    func has(_ name: String) -> Bool { flags.contains(name) }

    func tensors(_ name: String) throws -> [String: Tensor]? { try values[name].map { try Safetensors.read(URL(fileURLWithPath: $0)) } }
}
