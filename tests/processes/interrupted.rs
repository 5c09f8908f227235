//! Other processes at the same files: checkpoints that change while they are read, several compiles to one place, kills.

use std::fs::{self, File};
use std::io::{BufRead as _, BufReader, Seek, SeekFrom, Write};
use std::path::{Path, PathBuf};
use std::process::{Child, Command, Output, Stdio};
use std::time::{Duration, Instant};

use crate::common::{arg, fails, files, ok, s2ditc};
use rustix::process::{Pid, Signal, kill_process};

const WEIGHTS: &str = "diffusion_pytorch_model.safetensors";

/// A checkpoint of more weights than an ONNX file holds itself.
fn checkpoint(at: &Path, seed: &str) -> String {
    let place = arg(at);
    ok(&["init", "-q", "--preset", "tiny", "--set", "ffn_dim=32768", "--seed", seed, "-o", &place]);
    place
}

fn compile(checkpoint: &str, target: &str, out: &Path) -> Command {
    let mut command = s2ditc();
    command.args(["compile", "-q", checkpoint, "--target", target, "--precision", "fp32", "--latent", "1x4x4", "-o"]);
    command.arg(out).stdout(Stdio::null()).stderr(Stdio::piped());
    command
}

fn names(folder: &Path) -> Vec<String> {
    let entries = fs::read_dir(folder).expect("a folder");
    let mut names: Vec<_> =
        entries.map(|e| e.expect("an entry").file_name().to_str().expect("UTF-8").to_string()).collect();
    names.sort();
    names
}

/// Starts a compile, stops it when it begins to write, lets `meanwhile` work, and lets it go on.
fn with_a_pause(mut command: Command, folder: &Path, meanwhile: impl FnOnce()) -> Output {
    let mut child: Child = command.spawn().expect("s2ditc starts");
    let pid = Pid::from_child(&child);
    let start = Instant::now();
    while !names(folder).iter().any(|name| name.contains(".partial-")) {
        assert!(child.try_wait().expect("a status").is_none(), "the compile ended before anything was staged");
        assert!(start.elapsed() < Duration::from_secs(120), "nothing was staged");
        std::thread::sleep(Duration::from_micros(200));
    }
    kill_process(pid, Signal::STOP).expect("a signal");
    meanwhile();
    kill_process(pid, Signal::CONT).expect("a signal");
    child.wait_with_output().expect("an output")
}

/// A checkpoint that is written over or cut short while it is compiled: one error that names the file, and no output.
#[test]
fn a_checkpoint_that_changes_meanwhile() {
    type Change = fn(&Path);
    let changes: [(&str, Change); 4] = [
        ("written over", |dir| {
            let mut file = File::options().write(true).open(dir.join(WEIGHTS)).expect("weights");
            file.seek(SeekFrom::End(-64)).expect("weights");
            file.write_all(&[0; 64]).expect("weights");
        }),
        ("replaced", |dir| {
            fs::copy(dir.join(WEIGHTS), dir.join("new")).expect("a copy");
            fs::rename(dir.join("new"), dir.join(WEIGHTS)).expect("weights");
        }),
        ("another configuration", |dir| {
            let path = dir.join("config.json");
            let text = fs::read_to_string(&path).expect("a configuration");
            fs::write(path, text.replace("1e-6", "1e-5") + "\n").expect("a configuration");
        }),
        ("cut short", |dir| {
            File::options().write(true).open(dir.join(WEIGHTS)).expect("weights").set_len(1 << 16).expect("weights");
        }),
    ];
    let work = tempfile::tempdir().expect("a temporary folder");
    for (what, change) in changes {
        for (target, name) in [("onnx", "x.onnx"), ("coreml", "x.mlpackage")] {
            let (dir, out) = (work.path().join("checkpoint"), work.path().join("out"));
            fs::create_dir(&out).expect("a folder");
            let from = checkpoint(&dir, "1");
            let done = with_a_pause(compile(&from, target, &out.join(name)), &out, || change(&dir));
            let stderr = String::from_utf8_lossy(&done.stderr);
            assert_eq!(done.status.code(), Some(1), "{what}, {target}: {stderr}");
            assert_eq!(stderr.matches("error: ").count(), 1, "{what}, {target}: {stderr}");
            let file = if what == "another configuration" { "config.json" } else { WEIGHTS };
            assert!(stderr.contains(file) && stderr.contains("while it was being read"), "{what}, {target}: {stderr}");
            assert_eq!(names(&out), [] as [&str; 0], "{what}, {target}");
            fs::remove_dir_all(&out).expect("a folder");
            fs::remove_dir_all(&dir).expect("a folder");
        }
    }
}

