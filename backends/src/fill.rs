//! Constants to their places in a file, on every thread: each takes the next block, reads, converts and writes it.
//!
//! ```text
//! thread 1   block 0 ─ read, hash, convert ─ write, and what lies ready   block 3 ─ read, hash, convert ─ …
//! thread 2   block 1 ─ read, hash, convert   block 2 ─ read, hash, convert ─ write …
//! ```
//! The places are known before, so blocks are written as they are done. Which thread computes a block changes no byte. One thread writes at a
//! time: a file system takes a lock on the file for each write, and a thread that waits for it does nothing. A block that is done while another is
//! being written lies ready for the thread that writes.

use std::fs::File;
use std::io;
use std::sync::atomic::{AtomicU64, AtomicUsize, Ordering};
use std::sync::{Arc, Condvar, Mutex, MutexGuard, PoisonError, TryLockError};

use s2dit_ir::convert::Broken;
use s2dit_ir::weights::{Blocks, Written};
use s2dit_ir::{Function, ValueId, WeightError, WeightSource};

/// A constant and where its bytes begin in the file.
#[derive(Clone, Copy, Debug)]
pub struct Place<'a> {
    /// The function that has the constant.
    pub function: &'a Function,
    /// The constant.
    pub value: ValueId,
    /// Its first byte in the file.
    pub at: u64,
}

/// Writes constants to their places in a file, with as many threads as rayon's pool has; returns what was seen of each, in order.
///
/// A constant that its dtype [cannot hold](Written::overflowed) ends the work: of those after it, not everything may have been
/// seen and written. `progress` gets the bytes written so far; `wrote` gets, from any thread, where bytes were written and how many.
///
/// # Errors
/// The first constant that fails, by its number, if none before it overflows; see [`WeightError`].
pub fn fill(
    file: &File,
    places: &[Place<'_>],
    source: &dyn WeightSource,
    wrote: &(dyn Fn(u64, u64) + Sync),
    progress: &mut dyn FnMut(u64),
) -> Result<Vec<Written>, (usize, WeightError)> {
    let work = Work {
        file,
        wrote,
        places,
        source,
        queue: Mutex::new(Queue { place: 0, block: 0, current: None }),
        last: AtomicUsize::new(usize::MAX),
        done: AtomicU64::new(0),
        written: places.iter().map(|_| Mutex::default()).collect(),
        failure: Mutex::new(None),
        room: Room::default(),
        writing: Mutex::new(()),
        ready: Mutex::default(),
    };
    std::thread::scope(|scope| {
        for _ in 1..rayon::current_num_threads() {
            scope.spawn(|| work.run(&mut |_| {}));
        }
        work.run(progress);
    });
    // The other threads may have written the last blocks.
    progress(work.done.load(Ordering::Relaxed));
    let written = work.written.into_iter().map(|w| w.into_inner().unwrap_or_else(PoisonError::into_inner));
    let written: Vec<Written> = written.collect();
    let overflow = written.iter().position(|w| w.overflowed > 0);
    match work.failure.into_inner().unwrap_or_else(PoisonError::into_inner) {
        Some(failure) if overflow.is_none_or(|index| failure.0 < index) => Err(failure),
        _ => Ok(written),
    }
}

/// What the threads share.
struct Work<'a> {
    file: &'a File,
    /// Hears of every block that was written.
    wrote: &'a (dyn Fn(u64, u64) + Sync),
    places: &'a [Place<'a>],
    source: &'a dyn WeightSource,
    queue: Mutex<Queue<'a>>,
    /// Constants after this one are not worth writing any more.
    last: AtomicUsize,
    /// Bytes written.
    done: AtomicU64,
    written: Vec<Mutex<Written>>,
    /// The failure of the first constant that failed. Blocks are taken in order, so those of earlier constants are all tried.
    failure: Mutex<Option<(usize, WeightError)>>,
    room: Room,
    /// Held by who writes.
    writing: Mutex<()>,
    ready: Mutex<Ready<'a>>,
}

/// Room for large values in float64: several constants are computed at once, as long as together they stay below a bound, or one that is larger.
#[derive(Default)]
struct Room {
    /// Elements that are held.
    held: Mutex<usize>,
    freed: Condvar,
}

/// Some of the [`Room`], until it is dropped.
struct Taken<'a> {
    room: &'a Room,
    elements: usize,
}

impl Room {
    /// Elements that several constants may hold: 48 MB.
    const MOST: usize = 6 << 20;

    /// Waits until there is room.
    fn take(&self, elements: usize) -> Taken<'_> {
        let full = |held: &mut usize| elements > 0 && *held > 0 && *held + elements > Room::MOST;
        let held = self.freed.wait_while(lock(&self.held), full);
        *held.unwrap_or_else(PoisonError::into_inner) += elements;
        Taken { room: self, elements }
    }
}

