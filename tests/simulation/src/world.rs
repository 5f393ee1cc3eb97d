//! One run: queues, a bucket, processes that are born and die, and somebody who drops files and redrives.

use std::{
    collections::BTreeMap,
    future::Future,
    sync::{Arc, Mutex, MutexGuard, PoisonError},
    time::Duration,
};

use bytes::Bytes;
use fastrand::Rng;
use futures::future::join_all;
use jiff::Timestamp;
use packshot_local::{MemoryQueue, MemoryStore};
use packshot_pipeline::{
    generate::{generate, worker::Worker},
    merge::{Changed, merge, sweep::sweep},
    model::{
        etag::Etag,
        keys::{Catalog, JobId},
    },
    ports::{Clock as _, Delivery, Outgoing, Page, Precondition, Queue as _, Store as _, StoreError},
    settings::GenerateSettings,
    split::{SplitInput, split},
};
use tokio::{
    sync::Notify,
    time::{Instant, sleep, timeout},
};

use super::{
    bug::Bug,
    oracle::{AccountBook, Oracle},
    plan::{Plan, percent, rng, up_to},
    trace::Trace,
    wire::{Actor, Call, Fault, SimClock, Wire, draw},
};

const BUCKET: &str = "simulated";
/// After the last trouble everything must end within this long.
const PATIENCE: Duration = Duration::from_secs(4 * 24 * 3600);
/// Port calls that a run may make before it counts as going in circles.
const CALLS_AT_MOST: u64 = 20_000;
const CALLS_PER_ROW: u64 = 1_000;
const LOOK_EVERY: Duration = Duration::from_secs(30);

/// How a run ended.
#[derive(Debug)]
pub struct Outcome {
    /// The first promise that was broken.
    pub broken: Option<String>,
    /// Hash of the trace.
    pub hash: u64,
    /// The trace, where it was asked for.
    pub trace: Vec<String>,
    /// What happened.
    pub stats: Stats,
}

