//! Where the frames of a chunk lie in each value, and which values mix them.
//!
//! A chunk's network may be split only if all that looks along time is a formula that the split knows. So every value that depends on the chunk
//! is followed from the latent to the velocity: the axis that its frames lie on, and how many elements of that axis a frame has. An op that
//! joins frames in another way is named, with its place.
//!
//! Constants count as well: one that differs from frame to frame would be that of the first chunk in every chunk.

use std::collections::HashMap;
use std::rc::Rc;

use s2dit_ir::ops::Conv;
use s2dit_ir::weights::evaluate_constant;
use s2dit_ir::{Function, Op, ValueId, WeightSource};

use super::SplitError;

/// The place of the frames in a value.
#[derive(Clone, Debug, PartialEq)]
pub(super) enum Place {
    /// The value does not depend on the chunk.
    Outside,
    /// The frames lie on an axis, one after the other, `inner` elements of the axis each. `outer` such runs follow one another.
    On(Run),
    /// The value has something of several frames.
    Mixed(Rc<Mix>),
}

/// See [`Place::On`]: the axis has `outer · frames · inner` elements.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) struct Run {
    pub axis: usize,
    pub outer: usize,
    pub inner: usize,
}

/// Why a value has something of several frames.
#[derive(Debug, PartialEq)]
pub(super) struct Mix {
    op: String,
    scope: String,
    reason: String,
}

impl Mix {
    /// The error of a graph whose result has this.
    pub fn refused(&self) -> SplitError {
        let scope =
            if self.scope.is_empty() { "outside of every module".to_owned() } else { format!("in `{}`", self.scope) };
        SplitError::Mixed { op: self.op.clone(), scope, reason: self.reason.clone() }
    }
}

/// The places of all values of a function.
pub(super) struct Places<'a> {
    f: &'a Function,
    frames: usize,
    /// See [`super::Options::ahead`].
    ahead: bool,
    weights: &'a dyn WeightSource,
    places: HashMap<ValueId, Place>,
}

/// Why a product of two values that both have frames cannot be split.
const PAIRS: &str = "it sums over the frames, as attention does, and is part of no formula that is split: softmax attention without a mask or \
                     bias, or linear attention";

/// What is wrong with an op, unless its result has a place.
type Placed = Result<Place, String>;

