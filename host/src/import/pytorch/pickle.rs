//! Pickles of checkpoints, read without running anything.
//!
//! A pickle is a program: it may call any function of Python. Here it can only put together plain
//! values and what [`Global`] lists; every other opcode and global is refused by name. Values lie in
//! one list and know each other by number, so neither cycles nor depth cost anything.
//! The opcodes are described in Python's `pickletools`.

use super::bytes::Bytes;
use super::global::Global;
use crate::{Error, Result};
use std::collections::BTreeMap;

/// The most opcodes, and the most values: a model of 50,000 tensors has fewer.
const MAX_STEPS: usize = 4 << 20;
const MAX_VALUES: usize = 1 << 20;
/// The most bytes of all texts together.
const MAX_TEXT: usize = 16 << 20;
/// The most arguments of anything that is called, and the most dimensions of a tensor.
const MAX_ARGUMENTS: usize = 10;
const DAMAGED: &str = "the file is damaged: get it again";
const HARMFUL: &str = "a pickle can run code, and this one is not read: get the model as safetensors, \
                       or save only its weights, torch.save(model.state_dict(), FILE)";

/// The number of a value.
pub(super) type Id = u32;
const NONE: Id = 0;
const FALSE: Id = 1;
const TRUE: Id = 2;
const EMPTY_TUPLE: Id = 3;

/// A value of a pickle.
#[derive(Clone, Debug, PartialEq)]
pub(super) enum Node {
    None,
    Bool(bool),
    Integer(i64),
    Float(f64),
    Text(Box<str>),
    Tuple(Vec<Id>),
    List(Vec<Id>),
    Dict(Vec<(Id, Id)>),
    Global(Global),
    /// The number of a storage.
    Storage(usize),
    Tensor(Box<Tensor>),
    /// What no weight depends on, by its kind.
    Opaque(&'static str),
}

/// A tensor: a view of a storage.
#[derive(Clone, Debug, PartialEq)]
pub(super) struct Tensor {
    pub(super) storage: usize,
    /// Its type, where the storage has none.
    pub(super) kind: Option<Global>,
    /// The first number's place in the storage.
    pub(super) start: u64,
    pub(super) shape: Vec<u64>,
    pub(super) strides: Vec<u64>,
}

/// Numbers that lie elsewhere in the file.
#[derive(Clone, Debug, PartialEq)]
pub(super) struct Storage {
    pub(super) key: Box<str>,
    /// A storage's type.
    pub(super) kind: Global,
    /// How many numbers.
    pub(super) length: u64,
}

/// What a pickle made.
#[derive(Debug)]
pub(super) struct Pickle {
    nodes: Vec<Node>,
    pub(super) storages: Vec<Storage>,
    pub(super) root: Id,
}

impl Pickle {
    /// Reads one pickle, up to its end.
    pub(super) fn read(bytes: &mut Bytes<'_>) -> Result<Self> {
        let mut machine = Machine::new(bytes);
        let root = machine.run()?;
        Ok(Self { nodes: machine.nodes, storages: machine.storages, root })
    }

    pub(super) fn get(&self, id: Id) -> &Node {
        &self.nodes[id as usize]
    }

    /// The entries of a dictionary whose keys are texts; the last of a key counts, as in Python.
    pub(super) fn entries(&self, id: Id) -> Option<BTreeMap<&str, Id>> {
        let Node::Dict(entries) = self.get(id) else { return None };
        let named = entries.iter().filter_map(|(key, value)| match self.get(*key) {
            Node::Text(key) => Some((&**key, *value)),
            _ => None,
        });
        Some(named.collect())
    }
}

/// A pickle being read.
struct Machine<'m, 'f> {
    bytes: &'m mut Bytes<'f>,
    nodes: Vec<Node>,
    stack: Vec<Id>,
    /// Heights of the stack: what lies below the last is out of reach until it is taken away.
    marks: Vec<usize>,
    memo: BTreeMap<u32, Id>,
    storages: Vec<Storage>,
    keys: BTreeMap<Box<str>, usize>,
    text: usize,
    /// Where the opcode lies that is carried out.
    at: u64,
}

impl<'m, 'f> Machine<'m, 'f> {
    fn new(bytes: &'m mut Bytes<'f>) -> Self {
        let nodes = vec![Node::None, Node::Bool(false), Node::Bool(true), Node::Tuple(Vec::new())];
        let at = bytes.at();
        let (stack, marks, storages) = (vec![], vec![], vec![]);
        let (memo, keys) = (BTreeMap::new(), BTreeMap::new());
        Self { bytes, nodes, stack, marks, memo, storages, keys, text: 0, at }
    }

