//! A graph as a page that needs nothing else: blocks fold, words are found, and all can be made larger.

use super::layout::{Flows, Layout};
use super::svg::{STYLE, block_figures, block_svg, class, meaning};
use super::{Block, Costs, Kind, Picture, units};
use crate::markup::escaped;
use std::fmt::Write;

const PAGE_STYLE: &str = include_str!("page.css");
const SCRIPT: &str = include_str!("page.js");

pub(super) fn html(picture: &Picture) -> String {
    let title = escaped(&picture.title);
    let (total, meaning) = (picture.total.details().join(", "), meaning(picture));
    let mut html = format!(
        "<!DOCTYPE html>\n<html lang=\"en\">\n<head>\n<meta charset=\"utf-8\">\n\
         <meta name=\"viewport\" content=\"width=device-width\">\n<title>{title}</title>\n\
         <style>{STYLE}{PAGE_STYLE}</style>\n</head>\n<body>\n<header>\n<h1>{title}</h1>\n\
         <input type=\"search\" id=\"find\" placeholder=\"operation, weight or format\" \
         aria-label=\"search\">\n<output id=\"found\"></output>\n\
         <button id=\"unfold\">unfold all</button><button id=\"fold\">fold all</button>\n\
         <button id=\"smaller\" aria-label=\"smaller\">\u{2212}</button>\
         <button id=\"larger\" aria-label=\"larger\">+</button>\n</header>\n\
         <p>{total}.<br>{meaning}</p>\n"
    );
    kinds(picture, &mut html);
    let flows = Flows::new(picture);
    let most = picture.blocks.iter().map(|block| picture.share(&block.costs)).fold(0.0, f64::max);
    for (number, one) in picture.blocks.iter().enumerate() {
        let layout = flows.layout(number);
        block(picture, (one, &layout), most, &mut html);
    }
    // Writing to a string can't fail.
    let _ = write!(html, "<script>{SCRIPT}</script>\n</body>\n</html>\n");
    html
}

/// The operations by name.
fn kinds(picture: &Picture, html: &mut String) {
    html.push_str(
        "<table>\n<tr><th></th><th>operations</th><th>weights</th><th>MACs</th><th>time</th>\
         <th></th></tr>\n",
    );
    let most = picture.kinds.iter().map(|kind| picture.share(&kind.costs)).fold(0.0, f64::max);
    for Kind { op, count, costs } in &picture.kinds {
        let Costs { weight_bytes, multiply_adds, seconds, .. } = *costs;
        let bytes = if weight_bytes > 0 { units::bytes(weight_bytes) } else { String::new() };
        let adds = if multiply_adds > 0 { units::count(multiply_adds) } else { String::new() };
        let (time, class) = (seconds.map_or(String::new(), units::time), class(op));
        let bar = bar(picture.share(costs), most);
        let _ = writeln!(
            html,
            "<tr><td><i class=\"{class}\"></i>{op}</td><td>{count}</td><td>{bytes}</td>\
             <td>{adds}</td><td>{time}</td><td>{bar}</td></tr>"
        );
    }
    html.push_str("</table>\n");
}

/// A block that folds; one without operations is a line.
fn block(picture: &Picture, (block, layout): (&Block, &Layout), most: f64, html: &mut String) {
    let (name, figures) = (escaped(&block.name), escaped(&block_figures(block)));
    let bar = bar(picture.share(&block.costs), most);
    let line = format!("<b>{name}</b><span>{figures}</span>{bar}");
    let _ = match block.nodes.is_empty() {
        true => writeln!(html, "<p class=\"line\">{line}</p>"),
        false => {
            let open = if block.first { " open" } else { "" };
            let drawing = block_svg(picture, block, layout);
            writeln!(
                html,
                "<details{open}><summary class=\"line\">{line}</summary>\n\
                 <div class=\"drawing\">\n{drawing}</div></details>"
            )
        }
    };
}

fn bar(share: f64, most: f64) -> String {
    if share <= 0.0 {
        return String::new();
    }
    let (width, percent) = ((120.0 * share / most).max(1.0), units::percent(share));
    format!("<span class=\"share\"><i style=\"width:{width:.1}px\"></i>{percent}</span>")
}
