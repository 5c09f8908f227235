//! An asset as a source of weights: resources as they are, and compressed weights decoded.

use std::borrow::Cow;

use anyhow::{Context, Result, ensure};
use s2dit_ir::{FileRegion, TensorType, WeightError, WeightSource};

use super::asset::PROGRAM;
use super::op;
use super::program::{Attribute, Element, Operation, Property};
use super::raise::{dtype_of, static_type};
use super::read::{Asset, graphs};

/// The weight source's name of a resource.
pub(super) fn plain(number: usize) -> String {
    format!("#{number}")
}

/// The weight source's name of a compressed weight: the resources of its codes and of its table.
pub(super) fn compressed(codes: usize, table: usize) -> String {
    format!("#{codes}#{table}")
}

/// What a name stands for.
struct Stored {
    codes: usize,
    codes_type: (Vec<usize>, Element),
    /// Resource and type of the table of a compressed weight.
    table: Option<(usize, (Vec<usize>, Element))>,
}

impl Asset {
    fn stored(&self, name: &str) -> Option<Stored> {
        let mut numbers = name.strip_prefix('#')?.split('#').map(|n| n.parse::<usize>().ok());
        let codes = numbers.next()??;
        let codes_type = self.resource_type(codes)?;
        let table = match numbers.next() {
            Some(number) => Some((number?, self.resource_type(number?)?)),
            None => None,
        };
        Some(Stored { codes, codes_type, table })
    }

    /// The type of the first constant that is a resource.
    fn resource_type(&self, number: usize) -> Option<(Vec<usize>, Element)> {
        let mut constants = graphs(self.root()).flat_map(|g| &g.region.operations).filter(|o| o.name == op::CONSTANT);
        constants.find_map(|constant| of_resource(constant, number))
    }

    fn decoded(&self, stored: &Stored, table: usize, table_type: &(Vec<usize>, Element)) -> Result<Vec<u8>> {
        let (shape, element) = &stored.codes_type;
        let (codes, entries) = (self.resource(stored.codes), self.resource(table));
        let (codes, entries) = (codes.context("no codes")?, entries.context("no table")?);
        let (bits, signed) = bits(*element).context("codes of this type")?;
        let elements: usize = shape.iter().product();
        ensure!(codes.len() == (elements * bits).div_ceil(8), "found {} bytes of codes", codes.len());
        let (mut blocks, element) = (table_type.0.clone(), table_type.1);
        // A palette has two axes more: its entries, and the numbers of one entry.
        let palette = blocks.len() == shape.len() + 2;
        let width = if palette { blocks[shape.len()] } else { 1 };
        if palette {
            ensure!(blocks.pop() == Some(1), "palettes of vectors");
            blocks.pop();
        }
        ensure!(blocks.len() == shape.len(), "a table of {} axes for a weight of {}", blocks.len(), shape.len());
        ensure!(blocks.iter().zip(shape).all(|(b, n)| *b > 0 && n.is_multiple_of(*b)), "blocks that do not fit");
        let size = match element {
            Element::F16 => 2,
            Element::F32 => 4,
            other => anyhow::bail!("a table of {}", other.name()),
        };
        ensure!(
            entries.len() == blocks.iter().product::<usize>() * width * size,
            "found {} bytes of a table",
            entries.len()
        );
        let mut out = Vec::with_capacity(elements * size);
        let mut place = vec![0; shape.len()];
        for i in 0..elements {
            let code = code(codes, i, bits);
            let block = place.iter().zip(&blocks).zip(shape).fold(0, |at, ((p, b), n)| at * b + p * b / n);
            if palette {
                ensure!((code as usize) < width, "an index of {code} into {width} entries");
                let at = (block * width + code as usize) * size;
                out.extend(&entries[at..at + size]);
            } else {
                let code =
                    if signed { f64::from(((code << (32 - bits)) as i32) >> (32 - bits)) } else { f64::from(code) };
                let entry = &entries[block * size..(block + 1) * size];
                match element {
                    Element::F16 => {
                        let scale = half::f16::from_le_bytes([entry[0], entry[1]]).to_f64();
                        out.extend(half::f16::from_f64(code * scale).to_le_bytes());
                    }
                    _ => {
                        let scale = f64::from(f32::from_le_bytes([entry[0], entry[1], entry[2], entry[3]]));
                        out.extend(((code * scale) as f32).to_le_bytes());
                    }
                }
            }
            for (p, n) in place.iter_mut().zip(shape).rev() {
                *p += 1;
                if *p < *n {
                    break;
                }
                *p = 0;
            }
        }
        Ok(out)
    }
}

fn of_resource(constant: &Operation, number: usize) -> Option<(Vec<usize>, Element)> {
    match (&constant.properties[..], &constant.results[..]) {
        ([Property::Required(Attribute::Resource(n))], [ty]) if *n == number => static_type(ty).ok(),
        _ => None,
    }
}

/// Bits of a code, and whether it has a sign.
fn bits(element: Element) -> Option<(usize, bool)> {
    Some(match element {
        Element::Ui1 => (1, false),
        Element::Ui2 => (2, false),
        Element::Ui3 => (3, false),
        Element::Ui4 => (4, false),
        Element::Ui6 => (6, false),
        Element::Ui8 => (8, false),
        Element::Si4 => (4, true),
        Element::Si8 => (8, true),
        _ => return None,
    })
}

/// The code at a place, lowest bits first.
fn code(bytes: &[u8], i: usize, bits: usize) -> u32 {
    let bit = i * bits;
    let low = u32::from(bytes[bit / 8]) | u32::from(bytes.get(bit / 8 + 1).copied().unwrap_or(0)) << 8;
    low >> (bit % 8) & ((1 << bits) - 1)
}

impl WeightSource for Asset {
    fn ty(&self, name: &str) -> Option<TensorType> {
        let stored = self.stored(name)?;
        let (shape, element) = stored.codes_type;
        match stored.table {
            None => Some(TensorType::new(dtype_of(element)?, [shape.iter().product::<usize>()])),
            Some((_, (_, element))) => Some(TensorType::new(dtype_of(element)?, shape)),
        }
    }

    fn bytes(&self, name: &str) -> Result<Cow<'_, [u8]>, WeightError> {
        let missing = || WeightError::Missing { name: name.into() };
        let stored = self.stored(name).ok_or_else(missing)?;
        match &stored.table {
            None => self.resource(stored.codes).map(Cow::Borrowed).ok_or_else(missing),
            Some((table, ty)) => {
                let failed = |e: anyhow::Error| WeightError::Read { name: name.into(), message: format!("{e:#}") };
                self.decoded(&stored, *table, ty).map(Cow::Owned).map_err(failed)
            }
        }
    }

    fn region(&self, name: &str) -> Option<FileRegion> {
        let stored = self.stored(name).filter(|stored| stored.table.is_none())?;
        let range = self.resource_range(stored.codes)?;
        Some(FileRegion {
            path: self.path().join(PROGRAM),
            offset: range.start as u64,
            len: (range.end - range.start) as u64,
        })
    }
}
