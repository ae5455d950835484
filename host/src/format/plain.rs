//! Text without the marks of Markdown, block by block.

use pulldown_cmark::{Event, Options, Parser, Tag, TagEnd};

/// Lists in lists that are indented more than those around them.
const MAX_INDENTATION: usize = 8;

/// Takes the marks away from blocks that have ended.
#[derive(Default)]
pub(super) struct Plain {
    /// What belongs to blocks that may go on.
    held: String,
    /// Bytes of it that were looked at: whole lines.
    seen: usize,
    fences: super::fences::Fences,
    blank: bool,
    begun: bool,
}

impl Plain {
    /// What can be told once a piece has come: blocks behind which another one has begun.
    pub(super) fn push(&mut self, piece: &str) -> String {
        self.held.push_str(piece);
        let mut told = String::new();
        while let Some(length) = self.held[self.seen..].find('\n') {
            let line = self.held[self.seen..=self.seen + length].to_owned();
            if self.blank && begins_block(&line) && !self.fences.is_open() {
                let rest = self.held.split_off(self.seen);
                let blocks = std::mem::replace(&mut self.held, rest);
                told.push_str(&self.tell(&blocks));
                self.seen = 0;
            }
            self.fences.push(&line);
            self.blank = line.trim().is_empty();
            self.seen += line.len();
        }
        told
    }

    pub(super) fn finish(&mut self) -> String {
        let blocks = std::mem::take(&mut self.held);
        self.tell(&blocks)
    }

    fn tell(&mut self, blocks: &str) -> String {
        let text = plain(blocks);
        if text.is_empty() {
            return text;
        }
        let between = if std::mem::replace(&mut self.begun, true) { "\n" } else { "" };
        format!("{between}{text}")
    }
}

/// Whether a line behind a blank one begins a block that is no part of what was before: no more of a list.
fn begins_block(line: &str) -> bool {
    let marker = line.trim_start_matches(|c: char| c.is_ascii_digit());
    let listed = marker.starts_with(['-', '*', '+', '.', ')']);
    !line.starts_with([' ', '\t', '\n', '\r']) && !listed
}

/// Blocks without marks, each ended by a line feed, with blank lines between them.
fn plain(markdown: &str) -> String {
    let mut writer = Writer::default();
    let options = Options::ENABLE_TABLES | Options::ENABLE_STRIKETHROUGH;
    Parser::new_ext(markdown, options).for_each(|event| writer.take(event));
    let text = writer.text.trim_end();
    if text.is_empty() { String::new() } else { format!("{text}\n") }
}

#[derive(Default)]
struct Writer {
    text: String,
    /// The numbers of the lists that are open; none of bullets.
    lists: Vec<Option<u64>>,
    /// Where links that are open lead, and where their texts begin.
    links: Vec<(String, usize)>,
}

impl Writer {
    fn take(&mut self, event: Event<'_>) {
        match event {
            Event::Start(tag) => self.start(tag),
            Event::End(tag) => self.end(tag),
            Event::Text(text) | Event::Code(text) | Event::InlineHtml(text) | Event::Html(text) => {
                self.write(&text);
            }
            Event::SoftBreak | Event::HardBreak => self.write("\n"),
            Event::Rule => self.blank_line(),
            _ => {}
        }
    }

    fn start(&mut self, tag: Tag<'_>) {
        match tag {
            Tag::List(first) => {
                // A list in an item begins on a line of its own.
                if !self.lists.is_empty() {
                    self.line_end();
                }
                self.lists.push(first);
            }
            Tag::Item => self.item(),
            Tag::Link { dest_url, .. } | Tag::Image { dest_url, .. } => {
                self.links.push((dest_url.into_string(), self.text.len()));
            }
            Tag::TableCell if !self.text.is_empty() && !self.text.ends_with('\n') => {
                self.text.push('\t');
            }
            _ => {}
        }
    }

    fn item(&mut self) {
        self.line_end();
        self.indent(self.lists.len().saturating_sub(1));
        let marker = match self.lists.last_mut() {
            Some(Some(number)) => {
                *number += 1;
                format!("{}. ", *number - 1)
            }
            _ => "- ".to_owned(),
        };
        self.text.push_str(&marker);
    }

    fn end(&mut self, tag: TagEnd) {
        match tag {
            TagEnd::Paragraph | TagEnd::Heading(_) | TagEnd::CodeBlock | TagEnd::HtmlBlock
                if self.lists.is_empty() =>
            {
                self.blank_line();
            }
            TagEnd::List(_) => {
                self.lists.pop();
                if self.lists.is_empty() {
                    self.blank_line();
                }
            }
            TagEnd::Table => self.blank_line(),
            TagEnd::TableHead
            | TagEnd::TableRow
            | TagEnd::Item
            | TagEnd::Paragraph
            | TagEnd::CodeBlock => self.line_end(),
            TagEnd::Link | TagEnd::Image => {
                let Some((url, start)) = self.links.pop() else { return };
                // A mail address in angle brackets leads to itself.
                let own = url.strip_prefix("mailto:").unwrap_or(&url);
                if !own.is_empty() && self.text.get(start..) != Some(own) {
                    self.write(&format!(" ({url})"));
                }
            }
            _ => {}
        }
    }

    /// Adds text; its further lines are indented as the item that it is in.
    fn write(&mut self, text: &str) {
        for piece in text.split_inclusive('\n') {
            if self.text.ends_with('\n') && piece != "\n" {
                self.indent(self.lists.len());
            }
            self.text.push_str(piece);
        }
    }

    /// So far and no further, however deep lists lie in each other.
    fn indent(&mut self, depth: usize) {
        self.text.push_str(&"  ".repeat(depth.min(MAX_INDENTATION)));
    }

    fn line_end(&mut self) {
        if !self.text.is_empty() && !self.text.ends_with('\n') {
            self.text.push('\n');
        }
    }

    fn blank_line(&mut self) {
        self.line_end();
        if !self.text.is_empty() && !self.text.ends_with("\n\n") {
            self.text.push('\n');
        }
    }
}
