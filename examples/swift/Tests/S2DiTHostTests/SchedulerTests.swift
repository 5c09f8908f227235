import Foundation
import XCTest

@testable import S2DiTHost

/// Schedulers of clips, against what diffusers computes: the goldens of `examples/reference/scheduler_goldens.py`.
final class SchedulerTests: XCTestCase {
    func testSchedulersAreThoseOfDiffusers() throws {
        let folder = repository.appendingPathComponent("tests/goldens/schedulers")
        guard let files = try? FileManager.default.contentsOfDirectory(at: folder, includingPropertiesForKeys: nil) else {
            throw XCTSkip("\(folder.path): there are no goldens")
        }
        var count = 0
        for file in files.sorted(by: { $0.path < $1.path }) where file.pathExtension == "json" {
            let golden = try JSON(file: file)
            let name = golden["config"]!["_class_name"]!.text!
            guard ["FlowMatchEulerDiscreteScheduler", "UniPCMultistepScheduler", "DPMSolverMultistepScheduler"].contains(name) else { continue }
            var config: [String: JSON] = [:]
            for (key, value) in golden["config"]!.object! { config[String(decoding: key, as: UTF8.self)] = value }
            for about in golden["cases"]!.array! {
                let scheduler = try scheduler(class: name, config: config, spacing: about["given"]?.flag == true ? .linear : .scheduler)
                let place = "\(file.lastPathComponent), \(about["steps"]!) steps"
                let levels = try scheduler.levels(steps: about["steps"]!.integer!, places: about["tokens"]?.integer ?? 1)
                let numbers = { (json: JSON?) in json!.array!.map { $0.number! } }
                for (own, wanted) in [(levels.sigmas, numbers(about["sigmas"])), (levels.timesteps, numbers(about["timesteps"]))] {
                    XCTAssertEqual(own.count, wanted.count, place)
                    for (a, b) in zip(own, wanted) { XCTAssertEqual(a, b, accuracy: 1e-5 * max(1, abs(b)), place) }
                }
                let run = scheduler.begin(levels)
                let samples = about["samples"]!.array!.map { numbers($0) }
                var x = samples[0]
                for (velocity, wanted) in zip(about["velocities"]!.array!, samples.dropFirst()) {
                    run.step(&x, velocity: numbers(velocity))
                    for (a, b) in zip(x, wanted) { XCTAssertEqual(a, b, accuracy: 1e-5 * max(1, abs(b)), place) }
                }
                count += 1
            }
        }
        XCTAssertGreaterThan(count, 10)
    }

    func testAnExactVelocityGivesTheDataBack() async throws {
        let data: [Double] = [0.25, -1.5]
        let noise = Tensor(shape: [2], data: [1, 2])
        for (name, config) in [
            ("FlowMatchEulerDiscreteScheduler", ["shift": JSON.number(3)]),
            ("UniPCMultistepScheduler", ["flow_shift": .number(3), "use_flow_sigmas": .bool(true), "prediction_type": .string("flow_prediction"), "_class_name": .null]),
        ] {
            let scheduler = try scheduler(class: name, config: config, spacing: .scheduler)
            let levels = try scheduler.levels(steps: 8, places: 1)
            let clean = try await clip(scheduler, levels, noise: noise) { x, _, step in
                zip(x.data, data).map { (Double($0) - $1) / levels.sigmas[step] }
            }
            for (a, b) in zip(clean.data, data) { XCTAssertEqual(Double(a), b, accuracy: 1e-5, name) }
        }
    }

    func testWhatIsNotSupportedIsNamed() {
        func told(_ name: String, _ config: [String: JSON]) -> String {
            do {
                _ = try scheduler(class: name, config: config, spacing: .scheduler).levels(steps: 4, places: 1)
                return "nothing"
            } catch { return "\(error)" }
        }
        XCTAssertTrue(told("DDIMScheduler", [:]).contains("found DDIMScheduler"))
        XCTAssertTrue(told("UniPCMultistepScheduler", [:]).contains("prediction_type: found \"epsilon\", expected \"flow_prediction\""))
        XCTAssertTrue(told("FlowMatchEulerDiscreteScheduler", ["shift": .string("3")]).contains("shift: found \"3\", expected a number"))
        XCTAssertTrue(told("FlowMatchEulerDiscreteScheduler", ["sigma": .null]).contains("sigma: found a field that is unknown"))
        XCTAssertTrue(told("FlowMatchEulerDiscreteScheduler", ["use_dynamic_shifting": .bool(true)]).contains("expected false"))
    }

    func testGuidanceExtrapolates() {
        let (p, n) = (Tensor(shape: [1], data: [2]), Tensor(shape: [1], data: [1]))
        XCTAssertEqual(guided(p, n, by: 3), [4])
        XCTAssertEqual(guided(p, nil, by: 3), [2])
    }
}
