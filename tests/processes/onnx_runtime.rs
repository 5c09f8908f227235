//! ONNX Runtime is a stranger in the house: it reports to nobody, a damaged library of it is not loaded, and a crash of it is an
//! error that names the file.
#![cfg(target_os = "linux")]

use std::fs;
use std::os::unix::fs::PermissionsExt;
use std::os::unix::process::CommandExt;
use std::path::{Path, PathBuf};
use std::process::{Command, Output, Stdio};
use std::time::{Duration, Instant};

use crate::common::{arg, files, golden, ok, s2ditc};
use prost::Message;
use s2dit_backends::onnx::proto::ModelProto;
use seccompiler::{BpfProgram, SeccompAction, SeccompFilter};
use tempfile::TempDir;

/// ONNX Runtime's library, fetched if need be.
fn library() -> PathBuf {
    s2dit_runtime::library::locate(|_| {}).expect("ONNX Runtime")
}

/// A folder with `tiny.onnx`, and a golden for it.
fn model() -> (TempDir, PathBuf, String) {
    let work = tempfile::tempdir().expect("a temporary folder");
    let path = work.path().join("tiny.onnx");
    let checkpoint = arg(&golden("tiny").join("checkpoint"));
    ok(&["compile", "-q", &checkpoint, "--target", "onnx", "--latent", "3x8x8", "-o", &arg(&path)]);
    (work, path, arg(&golden("tiny").join("golden.safetensors")))
}

/// `s2ditc` as a user runs it on a new machine, with an empty home, and nothing in the environment that keeps ONNX Runtime quiet.
fn new_user(home: &Path) -> Command {
    let mut command = s2ditc();
    command.env("HOME", home).env_remove("XDG_CACHE_HOME");
    for quiet in ["CI", "ORT_DISABLE_TELEMETRY", "ORT_RUNNING_UNIT_TESTS", "ORT_DYLIB_PATH"] {
        command.env_remove(quiet);
    }
    command
}

/// From here on the kernel kills the process, and its children, as soon as it asks for a socket: nobody looks a name up or sends
/// anything without one.
fn without_sockets(command: &mut Command) -> &mut Command {
    let rules = [(syscalls::SOCKET, Vec::new())].into_iter().collect();
    let arch = std::env::consts::ARCH.try_into().expect("an architecture that seccomp knows");
    let filter = SeccompFilter::new(rules, SeccompAction::Allow, SeccompAction::KillProcess, arch).expect("a filter");
    let program: BpfProgram = filter.try_into().expect("a program");
    // SAFETY: the closure makes two system calls, and allocates nothing.
    unsafe { command.pre_exec(move || seccompiler::apply_filter(&program).map_err(std::io::Error::other)) }
}

mod syscalls {
    /// Number of the system call `socket`.
    pub const SOCKET: i64 = if cfg!(target_arch = "x86_64") { 41 } else { 198 };
}

#[track_caller]
fn said(out: &Output) -> String {
    let text = String::from_utf8_lossy(&out.stderr).into_owned();
    assert!(!text.contains("panicked"), "{text}");
    text
}

#[track_caller]
fn error(out: &Output) -> String {
    let text = said(out);
    assert_eq!(out.status.code(), Some(1), "{text}");
    assert_eq!(text.matches("error: ").count(), 1, "{text}");
    text
}

#[test]
fn a_model_that_runs_makes_no_file_and_looks_nothing_up() {
    let mut socket = Command::new("python3");
    socket.args(["-c", "import socket; socket.socket()"]).stderr(Stdio::null());
    assert!(!without_sockets(&mut socket).status().expect("python3 starts").success(), "the filter filters nothing");

    let (work, path, reference) = model();
    let home = work.path().join("home");
    fs::create_dir(&home).expect("a folder");
    let mut verify = new_user(&home);
    verify.env("ORT_DYLIB_PATH", library()).args(["verify", &arg(&path), "--golden", &reference]);
    let out = without_sockets(&mut verify).output().expect("s2ditc starts");
    assert!(out.status.success(), "{}", said(&out));
    let made: Vec<_> = files(&home).into_iter().map(|(path, _)| path).collect();
    assert!(made.is_empty(), "a run left {made:?} in the user's home");
}

