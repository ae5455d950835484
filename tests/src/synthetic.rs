//! Models with pseudo-random weights, of any shape.

use half::f16;
use omex::Result;
use omex::import::{Container, Encoding, Fields, SourceFormat, TensorInfo, TokenizerSource};
use std::path::Path;

/// The sizes of a Llama.
#[derive(Clone, Copy, Debug)]
struct Sizes {
    hidden_size: u32,
    intermediate_size: u32,
    layers: u32,
    heads: u32,
    kv_heads: u32,
    head_dim: u32,
    vocab_size: u32,
    context_length: u32,
    tied_embeddings: bool,
}

impl Sizes {
    /// The hyperparameters, as a `config.json` has them. No token ends a text.
    fn config(&self) -> Fields {
        let config = serde_json::json!({
            "architectures": ["LlamaForCausalLM"], "model_type": "llama", "hidden_act": "silu",
            "hidden_size": self.hidden_size, "intermediate_size": self.intermediate_size,
            "num_hidden_layers": self.layers, "num_attention_heads": self.heads,
            "num_key_value_heads": self.kv_heads, "vocab_size": self.vocab_size,
            "max_position_embeddings": self.context_length, "rms_norm_eps": 1e-5,
            "rope_theta": 10000.0, "tie_word_embeddings": self.tied_embeddings,
            "bos_token_id": 1, "eos_token_id": null, "torch_dtype": "float32",
        });
        config.as_object().expect("an object").clone()
    }
}

/// A Llama with weights from a hash of their place: the same on every machine, and no file needed.
#[derive(Clone, Debug)]
pub struct Synthetic {
    sizes: Sizes,
    config: Fields,
    seed: u64,
    matrices: Encoding,
}

impl Synthetic {
    /// A small model in which no dimension is a multiple of anything: rows of 36 and 83, heads of
    /// 12, a vocabulary of 283.
    #[must_use]
    pub fn odd() -> Self {
        Self::new(36, 83, 3, 3, 1, 283, 64)
    }

    /// As [`Self::odd`], with an output matrix of its own and as many key heads as query heads.
    #[must_use]
    pub fn odd_untied() -> Self {
        let mut model = Self::new(42, 172, 2, 3, 3, 131, 64);
        model.sizes.tied_embeddings = false;
        model.config = model.sizes.config();
        model
    }

    /// A model of this shape.
    #[must_use]
    pub fn new(
        hidden_size: u32,
        intermediate_size: u32,
        layers: u32,
        heads: u32,
        kv_heads: u32,
        vocab_size: u32,
        context_length: u32,
    ) -> Self {
        let sizes = Sizes {
            hidden_size,
            intermediate_size,
            layers,
            heads,
            kv_heads,
            head_dim: hidden_size / heads,
            vocab_size,
            context_length,
            tied_embeddings: true,
        };
        Self { sizes, config: sizes.config(), seed: 0, matrices: Encoding::F32 }
    }

    /// The matrices as blocks of Q8_0, which become int8 without any work. Rows must be multiples
    /// of 32.
    #[must_use]
    pub fn in_q8_0(mut self) -> Self {
        self.matrices = Encoding::Q8_0;
        self
    }

