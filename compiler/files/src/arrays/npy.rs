//! NumPy's `.npy`: a header in Python's notation, and the elements (NEP 1).

use s2dit_ir::{DType, TensorType};

use super::Array;

const MAGIC: &[u8] = b"\x93NUMPY";

/// Element types with NumPy's names for them.
const TYPES: [(&str, DType); 11] = [
    ("<f8", DType::F64),
    ("<f4", DType::F32),
    ("<f2", DType::F16),
    ("<i8", DType::I64),
    ("<i4", DType::I32),
    ("<i2", DType::I16),
    ("|i1", DType::I8),
    ("<u4", DType::U32),
    ("<u2", DType::U16),
    ("|u1", DType::U8),
    ("|b1", DType::Bool),
];

/// What is read.
pub(super) const EXPECTED: &str =
    "an array of <f8, <f4, <f2, <i8, <i4, <i2, |i1, <u4, <u2, |u1 or |b1 (little-endian numbers, or bools)";

/// Decodes an array, or says what it is instead.
pub(super) fn decode(bytes: &[u8]) -> Result<Array, String> {
    let cut = || "an array that ends early".to_string();
    if !bytes.starts_with(MAGIC) {
        return Err("something that is no .npy".into());
    }
    let (size, start) = match bytes.get(6) {
        Some(1) => (bytes.get(8..10).map(|b| usize::from(u16::from_le_bytes([b[0], b[1]]))), 10),
        Some(2 | 3) => (bytes.get(8..12).map(|b| u32::from_le_bytes([b[0], b[1], b[2], b[3]]) as usize), 12),
        _ => return Err("an unknown version of .npy".into()),
    };
    let end = size.and_then(|size| size.checked_add(start)).ok_or_else(cut)?;
    let header = bytes.get(start..end).ok_or_else(cut)?;
    let header = std::str::from_utf8(header).map_err(|_| "a header that is no text".to_string())?;
    let name = field(header, "descr").ok_or("a header without `descr`")?;
    let name = name.trim_matches(['\'', '"']);
    let dtype = TYPES.iter().find(|(n, _)| *n == name).map(|(_, dtype)| *dtype);
    let dtype = dtype.ok_or_else(|| format!("elements of type `{name}`"))?;
    let shape = field(header, "shape").ok_or("a header without `shape`")?;
    let shape: Option<Vec<usize>> = shape
        .trim_matches(['(', ')'])
        .split(',')
        .map(str::trim)
        .filter(|part| !part.is_empty())
        .map(|part| part.parse().ok())
        .collect();
    let shape = shape.ok_or("a shape that is none")?;
    let size = shape.iter().try_fold(dtype.size(), |n, d| n.checked_mul(*d)).ok_or("a shape that is too large")?;
    let data = end.checked_add(size).and_then(|last| bytes.get(end..last)).ok_or_else(cut)?;
    let ty = TensorType::new(dtype, shape);
    let data = if field(header, "fortran_order") == Some("True") { rows_first(&ty, data) } else { data.to_vec() };
    Array::new(ty, data).ok_or_else(cut)
}

/// The value of a key of the header: up to the comma outside brackets, or the end.
fn field<'a>(header: &'a str, key: &str) -> Option<&'a str> {
    let at = header.find(&format!("'{key}'")).or_else(|| header.find(&format!("\"{key}\"")))?;
    let value = header[at + key.len() + 2..].trim_start().strip_prefix(':')?.trim_start();
    let mut depth = 0;
    let end = value.find(|c| {
        depth += i32::from(c == '(') - i32::from(c == ')');
        depth <= 0 && (c == ',' || c == '}')
    });
    Some(value[..end?].trim())
}

/// Elements stored with the first axis fastest, as row-major ones.
fn rows_first(ty: &TensorType, data: &[u8]) -> Vec<u8> {
    let size = ty.dtype.size();
    let mut out = Vec::with_capacity(data.len());
    for element in 0..ty.elements() {
        let (mut rest, mut stride, mut at) = (element, ty.elements(), 0);
        // From the last axis to the first.
        for extent in ty.shape.iter().rev() {
            stride /= extent;
            at += rest % extent * stride;
            rest /= extent;
        }
        out.extend(&data[at * size..(at + 1) * size]);
    }
    out
}

/// Encodes an array; one of bf16, which NumPy lacks, as f32.
pub(super) fn encode(array: &Array) -> Vec<u8> {
    let known = TYPES.iter().find(|(_, dtype)| *dtype == array.ty.dtype);
    let Some((name, _)) = known else { return encode(&array.cast(DType::F32)) };
    let extents: Vec<String> = array.ty.shape.iter().map(ToString::to_string).collect();
    let comma = if extents.len() == 1 { "," } else { "" };
    let mut header =
        format!("{{'descr': '{name}', 'fortran_order': False, 'shape': ({}{comma}), }}", extents.join(", "));
    // The data starts at a multiple of 64.
    let length = (10 + header.len() + 1).next_multiple_of(64) - 10;
    header.extend(std::iter::repeat_n(' ', length - header.len() - 1));
    header.push('\n');
    let mut out = MAGIC.to_vec();
    out.extend([1, 0]);
    out.extend((header.len() as u16).to_le_bytes());
    out.extend(header.as_bytes());
    out.extend(&array.bytes);
    out
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn arrays_come_back() {
        for (_, dtype) in TYPES {
            for shape in [vec![], vec![3], vec![2, 3]] {
                let ty = TensorType::new(dtype, shape);
                let array = Array::new(ty.clone(), (0..ty.bytes()).map(|i| (i % 2) as u8).collect()).unwrap();
                assert_eq!(decode(&encode(&array)).unwrap(), array, "{ty}");
            }
        }
    }

    #[test]
    fn columns_first_becomes_rows_first() {
        let ty = TensorType::new(DType::U8, [2, 3]);
        // [[0, 1, 2], [3, 4, 5]] with the first axis fastest.
        assert_eq!(rows_first(&ty, &[0, 3, 1, 4, 2, 5]), [0, 1, 2, 3, 4, 5]);
    }

    #[test]
    fn what_is_no_array_is_said() {
        assert!(decode(b"PK").unwrap_err().contains("no .npy"));
        let whole = encode(&Array::new(TensorType::new(DType::F32, [2]), vec![0; 8]).unwrap());
        for length in 0..whole.len() {
            assert!(decode(&whole[..length]).is_err(), "{length} bytes");
        }
        let complex = String::from_utf8_lossy(&whole).replace("<f4", "<c8");
        assert!(decode(complex.as_bytes()).is_err());
    }
}
