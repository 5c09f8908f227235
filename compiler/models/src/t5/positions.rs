//! The bias of positions: a number for each head and each bucket of distances between two tokens.
//!
//! The bias `[1, A, M, N]` of M keys and N queries is a convolution of planes `[1, B, M, N]`, the b-th of which is 1 where the distance lies in
//! bucket b, with the table of a block as its kernel. So all blocks share the planes; as constants, the biases of UMT5-XXL at 512 tokens would
//! have 0.8 GB. One more plane hides keys that are padding: every head has the factor 1 for it.

use s2dit_ir::ops::{Binary, Conv, Unary};
use s2dit_ir::{DType, TensorType, ValueId};

use super::config::T5Config;
use crate::layers::{Built, Layers, UNSEEN};

impl T5Config {
    /// The planes `[1, B + 1, L, L]`, keys before queries, of a text with the mask `[1, L]`.
    pub(super) fn planes(&self, m: &mut Layers<'_, ()>, mask: ValueId) -> Built {
        m.within("positions", |m| {
            let (length, buckets) = (m.b.shape(mask)[1], self.relative_attention_num_buckets);
            let bucket = self.bucket_of_each(m, length)?;
            let numbers = (0..buckets).map(|b| b as f64).collect();
            let numbers = m.b.literal(&TensorType::new(DType::F32, [1, buckets, 1, 1]), numbers)?;
            let apart = m.b.sub(bucket, numbers)?;
            let apart = m.b.unary(Unary::Abs, apart)?;
            let one = m.b.scalar_like(apart, 1.0)?;
            let is_other = m.b.binary(Binary::Minimum, apart, one)?;
            let is_in = m.b.sub(one, is_other)?;

            let hidden = m.b.add_scalar(mask, -1.0)?;
            let hidden = m.b.mul_scalar(hidden, UNSEEN)?;
            let hidden = m.b.reshape(hidden, &[1, 1, length, 1])?;
            // For every query: a minimum with zeros, where tiles would leave the Neural Engine.
            let row = m.b.literal(&TensorType::new(DType::F32, [1, 1, 1, length]), vec![0.0; length])?;
            let hidden = m.b.binary(Binary::Minimum, hidden, row)?;
            Ok(m.b.concat(&[is_in, hidden], 1)?)
        })
    }

    /// The bucket of the distance from each query to each key, `[1, 1, L, L]`, keys before queries: a row of all distances, 2L of them with
    /// one that none has, written L times and read in rows that are shorter by one.
    fn bucket_of_each(&self, m: &mut Layers<'_, ()>, length: usize) -> Built {
        let distance = |i: usize| length as i64 - 1 - i as i64;
        let row = (0..2 * length).map(|i| self.bucket(distance(i)) as f64).collect();
        let row = m.b.literal(&TensorType::new(DType::F32, [1, 2 * length]), row)?;
        let rows = m.b.broadcast_to(row, &[length, 2 * length])?;
        let flat = m.b.reshape(rows, &[2 * length * length])?;
        let flat = m.b.slice(flat, 0, 0, length * (2 * length - 1))?;
        let rows = m.b.reshape(flat, &[length, 2 * length - 1])?;
        let each = m.b.slice(rows, 1, length - 1, 2 * length - 1)?;
        Ok(m.b.reshape(each, &[1, 1, length, length])?)
    }

    /// The bias `[1, A, L, L]` of a block's attention, queries before keys, with the table of the current module.
    pub(super) fn bias(&self, m: &mut Layers<'_, ()>, planes: ValueId) -> Built {
        m.within("relative_attention_bias", |m| {
            let (heads, buckets) = (self.num_heads, self.relative_attention_num_buckets);
            let table = m.param("weight")?;
            let table = m.b.transpose(table, &[1, 0])?;
            let ones = m.b.literal(&TensorType::new(DType::F32, [heads, 1]), vec![1.0; heads])?;
            let table = m.b.concat(&[table, ones], 1)?;
            let kernel = m.b.reshape(table, &[heads, buckets + 1, 1, 1])?;
            let bias = m.b.conv(Conv::with_strides(&[1, 1]), planes, kernel, None)?;
            Ok(m.b.transpose(bias, &[0, 1, 3, 2])?)
        })
    }

    /// The bucket of a distance from a query to a key (Raffel et al., arXiv 1910.10683): half of the buckets are for keys after the query. Small distances have
    /// buckets of their own; from there on buckets grow with the logarithm of the distance. transformers computes it in float32.
    fn bucket(&self, distance: i64) -> usize {
        let half = self.relative_attention_num_buckets / 2;
        let after = if distance > 0 { half } else { 0 };
        let (distance, single) = (distance.unsigned_abs() as usize, half / 2);
        if distance < single {
            return after + distance;
        }
        let log = |x: f64| x.ln() as f32;
        let ratio = (distance as f32 / single as f32).into();
        let all = log(self.relative_attention_max_distance as f64 / single as f64);
        let step = log(ratio) / all * (half - single) as f32;
        after + (single + step as usize).min(half - 1)
    }
}

#[cfg(test)]
mod tests {
    use super::super::T5;
    use super::*;

    /// What `T5Attention._relative_position_bucket` of transformers 5.24 gives.
    #[test]
    fn buckets_are_those_of_transformers() {
        let config = T5Config::defaults(T5::Original);
        let bounds = |after: bool| {
            let bucket = |distance: i64| config.bucket(if after { distance } else { -distance });
            (1..200).filter(|d| bucket(*d) != bucket(d - 1)).collect::<Vec<_>>()
        };
        let expected = [1, 2, 3, 4, 5, 6, 7, 8, 12, 16, 23, 32, 46, 64, 91];
        assert_eq!((bounds(false), bounds(true)), (expected.to_vec(), expected.to_vec()));
        assert_eq!((config.bucket(0), config.bucket(1), config.bucket(1000), config.bucket(-1000)), (0, 17, 31, 15));
        let small = T5Config {
            relative_attention_num_buckets: 12,
            relative_attention_max_distance: 20,
            ..T5Config::defaults(T5::Multilingual)
        };
        let row: Vec<usize> = (-24..=24).map(|d| small.bucket(d)).collect();
        let before = [[5; 14].as_slice(), &[4; 5], &[3; 3], &[2, 1]].concat();
        let after = [[7, 8].as_slice(), &[9; 3], &[10; 5], &[11; 14]].concat();
        assert_eq!(row, [before, vec![0], after].concat());
    }
}
