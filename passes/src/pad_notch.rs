//! Hidden layers whose weights hit the notch of the DMA engine get channels of zeros.
//!
//! ```text
//! %h = gelu(conv(%x, %w, %b))     : f32[1, 8192, 1, N]     %h = gelu(conv(%x, [%w 0], [%b 0]))     : f32[1, 8256, 1, N]
//! %y = conv(%h, %u)               : f32[1, 2048, 1, N]  →  %y = conv(%h, [%u 0])                   : f32[1, 2048, 1, N]
//! ```
//! fp16 weights whose slice for one of 16 cores is a multiple of 1 MiB stream at 17 to 19 GB/s, where 45 to 60 are usual (eiln.github.io/posts/ane-dma.html). The new channels are
//! what the function between makes of zero, and are multiplied with zeros. That is worth it only where a product waits for its weights: with few tokens. `tokens` is the
//! most of them.

use s2dit_ir::ops::OpError;
use s2dit_ir::{Builder, Function, Module, ValueId};

use crate::Property;
use crate::hidden_layers::HiddenLayer;
use crate::notch::is_notched;
use crate::pass::{Pass, PassKind, Run};

/// Channels that are added, at most twice: rows of weights stay aligned.
const CHANNELS: usize = 64;

/// The pass.
pub static PASS: PassKind = PassKind {
    name: "pad-notch",
    doc: "no hidden layer of few tokens whose weights hit the notch of the DMA engine",
    options: "tokens=N",
    needs: &[Property::TensorOps, Property::ChannelsFirst, Property::Uncompressed],
    run: Run::Options(|written| match written {
        [] => Ok(pass(512)),
        [one] => match one.split_once('=').map(|(name, tokens)| (name, tokens.parse())) {
            Some(("tokens", Ok(tokens))) => Ok(pass(tokens)),
            _ => Err(format!("found `{one}`, expected {}", PASS.options)),
        },
        _ => Err(format!("found {}, expected {}", written.join(","), PASS.options)),
    }),
    ..PassKind::PLAIN
};

/// The pass for products of at most so many tokens.
#[must_use]
pub fn pass(tokens: usize) -> Pass {
    Pass::new(&PASS, format!("tokens={tokens}"), move |module, _| Ok(run(module, tokens)?))
}

/// Runs on every function; returns the number of hidden layers that got channels.
///
/// # Errors
/// None in practice: what comes out has the old type.
pub fn run(module: &mut Module, tokens: usize) -> Result<usize, OpError> {
    let mut changes = 0;
    for f in &mut module.functions {
        for v in f.order() {
            let Some(layer) = HiddenLayer::ending_at(f, v) else { continue };
            if layer.tokens(f) > tokens {
                continue;
            }
            let Some(more) = more(f, &layer) else { continue };
            let y = padded(f, &layer, more)?;
            f.replace_uses(layer.outer, y);
            changes += 1;
        }
        f.remove_dead();
    }
    Ok(changes)
}

/// The channels that a hidden layer lacks to stream well, if it does not.
fn more(f: &Function, layer: &HiddenLayer) -> Option<usize> {
    let (channels, first, second) = (layer.channels(f), f.shape(layer.first.0), f.shape(layer.second.0));
    let notched = |channels: usize| is_notched(&[channels, first[1]]) || is_notched(&[second[0], channels]);
    // What the function makes of zero is multiplied with zero: it has to be a number.
    let of_zero = layer.functions(f).into_iter().fold(0.0, |x, kind| kind.apply(x));
    let finite = (of_zero as f32).is_finite();
    (finite && notched(channels)).then(|| [CHANNELS, 2 * CHANNELS].into_iter().find(|n| !notched(channels + n)))?
}

fn padded(f: &mut Function, layer: &HiddenLayer, more: usize) -> Result<ValueId, OpError> {
    let (inner, outer) = (f.node(layer.inner).clone(), f.node(layer.outer).clone());
    let scopes: Vec<_> = layer.between.iter().map(|&v| f.node(v).scope.clone()).collect();
    let functions = layer.functions(f);
    let mut b = Builder::new(f);
    b.enter(&inner.scope);
    let weight = b.pad(layer.first.0, &[0; 4], &[more, 0, 0, 0], 0.0)?;
    let bias = layer.first.1.map(|bias| b.pad(bias, &[0], &[more], 0.0)).transpose()?;
    let operands: Vec<ValueId> = [layer.input, weight].into_iter().chain(bias).collect();
    let mut hidden = b.op(inner.op, &operands)?;
    b.leave();
    for (kind, scope) in functions.into_iter().zip(&scopes) {
        b.enter(scope);
        hidden = b.unary(kind, hidden)?;
        b.leave();
    }
    b.enter(&outer.scope);
    let weight = b.pad(layer.second.0, &[0; 4], &[0, more, 0, 0], 0.0)?;
    let operands: Vec<ValueId> = [hidden, weight].into_iter().chain(layer.second.1).collect();
    b.op(outer.op, &operands)
}
