//! Same input, same flags: the same bytes, whatever the folder and the number of threads.

use crate::common::{arg, files, golden, ok};

#[test]
fn two_compiles_are_byte_identical() {
    let checkpoint = arg(&golden("tiny").join("checkpoint"));
    for (target, name) in [("onnx", "x.onnx"), ("coreml", "x.mlpackage")] {
        for precision in ["fp32", "fp16"] {
            let made: Vec<_> = ["1", "2"]
                .iter()
                .map(|threads| {
                    let dir = tempfile::tempdir().expect("a temporary folder");
                    let out = dir.path().join(name);
                    ok(&[
                        "compile",
                        "-q",
                        "--threads",
                        threads,
                        &checkpoint,
                        "--target",
                        target,
                        "--latent",
                        "3x8x8",
                        "--precision",
                        precision,
                        "-o",
                        &arg(&out),
                    ]);
                    files(dir.path())
                })
                .collect();
            assert!(!made[0].is_empty());
            assert!(made[0] == made[1], "{target} {precision}: the bytes differ between 1 and 2 threads");
        }
    }
}

#[test]
fn sharding_does_not_change_the_artifact() {
    let work = tempfile::tempdir().expect("a temporary folder");
    let made: Vec<_> = ["1GB", "100kB"]
        .iter()
        .map(|size| {
            let checkpoint = work.path().join(format!("checkpoint-{size}"));
            let out = work.path().join("x.mlpackage");
            ok(&["init", "-q", "--preset", "tiny", "--seed", "3", "--max-shard-size", size, "-o", &arg(&checkpoint)]);
            ok(&["compile", "-q", &arg(&checkpoint), "--target", "coreml", "--latent", "1x4x4", "-o", &arg(&out)]);
            files(&out)
        })
        .collect();
    assert!(made[0] == made[1], "the package depends on how the checkpoint is sharded");
}
