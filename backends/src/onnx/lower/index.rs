//! Positions that are values: GatherAlongAxis, GatherNd, ScatterAlongAxis, ScatterNd, SortIndices, ArgReduce, CumSum.

use anyhow::Result;
use s2dit_ir::ops::{
    ArgReduce, CumSum, GatherAlongAxis, GatherNd, ScatterAlongAxis, ScatterMode, ScatterNd, SortIndices,
};
use s2dit_ir::{DType, TensorType, ValueId};

use super::{Lowering, int, string};
use crate::onnx::proto::{AttributeProto, NodeProto, data_type};

fn reduction(mode: ScatterMode) -> &'static str {
    match mode {
        ScatterMode::Update => "none",
        ScatterMode::Add => "add",
        ScatterMode::Mul => "mul",
        ScatterMode::Max => "max",
        ScatterMode::Min => "min",
    }
}

impl Lowering<'_> {
    pub(super) fn gather_along_axis(&mut self, v: ValueId, g: &GatherAlongAxis) -> Result<()> {
        let x = self.operands(v)?;
        self.emit(v, "GatherElements", &x, vec![int("axis", g.axis as i64)]);
        Ok(())
    }

    pub(super) fn gather_nd(&mut self, v: ValueId, g: &GatherNd) -> Result<()> {
        let mut x = self.operands(v)?;
        x[1] = self.as_i64(&x[1]);
        self.emit(v, "GatherND", &x, vec![int("batch_dims", g.batch as i64)]);
        Ok(())
    }

    pub(super) fn scatter_along_axis(&mut self, v: ValueId, s: &ScatterAlongAxis) -> Result<()> {
        let x = self.operands(v)?;
        let attributes = vec![int("axis", s.axis as i64), string("reduction", reduction(s.mode))];
        self.scattered(v, "ScatterElements", x, attributes, s.mode);
        Ok(())
    }

    pub(super) fn scatter_nd(&mut self, v: ValueId, s: &ScatterNd) -> Result<()> {
        let mut x = self.operands(v)?;
        x[1] = self.as_i64(&x[1]);
        self.scattered(v, "ScatterND", x, vec![string("reduction", reduction(s.mode))], s.mode);
        Ok(())
    }

    /// ONNX Runtime combines fp16 numbers in no scatter: they are combined in fp32.
    fn scattered(
        &mut self,
        v: ValueId,
        op: &str,
        mut x: Vec<String>,
        attributes: Vec<AttributeProto>,
        mode: ScatterMode,
    ) {
        let dtype = self.f.dtype(v);
        if dtype != DType::F16 || mode == ScatterMode::Update {
            self.emit(v, op, &x, attributes);
            return;
        }
        let to = |dtype| vec![int("to", i64::from(data_type(dtype)))];
        for i in [0, 2] {
            x[i] = self.step("Cast", std::slice::from_ref(&x[i]), to(DType::F32));
        }
        let y = self.step(op, &x, attributes);
        self.emit(v, "Cast", &[y], to(dtype));
    }

    /// `TopK` gives the elements and their positions; the positions are the result.
    pub(super) fn sort_indices(&mut self, v: ValueId, s: &SortIndices) -> Result<()> {
        let x = self.operands(v)?;
        let count = self.ints(&[s.count]);
        let (elements, positions) = (self.fresh("elements"), self.fresh("positions"));
        let name = self.names.node(&self.scope, "TopK");
        self.graph.node.push(NodeProto {
            input: vec![x[0].clone(), count],
            output: vec![elements, positions.clone()],
            name,
            op_type: "TopK".into(),
            attribute: vec![int("axis", s.axis as i64), int("largest", i64::from(s.descending)), int("sorted", 1)],
            ..NodeProto::default()
        });
        self.positions(v, positions);
        Ok(())
    }

    pub(super) fn arg_reduce(&mut self, v: ValueId, a: &ArgReduce) -> Result<()> {
        let x = self.operands(v)?;
        let op = if a.least { "ArgMin" } else { "ArgMax" };
        let positions = self.step(op, &x, vec![int("axis", a.axis as i64), int("keepdims", 1)]);
        self.positions(v, positions);
        Ok(())
    }

    pub(super) fn cum_sum(&mut self, v: ValueId, c: &CumSum) -> Result<()> {
        let x = self.operands(v)?;
        let axis = self.filled(c.axis as f64, &TensorType::new(DType::I64, []));
        let attributes = vec![int("exclusive", i64::from(c.exclusive)), int("reverse", i64::from(c.reverse))];
        self.emit(v, "CumSum", &[x[0].clone(), axis], attributes);
        Ok(())
    }

    /// int64 positions as the int32 of `v`.
    fn positions(&mut self, v: ValueId, positions: String) {
        self.emit(v, "Cast", &[positions], vec![int("to", i64::from(data_type(DType::I32)))]);
    }

    fn as_i64(&mut self, x: &str) -> String {
        self.step("Cast", &[x.to_string()], vec![int("to", i64::from(data_type(DType::I64)))])
    }
}
