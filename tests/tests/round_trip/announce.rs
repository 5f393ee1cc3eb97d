//! Subscribers hear of a job's end, whatever is lost on the way; and a job whose last event was lost ends all the same.

use std::sync::{
    Mutex,
    atomic::{AtomicBool, Ordering},
};

use async_trait::async_trait;
use packshot_pipeline::{
    merge::sweep::{SweepError, sweep},
    model::{
        event::Fact,
        keys,
        notification::Notice,
        result::{Failed, RowResult},
        summary::Status,
    },
    ports::{Journal, NoticeError, Notices},
};
use serde_json::Value;

use super::*;

/// Keeps what it is told, unless it cannot be reached.
#[derive(Default)]
pub(super) struct Watcher {
    facts: Mutex<Vec<Fact>>,
    told: Mutex<Vec<Notice>>,
    away: AtomicBool,
}

impl Journal for Watcher {
    fn note(&self, fact: Fact) {
        self.facts.lock().unwrap().push(fact);
    }
}

#[async_trait]
impl Notices for Watcher {
    async fn publish(&self, notice: &Notice) -> Result<(), NoticeError> {
        if self.away.load(Ordering::Relaxed) {
            return Err(NoticeError::Unsent { detail: "nobody there".into() });
        }
        self.told.lock().unwrap().push(notice.clone());
        Ok(())
    }
}

impl Watcher {
    fn told(&self) -> Vec<(Status, u64)> {
        self.told.lock().unwrap().iter().map(|notice| (notice.status, notice.counts.completed)).collect()
    }

    /// How old the oldest unfinished job was at each sweep, in seconds.
    fn ages(&self) -> Vec<u64> {
        let facts = self.facts.lock().unwrap();
        let age = |fact: &Fact| if let Fact::Swept { oldest } = fact { Some(oldest.as_secs()) } else { None };
        facts.iter().filter_map(age).collect()
    }

    fn count(&self, fact: Fact) -> usize {
        self.facts.lock().unwrap().iter().filter(|noted| **noted == fact).count()
    }
}

const CSV: &[u8] = b"sku,title,image_url,brand,n,remark\na,mug,https://cdn.example.com/a.png,,1,\nb,cup,https://cdn.example.com/b.png,,1,\n";

/// A job whose rows all have their results, of which nobody knows yet.
async fn generated() -> (World, Job, Manifests, Vec<Changed>) {
    let mut world = World::with(CSV, 1).await;
    let job = world.split().await;
    world.generate_all().await;
    let (files, changed) = (Manifests::of(&job.catalog, &job.job), world.changed());
    (world, job, files, changed)
}

async fn status(world: &World, files: &Manifests) -> Value {
    serde_json::from_str::<Value>(&world.read(&files.summary()).await).unwrap()["status"].clone()
}

#[test]
fn the_end_of_a_job_is_told_once_however_often_its_events_come() {
    block_on(async {
        let (world, _, _, changed) = generated().await;
        for _ in 0..3 {
            world.merge(changed.clone()).await;
        }
        assert_eq!(world.watcher.told(), [(Status::Complete, 2)]);
        let finished = |fact: &Fact| matches!(fact, Fact::ManifestWritten { first: true, .. });
        assert_eq!(world.watcher.facts.lock().unwrap().iter().filter(|fact| finished(fact)).count(), 1);
        assert_eq!(world.watcher.count(Fact::PartMerged), 1);
    });
}

#[test]
fn whoever_cannot_be_told_now_is_told_later_and_nothing_waits_for_it() {
    block_on(async {
        let (world, _, files, changed) = generated().await;
        world.watcher.away.store(true, Ordering::Relaxed);
        let back = merge(&world.ports, changed.clone()).await;
        assert_eq!(back.len(), changed.len(), "the messages come back");
        assert_eq!(status(&world, &files).await, "complete");
        assert!(world.read(&files.latest()).await.contains("manifest.jsonl"));
        // As long as nobody hears it, the sweep tries too, and says so.
        let left = sweep(&world.ports, world.deadline()).await;
        assert!(matches!(left, Err(SweepError::Left { left: 1, open: 1 })), "{left:?}");

        world.watcher.away.store(false, Ordering::Relaxed);
        world.merge(changed).await;
        assert_eq!(world.watcher.told(), [(Status::Complete, 2)]);
    });
}

#[test]
fn a_job_that_a_redrive_heals_ends_anew() {
    block_on(async {
        let (world, job, files, changed) = generated().await;
        let key = keys::result(&job.job, 2, "b");
        let completed = world.read(&key).await;
        let failed: Failed = serde_json::from_value(serde_json::json!({
            "sku": "b", "status": "failed", "error": "e", "row": 2, "job": job.job, "fingerprint": null, "attempts": 1,
            "reused": false, "failed_at": "2026-03-01T00:00:00Z", "error_code": "c", "error_class": "transient", "line": 3,
            "unknown_outcomes": 0, "round": 0, "input": {}
        }))
        .unwrap();
        let failed = packshot_pipeline::model::json::to_line(&RowResult::Failed(Box::new(failed)));
        world.ports.store.put(&key, failed.into(), Precondition::None).await.unwrap();
        world.merge(changed.clone()).await;
        world.ports.store.put(&key, completed.into(), Precondition::None).await.unwrap();
        world.merge(changed.clone()).await;
        world.merge(changed).await;
        assert_eq!(world.watcher.told(), [(Status::CompleteWithFailures, 1), (Status::Complete, 2)]);
        assert_eq!(status(&world, &files).await, "complete");
    });
}

#[test]
fn a_file_that_is_no_catalog_is_told_once() {
    block_on(async {
        let world = World::with(b"name,price\nmug,3\n", 1).await;
        world.watcher.away.store(true, Ordering::Relaxed);
        assert!(world.try_split().await.is_err(), "the splitter is called again");
        world.watcher.away.store(false, Ordering::Relaxed);
        for _ in 0..2 {
            assert!(matches!(world.try_split().await, Ok(SplitReport::Rejected { .. })));
        }
        assert_eq!(world.watcher.told(), [(Status::Rejected, 0)]);
        assert_eq!(world.watcher.count(Fact::CatalogRejected), 1);
    });
}

#[test]
fn a_job_whose_events_are_lost_is_ended_by_the_sweep() {
    block_on(async {
        let (world, _, files, lost) = generated().await;
        assert!(!lost.is_empty());
        tokio::time::sleep(Duration::from_secs(3_600)).await;
        sweep(&world.ports, world.deadline()).await.unwrap();
        assert_eq!(status(&world, &files).await, "complete");
        assert_eq!(world.watcher.told(), [(Status::Complete, 2)]);
        sweep(&world.ports, world.deadline()).await.unwrap();
        let [first, second] = world.watcher.ages()[..] else { panic!("{:?}", world.watcher.ages()) };
        assert!((3_600..3_700).contains(&first) && second == 0, "{first} {second}");
    });
}

#[test]
fn a_job_that_has_only_begun_is_swept_too() {
    block_on(async {
        let world = World::with(CSV, 1).await;
        let job = world.split().await;
        tokio::time::sleep(Duration::from_secs(60)).await;
        sweep(&world.ports, world.deadline()).await.unwrap();
        assert_eq!(status(&world, &Manifests::of(&job.catalog, &job.job)).await, "running");
        assert_eq!((world.watcher.told(), world.watcher.ages()), (vec![], vec![60]));
        // Without any time left nothing is begun, and the age is told all the same.
        assert!(sweep(&world.ports, world.clock.now()).await.is_err());
        assert_eq!(world.watcher.ages(), [60, 60]);
    });
}
