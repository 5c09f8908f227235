//! What a pipeline does to a prompt before it is tokenized.

use serde::{Deserialize, Serialize};
use tokenizers::normalizers::NFC;
use tokenizers::{NormalizedString, Normalizer as _};

/// What a pipeline does to a prompt before it is tokenized.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "lowercase")]
pub enum Cleaning {
    /// Nothing.
    None,
    /// `prompt_clean` of Wan's pipelines: curled quotes, ligatures, wide forms, control characters and terminal escapes as ftfy mends them,
    /// canonical composition, character references of HTML (twice), and runs of white space as one space. ftfy's mending of wrongly
    /// decoded text (`Ã©` for `é`) is not done.
    Wan,
}

impl Cleaning {
    /// The prompt as the tokenizer gets it.
    #[must_use]
    pub fn clean(self, prompt: &str) -> String {
        match self {
            Cleaning::None => prompt.to_owned(),
            Cleaning::Wan => {
                let mended: String = prompt.split_inclusive('\n').map(mended).collect();
                let plain = unescaped(&unescaped(&mended));
                plain.split(is_space).filter(|word| !word.is_empty()).collect::<Vec<_>>().join(" ")
            }
        }
    }
}

/// White space as Python's `str.strip` and `\s` know it: Unicode's, and four separators among the control characters.
fn is_space(c: char) -> bool {
    c.is_whitespace() || ('\u{1c}'..='\u{1f}').contains(&c)
}

/// Replaces references to characters as HTML 5 defines them.
fn unescaped(text: &str) -> String {
    htmlize::unescape(text).into_owned()
}

/// A line as ftfy 6.3 mends it, but for wrongly decoded text: again and again until nothing changes.
fn mended(line: &str) -> String {
    let mut text = line.to_owned();
    // Each turn shortens the text or brings it nearer to composed form.
    for _ in 0..=line.len() {
        let referenced = if line.contains('<') { text.clone() } else { named(&text) };
        let plain: String = without_escapes(&referenced.chars().flat_map(plainly).collect::<String>())
            .chars()
            .filter(|c| !is_control(*c))
            .collect();
        let next = composed(&plain);
        if next == text {
            break;
        }
        text = next;
    }
    text
}

/// Replaces only references that end in a semicolon, such as `&eacute;`: `this&not that` is no reference.
fn named(text: &str) -> String {
    let mut out = String::with_capacity(text.len());
    let mut rest = text;
    while let Some(at) = rest.find('&') {
        out.push_str(&rest[..at]);
        rest = &rest[at..];
        let name = rest[1..].bytes().take_while(|b| b.is_ascii_alphanumeric() || *b == b'#').count();
        let ends = name > 0 && rest[1 + name..].starts_with(';');
        let whole = if ends { name + 2 } else { 1 };
        let (reference, after) = rest.split_at(whole);
        let plain = unescaped(reference);
        // `&notit;` is no name: only its beginning `&not` is one.
        let is_known = ends && (name == 1 || !plain.ends_with(';') || plain == ";");
        out.push_str(if is_known { &plain } else { reference });
        rest = after;
    }
    out + rest
}

/// What the control characters from U+0080 on are in Windows-1252, where they are mostly meant.
const WINDOWS: [char; 32] = [
    '€', '\u{81}', '‚', 'ƒ', '„', '…', '†', '‡', 'ˆ', '‰', 'Š', '‹', 'Œ', '\u{8d}', 'Ž', '\u{8f}', '\u{90}', '‘', '’',
    '“', '”', '•', '–', '—', '˜', '™', 'š', '›', 'œ', '\u{9d}', 'ž', 'Ÿ',
];

/// A character without ligature, wide or narrow form and curled quote.
fn plainly(c: char) -> Vec<char> {
    let text: &str = match c {
        'Ĳ' => "IJ",
        'ĳ' => "ij",
        'ŉ' => "'n",
        'Ǳ' => "DZ",
        'ǲ' => "Dz",
        'ǳ' => "dz",
        'Ǆ' => "DŽ",
        'ǅ' => "Dž",
        'ǆ' => "dž",
        'Ǉ' => "LJ",
        'ǈ' => "Lj",
        'ǉ' => "lj",
        'Ǌ' => "NJ",
        'ǋ' => "Nj",
        'ǌ' => "nj",
        'ﬀ' => "ff",
        'ﬁ' => "fi",
        'ﬂ' => "fl",
        'ﬃ' => "ffi",
        'ﬄ' => "ffl",
        'ﬅ' => "ſt",
        'ﬆ' => "st",
        '\u{2bc}' | '\u{2018}'..='\u{201b}' => "'",
        '\u{201c}'..='\u{201f}' => "\"",
        '\u{3000}' => " ",
        '\u{2028}' | '\u{2029}' => "\n",
        '\u{80}'..='\u{9f}' => return vec![WINDOWS[c as usize - 0x80]],
        '\u{ff01}'..='\u{ffef}' => return compatible(c),
        _ => return vec![c],
    };
    text.chars().collect()
}

/// The usual form of a wide or narrow character.
fn compatible(c: char) -> Vec<char> {
    let mut text = NormalizedString::from(c.to_string());
    text.nfkc();
    text.get().chars().collect()
}

/// Without the escapes that colour a terminal: ESC, `[`, numbers and a letter.
fn without_escapes(text: &str) -> String {
    let mut out = String::with_capacity(text.len());
    let mut rest = text;
    while let Some(at) = rest.find("\u{1b}[") {
        out.push_str(&rest[..at]);
        let inside = &rest[at + 2..];
        let numbers = inside.bytes().take_while(|b| b.is_ascii_digit() || *b == b';').count();
        let ends = inside.as_bytes().get(numbers).is_some_and(u8::is_ascii_alphabetic);
        rest = if ends { &inside[numbers + 1..] } else { inside };
        if !ends {
            out.push_str("\u{1b}[");
        }
    }
    out + rest
}

/// Characters that show nothing and that nobody means.
fn is_control(c: char) -> bool {
    matches!(c, '\0'..='\u{8}' | '\u{b}' | '\u{e}'..='\u{1f}' | '\u{7f}' | '\u{206a}'..='\u{206f}' | '\u{feff}' | '\u{fff9}'..='\u{fffc}')
}

/// The canonical composition, NFC.
fn composed(text: &str) -> String {
    let mut text = NormalizedString::from(text);
    // It cannot fail.
    let _ = NFC.normalize(&mut text);
    text.get().to_owned()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_prompt_as_wans_pipelines_clean_it() {
        for (prompt, cleaned) in [
            ("", ""),
            ("  a\tcat \n\n sat ", "a cat sat"),
            ("caf&eacute; &amp;amp; bar", "café & bar"),
            ("this&not that", "this¬ that"),
            ("<b>&lt;i&gt;</b>", "<b><i></b>"),
            ("“curled” ‘quotes’", "\"curled\" 'quotes'"),
            ("oﬃce ＬＯＵＤ　ﾀｰﾝ", "office LOUD ターン"),
            ("e\u{301}", "é"),
            ("\u{1b}[31mred\u{1b}[0m \u{7}bell", "red bell"),
            ("tail \u{1b}[", "tail ["),
            ("&#128049; &#x1F408; 🐈", "🐱 🐈 🐈"),
            ("&amp;lt;", "<"),
        ] {
            assert_eq!(Cleaning::Wan.clean(prompt), cleaned, "{prompt:?}");
            assert_eq!(Cleaning::None.clean(prompt), prompt);
        }
    }
}
