//! Fits a device to times that were measured on it.
//!
//! Few times are known and many figures: each figure starts at its likely value and moves by a factor whose logarithm is held back by the
//! width of its range, as in ridge regression. What no time says anything about stays where it was.

use std::collections::HashSet;

use anyhow::{Result, bail};
use s2dit_backends::coreml::lint::Confidence;
use s2dit_backends::coreml::lint::device::DeviceReport;
use serde::Serialize;

use crate::device::{Case, Device, Rates};
use crate::subject::Subject;
use crate::work::{Work, works};

/// A device after a fit.
#[derive(Clone, Debug)]
pub struct Fitted {
    /// The device.
    pub device: Device,
    /// What it was fitted to, in words.
    pub told: String,
    /// Figures that moved.
    pub changed: Vec<Changed>,
    /// Median of |estimated / measured − 1| before.
    pub error_before: f64,
    /// The same after.
    pub error_after: f64,
}

/// A figure that moved.
#[derive(Clone, Debug, Serialize)]
pub struct Changed {
    /// Name of the figure.
    pub name: &'static str,
    /// Its likely value before.
    pub before: f64,
    /// Its likely value after.
    pub after: f64,
}

/// The figures that times of whole calls can say something about.
const FREE: [&str; 5] = ["product_tflops", "weight_gbps", "resident_gbps", "spill_gbps", "op_us"];
/// Times repeat to about so much (5 %): what a fit need not explain.
const NOISE: f64 = 0.05;
/// A figure whose range is a point may still move by so much.
const LEAST_WIDTH: f64 = 0.05;
/// Gauss–Newton steps; the problem is smooth and small.
const STEPS: usize = 30;

/// A function whose time was measured.
struct Observed {
    works: Vec<Work>,
    cuts: f64,
    measured_ms: f64,
}

impl Observed {
    fn estimated_ms(&self, rates: &Rates) -> f64 {
        let ops: f64 = self.works.iter().map(|work| rates.spent(work).total()).sum();
        1e3 * ops + 1e-3 * (rates.dispatch_us + self.cuts * rates.cut_us)
    }
}

/// Fits a device to the times in reports of the subject's packages.
///
/// # Errors
/// Reports without times, of functions that the subject does not have, or of a package whose ops are others.
pub fn fit(device: &Device, subject: &Subject, reports: &[DeviceReport]) -> Result<Fitted> {
    let mut observed = Vec::new();
    for report in reports {
        for function in &report.functions {
            let Some(measured_ms) = function.call_ms else { continue };
            let named = |name: &str| subject.functions.iter().find(|f| f.name == name);
            // A package with one function calls it `main`, and the file is named after it.
            let stem = report.model.split('.').next().unwrap_or_default();
            let Some(callable) = named(&function.name).or_else(|| named(stem)) else {
                let names: Vec<&str> = subject.functions.iter().map(|f| f.name.as_str()).collect();
                bail!(
                    "the report of `{}` has a time of function `{}`: expected one of {}, the functions of `{}`",
                    report.model,
                    function.name,
                    names.join(", "),
                    subject.name
                );
            };
            // The same model of another size has most names too, and a name or two may be another's: half is enough to tell another package.
            let placed: Vec<&str> =
                function.operations.iter().filter(|op| op.preferred.is_some()).map(|op| op.name.as_str()).collect();
            let names =
                callable.parts.iter().flat_map(|f| f.order().into_iter().filter_map(|v| f.node(v).name.as_deref()));
            let names: HashSet<&str> = names.collect();
            let found = placed.iter().filter(|name| names.contains(*name)).count();
            if 2 * found < placed.len() {
                bail!(
                    "the report of `{}` has {} placed op(s) of function `{}`: found {found} of them in `{}`, expected a report of this package",
                    report.model,
                    placed.len(),
                    function.name,
                    subject.name
                );
            }
            observed.push(Observed {
                works: callable.parts.iter().flat_map(|f| works(f, &subject.interface)).collect(),
                cuts: callable.parts.len().saturating_sub(1) as f64,
                measured_ms,
            });
        }
    }
    if observed.is_empty() {
        bail!(
            "no times: found no `call_ms` in a function of the report(s); device-report writes it with --times (examples/device-report)"
        );
    }
    let told = match reports {
        [first, ..] => format!("{} time(s) on {}, {}", observed.len(), first.device, first.os),
        [] => String::new(),
    };
    Ok(fitted(device, &observed, told, reports))
}

