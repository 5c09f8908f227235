//! The globals that pickles of tensors refer to.

use s2dit_ir::DType;

use super::harmless::is_harmless;

/// A global that is known: Python's name for a function or a class.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(in crate::torch) enum Global {
    /// `collections.OrderedDict`
    OrderedDict,
    /// `collections.defaultdict(factory)`; what is not in it is not asked for.
    DefaultDict,
    /// `torch._utils._rebuild_tensor_v2(storage, offset, size, stride, requires_grad, hooks, …)`
    RebuildTensor,
    /// `torch._utils._rebuild_parameter(tensor, requires_grad, hooks)`, and the same with a state.
    RebuildParameter,
    /// `torch._tensor._rebuild_from_type_v2(function, class, arguments, attributes)`: a tensor with attributes of Python, such as a buffer.
    RebuildWithAttributes,
    /// `torch.Tensor`, and classes of tensors that hold the same
    TensorClass,
    /// `torch.FloatStorage` and its like
    Storage(DType),
    /// `torch._utils._rebuild_tensor_v3(storage, offset, size, stride, requires_grad, hooks, dtype, …)`: a tensor of a type that no class of
    /// storages has.
    RebuildTyped,
    /// `torch.storage.UntypedStorage`, the storage of such a tensor.
    Untyped,
    /// `torch.float8_e4m3fn` and its like
    Float8,
    /// `torch.Size`
    Size,
    /// A class or a function of harmless values that no tensor here depends on, see [`is_harmless`]. Nothing is made of it.
    Harmless,
}

impl Global {
    /// The global of a module, if it is known.
    pub(super) fn of(module: &str, name: &str) -> Option<Global> {
        Some(match (module, name) {
            ("collections", "OrderedDict") => Global::OrderedDict,
            ("collections", "defaultdict") => Global::DefaultDict,
            ("torch._utils", "_rebuild_tensor_v2") => Global::RebuildTensor,
            ("torch._utils", "_rebuild_parameter" | "_rebuild_parameter_with_state") => Global::RebuildParameter,
            ("torch._tensor", "_rebuild_from_type_v2") => Global::RebuildWithAttributes,
            ("torch", "Tensor") | ("torch.nn.parameter", "Parameter" | "Buffer") => Global::TensorClass,
            ("torch", "Size") => Global::Size,
            ("torch._utils", "_rebuild_tensor_v3") => Global::RebuildTyped,
            ("torch.storage", "UntypedStorage") => Global::Untyped,
            ("torch", dtype) if dtype.starts_with("float8_") => Global::Float8,
            _ if is_harmless(module, name) => Global::Harmless,
            ("torch", storage) => Global::Storage(storage_dtype(storage)?),
            _ => return None,
        })
    }
}

/// The element type of a class of storages.
fn storage_dtype(class: &str) -> Option<DType> {
    Some(match class {
        "DoubleStorage" => DType::F64,
        "FloatStorage" => DType::F32,
        "HalfStorage" => DType::F16,
        "BFloat16Storage" => DType::BF16,
        "LongStorage" => DType::I64,
        "IntStorage" => DType::I32,
        "ShortStorage" => DType::I16,
        "CharStorage" => DType::I8,
        "ByteStorage" => DType::U8,
        "BoolStorage" => DType::Bool,
        _ => return None,
    })
}
