//! ONNX files, message by message, as exporters write them and as nobody should.

/// A graph.
#[derive(Clone, Debug, Default)]
pub struct Onnx {
    nodes: Vec<Vec<u8>>,
    constants: Vec<Vec<u8>>,
    inputs: Vec<Vec<u8>>,
    outputs: Vec<Vec<u8>>,
}

/// A number of variable length.
#[must_use]
pub fn varint(mut number: u64) -> Vec<u8> {
    let mut bytes = vec![];
    while number > 127 {
        bytes.push(number as u8 | 128);
        number >>= 7;
    }
    bytes.push(number as u8);
    bytes
}

/// A field that is a text, bytes, or a message.
#[must_use]
pub fn piece(number: u64, bytes: impl AsRef<[u8]>) -> Vec<u8> {
    let bytes = bytes.as_ref();
    [varint(number << 3 | 2), varint(bytes.len() as u64), bytes.to_vec()].concat()
}

/// A field that is a number.
#[must_use]
pub fn integer(number: u64, value: i64) -> Vec<u8> {
    [varint(number << 3), varint(value.cast_unsigned())].concat()
}

/// An attribute of a node, one number or several.
#[must_use]
pub fn attribute(name: &str, values: &[i64]) -> Vec<u8> {
    let value = match values {
        [value] => [integer(3, *value), integer(20, 2)].concat(),
        _ => {
            let values = values.iter().flat_map(|value| varint(value.cast_unsigned()));
            [piece(8, values.collect::<Vec<_>>()), integer(20, 7)].concat()
        }
    };
    piece(5, [piece(1, name), value].concat())
}

/// A note of torch's exporter: the module that a node was made of.
#[must_use]
pub fn scopes(path: &str) -> Vec<u8> {
    let value = format!("['', '{path}', 'op_1']");
    piece(9, [piece(1, "pkg.torch.onnx.name_scopes"), piece(2, value)].concat())
}

/// A tensor: its name, its sides, the number of its type, and the fields with its numbers.
#[must_use]
pub fn tensor(name: &str, sides: &[u32], kind: i64, numbers: &[u8]) -> Vec<u8> {
    let sides: Vec<u8> = sides.iter().flat_map(|side| integer(1, i64::from(*side))).collect();
    [sides, integer(2, kind), piece(8, name), numbers.to_vec()].concat()
}

/// Numbers in another file: the fields of their place there.
#[must_use]
pub fn external(location: &str, offset: u64, length: u64) -> Vec<u8> {
    let entry = |key: &str, value: &str| piece(13, [piece(1, key), piece(2, value)].concat());
    [
        entry("location", location),
        entry("offset", &offset.to_string()),
        entry("length", &length.to_string()),
        integer(14, 1),
    ]
    .concat()
}

impl Onnx {
    /// Adds an operation with further fields of it.
    pub fn node(
        &mut self,
        operation: &str,
        name: &str,
        inputs: &[&str],
        output: &str,
        fields: &[u8],
    ) {
        let inputs: Vec<u8> = inputs.iter().flat_map(|input| piece(1, input)).collect();
        let rest = [piece(2, output), piece(3, name), piece(4, operation), fields.to_vec()];
        self.nodes.push([inputs, rest.concat()].concat());
    }

    /// Adds a constant, see [`tensor`].
    pub fn constant(&mut self, tensor: Vec<u8>) {
        self.constants.push(tensor);
    }

    /// Adds floats that the graph takes.
    pub fn input(&mut self, name: &str, sides: &[u32]) {
        let side = |side: &u32| piece(1, integer(1, i64::from(*side)));
        let sides: Vec<u8> = sides.iter().flat_map(side).collect();
        let kind = piece(1, [integer(1, 1), piece(2, sides)].concat());
        self.inputs.push([piece(1, name), piece(2, kind)].concat());
    }

    /// Adds what the graph gives.
    pub fn output(&mut self, name: &str) {
        self.outputs.push(piece(1, name));
    }

    /// The fields of the graph.
    #[must_use]
    pub fn graph(&self) -> Vec<u8> {
        let all = |number, items: &[Vec<u8>]| -> Vec<u8> {
            items.iter().flat_map(|item| piece(number, item)).collect()
        };
        let ends = [all(11, &self.inputs), all(12, &self.outputs)].concat();
        [all(1, &self.nodes), piece(2, "main"), all(5, &self.constants), ends].concat()
    }

    /// The file.
    #[must_use]
    pub fn file(&self) -> Vec<u8> {
        let opset = piece(8, integer(2, 17));
        [integer(1, 8), piece(2, "pytorch"), piece(7, self.graph()), opset].concat()
    }
}
