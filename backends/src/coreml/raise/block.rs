//! Branches and loops: which way they go is computed while they are raised.

use anyhow::{Context, Result, bail};
use s2dit_ir::ValueId;

use super::Raise;
use super::lists::List;
use crate::coreml::proto::{Block, Operation};

/// Rounds after which a loop is no longer unrolled into the graph: what it has so far is computed.
const UNROLLED: usize = 64;
/// Rounds of one loop.
const ROUNDS: usize = 1 << 20;
/// Blocks in blocks.
const DEPTH: usize = 16;

/// What a name of a program can stand for.
#[derive(Clone)]
pub(super) enum Item {
    Tensor(ValueId),
    List(List),
}

impl Raise<'_, '_> {
    pub(super) fn item(&mut self, name: &str) -> Result<Item> {
        match self.lists.get(name) {
            Some(list) => Ok(Item::List(list.clone())),
            None => self.value(name).map(Item::Tensor),
        }
    }

    fn bind(&mut self, name: &str, item: Item) {
        match item {
            Item::Tensor(v) => {
                self.constants.remove(name);
                self.lists.remove(name);
                self.values.insert(name.into(), v);
            }
            Item::List(list) => {
                self.lists.insert(name.into(), list);
            }
        }
    }

    /// Raises a block with these arguments and returns what it returns.
    fn block(&mut self, block: &Block, arguments: &[Item]) -> Result<Vec<Item>> {
        if block.inputs.len() != arguments.len() {
            bail!("a block of {} inputs for {} values", block.inputs.len(), arguments.len());
        }
        if self.depth == DEPTH {
            bail!("blocks in blocks, more than {DEPTH} deep");
        }
        for (input, item) in block.inputs.iter().zip(arguments) {
            self.bind(&input.name, item.clone());
        }
        self.depth += 1;
        let raised = block.operations.iter().try_for_each(|op| self.shown(op));
        let returned = raised.and_then(|()| block.outputs.iter().map(|name| self.item(name)).collect());
        self.depth -= 1;
        returned
    }

    fn results(&mut self, op: &Operation, items: Vec<Item>) -> Result<()> {
        if items.len() != op.outputs.len() {
            bail!("expected {} result(s), the program declares {}", items.len(), op.outputs.len());
        }
        for (item, declared) in items.into_iter().zip(&op.outputs) {
            match item {
                Item::Tensor(v) => {
                    // A branch that returns a value from outside it gives it a second name.
                    let v = if self.b.f.node(v).name.is_some() && self.depth == 0 {
                        self.b.unary(s2dit_ir::ops::Unary::Identity, v)?
                    } else {
                        v
                    };
                    self.define(&declared.name, v, declared.r#type.as_ref())?;
                }
                list => {
                    self.claim(&declared.name)?;
                    self.bind(&declared.name, list);
                }
            }
        }
        Ok(())
    }

    fn holds(&self, condition: &Item) -> Result<bool> {
        let Item::Tensor(v) = condition else { bail!("a condition that is a list") };
        let value = self.known(*v)?;
        let first = value.data.iter().next().filter(|_| value.data.len() == 1);
        Ok(*first.with_context(|| format!("a condition {}", value.ty()))? != 0.0)
    }

    /// `cond`: the block that its condition chooses.
    pub(super) fn branch(&mut self, op: &Operation) -> Result<()> {
        let [yes, no] = &op.blocks[..] else { bail!("expected two blocks, found {}", op.blocks.len()) };
        let name = self.name_of(op, "pred")?.to_string();
        let condition = self.item(&name)?;
        let block = if self.holds(&condition)? { yes } else { no };
        let items = self.block(block, &[])?;
        self.results(op, items)
    }

    /// `while_loop`: its second block as long as the first one returns true.
    pub(super) fn repeat(&mut self, op: &Operation) -> Result<()> {
        let [condition, body] = &op.blocks[..] else { bail!("expected two blocks, found {}", op.blocks.len()) };
        let names: Vec<String> = self.names_of(op, "loop_vars")?;
        let mut items: Vec<Item> = names.iter().map(|name| self.item(name)).collect::<Result<_>>()?;
        for round in 0.. {
            let goes_on = self.block(condition, &items)?;
            let [goes_on] = &goes_on[..] else { bail!("a condition of {} values", goes_on.len()) };
            if !self.holds(goes_on)? {
                break;
            }
            if round == ROUNDS {
                bail!("a loop of more than {ROUNDS} rounds");
            }
            items = self.block(body, &items)?;
            if self.caller.is_some() && (self.for_one_call.get() || round >= UNROLLED) {
                for item in &mut items {
                    if let Item::Tensor(v) = item {
                        *v = self.cut(*v)?;
                    }
                }
            }
        }
        self.results(op, items)
    }
}
