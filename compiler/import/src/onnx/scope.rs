//! Module paths of nodes, from what PyTorch's exporters write beside them.

use s2dit_backends::onnx::proto::NodeProto;

use crate::called::innermost;

/// The scopes that torch's `dynamo` exporter writes: a list in Python's notation, the module path before the name of the op.
const SCOPES: &str = "pkg.torch.onnx.name_scopes";

/// The module path of a node, such as `blocks.3.attn1`; `None` if nobody wrote it down. `around` is that of the call whose function holds the node.
pub(super) fn of(node: &NodeProto, around: &str) -> Option<String> {
    let scopes = node.metadata_props.iter().find(|entry| entry.key == SCOPES);
    let own = match scopes.map(|entry| list(&entry.value)) {
        // The last one is the op itself.
        Some(scopes) if scopes.len() < 2 => None,
        Some(scopes) => Some(innermost(scopes[..scopes.len() - 1].iter().cloned())),
        None => of_name(&node.name),
    };
    Some(match (around, own.as_deref()) {
        ("", own) => own?.to_owned(),
        (around, None | Some("")) => around.to_owned(),
        // Names in a function are those of the whole model, or of the function.
        (around, Some(own)) if own.starts_with(around) => own.to_owned(),
        (around, Some(own)) => format!("{around}.{own}"),
    })
}

/// `/blocks.3/attn1/to_q/MatMul` → `blocks.3.attn1.to_q`; nothing for a name of another kind.
fn of_name(name: &str) -> Option<String> {
    let parts: Vec<&str> = name.strip_prefix('/')?.split('/').collect();
    Some(parts[..parts.len() - 1].join("."))
}

/// The strings of `['', 'blocks.0', "x"]`.
fn list(text: &str) -> Vec<String> {
    let mut strings = Vec::new();
    let mut rest = text;
    while let Some(start) = rest.find(['\'', '"']) {
        let quote = &rest[start..=start];
        let Some(end) = rest[start + 1..].find(quote) else { break };
        strings.push(rest[start + 1..start + 1 + end].to_owned());
        rest = &rest[start + end + 2..];
    }
    strings
}

#[cfg(test)]
mod tests {
    use super::*;
    use s2dit_backends::onnx::proto::StringStringEntryProto;

    fn node(name: &str, scopes: Option<&str>) -> NodeProto {
        let entry = |value: &str| StringStringEntryProto { key: SCOPES.into(), value: value.into() };
        NodeProto { name: name.into(), metadata_props: scopes.map(entry).into_iter().collect(), ..NodeProto::default() }
    }

    #[test]
    fn paths_come_from_names_and_from_metadata() {
        let of = |node: &NodeProto, around: &str| of(node, around).unwrap_or("none".into());
        assert_eq!(of(&node("/blocks.3/attn1/to_q/MatMul", None), ""), "blocks.3.attn1.to_q");
        assert_eq!(of(&node("/Cos", None), ""), "");
        assert_eq!(of(&node("MatMul_17", None), ""), "none");
        assert_eq!(of(&node("", None), "blocks.1"), "blocks.1");
        let dynamo = "['', 'blocks.0', 'blocks.0.self_attn', 'unsqueeze']";
        assert_eq!(of(&node("node_Unsqueeze_13", Some(dynamo)), ""), "blocks.0.self_attn");
        assert_eq!(of(&node("n", Some(dynamo)), "blocks.0"), "blocks.0.self_attn");
        assert_eq!(of(&node("n", Some("['', 'blocks.1', 'rope', 'mul']")), ""), "blocks.1.rope");
        assert_eq!(of(&node("n", Some("['', 'add']")), ""), "");
        assert_eq!(of(&node("n", Some("[]")), ""), "none");
        assert_eq!(of(&node("n", Some("['a")), "x"), "x");
        assert_eq!(of(&node("/proj/Add", None), "blocks.2"), "blocks.2.proj");
    }
}
