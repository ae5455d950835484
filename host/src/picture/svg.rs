//! A graph as an SVG picture. The same model, plan and profile give the same text.

use super::layout::{Flows, HEIGHT, Layout, PORT_HEIGHT, Thing, WIDTH};
use super::{Block, Costs, Node, Picture, units};
use crate::markup::{escaped, put, text};

/// Colours that those who see few colours can tell apart, on light and on dark.
pub(super) const STYLE: &str = include_str!("picture.css");

const LEAST_WIDTH: f64 = 900.0;
const EDGE: f64 = 20.0;
/// Of a line of text, and of what stands for a folded block.
const LINE: f64 = 20.0;
const ROW: f64 = 30.0;
/// Of the longest bar.
const BAR: f64 = 130.0;

pub(super) fn svg(picture: &Picture) -> String {
    let flows = Flows::new(picture);
    let drawn: Vec<_> = picture
        .blocks
        .iter()
        .enumerate()
        .map(|(number, block)| {
            let unfolded = block.first && !block.nodes.is_empty();
            if unfolded { flows.layout(number) } else { Layout::default() }
        })
        .collect();
    let widest = drawn.iter().map(|layout| layout.width + 2.0 * EDGE).fold(LEAST_WIDTH, f64::max);
    let mut body = String::new();
    let mut y = heading(picture, &mut body, widest);
    for (block, layout) in picture.blocks.iter().zip(&drawn) {
        block_row(picture, block, &mut body, (y, widest - 2.0 * EDGE));
        y += ROW + 4.0;
        if layout.height > 0.0 {
            put(&mut body, &format!("<g transform=\"translate({EDGE:.1} {y:.1})\">"));
            things(picture, block, layout, &mut body);
            body.push_str("</g>\n");
            y += layout.height;
        }
    }
    let height = y + EDGE;
    let title = escaped(&picture.title);
    format!(
        "<svg xmlns=\"http://www.w3.org/2000/svg\" width=\"{widest:.0}\" height=\"{height:.0}\" \
         viewBox=\"0 0 {widest:.0} {height:.0}\" role=\"img\">\n<style>{STYLE}</style>\n\
         <title>{title}</title>\n\
         <rect class=\"ground\" width=\"{widest:.0}\" height=\"{height:.0}\"/>\n{body}</svg>\n"
    )
}

/// A block's drawing as a picture of its own.
pub(super) fn block_svg(picture: &Picture, block: &Block, layout: &Layout) -> String {
    let (width, height) = (layout.width, layout.height);
    let mut svg = format!(
        "<svg style=\"--width:{width:.0}\" viewBox=\"0 0 {width:.0} {height:.0}\" role=\"img\">\n"
    );
    things(picture, block, layout, &mut svg);
    svg.push_str("</svg>\n");
    svg
}

/// The title, what bars mean, and the operations by name. Returns where that ends.
fn heading(picture: &Picture, svg: &mut String, width: f64) -> f64 {
    text(svg, (EDGE, 30.0), "title", &escaped(&picture.title));
    text(svg, (EDGE, 50.0), "small", &picture.total.details().join(", "));
    text(svg, (EDGE, 68.0), "small", meaning(picture));
    let columns = [EDGE + 190.0, EDGE + 290.0, EDGE + 400.0, EDGE + 490.0];
    let mut y = 96.0;
    for (x, name) in columns.iter().zip(["operations", "weights", "MACs", "time"]) {
        text(svg, (*x, y), "small right", name);
    }
    let most = picture.kinds.iter().map(|kind| picture.share(&kind.costs)).fold(0.0, f64::max);
    for kind in &picture.kinds {
        y += LINE;
        rect(svg, class(kind.op), (EDGE, y - 9.0), (10.0, 10.0), 0);
        text(svg, (EDGE + 18.0, y), "left", kind.op);
        let Costs { weight_bytes, multiply_adds, seconds, .. } = kind.costs;
        let figures = [
            kind.count.to_string(),
            if weight_bytes > 0 { units::bytes(weight_bytes) } else { String::new() },
            if multiply_adds > 0 { units::count(multiply_adds) } else { String::new() },
            seconds.map_or(String::new(), units::time),
        ];
        for (x, figure) in columns.iter().zip(figures) {
            text(svg, (*x, y), "right", &figure);
        }
        let longest = width - EDGE - 60.0 - (EDGE + 510.0);
        bar(svg, (EDGE + 510.0, y - 9.0), longest, picture.share(&kind.costs), most);
    }
    y + LINE
}

/// What bars show.
pub(super) fn meaning(picture: &Picture) -> &'static str {
    match picture.total.seconds {
        Some(_) => "Bars: parts of the time of a pass, as forecast from the profile.",
        None => "Bars: parts of the bytes of weights. With a profile (omex profile), of the time.",
    }
}

