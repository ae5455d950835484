//! A model that is open.

use crate::error::error;
use crate::generation::{Generation, Request};
use crate::options;
use crate::slot::Slot;
use omex::chat::{Moment, Value};
use omex::infer::form;
use omex::npy::Element;
use omex::runner::Runner;
use omex::sampling;
use omex::session::{self, SessionOptions};
use omex_core::engine::Engine;
use omex_core::program::Port;
use omex_core::sample::Sampling;
use pyo3::buffer::PyBuffer;
use pyo3::prelude::*;
use pyo3::types::PyByteArray;
use std::path::PathBuf;
use std::sync::Arc;

/// Name, NumPy's name of the elements' type, and dimensions.
type Described = (String, &'static str, Vec<usize>);

#[pyclass(frozen)]
pub(crate) struct Model {
    slot: Slot,
    model: Arc<session::Model>,
}

impl Model {
    /// Does something with the runner.
    fn with<T>(&self, action: impl FnOnce(&mut Runner) -> PyResult<T>) -> PyResult<T> {
        let mut runner = self.slot.take()?;
        let result = action(&mut runner);
        self.slot.put(runner);
        result
    }

    fn described<'p>(&self, ports: impl Iterator<Item = Port<'p>>) -> PyResult<Vec<Described>> {
        let program = self.model.program().map_err(error)?;
        let describe = |port: Port<'_>| {
            let (element, shape) = form(&program, &port);
            (port.name.to_owned(), element.name(), shape)
        };
        Ok(ports.map(describe).collect())
    }
}

#[pymethods]
impl Model {
    #[new]
    fn new(
        py: Python<'_>,
        path: PathBuf,
        memory: Option<u64>,
        context: Option<u32>,
        threads: Option<usize>,
        logits: u32,
    ) -> PyResult<Self> {
        let options = SessionOptions { logit_columns: logits, ..options(memory, context, threads) };
        let runner = py.detach(|| Runner::open(&path, &options)).map_err(error)?;
        let model = Arc::clone(runner.model());
        Ok(Self { slot: Slot::new(runner), model })
    }

    /// The plan as JSON.
    fn plan(&self) -> PyResult<String> {
        serde_json::to_string(self.model.plan()).map_err(error)
    }

    fn inputs(&self) -> PyResult<Vec<Described>> {
        self.described(self.model.program().map_err(error)?.inputs())
    }

    fn outputs(&self) -> PyResult<Vec<Described>> {
        self.described(self.model.program().map_err(error)?.outputs())
    }

    fn encode(&self, py: Python<'_>, text: &str) -> PyResult<Vec<u32>> {
        py.detach(|| self.model.encode(text)).map_err(error)
    }

    fn decode(&self, ids: Vec<u32>) -> PyResult<String> {
        self.model.decode(&ids).map_err(error)
    }

    /// The tokens of a chat's prompt; messages and tools are JSON, `now` seconds since 1970.
    fn chat_prompt(
        &self,
        py: Python<'_>,
        messages: &str,
        tools: Option<&str>,
        now: u64,
    ) -> PyResult<Vec<u32>> {
        let value = |json| serde_json::from_str::<Value>(json).map_err(error);
        let (messages, tools) = (value(messages)?, tools.map_or(Ok(Value::from(())), value)?);
        let now = Moment::from_unix(now);
        self.with(|runner| {
            py.detach(move || runner.chat_prompt(messages, tools, now)).map_err(error)
        })
    }

    #[expect(clippy::too_many_arguments, reason = "Python has names for them")]
    fn generate(
        &self,
        prompt: Vec<u32>,
        max_tokens: Option<usize>,
        temperature: f32,
        top_k: u32,
        top_p: f32,
        min_p: f32,
        repetition_penalty: f32,
        seed: u64,
        stop: Vec<String>,
    ) -> PyResult<Generation> {
        let named = |name: &'static str| move |expected: &str| error(format!("{name}: {expected}"));
        let penalty = sampling::penalty(repetition_penalty);
        let sampling = Sampling {
            temperature: sampling::temperature(temperature).map_err(named("temperature"))?,
            top_k,
            top_p: sampling::probability(top_p).map_err(named("top_p"))?,
            min_p: sampling::probability(min_p).map_err(named("min_p"))?,
            repetition_penalty: penalty.map_err(named("repetition_penalty"))?,
            seed,
        };
        let request = Request { prompt, max_tokens, sampling, stop };
        Generation::begin(self.slot.take()?, self.slot.clone(), request)
    }

