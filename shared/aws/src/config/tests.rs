//! Tests of the configuration: defaults, every setting, refusals, and the names in template.yaml.

use std::{
    cell::RefCell,
    collections::{BTreeMap, BTreeSet},
};

use packshot_pipeline::model::column::Column;

use super::*;

const TEMPLATE: &str = include_str!("../../../../template.yaml");

fn environment<'a>(variables: &'a [(&'a str, &'a str)]) -> impl Fn(&str) -> Option<String> + 'a {
    |name| variables.iter().find(|(known, _)| *known == name).map(|(_, value)| (*value).to_owned())
}

const GENERATOR: [(&str, &str); 4] = [
    ("BUCKET", "b"),
    ("ROWS_QUEUE_URL", "https://sqs.test/rows"),
    ("RETRY_QUEUE_URL", "https://sqs.test/retry"),
    ("API_KEY_SECRET_ARN", "arn:aws:secretsmanager:us-east-1:1:secret:key"),
];

#[test]
fn absent_variables_have_the_pipelines_defaults() {
    let config =
        SplitterConfig::read(environment(&[("BUCKET", "b"), ("ROWS_QUEUE_URL", "q"), ("MAX_ROWS", "")])).unwrap();
    assert_eq!(config.settings, SplitSettings::default());
    assert_eq!((config.bucket.as_str(), config.log_level), ("b", LevelFilter::INFO));
    let config = GeneratorConfig::read(environment(&GENERATOR)).unwrap();
    assert_eq!(config.settings, GenerateSettings::default());
    assert_eq!(config.api_base_url, "https://api.creativeai.run");
    assert_eq!(config.api_key_secret_arn, "arn:aws:secretsmanager:us-east-1:1:secret:key");
}

#[test]
fn every_setting_can_be_set() {
    let config = SplitterConfig::read(environment(&[
        ("BUCKET", "b"),
        ("ROWS_QUEUE_URL", "q"),
        ("LOG_LEVEL", "DEBUG"),
        ("DEFAULT_MODEL", "m"),
        ("DEFAULT_SIZE", "512x512"),
        ("DEFAULT_QUALITY", "low"),
        ("DEFAULT_BACKGROUND", "transparent"),
        ("DEFAULT_N", "1"),
        ("PROMPT_TEMPLATE", "A {{ title }}"),
        ("COLUMN_MAP", "sku=Artikel; title=Name"),
        ("MAX_ROWS", "5"),
        ("MAX_IMAGES_PER_JOB", "20"),
    ]))
    .unwrap();
    let defaults = Defaults {
        model: "m".into(),
        size: "512x512".into(),
        quality: "low".into(),
        background: Some("transparent".into()),
        n: 1,
        prompt_template: Some("A {{ title }}".into()),
        revision: None,
    };
    let column_map = [(Column::Sku, "Artikel".to_owned()), (Column::Title, "Name".to_owned())].into();
    assert_eq!(config.settings, SplitSettings { defaults, column_map, max_rows: 5, max_images: Some(20) });
    assert_eq!(config.log_level, LevelFilter::DEBUG);

    let mut variables = GENERATOR.to_vec();
    variables.extend([
        ("API_BASE_URL", "http://127.0.0.1:9"),
        ("REQUEST_TIMEOUT_SECONDS", "120"),
        ("MAX_RETRIES", "0"),
        ("RETRY_AFTER_CEILING_SECONDS", "5"),
        ("UNKNOWN_OUTCOME_RETRIES", "0"),
        ("REUSE_DAYS", "0"),
        ("ARCHIVE_IMAGES", "False"),
        ("ACCOUNT_ERRORS", "fail"),
        ("REQUESTS_PER_MINUTE", "30"),
        ("MAX_FAILED_PERCENT", "50"),
    ]);
    let config = GeneratorConfig::read(environment(&variables)).unwrap();
    let settings = GenerateSettings {
        request_timeout: Duration::from_secs(120),
        retries: 0,
        retry_after_ceiling: Duration::from_secs(5),
        unknown_outcome_retries: 0,
        reuse: Duration::ZERO,
        archive: false,
        account_errors: AccountPolicy::Fail,
        requests_per_minute: NonZeroU32::new(30),
        max_failed_percent: Some(50),
        ..GenerateSettings::default()
    };
    assert_eq!(config.settings, settings);
    assert_eq!(config.api_base_url, "http://127.0.0.1:9");
}