    /// Carries out opcode after opcode, and returns what is on top of the stack at the end.
    fn run(&mut self) -> Result<Id> {
        for _ in 0..MAX_STEPS {
            self.at = self.bytes.at();
            let [opcode] = self.bytes.take()?;
            if opcode == b'.' {
                return self.pop();
            }
            let done = self.scalar(opcode)?
                || self.collection(opcode)?
                || self.remembered(opcode)?
                || self.call(opcode)?;
            if !done {
                return Err(self.refused(&format!("opcode {}", name(opcode)), HARMFUL));
            }
        }
        let found = format!("more than {MAX_STEPS} opcodes");
        Err(self.refused(&found, "save the weights alone, or in several files"))
    }

    /// Opcodes that put a number, a text or another plain value on the stack.
    fn scalar(&mut self, opcode: u8) -> Result<bool> {
        let node = match opcode {
            0x80 => {
                let [_protocol] = self.bytes.take()?;
                return Ok(true);
            }
            // The length of a frame, which is for those who read ahead.
            0x95 => {
                self.bytes.take::<8>()?;
                return Ok(true);
            }
            b'N' | 0x88 | 0x89 | b')' => {
                let id = match opcode {
                    b'N' => NONE,
                    0x88 => TRUE,
                    0x89 => FALSE,
                    _ => EMPTY_TUPLE,
                };
                return self.push(id).map(|()| true);
            }
            b'J' => Node::Integer(i32::from_le_bytes(self.bytes.take()?).into()),
            b'K' => Node::Integer(u8::from_le_bytes(self.bytes.take()?).into()),
            b'M' => Node::Integer(u16::from_le_bytes(self.bytes.take()?).into()),
            b'G' => Node::Float(f64::from_be_bytes(self.bytes.take()?)),
            0x8a => self.long()?,
            b'X' | b'T' => self.text_of::<4>()?,
            0x8c | b'U' => self.text_of::<1>()?,
            0x8d => self.text_of::<8>()?,
            b'B' => self.skipped::<4>()?,
            b'C' => self.skipped::<1>()?,
            0x8e => self.skipped::<8>()?,
            _ => return Ok(false),
        };
        self.make(node)?;
        Ok(true)
    }

    /// Opcodes that make lists, tuples and dictionaries.
    fn collection(&mut self, opcode: u8) -> Result<bool> {
        match opcode {
            b'(' => self.marks.push(self.stack.len()),
            b']' => self.make(Node::List(vec![]))?,
            b'}' => self.make(Node::Dict(vec![]))?,
            0x85..=0x87 => {
                let mut items = Vec::new();
                for _ in 0x84..opcode {
                    items.insert(0, self.pop()?);
                }
                self.make(Node::Tuple(items))?;
            }
            b't' => {
                let items = self.above_mark()?;
                self.make(Node::Tuple(items))?;
            }
            b'a' => {
                let item = self.pop()?;
                self.append(&[item])?;
            }
            b'e' => {
                let items = self.above_mark()?;
                self.append(&items)?;
            }
            b's' => {
                let (value, key) = (self.pop()?, self.pop()?);
                self.insert(&[key, value])?;
            }
            b'u' => {
                let items = self.above_mark()?;
                self.insert(&items)?;
            }
            _ => return Ok(false),
        }
        Ok(true)
    }

    /// Opcodes that say something a second time, or take it away.
    fn remembered(&mut self, opcode: u8) -> Result<bool> {
        match opcode {
            b'q' => {
                let [key] = self.bytes.take()?;
                self.remember(key.into())?;
            }
            b'r' => {
                let key = u32::from_le_bytes(self.bytes.take()?);
                self.remember(key)?;
            }
            0x94 => self.remember(self.memo.len() as u32)?,
            b'h' => {
                let [key] = self.bytes.take()?;
                self.recall(key.into())?;
            }
            b'j' => {
                let key = u32::from_le_bytes(self.bytes.take()?);
                self.recall(key)?;
            }
            b'0' => drop(self.pop()?),
            b'1' => drop(self.above_mark()?),
            b'2' => {
                let top = self.top()?;
                self.push(top)?;
            }
            _ => return Ok(false),
        }
        Ok(true)
    }

