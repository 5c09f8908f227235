//! Damaged graphs of both formats, some hundred in every run, as many as one likes with `GRAPH_MUTANTS=50000`: each is refused with one clear error, or read; what is
//! read can be evaluated, and an ONNX mutant that ONNX Runtime takes as well computes what ONNX Runtime does.
//!
//! `GRAPH_MUTANTS_FROM=7000` starts at another seed, and `GRAPH_MUTANTS_OUT=FOLDER` keeps the files of mutants that fail, and of programs that were read.

mod onnx;
mod pt2;

use std::collections::{BTreeMap, HashMap};
use std::fs;
use std::panic::{AssertUnwindSafe, catch_unwind};
use std::path::{Path, PathBuf};
use std::sync::Mutex;
use std::sync::atomic::{AtomicUsize, Ordering};
use std::time::{Duration, Instant};

use s2dit_import::{Ask, Imported, import, importer_of};
use s2dit_ir::interp::{Bindings, run};
use s2dit_ir::{DType, Function, Tensor, ValueId};

/// Mutants of each format, unless `GRAPH_MUTANTS` says another number.
const MUTANTS: usize = 400;
/// The longest that a mutant may take to be read.
const PATIENCE: Duration = Duration::from_secs(20);
/// Graphs with more work than this are not evaluated: a mutant may have large sizes.
const WORK: u64 = 200_000_000;
/// Elements of the largest value of a graph that is evaluated.
const LARGEST: usize = 4_000_000;

/// A number from a seed: splitmix64.
struct Draw(u64);

impl Draw {
    fn next(&mut self, below: usize) -> usize {
        self.0 = self.0.wrapping_add(0x9e37_79b9_7f4a_7c15);
        let mut z = self.0;
        z = (z ^ (z >> 30)).wrapping_mul(0xbf58_476d_1ce4_e5b9);
        z = (z ^ (z >> 27)).wrapping_mul(0x94d0_49bb_1331_11eb);
        ((z ^ (z >> 31)) % below.max(1) as u64) as usize
    }

    fn of<T: Copy>(&mut self, list: &[T]) -> T {
        list[self.next(list.len())]
    }
}

/// Numbers that readers do not expect.
const ODD: [i64; 14] = [0, 1, -1, 2, 3, 4, 7, -2, -3, 100, 1 << 31, -(1 << 31), i64::MAX, i64::MIN];

/// What became of a mutant.
enum Fate {
    Refused,
    /// Read, and evaluated without a judge.
    Read,
    /// Read, and what a judge computes of it.
    Judged,
    /// Read, and not evaluated: too large.
    Large,
    Wrong(String),
}

/// A mutant of a format.
struct Mutant {
    bytes: Vec<u8>,
    original: String,
    /// Whether the judge is asked. Weights of which single bytes were changed are numbers of any size, with which fp32 and float64 tell different stories.
    judged: bool,
}

/// What another reader of the format computes from the same inputs, by the order of results; `None` if it does not take the file.
type Judge = fn(&[u8], &BTreeMap<String, Tensor>) -> Option<Vec<Tensor>>;

