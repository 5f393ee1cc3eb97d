//! The commands in the repository's Markdown pages, as a reader types them.
//!
//! Every command in a block of shell is checked; a command of an unknown program fails the test. Commands that need neither an
//! account nor a key run in a temporary directory. For all others, the program itself (or its parser) must accept the arguments. The
//! functions that a page defines, as RUNBOOK.md does, may be called below their definition.
//! `<!-- needs: WHAT -->` in the line before a block keeps its commands from running; see [`NEEDS`]. The commands for a stack run in
//! the second test, on the stack of `make test`. tests/stack/aws_commands.py checks the options of `aws`.
#![allow(clippy::unwrap_used, clippy::expect_used, clippy::panic, reason = "all of this is test code")]
#![allow(clippy::disallowed_methods, reason = "it waits for other processes")]

use std::{
    collections::BTreeSet,
    fs,
    iter::Peekable,
    path::{Path, PathBuf},
    process::{Command, Output, Stdio},
    str::Chars,
    time::Duration,
};

use packshot_tests::stack::Stack;
use serde_json::Value;
use tempfile::TempDir;

/// The reasons why the commands of a block do not run in the test.
const NEEDS: [&str; 6] = ["account", "key", "browser", "own files", "time", "a second terminal"];

/// Programs of the shell that need no check.
const SHELL: [&str; 17] = [
    ".", "cat", "cd", "date", "echo", "eval", "export", "grep", "kill", "mkdir", "printf", "read", "set", "sleep",
    "sort", "uniq", "unset",
];

fn root() -> PathBuf {
    Path::new(env!("CARGO_MANIFEST_DIR")).join("..").canonicalize().unwrap()
}

/// Every page but the changelog, whose commands are those of earlier versions. README first: a reader has typed its commands before
/// those of another page.
fn documents() -> Vec<PathBuf> {
    let list = ["ls-files", "--cached", "--others", "--exclude-standard", "*.md"];
    let listed = output(Command::new("git").current_dir(root()).args(list)).unwrap();
    let mut pages: Vec<&str> = listed.lines().filter(|name| *name != "CHANGELOG.md").collect();
    pages.sort_by_key(|name| (*name != "README.md", *name != "CONTRIBUTING.md", *name));
    pages.into_iter().map(|name| root().join(name)).collect()
}

/// A block of shell in a document.
#[derive(Debug, Default)]
struct Block {
    line: usize,
    needs: Option<String>,
    text: String,
}

/// A command, and where it is in the documents.
#[derive(Debug, Clone)]
struct Typed {
    place: String,
    needs: Option<String>,
    words: Vec<String>,
    /// Whether the program is a function that the document defines.
    defined: bool,
}

/// How a command is checked.
#[derive(Debug, PartialEq, Eq)]
enum Kind {
    /// Runs with the demo API, in a directory of the test.
    Packshot(Vec<String>),
    /// Does not run; packshot must accept the arguments.
    PackshotArguments(Vec<String>),
    /// Another executable of the workspace, by its name.
    Program(String, Vec<String>),
    /// `./stack`
    Stack(Vec<String>),
    /// `make`
    Make(Vec<String>),
    /// `cargo lambda`
    CargoLambda(Vec<String>),
    /// Another subcommand of cargo.
    Cargo(Vec<String>),
    /// `curl`, which calls the fake services of the benchmarks.
    Curl(Vec<String>),
    /// `python3` with a program in its arguments.
    Python(Vec<String>),
    /// Not checked.
    Shell,
}

