//! Programs of `torch.export.save`, as they were exported or after `run_decompositions()`.
//!
//! [`archive`] finds the JSON and the tensors, [`schema`] is the JSON, [`walk`] goes through the calls, and [`ops`] has a reader for each op
//! of ATen. Floats are f32 whatever the model was exported in: a cast from one float type to another is nothing.

mod archive;
mod call;
mod mutation;
mod ops;
mod schema;
mod symbols;
mod walk;

use std::collections::{BTreeMap, HashMap};
use std::path::Path;

use s2dit_backends::foreign::Foreign;
use s2dit_files::problems::{Problems, quoted, shown};
use s2dit_files::{Mapped, StridedTensor, TorchFile, WeightStore};
use s2dit_ir::interface::InputRole;
use s2dit_ir::{DType, Module, Tensor, TensorType};
use serde_json::Value as Json;

use self::archive::Archive;
use self::schema::{Program, SymInt, Versioned, name_of, number, union};
use self::symbols::Unknown;
use self::walk::{Slot, Walk};
use crate::trace::check_size;
use crate::{Ask, Importer, Read, Tracer, Value};

/// The format.
#[derive(Debug)]
pub(crate) struct Pt2;

/// The major version of the schema that is read: torch 2.5 and later.
const MAJOR: i64 = 8;

impl Importer for Pt2 {
    fn name(&self) -> &'static str {
        "pt2"
    }

    fn reads(&self, path: &Path, _: &[u8]) -> bool {
        // A large program has its JSON behind what is looked at.
        let named = path.extension().is_some_and(|e| e == "pt2");
        Foreign::of(path).is_ok_and(|found| match found {
            Some(Foreign::TorchExport) => true,
            Some(Foreign::Archive | Foreign::TorchCheckpoint) | None => named,
            Some(_) => false,
        })
    }

    fn read(&self, path: &Path, ask: &Ask) -> Result<Read, Problems> {
        let place = path.display().to_string();
        let file = Mapped::open(path, "a file of torch.export.save")?;
        let archive = Archive::open(file.bytes(), &place)?;
        let program = parse(&archive.program, &place)?;
        let producer = program.torch_version.as_deref().unwrap_or("unknown");
        let format = format!("PT2 of torch {}", shown(producer));
        let mut tensors = archive.weights;
        // A constant of a parameter's name is the parameter's.
        for (name, tensor) in archive.constants {
            tensors.entry(name).or_insert(tensor);
        }
        let sizes = ask.sizes();
        let module =
            Reading { program: &program, place: &place, file: file.bytes(), tensors: &tensors, sizes: &sizes, ask }
                .module()?;
        let used: BTreeMap<String, StridedTensor> = tensors;
        let weights = WeightStore::of(Box::new(TorchFile::of(file, used, format.clone())?));
        Ok(Read { module, weights, format, beside: Vec::new() })
    }
}

fn parse(text: &str, place: &str) -> Result<Program, Problems> {
    let text = schema::strict(text);
    let unread = |error: serde_json::Error| {
        Problems::one(
            place,
            shown(&error.to_string()),
            "the JSON of an exported program, as torch 2.5 and later write it",
        )
    };
    // The version first: another one may have other fields.
    let version: Versioned = serde_json::from_str(&text).map_err(unread)?;
    if version.schema_version.major != MAJOR {
        let producer = version.torch_version.map(|v| format!(" of torch {}", shown(&v))).unwrap_or_default();
        let found =
            format!("schema version {}.{}{producer}", version.schema_version.major, version.schema_version.minor);
        return Err(Problems::one(
            place,
            found,
            format!("major version {MAJOR}: export the model with torch 2.5 or later"),
        ));
    }
    serde_json::from_str(&text).map_err(unread)
}

/// A program that is being read.
struct Reading<'a> {
    program: &'a Program,
    place: &'a str,
    file: &'a [u8],
    tensors: &'a BTreeMap<String, StridedTensor>,
    sizes: &'a BTreeMap<&'a str, usize>,
    ask: &'a Ask,
}

