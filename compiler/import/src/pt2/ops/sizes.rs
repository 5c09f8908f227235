//! Sizes as numbers: arithmetic of Python on symbols, which are bound.

use s2dit_ir::OpError;

use super::super::call::Call;
use super::super::walk::{Slot, Walk};
use super::Group;

pub(super) const OPS: Group = &[
    ("aten.sym_size.int", size),
    ("aten.sym_numel.default", elements),
    ("_operator.add", |w, c| of_two(w, c, |x, y| x + y)),
    ("_operator.sub", |w, c| of_two(w, c, |x, y| x - y)),
    ("_operator.mul", |w, c| of_two(w, c, |x, y| x * y)),
    ("_operator.truediv", |w, c| of_two(w, c, |x, y| x / y)),
    ("_operator.floordiv", |w, c| of_two(w, c, |x, y| (x / y).floor())),
    ("_operator.mod", |w, c| of_two(w, c, |x, y| x - y * (x / y).floor())),
    ("_operator.pow", |w, c| of_two(w, c, f64::powf)),
    ("_operator.neg", |w, c| of_one(w, c, |x| -x)),
    ("_operator.eq", |w, c| of_two(w, c, |x, y| f64::from(u8::from(x == y)))),
    ("_operator.ne", |w, c| of_two(w, c, |x, y| f64::from(u8::from(x != y)))),
    ("_operator.ge", |w, c| of_two(w, c, |x, y| f64::from(u8::from(x >= y)))),
    ("_operator.gt", |w, c| of_two(w, c, |x, y| f64::from(u8::from(x > y)))),
    ("_operator.le", |w, c| of_two(w, c, |x, y| f64::from(u8::from(x <= y)))),
    ("_operator.lt", |w, c| of_two(w, c, |x, y| f64::from(u8::from(x < y)))),
    ("math.floor", |w, c| of_one(w, c, f64::floor)),
    ("math.ceil", |w, c| of_one(w, c, f64::ceil)),
    ("math.trunc", |w, c| of_one(w, c, f64::trunc)),
    ("torch.sym_max", |w, c| of_two(w, c, f64::max)),
    ("torch.sym_min", |w, c| of_two(w, c, f64::min)),
    ("torch.sym_float", |w, c| of_one(w, c, |x| x)),
    ("torch.sym_int", |w, c| of_one(w, c, f64::trunc)),
];

type Read = Result<Vec<Slot>, OpError>;

fn size(w: &mut Walk<'_>, c: &Call<'_>) -> Read {
    let x = c.tensor(w, "self")?;
    let shape = w.t.shape(&x);
    let axis = c.axis(w, "dim", 0, shape.len())?;
    shape.get(axis).map(|side| vec![Slot::Number(*side as f64)]).ok_or_else(|| OpError::new("the size of a number"))
}

fn elements(w: &mut Walk<'_>, c: &Call<'_>) -> Read {
    let x = c.tensor(w, "self")?;
    Ok(vec![Slot::Number(w.t.ty(&x).elements() as f64)])
}

fn of_two(w: &mut Walk<'_>, c: &Call<'_>, function: fn(f64, f64) -> f64) -> Read {
    match c.all_numbers(w)?[..] {
        [x, y] => number(function(x, y)),
        _ => Err(OpError::new("it takes two numbers")),
    }
}

fn of_one(w: &mut Walk<'_>, c: &Call<'_>, function: fn(f64) -> f64) -> Read {
    match c.all_numbers(w)?[..] {
        [x] => number(function(x)),
        _ => Err(OpError::new("it takes a number")),
    }
}

fn number(x: f64) -> Read {
    match x.is_finite() {
        true => Ok(vec![Slot::Number(x)]),
        false => Err(OpError::new("a size that is no number")),
    }
}
