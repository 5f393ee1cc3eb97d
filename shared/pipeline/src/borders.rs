//! Holds the borders inside this crate: which module may import which, and that no files import each other in a circle.
//! The files of the other crates are checked for circles too.
//!
//! The tests read source files. From each they take the paths in `use` declarations and inline paths that begin
//! with `crate::`, `super::`, `self::` or a module that the file declares, and resolve them to files. They then compare
//! each import of this crate with [`MAY_IMPORT`]. Unit tests are not read: they may use what they like.

use std::{
    collections::{BTreeMap, BTreeSet},
    fs,
    path::Path,
};

/// What each module of the crate's root may import, besides itself. A module that is not listed may not be imported and may
/// not import anything.
const MAY_IMPORT: &[(&str, &[&str])] = &[
    ("model", &[]),
    ("ports", &["model"]),
    ("settings", &["model"]),
    ("ledger", &["model"]),
    ("storage", &["model", "ports"]),
    ("catalog", &["model", "ports"]),
    ("notify", &["model", "ports", "storage"]),
    ("split", &["model", "ports", "settings", "storage", "catalog", "notify"]),
    ("generate", &["model", "ports", "settings", "storage", "ledger"]),
    ("merge", &["model", "ports", "storage", "notify"]),
];

/// The sources of the other crates, from this crate's folder.
const OTHER_CRATES: &[&str] = &[
    "../local/src",
    "../aws/src",
    "../../functions/splitter/src",
    "../../functions/generator/src",
    "../../functions/merger/src",
    "../../cli/src",
    "../../benches/src",
    "../../tests/simulation/src",
];

/// A source file: the path of its module (`merge::part`; empty for `lib.rs` and `main.rs`) and its text.
type Source = (String, String);

/// Imports, as pairs of modules: the first imports the second.
type Imports = BTreeSet<(String, String)>;

#[test]
fn imports_run_one_way() {
    let folder = Path::new(concat!(env!("CARGO_MANIFEST_DIR"), "/src"));
    let imports = imports(&sources(folder, ""));
    assert!(imports.len() > 50, "the imports were not found: {imports:?}");
    assert_eq!(violations(&imports), Vec::<String>::new());
}

#[test]
fn no_other_crate_has_a_circle() {
    for folder in OTHER_CRATES {
        let path = Path::new(env!("CARGO_MANIFEST_DIR")).join(folder);
        assert!(path.is_dir(), "{folder} does not exist any more: correct OTHER_CRATES");
        let sources = sources(&path, "");
        assert!(!sources.is_empty(), "{folder} has no source file");
        assert_eq!(circle(&imports(&sources)), None, "{folder}");
    }
}

#[test]
fn an_import_that_runs_back_is_refused() {
    for (module, text, refused) in [
        ("model::keys", "use crate::ports::Ports;", "model::keys imports ports"),
        ("storage", "use crate::{\n    model::json,\n    ledger::{self, Entry},\n};", "storage imports ledger"),
        ("merge::part", "use crate::split::SplitInput;", "merge::part imports split"),
        ("merge::part", "fn f() { crate::generate::generate() }", "merge::part imports generate"),
        ("merge::part", "pub(crate) use super::super::split::{send as s};", "merge::part imports split::send"),
        ("unlisted", "use crate::model::json;", "unlisted imports model::json"),
    ] {
        assert_eq!(violations(&imports(&planted(module, text))), [refused], "{text}");
    }
}

#[test]
fn an_import_that_runs_down_is_accepted() {
    for text in [
        "use crate::{model::{json, keys::{self as k, Job}}, storage::Document};",
        "// use crate::split::send;\nuse std::fmt;",
        "/// See [`crate::split::send`].\nstruct S;",
        "#[cfg(test)]\nmod tests {\n    use crate::split::send;\n}",
    ] {
        assert_eq!(violations(&imports(&planted("merge::part", text))), Vec::<String>::new(), "{text}");
    }
}

