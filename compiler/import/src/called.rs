//! Where a call lies, by the modules around it.

/// The path of the innermost of the modules around a call, given from the outside in.
///
/// A module that several call, such as a rotation, is written as where it lies (`rope`): its calls lie in who calls it, `blocks.3.attn1.rope`.
pub(crate) fn innermost(paths: impl IntoIterator<Item = String>) -> String {
    let (mut written, mut path) = (String::new(), String::new());
    for next in paths {
        if next.is_empty() {
            continue;
        }
        let inside = next.strip_prefix(written.as_str()).filter(|rest| rest.is_empty() || rest.starts_with('.'));
        match inside {
            _ if path.is_empty() => path.clone_from(&next),
            Some(rest) => path += rest,
            None => path = format!("{path}.{}", next.rsplit('.').next().unwrap_or(&next)),
        }
        written = next;
    }
    path
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_module_lies_in_who_calls_it() {
        let of = |paths: &[&str]| innermost(paths.iter().map(ToString::to_string));
        assert_eq!(of(&[]), "");
        assert_eq!(of(&["", "blocks.3", "blocks.3.attn"]), "blocks.3.attn");
        assert_eq!(of(&["", "blocks.3", "blocks.3.attn", "rope"]), "blocks.3.attn.rope");
        assert_eq!(of(&["blocks.1", "blocks.0.rope", ""]), "blocks.1.rope");
        assert_eq!(of(&["blocks.1", "blocks.10"]), "blocks.1.10");
        // What a shared module calls keeps its own place.
        assert_eq!(of(&["blocks.3", "rope", "rope.a.0"]), "blocks.3.rope.a.0");
        assert_eq!(of(&["blocks.3", "rope", "rope.b.0", "rope.b.0.lin"]), "blocks.3.rope.b.0.lin");
        assert_eq!(of(&["blocks.3", "blocks.3", "blocks.3.ff"]), "blocks.3.ff");
    }
}
