//! The operations, one file each: what it has, what it reads and writes, when it is valid, how it is
//! played, what it costs.
//!
//! An operation is written once for every [`Form`] that a model has: what it refers to are numbers in
//! a program, and names in `graph.json`.
//!
//! A new operation is a file here, a line in `for_each_op`, and a row in `docs/format.md`.

mod activate;
mod activation;
mod add;
mod angles;
mod attend;
mod average_pool;
mod binary;
mod constant;
mod conv2d;
mod correction;
mod decay;
mod delta;
mod distances;
mod embed;
mod experts;
mod fill;
mod float_conv2d;
mod float_softmax;
mod gated;
mod linear;
mod linear_attention;
mod lookup;
mod norm;
mod pool;
mod quantize;
mod quantized_add;
mod quantized_binary;
mod quantized_lstm;
mod quantized_sum;
mod rearrange;
mod recall;
mod reduce;
mod resize;
mod rotary;
mod route;
mod scale;
mod select;
mod short_conv;
mod soft_cap;
mod softmax;
mod store;
mod unary;

pub use activate::Activate;
pub use activation::Activation;
pub use add::Add;
pub use angles::Angles;
pub use attend::{Attend, Mask};
pub use average_pool::AveragePool;
pub use binary::{BROADCAST_AXES, Binary, BinaryFunction};
pub use constant::Constant;
pub use conv2d::Conv2d;
pub use correction::Correction;
pub use decay::Decay;
pub use delta::Delta;
pub use distances::DISTANCES;
pub use embed::{Embed, Index};
pub use experts::Experts;
pub use fill::Fill;
pub use float_conv2d::FloatConv2d;
pub use float_softmax::FloatSoftmax;
pub use gated::Gated;
pub use linear::Linear;
pub use linear_attention::LinearAttention;
pub use lookup::Lookup;
pub use norm::{Norm, NormKind};
pub use pool::{Pool, Pooling};
pub use quantize::{Dequantize, Quantize};
pub use quantized_add::QuantizedAdd;
pub use quantized_binary::{QuantizedBinary, QuantizedFunction};
pub use quantized_lstm::QuantizedLstm;
pub use quantized_sum::QuantizedSum;
pub use rearrange::{AXES, Rearrange};
pub use recall::{Keep, Recall};
pub use reduce::{Reduce, Reduction};
pub use resize::{Alignment, Resize};
pub use rotary::{Pairing, Rotary};
pub use route::{Route, Weights};
pub use scale::Scale;
pub use select::Select;
pub use short_conv::ShortConv;
pub use soft_cap::SoftCap;
pub use softmax::Softmax;
pub use store::Store;
pub use unary::{Unary, UnaryFunction};

use crate::engine::player::Player;
use crate::error::{Fault, RunError};
use crate::program::{Check, PerLayer, Program, Tensor, Value, get, put};
use core::fmt::Debug;

/// Calls a macro with the list of operations: code in a program, name, and the feature that has a build
/// play it. A code is never used again for another operation.
#[macro_export]
macro_rules! for_each_op {
    ($call:ident) => {
        $call! {
            1 Embed "text",
            2 Norm "text",
            3 Linear "text",
            4 Correction "float",
            5 Angles "text",
            6 Rotary "text",
            7 Store "text",
            8 Attend "text",
            9 Gated "text",
            10 Activate "float",
            11 Add "text",
            12 Scale "float",
            13 SoftCap "float",
            14 Select "text",
            15 ShortConv "float",
            16 Conv2d "int8",
            17 AveragePool "int8",
            18 Softmax "int8",
            20 Route "float",
            21 Experts "float",
            22 Delta "float",
            23 Constant "float",
            24 Decay "float",
            25 LinearAttention "float",
            26 QuantizedAdd "int8",
            27 Rearrange "tensors",
            28 Fill "tensors",
            29 FloatConv2d "tensors",
            30 Pool "tensors",
            31 Binary "tensors",
            32 Reduce "tensors",
            33 FloatSoftmax "tensors",
            34 Lookup "tensors",
            35 Quantize "tensors",
            36 Dequantize "tensors",
            37 Resize "tensors",
            38 Unary "tensors",
            39 QuantizedBinary "tensors",
            40 QuantizedSum "tensors",
            41 QuantizedLstm "tensors",
            42 Recall "tensors",
            43 Keep "tensors",
        }
    };
}

