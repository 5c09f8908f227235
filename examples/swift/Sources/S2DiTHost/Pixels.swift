import Foundation

extension Tensor {
    /// The pixels of a frame of a video `[1, 3, T, H, W]` in -1 to 1, row by row: red, green, blue and 255.
    public func pixels(ofFrame frame: Int) -> [UInt8] {
        let (frames, plane) = (shape[2], shape[3] * shape[4])
        var pixels = [UInt8](repeating: 255, count: plane * 4)
        for channel in 0..<3 {
            let begin = (channel * frames + frame) * plane
            for i in 0..<plane {
                let level = ((data[begin + i] + 1) * 127.5).rounded()
                pixels[i * 4 + channel] = UInt8(max(0, min(255, level)))
            }
        }
        return pixels
    }
}
