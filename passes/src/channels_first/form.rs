//! The shape in which a value of some axes in some order is stored.

/// A stored shape and where the old axes are in it.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(super) struct Form {
    /// The old axes, slowest first.
    pub order: Vec<usize>,
    pub shape: Vec<usize>,
    /// For each old axis, the stored axis that is that axis and no other.
    pub axis: Vec<Option<usize>>,
}

impl Form {
    /// Four axes at most, if they can be: the engine's own rank.
    pub fn of(dims: &[usize], order: &[usize]) -> Form {
        let (groups, units): (Vec<Vec<usize>>, usize) = match (dims, order) {
            ([_, _], [0, 1]) => (vec![vec![0], vec![1]], 2),
            // Vectors: one of many, each in the channels.
            ([_, _, _], [0, 1, 2]) => (vec![vec![0, 1], vec![2]], 2),
            // Tokens: (1, D, 1, N).
            ([_, _, _], &[0, c, n]) => (vec![vec![0], vec![c], vec![], vec![n]], 0),
            // Frames of planes: (1, C, F, h·w).
            ([_, _, _, _, _], [0, 1, 2, 3, 4]) => (vec![vec![0], vec![1], vec![2], vec![3, 4]], 0),
            _ => (order.iter().map(|&a| vec![a]).collect(), 0),
        };
        let mut shape: Vec<usize> = groups.iter().map(|g| g.iter().map(|&a| dims[a]).product()).collect();
        shape.resize(shape.len() + units, 1);
        let axis = (0..dims.len())
            .map(|a| groups.iter().position(|g| g.contains(&a) && g.iter().all(|&b| b == a || dims[b] == 1)))
            .collect();
        Form { order: order.to_vec(), shape, axis }
    }
}

/// The order of a value that is as it was.
pub(super) fn natural(rank: usize) -> Vec<usize> {
    (0..rank).collect()
}

/// Whether two orders put the elements alike: axes of one do not matter.
pub(super) fn same_order(dims: &[usize], a: &[usize], b: &[usize]) -> bool {
    let long = |axis: &&usize| dims[**axis] != 1;
    a.iter().filter(long).eq(b.iter().filter(long))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn forms_have_rank_four() {
        assert_eq!(Form::of(&[1, 6, 16], &[0, 2, 1]).shape, [1, 16, 1, 6]);
        assert_eq!(Form::of(&[1, 6, 16], &[0, 1, 2]).shape, [6, 16, 1, 1]);
        assert_eq!(Form::of(&[1, 2, 6, 8], &[0, 1, 3, 2]).shape, [1, 2, 8, 6]);
        let frames = Form::of(&[1, 8, 3, 4, 5], &[0, 1, 2, 3, 4]);
        assert_eq!((frames.shape, frames.axis), (vec![1, 8, 3, 20], vec![Some(0), Some(1), Some(2), None, None]));
    }
}
