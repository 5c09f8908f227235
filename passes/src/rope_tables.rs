//! Tables of rotary angles that are numbers become tables that are formulas.
//!
//! ```text
//! %cos = literal {values = [1.0, …]}  →  %cos = rope_table {part = "cos", grid = [3, 4, 4], axis_dims = [4, 2, 2], theta = 10000.0}
//! %sin = literal {values = [0.0, …]}     %sin = rope_table {part = "sin", …}
//! %y = rope(%x, %cos, %sin)              %y = rope(%x, %cos, %sin)
//! ```
//! A graph that was brought has computed its tables already, for the frames from 0 on. A stream needs those of later chunks, so it needs the
//! formula: of a grid of (frame, row, column), the split of a head's width between the three axes, and θ. All three are read off the angles,
//! and every number of the table is compared with the formula's.
//!
//! Afterwards no rotation of what depends on the latent has another table; a graph that has one is refused.

use std::collections::HashSet;
use std::f64::consts::PI;

use s2dit_ir::ops::{Reshape, Rope, RopePart, RopeTable};
use s2dit_ir::weights::evaluate_constant;
use s2dit_ir::{DType, Function, Module, Op, Tensor, TensorType, ValueId, WeightSource};

use crate::Property;
use crate::kernel::SplitError;
use crate::pass::{Context, PassError, PassKind, Run};

/// The pass.
pub static PASS: PassKind = PassKind {
    name: "rope-tables",
    doc: "the tables of rotations of a latent's tokens are formulas, not numbers",
    needs: &[Property::Fused, Property::TokensFirst],
    run: Run::InContext(run),
    ..PassKind::PLAIN
};

/// Runs on every function; returns the number of tables replaced.
fn run(module: &mut Module, context: &mut Context) -> Result<usize, PassError> {
    let Some(latent) = module.interface.latent().map(str::to_owned) else { return Ok(0) };
    let mut changes = 0;
    for f in &mut module.functions {
        if let Some(latent) = f.by_name(&latent) {
            changes += tables(f, latent, context.weights)?;
            f.remove_dead();
        }
    }
    Ok(changes)
}

fn tables(f: &mut Function, latent: ValueId, weights: &dyn WeightSource) -> Result<usize, PassError> {
    let &[_, _, frames, _, _] = f.shape(latent) else { return Ok(0) };
    let mut depends = HashSet::from([latent]);
    let mut known: Vec<([ValueId; 2], RopeTable)> = Vec::new();
    let mut changes = 0;
    for v in f.order() {
        let operands = f.operands(v);
        if v != latent && !operands.iter().any(|o| depends.contains(o)) {
            continue;
        }
        depends.insert(v);
        let Op::Rope(rope) = f.op(v).clone() else { continue };
        let [_, cos, sin] = operands[..] else { continue };
        if is_formula(f, cos) && is_formula(f, sin) {
            continue;
        }
        let table = match known.iter().find(|(of, _)| *of == [cos, sin]) {
            Some((_, table)) => table.clone(),
            None => {
                let table = read(f, v, &rope, [cos, sin], frames, weights)?;
                known.push(([cos, sin], table.clone()));
                table
            }
        };
        for (position, part, old) in [(1, RopePart::Cos, cos), (2, RopePart::Sin, sin)] {
            let shape = f.shape(old).to_vec();
            let rows = table.grid.iter().product::<usize>();
            let own = TensorType::new(DType::F32, [rows, table.axis_dims.iter().sum::<usize>() / 2]);
            let mut new = f.add_leaf(RopeTable { part, ..table.clone() }.into(), &own, "rope")?;
            if f.shape(new) != shape {
                new = f.add(Reshape { shape }.into(), &[new], "rope")?;
            }
            f.set_operand(v, position, new);
            changes += 1;
        }
    }
    Ok(changes)
}

fn is_formula(f: &Function, v: ValueId) -> bool {
    match f.op(v) {
        Op::RopeTable(_) => true,
        Op::Reshape(_) => f.operands(v).first().is_some_and(|&of| is_formula(f, of)),
        _ => false,
    }
}

