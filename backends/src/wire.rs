//! A look over protobuf bytes before they are decoded. A message of two bytes becomes a struct of hundreds, so that a small
//! hostile file could fill the memory: what the structs would take is added up first, and refused if no real model takes as much.

/// A kind of message: what decoding it costs, and which of its fields are messages.
pub(crate) struct Kind {
    /// Bytes of the struct.
    pub bytes: usize,
    /// Whether it is an op of a model's graph.
    pub op: bool,
    /// Fields that are more than a string or a number, by tag.
    pub fields: &'static [(u32, Field)],
}

/// What a field holds.
pub(crate) enum Field {
    /// A message.
    Message(&'static Kind),
    /// An entry of a map from strings to messages.
    Map(&'static Kind),
    /// An entry of a map from strings to strings.
    Strings,
    /// Numbers, a byte or more each.
    Numbers,
}

/// The structs of a file may take so many bytes; tensors that are stored as raw bytes do not count. A large model of 100,000 ops
/// takes about half.
const MOST_BYTES: usize = 512 << 20;
/// So many ops may be in a file: an unrolled language model of a hundred layers has a tenth.
const MOST_OPS: usize = 1 << 18;
/// Decoders do not descend further.
const DEEPEST: usize = 100;
/// What a field costs that is a string, or bytes.
const STRING: usize = size_of::<String>() + 8;
/// A map begins with a node for so many entries.
const MAP_NODE: usize = 11;

/// Why a file is not decoded.
#[derive(Debug, PartialEq, Eq)]
pub(crate) struct TooMuch(String);

impl std::fmt::Display for TooMuch {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.write_str(&self.0)
    }
}

/// Checks that decoding a message costs no more than a model may. Bytes that are no message pass: the decoder says what is wrong
/// with them.
///
/// # Errors
/// More ops, or more memory, than any model has.
pub(crate) fn check(bytes: &[u8], kind: &'static Kind) -> Result<(), TooMuch> {
    let mut walk = Walk { file: bytes.len(), bytes: 0, ops: 0 };
    walk.message(bytes, kind, 0)
}

struct Walk {
    file: usize,
    bytes: usize,
    ops: usize,
}

impl Walk {
    fn message(&mut self, mut rest: &[u8], kind: &'static Kind, depth: usize) -> Result<(), TooMuch> {
        self.ops += usize::from(kind.op);
        self.spend(kind.bytes)?;
        // Maps of this message that have a node already.
        let mut begun = 0u128;
        while let Some((tag, content)) = field(&mut rest) {
            let Some(content) = content else {
                self.spend(size_of::<u64>())?;
                continue;
            };
            let mut entry = |bytes: usize| {
                let first = tag < 128 && begun & (1 << tag) == 0;
                begun |= 1u128.checked_shl(tag).unwrap_or_default();
                bytes * if first { MAP_NODE } else { 2 }
            };
            match kind.fields.iter().find(|(t, _)| *t == tag).map(|(_, field)| field) {
                Some(_) if depth == DEEPEST => {}
                Some(Field::Message(inner)) => self.message(content, inner, depth + 1)?,
                Some(Field::Map(inner)) => {
                    let cost = entry(size_of::<String>() + inner.bytes);
                    self.spend(cost)?;
                    let mut rest = content;
                    while let Some((tag, content)) = field(&mut rest) {
                        if let (2, Some(content)) = (tag, content) {
                            self.message(content, inner, depth + 1)?;
                        }
                    }
                }
                Some(Field::Strings) => {
                    let cost = entry(2 * size_of::<String>());
                    self.spend(cost)?;
                }
                Some(Field::Numbers) => self.spend(content.len().saturating_mul(size_of::<u64>()))?,
                None => self.spend(STRING)?,
            }
        }
        Ok(())
    }

    fn spend(&mut self, bytes: usize) -> Result<(), TooMuch> {
        self.bytes = self.bytes.saturating_add(bytes);
        let (found, most) = match () {
            () if self.ops > MOST_OPS => (format!("more than {MOST_OPS} ops"), "no model has as many"),
            () if self.bytes > MOST_BYTES => (
                format!("messages of more than {} MiB when decoded", MOST_BYTES >> 20),
                "no model has as much beside its weights",
            ),
            () => return Ok(()),
        };
        Err(TooMuch(format!("found {found} in a file of {} bytes: {most}", self.file)))
    }
}

/// The next field: its tag, and its content if that has a length. `None` at the end, and where the bytes are no message.
fn field<'a>(rest: &mut &'a [u8]) -> Option<(u32, Option<&'a [u8]>)> {
    let key = varint(rest)?;
    let tag = u32::try_from(key >> 3).ok()?;
    let skip = |rest: &mut &'a [u8], n: usize| {
        let (content, after) = rest.split_at_checked(n)?;
        *rest = after;
        Some(content)
    };
    match key & 7 {
        0 => varint(rest).map(|_| (tag, None)),
        1 => skip(rest, 8).map(|_| (tag, None)),
        2 => {
            let length = usize::try_from(varint(rest)?).ok()?;
            skip(rest, length).map(|content| (tag, Some(content)))
        }
        5 => skip(rest, 4).map(|_| (tag, None)),
        // Groups, which no message here has.
        _ => None,
    }
}

fn varint(rest: &mut &[u8]) -> Option<u64> {
    let mut value = 0u64;
    for (i, &byte) in rest.iter().enumerate().take(10) {
        value |= u64::from(byte & 0x7f).checked_shl(7 * i as u32)?;
        if byte & 0x80 == 0 {
            *rest = &rest[i + 1..];
            return Some(value);
        }
    }
    None
}

/// The tags of a message of which these are the first bytes, up to the field in which they end: enough to tell whose message it is.
pub(crate) fn tags(mut bytes: &[u8]) -> impl Iterator<Item = u32> + '_ {
    std::iter::from_fn(move || {
        let key = varint(&mut &*bytes)?;
        if field(&mut bytes).is_none() {
            bytes = &[];
        }
        u32::try_from(key >> 3).ok()
    })
}

#[cfg(test)]
mod tests;