fn blocks(document: &str) -> Result<Vec<Block>, String> {
    let (mut blocks, mut open, mut before): (Vec<Block>, Option<(String, Block)>, &str) = (Vec::new(), None, "");
    for (line, number) in document.lines().zip(1..) {
        let fence = line.trim_start().strip_prefix("```");
        match (&mut open, fence) {
            (None, Some(language)) => {
                let needs = before.trim().strip_prefix("<!-- needs:").and_then(|rest| rest.strip_suffix("-->"));
                let needs = needs.map(|what| what.trim().to_owned());
                if let Some(what) = needs.as_ref().filter(|what| !NEEDS.contains(&what.as_str())) {
                    return Err(format!("line {number}: `needs: {what}` must be one of {NEEDS:?}"));
                }
                open = Some((language.trim().to_owned(), Block { line: number, needs, text: String::new() }));
            }
            (Some(_), Some(_)) => {
                let (language, block) = open.take().unwrap();
                match language.as_str() {
                    "sh" => blocks.push(block),
                    "" if block.text.lines().any(looks_like_a_command) => {
                        return Err(format!("line {}: this block holds commands; begin it with ```sh", block.line));
                    }
                    "bash" | "shell" | "console" => {
                        return Err(format!("line {}: begin a block of commands with ```sh", block.line));
                    }
                    _ => {}
                }
            }
            (Some((_, block)), None) => block.text.push_str(&format!("{line}\n")),
            (None, None) => {}
        }
        if !line.trim().is_empty() {
            before = line;
        }
    }
    Ok(blocks)
}

fn looks_like_a_command(line: &str) -> bool {
    let starts = ["cargo ", "make ", "./stack ", "packshot ", "aws ", "bench ", "curl ", "python3 ", "target/", "$ "];
    starts.iter().any(|start| line.starts_with(start))
}

/// Splits shell into simple commands, including those inside `$(…)`. Supports the syntax that the documents use: quotes, comments,
/// line continuations, lists, pipes, redirections and functions. The text of a here-document becomes the last word of its command, and
/// the definition of a function the command `name()`.
fn commands(shell: &str) -> Vec<Vec<String>> {
    let (mut found, mut words, mut word) = (Vec::new(), Vec::new(), None::<String>);
    let mut characters = shell.chars().peekable();
    let (mut redirected, mut here) = (false, None::<String>);
    let end_word = |word: &mut Option<String>, words: &mut Vec<String>, redirected: &mut bool| {
        let Some(word) = word.take().filter(|_| !std::mem::take(redirected)) else { return };
        let is_brace = words.is_empty() && (word == "{" || word == "}");
        if !is_brace {
            words.push(word);
        }
    };
    while let Some(character) = characters.next() {
        match character {
            '\\' => match characters.next() {
                Some('\n') | None => {}
                Some(escaped) => word.get_or_insert_default().push(escaped),
            },
            '\'' => word.get_or_insert_default().extend(characters.by_ref().take_while(|&inside| inside != '\'')),
            '"' => {
                let text = word.get_or_insert_default();
                while let Some(inside) = characters.next().filter(|&inside| inside != '"') {
                    if inside == '$' && characters.next_if_eq(&'(').is_some() {
                        found.extend(substituted(&mut characters));
                    } else {
                        text.push(inside);
                    }
                }
            }
            '$' if characters.next_if_eq(&'(').is_some() => {
                word.get_or_insert_default();
                found.extend(substituted(&mut characters));
            }
            '#' if word.is_none() => while characters.next_if(|&skipped| skipped != '\n').is_some() {},
            '<' if characters.next_if_eq(&'<').is_some() => {
                end_word(&mut word, &mut words, &mut redirected);
                let delimiter: String =
                    std::iter::from_fn(|| characters.next_if(|next| !next.is_whitespace())).collect();
                here = Some(delimiter.trim_matches(['\'', '"']).to_owned());
            }
            '>' | '<' => {
                end_word(&mut word, &mut words, &mut redirected);
                while characters.next_if(|&next| next == '>' || next == '&').is_some() {}
                redirected = true;
            }
            '(' if words.is_empty() && word.is_some() && characters.next_if_eq(&')').is_some() => {
                found.extend(word.take().map(|name| vec![format!("{name}()")]));
            }
            '\n' | ';' | '&' | '|' | '(' | ')' => {
                end_word(&mut word, &mut words, &mut redirected);
                if let Some(delimiter) = here.take_if(|_| character == '\n') {
                    words.push(here_document(&mut characters, &delimiter));
                }
                found.extend(Some(std::mem::take(&mut words)).filter(|words: &Vec<String>| !words.is_empty()));
            }
            space if space.is_whitespace() => end_word(&mut word, &mut words, &mut redirected),
            other => word.get_or_insert_default().push(other),
        }
    }
    end_word(&mut word, &mut words, &mut redirected);
    found.extend(Some(words).filter(|words| !words.is_empty()));
    found
}

