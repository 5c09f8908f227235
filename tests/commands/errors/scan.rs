//! Every message of an error that the sources can make, as it is written there: `{…}` stands for a value.

use std::fs;
use std::path::{Path, PathBuf};

use proc_macro2::{Delimiter, Group, TokenStream, TokenTree};

/// A message in the sources.
#[derive(Clone, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub struct Message {
    /// The file that makes it, from the root of the repository.
    pub file: String,
    /// The message, with `{}` for each value.
    pub text: String,
}

/// Folders of sources; `examples` and `tests` make no errors of the program.
const SOURCES: [&str; 5] = ["ir/src", "passes/src", "backends/src", "runtime/src", "compiler"];
/// Macros whose message is their first text.
const FIRST: [&str; 5] = ["bail", "anyhow", "refuse", "broken", "not_read"];
/// Macros whose message follows a condition.
const AFTER_CONDITION: [&str; 2] = ["ensure", "require"];
/// Functions and variants that take a message.
const CALLS: [&str; 15] = [
    "Err",
    "ok_or",
    "ok_or_else",
    "map_err",
    "OpError",
    "fail",
    "damaged",
    "invalid",
    "Usage",
    "Work",
    "refused",
    "Broken",
    "NotRead",
    "print_error",
    "error",
];
/// Functions that take a place, what was found and what was expected.
const PROBLEMS: [&str; 4] = ["one", "push", "problem", "bad"];
/// What stands before what was expected.
const EXPECTED: &str = "expected ";
/// Letters that a message has outside of its values; with fewer it says nothing of its own.
const FEWEST: usize = 2;

/// The messages of all sources below `root`, sorted.
pub fn messages(root: &Path) -> Vec<Message> {
    let mut files = Vec::new();
    for folder in SOURCES {
        sources(&root.join(folder), &mut files);
    }
    let mut found = Vec::new();
    for path in files {
        let file =
            path.strip_prefix(root).expect("a source below the root").to_str().expect("UTF-8").replace('\\', "/");
        let text = fs::read_to_string(&path).expect("a source");
        let tokens: TokenStream = text.parse().unwrap_or_else(|e| panic!("{file}: {e}"));
        let mut texts = Vec::new();
        walk(tokens, &mut texts);
        found.extend(texts.into_iter().map(|text| Message { file: file.clone(), text }));
    }
    found.retain(|message| letters(message.text.trim_start_matches(EXPECTED)) >= FEWEST);
    found.sort();
    found.dedup();
    found
}

/// Letters of a message that are no part of a value.
pub fn letters(text: &str) -> usize {
    text.chars().filter(|c| c.is_alphabetic()).count()
}

fn sources(folder: &Path, out: &mut Vec<PathBuf>) {
    for entry in fs::read_dir(folder).unwrap_or_else(|e| panic!("{}: {e}", folder.display())) {
        let path = entry.expect("an entry").path();
        let name = path.file_name().expect("a name").to_str().expect("UTF-8");
        if path.is_dir() {
            if !["tests", "target"].contains(&name) {
                sources(&path, out);
            }
        } else if name.ends_with(".rs") && name != "tests.rs" && name != "build.rs" {
            out.push(path);
        }
    }
}

fn walk(tokens: TokenStream, out: &mut Vec<String>) {
    let tokens: Vec<TokenTree> = tokens.into_iter().collect();
    let mut at = 0;
    while at < tokens.len() {
        match &tokens[at..] {
            [TokenTree::Punct(mark), TokenTree::Group(attribute), ..] if mark.as_char() == '#' => {
                let words = attribute.stream().to_string();
                if words.starts_with("cfg (test") || words.starts_with("cfg(test") || words == "test" {
                    // The item that it stands before: up to its body, or its end.
                    at += 2;
                    while at < tokens.len() && !ends_item(&tokens[at]) {
                        at += 1;
                    }
                } else if words.starts_with("error") {
                    // `error("…", field = …)`
                    if let Some(TokenTree::Group(group)) = inner(attribute).get(1) {
                        out.extend(inner(group).first().and_then(text));
                    }
                }
                at += 2;
                continue;
            }
            [TokenTree::Ident(name), TokenTree::Punct(mark), TokenTree::Group(group), ..] if mark.as_char() == '!' => {
                macro_message(&name.to_string(), group, out);
            }
            [TokenTree::Ident(name), TokenTree::Group(group), ..] if group.delimiter() == Delimiter::Parenthesis => {
                call_message(&name.to_string(), group, at > 0 && is(&tokens[at - 1], "fn"), out);
            }
            // `OpError::new(…)`
            [
                TokenTree::Ident(name),
                TokenTree::Punct(_),
                TokenTree::Punct(_),
                TokenTree::Ident(new),
                TokenTree::Group(group),
                ..,
            ] if name == "OpError" && new == "new" => {
                out.extend(direct(&inner(group)));
            }
            [TokenTree::Ident(name), TokenTree::Punct(mark), rest @ ..]
                if (name == "expected" || name == "instead" || name == "EXPECTED") && mark.as_char() == ':' =>
            {
                let end = rest.iter().position(|t| matches!(t, TokenTree::Punct(p) if ",;".contains(p.as_char())));
                expected(&rest[..end.unwrap_or(rest.len())], out);
            }
            // `let expected = …;`
            [TokenTree::Ident(word), TokenTree::Ident(name), TokenTree::Punct(mark), rest @ ..]
                if word == "let" && name == "expected" && mark.as_char() == '=' =>
            {
                let end = rest.iter().position(|t| is(t, ";"));
                expected(&rest[..end.unwrap_or(rest.len())], out);
            }
            _ => {}
        }
        if let TokenTree::Group(group) = &tokens[at] {
            walk(group.stream(), out);
        }
        at += 1;
    }
}

