//! `examples/ci/s2ditc.yml`, run as GitHub would run it: it passes a good model and fails one that drifted, whichever target did.

use std::collections::BTreeMap;
use std::fs;
use std::path::{Path, PathBuf};
use std::process::Command;

use crate::common::{arg, files, python, repo};
use serde::Deserialize;

/// What the test knows of a workflow; a job or step with anything else is refused.
#[derive(Deserialize)]
struct Workflow {
    env: BTreeMap<String, String>,
    jobs: BTreeMap<String, Job>,
}

#[derive(Deserialize)]
#[serde(deny_unknown_fields, rename_all = "kebab-case")]
struct Job {
    #[serde(rename = "runs-on")]
    _runs_on: String,
    #[serde(rename = "timeout-minutes")]
    _timeout_minutes: u32,
    defaults: Option<Defaults>,
    steps: Vec<Step>,
}

#[derive(Deserialize)]
struct Defaults {
    run: RunDefaults,
}

#[derive(Deserialize)]
struct RunDefaults {
    shell: String,
}

#[derive(Deserialize)]
#[serde(deny_unknown_fields)]
struct Step {
    name: String,
    uses: Option<String>,
    #[serde(default)]
    with: BTreeMap<String, serde_json::Value>,
    #[serde(rename = "if")]
    condition: Option<String>,
    shell: Option<String>,
    run: Option<String>,
}

fn workflow() -> Workflow {
    serde_json::from_value(yaml("examples/ci/s2ditc.yml")).expect("a workflow")
}

/// A YAML file of the repository. PyYAML, which coremltools brings with it, reads what GitHub reads.
fn yaml(file: &str) -> serde_json::Value {
    let script = "import json, sys, yaml; json.dump(yaml.safe_load(open(sys.argv[1], encoding='utf-8')), sys.stdout)";
    let mut python = Command::new(python::interpreter());
    let output = python.args(["-c", script]).arg(repo().join(file)).output().expect("python starts");
    assert!(output.status.success(), "{file}: {}", String::from_utf8_lossy(&output.stderr));
    serde_json::from_slice(&output.stdout).expect("JSON")
}

/// The step that a runner needs and a test must not run: it builds s2ditc, which is here already.
const INSTALL: &str = "install s2ditc";

/// Runs the steps in `work`, as a runner does; returns the name of the step that failed and its output.
fn run_workflow(work: &Path, path: &str, variables: &[(&str, &str)]) -> Result<(), (String, String)> {
    let workflow = workflow();
    let [job] = workflow.jobs.values().collect::<Vec<_>>()[..] else { panic!("one job") };
    for step in &job.steps {
        let Some(script) = &step.run else { continue };
        if step.name == INSTALL {
            continue;
        }
        assert!(step.condition.is_none(), "{}: a condition that the test does not know", step.name);
        let shell = step.shell.as_deref().or(job.defaults.as_ref().map(|d| d.run.shell.as_str()));
        // docs.github.com, "Workflow syntax", `jobs.<job_id>.steps[*].shell`: what each choice stands for.
        let flags: &[&str] = match shell {
            None => &["-e"],
            Some("bash") => &["--noprofile", "--norc", "-e", "-o", "pipefail"],
            Some(other) => panic!("{}: the shell {other}", step.name),
        };
        let file = work.join("step.sh");
        fs::write(&file, script).expect("a script");
        let mut command = Command::new("bash");
        command.args(flags).arg(&file).current_dir(work).env("PATH", path);
        // The runner replaces `${{ … }}`; no step that is run here has such a variable.
        command.envs(workflow.env.iter().filter(|(_, value)| !value.contains("${{")));
        let output = command.envs(variables.iter().copied()).output().expect("bash");
        let text = format!("{}{}", String::from_utf8_lossy(&output.stdout), String::from_utf8_lossy(&output.stderr));
        if !output.status.success() {
            return Err((step.name.clone(), text));
        }
    }
    Ok(())
}

