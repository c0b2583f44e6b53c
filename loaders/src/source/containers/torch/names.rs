//! The functions and classes that a pickle may name and that mean something here. All others are known by name alone.

use super::super::tensor::DType;

/// What a `GLOBAL` means.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Global {
    /// `torch._utils._rebuild_tensor(storage, offset, size, stride)`, and `_rebuild_tensor_v2` with `requires_grad, hooks[,
    /// metadata]` behind these.
    RebuildTensor,
    /// `torch._utils._rebuild_tensor_v3(storage, offset, size, stride, requires_grad, hooks, dtype[, metadata])`
    RebuildTensorV3,
    /// `torch._tensor._rebuild_from_type_v2(function, class, args, state)`: a tensor with attributes, or of a subclass.
    RebuildFromType,
    /// Gives its first argument: `torch._utils._rebuild_parameter(tensor, ...)`, `torch.Size(tuple)` and their like.
    First,
    /// Makes a tensor without values that could be read, as in "a sparse tensor".
    OtherTensor(&'static str),
    /// `torch.FloatStorage` and its like.
    Storage(DType),
    /// `torch.storage.UntypedStorage`
    UntypedStorage,
    /// A storage of numbers of this name and size that are not read.
    OtherStorage(&'static str, u64),
    /// `torch.storage._load_from_bytes(bytes)`: how `pickle.dump` writes a tensor's storage.
    LoadFromBytes,
    OrderedDict,
    DefaultDict,
    Set,
    /// `bytes` and `bytearray`
    Bytes,
    /// `_codecs.encode(text, 'latin1')`: how protocol 2 spells bytes.
    Encode,
    /// `getattr(class, name)`: how protocols below 4 name a class in a class.
    GetAttr,
    /// `copyreg._reconstructor(class, base, state)`: how protocols 0 and 1 make an object.
    Reconstructor,
    /// `numpy.dtype(code, align, copy)`
    NumpyType,
    /// `numpy.core.multiarray.scalar(dtype, bytes)`
    NumpyScalar,
    /// `numpy.core.multiarray._reconstruct(class, shape, code)`: an array, whose state follows.
    NumpyArray,
    /// `numpy.core.numeric._frombuffer(bytes, dtype, shape, order)`: how protocol 5 makes an array.
    NumpyBuffer,
    /// Anything else, which is never looked up or called.
    Other,
}

impl Global {
    pub(super) fn find(module: &str, name: &str) -> Self {
        match (module, name) {
            ("torch._utils", "_rebuild_tensor" | "_rebuild_tensor_v2") => Self::RebuildTensor,
            ("torch._utils", "_rebuild_tensor_v3") => Self::RebuildTensorV3,
            ("torch._tensor", "_rebuild_from_type" | "_rebuild_from_type_v2") => Self::RebuildFromType,
            ("torch._utils", "_rebuild_parameter" | "_rebuild_parameter_with_state")
            | (
                "torch._utils",
                "_rebuild_device_tensor_from_numpy" | "_rebuild_device_tensor_from_cpu_tensor",
            )
            | ("torch", "Size") => Self::First,
            ("torch._utils", "_rebuild_sparse_tensor") => Self::OtherTensor("a sparse tensor"),
            ("torch._utils", "_rebuild_nested_tensor") => Self::OtherTensor("a nested tensor"),
            ("torch._utils", "_rebuild_qtensor") => Self::OtherTensor("a quantized tensor"),
            ("torch._utils", "_rebuild_meta_tensor_no_storage") => {
                Self::OtherTensor("a tensor on the meta device, which has no values")
            }
            ("torch._utils", "_rebuild_wrapper_subclass") => {
                Self::OtherTensor("a tensor of a wrapper subclass")
            }
            ("torch.storage", "UntypedStorage") => Self::UntypedStorage,
            ("torch.storage", "_load_from_bytes") => Self::LoadFromBytes,
            ("torch" | "torch.cuda", class) => Self::storage(class).unwrap_or(Self::Other),
            ("collections", "OrderedDict") => Self::OrderedDict,
            ("collections", "defaultdict") => Self::DefaultDict,
            ("builtins" | "__builtin__", "set" | "frozenset") => Self::Set,
            ("builtins" | "__builtin__", "bytes" | "bytearray") => Self::Bytes,
            ("builtins" | "__builtin__", "getattr") => Self::GetAttr,
            ("_codecs", "encode") => Self::Encode,
            ("copyreg" | "copy_reg", "_reconstructor") => Self::Reconstructor,
            ("numpy", "dtype") => Self::NumpyType,
            ("numpy.core.multiarray" | "numpy._core.multiarray", "scalar") => Self::NumpyScalar,
            ("numpy.core.multiarray" | "numpy._core.multiarray", "_reconstruct") => Self::NumpyArray,
            ("numpy.core.numeric" | "numpy._core.numeric", "_frombuffer") => Self::NumpyBuffer,
            _ => Self::Other,
        }
    }

    fn storage(class: &str) -> Option<Self> {
        if let Some(dtype) = DType::from_storage_class(class) {
            return Some(Self::Storage(dtype));
        }
        let (name, size) = match class {
            "ComplexDoubleStorage" => ("complex128", 16),
            "ComplexFloatStorage" => ("complex64", 8),
            "QInt32Storage" => ("qint32", 4),
            "QInt8Storage" => ("qint8", 1),
            "QUInt8Storage" => ("quint8", 1),
            "QUInt4x2Storage" => ("quint4x2", 1),
            "QUInt2x4Storage" => ("quint2x4", 1),
            _ => return None,
        };
        Some(Self::OtherStorage(name, size))
    }
}
