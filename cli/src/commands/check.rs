//! `packshot check`: what a run would do and cost, without any call.

use std::path::PathBuf;

use clap::Args;
use packshot_pipeline::model::json;

use crate::{
    environment::Environment,
    estimate::{builder::Assumptions, check::Verdict, inspect::inspect, report::report},
    exit_status::{CommandResult, ExitStatus},
    output,
    overrides::Overrides,
    target::TargetArgs,
};

/// Arguments of `packshot check`.
#[derive(Debug, Args)]
#[command(after_help = "\
Examples:
  packshot check shoes.csv                             what `packshot run shoes.csv` would do
  packshot check shoes.csv --n 2 --price-per-image 0.17
  packshot check shoes.csv --bucket BUCKET             what the deployment has paid for already
  packshot check shoes.csv --json > check.json

check makes no API call, uploads nothing and writes nothing. Cost and time are estimates: price and speed depend on the API, \
and retries come on top.

Exit status: 0 all rows are valid, 3 some rows would be rejected, 1 the file cannot be a catalog.")]
pub(crate) struct CheckArgs {
    /// The catalog: a CSV with the columns sku, title, image_url, or an export of a shop system.
    catalog: PathBuf,
    /// Print one JSON object (schemas/check.schema.json).
    #[arg(long)]
    json: bool,
    #[command(flatten)]
    overrides: Overrides,
    #[command(flatten)]
    target: TargetArgs,
    /// Price of one image in US dollars, for the estimate.
    #[arg(long, value_name = "USD", default_value_t = 0.21, value_parser = price)]
    price_per_image: f64,
    /// Calls at once, for the estimate.
    #[arg(long, default_value_t = 6, value_parser = clap::value_parser!(u16).range(1..=1024))]
    concurrency: u16,
    /// Duration of a call, for the estimate.
    #[arg(long, value_name = "SECONDS", default_value_t = 20, value_parser = clap::value_parser!(u64).range(1..=3600))]
    seconds_per_call: u64,
}

/// Prints the check.
pub(crate) async fn run(args: CheckArgs, environment: Environment) -> CommandResult {
    // A deployment never uses the demo API.
    let demo = args.target.bucket.is_none() && environment.uses_demo();
    let has_ledger = args.target.bucket.is_some() || args.target.out.join("ledger").is_dir();
    let target = if has_ledger { Some(args.target.open().await) } else { None };
    let assumptions = Assumptions {
        price_per_image: args.price_per_image,
        concurrency: args.concurrency,
        seconds_per_call: args.seconds_per_call,
    };
    let check = inspect(&args.catalog, &args.overrides.settings(demo), target.as_ref(), assumptions).await?;
    if args.json {
        output::print(String::from_utf8_lossy(&json::to_pretty(&check)))?;
    } else {
        output::print(report(&check, target.as_ref().map(|target| target.name.as_str())))?;
    }
    Ok(match check.verdict {
        Verdict::Clean => ExitStatus::Done,
        Verdict::Rejects => ExitStatus::SomeFailed,
        Verdict::NotACatalog => ExitStatus::CouldNotRun,
    })
}

fn price(text: &str) -> Result<f64, String> {
    match text.parse() {
        Ok(price) if (0.0..=1_000.0).contains(&price) => Ok(price),
        _ => Err("not a price from 0 to 1000".into()),
    }
}
