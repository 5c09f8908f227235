//! Where outputs go and what they take the place of: links, names, full disks, other programs' files.

use std::fs;
use std::os::unix::fs::symlink;
use std::path::{Path, PathBuf};
use std::process::Command;

use crate::common::{arg, fails, files, golden, ok};
use tempfile::TempDir;

const SPEC: &str = "Data/com.apple.CoreML/model.mlmodel";

fn says(error: &str, parts: &[&str]) {
    for part in parts {
        assert!(error.contains(part), "expected `{part}` in:\n{error}");
    }
}

fn work() -> TempDir {
    tempfile::tempdir().expect("a temporary folder")
}

fn checkpoint(name: &str) -> String {
    arg(&golden(name).join("checkpoint"))
}

fn entries(folder: &Path) -> Vec<String> {
    let entries = fs::read_dir(folder).expect("a folder");
    let mut names: Vec<_> =
        entries.map(|e| e.expect("an entry").file_name().to_str().expect("UTF-8").to_string()).collect();
    names.sort();
    names
}

/// A checkpoint with weights that are large enough to be compressed.
fn compressible(work: &TempDir) -> String {
    let place = arg(&work.path().join("compressible"));
    ok(&["init", "-q", "--preset", "tiny", "--set", "ffn_dim=512", "-o", &place]);
    place
}

/// `compile` with a golden's checkpoint, and where the output goes left out.
fn compile(name: &str, flags: &[&str]) -> Vec<String> {
    [&["compile", "-q", &checkpoint(name)], flags].concat().into_iter().map(String::from).collect()
}

const ONNX: [&str; 4] = ["--target", "onnx", "--latent", "3x8x8"];
const PACKAGE: [&str; 4] = ["--target", "coreml", "--latent", "3x8x8"];
const KERNEL: [&str; 6] = ["--target", "coreml", "--mode", "stream", "--latent", "8x8"];

#[test]
fn the_ending_of_an_output_says_the_target() {
    let work = work();
    let at = |name: &str| arg(&work.path().join(name));
    let made = |flags: &[&str], name: &str| {
        ok(&[compile("stream_tiny", flags), vec!["-o".into(), at(name)]].concat());
        let said: serde_json::Value = serde_json::from_str(&ok(&["inspect", "--json", &at(name)])).expect("JSON");
        said["format"].to_string()
    };
    let clip = ["--latent", "3x8x8"];
    for (name, format) in [("x.onnx", "ONNX IR"), ("x.mlpackage", "Core ML specification"), ("x.aimodel", "aicode")] {
        let made = made(&clip, name);
        assert!(made.contains(format), "{name}: {made}");
    }
    made(&["--mode", "stream", "--latent", "8x8"], "kernel");
    assert!(work.path().join("kernel/kernel.mlpackage").is_dir());
    // What was said counts, and not the name.
    let error = fails(&[compile("stream_tiny", &PACKAGE), vec!["-o".into(), at("y.onnx")]].concat());
    says(&error, &[&at("y.onnx"), "expected a name that ends in `.mlpackage`"]);
    let error = fails(&[compile("stream_tiny", &clip), vec!["-o".into(), at("y.bin")]].concat());
    says(&error, &[&at("y.bin"), "expected a name that ends in `.mlpackage`"]);
}

