//! `~/.omex/config.toml`: what a user wants where the command line says nothing else.

use crate::{bytes, output};
use clap::Command;
use omex::{Error, Result, input};
use std::path::{Path, PathBuf};
use toml::{Table, Value};

/// The longest file.
const MAX_BYTES: u64 = 64 << 10;

/// Names another file, or none if it is empty.
const VARIABLE: &str = "OMEX_CONFIG";

/// What the file says, as defaults of options by their names.
#[derive(Debug, Default)]
pub(crate) struct Config {
    path: PathBuf,
    defaults: Vec<(&'static str, String)>,
    /// What means nothing to this version.
    unused: Vec<String>,
}

impl Config {
    /// The user's; empty if there is none.
    ///
    /// # Errors
    /// A file that can't be read, is no TOML, or holds a value that is none of its setting's.
    pub(crate) fn open() -> Result<Self> {
        let Some(path) = path() else { return Ok(Self::default()) };
        let is_named = std::env::var_os(VARIABLE).is_some();
        if !is_named && path.symlink_metadata().is_err() {
            return Ok(Self::default());
        }
        Self::parse(path.clone(), &input::read_text(&path, MAX_BYTES)?)
    }

    /// Tells what has no effect.
    pub(crate) fn tell(&self) {
        if let [first, others @ ..] = &self.unused[..] {
            let others = match others.len() {
                0 => String::new(),
                count => format!(" and {count} more"),
            };
            let path = self.path.display();
            output::note(&format!("note: {path}: without effect in this version: {first}{others}"));
        }
    }

    /// A command whose options have these defaults.
    pub(crate) fn apply(&self, mut command: Command) -> Command {
        for (option, value) in &self.defaults {
            for inner in command.get_subcommands_mut() {
                if inner.get_arguments().any(|argument| argument.get_id() == option) {
                    let default = |argument: clap::Arg| argument.default_value(value.clone());
                    *inner = std::mem::take(inner).mut_arg(option, default);
                }
            }
        }
        command
    }

    fn parse(path: PathBuf, text: &str) -> Result<Self> {
        let table: Table = text.parse().map_err(|error: toml::de::Error| {
            let before = error.span().and_then(|span| text.get(..span.start)).unwrap_or(text);
            let field = format!("line {}", 1 + before.matches('\n').count());
            wrong(&path, &field, error.message(), "TOML")
        })?;
        let mut config = Self { path, ..Self::default() };
        for (section, value) in &table {
            let Value::Table(settings) = value else {
                config.unused.push(section.clone());
                continue;
            };
            for (name, value) in settings {
                let field = format!("{section}.{name}");
                match default(&field, value) {
                    Known::Default(option, value) => config.defaults.push((option, value)),
                    Known::Usual => {}
                    Known::Not => config.unused.push(field),
                    Known::Wrong(expected) => {
                        let found = serde_json::to_string(value).unwrap_or_default();
                        return Err(wrong(&config.path, &field, &found, expected));
                    }
                }
            }
        }
        Ok(config)
    }
}

/// What a setting means.
enum Known {
    /// An option's default.
    Default(&'static str, String),
    /// What is so anyway.
    Usual,
    /// Another value is expected.
    Wrong(&'static str),
    Not,
}

fn default(field: &str, value: &Value) -> Known {
    match (field, value) {
        ("device.cpu_threads", Value::Integer(threads @ 1..=256)) => {
            Known::Default("threads", threads.to_string())
        }
        ("device.cpu_threads", _) => Known::Wrong("a number from 1 to 256"),
        ("device.memory_limit", Value::String(size)) if bytes::parse(size).is_ok() => {
            Known::Default("memory", size.clone())
        }
        ("device.memory_limit", _) => Known::Wrong("a size as \"200MB\""),
        ("device.enable_mmap", Value::Boolean(true)) => Known::Usual,
        ("device.enable_mmap", Value::Boolean(false)) => Known::Default("pages", "read".to_owned()),
        ("device.enable_mmap", _) => Known::Wrong("true or false"),
        _ => Known::Not,
    }
}

fn wrong(path: &Path, field: &str, found: &str, expected: &str) -> Error {
    Error::malformed(path, field, found, expected, "correct it, or remove the file")
}

fn path() -> Option<PathBuf> {
    match std::env::var_os(VARIABLE) {
        Some(named) => Some(PathBuf::from(named)).filter(|path| !path.as_os_str().is_empty()),
        None => {
            let home = std::env::var_os("HOME").map(PathBuf::from).filter(|p| p.is_absolute());
            Some(home?.join(".omex/config.toml"))
        }
    }
}
