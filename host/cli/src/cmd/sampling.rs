//! How tokens are chosen, and what ends a text: shared by the commands that generate.

use omex::sampling;
use omex_core::sample::Sampling;

#[derive(clap::Args)]
pub(super) struct SamplingArgs {
    /// Randomness; 0 takes the most likely token
    #[arg(long, allow_negative_numbers = true, value_name = "T", default_value_t = 0.0, value_parser = temperature)]
    temperature: f32,
    /// Keep only the K most likely tokens; 0 keeps all
    #[arg(long, allow_negative_numbers = true, value_name = "K", default_value_t = 0)]
    top_k: u32,
    /// Keep the most likely tokens that make up this probability
    #[arg(long, allow_negative_numbers = true, value_name = "P", default_value_t = 1.0, value_parser = probability)]
    top_p: f32,
    /// Keep tokens at least this fraction as likely as the most likely one
    #[arg(long, allow_negative_numbers = true, value_name = "P", default_value_t = 0.0, value_parser = probability)]
    min_p: f32,
    /// Make recent tokens less likely; 1 does nothing
    #[arg(long, allow_negative_numbers = true, value_name = "R", default_value_t = 1.0, value_parser = penalty)]
    repetition_penalty: f32,
    /// Where the random numbers begin
    #[arg(long, allow_negative_numbers = true, value_name = "SEED", default_value_t = 0)]
    seed: u64,
    /// End the text before this string, or with the control token that it spells; may be given again
    #[arg(long, value_name = "TEXT", value_parser = stop_string)]
    stop: Vec<String>,
}

impl SamplingArgs {
    /// The strings that end a text.
    pub(super) fn stop(&self) -> &[String] {
        &self.stop
    }

    pub(super) fn sampling(&self) -> Sampling {
        Sampling {
            temperature: self.temperature,
            top_k: self.top_k,
            top_p: self.top_p,
            min_p: self.min_p,
            repetition_penalty: self.repetition_penalty,
            seed: self.seed,
        }
    }
}

fn stop_string(text: &str) -> Result<String, &'static str> {
    if text.is_empty() { Err("expected some text") } else { Ok(text.to_owned()) }
}

fn number(text: &str, check: fn(f32) -> Result<f32, &'static str>) -> Result<f32, String> {
    check(text.parse().unwrap_or(f32::NAN)).map_err(str::to_owned)
}

fn temperature(text: &str) -> Result<f32, String> {
    number(text, sampling::temperature)
}

fn probability(text: &str) -> Result<f32, String> {
    number(text, sampling::probability)
}

fn penalty(text: &str) -> Result<f32, String> {
    number(text, sampling::penalty)
}