fn fitted(device: &Device, observed: &[Observed], told: String, reports: &[DeviceReport]) -> Fitted {
    let widths = FREE.map(|name| width(device, name));
    let errors = |logs: &[f64; FREE.len()]| -> Vec<f64> {
        let rates = moved(device, logs).figures.at(Case::Likely);
        let misfit = observed.iter().map(|o| (o.estimated_ms(&rates) / o.measured_ms).ln() / NOISE);
        misfit.chain(logs.iter().zip(widths).map(|(log, width)| log / width)).collect()
    };
    let mut logs = [0.0; FREE.len()];
    let mut covariance = [[0.0; FREE.len()]; FREE.len()];
    for _ in 0..STEPS {
        let now = errors(&logs);
        let slopes: Vec<Vec<f64>> = (0..FREE.len())
            .map(|i| {
                let mut there = logs;
                there[i] += 1e-4;
                errors(&there).iter().zip(&now).map(|(a, b)| (a - b) / 1e-4).collect()
            })
            .collect();
        let dot = |a: &[f64], b: &[f64]| a.iter().zip(b).map(|(a, b)| a * b).sum::<f64>();
        let mut normal = [[0.0; FREE.len()]; FREE.len()];
        for (row, a) in normal.iter_mut().zip(&slopes) {
            for (entry, b) in row.iter_mut().zip(&slopes) {
                *entry = dot(a, b);
            }
        }
        covariance = inverse(normal);
        let gradient: Vec<f64> = slopes.iter().map(|a| dot(a, &now)).collect();
        let mut largest: f64 = 0.0;
        for (log, row) in logs.iter_mut().zip(covariance) {
            // At most a factor of e a step.
            let step = dot(&row, &gradient).clamp(-1.0, 1.0);
            *log -= step;
            largest = largest.max(step.abs());
        }
        if largest < 1e-6 {
            break;
        }
    }
    let mut fitted = moved(device, &logs);
    let mut changed = Vec::new();
    for (i, name) in FREE.into_iter().enumerate() {
        let before = device.clone().figures.named_mut(name).map_or(0.0, |figure| figure.likely);
        let (Some(figure), true) = (fitted.figures.named_mut(name), logs[i].abs() > 0.01) else { continue };
        let spread = covariance[i][i].max(0.0).sqrt();
        (figure.low, figure.high) = (figure.likely * (-spread).exp(), figure.likely * spread.exp());
        figure.confidence = Confidence::Medium;
        figure.source = format!("fitted to {told}; before: {}", figure.source);
        changed.push(Changed { name, before, after: figure.likely });
    }
    if let Some(first) = reports.first() {
        fitted.name = format!("{} ({}), fitted", first.device, first.os);
        fitted.models = vec![first.device.clone()];
    }
    let error = |device: &Device| {
        let rates = device.figures.at(Case::Likely);
        let mut off: Vec<f64> = observed.iter().map(|o| (o.estimated_ms(&rates) / o.measured_ms - 1.0).abs()).collect();
        off.sort_by(f64::total_cmp);
        off[off.len() / 2]
    };
    let (error_before, error_after) = (error(device), error(&fitted));
    Fitted { device: fitted, told, changed, error_before, error_after }
}

/// How far the logarithm of a figure may go at little cost: half the width of its range.
fn width(device: &Device, name: &str) -> f64 {
    let mut figures = device.figures.clone();
    figures.named_mut(name).map_or(LEAST_WIDTH, |f| (0.5 * (f.high / f.low.max(1e-9)).ln()).max(LEAST_WIDTH))
}

fn moved(device: &Device, logs: &[f64; FREE.len()]) -> Device {
    let mut device = device.clone();
    for (name, log) in FREE.into_iter().zip(logs) {
        if let Some(figure) = device.figures.named_mut(name) {
            figure.likely *= log.exp();
            (figure.low, figure.high) = (figure.low.min(figure.likely), figure.high.max(figure.likely));
        }
    }
    device
}

/// The inverse of a positive definite matrix, by Gauss–Jordan elimination.
fn inverse<const N: usize>(mut a: [[f64; N]; N]) -> [[f64; N]; N] {
    let mut inverse = [[0.0; N]; N];
    (0..N).for_each(|i| inverse[i][i] = 1.0);
    for i in 0..N {
        let by = a[i][i];
        for j in 0..N {
            a[i][j] /= by;
            inverse[i][j] /= by;
        }
        for row in (0..N).filter(|row| *row != i) {
            let by = a[row][i];
            for j in 0..N {
                a[row][j] -= by * a[i][j];
                inverse[row][j] -= by * inverse[i][j];
            }
        }
    }
    inverse
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::work::{Kind, Stream};

    fn observed(flops: u64, traffic: u64, measured_ms: f64) -> Observed {
        let work = |kind, flops, traffic| Work {
            op: "x",
            name: "x".into(),
            ty: "f16[1]".into(),
            part: "x".into(),
            block: None,
            kind,
            flops,
            channels: 2048,
            int8: false,
            weights: Stream::default(),
            traffic,
            fusable: false,
        };
        let works = vec![work(Kind::Product, flops, 0), work(Kind::Elementwise, 0, traffic)];
        Observed { works, cuts: 0.0, measured_ms }
    }

    #[test]
    fn a_device_twice_as_slow_is_found() {
        let device = Device::open("iphone16promax").unwrap();
        let mut slow = device.clone();
        for name in ["product_tflops", "spill_gbps"] {
            let figure = slow.figures.named_mut(name).unwrap();
            figure.likely /= 1.6;
        }
        let rates = slow.figures.at(Case::Likely);
        let truth: Vec<Observed> = [(4e12, 1e8), (1e11, 3e9), (1e12, 1e9)]
            .into_iter()
            .map(|(flops, traffic)| {
                let mut o = observed(flops as u64, traffic as u64, 1.0);
                o.measured_ms = o.estimated_ms(&rates);
                o
            })
            .collect();
        let fitted = fitted(&device, &truth, "times".into(), &[]);
        assert!(fitted.error_before > 0.3 && fitted.error_after < 0.03, "{fitted:?}");
        let found = fitted.device.figures.at(Case::Likely);
        assert!((found.product_tflops / rates.product_tflops - 1.0).abs() < 0.1, "{}", found.product_tflops);
        assert!((found.spill_gbps / rates.spill_gbps - 1.0).abs() < 0.1, "{}", found.spill_gbps);
        assert_eq!(found.weight_gbps, device.figures.weight_gbps.likely);
        assert_eq!(Device::parse(&fitted.device.to_toml()).unwrap().figures.at(Case::Likely), found);
    }
}