/// How operations refer to weights, states and values.
pub trait Form {
    /// A weight or a state, in each layer.
    type Name: Clone + Debug + PartialEq;
    /// A value.
    type Value: Clone + Debug + PartialEq;
    /// The part that an operation belongs to; the default is none, and the operation is always played.
    type Part: Clone + Debug + PartialEq + Default;
}

/// The form of a program.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Numbers;

impl Form for Numbers {
    type Name = PerLayer;
    type Value = Value;
    type Part = u16;
}

/// Something that an operation refers to.
#[derive(Clone, Copy, Debug, PartialEq)]
pub enum Operand<'o, F: Form> {
    /// A tensor; an operation reads its weights in this order.
    Weight(&'o F::Name),
    /// A state.
    State(&'o F::Name),
    /// A value that is read.
    Read(&'o F::Value),
    /// A value that is read, and that may be the very one that is written.
    Source(&'o F::Value),
    /// A value that is written whole.
    Write(&'o F::Value),
    /// A value that is changed.
    Update(&'o F::Value),
}

/// Turns what operations refer to into another form.
pub trait Resolve<F: Form> {
    /// The other form.
    type To: Form;
    /// What can go wrong.
    type Error;

    /// A weight.
    ///
    /// # Errors
    /// It does not exist.
    fn weight(&mut self, name: &F::Name) -> Result<<Self::To as Form>::Name, Self::Error>;

    /// A state.
    ///
    /// # Errors
    /// It does not exist.
    fn state(&mut self, name: &F::Name) -> Result<<Self::To as Form>::Name, Self::Error>;

    /// A value.
    ///
    /// # Errors
    /// It does not exist.
    fn value(&mut self, value: &F::Value) -> Result<<Self::To as Form>::Value, Self::Error>;

    /// A part.
    ///
    /// # Errors
    /// It does not exist.
    fn part(&mut self, part: &F::Part) -> Result<<Self::To as Form>::Part, Self::Error>;
}

/// Which bytes of its weights an operation reads.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Reads {
    /// All, in order.
    Whole,
    /// Rows that tokens choose, or what is computed from them, or all or nothing.
    Rows,
}

/// What an operation does in a program.
pub(crate) trait Operation {
    /// Checks what the kinds of its operands do not say.
    fn check(&self, check: &Check<'_>) -> Result<(), Fault>;

    /// Runs it.
    fn play(&self, player: &mut Player<'_>, layer: u32) -> Result<(), RunError>;

    /// Multiplications, each with an addition, for a column, and for each position that it attends
    /// to.
    fn multiply_adds(&self, _program: &Program<'_>, _layer: u32) -> (u64, u64) {
        (0, 0)
    }

    /// Bytes that it stages numbers in, beside those of matrices with panels.
    fn staging_bytes(&self, _program: &Program<'_>) -> u64 {
        0
    }

    /// Which bytes of its weights it reads.
    fn reads(&self) -> Reads {
        Reads::Whole
    }

    /// How many rows of a tensor it reads for one token, at most.
    fn rows_per_token(&self, tensor: &Tensor) -> u32 {
        tensor.rows
    }
}

/// Says which fields of an operation are which operands, in the order of use; the others are plain.
macro_rules! operands {
    ($op:ident { $($role:ident $field:ident),* $(; $($plain:ident),*)? }) => {
        impl<F: $crate::ops::Form> $op<F> {
            /// Shows what the operation refers to, in the order of use.
            pub fn operands<'o>(&'o self, show: &mut dyn FnMut($crate::ops::Operand<'o, F>)) {
                $($crate::ops::operands!(@show $role, self.$field, show);)*
            }

            /// The part that the operation belongs to, if it may belong to one.
            #[must_use]
            pub fn part(&self) -> Option<&F::Part> {
                None$(.or($crate::ops::operands!(@part $role, self.$field)))*
            }

            /// The same operation in another form.
            ///
            /// # Errors
            /// Those of `to`.
            pub fn resolve<R: $crate::ops::Resolve<F>>(
                &self,
                to: &mut R,
            ) -> Result<$op<R::To>, R::Error> {
                Ok($op {
                    $($field: $crate::ops::operands!(@resolve $role, self.$field, to),)*
                    $($($plain: self.$plain,)*)?
                })
            }
        }
    };
    (@show weight, $field:expr, $show:ident) => { $show($crate::ops::Operand::Weight(&$field)) };
    (@show state, $field:expr, $show:ident) => { $show($crate::ops::Operand::State(&$field)) };
    (@show read, $field:expr, $show:ident) => { $show($crate::ops::Operand::Read(&$field)) };
    (@show source, $field:expr, $show:ident) => { $show($crate::ops::Operand::Source(&$field)) };
    (@show write, $field:expr, $show:ident) => { $show($crate::ops::Operand::Write(&$field)) };
    (@show update, $field:expr, $show:ident) => { $show($crate::ops::Operand::Update(&$field)) };
    (@show maybe_weight, $field:expr, $show:ident) => {
        if let Some(field) = &$field { $show($crate::ops::Operand::Weight(field)) }
    };
    (@show maybe_read, $field:expr, $show:ident) => {
        if let Some(field) = &$field { $show($crate::ops::Operand::Read(field)) }
    };
    (@show part, $field:expr, $show:ident) => {};
    (@part part, $field:expr) => { Some(&$field) };
    (@part $role:ident, $field:expr) => { None };
    (@resolve part, $field:expr, $to:ident) => { $to.part(&$field)? };
    (@resolve weight, $field:expr, $to:ident) => { $to.weight(&$field)? };
    (@resolve state, $field:expr, $to:ident) => { $to.state(&$field)? };
    (@resolve maybe_weight, $field:expr, $to:ident) => {
        match &$field { Some(field) => Some($to.weight(field)?), None => None }
    };
    (@resolve maybe_read, $field:expr, $to:ident) => {
        match &$field { Some(field) => Some($to.value(field)?), None => None }
    };
    (@resolve $value:ident, $field:expr, $to:ident) => { $to.value(&$field)? };
}
use operands;

macro_rules! op_enum {
    ($($code:literal $op:ident $feature:tt,)*) => {
        /// An operation.
        #[derive(Clone, Debug, PartialEq)]
        #[allow(missing_docs, reason = "each is described where it is defined")]
        pub enum Op<F: Form = Numbers> {
            $($op($op<F>),)*
        }

        /// The operations that this build plays, by code.
        #[must_use]
        pub const fn is_played(code: u8) -> bool {
            match code {
                $($code => cfg!(feature = $feature),)*
                _ => false,
            }
        }

        impl<F: Form> Op<F> {
            /// The feature of a build that plays operations of this kind; some of their fields need others, too.
            #[must_use]
            pub const fn feature(&self) -> &'static str {
                match self {
                    $(Self::$op(_) => $feature,)*
                }
            }
        }

        /// The name of the operation with this code, whether or not this build plays it, if it is one of the first
        /// [`NAMED`].
        #[must_use]
        pub fn name(code: u8) -> Option<&'static str> {
            let place = CODES.iter().position(|known| *known == code)?;
            let mut names = NAMES;
            for _ in 0..place {
                names = names.get(end(names) + 1..)?;
            }
            names.get(..end(names))
        }

        /// The codes of the first [`NAMED`] operations.
        pub const CODES: &[u8] = &first::<NAMED>(&[$($code),*]);

        /// The names of all operations: one text takes less of a board's flash than a match or a table.
        const ALL_NAMES: &str = concat!($(stringify!($op), "\n"),*);

        /// How many operations this build has names of: all that it plays, and those before them. Boards have little
        /// flash, and the document of formats has the others.
        const NAMED: usize = {
            let mut last = 19;
            $(if is_played($code) && $code > last {
                last = $code;
            })*
            0 $(+ ($code <= last) as usize)*
        };

        impl Copy for Op {}

        $(impl<F: Form> From<$op<F>> for Op<F> {
            fn from(op: $op<F>) -> Self {
                Self::$op(op)
            }
        })*

        impl<F: Form> Op<F> {
            /// Shows what the operation refers to, in the order of use; nothing if this build does not
            /// play it.
            pub fn operands<'o>(&'o self, show: &mut dyn FnMut(Operand<'o, F>)) {
                match self {
                    $(Self::$op(op) if is_played($code) => op.operands(show),)*
                    _ => {}
                }
            }

            /// The same operation in another form.
            ///
            /// # Errors
            /// Those of `to`.
            pub fn resolve<R: Resolve<F>>(
                &self,
                to: &mut R,
            ) -> Result<Op<R::To>, R::Error> {
                Ok(match self { $(Self::$op(op) => Op::$op(op.resolve(to)?),)* })
            }

            /// The part that the operation belongs to, if it may belong to one and this build plays it.
            #[must_use]
            pub fn part(&self) -> Option<&F::Part> {
                match self {
                    $(Self::$op(op) if is_played($code) => op.part(),)*
                    _ => None,
                }
            }

            /// The operation's code in a program.
            #[must_use]
            pub const fn code(&self) -> u8 {
                match self { $(Self::$op(_) => $code,)* }
            }

            /// The operation's name.
            #[must_use]
            pub const fn name(&self) -> &'static str {
                match self { $(Self::$op(_) => stringify!($op),)* }
            }
        }

        impl Op {
            pub(crate) fn write(&self, out: &mut [u8]) -> Option<usize> {
                match self { $(Self::$op(op) => put($code, op, out),)* }
            }

            pub(crate) fn read(code: u8, fields: &[u8]) -> Result<Self, Fault> {
                match code {
                    $($code if is_played($code) => {
                        get(fields).map(Self::$op).ok_or(Fault::Encoding)
                    })*
                    _ => Err(Fault::Unknown(code)),
                }
            }

            pub(crate) fn check(&self, check: &Check<'_>) -> Result<(), Fault> {
                match self {
                    $(Self::$op(op) if is_played($code) => op.check(check),)*
                    _ => Err(Fault::Unknown(self.code())),
                }
            }

            pub(crate) fn play(&self, player: &mut Player<'_>, layer: u32) -> Result<(), RunError> {
                match self {
                    $(Self::$op(op) if is_played($code) => op.play(player, layer),)*
                    _ => Err(RunError::Program),
                }
            }

            /// Multiplications, each with an addition, for a column, and for each position that it
            /// attends to.
            #[must_use]
            pub fn multiply_adds(&self, program: &Program<'_>, layer: u32) -> (u64, u64) {
                match self {
                    $(Self::$op(op) if is_played($code) => op.multiply_adds(program, layer),)*
                    _ => (0, 0),
                }
            }

            /// Bytes that the operation stages numbers in, beside those of matrices with panels.
            pub(crate) fn staging_bytes(&self, program: &Program<'_>) -> u64 {
                match self {
                    $(Self::$op(op) if is_played($code) => op.staging_bytes(program),)*
                    _ => 0,
                }
            }

            /// Which bytes of its weights the operation reads.
            #[must_use]
            pub fn reads(&self) -> Reads {
                match self {
                    $(Self::$op(op) if is_played($code) => op.reads(),)*
                    _ => Reads::Whole,
                }
            }

            /// What the operation reads of a tensor for one token, at most.
            #[must_use]
            pub fn part_per_token(&self, tensor: &Tensor) -> Tensor {
                let rows = match self {
                    $(Self::$op(op) if is_played($code) => op.rows_per_token(tensor),)*
                    _ => tensor.rows,
                };
                Tensor { rows, ..*tensor }
            }
        }
    };
}
for_each_op!(op_enum);

/// Where a line ends.
fn end(text: &str) -> usize {
    text.bytes().position(|byte| byte == b'\n').unwrap_or(text.len())
}

/// The first elements.
const fn first<const N: usize>(from: &[u8]) -> [u8; N] {
    let mut out = [0; N];
    let mut at = 0;
    #[expect(clippy::indexing_slicing, reason = "evaluated by the compiler")]
    while at < N {
        out[at] = from[at];
        at += 1;
    }
    out
}

/// The names of the first [`NAMED`] operations, a line each.
const NAMES: &str = {
    const LENGTH: usize = {
        let (names, mut lines, mut at) = (ALL_NAMES.as_bytes(), 0, 0);
        #[expect(clippy::indexing_slicing, reason = "evaluated by the compiler")]
        while lines < NAMED {
            lines += (names[at] == b'\n') as usize;
            at += 1;
        }
        at
    };
    match core::str::from_utf8(&first::<LENGTH>(ALL_NAMES.as_bytes())) {
        Ok(names) => names,
        Err(_) => "",
    }
};

impl Op {
    /// Shows the tensors that the operation reads, in the order of use.
    pub fn weights(&self, show: &mut dyn FnMut(PerLayer)) {
        self.operands(&mut |operand| {
            if let Operand::Weight(weight) = operand {
                show(*weight);
            }
        });
    }

    /// The keys and values that it stores.
    pub(crate) fn stored(&self) -> Option<Store> {
        if let Self::Store(op) = self { Some(*op) } else { None }
    }

    /// Checks that it attends to what the operation before it stores, and leaves that where it lies: a
    /// cache that is full replaces positions that its own attention still sees, so keys and values wait.
    pub(crate) fn check_behind(&self, store: &Store, check: &Check<'_>) -> Result<(), Fault> {
        match self {
            Self::Attend(op) if op.state == store.state => {
                check.apart(&[store.key, op.output])?;
                check.apart(&[store.value, op.output])
            }
            _ => Err(Fault::Order),
        }
    }
}
