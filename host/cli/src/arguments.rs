//! What people type that looks like options and is none, and what is said of wrong ones.

use crate::output;
use clap::error::{ContextKind, ContextValue};
use std::ffi::{OsStr, OsString};
use std::process::ExitCode;

/// Moves a prompt that begins with a hyphen behind `--`, where it is no option: no option has a
/// space in its name.
pub(crate) fn with_prompt_last(mut given: Vec<OsString>) -> Vec<OsString> {
    let end = given.iter().position(|a| a == "--").unwrap_or(given.len());
    let prompt = given[..end].iter().position(|a| is_prompt(a));
    if let (Some(prompt), true) = (prompt, end == given.len()) {
        let prompt = given.remove(prompt);
        given.extend(["--".into(), prompt]);
    }
    given
}

fn is_prompt(argument: &OsStr) -> bool {
    let text = argument.to_string_lossy();
    let name = text.split('=').next().unwrap_or_default();
    name.starts_with('-') && name.contains(char::is_whitespace)
}

/// Whether `--json` is among the options.
pub(crate) fn ask_for_json(given: &[OsString]) -> bool {
    given.iter().take_while(|a| *a != "--").any(|a| a == "--json")
}

/// Says what is wrong with the arguments, or the help that was asked for.
pub(crate) fn refuse(mut error: clap::Error, as_json: bool) -> ExitCode {
    // That a misspelt option could be a prompt is no help.
    error.insert(ContextKind::Suggested, ContextValue::None);
    let code = error.exit_code();
    let _ = error.print();
    if as_json && error.use_stderr() {
        let text = error.to_string();
        let message = text.lines().next().unwrap_or_default();
        output::json_error("usage", message.strip_prefix("error: ").unwrap_or(message));
    }
    ExitCode::from(u8::try_from(code).unwrap_or(2))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_prompt_with_a_hyphen_is_no_option() {
        let moved = |given: &[&str]| with_prompt_last(given.iter().map(Into::into).collect());
        assert_eq!(
            moved(&["omex", "run", "m", "- milk", "--stats"]),
            ["omex", "run", "m", "--stats", "--", "- milk"]
        );
        for same in [&["omex", "run", "-", "--session=a b"][..], &["omex", "run", "--", "- a"]] {
            assert_eq!(moved(same), same);
        }
    }
}
