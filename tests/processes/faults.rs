//! Kills at seeded moments: what is at an output's place afterwards is the old output, the new one or nothing, and the next compile removes
//! what the dead one left beside it. `S2DITC_KILLS` says how many kills (default 24), `S2DITC_SEED` other moments.

use std::collections::BTreeSet;
use std::fs;
use std::path::{Path, PathBuf};
use std::process::{Child, Command, Stdio};
use std::time::{Duration, Instant};

use rand::{Rng as _, SeedableRng as _};
use rand_chacha::ChaCha8Rng;
use rustix::process::{Pid, Signal, kill_process};

use crate::common::{arg, files, ok, s2ditc};

/// An output whose writing is interrupted.
struct Case {
    name: &'static str,
    flags: &'static [&'static str],
}

const CASES: &[Case] = &[
    Case { name: "x.mlpackage", flags: &["--target", "coreml", "--latent", "1x4x4", "--precision", "fp32"] },
    Case { name: "x.onnx", flags: &["--target", "onnx", "--latent", "1x4x4", "--precision", "fp32"] },
    Case { name: "kernel", flags: &["--target", "coreml", "--mode", "stream", "--latent", "4x4"] },
    Case { name: "parts", flags: &["--target", "coreml", "--latent", "1x4x4", "--partition", "2"] },
];

type Files = Vec<(PathBuf, Vec<u8>)>;

fn number(variable: &str, default: u64) -> u64 {
    std::env::var(variable).map_or(default, |text| text.parse().expect("a number"))
}

fn compile(checkpoint: &str, case: &Case, out: &Path) -> Command {
    let mut command = s2ditc();
    command.args(["compile", "-q", checkpoint]).args(case.flags).arg("-o").arg(out);
    command.stdin(Stdio::null()).stdout(Stdio::null()).stderr(Stdio::null());
    command
}

/// Runs a compile to its end.
fn finish(mut command: Command) {
    assert!(command.status().expect("s2ditc starts").success(), "{command:?}");
}

/// Whether something is on its way in a folder.
fn staged(folder: &Path) -> bool {
    fs::read_dir(folder)
        .expect("a folder")
        .any(|entry| entry.expect("an entry").file_name().to_string_lossy().contains(".partial-"))
}

/// Starts a compile and returns it once it has something staged, with the time that this took; or once it is over.
fn until_staged(mut command: Command, folder: &Path) -> (Child, Duration) {
    let start = Instant::now();
    let mut child = command.spawn().expect("s2ditc starts");
    while !staged(folder) && child.try_wait().expect("a status").is_none() {
        assert!(start.elapsed() < Duration::from_secs(120), "nothing was staged");
        std::hint::spin_loop();
    }
    (child, start.elapsed())
}

/// Files of the output alone: of a model in ONNX's form, the weights that it names and no others.
fn output(folder: &Path, name: &str) -> Files {
    let mut found = files(folder);
    found.retain(|(path, _)| path.starts_with(name) || path.to_string_lossy().starts_with(name));
    let named = |path: &Path, model: &[u8]| {
        let name = path.to_string_lossy();
        model.windows(name.len()).any(|window| window == name.as_bytes())
    };
    if let Some((_, model)) = found.iter().find(|(path, _)| path == Path::new(name)).cloned() {
        found.retain(|(path, _)| path == Path::new(name) || named(path, &model));
    }
    found
}

/// Names in a folder.
fn names(folder: &Path) -> BTreeSet<String> {
    let entries = fs::read_dir(folder).expect("a folder");
    entries.map(|entry| entry.expect("an entry").file_name().to_string_lossy().into_owned()).collect()
}

#[test]
fn a_killed_compile_leaves_the_old_the_new_or_nothing() {
    let kills = number("S2DITC_KILLS", 24);
    let mut rng = ChaCha8Rng::seed_from_u64(number("S2DITC_SEED", 1));
    let work = tempfile::tempdir().expect("a temporary folder");
    let from = ["1", "2"].map(|seed| {
        let place = arg(&work.path().join(seed));
        // More weights than an ONNX file holds itself.
        ok(&["init", "-q", "--preset", "tiny", "--set", "ffn_dim=32768", "--seed", seed, "-o", &place]);
        place
    });
    let mut ends = [0; 4];
    // Of each case, how long it takes until something is staged, and from then on.
    let mut phases: Vec<[Duration; 2]> = Vec::new();
    for (number, case) in (0..kills).zip(CASES.iter().cycle()) {
        let at = |what: &str| work.path().join(format!("{what}-{}", case.name));
        // Once for each case: the whole outputs, and how long the phases are.
        let whole = ["old", "new"].map(at);
        if number < CASES.len() as u64 {
            let mut times = [Duration::ZERO; 2];
            for (folder, from) in whole.iter().zip(&from) {
                fs::create_dir(folder).expect("a folder");
                let start = Instant::now();
                let (mut child, early) = until_staged(compile(from, case, &folder.join(case.name)), folder);
                assert!(child.wait().expect("a status").success(), "{}", case.name);
                times = [early, start.elapsed() - early];
            }
            phases.push(times);
        }
        let [old, new] = whole.map(|folder| output(&folder, case.name));
        assert!(!old.is_empty() && old != new, "{}", case.name);

        let folder = work.path().join("out");
        fs::create_dir(&folder).expect("a folder");
        let place = folder.join(case.name);
        let has_old = rng.random_bool(0.5);
        if has_old {
            finish(compile(&from[0], case, &place));
        }
        let signal = if rng.random_bool(0.5) { Signal::KILL } else { Signal::TERM };
        // A third of the kills come at any time, the others while something is staged.
        let [early, late] = phases[usize::try_from(number).expect("a small number") % CASES.len()];
        let (mut child, wait) = if rng.random_bool(1.0 / 3.0) {
            let child = compile(&from[1], case, &place).spawn().expect("s2ditc starts");
            (child, (early + late).mul_f64(rng.random_range(0.0..1.0)))
        } else {
            (until_staged(compile(&from[1], case, &place), &folder).0, late.mul_f64(rng.random_range(0.0..1.3)))
        };
        std::thread::sleep(wait);
        // The process may be over: then there is nobody to kill.
        let killed = child.try_wait().expect("a status").is_none();
        if killed {
            kill_process(Pid::from_child(&child), signal).expect("a signal");
        }
        let status = child.wait().expect("a status");

        let found = output(&folder, case.name);
        let what = format!("kill {number} of {}, {signal:?} after {wait:?}, an old output: {has_old}", case.name);
        if found.is_empty() {
            assert!(!has_old && !status.success(), "{what}: the old output is gone");
            ends[0] += 1;
        } else if found == old {
            assert!(has_old && !status.success(), "{what}: the old output");
            ends[1] += 1;
        } else {
            assert!(found == new, "{what}: half an output: {:?}", found.iter().map(|(p, _)| p).collect::<Vec<_>>());
            ends[2 + usize::from(status.success())] += 1;
        }
        // The next compile is not disturbed, and removes what is left.
        finish(compile(&from[1], case, &place));
        assert!(output(&folder, case.name) == new, "{what}: the next compile");
        assert_eq!(names(&folder), names(&work.path().join(format!("new-{}", case.name))), "{what}: leftovers");
        fs::remove_dir_all(&folder).expect("a folder");
    }
    let [nothing, old, killed, ended] = ends;
    println!("{kills} kills: nothing {nothing}, the old output {old}, the new one {killed}, too late {ended}");
    assert!(nothing > 0 && old > 0, "no kill came before the end: {ends:?}");
}
