//! Pool.

use anyhow::Result;
use s2dit_ir::ValueId;
use s2dit_ir::ops::Pool;

use super::super::program::Value;
use super::Lowering;

impl Lowering<'_> {
    pub(super) fn pool(&mut self, _: ValueId, _: &Pool) -> Result<Value> {
        self.missing("pools")
    }
}