/// What a process that is killed between the renames leaves: an old model, its weights, and new weights.
#[test]
fn a_model_keeps_its_weights_until_the_next_is_in_place() {
    let work = tempfile::tempdir().expect("a temporary folder");
    let at = |name: &str| work.path().join(name);
    let (one, two) = (checkpoint(&at("one"), "1"), checkpoint(&at("two"), "2"));
    let run = |checkpoint: &str, out: PathBuf| {
        let done = compile(checkpoint, "onnx", &out).output().expect("s2ditc starts");
        assert!(done.status.success(), "{}", String::from_utf8_lossy(&done.stderr));
    };
    fs::create_dir(at("a")).expect("a folder");
    fs::create_dir(at("b")).expect("a folder");
    run(&one, at("a/x.onnx"));
    run(&two, at("b/x.onnx"));
    let data = |folder: &str| names(&at(folder)).into_iter().find(|n| n.ends_with(".data")).expect("weights");
    let (old, new) = (data("a"), data("b"));
    fs::copy(at("b").join(&new), at("a").join(&new)).expect("new weights");
    let proof = |checkpoint: &str| ok(&["verify", "-q", &arg(&at("a/x.onnx")), "--checkpoint", checkpoint]);
    proof(&one);
    // Somebody keeps the old model under another name: then its weights stay too.
    fs::copy(at("a/x.onnx"), at("a/kept.onnx")).expect("a copy");
    run(&two, at("a/x.onnx"));
    proof(&two);
    assert_eq!(names(&at("a")).len(), 4, "{:?}", names(&at("a")));
    ok(&["inspect", &arg(&at("a/kept.onnx"))]);
    fs::remove_file(at("a/kept.onnx")).expect("a file");
    run(&two, at("a/x.onnx"));
    assert!(!at("a").join(&old).exists(), "weights that nothing refers to");
    assert!(files(&at("a")) == files(&at("b")));
    // A stranger's file with the name of our weights stays.
    fs::write(at("a/x.onnx.0123456789abcdef.data"), "precious").expect("a file");
    run(&one, at("a/x.onnx"));
    assert_eq!(names(&at("a")).len(), 3);
    // Weights of another compile under the right name are found out.
    fs::copy(at("b").join(&new), at("a").join(&old)).expect("a copy");
    let error = fails(&["inspect", &arg(&at("a/x.onnx"))]);
    assert!(error.contains("not of one compile"), "{error}");
}

#[test]
fn compiles_to_one_place_at_once() {
    let work = tempfile::tempdir().expect("a temporary folder");
    let from = ["1", "2", "3"].map(|seed| checkpoint(&work.path().join(seed), seed));
    let out = work.path().join("out");
    fs::create_dir(&out).expect("a folder");
    for round in 0..3 {
        let children: Vec<Child> = from
            .iter()
            .map(|from| compile(from, "onnx", &out.join("x.onnx")).spawn().expect("s2ditc starts"))
            .collect();
        for child in children {
            let done = child.wait_with_output().expect("an output");
            assert!(done.status.success(), "{}", String::from_utf8_lossy(&done.stderr));
        }
        ok(&["inspect", &arg(&out.join("x.onnx"))]);
        assert_eq!(names(&out).len(), 2, "round {round}: {:?}", names(&out));
    }
}

/// `nohup` starts a program with SIGHUP ignored: it goes on when the terminal goes, and ends when it is told to.
#[test]
fn a_signal_that_is_ignored_stays_ignored() {
    let mut command = Command::new("sh");
    command.args(["-c", "trap '' HUP; exec \"$0\" run --serve"]).arg(s2ditc().get_program());
    let mut child = command.stdin(Stdio::piped()).stdout(Stdio::piped()).spawn().expect("a shell");
    let mut requests = child.stdin.take().expect("its input");
    let mut answers = BufReader::new(child.stdout.take().expect("its output"));
    let mut ask = || {
        let mut answer = String::new();
        // Nobody may be there to ask.
        let _ = requests.write_all(b"{\"close\": true}\n");
        answers.read_line(&mut answer).expect("an answer, or the end");
        answer.contains("closed")
    };
    assert!(ask(), "no answer");
    kill_process(Pid::from_child(&child), Signal::HUP).expect("a signal");
    std::thread::sleep(Duration::from_millis(500));
    assert!(ask(), "ended by a signal that is ignored");
    kill_process(Pid::from_child(&child), Signal::TERM).expect("a signal");
    assert_eq!(child.wait().expect("a status").code(), Some(143));
}