/// A wheel with ONNX Runtime's library, and a `python3` whose pip finds no other.
fn offline_pip(work: &Path, wheel: bool) -> PathBuf {
    let bin = work.join("bin");
    fs::create_dir(&bin).expect("a folder");
    let body = if wheel {
        let make =
            "import sys, zipfile; z = zipfile.ZipFile(sys.argv[1], 'w'); z.write(sys.argv[2], sys.argv[3]); z.close()";
        let place = bin.join("onnxruntime-0-py3-none-any.whl");
        let inside = "onnxruntime/capi/libonnxruntime.so.1";
        let made = Command::new("python3").args(["-c", make]).args([&place, &library()]).arg(inside).status();
        assert!(made.expect("python3 starts").success());
        format!("while [ \"$1\" != --dest ]; do shift; done; cp '{}' \"$2\"", place.display())
    } else {
        "echo no network >&2; exit 1".to_string()
    };
    let python = bin.join("python3");
    fs::write(&python, format!("#!/bin/sh\n{body}\n")).expect("a script");
    fs::set_permissions(&python, fs::Permissions::from_mode(0o755)).expect("a script that runs");
    bin
}

#[test]
fn a_damaged_library_is_fetched_anew_or_named() {
    let (work, path, reference) = model();
    let home = work.path().join("home");
    let folder = home.join(format!(".cache/s2ditc/onnxruntime-{}", s2dit_runtime::library::VERSION));
    fs::create_dir_all(&folder).expect("a folder");
    let place = folder.join("libonnxruntime.so");
    let path_with = |bin: &Path| format!("{}:{}", bin.display(), std::env::var("PATH").unwrap_or_default());
    let verify = |bin: &Path| {
        let mut verify = new_user(&home);
        verify.env("PATH", path_with(bin)).args(["verify", &arg(&path), "--golden", &reference]);
        verify.output().expect("s2ditc starts")
    };
    let works = tempfile::tempdir().expect("a temporary folder");
    let pip = offline_pip(works.path(), true);
    let nothing = tempfile::tempdir().expect("a temporary folder");
    let no_pip = offline_pip(nothing.path(), false);

    let out = verify(&pip);
    assert!(out.status.success(), "{}", said(&out));
    assert!(said(&out).contains("fetching ONNX Runtime"), "{}", said(&out));
    let out = verify(&no_pip);
    assert!(out.status.success() && !said(&out).contains("fetching"), "a whole library is not fetched: {}", said(&out));

    // A page of zeros in the middle, as a full disk or a bad block leaves it.
    let whole = fs::read(&place).expect("the library");
    let mut damaged = whole.clone();
    let middle = damaged.len() / 8;
    damaged[middle..middle + (1 << 16)].fill(0);
    let record = folder.join("libonnxruntime.so.blake3");
    for (what, bytes) in [("zeros", &damaged[..]), ("short", &whole[..whole.len() / 2]), ("empty", &[])] {
        fs::write(&place, bytes).expect("the library");
        let error = error(&verify(&no_pip));
        for part in [&*arg(&place), "is damaged", "no network", "ORT_DYLIB_PATH"] {
            assert!(error.contains(part), "{what}: expected `{part}` in:\n{error}");
        }
        let out = verify(&pip);
        assert!(out.status.success(), "{what}: {}", said(&out));
        assert!(said(&out).contains("is damaged"), "{what}: {}", said(&out));
        assert!(fs::read(&place).expect("the library") == whole, "{what}: it is whole again");
    }
    fs::remove_file(&record).expect("the record");
    assert!(error(&verify(&no_pip)).contains("no record of its hash"));
}

