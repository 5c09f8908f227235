// device-report MODEL [--times] > report.json

import DeviceReport
import Foundation

@main
struct Command {
    static func main() async {
        let times = CommandLine.arguments.dropFirst(2) == ["--times"]
        guard CommandLine.arguments.count == 2 || times else {
            FileHandle.standardError.write(Data("usage: device-report MODEL.mlpackage [--times] > report.json\n".utf8))
            exit(2)
        }
        do {
            let report = try await DeviceReport(model: URL(fileURLWithPath: CommandLine.arguments[1]), times: times)
            FileHandle.standardOutput.write(try report.json())
        } catch {
            FileHandle.standardError.write(Data("error: \(error.localizedDescription)\n".utf8))
            exit(1)
        }
    }
}