impl<'a> Places<'a> {
    /// Follows the frames of `chunk`, the latent. `tables` are inputs with a row for each token; `formula` says of a value that is the root of
    /// a formula which the split rewrites in which of its operands the frames of the result lie, and in which others frames must lie on the
    /// same axis.
    pub fn of(
        f: &'a Function,
        chunk: ValueId,
        frames: usize,
        ahead: bool,
        tables: &[ValueId],
        weights: &'a dyn WeightSource,
        formula: impl Fn(ValueId) -> Option<Vec<ValueId>>,
    ) -> Places<'a> {
        let mut all = Places { f, frames, ahead, weights, places: HashMap::new() };
        for v in f.order() {
            let place = if v == chunk {
                Place::On(Run { axis: 2, outer: 1, inner: 1 })
            } else if tables.contains(&v) {
                Place::On(Run { axis: 0, outer: 1, inner: f.shape(v)[0] / frames })
            } else {
                all.place(v, formula(v))
            };
            all.places.insert(v, place);
        }
        all
    }

    /// The place of the frames in a value.
    pub fn at(&self, v: ValueId) -> &Place {
        self.places.get(&v).unwrap_or(&Place::Outside)
    }

    fn place(&self, v: ValueId, formula: Option<Vec<ValueId>>) -> Place {
        let operands = self.f.operands(v);
        if let Some(of) = formula
            && let Some(Place::On(run)) = of.first().map(|query| self.at(*query))
            && run.axis <= 2
            && of.iter().all(|o| matches!(self.at(*o), Place::On(other) if other.axis == run.axis && other.outer == 1))
        {
            return Place::On(*run);
        }
        if operands.iter().all(|o| *self.at(*o) == Place::Outside) {
            return Place::Outside;
        }
        if let Some(mixed) = operands.iter().find(|o| matches!(self.at(**o), Place::Mixed(_))) {
            return self.at(*mixed).clone();
        }
        let followed = if self.frames == 1 { self.of_one_frame(v, &operands) } else { self.followed(v, &operands) };
        followed.unwrap_or_else(|reason| {
            let node = self.f.node(v);
            let name = node.name.as_deref().map_or(String::new(), |name| format!(" %{name}"));
            let op = format!("{}{name} of {}", self.f.op(v).name(), self.f.ty(v));
            Place::Mixed(Rc::new(Mix { op, scope: node.scope.to_string(), reason }))
        })
    }

    /// The result of an op in a chunk of one frame, which lies nowhere in particular: no op can mix it with others. What joins its tokens in a way
    /// that is none of the formulas, or looks along time, would be without a past.
    fn of_one_frame(&self, v: ValueId, operands: &[ValueId]) -> Placed {
        let run = Run { axis: 2, outer: 1, inner: 1 };
        match self.f.op(v) {
            Op::Matmul(_) if operands.iter().all(|o| self.run(*o).is_some()) => Err(PAIRS.into()),
            Op::Conv(conv) if conv.strides.len() == 3 => self.conv(conv, operands, run),
            _ => Ok(Place::On(run)),
        }
    }

    /// The place of the result of an op that has frames in an operand, all of whose operands have a place.
    fn followed(&self, v: ValueId, operands: &[ValueId]) -> Placed {
        let f = self.f;
        let first = operands.first().map_or(&Place::Outside, |o| self.at(*o));
        let only_first = || match (first, operands[1..].iter().all(|o| *self.at(*o) == Place::Outside)) {
            (Place::On(run), true) => Ok(*run),
            _ => Err("an operand that is no activation has frames".to_owned()),
        };
        let along = |run: Run, axis: usize, does: &str| {
            if run.axis == axis { Err(format!("it {does} the axis of the frames")) } else { Ok(Place::On(run)) }
        };
        match f.op(v) {
            Op::Unary(_) | Op::Cast(_) | Op::Quantize(_) | Op::Dequantize(_) => Ok(Place::On(only_first()?)),
            Op::Binary(_) | Op::Compare(_) | Op::Select(_) | Op::BroadcastTo(_) => self.elementwise(v, operands),
            Op::Matmul(m) => self.matmul(v, operands, m.transpose_x, m.transpose_y),
            Op::Linear(_) => along(only_first()?, f.ty(v).rank() - 1, "sums over"),
            Op::Conv(conv) => self.conv(conv, operands, only_first()?),
            Op::ConvTranspose(_) | Op::Pool(_) | Op::Upsample(_) | Op::DepthToSpace(_) => {
                let run = only_first()?;
                if run.axis == 0 { Ok(Place::On(run)) } else { Err("the frames lie on one of its spatial axes".into()) }
            }
            Op::LayerNorm(norm) => {
                let run = only_first()?;
                if norm.axes.contains(&run.axis) {
                    return Err("its mean is over all frames".into());
                }
                Ok(Place::On(run))
            }
            Op::Softmax(s) => along(only_first()?, s.axis, "is along"),
            Op::CumSum(s) => along(only_first()?, s.axis, "sums along"),
            Op::SortIndices(s) => along(only_first()?, s.axis, "sorts along"),
            Op::Gather(g) => along(only_first()?, g.axis, "chooses along"),
            Op::GatherAlongAxis(g) => along(only_first()?, g.axis, "chooses along"),
            Op::Reduce(r) => self.reduced(only_first()?, &r.axes, r.keep_dims),
            Op::ArgReduce(r) => {
                let keeps = f.ty(v).rank() == f.ty(operands[0]).rank();
                self.reduced(only_first()?, &[r.axis], keeps)
            }
            Op::Transpose(t) => {
                let run = only_first()?;
                let axis = t.perm.iter().position(|p| *p == run.axis).ok_or("it has no axis of frames")?;
                Ok(Place::On(Run { axis, ..run }))
            }
            Op::Reshape(r) => self.reshaped(only_first()?, f.shape(operands[0]), &r.shape),
            Op::Concat(c) => {
                let runs = operands.iter().filter_map(|o| self.run(*o));
                let run = same(runs)?;
                if run.axis == c.axis {
                    return Err("it joins frames of one value with others".into());
                }
                let mut outside = operands.iter().filter(|o| self.run(**o).is_none());
                outside.try_for_each(|o| self.check_uniform(*o, run.axis, run))?;
                Ok(Place::On(run))
            }
            Op::Slice(s) => {
                let run = only_first()?;
                let extent = f.shape(operands[0])[run.axis];
                if (s.begin[run.axis], s.end[run.axis], s.stride[run.axis]) != (0, extent, 1) {
                    return Err("it takes some of the frames".into());
                }
                Ok(Place::On(run))
            }
            Op::Pad(p) => {
                let run = only_first()?;
                if p.before[run.axis] + p.after[run.axis] > 0 {
                    return Err("it puts frames before or behind those of the chunk; only zeros that a convolution \
                                needs, all of them before time, are known"
                        .into());
                }
                Ok(Place::On(run))
            }
            _ => Err("where its frames go is not known".into()),
        }
    }

    fn run(&self, v: ValueId) -> Option<Run> {
        match self.at(v) {
            Place::On(run) => Some(*run),
            _ => None,
        }
    }

    fn elementwise(&self, v: ValueId, operands: &[ValueId]) -> Placed {
        let rank = self.f.ty(v).rank();
        let shifted = |o: ValueId| rank - self.f.ty(o).rank();
        let runs = operands.iter().filter_map(|&o| self.run(o).map(|run| Run { axis: run.axis + shifted(o), ..run }));
        let run = same(runs)?;
        for &o in operands.iter().filter(|o| self.run(**o).is_none()) {
            if let Some(axis) = run.axis.checked_sub(shifted(o)) {
                self.check_uniform(o, axis, run)?;
            }
        }
        Ok(Place::On(run))
    }

    /// Whether a value without frames is the same for every frame when it lies beside frames on `axis`.
    fn check_uniform(&self, v: ValueId, axis: usize, run: Run) -> Result<(), String> {
        let (f, shape) = (self.f, self.f.shape(v));
        if shape[axis] == 1 {
            return Ok(());
        }
        if let (Op::BroadcastTo(_), Some(&inner)) = (f.op(v), f.operands(v).first())
            && let Some(axis) = (axis + f.ty(inner).rank()).checked_sub(shape.len())
            && f.shape(inner)[axis] == 1
        {
            return Ok(());
        }
        let computed = "what it takes from outside of the chunk has elements for each frame, and is computed";
        if !f.is_const(v) {
            return Err(format!("{computed} from an input other than the latent"));
        }
        let differs = "a constant differs from frame to frame, such as learned positions: in a stream every chunk would get that of the first \
                       one; of positions only the rotations of queries and keys go on";
        let tensor = evaluate_constant(f, v, self.weights).map_err(|_| differs.to_owned())?;
        let after: usize = shape[axis + 1..].iter().product();
        let (step, whole) = (run.inner * after, self.frames * run.inner * after);
        let values: Vec<f64> = tensor.data.iter().copied().collect();
        let same =
            values.chunks(whole).all(|all| all.iter().skip(step).zip(all).all(|(a, b)| a.to_bits() == b.to_bits()));
        if same { Ok(()) } else { Err(differs.into()) }
    }

    fn matmul(&self, v: ValueId, operands: &[ValueId], transpose_x: bool, transpose_y: bool) -> Placed {
        let rank = self.f.ty(v).rank();
        // From the end: 0 and 1 are the axes of the matrix, others are batches.
        let back = |o: ValueId, run: Run| self.f.ty(o).rank() - 1 - run.axis;
        let (x, y) = (operands[0], operands[1]);
        let mut found = None;
        for (o, transposed, own) in [(x, transpose_x, 1), (y, transpose_y, 0)] {
            let Some(run) = self.run(o) else { continue };
            let at = match back(o, run) {
                at if at >= 2 => at,
                at if at == (own ^ usize::from(transposed)) => own,
                _ => return Err(PAIRS.into()),
            };
            let placed = Run { axis: rank - 1 - at, ..run };
            match found {
                None => found = Some(placed),
                Some(other) if other == placed => {}
                Some(_) => return Err(PAIRS.into()),
            }
        }
        let run = found.ok_or("it has no frames")?;
        if rank - 1 - run.axis >= 2 {
            for &o in operands.iter().filter(|o| self.run(**o).is_none()) {
                if let Some(axis) = (run.axis + self.f.ty(o).rank()).checked_sub(rank) {
                    self.check_uniform(o, axis, run)?;
                }
            }
        }
        Ok(Place::On(run))
    }

    fn conv(&self, conv: &Conv, operands: &[ValueId], run: Run) -> Placed {
        let Some(axis) = run.axis.checked_sub(2) else {
            return if run.axis == 0 { Ok(Place::On(run)) } else { Err("it sums over the frames as channels".into()) };
        };
        let reach = (self.f.shape(operands[1])[run.axis] - 1) * conv.dilations[axis];
        let (before, after, step) = (conv.pad_before[axis], conv.pad_after[axis], conv.strides[axis]);
        let plain = (run.axis, run.outer, run.inner) == (2, 1, 1);
        match (reach, before, after, step) {
            (0, 0, 0, 1) => Ok(Place::On(run)),
            (_, _, _, 1)
                if before + after == reach && (after == 0 || self.ahead) && plain && conv.strides.len() == 3 =>
            {
                Ok(Place::On(run))
            }
            _ => Err(format!(
                "a convolution along time that is not causal: it steps by {step} frame(s) and has zeros for {before} before and {after} behind \
                 the chunk; expected steps of 1, {reach} before and 0 behind, and a 3-D convolution"
            )),
        }
    }

    fn reduced(&self, run: Run, axes: &[usize], keeps: bool) -> Placed {
        if axes.contains(&run.axis) {
            return Err("it joins all frames to one value".into());
        }
        let gone = if keeps { 0 } else { axes.iter().filter(|axis| **axis < run.axis).count() };
        Ok(Place::On(Run { axis: run.axis - gone, ..run }))
    }

    /// The frames after a reshape: the digit of the flat index that says the frame stays the same digit.
    fn reshaped(&self, run: Run, from: &[usize], to: &[usize]) -> Placed {
        let before = from[..run.axis].iter().product::<usize>() * run.outer;
        let mut passed = 1;
        let mut found = None;
        for (axis, &extent) in to.iter().enumerate() {
            if before.is_multiple_of(passed) {
                let outer = before / passed;
                if extent.is_multiple_of(outer * self.frames) {
                    let inner = extent / (outer * self.frames);
                    let next = Run { axis, outer, inner };
                    // The first axis that has nothing else before the frames.
                    if found.is_none_or(|found: Run| found.outer > outer) {
                        found = Some(next);
                    }
                }
            }
            passed *= extent;
        }
        found.map(Place::On).ok_or_else(|| "it cuts through the frames".to_owned())
    }
}

/// The one place of all of them.
fn same(mut runs: impl Iterator<Item = Run>) -> Result<Run, String> {
    let first = runs.next().ok_or("it has no frames")?;
    if runs.any(|run| run != first) {
        return Err("its operands have the frames on different axes: each frame meets every other".into());
    }
    Ok(first)
}