#[test]
fn a_circle_is_refused() {
    let mut sources = planted("merge::part", "use super::merge;");
    assert_eq!(violations(&imports(&sources)), Vec::<String>::new());
    sources.push(("merge".into(), "mod part;\nfn f() {\n    part::merge_part();\n}".into()));
    assert_eq!(violations(&imports(&sources)), ["a circle: merge -> merge::part -> merge"]);
    let sources = [
        ("a".to_owned(), "use self::b::B;".to_owned()),
        ("a::b".to_owned(), "use crate::a::c::C;".to_owned()),
        ("a::c".to_owned(), "use super::{b::B};".to_owned()),
    ];
    let found = violations(&imports(&sources));
    assert!(found.contains(&"a circle: a::b -> a::c -> a::b".to_owned()), "{found:?}");
    let sources = [
        (String::new(), "mod a;\npub use self::a::A;\nconst N: usize = 1;".to_owned()),
        ("a".to_owned(), "use crate::N;".to_owned()),
    ];
    assert_eq!(circle(&imports(&sources)).as_deref(), Some("a circle: crate -> a -> crate"));
}

/// A crate of empty files, and one file with a text.
fn planted(module: &str, text: &str) -> Vec<Source> {
    let empty =
        ["model::json", "model::keys", "ports", "storage", "ledger", "split", "split::send", "generate", "merge"];
    let mut sources: Vec<_> = empty.map(|module| (module.to_owned(), String::new())).into();
    sources.push((module.to_owned(), text.to_owned()));
    sources
}

/// The files of a crate, without its tests.
fn sources(folder: &Path, module: &str) -> Vec<Source> {
    let mut found = Vec::new();
    for entry in fs::read_dir(folder).unwrap() {
        let path = entry.unwrap().path();
        let name = path.file_stem().unwrap().to_str().unwrap();
        let child = if module.is_empty() { name.to_owned() } else { format!("{module}::{name}") };
        if name.ends_with("tests") || matches!(child.as_str(), "borders" | "golden") {
            continue;
        }
        if path.is_dir() {
            found.extend(sources(&path, &child));
        } else {
            let module = if matches!(name, "mod" | "lib" | "main") { module.to_owned() } else { child };
            found.push((module, fs::read_to_string(&path).unwrap()));
        }
    }
    found
}

fn imports(sources: &[Source]) -> Imports {
    let modules: BTreeSet<&str> = sources.iter().map(|(module, _)| module.as_str()).collect();
    let mut imports = Imports::new();
    for (module, text) in sources {
        let children: BTreeSet<&str> = modules.iter().filter_map(|other| child(module, other)).collect();
        for path in paths(text, &children) {
            let imported = resolve(module, &path, &modules);
            if imported != *module {
                imports.insert((module.clone(), imported));
            }
        }
    }
    imports
}

/// The name of `other` below `module`, if it is directly below.
fn child<'o>(module: &str, other: &'o str) -> Option<&'o str> {
    let name = if module.is_empty() { other } else { other.strip_prefix(module)?.strip_prefix("::")? };
    (!name.contains("::")).then_some(name)
}

/// Paths into the crate that a text uses.
fn paths(text: &str, children: &BTreeSet<&str>) -> Vec<Vec<String>> {
    let text = text.split("#[cfg(test)]\nmod tests").next().unwrap_or_default();
    let code: String =
        text.lines().map(|line| line.split("//").next().unwrap_or_default()).collect::<Vec<_>>().join("\n");
    let words = words(&code);
    let mut paths = Vec::new();
    let mut at = 0;
    while at < words.len() {
        let begins = matches!(words[at], "crate" | "super" | "self") || children.contains(words[at]);
        let follows = at > 0 && words[at - 1] == "::";
        if words[at] == "use" {
            at = tree(&words, at + 1, &[], &mut paths);
        } else if begins && !follows && words.get(at + 1) == Some(&"::") {
            at = tree(&words, at, &[], &mut paths);
        } else {
            at += 1;
        }
    }
    let inside =
        |first: &String| matches!(first.as_str(), "crate" | "super" | "self") || children.contains(first.as_str());
    paths.retain(|path| path.first().is_some_and(inside));
    paths
}