/// The commands in the rest of a `$(…)`. In arithmetic, `$((…))`, only its own substitutions are commands.
fn substituted(characters: &mut Peekable<Chars>) -> Vec<Vec<String>> {
    let inside = substitution(characters);
    if !inside.starts_with('(') {
        return commands(&inside);
    }
    let (mut found, mut arithmetic) = (Vec::new(), inside.chars().peekable());
    while let Some(character) = arithmetic.next() {
        if character == '$' && arithmetic.next_if_eq(&'(').is_some() {
            found.extend(substituted(&mut arithmetic));
        }
    }
    found
}

/// Reads the lines before the delimiter, and the delimiter.
fn here_document(characters: &mut Peekable<Chars>, delimiter: &str) -> String {
    let mut text = String::new();
    while characters.peek().is_some() {
        let line: String = characters.by_ref().take_while(|&character| character != '\n').collect();
        if line == delimiter {
            break;
        }
        text.push_str(&format!("{line}\n"));
    }
    text
}

/// Reads the rest of a `$(…)`.
fn substitution(characters: &mut impl Iterator<Item = char>) -> String {
    let mut depth = 1;
    let inside = characters.take_while(|&character| {
        depth += i32::from(character == '(') - i32::from(character == ')');
        depth > 0
    });
    inside.collect()
}

/// Every command of a document, without the definitions of its functions.
fn typed(document: &Path) -> Result<Vec<Typed>, String> {
    let name = document.strip_prefix(root()).unwrap().display().to_string();
    let blocks = blocks(&fs::read_to_string(document).unwrap()).map_err(|problem| format!("{name}, {problem}"))?;
    let (mut all, mut functions) = (Vec::new(), BTreeSet::new());
    for block in blocks {
        for words in commands(&block.text) {
            let words: Vec<_> = words.into_iter().skip_while(|word| is_assignment(word)).collect();
            let Some(program) = words.first() else { continue };
            if let Some(function) = program.strip_suffix("()") {
                functions.insert(function.to_owned());
                continue;
            }
            let place = format!("{name}, block at line {}: `{}`", block.line, words.join(" "));
            let defined = functions.contains(program);
            all.push(Typed { place, needs: block.needs.clone(), words, defined });
        }
    }
    Ok(all)
}

fn is_assignment(word: &str) -> bool {
    let name = word.split_once('=').map_or("", |(name, _)| name);
    !name.is_empty() && name.chars().all(|character| character.is_ascii_alphanumeric() || character == '_')
}

/// A word that the reader replaces: `BUCKET`, `JOB`, `…`.
fn is_placeholder(word: &str) -> bool {
    word.contains('…') || (word.len() > 2 && word.chars().all(|character| character.is_ascii_uppercase()))
}

fn classify(typed: &Typed) -> Result<Kind, String> {
    let (program, arguments) = (typed.words[0].as_str(), typed.words[1..].to_vec());
    let subcommand = arguments.first().map_or("", String::as_str);
    match program {
        "packshot" => Ok(classify_packshot(typed, arguments)),
        "./stack" => Ok(Kind::Stack(arguments)),
        "make" => Ok(Kind::Make(arguments)),
        "bench" => Ok(Kind::Program("bench".to_owned(), arguments)),
        "curl" => Ok(Kind::Curl(arguments)),
        "python3" => Ok(Kind::Python(arguments)),
        "aws" => Ok(Kind::Shell),
        "cargo" if subcommand == "lambda" => Ok(Kind::CargoLambda(arguments)),
        "cargo" if subcommand == "run" => {
            let split = arguments.iter().position(|word| word == "--").unwrap_or(arguments.len());
            let (flags, rest) = (&arguments[1..split], arguments.get(split + 1..).unwrap_or_default().to_vec());
            match executable(flags)?.as_str() {
                "packshot" => Ok(classify_packshot(typed, rest)),
                other => Ok(Kind::Program(other.to_owned(), rest)),
            }
        }
        "cargo" => Ok(Kind::Cargo(arguments)),
        _ if typed.defined || SHELL.contains(&program) => Ok(Kind::Shell),
        _ => match program.strip_prefix("target/release/").or_else(|| program.strip_prefix("target/measured/")) {
            Some("packshot") => Ok(classify_packshot(typed, arguments)),
            Some("bench") => Ok(Kind::Program("bench".to_owned(), arguments)),
            _ => Err(format!("`{program}` is unknown: add to `classify` in tests/tests/documents.rs how to check it")),
        },
    }
}