impl Reading<'_> {
    fn problem(&self, at: &str, found: impl Into<String>, expected: impl Into<String>) -> Problems {
        Problems::one(format!("{}: {}", self.place, shown(at)), found, expected)
    }

    /// Whether a tensor of the program has a size without a number.
    fn is_symbolic(&self) -> bool {
        let tensors = self.program.graph_module.graph.tensor_values.values();
        tensors.flat_map(|tensor| &tensor.sizes).any(|size| matches!(size, SymInt::AsExpr(_)))
    }

    /// What is wrong with the sizes that were given: names that the program does not have, values that it was not traced for.
    fn bindings(&self) -> Problems {
        let (ranges, mut problems) = (&self.program.range_constraints, Problems::new());
        for (name, value) in self.sizes {
            let Some(range) = ranges.get(*name) else {
                // Programs of one size, and those of torch before ranges were written, list none.
                // Some are of expressions, such as `2*s0`.
                let is_symbol = |name: &&str| name.chars().all(|c| c.is_ascii_alphanumeric() || c == '_');
                let known: Vec<&str> = ranges.keys().map(String::as_str).filter(is_symbol).collect();
                let at = format!("--bind {}", shown(name));
                if !known.is_empty() {
                    problems.extend(self.problem(&at, "no such symbolic size", format!("one of {}", known.join(", "))));
                } else if !self.is_symbolic() {
                    problems.extend(self.problem(&at, "no such symbolic size", "no --bind: its sizes are numbers"));
                }
                continue;
            };
            let value = i64::try_from(*value).unwrap_or(i64::MAX);
            let (least, most) = (range.min_val.unwrap_or(0), range.max_val.unwrap_or(i64::MAX));
            if !(least..=most).contains(&value) {
                let at = format!("--bind {}", shown(name));
                let most = if most > 1 << 60 { "any".to_owned() } else { most.to_string() };
                problems.extend(self.problem(
                    &at,
                    value.to_string(),
                    format!("{least} to {most}, for which the program was traced: export it again with a wider torch.export.Dim"),
                ));
            }
        }
        problems
    }

    fn module(&self) -> Result<Module, Problems> {
        let graph = &self.program.graph_module.graph;
        let mut walk = Walk::new(graph, self.sizes);
        let mut problems = self.bindings();
        let mut held: HashMap<String, String> = HashMap::new();
        for spec in &self.program.graph_module.signature.input_specs {
            if let Some(found) = problems.absorb(self.input(spec, &mut walk)) {
                held.extend(found);
            }
        }
        problems.into_result()?;
        for node in &graph.nodes {
            walk.node(node);
        }
        let unsupported = std::mem::take(&mut walk.unsupported);
        // Most ops are made of others, into which PyTorch takes them apart.
        let takes_apart = graph
            .nodes
            .iter()
            .any(|node| node.target.contains("aten.linear.") || node.target.contains("aten.layer_norm."));
        let otherwise = match takes_apart {
            true => "ops of docs/import.md: save the program's run_decompositions(), which takes most others apart",
            false => "ops of docs/import.md",
        };
        unsupported.into_result(self.place, ops::REWRITES, otherwise)?;
        self.results(&mut walk, &held)?;
        Ok(Module::single(walk.t.f))
    }

    /// Adds an input of the graph; of a stored one the value's name and the tensor's.
    fn input(&self, spec: &Json, walk: &mut Walk<'_>) -> Result<Option<(String, String)>, Problems> {
        let Some((kind, spec)) = union(spec) else { return Err(self.problem("input_specs", "no union", "unions")) };
        let named = |field: &str| spec.get(field).and_then(Json::as_str).unwrap_or_default().to_owned();
        let tensor = match kind {
            "user_input" => return self.user_input(spec, walk).map(|()| None),
            "parameter" => named("parameter_name"),
            "buffer" => named("buffer_name"),
            "tensor_constant" => named("tensor_constant_name"),
            // Arguments of Python are part of the program.
            "constant_input" | "token" => return Ok(None),
            other => return Err(self.problem("input_specs", quoted(other), "tensors and numbers")),
        };
        let name = name_of(spec).unwrap_or_default();
        let Some(found) = self.tensors.get(&tensor) else {
            return Err(self.problem(&tensor, "no such tensor in the file", "every tensor of the program"));
        };
        let unloadable = |error: s2dit_ir::OpError| self.problem(&tensor, found.ty().to_string(), error.0);
        // Indices and small numbers are part of the program.
        let most = match (found.ty().dtype.is_float(), kind) {
            (false, _) => 1 << 18,
            (true, "tensor_constant") => 1 << 10,
            (true, _) => 0,
        };
        let value = match found.ty().elements() <= most {
            true => self.known(found).ok_or_else(|| self.problem(&tensor, found.ty().to_string(), "finite numbers"))?,
            false => walk.t.load(&tensor, found.ty()).map_err(unloadable)?,
        };
        walk.set(name, Slot::Tensor(value));
        Ok(Some((name.to_owned(), tensor)))
    }

    /// A tensor with the elements that lie in the file.
    fn known(&self, stored: &StridedTensor) -> Option<Value> {
        let mut tensor = Tensor::from_le_bytes(stored.ty(), &stored.bytes_in(self.file))?;
        if tensor.dtype.is_float() {
            tensor.dtype = DType::F32;
        }
        Some(Value::Known(tensor))
    }

    fn user_input(&self, spec: &Json, walk: &mut Walk<'_>) -> Result<(), Problems> {
        let arg = spec.get("arg").and_then(union);
        let (kind, json) = arg.unwrap_or(("", &Json::Null));
        match kind {
            "as_tensor" => {}
            "as_none" | "as_string" => return Ok(()),
            "as_sym_int" => {
                let name = json.get("as_name").and_then(Json::as_str).unwrap_or_default();
                let value = walk.symbolic(json);
                let value =
                    value.ok_or_else(|| self.problem(name, "a symbolic size", format!("--bind {name}=NUMBER")))?;
                walk.set(name, Slot::Number(value));
                return Ok(());
            }
            _ => {
                return match (json.get("name").and_then(Json::as_str), number(json)) {
                    (Some(name), Some(x)) => {
                        walk.set(name, Slot::Number(x));
                        Ok(())
                    }
                    (None, _) => Ok(()),
                    _ => Err(self.problem("input_specs", quoted(kind), "tensors")),
                };
            }
        }
        let name = name_of(json).unwrap_or_default();
        let Some(meta) = self.program.graph_module.graph.tensor_values.get(name) else {
            return Err(self.problem(name, "an input without a type", "its type in tensor_values"));
        };
        let mut shape = Vec::new();
        for size in &meta.sizes {
            let side = walk.size(size).map_err(|unknown| match unknown {
                Unknown::Symbol(symbol) => self.problem(
                    name,
                    format!("the symbolic size {}", quoted(&symbol)),
                    format!("a number: --bind {}=NUMBER", shown(&symbol)),
                ),
                Unknown::Text(text) => self.problem(name, quoted(&text), "an expression of whole numbers"),
            })?;
            shape.push(usize::try_from(side).map_err(|_| self.problem(name, side.to_string(), "sizes above 0"))?);
        }
        check_size(&shape).map_err(|error| self.problem(name, error.0, "a shape that a machine can hold"))?;
        let Some(dtype) = schema::dtype(meta.dtype) else {
            return Err(self.problem(name, format!("element type {}", meta.dtype), "floats, integers or truth values"));
        };
        let given = self.ask.inputs.iter().find(|given| given.name == name).map(|given| &given.role);
        let is_time =
            |name: &str| given.is_none() && ["time", "sigma"].iter().any(|word| name.contains(word)) || name == "t";
        let of_floats = match given {
            Some(role) => matches!(role, InputRole::Time { .. } | InputRole::TextMask | InputRole::Guidance),
            None => is_time(&name.to_ascii_lowercase()) || name.contains("mask"),
        };
        // Times, and masks of integers, are numbers to the model: it computes with them.
        let to = if of_floats { DType::F32 } else { Tracer::graph_dtype(dtype) };
        if walk.t.f.by_name(name).is_some() {
            return Err(self.problem("input_specs", format!("the input {} twice", quoted(name)), "each input once"));
        }
        let v = walk.t.f.add_param(name, TensorType::new(to, shape));
        if dtype == DType::Bool || of_floats && !dtype.is_float() {
            walk.whole.insert(v);
        }
        walk.set(name, Slot::Tensor(Value::Graph(v)));
        Ok(())
    }

    fn results(&self, walk: &mut Walk<'_>, held: &HashMap<String, String>) -> Result<(), Problems> {
        let written = walk.written(held.keys().map(String::as_str));
        let mut problems = Problems::new();
        for name in written {
            let buffer = held.get(&name).cloned().unwrap_or_default();
            problems.extend(self.stateful(&buffer));
        }
        let specs = &self.program.graph_module.signature.output_specs;
        let results: Vec<&str> = specs
            .iter()
            .filter_map(|spec| spec.get("user_output")?.get("arg")?.get("as_tensor").and_then(name_of))
            .collect();
        for (i, value) in results.iter().enumerate() {
            // A program has no names for its results.
            let name = if results.len() == 1 { "output".to_owned() } else { format!("output_{i}") };
            match walk.tensor(value).and_then(|value| walk.t.graph(&value)) {
                Ok(v) => walk.t.f.results.push((name, v)),
                Err(error) => problems.extend(self.problem(value, error.0, "a tensor")),
            }
        }
        for spec in specs {
            let Some((kind, spec)) = union(spec) else { continue };
            match kind {
                "user_output" | "token" => {}
                "buffer_mutation" => {
                    let buffer = spec.get("buffer_name").and_then(Json::as_str).unwrap_or_default();
                    problems.extend(self.stateful(buffer));
                }
                other => problems.extend(self.problem(
                    "output_specs",
                    quoted(other),
                    "results alone: export the model without gradients",
                )),
            }
        }
        if walk.t.f.results.is_empty() && problems.is_empty() {
            problems.push(self.place, "no result that is a tensor", "one or more");
        }
        problems.into_result()
    }

    fn stateful(&self, buffer: &str) -> Problems {
        self.problem(
            buffer,
            "a buffer that the model writes to",
            "a model without state: pass it as an input and return it as a result",
        )
    }
}