impl Drop for Taken<'_> {
    fn drop(&mut self) {
        *lock(&self.room.held) -= self.elements;
        self.room.freed.notify_all();
    }
}

/// Blocks that are computed and not written.
#[derive(Default)]
struct Ready<'a> {
    blocks: Vec<Computed<'a>>,
    /// Bytes of the blocks, also of those that are being written.
    bytes: usize,
    /// Buffers of blocks that were written.
    free: Vec<Vec<u8>>,
}

impl Ready<'_> {
    /// Bytes that may lie ready; who computes more waits until they are written.
    const MOST: usize = 16 << 20;
}

/// A block that is computed.
struct Computed<'a> {
    constant: Arc<Constant<'a>>,
    bytes: Vec<u8>,
    /// First byte in the file.
    at: u64,
    broken: Broken,
}

/// The next block.
struct Queue<'a> {
    place: usize,
    block: usize,
    current: Option<Arc<Constant<'a>>>,
}

/// A constant whose blocks are being taken.
struct Constant<'a> {
    index: usize,
    blocks: Blocks<'a>,
    /// Elements in float64 that computing a block takes.
    held: usize,
    /// Blocks that are not written yet.
    left: AtomicUsize,
}

impl<'a> Work<'a> {
    fn run(&self, progress: &mut dyn FnMut(u64)) {
        let mut buffer = Vec::new();
        while let Some((constant, block)) = self.next() {
            if let Err(error) = self.block(&constant, block, &mut buffer) {
                self.fail(&constant, error);
            }
            progress(self.done.load(Ordering::Relaxed));
        }
        // What another thread left while this one wrote.
        let writing = lock(&self.writing);
        self.write_ready();
        drop(writing);
        progress(self.done.load(Ordering::Relaxed));
    }

    fn fail(&self, constant: &Constant<'_>, error: WeightError) {
        self.last.fetch_min(constant.index, Ordering::Relaxed);
        let mut failure = lock(&self.failure);
        if failure.as_ref().is_none_or(|(index, _)| constant.index < *index) {
            *failure = Some((constant.index, error));
        }
        drop(failure);
        constant.passed();
    }

    /// Takes the next block.
    fn next(&self) -> Option<(Arc<Constant<'a>>, usize)> {
        let mut queue = lock(&self.queue);
        loop {
            if queue.place >= self.places.len() || queue.place > self.last.load(Ordering::Relaxed) {
                queue.current = None;
                return None;
            }
            let constant = match &queue.current {
                Some(constant) => Arc::clone(constant),
                None => {
                    let Place { function, value, .. } = self.places[queue.place];
                    let blocks = Blocks::new(function, value, self.source);
                    let (held, left) = (blocks.held(), AtomicUsize::new(blocks.count()));
                    let constant = Arc::new(Constant { index: queue.place, blocks, held, left });
                    queue.current = Some(Arc::clone(&constant));
                    constant
                }
            };
            if queue.block < constant.blocks.count() {
                queue.block += 1;
                return Some((constant, queue.block - 1));
            }
            (queue.place, queue.block, queue.current) = (queue.place + 1, 0, None);
        }
    }

    /// Computes a block, and writes it or leaves it ready for who writes.
    fn block(&self, constant: &Arc<Constant<'a>>, block: usize, buffer: &mut Vec<u8>) -> Result<(), WeightError> {
        let room = self.room.take(constant.held);
        let block = constant.blocks.compute(block, buffer)?;
        drop(room);
        let (at, broken) = (self.places[constant.index].at + block.offset, block.broken);
        let len = block.bytes(buffer).len();
        if broken.overflowed > 0 {
            self.last.fetch_min(constant.index, Ordering::Relaxed);
        }
        let writing = match self.writing.try_lock() {
            Ok(writing) => writing,
            Err(TryLockError::Poisoned(poisoned)) => poisoned.into_inner(),
            Err(TryLockError::WouldBlock) => {
                let mut ready = lock(&self.ready);
                if block.in_buffer() && ready.bytes + len <= Ready::MOST {
                    let bytes = std::mem::replace(buffer, ready.free.pop().unwrap_or_default());
                    ready.bytes += len;
                    ready.blocks.push(Computed { constant: Arc::clone(constant), bytes, at, broken });
                    return Ok(());
                }
                drop(ready);
                lock(&self.writing)
            }
        };
        self.write(constant, block.bytes(buffer), at, broken)?;
        self.write_ready();
        drop(writing);
        Ok(())
    }