#[test]
fn an_empty_ort_dylib_path_is_none() {
    let (_work, path, reference) = model();
    let out = s2ditc().env("ORT_DYLIB_PATH", "").args(["verify", "-q", &arg(&path), "--golden", &reference]).output();
    let out = out.expect("s2ditc starts");
    assert!(out.status.success(), "{}", said(&out));
}

#[test]
fn a_crash_of_onnx_runtime_is_an_error_that_names_the_file() {
    let (_work, path, reference) = model();
    let bytes = fs::read(&path).expect("a model");
    for (attribute, value) in
        [("q_num_heads", 0), ("kv_num_heads", 0), ("q_num_heads", 1 << 62), ("q_num_heads", i64::MIN)]
    {
        let mut proto = ModelProto::decode(bytes.as_slice()).expect("a model");
        let nodes = proto.graph.iter_mut().flat_map(|graph| &mut graph.node).filter(|node| node.op_type == "Attention");
        let mut damaged = 0;
        for found in nodes.flat_map(|node| &mut node.attribute).filter(|a| a.name == attribute) {
            found.i = value;
            damaged += 1;
        }
        assert!(damaged > 0, "no {attribute} to damage");
        fs::write(&path, proto.encode_to_vec()).expect("a model");
        for command in [
            vec!["verify", &arg(&path), "--golden", &reference],
            vec!["verify", &arg(&path), "--golden", &reference, "--blocks"],
        ] {
            let out = s2ditc().args(&command).output().expect("s2ditc starts");
            assert!(error(&out).contains("tiny.onnx"), "{attribute} {value}: {}", said(&out));
        }
    }
}

/// The process that runs a model has a parent: whoever stops one stops both.
#[test]
fn a_run_that_is_told_to_stop_leaves_no_process_behind() {
    use rustix::process::{Pid, Signal, kill_process};
    let work = tempfile::tempdir().expect("a temporary folder");
    let kernel = work.path().join("kernel");
    let checkpoint = arg(&golden("stream_tiny").join("checkpoint"));
    ok(&["compile", "-q", &checkpoint, "--target", "onnx", "--mode", "stream", "--latent", "8x8", "-o", &arg(&kernel)]);
    let out = work.path().join("latents.safetensors");
    let chunks = ["--prompt-seed", "1", "--chunks", "1000000", "-o"];
    for (signal, code) in [(Signal::TERM, Some(128 + 15)), (Signal::INT, Some(128 + 2)), (Signal::KILL, None)] {
        let mut parent =
            s2ditc().args(["stream", "-q", &arg(&kernel)]).args(chunks).arg(&out).spawn().expect("s2ditc starts");
        let started = |condition: &dyn Fn() -> bool| {
            let start = Instant::now();
            while !condition() {
                assert!(start.elapsed() < Duration::from_secs(60), "{signal:?}");
                std::thread::sleep(Duration::from_millis(5));
            }
        };
        let staged = || {
            let names = fs::read_dir(work.path()).expect("a folder").map(|e| e.expect("an entry").file_name());
            names.filter(|name| name.to_string_lossy().contains(".partial-")).count()
        };
        started(&|| staged() == 1);
        let children = format!("/proc/{0}/task/{0}/children", parent.id());
        let child = fs::read_to_string(&children).expect("children");
        let child: i32 = child.trim().parse().expect("one child");
        kill_process(Pid::from_child(&parent), signal).expect("a signal");
        assert_eq!(parent.wait().expect("a status").code(), code, "{signal:?}");
        started(&|| !Path::new(&format!("/proc/{child}")).exists() || is_zombie(child));
        assert_eq!(staged(), 0, "{signal:?} left a half-written file");
    }
}

/// Ended, and not yet waited for by whoever inherited it.
fn is_zombie(pid: i32) -> bool {
    let stat = fs::read_to_string(format!("/proc/{pid}/stat")).unwrap_or_default();
    stat.rsplit(')').next().is_some_and(|rest| rest.trim_start().starts_with('Z'))
}