/// Every kind of file that a command writes: another program's is replaced by force only, our own without a word.
#[test]
fn what_others_made_is_replaced_by_force_only() {
    let work = work();
    let at = |name: &str| arg(&work.path().join(name));
    let kernel = at("a kernel");
    ok(&[compile("stream_tiny", &KERNEL), vec!["-o".into(), kernel.clone()]].concat());
    let stream = ["stream", "-q", &kernel, "--prompt-seed", "1"];
    let golden_of_stream = arg(&golden("stream_tiny").join("golden.safetensors"));
    let verify = ["verify", &kernel, "--golden", &golden_of_stream];
    let words = |args: &[&str]| args.iter().map(|a| a.to_string()).collect::<Vec<_>>();
    let ir = [&ONNX[..], &["--emit", "ir"]].concat();
    let quantize = words(&["quantize", "-q", &compressible(&work), "--scheme", "int8", "--latent", "1x4x4"]);
    let report = [quantize.clone(), words(&["-o", &at("other.toml"), "--report"])].concat();
    let calibrated = words(&["--calibrate", "seeded"]);
    let jobs: [(&str, Vec<String>); 8] = [
        ("x.onnx", [compile("tiny", &ONNX), words(&["-o"])].concat()),
        ("x.s2", [compile("tiny", &ir), words(&["-o"])].concat()),
        ("plan.toml", [quantize.clone(), words(&["-o"])].concat()),
        ("page.html", report),
        ("l.safetensors", words(&[&stream[..], &["-o"]].concat())),
        ("l.gif", words(&[&stream[..], &["--preview"]].concat())),
        ("s.safetensors", words(&[&stream[..], &["--state-out"]].concat())),
        ("error.svg", words(&[&verify[..], &["--plot"]].concat())),
    ];
    for (name, job) in jobs {
        let place = at(name);
        fs::write(&place, "precious").expect("a file");
        let job = [job, vec![place.clone()]].concat();
        says(&fails(&job), &[name, "that s2ditc did not make", "--force"]);
        assert_eq!(fs::read(&place).expect("a file"), b"precious", "{name}");
        ok(&[job.clone(), vec!["--force".into()]].concat());
        assert_ne!(fs::read(&place).expect("a file"), b"precious", "{name}");
        ok(&job);
    }
    // The statistics beside a plan.
    fs::write(at("p.stats.safetensors"), "precious").expect("a file");
    let job = [quantize, calibrated, words(&["-o", &at("p.toml")])].concat();
    says(&fails(&job), &["p.stats.safetensors", "--force"]);
    assert!(!work.path().join("p.toml").exists());
    ok(&[job.clone(), vec!["--force".into()]].concat());
    ok(&job);
}

/// Folders: made by another program, and with files of another program deep inside.
#[test]
fn folders_of_others_are_kept() {
    let work = work();
    let (partitioned, step) = ([&PACKAGE[..], &["--partition", "2"]].concat(), "tiny");
    let jobs: [(&str, &str, &[&str], &str); 3] = [
        ("x.mlpackage", step, &PACKAGE, "Manifest.json"),
        ("step", step, &partitioned, "partition.json"),
        ("kernel", "stream_tiny", &KERNEL, "contract.json"),
    ];
    for (name, model, flags, marker) in jobs {
        let place = work.path().join(name);
        let job = [compile(model, flags), vec!["-o".into(), arg(&place)]].concat();
        let forced = [job.clone(), vec!["--force".into()]].concat();
        ok(&job);
        let ours = files(&place);
        ok(&job);
        assert!(files(&place) == ours, "{name}: the same bytes");

        let deep = files(&place).into_iter().map(|(path, _)| path).max_by_key(|p| p.components().count());
        let thesis = place.join(deep.expect("a file")).with_file_name("thesis");
        fs::write(&thesis, "precious").expect("a file");
        let tail = format!("{name}/{}", thesis.strip_prefix(&place).expect("below").display());
        for job in [&job, &forced] {
            says(&fails(job), &[name, &tail, "in the way"]);
        }
        assert_eq!(fs::read(&thesis).expect("a file"), b"precious");
        fs::remove_file(&thesis).expect("a file");

        // Nobody's mark: for a package its specification's, for the others their description's.
        let marked = if name == "x.mlpackage" { SPEC } else { marker };
        fs::write(place.join(marked), "{}").expect("a file");
        says(&fails(&job), &[name, "--force"]);
        assert_eq!(fs::read(place.join(marked)).expect("a file"), b"{}");
        ok(&forced);
        assert!(files(&place) == ours, "{name}: the same bytes");
    }
}

