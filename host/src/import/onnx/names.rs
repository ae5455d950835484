//! What parameters are called in the model that a graph was made of. Exporters leave the names of some, and of
//! the modules that compute with the others.

/// The key under which torch's exporter notes the modules on the way to an operation, and that of its first
/// versions.
const SCOPES: &str = "pkg.torch.onnx.name_scopes";
const NAMESPACE: &str = "namespace";

/// What quantizers put behind a parameter's name.
const QUANTIZED: &str = "_quantized";
const BLOCKS: &str = "_Q";

/// The parameter that a node of a module takes as its input with this number; none for others.
pub(super) fn part(operation: &str, input: usize) -> Option<&'static str> {
    Some(match (operation, input) {
        ("MatMul" | "MatMulInteger" | "MatMulNBits" | "Gemm", 1) => "weight",
        // A function: layers that are modules leave the names of their weights.
        ("Conv", 1) => "conv.weight",
        ("Gemm" | "Conv", 2) | ("MatMulNBits", 5) | ("Add", 0 | 1) => "bias",
        ("Gather", 0) | ("Mul", 0 | 1) => "weight",
        ("LayerNormalization" | "RMSNormalization" | "SimplifiedLayerNormalization", 1) => "weight",
        ("LayerNormalization", 2) => "bias",
        ("SkipLayerNormalization" | "SkipSimplifiedLayerNormalization", 2) => "weight",
        ("SkipLayerNormalization", 3) => "bias",
        _ => return None,
    })
}

/// The module of a node by its name, as torch's exporters of TorchScript write it:
/// `/model/layers.0/self_attn/q_proj/MatMul`. Where ONNX Runtime fused nodes, more follows:
/// `/model/norm/Mul_1/SimplifiedLayerNormFusion/`.
pub(super) fn path_of_name(name: &str) -> Option<String> {
    let name = name.strip_prefix('/')?;
    let name = match name.strip_suffix('/') {
        Some(fused) => fused.rsplit_once('/')?.0,
        None => name,
    };
    Some(name.rsplit_once('/')?.0.replace('/', "."))
}

/// The module of a node by a note of torch's exporter: the modules on the way to it, each by its whole name,
/// and the operation.
pub(super) fn path_of_scopes(key: &str, note: &str) -> Option<String> {
    let path = match key {
        // ['', 'model', 'model.layers.0', 'linear']
        SCOPES => note.rsplit('\'').nth(3)?,
        // : Llama/model: LlamaModel/model.layers.0: LlamaDecoderLayer/linear: aten.linear.default
        NAMESPACE => note.rsplit('/').nth(1)?.split(':').next()?.trim(),
        _ => return None,
    };
    Some(path.to_owned()).filter(|path| !path.is_empty())
}

/// A constant's name without what quantizers put behind it.
pub(super) fn unquantized(name: &str) -> &str {
    let is_format = |text: &str| text.starts_with(|c: char| c.is_ascii_digit());
    match (name.strip_suffix(QUANTIZED), name.rsplit_once(BLOCKS)) {
        (Some(name), _) => name,
        (None, Some((name, format))) if is_format(format) => name,
        _ => name,
    }
}

/// What belongs to a constant that ONNX Runtime's quantizer wrote: its scale, and its zero point.
pub(super) fn quantization(name: &str) -> Option<[String; 2]> {
    let name = name.strip_suffix(QUANTIZED)?;
    Some([format!("{name}_scale"), format!("{name}_zero_point")])
}

/// True if a constant has a parameter's name: those that exporters make up have no dots, or are paths.
pub(super) fn is_parameter(name: &str) -> bool {
    name.contains('.') && !name.contains("::") && !name.contains('/')
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn modules_are_named_as_in_python() {
        let query = Some("model.layers.0.self_attn.q_proj".to_owned());
        assert_eq!(path_of_name("/model/layers.0/self_attn/q_proj/MatMul"), query);
        let fused = "/model/norm/Mul_1/SimplifiedLayerNormFusion/";
        assert_eq!(path_of_name(fused).as_deref(), Some("model.norm"));
        assert_eq!(path_of_name("MatMul_17"), None);
        assert_eq!(path_of_name("/MatMul"), None);
        let scopes = "['', 'model', 'model.layers.0.self_attn.q_proj', 'linear_3']";
        assert_eq!(path_of_scopes(SCOPES, scopes), query);
        assert_eq!(path_of_scopes(SCOPES, "['', 'linear']"), None);
        assert_eq!(path_of_scopes(SCOPES, "''"), None);
        let namespace = ": L/model: M/model.layers.0.self_attn.q_proj: Linear/linear: aten.linear";
        assert_eq!(path_of_scopes(NAMESPACE, namespace), query);
        assert_eq!(path_of_scopes("other", scopes), None);
    }

    #[test]
    fn what_quantizers_put_behind_names_is_none_of_them() {
        assert_eq!(unquantized("a.weight_quantized"), "a.weight");
        assert_eq!(unquantized("onnx::MatMul_12_Q4"), "onnx::MatMul_12");
        assert_eq!(unquantized("a.weight_Q4G32"), "a.weight");
        assert_eq!(unquantized("a_Query"), "a_Query");
    }
}
