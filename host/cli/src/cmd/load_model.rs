//! `omex load-model`.

use super::convert::{Quantization, convert_plainly, parse_quantization};
use super::hub::{self, Outlook, describe, shown};
use super::plan::Device;
use crate::{bytes, output, signals};
use omex::hub::Name;
use omex::package::Package;
use omex::pager::PageSource;
use omex::plan::{MemoryPlan, RunPrecision};
use omex::quantize::Precision;
use omex::session::{Session, SessionOptions};
use omex::{Error, Result};
use serde::Serialize;
use std::path::Path;
use std::str::FromStr;

/// Get a model that suits a device, convert it, and open it once within the device's memory.
///
/// Afterwards omex run hf:REPO runs it at once.
#[derive(clap::Args)]
#[command(after_help = "\
Examples:
  omex load-model Qwen/Qwen3-0.6B
  omex load-model --size 70B --device raspberry-pi-5 --use-embedded-optimizations \\
                  --memory-strategy streaming
  omex load-model --size 8B --memory 2GB --dry-run")]
pub(crate) struct Args {
    /// ORGANISATION/NAME on the hub, perhaps with @REVISION or :FILE (see omex pull)
    #[arg(value_name = "REPO[@REVISION][:FILE]", value_parser = hub::parse_name,
          required_unless_present = "size")]
    model: Option<Name>,
    /// A model with about so many parameters, as 0.6B or 70B, instead of one by its name
    #[arg(long, value_name = "PARAMETERS", value_parser = parse_size, conflicts_with = "model")]
    size: Option<Size>,
    /// The device whose memory is the budget
    #[arg(long, value_name = "NAME", value_enum, conflicts_with = "memory")]
    device: Option<Device>,
    /// Memory to stay within [default: all that is free]
    #[arg(long, value_name = "SIZE", value_parser = bytes::parse)]
    memory: Option<u64>,
    /// Whether weights stay in memory, or are read for every token [default: what fits]
    #[arg(long, value_name = "STRATEGY", value_enum)]
    memory_strategy: Option<Strategy>,
    /// Put into the package what lets a run adapt to the memory that there is: weights in two planes,
    /// the second of which is read where memory allows (int4+4)
    #[arg(long, conflicts_with = "quantization")]
    use_embedded_optimizations: bool,
    /// Precision of the weights [default: int8, or int4 where the memory does not hold that]
    #[arg(long, value_name = "f32|f16|int8|int4|int4+4", value_parser = parse_quantization)]
    quantization: Option<Quantization>,
    /// Say what would be done, and get no more than the config.json
    #[arg(long)]
    dry_run: bool,
    /// Print one JSON object
    #[arg(long)]
    json: bool,
}

/// How weights are had.
#[derive(Clone, Copy, Debug, clap::ValueEnum)]
enum Strategy {
    /// They stay in memory
    Mapped,
    /// They are read for every token, past the system's cache
    Streaming,
}

impl Strategy {
    fn pages(self) -> PageSource {
        match self {
            Self::Mapped => PageSource::Mmap,
            Self::Streaming => PageSource::Direct,
        }
    }
}

/// Models of many sizes that anybody may get.
const SIZES: [Size; 9] = [
    Size(0.1, "HuggingFaceTB/SmolLM2-135M-Instruct"),
    Size(0.6, "Qwen/Qwen3-0.6B"),
    Size(1.1, "TinyLlama/TinyLlama-1.1B-Chat-v1.0"),
    Size(1.7, "Qwen/Qwen3-1.7B"),
    Size(4.0, "Qwen/Qwen3-4B"),
    Size(8.0, "Qwen/Qwen3-8B"),
    Size(14.0, "Qwen/Qwen3-14B"),
    Size(32.0, "Qwen/Qwen3-32B"),
    Size(72.0, "Qwen/Qwen2.5-72B-Instruct"),
];

