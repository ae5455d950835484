//! `cargo xtask board`: a flash image on a board, in QEMU.

use crate::card::Card;
use crate::firmware::Board;
use crate::{Result, json, tools};
use std::io::{BufRead, BufReader, Read, Write};
use std::path::{Path, PathBuf};
use std::process::{Child, ChildStdout, Command, Stdio};
use std::sync::mpsc::{self, Receiver};
use std::time::Duration;

const USAGE: &str = "\
Usage: cargo xtask board NAME IMAGE [OPTIONS]

Runs a flash image (omex pack) on a board in QEMU, and prints the text as it comes.

  --prompt TEXT     what the text begins with [default: Once upon a time]
  --ids 1,2,3       the same, as token ids
  --max-tokens N    tokens to generate at most [default: 64]
  --sdhc            on a 4 GiB card, which is addressed by blocks instead of bytes
  --json            print one JSON object on standard output, all else on standard error";

/// A board that says nothing for so long hangs.
const PATIENCE: Duration = Duration::from_secs(120);

struct Arguments {
    board: &'static Board,
    image: PathBuf,
    /// `ids` or `text`, and what follows.
    prompt: (&'static str, String),
    max_tokens: u32,
    high_capacity: bool,
    json: bool,
}

/// Runs the command.
///
/// # Errors
/// Wrong arguments, tools that are missing, or the board's.
pub(crate) fn main(arguments: &[String]) -> Result<()> {
    if arguments.iter().any(|a| a == "--help" || a == "-h") {
        println!("{USAGE}");
        return Ok(());
    }
    let arguments = parse(arguments)?;
    tools::QEMU_ARM.find()?;
    let firmware = arguments.board.build()?;
    let card = Card::new(&arguments.image, arguments.high_capacity)?;
    let said = play(&arguments, &firmware, card.path())?;
    if arguments.json {
        println!("{}", said.to_json()?);
    } else {
        eprintln!("\n\n{}", said.summary.join("\n"));
    }
    Ok(())
}

fn parse(arguments: &[String]) -> Result<Arguments> {
    let mut places = vec![];
    let mut prompt = ("text", "Once upon a time".to_owned());
    let (mut max_tokens, mut high_capacity, mut json) = (64, false, false);
    let mut arguments = arguments.iter();
    while let Some(argument) = arguments.next() {
        let mut value =
            || arguments.next().cloned().ok_or(format!("{argument} needs a value\n\n{USAGE}"));
        match argument.as_str() {
            "--prompt" => prompt = ("text", value()?),
            "--ids" => prompt = ("ids", value()?),
            "--max-tokens" => {
                let value = value()?;
                max_tokens =
                    value.parse().map_err(|_| format!("--max-tokens {value}: no number"))?;
            }
            "--sdhc" => high_capacity = true,
            "--json" => json = true,
            flag if flag.starts_with('-') => return Err(format!("no option {flag}\n\n{USAGE}")),
            place => places.push(place),
        }
    }
    let [board, image] = places[..] else { return Err(USAGE.to_owned()) };
    let (board, image) = (Board::find(board)?, PathBuf::from(image));
    Ok(Arguments { board, image, prompt, max_tokens, high_capacity, json })
}

/// What the board said.
#[derive(Default)]
struct Said {
    ids: Vec<u32>,
    text: String,
    /// `name=number`
    summary: Vec<String>,
    error: Option<String>,
}

/// Runs QEMU to its end, and prints the text meanwhile.
fn play(arguments: &Arguments, firmware: &Path, card: &Path) -> Result<Said> {
    let mut qemu = qemu(arguments, firmware, card).spawn().map_err(|e| format!("QEMU: {e}"))?;
    let said = listen(&mut qemu, arguments.json);
    if said.is_err() {
        // It hangs, or says what nobody understands: what it would answer does not matter.
        let _ = qemu.kill();
    }
    let status = qemu.wait().map_err(|e| format!("QEMU: {e}"))?;
    let said = said?;
    match said.error {
        Some(error) => Err(format!("{}: {error}", arguments.board.name)),
        None if !status.success() || said.summary.is_empty() => {
            let mut errors = String::new();
            let _ = qemu.stderr.map(|mut stderr| stderr.read_to_string(&mut errors));
            Err(format!("QEMU ended with {status}: {}", errors.trim()))
        }
        None => Ok(said),
    }
}

fn qemu(arguments: &Arguments, firmware: &Path, card: &Path) -> Command {
    let (kind, prompt) = &arguments.prompt;
    let line = ["omex", &arguments.max_tokens.to_string(), kind, prompt];
    // A comma ends a value of QEMU's options, unless there are two.
    let line = line.map(|word| format!(",arg={}", word.replace(',', ",,"))).concat();
    let card = card.to_string_lossy().replace(',', ",,");
    let mut qemu = Command::new(tools::QEMU_ARM.program);
    qemu.args(arguments.board.machine);
    qemu.args(["-nographic", "-serial", "null", "-monitor", "none"]);
    qemu.arg("-semihosting-config").arg(format!("enable=on,target=native{line}"));
    qemu.arg("-drive").arg(format!("if=sd,format=raw,file={card}"));
    qemu.arg("-kernel").arg(firmware);
    qemu.stdin(Stdio::null()).stdout(Stdio::piped()).stderr(Stdio::piped());
    qemu
}

fn listen(qemu: &mut Child, json: bool) -> Result<Said> {
    let lines = lines(qemu.stdout.take().ok_or("QEMU has no output")?);
    let mut out: Box<dyn Write> =
        if json { Box::new(std::io::stderr()) } else { Box::new(std::io::stdout()) };
    let mut said = Said::default();
    loop {
        match lines.recv_timeout(PATIENCE) {
            Ok(line) => {
                let before = said.text.len();
                said.hear(&line)?;
                // A reader that went away is no reason to stop.
                let _ = out.write_all(&said.text.as_bytes()[before..]).and_then(|()| out.flush());
            }
            Err(mpsc::RecvTimeoutError::Disconnected) => return Ok(said),
            Err(mpsc::RecvTimeoutError::Timeout) => {
                return Err(format!("the board said nothing for {} seconds", PATIENCE.as_secs()));
            }
        }
    }
}

/// Lines as they come, so that waiting for one can end.
fn lines(stdout: ChildStdout) -> Receiver<String> {
    let (sender, receiver) = mpsc::channel();
    std::thread::spawn(move || {
        for line in BufReader::new(stdout).split(b'\n').map_while(|line| line.ok()) {
            if sender.send(String::from_utf8_lossy(&line).into_owned()).is_err() {
                break;
            }
        }
    });
    receiver
}

impl Said {
    /// Takes in a line; `boards/lm3s6965evb/src/report.rs` writes them.
    fn hear(&mut self, line: &str) -> Result<()> {
        let not_understood = || format!("the board says what is not understood: {line}");
        let (kind, rest) = line.split_once(' ').ok_or_else(not_understood)?;
        match kind {
            "token" => {
                let (id, text) = rest.split_once(' ').ok_or_else(not_understood)?;
                self.ids.push(id.parse().map_err(|_| not_understood())?);
                unescape(text, &mut self.text);
            }
            "end" => unescape(rest, &mut self.text),
            "summary" => self.summary = rest.split(' ').map(str::to_owned).collect(),
            "error" => self.error = Some(rest.to_owned()),
            _ => return Err(not_understood()),
        }
        Ok(())
    }

