//! Colour on a terminal: none where output goes elsewhere, where `NO_COLOR` is set, or on a terminal that has none.

use std::io::IsTerminal;
use std::sync::LazyLock;

use super::terminal::is_heard;

/// Whether standard output takes colour. `NO_COLOR` counts if it is not empty (no-color.org).
static COLOURED: LazyLock<bool> = LazyLock::new(|| {
    let refused = std::env::var_os("NO_COLOR").is_some_and(|value| !value.is_empty());
    let dumb = std::env::var_os("TERM").is_some_and(|term| term == "dumb");
    std::io::stdout().is_terminal() && !refused && !dumb
});

/// What went well.
pub(super) fn good(text: &str) -> String {
    painted(text, "32")
}

/// What went wrong.
pub(super) fn bad(text: &str) -> String {
    painted(text, "1;31")
}

/// What a person should look at.
pub(super) fn doubtful(text: &str) -> String {
    painted(text, "33")
}

/// The length of an escape of [`painted`] at the beginning of a text; 0 if there is none, or no colour at all.
pub(super) fn escape(text: &str) -> usize {
    let escapes = ["\x1b[32m", "\x1b[1;31m", "\x1b[33m", "\x1b[0m"];
    escapes.into_iter().find(|escape| *COLOURED && text.starts_with(escape)).map_or(0, str::len)
}

/// Text between the escapes of an SGR colour and the reset.
fn painted(text: &str, colour: &str) -> String {
    if *COLOURED && !is_heard() { format!("\x1b[{colour}m{text}\x1b[0m") } else { text.into() }
}
