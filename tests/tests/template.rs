//! What `template.yaml` says about metrics and alarms, against what the code emits and the runbook explains.
#![allow(clippy::unwrap_used, clippy::expect_used, clippy::panic, reason = "all of this is test code")]

use std::{collections::BTreeSet, fs, path::Path};

use packshot_aws::metrics::{METRICS, NAMESPACE};
use serde_json::Value;

/// What AWS's own services emit, of which the template uses: namespace, name, dimension.
const OF_AWS: [(&str, &str, &str); 4] = [
    ("AWS/SQS", "ApproximateNumberOfMessagesVisible", "QueueName"),
    ("AWS/SQS", "ApproximateAgeOfOldestMessage", "QueueName"),
    ("AWS/Lambda", "Errors", "FunctionName"),
    ("AWS/Lambda", "Throttles", "FunctionName"),
];

fn file(name: &str) -> String {
    let path = Path::new(env!("CARGO_MANIFEST_DIR")).join("..").join(name);
    fs::read_to_string(&path).unwrap_or_else(|error| panic!("{name}: {error}"))
}

/// The template; of CloudFormation's functions (`!Ref Alarms`) only the arguments are left (`Alarms`).
fn template() -> Value {
    serde_saphyr::from_str(&file("template.yaml")).unwrap()
}

fn alarms(template: &Value) -> Vec<(&String, &Value)> {
    let resources = template["Resources"].as_object().unwrap().iter();
    let alarms = resources.filter(|(_, resource)| resource["Type"] == "AWS::CloudWatch::Alarm");
    alarms.map(|(id, alarm)| (id, &alarm["Properties"])).collect()
}

/// A metric as an alarm or a widget names it.
#[derive(Debug, PartialEq, Eq, PartialOrd, Ord)]
struct Named {
    namespace: String,
    name: String,
    dimensions: Vec<(String, String)>,
}

fn text(value: &Value) -> String {
    value.as_str().unwrap_or_else(|| panic!("{value} is no text")).to_owned()
}

fn of_alarms(template: &Value) -> Vec<Named> {
    let named = |(_, alarm): (&String, &Value)| Named {
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

fn of_dashboard(template: &Value) -> Vec<Named> {
    let body = template["Resources"]["Dashboard"]["Properties"]["DashboardBody"].as_str().unwrap();
    let body: Value = serde_json::from_str(body).unwrap();
    let widgets = body["widgets"].as_array().unwrap().iter();
    let named = |metric: &Value| {
        let words: Vec<String> = metric.as_array().unwrap().iter().filter(|word| word.is_string()).map(text).collect();
        let [namespace, name, dimensions @ ..] = words.as_slice() else { panic!("{metric} names no metric") };
        assert_eq!(dimensions.len() % 2, 0, "{metric}");
        Named {
            namespace: namespace.clone(),
            name: name.clone(),
            // `${AWS::StackName}` in a text is what `!Ref AWS::StackName` is elsewhere.
            dimensions: dimensions
                .chunks(2)
                .map(|pair| (pair[0].clone(), pair[1].trim_matches(['$', '{', '}']).to_owned()))
                .collect(),
        }
    };
    widgets.flat_map(|widget| widget["properties"]["metrics"].as_array().unwrap()).map(named).collect()
}

fn is_emitted(named: &Named) -> bool {
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
fn alarms_and_dashboard_watch_what_is_emitted() {
    let template = template();
    let (alarms, dashboard) = (of_alarms(&template), of_dashboard(&template));
    assert!(!alarms.is_empty() && !dashboard.is_empty());
    let unknown: Vec<_> = alarms.iter().chain(&dashboard).filter(|named| !is_emitted(named)).collect();
    assert!(unknown.is_empty(), "nobody emits {unknown:#?}");
}

#[test]
fn everything_that_is_emitted_can_be_seen() {
    let dashboard = of_dashboard(&template());
    let seen: BTreeSet<_> = dashboard
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
    assert_eq!(seen, emitted);
}

#[test]
fn every_function_names_its_stack() {
    let template = template();
    assert_eq!(template["Globals"]["Function"]["Environment"]["Variables"]["STACK_NAME"], "AWS::StackName");
}

#[test]
fn every_alarm_rings_and_says_where_to_read_on() {
    let template = template();
    let alarms = alarms(&template);
    assert!(!alarms.is_empty());
    for (id, alarm) in alarms {
        assert_eq!(alarm["AlarmActions"], serde_json::json!(["Alarms"]), "{id} tells nobody");
        assert!(alarm["TreatMissingData"].is_string(), "{id} does not say what silence means");
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

/// `docs/parameters.md` names each parameter once, with its default and its limits.
#[test]
fn the_table_of_parameters_is_the_templates() {
    let page = file("docs/parameters.md");
    let mut said = BTreeSet::new();
    for line in page.lines().filter(|line| line.starts_with("| `")) {
        let cells: Vec<&str> = line.split('|').map(str::trim).collect();
        assert!(
            said.insert((cells[1].trim_matches('`').to_owned(), cells[2].to_owned(), cells[4].to_owned())),
            "{line}"
        );
        assert_eq!(cells.len(), 7, "{line}");
    }
    let text = |value: &Value| value.as_str().map_or_else(|| value.to_string(), str::to_owned);
    let template = template();
    let parameters = template["Parameters"].as_object().unwrap().iter();
    let is: BTreeSet<_> = parameters
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
    let differ: Vec<_> = is.symmetric_difference(&said).collect();
    assert!(differ.is_empty(), "template.yaml and docs/parameters.md differ: {differ:#?}");
}
