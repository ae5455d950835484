//! No file knows, by way of others, a file that knows it: whoever reads can begin at the bottom.

use std::collections::{BTreeMap, BTreeSet};
use std::path::Path;

/// A module, as the names on the way to it from the crate's root.
type Module = Vec<String>;

/// The modules of a crate by their files, with what each says in code that is no test.
fn modules(folder: &Path, at: &Module, found: &mut BTreeMap<Module, String>) {
    for entry in std::fs::read_dir(folder).unwrap() {
        let path = entry.unwrap().path();
        let name = path.file_stem().unwrap().to_str().unwrap().to_owned();
        let inner = [&at[..], std::slice::from_ref(&name)].concat();
        if path.is_dir() {
            modules(&path, &inner, found);
        } else if path.extension().is_some_and(|extension| extension == "rs") {
            let text = std::fs::read_to_string(&path).unwrap();
            let code = text.split("#[cfg(test)]").next().unwrap();
            let lines = code.lines().map(|line| line.split("//").next().unwrap_or_default());
            let is_root = ["mod", "lib", "main"].contains(&&*name);
            let module = if is_root { at.clone() } else { inner };
            found.insert(module, lines.collect::<Vec<_>>().join(" "));
        }
    }
}

/// The paths in a tree of imports.
fn paths(tree: &str) -> Vec<String> {
    let tree = tree.trim();
    let Some((before, inside)) = tree.split_once('{') else { return vec![tree.to_owned()] };
    let (mut depth, mut parts) = (0, vec![String::new()]);
    for c in inside.trim_end().trim_end_matches('}').chars() {
        depth += i32::from(c == '{') - i32::from(c == '}');
        match c {
            ',' if depth == 0 => parts.push(String::new()),
            c => parts.last_mut().unwrap().push(c),
        }
    }
    let parts = parts.iter().filter(|part| !part.trim().is_empty());
    parts.flat_map(|part| paths(part)).map(|path| format!("{before}{path}")).collect()
}

/// The module that a path from the crate's root leads into.
fn module_of<'n>(names: impl Iterator<Item = &'n str>, all: &BTreeMap<Module, String>) -> Module {
    let mut at = Module::new();
    for name in names {
        at.push(name.trim().to_owned());
        if !all.contains_key(&at) {
            at.pop();
            break;
        }
    }
    at
}

/// The modules that one names, in imports and elsewhere. What it imports from its own ones only to hand
/// it on does not count.
fn known(module: &Module, code: &str, all: &BTreeMap<Module, String>) -> BTreeSet<Module> {
    // Paths in code begin at the root.
    let is_name = |c: char| c.is_alphanumeric() || c == '_' || c == ':';
    let named = code.split("crate::").skip(1).map(|rest| {
        let path = rest.split(|c| !is_name(c)).next().unwrap_or_default();
        module_of(path.split("::"), all)
    });
    let mut known: BTreeSet<_> = named.filter(|at| !at.is_empty() && at != module).collect();
    let statements = code.split(';').filter_map(|statement| statement.rsplit_once("use "));
    for (before, tree) in statements {
        let hands_on = before.trim_end().ends_with("pub") || before.trim_end().ends_with(')');
        for path in paths(tree) {
            let mut names = path.split("::").map(|name| name.trim().to_owned()).peekable();
            let mut at: Module = match names.peek().map(String::as_str) {
                Some("crate") => vec![],
                Some("self" | "super") => module.clone(),
                Some(own) if all.contains_key(&[&module[..], &[own.to_owned()]].concat()) => {
                    module.clone()
                }
                _ => continue,
            };
            while let Some(name) =
                names.next_if(|name| ["crate", "self", "super"].contains(&&**name))
            {
                if name == "super" {
                    at.pop();
                }
            }
            for name in names {
                at.push(name);
                if !all.contains_key(&at) {
                    at.pop();
                    break;
                }
            }
            let own = at.starts_with(module);
            if !at.is_empty() && at != *module && !(own && hands_on) {
                known.insert(at);
            }
        }
    }
    known
}

#[test]
fn files_that_know_one_another_in_a_circle_are_none() {
    let root = Path::new(env!("CARGO_MANIFEST_DIR")).parent().unwrap();
    let crates = [
        "core",
        "core/capi",
        "hal",
        "hal/adapters",
        "host",
        "host/capi",
        "host/cli",
        "host/python",
        "boards/audio",
        "boards/common",
        "xtask",
    ];
    for folder in crates {
        let mut all = BTreeMap::new();
        modules(&root.join(folder).join("src"), &vec![], &mut all);
        assert!(all.len() > 1, "{folder} has no files");
        let mut left: BTreeMap<_, _> =
            all.iter().map(|(module, code)| (module, known(module, code, &all))).collect();
        // Whoever knows nobody that is left is in no circle.
        loop {
            let free: Vec<_> = left
                .iter()
                .filter(|(_, known)| known.is_empty())
                .map(|(m, _)| (*m).clone())
                .collect();
            if free.is_empty() {
                break;
            }
            left.retain(|module, _| !free.contains(module));
            left.values_mut().for_each(|known| free.iter().for_each(|f| _ = known.remove(f)));
        }
        assert!(left.is_empty(), "{folder}: in a circle, or above one: {left:#?}");
    }
}

#[test]
fn a_circle_is_seen() {
    let file = |name: &str, code: &str| (vec![name.to_owned()], code.to_owned());
    let all = BTreeMap::from([
        file("a", "use crate::{b::{C, D}, e::F};"),
        file("b", "pub use super::a::G; fn f() {}"),
        file("c", "fn f() { crate::b::f(1); }"),
        file("e", ""),
    ]);
    let of = |name: &str| {
        let module = vec![name.to_owned()];
        known(&module, &all[&module], &all).into_iter().flatten().collect::<Vec<_>>()
    };
    assert_eq!(
        (of("a"), of("b"), of("c"), of("e")),
        (vec!["b".into(), "e".into()], vec!["a".into()], vec!["b".into()], vec![])
    );
}