/// The formula of the two tables of a rotation.
fn read(
    f: &Function,
    v: ValueId,
    rope: &Rope,
    tables: [ValueId; 2],
    frames: usize,
    weights: &dyn WeightSource,
) -> Result<RopeTable, PassError> {
    let shape = f.shape(tables[0]);
    let refused = |reason: String| {
        let scope = f.node(v).scope.to_string();
        PassError::Split(SplitError::Rotation { scope, ty: f.ty(tables[0]).to_string(), reason })
    };
    // The axis of the head's width in a table, which may have fewer axes than what is rotated.
    let width = (rope.axis + shape.len()).checked_sub(f.ty(v).rank());
    let long: Vec<usize> = (0..shape.len()).filter(|axis| shape[*axis] > 1 && Some(*axis) != width).collect();
    let (tokens, columns) = match (&long[..], width) {
        ([], Some(width)) => (1, shape[width]),
        ([token], Some(width)) if *token < width => (shape[*token], shape[width]),
        _ => return Err(refused("it has more axes than tokens and pairs".into())),
    };
    if !tokens.is_multiple_of(frames) {
        return Err(refused(format!("{tokens} rows are not a whole number for each of {frames} frames")));
    }
    let value = |v: ValueId| -> Result<Vec<f64>, PassError> {
        if !f.is_const(v) {
            return Err(refused("it is computed from an input".into()));
        }
        let Tensor { data, .. } = evaluate_constant(f, v, weights)?;
        Ok(data.iter().copied().collect())
    };
    let (cos, sin) = (value(tables[0])?, value(tables[1])?);
    let angles = Angles { cos, sin, tokens, columns, frames };
    angles.table().ok_or_else(|| {
        refused(
            "its numbers are not cos and sin of position · θ^(−2i/d) on a grid of frames from 0 on, rows and columns, in this order".into(),
        )
    })
}

/// Tables `[tokens, columns]`.
struct Angles {
    cos: Vec<f64>,
    sin: Vec<f64>,
    tokens: usize,
    columns: usize,
    frames: usize,
}

impl Angles {
    /// The angle of a token in each column: on the first step along an axis the axis' frequency, since that is at most 1.
    fn of(&self, token: usize) -> Vec<f64> {
        let row = token * self.columns..(token + 1) * self.columns;
        self.sin[row.clone()].iter().zip(&self.cos[row]).map(|(sin, cos)| sin.atan2(*cos)).collect()
    }

    fn table(&self) -> Option<RopeTable> {
        let per_frame = self.tokens / self.frames;
        let step = |tokens: usize, there: bool| there.then(|| self.of(tokens));
        let in_time = step(per_frame, self.frames > 1);
        for rows in (1..=per_frame).filter(|rows| per_frame.is_multiple_of(*rows)) {
            let cols = per_frame / rows;
            let steps = [in_time.clone(), step(cols, rows > 1), step(1, cols > 1)];
            let grid = [self.frames, rows, cols];
            let found = splits(self.columns).find_map(|split| {
                let theta = theta(&steps, split)?;
                let table = RopeTable { part: RopePart::Cos, grid, axis_dims: split.map(|pairs| 2 * pairs), theta };
                self.is(&table).then_some(table)
            });
            if found.is_some() {
                return found;
            }
        }
        None
    }

    /// Whether every number is that of the table, but for the rounding of angles in fp32.
    fn is(&self, table: &RopeTable) -> bool {
        let [_, rows, cols] = table.grid;
        let bar = 1e-6 * (4.0 + table.grid.iter().copied().max().unwrap_or(1) as f64);
        let frequencies: Vec<(usize, f64)> = (0..3)
            .flat_map(|axis| {
                let pairs = table.axis_dims[axis] / 2;
                (0..pairs).map(move |i| (axis, table.theta.powf(-(i as f64) / pairs as f64)))
            })
            .collect();
        (0..self.tokens).all(|token| {
            let place = [token / (rows * cols), token / cols % rows, token % cols];
            frequencies.iter().enumerate().all(|(column, (axis, frequency))| {
                let (sin, cos) = (place[*axis] as f64 * frequency).sin_cos();
                let at = token * self.columns + column;
                (self.cos[at] - cos).abs() <= bar && (self.sin[at] - sin).abs() <= bar
            })
        })
    }
}

