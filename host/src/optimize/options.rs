//! How a graph is quantized, and what came of it.

use crate::convert::ConvertOptions;

/// How a graph is quantized.
#[derive(Clone, Debug)]
pub struct OptimizeOptions<'o> {
    /// How much of each value's numbers lie within its range, in percent; those beyond are cut off.
    pub percentile: f64,
    /// How the package is written.
    pub convert: ConvertOptions<'o>,
}

/// What came of it.
#[derive(Clone, Debug, PartialEq, serde::Serialize)]
pub struct Optimized {
    /// Bytes of weights before and after.
    pub bytes: [u64; 2],
    /// Operations in signed bytes, and all.
    pub operations: [usize; 2],
    /// How far the outputs over the samples are apart from the floats'.
    pub outputs: Vec<Apart>,
}

/// How far an output is apart.
#[derive(Clone, Debug, PartialEq, serde::Serialize)]
pub struct Apart {
    /// The output.
    pub name: String,
    /// The root mean square of the differences, as a part of that of the numbers.
    pub error: f64,
    /// The cosine of the angle between both.
    pub cosine: f64,
    /// The part of the samples whose largest number is the same.
    pub same_largest: f64,
}