#[test]
fn all_problems_are_reported_together() {
    let error = GeneratorConfig::read(environment(&[
        ("BUCKET", " "),
        ("LOG_LEVEL", "loud"),
        ("API_KEY_SECRET_ARN", "sk-live-12345678"),
        ("API_BASE_URL", "http://api.creativeai.run"),
        ("PRICE_PER_IMAGE", "NaN"),
        ("REQUEST_TIMEOUT_SECONDS", "abc"),
        ("MAX_RETRIES", "2.0"),
        ("ARCHIVE_IMAGES", "yes"),
        ("ACCOUNT_ERRORS", "panic"),
        ("REQUESTS_PER_MINUTE", "-1"),
        ("MAX_FAILED_PERCENT", "101"),
        ("GENERATOR_TIMEOUT_SECONDS", "330"),
    ]))
    .unwrap_err();
    let expected = "the configuration has 14 problem(s):
- BUCKET (set by template.yaml): is missing or empty
- LOG_LEVEL (parameter LogLevel): must be error or warn or info or debug or trace, not `loud`
- ROWS_QUEUE_URL (set by template.yaml): is missing or empty
- RETRY_QUEUE_URL (set by template.yaml): is missing or empty
- API_KEY_SECRET_ARN (parameter ApiKeySecretArn): must be the ARN of a secret; it begins with arn:
- API_BASE_URL (parameter ApiBaseUrl): `http://api.creativeai.run` would send the API key unencrypted; use https
- PRICE_PER_IMAGE (parameter PricePerImage): must be an amount in USD from 0 to 1000, not `NaN`
- REQUEST_TIMEOUT_SECONDS (parameter RequestTimeoutSeconds): must be a whole number of seconds from 1 to 840, not `abc`
- MAX_RETRIES (parameter MaxRetries): must be a whole number from 0 to 10, not `2.0`
- ARCHIVE_IMAGES (parameter ArchiveImages): must be true or false, not `yes`
- ACCOUNT_ERRORS (parameter AccountErrors): must be pause or fail, not `panic`
- REQUESTS_PER_MINUTE (parameter RequestsPerMinute): must be a whole number from 0 to 1000000, not `-1`
- MAX_FAILED_PERCENT (parameter MaxFailedPercent): must be a whole number from 0 to 100, not `101`
- REQUEST_TIMEOUT_SECONDS (parameter RequestTimeoutSeconds): an invocation of 330 s (parameter GeneratorTimeoutSeconds) \
                    has no room for a call of 300 s and 30 s after it";
    assert_eq!(error.to_string(), expected);
}

#[test]
fn the_merger_needs_a_bucket() {
    let error = MergerConfig::read(environment(&[])).unwrap_err();
    assert!(error.to_string().contains("BUCKET"), "{error}");
    assert_eq!(MergerConfig::read(environment(&[("BUCKET", "b")])).unwrap().bucket, "b");
}

/// The variables of a function as template.yaml sets them: its own and the global ones.
fn variables(function: &str) -> BTreeMap<&'static str, &'static str> {
    let of = |from: &str| {
        let block = &TEMPLATE[TEMPLATE.find(from).unwrap_or_else(|| panic!("no {from}"))..];
        let block = &block[block.find("Variables:\n").unwrap() + "Variables:\n".len()..];
        block
            .lines()
            .filter(|line| !line.trim_start().starts_with('#'))
            .map(|line| {
                line.trim_start().split_once(": ").filter(|(name, _)| !name.contains(|c: char| c.is_lowercase()))
            })
            .map_while(|variable| variable)
    };
    of("\nGlobals:\n").chain(of(&format!("\n  {function}:\n"))).collect()
}

/// An attribute of a parameter in template.yaml, such as `Default` or `MinValue`.
fn parameter_attribute(parameter: &str, what: &str) -> Option<String> {
    let block = &TEMPLATE
        [TEMPLATE.find(&format!("\n  {parameter}:\n    Type:")).unwrap_or_else(|| panic!("no {parameter}")) + 1..];
    let mut lines = block.lines().skip(1).take_while(|line| line.starts_with("    "));
    let value = lines.find_map(|line| line.trim_start().strip_prefix(what)?.strip_prefix(": "))?;
    Some(value.trim_matches('"').to_owned())
}

type Read = fn(&dyn Fn(&str) -> Option<String>) -> Result<String, ConfigError>;

/// Reads the configuration of a function and formats it.
const FUNCTIONS: [(&str, Read); 3] = [
    ("Splitter", |environment| SplitterConfig::read(environment).map(|config| format!("{config:?}"))),
    ("Generator", |environment| GeneratorConfig::read(environment).map(|config| format!("{config:?}"))),
    ("Merger", |environment| MergerConfig::read(environment).map(|config| format!("{config:?}"))),
];

