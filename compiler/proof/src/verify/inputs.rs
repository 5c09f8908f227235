//! The inputs of a verification: a golden's, or seeded ones.

use std::collections::BTreeMap;

use anyhow::{Context, Result, bail};
use rand::{Rng, SeedableRng};
use rand_distr::StandardNormal;
use s2dit_ir::interface::{Distribution, GUIDANCE, InputRole};
use s2dit_ir::{DType, Interface};
use s2dit_runtime::timesteps::Timesteps;
use s2dit_runtime::{HostTensor, Port, text_mask, tokens};

use s2dit_files::SafetensorsFile;

/// Tensors by name.
pub(crate) type Tensors = BTreeMap<String, HostTensor>;

/// The inputs of a golden, of the artifact's shapes.
///
/// # Errors
/// A tensor that is missing, of another shape, or not finite: the error names the golden and the tensor.
pub(crate) fn golden_inputs(file: &SafetensorsFile, ports: &[Port], interface: &Interface) -> Result<Tensors> {
    let shown = file.path().display();
    let inputs = read_tensors(file, ports.iter().map(|p| p.name.as_str()))?;
    for port in ports {
        let (name, found) = (&port.name, &inputs[&port.name]);
        // A dimension below 0 is one that the artifact leaves open.
        let fits = found.shape.len() == port.shape.len()
            && found.shape.iter().zip(&port.shape).all(|(found, side)| *side < 0 || *found as i64 == *side);
        if !fits {
            let hint = match interface.role(name) {
                Some(InputRole::Text | InputRole::TextMask) => {
                    "; the number of text tokens is `text_len` of the checkpoint's config.json: write it there, or give a configuration with --config"
                }
                Some(InputRole::Tokens { .. }) => "; its size is --tokens of compile",
                Some(InputRole::Latent) => "; its size is --latent of compile",
                _ => "",
            };
            bail!(
                "golden `{shown}`, tensor `{name}`: found {:?}, expected {:?}, which the artifact takes{hint}",
                found.shape,
                port.shape
            );
        }
        if interface.role(name) == Some(&InputRole::TextMask) {
            text_mask::check(found).with_context(|| format!("golden `{shown}`, tensor `{name}`"))?;
        }
        if let Some(InputRole::Tokens { vocabulary }) = interface.role(name) {
            tokens::check(found, *vocabulary).with_context(|| format!("golden `{shown}`, tensor `{name}`"))?;
        }
    }
    check_finite(file, &inputs)?;
    Ok(inputs)
}

/// Refuses tensors of a golden that are not finite: nothing can be equal to them.
///
/// # Errors
/// The golden, the tensor and its first element that is NaN or infinite.
pub(crate) fn check_finite(file: &SafetensorsFile, tensors: &Tensors) -> Result<()> {
    for (name, tensor) in tensors {
        if let Some(i) = tensor.data.iter().position(|x| !x.is_finite()) {
            let (shown, x) = (file.path().display(), tensor.data[i]);
            bail!("golden `{shown}`, tensor `{name}`: element {i}: found {x}, expected finite numbers");
        }
    }
    Ok(())
}

/// Tensors of a golden.
///
/// # Errors
/// A tensor that is missing or cannot be read.
pub(crate) fn read_tensors<'a>(file: &SafetensorsFile, names: impl Iterator<Item = &'a str>) -> Result<Tensors> {
    let mut tensors = Tensors::new();
    for name in names {
        let Some(info) = file.get(name) else {
            bail!("golden `{}`: no tensor `{name}`, which the artifact takes as input", file.path().display());
        };
        let tensor = HostTensor::new(info.ty.shape.clone(), file.tensor_f32(name)?)
            .context("a tensor that does not fill its shape")?;
        tensors.insert(name.to_string(), tensor);
    }
    Ok(tensors)
}

