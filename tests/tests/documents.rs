//! The commands in README.md, CONTRIBUTING.md and docs/, as a reader types them.
//!
//! Every command in a block of shell is checked; a command of an unknown program fails the test. Commands that need neither an
//! account nor a key run in a temporary directory. For all others, the program itself (or its parser) must accept the arguments.
//! `<!-- needs: WHAT -->` in the line before a block keeps its commands from running; see [`NEEDS`]. The commands for a stack run in
//! the second test, on the stack of `make test`. tests/stack/aws_commands.py checks the options of `aws`.
#![allow(clippy::unwrap_used, clippy::expect_used, clippy::panic, reason = "all of this is test code")]
#![allow(clippy::disallowed_methods, reason = "it waits for other processes")]

use std::{
    collections::BTreeSet,
    fs,
    path::{Path, PathBuf},
    process::{Command, Output, Stdio},
    time::Duration,
};

use packshot_tests::stack::Stack;
use tempfile::TempDir;

/// The reasons why the commands of a block do not run in the test.
const NEEDS: [&str; 6] = ["account", "key", "browser", "own files", "time", "a second terminal"];

/// Programs of the shell that need no check.
const SHELL: [&str; 9] = ["cd", "echo", "eval", "export", "cat", "kill", "mkdir", "sleep", "unset"];

fn root() -> PathBuf {
    Path::new(env!("CARGO_MANIFEST_DIR")).join("..").canonicalize().unwrap()
}

/// README first: a reader has typed its commands before those of a page in docs/.
fn documents() -> Vec<PathBuf> {
    let mut pages: Vec<_> = fs::read_dir(root().join("docs")).unwrap().map(|entry| entry.unwrap().path()).collect();
    pages.retain(|path| path.extension().is_some_and(|extension| extension == "md"));
    pages.sort();
    let first = ["README.md", "CONTRIBUTING.md"].map(|name| root().join(name));
    first.into_iter().chain(pages).collect()
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
}

/// How a command is checked.
#[derive(Debug, PartialEq, Eq)]
enum Kind {
    /// Runs with the demo API, in a directory of the test.
    Packshot(Vec<String>),
    /// Does not run; packshot must accept the arguments.
    PackshotArguments(Vec<String>),
    /// Another executable of the workspace, by its package.
    Program(String, Vec<String>),
    /// `./stack`
    Stack(Vec<String>),
    /// `make`
    Make(Vec<String>),
    /// `cargo lambda`
    CargoLambda(Vec<String>),
    /// Another subcommand of cargo.
    Cargo(Vec<String>),
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
    ["cargo ", "make ", "./stack ", "packshot ", "aws ", "target/", "$ "].iter().any(|start| line.starts_with(start))
}

