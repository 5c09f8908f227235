#if canImport(CoreML)
import CoreML
import Foundation
@_exported import S2DiTHost

/// An engine that asks Core ML.
///
/// A package `NAME.mlpackage` of a folder is loaded from `NAME.mlmodelc` beside it if there is one, which is what an app should ship; else it is compiled
/// once, into the app's caches.
public final class CoreMLEngine: Engine {
    public typealias Value = MLMultiArray

    private let root: URL
    private let units: (String) -> MLComputeUnits
    private var models: [Call: MLModel] = [:]
    /// States that packages keep, by the package's path.
    private var states: [String: MLState] = [:]

    /// - Parameters:
    ///   - folder: The folder in which artifacts are named: that of a pipeline, a kernel or a decoder.
    ///   - units: The engines for a package; without it those that the folder's contract says it was compiled for.
    public init(folder: URL, units: ((String) -> MLComputeUnits)? = nil) {
        root = folder
        self.units = units ?? Self.unitsOfContract(folder)
    }

    /// What a contract calls `ane`, `gpu` or `any`.
    public static func units(for compute: String?) -> MLComputeUnits {
        switch compute {
        case "gpu": return .cpuAndGPU
        case "any": return .all
        default: return .cpuAndNeuralEngine
        }
    }

    private static func unitsOfContract(_ folder: URL) -> (String) -> MLComputeUnits {
        if let decoder = try? DecoderContract.read(folder) { return { _ in units(for: decoder.compute) } }
        guard let assets = try? PipelineContract.read(folder).assets else { return { _ in .cpuAndNeuralEngine } }
        let all = [assets.textEncoder, assets.transformer, assets.decoder].compactMap { $0 }
        return { path in units(for: all.first { path == $0.path || path.hasPrefix($0.path + "/") }?.compute) }
    }

    public func value(_ tensor: Tensor, for port: TensorPort) throws -> MLMultiArray {
        guard tensor.data.count == port.count else { throw HostError("`\(port.name)`: found shape \(tensor.shape), expected \(port.shape)") }
        let array = try MLMultiArray(shape: port.shape.map { NSNumber(value: $0) }, dataType: port.dtype.multiArray)
        array.fill(tensor.data)
        return array
    }

    public func tensor(_ value: MLMultiArray) throws -> Tensor {
        Tensor(shape: value.shape.map(\.intValue), data: try value.numbers())
    }

    public func load(_ call: Call) async throws {
        guard models[call] == nil else { return }
        let configuration = MLModelConfiguration()
        configuration.computeUnits = units(call.path)
        configuration.functionName = call.function
        models[call] = try await MLModel.load(contentsOf: try await compiled(call.path), configuration: configuration)
    }

    public func call(_ call: Call, inputs: [String: MLMultiArray]) async throws -> [String: MLMultiArray] {
        try await load(call)
        guard let model = models[call] else { throw HostError("\(call.path): not loaded") }
        let features = try MLDictionaryFeatureProvider(dictionary: inputs.mapValues { MLFeatureValue(multiArray: $0) })
        let result: any MLFeatureProvider
        if call.keepsStates, !model.modelDescription.stateDescriptionsByName.isEmpty {
            let state = states[call.path] ?? model.makeState()
            states[call.path] = state
            result = try await model.prediction(from: features, using: state)
        } else {
            result = try await model.prediction(from: features)
        }
        var outputs: [String: MLMultiArray] = [:]
        for name in result.featureNames { outputs[name] = result.featureValue(for: name)?.multiArrayValue }
        return outputs
    }

    public func artifact(_ path: String) async throws -> Artifact {
        let call = Call(path: path, function: nil, keepsStates: false)
        try await load(call)
        guard let description = models[call]?.modelDescription else { throw HostError("\(path): not loaded") }
        func ports(_ features: [String: MLFeatureDescription]) -> [TensorPort] {
            features.compactMap { name, feature in
                guard let constraint = feature.multiArrayConstraint, let dtype = DType(constraint.dataType) else { return nil }
                return TensorPort(name: name, dtype: dtype, shape: constraint.shape.map(\.intValue))
            }
        }
        let metadata = description.metadata[.creatorDefinedKey] as? [String: String] ?? [:]
        return Artifact(inputs: ports(description.inputDescriptionsByName), outputs: ports(description.outputDescriptionsByName), metadata: metadata)
    }

    public func resetStates(below folder: String) async throws {
        states = states.filter { path, _ in !Call(path: path, function: nil, keepsStates: true).isBelow(folder) }
    }

    public func copyStates(from: String, to: String) async throws {
        guard let source = states[from] else { throw HostError("\(from): keeps no states") }
        guard let (_, model) = models.first(where: { $0.key.path == to && $0.key.keepsStates }) else { throw HostError("\(to): not loaded") }
        let target = states[to] ?? model.makeState()
        states[to] = target
        for name in model.modelDescription.stateDescriptionsByName.keys {
            let numbers = try source.withMultiArray(for: name) { try $0.numbers() }
            target.withMultiArray(for: name) { $0.fill(numbers) }
        }
    }