/// Inputs by role: a time in its range or of the list, token ids, a strength of guidance, masks of a few tokens and padding behind them, and standard
/// normal numbers for what else there is; the last rounded to fp16 where the artifact takes fp16, so that only the arithmetic is compared.
///
/// # Errors
/// An input without a static shape.
pub(crate) fn seeded_inputs(
    ports: &[Port],
    interface: &Interface,
    listed: Option<&Timesteps>,
    seed: u64,
) -> Result<Tensors> {
    let mut rng = rand_chacha::ChaCha8Rng::seed_from_u64(seed);
    let mut inputs = Tensors::new();
    for port in ports {
        let shape: Vec<usize> = port
            .shape
            .iter()
            .map(|d| usize::try_from(*d))
            .collect::<Result<_, _>>()
            .with_context(|| format!("input `{}` has no static shape", port.name))?;
        let elements = shape.iter().try_fold(1usize, |n, d| n.checked_mul(*d));
        let n = elements.with_context(|| format!("input `{}` {shape:?}: too large for any memory", port.name))?;
        let mut data: Vec<f32> = Vec::new();
        data.try_reserve_exact(n).with_context(|| {
            format!("input `{}` {shape:?}: no memory for {:.1} GB", port.name, n as f64 * 4.0 / 1e9)
        })?;
        let role = interface.role(&port.name);
        match (role, listed.map(Timesteps::list)) {
            (Some(InputRole::Time { .. }), Some(list @ [_, ..])) => {
                data.extend((0..n).map(|_| list[rng.random_range(0..list.len())] as f32));
            }
            (Some(InputRole::Time { low, high }), _) => {
                let range = *low as f32..*high as f32;
                data.extend((0..n).map(|_| rng.random_range(range.clone())));
            }
            (Some(InputRole::Tokens { vocabulary }), _) => {
                data.extend((0..n).map(|_| rng.random_range(0..(*vocabulary).max(1)) as f32));
            }
            (Some(InputRole::Guidance), _) => data.extend((0..n).map(|_| rng.random_range(GUIDANCE))),
            (Some(InputRole::TextMask), _) => {
                let tokens = shape.last().copied().unwrap_or(1);
                data = text_mask::of_first(&shape, text_mask::counting(tokens, rng.random())).data;
            }
            (Some(InputRole::Other { distribution: Distribution::Uniform }), _) => {
                data.extend((0..n).map(|_| rng.random::<f32>()));
            }
            _ => data.extend((0..n).map(|_| rng.sample::<f32, _>(StandardNormal))),
        }
        let is_listed = listed.is_some() && matches!(role, Some(InputRole::Time { .. }));
        if port.dtype == "f16" && !is_listed {
            for x in &mut data {
                *x = DType::F16.round(f64::from(*x)) as f32;
            }
        }
        inputs.insert(port.name.clone(), HostTensor { shape, data });
    }
    Ok(inputs)
}

/// Notes about inputs that are odd without being wrong.
pub(super) fn about_inputs(
    ports: &[Port],
    interface: &Interface,
    inputs: &Tensors,
    listed: Option<&Timesteps>,
) -> Vec<String> {
    let mut notes = Vec::new();
    let loses = |p: &&Port| {
        let data = inputs.get(&p.name).map(|t| t.data.as_slice()).unwrap_or_default();
        // A listed timestep means the same however it is rounded.
        p.dtype == "f16"
            && (listed.is_none() || interface.time() != Some(p.name.as_str()))
            && data.iter().any(|x| DType::F16.round(f64::from(*x)) as f32 != *x)
    };
    let rounded: Vec<&str> = ports.iter().filter(loses).map(|p| p.name.as_str()).collect();
    if !rounded.is_empty() {
        notes.push(format!(
            "the artifact takes fp16, so inputs were rounded to it: {}; the reference was made from the unrounded ones",
            rounded.join(", ")
        ));
    }
    for (name, tensor) in inputs {
        let Some(InputRole::Time { low, high }) = interface.role(name) else { continue };
        let near = |asked: f64, t: f64| (asked - t).abs() <= 1e-6 * t.abs();
        let moved = |t: &&f32| listed.is_some_and(|listed| !listed.list().iter().any(|l| near(f64::from(**t), *l)));
        if let Some(t) = tensor.data.iter().find(moved) {
            notes.push(format!(
                "`{name}` is {t}, which the artifact takes for a listed timestep that fp16 rounds to the same: the reference is of another"
            ));
        }
        if let Some(t) = tensor.data.iter().find(|t| !(*low..=*high).contains(&f64::from(**t))) {
            notes.push(format!("`{name}` is {t}, outside of [{low}, {high}], where the model was trained"));
        }
    }
    notes
}