    fn number(&self, name: &str) -> Result<u64> {
        let numbers = self.summary.iter().filter_map(|pair| pair.split_once('='));
        let number = numbers.clone().find(|(n, _)| *n == name).and_then(|(_, n)| n.parse().ok());
        number.ok_or_else(|| format!("the board's summary has no {name}"))
    }

    fn to_json(&self) -> Result<String> {
        let ids: Vec<_> = self.ids.iter().map(u32::to_string).collect();
        let mut fields = vec![
            format!("\"ids\":[{}]", ids.join(",")),
            format!("\"text\":{}", json::string(&self.text)),
        ];
        for name in ["logits_checksum", "ram_bytes", "stack_bytes", "sd_bytes_per_token"] {
            fields.push(format!("\"{name}\":{}", self.number(name)?));
        }
        Ok(format!("{{{}}}", fields.join(",")))
    }
}

/// Appends text whose line feeds, carriage returns and backslashes are escaped.
fn unescape(escaped: &str, text: &mut String) {
    let mut chars = escaped.chars();
    while let Some(c) = chars.next() {
        text.push(match c {
            '\\' => match chars.next() {
                Some('n') => '\n',
                Some('r') => '\r',
                _ => '\\',
            },
            c => c,
        });
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn what_the_board_says_is_understood() {
        let mut said = Said::default();
        for line in ["token 5  a\\n", "token 7 \\\\n", "token 9 ", "end é"] {
            said.hear(line).unwrap();
        }
        let summary = "summary logits_checksum=1 ram_bytes=2 stack_bytes=3 sd_bytes_per_token=4";
        said.hear(summary).unwrap();
        let expected = "{\"ids\":[5,7,9],\"text\":\" a\\n\\\\né\",\"logits_checksum\":1,\
                        \"ram_bytes\":2,\"stack_bytes\":3,\"sd_bytes_per_token\":4}";
        assert_eq!(said.to_json().unwrap(), expected);
        assert!(said.hear("token x y").is_err());
        assert!(said.hear("").is_err());
    }

    #[test]
    fn an_incomplete_summary_is_an_error() {
        let mut said = Said::default();
        said.hear("summary logits_checksum=1").unwrap();
        assert_eq!(said.to_json().unwrap_err(), "the board's summary has no ram_bytes");
    }
}
