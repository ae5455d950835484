//! A graph in Graphviz's language (<https://graphviz.org/doc/info/lang.html>).

use super::{Picture, units};
use std::fmt::Write;

pub(super) fn dot(picture: &Picture) -> String {
    let mut dot = format!(
        "digraph {{\n  label={}\n  labelloc=t\n  \
         node [shape=box style=\"filled,rounded\" fillcolor=white fontname=\"sans-serif\" \
         fontsize=10]\n",
        quoted(std::slice::from_ref(&picture.title))
    );
    for (number, block) in picture.blocks.iter().enumerate() {
        let mut label = vec![block.name.clone()];
        label.extend(block.costs.details());
        // Writing to a string can't fail.
        let _ = writeln!(dot, "  subgraph cluster_{number} {{\n    label={}", quoted(&label));
        for (place, node) in block.nodes.iter().enumerate() {
            let share = picture.share(&node.costs);
            let mut label = vec![node.op.to_owned()];
            label.extend(node.details());
            if share > 0.0 {
                label.push(units::percent(share));
            }
            let label = quoted(&label);
            let colour = colour(share);
            let _ = writeln!(dot, "    n{number}_{place} [label={label} fillcolor=\"{colour}\"]");
        }
        dot.push_str("  }\n");
    }
    for flow in &picture.flows {
        let ((block, node), (to_block, to_node)) = (flow.from, flow.to);
        let _ = writeln!(dot, "  n{block}_{node} -> n{to_block}_{to_node}");
    }
    dot.push_str("}\n");
    dot
}

/// White for nothing to orange for a tenth of the whole, and more.
fn colour(share: f64) -> String {
    let part = (share * 10.0).clamp(0.0, 1.0);
    let mix = |least: f64| (255.0 - part * (255.0 - least)).round() as u8;
    format!("#{:02x}{:02x}{:02x}", mix(255.0), mix(176.0), mix(96.0))
}

/// A string of lines, with nothing in it that ends it.
fn quoted(lines: &[String]) -> String {
    let mut text = String::from("\"");
    for (number, line) in lines.iter().enumerate() {
        if number > 0 {
            text.push_str("\\n");
        }
        for c in line.chars() {
            match c {
                '"' | '\\' => text.extend(['\\', c]),
                c if c.is_control() => text.push('\u{fffd}'),
                c => text.push(c),
            }
        }
    }
    text.push('"');
    text
}

#[cfg(test)]
mod tests {
    use super::quoted;

    #[test]
    fn nothing_in_a_name_ends_its_string() {
        let lines = ["a\"b\\".to_owned(), "c\nd".to_owned()];
        assert_eq!(quoted(&lines), "\"a\\\"b\\\\\\nc\u{fffd}d\"");
    }
}
