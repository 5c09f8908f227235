//! Ops that run before the engine's first one: what looks something up by integers that the caller passes, such as the rows of a table of
//! embeddings.
//!
//! They leave the engine wherever they stand. In front of all others they cost one handing-over and cut nothing in two: rules by which an op leaves do
//! not look at them.

use std::collections::HashSet;

use super::constant::is_constant;
use super::program::{Function, Op, Operand};
use super::value::dtype_name;

/// Names of the ops whose operands at run time are all integers, of the caller or of other such ops, and whose results other ops take.
pub(super) fn ahead<'p>(function: &Function<'p>) -> HashSet<&'p str> {
    let is_integer = |dtype| dtype_name(dtype).starts_with("int");
    let mut integers: HashSet<&str> =
        function.inputs.iter().filter(|input| is_integer(input.dtype)).map(|input| input.name).collect();
    let mut first = HashSet::new();
    for op in &function.ops {
        let mut operands = at_run_time(function, op).peekable();
        let any = operands.peek().is_some();
        if any && operands.all(|name| integers.contains(name)) {
            first.insert(op.name);
            integers.extend(op.outputs.iter().filter(|out| is_integer(out.dtype)).map(|out| out.name));
        }
    }
    // What leads to no other op is ahead of none.
    let mut taken: HashSet<&str> = HashSet::new();
    for op in function.ops.iter().rev() {
        if first.contains(op.name) && !op.outputs.iter().any(|out| taken.contains(out.name)) {
            first.remove(op.name);
            continue;
        }
        taken.extend(at_run_time(function, op));
    }
    first
}

/// Names of an op's operands that are computed or passed at run time.
fn at_run_time<'a, 'p>(function: &'a Function<'p>, op: &'a Op<'p>) -> impl Iterator<Item = &'p str> + 'a {
    op.inputs().map(|(_, operand)| operand).filter(move |o| !is_constant(function, *o)).filter_map(Operand::name)
}