/// The executable that `cargo run` starts with these flags. Without a package it is the default member of the workspace.
fn executable(flags: &[String]) -> Result<String, String> {
    let (mut package, mut named) = ("packshot", None);
    let mut flags = flags.iter().map(String::as_str);
    while let Some(flag) = flags.next() {
        match flag {
            "--release" | "--quiet" | "--locked" => {}
            "--profile" => _ = flags.next(),
            "-p" | "--package" => package = flags.next().unwrap_or_default(),
            "--bin" => named = flags.next(),
            other => {
                return Err(format!(
                    "`cargo run` with {other} is unknown: add it to `executable` in tests/tests/documents.rs"
                ));
            }
        }
    }
    let metadata = ["metadata", "--no-deps", "--offline", "--format-version", "1"];
    let metadata = output(Command::new(env!("CARGO")).current_dir(root()).args(metadata))?;
    let metadata: Value = serde_json::from_str(&metadata).unwrap();
    let found = metadata["packages"].as_array().unwrap().iter().find(|found| found["name"] == package);
    let found = found.ok_or_else(|| format!("the workspace has no package {package}"))?;
    let targets = found["targets"].as_array().unwrap().iter().filter(|target| target["kind"][0] == "bin");
    let executables: Vec<&str> = targets.filter_map(|target| target["name"].as_str()).collect();
    match (named.or(found["default_run"].as_str()), executables.as_slice()) {
        (Some(name), all) if all.contains(&name) => Ok(name.to_owned()),
        (None, [only]) => Ok((*only).to_owned()),
        (Some(name), all) => Err(format!("{package} has the executables {all:?}, not {name}")),
        (None, all) => Err(format!("{package} has the executables {all:?}: name one with --bin")),
    }
}

/// Commands that work on files run. The others need a deployment, or run until they are stopped, so only their arguments are checked.
fn classify_packshot(typed: &Typed, arguments: Vec<String>) -> Kind {
    let runs = ["run", "check", "status", "review", "export", "--help", "--version"];
    let elsewhere = arguments.iter().any(|word| is_placeholder(word) || word == "--bucket" || word == "--map");
    let here =
        typed.needs.is_none() && !elsewhere && arguments.first().is_some_and(|word| runs.contains(&word.as_str()));
    if here { Kind::Packshot(arguments) } else { Kind::PackshotArguments(arguments) }
}

/// A directory like a clone, in which the commands run in order.
struct Session {
    dir: TempDir,
}

impl Session {
    fn new() -> Self {
        let session = Self { dir: TempDir::new().unwrap() };
        fs::create_dir(session.dir.path().join("events")).unwrap();
        fs::copy(root().join("events/catalog.csv"), session.dir.path().join("events/catalog.csv")).unwrap();
        session
    }

    fn check(&self, kind: Kind) -> Result<(), String> {
        match kind {
            Kind::Shell => Ok(()),
            Kind::Packshot(arguments) => {
                accepted_by_packshot(&arguments)?;
                self.run(arguments)
            }
            Kind::PackshotArguments(arguments) => accepted_by_packshot(&arguments),
            Kind::Program(name, arguments) => accepted_by_program(&name, &arguments),
            Kind::Stack(arguments) => accepted_by_script("stack", &arguments),
            Kind::Make(arguments) => accepted_by_make(&arguments),
            Kind::CargoLambda(arguments) => accepted_by_cargo_lambda(&arguments),
            Kind::Cargo(arguments) => accepted_by_cargo(&arguments),
            Kind::Curl(arguments) => accepted_by_fake_services(&arguments),
            Kind::Python(arguments) => accepted_by_python(&arguments),
        }
    }

