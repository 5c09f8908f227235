// device-report MODEL > report.json

import DeviceReport
import Foundation

@main
struct Command {
    static func main() async {
        guard CommandLine.arguments.count == 2 else {
            FileHandle.standardError.write(Data("usage: device-report MODEL.mlpackage > report.json\n".utf8))
            exit(2)
        }
        do {
            let report = try await DeviceReport(model: URL(fileURLWithPath: CommandLine.arguments[1]))
            FileHandle.standardOutput.write(try report.json())
        } catch {
            FileHandle.standardError.write(Data("error: \(error.localizedDescription)\n".utf8))
            exit(1)
        }
    }
}