#[test]
fn links_at_the_place_are_followed() {
    let work = work();
    let at = |name: &str| work.path().join(name);
    fs::create_dir(at("disk")).expect("a folder");
    let init = ["init", "-q", "--preset", "tiny", "-o"].map(String::from).to_vec();
    let compile = |flags: &[&str]| [compile("tiny", flags), vec!["-o".into()]].concat();
    for (name, job) in [("x.onnx", compile(&ONNX)), ("x.mlpackage", compile(&PACKAGE)), ("checkpoint", init)] {
        // To nothing yet, and then to what was made.
        symlink(Path::new("disk").join(name), at(name)).expect("a link");
        for _ in 0..2 {
            ok(&[job.clone(), vec![arg(&at(name))]].concat());
            assert!(at(name).symlink_metadata().expect("a link").is_symlink(), "{name}");
            assert!(!files(&at("disk").join(name)).is_empty(), "{name}");
        }
    }
    assert_eq!(entries(&at("disk")), ["checkpoint", "x.mlpackage", "x.onnx"]);
    ok(&["inspect", &arg(&at("x.mlpackage"))]);
    symlink("round.onnx", at("round.onnx")).expect("a link");
    says(&fails(&[compile(&ONNX), vec![arg(&at("round.onnx"))]].concat()), &["round.onnx", "circle"]);
}

/// The caches of model hubs keep every file under the name of its hash, and links to them in a folder.
#[test]
fn packages_of_links_are_read() {
    let work = work();
    let (blobs, package) = (work.path().join("blobs"), work.path().join("snapshots/x.mlpackage"));
    fs::create_dir(&blobs).expect("a folder");
    fs::create_dir(work.path().join("snapshots")).expect("a folder");
    ok(&[compile("tiny", &PACKAGE), vec!["-o".into(), arg(&package)]].concat());
    for (i, (file, _)) in files(&package).into_iter().enumerate() {
        let (place, blob) = (package.join(file), blobs.join(i.to_string()));
        fs::rename(&place, &blob).expect("a blob");
        symlink(&blob, &place).expect("a link");
    }
    ok(&["inspect", &arg(&package)]);
    ok(&["lint", &arg(&package)]);
    ok(&["verify", "-q", &arg(&package), "--golden", &arg(&golden("tiny").join("golden.safetensors"))]);
}

#[test]
fn names_as_long_as_a_disk_takes_them() {
    let work = work();
    for (flags, extension) in [(ONNX, ".onnx"), (PACKAGE, ".mlpackage")] {
        let name = "n".repeat(255 - extension.len()) + extension;
        ok(&[compile("tiny", &flags), vec!["-o".into(), arg(&work.path().join(&name))]].concat());
        let long = "n".repeat(256 - extension.len()) + extension;
        let error = fails(&[compile("tiny", &flags), vec!["-o".into(), arg(&work.path().join(&long))]].concat());
        says(&error, &[&long, "too long"]);
        assert!(!error.contains("partial"), "{error}");
    }
    assert_eq!(entries(work.path()).len(), 2);
}

