//! Axes are joined after they were put in order, not before.
//!
//! ```text
//! transpose(reshape(x : [1, 2, 12, 36]) : [1, 24, 36]) : [1, 36, 24]  →  reshape(transpose(x) : [1, 36, 2, 12]) : [1, 36, 24]
//! ```
//! Exporters join axes, such as that of the batch with that of the heads, for ops that take three at most, and swap axes in between. Two transposes with such a
//! join between them are one transpose; until they are, they hide what is transposed from whoever looks for formulas.

use s2dit_ir::ops::{OpError, Reshape, Transpose};
use s2dit_ir::{Function, Op};

/// Takes joins out from under transposes: of any axes over another transpose, of one pair of axes, such as heads with their width, over arithmetic.
///
/// # Errors
/// A defect: the new ops have the old ones' types.
pub(crate) fn after_transposes(f: &mut Function) -> Result<(), OpError> {
    for v in f.order() {
        let Op::Transpose(Transpose { perm }) = f.op(v).clone() else { continue };
        let joined = f.operands(v)[0];
        let (Op::Reshape(_), true) = (f.op(joined), f.is_used_only_by(joined, v)) else { continue };
        let x = f.operands(joined)[0];
        let pair = f.ty(x).rank() == f.ty(joined).rank() + 1 && matches!(f.op(x), Op::Binary(_) | Op::Matmul(_));
        let Some(groups) = groups(f.shape(x), f.shape(joined)).filter(|_| pair || matches!(f.op(x), Op::Transpose(_)))
        else {
            continue;
        };
        let (shape, scope) = (f.shape(v).to_vec(), f.node(v).scope.to_string());
        let perm = perm.iter().flat_map(|&p| groups[p].clone()).collect();
        let ordered = f.add(Transpose { perm }.into(), &[x], &scope)?;
        let new = f.add(Reshape { shape }.into(), &[ordered], &scope)?;
        f.replace_uses(v, new);
    }
    f.remove_dead();
    Ok(())
}

/// The axes of `from` that each axis of `to` joins; `None` unless every axis is a join of some, and at least one of several.
fn groups(from: &[usize], to: &[usize]) -> Option<Vec<Vec<usize>>> {
    let mut axes = (0..from.len()).peekable();
    let mut groups = Vec::new();
    for (at, &extent) in to.iter().enumerate() {
        let mut group = vec![axes.next()?];
        let mut size = from[group[0]];
        while size < extent
            || (size == extent && axes.peek().is_some_and(|&a| from[a] == 1 && from.len() - a > to.len() - at - 1))
        {
            let axis = axes.next()?;
            size *= from[axis];
            group.push(axis);
        }
        if size != extent {
            return None;
        }
        groups.push(group);
    }
    (axes.next().is_none() && to.len() < from.len()).then_some(groups)
}

#[cfg(test)]
mod tests {
    use super::*;
    use s2dit_ir::text::{parse, print};

    #[test]
    fn axes_are_told_apart() {
        assert_eq!(groups(&[1, 2, 36, 12], &[2, 36, 12]), Some(vec![vec![0, 1], vec![2], vec![3]]));
        assert_eq!(groups(&[1, 2, 12, 36], &[1, 24, 36]), Some(vec![vec![0], vec![1, 2], vec![3]]));
        assert_eq!(groups(&[2, 3, 1], &[2, 3]), Some(vec![vec![0], vec![1, 2]]));
        assert_eq!(groups(&[4, 6], &[6, 4]), None);
        assert_eq!(groups(&[6], &[2, 3]), None);
        assert_eq!(groups(&[0, 3, 2], &[0, 6]), Some(vec![vec![0], vec![1, 2]]));
    }

    #[test]
    fn transposes_around_a_join_come_together() {
        let text = "module { func @main(%x: f32[1, 36, 2, 12]) {
            %0 = transpose(%x) {perm = [0, 2, 1, 3]} : f32[1, 2, 36, 12]
            %1 = reshape(%0) {shape = [2, 36, 12]} : f32[2, 36, 12]
            %2 = transpose(%1) {perm = [0, 2, 1]} : f32[2, 12, 36]
            %y = exp(%2) : f32[2, 12, 36]
            return y = %y
        } }";
        let mut module = parse(text).unwrap();
        after_transposes(&mut module.functions[0]).expect("no defect");
        let text = print(&module);
        assert!(text.contains("transpose(%0) {perm = [0, 1, 3, 2]} : f32[1, 2, 12, 36]"), "{text}");
        assert!(text.contains("{shape = [2, 12, 36]} : f32[2, 12, 36]"), "{text}");
    }
}
