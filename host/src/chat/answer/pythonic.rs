//! Calls with arguments by name as Python writes them, of literals alone: `get_weather(city="Paris", days=3)`.

use minijinja::Value;

/// Literals are nested no deeper.
const MAX_DEPTH: usize = 64;

/// A list of calls: names, and arguments by name.
pub(super) fn calls(text: &str) -> Option<Vec<(String, Value)>> {
    let mut reader = Reader { rest: text.trim() };
    reader.expect("[")?;
    let calls = reader.items("]", Reader::call)?;
    reader.end().filter(|()| !calls.is_empty()).map(|()| calls)
}

/// One call.
pub(super) fn call(text: &str) -> Option<(String, Value)> {
    let mut reader = Reader { rest: text.trim() };
    let call = reader.call()?;
    reader.end().map(|()| call)
}

struct Reader<'t> {
    rest: &'t str,
}

impl Reader<'_> {
    fn end(&self) -> Option<()> {
        self.rest.trim().is_empty().then_some(())
    }

    /// Takes a mark, with white space before it.
    fn expect(&mut self, mark: &str) -> Option<()> {
        self.rest = self.rest.trim_start().strip_prefix(mark)?;
        Some(())
    }

    /// Takes what is separated by commas, and what closes it.
    fn items<T>(&mut self, close: &str, item: fn(&mut Self) -> Option<T>) -> Option<Vec<T>> {
        let mut items = vec![];
        while self.expect(close).is_none() {
            items.push(item(self)?);
            if self.expect(",").is_none() {
                return self.expect(close).map(|()| items);
            }
        }
        Some(items)
    }

    fn call(&mut self) -> Option<(String, Value)> {
        let name = self.name()?;
        self.expect("(")?;
        let arguments = self.items(")", Self::argument)?;
        Some((name, Value::from_pairs(arguments)))
    }

    fn argument(&mut self) -> Option<(String, Value)> {
        let name = self.name()?;
        self.expect("=")?;
        Some((name, self.literal(0)?))
    }

    /// A name, with dots.
    fn name(&mut self) -> Option<String> {
        let rest = self.rest.trim_start();
        let inside = |c: char| c.is_alphanumeric() || c == '_' || c == '.';
        let end = rest.find(|c| !inside(c)).unwrap_or(rest.len());
        let (name, behind) = rest.split_at(end);
        self.rest = behind;
        Some(name.to_owned()).filter(|name| !name.is_empty())
    }

    fn literal(&mut self, depth: usize) -> Option<Value> {
        let first = self.rest.trim_start().chars().next().filter(|_| depth < MAX_DEPTH)?;
        match first {
            '"' | '\'' => self.text(first).map(Value::from),
            '[' => self.list(depth).map(Value::from),
            '{' => self.map(depth),
            _ => self.word(),
        }
    }

    fn list(&mut self, depth: usize) -> Option<Vec<Value>> {
        self.expect("[")?;
        let mut items = vec![];
        while self.expect("]").is_none() {
            items.push(self.literal(depth + 1)?);
            if self.expect(",").is_none() {
                return self.expect("]").map(|()| items);
            }
        }
        Some(items)
    }

    fn map(&mut self, depth: usize) -> Option<Value> {
        self.expect("{")?;
        let mut items = vec![];
        while self.expect("}").is_none() {
            let key = self.literal(depth + 1)?;
            self.expect(":")?;
            items.push((key, self.literal(depth + 1)?));
            if self.expect(",").is_none() {
                self.expect("}")?;
                break;
            }
        }
        Some(Value::from_pairs(items))
    }

    fn word(&mut self) -> Option<Value> {
        let rest = self.rest.trim_start();
        let end = rest.find([',', ')', ']', '}', ':']).unwrap_or(rest.len());
        let (word, behind) = rest.split_at(end);
        self.rest = behind;
        match word.trim() {
            "True" | "true" => Some(Value::from(true)),
            "False" | "false" => Some(Value::from(false)),
            "None" | "null" => Some(Value::from(())),
            number => serde_json::from_str(number).ok().filter(Value::is_number),
        }
    }

    /// A text in quotes.
    fn text(&mut self, quote: char) -> Option<String> {
        let mut characters = self.rest.trim_start().strip_prefix(quote)?.chars();
        let mut text = String::new();
        loop {
            match characters.next()? {
                c if c == quote => break,
                '\\' => match characters.next()? {
                    'n' => text.push('\n'),
                    't' => text.push('\t'),
                    'r' => text.push('\r'),
                    c @ ('\\' | '\'' | '"') => text.push(c),
                    other => text.extend(['\\', other]),
                },
                c => text.push(c),
            }
        }
        self.rest = characters.as_str();
        Some(text)
    }
}
