//! What nobody needs of a graph.

use crate::graph::{Graph, Port};
use omex_core::ops::Operand;
use std::collections::BTreeSet;

/// Leaves out nodes and values that no output and no state depends on.
pub(super) fn prune(graph: &mut Graph) {
    let port = |port: &Port| port.value.name.clone();
    let mut needed: BTreeSet<String> = graph.outputs.iter().map(port).collect();
    let mut kept = vec![];
    for node in graph.nodes.drain(..).rev() {
        let (mut wanted, mut read) = (false, vec![]);
        if let Some(op) = node.op() {
            op.operands(&mut |operand| match operand {
                Operand::Read(value) | Operand::Source(value) => read.push(value.name.clone()),
                Operand::Write(value) | Operand::Update(value) => {
                    wanted |= needed.contains(&value.name);
                    read.push(value.name.clone());
                }
                Operand::State(_) => wanted = true,
                Operand::Weight(_) => {}
            });
        }
        if wanted {
            needed.extend(read);
            kept.push(node);
        }
    }
    kept.reverse();
    graph.nodes = kept;
    needed.extend(graph.inputs.iter().map(port));
    graph.values.retain(|name, _| needed.contains(name));
}
