//! Checks under which key, and in which form, the pipeline stores each JSON object of a job. The golden files of `shared/pipeline`
//! show the contents.

use std::collections::BTreeMap;

use packshot_pipeline::{
    generate::{breaker::Breaker, guardrail::Guardrail},
    model::json,
    storage,
};
use serde_json::Value;

use super::harness::{Harness, block_on};

#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Form {
    /// One line without a line end.
    Compact,
    /// One line with a line end.
    Line,
    /// Indented, for people, with a final line end.
    Indented,
}

fn form(key: &str, bytes: &[u8]) -> Form {
    let value: Value = serde_json::from_slice(bytes).unwrap_or_else(|error| panic!("{key}: {error}"));
    let forms = [
        (Form::Compact, json::to_vec(&value)),
        (Form::Line, json::to_line(&value)),
        (Form::Indented, json::to_pretty(&value)),
    ];
    let found = forms.iter().find(|(_, written)| written == bytes);
    found.unwrap_or_else(|| panic!("{key} has no known form: {}", String::from_utf8_lossy(bytes))).0
}

/// The form of each JSON object in the store.
async fn stored(harness: &Harness) -> BTreeMap<String, Form> {
    let mut forms = BTreeMap::new();
    for object in storage::list(&harness.ports, "").await.unwrap() {
        // Manifests are results, one after the other.
        if object.key.ends_with(".json") || object.key.starts_with("results/") {
            let form = form(&object.key, harness.read(&object.key).await.as_bytes());
            forms.insert(object.key, form);
        }
    }
    forms
}

#[test]
fn every_object_has_its_key_and_its_form() {
    block_on(async {
        // The first part is full before any row has been generated, because the splitter rejects all of it.
        let mut csv = "sku,title,image_url\n".to_owned();
        csv.extend((1..=1_000).map(|row| format!("R-{row},,https://cdn.example.com/a.png\n")));
        csv.push_str("SKU/1,Mug,https://cdn.example.com/mug.png\n");
        let mut harness = Harness::with(csv.as_bytes(), 1).await;
        let job = harness.split().await.job;
        let changed = harness.changed();
        harness.merge(changed).await;
        let running: Value =
            serde_json::from_str(&harness.read(&format!("manifests/spring/shoes/{job}/summary.json")).await).unwrap();
        assert_eq!((&running["status"], &running["rows_merged"]), (&"running".into(), &1_000.into()));

        harness.generate_all().await;
        let changed = harness.changed();
        harness.merge(changed).await;
        Breaker::default().trip(&harness.ports, false, "insufficient_quota", "HTTP 402").await.unwrap();
        let guardrail = Guardrail::new(Some(50));
        for _ in 0..20 {
            guardrail.ended(&harness.ports, &job, 0, true).await.unwrap();
        }

        let mut found = stored(&harness).await;
        let results = format!("results/{job}/000000/");
        let rejected: Vec<_> = found.extract_if(.., |key, _| key.starts_with(&results)).collect();
        assert_eq!(rejected.len(), 1_000);
        assert_eq!(rejected[0], (format!("{results}000000001-R-1.jsonl"), Form::Line));
        assert!(rejected.iter().all(|(_, form)| *form == Form::Line));
        let expected = [
            ("control/abort/{job}.json", Form::Indented),
            ("control/breaker.json", Form::Indented),
            ("control/merge/{job}/000000.json", Form::Compact),
            ("control/merge/{job}/000001.json", Form::Compact),
            ("control/merge/{job}/so-far.json", Form::Compact),
            ("control/notified/{job}.json", Form::Compact),
            ("control/split/{job}.json", Form::Compact),
            ("ledger/f7/f722771c2a50e8c52ecf56ccf4a84cf8503d3885530db4ccc7f5fdc6133831d7.json", Form::Compact),
            ("manifests/spring/shoes/latest.json", Form::Indented),
            ("manifests/spring/shoes/{job}/summary.json", Form::Indented),
            ("results/{job}/000001/000001001-SKU%2F1.jsonl", Form::Line),
            ("results/{job}/job.json", Form::Indented),
        ];
        let expected = expected.map(|(key, form)| (key.replace("{job}", job.as_str()), form));
        assert_eq!(found, expected.into());
    });
}
