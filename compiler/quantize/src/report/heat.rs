//! Bits of every weight: a row for each weight of a block, a column for each block, and a row for each weight outside.

use std::collections::BTreeMap;
use std::fmt::Write as _;

use s2dit_ir::Interface;

use super::{bits, escaped};
use s2dit_emit::plan::{Entry, Plan};

/// Colours by bits: few bits are dark.
const COLOURS: [(u8, &str); 7] =
    [(1, "#7f0000"), (2, "#c9302c"), (3, "#ef8a4a"), (4, "#fdd49e"), (6, "#c7e9c0"), (8, "#8fcf92"), (16, "#e8e8e8")];
const CELL: usize = 22;
const LEFT: usize = 190;
const TOP: usize = 24;

/// `blocks.3.attn1.to_q.weight` → block 3, `attn1.to_q`, if a block has the path `blocks.3`.
fn place<'n>(name: &'n str, interface: &Interface) -> (Option<usize>, &'n str) {
    let inside = interface.block_of(name).and_then(|block| {
        let rest = name.strip_prefix(interface.milestones[block].scope.as_str())?;
        Some((block, rest.strip_prefix('.')?))
    });
    let weight = inside.map_or(name, |(_, weight)| weight);
    (inside.map(|(block, _)| block), weight.strip_suffix(".weight").unwrap_or(weight))
}

/// The map.
pub(super) fn map(plan: &Plan, interface: &Interface) -> String {
    let mut rows: BTreeMap<(bool, &str), Vec<(usize, &Entry)>> = BTreeMap::new();
    for entry in &plan.weight {
        let (block, weight) = place(&entry.name, interface);
        // Weights outside of blocks come last, in the first column.
        rows.entry((block.is_none(), weight)).or_default().push((block.unwrap_or(0), entry));
    }
    let columns = rows.values().flatten().map(|(block, _)| block + 1).max().unwrap_or(1);
    let (width, height) = (LEFT + CELL * columns.max(18) + 10, TOP + CELL * rows.len() + 50);
    let mut svg = format!(
        "<svg viewBox=\"0 0 {width} {height}\" width=\"{width}\" height=\"{height}\" role=\"img\" font-size=\"11\">\n"
    );
    for block in 0..columns {
        let x = LEFT + CELL * block + CELL / 2;
        let _ = writeln!(svg, "<text x=\"{x}\" y=\"16\" text-anchor=\"middle\">{block}</text>");
    }
    for (i, ((outside, weight), cells)) in rows.iter().enumerate() {
        let y = TOP + CELL * i;
        let label = if *outside { format!("{weight} (no block)") } else { (*weight).to_string() };
        let _ =
            writeln!(svg, "<text x=\"{}\" y=\"{}\" text-anchor=\"end\">{}</text>", LEFT - 6, y + 15, escaped(&label));
        for (block, entry) in cells {
            let (x, bits) = (LEFT + CELL * block, bits(entry));
            let _ = writeln!(
                svg,
                "<g><title>{}: {}, {} bytes, relative error {:.2e}; {}</title><rect class=\"cell\" x=\"{x}\" y=\"{y}\" \
                 width=\"{}\" height=\"{}\" fill=\"{}\"/><text x=\"{}\" y=\"{}\" text-anchor=\"middle\" fill=\"{}\" \
                 pointer-events=\"none\">{bits}</text></g>",
                escaped(&entry.name),
                entry.scheme,
                entry.bytes,
                entry.error,
                escaped(&entry.why),
                CELL - 1,
                CELL - 1,
                colour(bits),
                x + CELL / 2,
                y + 15,
                if bits <= 2 { "#fff" } else { "#222" }
            );
        }
    }
    let y = TOP + CELL * rows.len() + 16;
    for (i, (bits, fill)) in COLOURS.iter().enumerate() {
        let x = LEFT + 56 * i;
        let _ = writeln!(
            svg,
            "<rect x=\"{x}\" y=\"{y}\" width=\"14\" height=\"14\" fill=\"{fill}\"/><text x=\"{}\" y=\"{}\">{bits} bit</text>",
            x + 18,
            y + 11
        );
    }
    svg + "</svg>\n"
}

fn colour(bits: u8) -> &'static str {
    COLOURS.iter().find(|(b, _)| *b >= bits).map_or("#e8e8e8", |(_, colour)| colour)
}

#[cfg(test)]
mod tests {
    use s2dit_ir::interface::Milestone;

    use super::*;

    #[test]
    fn weights_have_a_block_and_a_name_in_it() {
        let milestone = |n: usize| Milestone { value: format!("h{n}"), scope: format!("layers.{n}") };
        let interface = Interface { milestones: (0..13).map(milestone).collect(), ..Interface::default() };
        assert_eq!(place("layers.12.attn1.to_q.weight", &interface), (Some(12), "attn1.to_q"));
        assert_eq!(place("patch_embedding.weight", &interface), (None, "patch_embedding"));
        assert_eq!(place("layers.x.y", &interface), (None, "layers.x.y"));
    }
}
