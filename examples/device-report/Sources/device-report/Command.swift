// device-report MODEL.mlpackage [--times] > report.json
// device-report MODEL.aimodel [--prefer neural-engine|gpu|cpu] [--fresh] > report.json

import DeviceReport
import Foundation

@main
struct Command {
    static let usage = """
        usage: device-report MODEL.mlpackage [--times] > report.json
               device-report MODEL.aimodel [--prefer neural-engine|gpu|cpu] [--fresh] > report.json
        """

    static func main() async {
        var flags = Array(CommandLine.arguments.dropFirst())
        guard !flags.isEmpty, !flags[0].hasPrefix("-") else { fail(usage, 2) }
        let model = URL(fileURLWithPath: flags.removeFirst())
        do {
            let report = try await ["aimodel", "aimodelc"].contains(model.pathExtension)
                ? asset(model, flags) : package(model, flags)
            FileHandle.standardOutput.write(try report.json())
        } catch {
            fail("error: \(error.localizedDescription)", 1)
        }
    }

    static func package(_ model: URL, _ flags: [String]) async throws -> DeviceReport {
        guard flags.isEmpty || flags == ["--times"] else { fail(usage, 2) }
        return try await DeviceReport(model: model, times: !flags.isEmpty)
    }

    static func asset(_ model: URL, _ flags: [String]) async throws -> DeviceReport {
        #if canImport(CoreAI)
        var (flags, preference, fresh) = (flags, Preference.any, false)
        while !flags.isEmpty {
            switch flags.removeFirst() {
            case "--fresh": fresh = true
            case "--prefer":
                guard let name = flags.first, let named = Preference(rawValue: name) else { fail(usage, 2) }
                preference = named
                flags.removeFirst()
            default: fail(usage, 2)
            }
        }
        guard #available(macOS 27.0, iOS 27.0, *) else { fail("error: Core AI needs macOS 27 or iOS 27", 1) }
        return try await DeviceReport(asset: model, preferring: preference, fresh: fresh)
        #else
        fail("error: this build has no Core AI: build it with Xcode 27", 1)
        #endif
    }

    static func fail(_ message: String, _ code: Int32) -> Never {
        FileHandle.standardError.write(Data((message + "\n").utf8))
        exit(code)
    }
}
