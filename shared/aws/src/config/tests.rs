use packshot_pipeline::columns::Column;

use super::*;

fn environment<'a>(variables: &'a [(&'a str, &'a str)]) -> impl Fn(&str) -> Option<String> + 'a {
    |name| variables.iter().find(|(known, _)| *known == name).map(|(_, value)| (*value).to_owned())
}

const GENERATOR: [(&str, &str); 4] = [
    ("BUCKET", "b"),
    ("ROWS_QUEUE_URL", "https://sqs.test/rows"),
    ("RETRY_QUEUE_URL", "https://sqs.test/retry"),
    ("API_KEY_SECRET_ARN", "arn:secret"),
];

#[test]
fn what_is_not_said_is_the_pipelines_default() {
    let config =
        SplitterConfig::read(environment(&[("BUCKET", "b"), ("ROWS_QUEUE_URL", "q"), ("MAX_ROWS", "")])).unwrap();
    assert_eq!(config.settings, SplitSettings::default());
    assert_eq!((config.bucket.as_str(), config.log_level), ("b", LevelFilter::INFO));
    let config = GeneratorConfig::read(environment(&GENERATOR)).unwrap();
    assert_eq!(config.settings, GenerateSettings::default());
    assert_eq!(config.api_base_url, "https://api.creativeai.run");
    assert_eq!(config.api_key_secret_arn, "arn:secret");
}

#[test]
fn everything_can_be_said() {
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
fn all_problems_come_at_once() {
    let error = GeneratorConfig::read(environment(&[
        ("BUCKET", " "),
        ("LOG_LEVEL", "loud"),
        ("API_BASE_URL", "http://api.creativeai.run"),
        ("REQUEST_TIMEOUT_SECONDS", "0"),
        ("MAX_RETRIES", "two"),
        ("ARCHIVE_IMAGES", "yes"),
        ("ACCOUNT_ERRORS", "panic"),
        ("REQUESTS_PER_MINUTE", "-1"),
        ("MAX_FAILED_PERCENT", "101"),
    ]))
    .unwrap_err();
    let expected = "the configuration has 12 problem(s):
- BUCKET (set by the template): is missing or empty
- LOG_LEVEL (template parameter LogLevel): must be error or warn or info or debug or trace, not `loud`
- ROWS_QUEUE_URL (set by the template): is missing or empty
- RETRY_QUEUE_URL (set by the template): is missing or empty
- API_KEY_SECRET_ARN (template parameter ApiKeySecretArn): is missing or empty
- API_BASE_URL (template parameter ApiBaseUrl): `http://api.creativeai.run` would send the API key unencrypted; use https
- REQUEST_TIMEOUT_SECONDS (template parameter RequestTimeoutSeconds): must be a number from 1 to 840, not `0`
- MAX_RETRIES (template parameter MaxRetries): must be a number from 0 to 10, not `two`
- ARCHIVE_IMAGES (template parameter ArchiveImages): must be true or false, not `yes`
- ACCOUNT_ERRORS (template parameter AccountErrors): must be pause or fail, not `panic`
- REQUESTS_PER_MINUTE (template parameter RequestsPerMinute): must be a number from 0 to 1000000, not `-1`
- MAX_FAILED_PERCENT (template parameter MaxFailedPercent): must be a number from 0 to 100, not `101`";
    assert_eq!(error.to_string(), expected);
}

#[test]
fn the_merger_needs_a_bucket() {
    let error = MergerConfig::read(environment(&[])).unwrap_err();
    assert!(error.to_string().contains("BUCKET"), "{error}");
    assert_eq!(MergerConfig::read(environment(&[("BUCKET", "b")])).unwrap().bucket, "b");
}
