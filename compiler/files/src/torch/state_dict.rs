//! Dictionaries of tensors inside a file of `torch.save`: a training checkpoint often holds several.

use std::collections::HashSet;

use super::pickle::{Id, Object, Pickle, View};
use crate::problems::{Problems, quoted, shown};

/// Dictionaries that an error lists.
const MOST_LISTED: usize = 8;

/// A dictionary of tensors: the keys that lead to it, joined by dots, and its tensors by name.
type Chosen<'a> = (String, Vec<(&'a str, View<'a>)>);

/// Which dictionary of tensors is meant in a file that may hold several.
#[derive(Clone, Copy)]
pub enum StateDict<'a> {
    /// That one, by the keys that lead to it, joined by dots.
    Named(&'a str),
    /// The only one with a name that this knows, or the only one there is.
    Known(&'a dyn Fn(&str) -> bool),
}

/// Chooses the dictionary that is meant; `place` names the file in problems.
///
/// # Errors
/// None; several that may be meant; none of that name.
pub(super) fn choose<'a>(pickle: &Pickle<'a>, asked: StateDict<'_>, place: &str) -> Result<Chosen<'a>, Problems> {
    let mut found = find(pickle);
    if let StateDict::Known(knows) = asked {
        // A dictionary that two keys lead to is one.
        let mut once = HashSet::new();
        found.retain(|(_, id)| once.insert(*id));
        let known = |(_, id): &&(String, Id)| tensors(pickle, *id).iter().any(|(name, _)| knows(name));
        let models: Vec<(String, Id)> = found.iter().filter(known).cloned().collect();
        if !models.is_empty() {
            found = models;
        }
    }
    if let StateDict::Named(keys) = asked {
        let of_name: HashSet<Id> = found.iter().filter(|(path, _)| path == keys).map(|(_, id)| *id).collect();
        if of_name.len() > 1 {
            return Err(Problems::one(
                place,
                format!(
                    "{} dictionaries of tensors that are called {}: a key with a dot in it, and keys one in the other",
                    of_name.len(),
                    quoted(keys)
                ),
                "one: load the file with torch, and torch.save the dictionary alone",
            ));
        }
    }
    let chosen = match (asked, found.as_slice()) {
        (StateDict::Known(_), [only]) => Some(only),
        (StateDict::Known(_), _) => None,
        (StateDict::Named(keys), _) => found.iter().find(|(path, _)| path == keys),
    };
    if let Some((keys, id)) = chosen {
        return Ok((keys.clone(), tensors(pickle, *id)));
    }
    let named = |(keys, id): &(String, Id)| {
        let count = tensors(pickle, *id).len();
        if keys.is_empty() {
            format!("one at the top ({count} tensors)")
        } else {
            format!("{} ({count} tensors)", quoted(keys))
        }
    };
    let list: Vec<String> = found.iter().take(MOST_LISTED).map(named).collect();
    let more = found.len().saturating_sub(MOST_LISTED);
    let list = list.join(", ") + &if more > 0 { format!(" and {more} more") } else { String::new() };
    Err(match asked {
        _ if found.is_empty() => {
            Problems::one(place, "no dictionary of tensors", "one, such as torch.save writes of a state dict")
        }
        StateDict::Known(_) => Problems::one(
            place,
            format!("{} dictionaries of tensors: {list}", found.len()),
            "one, or --state-dict NAME with the name of the one to take",
        ),
        StateDict::Named(keys) => Problems::one(
            place,
            format!("no dictionary of tensors {}, but {list}", quoted(keys)),
            "--state-dict NAME with the name of one, or no such flag if there is only one",
        ),
    })
}

/// The tensors of the dictionary at the top.
///
/// # Errors
/// Something else there.
pub(super) fn top<'a>(pickle: &Pickle<'a>, place: &str) -> Result<Vec<(&'a str, View<'a>)>, Problems> {
    match pickle.get(pickle.root()) {
        Object::Dict(_) => Ok(tensors(pickle, pickle.root())),
        _ => Err(Problems::one(place, "no dictionary", "a dictionary of tensors by name")),
    }
}

/// Every dictionary that has a tensor as a value and lies under names alone, with the keys that lead to it, in the order of the file: one
/// that holds others comes before them.
fn find(pickle: &Pickle<'_>) -> Vec<(String, Id)> {
    let (mut found, mut seen) = (Vec::new(), HashSet::new());
    let mut ahead = vec![(String::new(), pickle.root())];
    while let Some((keys, id)) = ahead.pop() {
        let Object::Dict(entries) = pickle.get(id) else { continue };
        // One of several keys that lead to the same dictionary is as good as the others.
        if entries.iter().any(|(_, value)| matches!(pickle.get(*value), Object::Tensor(_))) {
            found.push((keys.clone(), id));
        }
        if !seen.insert(id) {
            continue;
        }
        // What is numbered, as the states of an optimizer are, is no model.
        let inside = entries.iter().rev().filter_map(|(key, value)| match pickle.get(*key) {
            Object::Text(key) if keys.is_empty() => Some((shown(key), *value)),
            Object::Text(key) => Some((format!("{keys}.{}", shown(key)), *value)),
            _ => None,
        });
        let inside: Vec<(String, Id)> = inside.filter(|(keys, _)| keys.len() < LONGEST_KEYS).collect();
        ahead.extend(inside);
    }
    found
}

/// Keys that lead to a dictionary are no longer: those of hostile nesting would fill the memory.
const LONGEST_KEYS: usize = 1 << 10;

/// The tensors of a dictionary, by name; other values are left out.
fn tensors<'a>(pickle: &Pickle<'a>, id: Id) -> Vec<(&'a str, View<'a>)> {
    let Object::Dict(entries) = pickle.get(id) else { return Vec::new() };
    let tensor = |(key, value): &(Id, Id)| match (pickle.get(*key), pickle.get(*value)) {
        (&Object::Text(key), Object::Tensor(view)) => Some((key, view.clone())),
        _ => None,
    };
    entries.iter().filter_map(tensor).collect()
}
