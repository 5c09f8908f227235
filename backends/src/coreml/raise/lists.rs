//! Lists of tensors, as loops fill them.

use anyhow::{Context, Result, bail};
use s2dit_ir::{DType, TensorType, ValueId};

use super::Raise;
use super::shape::along;
use crate::coreml::proto::Operation;

/// A list's elements; `None` for one that nothing was written to.
pub(super) type List = Vec<Option<ValueId>>;

/// Elements of one list.
const LONGEST: usize = 1 << 24;

/// Whether this op has a list among its inputs or results.
pub(super) fn takes(op: &str) -> bool {
    matches!(op, "make_list" | "list_length" | "list_read" | "list_write" | "list_gather" | "list_scatter")
}

impl Raise<'_, '_> {
    pub(super) fn list_op(&mut self, op: &Operation) -> Result<()> {
        let output = op.outputs.first().context("an op without a result")?;
        if op.r#type == "make_list" {
            let length = usize::try_from(self.int(op, "init_length", Some(1))?)?;
            if length > LONGEST {
                bail!("a list of {length} elements; {LONGEST} can be held");
            }
            self.claim(&output.name)?;
            self.lists.insert(output.name.clone(), vec![None; length]);
            return Ok(());
        }
        let name = self.name_of(op, "ls")?;
        let mut list = self.lists.get(name).with_context(|| format!("`{name}` is not a list"))?.clone();
        let v = match op.r#type.as_str() {
            "list_length" => self.b.literal(&TensorType::new(DType::I32, []), vec![list.len() as f64])?,
            "list_read" => {
                let index = self.int(op, "index", None)?;
                self.element(op, &list, index)?
            }
            "list_gather" => {
                let indices = self.ints(op, "indices")?.context("input `indices` is missing")?;
                let elements: Vec<ValueId> =
                    indices.iter().map(|i| self.element(op, &list, *i)).collect::<Result<_>>()?;
                if elements.is_empty() {
                    bail!("no elements are gathered");
                }
                along(self, &elements, 0)?
            }
            scatter_or_write => {
                let value = self.operand(op, "value")?;
                if scatter_or_write == "list_write" {
                    let index = self.int(op, "index", None)?;
                    put(&mut list, index, value)?;
                } else {
                    let indices = self.ints(op, "indices")?.context("input `indices` is missing")?;
                    for (i, index) in indices.iter().enumerate() {
                        let slice = self.b.slice(value, 0, i, i + 1)?;
                        let shape = self.b.shape(value)[1..].to_vec();
                        let slice = self.b.reshape(slice, &shape)?;
                        put(&mut list, *index, slice)?;
                    }
                }
                self.claim(&output.name)?;
                self.lists.insert(output.name.clone(), list);
                return Ok(());
            }
        };
        let v = if self.b.f.node(v).name.is_some() && self.depth == 0 {
            self.b.unary(s2dit_ir::ops::Unary::Identity, v)?
        } else {
            v
        };
        self.define(&output.name, v, output.r#type.as_ref())
    }

    /// An element; one that nothing was written to is zeros.
    fn element(&mut self, op: &Operation, list: &List, index: i64) -> Result<ValueId> {
        let at = usize::try_from(if index < 0 { index + list.len() as i64 } else { index }).ok();
        let element = at.and_then(|i| list.get(i)).with_context(|| format!("element {index} of {}", list.len()))?;
        if let Some(v) = element {
            return Ok(*v);
        }
        let ty = match list.iter().flatten().next() {
            Some(&written) => self.b.f.ty(written).clone(),
            None => {
                let mut declared = self.declared(op)?;
                if op.r#type == "list_gather" {
                    declared.shape = declared.shape.filter(|shape| !shape.is_empty()).map(|shape| shape[1..].to_vec());
                }
                declared.fixed().context("an element that nothing was written to has no shape")?
            }
        };
        Ok(self.b.literal(&ty, vec![0.0])?)
    }
}

/// A list grows to what is written to it.
fn put(list: &mut List, index: i64, value: ValueId) -> Result<()> {
    let at = usize::try_from(if index < 0 { index + list.len() as i64 } else { index });
    let at = at.ok().filter(|i| *i < LONGEST).with_context(|| format!("element {index} of {}", list.len()))?;
    if at >= list.len() {
        list.resize(at + 1, None);
    }
    list[at] = Some(value);
    Ok(())
}