/// What happened in a run, or in many.
#[derive(Debug, Clone, Default)]
pub struct Stats {
    /// Port calls of the product.
    pub port_calls: u64,
    /// The same by who calls, what, and about which prefix.
    pub calls: BTreeMap<(&'static str, &'static str, &'static str), u64>,
    /// Faults by kind.
    pub faults: BTreeMap<&'static str, u64>,
    /// Files dropped.
    pub files: u64,
    /// Their rows.
    pub rows: u64,
    /// Calls that reached the API.
    pub api_calls: u64,
    /// Calls that were billed.
    pub billed: u64,
    /// Unknown outcomes that were counted.
    pub unknown: u64,
    /// Messages that a person redrove.
    pub redriven: u64,
    /// Simulated time.
    pub virtual_time: Duration,
}

impl Stats {
    /// Adds another run's.
    pub fn add(&mut self, other: &Self) {
        self.port_calls += other.port_calls;
        for (kind, count) in &other.calls {
            *self.calls.entry(*kind).or_default() += count;
        }
        for (kind, count) in &other.faults {
            *self.faults.entry(kind).or_default() += count;
        }
        self.files += other.files;
        self.rows += other.rows;
        self.api_calls += other.api_calls;
        self.billed += other.billed;
        self.unknown += other.unknown;
        self.redriven += other.redriven;
        self.virtual_time += other.virtual_time;
    }
}

pub(super) struct World {
    pub(super) plan: Plan,
    pub(super) clock: Arc<SimClock>,
    pub(super) store: MemoryStore,
    pub(super) rows: Arc<MemoryQueue>,
    pub(super) retry: Arc<MemoryQueue>,
    splits: MemoryQueue,
    merges: MemoryQueue,
    state: Mutex<State>,
}

struct State {
    faults: Rng,
    latency: Rng,
    api: Rng,
    events: Rng,
    hosts: Rng,
    stats: Stats,
    trace: Trace,
    oracle: Oracle,
    /// Inputs of the splitter, by the number that stands in its messages.
    inputs: Vec<SplitInput>,
    /// Events, drops and redrives that are still to come.
    pending: usize,
    /// Invocations that are running.
    busy: usize,
    api_calls: u64,
}

/// The body of the nth message that is none.
pub(super) fn poison(n: usize) -> String {
    match n {
        0 => "not a message".into(),
        n => format!("{{\"v\":1,\"number\":{n}}}"),
    }
}

/// Runs a plan to its end.
pub(super) async fn run(plan: Plan, keep_trace: bool) -> Outcome {
    let world = Arc::new(World::new(plan, keep_trace));
    world.start();
    let ended = world.until_all_is_still().await;
    let mut state = world.state();
    if ended {
        let parked: Vec<String> = world.retry.contents().into_iter().map(|message| message.body).collect();
        let redriven = world.plan.final_redrive;
        state.oracle.ended(redriven, &parked);
    } else if state.oracle.broken.is_none() {
        state.oracle.broken = Some(format!(
            "it does not end: {} rows, {} events, {} files in the queues, {} pending, {} busy",
            world.rows.len(),
            world.merges.len(),
            world.splits.len(),
            state.pending,
            state.busy
        ));
    }
    let AccountBook { calls, billed, unknown } = state.oracle.counts;
    let (hash, trace) = std::mem::take(&mut state.trace).finish();
    let stats = Stats {
        api_calls: calls,
        billed,
        unknown,
        virtual_time: world.clock.began.elapsed(),
        ..std::mem::take(&mut state.stats)
    };
    Outcome { broken: state.oracle.broken.take(), hash, trace, stats }
}

impl World {
    fn new(plan: Plan, keep_trace: bool) -> Self {
        let seed = plan.seed;
        let clock = Arc::new(SimClock {
            // Not on a full second, because the bucket keeps no fractions of it.
            epoch: Timestamp::from_millisecond(1_800_000_000_400).unwrap_or_default(),
            began: Instant::now(),
            random: Mutex::new(rng(seed, 1)),
            constant: plan.bug == Some(Bug::SameNonce),
        });
        let minute = Duration::from_secs(60);
        Self {
            store: MemoryStore::versioned(clock.clone()),
            clock,
            rows: Arc::new(MemoryQueue::new(plan.hosts.rows_visibility, None, None)),
            retry: Arc::new(MemoryQueue::new(minute, None, None)),
            splits: MemoryQueue::new(plan.hosts.split_timeout + minute, None, None),
            merges: MemoryQueue::new(plan.hosts.merge_visibility, None, None),
            state: Mutex::new(State {
                faults: rng(seed, 2),
                latency: rng(seed, 3),
                api: rng(seed, 4),
                events: rng(seed, 5),
                hosts: rng(seed, 6),
                stats: Stats { files: plan.drops.len() as u64, rows: plan.rows(), ..Stats::default() },
                trace: Trace::new(keep_trace),
                oracle: Oracle::new(plan.clone()),
                inputs: Vec::new(),
                pending: 0,
                busy: 0,
                api_calls: 0,
            }),
            plan,
        }
    }

    fn state(&self) -> MutexGuard<'_, State> {
        self.state.lock().unwrap_or_else(PoisonError::into_inner)
    }

    pub(super) fn oracle<T>(&self, ask: impl FnOnce(&mut Oracle) -> T) -> T {
        ask(&mut self.state().oracle)
    }

    fn now(&self) -> Duration {
        self.clock.began.elapsed()
    }

    pub(super) fn trace(&self, actor: &str, call: Call, key: &str, outcome: &str) {
        let now = self.now();
        self.state().trace.add(now, actor, call, key, outcome);
    }

    pub(super) fn say(&self, what: std::fmt::Arguments<'_>) {
        let now = self.now();
        self.state().trace.say(now, what);
    }

