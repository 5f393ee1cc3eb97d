//! Files that must agree: `template.yaml` with the metrics that the code emits, with RUNBOOK.md and with docs/parameters.md; and the
//! paths in ARCHITECTURE.md with the repository.
#![allow(clippy::unwrap_used, clippy::expect_used, clippy::panic, reason = "all of this is test code")]

use std::{collections::BTreeSet, fs, path::Path};

use packshot_aws::metrics::{METRICS, NAMESPACE};
use serde_json::Value;

/// The metrics of AWS's own services that the template may use: namespace, name, dimension.
const OF_AWS: [(&str, &str, &str); 4] = [
    ("AWS/SQS", "ApproximateNumberOfMessagesVisible", "QueueName"),
    ("AWS/SQS", "ApproximateAgeOfOldestMessage", "QueueName"),
    ("AWS/Lambda", "Errors", "FunctionName"),
    ("AWS/Lambda", "Throttles", "FunctionName"),
];

fn root() -> &'static Path {
    Path::new(concat!(env!("CARGO_MANIFEST_DIR"), "/.."))
}

fn file(name: &str) -> String {
    fs::read_to_string(root().join(name)).unwrap_or_else(|error| panic!("{name}: {error}"))
}

/// Parses the template. CloudFormation's functions (`!Ref Alarms`) become their arguments (`Alarms`).
fn template() -> Value {
    serde_saphyr::from_str(&file("template.yaml")).unwrap()
}

fn alarms(template: &Value) -> Vec<(&String, &Value)> {
    let resources = template["Resources"].as_object().unwrap().iter();
    let alarms = resources.filter(|(_, resource)| resource["Type"] == "AWS::CloudWatch::Alarm");
    alarms.map(|(id, alarm)| (id, &alarm["Properties"])).collect()
}

/// A reference to a metric in an alarm or a widget.
#[derive(Debug, PartialEq, Eq, PartialOrd, Ord)]
struct MetricRef {
    namespace: String,
    name: String,
    dimensions: Vec<(String, String)>,
}

fn text(value: &Value) -> String {
    value.as_str().unwrap_or_else(|| panic!("{value} is no text")).to_owned()
}

fn of_alarms(template: &Value) -> Vec<MetricRef> {
    let named = |(_, alarm): (&String, &Value)| MetricRef {
        namespace: text(&alarm["Namespace"]),
        name: text(&alarm["MetricName"]),
        dimensions: alarm["Dimensions"]
            .as_array()
            .unwrap()
            .iter()
            .map(|dimension| (text(&dimension["Name"]), text(&dimension["Value"])))
            .collect(),
    };
    alarms(template).into_iter().map(named).collect()
}

fn of_dashboard(template: &Value) -> Vec<MetricRef> {
    let body = template["Resources"]["Dashboard"]["Properties"]["DashboardBody"].as_str().unwrap();
    let body: Value = serde_json::from_str(body).unwrap();
    let widgets = body["widgets"].as_array().unwrap().iter();
    let named = |metric: &Value| {
        let words: Vec<String> = metric.as_array().unwrap().iter().filter(|word| word.is_string()).map(text).collect();
        let [namespace, name, dimensions @ ..] = words.as_slice() else { panic!("{metric} names no metric") };
        assert_eq!(dimensions.len() % 2, 0, "{metric}");
        MetricRef {
            namespace: namespace.clone(),
            name: name.clone(),
            // In a text, `${AWS::StackName}` means the same as `!Ref AWS::StackName`.
            dimensions: dimensions
                .chunks(2)
                .map(|pair| (pair[0].clone(), pair[1].trim_matches(['$', '{', '}']).to_owned()))
                .collect(),
        }
    };
    widgets.flat_map(|widget| widget["properties"]["metrics"].as_array().unwrap()).map(named).collect()
}