/// Identifiers, `::` and single other characters.
fn words(code: &str) -> Vec<&str> {
    let mut words = Vec::new();
    let mut rest = code.trim_start();
    while let Some(first) = rest.chars().next() {
        let ident = rest.find(|c: char| !c.is_alphanumeric() && c != '_').unwrap_or(rest.len());
        let length = if ident > 0 {
            ident
        } else if rest.starts_with("::") {
            2
        } else {
            first.len_utf8()
        };
        let (word, after) = rest.split_at(length);
        words.push(word);
        rest = after.trim_start();
    }
    words
}

/// Reads a path, or a tree of them in braces, and returns where it ends.
fn tree(words: &[&str], mut at: usize, before: &[String], paths: &mut Vec<Vec<String>>) -> usize {
    let mut path = before.to_vec();
    while let Some(&word) = words.get(at) {
        match word {
            "::" => at += 1,
            "{" => {
                at += 1;
                while !matches!(words.get(at), None | Some(&"}")) {
                    at = match words[at] {
                        "," => at + 1,
                        _ => tree(words, at, &path, paths),
                    };
                }
                return at + 1;
            }
            _ if word.starts_with(|c: char| c.is_alphanumeric() || c == '_') => {
                path.push(word.to_owned());
                at += 1;
                if words.get(at) != Some(&"::") {
                    if words.get(at) == Some(&"as") {
                        at += 2;
                    }
                    break;
                }
            }
            _ => {
                at += 1;
                break;
            }
        }
    }
    paths.push(path);
    at
}

/// The file that a path in `module` leads to: the longest beginning of the path that is a module.
fn resolve(module: &str, path: &[String], modules: &BTreeSet<&str>) -> String {
    let mut position: Vec<&str> = if module.is_empty() { Vec::new() } else { module.split("::").collect() };
    for name in path {
        match name.as_str() {
            "crate" => position.clear(),
            "super" => _ = position.pop(),
            "self" => {}
            _ => {
                let further = [&position[..], &[name.as_str()]].concat();
                let below = format!("{}::", further.join("::"));
                if !modules.contains(further.join("::").as_str())
                    && !modules.iter().any(|other| other.starts_with(&below))
                {
                    break;
                }
                position = further;
            }
        }
    }
    position.join("::")
}

fn violations(imports: &Imports) -> Vec<String> {
    let root = |module: &str| module.split("::").next().unwrap_or_default().to_owned();
    let table: BTreeMap<&str, &[&str]> = MAY_IMPORT.iter().copied().collect();
    let allowed = |importer: &str, imported: &str| {
        let (importer, imported) = (root(importer), root(imported));
        // The crate's root only declares modules.
        importer == imported
            || importer.is_empty()
            || imported.is_empty()
            || table.get(importer.as_str()).is_some_and(|may| may.contains(&imported.as_str()))
    };
    let refused = imports.iter().filter(|(importer, imported)| !allowed(importer, imported));
    let mut found: Vec<_> = refused.map(|(importer, imported)| format!("{importer} imports {imported}")).collect();
    found.extend(circle(imports));
    found
}

/// One circle, if there is any.
fn circle(imports: &Imports) -> Option<String> {
    let mut left: BTreeSet<&str> = imports.iter().map(|(importer, _)| importer.as_str()).collect();
    // A module that imports nothing that is left is in no circle.
    loop {
        let free: Vec<_> = left.iter().copied().filter(|module| next(imports, module, &left).is_none()).collect();
        if free.is_empty() {
            break;
        }
        left.retain(|module| !free.contains(module));
    }
    let mut way = vec![*left.first()?];
    loop {
        let next = next(imports, way[way.len() - 1], &left)?;
        if let Some(first) = way.iter().position(|module| *module == next) {
            way.push(next);
            let names: Vec<_> = way[first..].iter().map(|name| if name.is_empty() { "crate" } else { name }).collect();
            return Some(format!("a circle: {}", names.join(" -> ")));
        }
        way.push(next);
    }
}

fn next<'i>(imports: &'i Imports, module: &str, left: &BTreeSet<&str>) -> Option<&'i str> {
    let imported = imports.iter().find(|(importer, imported)| importer == module && left.contains(imported.as_str()));
    imported.map(|(_, imported)| imported.as_str())
}
