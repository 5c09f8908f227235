//! What happens to half-written outputs when the process must end early.

#![cfg(unix)]

use std::io::{self, PipeReader, Read, Write};
use std::os::fd::IntoRawFd;
use std::path::PathBuf;
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, AtomicI32, AtomicUsize, Ordering};
use std::thread;
use std::time::Duration;

use signal_hook::consts::{SIGHUP, SIGINT, SIGTERM, SIGXFSZ};

/// Makes the process end cleanly. Call it once, early in `main`.
///
/// - Told to stop (SIGINT, SIGTERM, SIGHUP): half-written outputs are removed, and it exits with 128 + the signal's number. A signal that whoever started the
///   process has it ignore, as `nohup` does, stays ignored.
/// - A mapped file that is cut short while it is read (SIGBUS): the same, with one error that names the file, and exit code 1.
///   A map is what lets weights stream at the disk's speed in little memory, and the system tells of a lost page in no other way. The
///   faulting thread cannot go on and can do hardly anything in a signal handler; it only wakes another thread, which does the rest.
/// - A file that would grow beyond the user's limit (SIGXFSZ): the write fails, as on a full disk.
///
/// # Errors
/// A handler that cannot be installed.
pub fn on_signals() -> io::Result<()> {
    signal_hook::flag::register(SIGXFSZ, Arc::new(AtomicBool::new(false)))?;
    let heard = [SIGINT, SIGTERM, SIGHUP].into_iter().filter(|signal| !is_ignored(*signal));
    let mut signals = signal_hook::iterator::Signals::new(heard)?;
    thread::Builder::new().name("signals".into()).spawn(move || {
        if let Some(signal) = signals.forever().next() {
            abandon(128 + signal, None);
        }
    })?;
    on_lost_pages()
}

/// Whether the process was started with a signal ignored.
fn is_ignored(signal: libc::c_int) -> bool {
    // SAFETY: a null action asks for the present one and changes nothing, and the structure is whole.
    unsafe {
        let mut now: libc::sigaction = std::mem::zeroed();
        libc::sigaction(signal, std::ptr::null(), &mut now) == 0 && now.sa_sigaction == libc::SIG_IGN
    }
}

/// Removes every half-written output and ends the process.
fn abandon(code: i32, error: Option<String>) -> ! {
    // Held until the end: from here on nothing is committed, and a writer that fails because its files
    // go waits here instead of ending the process with another exit code.
    let pending = super::pending();
    // The writer may still create files and folders while they go: again until they stay away.
    for _ in 0..500 {
        let there =
            pending.iter().filter(|path| super::remove(path).is_ok() || path.symlink_metadata().is_ok()).count();
        if there == 0 {
            break;
        }
        thread::sleep(Duration::from_millis(2));
    }
    if let Some(error) = error {
        let _ = writeln!(io::stderr(), "error: {error}\n  help: s2ditc explain E0007");
    }
    // Not `std::process::exit`: ONNX Runtime's destructors do not bear threads that still run.
    signal_hook::low_level::exit(code)
}

/// The address of the first lost page; 0 before.
static LOST: AtomicUsize = AtomicUsize::new(0);
/// Where the handler writes to wake the thread that ends the process.
static WAKE: AtomicI32 = AtomicI32::new(-1);

fn on_lost_pages() -> io::Result<()> {
    let (woken, wake) = io::pipe()?;
    WAKE.store(wake.into_raw_fd(), Ordering::SeqCst);
    thread::Builder::new().name("lost pages".into()).spawn(move || wait_for_lost_page(woken))?;
    // SAFETY: the handler keeps to what a signal handler may do, and the structure is whole. Not signal-hook, which first calls the
    // handler that was there before: Rust's own, which makes the next fault, of another thread, deadly.
    let done = unsafe {
        let mut action: libc::sigaction = std::mem::zeroed();
        action.sa_sigaction = on_bus_error as *const () as usize;
        action.sa_flags = libc::SA_SIGINFO | libc::SA_ONSTACK;
        libc::sigaction(libc::SIGBUS, &action, std::ptr::null_mut())
    };
    if done == 0 { Ok(()) } else { Err(io::Error::last_os_error()) }
}

extern "C" fn on_bus_error(_: libc::c_int, info: *mut libc::siginfo_t, _: *mut libc::c_void) {
    // SAFETY: the system passes valid information with SA_SIGINFO; `write` and `pause` may be called in a handler.
    unsafe {
        let at = (*info).si_addr() as usize;
        let _ = LOST.compare_exchange(0, at, Ordering::SeqCst, Ordering::SeqCst);
        libc::write(WAKE.load(Ordering::SeqCst), [1u8].as_ptr().cast(), 1);
        // The page is gone: to return would be to fault again.
        loop {
            libc::pause();
        }
    }
}

fn wait_for_lost_page(mut woken: PipeReader) {
    if woken.read_exact(&mut [0]).is_err() {
        return;
    }
    let file = mapped_file(LOST.load(Ordering::SeqCst));
    let file = file.map_or("a file".to_string(), |file| format!("`{}`", file.display()));
    abandon(
        1,
        Some(format!(
            "cannot read {file}: found it cut short while it was being read (or its disk failed), expected a file that stays as it \
             is; nothing was written"
        )),
    )
}

/// The file that is mapped at an address.
fn mapped_file(address: usize) -> Option<PathBuf> {
    let maps = std::fs::read_to_string("/proc/self/maps").ok()?;
    maps.lines().find_map(|line| {
        let (range, rest) = line.split_once(' ')?;
        let (begin, end) = range.split_once('-')?;
        let number = |hex| usize::from_str_radix(hex, 16).ok();
        let inside = (number(begin)?..number(end)?).contains(&address);
        let path = rest.get(rest.find('/')?..)?;
        inside.then(|| path.trim_end_matches(" (deleted)").into())
    })
}

#[cfg(all(test, target_os = "linux"))]
mod tests {
    use super::*;

    #[test]
    fn an_address_leads_to_its_file() {
        let dir = tempfile::tempdir().unwrap();
        let path = dir.path().join("a name with spaces");
        std::fs::write(&path, [7; 10_000]).unwrap();
        // SAFETY: nobody else has the file.
        let map = unsafe { memmap2::Mmap::map(&std::fs::File::open(&path).unwrap()) }.unwrap();
        assert_eq!(mapped_file(map.as_ptr() as usize + 9_999), Some(path.canonicalize().unwrap()));
        assert_eq!(mapped_file(0), None);
    }
}
