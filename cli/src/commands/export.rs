//! `packshot export`: a manifest in the format of another system.

use std::path::PathBuf;

use clap::Args;

use crate::{
    exit_status::{CommandResult, ExitStatus},
    export::{Export, ExportCounts, ExportError, System},
    output,
};

/// Arguments of `packshot export`.
#[derive(Debug, Args)]
#[command(after_help = "\
Examples:
  packshot export shoes-manifest.jsonl --to shopify --output shopify.csv
  packshot export shoes-manifest.jsonl --to google --base-url https://cdn.example.com > feed.tsv

Systems:
  shopify   product CSV, one line per image: Handle, Image Src, Image Position, Image Alt Text
            (the handle is made from the SKU)
  akeneo    CSV with semicolons: sku, image_1 … image_4; rename the columns to your attributes
  google    Merchant feed, tab-separated: id, image_link, additional_image_link
  csv       one line per product: sku, image_count, image_1 … image_4, request_id, model_actual,
            completed_at

Only completed rows are exported. The API's own addresses may expire; --base-url links to the stored images under images/ \
instead. A cell that starts like a spreadsheet formula (= + - @) gets a leading apostrophe.")]
pub(crate) struct ExportArgs {
    /// A manifest.jsonl.
    manifest: PathBuf,
    /// The system that reads the export.
    #[arg(long, value_name = "SYSTEM", value_enum)]
    to: System,
    /// Where to write (default: standard output).
    #[arg(long, value_name = "FILE")]
    output: Option<PathBuf>,
    /// Link to the stored images, at this address of the bucket.
    #[arg(long, value_name = "URL")]
    base_url: Option<String>,
}

/// Exports, and says on standard error what was left out.
pub(crate) fn run(args: ExportArgs) -> CommandResult {
    let export = Export { manifest: args.manifest, system: args.to, base_url: args.base_url };
    let counts = match args.output {
        Some(path) => export.write_file(&path)?,
        None => match export.write(output::stdout()) {
            Err(ExportError::Output(error)) if output::is_closed(&error) => return Ok(ExitStatus::Done),
            counts => counts?,
        },
    };
    say_counts(&counts);
    Ok(ExitStatus::Done)
}

fn say_counts(counts: &ExportCounts) {
    output::say(format_args!("{} products with {} images are exported.", counts.products, counts.images));
    let say = |count, what: &str| {
        if count > 0 {
            output::say(format_args!("{count} {what}"));
        }
    };
    say(counts.failed, "failed rows are left out.");
    say(
        counts.without_address,
        "completed rows are left out: the API gave no addresses. Use --base-url to link to the stored images.",
    );
    say(counts.repeated, "rows are left out: their SKU is in an earlier row, with the same images.");
    say(counts.clashes, "SKUs make the same handle as another SKU; Shopify would treat them as one product.");
    say(counts.defused, "SKUs start like a spreadsheet formula and got a leading apostrophe.");
}