/// The workflow's variables for the repository's own golden, as files of this checkout.
fn variables() -> [(&'static str, String); 2] {
    let workflow = workflow();
    ["CHECKPOINT", "GOLDEN"].map(|name| (name, arg(&repo().join(&workflow.env[name]))))
}

/// A folder with a command `s2ditc` that hands its arguments on, but compiles `other` instead of the checkpoint for one target;
/// and a PATH that begins with this folder.
fn path_with(work: &Path, target: &str, other: &Path) -> String {
    let bin = work.join("bin");
    fs::create_dir(&bin).expect("a folder");
    let script = format!(
        "#!/usr/bin/env bash\n\
         if [[ \"$1\" == compile && \"$*\" == *\"--target {target} \"* ]]; then set -- compile '{}' \"${{@:3}}\"; fi\n\
         exec '{}' \"$@\"\n",
        other.display(),
        env!("CARGO_BIN_EXE_s2ditc")
    );
    let command = bin.join("s2ditc");
    fs::write(&command, script).expect("a command");
    let mode = std::os::unix::fs::PermissionsExt::from_mode(0o755);
    fs::set_permissions(&command, mode).expect("an executable");
    format!("{}:{}", arg(&bin), std::env::var("PATH").expect("PATH"))
}

/// The checkpoint of the workflow as it stands.
fn checkpoint() -> PathBuf {
    repo().join(&workflow().env["CHECKPOINT"])
}

/// A copy of the workflow's checkpoint in which the sign of one weight's elements is turned.
fn drifted(work: &Path) -> PathBuf {
    let copy = work.join("drifted");
    fs::create_dir(&copy).expect("a folder");
    for (name, mut bytes) in files(&checkpoint()) {
        if name.extension().is_some_and(|e| e == "safetensors") {
            let (length, header) = safetensors::SafeTensors::read_metadata(&bytes).expect("a header");
            let info = header.info("blocks.1.attn1.to_q.weight").expect("a weight");
            let (begin, end) = info.data_offsets;
            let size = match info.dtype {
                safetensors::Dtype::F32 => 4,
                safetensors::Dtype::F16 | safetensors::Dtype::BF16 => 2,
                other => panic!("{other:?}"),
            };
            for element in bytes[8 + length..][begin..end].chunks_exact_mut(size) {
                element[size - 1] ^= 0x80;
            }
        }
        fs::write(copy.join(name), bytes).expect("a copy");
    }
    copy
}

fn outcome(target: &str, other: impl FnOnce(&Path) -> PathBuf) -> (Result<(), (String, String)>, Vec<String>) {
    let work = tempfile::tempdir().expect("a temporary folder");
    let path = path_with(work.path(), target, &other(work.path()));
    let variables = variables();
    let borrowed: Vec<(&str, &str)> = variables.iter().map(|(name, value)| (*name, value.as_str())).collect();
    let result = run_workflow(work.path(), &path, &borrowed);
    let left = fs::read_dir(work.path()).expect("a folder").map(|e| e.expect("an entry").file_name());
    (result, left.map(|name| name.into_string().expect("UTF-8")).collect())
}

#[test]
fn a_good_model_passes_and_leaves_its_proofs() {
    let (result, left) = outcome("coreml", |_| checkpoint());
    assert_eq!(result, Ok(()));
    let workflow = workflow();
    let steps = workflow.jobs.values().flat_map(|job| &job.steps);
    let upload = steps.filter(|s| s.uses.as_deref().is_some_and(|u| u.starts_with("actions/upload-artifact@")));
    let kept: Vec<String> = upload.map(|step| step.with["path"].as_str().expect("paths").to_owned()).collect();
    let kept: Vec<&str> = kept.iter().flat_map(|paths| paths.lines()).collect();
    assert!(kept.len() >= 5, "{kept:?}");
    for pattern in kept {
        let there = |name: &String| pattern.strip_suffix('*').map_or(name == pattern, |start| name.starts_with(start));
        assert!(left.iter().any(there), "{pattern} is kept, and no step made it: {left:?}");
    }
}

/// The proof of the package is the only one that can see this drift.
#[test]
fn a_package_that_drifted_fails() {
    let (failed, says) = outcome("coreml", drifted).0.expect_err("a failure");
    assert_eq!(failed, "prove", "{says}");
    assert!(says.contains("\"artifact\": \"model.mlpackage\""), "the ONNX file passed: {says}");
}

/// The proof of the ONNX file is the only one that can see this drift.
#[test]
fn an_onnx_file_that_drifted_fails() {
    let (failed, says) = outcome("onnx", drifted).0.expect_err("a failure");
    assert_eq!(failed, "prove", "{says}");
    assert!(!says.contains("\"artifact\": \"model.mlpackage\""), "the ONNX file was the first to fail: {says}");
}

/// What cannot be run here is at least there: the paths of the installation are those of a checkout, and of this repository.
#[test]
fn the_installation_is_of_what_was_checked_out() {
    let workflow = workflow();
    let steps: Vec<&Step> = workflow.jobs.values().flat_map(|job| &job.steps).collect();
    let position = |name: &str| steps.iter().position(|s| s.name == name).expect(name);
    let source = steps.iter().position(|s| s.with.contains_key("repository")).expect("a checkout of s2ditc");
    assert!(source < position(INSTALL) && position(INSTALL) < position("compile"));
    let folder = steps[source].with["path"].as_str().expect("a path");
    let script = steps[position(INSTALL)].run.as_deref().expect("a script");
    let installed = script.split_once("--path ").expect("--path").1.split_whitespace().next().expect("a path");
    let inside = installed.strip_prefix(folder).and_then(|rest| rest.strip_prefix('/')).expect("the checkout's folder");
    let manifest = fs::read_to_string(repo().join(inside).join("Cargo.toml")).expect("the package that is installed");
    assert!(manifest.contains("name = \"s2ditc\""));
    let cache = steps.iter().find(|s| s.uses.as_deref().is_some_and(|u| u.starts_with("actions/cache@")));
    let cached = cache.expect("a cache").with["path"].as_str().expect("paths");
    assert!(cached.lines().any(|path| path == format!("{folder}/target")), "{cached}");
}

/// The project's own workflow runs what people run.
#[test]
fn the_projects_own_workflow_runs_the_same_script() {
    let workflow = yaml(".github/workflows/ci.yml");
    let steps = workflow["jobs"]["run"]["steps"].as_array().expect("steps");
    assert!(steps.iter().any(|step| step["run"] == ".ci/run"));
    let script = fs::read_to_string(repo().join(".ci/run")).expect("the script");
    let readme = fs::read_to_string(repo().join("README.md")).expect("README");
    let command = "cargo test --workspace --all-features --locked";
    assert!(script.lines().any(|line| line == command) && readme.contains(command));
}