    public func unload(_ path: String) async {
        models = models.filter { !$0.key.isBelow(path) }
        states = states.filter { !Call(path: $0.key, function: nil, keepsStates: true).isBelow(path) }
    }

    /// The compiled form of a package: beside it, or in the caches.
    public func compiled(_ path: String) async throws -> URL {
        let package = root.appendingPathComponent(path)
        if package.pathExtension == "mlmodelc" { return package }
        let beside = package.deletingPathExtension().appendingPathExtension("mlmodelc")
        let files = FileManager.default
        if files.fileExists(atPath: beside.path) { return beside }
        let model = package.appendingPathComponent("Data/com.apple.CoreML/model.mlmodel")
        guard let facts = try? files.attributesOfItem(atPath: model.path) else { throw HostError("\(package.path): found neither a package nor \(beside.lastPathComponent)") }
        // Another package of that name has another size or another date.
        let date = (facts[.modificationDate] as? Date)?.timeIntervalSince1970 ?? 0
        let size = facts[.size] as? Int ?? 0
        let name = path.replacingOccurrences(of: "/", with: "-")
        let caches = try files.url(for: .cachesDirectory, in: .userDomainMask, appropriateFor: nil, create: true).appendingPathComponent("S2DiTKit")
        let cached = caches.appendingPathComponent("\(name)-\(size)-\(Int(date)).mlmodelc")
        if files.fileExists(atPath: cached.path) { return cached }
        try files.createDirectory(at: caches, withIntermediateDirectories: true)
        let made = try await MLModel.compileModel(at: package)
        try files.moveItem(at: made, to: cached)
        return cached
    }
}

extension DType {
    fileprivate var multiArray: MLMultiArrayDataType {
        switch self {
        case .f16: return .float16
        case .f32: return .float32
        case .i32: return .int32
        }
    }

    fileprivate init?(_ type: MLMultiArrayDataType) {
        switch type {
        case .float16: self = .f16
        case .float32: self = .f32
        case .int32: self = .i32
        default: return nil
        }
    }
}

extension MLMultiArray {
    /// Where each run of the last dimension begins, in elements: rows of Core ML's arrays may be padded.
    private var runs: [Int] {
        var starts = [0]
        for (extent, stride) in zip(shape, strides).dropLast() {
            starts = starts.flatMap { start in (0..<extent.intValue).map { start + $0 * stride.intValue } }
        }
        return starts
    }

    /// Writes numbers in row-major order, rounded to the array's type.
    fileprivate func fill(_ numbers: [Float]) {
        let (runs, width, step) = (runs, shape.last?.intValue ?? 1, strides.last?.intValue ?? 1)
        let type = dataType
        withUnsafeMutableBytes { bytes, _ in
            var at = 0
            for run in runs {
                for i in 0..<width {
                    let place = run + i * step
                    switch type {
                    case .float16: bytes.storeBytes(of: numbers[at].bitsOfHalf, toByteOffset: place * 2, as: UInt16.self)
                    case .int32: bytes.storeBytes(of: Int32(numbers[at]), toByteOffset: place * 4, as: Int32.self)
                    default: bytes.storeBytes(of: numbers[at], toByteOffset: place * 4, as: Float.self)
                    }
                    at += 1
                }
            }
        }
    }

    /// The numbers in row-major order.
    fileprivate func numbers() throws -> [Float] {
        let (runs, width, step) = (runs, shape.last?.intValue ?? 1, strides.last?.intValue ?? 1)
        guard DType(dataType) != nil else { throw HostError("a result: found a type of elements that is neither float16, float32 nor int32") }
        let type = dataType
        return withUnsafeBytes { bytes in
            var numbers: [Float] = []
            numbers.reserveCapacity(runs.count * width)
            for run in runs {
                for i in 0..<width {
                    let place = run + i * step
                    switch type {
                    case .float16: numbers.append(Float(bitsOfHalf: bytes.loadUnaligned(fromByteOffset: place * 2, as: UInt16.self)))
                    case .int32: numbers.append(Float(bytes.loadUnaligned(fromByteOffset: place * 4, as: Int32.self)))
                    default: numbers.append(bytes.loadUnaligned(fromByteOffset: place * 4, as: Float.self))
                    }
                }
            }
            return numbers
        }
    }
}

extension Float {
    /// The nearest half's bits: by the processor where it can.
    fileprivate var bitsOfHalf: UInt16 {
        #if arch(arm64)
        return Float16(self).bitPattern
        #else
        return halfBits
        #endif
    }

    fileprivate init(bitsOfHalf bits: UInt16) {
        #if arch(arm64)
        self = Float(Float16(bitPattern: bits))
        #else
        self.init(halfBits: bits)
        #endif
    }
}
#endif