/// What stands for a block, and heads its drawing.
fn block_row(picture: &Picture, block: &Block, svg: &mut String, (y, width): (f64, f64)) {
    rect(svg, "row", (EDGE, y), (width, ROW), 4);
    text(svg, (EDGE + 10.0, y + 19.5), "name", &escaped(&block.name));
    text(svg, (EDGE + 110.0, y + 19.5), "left", &block_figures(block));
    let most = picture.blocks.iter().map(|block| picture.share(&block.costs)).fold(0.0, f64::max);
    let x = EDGE + width - BAR - 60.0;
    bar(svg, (x, y + 10.0), BAR, picture.share(&block.costs), most);
}

/// A block in a line.
pub(super) fn block_figures(block: &Block) -> String {
    let of_format = |(format, bytes): (&String, &u64)| format!("{format} {}", units::bytes(*bytes));
    let formats = block.formats.iter().map(of_format).collect::<Vec<_>>().join(", ");
    let mut figures = block.costs.figures();
    if !formats.is_empty() {
        figures.insert(usize::from(!figures.is_empty()), format!("of {formats}"));
    }
    if block.costs.streamed_bytes > 0 {
        figures.push(format!("{} from storage", units::bytes(block.costs.streamed_bytes)));
    }
    figures.extend(block.costs.seconds.map(units::time));
    figures.join(" \u{b7} ")
}

/// A rectangle at a place, with a size and corners of a radius.
fn rect(svg: &mut String, class: &str, (x, y): (f64, f64), size: (f64, f64), radius: u32) {
    let (width, height) = size;
    let round = if radius > 0 { format!(" rx=\"{radius}\"") } else { String::new() };
    let place = format!("x=\"{x:.1}\" y=\"{y:.1}\" width=\"{width:.1}\" height=\"{height:.1}\"");
    put(svg, &format!("<rect class=\"{class}\" {place}{round}/>"));
}

/// A bar with its part in percent behind it.
fn bar(svg: &mut String, (x, y): (f64, f64), longest: f64, share: f64, most: f64) {
    if share <= 0.0 {
        return;
    }
    let width = (longest * share / most).max(1.0);
    rect(svg, "bar", (x, y), (width, 10.0), 0);
    text(svg, (x + width + 6.0, y + 9.0), "small", &units::percent(share));
}

/// The operations of a block, and what flows between them.
fn things(picture: &Picture, block: &Block, layout: &Layout, svg: &mut String) {
    for line in &layout.lines {
        put(svg, &format!("<path class=\"flow\" d=\"{line}\"/>"));
    }
    for placed in &layout.things {
        let at = (placed.x, placed.y);
        match &placed.thing {
            Thing::Port(name) => port(svg, at, name),
            Thing::Node(number) => {
                let node = &block.nodes[*number];
                operation(svg, at, node, (picture.share(&node.costs), layout.most));
            }
        }
    }
    for head in &layout.heads {
        put(svg, &format!("<path class=\"head\" d=\"{head}\"/>"));
    }
}

fn port(svg: &mut String, (x, y): (f64, f64), name: &str) {
    rect(svg, "port", (x, y), (WIDTH, PORT_HEIGHT), 11);
    text(svg, (x + WIDTH / 2.0, y + 15.0), "small middle", &escaped(&cut(name, 44)));
}

fn operation(svg: &mut String, (x, y): (f64, f64), node: &Node, (share, most): (f64, f64)) {
    let details = std::iter::once(node.op.to_owned()).chain(node.details());
    let details = details.map(|detail| escaped(&detail)).collect::<Vec<_>>().join("\n");
    put(svg, &format!("<g class=\"node\"><title>{details}</title>"));
    rect(svg, "box", (x, y), (WIDTH, HEIGHT), 4);
    rect(svg, class(node.op), (x, y), (6.0, HEIGHT), 3);
    text(svg, (x + 14.0, y + 18.0), "name", node.op);
    let time = node.costs.seconds.filter(|seconds| *seconds > 0.0).map(units::time);
    text(svg, (x + WIDTH - 8.0, y + 18.0), "small right", &time.unwrap_or_default());
    let lines = [node.label(), node.figures()].into_iter().filter(|line| !line.is_empty());
    for (line, below) in lines.zip([35.0, 50.0]) {
        text(svg, (x + 14.0, y + below), "small", &escaped(&cut(&line, 42)));
    }
    if share > 0.0 {
        let width = ((WIDTH - 22.0) * share / most).max(1.0);
        rect(svg, "bar", (x + 14.0, y + HEIGHT - 10.0), (width, 5.0), 0);
    }
    svg.push_str("</g>\n");
}

/// What kind of operation it is, which its colour shows.
pub(super) fn class(op: &str) -> &'static str {
    match op {
        "Linear" | "Correction" | "Embed" | "Conv2d" => "matrix",
        "Attend" | "Store" | "Rotary" | "Angles" => "attention",
        "Experts" | "Route" => "experts",
        "Delta" | "Decay" | "LinearAttention" | "ShortConv" => "recurrent",
        _ => "simple",
    }
}

/// As much of a text as there is room for: its end says more about a name than its beginning.
fn cut(text: &str, room: usize) -> String {
    let count = text.chars().count();
    if count <= room {
        return text.to_owned();
    }
    let mut cut = String::from("\u{2026}");
    cut.extend(text.chars().skip(count + 1 - room));
    cut
}
