//! Hidden layers that leave the engine's working set are computed in parts: the second product is split along what it sums.
//!
//! ```text
//! %h = gelu(conv(%x, %w, %b))     : f32[1, H, 1, N]     %hᵢ = gelu(conv(%x, %w[iP..], %b[iP..]))      : f32[1, P, 1, N]
//! %y = conv(%h, %u, %c)           : f32[1, D, 1, N]  →  %y  = conv(%h0, %u[…, 0..P], %c) + conv(%h1, %u[…, P..2P]) + …
//! ```
//! 8192 channels of 1728 tokens are 28 MB: read and written once, they go through memory. Parts of a weight have other slices for the engine's cores, too: if the whole hits the
//! notch of the DMA engine, parts that do not are preferred.

use s2dit_ir::ops::{Conv, OpError};
use s2dit_ir::{Builder, DType, Function, Module, Op, ValueId};

use crate::Property;
use crate::hidden_layers::HiddenLayer;
use crate::notch::is_notched;
use crate::pass::{Pass, PassKind, Run};

/// Parts are at most so many: each adds a sum of what comes out.
const MOST: usize = 8;
/// Channels of a part are a multiple of so many.
const CHANNELS: usize = 32;

/// The pass.
pub static PASS: PassKind = PassKind {
    name: "split-hidden",
    doc: "no hidden layer that leaves the working set: it is computed in parts, whose products are added",
    options: "working-set=BYTES",
    needs: &[Property::TensorOps, Property::ChannelsFirst, Property::Uncompressed],
    run: Run::Options(|written| match written {
        [] => Ok(pass(24_000_000)),
        [one] => match one.split_once('=').map(|(name, bytes)| (name, bytes.parse())) {
            Some(("working-set", Ok(bytes))) => Ok(pass(bytes)),
            _ => Err(format!("found `{one}`, expected {}", PASS.options)),
        },
        _ => Err(format!("found {}, expected {}", written.join(","), PASS.options)),
    }),
    ..PassKind::PLAIN
};

/// The pass for a working set of so many bytes of fp16 values.
#[must_use]
pub fn pass(working_set: usize) -> Pass {
    Pass::new(&PASS, format!("working-set={working_set}"), move |module, _| Ok(run(module, working_set)?))
}

/// Runs on every function; returns the number of hidden layers in parts.
///
/// # Errors
/// None in practice: the sum has the old result's type.
pub fn run(module: &mut Module, working_set: usize) -> Result<usize, OpError> {
    let mut changes = 0;
    for f in &mut module.functions {
        for v in f.order() {
            let Some(layer) = HiddenLayer::ending_at(f, v) else { continue };
            let Some(parts) = parts(f, &layer, working_set) else { continue };
            let y = in_parts(f, &layer, parts)?;
            f.replace_uses(layer.outer, y);
            changes += 1;
        }
        f.remove_dead();
    }
    Ok(changes)
}

/// The number of parts, if the whole leaves the working set and parts do not.
fn parts(f: &Function, layer: &HiddenLayer, working_set: usize) -> Option<usize> {
    let of = |v: ValueId| DType::F16.size() * f.ty(v).elements();
    let (input, hidden, output) = (of(layer.input), of(layer.inner), of(layer.outer));
    let fits = |parts: usize| {
        let part = hidden / parts;
        (2 * part).max(input + part).max(output + part) <= working_set
    };
    if fits(1) {
        return None;
    }
    let channels = layer.channels(f);
    let even = |parts: &usize| channels.is_multiple_of(*parts) && (channels / parts).is_multiple_of(CHANNELS);
    let fitting: Vec<usize> = (2..=MOST).filter(even).filter(|parts| fits(*parts)).collect();
    let streams = |parts: &usize| {
        let part = channels / parts;
        let (first, second) = (f.shape(layer.first.0), f.shape(layer.second.0));
        !is_notched(&[part, first[1]]) && !is_notched(&[second[0], part])
    };
    fitting.iter().copied().find(streams).or(fitting.first().copied())
}

fn in_parts(f: &mut Function, layer: &HiddenLayer, parts: usize) -> Result<ValueId, OpError> {
    let part = layer.channels(f) / parts;
    let conv_of = |f: &Function, v: ValueId| if let Op::Conv(conv) = f.op(v) { Some(conv.clone()) } else { None };
    let missing = || OpError::new("a product that is none");
    let (inner, outer): (Conv, Conv) =
        (conv_of(f, layer.inner).ok_or_else(missing)?, conv_of(f, layer.outer).ok_or_else(missing)?);
    let scopes = [layer.inner, layer.outer].map(|v| f.node(v).scope.clone());
    let functions: Vec<_> =
        layer.functions(f).into_iter().zip(&layer.between).map(|(kind, &v)| (kind, f.node(v).scope.clone())).collect();
    let mut b = Builder::new(f);
    let mut sum = None;
    for index in 0..parts {
        let (begin, end) = (index * part, (index + 1) * part);
        b.enter(&scopes[0]);
        let weight = b.slice(layer.first.0, 0, begin, end)?;
        let bias = layer.first.1.map(|bias| b.slice(bias, 0, begin, end)).transpose()?;
        let mut hidden = b.conv(inner.clone(), layer.input, weight, bias)?;
        b.leave();
        for (kind, scope) in &functions {
            b.enter(scope);
            hidden = b.unary(*kind, hidden)?;
            b.leave();
        }
        b.enter(&scopes[1]);
        let weight = b.slice(layer.second.0, 1, begin, end)?;
        let bias = layer.second.1.filter(|_| index == 0);
        let product = b.conv(outer.clone(), hidden, weight, bias)?;
        sum = Some(match sum {
            Some(before) => b.add(before, product)?,
            None => product,
        });
        b.leave();
    }
    sum.ok_or_else(missing)
}
