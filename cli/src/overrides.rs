//! Options of `run`, `check` and `submit` that apply to every row of a catalog.

use clap::Args;
use packshot_pipeline::{
    model::{
        column::{Column, ColumnMap, parse_mapping},
        defaults::Defaults,
    },
    settings::SplitSettings,
};

use crate::environment::DEMO;

/// The request of rows that do not have the value in their own column.
#[derive(Debug, Clone, Default, Args)]
pub(crate) struct Overrides {
    /// Images per row, 1 to 4; a row's own `n` has priority.
    #[arg(long, value_parser = clap::value_parser!(u8).range(1..=4))]
    pub(crate) n: Option<u8>,
    /// Model of the image API; a row's own `model` has priority.
    #[arg(long)]
    pub(crate) model: Option<String>,
    /// Image size, for example 1024x1024; a row's own `size` has priority.
    #[arg(long)]
    pub(crate) size: Option<String>,
    /// Image quality; a row's own `quality` has priority.
    #[arg(long)]
    pub(crate) quality: Option<String>,
    /// Background, for example transparent; a row's own `background` has priority.
    #[arg(long)]
    pub(crate) background: Option<String>,
    /// Name a column that packshot does not recognise, for example sku=Artikelnummer. Repeat it for each column.
    #[arg(long, value_name = "sku=COLUMN", value_parser = parse_mapping)]
    pub(crate) map: Vec<(Column, String)>,
    /// A minijinja template for the prompt, over the row's columns.
    #[arg(long, value_name = "TEMPLATE")]
    pub(crate) prompt_template: Option<String>,
    /// Any text. A new text regenerates every row; with the same text, completed rows are reused.
    #[arg(long, value_name = "TEXT")]
    pub(crate) revision: Option<String>,
}

impl Overrides {
    /// How the splitter reads the catalog. `demo`: the demo API will answer.
    pub(crate) fn settings(&self, demo: bool) -> SplitSettings {
        let column_map: ColumnMap = self.map.iter().cloned().collect();
        SplitSettings { defaults: self.defaults(demo), column_map, ..SplitSettings::default() }
    }

    fn defaults(&self, demo: bool) -> Defaults {
        let vendor = Defaults::default();
        // Otherwise a paid run would reuse the demo's images.
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
