import Foundation

/// What calls compiled functions: Core ML in an app (`S2DiTKit`), `s2ditc` elsewhere (`S2DiTServe`), a recording in a test.
///
/// An engine has a root folder. Artifacts are named by their paths in it. It loads a function when it is first called, if nobody did before, and keeps it until
/// `unload`.
public protocol Engine: AnyObject {
    /// A tensor as the engine passes it from call to call, without a copy if it can.
    associatedtype Value

    /// A tensor for a port; numbers are rounded to its type.
    func value(_ tensor: Tensor, for port: TensorPort) throws -> Value

    /// The numbers of a value.
    func tensor(_ value: Value) throws -> Tensor

    /// Loads a function, so that its first call takes no longer than the others.
    func load(_ call: Call) async throws

    /// Calls a function with the inputs of these names, and returns its outputs.
    func call(_ call: Call, inputs: [String: Value]) async throws -> [String: Value]

    /// What an artifact says of itself.
    func artifact(_ path: String) async throws -> Artifact

    /// Sets the states that artifacts below a folder keep to zeros.
    func resetStates(below folder: String) async throws

    /// Copies the states that one artifact keeps to another one.
    func copyStates(from: String, to: String) async throws

    /// Frees the artifacts below a folder (or the one of that path); the next call loads them again.
    func unload(_ path: String) async
}

/// What is called.
public struct Call: Hashable, Sendable {
    /// The artifact's path.
    public var path: String
    /// The function's name in it; nil for the only one.
    public var function: String?
    /// Whether the function reads or writes states that the artifact keeps.
    public var keepsStates: Bool

    public init(path: String, function: String?, keepsStates: Bool) {
        self.path = path
        self.function = function
        self.keepsStates = keepsStates
    }

    /// Whether the artifact is this one, or lies in this folder. The empty path is the root.
    public func isBelow(_ path: String) -> Bool { path.isEmpty || self.path == path || self.path.hasPrefix(path + "/") }
}

/// What an artifact says of itself.
public struct Artifact: Sendable {
    public var inputs: [TensorPort]
    public var outputs: [TensorPort]
    /// What the compiler wrote into it, under names that start with `s2ditc.`.
    public var metadata: [String: String]

    public init(inputs: [TensorPort], outputs: [TensorPort], metadata: [String: String]) {
        self.inputs = inputs
        self.outputs = outputs
        self.metadata = metadata
    }

    /// The roles of inputs and results.
    public var interface: Interface? {
        guard let text = metadata["s2ditc.interface"] else { return nil }
        return try? JSONDecoder().decode(Interface.self, from: Data(text.utf8))
    }

    /// The only timesteps that it answers; nil if it takes any.
    public var timesteps: [Double]? {
        guard let text = metadata["s2ditc.timesteps"] else { return nil }
        return try? JSONDecoder().decode([Double].self, from: Data(text.utf8))
    }
}

/// Calls functions of a folder by the names of their ports.
struct Caller<E: Engine> {
    let engine: E
    /// The folder of the artifacts in the engine's root; empty for the root.
    let folder: String
    /// Whether artifacts keep states.
    let isNative: Bool
    /// How many of the contract's functions are in each file.
    let functionsOfFile: [String: Int]

    init(engine: E, folder: String, isNative: Bool, functions: [(name: String, function: Function)]) {
        (self.engine, self.folder, self.isNative) = (engine, folder, isNative)
        var counts: [String: Int] = [:]
        for (_, function) in functions {
            for file in function.parts?.map(\.file) ?? [function.file] { counts[file, default: 0] += 1 }
        }
        functionsOfFile = counts
    }

    func path(_ file: String) -> String { folder.isEmpty ? file : "\(folder)/\(file)" }

    private func toCall(_ file: String, _ function: Function, keepsStates: Bool) -> Call {
        let name = functionsOfFile[file, default: 1] > 1 ? function.function : nil
        return Call(path: path(file), function: name, keepsStates: keepsStates && isNative)
    }

    /// Loads a function.
    func load(_ function: Function, keepsStates: Bool) async throws {
        for file in function.parts?.map(\.file) ?? [function.file] { try await engine.load(toCall(file, function, keepsStates: keepsStates)) }
    }

    /// Calls a function. `find` gives a tensor or a value for each input.
    func call(_ function: Function, keepsStates: Bool, find: (TensorPort) throws -> E.Value?) async throws -> [String: E.Value] {
        let whole = PartOfFunction(file: function.file, inputs: function.inputs, outputs: function.outputs)
        var made: [String: E.Value] = [:]
        for part in function.parts ?? [whole] {
            var inputs: [String: E.Value] = [:]
            for port in part.inputs {
                guard let value = try made[port.name] ?? find(port) else {
                    throw HostError("\(path(part.file)): input `\(port.name)`: nothing that this package knows to pass")
                }
                inputs[port.name] = value
            }
            let outputs = try await engine.call(toCall(part.file, function, keepsStates: keepsStates), inputs: inputs)
            for port in part.outputs {
                guard let value = outputs[port.name] else { throw HostError("\(path(part.file)): returns no `\(port.name)`") }
                made[port.name] = value
            }
        }
        return made
    }
}