    /// Writes what lies ready; the caller holds [`Work::writing`].
    fn write_ready(&self) {
        loop {
            let blocks = std::mem::take(&mut lock(&self.ready).blocks);
            if blocks.is_empty() {
                return;
            }
            for Computed { constant, bytes, at, broken } in blocks {
                if let Err(error) = self.write(&constant, &bytes, at, broken) {
                    self.fail(&constant, error);
                }
                let mut ready = lock(&self.ready);
                ready.bytes -= bytes.len();
                ready.free.push(bytes);
            }
        }
    }

    fn write(&self, constant: &Constant<'_>, bytes: &[u8], at: u64, broken: Broken) -> Result<(), WeightError> {
        write_at(self.file, bytes, at)?;
        (self.wrote)(at, bytes.len() as u64);
        lock(&self.written[constant.index]).add(bytes.len() as u64, broken);
        self.done.fetch_add(bytes.len() as u64, Ordering::Relaxed);
        constant.passed();
        Ok(())
    }
}

impl Constant<'_> {
    /// Notes that a block is written, or will never be.
    fn passed(&self) {
        if self.left.fetch_sub(1, Ordering::AcqRel) == 1 {
            self.blocks.done();
        }
    }
}

fn lock<T>(mutex: &Mutex<T>) -> MutexGuard<'_, T> {
    mutex.lock().unwrap_or_else(PoisonError::into_inner)
}

/// Writes all bytes at an offset; threads do not disturb each other.
///
/// # Errors
/// The operating system's.
#[cfg(unix)]
pub fn write_at(file: &File, bytes: &[u8], at: u64) -> io::Result<()> {
    std::os::unix::fs::FileExt::write_all_at(file, bytes, at)
}

/// Writes all bytes at an offset; threads do not disturb each other.
///
/// # Errors
/// The operating system's.
#[cfg(windows)]
pub fn write_at(file: &File, bytes: &[u8], at: u64) -> io::Result<()> {
    use std::os::windows::fs::FileExt;
    let (mut rest, mut at) = (bytes, at);
    while !rest.is_empty() {
        match file.seek_write(rest, at) {
            Ok(0) => return Err(io::ErrorKind::WriteZero.into()),
            Ok(n) => (rest, at) = (&rest[n..], at + n as u64),
            Err(e) if e.kind() == io::ErrorKind::Interrupted => {}
            Err(e) => return Err(e),
        }
    }
    Ok(())
}

/// Reads bytes at an offset until the buffer is full.
///
/// # Errors
/// The operating system's; an end too early.
#[cfg(unix)]
pub fn read_at(file: &File, bytes: &mut [u8], at: u64) -> io::Result<()> {
    std::os::unix::fs::FileExt::read_exact_at(file, bytes, at)
}

/// Reads bytes at an offset until the buffer is full.
///
/// # Errors
/// The operating system's; an end too early.
#[cfg(windows)]
pub fn read_at(file: &File, bytes: &mut [u8], at: u64) -> io::Result<()> {
    use std::os::windows::fs::FileExt;
    let (mut rest, mut at) = (bytes, at);
    while !rest.is_empty() {
        match file.seek_read(rest, at) {
            Ok(0) => return Err(io::ErrorKind::UnexpectedEof.into()),
            Ok(n) => (rest, at) = (&mut rest[n..], at + n as u64),
            Err(e) if e.kind() == io::ErrorKind::Interrupted => {}
            Err(e) => return Err(e),
        }
    }
    Ok(())
}

#[cfg(test)]
mod tests {
    use std::borrow::Cow;
    use std::collections::BTreeMap;
    use std::io::{Read, Seek};

    use s2dit_ir::weights::constant_bytes;
    use s2dit_ir::{Builder, DType, TensorType};

    use super::*;

    /// fp32 tensors.
    #[derive(Default)]
    struct Source {
        tensors: BTreeMap<String, Vec<u8>>,
        visited: Mutex<BTreeMap<String, Vec<(u64, usize)>>>,
    }

    impl Source {
        fn with(mut self, name: &str, values: impl Iterator<Item = f32>) -> Self {
            self.tensors.insert(name.into(), values.flat_map(f32::to_le_bytes).collect());
            self
        }
    }

