//! What all processes of a run share: the bucket, the queues, chance, the trace and the oracle.
//!
//! Every effect passes through here: a write reaches the bucket, then the oracle, then sends its event. Nothing here knows the
//! ports or the processes; both call it.

use std::{collections::BTreeMap, fmt, future::Future, sync::Arc, time::Duration};

use bytes::Bytes;
use fastrand::Rng;
use jiff::Timestamp;
use packshot_local::{MemoryQueue, MemoryStore};
use packshot_pipeline::{
    model::etag::Etag,
    ports::{Clock as _, OutgoingMessage, Page, Precondition, Queue as _, Store as _, StoreError},
    split::SplitInput,
};
use parking_lot::{Mutex, MutexGuard};
use tokio::{sync::Notify, time::sleep};

use crate::{
    call::{Actor, Call, Role},
    clock::SimClock,
    fault::Fault,
    mutation::Mutation,
    oracle::{ApiCounts, Oracle},
    plan::Plan,
    random::{Concern, percent, rng, up_to},
    stats::Stats,
    trace::Trace,
};

/// After the last fault and the last upload everything must end within this long.
pub(crate) const PATIENCE: Duration = Duration::from_secs(4 * 24 * 3600);
/// With more port calls than this a run counts as an endless loop.
const MAX_CALLS: u64 = 20_000;
/// A row that changes after its part is full costs the merger a read of all 1,000 results of the part, each time.
const MAX_CALLS_PER_ROW: u64 = 4_000;

pub(crate) struct SimState {
    pub(crate) plan: Plan,
    pub(crate) clock: Arc<SimClock>,
    pub(crate) store: MemoryStore,
    pub(crate) rows: MemoryQueue,
    pub(crate) retry: MemoryQueue,
    /// Events of uploads: the numbers of split inputs.
    pub(crate) uploads: MemoryQueue,
    /// Events of results: their keys.
    pub(crate) merges: MemoryQueue,
    inner: Mutex<Inner>,
}

struct Inner {
    faults: Rng,
    latency: Rng,
    api: Rng,
    events: Rng,
    hosts: Rng,
    stats: Stats,
    trace: Trace,
    oracle: Oracle,
    split_inputs: Vec<SplitInput>,
    /// Events, uploads, redrives and late effects that are still to come.
    pending: usize,
    /// Invocations that are running.
    running: usize,
    api_calls: u64,
}

impl SimState {
    pub(crate) fn new(plan: Plan, keep_trace: bool) -> Self {
        let seed = plan.seed;
        let clock = Arc::new(SimClock::new(&plan));
        let minute = Duration::from_secs(60);
        Self {
            store: MemoryStore::versioned(clock.clone()),
            clock,
            rows: MemoryQueue::new(plan.hosts.rows_visibility, None, None),
            retry: MemoryQueue::new(minute, None, None),
            uploads: MemoryQueue::new(plan.hosts.split_timeout + minute, None, None),
            merges: MemoryQueue::new(plan.hosts.merge_visibility, None, None),
            inner: Mutex::new(Inner {
                faults: rng(seed, Concern::Faults),
                latency: rng(seed, Concern::Latency),
                api: rng(seed, Concern::Api),
                events: rng(seed, Concern::Events),
                hosts: rng(seed, Concern::Hosts),
                stats: Stats { files: plan.uploads.len() as u64, rows: plan.rows(), ..Stats::default() },
                trace: Trace::new(keep_trace),
                oracle: Oracle::new(plan.clone()),
                split_inputs: Vec::new(),
                pending: 0,
                running: 0,
                api_calls: 0,
            }),
            plan,
        }
    }

