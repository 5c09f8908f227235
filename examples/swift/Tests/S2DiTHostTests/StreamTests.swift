import Foundation
import XCTest

@testable import S2DiTHost

/// What our Rust computes, number by number.
final class StreamTests: XCTestCase {
    func testNoiseIsThatOfRust() throws {
        for about in try vector("noise")["cases"]!.array! {
            let number = { UInt64(about[$0]!.text!)! }
            let made = Noise.tensor(seed: number("seed"), index: number("index"), shape: [about["count"]!.integer!])
            XCTAssertEqual(Array(made.data.prefix(16)), about["first"]!.floats)
            let hash = made.data.reduce(UInt64(0)) { $0 &* 31 &+ UInt64($1.bitPattern) }
            XCTAssertEqual(hash, number("hash"), "seed \(number("seed"))")
        }
    }

    func testHostInputsAreThoseOfRust() throws {
        var kinds: Set<String> = []
        for name in Self.kernels {
            let contract = try kernel(name)
            kinds.formUnion(contract.hostInputs.map(\.kind))
            for about in try vector(name)["host_inputs"]!.array! {
                let chunks = UInt64(about["chunks"]!.integer!)
                var made = try HostInputs.of(contract.functions.denoise, contract: contract, chunks: chunks)
                made.merge(try HostInputs.of(contract.writer, contract: contract, chunks: chunks)) { $1 }
                let expected = about["inputs"]!.object!
                XCTAssertEqual(Set(made.keys), Set(expected.keys.map { String(decoding: $0, as: UTF8.self) }))
                for (input, tensor) in made {
                    XCTAssertEqual(tensor.data, expected[Array(input.utf8)]!.floats, "\(name), chunk \(chunks): \(input)")
                }
            }
        }
        XCTAssertEqual(kinds, ["rope", "window_mask", "sink_mask", "past_weight", "new_weight"])
    }

    func testChunksAreThoseOfRust() async throws {
        for name in Self.kernels {
            let contract = try kernel(name)
            let sample = try vector(name)["sample"]!
            let noise = Noise.chunk(UInt64(sample["chunk"]!.integer!), seed: UInt64(sample["seed"]!.integer!), contract: contract)
            let clean = try await contract.sampler.sample(noise) { x, timestep, _ in
                Tensor(shape: x.shape, data: x.data.map { Float(0.5 * Double($0) - timestep / 1000) })
            }
            XCTAssertEqual(clean.data, sample["clean"]!.floats, name)
        }
    }

    func testHalvesAreRoundedAsTheirBitsSay() {
        for bits in UInt16.min...UInt16.max {
            let x = Float(halfBits: bits)
            if x.isNaN { continue }
            XCTAssertEqual(x.halfBits, bits)
            XCTAssertEqual(DType.f16.rounded(Double(x)), x)
        }
        for (x, half) in [(65519.0, Float(65504)), (65520, .infinity), (-1e9, -.infinity), (2049, 2048), (2051, 2052), (0x1p-25, 0), (0x1.8p-24, 0x1p-23)] {
            XCTAssertEqual(DType.f16.rounded(x), half, "\(x)")
        }
    }

    func testWhatIsWrongWithAContractIsNamed() throws {
        let text = try vector("stream_tiny")["contract"]!.written
        func read(_ old: String, _ new: String) throws -> String {
            XCTAssertTrue(text.contains(old), old)
            let folder = try written(text.replacingOccurrences(of: old, with: new), as: "contract.json", for: self)
            do {
                _ = try KernelContract.read(folder)
                return "nothing"
            } catch { return "\(error)" }
        }
        for (old, new, told) in [
            ("\"s2dit-kernel\"", "\"other\"", "field `format`: found other, expected s2dit-kernel"),
            ("\"version\":1", "\"version\":2", "field `version`: found 2, expected 1"),
            ("\"window_frames\":", "\"window\":", "field `windowFrames`: missing"),
            ("\"file\":\"kernel.mlpackage\"", "\"file\":\"../k.mlpackage\"", "found file ../k.mlpackage, expected a name in the folder"),
            ("\"commit\":{", "\"other\":{", "field `functions.commit`: missing"),
            ("\"sigmas\":[1,", "\"sigmas\":[0.5,", "field `sampler`: expected"),
            ("\"past_weight\",", "\"weight\",", "nothing"),
            ("\"kind\":\"past_weight\"", "\"kind\":\"weight\"", "found kind weight, which this package does not know"),
            ("{", "", "not"),
        ] where new != "\"weight\"," {
            let found = try read(old, new)
            XCTAssertTrue(found.contains(told), found)
        }
    }

    func testAContractOfADecoderIsRead() throws {
        let folder = try written(vector("decoder_io").written, as: "contract.json", for: self)
        let contract = try DecoderContract.read(folder)
        XCTAssertEqual([contract.chunk.frames, contract.video.firstFrames, contract.video.nextFrames, contract.video.rows], [2, 5, 8, 24])
        XCTAssertEqual(contract.latentName, "latent")
        XCTAssertEqual(contract.videoName, "video")
    }
}