/// Billions of parameters, and the model that has them.
#[derive(Clone, Copy, Debug)]
struct Size(f64, &'static str);

/// The nearest size, if it is near.
fn parse_size(text: &str) -> Result<Size, String> {
    let (number, factor) = match text.trim_end_matches(['B', 'b', 'M', 'm']) {
        number if text.ends_with(['B', 'b']) => (number, 1.0),
        number if text.ends_with(['M', 'm']) => (number, 1e-3),
        _ => return Err("expected a number of parameters, as 0.6B or 70B".into()),
    };
    let asked = number.parse::<f64>().map_err(|_| format!("\"{number}\" is no number"))? * factor;
    if asked <= 0.0 {
        return Err(format!("\"{number}\" is no number of parameters"));
    }
    let distance = |size: &Size| if size.0 > asked { size.0 / asked } else { asked / size.0 };
    let nearest = SIZES.into_iter().min_by(|a, b| distance(a).total_cmp(&distance(b)));
    nearest.filter(|size| distance(size) < 1.4).ok_or_else(|| {
        let known: Vec<_> = SIZES.iter().map(|size| format!("{}B", size.0)).collect();
        format!(
            "no model of about that size is known here: name one, or one of {}",
            known.join(", ")
        )
    })
}

#[derive(Serialize)]
struct Output {
    model: String,
    /// Lossy, where a path is no UTF-8; `None` for a dry run.
    path: Option<String>,
    quantization: String,
    #[serde(flatten)]
    plan: MemoryPlan,
}

pub(crate) fn main(args: &Args, offline: bool) -> Result<()> {
    let name = args.name()?;
    let hub = hub::open(offline)?;
    let found = hub.find(&name)?;
    output::note(&describe(&name, &found));
    let options = args.options();
    let quantization = match found.config() {
        Some(config) => args.asked().map_or_else(|| hub::best(&config, &options), Ok)?,
        None => args.asked().unwrap_or((Precision::Int8, false)),
    };
    let mut plan = None;
    if let Some(config) = found.config() {
        let outlook = Outlook::of(&config, quantization, &options, args.device.is_none())?;
        output::note(&outlook.text());
        plan = Some(outlook.plan);
    }
    let mut package = None;
    if !args.dry_run {
        let path = hub::package(&name, found.commit())?;
        if !is_as_asked(&path, quantization) {
            convert_plainly(&hub::fetch(&found)?, &path, Some(quantization))?;
        }
        plan = Some(*Session::open(&path, &options)?.plan());
        package = Some(path);
    }
    let Some(plan) = plan else {
        return Err(Error::Usage(format!(
            "{name}: no config.json to plan it by: leave out --dry-run"
        )));
    };
    args.print(&name, package.as_deref(), quantization, plan)
}

/// Whether a package is there that has this precision. Less used ones follow it.
fn is_as_asked(path: &Path, quantization: Quantization) -> bool {
    let Ok(package) = Package::open(path) else { return false };
    let found = package.metadata.model_architecture.quantization;
    let others = found.strip_prefix(&shown(quantization));
    others.is_some_and(|others| {
        others.is_empty() || others.starts_with("+i") || others.starts_with("+f")
    })
}

impl Args {
    fn name(&self) -> Result<Name> {
        match (&self.model, self.size) {
            (Some(name), _) => Ok(name.clone()),
            (None, size) => Name::from_str(size.map_or("", |Size(_, name)| name)),
        }
    }

    fn options(&self) -> SessionOptions {
        SessionOptions {
            memory: self.device.map(Device::budget).or(self.memory),
            pages: self.memory_strategy.map(Strategy::pages),
            precision: self.planes(),
            cancel: signals::cancel(),
            ..SessionOptions::default()
        }
    }

    fn planes(&self) -> RunPrecision {
        if self.use_embedded_optimizations { RunPrecision::Auto } else { RunPrecision::Full }
    }

    fn asked(&self) -> Option<Quantization> {
        let two = self.use_embedded_optimizations.then_some((Precision::Int4, true));
        self.quantization.or(two)
    }

    fn print(
        &self,
        name: &Name,
        path: Option<&Path>,
        quantization: Quantization,
        plan: MemoryPlan,
    ) -> Result<()> {
        let quantization = shown(quantization);
        let model = name.to_string();
        if self.json {
            let path = path.map(|path| path.display().to_string());
            return output::json(&Output { model, path, quantization, plan });
        }
        output::text(&super::plan::table(&plan, self.options().memory))?;
        match path {
            Some(path) => {
                output::text(&format!("\n{}\nomex run hf:{model} \"...\"\n", path.display()))
            }
            None => Ok(()),
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn sizes_lead_to_the_nearest_model() {
        let model = |text| parse_size(text).map(|size| size.1);
        assert_eq!(model("70B").unwrap(), "Qwen/Qwen2.5-72B-Instruct");
        assert_eq!(model("7b").unwrap(), "Qwen/Qwen3-8B");
        assert_eq!(model("135M").unwrap(), "HuggingFaceTB/SmolLM2-135M-Instruct");
        for wrong in ["", "B", "70", "-1B", "0B", "671B", "nanB", "infB"] {
            assert!(model(wrong).is_err(), "{wrong}");
        }
        assert!(SIZES.iter().all(|Size(_, name)| Name::from_str(name).is_ok()));
    }
}
