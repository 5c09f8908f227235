//! An op's inputs: tensors, and parameters that must be constant.

use anyhow::{Context, Result, bail};
use s2dit_ir::{DType, ValueId};

use super::Raise;
use super::constant::Constant;
use crate::coreml::proto::{Operation, binding};

impl Raise<'_, '_> {
    /// The bindings of an input.
    fn bindings<'o>(op: &'o Operation, input: &str) -> Vec<&'o binding::Binding> {
        op.inputs.get(input).into_iter().flat_map(|a| &a.arguments).filter_map(|b| b.binding.as_ref()).collect()
    }

    pub(super) fn has(&self, op: &Operation, input: &str) -> bool {
        !Self::bindings(op, input).is_empty()
    }

    /// The name that an input is bound to.
    pub(super) fn name_of<'o>(&self, op: &'o Operation, input: &str) -> Result<&'o str> {
        match Self::bindings(op, input)[..] {
            [binding::Binding::Name(name)] => Ok(name),
            [] => bail!("input `{input}` is missing"),
            _ => bail!("input `{input}`: expected one name"),
        }
    }

    /// A tensor operand.
    pub(super) fn operand(&mut self, op: &Operation, input: &str) -> Result<ValueId> {
        match self.operand_list(op, input)?[..] {
            [v] => Ok(v),
            [] => bail!("input `{input}` is missing"),
            _ => bail!("input `{input}`: expected one tensor"),
        }
    }

    /// An optional tensor operand.
    pub(super) fn operand_if(&mut self, op: &Operation, input: &str) -> Result<Option<ValueId>> {
        if self.has(op, input) { self.operand(op, input).map(Some) } else { Ok(None) }
    }

    /// The tensors of a tuple input.
    pub(super) fn operand_list(&mut self, op: &Operation, input: &str) -> Result<Vec<ValueId>> {
        let tensor = |b: &binding::Binding| match b {
            binding::Binding::Name(name) => self.value(name),
            binding::Binding::Value(v) => {
                let constant = self.parse(v)?;
                self.tensor(&constant)
            }
        };
        Self::bindings(op, input)
            .into_iter()
            .map(tensor)
            .collect::<Result<_>>()
            .with_context(|| format!("input `{input}`"))
    }

    /// The names of a tuple input.
    pub(super) fn names_of(&self, op: &Operation, input: &str) -> Result<Vec<String>> {
        let name = |b: &binding::Binding| match b {
            binding::Binding::Name(name) => Ok(name.clone()),
            binding::Binding::Value(_) => bail!("input `{input}`: expected names, found a value"),
        };
        Self::bindings(op, input).into_iter().map(name).collect()
    }

    /// The numbers of a tuple input, one an element.
    pub(super) fn number_list(&self, op: &Operation, input: &str) -> Result<Vec<f64>> {
        let number = |b: &binding::Binding| {
            let constant = self.bound_constant(b)?;
            match self.numbers(&constant)?[..] {
                [x] => Ok(x),
                ref list => bail!("input `{input}`: expected one number an element, found {}", list.len()),
            }
        };
        Self::bindings(op, input).into_iter().map(number).collect()
    }

    fn constant_of(&self, op: &Operation, input: &str) -> Result<Option<Constant>> {
        match Self::bindings(op, input)[..] {
            [] => Ok(None),
            [b] => self.bound_constant(b).map(Some).with_context(|| format!("input `{input}` must be constant")),
            _ => bail!("input `{input}`: expected one constant"),
        }
    }

    /// Numbers of a constant input.
    pub(super) fn floats(&self, op: &Operation, input: &str) -> Result<Option<Vec<f64>>> {
        match self.constant_of(op, input)? {
            None => Ok(None),
            Some(c) => self.numbers(&c).with_context(|| format!("input `{input}`")).map(Some),
        }
    }

    pub(super) fn float(&self, op: &Operation, input: &str, default: f64) -> Result<f64> {
        match self.floats(op, input)?.as_deref() {
            None => Ok(default),
            Some([x]) => Ok(*x),
            Some(list) => bail!("input `{input}`: expected one number, found {}", list.len()),
        }
    }

    pub(super) fn flag(&self, op: &Operation, input: &str, default: bool) -> Result<bool> {
        Ok(self.float(op, input, f64::from(u8::from(default)))? != 0.0)
    }

    pub(super) fn ints(&self, op: &Operation, input: &str) -> Result<Option<Vec<i64>>> {
        let Some(list) = self.floats(op, input)? else { return Ok(None) };
        let integer = |x: f64| {
            if x.fract() != 0.0 || x.abs() > f64::from(u32::MAX) {
                bail!("input `{input}`: found {x}, expected a 32-bit integer");
            }
            Ok(x as i64)
        };
        list.into_iter().map(integer).collect::<Result<_>>().map(Some)
    }

    pub(super) fn int(&self, op: &Operation, input: &str, default: Option<i64>) -> Result<i64> {
        match (self.ints(op, input)?.as_deref(), default) {
            (Some([x]), _) => Ok(*x),
            (None, Some(default)) => Ok(default),
            (None, None) => bail!("input `{input}` is missing"),
            (Some(list), _) => bail!("input `{input}`: expected one number, found {}", list.len()),
        }
    }

    /// Extents, strides and the like: not negative.
    pub(super) fn sizes(&self, op: &Operation, input: &str) -> Result<Option<Vec<usize>>> {
        let Some(list) = self.ints(op, input)? else { return Ok(None) };
        let size =
            |x: &i64| usize::try_from(*x).with_context(|| format!("input `{input}`: found {x}, expected 0 or more"));
        list.iter().map(size).collect::<Result<_>>().map(Some)
    }

    pub(super) fn text(&self, op: &Operation, input: &str, default: &str) -> Result<String> {
        match self.constant_of(op, input)? {
            None => Ok(default.into()),
            Some(Constant::Text(list)) if list.len() == 1 => Ok(list[0].clone()),
            Some(_) => bail!("input `{input}`: expected a string"),
        }
    }

    pub(super) fn rank(&self, v: ValueId) -> usize {
        self.b.shape(v).len()
    }

    /// An axis that may count from the end.
    pub(super) fn axis(&self, axis: i64, rank: usize) -> Result<usize> {
        let wrapped = if axis < 0 { axis + rank as i64 } else { axis };
        usize::try_from(wrapped).ok().filter(|a| *a < rank).with_context(|| format!("axis {axis} of rank {rank}"))
    }

    /// Axes, ascending; all of them if the input is absent.
    pub(super) fn axes(&self, op: &Operation, input: &str, rank: usize) -> Result<Vec<usize>> {
        let Some(list) = self.ints(op, input)? else { return Ok((0..rank).collect()) };
        let mut axes: Vec<usize> = list.iter().map(|a| self.axis(*a, rank)).collect::<Result<_>>()?;
        axes.sort_unstable();
        if axes.windows(2).any(|w| w[0] == w[1]) {
            bail!("input `{input}`: an axis twice in {list:?}");
        }
        Ok(axes)
    }

    /// Computes in one dtype that holds the numbers of all operands and rounds to the first one's: since iOS 17, parameters of another
    /// dtype may stand beside fp16 values.
    pub(super) fn in_one_dtype(
        &mut self,
        operands: &[ValueId],
        compute: impl FnOnce(&mut Self, &[ValueId]) -> Result<ValueId>,
    ) -> Result<ValueId> {
        let dtypes: Vec<DType> = operands.iter().map(|&v| self.b.f.dtype(v)).collect();
        let mixed = dtypes.windows(2).any(|pair| pair[0] != pair[1]);
        let (Some(&first), true) = (dtypes.first(), mixed) else { return compute(self, operands) };
        let common = if dtypes.iter().any(|dtype| dtype.is_float()) { DType::F32 } else { DType::F64 };
        let wide: Vec<ValueId> = operands.iter().map(|&v| self.b.cast(v, common)).collect::<Result<_, _>>()?;
        let y = compute(self, &wide)?;
        Ok(self.b.cast(y, first)?)
    }

    /// Computes integers in float64, which holds every 32-bit one, and rounds the result to the first operand's dtype.
    pub(super) fn in_f64(
        &mut self,
        operands: &[ValueId],
        compute: impl FnOnce(&mut Self, &[ValueId]) -> Result<ValueId>,
    ) -> Result<ValueId> {
        let dtype = self.b.f.dtype(operands[0]);
        let wide: Vec<ValueId> = operands.iter().map(|&v| self.b.cast(v, DType::F64)).collect::<Result<_, _>>()?;
        let y = compute(self, &wide)?;
        Ok(self.b.cast(y, dtype)?)
    }
}
