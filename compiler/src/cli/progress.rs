//! Progress of long work: a bar on a terminal, a few plain lines elsewhere, nothing when quiet. A [caller](super::call) hears of it instead.

use std::io::IsTerminal;
use std::sync::{Arc, Mutex};
use std::time::{Duration, Instant};

use indicatif::{ProgressBar, ProgressStyle};
use s2dit_files::size;

use super::call::{Listener, stop};
use super::terminal::{listener, print_note, visible};

/// Progress in bytes. Updates may come from several threads.
pub struct Progress {
    kind: Kind,
}

enum Kind {
    Quiet,
    Bar(ProgressBar),
    Told { listener: Arc<dyn Listener>, label: String, last: Mutex<Option<Instant>> },
    Lines { label: String, unit: Unit, begun: Instant, last: Mutex<Instant> },
}

enum Unit {
    Bytes,
    Calls,
}

/// Plain lines are at least this far apart, so that short work prints none.
const LINE_EVERY: Duration = Duration::from_secs(5);

/// A listener is told at most so often, and of the end.
const TELL_EVERY: Duration = Duration::from_millis(100);

impl Progress {
    /// Progress of the work called `label`, on standard error.
    #[must_use]
    pub fn bytes(label: &str, quiet: bool) -> Progress {
        let bar = "{msg:>10} [{bar:32}] {bytes}/{total_bytes} {bytes_per_sec} {eta}";
        Progress::new(label, bar, Unit::Bytes, quiet)
    }

    /// Progress in calls of a model; see [`Progress::say`].
    #[must_use]
    pub fn calls(label: &str, quiet: bool) -> Progress {
        Progress::new(label, "[{bar:32}] {msg} {eta}", Unit::Calls, quiet)
    }

    fn new(label: &str, template: &str, unit: Unit, quiet: bool) -> Progress {
        let kind = if quiet {
            Kind::Quiet
        } else if let Some(listener) = listener() {
            Kind::Told { listener, label: label.into(), last: Mutex::default() }
        } else if std::io::stderr().is_terminal() {
            let bar = ProgressBar::new(0);
            if let Ok(style) = ProgressStyle::with_template(template) {
                bar.set_style(style.progress_chars("━╸─"));
            }
            bar.set_message(visible(label));
            Kind::Bar(bar)
        } else {
            let begun = Instant::now();
            Kind::Lines { label: label.into(), unit, begun, last: Mutex::new(begun) }
        };
        Progress { kind }
    }

    /// `done` of `total` calls; `text` says where the work is.
    pub fn say(&self, done: u64, total: u64, text: impl FnOnce() -> String) {
        match &self.kind {
            Kind::Quiet => {}
            Kind::Bar(bar) => {
                bar.set_length(total);
                bar.set_position(done);
                bar.set_message(visible(&text()));
            }
            Kind::Told { listener, last, .. } => tell(listener.as_ref(), last, done, total, &text()),
            Kind::Lines { begun, last, .. } => {
                let mut last = last.lock().unwrap_or_else(std::sync::PoisonError::into_inner);
                if last.elapsed() >= LINE_EVERY {
                    *last = Instant::now();
                    print_note(&format!("{}{}", text(), left(begun.elapsed(), done, total)));
                }
            }
        }
    }

    /// Prints a line above the bar.
    pub fn above(&self, line: &str) {
        match &self.kind {
            Kind::Bar(bar) => bar.suspend(|| print_note(line)),
            Kind::Told { listener, .. } => listener.note(&visible(line)),
            Kind::Quiet | Kind::Lines { .. } => print_note(line),
        }
    }

    /// `done` of `total` bytes or calls.
    pub fn set(&self, done: u64, total: u64) {
        match &self.kind {
            Kind::Quiet => {}
            Kind::Bar(bar) => {
                bar.set_length(total);
                bar.set_position(done);
            }
            Kind::Told { listener, label, last } => tell(listener.as_ref(), last, done, total, label),
            Kind::Lines { label, unit, begun, last } => {
                let mut last = last.lock().unwrap_or_else(std::sync::PoisonError::into_inner);
                if last.elapsed() >= LINE_EVERY {
                    *last = Instant::now();
                    let left = left(begun.elapsed(), done, total);
                    match unit {
                        Unit::Bytes => print_note(&format!("{label}: {} of {}{left}", size(done), size(total))),
                        Unit::Calls => print_note(&format!("{label}: {done} of {total}{left}")),
                    }
                }
            }
        }
    }
}

/// Tells a listener how far the work is, and unwinds if it wants no more of it.
fn tell(listener: &dyn Listener, last: &Mutex<Option<Instant>>, done: u64, total: u64, text: &str) {
    {
        let mut last = last.lock().unwrap_or_else(std::sync::PoisonError::into_inner);
        if done < total && last.is_some_and(|last| last.elapsed() < TELL_EVERY) {
            return;
        }
        *last = Some(Instant::now());
    }
    if listener.progress(done, total, &visible(text)).is_break() {
        stop();
    }
}

impl Drop for Progress {
    fn drop(&mut self) {
        if let Kind::Bar(bar) = &self.kind {
            bar.finish_and_clear();
        }
    }
}

/// The time that is left if the work goes on as it went: `, about 4 min left`. Nothing before there is something to go by.
fn left(elapsed: Duration, done: u64, total: u64) -> String {
    if done == 0 || done >= total {
        return String::new();
    }
    let seconds = elapsed.as_secs_f64() * (total - done) as f64 / done as f64;
    match seconds {
        s if s < 90.0 => format!(", about {s:.0} s left"),
        s if s < 5400.0 => format!(", about {:.0} min left", s / 60.0),
        s => format!(", about {:.1} h left", s / 3600.0),
    }
}

/// A count for people: `1.97 G`, `40.1 M`, `3012`.
#[must_use]
pub fn count(n: u64) -> String {
    let value = n as f64;
    match n {
        0..10_000 => n.to_string(),
        10_000..1_000_000 => format!("{:.1} k", value / 1e3),
        1_000_000..1_000_000_000 => format!("{:.1} M", value / 1e6),
        1_000_000_000..1_000_000_000_000 => format!("{:.2} G", value / 1e9),
        _ => format!("{:.2} T", value / 1e12),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn what_is_left_is_estimated() {
        let left = |seconds, done, total| left(Duration::from_secs(seconds), done, total);
        assert_eq!(left(10, 0, 64), "");
        assert_eq!(left(10, 64, 64), "");
        assert_eq!(left(10, 1, 4), ", about 30 s left");
        assert_eq!(left(60, 1, 6), ", about 5 min left");
        assert_eq!(left(3600, 1, 4), ", about 3.0 h left");
    }

    #[test]
    fn counts_are_short() {
        assert_eq!(count(1_966_000_000), "1.97 G");
        assert_eq!(count(40_120_000), "40.1 M");
        assert_eq!(count(3012), "3012");
    }
}
