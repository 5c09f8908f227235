use std::fs;

use s2dit_backends::output::made;

use super::*;

const SPEC: Spec = Spec { rows: 32, cols: 48, fps: 16.0 };

/// A moving gradient `[1, 3, T, H, W]`.
fn video(frames: usize) -> HostTensor {
    let Spec { rows, cols, .. } = SPEC;
    let at = |i: usize| {
        let (c, t, y, x) = (i / (frames * rows * cols), i / (rows * cols) % frames, i / cols % rows, i % cols);
        ((x as f32 / 17.0 + y as f32 / 11.0 + t as f32 / 5.0) + c as f32).sin()
    };
    HostTensor { shape: vec![1, 3, frames, rows, cols], data: (0..3 * frames * rows * cols).map(at).collect() }
}

fn written(path: &Path, calls: &[usize]) {
    let mut writer = VideoWriter::create(Destination::new(path), SPEC).unwrap();
    let whole = video(calls.iter().sum());
    let mut frames = Rgb::of_video(&whole).unwrap();
    for _ in calls {
        for frame in frames.by_ref().take(calls[0]) {
            writer.push(&frame).unwrap();
        }
    }
    assert!(!path.exists());
    writer.finish().unwrap();
}

#[test]
fn the_same_frames_are_the_same_bytes_and_are_known_as_ours() {
    let dir = tempfile::tempdir().unwrap();
    type Made = fn(&Path) -> bool;
    let known: [(&str, Made); 3] = [("x.mp4", made::mp4), ("x.webp", made::webp), ("x.gif", made::gif)];
    for (name, known) in known {
        let [one, two] = ["one-", "two-"].map(|prefix| dir.path().join(format!("{prefix}{name}")));
        written(&one, &[3, 3]);
        written(&two, &[6]);
        assert_eq!(fs::read(&one).unwrap(), fs::read(&two).unwrap(), "{name}");
        assert!(known(&one), "{name}");
        // What we made is replaced.
        written(&two.with_file_name(format!("three-{name}")), &[1]);
        drop(VideoWriter::create(Destination::new(&one), SPEC).unwrap());
        fs::write(&two, "somebody else's").unwrap();
        assert!(VideoWriter::create(Destination::new(&two), SPEC).is_err(), "{name}");
    }
    let frames = dir.path().join("frames");
    written(&frames, &[3]);
    assert_eq!(fs::read_dir(&frames).unwrap().count(), 3);
    assert!(made::png(&frames.join("00000.png")));
    drop(VideoWriter::create(Destination::new(&frames), SPEC).unwrap());
    fs::write(frames.join("00099.png"), "somebody else's").unwrap();
    assert!(VideoWriter::create(Destination::new(&frames), SPEC).is_err());
}

#[test]
fn what_a_format_does_not_hold_is_refused_with_the_way_out() {
    let dir = tempfile::tempdir().unwrap();
    let refused = |name: &str, rows: usize, fps: f64, part: &str| {
        let path = dir.path().join(name);
        let error = VideoWriter::create(Destination::new(&path), Spec { rows, fps, ..SPEC }).err().expect(name);
        let message = format!("{error:#}");
        assert!(message.contains(part) && message.contains(name), "{message}");
        assert!(!path.exists());
    };
    refused("x.mp4", 33, 16.0, "name a .webp");
    refused("x.mp4", 5000, 16.0, "at most 3840x2160");
    refused("x.gif", 70_000, 16.0, "too many for a GIF");
    refused("x.webp", 20_000, 16.0, "too many for WebP");
    refused("x.avi", 32, 16.0, "ends in .mp4");
    refused("x.gif", 32, 0.0, "frames a second");
    assert!(is_video(Path::new("A.MP4")) && is_video(Path::new("frames")) && !is_video(Path::new("x.safetensors")));
}

#[test]
fn levels_are_rounded() {
    let video = HostTensor::new([1, 3, 1, 1, 1], vec![-1.5, 0.0, f32::NAN]).unwrap();
    let frame = Rgb::of_video(&video).unwrap().next().unwrap();
    assert_eq!(frame.pixels, [0, 128, 0]);
}

#[test]
fn times_do_not_drift() {
    let delays: Vec<u64> = (0..16).map(|i| begins(i + 1, 16.0, 100.0) - begins(i, 16.0, 100.0)).collect();
    assert_eq!(delays.iter().sum::<u64>(), 100);
    assert!(delays.iter().all(|d| [6, 7].contains(d)));
}

/// At the first quantiser a picture of noise is larger than the encoder has room for.
#[test]
fn noise_is_written_with_a_coarser_quantiser() {
    let dir = tempfile::tempdir().unwrap();
    let spec = Spec { rows: 128, cols: 128, fps: 24.0 };
    let mut state = 1u32;
    let mut noise = || {
        state = state.wrapping_mul(1_664_525).wrapping_add(1_013_904_223);
        if state >> 31 == 0 { -1.0 } else { 1.0 }
    };
    let shape = vec![1, 3, 3, spec.rows, spec.cols];
    let video = HostTensor { data: (0..shape.iter().product()).map(|_| noise()).collect(), shape };
    let [one, two] = ["one.mp4", "two.mp4"].map(|name| dir.path().join(name));
    for path in [&one, &two] {
        let mut writer = VideoWriter::create(Destination::new(path), spec).unwrap();
        writer.push_video(&video).unwrap();
        writer.finish().unwrap();
    }
    assert_eq!(fs::read(&one).unwrap(), fs::read(&two).unwrap());
}
