//! Where a call lies, by the modules around it.

/// The path of the innermost of the modules around a call, given from the outside in.
///
/// A module that several call, such as a rotation, is written as where it lies (`rope`): its calls lie in who calls it, `blocks.3.attn1.rope`.
pub(crate) fn innermost(paths: impl IntoIterator<Item = String>) -> String {
    paths.into_iter().fold(String::new(), |outside, path| {
        let is_inside =
            path.strip_prefix(outside.as_str()).is_some_and(|rest| rest.is_empty() || rest.starts_with('.'));
        let name = path.rsplit('.').next().unwrap_or_default();
        match outside.is_empty() || is_inside {
            true => path,
            false if name.is_empty() => outside,
            false => format!("{outside}.{name}"),
        }
    })
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
    }
}
