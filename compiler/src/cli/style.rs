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

/// Whether standard output takes colour.
pub(super) fn is_coloured() -> bool {
    *COLOURED && !is_heard()
}

/// Ends every colour.
pub(super) const RESET: &str = "\x1b[0m";

/// Two pixels above each other as one character, in the 6×6×6 colours that every terminal with 256 colours has.
pub(super) fn half_blocks(upper: [u8; 3], lower: [u8; 3]) -> String {
    let cube = |[r, g, b]: [u8; 3]| {
        let [r, g, b] = [r, g, b].map(|level| (u16::from(level) * 5 + 127) / 255);
        16 + 36 * r + 6 * g + b
    };
    format!("\x1b[38;5;{};48;5;{}m▀", cube(upper), cube(lower))
}

/// The length of an escape of [`painted`] at the beginning of a text; 0 if there is none, or no colour at all.
pub(super) fn escape(text: &str) -> usize {
    let escapes = ["\x1b[32m", "\x1b[1;31m", "\x1b[33m", "\x1b[0m"];
    escapes.into_iter().find(|escape| *COLOURED && text.starts_with(escape)).map_or(0, str::len)
}

/// Text between the escapes of an SGR colour and the reset.
fn painted(text: &str, colour: &str) -> String {
    if is_coloured() { format!("\x1b[{colour}m{text}{RESET}") } else { text.into() }
}
