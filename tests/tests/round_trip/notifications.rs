//! Notifications and the sweep: subscribers are notified once of each end of a job, and a job whose last event was lost is ended by
//! the sweep.

use std::{sync::atomic::Ordering, time::Duration};

use packshot_pipeline::{
    merge::{
        Changed, merge,
        sweep::{SweepError, sweep},
    },
    model::{
        event::MetricEvent,
        job::Job,
        keys::{self, Manifests},
        result::{Failed, RowResult},
        summary::Status,
    },
    ports::{Clock as _, Precondition},
    split::SplitReport,
};
use serde_json::Value;

use super::harness::{Harness, block_on};

const CSV: &[u8] = b"sku,title,image_url,brand,n,remark\na,mug,https://cdn.example.com/a.png,,1,\nb,cup,https://cdn.example.com/b.png,,1,\n";

/// A job whose rows all have results, before any merge, with the events of these results.
async fn generated() -> (Harness, Job, Manifests, Vec<Changed>) {
    let mut harness = Harness::with(CSV, 1).await;
    let job = harness.split().await;
    harness.generate_all().await;
    let (files, changed) = (Manifests::of(&job.catalog, &job.job), harness.changed());
    (harness, job, files, changed)
}

async fn status(harness: &Harness, files: &Manifests) -> Value {
    serde_json::from_str::<Value>(&harness.read(&files.summary()).await).unwrap()["status"].clone()
}

#[test]
fn the_end_of_a_job_is_notified_once_if_its_events_are_repeated() {
    block_on(async {
        let (harness, _, _, changed) = generated().await;
        for _ in 0..3 {
            harness.merge(changed.clone()).await;
        }
        assert_eq!(harness.recorder.published(), [(Status::Complete, 2)]);
        let finished = |event: &MetricEvent| matches!(event, MetricEvent::ManifestWritten { first: true, .. });
        assert_eq!(harness.recorder.metrics.lock().unwrap().iter().filter(|event| finished(event)).count(), 1);
        assert_eq!(harness.recorder.count(MetricEvent::PartMerged), 1);
    });
}

#[test]
fn a_failed_notification_is_retried_and_delays_no_manifest() {
    block_on(async {
        let (harness, _, files, changed) = generated().await;
        harness.recorder.unreachable.store(true, Ordering::Relaxed);
        let back = merge(&harness.ports, changed.clone()).await;
        assert_eq!(back.len(), changed.len(), "the messages are delivered again");
        assert_eq!(status(&harness, &files).await, "complete");
        assert!(harness.read(&files.latest()).await.contains("manifest.jsonl"));
        // Until the notification is sent, the sweep retries it, too, and reports the failure.
        let left = sweep(&harness.ports, harness.deadline()).await;
        assert!(matches!(left, Err(SweepError::Left { left: 1, open: 1 })), "{left:?}");

        harness.recorder.unreachable.store(false, Ordering::Relaxed);
        harness.merge(changed).await;
        assert_eq!(harness.recorder.published(), [(Status::Complete, 2)]);
    });
}

#[test]
fn a_job_that_a_redrive_completes_is_notified_again() {
    block_on(async {
        let (harness, job, files, changed) = generated().await;
        let key = keys::result(&job.job, 2, "b");
        let completed = harness.read(&key).await;
        let failed: Failed = serde_json::from_value(serde_json::json!({
            "sku": "b", "status": "failed", "error": "e", "row": 2, "job": job.job, "fingerprint": null, "attempts": 1,
            "reused": false, "failed_at": "2026-03-01T00:00:00Z", "error_code": "c", "error_class": "transient", "line": 3,
            "unknown_outcomes": 0, "round": 0, "input": {}
        }))
        .unwrap();
        let failed = packshot_pipeline::model::json::to_line(&RowResult::Failed(Box::new(failed)));
        harness.ports.store.put(&key, failed.into(), Precondition::None).await.unwrap();
        harness.merge(changed.clone()).await;
        harness.ports.store.put(&key, completed.into(), Precondition::None).await.unwrap();
        harness.merge(changed.clone()).await;
        harness.merge(changed).await;
        assert_eq!(harness.recorder.published(), [(Status::CompleteWithFailures, 1), (Status::Complete, 2)]);
        assert_eq!(status(&harness, &files).await, "complete");
    });
}

#[test]
fn a_rejected_file_is_notified_once() {
    block_on(async {
        let harness = Harness::with(b"name,price\nmug,3\n", 1).await;
        harness.recorder.unreachable.store(true, Ordering::Relaxed);
        assert!(harness.try_split().await.is_err(), "Lambda retries the splitter");
        harness.recorder.unreachable.store(false, Ordering::Relaxed);
        for _ in 0..2 {
            assert!(matches!(harness.try_split().await, Ok(SplitReport::Rejected { .. })));
        }
        assert_eq!(harness.recorder.published(), [(Status::Rejected, 0)]);
        assert_eq!(harness.recorder.count(MetricEvent::CatalogRejected), 1);
    });
}

#[test]
fn a_job_whose_events_are_lost_is_ended_by_the_sweep() {
    block_on(async {
        let (harness, _, files, lost) = generated().await;
        assert!(!lost.is_empty());
        tokio::time::sleep(Duration::from_secs(3_600)).await;
        sweep(&harness.ports, harness.deadline()).await.unwrap();
        assert_eq!(status(&harness, &files).await, "complete");
        assert_eq!(harness.recorder.published(), [(Status::Complete, 2)]);
        sweep(&harness.ports, harness.deadline()).await.unwrap();
        let [first, second] = harness.recorder.ages()[..] else { panic!("{:?}", harness.recorder.ages()) };
        assert!((3_600..3_700).contains(&first) && second == 0, "{first} {second}");
    });
}

#[test]
fn a_job_that_is_only_split_is_swept_too() {
    block_on(async {
        let harness = Harness::with(CSV, 1).await;
        let job = harness.split().await;
        tokio::time::sleep(Duration::from_secs(60)).await;
        sweep(&harness.ports, harness.deadline()).await.unwrap();
        assert_eq!(status(&harness, &Manifests::of(&job.catalog, &job.job)).await, "running");
        assert_eq!((harness.recorder.published(), harness.recorder.ages()), (vec![], vec![60]));
        // Without time left the sweep merges nothing, but still records the age.
        assert!(sweep(&harness.ports, harness.clock.now()).await.is_err());
        assert_eq!(harness.recorder.ages(), [60, 60]);
    });
}
