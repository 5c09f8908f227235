//! Element types.

use serde::{Deserialize, Serialize};

use super::{Look, Place, runtime_values};
use crate::coreml::lint::constant::is_constant;
use crate::coreml::lint::program::Op;
use crate::coreml::lint::value::{Value, dtype_name};

/// No op takes or gives, at run time, one of `dtypes`.
#[derive(Clone, Debug, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct Dtype {
    dtypes: Vec<String>,
}

impl Look for Dtype {
    fn op(&self, at: &Place, op: &Op) -> Option<String> {
        let bad = |v: &&_| listed(&self.dtypes, v);
        let values = runtime_values(at, op);
        values.iter().find(bad).map(|v| format!("`{}` is {}", v.name, v.ty()))
    }
}

/// No constant operand has one of `dtypes` in an op that has none of them at run time.
#[derive(Clone, Debug, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct ConstantDtype {
    dtypes: Vec<String>,
    /// Inputs that are not looked at.
    except: Vec<String>,
    /// Inputs that are looked at; all if there are none here.
    only: Vec<String>,
}

impl Look for ConstantDtype {
    fn op(&self, at: &Place, op: &Op) -> Option<String> {
        if runtime_values(at, op).iter().any(|v| listed(&self.dtypes, v)) {
            return None;
        }
        let named = |list: &[String], input: &str| list.iter().any(|i| i == input);
        let looked_at = |input: &str| !named(&self.except, input) && (self.only.is_empty() || named(&self.only, input));
        let constants = op.inputs().filter(|(input, o)| looked_at(input) && is_constant(at.function, *o));
        constants
            .filter_map(|(input, o)| Some((input, at.function.operand(o)?)))
            .find(|(_, v)| listed(&self.dtypes, v))
            .map(|(input, v)| format!("constant `{input}` is {}", v.ty()))
    }
}

fn listed(dtypes: &[String], value: &Value) -> bool {
    dtypes.iter().any(|d| d == dtype_name(value.dtype))
}
