//! Changes of messages of protocol buffers that keep them messages: a field is taken away, doubled, moved, or gets another value, and the
//! lengths around it stay right. Random bytes alone seldom get past the first length.

use libfuzzer_sys::fuzzer_mutate;
use prost::encoding::{WireType, decode_key, decode_varint, encode_key, encode_varint};
use rand::seq::IndexedRandom as _;
use rand::{Rng as _, SeedableRng as _, rngs::SmallRng};

/// How deep messages are taken apart.
const DEEPEST: usize = 24;
/// Numbers that readers do not expect.
const NUMBERS: [u64; 12] = [0, 1, 2, 7, 64, 255, 1 << 16, 1 << 31, 1 << 32, 1 << 40, i64::MAX as u64, u64::MAX];

#[derive(Clone)]
enum Value {
    Varint(u64),
    Fixed64([u8; 8]),
    Fixed32([u8; 4]),
    Bytes(Vec<u8>),
    Message(Message),
}

type Message = Vec<(u32, Value)>;

/// The fields of a message; `None` for bytes that are none.
fn decode(mut bytes: &[u8], depth: usize) -> Option<Message> {
    let mut message = Message::new();
    while !bytes.is_empty() {
        let (tag, wire) = decode_key(&mut bytes).ok()?;
        let value = match wire {
            WireType::Varint => Value::Varint(decode_varint(&mut bytes).ok()?),
            WireType::SixtyFourBit => Value::Fixed64(take(&mut bytes, 8)?.try_into().ok()?),
            WireType::ThirtyTwoBit => Value::Fixed32(take(&mut bytes, 4)?.try_into().ok()?),
            WireType::LengthDelimited => {
                let length = usize::try_from(decode_varint(&mut bytes).ok()?).ok()?;
                let inner = take(&mut bytes, length)?;
                let nested = if depth < DEEPEST && !inner.is_empty() { decode(inner, depth + 1) } else { None };
                nested.map_or_else(|| Value::Bytes(inner.to_vec()), Value::Message)
            }
            WireType::StartGroup | WireType::EndGroup => return None,
        };
        message.push((tag, value));
    }
    Some(message)
}

fn take<'a>(bytes: &mut &'a [u8], count: usize) -> Option<&'a [u8]> {
    let (head, tail) = bytes.split_at_checked(count)?;
    *bytes = tail;
    Some(head)
}

fn encode(message: &Message, out: &mut Vec<u8>) {
    let delimited = |tag: u32, bytes: &[u8], out: &mut Vec<u8>| {
        encode_key(tag, WireType::LengthDelimited, out);
        encode_varint(bytes.len() as u64, out);
        out.extend_from_slice(bytes);
    };
    for (tag, value) in message {
        match value {
            Value::Varint(number) => {
                encode_key(*tag, WireType::Varint, out);
                encode_varint(*number, out);
            }
            Value::Fixed64(bytes) => {
                encode_key(*tag, WireType::SixtyFourBit, out);
                out.extend_from_slice(bytes);
            }
            Value::Fixed32(bytes) => {
                encode_key(*tag, WireType::ThirtyTwoBit, out);
                out.extend_from_slice(bytes);
            }
            Value::Bytes(bytes) => delimited(*tag, bytes, out),
            Value::Message(inner) => {
                let mut bytes = Vec::new();
                encode(inner, &mut bytes);
                delimited(*tag, &bytes, out);
            }
        }
    }
}

/// Strings and short messages of the whole, by which others are replaced.
fn pool(message: &Message, out: &mut Vec<(u32, Value)>) {
    for (tag, value) in message {
        match value {
            Value::Bytes(bytes) if bytes.len() <= 64 => out.push((*tag, value.clone())),
            Value::Message(inner) => {
                if inner.len() <= 4 {
                    out.push((*tag, value.clone()));
                }
                pool(inner, out);
            }
            _ => {}
        }
    }
}

fn change(message: &mut Message, pool: &[(u32, Value)], rng: &mut SmallRng) {
    if message.is_empty() {
        return;
    }
    let at = rng.random_range(0..message.len());
    if let Value::Message(inner) = &mut message[at].1
        && rng.random_bool(0.85)
    {
        return change(inner, pool, rng);
    }
    match rng.random_range(0..6) {
        0 => drop(message.remove(at)),
        1 => message.insert(at, message[at].clone()),
        2 => {
            let other = rng.random_range(0..message.len());
            message.swap(at, other);
        }
        3 => message[at].0 = rng.random_range(1..32),
        _ => {
            // A value of the same field elsewhere, or a number that nobody expects.
            let tag = message[at].0;
            let alike: Vec<&Value> = pool.iter().filter(|(other, _)| *other == tag).map(|(_, value)| value).collect();
            match (&mut message[at].1, alike.choose(rng)) {
                (Value::Varint(number), _) => {
                    *number = match rng.random_bool(0.3) {
                        true => number.wrapping_add(rng.random_range(0..5)).wrapping_sub(2),
                        false => *NUMBERS.choose(rng).expect("numbers"),
                    }
                }
                (value @ (Value::Bytes(_) | Value::Message(_)), Some(other)) => *value = (*other).clone(),
                (Value::Bytes(bytes), None) => bytes.truncate(rng.random_range(0..=bytes.len())),
                (Value::Fixed32(bytes), _) => *bytes = f32::NAN.to_le_bytes(),
                (Value::Fixed64(bytes), _) => *bytes = f64::INFINITY.to_le_bytes(),
                (Value::Message(inner), None) => inner.clear(),
            }
        }
    }
}

/// Changes `data[..size]`, which is at most `data.len()` long afterwards, and returns its length.
pub fn protobuf(data: &mut [u8], size: usize, seed: u32) -> usize {
    let most = data.len();
    let mut rng = SmallRng::seed_from_u64(seed.into());
    if rng.random_bool(0.2) {
        return fuzzer_mutate(data, size, most);
    }
    let Some(mut message) = decode(&data[..size], 0) else { return fuzzer_mutate(data, size, most) };
    let mut values = Vec::new();
    pool(&message, &mut values);
    for _ in 0..rng.random_range(1..4) {
        change(&mut message, &values, &mut rng);
    }
    let mut out = Vec::new();
    encode(&message, &mut out);
    if out.len() > most {
        return fuzzer_mutate(data, size, most);
    }
    data[..out.len()].copy_from_slice(&out);
    out.len()
}
