//! What `omex convert` says: what it found, what it writes, and how that compares.

use crate::{bytes, output};
use omex::Result;
use omex::convert::{Checked, Comparison, Found, Outlook};
use omex::package::{Package, TensorEntry};
use omex::quantize::Precision;
use serde::Serialize;
use std::path::Path;
use std::time::Duration;

/// All that is told of a conversion.
#[derive(Serialize)]
pub(super) struct Report {
    #[serde(skip)]
    source: String,
    #[serde(flatten)]
    converted: Option<Converted>,
    #[serde(flatten)]
    time: Option<Time>,
    pub(super) found: Found,
    /// `None` where something keeps the model from being converted.
    #[serde(rename = "planned")]
    pub(super) plan: Option<Plan>,
    /// Tensors that were rounded.
    #[serde(skip_serializing_if = "Vec::is_empty")]
    rounded: Vec<Rounded>,
    #[serde(skip_serializing_if = "Option::is_none")]
    pub(super) check: Option<Checked>,
}

/// How long converting took.
#[derive(Clone, Copy, Serialize)]
struct Time {
    seconds: f64,
    /// Bytes of the source: what a conversion that was cut off had done counts, too.
    source_bytes_per_second: f64,
}

/// A package before it is written.
#[derive(Serialize)]
pub(super) struct Plan {
    pub(super) path: String,
    /// What is asked of the conversion; `None` keeps what is quantized.
    #[serde(skip)]
    pub(super) precision: Option<Precision>,
    #[serde(flatten)]
    pub(super) outlook: Outlook,
    /// Bytes of memory that it may take here, where the system tells.
    pub(super) available: Option<u64>,
    /// Nobody asked for the precision.
    #[serde(skip)]
    pub(super) chosen: bool,
    /// It takes longer texts than the model was trained on at first.
    #[serde(skip)]
    pub(super) long_context: bool,
}

/// A tensor whose numbers are not quite the model's.
#[derive(Serialize)]
struct Rounded {
    name: String,
    #[serde(skip_serializing_if = "is_base")]
    plane: u32,
    format: Precision,
    error: f32,
}

fn is_base(plane: &u32) -> bool {
    *plane == 0
}

/// A package that was written, for people and as JSON.
#[derive(Serialize)]
pub(crate) struct Converted {
    /// Lossy, where a path is no UTF-8: what was written can be named in JSON all the same.
    path: String,
    parameters: u64,
    quantization: String,
    weight_bytes: u64,
}

impl Converted {
    pub(crate) fn new(package: &Package, path: &Path) -> Self {
        let architecture = &package.metadata.model_architecture;
        Self {
            path: path.display().to_string(),
            parameters: architecture.parameters,
            quantization: architecture.quantization.clone(),
            weight_bytes: package.index.space(),
        }
    }

    pub(crate) fn print(&self, json: bool) -> Result<()> {
        if json { output::json(self) } else { output::text(&self.text()) }
    }

    fn text(&self) -> String {
        let Self { path, parameters, quantization, weight_bytes } = self;
        let size = bytes::show(*weight_bytes);
        format!("{path}: {parameters} parameters, {quantization}, {size} of weights\n")
    }
}

impl Report {
    pub(super) fn new(source: &Path, found: Found, plan: Option<Plan>) -> Self {
        let source = source.display().to_string();
        Self { source, converted: None, time: None, found, plan, rounded: vec![], check: None }
    }

    pub(super) fn written(&mut self, package: &Package, path: &Path, took: Duration) {
        self.converted = Some(Converted::new(package, path));
        let seconds = took.as_secs_f64();
        let source_bytes_per_second = self.found.source_bytes as f64 / seconds.max(1e-9);
        self.time = Some(Time { seconds, source_bytes_per_second });
        let rounded = package.index.tensors.iter().filter(|tensor| tensor.error > 0.0);
        self.rounded = rounded.map(Rounded::new).collect();
    }