fn is_emitted(named: &MetricRef) -> bool {
    let dimensions: Vec<_> = named.dimensions.iter().map(|(name, value)| (name.as_str(), value.as_str())).collect();
    if named.namespace != NAMESPACE {
        let [(dimension, _)] = dimensions.as_slice() else { return false };
        return OF_AWS.contains(&(&named.namespace, &named.name, dimension));
    }
    let Some(metric) = METRICS.iter().find(|metric| metric.name == named.name) else { return false };
    match dimensions.as_slice() {
        [("Stack", "AWS::StackName")] => true,
        [("Stack", "AWS::StackName"), (dimension, value)] => {
            metric.dimension.is_some_and(|(name, values)| name == *dimension && values.contains(value))
        }
        _ => false,
    }
}

#[test]
fn alarms_and_dashboard_use_emitted_metrics() {
    let template = template();
    let (alarms, dashboard) = (of_alarms(&template), of_dashboard(&template));
    assert!(!alarms.is_empty() && !dashboard.is_empty());
    let unknown: Vec<_> = alarms.iter().chain(&dashboard).filter(|named| !is_emitted(named)).collect();
    assert!(unknown.is_empty(), "these metrics are not emitted: {unknown:#?}");
}

#[test]
fn the_dashboard_shows_every_metric() {
    let dashboard = of_dashboard(&template());
    let shown: BTreeSet<_> = dashboard
        .iter()
        .filter(|named| named.namespace == NAMESPACE)
        .map(|named| (named.name.as_str(), named.dimensions.get(1).map(|(_, value)| value.as_str())))
        .collect();
    let emitted: BTreeSet<_> = METRICS
        .iter()
        .flat_map(|metric| {
            let values = metric.dimension.map(|(_, values)| values).unwrap_or_default();
            std::iter::once(None).chain(values.iter().copied().map(Some)).map(|value| (metric.name, value))
        })
        .collect();
    assert_eq!(shown, emitted);
}

#[test]
fn every_function_names_its_stack() {
    let template = template();
    assert_eq!(template["Globals"]["Function"]["Environment"]["Variables"]["STACK_NAME"], "AWS::StackName");
}

#[test]
fn every_alarm_notifies_and_links_to_the_runbook() {
    let template = template();
    let alarms = alarms(&template);
    assert!(!alarms.is_empty());
    for (id, alarm) in alarms {
        assert_eq!(alarm["AlarmActions"], serde_json::json!(["Alarms"]), "{id} does not notify the operators");
        assert!(alarm["TreatMissingData"].is_string(), "{id} does not define the state for missing data");
        // The anchor of a heading is the heading in lower case.
        let address = format!("See RUNBOOK.md#{}", id.to_lowercase());
        assert!(text(&alarm["AlarmDescription"]).ends_with(&address), "{id} does not end with {address}");
    }
}

#[test]
fn the_runbook_has_a_section_for_every_alarm() {
    let runbook = file("RUNBOOK.md");
    let headings = runbook.lines().filter(|line| line.starts_with('#'));
    let sections: BTreeSet<_> = headings.map(|line| line.trim_matches(['#', ' ', '`'])).collect();
    let template = template();
    let missing: Vec<_> = alarms(&template).into_iter().filter(|(id, _)| !sections.contains(id.as_str())).collect();
    assert!(missing.is_empty(), "RUNBOOK.md has no section for {missing:#?}");
}

/// `docs/parameters.md` has each parameter once, with its default and its limits.
#[test]
fn the_table_of_parameters_is_the_templates() {
    let page = file("docs/parameters.md");
    let mut documented = BTreeSet::new();
    for line in page.lines().filter(|line| line.starts_with("| `")) {
        let cells: Vec<&str> = line.split('|').map(str::trim).collect();
        assert!(
            documented.insert((cells[1].trim_matches('`').to_owned(), cells[2].to_owned(), cells[4].to_owned())),
            "{line}"
        );
        assert_eq!(cells.len(), 7, "{line}");
    }
    let text = |value: &Value| value.as_str().map_or_else(|| value.to_string(), str::to_owned);
    let template = template();
    let parameters = template["Parameters"].as_object().unwrap().iter();
    let declared: BTreeSet<_> = parameters
        .map(|(name, parameter)| {
            let default = match parameter.get("Default").map(text) {
                None => "required".to_owned(),
                Some(default) if default.is_empty() => "empty".to_owned(),
                Some(default) => format!("`{default}`"),
            };
            let limits = match (&parameter["AllowedValues"], &parameter["MinValue"], &parameter["MaxValue"]) {
                (Value::Array(choices), ..) => choices.iter().map(text).collect::<Vec<_>>().join(", "),
                (_, Value::Null, _) => String::new(),
                (_, least, Value::Null) => format!("from {least}"),
                (_, least, most) => format!("{least} – {most}"),
            };
            (name.clone(), default, limits)
        })
        .collect();
    let differ: Vec<_> = declared.symmetric_difference(&documented).collect();
    assert!(differ.is_empty(), "template.yaml and docs/parameters.md differ: {differ:#?}");
}

