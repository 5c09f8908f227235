//! Checkpoints by name: what of a repository lies in the cache of the Hugging Face hub, and what is fetched of a hub on this machine.

use std::collections::BTreeMap;
use std::fs;
use std::path::{Path, PathBuf};
use std::process::Output;

use crate::common::hub::{COMMIT, Fault, Hub};
use crate::common::{arg, files, ok, repo, s2ditc};
use tempfile::TempDir;

const FETCH: &str = "`hf download some/wan --exclude \"*encoder*/*\"` fetches it";

/// The bytes of a file of the doors' fixture.
fn fixture(file: &str) -> Vec<u8> {
    fs::read(repo().join("tests/fixtures/doors/diffusers").join(file)).expect("a fixture")
}

/// A repository of a pipeline: two transformers, one whole and one in shards, and what is not needed.
fn pipeline() -> BTreeMap<String, Vec<u8>> {
    let transformer = serde_json::json!(["diffusers", "WanTransformer3DModel"]);
    let index = serde_json::json!({
        "boundary_ratio": 0.5, "transformer": transformer, "transformer_2": transformer,
        "text_encoder": ["transformers", "UMT5EncoderModel"], "scheduler": ["diffusers", "UniPCMultistepScheduler"],
    });
    let shard = "diffusion_pytorch_model-00001-of-00001.safetensors";
    let weights = fixture("diffusion_pytorch_model.safetensors");
    let tensors = safetensors::SafeTensors::deserialize(&weights).expect("safetensors");
    let map: BTreeMap<&str, &str> = tensors.names().into_iter().map(|name| (name, shard)).collect();
    let shards = serde_json::json!({ "metadata": {}, "weight_map": map });
    [
        ("model_index.json", index.to_string().into_bytes()),
        ("scheduler/scheduler_config.json", br#"{"flow_shift": 5.0}"#.to_vec()),
        ("transformer/config.json", fixture("config.json")),
        ("transformer/diffusion_pytorch_model.safetensors", weights.clone()),
        ("transformer_2/config.json", fixture("config.json")),
        ("transformer_2/diffusion_pytorch_model.safetensors.index.json", shards.to_string().into_bytes()),
        (&format!("transformer_2/{shard}"), weights),
        ("text_encoder/model.safetensors", vec![0; 1000]),
        ("vae/diffusion_pytorch_model.safetensors", vec![0; 1000]),
        ("README.md", b"a model".to_vec()),
    ]
    .map(|(name, bytes): (&str, _)| (name.to_owned(), bytes))
    .into()
}

/// A home of the hub's tools, and a hub.
struct Place {
    work: TempDir,
    hub: Hub,
}

impl Place {
    fn new(files: BTreeMap<String, Vec<u8>>) -> Place {
        Place { work: tempfile::tempdir().expect("a temporary folder"), hub: Hub::start(files) }
    }

    /// Runs `s2ditc` with the hub.
    fn run(&self, args: &[&str], environment: &[(&str, &str)]) -> Output {
        let mut command = s2ditc();
        command.args(args).current_dir(self.work.path());
        for name in
            ["HF_HUB_OFFLINE", "HF_HUB_CACHE", "HUGGINGFACE_HUB_CACHE", "HF_TOKEN", "HF_TOKEN_PATH", "XDG_CACHE_HOME"]
        {
            command.env_remove(name);
        }
        command.env("HF_HOME", self.work.path()).env("HF_ENDPOINT", &self.hub.endpoint);
        command.envs(environment.iter().copied()).output().expect("s2ditc starts")
    }

    fn compile(&self, flags: &[&str], environment: &[(&str, &str)]) -> Output {
        let args = ["compile", "some/wan", "--target", "onnx", "--latent", "2x4x6", "-o", "out.onnx"];
        self.run(&[&args, flags].concat(), environment)
    }

    /// Compiles, and returns the error.
    #[track_caller]
    fn refused(&self, flags: &[&str], environment: &[(&str, &str)]) -> String {
        let done = self.compile(flags, environment);
        let said = text(&done.stderr);
        assert_eq!(done.status.code(), Some(1), "{said}");
        assert!(said.matches("error: ").count() == 1 && !said.contains("panicked"), "{said}");
        assert!(!self.work.path().join("out.onnx").exists());
        said
    }

    fn repository(&self) -> PathBuf {
        self.work.path().join("hub/models--some--wan")
    }

    /// Names of the files of the snapshot.
    fn snapshot(&self) -> Vec<String> {
        names(&self.repository().join("snapshots").join(COMMIT))
    }
}

/// Names of the files below a folder.
fn names(folder: &Path) -> Vec<String> {
    match folder.is_dir() {
        true => files(folder).into_iter().map(|(name, _)| arg(&name)).collect(),
        false => Vec::new(),
    }
}

fn text(bytes: &[u8]) -> String {
    String::from_utf8(bytes.to_vec()).expect("UTF-8")
}

#[track_caller]
fn says(text: &str, parts: &[&str]) {
    for part in parts {
        assert!(text.contains(part), "`{part}` is not in: {text}");
    }
}

#[track_caller]
fn succeeds(done: &Output) -> String {
    assert!(done.status.success(), "{}", text(&done.stderr));
    text(&done.stderr)
}

/// Of a pipeline with a component by its name, that one is fetched alone.
#[test]
fn a_text_encoder_is_fetched_alone() {
    let mut files = pipeline();
    for file in ["config.json", "model.safetensors"] {
        let bytes = fs::read(crate::common::golden("text_umt5").join("checkpoint").join(file)).expect("a golden");
        files.insert(format!("text_encoder/{file}"), bytes);
    }
    let place = Place::new(files);
    let flags = ["--component", "text_encoder", "--target", "onnx", "--tokens", "8", "-o", "out.onnx"];
    succeeds(&place.run(&[&["compile", "some/wan"][..], &flags].concat(), &[]));
    let wanted = [
        "model_index.json",
        "scheduler/scheduler_config.json",
        "text_encoder/config.json",
        "text_encoder/model.safetensors",
    ];
    assert_eq!(place.snapshot(), wanted);
}

/// Of a pipeline the transformers are fetched and what lies beside them, once, and what is made is made of them.
#[test]
fn a_pipeline_is_fetched() {
    let place = Place::new(pipeline());
    let said = succeeds(&place.compile(&["--component", "transformer"], &[]));
    says(&said, &["note: some/wan: fetching 1 file(s)", &place.hub.endpoint, "/hub`"]);
    let wanted = [
        "model_index.json",
        "scheduler/scheduler_config.json",
        "transformer/config.json",
        "transformer/diffusion_pytorch_model.safetensors",
    ];
    assert_eq!(place.snapshot(), wanted);
    assert_eq!(text(&fs::read(place.repository().join("refs/main")).expect("a reference")), COMMIT);
    #[cfg(unix)]
    assert!(place.repository().join("snapshots").join(COMMIT).join(wanted[3]).is_symlink());
    assert!(!place.work.path().join("hub/.s2ditc").exists());
    place.hub.requests();

    // What lies in the cache is asked of nobody.
    fs::remove_file(place.work.path().join("out.onnx")).expect("an artifact");
    let said = place.compile(&["--component", "transformer", "--json"], &[("HF_ENDPOINT", "http://127.0.0.1:1")]);
    assert!(text(&said.stdout).contains("flow_shift"), "{}", text(&said.stderr));
    assert_eq!(place.hub.requests(), [""; 0]);
    let checkpoint = arg(&repo().join("tests/fixtures/doors/diffusers"));
    ok(&["verify", &arg(&place.work.path().join("out.onnx")), "--checkpoint", &checkpoint]);

    // The other one, when it is asked for: the shards that its index names.
    fs::remove_file(place.work.path().join("out.onnx")).expect("an artifact");
    let both = ["compile", "some/wan", "--target", "onnx", "--latent", "2x4x6", "-o", "out"];
    succeeds(&place.run(&both, &[]));
    assert_eq!(names(&place.work.path().join("out")), ["experts.json", "transformer.onnx", "transformer_2.onnx"]);
    assert_eq!(place.snapshot().len(), 7);
    assert!(!place.hub.requests().iter().any(|request| request.contains("encoder") || request.contains("vae")));
}

/// What every other command takes: the one transformer, and a checkpoint's own repository.
#[test]
fn every_command_takes_a_name() {
    let files = [
        ("config.json", "config.json"),
        ("w", "diffusion_pytorch_model.safetensors"),
        ("models_t5.pth", "config.json"),
    ];
    let files = files.map(|(name, from)| (name.replace('w', "diffusion_pytorch_model.safetensors"), fixture(from)));
    let place = Place::new(files.into());
    let done = place.run(&["inspect", "some/wan", "--latent", "2x4x6"], &[]);
    succeeds(&done);
    says(&text(&done.stdout), &["checkpoint ", "Wan"]);
    assert_eq!(place.snapshot(), ["config.json", "diffusion_pytorch_model.safetensors"]);
    let plan = place.run(&["quantize", "some/wan", "--scheme", "int8", "--latent", "2x4x6", "-o", "plan.toml"], &[]);
    says(&text(&plan.stderr), &["found no weight of 16384 elements or more"]);
    succeeds(&place.compile(&["-q", "--offline"], &[]));
    succeeds(&place.run(&["verify", "out.onnx", "--checkpoint", "some/wan"], &[]));
}

/// A connection that breaks is taken up where it broke: by the same command a few times, and by the next one.
#[test]
fn a_broken_download_goes_on() {
    let place = Place::new(pipeline());
    let size = fixture("diffusion_pytorch_model.safetensors").len();
    let some = size / 10;
    place.hub.fault(Fault::Breaks(some));
    let said = place.refused(&["--component", "transformer"], &[]);
    says(&said, &["transformer/diffusion_pytorch_model.safetensors", "the same command goes on where it stopped"]);
    // Nothing half is in the snapshot.
    assert_eq!(place.snapshot(), ["model_index.json", "scheduler/scheduler_config.json", "transformer/config.json"]);
    let blobs = |folder: &Path| -> Vec<u64> {
        let entries = fs::read_dir(folder).expect("a folder").map(|entry| entry.expect("an entry"));
        entries
            .filter(|entry| arg(&entry.path()).ends_with(".part"))
            .map(|e| e.metadata().expect("a file").len())
            .collect()
    };
    assert_eq!(blobs(&place.work.path().join("hub/.s2ditc/models--some--wan/blobs")), [4 * some as u64]);
    assert_eq!(blobs(&place.repository().join("blobs")), [0; 0]);

    place.hub.fault(Fault::None);
    place.hub.requests();
    succeeds(&place.compile(&["--component", "transformer"], &[]));
    let is_of_weights = |request: &String| request.starts_with("/cdn") && !request.ends_with("=0-0");
    let weights: Vec<String> = place.hub.requests().into_iter().filter(is_of_weights).collect();
    assert_eq!(weights, [format!("/cdn/transformer/diffusion_pytorch_model.safetensors bytes={}-", 4 * some)]);
}

/// A file that is not what the hub says it is gets no place in the snapshot.
#[test]
fn a_damaged_file_is_not_kept() {
    for (fault, found) in [(Fault::Damaged, "bytes with the hash"), (Fault::Short, "bytes with the hash")] {
        let place = Place::new(pipeline());
        place.hub.fault(fault);
        let said = place.refused(&["--component", "transformer"], &[]);
        says(&said, &["some/wan: transformer/diffusion_pytorch_model.safetensors: found ", found, "fetches it anew"]);
        assert_eq!(place.snapshot().len(), 3, "{fault:?}");
        place.hub.fault(Fault::None);
        succeeds(&place.compile(&["--component", "transformer"], &[]));
    }
    // What an earlier run left is not what the hub has.
    let place = Place::new(pipeline());
    place.hub.fault(Fault::Breaks(100));
    place.refused(&["--component", "transformer"], &[]);
    let blobs = place.work.path().join("hub/.s2ditc/models--some--wan/blobs");
    let part = fs::read_dir(blobs)
        .expect("a folder")
        .map(|e| e.expect("an entry").path())
        .find(|p| p.extension().is_some_and(|e| e == "part"));
    fs::write(part.expect("a part"), [1; 400]).expect("other bytes");
    place.hub.fault(Fault::None);
    says(&place.refused(&["--component", "transformer"], &[]), &["bytes with the hash", "fetches it anew"]);
    succeeds(&place.compile(&["--component", "transformer"], &[]));
}

#[test]
fn what_the_hub_refuses() {
    let place = Place::new(pipeline());
    place.hub.fault(Fault::Private("hf_right"));
    says(&place.refused(&[], &[]), &["some/wan: found no access without a token (HTTP 401)", "set HF_TOKEN"]);
    says(&place.refused(&[], &[("HF_TOKEN", "hf_wrong")]), &["no access with the token that was sent (HTTP 401)"]);
    fs::write(place.work.path().join("token"), "hf_right\n").expect("a token");
    succeeds(&place.compile(&["--component", "transformer"], &[]));
    fs::remove_file(place.work.path().join("out.onnx")).expect("an artifact");
    place.hub.fault(Fault::None);

    let other = |name: &str| text(&place.run(&["inspect", name], &[]).stderr);
    says(&other("some/other"), &["some/other: found no such repository (HTTP 404), and nothing at that path"]);
    let gone = [("HF_ENDPOINT", "http://127.0.0.1:1")];
    says(&text(&place.run(&["inspect", "some/other"], &gone).stderr), &["127.0.0.1:1: some/other: found", "--offline"]);

    let mut files = pipeline();
    files.remove("transformer/diffusion_pytorch_model.safetensors");
    let place = Place::new(files);
    let said = place.refused(&["--component", "transformer"], &[]);
    says(
        &said,
        &["transformer/: found a repository without weights of the model there: it has transformer/config.json"],
    );
    let place = Place::new([("self_forcing_dmd.pt".to_owned(), vec![0; 9])].into());
    says(
        &place.refused(&[], &[]),
        &["without config.json and without model_index.json: it has self_forcing_dmd.pt", "--config"],
    );
}

/// Without the hub it is said what is missing, and how it is got.
#[test]
fn offline_it_is_said_what_is_missing() {
    let place = Place::new(pipeline());
    for (flags, environment, said) in [
        (&["--offline"][..], &[][..], "without --offline"),
        (&[], &[("HF_HUB_OFFLINE", "1")], "without HF_HUB_OFFLINE"),
    ] {
        let error = place.refused(flags, environment);
        says(&error, &["some/wan: found nothing there, and no such repository in", "/hub`", FETCH, said]);
    }
    assert_eq!(place.hub.requests(), [""; 0]);
    succeeds(&place.compile(&["--component", "transformer"], &[]));
    fs::remove_file(place.work.path().join("out.onnx")).expect("an artifact");
    says(
        &place.refused(&["--offline"], &[]),
        &["no transformer_2/diffusion_pytorch_model.safetensors in its snapshot", FETCH],
    );

    // A blob that is gone: said, or fetched again.
    #[cfg(unix)]
    {
        let weights =
            place.repository().join("snapshots").join(COMMIT).join("transformer/diffusion_pytorch_model.safetensors");
        fs::remove_file(fs::canonicalize(&weights).expect("a link")).expect("a blob");
        let flags = ["--component", "transformer"];
        let error = place.refused(&[&flags[..], &["--offline"]].concat(), &[]);
        says(
            &error,
            &["transformer/diffusion_pytorch_model.safetensors` is a link to `../../../blobs/", "which is gone", FETCH],
        );
        // So it is of the snapshot's folder, given as a path.
        let folder = arg(weights.parent().expect("a folder"));
        let of_path = |part: &str| {
            let said = text(&place.run(&["inspect", &folder, "--latent", "2x4x6"], &[]).stderr);
            says(&said, &[part, "a link to \"../../../blobs/", "which is gone"]);
        };
        of_path("diffusion_pytorch_model.safetensors, ");
        let config = weights.with_file_name("config.json");
        let blob = fs::canonicalize(&config).expect("a link");
        fs::rename(&blob, blob.with_extension("away")).expect("a blob");
        of_path("config.json: found ");
        fs::rename(blob.with_extension("away"), &blob).expect("a blob");
        succeeds(&place.compile(&flags, &[]));
        assert!(weights.is_file());
    }
}
