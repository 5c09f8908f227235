//! What a function takes and returns, and whether arrays fit.

use s2dit_backends::{coreai, coreml};
use s2dit_files::arrays::{Array, Arrays};
use s2dit_ir::DType;

use super::shown;
use crate::Error;
use crate::error::refuse;

/// An input, output or state of a function.
#[derive(Clone, Debug, PartialEq, Eq, serde::Serialize)]
pub struct Port {
    /// Name.
    pub name: String,
    /// Element type; `None` if the artifact leaves it open.
    #[serde(serialize_with = "dtype_name")]
    pub dtype: Option<DType>,
    /// Extents, −1 for one that is open; `None` if the artifact does not say them.
    pub shape: Option<Vec<i64>>,
}

fn dtype_name<S: serde::Serializer>(dtype: &Option<DType>, to: S) -> Result<S::Ok, S::Error> {
    match dtype {
        Some(dtype) => to.serialize_some(dtype.name()),
        None => to.serialize_none(),
    }
}

fn dtype(name: &str) -> Option<DType> {
    DType::ALL.into_iter().find(|dtype| dtype.name() == name)
}

impl From<coreai::read::Feature> for Port {
    fn from(feature: coreai::read::Feature) -> Port {
        Port { name: feature.name, dtype: dtype(&feature.dtype), shape: Some(feature.shape) }
    }
}

impl From<coreml::read::Feature> for Port {
    fn from(feature: coreml::read::Feature) -> Port {
        let shape = Some(feature.shape).filter(|shape| !shape.is_empty() && !feature.flexible);
        Port { name: feature.name, dtype: dtype(&feature.dtype), shape }
    }
}

impl From<&crate::Port> for Port {
    fn from(port: &crate::Port) -> Port {
        Port { name: port.name.clone(), dtype: dtype(&port.dtype), shape: Some(port.shape.clone()) }
    }
}

impl Port {
    /// The extents, if all are known.
    pub fn extents(&self) -> Option<Vec<usize>> {
        self.shape.as_ref()?.iter().map(|d| usize::try_from(*d).ok()).collect()
    }

    fn takes(&self, shape: &[usize]) -> bool {
        let fits = |(want, have): (&i64, &usize)| *want < 0 || *want == *have as i64;
        match &self.shape {
            None => true,
            // One number is a scalar, or an array of one.
            Some(wanted) if shape.is_empty() => wanted.iter().all(|d| *d == 1 || *d < 0),
            Some(wanted) => wanted.len() == shape.len() && wanted.iter().zip(shape).all(fits),
        }
    }

    /// A value as the port has it: in its element type, and no scalar, since multi-arrays have at least one axis.
    pub(super) fn result(&self, value: &Array) -> Array {
        let value = self.dtype.map_or_else(|| value.clone(), |dtype| value.cast(dtype));
        if value.ty.shape.is_empty() { value.reshaped(&[1]).unwrap_or(value) } else { value }
    }
}

/// The arrays in the element types of the ports.
///
/// # Errors
/// All that does not fit: missing and unknown names, shapes, numbers that the element type does not hold.
pub(super) fn fitting(what: &str, ports: &[Port], arrays: &Arrays) -> Result<Arrays, Error> {
    let mut problems = Vec::new();
    let mut fitting = Arrays::new();
    for port in ports {
        let expected = || {
            let dtype = port.dtype.map_or("any type".to_string(), |dtype| dtype.to_string());
            port.shape.as_ref().map_or(dtype.clone(), |shape| format!("{dtype}{shape:?}"))
        };
        let Some(array) = arrays.get(&port.name) else {
            problems.push(format!("{what} `{}`: found nothing, expected {}", port.name, expected()));
            continue;
        };
        if !port.takes(&array.ty.shape) {
            problems.push(format!("{what} `{}`: found {}, expected {}", port.name, array.ty, expected()));
            continue;
        }
        let cast = port.dtype.map_or_else(|| array.clone(), |dtype| array.cast(dtype));
        let whole = !cast.ty.dtype.is_float() && cast.ty.dtype != array.ty.dtype;
        if whole && cast.cast(array.ty.dtype) != *array {
            problems.push(format!(
                "{what} `{}`: found numbers that {} does not hold, expected {}",
                port.name,
                cast.ty.dtype,
                expected()
            ));
            continue;
        }
        fitting.insert(port.name.clone(), cast);
    }
    let unknown = arrays.iter().filter(|(name, _)| !ports.iter().any(|port| port.name == **name));
    let unknown: Vec<_> = unknown.collect();
    if !unknown.is_empty() {
        let names: Vec<&str> = ports.iter().map(|port| port.name.as_str()).collect();
        problems.push(format!("found {what} {}, expected {}", shown(unknown), names.join(", ")));
    }
    if problems.is_empty() { Ok(fitting) } else { refuse!(Input, "{}", problems.join("; ")) }
}
