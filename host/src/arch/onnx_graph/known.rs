//! Nodes whose results follow from constants and shapes.

use super::quantized::{dequantized, quantized};
use super::*;

impl Door {
    /// The result of a node, if it is known before the graph is run.
    pub(super) fn known(&self, node: &OnnxNode) -> Drawn<Option<Array>> {
        let tensors: Vec<Option<&Tensor>> =
            node.inputs.iter().map(|name| self.find(name)).collect();
        let first = tensors.first().copied().flatten();
        match (node.operation.as_str(), first) {
            ("Constant", _) => return constant(node).map(Some),
            ("Shape", Some(tensor)) => {
                let shape: Vec<i64> = tensor.shape().iter().map(|side| *side as i64).collect();
                let rank = shape.len() as i64;
                let place = |n: i64| (if n < 0 { n + rank } else { n }).clamp(0, rank) as usize;
                let start = place(number(node, "start").unwrap_or(0));
                let end = place(number(node, "end").unwrap_or(rank)).max(start);
                return Ok(Some(Array::whole(vec![end - start], shape[start..end].to_vec())));
            }
            ("Size", Some(tensor)) => {
                let size = count(tensor.shape())? as i64;
                return Ok(Some(Array::whole(vec![], vec![size])));
            }
            _ => {}
        }
        let arrays: Option<Vec<&Array>> = tensors
            .iter()
            .map(|tensor| match tensor {
                Some(Tensor::Known(array)) => Some(array),
                _ => None,
            })
            .collect();
        match arrays.as_deref() {
            Some(arrays) if !arrays.is_empty() => of_arrays(node, arrays),
            _ => Ok(None),
        }
    }
}

fn constant(node: &OnnxNode) -> Drawn<Array> {
    let first = node.attributes.iter().next();
    Ok(match first {
        Some((_, OnnxAttribute::Array(array))) => array.clone(),
        Some((_, OnnxAttribute::Number(number))) => Array::whole(vec![], vec![*number]),
        Some((_, OnnxAttribute::Float(number))) => Array::floats(vec![], vec![*number]),
        Some((_, OnnxAttribute::Numbers(numbers))) => {
            Array::whole(vec![numbers.len()], numbers.clone())
        }
        Some((_, OnnxAttribute::Floats(numbers))) => {
            Array::floats(vec![numbers.len()], numbers.clone())
        }
        _ => return Err(Refused::new("a constant of another kind", "numbers")),
    })
}

/// What a node makes of arrays; none if it is not one of those that shapes are computed with.
fn of_arrays(node: &OnnxNode, arrays: &[&Array]) -> Drawn<Option<Array>> {
    let first = arrays[0];
    let second = arrays.get(1).copied();
    Ok(match (node.operation.as_str(), second) {
        ("Identity" | "Dropout", _) => Some(first.clone()),
        ("Cast", _) => Some(cast(first, number(node, "to").unwrap_or(1))),
        ("ConstantOfShape", _) => {
            let shape = sizes(first)?;
            let length = made(&shape)?;
            Some(match node.attributes.get("value") {
                Some(OnnxAttribute::Array(value)) => match value.to_whole() {
                    Some(numbers) => {
                        Array::whole(shape, vec![numbers.first().copied().unwrap_or(0); length])
                    }
                    None => {
                        let number = value.to_floats().first().copied().unwrap_or(0.0);
                        Array::floats(shape, vec![number; length])
                    }
                },
                _ => Array::floats(shape, vec![0.0; length]),
            })
        }
        ("Gather", Some(indices)) => {
            Some(gather(first, indices, number(node, "axis").unwrap_or(0))?)
        }
        ("Concat", _) => Some(concat(arrays, number(node, "axis").unwrap_or(0))?),
        ("DequantizeLinear" | "QuantizeLinear", Some(scales)) => {
            let along = axis(number(node, "axis").unwrap_or(1), first.shape.len()).unwrap_or(0);
            let zeros = arrays.get(2).copied();
            Some(match node.operation.as_str() {
                "QuantizeLinear" => quantized(first, scales, zeros, along)?,
                _ => dequantized(first, scales, zeros, along)?,
            })
        }
        ("Not", _) => truth(first, |x| x == 0),
        ("Range", Some(end)) => range(first, end, arrays.get(2).copied())?,
        (operation, Some(second)) => pairwise(operation, first, second)?,
        _ => None,
    })
}

