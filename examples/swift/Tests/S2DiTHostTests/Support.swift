import Foundation
import XCTest

@testable import S2DiTHost

/// The folder of a file of this package.
private let tests = URL(fileURLWithPath: #filePath).deletingLastPathComponent()

/// The repository.
let repository = tests.appendingPathComponent("../../../..").standardizedFileURL

/// A vector that `cargo test -p s2ditc --test packages swift` writes and keeps current.
func vector(_ name: String) throws -> JSON { try JSON(file: tests.appendingPathComponent("Vectors/\(name).json")) }

/// A file in a folder of its own, which the test takes away.
func written(_ text: String, as name: String, for test: XCTestCase) throws -> URL {
    let folder = FileManager.default.temporaryDirectory.appendingPathComponent("s2dit-test-\(UUID().uuidString)")
    try FileManager.default.createDirectory(at: folder, withIntermediateDirectories: true)
    test.addTeardownBlock { try? FileManager.default.removeItem(at: folder) }
    try Data(text.utf8).write(to: folder.appendingPathComponent(name))
    return folder
}

extension JSON {
    var floats: [Float] { (array ?? []).compactMap { $0.number.map { Float($0) } } }

    /// The value as text again.
    var written: String {
        switch self {
        case .null: return "null"
        case .bool(let flag): return "\(flag)"
        case .number(let number): return number == number.rounded() && abs(number) < 1e15 ? "\(Int(number))" : "\(number)"
        case .string(let bytes): return String(decoding: (try? JSONEncoder().encode(String(decoding: bytes, as: UTF8.self))) ?? Data(), as: UTF8.self)
        case .array(let items): return "[\(items.map(\.written).joined(separator: ","))]"
        case .object(let fields): return "{\(fields.map { "\(JSON.string($0.key).written):\($0.value.written)" }.joined(separator: ","))}"
        }
    }
}

extension XCTestCase {
    /// The kernels of the vectors, one of every policy.
    static let kernels = ["stream_tiny", "stream_sink", "stream_last_step", "stream_last_sink"]

    /// The contract of a vector, read from a folder as a host does.
    func kernel(_ name: String) throws -> KernelContract {
        try KernelContract.read(written(vector(name)["contract"]!.written, as: "contract.json", for: self))
    }
}