    /// What befalls the next port call: how long it takes, and what goes wrong.
    pub(super) fn befalls(&self, role: Role, call: Call, key: &str) -> (Duration, Option<Fault>) {
        let now = self.now();
        let plan = &self.plan.faults;
        let mut guard = self.state();
        let state = &mut *guard;
        state.stats.port_calls += 1;
        let (what, about) = call.kind(key);
        *state.stats.calls.entry((role.name(), what, about)).or_default() += 1;
        if state.stats.port_calls > CALLS_AT_MOST + CALLS_PER_ROW * state.stats.rows {
            state.oracle.broken.get_or_insert_with(|| "it calls its ports without end".into());
            return (PATIENCE, None);
        }
        if !plan.crashes.is_empty() || plan.rate == 0 {
            let number = state.stats.port_calls;
            let crash = plan.crashes.iter().find(|(at, _)| *at == number).map(|(_, moment)| Fault::Die(*moment));
            if let Some(fault) = crash {
                *state.stats.faults.entry(fault.name()).or_default() += 1;
            }
            return (Duration::from_millis(3 + number % 5), crash);
        }
        let latency = match state.latency.u32(0..40) {
            0 => up_to(&mut state.latency, Duration::from_secs(2)),
            n => Duration::from_millis(u64::from(n / 4)),
        };
        if now >= plan.until || state.faults.u32(0..10_000) >= plan.rate {
            return (latency, None);
        }
        let fault = draw(&mut state.faults, plan.deaths, plan.stall);
        if !applies(call, fault) {
            return (latency, None);
        }
        *state.stats.faults.entry(fault.name()).or_default() += 1;
        (latency, Some(fault))
    }

    /// How long the API takes for a call, and its id.
    pub(super) fn api_call(&self) -> (Duration, String) {
        let mut state = self.state();
        state.api_calls += 1;
        let id = format!("req-{}", state.api_calls);
        (Duration::from_secs(1) + up_to(&mut state.api, self.plan.weather.slowest), id)
    }

    pub(super) fn api_chance<T>(&self, draw: impl FnOnce(&mut Rng) -> T) -> T {
        draw(&mut self.state().api)
    }

    pub(super) fn saw_retry(&self, sent: &[Outgoing]) {
        if self.plan.bug == Some(Bug::RetryQueueLoses) {
            return;
        }
        self.oracle(|oracle| oracle.parked(sent.iter().map(|message| message.body.as_str())));
    }

    /// A write that everybody sees from now on, with its event.
    pub(super) async fn write(
        self: &Arc<Self>,
        key: &str,
        body: Bytes,
        precondition: Precondition,
    ) -> Result<Etag, StoreError> {
        let etag = self.store.put(key, body.clone(), precondition).await?;
        let now = self.clock.now();
        self.oracle(|oracle| oracle.wrote(key, &body, &etag, now));
        if key.starts_with("results/") {
            self.tell_mergers(key);
        }
        Ok(etag)
    }

    /// A write whose request is still on its way after its sender has given up.
    pub(super) fn write_later(self: &Arc<Self>, key: String, body: Bytes, precondition: Precondition, after: Duration) {
        let world = self.clone();
        self.later(after, async move {
            let landed = world.write(&key, body, precondition).await.is_ok();
            world.say(format_args!("late effect on {key}: {landed}"));
        });
    }

    /// Something that happens by itself; the run does not end before it has.
    fn later(self: &Arc<Self>, after: Duration, what: impl Future<Output = ()> + Send + 'static) {
        self.state().pending += 1;
        let world = self.clone();
        tokio::spawn(async move {
            sleep(after).await;
            what.await;
            world.state().pending -= 1;
        });
    }