/// Makes mutants, reads and evaluates them on all processors.
fn mutants_are_read_or_refused(format: &str, make: impl Fn(&mut Draw) -> Mutant + Sync, judge: Judge) {
    let number = |name: &str, or: usize| std::env::var(name).map_or(or, |n| n.parse().expect("a number"));
    let (from, count) = (number("GRAPH_MUTANTS_FROM", 0), number("GRAPH_MUTANTS", MUTANTS));
    let work = tempfile::tempdir().expect("a temporary folder");
    let keep = std::env::var_os("GRAPH_MUTANTS_OUT").map(PathBuf::from);
    let next = AtomicUsize::new(from);
    let fates: Mutex<[usize; 4]> = Mutex::default();
    let wrong: Mutex<Vec<String>> = Mutex::default();
    let slowest: Mutex<(Duration, usize)> = Mutex::default();
    let threads = std::thread::available_parallelism().map_or(1, |n| n.get());
    std::thread::scope(|scope| {
        for thread in 0..threads {
            let path = work.path().join(format!("mutant{thread}.{format}"));
            let (next, fates, wrong, slowest, make, keep) = (&next, &fates, &wrong, &slowest, &make, &keep);
            scope.spawn(move || {
                loop {
                    let seed = next.fetch_add(1, Ordering::Relaxed);
                    if seed >= from + count {
                        return;
                    }
                    let mutant = make(&mut Draw(seed as u64));
                    fs::write(&path, &mutant.bytes).expect("a file");
                    let start = Instant::now();
                    let fate = fate_of(&path, &mutant.bytes, if mutant.judged { judge } else { |_, _| None });
                    let took = start.elapsed();
                    let mut slowest = slowest.lock().expect("a lock");
                    *slowest = (*slowest).max((took, seed));
                    drop(slowest);
                    let at = match fate {
                        Fate::Refused => 0,
                        Fate::Read => 1,
                        Fate::Judged => 2,
                        Fate::Large => 3,
                        Fate::Wrong(why) => {
                            if let Some(folder) = keep {
                                fs::copy(&path, folder.join(format!("wrong{seed}.{format}"))).expect("a copy");
                            }
                            let told = format!("{format} mutant {seed} of {}: {why}", mutant.original);
                            println!("{told}");
                            wrong.lock().expect("a lock").push(told);
                            continue;
                        }
                    };
                    fates.lock().expect("a lock")[at] += 1;
                }
            });
        }
    });
    let [refused, read, judged, large] = fates.into_inner().expect("a lock");
    let (wrong, (slowest, seed)) = (wrong.into_inner().expect("a lock"), slowest.into_inner().expect("a lock"));
    println!(
        "{count} mutants of {format}: {refused} refused, {} read, of which {judged} compute what the judge does, {read} have no judge, {large} are too large to \
         evaluate; {} wrong; the slowest took {slowest:.1?} (seed {seed}); peak of memory {}",
        read + judged + large,
        wrong.len(),
        peak_memory(),
    );
    assert!(wrong.is_empty(), "{} wrong:\n{}", wrong.len(), wrong.join("\n"));
    assert!(refused > 0 && read + judged > 0, "all or none were refused");
}

/// Linux's record of the process's largest resident memory.
fn peak_memory() -> String {
    let status = fs::read_to_string("/proc/self/status").unwrap_or_default();
    let line = status.lines().find_map(|line| line.strip_prefix("VmHWM:"));
    line.map_or("unknown".into(), |line| line.trim().to_owned())
}

fn fate_of(path: &Path, bytes: &[u8], judge: Judge) -> Fate {
    let start = Instant::now();
    let Some(importer) = importer_of(path) else { return Fate::Refused };
    let read = catch_unwind(AssertUnwindSafe(|| import(importer, path, &Ask::default())));
    if start.elapsed() > PATIENCE {
        return Fate::Wrong(format!("reading it takes {:?}", start.elapsed()));
    }
    match read {
        Err(_) => Fate::Wrong("panics".into()),
        Ok(Err(problems)) => {
            let text = problems.to_string();
            let name = path.file_name().unwrap_or_default().to_string_lossy();
            if text.contains(&*name) && !text.contains("defect") { Fate::Refused } else { Fate::Wrong(text) }
        }
        Ok(Ok(imported)) => catch_unwind(AssertUnwindSafe(|| evaluated(&imported, bytes, judge)))
            .unwrap_or_else(|_| Fate::Wrong("the evaluation panics".into())),
    }
}

