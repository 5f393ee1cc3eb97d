//! The JSON Schemas in `schemas/`: generated from the types, and what every file that the tests see is held against.

use std::path::PathBuf;

use packshot_pipeline::{
    check::Check,
    model::{job::Job, result::RowResult, summary::Summary},
};
use schemars::{JsonSchema, generate::SchemaSettings};
use serde_json::Value;

/// A kind of file that others read.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Schema {
    /// A line of a manifest.
    Result,
    /// `summary.json`
    Summary,
    /// `job.json`
    Job,
    /// What `packshot check --json` prints.
    Check,
}

impl Schema {
    /// All of them.
    pub const ALL: [Self; 4] = [Self::Result, Self::Summary, Self::Job, Self::Check];

    /// Where it is committed.
    #[must_use]
    pub fn path(self) -> PathBuf {
        let name = format!("{self:?}").to_lowercase();
        PathBuf::from(env!("CARGO_MANIFEST_DIR")).join(format!("../schemas/{name}.schema.json"))
    }

    /// As the types say now.
    #[must_use]
    pub fn generate(self) -> String {
        fn of<T: JsonSchema>() -> schemars::Schema {
            // Of what we write: a field that is always there is required.
            let settings = SchemaSettings::draft2020_12().for_serialize();
            settings.into_generator().into_root_schema_for::<T>()
        }
        let schema = match self {
            Self::Result => of::<RowResult>(),
            Self::Summary => of::<Summary>(),
            Self::Job => of::<Job>(),
            Self::Check => of::<Check>(),
        };
        // Its own order: what it is comes first.
        serde_json::to_string_pretty(&schema).unwrap() + "\n"
    }

    /// What is wrong with a value, by the committed schema.
    #[must_use]
    pub fn problems(self, value: &Value) -> Vec<String> {
        let schema: Value = serde_json::from_str(&std::fs::read_to_string(self.path()).unwrap()).unwrap();
        let validator = jsonschema::options().should_validate_formats(true).build(&schema).unwrap();
        validator.iter_errors(value).map(|error| format!("{}: {error}", error.instance_path())).collect()
    }

    /// Fails unless the text is one valid value.
    #[track_caller]
    pub fn assert(self, text: &str) {
        let value = serde_json::from_str(text).unwrap_or_else(|error| panic!("{self:?}: {error}: {text}"));
        assert_eq!(self.problems(&value), Vec::<String>::new(), "{self:?}: {text}");
    }
}

/// Fails unless every line of a manifest is valid.
#[track_caller]
pub fn assert_manifest(text: &str) {
    for line in text.lines() {
        Schema::Result.assert(line);
    }
}
