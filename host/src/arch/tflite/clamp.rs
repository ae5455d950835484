//! What activations that are fused to operators of signed bytes do.

use super::super::tensors::{Drawn, Refused, Scale};

/// The least and the largest output of a fused activation.
pub(super) fn clamp(activation: i32, to: Scale) -> Drawn<[i8; 2]> {
    let quantized =
        |x: f32| (to.zero.saturating_add((x / to.scale).round() as i32)).clamp(-128, 127) as i8;
    match activation {
        0 => Ok([-128, 127]),
        1 => Ok([quantized(0.0), 127]),
        2 => Ok([quantized(-1.0), quantized(1.0)]),
        3 => Ok([quantized(0.0), quantized(6.0)]),
        other => Err(Refused::new(format!("fused activation {other}"), "none, RELU or RELU6")),
    }
}