/// The elements of an array that is made here, if they are not too many.
fn made(shape: &[usize]) -> Drawn<usize> {
    let length = count(shape)?;
    if length > MAX_MADE {
        let found = format!("an array of {shape:?} that is not stored");
        return Err(Refused::new(found, format!("at most {MAX_MADE} elements")));
    }
    Ok(length)
}

fn cast(array: &Array, to: i64) -> Array {
    let numbers = match to {
        1 | 10 | 11 | 16 => Numbers::F32(array.to_floats()),
        9 => {
            let floats = array.to_floats();
            Numbers::Whole(floats.iter().map(|x| i64::from(*x != 0.0)).collect())
        }
        _ => match array.to_whole() {
            Some(numbers) => Numbers::Whole(numbers),
            None => Numbers::Whole(array.to_floats().iter().map(|x| *x as i64).collect()),
        },
    };
    Array { shape: array.shape.clone(), numbers }
}

/// Integers as dimensions.
pub(super) fn sizes(array: &Array) -> Drawn<Vec<usize>> {
    let whole = array.to_whole().unwrap_or_default();
    let sizes: Option<Vec<_>> = whole.iter().map(|size| usize::try_from(*size).ok()).collect();
    sizes.ok_or_else(|| Refused::new(format!("dimensions {whole:?}"), "numbers from 0 on"))
}

fn truth(array: &Array, holds: impl Fn(i64) -> bool) -> Option<Array> {
    let numbers = array.to_whole()?.into_iter().map(|x| i64::from(holds(x))).collect();
    Some(Array::whole(array.shape.clone(), numbers))
}

fn gather(array: &Array, indices: &Array, along: i64) -> Drawn<Array> {
    let along = axis(along, array.shape.len())?;
    let whole = indices.to_whole().unwrap_or_default();
    let dim = array.shape.get(along).copied().unwrap_or(0);
    let behind: usize = array.shape[along + 1..].iter().product();
    let before: usize = array.shape[..along].iter().product();
    let shape = [&array.shape[..along], &indices.shape, &array.shape[along + 1..]].concat();
    if count(&shape)? > array.count() {
        made(&shape)?;
    }
    let mut places = vec![];
    for outer in 0..before {
        for index in &whole {
            let at = if *index < 0 { index + dim as i64 } else { *index };
            let at = usize::try_from(at).ok().filter(|at| *at < dim);
            let at =
                at.ok_or_else(|| Refused::new(format!("index {index}"), format!("one of {dim}")))?;
            places.extend((0..behind).map(|inner| (outer * dim + at) * behind + inner));
        }
    }
    let picked = array.picked(shape, &places);
    picked.ok_or_else(|| Refused::new("indices", "elements that are there"))
}

fn concat(arrays: &[&Array], along: i64) -> Drawn<Array> {
    let mut shape = arrays[0].shape.clone();
    let along = axis(along, shape.len())?;
    let same = |array: &&Array| {
        array.shape.len() == shape.len()
            && array.shape.iter().zip(&shape).enumerate().all(|(n, (a, b))| n == along || a == b)
    };
    if shape.is_empty() || !arrays.iter().all(same) {
        return Err(Refused::new("arrays of other dimensions", "some that differ along one axis"));
    }
    shape[along] = arrays.iter().map(|array| array.shape[along]).sum();
    let outer: usize = shape[..along].iter().product();
    let whole: Option<Vec<Vec<i64>>> = arrays.iter().map(|array| array.to_whole()).collect();
    fn join<T: Copy>(parts: &[Vec<T>], outer: usize) -> Vec<T> {
        let part = |n: usize, part: &Vec<T>| {
            let length = part.len() / outer.max(1);
            part[n * length..(n + 1) * length].to_vec()
        };
        (0..outer).flat_map(|n| parts.iter().flat_map(move |all| part(n, all))).collect()
    }
    Ok(match whole {
        Some(parts) => Array::whole(shape, join(&parts, outer)),
        None => {
            let parts: Vec<_> = arrays.iter().map(|array| array.to_floats()).collect();
            Array::floats(shape, join(&parts, outer))
        }
    })
}