    fn run(&self, mut arguments: Vec<String>) -> Result<(), String> {
        self.provide_files(&arguments)?;
        if arguments[0] == "review" {
            arguments.push("--no-open".to_owned());
        }
        succeeded(self.packshot().args(&arguments))
    }

    fn packshot(&self) -> Command {
        let mut command = Command::new(packshot_tests::packshot());
        command.current_dir(self.dir.path()).env_remove("CREATIVEAI_API_KEY").env_remove("PACKSHOT_API_URL");
        command
    }

    /// Creates the reader's own files that a command needs: a catalog, or the manifest of one.
    fn provide_files(&self, arguments: &[String]) -> Result<(), String> {
        let inputs = arguments.iter().zip(std::iter::once("").chain(arguments.iter().map(String::as_str)));
        for (name, _) in inputs.filter(|(_, before)| *before != "--output") {
            let path = self.dir.path().join(name);
            if name.ends_with(".csv") && !path.exists() {
                fs::copy(root().join("events/catalog.csv"), path).unwrap();
            } else if name.ends_with(".jsonl") && !path.exists() {
                succeeded(self.packshot().args(["run", "events/catalog.csv", "--output", name.as_str()]))?;
            }
        }
        Ok(())
    }
}

fn succeeded(command: &mut Command) -> Result<(), String> {
    output(command).map(drop)
}

fn output(command: &mut Command) -> Result<String, String> {
    // The flags of `make test`, which runs this, must not reach the make that is called here.
    command.stdin(Stdio::null()).env_remove("MAKEFLAGS").env_remove("MAKELEVEL");
    let Output { status, stdout, stderr } = command.output().map_err(|error| format!("cannot start: {error}"))?;
    let (out, err) = (String::from_utf8_lossy(&stdout), String::from_utf8_lossy(&stderr));
    if status.success() { Ok(out.into_owned()) } else { Err(format!("{status}\n{out}{err}")) }
}

/// Adds `--help`, so that the arguments are parsed and nothing runs. That does not detect missing arguments. So the commands for a
/// deployment, with an unreachable endpoint, and the server are also started without it, and must not report a wrong command line.
fn accepted_by_packshot(arguments: &[String]) -> Result<(), String> {
    succeeded(Command::new(packshot_tests::packshot()).args(arguments).arg("--help"))?;
    if !arguments
        .first()
        .is_some_and(|word| ["submit", "redrive", "status", "check", "stub-api"].contains(&word.as_str()))
    {
        return Ok(());
    }
    let elsewhere = TempDir::new().unwrap();
    let mut packshot = Command::new(packshot_tests::packshot());
    packshot
        .current_dir(elsewhere.path())
        .args(arguments)
        .envs([("AWS_ENDPOINT_URL", "http://127.0.0.1:9"), ("AWS_REGION", "us-east-1")])
        .envs([("AWS_ACCESS_KEY_ID", "test"), ("AWS_SECRET_ACCESS_KEY", "test")])
        .stdin(Stdio::null())
        .stdout(Stdio::null())
        .stderr(Stdio::null());
    let mut child = packshot.spawn().unwrap();
    let mut ended = None;
    for _ in 0..40 {
        ended = child.try_wait().unwrap();
        if ended.is_some() {
            break;
        }
        std::thread::sleep(Duration::from_millis(50));
    }
    let _ = child.kill();
    let _ = child.wait();
    let wrong = ended.is_some_and(|status| status.code() == Some(2));
    if wrong { Err("exit status 2: the command line is wrong".to_owned()) } else { Ok(()) }
}

