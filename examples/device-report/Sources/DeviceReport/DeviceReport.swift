// Where Core ML places each op of a model on this device, as `s2ditc lint --device-report` reads it. CoreAI.swift is for assets of Core AI.

import Foundation

#if canImport(CoreML)
import CoreML
#endif

public struct DeviceReport: Codable {
    public struct Function: Codable {
        public var name: String
        public var operations: [Operation]
        /// Median time of a call in milliseconds, if calls were timed.
        public var callMs: Double?

        public init(name: String, operations: [Operation] = [], callMs: Double? = nil) {
            self.name = name
            self.operations = operations
            self.callMs = callMs
        }
    }

    public struct Operation: Codable {
        /// Name of the first output; ops without one are left out.
        public var name: String
        public var type: String
        /// Absent for what the plan does not place, such as constants.
        public var preferred: String?
        public var supported: [String]
        /// Share of the whole model's work, 0 to 1.
        public var cost: Double?
    }

    public var format = "s2ditc-device-report"
    public var version = 1
    public var model: String
    public var device: String
    public var os: String
    public var computeUnits: String
    public var functions: [Function]
    /// Time in milliseconds of a first specialisation, if it was one, and of a load after it: assets of Core AI.
    public var specializeMs: Double?
    public var loadMs: Double?

    /// A report of times alone, of a device without Core ML or of a program that measured them itself.
    public init(model: String, functions: [Function], computeUnits: String) {
        self.model = model
        self.functions = functions
        self.computeUnits = computeUnits
        device = Self.hardware
        os = ProcessInfo.processInfo.operatingSystemVersionString
    }

    public func json() throws -> Data {
        let encoder = JSONEncoder()
        encoder.keyEncodingStrategy = .convertToSnakeCase
        encoder.outputFormatting = [.prettyPrinted, .sortedKeys]
        return try encoder.encode(self)
    }

    /// Such as `iPhone17,1` or `Mac15,3`.
    private static var hardware: String {
        #if os(macOS)
        let key = "hw.model"
        #elseif canImport(Darwin)
        let key = "hw.machine"
        #endif
        #if canImport(Darwin)
        var size = 0
        guard sysctlbyname(key, nil, &size, nil, 0) == 0, size > 0 else { return "unknown" }
        var bytes = [CChar](repeating: 0, count: size)
        guard sysctlbyname(key, &bytes, &size, nil, 0) == 0 else { return "unknown" }
        return String(cString: bytes)
        #else
        return "unknown"
        #endif
    }
}

#if canImport(CoreML)
extension DeviceReport {
    /// Compiles `model` (an .mlpackage, or an .mlmodelc that Xcode made) and asks for the compute plan of every function. With `times`, each
    /// function is called as well.
    public init(model: URL, times: Bool = false) async throws {
        let isCompiled = model.pathExtension == "mlmodelc"
        let compiled = isCompiled ? model : try await MLModel.compileModel(at: model)
        defer { if !isCompiled { try? FileManager.default.removeItem(at: compiled) } }

        let structure = try await MLModelStructure.load(contentsOf: compiled)
        guard case .program(let program) = structure else { throw CocoaError(.featureUnsupported) }
        let names = program.functions.keys.sorted()
        var functions: [Function] = []
        for name in names {
            let configuration = MLModelConfiguration()
            configuration.computeUnits = .cpuAndNeuralEngine
            if names.count > 1 { configuration.functionName = name }
            let plan = try await MLComputePlan.load(contentsOf: compiled, configuration: configuration)
            guard case .program(let planned) = plan.modelStructure, let function = planned.functions[name] else { continue }
            var operations: [Operation] = []
            Self.add(function.block, of: plan, to: &operations)
            let callMs = times ? try await Self.medianCall(of: compiled, configuration) : nil
            functions.append(Function(name: name, operations: operations, callMs: callMs))
        }
        self.init(model: model.lastPathComponent, functions: functions, computeUnits: "cpu_and_neural_engine")
    }

    private static func add(
        _ block: MLModelStructure.Program.Block, of plan: MLComputePlan, to operations: inout [Operation]
    ) {
        for operation in block.operations where operation.operatorName != "const" {
            if let output = operation.outputs.first {
                let usage = plan.deviceUsage(for: operation)
                operations.append(Operation(
                    name: output.name,
                    type: operation.operatorName,
                    preferred: usage.map { name(of: $0.preferred) },
                    supported: usage.map { $0.supported.map(name(of:)) } ?? [],
                    cost: plan.estimatedCost(of: operation)?.weight
                ))
            }
            for inner in operation.blocks { add(inner, of: plan, to: &operations) }
        }
    }

    /// The median of twenty calls on zeros, after three that warm up.
    private static func medianCall(of compiled: URL, _ configuration: MLModelConfiguration) async throws -> Double {
        let model = try await MLModel.load(contentsOf: compiled, configuration: configuration)
        var inputs: [String: MLFeatureValue] = [:]
        for (name, description) in model.modelDescription.inputDescriptionsByName {
            guard let constraint = description.multiArrayConstraint else { continue }
            let array = try MLMultiArray(shape: constraint.shape, dataType: constraint.dataType)
            for i in 0..<array.count { array[i] = 0 }
            inputs[name] = MLFeatureValue(multiArray: array)
        }
        let provider = try MLDictionaryFeatureProvider(dictionary: inputs)
        let state = model.modelDescription.stateDescriptionsByName.isEmpty ? nil : model.makeState()
        var times: [Double] = []
        for call in 0..<23 {
            let start = ContinuousClock.now
            if let state {
                _ = try await model.prediction(from: provider, using: state)
            } else {
                _ = try await model.prediction(from: provider)
            }
            let took = ContinuousClock.now - start
            if call >= 3 { times.append(Double(took.components.seconds) * 1e3 + Double(took.components.attoseconds) / 1e15) }
        }
        return times.sorted()[times.count / 2]
    }

    private static func name(of device: MLComputeDevice) -> String {
        switch device {
        case .cpu: return "cpu"
        case .gpu: return "gpu"
        case .neuralEngine: return "neural_engine"
        @unknown default: return "cpu"
        }
    }
}
#endif
