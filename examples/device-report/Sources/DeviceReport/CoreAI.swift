// What a Core AI asset costs on this device: specialisation, loading, calls. Core AI has no interface that says where an op runs.

#if canImport(CoreAI)
import CoreAI
import Foundation

/// The engine that an asset is specialised for first. What that engine lacks runs on another one, without a word.
public enum Preference: String, CaseIterable, Sendable {
    case any
    case neuralEngine = "neural-engine"
    case gpu
    /// The only choice that shuts out the others.
    case cpu
}

@available(macOS 27.0, iOS 27.0, *)
extension Preference {
    var options: SpecializationOptions {
        switch self {
        case .any: return .default
        case .neuralEngine: return SpecializationOptions(preferredComputeUnitKind: .neuralEngine)
        case .gpu: return SpecializationOptions(preferredComputeUnitKind: .gpu)
        case .cpu: return .cpuOnly
        }
    }

    /// As a report says it.
    var computeUnits: String {
        switch self {
        case .any: return "all"
        case .neuralEngine: return "prefer_neural_engine"
        case .gpu: return "prefer_gpu"
        case .cpu: return "cpu_only"
        }
    }
}

public enum AssetError: LocalizedError {
    case input(String, String)

    public var errorDescription: String? {
        switch self {
        case .input(let function, let input):
            return "function `\(function)`, input `\(input)`: found none of float32, float16 and int32 arrays, which calls on zeros are made with"
        }
    }
}

@available(macOS 27.0, iOS 27.0, *)
extension DeviceReport {
    /// Specialises `asset` (an .aimodel, or an .aimodelc that was compiled ahead of time), loads it and calls every function on zeros.
    ///
    /// A specialisation is kept by the system: the first report of an asset has its time, later ones do not, unless `fresh` deletes what is kept.
    public init(asset: URL, preferring preference: Preference = .any, fresh: Bool = false) async throws {
        let (options, cache) = (preference.options, AIModelCache.default)
        if fresh { try cache.deleteEntries(for: asset) }
        var specializeMs: Double?
        if try cache.model(for: asset, options: options) == nil {
            specializeMs = try await Self.milliseconds { try await AIModel.specialize(contentsOf: asset, options: options) }.time
        }
        let (model, loadMs) = try await Self.milliseconds { try await AIModel(contentsOf: asset, options: options) }
        var functions: [Function] = []
        for name in model.functionNames.sorted() {
            guard let function = try model.loadFunction(named: name) else { continue }
            functions.append(Function(name: name, callMs: try await Self.medianCall(of: function, named: name)))
        }
        self.init(model: asset.lastPathComponent, functions: functions, computeUnits: preference.computeUnits)
        self.specializeMs = specializeMs
        self.loadMs = loadMs
    }

    /// The median of twenty calls on zeros, after three that warm up. A function with states of its own is not called.
    private static func medianCall(of function: InferenceFunction, named name: String) async throws -> Double? {
        let descriptor = function.descriptor
        guard descriptor.stateNames.isEmpty else { return nil }
        var inputs: [String: NDArray] = [:]
        for input in descriptor.inputNames {
            guard case .ndArray(let array)? = descriptor.inputDescriptor(of: input), let made = Self.zeros(array) else {
                throw AssetError.input(name, input)
            }
            inputs[input] = made
        }
        var times: [Double] = []
        for call in 0..<23 {
            let start = ContinuousClock.now
            _ = try await function.run(inputs: inputs)
            if call >= 3 { times.append(milliseconds(since: start)) }
        }
        return times.sorted()[times.count / 2]
    }

    private static func zeros(_ array: NDArrayDescriptor) -> NDArray? {
        let count = array.shape.reduce(1, *)
        guard count >= 0 else { return nil }
        switch array.scalarType {
        case .float32: return NDArray(scalars: repeatElement(Float(0), count: count), shape: array.shape)
        #if !((os(macOS) || targetEnvironment(macCatalyst)) && arch(x86_64))
        case .float16: return NDArray(scalars: repeatElement(Float16(0), count: count), shape: array.shape)
        #endif
        case .int32: return NDArray(scalars: repeatElement(Int32(0), count: count), shape: array.shape)
        default: return nil
        }
    }

    private static func milliseconds(_ work: () async throws -> AIModel) async throws -> (model: AIModel, time: Double) {
        let start = ContinuousClock.now
        let model = try await work()
        return (model, milliseconds(since: start))
    }

    private static func milliseconds(since start: ContinuousClock.Instant) -> Double {
        let took = ContinuousClock.now - start
        return Double(took.components.seconds) * 1e3 + Double(took.components.attoseconds) / 1e15
    }
}
#endif