/// Adds `--help`, so that the arguments are parsed and nothing runs.
fn accepted_by_program(name: &str, arguments: &[String]) -> Result<(), String> {
    let of_lambda = name == "bench" && arguments.first().is_some_and(|word| word == "lambda");
    let arguments = if of_lambda { options_of_bench_lambda(arguments)? } else { arguments };
    succeeded(Command::new(packshot_tests::binary(name)).args(arguments).arg("--help"))
}

/// The words before the command that `bench lambda` starts, to which a later `--help` would belong.
fn options_of_bench_lambda(arguments: &[String]) -> Result<&[String], String> {
    let is_option = |word: &String| word.starts_with("--") && word != "--";
    let mut end = 1;
    while arguments.get(end).is_some_and(is_option) {
        // Each option has a value.
        end += 2;
    }
    let function = arguments.get(end..).and_then(<[String]>::last).map_or("", String::as_str);
    let known = !function.is_empty() && root().join("functions").join(function).is_dir();
    if known { Ok(&arguments[..end]) } else { Err(format!("ends with `{function}`, which is no function")) }
}

/// Checks the path of a URL against benches/src/fake_services/control.rs.
fn accepted_by_fake_services(arguments: &[String]) -> Result<(), String> {
    let control = fs::read_to_string(root().join("benches/src/fake_services/control.rs")).unwrap();
    let (options, urls): (Vec<_>, Vec<_>) = arguments.iter().partition(|word| word.starts_with('-'));
    let command = match urls.as_slice() {
        [url] if options.iter().all(|option| *option == "-s") => url.strip_prefix("$FAKE_SERVICES_URL/_bench/"),
        _ => None,
    };
    let command = command.and_then(|rest| rest.split('?').next());
    let command = command.ok_or("only `curl [-s] \"$FAKE_SERVICES_URL/_bench/…\"` is known")?;
    let known = control.contains(&format!("\n        \"{command}\" => "));
    if known { Ok(()) } else { Err(format!("the fake services have no command {command}")) }
}

/// Parses the program in `-c PROGRAM`, or in a here-document for `-`.
fn accepted_by_python(arguments: &[String]) -> Result<(), String> {
    let [option, program] = arguments else { return Err("python3 is checked with a program only".to_owned()) };
    if !["-c", "-"].contains(&option.as_str()) {
        return Err(format!("python3 {option} is unknown"));
    }
    let parse = "import ast, sys; ast.parse(sys.argv[1])";
    succeeded(Command::new(environment_of_make("python")?).args(["-c", parse, program]))
}

fn environment_of_make(program: &str) -> Result<PathBuf, String> {
    let path = root().join(".venv/bin").join(program);
    if path.exists() { Ok(path) } else { Err(format!("{} is missing; run make .venv", path.display())) }
}

fn accepted_by_script(module: &str, arguments: &[String]) -> Result<(), String> {
    let parse = format!("import sys, {module}; {module}.command_line().parse_args(sys.argv[1:])");
    let mut python = Command::new(environment_of_make("python")?);
    succeeded(python.current_dir(root()).env("PYTHONPATH", "scripts").args(["-c", &parse]).args(arguments))
}

fn accepted_by_make(arguments: &[String]) -> Result<(), String> {
    let makefile = fs::read_to_string(root().join("Makefile")).unwrap();
    let value =
        |name: &str| arguments.iter().find_map(|word| word.strip_prefix(&format!("{name}=")).map(str::to_owned));
    for word in arguments.iter().filter(|word| is_assignment(word)) {
        let name = word.split('=').next().unwrap();
        if !makefile.contains(&format!("$({name})")) {
            return Err(format!("the Makefile does not use {name}"));
        }
    }
    if arguments.first().is_some_and(|target| target == "invoke") {
        let named = ["FUNCTION", "EVENT"].into_iter().filter_map(value);
        accepted_by_script("invoke", &named.collect::<Vec<_>>())?;
    }
    if let Some(flags) = value("BENCH") {
        let flags = flags.split_whitespace().map(str::to_owned);
        accepted_by_program("bench", &std::iter::once("run".to_owned()).chain(flags).collect::<Vec<_>>())?;
    }
    succeeded(Command::new("make").current_dir(root()).arg("--dry-run").args(arguments))
}

