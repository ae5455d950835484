//! Variables: what a graph keeps from one inference to the next.

use super::*;
use crate::graph::{Names, StateShape, ValueRef};
use omex_core::ops::{Keep, Recall};

impl Door<'_> {
    /// Draws an operator of variables that makes no tensor; false for others.
    pub(super) fn settled(&mut self, operator: &Operator) -> Drawn<bool> {
        let call = Call { operator };
        match operator.code {
            VAR_HANDLE => {
                let output = operator.outputs.first().copied();
                let output = output.ok_or_else(|| Refused::new("no output", "one"))?;
                self.handles.insert(output, operator.variable.clone());
            }
            ASSIGN_VARIABLE => self.assign(&call)?,
            CALL_ONCE => self.call_once(&call)?,
            _ => return Ok(false),
        }
        Ok(true)
    }

    pub(super) fn read_variable(&mut self, call: &Call<'_>) -> Drawn<View> {
        let (file, name) = (self.result(call)?, self.variable(call)?);
        let held = self.variables.get(&name).and_then(|variable| variable.now.clone());
        let view = match held {
            Some(view) => self.drawing.reshape(&view, &file.shape)?,
            None => self.recalled(&name, file)?,
        };
        if view.dtype != dtype(file)? {
            return Err(Refused::new("a variable of another type", "the type of what is assigned"));
        }
        // Bytes are taken as they are.
        let scale = if view.dtype == Dtype::I8 { Some(scale(file)?) } else { None };
        let view = View { scale, ..view };
        self.variables.entry(name).or_default().now = Some(view.clone());
        Ok(view)
    }

    /// What a variable held at the end of the last inference.
    fn recalled(&mut self, name: &str, file: &tflite::Tensor) -> Drawn<View> {
        let view = self.drawing.value(dtype(file)?, &file.shape)?;
        let initial = self.variables.get(name).and_then(|variable| variable.initial.as_ref());
        let initial = match (initial, view.dtype) {
            (Some(array), _) => the_number(array, view.count())?,
            (None, Dtype::I8) => scale(file)?.zero as f32,
            (None, _) => 0.0,
        };
        let output = ValueRef::all(&view.buffer);
        let state = format!("variable {name}");
        let bytes = view.count() as u32 * view.dtype.bytes();
        self.drawing.graph.states.insert(state.clone(), StateShape::Bytes { count: 1, bytes });
        self.drawing.push(Recall::<Names> { state: state.clone(), output, initial });
        self.variables.entry(name.to_owned()).or_default().state = Some(state);
        Ok(view)
    }

    fn assign(&mut self, call: &Call<'_>) -> Drawn<()> {
        let name = self.variable(call)?;
        let view = self.view(call, 1)?;
        let variable = self.variables.entry(name).or_default();
        variable.now = Some(view.clone());
        let Some(state) = variable.state.clone() else { return Ok(()) };
        let dense = self.drawing.dense(&view)?;
        let bytes = dense.count() as u32 * dense.dtype.bytes();
        let kept = StateShape::Bytes { count: 1, bytes };
        if self.drawing.graph.states.get(&state) != Some(&kept) {
            return Err(Refused::new(format!("{bytes} bytes"), "as many as are read of it"));
        }
        let input = self.drawing.operand(&dense);
        self.drawing.push(Keep::<Names> { input, state });
        Ok(())
    }

    /// What is done before the first inference: variables get what they hold at first.
    fn call_once(&mut self, call: &Call<'_>) -> Drawn<()> {
        let number = usize::try_from(call.option(0)).ok().and_then(|n| n.checked_sub(1));
        let graph = number.and_then(|number| self.model.others.get(number));
        let graph = graph.ok_or_else(|| Refused::new("no such graph", "one behind the first"))?;
        let mut handles = BTreeMap::new();
        for operator in &graph.operators {
            match (operator.code, &operator.inputs[..], &operator.outputs[..]) {
                (VAR_HANDLE, _, [output]) => {
                    handles.insert(*output, operator.variable.clone());
                }
                (ASSIGN_VARIABLE, [Some(handle), Some(from)], _) => {
                    let name = handles.get(handle).cloned();
                    let name = name.ok_or_else(|| Refused::new("no variable", "one"))?;
                    let known = graph.tensors.get(*from).and_then(array);
                    let known = known.ok_or_else(|| {
                        Refused::new("a variable that begins with what is computed", "a constant")
                    })?;
                    self.variables.entry(name).or_default().initial = Some(known);
                }
                _ => {
                    let found = format!("{} before the first inference", operator_name(operator));
                    return Err(Refused::new(found, "constants that are assigned to variables"));
                }
            }
        }
        Ok(())
    }

    /// The name of the variable that an operator's first input is the handle of.
    fn variable(&self, call: &Call<'_>) -> Drawn<String> {
        let handle = call.operator.inputs.first().copied().flatten();
        let name = handle.and_then(|handle| self.handles.get(&handle).cloned());
        name.ok_or_else(|| Refused::new("no variable", "the handle of one"))
    }
}

/// The number that an array of so many elements has in all of them.
fn the_number(array: &Array, count: usize) -> Drawn<f32> {
    let numbers = array.to_floats();
    match numbers.first() {
        Some(first) if numbers.len() == count && numbers.iter().all(|x| x == first) => Ok(*first),
        _ => {
            let found = "a variable that begins with several numbers";
            Err(Refused::new(found, format!("one number in all {count} elements")))
        }
    }
}