/// The variables of a function if all parameters have their defaults.
fn deployed(function: &str) -> BTreeMap<&'static str, String> {
    variables(function)
        .into_iter()
        .map(|(name, value)| match value.strip_prefix("!Ref ") {
            Some("ApiKeySecretArn") => (name, "arn:aws:secretsmanager:us-east-1:1:secret:key".to_owned()),
            Some(reference) if is_parameter(reference) => (name, parameter_attribute(reference, "Default").unwrap()),
            _ => (name, "made-by-the-template".to_owned()),
        })
        .collect()
}

fn is_parameter(reference: &str) -> bool {
    TEMPLATE.contains(&format!("\n  {reference}:\n    Type: String"))
        || TEMPLATE.contains(&format!("\n  {reference}:\n    Type: Number"))
}

#[test]
fn the_template_sets_exactly_the_variables_that_are_read() {
    for (function, read) in FUNCTIONS {
        let asked = RefCell::new(BTreeSet::new());
        read(&|name| {
            asked.borrow_mut().insert(name.to_owned());
            None
        })
        .unwrap_err();
        let set: BTreeSet<String> = variables(function).into_keys().map(str::to_owned).collect();
        assert_eq!(set, asked.into_inner(), "{function}: set by template.yaml, and read");
    }
}

#[test]
fn the_templates_defaults_are_the_codes_defaults() {
    for (function, read) in FUNCTIONS {
        let all = deployed(function);
        let expected = read(&|name| all.get(name).cloned()).unwrap();
        for (name, value) in variables(function) {
            if value.strip_prefix("!Ref ").is_some_and(parameter_has_default) {
                for absent in [None, Some(String::new()), Some(" ".to_owned())] {
                    let found = read(&|asked| if asked == name { absent.clone() } else { all.get(asked).cloned() });
                    assert_eq!(found.as_ref(), Ok(&expected), "{function} without {name}");
                }
            }
        }
    }
}

fn parameter_has_default(reference: &str) -> bool {
    is_parameter(reference) && parameter_attribute(reference, "Default").is_some()
}

/// Tries for each variable of each function: missing, empty, not a number, out of the template's range, not an allowed value.
#[test]
fn each_variable_that_is_wrong_is_named_with_its_parameter() {
    let mut wrong = 0;
    for (function, read) in FUNCTIONS {
        let all = deployed(function);
        let with = |name: &str, value: Option<&str>| {
            read(&|asked| if asked == name { value.map(str::to_owned) } else { all.get(asked).cloned() })
        };
        for (name, set) in variables(function) {
            let reference = set.strip_prefix("!Ref ").filter(|reference| is_parameter(reference));
            let source =
                reference.map_or_else(|| "set by template.yaml".to_owned(), |name| format!("parameter {name}"));
            let attribute = |what| reference.and_then(|reference| parameter_attribute(reference, what));
            let mut refused = Vec::new();
            if matches!(name, "BUCKET" | "ROWS_QUEUE_URL" | "RETRY_QUEUE_URL" | "API_KEY_SECRET_ARN") {
                refused.extend([None, Some(String::new()), Some(" \n".to_owned())]);
            }
            if let Some((least, most)) = attribute("MinValue").map(|least| (least, attribute("MaxValue").expect(name)))
            {
                for fits in [&least, &most] {
                    // At its limit, a value may conflict with another variable.
                    let found = with(name, Some(fits)).map_err(|error| error.to_string());
                    assert!(
                        found.as_ref().err().is_none_or(|text| text.contains("has no room")),
                        "{name}={fits}: {found:?}"
                    );
                }
                let [below, above] = [least.parse::<f64>().unwrap() - 1.0, most.parse::<f64>().unwrap() + 1.0];
                refused.extend(
                    [below.to_string(), above.to_string(), "abc".into(), "1e3x".into(), "0x10".into()].map(Some),
                );
            }
            if let Some(choices) = attribute("AllowedValues") {
                for choice in choices.trim_matches(['[', ']']).split(", ") {
                    with(name, Some(choice.trim_matches('"'))).unwrap();
                }
                refused.push(Some("perhaps".into()));
            }
            for value in refused {
                let error = with(name, value.as_deref()).unwrap_err();
                assert_eq!(error.0.iter().filter(|problem| !problem.contains("has no room")).count(), 1, "{error}");
                assert!(error.to_string().contains(&format!("\n- {name} ({source}): ")), "{error}");
                wrong += 1;
            }
        }
    }
    assert!(wrong > 70, "{wrong} wrong values were tried");
}