fn accepted_by_cargo_lambda(arguments: &[String]) -> Result<(), String> {
    for (option, value) in arguments.iter().zip(&arguments[1..]) {
        if ["--manifest-path", "--data-file"].contains(&option.as_str()) && !root().join(value).exists() {
            return Err(format!("there is no {value}"));
        }
    }
    succeeded(Command::new(environment_of_make("cargo-lambda")?).args(arguments).arg("--help"))
}

fn accepted_by_cargo(arguments: &[String]) -> Result<(), String> {
    let subcommand = arguments.first().map_or("", String::as_str);
    if !["build", "test", "bench", "install", "clippy", "fmt", "check"].contains(&subcommand) {
        return Err(format!(
            "`cargo {subcommand}` is unknown: add it to `accepted_by_cargo` in tests/tests/documents.rs"
        ));
    }
    let own = arguments.iter().take_while(|word| *word != "--");
    for (option, value) in own.clone().zip(own.skip(1)) {
        match option.as_str() {
            "-p" | "--package" => known_package(value)?,
            "--test"
                if !root().join(format!("tests/tests/{value}.rs")).exists()
                    && !root().join(format!("tests/tests/{value}/main.rs")).exists() =>
            {
                return Err(format!("there is no test {value}"));
            }
            "--path" | "--manifest-path" if !root().join(value).exists() => return Err(format!("there is no {value}")),
            _ => {}
        }
    }
    Ok(())
}

fn known_package(name: &str) -> Result<(), String> {
    let lock = fs::read_to_string(root().join("Cargo.lock")).unwrap();
    let known = lock.contains(&format!("name = \"{name}\"\n"));
    if known { Ok(()) } else { Err(format!("the workspace has no package {name}")) }
}

#[test]
fn every_command_of_the_documents_works_as_typed() {
    let (session, mut problems, mut ran, mut checked) = (Session::new(), Vec::new(), 0, 0);
    for document in documents() {
        match typed(&document) {
            Ok(commands) => {
                for command in commands {
                    let kind = classify(&command);
                    ran += usize::from(matches!(kind, Ok(Kind::Packshot(_))));
                    checked += 1;
                    if let Err(problem) = kind.and_then(|kind| session.check(kind)) {
                        let remedy = "If it cannot run here, write `<!-- needs: account -->` (or another of NEEDS) before its block.";
                        problems.push(format!("{}: {problem}\n{remedy}", command.place));
                    }
                }
            }
            Err(problem) => problems.push(problem),
        }
    }
    assert!(problems.is_empty(), "{}", problems.join("\n\n"));
    assert!(ran >= 3 && checked >= 100, "only {ran} of {checked} commands ran: are the blocks found?");
    println!("[documents] {checked} commands checked, {ran} of them run");
}

/// The commands of `./stack` and `make invoke`, except those that start and end a stack, which `make test` runs itself.
#[test]
#[ignore = "needs a stack and cargo lambda; `make test` starts one and runs this"]
fn the_commands_for_a_stack_work_as_typed() {
    let stack = Stack::of_this_run();
    let state = stack.state_dir().to_str().unwrap();
    let mut done = BTreeSet::new();
    for command in documents().iter().flat_map(|document| typed(document).unwrap()) {
        let arguments = match classify(&command).unwrap() {
            Kind::Stack(arguments) if ["demo", "env"].contains(&arguments[0].as_str()) => {
                [arguments, vec!["--state-dir".to_owned(), state.to_owned()]].concat()
            }
            Kind::Make(arguments) if arguments[0] == "invoke" => {
                [arguments, vec![format!("STATE_DIR={state}")]].concat()
            }
            _ => continue,
        };
        if done.insert(arguments.clone()) {
            let printed = output(Command::new(&command.words[0]).current_dir(root()).args(&arguments));
            let printed = printed.unwrap_or_else(|problem| panic!("{}: {problem}", command.place));
            assert!(!printed.trim().is_empty(), "{}: prints nothing", command.place);
        }
    }
    assert!(done.len() >= 2, "{done:?}");
    println!("[documents] {} commands run on the stack", done.len());
}