    fn event_delays(&self) -> Vec<Duration> {
        let now = self.now();
        let plan = &self.plan.faults;
        let mut guard = self.state();
        let state = &mut *guard;
        let rng = &mut state.events;
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
            *state.stats.faults.entry(kind).or_default() += 1;
        }
        delays
    }

    fn tell_mergers(self: &Arc<Self>, key: &str) {
        if self.plan.bug == Some(Bug::EventsLost) && self.state().events.u32(0..20) == 0 {
            return;
        }
        for delay in self.event_delays() {
            let (world, body) = (self.clone(), key.to_owned());
            self.later(delay, async move { world.sent(&world.merges, body).await });
        }
    }

    async fn sent(&self, queue: &MemoryQueue, body: String) {
        self.send(queue, &[Outgoing { body, attributes: BTreeMap::new() }]).await;
    }

    pub(super) async fn send_rows(&self, messages: &[Outgoing]) {
        self.send(&self.rows, messages).await;
    }

    async fn send(&self, queue: &MemoryQueue, messages: &[Outgoing]) {
        let outcome = queue.send(messages).await;
        if let Err(error) = outcome {
            self.oracle(|oracle| oracle.broken = Some(format!("the simulated queue refuses: {error}")));
        }
    }

    /// For a planted bug: hides the last object of a listing now and then.
    pub(super) fn make_stale(&self, prefix: &str, page: &mut Page) {
        if prefix.starts_with("results/") && percent(&mut self.state().events, 20) {
            page.objects.pop();
        }
    }

    fn start(self: &Arc<Self>) {
        for (number, drop) in self.plan.drops.iter().enumerate() {
            let world = self.clone();
            self.later(drop.at, async move { world.drop_file(number) });
        }
        for (number, at) in self.plan.poison.iter().enumerate() {
            let world = self.clone();
            self.later(*at, async move { world.sent(&world.rows, poison(number)).await });
        }
        for at in &self.plan.redrives {
            let world = self.clone();
            self.later(*at, async move { world.redrive() });
        }
        for at in &self.plan.sweeps {
            let world = self.clone();
            self.later(*at, async move {
                world.sweep().await;
            });
        }
        let hosts = &self.plan.hosts;
        for n in 0..hosts.splitters {
            tokio::spawn(process(self.clone(), format!("splitter {n}"), 1, Role::Splitter));
        }
        for n in 0..hosts.generators {
            tokio::spawn(process(self.clone(), format!("generator {n}"), hosts.slots, Role::Generator));
        }
        for n in 0..hosts.mergers {
            tokio::spawn(process(self.clone(), format!("merger {n}"), 1, Role::Merger));
        }
    }

    fn drop_file(self: &Arc<Self>, number: usize) {
        let drop = &self.plan.drops[number];
        let version = match self.store.put_version(&drop.key, drop.body.clone().into()) {
            Ok(version) => version,
            Err(error) => {
                self.oracle(|oracle| oracle.broken = Some(format!("the file cannot be dropped: {error}")));
                return;
            }
        };
        let id = JobId::of(BUCKET, &drop.key, &version, "");
        self.say(format_args!("dropped {} as job {id}", drop.key));
        if let Some(catalog) = Catalog::of(&drop.key) {
            let now = self.clock.now();
            self.oracle(|oracle| oracle.dropped(id, catalog, drop.expected.clone(), now));
        }
        let mut state = self.state();
        let input = state.inputs.len();
        state.inputs.push(SplitInput {
            bucket: BUCKET.into(),
            key: drop.key.clone(),
            version_id: Some(version),
            etag: None,
            edition: String::new(),
            round: 0,
        });
        std::mem::drop(state);
        for delay in self.event_delays() {
            let world = self.clone();
            self.later(delay, async move { world.sent(&world.splits, input.to_string()).await });
        }
    }

    fn redrive(&self) {
        let moved = self.retry.redrive_to(&self.rows);
        self.say(format_args!("redrove {moved} messages"));
        self.state().stats.redriven += moved as u64;
    }

    /// The clock wakes a merger, which looks after jobs. Whether it came through.
    async fn sweep(self: &Arc<Self>) -> bool {
        let _busy = Busy::new(self);
        let limit = Duration::from_secs(300);
        let deadline = self.clock.now().checked_add(limit).unwrap_or(Timestamp::MAX);
        let death = Arc::new(Notify::new());
        let actor = Actor { name: "sweeper".into(), role: Role::Merger, death: death.clone(), deadline };
        let ports = Wire::ports(self, actor);
        let swept = tokio::select! {
            biased;
            () = death.notified() => None,
            swept = timeout(limit, sweep(&ports, deadline)) => swept.ok(),
        };
        self.say(format_args!("swept: {swept:?}"));
        let through = matches!(swept, Some(Ok(())));
        self.oracle(|oracle| oracle.somebody_died |= !through);
        through
    }

    /// Whether everything ended within the time it may take.
    async fn until_all_is_still(self: &Arc<Self>) -> bool {
        let last_drop = self.plan.drops.iter().map(|drop| drop.at).max().unwrap_or_default();
        let limit = self.plan.faults.until.max(last_drop) + PATIENCE;
        // Rows with the same request may share a failure from before the redrive; the next one makes them run.
        let mut redrives = if self.plan.final_redrive { 2 } else { 0 };
        let (mut pause, mut swept) = (LOOK_EVERY, false);
        while self.now() < limit {
            sleep(pause).await;
            let (pending, busy) = {
                let state = self.state();
                if state.oracle.broken.is_some() {
                    return true;
                }
                (state.pending, state.busy)
            };
            let still = busy == 0 && self.rows.is_empty() && self.splits.is_empty() && self.merges.is_empty();
            // Nothing to see before the next file drops, which may be in a month.
            pause = if still { (pause * 2).min(Duration::from_secs(6 * 3600)) } else { LOOK_EVERY };
            if !still || pending > 0 {
                continue;
            }
            if swept {
                return true;
            }
            if let Some(trouble) = self.plan.faults.until.checked_sub(self.now()) {
                sleep(trouble).await;
            }
            if redrives == 0 {
                swept = self.sweep().await;
            } else {
                self.redrive();
                redrives -= 1;
            }
            pause = LOOK_EVERY;
        }
        false
    }

    fn settings(&self) -> GenerateSettings {
        let settings = self.plan.generate.clone();
        match self.plan.bug {
            Some(Bug::UnknownRetriedFreely) => GenerateSettings { unknown_outcome_retries: 50, ..settings },
            Some(Bug::NeverReuse) => GenerateSettings { reuse: Duration::ZERO, ..settings },
            _ => settings,
        }
    }

    /// Takes a handled message off its queue; now and then that gets lost.
    fn delete(&self, queue: &MemoryQueue, receipt: &str) {
        let now = self.now();
        let mut state = self.state();
        if now < self.plan.faults.until && state.hosts.u32(0..10_000) < self.plan.faults.events {
            *state.stats.faults.entry("deletion lost").or_default() += 1;
            return;
        }
        drop(state);
        queue.delete(receipt);
    }
}