    impl WeightSource for Source {
        fn ty(&self, name: &str) -> Option<TensorType> {
            self.tensors.get(name).map(|bytes| TensorType::new(DType::F32, [bytes.len() / 4]))
        }
        fn bytes(&self, name: &str) -> Result<Cow<'_, [u8]>, WeightError> {
            let missing = || WeightError::Missing { name: name.into() };
            self.tensors.get(name).map(Cow::from).ok_or_else(missing)
        }
        fn visit(&self, name: &str, offset: u64, bytes: &[u8]) {
            lock(&self.visited).entry(name.into()).or_default().push((offset, bytes.len()));
        }
    }

    const N: usize = 500_000;

    fn values(seed: usize) -> impl Iterator<Item = f32> {
        (0..N).map(move |i| ((i * 7919 + seed) % 4093) as f32 / 100.0 - 20.0)
    }

    /// fp16 constants: `a` converted, `a` and `b` joined, `a · 0.3` computed, `b` as it is stored.
    fn constants() -> (Function, Vec<ValueId>) {
        let mut f = Function::new("main");
        let ty = TensorType::new(DType::F32, [N]);
        let mut b = Builder::new(&mut f);
        let (one, two) = (b.load("a", &ty).unwrap(), b.load("b", &ty).unwrap());
        let joined = b.concat(&[one, two], 0).unwrap();
        let factor = b.scalar_like(one, 0.3).unwrap();
        let product = b.mul(one, factor).unwrap();
        let halves = [one, joined, product].map(|v| b.cast(v, DType::F16).unwrap());
        (f, [halves.as_slice(), &[two]].concat())
    }

    fn filled(
        f: &Function,
        constants: &[ValueId],
        source: &Source,
    ) -> Result<(Vec<u8>, Vec<Written>), (usize, WeightError)> {
        let (mut at, mut places) = (64, Vec::new());
        for &value in constants {
            places.push(Place { function: f, value, at });
            at += f.ty(value).bytes() as u64 + 64;
        }
        let mut file = tempfile::tempfile().unwrap();
        file.set_len(at).unwrap();
        let mut last = 0;
        let written = fill(&file, &places, source, &|_, _| {}, &mut |done| {
            assert!(done >= last);
            last = done;
        })?;
        file.rewind().unwrap();
        let mut bytes = Vec::new();
        file.read_to_end(&mut bytes).unwrap();
        Ok((bytes, written))
    }

    fn on_threads<T: Send>(threads: usize, run: impl FnOnce() -> T + Send) -> T {
        rayon::ThreadPoolBuilder::new().num_threads(threads).build().unwrap().install(run)
    }

    #[test]
    fn constants_are_in_their_places_whatever_the_number_of_threads() {
        let (f, constants) = constants();
        for threads in [1, 2, 5] {
            let source = Source::default().with("a", values(1)).with("b", values(2));
            let (bytes, written) = on_threads(threads, || filled(&f, &constants, &source)).unwrap();
            let mut want = vec![0; 64];
            for (&v, written) in constants.iter().zip(&written) {
                let bytes = constant_bytes(&f, v, &source).unwrap();
                assert_eq!(*written, Written { bytes: bytes.len() as u64, ..Written::default() });
                want.extend(bytes);
                want.extend([0; 64]);
            }
            assert!(bytes == want, "{threads} threads");
        }
    }

    /// What hashes on the way sees every byte.
    #[test]
    fn every_byte_that_is_stored_is_visited() {
        let (f, constants) = constants();
        let source = Source::default().with("a", values(1)).with("b", values(2));
        on_threads(2, || filled(&f, &constants[2..], &source)).unwrap();
        for name in ["a", "b"] {
            let mut visits = lock(&source.visited).remove(name).unwrap();
            visits.sort_unstable();
            let end = visits.iter().fold(0, |end, &(offset, bytes)| {
                assert_eq!(offset, end, "`{name}` is visited once, without gaps");
                end + bytes as u64
            });
            assert_eq!(end, 4 * N as u64);
        }
    }

    /// The one that a single thread would meet first.
    #[test]
    fn the_first_failure_is_told() {
        let (f, constants) = constants();
        for threads in [1, 2, 5] {
            for _ in 0..10 {
                let source = Source::default().with("a", values(1));
                let (index, error) = on_threads(threads, || filled(&f, &constants, &source)).unwrap_err();
                assert_eq!((index, error.to_string().as_str()), (1, "tensor `b`: not in the weight source"));
                // Too large for fp16, in the last block: all of it is counted, what fails later is not told.
                let large = values(1).enumerate().map(|(i, x)| if i + 3 > N { 1e6 } else { x });
                let source = Source::default().with("a", large);
                let (_, written) = on_threads(threads, || filled(&f, &constants, &source)).unwrap();
                assert_eq!((written[0].non_finite, written[0].overflowed), (2, 2));
            }
        }
    }

    /// Nothing waits for ever, either.
    #[test]
    fn there_is_room_for_several_or_for_one_that_is_larger() {
        let room = Room::default();
        let several = [Room::MOST / 2, Room::MOST / 2].map(|elements| room.take(elements));
        drop(several);
        let larger = room.take(2 * Room::MOST);
        std::thread::scope(|scope| {
            let waits = scope.spawn(|| drop(room.take(1)));
            scope.spawn(|| drop(room.take(0))).join().unwrap();
            assert!(!waits.is_finished(), "one is held that leaves no room");
            drop(larger);
            waits.join().unwrap();
        });
        assert_eq!(*lock(&room.held), 0);
    }
}