    fn inner(&self) -> MutexGuard<'_, Inner> {
        self.inner.lock()
    }

    pub(crate) fn oracle<T>(&self, ask: impl FnOnce(&mut Oracle) -> T) -> T {
        ask(&mut self.inner().oracle)
    }

    pub(crate) fn elapsed(&self) -> Duration {
        self.clock.began.elapsed()
    }

    pub(crate) fn trace_call(&self, actor: &str, call: Call, key: &str, outcome: &str) {
        let at = self.elapsed();
        self.inner().trace.call(at, actor, call, key, outcome);
    }

    pub(crate) fn trace_text(&self, what: fmt::Arguments<'_>) {
        let at = self.elapsed();
        self.inner().trace.text(at, what);
    }

    /// Counts the next port call, and draws how long it takes and what goes wrong.
    pub(crate) fn next_call(&self, role: Role, call: Call, key: &str) -> (Duration, Option<Fault>) {
        let now = self.elapsed();
        let plan = &self.plan.faults;
        let inner = &mut *self.inner();
        inner.stats.port_calls += 1;
        let (name, prefix) = call.kind(key);
        *inner.stats.calls.entry((role.name(), name, prefix)).or_default() += 1;
        let number = inner.stats.port_calls;
        if number > MAX_CALLS + MAX_CALLS_PER_ROW * inner.stats.rows {
            inner.oracle.report("it calls its ports without end".into());
            return (PATIENCE, None);
        }
        if !plan.crashes.is_empty() || plan.rate == 0 {
            let crash = plan.crashes.iter().find(|(at, _)| *at == number).map(|(_, point)| Fault::Crash(*point));
            if let Some(fault) = crash {
                *inner.stats.faults.entry(fault.name()).or_default() += 1;
            }
            return (Duration::from_millis(3 + number % 5), crash);
        }
        let latency = match inner.latency.u32(0..40) {
            0 => up_to(&mut inner.latency, Duration::from_secs(2)),
            n => Duration::from_millis(u64::from(n / 4)),
        };
        if now >= plan.until || inner.faults.u32(0..10_000) >= plan.rate {
            return (latency, None);
        }
        let fault = Fault::draw(&mut inner.faults, plan.crash_percent, plan.stall);
        if !fault.applies_to(call) {
            return (latency, None);
        }
        *inner.stats.faults.entry(fault.name()).or_default() += 1;
        (latency, Some(fault))
    }

    /// How long the API takes for a call, and the id of its answer.
    pub(crate) fn api_call(&self) -> (Duration, String) {
        let mut inner = self.inner();
        inner.api_calls += 1;
        let id = format!("req-{}", inner.api_calls);
        (Duration::from_secs(1) + up_to(&mut inner.api, self.plan.api.slowest), id)
    }

    pub(crate) fn api_chance<T>(&self, draw: impl FnOnce(&mut Rng) -> T) -> T {
        draw(&mut self.inner().api)
    }

    /// Draws how long a process stays dead.
    pub(crate) fn restart_delay(&self) -> Duration {
        up_to(&mut self.inner().hosts, Duration::from_secs(20))
    }

    /// A write that is visible from now on, and its event.
    pub(crate) async fn write(
        self: &Arc<Self>,
        key: &str,
        body: Bytes,
        precondition: Precondition,
    ) -> Result<Etag, StoreError> {
        let etag = self.store.put(key, body.clone(), precondition).await?;
        let now = self.clock.now();
        self.oracle(|oracle| oracle.wrote(key, &body, &etag, now));
        if key.starts_with("results/") {
            self.send_result_event(key);
        }
        Ok(etag)
    }

    /// A write whose request arrives after its sender has given up waiting for the answer.
    pub(crate) fn write_later(self: &Arc<Self>, key: String, body: Bytes, precondition: Precondition, after: Duration) {
        let state = self.clone();
        self.later(after, async move {
            let landed = state.write(&key, body, precondition).await.is_ok();
            state.trace_text(format_args!("late effect on {key}: {landed}"));
        });
    }

    /// Schedules something that happens without an invocation. The run does not end before it has happened.
    pub(crate) fn later(self: &Arc<Self>, after: Duration, what: impl Future<Output = ()> + Send + 'static) {
        self.inner().pending += 1;
        let state = self.clone();
        tokio::spawn(async move {
            sleep(after).await;
            what.await;
            state.inner().pending -= 1;
        });
    }

    /// Sends the event of an uploaded file.
    pub(crate) fn send_upload_event(self: &Arc<Self>, input: SplitInput) {
        let number = {
            let mut inner = self.inner();
            inner.split_inputs.push(input);
            inner.split_inputs.len() - 1
        };
        for delay in self.event_delays() {
            let state = self.clone();
            self.later(delay, async move { state.send_body(&state.uploads, number.to_string()).await });
        }
    }

    /// The input that a message of the uploads queue names.
    pub(crate) fn split_input(&self, body: &str) -> SplitInput {
        self.inner().split_inputs[body.parse::<usize>().unwrap_or_default()].clone()
    }

    fn send_result_event(self: &Arc<Self>, key: &str) {
        if self.plan.mutation == Some(Mutation::EventsLost) && self.inner().events.u32(0..20) == 0 {
            return;
        }
        for delay in self.event_delays() {
            let (state, body) = (self.clone(), key.to_owned());
            self.later(delay, async move { state.send_body(&state.merges, body).await });
        }
    }

    /// Draws when an event arrives: one delay for each time.
    fn event_delays(&self) -> Vec<Duration> {
        let now = self.elapsed();
        let plan = &self.plan.faults;
        let inner = &mut *self.inner();
        let rng = &mut inner.events;
        let mut delays = vec![up_to(rng, Duration::from_secs(2))];
        if now < plan.until && rng.u32(0..10_000) < plan.events {
            let kind = match rng.u32(0..3) {
                0 => {
                    delays.push(up_to(rng, Duration::from_secs(600)));
                    "event repeated"
                }
                1 => {
                    delays[0] = up_to(rng, Duration::from_secs(300));
                    "event late"
                }
                _ => {
                    delays[0] = Duration::from_secs(600) + up_to(rng, Duration::from_secs(3_600));
                    "event lost once"
                }
            };
            *inner.stats.faults.entry(kind).or_default() += 1;
        }
        delays
    }

    pub(crate) async fn send_body(&self, queue: &MemoryQueue, body: String) {
        self.send(queue, &[OutgoingMessage { body, attributes: BTreeMap::new() }]).await;
    }

    pub(crate) async fn send(&self, queue: &MemoryQueue, messages: &[OutgoingMessage]) {
        if let Err(error) = queue.send(messages).await {
            self.oracle(|oracle| oracle.report(format!("the simulated queue refuses: {error}")));
        }
    }

    /// Deletes a handled message; sometimes the deletion is lost.
    pub(crate) fn delete(&self, queue: &MemoryQueue, receipt: &str) {
        let plan = &self.plan.faults;
        if self.elapsed() < plan.until {
            let inner = &mut *self.inner();
            if inner.hosts.u32(0..10_000) < plan.events {
                *inner.stats.faults.entry("deletion lost").or_default() += 1;
                return;
            }
        }
        queue.delete(receipt);
    }

    /// Moves the messages of the retry queue back to the rows queue, as a person does.
    pub(crate) fn redrive(&self) {
        let moved = self.retry.redrive_to(&self.rows);
        self.trace_text(format_args!("redrove {moved} messages"));
        self.inner().stats.redriven += moved as u64;
    }

    /// For a planted mutation: sometimes hides the last object of a listing.
    pub(crate) fn make_stale(&self, prefix: &str, page: &mut Page) {
        if prefix.starts_with("results/") && percent(&mut self.inner().events, 20) {
            page.objects.pop();
        }
    }

    /// Counts an invocation for as long as the guard exists.
    pub(crate) fn begin_invocation(self: &Arc<Self>) -> Running {
        self.inner().running += 1;
        Running(self.clone())
    }

    /// One invocation of a process that begins now, with everything its ports need to know about it.
    pub(crate) fn actor(&self, name: Arc<str>, role: Role, death: Arc<Notify>, limit: Duration) -> Actor {
        let deadline = self.clock.now().checked_add(limit).unwrap_or(Timestamp::MAX);
        Actor { name, role, death, deadline }
    }

    /// Pending happenings, running invocations, and whether a promise is broken.
    pub(crate) fn progress(&self) -> Progress {
        let inner = self.inner();
        Progress { pending: inner.pending, running: inner.running, broken: inner.oracle.broken().is_some() }
    }

    /// Takes the first broken promise, the trace's hash and text, and the statistics.
    pub(crate) fn finish(&self) -> (Option<String>, u64, Vec<String>, Stats) {
        let inner = &mut *self.inner();
        let ApiCounts { calls, billed, unknown } = inner.oracle.api_counts();
        let (hash, trace) = std::mem::take(&mut inner.trace).finish();
        let stats = Stats {
            api_calls: calls,
            billed,
            unknown,
            virtual_time: self.elapsed(),
            ..std::mem::take(&mut inner.stats)
        };
        (inner.oracle.broken().map(str::to_owned), hash, trace, stats)
    }
}

/// How far a run is.
pub(crate) struct Progress {
    pub(crate) pending: usize,
    pub(crate) running: usize,
    pub(crate) broken: bool,
}

/// An invocation that is running, however it ends.
pub(crate) struct Running(Arc<SimState>);

impl Drop for Running {
    fn drop(&mut self) {
        self.0.inner().running -= 1;
    }
}
