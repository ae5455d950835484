//! `cargo xtask board`: a flash image on a board, in QEMU.

use crate::arrays::{Inputs, Output};
use crate::card::Card;
use crate::elf::Elf;
use crate::escapes::unescape;
use crate::firmware::{Board, Kind, Place};
use crate::tools::Tool;
use crate::{Result, json, run};
use std::io::{BufRead, BufReader, Read, Write};
use std::path::{Path, PathBuf};
use std::process::{Child, ChildStdout, Command, Stdio};
use std::sync::mpsc::{self, Receiver};
use std::time::Duration;

const USAGE: &str = "\
Usage: cargo xtask board NAME IMAGE [OPTIONS]

Runs a flash image (omex pack) on a board in QEMU, and prints the text or the outputs as they come.

  --prompt TEXT     what the text begins with [default: Once upon a time]
  --ids 1,2,3       the same, as token ids
  --max-tokens N    tokens to generate at most [default: 64]
  --input INPUTS    inputs of a model that takes no tokens: zero, seeded for bytes of xorshift32 from
                    0x12345678 on, or a NumPy file or plain bytes, as often as they follow one another
  --example NAME    run an application of boards/examples, which reads what it senses from the file of --input (mps2-an386)
  --serial          talk to the model over the board's serial port, as on boards that people own (virt-rv32)
  --sdhc            of a board with an SD card: on a 4 GiB card, which is addressed by blocks instead of bytes
  --json            print one JSON object on standard output, all else on standard error";

/// A board that says nothing for so long hangs.
const PATIENCE: Duration = Duration::from_secs(120);

struct Arguments {
    board: &'static Board,
    image: PathBuf,
    asked: Asked,
    high_capacity: bool,
    show: Show,
    serial: bool,
    example: Option<String>,
}

/// What is shown while the board plays, and in the end.
#[derive(Clone, Copy, PartialEq, Eq)]
enum Show {
    Text,
    Json,
    Nothing,
}

impl Arguments {
    /// Where what the board says goes as it comes.
    fn out(&self) -> Box<dyn Write> {
        match self.show {
            Show::Text => Box::new(std::io::stdout()),
            Show::Json => Box::new(std::io::stderr()),
            Show::Nothing => Box::new(std::io::sink()),
        }
    }
}

/// What the board is to do.
enum Asked {
    /// To generate so many tokens at most: `ids` or `text`, and what follows.
    Text(u32, &'static str, String),
    /// To play the model over these inputs.
    Outputs(Inputs),
}

impl Asked {
    fn kind(&self) -> Kind {
        match self {
            Self::Text(..) => Kind::Text,
            Self::Outputs(_) => Kind::Int8,
        }
    }

    /// The words of the firmware's command line.
    fn words(&self) -> Vec<String> {
        match self {
            Self::Text(max_tokens, form, prompt) => {
                vec![max_tokens.to_string(), (*form).to_owned(), prompt.clone()]
            }
            Self::Outputs(inputs) => vec![inputs.word()],
        }
    }
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
    emulator(arguments.board)?.find()?;
    if arguments.serial {
        return talk(&arguments);
    }
    if let Some(example) = &arguments.example {
        let firmware = arguments.board.build_example(example)?;
        let mut qemu = qemu(&arguments, &firmware, &Drive::new(&arguments)?);
        return run(qemu.stdout(Stdio::inherit()).stderr(Stdio::inherit()));
    }
    let firmware = arguments.board.build(arguments.asked.kind())?;
    let flash = Elf::read(&firmware)?.flash_bytes();
    let drive = Drive::new(&arguments)?;
    let said = play(&arguments, &firmware, &drive)?;
    if arguments.show == Show::Json {
        println!("{}", said.to_json(flash)?);
    } else {
        eprintln!("\n\n{}", said.summary.join("\n"));
        eprintln!("flash_bytes={flash}");
        if let Some(kept) = said.kept() {
            eprintln!(
                "the text is longer than the KV cache, and kept its thread for {kept} tokens"
            );
        }
    }
    Ok(())
}

/// What runs a board.
fn emulator(board: &Board) -> Result<&'static Tool> {
    if board.is_emulated() {
        Ok(board.qemu())
    } else {
        let name = board.name;
        Err(format!(
            "{name}: QEMU does not know this board: boards/{name}/README.md says how to flash it"
        ))
    }
}

/// Connects this terminal with the board's serial port, until either ends.
fn talk(arguments: &Arguments) -> Result<()> {
    let Arguments { board, .. } = arguments;
    let firmware = board.build_serial()?;
    let drive = Drive::new(arguments)?;
    eprintln!("Ctrl-D on an empty line ends this");
    let mut qemu = Command::new(board.qemu().program);
    qemu.args(board.machine).args(["-display", "none", "-serial", "stdio", "-monitor", "none"]);
    run(qemu.args(drive.options()).arg("-kernel").arg(firmware))
}