/// Every split of the pairs of a head between time, rows and columns; first the usual one, which gives a third to each and the rest to time.
fn splits(pairs: usize) -> impl Iterator<Item = [usize; 3]> {
    let third = pairs / 3;
    let usual = [pairs - 2 * third, third, third];
    let all = (0..=pairs).flat_map(move |rows| (0..=pairs - rows).map(move |cols| [pairs - rows - cols, rows, cols]));
    [usual].into_iter().chain(all)
}

/// θ by the angles of a step along each axis, if the angles are those of such a split as far as a look tells.
fn theta(steps: &[Option<Vec<f64>>; 3], split: [usize; 3]) -> Option<f64> {
    let mut found = None;
    let mut first = 0;
    for (axis, pairs) in split.into_iter().enumerate() {
        let own = first..first + pairs;
        first += pairs;
        let Some(angles) = &steps[axis] else { continue };
        let still = angles.iter().enumerate().all(|(column, angle)| own.contains(&column) || angle.abs() < 1e-5);
        let turns = pairs == 0 || (angles[own.start] - 1.0).abs() < 1e-5;
        if !still || !turns {
            return None;
        }
        // The last frequency says θ best.
        if pairs > 1 && found.is_none() {
            let angle = angles[own.end - 1];
            if angle <= 0.0 || angle >= PI {
                return None;
            }
            let theta = angle.powf(-(pairs as f64) / (pairs - 1) as f64);
            let whole = theta.round();
            found = Some(if (theta / whole - 1.0).abs() < 1e-4 { whole } else { theta });
        }
    }
    let theta = found.unwrap_or(10_000.0);
    (theta.is_finite() && theta > 0.0).then_some(theta)
}

#[cfg(test)]
mod tests {
    use super::*;
    use s2dit_ir::weights::NoWeights;

    /// The tables of a formula, as numbers that went through fp32.
    fn numbers(table: &RopeTable) -> Angles {
        let rows: usize = table.grid.iter().product();
        let columns = table.axis_dims.iter().sum::<usize>() / 2;
        let of = |part| {
            let mut f = Function::new("table");
            let ty = TensorType::new(DType::F32, [rows, columns]);
            let v = f.add_leaf(RopeTable { part, ..table.clone() }.into(), &ty, "").unwrap();
            let tensor = evaluate_constant(&f, v, &NoWeights).unwrap();
            tensor.data.iter().map(|x| f64::from(*x as f32)).collect()
        };
        Angles { cos: of(RopePart::Cos), sin: of(RopePart::Sin), tokens: rows, columns, frames: table.grid[0] }
    }

    fn table(grid: [usize; 3], axis_dims: [usize; 3], theta: f64) -> RopeTable {
        RopeTable { part: RopePart::Cos, grid, axis_dims, theta }
    }

    #[test]
    fn the_formula_of_a_table_is_found() {
        for of in [
            table([3, 4, 5], [8, 4, 4], 10_000.0),
            table([3, 18, 32], [44, 42, 42], 10_000.0),
            table([2, 3, 4], [16, 8, 8], 256.0),
            table([1, 6, 4], [8, 4, 4], 10_000.0),
            table([2, 2, 2], [4, 12, 8], 500.0),
            table([4, 1, 1], [8, 4, 4], 10_000.0),
        ] {
            assert_eq!(numbers(&of).table(), Some(of));
        }
    }

    #[test]
    fn what_is_no_such_table_is_not() {
        let mut shifted = numbers(&table([3, 4, 4], [8, 4, 4], 10_000.0));
        shifted.cos.rotate_left(1);
        assert_eq!(shifted.table(), None);
        // One number is another.
        let mut wrong = numbers(&table([3, 4, 4], [8, 4, 4], 10_000.0));
        wrong.sin[17] += 1e-3;
        assert_eq!(wrong.table(), None);
    }
}
