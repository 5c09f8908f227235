import Foundation
import XCTest

@testable import S2DiTHost

/// Which functions are called with which inputs, and which states go in and out, in every policy.
final class StatesTests: XCTestCase {
    /// An engine that answers with numbers that tell where they are from: the count of the call.
    final class Recorder: Engine {
        var calls: [(call: Call, inputs: [String: Tensor])] = []
        var events: [String] = []
        let outputs: [Call: [TensorPort]]

        init(_ functions: [(name: String, function: Function)], states: StatesPolicy) {
            let shared = Set(functions.map(\.function.file)).count == 1
            var outputs: [Call: [TensorPort]] = [:]
            for (name, function) in functions {
                let keeps = name != "prompt" && states == .native
                outputs[Call(path: "k/\(function.file)", function: shared ? function.function : nil, keepsStates: keeps)] = function.outputs
            }
            self.outputs = outputs
        }

        func value(_ tensor: Tensor, for port: TensorPort) throws -> Tensor {
            guard tensor.data.count == port.count else { throw HostError("\(port.name): found \(tensor.shape), expected \(port.shape)") }
            return tensor
        }

        func tensor(_ value: Tensor) throws -> Tensor { value }

        func load(_ call: Call) async throws { events.append("load") }

        func call(_ call: Call, inputs: [String: Tensor]) async throws -> [String: Tensor] {
            guard let ports = outputs[call] else { throw HostError("\(call): nothing like it") }
            calls.append((call, inputs))
            events.append("\(call.function ?? call.path)")
            let number = Float(calls.count)
            return Dictionary(uniqueKeysWithValues: ports.map { ($0.name, Tensor(shape: $0.shape, data: Array(repeating: number, count: $0.count))) })
        }

        func artifact(_ path: String) async throws -> Artifact { throw HostError("not asked for") }
        func resetStates(below folder: String) async throws { events.append("reset \(folder)") }
        func copyStates(from: String, to: String) async throws { events.append("copy \(from) \(to)") }
        func unload(_ path: String) async { events.append("unload \(path)") }
    }

    private func stream(_ name: String, chunks: Int) async throws -> (Recorder, KernelContract) {
        let contract = try kernel(name)
        let recorder = Recorder(contract.all, states: contract.statesPolicy)
        let session = try StreamSession(contract: contract, folder: "k", engine: recorder)
        try await session.setPrompt(Noise.prompt(seed: 1, shape: contract.text.shape))
        var made = 0
        for try await chunk in session.stream(seed: 3, chunks: chunks) {
            XCTAssertEqual(chunk.shape, contract.chunk.shape)
            made += 1
        }
        XCTAssertEqual(made, chunks)
        for (call, inputs) in recorder.calls {
            let ports = contract.all.first { "k/\($0.function.file)" == call.path && (call.function == nil || call.function == $0.function.function) }!.function.inputs
            XCTAssertEqual(Set(inputs.keys), Set(ports.map(\.name)))
        }
        return (recorder, contract)
    }

    func testStatesAreInputsAndOutputsOfASharedPackage() async throws {
        let (recorder, contract) = try await stream("stream_tiny", chunks: 2)
        XCTAssertEqual(recorder.events, ["prompt"] + ["denoise", "denoise", "denoise", "denoise", "commit", "denoise", "denoise", "denoise", "denoise", "commit"])
        let state = contract.states[0].name
        // The first chunk's calls see zeros, and those of the second what the sixth call returned.
        for (number, call) in recorder.calls.enumerated().dropFirst() {
            guard let value = call.inputs[state] else { continue }
            XCTAssertEqual(value.data.first, number < 6 ? 0 : 6, "call \(number)")
        }
        XCTAssertEqual(recorder.calls[7].inputs["prompt_0"]?.data.first, 1)
        XCTAssertEqual(recorder.calls[1].inputs["timestep"]?.data, [1000])
    }

    func testSeparatePackagesAreCalledByTheirFiles() async throws {
        let (recorder, contract) = try await stream("stream_sink", chunks: 1)
        XCTAssertEqual(contract.functionsPolicy, "separate")
        XCTAssertEqual(recorder.events, ["k/prompt.mlpackage", "k/denoise.mlpackage", "k/denoise.mlpackage", "k/commit.mlpackage"])
    }

