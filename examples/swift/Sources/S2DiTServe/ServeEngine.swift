#if os(Linux) || os(macOS)
import Foundation
import S2DiTHost

/// An engine that asks `s2ditc run --serve`, which runs packages with ONNX Runtime: the same host with the same packages where there is no Core ML. It is
/// for tests and trials, and passes every tensor through files.
public final class ServeEngine: Engine {
    public typealias Value = Tensor

    private let root: URL
    private let program: URL
    private let process = Process()
    private let (requests, answers) = (Pipe(), Pipe())
    private let scratch: URL
    private let fp16: Bool
    private var unread = Data()
    private var ports: [Call: [TensorPort]] = [:]

    /// - Parameters:
    ///   - root: The folder in which artifacts are named.
    ///   - program: The `s2ditc` binary.
    ///   - fp16: Whether results are rounded to fp16, as the Neural Engine stores them.
    public init(root: URL, program: URL, fp16: Bool = false) throws {
        (self.root, self.program, self.fp16) = (root, program, fp16)
        scratch = FileManager.default.temporaryDirectory.appendingPathComponent("s2dit-\(UUID().uuidString)")
        try FileManager.default.createDirectory(at: scratch, withIntermediateDirectories: true)
        process.executableURL = program
        process.arguments = ["run", "--serve", "-q"]
        process.standardInput = requests
        process.standardOutput = answers
        try process.run()
    }

    deinit {
        try? requests.fileHandleForWriting.close()
        process.waitUntilExit()
        try? FileManager.default.removeItem(at: scratch)
    }

    public func value(_ tensor: Tensor, for port: TensorPort) throws -> Tensor {
        guard tensor.data.count == port.count else { throw HostError("`\(port.name)`: found shape \(tensor.shape), expected \(port.shape)") }
        return Tensor(shape: port.shape, data: port.dtype == .f16 ? tensor.data.map { DType.f16.rounded(Double($0)) } : tensor.data)
    }

    public func tensor(_ value: Tensor) throws -> Tensor { value }

    public func load(_ call: Call) async throws {}

    public func call(_ call: Call, inputs: [String: Tensor]) async throws -> [String: Tensor] {
        let (from, to) = (scratch.appendingPathComponent("in.safetensors"), scratch.appendingPathComponent("out.safetensors"))
        let types = Dictionary(try inputPorts(call).map { ($0.name, $0.dtype) }, uniquingKeysWith: { $1 })
        try Safetensors.write(Dictionary(uniqueKeysWithValues: inputs.map { ($0, (tensor: $1, dtype: types[$0] ?? .f32)) }), to: from)
        var request: [String: Any] = ["model": root.appendingPathComponent(call.path).path, "inputs": from.path, "outputs": to.path, "fp16": fp16]
        request["function"] = call.function
        if call.keepsStates { request["states"] = states(call.path).path }
        _ = try ask(request)
        return try Safetensors.read(to)
    }

    public func artifact(_ path: String) async throws -> Artifact {
        let described = try run(["run", "--json", root.appendingPathComponent(path).path])
        let inspected = try run(["inspect", "--json", root.appendingPathComponent(path).path])
        var metadata: [String: String] = [:]
        for (key, value) in inspected["metadata"]?.object ?? [:] { metadata[String(decoding: key, as: UTF8.self)] = value.text }
        return Artifact(inputs: Self.ports(described["inputs"]), outputs: Self.ports(described["outputs"]), metadata: metadata)
    }

    public func resetStates(below folder: String) async throws {
        for file in try FileManager.default.contentsOfDirectory(at: scratch, includingPropertiesForKeys: nil)
        where file.lastPathComponent.hasPrefix("states-\(folder.replacingOccurrences(of: "/", with: "-"))") {
            try FileManager.default.removeItem(at: file)
        }
    }

    public func copyStates(from: String, to: String) async throws {
        try? FileManager.default.removeItem(at: states(to))
        try FileManager.default.copyItem(at: states(from), to: states(to))
    }

    public func unload(_ path: String) async { _ = try? ask(["close": true]) }

    private func states(_ path: String) -> URL {
        scratch.appendingPathComponent("states-\(path.replacingOccurrences(of: "/", with: "-")).safetensors")
    }

    private func inputPorts(_ call: Call) throws -> [TensorPort] {
        let key = Call(path: call.path, function: call.function, keepsStates: false)
        if let known = ports[key] { return known }
        let function = call.function.map { ["--function", $0] } ?? []
        let made = Self.ports(try run(["run", "--json", root.appendingPathComponent(call.path).path] + function)["inputs"])
        ports[key] = made
        return made
    }

    private static func ports(_ json: JSON?) -> [TensorPort] {
        (json?.array ?? []).compactMap { port in
            guard let name = port["name"]?.text, let shape = port["shape"]?.array?.compactMap(\.integer) else { return nil }
            return TensorPort(name: name, dtype: DType(rawValue: port["dtype"]?.text ?? "") ?? .f32, shape: shape)
        }
    }

    /// What a command of `s2ditc` prints as JSON.
    private func run(_ arguments: [String]) throws -> JSON {
        let (command, output) = (Process(), Pipe())
        command.executableURL = program
        command.arguments = arguments
        command.standardOutput = output
        try command.run()
        let text = output.fileHandleForReading.readDataToEndOfFile()
        command.waitUntilExit()
        guard command.terminationStatus == 0 else { throw HostError("s2ditc \(arguments.joined(separator: " ")): ended with \(command.terminationStatus)") }
        return try JSON(Array(text))
    }

    private func ask(_ request: [String: Any]) throws -> JSON {
        requests.fileHandleForWriting.write(try JSONSerialization.data(withJSONObject: request) + Data("\n".utf8))
        while true {
            while let end = unread.firstIndex(of: 0x0a) {
                let line = Array(unread[unread.startIndex..<end])
                unread = Data(unread[(end + 1)...])
                guard let answer = try? JSON(line), answer.object != nil else { continue }
                if let error = answer["error"]?.text { throw HostError(error) }
                return answer
            }
            let more = answers.fileHandleForReading.availableData
            guard !more.isEmpty else { throw HostError("s2ditc run --serve: ended") }
            unread += more
        }
    }
}
#endif
