//! A conversion under way, and what its parts have in common.

use super::options::ConvertOptions;
use super::weights::WeightLayout;
use crate::arch::Blueprint;
use crate::compile::compile;
use crate::import::Container;
use crate::package::WeightIndex;
use crate::quantize::Compensation;
use crate::session::Tables;
use crate::{Error, Result};
use std::collections::BTreeMap;
use std::path::Path;

/// A conversion under way.
pub(super) struct Job<'j> {
    pub(super) source: &'j dyn Container,
    pub(super) blueprint: &'j Blueprint,
    pub(super) source_format: &'j str,
    pub(super) name: &'j str,
    pub(super) options: &'j ConvertOptions<'j>,
}

/// How errors are made up for, by the tensor's name.
pub(super) type Compensations = BTreeMap<String, Compensation>;

/// The tables of a package that is not written yet.
pub(super) fn tables(
    path: &Path,
    layout: &WeightLayout,
    eos: &[u32],
    index: &WeightIndex,
) -> Result<Tables> {
    let tensors = index.by_name();
    let find = |name: &str, plane| tensors.get(&(name, plane)).copied();
    let compiled = compile(&layout.graph, eos, find).map_err(Error::Usage)?;
    Ok(Tables::new(path, compiled, index, None))
}