    /// Writes the model as a llama2.c file.
    pub fn write_llama2c(&self, path: &Path) {
        let c = &self.sizes;
        let vocabulary = c.vocab_size as i32 * if c.tied_embeddings { 1 } else { -1 };
        let header = [c.hidden_size, c.intermediate_size, c.layers, c.heads, c.kv_heads];
        let mut bytes: Vec<u8> = header.iter().flat_map(|n| n.to_le_bytes()).collect();
        bytes.extend(vocabulary.to_le_bytes());
        bytes.extend(c.context_length.to_le_bytes());
        let mut put = |name: &str| {
            let info = self.tensor(name).expect("a tensor of the model");
            let mut row = vec![0.0; info.columns as usize];
            for number in 0..info.rows {
                let number = self.llama2c_row(name, number);
                self.read_row(name, number, &mut row).expect("synthetic rows can be read");
                bytes.extend(row.iter().flat_map(|x| x.to_le_bytes()));
            }
        };
        put("model.embed_tokens.weight");
        let parts = [
            "input_layernorm",
            "self_attn.q_proj",
            "self_attn.k_proj",
            "self_attn.v_proj",
            "self_attn.o_proj",
            "post_attention_layernorm",
            "mlp.gate_proj",
            "mlp.down_proj",
            "mlp.up_proj",
        ];
        for part in parts {
            (0..c.layers).for_each(|layer| put(&format!("model.layers.{layer}.{part}.weight")));
        }
        put("model.norm.weight");
        let tables = 2 * c.context_length * (c.head_dim / 2) * 4;
        bytes.resize(bytes.len() + tables as usize, 0);
        if !c.tied_embeddings {
            let info = self.tensor("lm_head.weight").expect("an untied model has one");
            let mut row = vec![0.0; info.columns as usize];
            for number in 0..info.rows {
                self.read_row("lm_head.weight", number, &mut row)
                    .expect("synthetic rows can be read");
                bytes.extend(row.iter().flat_map(|x| x.to_le_bytes()));
            }
        }
        std::fs::write(path, bytes).expect("the test's folder can be written");
    }

    /// llama2.c rotates neighbours where Hugging Face rotates halves: its rows of queries and keys
    /// are interleaved.
    fn llama2c_row(&self, name: &str, row: u32) -> u32 {
        if !(name.contains("q_proj") || name.contains("k_proj")) {
            return row;
        }
        let (head, within) = (row / self.sizes.head_dim, row % self.sizes.head_dim);
        head * self.sizes.head_dim + within % 2 * (self.sizes.head_dim / 2) + within / 2
    }

    /// Writes the model as a Hugging Face folder.
    pub fn write_hugging_face(&self, folder: &Path) {
        let (mut header, mut data) = (serde_json::Map::new(), vec![]);
        for name in self.tensor_names() {
            let info = self.tensor(&name).expect("a tensor of the model");
            let start = data.len();
            let mut row = vec![0.0; info.columns as usize];
            for number in 0..info.rows {
                self.read_row(&name, number, &mut row).expect("synthetic rows can be read");
                data.extend(row.iter().flat_map(|x: &f32| x.to_le_bytes()));
            }
            let vector = name.ends_with("norm.weight");
            let shape = if vector { vec![info.columns] } else { vec![info.rows, info.columns] };
            let entry = serde_json::json!({"dtype": "F32", "shape": shape, "data_offsets": [start, data.len()]});
            header.insert(name, entry);
        }
        let mut header = serde_json::to_vec(&header).expect("plain JSON");
        header.resize(header.len().next_multiple_of(8), b' ');
        let mut file = (header.len() as u64).to_le_bytes().to_vec();
        file.extend(header);
        file.extend(data);
        std::fs::create_dir_all(folder).expect("the test's folder can be written");
        std::fs::write(folder.join("config.json"), serde_json::json!(self.config).to_string())
            .expect("it can be written");
        std::fs::write(folder.join("model.safetensors"), file).expect("it can be written");
    }

    fn tensor_names(&self) -> Vec<String> {
        let parts = [
            "input_layernorm",
            "self_attn.q_proj",
            "self_attn.k_proj",
            "self_attn.v_proj",
            "self_attn.o_proj",
            "post_attention_layernorm",
            "mlp.gate_proj",
            "mlp.up_proj",
            "mlp.down_proj",
        ];
        let layers = (0..self.sizes.layers)
            .flat_map(|l| parts.map(|part| format!("model.layers.{l}.{part}.weight")));
        let mut names: Vec<_> = layers.collect();
        names.extend(["model.embed_tokens.weight".to_owned(), "model.norm.weight".to_owned()]);
        if !self.sizes.tied_embeddings {
            names.push("lm_head.weight".to_owned());
        }
        names
    }

