//! A checkpoint: a pickle, and where the numbers lie that it speaks of.
//!
//! Since version 1.6, PyTorch writes zip archives: `NAME/data.pkl`, and a file in `NAME/data/` for
//! each storage. Before, it wrote pickles one after another: a magic number, a version, the machine's
//! byte order, the checkpoint, and the storages' keys; then the storages, each behind its length.

use super::archive::{self, Archive, DAMAGED};
use super::bytes::Bytes;
use super::global::Global;
use super::pickle::{Node, Pickle, Storage};
use crate::Result;
use crate::import::encoding::Encoding;
use crate::import::source_file::SourceFile;
use std::collections::BTreeMap;
use std::ops::Range;

/// The longest pickle of an archive.
const MAX_PICKLE: u64 = 64 << 20;
/// The number that older files begin with, as a pickle.
const MAGIC: [u8; 13] = *b"\x8a\x0a\x6c\xfc\x9c\x46\xf9\x20\x6a\xa8\x50\x19.";
/// What may come before it: the pickle's version, and a frame's length.
const MAX_START: u64 = 32;

/// A checkpoint.
#[derive(Debug)]
pub(in crate::import) struct Checkpoint {
    pub(super) pickle: Pickle,
    /// Where each of the pickle's storages lies.
    pub(super) places: Vec<Range<u64>>,
}

/// Whether a file begins like a checkpoint of either kind.
pub(super) fn is_plausible(file: &SourceFile) -> Result<bool> {
    let start = start_of(file)?;
    Ok(start.starts_with(&archive::MAGIC) || is_older(&start))
}

/// What tells the kinds apart.
fn start_of(file: &SourceFile) -> Result<Vec<u8>> {
    let mut start = vec![0; file.length.min(MAX_START) as usize];
    file.read("the format", 0, &mut start)?;
    Ok(start)
}

fn is_older(start: &[u8]) -> bool {
    start.starts_with(b"\x80") && start.windows(MAGIC.len()).any(|bytes| bytes == MAGIC)
}

impl Checkpoint {
    pub(in crate::import) fn read(file: &SourceFile) -> Result<Self> {
        let start = start_of(file)?;
        let checkpoint = if start.starts_with(&archive::MAGIC) {
            Self::of_archive(file)?
        } else if is_older(&start) {
            Self::of_pickles(file)?
        } else {
            let remedy = "save it with torch.save, or get the model as safetensors";
            let found = "neither a zip archive nor PyTorch's magic number";
            return Err(file.malformed("the format", found, "a checkpoint of PyTorch", remedy));
        };
        checkpoint.check_overlaps(file)?;
        Ok(checkpoint)
    }

    fn of_archive(file: &SourceFile) -> Result<Self> {
        let archive = Archive::open(file)?;
        let folder = folder(file, &archive)?;
        check_order(file, &archive, &folder)?;
        let name = format!("{folder}/data.pkl");
        let place = archive.find(&name)?.unwrap_or(0..0);
        if place.end - place.start > MAX_PICKLE {
            let (found, expected) =
                (format!("{} bytes", place.end - place.start), format!("at most {MAX_PICKLE}"));
            return Err(file.malformed(name, found, expected, "save the weights alone"));
        }
        let pickle = Pickle::read(&mut Bytes::new(file, place))?;
        let place = |storage: &Storage| {
            let name = format!("{folder}/data/{}", storage.key);
            let place = archive.find(&name)?;
            let (found, expected) =
                (place.clone().map(|place| place.end - place.start), bytes(storage));
            match place.filter(|_| found == expected) {
                Some(place) => Ok(place),
                None => {
                    let found =
                        found.map_or("no such file".into(), |found| format!("{found} bytes"));
                    let expected = format!("{} numbers, as the pickle says", storage.length);
                    Err(file.malformed(name, found, expected, DAMAGED))
                }
            }
        };
        let places = pickle.storages.iter().map(place).collect::<Result<_>>()?;
        Ok(Self { pickle, places })
    }

    fn of_pickles(file: &SourceFile) -> Result<Self> {
        let mut bytes = Bytes::new(file, 0..file.length);
        let _magic = Pickle::read(&mut bytes)?;
        let _version = Pickle::read(&mut bytes)?;
        let machine = Pickle::read(&mut bytes)?;
        let order = machine.entries(machine.root);
        let order = order.and_then(|fields| fields.get("little_endian").copied());
        if !order.is_some_and(|order| *machine.get(order) == Node::Bool(true)) {
            return Err(other_order(file, "little_endian"));
        }
        let pickle = Pickle::read(&mut bytes)?;
        let places = older_places(&mut bytes, &pickle)?;
        Ok(Self { pickle, places })
    }

