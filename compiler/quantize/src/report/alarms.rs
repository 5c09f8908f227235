//! What a person should know of a plan before anything else.

use super::super::Made;
use super::{bits, escaped};
use s2dit_emit::plan::{Entry, Storage};

/// Names that are shown of a list.
const SHOWN: usize = 6;
/// An output this far from the whole model's is visibly another one.
const LOW_DB: f64 = 20.0;
/// A relative error of a block that is alarming.
const BLOCK_DB: f64 = 10.0;

/// A list of alarming facts; nothing if there are none.
pub(super) fn list(made: &Made) -> String {
    let facts: String = facts(made).iter().map(|fact| format!("<li>{}</li>", escaped(fact))).collect();
    if facts.is_empty() { String::new() } else { format!("<ul class=\"alarms\">{facts}</ul>\n") }
}

fn facts(made: &Made) -> Vec<String> {
    let plan = &made.plan;
    let mut facts = Vec::new();
    match plan.snr_db {
        None => facts.push("the SNR of the plan is not known: the model makes NaN or infinite values".into()),
        Some(db) if db < LOW_DB => {
            facts.push(format!("the whole model keeps {db:.1} dB: less than {LOW_DB} dB is seen"));
        }
        Some(_) => {}
    }
    for few in [1, 2] {
        let names: Vec<&Entry> = plan.weight.iter().filter(|w| bits(w) == few).collect();
        if !names.is_empty() {
            let bits = if few == 1 { "one bit" } else { "two bits" };
            facts.push(format!("{} weight(s) are stored in {bits}: {}", names.len(), named(&names)));
        }
    }
    match &plan.calibration {
        None => facts.push("it was measured on seeded noise, not on recorded inputs (--calibrate FILE)".into()),
        Some(c) if c.source == "seeded" => {
            facts.push("calibrated on noise, not on recorded inputs (--calibrate FILE)".into());
        }
        Some(c) if c.held_out == 0 => {
            facts.push(
                "the SNR was measured on the samples of the calibration: four or more would leave some out".into(),
            );
        }
        Some(_) => {}
    }
    let kept: Vec<&Entry> =
        plan.weight.iter().filter(|w| w.scheme == Storage::Whole && w.why.contains("NaN")).collect();
    if !kept.is_empty() {
        facts.push(format!("{} weight(s) have NaN or infinite elements and were kept: {}", kept.len(), named(&kept)));
    }
    let worst = made.blocks_db.iter().enumerate().min_by(|a, b| a.1.total_cmp(b.1));
    if let Some((block, db)) = worst.filter(|(_, db)| **db < BLOCK_DB) {
        facts.push(format!("the output of block {block} keeps {db:.1} dB"));
    }
    facts
}

fn named(weights: &[&Entry]) -> String {
    let more = if weights.len() > SHOWN { format!(" and {} more", weights.len() - SHOWN) } else { String::new() };
    let names: Vec<&str> = weights.iter().take(SHOWN).map(|w| w.name.as_str()).collect();
    format!("{}{more}", names.join(", "))
}
