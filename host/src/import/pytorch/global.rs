//! What a checkpoint may name of Python: the only things that its pickle can put together.

use crate::import::encoding::Encoding;
use std::fmt;

/// Something of Python's that is known.
#[derive(Clone, Copy, Debug, PartialEq)]
pub(super) enum Global {
    OrderedDict,
    /// `torch.Size`: a tuple.
    Size,
    /// What makes a tensor of a storage.
    Tensor {
        /// Its type is given, too.
        typed: bool,
    },
    /// What makes a parameter of a tensor: the same numbers.
    Parameter,
    /// A kind of storages, with the type of their numbers if they have one.
    Storage(Option<Encoding>),
    /// A type of numbers, and its name.
    Type(Encoding, &'static str),
    /// Something that no weight depends on, by its name.
    Inert(&'static str),
}

impl Global {
    pub(super) fn find(module: &str, name: &str) -> Option<Self> {
        Some(match (module, name) {
            ("collections", "OrderedDict") => Self::OrderedDict,
            ("torch", "Size") => Self::Size,
            ("torch", "device") => Self::Inert("torch.device"),
            ("torch._utils", "_rebuild_tensor" | "_rebuild_tensor_v2") => {
                Self::Tensor { typed: false }
            }
            ("torch._utils", "_rebuild_tensor_v3") => Self::Tensor { typed: true },
            ("torch._utils", "_rebuild_parameter" | "_rebuild_parameter_with_state") => {
                Self::Parameter
            }
            ("torch.storage", "UntypedStorage") => Self::Storage(None),
            ("torch", name) => return of_torch(name),
            _ => return None,
        })
    }
}

/// Types of numbers, and of the storages that hold them.
fn of_torch(name: &str) -> Option<Global> {
    const I64: Encoding = Encoding::Other("I64", 8);
    const I32: Encoding = Encoding::Other("I32", 4);
    const I16: Encoding = Encoding::Other("I16", 2);
    const I8: Encoding = Encoding::Other("I8", 1);
    const U8: Encoding = Encoding::Other("U8", 1);
    const BOOL: Encoding = Encoding::Other("BOOL", 1);
    const F64: Encoding = Encoding::Other("F64", 8);
    const KNOWN: [(&str, &str, Encoding); 12] = [
        ("FloatStorage", "float32", Encoding::F32),
        ("HalfStorage", "float16", Encoding::F16),
        ("BFloat16Storage", "bfloat16", Encoding::Bf16),
        ("DoubleStorage", "float64", F64),
        ("LongStorage", "int64", I64),
        ("IntStorage", "int32", I32),
        ("ShortStorage", "int16", I16),
        ("CharStorage", "int8", I8),
        ("ByteStorage", "uint8", U8),
        ("BoolStorage", "bool", BOOL),
        // These lie in storages without a type.
        ("", "float8_e4m3fn", Encoding::F8E4m3),
        ("", "float8_e5m2", Encoding::F8E5m2),
    ];
    KNOWN.iter().find_map(|&(storage, kind, encoding)| match name {
        _ if name == storage && !name.is_empty() => Some(Global::Storage(Some(encoding))),
        _ if name == kind => Some(Global::Type(encoding, kind)),
        _ => None,
    })
}

impl fmt::Display for Global {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(match self {
            Self::OrderedDict => "OrderedDict",
            Self::Size => "torch.Size",
            Self::Tensor { .. } => "_rebuild_tensor",
            Self::Parameter => "_rebuild_parameter",
            Self::Storage(_) => "a storage's type",
            Self::Type(_, name) | Self::Inert(name) => name,
        })
    }
}
