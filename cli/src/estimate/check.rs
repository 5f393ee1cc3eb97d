//! What `packshot check --json` prints.
//!
//! The doc comments of these types are the descriptions in `schemas/check.schema.json`.

use std::collections::BTreeMap;

use packshot_pipeline::model::{catalog_error::CatalogError, format::Format};
use serde::{Deserialize, Serialize};

use crate::estimate::aws_cost::AwsCost;

/// The version of checks that this code writes.
pub const VERSION: u32 = 1;

/// What a file is.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
#[cfg_attr(feature = "schema", derive(schemars::JsonSchema))]
#[serde(rename_all = "snake_case")]
pub enum Verdict {
    /// Every row would be sent.
    Clean,
    /// Some rows would be failed without a call.
    Rejects,
    /// No row would be sent.
    NotACatalog,
}

/// What `packshot check --json` prints.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
#[cfg_attr(feature = "schema", derive(schemars::JsonSchema))]
pub struct Check {
    /// Format version.
    pub v: u32,
    /// The file as it was named.
    pub file: String,
    /// What it is.
    pub verdict: Verdict,
    /// Why it cannot be a catalog.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub problem: Option<CatalogError>,
    /// What a catalog holds.
    #[serde(flatten)]
    pub found: Option<CatalogReport>,
}

/// What a catalog holds.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
#[cfg_attr(feature = "schema", derive(schemars::JsonSchema))]
pub struct CatalogReport {
    /// How the file is written.
    pub format: Format,
    /// Which kind of file it was recognised as: `packshot`, `shopify`, `woocommerce`, `google-merchant`, `akeneo`.
    pub export: String,
    /// The file's columns, in order.
    pub columns: Vec<String>,
    /// What was recognised: standard name → name in the file.
    pub mapping: BTreeMap<String, String>,
    /// Data records.
    pub rows: u64,
    /// Records that are no rows, because they only go on with the product above.
    pub continuation_rows: u64,
    /// Rows that would be sent.
    pub valid: u64,
    /// Rows that would be failed without a call.
    pub rejected: u64,
    /// Why, most frequent first.
    pub rejects: Vec<RejectGroup>,
    /// Valid rows that share another row's request, and with it the call.
    pub repeated: u64,
    /// Pictures that the valid rows ask for.
    pub images: u64,
    /// What is paid for already; absent where no ledger was looked at.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub known: Option<Amount>,
    /// What is left to pay for.
    pub to_make: Amount,
    /// A guess at what that takes.
    pub estimate: Estimate,
}

/// Rejected rows with the same reason.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[cfg_attr(feature = "schema", derive(schemars::JsonSchema))]
pub struct RejectGroup {
    /// A word for machines.
    pub code: String,
    /// How many.
    pub count: u64,
    /// The first of them.
    pub first: Vec<Reject>,
}

/// One rejected row.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[cfg_attr(feature = "schema", derive(schemars::JsonSchema))]
pub struct Reject {
    /// The row, from 1.
    pub row: u64,
    /// Physical line in the file.
    pub line: u64,
    /// As far as it could be read.
    pub sku: String,
    /// What is wrong and what to do.
    pub message: String,
}

/// Calls, and the pictures they bring.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq, Serialize, Deserialize)]
#[cfg_attr(feature = "schema", derive(schemars::JsonSchema))]
pub struct Amount {
    /// Calls of the API.
    pub calls: u64,
    /// Pictures.
    pub images: u64,
}

/// A guess: the API's price and speed are its own, and retries come on top.
#[derive(Debug, Clone, Copy, PartialEq, Serialize, Deserialize)]
#[cfg_attr(feature = "schema", derive(schemars::JsonSchema))]
pub struct Estimate {
    /// US dollars.
    pub cost_usd: f64,
    /// From beginning to end.
    pub seconds: u64,
    /// As it was assumed.
    pub price_per_image: f64,
    /// Calls at once, as assumed.
    pub concurrency: u16,
    /// As it was assumed.
    pub seconds_per_call: u64,
    /// What AWS takes beside the API, where it runs there: at the template's defaults, but for the calls at once.
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
