//! The keys of LoRA files.

/// Prefixes of names in which underscores stand for the dots between segments: those of kohya's scripts.
pub(super) const FLAT: &[&str] = &["lora_unet_", "lora_transformer_", "lycoris_"];

/// What a tensor is to its module.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub(super) enum Part {
    /// `A [rank, in]`, which is applied first.
    Down,
    /// `B [out, rank]`, which is applied last.
    Up,
    /// The number that the product is scaled by, over the rank.
    Alpha,
    /// A difference of the weight, whole.
    Weight,
    /// A difference of the bias, whole.
    Bias,
}

/// A key, taken apart.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) struct Key<'a> {
    /// The module, with the prefixes of the program that wrote it.
    pub(super) module: &'a str,
    pub(super) part: Part,
}

/// Endings of keys.
const ENDINGS: [(&str, Part); 7] = [
    (".lora_down.weight", Part::Down),
    (".lora_up.weight", Part::Up),
    (".lora.down.weight", Part::Down),
    (".lora.up.weight", Part::Up),
    (".alpha", Part::Alpha),
    (".diff", Part::Weight),
    (".diff_b", Part::Bias),
];

impl<'a> Key<'a> {
    /// Takes a key apart; `None` for one that is not read.
    pub(super) fn of(key: &'a str) -> Option<Key<'a>> {
        if let Some((module, part)) = ENDINGS.iter().find_map(|(end, part)| Some((key.strip_suffix(end)?, *part))) {
            return Some(Key { module, part });
        }
        // PEFT: `MODULE.lora_A.weight`, with the adapter's name before `weight` in some files.
        let of = |marker: &str, part: Part| {
            let (module, rest) = key.split_once(marker)?;
            let weight = rest.strip_suffix("weight")?;
            let is_name = weight.is_empty() || weight.ends_with('.') && weight.matches('.').count() == 1;
            is_name.then_some(Key { module, part })
        };
        of(".lora_A.", Part::Down).or_else(|| of(".lora_B.", Part::Up))
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn keys_of_every_program() {
        for (key, module, part) in [
            ("transformer.blocks.0.attn1.to_q.lora_A.weight", "transformer.blocks.0.attn1.to_q", Part::Down),
            ("base_model.model.x.lora_B.default.weight", "base_model.model.x", Part::Up),
            ("lora_unet_blocks_0_self_attn_q.lora_down.weight", "lora_unet_blocks_0_self_attn_q", Part::Down),
            ("diffusion_model.head.head.lora_up.weight", "diffusion_model.head.head", Part::Up),
            ("x.alpha", "x", Part::Alpha),
            ("x.diff", "x", Part::Weight),
            ("x.diff_b", "x", Part::Bias),
        ] {
            assert_eq!(Key::of(key), Some(Key { module, part }), "{key}");
        }
        for key in
            ["x.weight", "x.lora_A.bias", "x.lora_A.a.b.weight", "x.hada_w1_a", "x.dora_scale", "x.lora_mid.weight"]
        {
            assert_eq!(Key::of(key), None, "{key}");
        }
    }
}
