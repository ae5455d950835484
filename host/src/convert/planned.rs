//! A tensor of a package, before it is written.

use crate::arch::{Role, Source, TensorPlan};
use crate::import::{Container, Encoding};
use crate::quantize::Precision;
use omex_core::quant::Format;

/// A tensor of the package in the format that it will have.
#[derive(Clone)]
pub(super) struct Planned {
    pub(super) plan: TensorPlan,
    pub(super) format: Format,
    /// 0 for what is nearest to the source, 1 for what is nearest to what that got wrong.
    pub(super) plane: u32,
}

impl Planned {
    pub(super) fn new(
        source: &dyn Container,
        precision: Option<Precision>,
        plan: TensorPlan,
    ) -> Self {
        let format = format_of(source, precision, &plan);
        Self { plan, format, plane: 0 }
    }

    /// True if a row of the source is not exactly what int4 can hold.
    pub(super) fn is_rounded_to_int4(&self, source: &dyn Container) -> bool {
        let exact = |s: &Source| {
            source.tensor(&s.tensor).is_none_or(|info| info.encoding == Encoding::Q4_0)
        };
        self.format == Format::Int4 && !self.plan.sources().iter().all(exact)
    }

    pub(super) fn bytes(&self) -> u64 {
        self.format.tensor_bytes(self.plan.rows, self.plan.columns)
    }
}

/// The format that a tensor gets. The first and the last matrix cost the most when they are rounded
/// to int4: they become int8 then.
fn format_of(source: &dyn Container, precision: Option<Precision>, plan: &TensorPlan) -> Format {
    let first = plan.sources().first().and_then(|first| source.tensor(&first.tensor));
    let encoding = first.map(|info| info.encoding);
    match (plan.role, precision) {
        (Role::Vector, _) => Format::Vector,
        (Role::Channels, _) => Format::Channels,
        (Role::Kernel, None) => Format::F32,
        (_, None) => kept_format(encoding),
        (Role::Outer, Some(Precision::Int4)) if encoding != Some(Encoding::Q4_0) => Format::Int8,
        (_, Some(precision)) => precision.into(),
    }
}

/// The format that takes the numbers of an encoding over as they are, or else int8.
fn kept_format(encoding: Option<Encoding>) -> Format {
    match encoding {
        Some(Encoding::Q4_0) => Format::Int4,
        _ => Format::Int8,
    }
}