#[test]
fn shell_is_split_into_commands() {
    let shell = "A=1 make x B=\"c d\" # no\n(eval \"$(./stack env f)\" && cargo lambda watch \\\n  --x) &\ncat a > b; v=$(p 'q r')\n";
    let found: Vec<_> = commands(shell).iter().map(|words| words.join("|")).collect();
    let expected = ["A=1|make|x|B=c d", "./stack|env|f", "eval|", "cargo|lambda|watch|--x", "cat|a", "p|q r", "v="];
    assert_eq!(found, expected);
}

#[test]
fn functions_and_here_documents_are_split() {
    let shell =
        "f() { a \"$(( ($(date +%s) - 1) * 2 ))\"; }\ng() { b\n}\npython3 - <<'END' > o\nx = (1)\nEND\nf q | sort\n";
    let found: Vec<_> = commands(shell).iter().map(|words| words.join("|")).collect();
    assert_eq!(found, ["f()", "date|+%s", "a|", "g()", "b", "python3|-|x = (1)\n", "f|q", "sort"]);
}

#[test]
fn a_block_of_commands_must_be_marked_as_sh() {
    let read = |text: &str| blocks(text).map(|blocks| blocks.len());
    assert_eq!(read("```sh\nmake\n```\n\n```\nsome output\n```\n"), Ok(1));
    assert!(read("```\nmake test\n```\n").unwrap_err().contains("```sh"));
    assert!(read("<!-- needs: luck -->\n\n```sh\nx\n```\n").unwrap_err().contains("luck"));
    let marked = blocks("<!-- needs: account -->\n```sh\nx\n```\n").unwrap();
    assert_eq!(marked[0].needs.as_deref(), Some("account"));
}

#[test]
fn unknown_programs_and_arguments_are_problems() {
    let of = |line: &str| {
        let words = commands(line).remove(0);
        classify(&Typed { place: String::new(), needs: None, words, defined: false })
    };
    let words = |line: &str| commands(line).remove(0);
    assert!(of("terraform apply").unwrap_err().contains("terraform"));
    assert!(matches!(of("cargo run --release -- run shoes.csv"), Ok(Kind::Packshot(_))));
    assert!(
        matches!(of("cargo run -p packshot-benches --bin bench -- run"), Ok(Kind::Program(name, _)) if name == "bench")
    );
    assert!(of("cargo run -p packshot-benches -- run").unwrap_err().contains("--bin"));
    assert!(of("cargo run -p packshot-paint -- run").unwrap_err().contains("packshot-paint"));
    assert!(matches!(of("packshot status JOB --bucket BUCKET"), Ok(Kind::PackshotArguments(_))));
    assert!(accepted_by_packshot(&["fly".into()]).unwrap_err().contains("fly"));
    assert!(accepted_by_packshot(&["run".into(), "--no-such-option".into()]).is_err());
    assert!(accepted_by_packshot(&["submit".into(), "--bucket".into(), "b".into()]).is_err());
    assert!(accepted_by_make(&["no-such-target".into()]).is_err());
    assert!(accepted_by_make(&["deploy".into(), "COLOUR=red".into()]).is_err());
    assert!(accepted_by_make(&["bench".into(), "BENCH=--size huge".into()]).unwrap_err().contains("huge"));
    assert!(of("look RetryQueueUrl").unwrap_err().contains("look"));
    let bench = |line: &str| accepted_by_program("bench", &words(line));
    assert!(bench("lambda --split k -- perf record -g splitter").is_ok());
    assert!(bench("lambda --times 1 painter").unwrap_err().contains("painter"));
    assert!(bench("lambda --time 1 splitter").unwrap_err().contains("--time"));
    assert!(accepted_by_fake_services(&words("-s $FAKE_SERVICES_URL/_bench/counts")).is_ok());
    assert!(accepted_by_fake_services(&words("$FAKE_SERVICES_URL/_bench/count")).unwrap_err().contains("count"));
    assert!(accepted_by_python(&words("-c 'print('")).unwrap_err().contains("SyntaxError"));
}
