//! What a person may say about every row of a catalog: the same words for `run`, `check` and `submit`.

use clap::Args;
use packshot_pipeline::{
    model::{
        column::{Column, ColumnMap, parse_mapping},
        defaults::Defaults,
    },
    settings::SplitSettings,
};

/// What the demo API takes for a key, and what keeps its pictures out of paid runs.
pub(crate) const DEMO: &str = "demo";

/// The request, for rows that do not say otherwise.
#[derive(Debug, Clone, Default, Args)]
pub struct Overrides {
    /// Pictures per row, for rows that do not say.
    #[arg(long, value_parser = clap::value_parser!(u8).range(1..=4))]
    pub n: Option<u8>,
    /// Model, for rows that do not say.
    #[arg(long)]
    pub model: Option<String>,
    /// Picture size, for rows that do not say.
    #[arg(long)]
    pub size: Option<String>,
    /// Quality, for rows that do not say.
    #[arg(long)]
    pub quality: Option<String>,
    /// Background, for rows that do not say; for example transparent.
    #[arg(long)]
    pub background: Option<String>,
    /// Which column of the file is which, where packshot does not recognise it; for example sku=Artikelnummer. May be
    /// given several times.
    #[arg(long, value_name = "sku=COLUMN", value_parser = parse_mapping)]
    pub map: Vec<(Column, String)>,
    /// A minijinja template for the prompt, over the row's columns.
    #[arg(long, value_name = "TEMPLATE")]
    pub prompt_template: Option<String>,
    /// Part of what a row is known by: another revision makes every row anew, the same one goes on.
    #[arg(long, value_name = "TEXT")]
    pub revision: Option<String>,
}

impl Overrides {
    /// How the catalog is read. `demo` says that the demo API answers.
    #[must_use]
    pub fn settings(&self, demo: bool) -> SplitSettings {
        let column_map: ColumnMap = self.map.iter().cloned().collect();
        SplitSettings { defaults: self.defaults(demo), column_map, ..SplitSettings::default() }
    }

    /// The defaults in force. `demo` says that the demo API answers.
    #[must_use]
    pub fn defaults(&self, demo: bool) -> Defaults {
        let vendor = Defaults::default();
        // The demo's pictures must never be taken for paid ones.
        let demo = demo.then(|| DEMO.to_owned());
        Defaults {
            model: self.model.clone().unwrap_or(vendor.model),
            size: self.size.clone().unwrap_or(vendor.size),
            quality: self.quality.clone().unwrap_or(vendor.quality),
            background: self.background.clone(),
            n: self.n.unwrap_or(vendor.n),
            prompt_template: self.prompt_template.clone(),
            revision: [demo, self.revision.clone()].into_iter().flatten().reduce(|a, b| format!("{a}/{b}")),
        }
    }
}