/// The most bytes of the stack that a board uses while it plays an image for a moment.
///
/// # Errors
/// Tools that are missing, or the board's.
pub(crate) fn stack_bytes(board: &'static Board, kind: Kind, image: &Path) -> Result<u64> {
    let asked = match kind {
        Kind::Text => Asked::Text(4, "text", "Once upon a time".to_owned()),
        Kind::Int8 => Asked::Outputs(Inputs::new(Path::new("seeded"))?),
    };
    let (image, show) = (image.to_owned(), Show::Nothing);
    let (high_capacity, serial, example) = (false, false, None);
    let arguments = Arguments { board, image, asked, high_capacity, show, serial, example };
    emulator(board)?.find()?;
    let said = play(&arguments, &board.build(kind)?, &Drive::new(&arguments)?)?;
    said.number("stack_bytes").ok_or(format!("{}: no stack in its summary", board.name))
}

fn parse(arguments: &[String]) -> Result<Arguments> {
    let mut places = vec![];
    let mut prompt = ("text", "Once upon a time".to_owned());
    let (mut max_tokens, mut input) = (64, None);
    let (mut high_capacity, mut show, mut serial) = (false, Show::Text, false);
    let mut example = None;
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
            "--input" => input = Some(Inputs::new(Path::new(&value()?))?),
            "--example" => example = Some(value()?),
            "--sdhc" => high_capacity = true,
            "--json" => show = Show::Json,
            "--serial" => serial = true,
            flag if flag.starts_with('-') => return Err(format!("no option {flag}\n\n{USAGE}")),
            place => places.push(place),
        }
    }
    let [board, image] = places[..] else { return Err(USAGE.to_owned()) };
    let (board, image) = (Board::find(board)?, PathBuf::from(image));
    let asked = match input {
        Some(inputs) => Asked::Outputs(inputs),
        None => Asked::Text(max_tokens, prompt.0, prompt.1),
    };
    Ok(Arguments { board, image, asked, high_capacity, show, serial, example })
}

/// What holds the image while QEMU runs.
enum Drive {
    Card(Card),
    Memory(u64, PathBuf),
}

impl Drive {
    fn new(arguments: &Arguments) -> Result<Self> {
        let Arguments { board, image, high_capacity, .. } = arguments;
        match board.image {
            Place::Card => Card::new(image, *high_capacity).map(Self::Card),
            Place::Memory(..) if *high_capacity => {
                Err(format!("--sdhc: the {} has no SD card", board.name))
            }
            Place::Memory(address, room) => {
                let found = image.metadata().map_err(|e| format!("{}: {e}", image.display()))?;
                let length = found.len();
                if length > room {
                    let name = board.name;
                    return Err(format!(
                        "{}: {length} bytes, and the {name} has room for {room}",
                        image.display()
                    ));
                }
                Ok(Self::Memory(address, image.clone()))
            }
        }
    }

    fn options(&self) -> [String; 2] {
        let quoted = |path: &Path| path.to_string_lossy().replace(',', ",,");
        let (option, value) = match self {
            Self::Card(card) => {
                ("-drive", format!("if=sd,format=raw,file={}", quoted(card.path())))
            }
            Self::Memory(address, image) => {
                let place = format!("addr={address:#x},force-raw=on");
                ("-device", format!("loader,{place},file={}", quoted(image)))
            }
        };
        [option.to_owned(), value]
    }
}

/// What the board said.
#[derive(Default)]
struct Said {
    ids: Vec<u32>,
    text: String,
    outputs: Vec<Output>,
    /// `name=number`
    summary: Vec<String>,
    error: Option<String>,
}

