//! What `packshot check --json` prints.
//!
//! The doc comments of these types are the descriptions in `schemas/check.schema.json`.

use std::collections::BTreeMap;

use packshot_pipeline::model::{catalog_error::CatalogError, format::Format};
use serde::{Deserialize, Serialize};

use crate::estimate::aws_cost::AwsCost;

/// The version of checks that this code writes.
pub const VERSION: u32 = 1;

/// The verdict on a file.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
#[cfg_attr(feature = "schema", derive(schemars::JsonSchema))]
#[serde(rename_all = "snake_case")]
pub enum Verdict {
    /// Every row is valid.
    Clean,
    /// Some rows would fail without a call.
    Rejects,
    /// The file cannot be a catalog; no row would be sent.
    NotACatalog,
}

/// What `packshot check --json` prints.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
#[cfg_attr(feature = "schema", derive(schemars::JsonSchema))]
pub struct Check {
    /// Format version.
    pub v: u32,
    /// The file's path, as given.
    pub file: String,
    /// The verdict.
    pub verdict: Verdict,
    /// Why it cannot be a catalog.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub problem: Option<CatalogError>,
    /// The contents of the catalog.
    #[serde(flatten)]
    pub found: Option<CatalogReport>,
}

/// The contents of the catalog.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
#[cfg_attr(feature = "schema", derive(schemars::JsonSchema))]
pub struct CatalogReport {
    /// Detected file format.
    pub format: Format,
    /// Recognised export format: `packshot`, `shopify`, `woocommerce`, `google-merchant`, `akeneo`.
    pub export: String,
    /// The file's columns, in order.
    pub columns: Vec<String>,
    /// Recognised columns: standard name → name in the file.
    pub mapping: BTreeMap<String, String>,
    /// Data rows, valid and rejected.
    pub rows: u64,
    /// Records that only continue the product above and are not counted as rows.
    pub continuation_rows: u64,
    /// Valid rows.
    pub valid: u64,
    /// Rows that would fail without a call.
    pub rejected: u64,
    /// The rejected rows by reason, most frequent first.
    pub rejects: Vec<RejectGroup>,
    /// Valid rows that share another row's request and call.
    pub repeated: u64,
    /// Images that the valid rows request.
    pub images: u64,
    /// What is paid for already; absent if no ledger was read.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub known: Option<Amount>,
    /// Calls and images still to be paid for.
    pub to_make: Amount,
    /// Estimated cost and duration.
    pub estimate: Estimate,
}

/// Rejected rows with the same reason.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[cfg_attr(feature = "schema", derive(schemars::JsonSchema))]
pub struct RejectGroup {
    /// Machine-readable code, for example `empty_field`.
    pub code: String,
    /// Number of rows.
    pub count: u64,
    /// The first rows with this reason.
    pub first: Vec<Reject>,
}

/// One rejected row.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[cfg_attr(feature = "schema", derive(schemars::JsonSchema))]
pub struct Reject {
    /// Row number, from 1.
    pub row: u64,
    /// Physical line in the file.
    pub line: u64,
    /// Product key, as far as it could be read.
    pub sku: String,
    /// What is wrong and what to do about it.
    pub message: String,
}

/// Calls, and the images that they return.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq, Serialize, Deserialize)]
#[cfg_attr(feature = "schema", derive(schemars::JsonSchema))]
pub struct Amount {
    /// Number of calls.
    pub calls: u64,
    /// Number of images.
    pub images: u64,
}

/// An estimate: the API's price and speed may differ, and retries come on top.
#[derive(Debug, Clone, Copy, PartialEq, Serialize, Deserialize)]
#[cfg_attr(feature = "schema", derive(schemars::JsonSchema))]
pub struct Estimate {
    /// Cost of the API, in US dollars.
    pub cost_usd: f64,
    /// Duration of the whole run, in seconds.
    pub seconds: u64,
    /// Assumed price of one image, in US dollars.
    pub price_per_image: f64,
    /// Assumed number of calls at once.
    pub concurrency: u16,
    /// Assumed duration of a call, in seconds.
    pub seconds_per_call: u64,
    /// AWS's charge on a deployment with the template's defaults, except for the calls at once.
    pub aws: AwsCost,
}

impl Check {
    /// The check of a file that cannot be a catalog.
    #[must_use]
    pub fn not_a_catalog(file: String, problem: CatalogError) -> Self {
        Self { v: VERSION, file, verdict: Verdict::NotACatalog, problem: Some(problem), found: None }
    }
}

impl Amount {
    /// Adds calls for `n` images each.
    pub(crate) fn and(self, calls: u64, n: u64) -> Self {
        Self { calls: self.calls + calls, images: self.images + calls * n }
    }
}