    /// Vectors, one behind the other, and how many numbers each has.
    fn embed<'py>(
        &self,
        py: Python<'py>,
        texts: Vec<String>,
        prompt: Option<&str>,
    ) -> PyResult<(Bound<'py, PyByteArray>, usize)> {
        let texts: Vec<_> = texts.iter().map(String::as_str).collect();
        let vectors =
            self.with(|runner| py.detach(|| runner.embed(&texts, prompt)).map_err(error))?;
        rows(py, &vectors)
    }

    /// Logits behind each token, one row behind the other, and how many numbers each has.
    fn logits<'py>(
        &self,
        py: Python<'py>,
        ids: Vec<u32>,
    ) -> PyResult<(Bound<'py, PyByteArray>, usize)> {
        let found = self.with(|runner| py.detach(|| runner.logits(&ids)).map_err(error))?;
        rows(py, &found)
    }

    /// The bytes of all outputs, for the bytes of all inputs in the model's order.
    fn infer<'py>(
        &self,
        py: Python<'py>,
        inputs: Vec<PyBuffer<u8>>,
    ) -> PyResult<Vec<Bound<'py, PyByteArray>>> {
        let failed = self.model.failure();
        self.with(|runner| {
            let copy = |engine: &mut Engine<'_>| Ok(copy(py, engine, &inputs));
            runner.with_arrays(copy).map_err(error)??;
            let infer = |engine: &mut Engine<'_>| engine.infer().map_err(&failed);
            py.detach(|| runner.with_arrays(infer)).map_err(error)?;
            runner.with_arrays(|engine| Ok(outputs(py, engine))).map_err(error)?
        })
    }
}

/// Puts inputs where the engine has them.
fn copy(py: Python<'_>, engine: &mut Engine<'_>, inputs: &[PyBuffer<u8>]) -> PyResult<()> {
    let names: Vec<_> = engine.program().inputs().map(|port| port.name.to_owned()).collect();
    if names.len() != inputs.len() {
        return Err(error(format!("found {} inputs, expected {}", inputs.len(), names.len())));
    }
    for (name, input) in names.iter().zip(inputs) {
        input.copy_to_slice(py, engine.input_mut(name))?;
    }
    Ok(())
}

fn outputs<'py>(py: Python<'py>, engine: &Engine<'_>) -> PyResult<Vec<Bound<'py, PyByteArray>>> {
    let read = |port: Port<'_>| match form(engine.program(), &port).0 {
        Element::F32 => floats(py, &[engine.output(&port, 0)]),
        Element::I8 => {
            let bytes = engine.output_i8(&port, 0);
            PyByteArray::new_with(py, bytes.len(), |out| {
                out.iter_mut().zip(bytes).for_each(|(out, byte)| *out = byte.cast_unsigned());
                Ok(())
            })
        }
    };
    engine.program().outputs().map(read).collect()
}

fn rows<'py>(py: Python<'py>, rows: &[Vec<f32>]) -> PyResult<(Bound<'py, PyByteArray>, usize)> {
    let width = rows.first().map_or(0, Vec::len);
    let slices: Vec<_> = rows.iter().map(Vec::as_slice).collect();
    Ok((floats(py, &slices)?, width))
}

/// Numbers as the machine has them, as NumPy's are.
fn floats<'py>(py: Python<'py>, rows: &[&[f32]]) -> PyResult<Bound<'py, PyByteArray>> {
    let count = rows.iter().map(|row| row.len()).sum::<usize>();
    PyByteArray::new_with(py, count * 4, |out| {
        let numbers = rows.iter().copied().flatten();
        let places = out.as_chunks_mut::<4>().0.iter_mut();
        places.zip(numbers).for_each(|(place, number)| *place = number.to_le_bytes());
        Ok(())
    })
}
