//! Roles of inputs and results: those that were given, those that the file says, and guesses from names and shapes for the rest.

use s2dit_files::problems::{Problems, quoted, shown};
use s2dit_ir::interface::{Distribution, Input, InputRole, Output, OutputRole};
use s2dit_ir::ops::Gather;
use s2dit_ir::{Function, Module, Op, TensorType, ValueId};

use crate::ask::Ask;

/// Completes the interface of a module of one function; returns the names whose roles were guessed.
///
/// # Errors
/// A role that was given to something that is not there, or that does not fit its shape.
pub(crate) fn complete(module: &mut Module, ask: &Ask, place: &str) -> Result<Vec<String>, Problems> {
    let Module { functions, interface, .. } = module;
    let [f] = functions.as_slice() else {
        return Err(Problems::one(place, format!("{} functions", functions.len()), "a graph of one function"));
    };
    let names: Vec<String> = f.params().iter().filter_map(|&p| f.node(p).name.as_deref().map(str::to_owned)).collect();
    let results: Vec<String> = f.results.iter().map(|(name, _)| name.clone()).collect();
    let mut problems = Problems::new();
    let mut guessed = Vec::new();
    let absent = |problems: &mut Problems, flag: &str, name: &str, of: &[String]| {
        let of: Vec<String> = of.iter().map(|name| shown(name)).collect();
        problems.push(format!("{place}: {flag}"), quoted(name), format!("one of {}", of.join(", ")));
    };
    for given in ask.inputs.iter().filter(|given| !names.contains(&given.name)) {
        absent(&mut problems, "--input", &given.name, &names);
    }
    for given in ask.outputs.iter().filter(|given| !results.contains(&given.name)) {
        absent(&mut problems, "--result", &given.name, &results);
    }
    let mut inputs = Vec::new();
    for (&p, name) in f.params().iter().zip(&names) {
        let said = interface.role(name).cloned();
        let role = match ask.inputs.iter().find(|given| given.name == *name) {
            Some(given) => Some(given.role.clone()),
            None => said.clone(),
        };
        let role = role.unwrap_or_else(|| {
            guessed.push(name.clone());
            guess_input(f, p, name)
        });
        let role = match role {
            InputRole::Tokens { vocabulary: 0 } => {
                InputRole::Tokens { vocabulary: vocabulary(f, p).unwrap_or(i32::MAX as usize) }
            }
            InputRole::Time { low, high } if low == high => said
                .filter(|said| matches!(said, InputRole::Time { low, high } if low < high))
                .unwrap_or_else(|| time(name)),
            role => role,
        };
        if let Some(expected) = misfit(&role, f.ty(p)) {
            problems.push(format!("{place}: input {}", quoted(name)), f.ty(p).to_string(), expected);
        }
        inputs.push(Input { name: name.clone(), role });
    }
    let latent: Option<Vec<usize>> = inputs
        .iter()
        .find(|input| input.role == InputRole::Latent)
        .and_then(|input| f.by_name(&input.name))
        .map(|v| f.shape(v).to_vec());
    let has_tokens = inputs.iter().any(|input| matches!(input.role, InputRole::Tokens { .. }));
    let mut outputs = Vec::new();
    for (name, v) in &f.results {
        let given = ask.outputs.iter().find(|given| given.name == *name).map(|given| given.role);
        let said = interface.outputs.iter().find(|output| output.name == *name).map(|output| output.role);
        let role = given.or(said).unwrap_or_else(|| {
            guessed.push(name.clone());
            guess_output(f.ty(*v), latent.as_deref(), has_tokens)
        });
        outputs.push(Output { name: name.clone(), role });
    }
    // A proof judges by the first result.
    outputs.sort_by_key(|output| output.role != OutputRole::Velocity);
    (interface.inputs, interface.outputs) = (inputs, outputs);
    problems.into_result().map(|()| guessed)
}

/// What a role asks of a type, if the type is another.
fn misfit(role: &InputRole, ty: &TensorType) -> Option<&'static str> {
    let fits = match role {
        InputRole::Latent => ty.rank() == 5 && ty.shape[0] == 1 && ty.dtype.is_float(),
        InputRole::Text | InputRole::Image => ty.rank() == 3 && ty.dtype.is_float(),
        InputRole::TextMask => ty.rank() == 2,
        InputRole::Time { .. } | InputRole::Guidance => ty.dtype.is_float(),
        InputRole::Tokens { .. } => !ty.dtype.is_float(),
        InputRole::Pooled | InputRole::Other { .. } => true,
    };
    let expected = match role {
        InputRole::Latent => "a latent [1, C, F, H, W] of floats",
        InputRole::Text | InputRole::Image => "embeddings [1, L, width] of floats",
        InputRole::TextMask => "a mask [1, L]",
        InputRole::Tokens { .. } => "token ids, which are integers",
        _ => "floats",
    };
    (!fits).then_some(expected)
}

fn guess_input(f: &Function, p: ValueId, name: &str) -> InputRole {
    let ty = f.ty(p);
    let name = name.to_ascii_lowercase();
    let contains = |parts: &[&str]| parts.iter().any(|part| name.contains(part));
    let is = |names: &[&str]| names.contains(&name.as_str());
    let candidates: [(bool, InputRole); 8] = [
        (contains(&["guidance"]) && ty.elements() == 1, InputRole::Guidance),
        (contains(&["mask"]), InputRole::TextMask),
        (contains(&["pooled"]) && ty.rank() == 2, InputRole::Pooled),
        (contains(&["image"]) && ty.rank() == 3, InputRole::Image),
        (contains(&["encoder_hidden", "text", "context", "prompt", "caption"]), InputRole::Text),
        (contains(&["time", "sigma"]) || is(&["t"]), time(&name)),
        (contains(&["ids", "token"]), InputRole::Tokens { vocabulary: 0 }),
        (contains(&["latent", "hidden_states", "sample", "video"]) || is(&["x", "z"]), InputRole::Latent),
    ];
    let other = InputRole::Other { distribution: Distribution::Normal };
    let fitting = |(named, role): &(bool, InputRole)| {
        let small = !matches!(role, InputRole::Time { .. }) || ty.rank() <= 2;
        *named && small && misfit(role, ty).is_none()
    };
    candidates.into_iter().find(fitting).map_or(other, |(_, role)| role)
}

/// A time: the noise levels that models call sigmas are from 0 to 1, other times from 0 to 1000.
fn time(name: &str) -> InputRole {
    InputRole::Time { low: 0.0, high: if name.to_ascii_lowercase().contains("sigma") { 1.0 } else { 1000.0 } }
}

fn guess_output(ty: &TensorType, latent: Option<&[usize]>, has_tokens: bool) -> OutputRole {
    match (latent, ty.shape.as_slice()) {
        (Some([_, _, sizes @ ..]), [_, channels, found @ ..]) if found == sizes && *channels != 3 => {
            OutputRole::Velocity
        }
        (_, [_, 3, _, _, _]) => OutputRole::Video,
        (None, [_, _, _]) if has_tokens => OutputRole::Embedding,
        _ => OutputRole::Other,
    }
}

/// The extent of the table that ids index, seen through views of them.
fn vocabulary(f: &Function, ids: ValueId) -> Option<usize> {
    f.users(ids).into_iter().find_map(|(user, position)| match f.op(user) {
        Op::Gather(Gather { axis }) if position == 1 => f.shape(f.operands(user)[0]).get(*axis).copied(),
        Op::Reshape(_) | Op::Cast(_) => vocabulary(f, user),
        _ => None,
    })
}