    /// Opcodes that name something of Python's, or do something with it.
    fn call(&mut self, opcode: u8) -> Result<bool> {
        match opcode {
            b'c' => {
                let (module, name) = (self.bytes.line()?, self.bytes.line()?);
                self.global(&module, &name)?;
            }
            0x93 => {
                let (name, module) = (self.pop()?, self.pop()?);
                let (Node::Text(module), Node::Text(name)) = (self.node(module), self.node(name))
                else {
                    return Err(self.refused("STACK_GLOBAL of what is no text", HARMFUL));
                };
                let (module, name) = (module.clone(), name.clone());
                self.global(&module, &name)?;
            }
            b'R' => {
                let (arguments, function) = (self.pop()?, self.pop()?);
                self.reduce(function, arguments)?;
            }
            b'b' => {
                let state = self.pop()?;
                self.build(state)?;
            }
            b'Q' => {
                let id = self.pop()?;
                self.persistent(id)?;
            }
            _ => return Ok(false),
        }
        Ok(true)
    }

    fn global(&mut self, module: &str, name: &str) -> Result<()> {
        match Global::find(module, name) {
            Some(global) => self.make(Node::Global(global)),
            None => Err(self.refused(&format!("global {module}.{name}"), HARMFUL)),
        }
    }

    /// Calls something of Python's that is known.
    fn reduce(&mut self, function: Id, arguments: Id) -> Result<()> {
        let (Node::Global(global), Node::Tuple(given)) =
            (self.node(function), self.node(arguments))
        else {
            return Err(self.refused("REDUCE of what is no global with a tuple", HARMFUL));
        };
        // What is named again and again must not be copied each time, whatever its length.
        if given.len() > MAX_ARGUMENTS {
            return Err(self.refused(&format!("REDUCE of {global}"), HARMFUL));
        }
        let (global, given) = (*global, given.clone());
        let made = match (global, given.as_slice()) {
            (Global::OrderedDict, []) => Node::Dict(vec![]),
            (Global::Size, [sides]) if matches!(self.node(*sides), Node::Tuple(_)) => {
                return self.push(*sides);
            }
            (Global::Parameter, [tensor, ..]) if matches!(self.node(*tensor), Node::Tensor(_)) => {
                return self.push(*tensor);
            }
            (Global::Tensor { typed }, [storage, start, shape, strides, rest @ ..]) => {
                let kind = match (typed, rest) {
                    (false, _) => None,
                    (true, [_, _, kind, ..]) => Some(self.kind(*kind)?),
                    (true, _) => return Err(self.malformed("a tensor without its type")),
                };
                self.tensor([*storage, *start, *shape, *strides], kind)?
            }
            (Global::Inert(name), _) => Node::Opaque(name),
            _ => return Err(self.refused(&format!("REDUCE of {global}"), HARMFUL)),
        };
        self.make(made)
    }

    fn tensor(&self, arguments: [Id; 4], kind: Option<Global>) -> Result<Node> {
        let [storage, start, shape, strides] = arguments.map(|id| self.node(id));
        let (&Node::Storage(storage), &Node::Integer(start)) = (storage, start) else {
            return Err(self.malformed("a tensor of what is no storage"));
        };
        let sides = |node: &Node| match node {
            Node::Tuple(sides) if sides.len() <= MAX_ARGUMENTS => {
                sides.iter().map(|id| self.count(*id)).collect()
            }
            _ => None,
        };
        let start = u64::try_from(start).ok();
        let Some(((start, shape), strides)) = start.zip(sides(shape)).zip(sides(strides)) else {
            return Err(self.malformed("a tensor whose shape, strides or start are no sizes"));
        };
        Ok(Node::Tensor(Box::new(Tensor { storage, kind, start, shape, strides })))
    }

