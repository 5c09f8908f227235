#if canImport(CoreGraphics)
import CoreGraphics
import Foundation
import S2DiTHost

extension Tensor {
    /// A frame of a video `[1, 3, T, H, W]` in -1 to 1 as a picture.
    public func image(ofFrame frame: Int) -> CGImage? {
        let (rows, cols) = (shape[3], shape[4])
        guard let provider = CGDataProvider(data: Data(pixels(ofFrame: frame)) as CFData) else { return nil }
        return CGImage(
            width: cols, height: rows, bitsPerComponent: 8, bitsPerPixel: 32, bytesPerRow: cols * 4, space: CGColorSpaceCreateDeviceRGB(),
            bitmapInfo: CGBitmapInfo(rawValue: CGImageAlphaInfo.noneSkipLast.rawValue), provider: provider, decode: nil, shouldInterpolate: true,
            intent: .defaultIntent)
    }
}
#endif