    fn shape(&self, name: &str) -> Option<(u32, u32)> {
        let c = &self.sizes;
        let (q, kv) = (c.heads * c.head_dim, c.kv_heads * c.head_dim);
        let part = name.strip_prefix("model.").unwrap_or(name).strip_suffix(".weight")?;
        let part = match part.strip_prefix("layers.") {
            Some(rest) => {
                let (layer, part) = rest.split_once('.')?;
                layer.parse::<u32>().ok().filter(|l| *l < c.layers)?;
                part
            }
            None => part,
        };
        Some(match part {
            "embed_tokens" => (c.vocab_size, c.hidden_size),
            "lm_head" if !c.tied_embeddings => (c.vocab_size, c.hidden_size),
            "norm" | "input_layernorm" | "post_attention_layernorm" => (1, c.hidden_size),
            "self_attn.q_proj" => (q, c.hidden_size),
            "self_attn.k_proj" | "self_attn.v_proj" => (kv, c.hidden_size),
            "self_attn.o_proj" => (c.hidden_size, q),
            "mlp.gate_proj" | "mlp.up_proj" => (c.intermediate_size, c.hidden_size),
            "mlp.down_proj" => (c.hidden_size, c.intermediate_size),
            _ => return None,
        })
    }

    fn hash(&self, name: &str, row: u32) -> u64 {
        let place = (name.bytes().chain(row.to_le_bytes()))
            .fold(self.seed, |h, b| (h ^ u64::from(b)).wrapping_mul(0x0000_0100_0000_01b3));
        mixed(place)
    }
}

impl Container for Synthetic {
    fn format(&self) -> SourceFormat {
        SourceFormat::HuggingFace
    }

    fn path(&self) -> &Path {
        Path::new("synthetic")
    }

    fn config(&self) -> &Fields {
        &self.config
    }

    fn names(&self) -> Vec<String> {
        self.tensor_names()
    }

    fn tensor_path(&self, _name: &str) -> &Path {
        self.path()
    }

    fn tensor(&self, name: &str) -> Option<TensorInfo> {
        let (rows, columns) = self.shape(name)?;
        let encoding = if name.ends_with("norm.weight") { Encoding::F32 } else { self.matrices };
        Some(TensorInfo { rows, columns, encoding })
    }

    fn read_row(&self, name: &str, row: u32, out: &mut [f32]) -> Result<()> {
        if self.tensor(name).is_some_and(|t| t.encoding == Encoding::Q8_0) {
            let mut bytes = vec![];
            self.read_row_bytes(name, row, &mut bytes)?;
            for (block, out) in bytes.chunks_exact(34).zip(out.chunks_mut(32)) {
                let scale = f16::from_le_bytes([block[0], block[1]]).to_f32();
                out.iter_mut()
                    .zip(&block[2..])
                    .for_each(|(x, q)| *x = scale * f32::from(q.cast_signed()));
            }
            return Ok(());
        }
        // Embeddings of size 1; matrices that keep the size of what goes through.
        let size = match name {
            "model.embed_tokens.weight" => 1.0,
            _ => (3.0 / out.len() as f32).sqrt(),
        };
        let offset = if name.ends_with("norm.weight") { 1.0 } else { 0.0 };
        let mut state = self.hash(name, row);
        for x in out {
            state = state.wrapping_add(0x9e37_79b9_7f4a_7c15);
            let unit = (mixed(state) >> 40) as f32 / (1 << 23) as f32 - 1.0;
            *x = offset + size * unit;
        }
        Ok(())
    }

    fn read_row_bytes(&self, name: &str, row: u32, out: &mut Vec<u8>) -> Result<()> {
        let columns = self.tensor(name).map_or(0, |t| t.columns);
        assert_eq!(columns % 32, 0, "Q8_0 has blocks of 32");
        let scale = f16::from_f32(1.0 / (73.0 * (columns as f32).sqrt())).to_le_bytes();
        out.clear();
        let mut state = self.hash(name, row);
        for _ in 0..columns / 32 {
            out.extend(scale);
            for _ in 0..4 {
                state = state.wrapping_add(0x9e37_79b9_7f4a_7c15);
                out.extend(mixed(state).to_le_bytes().map(|b| b.max(0x81) ^ 0x80));
            }
        }
        Ok(())
    }

    fn tokenizer(&self) -> Option<&TokenizerSource> {
        None
    }
}

/// The output function of SplitMix64.
fn mixed(z: u64) -> u64 {
    let z = (z ^ z >> 30).wrapping_mul(0xbf58_476d_1ce4_e5b9);
    let z = (z ^ z >> 27).wrapping_mul(0x94d0_49bb_1331_11eb);
    z ^ z >> 31
}
