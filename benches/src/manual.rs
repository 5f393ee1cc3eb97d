//! Commands for manual measurements at a prompt: one function, invoked directly or under a profiler, and sample catalogs.

use std::{fs::File, io::BufWriter, path::PathBuf};

use bytes::Bytes;
use packshot_benches::samples;
use packshot_pipeline::model::keys::JobId;

use crate::{events, lambda::Lambda, outcome::Outcome};

/// Flags of `bench lambda`.
#[derive(Debug, clap::Args)]
#[command(after_help = "\
Examples, in the environment of the fake services (see benches/README.md):
  bench lambda --split incoming/c.csv target/measured/splitter
  bench lambda --generate 100 --times 10 target/measured/generator
  bench lambda --merge 100000 target/measured/merger
  bench lambda --generate 100 -- perf record -g -o perf.data target/measured/generator")]
pub(crate) struct LambdaArgs {
    /// Invoke with the event that this key was uploaded.
    #[arg(long, value_name = "KEY", group = "what")]
    split: Option<String>,
    /// Invoke with a batch of this many rows; each invocation gets new rows.
    #[arg(long, value_name = "ROWS", group = "what")]
    generate: Option<u64>,
    /// Invoke with the event that every part of a job of this many rows has changed.
    #[arg(long, value_name = "ROWS", group = "what")]
    merge: Option<u64>,
    /// Invoke with the event in this file.
    #[arg(long, value_name = "FILE", group = "what")]
    event: Option<PathBuf>,
    /// The job for --generate and --merge: the `<job>` of its `results/<job>/job.json`.
    #[arg(long)]
    job: Option<String>,
    /// Number of invocations, one after the other.
    #[arg(long, default_value_t = 1)]
    times: u64,
    /// Limit the function to the share of a core that a Lambda of this memory has.
    #[arg(long, value_name = "MIB")]
    quota: Option<u64>,
    /// The function's program, or a profiler with its arguments and then the function's program.
    #[arg(required = true, trailing_var_arg = true, allow_hyphen_values = true)]
    command: Vec<String>,
}

/// Flags of `bench catalog`.
#[derive(Debug, clap::Args)]
pub(crate) struct CatalogArgs {
    rows: u64,
    file: PathBuf,
}

pub(crate) fn catalog(args: &CatalogArgs) -> Outcome<()> {
    Ok(samples::catalog(&mut BufWriter::new(File::create(&args.file)?), args.rows)?)
}

#[expect(clippy::print_stdout, reason = "the command's output")]
pub(crate) async fn lambda(args: LambdaArgs) -> Outcome<()> {
    #[expect(clippy::disallowed_methods, reason = "the function inherits the environment of this process")]
    let environment: Vec<_> = std::env::vars().collect();
    let job = match &args.job {
        Some(job) => JobId::parse(job).ok_or("a job's id has sixteen hex digits")?,
        None => samples::job(),
    };
    let dir = tempfile::tempdir()?;
    let (program, arguments) = args.command.split_first().ok_or("no function")?;
    let program = if program.contains('/') { std::path::absolute(program)? } else { program.into() };
    let absolute: Vec<String> = arguments
        .iter()
        .map(|argument| {
            if argument.contains('/') {
                std::path::absolute(argument).map(|path| path.display().to_string())
            } else {
                Ok(argument.clone())
            }
        })
        .collect::<Result<_, _>>()?;
    let arguments: Vec<&str> = absolute.iter().map(String::as_str).collect();
    let mut function = Lambda::start(&program, &arguments, &environment, dir.path()).await?;
    println!("cold start {:.2} ms, {} KiB", function.cold_start.as_secs_f64() * 1e3, function.process.rss_kib()?);
    if let Some(mib) = args.quota
        && !function.process.limit_to_lambda(mib)?
    {
        return Err("this machine does not permit control groups".into());
    }
    for time in 0..args.times {
        let event = if let Some(key) = &args.split {
            events::split(key)
        } else if let Some(rows) = args.generate {
            events::generate(&job, time * rows + 1..(time + 1) * rows + 1)
        } else if let Some(rows) = args.merge {
            events::merge(&job, rows)
        } else {
            let file = args.event.as_ref().ok_or("no event; see --help")?;
            Bytes::from(std::fs::read(file)?)
        };
        let done = function.invoke(event).await?;
        println!(
            "wall {:.3} s, CPU {:.3} s, peak {} KiB, answer {}",
            done.wall.as_secs_f64(),
            done.cpu.as_secs_f64(),
            done.peak_kib,
            String::from_utf8_lossy(&done.answer[..done.answer.len().min(200)])
        );
    }
    // A profiler writes its data when the program ends, so the program must end before this process does.
    function.stop().await;
    Ok(())
}
