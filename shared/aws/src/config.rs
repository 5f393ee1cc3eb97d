//! What an operator decided, read once from the environment. Every problem is reported at once, by the name of the variable
//! and of the template's parameter that fills it.

use std::{fmt, num::NonZeroU32, ops::RangeInclusive, str::FromStr, time::Duration};

use packshot_pipeline::{
    generate::AFTER_CALL,
    model::{
        column::{ColumnMap, parse_column_map},
        defaults::Defaults,
    },
    settings::{AccountPolicy, GenerateSettings, SplitSettings},
};
use tracing::level_filters::LevelFilter;

use crate::images_api::parse_base_url;

const DAY: u64 = 24 * 3600;
/// Lambda's limit.
const LONGEST_INVOCATION: Duration = Duration::from_secs(900);

/// What the splitter is told.
#[derive(Debug, Clone, PartialEq)]
pub struct SplitterConfig {
    /// `BUCKET`
    pub bucket: String,
    /// `LOG_LEVEL`
    pub log_level: LevelFilter,
    /// `STACK_NAME`: what its metrics go by.
    pub stack_name: String,
    /// `ROWS_QUEUE_URL`
    pub rows_queue_url: String,
    /// `NOTIFY_TOPIC_ARN`: who hears of rejected files; nobody where absent.
    pub notify_topic_arn: Option<String>,
    /// Everything else.
    pub settings: SplitSettings,
}

/// What the generator is told.
#[derive(Debug, Clone, PartialEq)]
pub struct GeneratorConfig {
    /// `BUCKET`
    pub bucket: String,
    /// `LOG_LEVEL`
    pub log_level: LevelFilter,
    /// `STACK_NAME`: what its metrics go by.
    pub stack_name: String,
    /// `ROWS_QUEUE_URL`
    pub rows_queue_url: String,
    /// `RETRY_QUEUE_URL`
    pub retry_queue_url: String,
    /// `API_KEY_SECRET_ARN`
    pub api_key_secret_arn: String,
    /// `API_BASE_URL`
    pub api_base_url: String,
    /// `PRICE_PER_IMAGE`, in USD: what the spend is estimated with.
    pub price_per_image: f64,
    /// Everything else.
    pub settings: GenerateSettings,
}

/// What the merger is told.
#[derive(Debug, Clone, PartialEq)]
pub struct MergerConfig {
    /// `BUCKET`
    pub bucket: String,
    /// `LOG_LEVEL`
    pub log_level: LevelFilter,
    /// `STACK_NAME`: what its metrics go by.
    pub stack_name: String,
    /// `NOTIFY_TOPIC_ARN`: who hears of finished jobs; nobody where absent.
    pub notify_topic_arn: Option<String>,
}

/// Everything that is wrong with the environment. A person has to act.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
pub struct ConfigError(Vec<String>);

impl fmt::Display for ConfigError {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "the configuration has {} problem(s):", self.0.len())?;
        self.0.iter().try_for_each(|problem| write!(f, "\n- {problem}"))
    }
}

/// The environment of this process: the one gate to it.
#[expect(clippy::disallowed_methods, reason = "this is the gate")]
pub fn process_environment(name: &str) -> Option<String> {
    std::env::var(name).ok()
}

impl SplitterConfig {
    /// Reads the configuration.
    pub fn read(environment: impl Fn(&str) -> Option<String>) -> Result<Self, ConfigError> {
        let mut reader = Reader::new(&environment);
        let default = SplitSettings::default();
        let config = Self {
            bucket: reader.required("BUCKET"),
            log_level: reader.log_level(),
            stack_name: reader.text("STACK_NAME", "packshot"),
            rows_queue_url: reader.required("ROWS_QUEUE_URL"),
            notify_topic_arn: reader.optional("NOTIFY_TOPIC_ARN"),
            settings: SplitSettings {
                defaults: Defaults {
                    model: reader.text("DEFAULT_MODEL", &default.defaults.model),
                    size: reader.text("DEFAULT_SIZE", &default.defaults.size),
                    quality: reader.text("DEFAULT_QUALITY", &default.defaults.quality),
                    background: reader.optional("DEFAULT_BACKGROUND"),
                    n: reader.number("DEFAULT_N", 1..=4, default.defaults.n),
                    prompt_template: reader.optional("PROMPT_TEMPLATE"),
                    revision: None,
                },
                column_map: reader.column_map("COLUMN_MAP"),
                max_rows: reader.number("MAX_ROWS", 1..=100_000_000, default.max_rows),
                max_images: Some(reader.number("MAX_IMAGES_PER_JOB", 0..=1_000_000_000, 0)).filter(|&limit| limit > 0),
            },
        };
        reader.finish(config)
    }
}