/// A file may not grow beyond a limit, as on a disk that is full: one error that names the output, and nothing is left.
#[test]
fn a_full_disk() {
    let work = work();
    let disk = work.path().join("disk");
    fs::create_dir(&disk).expect("a folder");
    let large = arg(&work.path().join("large"));
    ok(&["init", "-q", "--preset", "tiny", "--set", "ffn_dim=32768", "-o", &large]);
    let large = ["compile", "-q", &large, "--target", "onnx", "--latent", "1x4x4", "-o"].map(String::from).to_vec();
    let to = |flags: &[&str]| [compile("tiny", flags), vec!["-o".into()]].concat();
    let partitioned = [&PACKAGE[..], &["--partition", "2"]].concat();
    let kernel = [compile("stream_tiny", &KERNEL), vec!["-o".into()]].concat();
    let from = compressible(&work);
    let plan = ["quantize", "-q", &from, "--scheme", "int8", "--calibrate", "seeded", "--latent", "1x4x4", "-o"];
    let onnx_kernel = ["--target", "onnx", "--mode", "stream", "--latent", "8x8"];
    let jobs: [(&str, Vec<String>); 8] = [
        ("x.onnx", to(&ONNX)),
        ("large.onnx", large),
        ("x.mlpackage", to(&PACKAGE)),
        ("step", to(&partitioned)),
        ("kernel", kernel),
        ("onnx", [compile("stream_tiny", &onnx_kernel), vec!["-o".into()]].concat()),
        ("plan.toml", plan.map(String::from).to_vec()),
        ("checkpoint", ["init", "-q", "--preset", "tiny", "-o"].map(String::from).to_vec()),
    ];
    for (name, job) in jobs {
        let place = disk.join(name);
        // In units of 512 or 1024 bytes, as the shell has it.
        let out = Command::new("sh")
            .args(["-c", "ulimit -f 16; exec \"$@\"", "sh", env!("CARGO_BIN_EXE_s2ditc")])
            .args(job)
            .arg(&place)
            .output()
            .expect("sh starts");
        let stderr = String::from_utf8_lossy(&out.stderr);
        assert_eq!(out.status.code(), Some(1), "{name}: {stderr}");
        assert_eq!(stderr.matches("error: ").count(), 1, "{stderr}");
        let named = if name == "plan.toml" { disk.join("plan.stats.safetensors") } else { place };
        says(&stderr, &[&arg(&named), "File too large"]);
        assert!(!stderr.contains(".partial-"), "{stderr}");
        assert_eq!(entries(&disk), [] as [&str; 0], "{name} left something");
    }
}

#[test]
fn init_asks_the_disk_first() {
    let work = work();
    let place = work.path().join("x");
    let layout = format!("layout={}", serde_json::json!(vec!["lcha"; 512]));
    let sets = ["--set", "ffn_dim=1048576", "--set", "num_attention_heads=1024", "--set", "attention_head_dim=1024"];
    let error = fails(&[&["init", "--preset", "tiny", "--set", &layout, "-o", &arg(&place)], &sets[..]].concat());
    // 512 blocks with four products of 2⁴⁰ weights, at the least.
    says(&error, &[&arg(&place), "B free on the disk (", "B for the weights ("]);
    assert_eq!(entries(work.path()), [] as [&str; 0]);
}

/// The folder of a download that was interrupted goes with the next one.
#[test]
fn interrupted_downloads_are_removed() {
    let work = work();
    let cache: PathBuf = work.path().join("s2ditc/onnxruntime-1.31.1");
    fs::create_dir_all(cache.join("download-Ab12")).expect("a folder");
    fs::write(cache.join("download-Ab12/half.whl"), "half").expect("a file");
    let bin = work.path().join("bin");
    fs::create_dir(&bin).expect("a folder");
    symlink("/bin/false", bin.join("python3")).expect("a link");
    let out = work.path().join("x.onnx");
    ok(&[compile("tiny", &ONNX), vec!["-o".into(), arg(&out)]].concat());
    let done = crate::common::s2ditc()
        .args(["verify", &arg(&out), "--golden", &arg(&golden("tiny").join("golden.safetensors"))])
        .env("XDG_CACHE_HOME", work.path())
        .env("PATH", &bin)
        .env_remove("ORT_DYLIB_PATH")
        .output()
        .expect("s2ditc starts");
    says(&String::from_utf8_lossy(&done.stderr), &["pip could not fetch ONNX Runtime"]);
    let left = entries(&cache);
    assert!(left.iter().all(|name| !name.starts_with("download-")), "{left:?}");
}