    /// Refuses storages that lie one over another: a small file would stand for any number of them.
    fn check_overlaps(&self, file: &SourceFile) -> Result<()> {
        let mut sorted: Vec<_> = self.places.iter().filter(|place| !place.is_empty()).collect();
        sorted.sort_unstable_by_key(|place| place.start);
        for pair in sorted.windows(2) {
            if let [first, second] = *pair
                && second.start < first.end
            {
                let found = format!("a storage from byte {} on", second.start);
                let expected = format!("the next from byte {} on", first.end);
                return Err(file.malformed("storages", found, expected, DAMAGED));
            }
        }
        Ok(())
    }
}

/// The bytes of a storage.
fn bytes(storage: &Storage) -> Option<u64> {
    storage.length.checked_mul(number_bytes(storage))
}

fn number_bytes(storage: &Storage) -> u64 {
    let size = |encoding: Encoding| u64::from(encoding.block_bytes());
    match storage.kind {
        Global::Storage(Some(encoding)) => size(encoding),
        _ => 1,
    }
}

/// The folder in the archive that everything lies in.
fn folder(file: &SourceFile, archive: &Archive<'_>) -> Result<String> {
    let folder = |name: &str| name.strip_suffix("/data.pkl").map(str::to_owned);
    let mut folders = archive.names().filter_map(folder);
    let Some(found) = folders.next() else {
        let (found, remedy) = ("an archive without data.pkl", "give a checkpoint of PyTorch");
        return Err(file.malformed("the format", found, "what torch.save writes", remedy));
    };
    if archive.names().any(|name| *name == format!("{found}/constants.pkl")) {
        let remedy = "save its weights, torch.save(model.state_dict(), FILE), or get the model as \
                      safetensors";
        let found = "a program (TorchScript)";
        return Err(file.malformed("the format", found, "a checkpoint", remedy));
    }
    Ok(found)
}

/// Refuses numbers that are stored with their first byte first.
fn check_order(file: &SourceFile, archive: &Archive<'_>, folder: &str) -> Result<()> {
    let name = format!("{folder}/byteorder");
    let Some(place) = archive.find(&name)? else { return Ok(()) };
    let mut order = [0; 6];
    let read = place.end - place.start == 6 && file.read(&name, place.start, &mut order).is_ok();
    match read && order == *b"little" {
        true => Ok(()),
        false => Err(other_order(file, &name)),
    }
}

fn other_order(file: &SourceFile, field: &str) -> crate::Error {
    let (found, expected) = ("another byte order", "little-endian numbers");
    file.malformed(field, found, expected, "save it on another machine, or get safetensors")
}

/// Where storages lie behind the pickles of an older file.
fn older_places(bytes: &mut Bytes<'_>, pickle: &Pickle) -> Result<Vec<Range<u64>>> {
    let list = Pickle::read(bytes)?;
    let (file, mut at) = (bytes.file(), bytes.at());
    let keys = match list.get(list.root) {
        Node::List(keys) => keys.iter().map(|key| list.get(*key)).collect(),
        _ => vec![],
    };
    let numbers: BTreeMap<_, _> = pickle.storages.iter().map(|s| &s.key).zip(0..).collect();
    let number = |key: &Node| match key {
        Node::Text(key) => numbers.get(key).copied(),
        _ => None,
    };
    let mut places = vec![None; pickle.storages.len()];
    for key in keys {
        let Some(number): Option<usize> = number(key) else {
            let (found, expected) = ("a key that the checkpoint has not", "those that it has");
            return Err(file.malformed("keys of storages", found, expected, DAMAGED));
        };
        let storage = &pickle.storages[number];
        let mut length = [0; 8];
        file.read("length of a storage", at, &mut length)?;
        let start = at + 8;
        let end = bytes_of(storage, u64::from_le_bytes(length)).and_then(|n| start.checked_add(n));
        let Some(end) = end.filter(|end| *end <= file.length) else {
            let found = format!("{} numbers", u64::from_le_bytes(length));
            let expected = format!("{} numbers within the file", storage.length);
            let field = format!("length of storage {}", storage.key);
            return Err(file.malformed(field, found, expected, "get the file again"));
        };
        places[number] = Some(start..end);
        at = end;
    }
    let missing = places.iter().position(Option::is_none);
    match missing {
        None => Ok(places.into_iter().flatten().collect()),
        Some(number) => {
            let found = format!("no storage {}", pickle.storages[number].key);
            Err(file.malformed("keys of storages", found, "all that the pickle names", DAMAGED))
        }
    }
}

/// The bytes of a storage that is said to have so many numbers.
fn bytes_of(storage: &Storage, length: u64) -> Option<u64> {
    bytes(storage).filter(|_| length == storage.length)
}