    fn count(&self, id: Id) -> Option<u64> {
        match self.node(id) {
            Node::Integer(count) => u64::try_from(*count).ok(),
            _ => None,
        }
    }

    fn kind(&self, id: Id) -> Result<Global> {
        match self.node(id) {
            Node::Global(kind @ Global::Type(..)) => Ok(*kind),
            _ => Err(self.malformed("a tensor whose type is no torch.dtype")),
        }
    }

    /// Gives what is on top of the stack a state; that of a dictionary says nothing about weights.
    fn build(&self, state: Id) -> Result<()> {
        let target = self.top()?;
        match (self.node(target), self.node(state)) {
            (Node::Dict(_), Node::Dict(_)) => Ok(()),
            _ => Err(self.refused("BUILD of what is no dictionary", HARMFUL)),
        }
    }

    /// What lies elsewhere in the file.
    fn persistent(&mut self, id: Id) -> Result<()> {
        let Node::Tuple(parts) = self.node(id) else {
            return Err(self.refused("BINPERSID of what is no tuple", HARMFUL));
        };
        if parts.len() > MAX_ARGUMENTS {
            return Err(self.malformed("a persistent id that names no storage"));
        }
        let parts: Vec<&Node> = parts.iter().map(|id| self.node(*id)).collect();
        let (kind, key, length) = match parts.as_slice() {
            [Node::Text(what), kind, Node::Text(key), _place, Node::Integer(length)]
            | [
                Node::Text(what),
                kind,
                Node::Text(key),
                _place,
                Node::Integer(length),
                Node::None,
            ] if &**what == "storage" => (*kind, key, *length),
            [Node::Text(what), ..] if &**what != "storage" => {
                return Err(self.refused(&format!("persistent id {what:?}"), HARMFUL));
            }
            _ => return Err(self.malformed("a persistent id that names no storage")),
        };
        let (&Node::Global(kind @ Global::Storage(_)), Ok(length)) = (kind, u64::try_from(length))
        else {
            return Err(self.malformed("a storage without type or length"));
        };
        let storage = Storage { key: key.clone(), kind, length };
        let number = self.storage(storage)?;
        self.make(Node::Storage(number))
    }

    /// The number of a storage, which may have been named before.
    fn storage(&mut self, storage: Storage) -> Result<usize> {
        let Some(&number) = self.keys.get(&storage.key) else {
            self.keys.insert(storage.key.clone(), self.storages.len());
            self.storages.push(storage);
            return Ok(self.storages.len() - 1);
        };
        if self.storages[number] != storage {
            let found = format!("storage {:?} with another type or length", storage.key);
            return Err(self.malformed(&found));
        }
        Ok(number)
    }

    /// A whole number of any length; what is longer than 64 bits is nothing that weights depend on.
    fn long(&mut self) -> Result<Node> {
        let [length] = self.bytes.take()?;
        if length > 8 {
            self.bytes.skip(length.into())?;
            return Ok(Node::Opaque("a long number"));
        }
        let mut bytes = self.bytes.text(length.into())?;
        let sign = bytes.last().is_some_and(|last| last & 0x80 != 0);
        bytes.resize(8, if sign { 0xff } else { 0 });
        Ok(Node::Integer(i64::from_le_bytes(bytes.as_slice().try_into().unwrap_or([0; 8]))))
    }

    /// A length of so many bytes.
    fn length<const N: usize>(&mut self) -> Result<u64> {
        let mut length = [0; 8];
        length[..N].copy_from_slice(&self.bytes.take::<N>()?);
        Ok(u64::from_le_bytes(length))
    }

    fn text_of<const N: usize>(&mut self) -> Result<Node> {
        let length = self.length::<N>()?;
        let room = MAX_TEXT - self.text;
        let Some(length) = usize::try_from(length).ok().filter(|length| *length <= room) else {
            let remedy = "save the weights alone";
            return Err(self.refused(&format!("more than {MAX_TEXT} bytes of text"), remedy));
        };
        self.text += length;
        let text = self.bytes.text(length)?;
        let text =
            String::from_utf8(text).map_err(|_| self.malformed("a text that is no UTF-8"))?;
        Ok(Node::Text(text.into()))
    }

