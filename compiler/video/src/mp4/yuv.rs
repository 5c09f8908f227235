//! Pixels as H.264 takes them: brightness for each, and two colours for every four, by BT.709, in the narrow range.

use openh264::formats::YUVBuffer;

use crate::Rgb;

/// What red, green and blue add to the brightness.
const BRIGHTNESS: [f64; 3] = [0.2126, 0.7152, 0.0722];

/// A frame whose sides are even.
pub(super) fn of(frame: &Rgb) -> YUVBuffer {
    let Rgb { rows, cols, pixels } = frame;
    let (rows, cols) = (*rows, *cols);
    let brightness = |rgb: [f64; 3]| rgb.iter().zip(BRIGHTNESS).map(|(x, weight)| x * weight).sum::<f64>();
    let mut planes = Vec::with_capacity(rows * cols * 3 / 2);
    planes.extend(pixels.chunks_exact(3).map(|rgb| {
        let y = brightness([0, 1, 2].map(|c| f64::from(rgb[c])));
        (16.0 + 219.0 / 255.0 * y).round() as u8
    }));
    let [mut blues, mut reds] = [0, 1].map(|_| Vec::with_capacity(rows * cols / 4));
    for row in (0..rows).step_by(2) {
        for col in (0..cols).step_by(2) {
            let four = [0, 1, cols, cols + 1].map(|step| 3 * (row * cols + col + step));
            let mean = [0, 1, 2].map(|c| four.iter().map(|at| f64::from(pixels[at + c])).sum::<f64>() / 4.0);
            let y = brightness(mean);
            let colour = |x: f64, weight: f64| (128.0 + 112.0 / 255.0 * (x - y) / (1.0 - weight)).round() as u8;
            blues.push(colour(mean[2], BRIGHTNESS[2]));
            reds.push(colour(mean[0], BRIGHTNESS[0]));
        }
    }
    planes.extend(blues);
    planes.extend(reds);
    YUVBuffer::from_vec(planes, cols, rows)
}