fn range(start: &Array, end: &Array, step: Option<&Array>) -> Drawn<Option<Array>> {
    let one = |array: &Array| array.to_whole().and_then(|numbers| numbers.first().copied());
    let (Some(start), Some(end)) = (one(start), one(end)) else { return Ok(None) };
    let step = step.map_or(Some(1), one).filter(|step| *step != 0);
    let Some(step) = step else { return Ok(None) };
    let [start, end, step] = [start, end, step].map(i128::from);
    let length = (end - start + step - step.signum()) / step;
    let length = usize::try_from(length.max(0)).unwrap_or(usize::MAX);
    made(&[length])?;
    let numbers = (0..length as i128).map(|n| (start + n * step) as i64).collect();
    Ok(Some(Array::whole(vec![length], numbers)))
}

/// A function of two arrays, of which one may have a single number.
fn pairwise(operation: &str, first: &Array, second: &Array) -> Drawn<Option<Array>> {
    let Some(kind) = Pair::of(operation) else { return Ok(None) };
    let shape = super::super::tensors::broadcast_shape(&first.shape, &second.shape)?;
    let spread = |array: &Array| viewed(array, |view| view.broadcast(&shape));
    let (first, second) = (spread(first)?, spread(second)?);
    Ok(match (first.to_whole(), second.to_whole()) {
        (Some(a), Some(b)) => {
            let numbers: Option<Vec<i64>> =
                a.into_iter().zip(b).map(|(a, b)| kind.whole(a, b)).collect();
            numbers.map(|numbers| Array::whole(shape, numbers))
        }
        _ => {
            let pairs = first.to_floats().into_iter().zip(second.to_floats());
            let floats: Option<Vec<f32>> = pairs.map(|(a, b)| kind.floats(a, b)).collect();
            floats.map(|floats| Array::floats(shape, floats))
        }
    })
}

#[derive(Clone, Copy)]
enum Pair {
    Add,
    Sub,
    Mul,
    Div,
    Max,
    Min,
    Equal,
    Less,
    Greater,
    And,
    Or,
}

impl Pair {
    fn of(operation: &str) -> Option<Self> {
        Some(match operation {
            "Add" => Self::Add,
            "Sub" => Self::Sub,
            "Mul" => Self::Mul,
            "Div" => Self::Div,
            "Max" => Self::Max,
            "Min" => Self::Min,
            "Equal" => Self::Equal,
            "Less" => Self::Less,
            "Greater" => Self::Greater,
            "And" => Self::And,
            "Or" => Self::Or,
            _ => return None,
        })
    }

    fn whole(self, a: i64, b: i64) -> Option<i64> {
        match self {
            Self::Add => a.checked_add(b),
            Self::Sub => a.checked_sub(b),
            Self::Mul => a.checked_mul(b),
            Self::Div => a.checked_div(b),
            Self::Max => Some(a.max(b)),
            Self::Min => Some(a.min(b)),
            Self::Equal => Some(i64::from(a == b)),
            Self::Less => Some(i64::from(a < b)),
            Self::Greater => Some(i64::from(a > b)),
            Self::And => Some(i64::from(a != 0 && b != 0)),
            Self::Or => Some(i64::from(a != 0 || b != 0)),
        }
    }

    fn floats(self, a: f32, b: f32) -> Option<f32> {
        Some(match self {
            Self::Add => a + b,
            Self::Sub => a - b,
            Self::Mul => a * b,
            Self::Div => a / b,
            Self::Max => a.max(b),
            Self::Min => a.min(b),
            _ => return None,
        })
    }
}