    fn skipped<const N: usize>(&mut self) -> Result<Node> {
        let length = self.length::<N>()?;
        self.bytes.skip(length)?;
        Ok(Node::Opaque("bytes"))
    }

    fn append(&mut self, items: &[Id]) -> Result<()> {
        let list = self.top()?;
        match &mut self.nodes[list as usize] {
            Node::List(list) => list.extend(items),
            _ => return Err(self.refused("APPEND to what is no list", HARMFUL)),
        }
        Ok(())
    }

    fn insert(&mut self, items: &[Id]) -> Result<()> {
        let dict = self.top()?;
        let (pairs, []) = items.as_chunks::<2>() else {
            return Err(self.malformed("a key without a value"));
        };
        match &mut self.nodes[dict as usize] {
            Node::Dict(dict) => dict.extend(pairs.iter().map(|[key, value]| (*key, *value))),
            _ => return Err(self.refused("SETITEM of what is no dictionary", HARMFUL)),
        }
        Ok(())
    }

    fn remember(&mut self, key: u32) -> Result<()> {
        let top = self.top()?;
        self.memo.insert(key, top);
        self.within_limit(self.memo.len())
    }

    fn recall(&mut self, key: u32) -> Result<()> {
        match self.memo.get(&key) {
            Some(id) => self.push(*id),
            None => Err(self.malformed(&format!("a reference to value {key}, which is none"))),
        }
    }

    fn node(&self, id: Id) -> &Node {
        &self.nodes[id as usize]
    }

    /// Puts a new value on the stack.
    fn make(&mut self, node: Node) -> Result<()> {
        self.within_limit(self.nodes.len())?;
        self.nodes.push(node);
        self.push(self.nodes.len() as Id - 1)
    }

    fn push(&mut self, id: Id) -> Result<()> {
        self.within_limit(self.stack.len())?;
        self.stack.push(id);
        Ok(())
    }

    fn within_limit(&self, count: usize) -> Result<()> {
        if count < MAX_VALUES {
            return Ok(());
        }
        let found = format!("more than {MAX_VALUES} values");
        Err(self.refused(&found, "save the weights alone, or in several files"))
    }

    fn floor(&self) -> usize {
        self.marks.last().copied().unwrap_or(0)
    }

    fn top(&self) -> Result<Id> {
        let top = self.stack.last().filter(|_| self.stack.len() > self.floor());
        top.copied().ok_or_else(|| self.malformed("a value of an empty stack"))
    }

    fn pop(&mut self) -> Result<Id> {
        let top = self.top()?;
        self.stack.pop();
        Ok(top)
    }

    /// What lies above the last mark, which is taken away.
    fn above_mark(&mut self) -> Result<Vec<Id>> {
        let mark =
            self.marks.pop().ok_or_else(|| self.malformed("the end of what has no start"))?;
        Ok(self.stack.split_off(mark))
    }

    fn malformed(&self, found: &str) -> Error {
        self.refused(found, DAMAGED)
    }

    fn refused(&self, found: &str, remedy: &str) -> Error {
        let field = format!("pickle, byte {}", self.at);
        let expected = "tensors, numbers, texts, lists and dictionaries, as torch.save writes them";
        self.bytes.file().malformed(field, found, expected, remedy)
    }
}

/// What Python calls an opcode that is not carried out.
fn name(opcode: u8) -> String {
    let name = match opcode {
        b'i' => "INST",
        b'o' => "OBJ",
        0x81 => "NEWOBJ",
        0x92 => "NEWOBJ_EX",
        0x82 => "EXT1",
        0x83 => "EXT2",
        0x84 => "EXT4",
        b'P' => "PERSID",
        0x96 => "BYTEARRAY8",
        0x97 => "NEXT_BUFFER",
        0x98 => "READONLY_BUFFER",
        0x8f => "EMPTY_SET",
        0x90 => "ADDITEMS",
        0x91 => "FROZENSET",
        0x8b => "LONG4",
        b'g' => "GET",
        b'p' => "PUT",
        b'I' => "INT",
        b'L' => "LONG",
        b'F' => "FLOAT",
        b'S' => "STRING",
        b'V' => "UNICODE",
        b'l' => "LIST",
        b'd' => "DICT",
        _ => return format!("{opcode:#04x}"),
    };
    name.to_owned()
}