fn evaluated(imported: &Imported, bytes: &[u8], judge: Judge) -> Fate {
    let f = &imported.module.functions[0];
    let (mut flops, mut largest) = (0u64, 0);
    for v in f.order() {
        flops = flops.saturating_add(f.cost(v).flops);
        largest = largest.max(f.ty(v).elements());
    }
    if flops > WORK || largest > LARGEST {
        return Fate::Large;
    }
    let inputs: BTreeMap<String, Tensor> = f.params().iter().map(|p| input(f, *p)).collect();
    let of = |inputs: &BTreeMap<String, Tensor>| {
        let params: HashMap<String, Tensor> = inputs.clone().into_iter().collect();
        run(f, &imported.weights, &Bindings { params, ..Bindings::default() })
    };
    let found = match of(&inputs) {
        Ok(found) => found,
        // An id that is computed or drawn beyond its table.
        Err(error) if error.to_string().contains("out of range") => return Fate::Read,
        Err(error) => return Fate::Wrong(format!("does not run: {error}")),
    };
    let Some(expected) = judge(bytes, &inputs) else { return Fate::Read };
    if found.len() != expected.len() {
        return Fate::Wrong(format!("{} results, the judge has {}", found.len(), expected.len()));
    }
    // How far the results move if the inputs do, by as much as fp32 rounds: what the judge computes in fp32 may be off by some of that.
    let nudged = inputs.iter().map(|(name, x)| (name.clone(), nudged(x))).collect();
    let Ok(moved) = of(&nudged) else { return Fate::Read };
    let mut compared = false;
    for (i, ((x, y), z)) in found.iter().zip(&expected).zip(&moved).enumerate() {
        if x.data.shape() != y.data.shape() {
            return Fate::Wrong(format!("result {i}: found {:?}, the judge has {:?}", x.data.shape(), y.data.shape()));
        }
        // Beyond these numbers, fp32 and float64 tell different stories, and masks are made smaller than they were written.
        if y.data.iter().chain(&x.data).any(|y| !y.is_finite() || y.abs() > 1e4) {
            continue;
        }
        let square = |values: &mut dyn Iterator<Item = f64>| values.map(|x| x * x).sum::<f64>().sqrt();
        let off = square(&mut x.data.iter().zip(&y.data).map(|(x, y)| x - y));
        let swing = square(&mut x.data.iter().zip(&z.data).map(|(x, z)| x - z));
        let size = square(&mut y.data.iter().copied());
        if off > 1e-3 * size + 30.0 * swing + 1e-5 {
            let first =
                x.data.iter().zip(&y.data).position(|(x, y)| (x - y).abs() > 1e-3 * y.abs() + 1e-5).unwrap_or(0);
            let pick = |t: &Tensor| t.data.iter().nth(first).copied().unwrap_or(f64::NAN);
            return Fate::Wrong(format!(
                "result {i}: {:.1e} off, element {first} is {} and the judge's {}",
                off / size.max(1e-30),
                pick(x),
                pick(y)
            ));
        }
        compared = true;
    }
    if compared { Fate::Judged } else { Fate::Read }
}

/// Values that look random: numbers around 0, small ids.
fn input(f: &Function, p: ValueId) -> (String, Tensor) {
    let ty = f.ty(p);
    let name = f.node(p).name.as_deref().unwrap_or_default().to_owned();
    let mut draw = Draw(name.bytes().map(u64::from).sum());
    let number = |draw: &mut Draw| match ty.dtype {
        DType::Bool => draw.next(2) as f64,
        dtype if dtype.is_float() => f64::from((draw.next(1 << 16) as f32 / 32768.0 - 1.0) * 1.5),
        _ => draw.next(3) as f64,
    };
    let values = (0..ty.elements()).map(|_| number(&mut draw)).collect();
    (name, Tensor::from_values(ty, values).expect("as many values as elements"))
}

fn nudged(x: &Tensor) -> Tensor {
    if !x.dtype.is_float() {
        return x.clone();
    }
    let mut sign = 1.0;
    let data = x.data.mapv(|x| {
        sign = -sign;
        x + sign * 1e-6 * (x.abs() + 0.1)
    });
    Tensor { dtype: x.dtype, data }
}