/// Whether this can go wrong with that call.
fn applies(call: Call, fault: Fault) -> bool {
    match fault {
        Fault::Die(_) | Fault::Stall(_) | Fault::Before | Fault::After => true,
        Fault::Late(_) => matches!(call, Call::Put | Call::PutStream | Call::SendRows | Call::SendRetry),
        Fault::OwnSuccess => matches!(call, Call::Put | Call::PutStream | Call::SendRows),
        Fault::Break => matches!(call, Call::Open | Call::PutStream | Call::Fetch),
    }
}

#[derive(Clone, Copy)]
pub(super) enum Role {
    Splitter,
    Generator,
    Merger,
}

impl Role {
    fn name(self) -> &'static str {
        match self {
            Self::Splitter => "splitter",
            Self::Generator => "generator",
            Self::Merger => "merger",
        }
    }
}

/// Counts an invocation for as long as it runs, however it ends.
struct Busy(Arc<World>);

impl Busy {
    fn new(world: &Arc<World>) -> Self {
        world.state().busy += 1;
        Self(world.clone())
    }
}

impl Drop for Busy {
    fn drop(&mut self) {
        self.0.state().busy -= 1;
    }
}

/// A process that is born again whenever it has died.
async fn process(world: Arc<World>, name: String, slots: usize, role: Role) {
    let name: Arc<str> = name.into();
    loop {
        let death = Arc::new(Notify::new());
        let worker = Worker::new(&*world.clock, &world.settings());
        let slots = (0..slots).map(|_| slot(&world, &name, &death, &worker, role));
        tokio::select! {
            biased;
            () = death.notified() => {}
            _ = join_all(slots) => {}
        }
        world.say(format_args!("{name} died"));
        world.oracle(|oracle| oracle.somebody_died = true);
        let rest = up_to(&mut world.state().hosts, Duration::from_secs(20));
        sleep(rest).await;
    }
}

