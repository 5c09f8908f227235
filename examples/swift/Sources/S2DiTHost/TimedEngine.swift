import Foundation

/// An engine that measures another one: how long each function took to load, and each of its calls.
public final class TimedEngine<Base: Engine>: Engine {
    public typealias Value = Base.Value

    /// Seconds.
    public struct Times: Sendable {
        /// Of each time that the function was loaded.
        public internal(set) var loads: [Double] = []
        /// Of each call.
        public internal(set) var calls: [Double] = []

        /// The median of the calls, the first one left out if there are more.
        public var median: Double? {
            let warm = (calls.count > 1 ? Array(calls.dropFirst()) : calls).sorted()
            return warm.isEmpty ? nil : warm[warm.count / 2]
        }
    }

    public let base: Base
    /// What was measured.
    public private(set) var times: [Call: Times] = [:]
    private var loaded: Set<Call> = []

    public init(_ base: Base) { self.base = base }

    public func load(_ call: Call) async throws {
        guard loaded.insert(call).inserted else { return }
        let start = DispatchTime.now().uptimeNanoseconds
        try await base.load(call)
        times[call, default: Times()].loads.append(Self.seconds(since: start))
    }

    public func call(_ call: Call, inputs: [String: Value]) async throws -> [String: Value] {
        try await load(call)
        let start = DispatchTime.now().uptimeNanoseconds
        let outputs = try await base.call(call, inputs: inputs)
        times[call, default: Times()].calls.append(Self.seconds(since: start))
        return outputs
    }

    public func unload(_ path: String) async {
        loaded = loaded.filter { !$0.isBelow(path) }
        await base.unload(path)
    }

    public func value(_ tensor: Tensor, for port: TensorPort) throws -> Value { try base.value(tensor, for: port) }
    public func tensor(_ value: Value) throws -> Tensor { try base.tensor(value) }
    public func artifact(_ path: String) async throws -> Artifact { try await base.artifact(path) }
    public func resetStates(below folder: String) async throws { try await base.resetStates(below: folder) }
    public func copyStates(from: String, to: String) async throws { try await base.copyStates(from: from, to: to) }

    private static func seconds(since start: UInt64) -> Double { Double(DispatchTime.now().uptimeNanoseconds - start) / 1e9 }
}
