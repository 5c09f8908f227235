//! Numbers of one to nine bytes: the zeros at the low end of the first byte say how many follow.

/// Appends a number.
pub fn put(out: &mut Vec<u8>, value: u64) {
    for bytes in 1..=8 {
        if value < 1 << (7 * bytes) {
            let coded = (value << 1 | 1) << (bytes - 1);
            out.extend(&coded.to_le_bytes()[..bytes]);
            return;
        }
    }
    out.push(0);
    out.extend(value.to_le_bytes());
}

/// The bytes of a number.
#[must_use]
pub fn encoded(value: u64) -> Vec<u8> {
    let mut out = Vec::with_capacity(9);
    put(&mut out, value);
    out
}

/// A signed number as one without sign: small ones stay small.
#[must_use]
pub fn zigzag(value: i64) -> u64 {
    (value << 1 ^ value >> 63) as u64
}

/// The signed number that [`zigzag`] made.
#[must_use]
pub fn unzigzag(value: u64) -> i64 {
    (value >> 1) as i64 ^ -((value & 1) as i64)
}

/// Reads a number from the front of `bytes`; `None` if they end before it does.
pub fn take(bytes: &mut &[u8]) -> Option<u64> {
    let first = *bytes.first()?;
    let more = first.trailing_zeros() as usize;
    let (head, rest) = bytes.split_at_checked(more + 1)?;
    *bytes = rest;
    if more == 8 {
        return head[1..].try_into().ok().map(u64::from_le_bytes);
    }
    let mut all = [0; 8];
    all[..head.len()].copy_from_slice(head);
    Some(u64::from_le_bytes(all) >> (more + 1))
}

#[cfg(test)]
mod tests {
    use super::*;

    /// MLIR's documentation: 7 bits a byte, the count of bytes in unary at the low end.
    #[test]
    fn numbers_are_those_of_mlir() {
        assert_eq!(encoded(0), [0x01]);
        assert_eq!(encoded(127), [0xff]);
        assert_eq!(encoded(128), [0x02, 0x02]);
        assert_eq!(encoded((1 << 14) - 1), [0xfe, 0xff]);
        assert_eq!(encoded(1 << 14), [0x04, 0x00, 0x02]);
        assert_eq!(encoded(u64::MAX), [0, 255, 255, 255, 255, 255, 255, 255, 255]);
    }

    #[test]
    fn what_is_put_is_taken() {
        let mut values: Vec<u64> = (0..64).flat_map(|i| [(1 << i) - 1, 1 << i, (1 << i) + 1]).collect();
        values.push(u64::MAX);
        for value in values {
            let bytes = encoded(value);
            let mut rest = bytes.as_slice();
            assert_eq!(take(&mut rest), Some(value));
            assert!(rest.is_empty());
            for end in 0..bytes.len() {
                assert_eq!(take(&mut &bytes[..end]), None, "{value} cut to {end}");
            }
            assert_eq!(unzigzag(zigzag(value as i64)), value as i64);
        }
        assert_eq!([0, -1, 1, -2].map(zigzag), [0, 1, 2, 3]);
    }
}
