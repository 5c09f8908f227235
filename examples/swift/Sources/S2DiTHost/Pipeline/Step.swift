import Foundation

/// One network of a pipeline: an artifact, or the packages of a partition.
final class Step<E: Engine> {
    let interface: Interface
    private let engine: E
    private let folder: String
    private let parts: [PartOfFunction]
    private let inputs, outputs: [TensorPort]
    /// The only timesteps that it answers.
    private let timesteps: [Double]?

    /// - Parameter path: The artifact, or the folder of a partition, in the engine's root, which is `root`.
    init(_ path: String, root: URL, engine: E) async throws {
        self.engine = engine
        let metadata: Artifact
        if let (partition, texts) = try Partition.read(root.appendingPathComponent(path)) {
            (folder, parts, inputs, outputs) = (path + "/", partition.parts, partition.inputs, partition.outputs)
            metadata = Artifact(inputs: inputs, outputs: outputs, metadata: texts)
        } else {
            metadata = try await engine.artifact(path)
            (folder, inputs, outputs) = ("", metadata.inputs, metadata.outputs)
            parts = [PartOfFunction(file: path, inputs: metadata.inputs, outputs: metadata.outputs)]
        }
        guard let interface = metadata.interface else { throw HostError("\(path): metadata `s2ditc.interface`: missing, expected the roles of its inputs") }
        self.interface = interface
        timesteps = metadata.timesteps
    }

    /// The names and shapes of the inputs with a role.
    func port(_ role: String) -> TensorPort? {
        guard let name = interface.input(role) else { return nil }
        return inputs.first { $0.name == name }
    }

    /// Calls the network with an input for each role; a shorter one fills its port again and again.
    func call(_ roles: [String: Tensor]) async throws -> [String: Tensor] {
        var values: [String: E.Value] = [:]
        for port in inputs {
            let role = interface.inputs.first { $0.name == port.name }?.role ?? "other"
            guard var tensor = roles[role], !tensor.data.isEmpty, port.count % tensor.data.count == 0 else {
                throw HostError("input `\(port.name)` of shape \(port.shape) with role `\(role)`: nothing that the pipeline has to pass")
            }
            if role == "time", let timesteps { try Self.check(Double(tensor.data[0]), timesteps) }
            let times = port.count / tensor.data.count
            if times > 1 { tensor.data = Array(repeatElement(tensor.data, count: times).joined()) }
            values[port.name] = try engine.value(Tensor(shape: port.shape, data: tensor.data), for: port)
        }
        for part in parts {
            var own: [String: E.Value] = [:]
            for port in part.inputs { own[port.name] = values[port.name] }
            let call = Call(path: folder + part.file, function: nil, keepsStates: false)
            values.merge(try await engine.call(call, inputs: own)) { $1 }
        }
        var results: [String: Tensor] = [:]
        for output in interface.outputs {
            guard let value = values[output.name] else { throw HostError("\(folder)\(parts[0].file): returns no `\(output.name)`") }
            results[output.role] = try engine.tensor(value)
        }
        return results
    }

    /// A network with tables for some timesteps gives nonsense for others.
    private static func check(_ asked: Double, _ listed: [Double]) throws {
        let isListed = { (t: Double) in abs(asked - t) <= 1e-6 * abs(t) || asked == Double(DType.f16.rounded(t)) }
        guard listed.contains(where: isListed) else {
            throw HostError("timestep: found \(asked), expected one of \(listed), which the package was compiled for")
        }
    }
}
