//! Graphs over tensors, drawn operation by operation: what the doors of TensorFlow Lite's and ONNX's graphs share.

pub(crate) mod bytes;
mod drawing;
mod fold;
mod images;
mod layers;
mod recurrent;
mod refused;
mod view;

pub(super) use drawing::{Drawing, Tensor};
pub(super) use layers::{Weights, Window, reach};
pub(super) use recurrent::{Gates, Run};
pub(super) use refused::{Drawn, Refused};
pub(super) use view::{
    FAR, MAX_MADE, Scale, View, axes, axis, broadcast_shape, count, span, viewed,
};
