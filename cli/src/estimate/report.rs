//! A check in words.

use std::{collections::BTreeMap, fmt::Write as _, time::Duration};

use indicatif::HumanDuration;

use crate::{
    estimate::check::{CatalogReport, Check},
    output::Fields,
};

/// The whole check. `ledger` names the ledger that was read.
pub(crate) fn report(check: &Check, ledger: Option<&str>) -> String {
    let Some(found) = &check.found else {
        let why = check.problem.as_ref().map(ToString::to_string).unwrap_or_default();
        return format!("{} cannot be a catalog: {why}\n", check.file);
    };
    let mut fields = Fields::new(&check.file);
    fields.add("format", format_args!("{}{}", found.format, export_kind(&found.export)));
    let columns =
        found.mapping.iter().map(|(ours, theirs)| if ours == theirs { ours.clone() } else { from(ours, theirs) });
    fields.add("columns", columns.collect::<Vec<_>>().join(", "));
    let ignored = found.columns.iter().filter(|name| !found.mapping.values().any(|used| used == *name));
    let ignored: Vec<_> = ignored.map(String::as_str).collect();
    if !ignored.is_empty() {
        fields.add("ignored", ignored.join(", "));
    }
    fields.add("rows", format_args!("{}: {} fine, {} rejected", found.rows, found.valid, found.rejected));
    if found.continuation_rows > 0 {
        fields.add("continued", format_args!("{} records belong to the product above", found.continuation_rows));
    }
    if found.repeated > 0 {
        let repeated = found.repeated;
        fields.add("repeated", format_args!("{repeated} rows request the same as another row and share its call"));
    }
    fields.add("images", images(found, ledger));
    let estimate = &found.estimate;
    fields.add(
        "estimate",
        format_args!(
            "about {:.2} USD at {} USD an image, about {} with {} calls at once of {} s each. A guess: price and speed \
             depend on the API, and retries come on top",
            estimate.cost_usd,
            estimate.price_per_image,
            HumanDuration(Duration::from_secs(estimate.seconds)),
            estimate.concurrency,
            estimate.seconds_per_call,
        ),
    );
    fields.add(
        "on AWS",
        format_args!(
            "about {:.2} USD more for Lambda, S3, SQS and logs, and {:.2} USD a month for what is kept (docs/cost.md)",
            estimate.aws.total_usd, estimate.aws.storage_usd_per_month
        ),
    );
    format!("{fields}{}", rejects(found, usize::MAX))
}

fn images(found: &CatalogReport, ledger: Option<&str>) -> String {
    let mut text = format!("{} to make, with {} calls", found.to_make.images, found.to_make.calls);
    if let (Some(known), Some(ledger)) = (found.known, ledger) {
        let _ = write!(text, "; {} are paid for already, says the ledger in {ledger}", known.images);
    }
    text
}

/// The rejected rows by reason, at most `shown` of each; empty if no row is rejected.
pub(crate) fn rejects(found: &CatalogReport, shown: usize) -> String {
    let mut text = String::new();
    if found.rejected > 0 {
        let _ = writeln!(text, "{} rows are rejected; each becomes a failed line, without a call:", found.rejected);
    }
    for group in &found.rejects {
        let _ = writeln!(text, "  {} × {}", group.count, group.code);
        let first = &group.first[..group.first.len().min(shown)];
        for reject in first {
            let _ = writeln!(text, "    {}", reject.message);
        }
        let more = group.count - first.len() as u64;
        if more > 0 {
            let _ = writeln!(text, "    … and {more} more");
        }
    }
    text
}

/// The columns that have another name in the file than in packshot.
pub(crate) fn renamed(mapping: &BTreeMap<String, String>) -> Vec<String> {
    mapping.iter().filter(|(ours, theirs)| ours != theirs).map(|(ours, theirs)| from(ours, theirs)).collect()
}

fn from(ours: &str, theirs: &str) -> String {
    format!("{ours} from `{theirs}`")
}

/// Names the system that the file was exported from; empty for packshot's own columns.
pub(crate) fn export_kind(export: &str) -> String {
    if export == "packshot" { String::new() } else { format!(", a {export} export") }
}