    /// What is known before the weights are read.
    pub(super) fn before(&self) -> String {
        let Found { source_format, architecture, parameters, .. } = &self.found;
        let mut text = format!("{}: {source_format}", self.source);
        if let (Some(architecture), Some(parameters)) = (architecture, parameters) {
            text.push_str(&format!(", {architecture}, {parameters} parameters"));
        }
        let dtypes = self.found.dtypes.iter().map(|(name, count)| format!("{count} {name}"));
        let dtypes = dtypes.collect::<Vec<_>>().join(", ");
        if !dtypes.is_empty() {
            let size = bytes::show(self.found.source_bytes);
            text.push_str(&format!("\n  tensors    {dtypes}, {size}"));
        }
        if let Some(tokenizer) = self.found.tokenizer {
            text.push_str(&format!("\n  tokenizer  {tokenizer}, {} tokens", self.found.tokens));
        }
        if !self.found.chat_templates.is_empty() {
            text.push_str(&format!("\n  chat       {}", self.found.chat_templates.join(", ")));
        }
        text.push('\n');
        if let Some(plan) = &self.plan {
            text.push_str(&plan.text());
        }
        text
    }

    /// What was written, and what came of the comparison.
    pub(super) fn after(&self) -> String {
        let mut text = self.converted.as_ref().map(Converted::text).unwrap_or_default();
        if let Some(Time { seconds, source_bytes_per_second }) = self.time {
            let (source, written) = (self.found.source_bytes, self.converted.as_ref());
            let written = written.map_or(0, |converted| converted.weight_bytes);
            text.push_str(&format!(
                "converted: {} to {} in {seconds:.1} s, {}/s\n",
                bytes::show(source),
                bytes::show(written),
                bytes::show(source_bytes_per_second as u64)
            ));
        }
        let worst = self.rounded.iter().max_by(|a, b| a.error.total_cmp(&b.error));
        if let Some(Rounded { name, error, .. }) = worst {
            let (percent, count) = (error * 100.0, self.rounded.len());
            text.push_str(&format!(
                "rounding: {count} tensors, by {percent:.2} % at most ({name}), root mean square\n"
            ));
        }
        if let Some(check) = &self.check {
            text.push_str(&checked(check));
        }
        text
    }
}

impl Rounded {
    fn new(tensor: &TensorEntry) -> Self {
        let TensorEntry { name, plane, format, error, .. } = tensor;
        Self { name: name.clone(), plane: *plane, format: *format, error: *error }
    }
}

impl Plan {
    fn text(&self) -> String {
        let Outlook { quantization, weight_bytes, memory, tokens, .. } = &self.outlook;
        let (size, takes) = (bytes::show(*weight_bytes), bytes::show(*memory));
        let mut text = format!("{}: {quantization}, {size} of weights\n", self.path);
        text.push_str(&self.context());
        let fits = self.available.is_none_or(|available| *memory <= available);
        let here = match self.available {
            Some(available) => format!(" of the {} that there are here", bytes::show(available)),
            None => String::new(),
        };
        let streams = if fits { "" } else { "; what does not fit is read from storage" };
        // An integer graph has neither tokens nor another precision.
        if quantization == "channels" {
            text.push_str(&format!("  memory     {takes},{here}{streams}\n"));
            return text;
        }
        text.push_str(&format!(
            "  memory     {takes} with {tokens} tokens at most,{here}{streams}\n"
        ));
        if self.chosen && self.precision.is_some() {
            text.push_str("  int4, since int8 does not fit; for another: --quantization int8\n");
        } else if self.chosen {
            text.push_str("  for another precision: --quantization f16, int4+4, or int4\n");
        }
        text
    }

    /// How long a text may be.
    fn context(&self) -> String {
        let Outlook { context, long_context, .. } = self.outlook;
        match (long_context, self.long_context) {
            _ if context == 0 => String::new(),
            (Some(long), false) => format!(
                "  context    {context} tokens; --long-context takes {long}, and reads short texts, too, by the \
                 factors of long ones\n"
            ),
            (Some(_), true) => {
                format!("  context    {context} tokens, all texts by the factors of long ones\n")
            }
            (None, _) => format!("  context    {context} tokens\n"),
        }
    }
}

fn checked(check: &Checked) -> String {
    match check {
        Checked::Skipped(why) => format!("not compared with the model: {why}\n"),
        Checked::Compared { tokens, comparison } => {
            let told = match comparison {
                Comparison::Logits { kl_divergence, top1_agreement } => format!(
                    "KL divergence {kl_divergence:.2e}, the same next token behind {:.0} %",
                    top1_agreement * 100.0
                ),
                Comparison::Vectors { cosine } => format!("cosine {cosine:.6} or more"),
            };
            format!("compared with the model over {tokens} tokens: {told}\n")
        }
    }
}