/// The directories that the paths in ARCHITECTURE.md are relative to.
const ARCHITECTURE_ROOTS: [&str; 3] = ["", "shared/pipeline/src", "shared/aws/src"];

/// Whether a word names a file or a directory of the repository. Keys in the bucket, such as `incoming/`, do not.
fn is_repository_path(word: &str) -> bool {
    let source = [".rs", ".py", ".md", ".toml", ".yaml"].iter().any(|extension| word.ends_with(extension));
    let directory = word.split_once('/').is_some_and(|(first, _)| {
        !first.is_empty() && ARCHITECTURE_ROOTS.iter().any(|parent| root().join(parent).join(first).is_dir())
    });
    source || directory
}

/// The paths of the code map. An indented line continues the directory above it; a line may name several paths.
fn paths_of_code_map(page: &str) -> Vec<String> {
    let (_, map) = page.split_once("\n## Code map\n\n```\n").unwrap();
    let (map, _) = map.split_once("\n```\n").unwrap();
    let (mut paths, mut parent) = (Vec::new(), "");
    for line in map.lines() {
        let indented = line.starts_with(' ');
        let names = line.split_whitespace().take_while(|word| word.ends_with('/') || word.contains('.'));
        for name in names {
            if !indented {
                parent = name;
            }
            paths.push(if indented { format!("{parent}{name}") } else { name.to_owned() });
        }
    }
    paths
}

/// The paths in backticks outside blocks of code.
fn paths_of_text(page: &str) -> Vec<String> {
    let text = page.split("\n```").step_by(2);
    let words = text.flat_map(|text| text.split('`').skip(1).step_by(2));
    words.filter(|word| is_repository_path(word)).map(str::to_owned).collect()
}

/// In a path with a placeholder, `<name>`, only the directory must exist.
fn exists(path: &str) -> bool {
    let path = path.split('<').next().unwrap();
    ARCHITECTURE_ROOTS.iter().any(|parent| root().join(parent).join(path).exists())
}

#[test]
fn the_paths_in_architecture_exist() {
    let page = file("ARCHITECTURE.md");
    // Text that is wrapped together with a heading or a fence hides both, and with them the paths.
    for heading in ["## Entry points", "## Code map", "## Invariants", "## What is deliberately absent"] {
        assert!(page.lines().any(|line| line == heading), "ARCHITECTURE.md has no line `{heading}`");
    }
    let (map, text) = (paths_of_code_map(&page), paths_of_text(&page));
    assert!(map.len() >= 20 && text.len() >= 20, "only {map:?} and {text:?} were found");
    let missing: BTreeSet<_> = map.iter().filter(|path| !root().join(path).exists()).collect();
    assert!(missing.is_empty(), "the code map in ARCHITECTURE.md names {missing:?}");
    let missing: BTreeSet<_> = text.iter().filter(|path| !exists(path)).collect();
    assert!(missing.is_empty(), "ARCHITECTURE.md names {missing:?}");
    // A path that does not exist is found, and a key in the bucket is no path.
    assert_eq!(paths_of_text("`merge/gone.rs` `incoming/` `summary.json`"), ["merge/gone.rs"]);
    assert!(!exists("merge/gone.rs"));
}
