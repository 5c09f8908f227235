//! Values that training scripts save beside their tensors, and that cannot matter to them.

/// Whether a global is a class or a function of Python's library, NumPy or PyTorch that makes nothing but values. It is not called.
pub(super) fn is_harmless(module: &str, name: &str) -> bool {
    match module {
        "argparse" => name == "Namespace",
        "types" => name == "SimpleNamespace",
        "collections" => matches!(name, "Counter" | "deque"),
        "datetime" => matches!(name, "datetime" | "date" | "time" | "timedelta" | "timezone"),
        "decimal" => name == "Decimal",
        "uuid" => name == "UUID",
        "pathlib" | "pathlib._local" => {
            let name = name.strip_prefix("Pure").unwrap_or(name);
            matches!(name, "Path" | "PosixPath" | "WindowsPath")
        }
        "builtins" | "__builtin__" => is_builtin(name),
        "_codecs" => name == "encode",
        "numpy" => matches!(name, "dtype" | "ndarray"),
        "numpy.core.multiarray" | "numpy._core.multiarray" => matches!(name, "scalar" | "_reconstruct"),
        "numpy.core.numeric" | "numpy._core.numeric" => name == "_frombuffer",
        "torch" => name == "device" || is_dtype(name),
        _ => false,
    }
}

/// Python's own types of values.
fn is_builtin(name: &str) -> bool {
    const NUMBERS: [&str; 4] = ["bool", "int", "float", "complex"];
    const SEQUENCES: [&str; 8] = ["str", "bytes", "bytearray", "list", "tuple", "range", "xrange", "slice"];
    const OTHERS: [&str; 4] = ["dict", "set", "frozenset", "object"];
    [&NUMBERS[..], &SEQUENCES, &OTHERS].iter().any(|names| names.contains(&name))
}

/// `torch.float32` and its like.
fn is_dtype(name: &str) -> bool {
    const FLOATS: [&str; 6] = ["float64", "float32", "float16", "bfloat16", "complex64", "complex128"];
    const INTEGERS: [&str; 9] = ["int64", "int32", "int16", "int8", "uint64", "uint32", "uint16", "uint8", "bool"];
    FLOATS.contains(&name) || INTEGERS.contains(&name)
}