    func testNativeStatesStayInASharedPackage() async throws {
        let (recorder, _) = try await stream("stream_last_step", chunks: 1)
        XCTAssertEqual(recorder.events, ["prompt", "reset k", "denoise", "denoise", "denoise", "last_step"])
    }

    func testNativeStatesOfSeparatePackagesAreCopied() async throws {
        let (recorder, _) = try await stream("stream_last_sink", chunks: 2)
        let chunk = ["k/denoise.mlpackage", "k/last_step.mlpackage", "copy k/last_step.mlpackage k/denoise.mlpackage"]
        XCTAssertEqual(recorder.events, ["k/prompt.mlpackage", "reset k"] + chunk + chunk)
    }

    func testATimedEngineLoadsOnceAndCountsCalls() async throws {
        let contract = try kernel("stream_tiny")
        let timed = TimedEngine(Recorder(contract.all, states: .io))
        let session = try StreamSession(contract: contract, folder: "k", engine: timed)
        try await session.load()
        XCTAssertEqual(timed.base.events, ["load", "load", "load"])
        try await session.setPrompt(.zeros(contract.text.shape))
        _ = try await session.nextChunk(Noise.chunk(0, seed: 0, contract: contract))
        await timed.unload("k")
        _ = try await session.nextChunk(Noise.chunk(1, seed: 0, contract: contract))
        XCTAssertEqual(timed.base.events.filter { $0 == "load" }.count, 5)
        let denoise = timed.times.first { $0.key.function == "denoise" }!.value
        XCTAssertEqual([denoise.loads.count, denoise.calls.count], [2, 8])
        XCTAssertEqual(denoise.median, denoise.calls.dropFirst().sorted()[3])
    }

    /// Decodes five latent frames in chunks of two, and gives the engine and the frames that came.
    private func decode(_ name: String) async throws -> (Recorder, DecoderContract, [Int]) {
        let contract = try DecoderContract.read(written(vector(name).written, as: "contract.json", for: self))
        let recorder = Recorder([("first", contract.functions.first), ("next", contract.functions.next)], states: contract.statesPolicy)
        let session = DecodeSession(contract: contract, folder: "k", engine: recorder)
        var frames: [Int] = []
        for try await made in session.frames(of: .zeros([1, 4, 5, 3, 4])) { frames.append(made.shape[2]) }
        return (recorder, contract, frames)
    }

    func testADecoderStartsWithFirst() async throws {
        let (recorder, contract, frames) = try await decode("decoder_io")
        // The last chunk has one frame.
        XCTAssertEqual(frames, [5, 8, 4])
        XCTAssertEqual(recorder.events, ["first", "next", "next"])
        for state in contract.states { XCTAssertEqual(recorder.calls[2].inputs[state.name]?.data.first, 2) }
    }

    func testNativeStatesOfADecoderAreCopiedOnce() async throws {
        let (recorder, _, frames) = try await decode("decoder_native")
        XCTAssertEqual(frames, [5, 8, 4])
        let copy = ["load", "copy k/first.mlpackage k/next.mlpackage"]
        XCTAssertEqual(recorder.events.filter { $0 != "reset k" }, ["k/first.mlpackage"] + copy + ["k/next.mlpackage", "k/next.mlpackage"])
    }

    func testAStreamThatFailsIsWhereItWas() async throws {
        let contract = try kernel("stream_tiny")
        let recorder = Recorder(contract.all, states: .io)
        let session = try StreamSession(contract: contract, folder: "k", engine: recorder)
        let noise = Noise.chunk(0, seed: 0, contract: contract)
        await XCTAssertThrows("the stream has no prompt") { _ = try await session.nextChunk(noise) }
        await XCTAssertThrows("found shape [1, 2], expected finite numbers of shape [1, 8, 24]") { try await session.setPrompt(.zeros([1, 2])) }
        try await session.setPrompt(.zeros(contract.text.shape))
        await XCTAssertThrows("found 3 tensors, expected 4") { _ = try await session.nextChunk(Array(noise.dropLast())) }
        XCTAssertEqual(session.chunks, 0)
    }

    private func XCTAssertThrows(_ part: String, _ body: () async throws -> Void) async {
        do {
            try await body()
            XCTFail("expected an error with \(part)")
        } catch { XCTAssertTrue("\(error)".contains(part), "\(error)") }
    }
}
