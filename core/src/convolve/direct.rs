//! Convolutions channel by channel and tap by tap: of any shape.

use super::{Head, Shape, taps};

/// Computes one output channel, which sees one input channel if it is `depthwise`, and otherwise all.
pub(super) fn one(
    shape: &Shape,
    depthwise: bool,
    row: &[u8],
    channel: usize,
    input: &[i8],
    output: &mut [i8],
) {
    let Shape { from: [height, width, inputs], to: [rows, columns, outputs], .. } = *shape;
    let Some((head, weights)) = Head::split(row) else { return };
    // The first input channel that is seen, how many there are, and from an input that is seen to the next.
    let (own, each, step) = match depthwise {
        true => (channel / (outputs / inputs.max(1)).max(1), 1, inputs.max(1)),
        false => (0, inputs, 1),
    };
    for y in 0..rows {
        let [top, ky0, ky1] = taps(y, shape.stride[0], shape.pad[0], shape.kernel[0], height);
        for x in 0..columns {
            let [left, kx0, kx1] = taps(x, shape.stride[1], shape.pad[1], shape.kernel[1], width);
            let mut sum = head.bias;
            // A window that lies beside the image sees nothing of it.
            for ky in if kx0 < kx1 { ky0..ky1 } else { 0..0 } {
                let pixel = (top + ky - shape.pad[0]) * width + left + kx0 - shape.pad[1];
                let at = ky * shape.kernel[1];
                let seen = input.get(pixel * inputs + own..).unwrap_or_default();
                let taps = (at + kx0) * each..(at + kx1) * each;
                let weights = weights.get(taps).unwrap_or_default();
                for (x, w) in seen.iter().step_by(step).zip(weights) {
                    let number = i32::from(*x) - shape.zero;
                    sum = sum.wrapping_add(number * i32::from(w.cast_signed()));
                }
            }
            if let Some(out) = output.get_mut((y * columns + x) * outputs + channel) {
                *out = shape.rescale.byte(head, sum);
            }
        }
    }
}