/// Runs QEMU to its end, and prints the text meanwhile.
fn play(arguments: &Arguments, firmware: &Path, drive: &Drive) -> Result<Said> {
    let mut qemu = qemu(arguments, firmware, drive).spawn().map_err(|e| format!("QEMU: {e}"))?;
    let said = listen(&mut qemu, &mut *arguments.out());
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

fn qemu(arguments: &Arguments, firmware: &Path, drive: &Drive) -> Command {
    let words = std::iter::once("omex".to_owned()).chain(arguments.asked.words());
    // A comma ends a value of QEMU's options, unless there are two.
    let line: String = words.map(|word| format!(",arg={}", word.replace(',', ",,"))).collect();
    let mut qemu = Command::new(arguments.board.qemu().program);
    qemu.args(arguments.board.machine);
    qemu.args(["-nographic", "-serial", "null", "-monitor", "none"]);
    qemu.arg("-semihosting-config").arg(format!("enable=on,target=native{line}"));
    qemu.args(drive.options());
    qemu.arg("-kernel").arg(firmware);
    qemu.stdin(Stdio::null()).stdout(Stdio::piped()).stderr(Stdio::piped());
    qemu
}

fn listen(qemu: &mut Child, out: &mut dyn Write) -> Result<Said> {
    let lines = lines(qemu.stdout.take().ok_or("QEMU has no output")?);
    let mut said = Said::default();
    loop {
        match lines.recv_timeout(PATIENCE) {
            Ok(line) => {
                let (text, outputs) = (said.text.len(), said.outputs.len());
                said.hear(&line)?;
                // A reader that went away is no reason to stop.
                let _ = out.write_all(&said.text.as_bytes()[text..]).and_then(|()| out.flush());
                said.outputs[outputs..].iter().for_each(|output| _ = writeln!(out, "{output}"));
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
    /// Takes in a line; `boards/common/src/report.rs` writes them.
    fn hear(&mut self, line: &str) -> Result<()> {
        let not_understood = || format!("the board says what is not understood: {line}");
        let (kind, rest) = line.split_once(' ').ok_or_else(not_understood)?;
        match kind {
            "token" => {
                let (id, text) = rest.split_once(' ').ok_or_else(not_understood)?;
                self.ids.push(id.parse().map_err(|_| not_understood())?);
                unescape(text, &mut self.text);
            }
            "output" => self.outputs.push(Output::parse(rest).ok_or_else(not_understood)?),
            "end" => unescape(rest, &mut self.text),
            "summary" => self.summary = rest.split(' ').map(str::to_owned).collect(),
            "error" => self.error = Some(rest.to_owned()),
            _ => return Err(not_understood()),
        }
        Ok(())
    }

    fn number(&self, name: &str) -> Option<u64> {
        let mut numbers = self.summary.iter().filter_map(|pair| pair.split_once('='));
        numbers.find(|(other, _)| *other == name)?.1.parse().ok()
    }

    /// Positions of the KV cache, if the text is longer.
    fn kept(&self) -> Option<u64> {
        let kept = self.number("kv_positions")?;
        (self.number("positions")? > kept).then_some(kept)
    }

    /// What the board said, what follows from its numbers, and its `flash` bytes.
    fn to_json(&self, flash: u64) -> Result<String> {
        let ids: Vec<_> = self.ids.iter().map(u32::to_string).collect();
        let outputs: Vec<_> = self.outputs.iter().map(Output::to_json).collect();
        let mut fields = vec![
            format!("\"ids\":[{}]", ids.join(",")),
            format!("\"text\":{}", json::string(&self.text)),
            format!("\"outputs\":[{}]", outputs.join(",")),
        ];
        for pair in &self.summary {
            let number = pair.split_once('=').and_then(|(name, n)| Some((name, n.parse().ok()?)));
            let (name, number): (_, u64) =
                number.ok_or_else(|| format!("the board's summary has no number: {pair}"))?;
            fields.push(format!("\"{name}\":{number}"));
        }
        if let Some(output) = self.outputs.last() {
            fields.push(format!("\"output\":{}", output.values()));
        }
        let parts = [self.number("tables_bytes"), self.number("engine_bytes")];
        if let [Some(tables), Some(engine)] = parts {
            fields.push(format!("\"arena_bytes\":{}", tables + engine));
        }
        fields.push(format!("\"flash_bytes\":{flash}"));
        Ok(format!("{{{}}}", fields.join(",")))
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
        said.hear("output i8 01ff a b").unwrap();
        said.hear("summary logits_checksum=1 tables_bytes=2 engine_bytes=3").unwrap();
        let expected = "{\"ids\":[5,7,9],\"text\":\" a\\n\\\\né\",\
                        \"outputs\":[{\"name\":\"a b\",\"values\":[1,-1]}],\
                        \"logits_checksum\":1,\"tables_bytes\":2,\"engine_bytes\":3,\
                        \"output\":[1,-1],\"arena_bytes\":5,\"flash_bytes\":4}";
        assert_eq!(said.to_json(4).unwrap(), expected);
        assert!(said.hear("token x y").is_err());
        assert!(said.hear("").is_err());
    }

    #[test]
    fn a_text_that_is_longer_than_the_cache_is_told() {
        let kept = |summary: &str| {
            let mut said = Said::default();
            said.hear(summary).unwrap();
            said.kept()
        };
        assert_eq!(kept("summary positions=80 kv_positions=80"), None);
        assert_eq!(kept("summary positions=81 kv_positions=80"), Some(80));
        assert_eq!(kept("summary ram_bytes=1"), None);
    }

    #[test]
    fn a_damaged_summary_is_an_error() {
        let mut said = Said::default();
        said.hear("summary ram_bytes=x").unwrap();
        assert_eq!(said.to_json(0).unwrap_err(), "the board's summary has no number: ram_bytes=x");
    }
}