impl GeneratorConfig {
    /// Reads the configuration.
    pub fn read(environment: impl Fn(&str) -> Option<String>) -> Result<Self, ConfigError> {
        let mut reader = Reader::new(&environment);
        let default = GenerateSettings::default();
        let config = Self {
            bucket: reader.required("BUCKET"),
            log_level: reader.log_level(),
            stack_name: reader.text("STACK_NAME", "packshot"),
            rows_queue_url: reader.required("ROWS_QUEUE_URL"),
            retry_queue_url: reader.required("RETRY_QUEUE_URL"),
            api_key_secret_arn: reader.secret_arn("API_KEY_SECRET_ARN"),
            api_base_url: reader.base_url("API_BASE_URL", "https://api.creativeai.run"),
            price_per_image: reader.amount("PRICE_PER_IMAGE", 0.0..=1000.0, 0.21),
            settings: GenerateSettings {
                // A function has 15 minutes for everything.
                request_timeout: reader.seconds("REQUEST_TIMEOUT_SECONDS", 1..=840, default.request_timeout),
                retries: reader.number("MAX_RETRIES", 0..=10, default.retries),
                retry_after_ceiling: reader.seconds(
                    "RETRY_AFTER_CEILING_SECONDS",
                    0..=900,
                    default.retry_after_ceiling,
                ),
                unknown_outcome_retries: reader.number(
                    "UNKNOWN_OUTCOME_RETRIES",
                    0..=10,
                    default.unknown_outcome_retries,
                ),
                reuse: Duration::from_secs(
                    DAY * reader.number("REUSE_DAYS", 0..=36_500, default.reuse.as_secs() / DAY),
                ),
                archive: reader.choice("ARCHIVE_IMAGES", &[("true", true), ("false", false)], default.archive),
                account_errors: reader.choice(
                    "ACCOUNT_ERRORS",
                    &[("pause", AccountPolicy::Pause), ("fail", AccountPolicy::Fail)],
                    default.account_errors,
                ),
                requests_per_minute: NonZeroU32::new(reader.number("REQUESTS_PER_MINUTE", 0..=1_000_000, 0)),
                max_failed_percent: Some(reader.number("MAX_FAILED_PERCENT", 0..=100, 0))
                    .filter(|&percent| percent > 0),
                ..default
            },
        };
        let timeout = reader.seconds("GENERATOR_TIMEOUT_SECONDS", 3..=900, LONGEST_INVOCATION);
        let call = config.settings.request_timeout;
        if call + AFTER_CALL >= timeout {
            // It would start, find at each message that no call can end in time, and send all of them back for ever.
            let problem = format!(
                "an invocation of {} s (parameter GeneratorTimeoutSeconds) has no room for a call of {} s and {} s after it",
                timeout.as_secs(),
                call.as_secs(),
                AFTER_CALL.as_secs()
            );
            reader.problem("REQUEST_TIMEOUT_SECONDS", &problem);
        }
        reader.finish(config)
    }
}

impl MergerConfig {
    /// Reads the configuration.
    pub fn read(environment: impl Fn(&str) -> Option<String>) -> Result<Self, ConfigError> {
        let mut reader = Reader::new(&environment);
        let config = Self {
            bucket: reader.required("BUCKET"),
            log_level: reader.log_level(),
            stack_name: reader.text("STACK_NAME", "packshot"),
            notify_topic_arn: reader.optional("NOTIFY_TOPIC_ARN"),
        };
        reader.finish(config)
    }
}

/// Reads variables and collects what is wrong with them. A variable that is empty is a parameter that was left empty.
struct Reader<'a> {
    environment: &'a dyn Fn(&str) -> Option<String>,
    problems: Vec<String>,
}

