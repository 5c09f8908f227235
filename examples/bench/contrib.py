"""The emitted ONNX step with ops of the domain com.microsoft in place of standard ones, as rivals for ort_latency.py --contrib."""

import onnx
from onnx import helper


def rewrite(path, families, out):
    """Writes `path` with these families of ops replaced to `out`; returns how many ops are new."""
    model = onnx.load(str(path))
    makers = {name: node for node in model.graph.node for name in node.output}
    uses = [name for node in model.graph.node for name in node.input]
    gone, new = set(), []
    for node in model.graph.node:
        for family in families:
            made = family(node, makers, uses)
            if made is not None:
                old, nodes = made
                gone.update(id(n) for n in old)
                new.extend(nodes)
                break
    kept = [node for node in model.graph.node if id(node) not in gone]
    ordered = in_order(kept + new, model.graph)
    del model.graph.node[:]
    model.graph.node.extend(ordered)
    model.opset_import.append(helper.make_opsetid("com.microsoft", 1))
    onnx.save(model, str(out), save_as_external_data=True, location=out.name + ".data")
    return len(new)


def in_order(nodes, graph):
    """Nodes after what they read."""
    known = {x.name for x in (*graph.input, *graph.initializer)} | {""}
    ordered = []
    while nodes:
        ready = [n for n in nodes if known.issuperset(n.input)]
        if not ready:
            raise ValueError(f"no order for {nodes[0].name}")
        ordered += ready
        known.update(name for n in ready for name in n.output)
        placed = {id(n) for n in ready}
        nodes = [n for n in nodes if id(n) not in placed]
    return ordered


def attributes(node):
    return {a.name: helper.get_attribute_value(a) for a in node.attribute}


def contrib(op, inputs, outputs, **attrs):
    return helper.make_node(op, inputs, outputs, domain="com.microsoft", **attrs)


def skip_layer_norm(node, makers, _uses):
    """A sum and its layer norm."""
    add = makers.get(node.input[0]) if node.op_type == "LayerNormalization" else None
    if add is None or add.op_type != "Add" or not {add.input[0], add.input[1]} <= set(makers):
        return None
    inputs = [*add.input, *node.input[1:]]
    outputs = [node.output[0], "", "", add.output[0]]
    return [add, node], [contrib("SkipLayerNormalization", inputs, outputs, epsilon=attributes(node)["epsilon"])]


def multi_head_attention(node, _makers, _uses):
    """Attention on tokens as they come from their projections."""
    attrs = attributes(node)
    if node.op_type != "Attention" or "q_num_heads" not in attrs or len(node.input) != 3:
        return None
    made = contrib("MultiHeadAttention", node.input, node.output, num_heads=attrs["q_num_heads"], scale=attrs["scale"])
    return [node], [made]


def fast_gelu(node, makers, uses):
    """GELU with the bias of the product before it."""
    reshape = makers.get(node.input[0]) if node.op_type == "Gelu" else None
    gemm = makers.get(reshape.input[0]) if reshape is not None and reshape.op_type == "Reshape" else None
    if gemm is None or gemm.op_type != "Gemm" or len(gemm.input) < 3 or uses.count(reshape.output[0]) > 1:
        return None
    bare = helper.make_node("Gemm", gemm.input[:2], gemm.output, **attributes(gemm))
    return [node, gemm], [bare, contrib("FastGelu", [node.input[0], gemm.input[2]], node.output)]


FAMILIES = {
    "SkipLayerNormalization": [skip_layer_norm],
    "MultiHeadAttention": [multi_head_attention],
    "FastGelu with bias": [fast_gelu],
    "all three": [skip_layer_norm, multi_head_attention, fast_gelu],
}
