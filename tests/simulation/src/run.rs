//! One run: starts what the plan schedules, waits until nothing happens any more, and has the oracle check the end.

use std::{sync::Arc, time::Duration};

use packshot_pipeline::{
    model::keys::{Catalog, JobId},
    ports::Clock as _,
    split::SplitInput,
};
use tokio::time::sleep;

use crate::{
    plan::{Plan, poison_body},
    processes,
    state::{PATIENCE, Progress, SimState},
    stats::Stats,
};

const BUCKET: &str = "simulated";
/// How often the run looks whether everything has ended.
const POLL_INTERVAL: Duration = Duration::from_secs(30);
const MAX_POLL_INTERVAL: Duration = Duration::from_secs(6 * 3600);

/// How a run ended.
#[derive(Debug)]
pub struct Outcome {
    /// The first broken promise.
    pub broken: Option<String>,
    /// Hash of the trace.
    pub hash: u64,
    /// The trace, if it was kept.
    pub trace: Vec<String>,
    /// What happened, in numbers.
    pub stats: Stats,
}

/// Runs a plan to its end.
pub(crate) async fn run(plan: Plan, keep_trace: bool) -> Outcome {
    let state = Arc::new(SimState::new(plan, keep_trace));
    schedule(&state);
    processes::start(&state);
    if until_idle(&state).await {
        let parked: Vec<String> = state.retry.contents().into_iter().map(|message| message.body).collect();
        state.oracle(|oracle| oracle.ended(&parked));
    } else {
        let Progress { pending, running, .. } = state.progress();
        let (rows, events, files) = (state.rows.len(), state.merges.len(), state.uploads.len());
        state.oracle(|oracle| {
            oracle.report(format!(
                "it does not end: {rows} rows, {events} events, {files} files in the queues, {pending} pending, {running} running"
            ));
        });
    }
    let (broken, hash, trace, stats) = state.finish();
    Outcome { broken, hash, trace, stats }
}

/// Schedules what people, the schedule of sweeps and strangers do.
fn schedule(state: &Arc<SimState>) {
    for (number, upload) in state.plan.uploads.iter().enumerate() {
        let own = state.clone();
        state.later(upload.at, async move { upload_file(&own, number) });
    }
    for (number, at) in state.plan.poison.iter().enumerate() {
        let own = state.clone();
        state.later(*at, async move { own.send_body(&own.rows, poison_body(number)).await });
    }
    for at in &state.plan.redrives {
        let own = state.clone();
        state.later(*at, async move { own.redrive() });
    }
    for at in &state.plan.sweeps {
        let own = state.clone();
        state.later(*at, async move {
            processes::run_sweep(&own).await;
        });
    }
}

fn upload_file(state: &Arc<SimState>, number: usize) {
    let upload = &state.plan.uploads[number];
    let version = match state.store.put_version(&upload.key, upload.body.clone().into()) {
        Ok(version) => version,
        Err(error) => {
            state.oracle(|oracle| oracle.report(format!("the file cannot be uploaded: {error}")));
            return;
        }
    };
    let id = JobId::of(BUCKET, &upload.key, &version, "");
    state.trace_text(format_args!("dropped {} as job {id}", upload.key));
    if let Some(catalog) = Catalog::of(&upload.key) {
        let now = state.clock.now();
        state.oracle(|oracle| oracle.uploaded(id, catalog, upload.expected.clone(), now));
    }
    state.send_upload_event(SplitInput {
        bucket: BUCKET.into(),
        key: upload.key.clone(),
        version_id: Some(version),
        etag: None,
        edition: String::new(),
        round: 0,
    });
}

/// Waits until no event, message or invocation is left, redrives and sweeps included. Returns whether that was in time.
async fn until_idle(state: &Arc<SimState>) -> bool {
    let Plan { uploads, faults, final_redrive, .. } = &state.plan;
    let last_upload = uploads.iter().map(|upload| upload.at).max().unwrap_or_default();
    let limit = faults.until.max(last_upload) + PATIENCE;
    // Rows with the same request may share a failure from before the redrive; the next redrive makes them run.
    let mut redrives = if *final_redrive { 2 } else { 0 };
    let (mut interval, mut swept) = (POLL_INTERVAL, false);
    while state.elapsed() < limit {
        sleep(interval).await;
        let Progress { pending, running, broken } = state.progress();
        if broken {
            return true;
        }
        let idle = running == 0 && state.rows.is_empty() && state.uploads.is_empty() && state.merges.is_empty();
        // The next upload may be a month away.
        interval = if idle { (interval * 2).min(MAX_POLL_INTERVAL) } else { POLL_INTERVAL };
        if !idle || pending > 0 {
            continue;
        }
        if swept {
            return true;
        }
        if let Some(faulty) = faults.until.checked_sub(state.elapsed()) {
            sleep(faulty).await;
        }
        if redrives == 0 {
            swept = processes::run_sweep(state).await;
        } else {
            state.redrive();
            redrives -= 1;
        }
        interval = POLL_INTERVAL;
    }
    false
}