impl<'a> Reader<'a> {
    fn new(environment: &'a dyn Fn(&str) -> Option<String>) -> Self {
        Self { environment, problems: Vec::new() }
    }

    fn finish<T>(self, config: T) -> Result<T, ConfigError> {
        if self.problems.is_empty() { Ok(config) } else { Err(ConfigError(self.problems)) }
    }

    fn optional(&self, name: &str) -> Option<String> {
        let value = (self.environment)(name)?.trim().to_owned();
        (!value.is_empty()).then_some(value)
    }

    fn text(&self, name: &str, default: &str) -> String {
        self.optional(name).unwrap_or_else(|| default.to_owned())
    }

    /// A variable that the template fills by itself, or from a parameter without a default.
    fn required(&mut self, name: &str) -> String {
        self.optional(name).unwrap_or_else(|| {
            self.problem(name, "is missing or empty");
            String::new()
        })
    }

    fn parsed<T>(&mut self, name: &str, what: &str, range: RangeInclusive<T>, default: T) -> T
    where
        T: FromStr + PartialOrd + fmt::Display,
    {
        let Some(text) = self.optional(name) else { return default };
        match text.parse() {
            Ok(number) if range.contains(&number) => number,
            _ => {
                let problem = format!("must be {what} from {} to {}, not `{text}`", range.start(), range.end());
                self.problem(name, &problem);
                default
            }
        }
    }

    fn secret_arn(&mut self, name: &str) -> String {
        let arn = self.required(name);
        if !arn.is_empty() && !arn.starts_with("arn:") {
            // Not repeated: it may be the key itself.
            self.problem(name, "must be the ARN of a secret; it begins with arn:");
        }
        arn
    }

    fn number<T>(&mut self, name: &str, range: RangeInclusive<T>, default: T) -> T
    where
        T: FromStr + PartialOrd + fmt::Display,
    {
        self.parsed(name, "a whole number", range, default)
    }

    fn seconds(&mut self, name: &str, range: RangeInclusive<u64>, default: Duration) -> Duration {
        Duration::from_secs(self.parsed(name, "a whole number of seconds", range, default.as_secs()))
    }

    fn amount(&mut self, name: &str, range: RangeInclusive<f64>, default: f64) -> f64 {
        self.parsed(name, "an amount in USD", range, default)
    }

    fn choice<T: Copy>(&mut self, name: &str, choices: &[(&str, T)], default: T) -> T {
        let Some(text) = self.optional(name) else { return default };
        if let Some((_, choice)) = choices.iter().find(|(word, _)| word.eq_ignore_ascii_case(&text)) {
            return *choice;
        }
        let words: Vec<&str> = choices.iter().map(|(word, _)| *word).collect();
        self.problem(name, &format!("must be {}, not `{text}`", words.join(" or ")));
        default
    }

    fn column_map(&mut self, name: &str) -> ColumnMap {
        let text = self.text(name, "");
        parse_column_map(&text).unwrap_or_else(|error| {
            self.problem(name, &error.to_string());
            ColumnMap::new()
        })
    }

    fn log_level(&mut self) -> LevelFilter {
        let levels = [
            ("error", LevelFilter::ERROR),
            ("warn", LevelFilter::WARN),
            ("info", LevelFilter::INFO),
            ("debug", LevelFilter::DEBUG),
            ("trace", LevelFilter::TRACE),
        ];
        self.choice("LOG_LEVEL", &levels, LevelFilter::INFO)
    }

    fn base_url(&mut self, name: &str, default: &str) -> String {
        let url = self.text(name, default);
        if let Err(problem) = parse_base_url(&url) {
            self.problem(name, &problem);
        }
        url
    }

    fn problem(&mut self, name: &str, problem: &str) {
        let source = match name {
            "BUCKET" | "ROWS_QUEUE_URL" | "RETRY_QUEUE_URL" => "set by template.yaml".to_owned(),
            _ => format!("parameter {}", parameter(name)),
        };
        self.problems.push(format!("{name} ({source}): {problem}"));
    }
}

/// The template's parameter behind a variable: `MAX_ROWS` is filled from `MaxRows`.
fn parameter(name: &str) -> String {
    name.split('_').map(|word| format!("{}{}", &word[..1], word[1..].to_ascii_lowercase())).collect()
}

#[cfg(test)]
mod tests;
