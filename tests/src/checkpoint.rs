//! Checkpoints as PyTorch writes them, and pickles as nobody should.

/// A tensor of a checkpoint, with a storage of its own.
#[derive(Clone, Debug)]
pub struct Checkpointed {
    /// Its name.
    pub name: String,
    /// Its sides.
    pub shape: Vec<u32>,
    /// How many numbers apart the steps of each dimension are.
    pub strides: Vec<u32>,
    /// The storage's numbers.
    pub numbers: Vec<f32>,
}

impl Checkpointed {
    /// A tensor that lies row behind row.
    #[must_use]
    pub fn new(name: &str, shape: &[u32], numbers: Vec<f32>) -> Self {
        let strides = (1..=shape.len()).map(|at| shape[at..].iter().product());
        Self { name: name.to_owned(), shape: shape.to_vec(), strides: strides.collect(), numbers }
    }
}

/// Opcodes that put plain values on a pickle's stack.
pub mod pickle {
    /// A text.
    #[must_use]
    pub fn text(text: &str) -> Vec<u8> {
        [&b"X"[..], &(text.len() as u32).to_le_bytes(), text.as_bytes()].concat()
    }

    /// A whole number.
    #[must_use]
    pub fn integer(number: u32) -> Vec<u8> {
        [&b"J"[..], &number.to_le_bytes()].concat()
    }

    /// A tuple of values.
    #[must_use]
    pub fn tuple(items: &[Vec<u8>]) -> Vec<u8> {
        [b"(", &*items.concat(), b"t"].concat()
    }

    /// Something of Python's.
    #[must_use]
    pub fn global(module: &str, name: &str) -> Vec<u8> {
        format!("c{module}\n{name}\n").into_bytes()
    }

    /// A dictionary of names and values.
    #[must_use]
    pub fn dict(entries: &[(&str, Vec<u8>)]) -> Vec<u8> {
        let entries = entries.iter().map(|(name, value)| [text(name), value.clone()].concat());
        [&b"}("[..], &entries.collect::<Vec<_>>().concat(), b"u"].concat()
    }

    /// A pickle that ends with the value which these opcodes leave.
    #[must_use]
    pub fn whole(value: &[u8]) -> Vec<u8> {
        [b"\x80\x02", value, b"."].concat()
    }

    /// A tensor of 32-bit floats that is a view of a storage with this key and length.
    #[must_use]
    pub fn tensor(key: &str, length: u32, start: u32, shape: &[u32], strides: &[u32]) -> Vec<u8> {
        let place = tuple(&[
            text("storage"),
            global("torch", "FloatStorage"),
            text(key),
            text("cpu"),
            integer(length),
        ]);
        let storage = [&place[..], b"Q"].concat();
        let sides = |sides: &[u32]| tuple(&sides.iter().map(|n| integer(*n)).collect::<Vec<_>>());
        let hooks = [global("collections", "OrderedDict"), b")R".to_vec()].concat();
        let arguments =
            [storage, integer(start), sides(shape), sides(strides), b"\x89".to_vec(), hooks];
        [global("torch._utils", "_rebuild_tensor_v2"), tuple(&arguments), b"R".to_vec()].concat()
    }
}

/// Opcodes that leave a dictionary of these tensors.
#[must_use]
pub fn state_dict(tensors: &[Checkpointed]) -> Vec<u8> {
    let tensor = |(number, tensor): (usize, &Checkpointed)| {
        let Checkpointed { shape, strides, numbers, .. } = tensor;
        pickle::tensor(&number.to_string(), numbers.len() as u32, 0, shape, strides)
    };
    let values: Vec<_> = tensors.iter().enumerate().map(tensor).collect();
    let entries: Vec<_> = tensors.iter().map(|tensor| &*tensor.name).zip(values).collect();
    pickle::dict(&entries)
}

fn bytes(tensor: &Checkpointed) -> Vec<u8> {
    tensor.numbers.iter().flat_map(|number| number.to_le_bytes()).collect()
}

/// A checkpoint as PyTorch writes them since version 1.6: `value` is what its pickle's opcodes leave.
#[must_use]
pub fn checkpoint(value: &[u8], tensors: &[Checkpointed]) -> Vec<u8> {
    let mut files = vec![
        ("model/data.pkl".to_owned(), pickle::whole(value)),
        ("model/byteorder".to_owned(), b"little".to_vec()),
    ];
    let storages = tensors.iter().enumerate();
    files.extend(storages.map(|(number, tensor)| (format!("model/data/{number}"), bytes(tensor))));
    archive(&files)
}

/// A checkpoint as PyTorch wrote them before.
#[must_use]
pub fn older_checkpoint(value: &[u8], tensors: &[Checkpointed]) -> Vec<u8> {
    let magic = b"\x8a\x0a\x6c\xfc\x9c\x46\xf9\x20\x6a\xa8\x50\x19";
    let machine = pickle::dict(&[("little_endian", b"\x88".to_vec())]);
    let keys: Vec<_> = (0..tensors.len()).map(|number| pickle::text(&number.to_string())).collect();
    let keys = [b"](", &*keys.concat(), b"e"].concat();
    let pickles = [&magic[..], b"M\xe9\x03", &machine, value, &keys].map(pickle::whole);
    let mut file = pickles.concat();
    for tensor in tensors {
        file.extend((tensor.numbers.len() as u64).to_le_bytes());
        file.extend(bytes(tensor));
    }
    file
}

/// A zip archive of files that are stored as they are, without checksums.
#[must_use]
pub fn archive(files: &[(String, Vec<u8>)]) -> Vec<u8> {
    let (mut archive, mut list) = (vec![], vec![]);
    for (name, content) in files {
        let sizes = [content.len() as u32; 2].map(u32::to_le_bytes).concat();
        let place = (archive.len() as u32).to_le_bytes();
        let names = [name.len() as u16, 0].map(u16::to_le_bytes).concat();
        // Version 2.0, no flags, method 0, no date, no checksum.
        let common = [&[20, 0][..], &[0; 12], &sizes, &names].concat();
        archive.extend([b"PK\x03\x04", &*common, name.as_bytes(), content].concat());
        list.extend([b"PK\x01\x02\x14\0", &*common, &[0; 10], &place, name.as_bytes()].concat());
    }
    let count = (files.len() as u16).to_le_bytes();
    let place = [list.len() as u32, archive.len() as u32].map(u32::to_le_bytes).concat();
    let end = [b"PK\x05\x06\0\0\0\0", &count[..], &count, &place, &[0, 0]].concat();
    [archive, list, end].concat()
}
