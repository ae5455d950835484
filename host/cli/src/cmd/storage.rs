//! Which machine a forecast is for: this one, and the storage that the model lies on.

use crate::{bytes, output};
use omex::Result;
use omex::forecast::Forecast;
use omex::plan::MemoryPlan;
use omex::profile::Profile;
use omex::session::{SessionOptions, Tables};

/// What is said of figures that may be too low.
pub(super) const DISTURBED: &str = "note: other programs ran while this machine was measured; omex \
                                    profile --refresh measures it again";

/// The storage: shared by the commands that forecast.
#[derive(clap::Args)]
pub(super) struct StorageArgs {
    /// Bandwidth of the storage to forecast for [default: measured where the model lies]
    #[arg(long, value_name = "SIZE/s", value_parser = bytes::parse_rate)]
    storage_bandwidth: Option<u64>,
}

impl StorageArgs {
    /// What this machine can do, measured on first use, and how fast the weights of this plan
    /// stream.
    pub(super) fn profile(
        &self,
        tables: &Tables,
        plan: &MemoryPlan,
        options: &SessionOptions,
    ) -> Result<Profile> {
        if !Profile::is_kept() {
            output::note("note: measuring this machine, which takes up to a minute, once");
        }
        let mut profile = Profile::of_this_machine(false, &options.cancel)?;
        if profile.is_disturbed() {
            output::note(DISTURBED);
        }
        if let Some(bandwidth) = self.storage_bandwidth {
            profile.storage_bandwidth = Some(bandwidth as f64);
        } else if plan.streamed_bytes > 0 && tables.has_weights() {
            output::note("note: reading weights for two seconds, to see how fast they stream");
            profile.storage_bandwidth = Some(tables.streaming_bandwidth(plan, options)?);
        }
        Ok(profile)
    }

    /// Another machine's profile, with the storage that was asked for.
    pub(super) fn of_another(&self, mut profile: Profile) -> Profile {
        let asked = self.storage_bandwidth.map(|bandwidth| bandwidth as f64);
        profile.storage_bandwidth = asked.or(profile.storage_bandwidth);
        profile
    }
}

/// A forecast for people.
pub(super) fn text(forecast: &Forecast) -> String {
    let Forecast { prompt_tokens, decode_limit, prompt_limit, .. } = forecast;
    let spilled = match forecast.spilled_bytes_per_position {
        0 => String::new(),
        bytes => format!(", {} of them from storage", bytes::show(bytes)),
    };
    let at = forecast.storage_bandwidth.map(|bandwidth| {
        let bandwidth = bytes::show(bandwidth as u64);
        format!("reading at {bandwidth}/s, computing {:.4} s; ", forecast.compute_seconds)
    });
    format!(
        "a pass reads     {} of weights from storage, {} from memory, {} of the KV cache a position{spilled}\n\
         a pass takes     {:.4} s, {}{:.4} s once the KV cache is full\n\
         decode           {:.2} tok/s behind {prompt_tokens} tokens{}, limited by {decode_limit}\n\
         prompt           {:.1} tok/s for {prompt_tokens} tokens{}, limited by {prompt_limit}\n",
        bytes::show(forecast.streamed_bytes),
        bytes::show(forecast.resident_bytes),
        bytes::show(forecast.kv_bytes_per_position),
        forecast.pass_seconds,
        at.unwrap_or_default(),
        forecast.full_cache_pass_seconds,
        forecast.decode_tok_s,
        least(forecast.decode_tok_s, forecast.decode_error),
        forecast.prompt_tok_s,
        least(forecast.prompt_tok_s, forecast.prompt_error),
    )
}

/// How slow it may be instead.
fn least(tok_s: f64, error: f64) -> String {
    format!(" ({:.2} at least)", tok_s / (1.0 + error))
}
