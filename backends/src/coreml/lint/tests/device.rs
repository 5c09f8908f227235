//! Verdicts beside a device.

use serde_json::{Value, json};

use super::super::device::{DeviceCounts, DeviceReport, Judgement, compare};
use super::super::report::OpVerdict;
use super::{linted, rules};

const PROGRAM: &str = "
input x fp16[1,64]
input w fp32[1,64]
const k fp32[] = 1
a = relu(x=x) fp16[1,64]
b = mul(x=a, y=k) fp16[1,64]
c = tile(x=b) fp16[1,64]
d = cumsum(x=c) fp16[1,64]
e = tile(x=d) fp16[1,64]
y = exp(x=e) fp16[1,64]
f = cos(x=w) fp32[1,64]
return y
";

fn device() -> Value {
    let op = |name: &str, preferred: &str, supported: &[&str], cost: f64| json!({"name": name, "type": "ios18.x", "preferred": preferred, "supported": supported, "cost": cost});
    let engine = ["cpu", "gpu", "neural_engine"];
    json!({
        "format": "s2ditc-device-report", "version": 1, "model": "x.mlpackage", "device": "iPhone17,1", "os": "iOS 26.1",
        "compute_units": "cpu_and_neural_engine",
        "functions": [{"name": "main", "operations": [
            {"name": "k", "type": "const"},
            op("a", "neural_engine", &engine, 0.5), op("b", "neural_engine", &engine, 0.1), op("c", "cpu", &["cpu"], 0.1),
            op("d", "cpu", &["cpu", "gpu"], 0.1), op("e", "neural_engine", &engine, 0.1), op("y", "gpu", &engine, 0.1),
            op("f", "cpu", &["cpu"], 0.0), op("other", "cpu", &["cpu"], 0.0),
        ]}],
    })
}

fn read(report: &Value) -> anyhow::Result<DeviceReport> {
    let file = tempfile::NamedTempFile::new()?;
    std::fs::write(file.path(), report.to_string())?;
    Ok(DeviceReport::read(file.path())?)
}

#[test]
fn the_confusion_is_counted_and_rules_are_judged() {
    let rules = rules("").unwrap();
    let c = compare(&linted(PROGRAM, ""), &read(&device()).unwrap(), &rules).unwrap();
    let row = |engine, declined, unsupported| DeviceCounts { engine, declined, unsupported };
    assert_eq!(c.confusion[&OpVerdict::Stays], row(1, 1, 0));
    assert_eq!(c.confusion[&OpVerdict::MayLeave], row(1, 0, 2));
    assert_eq!(c.confusion[&OpVerdict::Leaves], row(1, 0, 1));
    let judged: Vec<_> = c.rules.iter().map(|r| (r.rule.as_str(), r.judgement)).collect();
    assert_eq!(
        judged,
        [
            ("fp32", Judgement::Unproven),
            ("fp32-constant", Judgement::Wrong),
            ("op-tile", Judgement::Mixed),
            ("op-known", Judgement::Right)
        ]
    );
    assert_eq!(c.missed.into_iter().collect::<Vec<_>>(), [("exp".to_string(), 1)]);
    assert_eq!(c.costliest_missed, [("y".to_string(), "exp".to_string(), 0.1)]);
    assert_eq!(c.unmatched, (0, 1));
    assert!((c.engine_cost_share.unwrap() - 0.7).abs() < 1e-9);
}

#[test]
fn what_is_no_report_of_this_package_is_refused() {
    let change = |path: &str, value: Value| {
        let mut report = device();
        *report.pointer_mut(path).unwrap() = value;
        read(&report)
    };
    for (path, value, says) in [
        ("/format", json!("other"), "found format `other`"),
        ("/version", json!(2), "version 2"),
        ("/functions/0/operations/1/preferred", json!("ane"), "not a device report"),
        ("/functions", json!({}), "not a device report"),
    ] {
        let error = format!("{:#}", change(path, value).expect_err(path));
        assert!(error.contains(says), "{path}: {error}");
    }
    let elsewhere = change("/functions/0/name", json!("prompt")).unwrap();
    let error = compare(&linted(PROGRAM, ""), &elsewhere, &rules("").unwrap()).expect_err("another function");
    assert!(error.to_string().contains("expected a report of this package"), "{error}");
}
