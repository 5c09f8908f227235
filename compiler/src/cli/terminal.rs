//! All that is printed goes through here. Names and texts out of strangers' files must not command the terminal: what has no
//! shape of its own (control characters, DEL, marks that turn the direction of writing) is shown as an escape.

use std::cell::RefCell;
use std::io::{self, Write};
use std::sync::Arc;

use anyhow::Context as _;

use super::call::Listener;
use super::style;
use crate::errors;

thread_local! {
    /// Who hears what this thread prints, in place of the terminal.
    static HEARD: RefCell<Option<Heard>> = const { RefCell::new(None) };
}

struct Heard {
    listener: Arc<dyn Listener>,
    printed: String,
}

/// Runs `work` with a listener in place of the terminal. Returns what it returns, and what it printed on standard output.
pub(super) fn heard<T>(listener: Arc<dyn Listener>, work: impl FnOnce() -> T) -> (T, String) {
    HEARD.set(Some(Heard { listener, printed: String::new() }));
    let done = work();
    let printed = HEARD.take().map(|heard| heard.printed);
    (done, printed.unwrap_or_default())
}

/// Who hears what this thread prints.
pub(super) fn listener() -> Option<Arc<dyn Listener>> {
    HEARD.with_borrow(|heard| heard.as_ref().map(|heard| Arc::clone(&heard.listener)))
}

/// Whether what this thread prints goes to a listener.
pub(super) fn is_heard() -> bool {
    HEARD.with_borrow(Option::is_some)
}

/// Prints a report on standard output; a reader that went away (`| head`) is not an error.
pub(super) fn print_line(text: &str) -> anyhow::Result<()> {
    print_script(&visible(text))
}

/// Prints a report as JSON on standard output.
pub(super) fn print_json(report: &impl serde::Serialize) -> anyhow::Result<()> {
    print_script(&json(&serde_json::to_string_pretty(report)?))
}

/// Prints text of this program alone as it is, tabs and all.
pub(super) fn print_script(text: &str) -> anyhow::Result<()> {
    let is_taken = HEARD.with_borrow_mut(|heard| {
        if let Some(heard) = heard {
            heard.printed += text;
            heard.printed.push('\n');
        }
        heard.is_some()
    });
    if is_taken {
        return Ok(());
    }
    match writeln!(io::stdout(), "{text}") {
        Err(e) if e.kind() == io::ErrorKind::BrokenPipe => Ok(()),
        done => done.context("cannot write to standard output"),
    }
}

/// Prints an error on standard error, and where more is said about it.
pub(super) fn print_error(message: &str) {
    print_failure(&anyhow::anyhow!("{message}"));
}

/// Prints an error with its causes on standard error, and where more is said about it.
pub(super) fn print_failure(error: &anyhow::Error) {
    let (message, class) = (format!("{error:#}"), errors::class(error));
    let more = class.map(|class| format!("\nhelp: s2ditc explain {}", class.id));
    print_note(&format!("error: {message}{}", more.unwrap_or_default()));
}

/// Prints a warning or a note on standard error. Its other lines are indented: none of them can pass for a line of another kind.
pub(super) fn print_note(text: &str) {
    print_rows(&indented(text));
}

/// Prints a table on standard error, to which nobody may listen.
pub(super) fn print_rows(text: &str) {
    if let Some(listener) = listener() {
        listener.note(&visible(text));
        return;
    }
    // Not `eprintln`, which panics if standard error is closed or full.
    let _ = writeln!(io::stderr(), "{}", visible(text));
}

/// The text with two spaces or more before every line but the first.
fn indented(text: &str) -> String {
    let mut lines = text.lines();
    let mut out = lines.next().unwrap_or_default().to_string();
    for line in lines {
        out += if line.starts_with("  ") { "\n" } else { "\n  " };
        out += line;
    }
    out
}

/// The text with every character that does not print as an escape; line breaks and the colours of [`style`] stay.
pub(super) fn visible(text: &str) -> String {
    let mut out = String::with_capacity(text.len());
    let mut rest = text;
    while let Some(c) = rest.chars().next() {
        let colour = style::escape(rest);
        match escape(c) {
            _ if colour > 0 => out += &rest[..colour],
            Some(escape) if c != '\n' => out += &escape,
            _ => out.push(c),
        }
        rest = &rest[colour.max(c.len_utf8())..];
    }
    out
}

/// A name or text as one line: a line break in it must not begin a line of the report.
pub(super) fn one_line(text: &str) -> String {
    text.chars().map(|c| escape(c).unwrap_or_else(|| c.into())).collect()
}

/// JSON text with the characters that do not print as JSON's escapes. They stand in strings only, and `serde_json` has
/// escaped those below the space.
fn json(text: &str) -> String {
    let mut out = String::with_capacity(text.len());
    for c in text.chars() {
        if c == '\n' || escape(c).is_none() {
            out.push(c);
        } else {
            let mut units = [0; 2];
            for unit in c.encode_utf16(&mut units) {
                out += &format!("\\u{unit:04x}");
            }
        }
    }
    out
}

/// The escape of a character that does not print.
fn escape(c: char) -> Option<String> {
    if matches!(c, ' '..='~') {
        return None;
    }
    // Marks that combine with the character before them print, if there is one.
    let with_base: String = ['a', c].into_iter().collect();
    let escaped = with_base.escape_debug().skip(1).collect::<String>();
    (escaped.chars().ne([c])).then_some(escaped)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn nothing_in_a_text_commands_the_terminal() {
        assert_eq!(visible("a\u{1b}[2J\u{7f}\u{9b}1m\u{202e}b\rc\td"), "a\\u{1b}[2J\\u{7f}\\u{9b}1m\\u{202e}b\\rc\\td");
        let fine = "μ × 3 — “größer” 中文 e\u{301} \"quoted\" 'single' C:\\path\nline";
        assert_eq!(visible(fine), fine);
        for c in (0..=0x10_ffff).filter_map(char::from_u32).filter(|c| c.is_control() && *c != '\n') {
            assert!(!visible(&c.to_string()).contains(c), "{c:?}");
        }
        for c in "\u{61c}\u{200e}\u{200f}\u{202a}\u{202d}\u{2066}\u{2069}\u{2028}\u{feff}\u{e0001}".chars() {
            assert!(!visible(&c.to_string()).contains(c), "{c:?}");
        }
    }

    #[test]
    fn json_says_the_same_with_escapes() {
        let text = "a\u{7f}\u{202e}\u{e0001}\n\u{1b}é";
        let printed = json(&serde_json::to_string_pretty(&[text]).unwrap());
        assert_eq!(serde_json::from_str::<Vec<String>>(&printed).unwrap(), [text]);
        assert!(printed.contains("\\u007f\\u202e\\udb40\\udc01") && printed.contains('é'), "{printed}");
    }

    #[test]
    fn lines_of_an_error_are_indented() {
        assert_eq!(indented("2 problems:\n  - a\n  - b"), "2 problems:\n  - a\n  - b");
        assert_eq!(indented("`x\npassed`: no"), "`x\n  passed`: no");
    }
}