/// One invocation after the other.
async fn slot(world: &Arc<World>, name: &Arc<str>, death: &Arc<Notify>, worker: &Worker, role: Role) {
    let hosts = &world.plan.hosts;
    let (queue, batch, limit): (&MemoryQueue, _, _) = match role {
        Role::Splitter => (&world.splits, 1, hosts.split_timeout),
        Role::Generator => (&world.rows, hosts.batch, hosts.generate_timeout),
        Role::Merger => (&world.merges, hosts.merge_batch, Duration::from_secs(300)),
    };
    let settings = world.settings();
    loop {
        let received = queue.receive(batch).await;
        let _busy = Busy::new(world);
        if matches!(role, Role::Merger) && !hosts.window.is_zero() {
            sleep(hosts.window).await;
        }
        let deadline = world.clock.now().checked_add(limit).unwrap_or(Timestamp::MAX);
        let actor = Actor { name: name.clone(), role, death: death.clone(), deadline };
        if world.plan.bug == Some(Bug::AckBeforeResult) {
            received.iter().for_each(|delivery| queue.delete(&delivery.receipt));
        }
        let handled = timeout(limit, handle(world, actor, role, received.clone(), worker, &settings)).await;
        let Ok(come_back) = handled else {
            // Lambda ends the process with the invocation.
            world.say(format_args!("{name} ran into its deadline"));
            death.notify_one();
            return std::future::pending().await;
        };
        for delivery in received {
            if !come_back.contains(&delivery.id) || world.plan.bug == Some(Bug::AckWhatComesBack) {
                world.delete(queue, &delivery.receipt);
            }
        }
    }
}

/// Returns the ids of the messages that must come back.
async fn handle(
    world: &Arc<World>,
    actor: Actor,
    role: Role,
    received: Vec<Delivery>,
    worker: &Worker,
    settings: &GenerateSettings,
) -> Vec<String> {
    let deadline = actor.deadline;
    let ports = Wire::ports(world, actor);
    match role {
        Role::Splitter => {
            let mut come_back = Vec::new();
            for delivery in received {
                let number: usize = delivery.body.parse().unwrap_or_default();
                let input = world.state().inputs[number].clone();
                let outcome = Box::pin(split(&ports, &world.plan.split, input, deadline)).await;
                world.say(format_args!("split: {:?}", outcome.as_ref().map(|_| ())));
                if outcome.is_err() {
                    come_back.push(delivery.id);
                }
            }
            come_back
        }
        Role::Generator => {
            let told = if world.plan.bug == Some(Bug::DeadlineUnknown) { Timestamp::MAX } else { deadline };
            Box::pin(generate(&ports, settings, worker, received, told)).await
        }
        Role::Merger => {
            let batch = received.into_iter().map(|delivery| Changed { id: delivery.id, keys: vec![delivery.body] });
            Box::pin(merge(&ports, batch.collect())).await
        }
    }
}