/// Splits shell into simple commands, including those inside `$(…)`. Supports the syntax that the documents use: quotes, comments,
/// line continuations, lists, pipes and redirections.
fn commands(shell: &str) -> Vec<Vec<String>> {
    let (mut found, mut words, mut word) = (Vec::new(), Vec::new(), None::<String>);
    let mut characters = shell.chars().peekable();
    let mut redirected = false;
    let end_word = |word: &mut Option<String>, words: &mut Vec<String>, redirected: &mut bool| {
        if let Some(word) = word.take().filter(|_| !std::mem::take(redirected)) {
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
                        found.extend(commands(&substitution(&mut characters)));
                    } else {
                        text.push(inside);
                    }
                }
            }
            '$' if characters.next_if_eq(&'(').is_some() => {
                word.get_or_insert_default();
                found.extend(commands(&substitution(&mut characters)));
            }
            '#' if word.is_none() => while characters.next_if(|&skipped| skipped != '\n').is_some() {},
            '>' | '<' => {
                end_word(&mut word, &mut words, &mut redirected);
                while characters.next_if(|&next| next == '>' || next == '&').is_some() {}
                redirected = true;
            }
            '\n' | ';' | '&' | '|' | '(' | ')' => {
                end_word(&mut word, &mut words, &mut redirected);
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

/// Reads the rest of a `$(…)`.
fn substitution(characters: &mut impl Iterator<Item = char>) -> String {
    let mut depth = 1;
    let inside = characters.take_while(|&character| {
        depth += i32::from(character == '(') - i32::from(character == ')');
        depth > 0
    });
    inside.collect()
}

/// Every command of a document.
fn typed(document: &Path) -> Result<Vec<Typed>, String> {
    let name = document.strip_prefix(root()).unwrap().display().to_string();
    let blocks = blocks(&fs::read_to_string(document).unwrap()).map_err(|problem| format!("{name}, {problem}"))?;
    let mut all = Vec::new();
    for block in blocks {
        for words in commands(&block.text) {
            let words: Vec<_> = words.into_iter().skip_while(|word| is_assignment(word)).collect();
            let place = format!("{name}, block at line {}: `{}`", block.line, words.join(" "));
            if !words.is_empty() {
                all.push(Typed { place, needs: block.needs.clone(), words });
            }
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
        "aws" => Ok(Kind::Shell),
        "cargo" if subcommand == "lambda" => Ok(Kind::CargoLambda(arguments)),
        "cargo" if subcommand == "run" => {
            let split = arguments.iter().position(|word| word == "--").unwrap_or(arguments.len());
            let (flags, rest) = (&arguments[1..split], arguments.get(split + 1..).unwrap_or_default().to_vec());
            match package(flags)?.as_deref() {
                None | Some("packshot") => Ok(classify_packshot(typed, rest)),
                Some(package) => Ok(Kind::Program(package.to_owned(), rest)),
            }
        }
        "cargo" => Ok(Kind::Cargo(arguments)),
        _ if SHELL.contains(&program) => Ok(Kind::Shell),
        _ => match program.strip_prefix("target/release/") {
            Some("packshot") => Ok(classify_packshot(typed, arguments)),
            Some("bench") => Ok(Kind::Program("packshot-benches".to_owned(), arguments)),
            _ => Err(format!("`{program}` is unknown: add to `classify` in tests/tests/documents.rs how to check it")),
        },
    }
}

/// The package in the flags of `cargo run`.
fn package(flags: &[String]) -> Result<Option<String>, String> {
    let mut package = None;
    let mut flags = flags.iter();
    while let Some(flag) = flags.next() {
        match flag.as_str() {
            "--release" | "--quiet" | "--locked" => {}
            "-p" | "--package" => package = flags.next().cloned(),
            other => {
                return Err(format!(
                    "`cargo run` with {other} is unknown: add it to `package` in tests/tests/documents.rs"
                ));
            }
        }
    }
    Ok(package)
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
            Kind::Program(package, arguments) => accepted_by_program(&package, &arguments),
            Kind::Stack(arguments) => accepted_by_script("stack", &arguments),
            Kind::Make(arguments) => accepted_by_make(&arguments),
            Kind::CargoLambda(arguments) => accepted_by_cargo_lambda(&arguments),
            Kind::Cargo(arguments) => accepted_by_cargo(&arguments),
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
fn accepted_by_program(package: &str, arguments: &[String]) -> Result<(), String> {
    known_package(package)?;
    let name = if package == "packshot-benches" { "bench" } else { package };
    succeeded(Command::new(packshot_tests::binary(name)).args(arguments).arg("--help"))
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
    assert!(ran >= 3 && checked >= 20, "only {ran} of {checked} commands ran: are the blocks found?");
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
        classify(&Typed { place: String::new(), needs: None, words })
    };
    assert!(of("terraform apply").unwrap_err().contains("terraform"));
    assert!(matches!(of("cargo run --release -- run shoes.csv"), Ok(Kind::Packshot(_))));
    assert!(matches!(of("packshot status JOB --bucket BUCKET"), Ok(Kind::PackshotArguments(_))));
    assert!(accepted_by_packshot(&["fly".into()]).unwrap_err().contains("fly"));
    assert!(accepted_by_packshot(&["run".into(), "--no-such-option".into()]).is_err());
    assert!(accepted_by_packshot(&["submit".into(), "--bucket".into(), "b".into()]).is_err());
    assert!(accepted_by_make(&["no-such-target".into()]).is_err());
    assert!(accepted_by_make(&["deploy".into(), "COLOUR=red".into()]).is_err());
}