fn ends_item(token: &TokenTree) -> bool {
    match token {
        TokenTree::Group(group) => group.delimiter() == Delimiter::Brace,
        TokenTree::Punct(mark) => mark.as_char() == ';',
        _ => false,
    }
}

fn macro_message(name: &str, group: &Group, out: &mut Vec<String>) {
    let args = inner(group);
    if FIRST.contains(&name) {
        out.extend(args.iter().find_map(text).or_else(|| joined(&args)));
    } else if AFTER_CONDITION.contains(&name) {
        let after = args.windows(2).find(|pair| is(&pair[0], ",") && text(&pair[1]).is_some());
        out.extend(after.and_then(|pair| text(&pair[1])));
    }
}

/// The text of a `concat!`, with `{}` for what is not text.
fn joined(args: &[TokenTree]) -> Option<String> {
    let [TokenTree::Ident(name), _, TokenTree::Group(group), ..] = args else { return None };
    let parts = inner(group);
    let parts =
        parts.split(|token| is(token, ",")).map(|part| part.first().and_then(text).unwrap_or_else(|| "{}".into()));
    (name == "concat").then(|| parts.collect())
}

fn call_message(name: &str, group: &Group, is_declared: bool, out: &mut Vec<String>) {
    let args = inner(group);
    if is_declared {
        return;
    }
    if name == "context" || name == "with_context" {
        // Said before its cause.
        out.extend(direct(&args).into_iter().map(|text| format!("{text}: {{}}")));
    } else if CALLS.contains(&name) {
        out.extend(direct(&args));
    } else if PROBLEMS.contains(&name) {
        let mut parts: Vec<&[TokenTree]> = args.split(|token| is(token, ",")).collect();
        if parts.last().is_some_and(|part| part.is_empty()) {
            parts.pop();
        }
        if parts.len() == 3 || (parts.len() == 2 && name == "bad") {
            expected(parts[parts.len() - 1], out);
        }
    }
}

/// Texts that stand in a list of arguments itself, or in a `format!` there.
fn direct(args: &[TokenTree]) -> Vec<String> {
    let mut found = Vec::new();
    for (at, token) in args.iter().enumerate() {
        found.extend(text(token));
        if let [TokenTree::Ident(name), TokenTree::Punct(_), TokenTree::Group(group), ..] = &args[at..]
            && name == "format"
        {
            found.extend(inner(group).first().and_then(text));
        }
    }
    found
}

/// Texts anywhere in an expression that says what was expected.
fn expected(tokens: &[TokenTree], out: &mut Vec<String>) {
    let mut found = direct(tokens);
    for token in tokens {
        if let TokenTree::Group(group) = token
            && group.delimiter() == Delimiter::Brace
        {
            found.extend(direct(&inner(group)));
        }
    }
    let said =
        found.into_iter().map(|text| if text.starts_with(EXPECTED) { text } else { format!("{EXPECTED}{text}") });
    out.extend(said);
}

fn inner(group: &Group) -> Vec<TokenTree> {
    group.stream().into_iter().collect()
}

fn is(token: &TokenTree, text: &str) -> bool {
    match token {
        TokenTree::Punct(mark) => text.chars().eq([mark.as_char()]),
        TokenTree::Ident(name) => name == text,
        _ => false,
    }
}

/// The text of a literal, with `{}` for each value in it.
fn text(token: &TokenTree) -> Option<String> {
    let TokenTree::Literal(literal) = token else { return None };
    let source = literal.to_string();
    let source = source.strip_prefix('"')?.strip_suffix('"')?;
    let mut out = String::new();
    let mut chars = source.chars().peekable();
    while let Some(c) = chars.next() {
        match c {
            '\\' => match chars.next()? {
                '\n' => while chars.next_if(|c| c.is_whitespace()).is_some() {},
                'n' => out.push('\n'),
                other => out.push(other),
            },
            '{' if chars.next_if_eq(&'{').is_some() => out.push('{'),
            '}' => {
                chars.next_if_eq(&'}');
                out.push('}');
            }
            '{' => {
                for _ in chars.by_ref().take_while(|c| *c != '}') {}
                out += "{}";
            }
            other => out.push(other),
        }
    }
    // Lines below the first are lists of what is wrong.
    Some(out.lines().next().unwrap_or_default().trim_end().to_owned())
}
