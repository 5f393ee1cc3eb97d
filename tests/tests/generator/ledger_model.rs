//! The ledger protocol, every interleaving of it: two deliveries of one fingerprint, each in its own worker, while workers
//! die and stall at any step, answers are lost, leases run out, and the API bills without telling.
//!
//! A step of the model is a port call of `generate`; what to do next is asked of the real `decide` about real entries. An
//! ETag is the identity of the content, so here it is the content. A worker remembers nothing between deliveries, so a
//! delivery that returns may well go to the same one.

use std::{
    collections::{BTreeMap, BTreeSet},
    hash::{DefaultHasher, Hash as _, Hasher as _},
    time::Duration,
};

use jiff::Timestamp;
use packshot_pipeline::{
    ledger::{self, Asker, Claim, Entry, Failure, Limits, Outcome, Series, State, Step},
    model::{error_class::ErrorClass, keys::JobId, request::Fingerprint},
};
use stateright::{Checker, HasDiscoveries, Model, Property};

use crate::rig::request;

/// Seconds of a call at most, and of the lease: from the first to the second a claim is live but no call may start.
const CALL: i64 = 1;
const LEASE: i64 = 2;
/// Longer than everything here takes.
const REUSE: Duration = Duration::from_secs(1_000);
/// Calls after the first that failed for a passing reason.
const RETRIES: u32 = 1;

/// What the two deliveries are of; their fingerprint is the same.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Deliveries {
    OneRow,
    TwoRows,
    TwoJobs,
}

/// Something forgotten, to see that the properties notice.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Bug {
    /// The claim is written whatever the object holds by then.
    UnconditionalClaim,
    /// Any claim that stands there after a write without an answer is taken for one's own.
    NoNonce,
    /// A claim is called under even if the worker slept through its lease.
    NoLeaseCheck,
    /// A call without an answer is tried again without being counted.
    Uncounted,
}

struct Protocol {
    deliveries: Deliveries,
    unknown_retries: u32,
    /// Deaths, stalls, lost answers and throttled calls, together.
    faults: u8,
    bug: Option<Bug>,
    fingerprint: Fingerprint,
}

/// Kept small by [`World::normal`]: it is always second 0, and only the nonces that somebody still knows are told apart.
#[derive(Clone, Debug, PartialEq, Eq, Hash)]
struct World {
    ledger: Option<Entry>,
    phases: [Phase; 2],
    /// By row; two deliveries of one row share the first.
    results: [Option<Ended>; 2],
    faults_left: u8,
    seen: History,
}

/// What an observer of everything has written down.
#[derive(Clone, Debug, Default, PartialEq, Eq, Hash)]
struct History {
    billed: u32,
    /// Unknown outcomes that the ledger has counted.
    counted: u32,
    /// An outcome arrived from a worker that had been taken for dead, and counted.
    late_outcome: bool,
    called_although_completed: bool,
    overlapped_within_lease: bool,
}

#[derive(Clone, Debug, PartialEq, Eq, Hash)]
enum Ended {
    Completed,
    Failed(String),
}

/// Where a delivery stands; in most phases the next port call.
#[derive(Clone, Debug, PartialEq, Eq, Hash)]
enum Phase {
    Queued,
    /// Sent back because of this entry. Taking it again before anything has changed would change nothing.
    SentBack(Entry),
    /// And decides at once: what changed between the two would only make the next write fail.
    ReadsLedger,
    Claims {
        known: Option<Entry>,
        held: Entry,
    },
    /// The claim's write had no answer, or met something else.
    ReadsAfterClaim(Entry),
    Holds(Entry),
    Calls(Entry),
    Replaces(Replace),
    ReadsAfterReplace(Replace),
    Records {
        known: Option<Entry>,
        next: Entry,
        nonce: String,
    },
    ReadsAfterRecord {
        next: Entry,
        nonce: String,
    },
    GivesUp {
        known: Entry,
        next: Entry,
    },
    WritesResult(Ended),
    Done,
}

/// A write over one's own claim.
#[derive(Clone, Debug, PartialEq, Eq, Hash)]
struct Replace {
    held: Entry,
    next: Entry,
}

impl Replace {
    /// Where it leads when it is done.
    fn then(&self) -> Phase {
        match &self.next.state {
            State::Failed(failure) => Phase::WritesResult(Ended::Failed(failure.error_code.clone())),
            _ => Phase::ReadsLedger,
        }
    }
}

#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
enum Action {
    /// The next step, which goes well.
    Step(usize),
    /// The next step is a write; its answer is lost, and it has happened or not.
    LoseAnswer(usize, bool),
    EndCall(usize, Answer),
    /// The worker dies; if it was calling, the call was billed or not.
    Die(usize, bool),
    /// Time passes until the claim in the ledger has outlived its lease.
    Expire,
}

#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
enum Answer {
    Pictures,
    PassingError,
    Throttled,
    Silence { billed: bool },
}

fn at(second: i64) -> Timestamp {
    Timestamp::from_second(second).unwrap()
}

impl World {
    fn entries(&mut self) -> impl Iterator<Item = &mut Entry> {
        let of_phases = self.phases.iter_mut().flat_map(|phase| match phase {
            Phase::Claims { known, held } => [known.as_mut(), Some(held)],
            Phase::Records { known, next, .. } => [known.as_mut(), Some(next)],
            Phase::Replaces(Replace { held, next }) | Phase::ReadsAfterReplace(Replace { held, next }) => {
                [Some(held), Some(next)]
            }
            Phase::GivesUp { known, next } => [Some(known), Some(next)],
            Phase::SentBack(entry) | Phase::ReadsAfterClaim(entry) | Phase::Holds(entry) | Phase::Calls(entry) => {
                [Some(entry), None]
            }
            Phase::ReadsAfterRecord { next, .. } => [Some(next), None],
            Phase::Queued | Phase::ReadsLedger | Phase::WritesResult(_) | Phase::Done => [None, None],
        });
        self.ledger.iter_mut().chain(of_phases.flatten())
    }

    /// The same world `passed` seconds later, told in the fewest words.
    fn normal(mut self, passed: i64) -> Self {
        let mut nonces: Vec<String> = self
            .entries()
            .filter_map(|entry| match &entry.state {
                State::Claimed(claim) => Some(claim.nonce.clone()),
                _ => None,
            })
            .collect();
        for phase in &self.phases {
            if let Phase::Records { nonce, .. } | Phase::ReadsAfterRecord { nonce, .. } = phase {
                nonces.push(nonce.clone());
            }
        }
        nonces.sort();
        nonces.dedup();
        let rename = |nonce: &mut String| *nonce = nonces.iter().position(|other| other == nonce).unwrap().to_string();
        for entry in self.entries() {
            if let State::Claimed(claim) = &mut entry.state {
                rename(&mut claim.nonce);
                claim.until = at((claim.until.as_second() - passed).max(0));
            }
        }
        for phase in &mut self.phases {
            if let Phase::Records { nonce, .. } | Phase::ReadsAfterRecord { nonce, .. } = phase {
                rename(nonce);
            }
        }
        self
    }
}

fn claim_of(entry: &Entry) -> &Claim {
    match &entry.state {
        State::Claimed(claim) => claim,
        other => panic!("not a claim: {other:?}"),
    }
}

fn failed(code: &str, row: u64) -> State {
    State::Failed(Failure {
        row,
        error: String::new(),
        error_code: code.into(),
        error_class: ErrorClass::Unknown,
        http_status: None,
        latency_ms: None,
        failed_at: at(0),
    })
}

impl Protocol {
    fn new(deliveries: Deliveries, unknown_retries: u32, faults: u8) -> Self {
        Self { deliveries, unknown_retries, faults, bug: None, fingerprint: request("mug").fingerprint() }
    }

    fn has(&self, bug: Bug) -> bool {
        self.bug == Some(bug)
    }

    /// The row's place in the results.
    fn row(&self, i: usize) -> usize {
        if self.deliveries == Deliveries::OneRow { 0 } else { i }
    }

    fn asker(&self, i: usize) -> Asker {
        let job = if self.deliveries == Deliveries::TwoJobs { i } else { 0 };
        let job = JobId::of("bucket", "incoming/a.csv", &job.to_string(), "");
        Asker { series: Series { job, round: 0 }, row: self.row(i) as u64 + 1, worker: i.to_string() }
    }

    fn has_outcome(&self, i: usize, entry: &Entry) -> bool {
        entry.outcome_for(&self.asker(i).series.job, at(0), REUSE).is_some()
    }

    fn decide(&self, i: usize, known: Option<Entry>) -> Phase {
        let asker = self.asker(i);
        let limits = Limits { unknown_retries: self.unknown_retries, reuse: REUSE, sole_worker: false };
        match ledger::decide(known.as_ref(), &self.fingerprint, &asker, at(0), &limits) {
            Step::Reuse(_) => Phase::WritesResult(Ended::Completed),
            Step::Share(given_up) => Phase::WritesResult(Ended::Failed(given_up.failure.error_code)),
            Step::Wait(_) => Phase::SentBack(known.unwrap()),
            Step::GiveUp(next) => Phase::GivesUp {
                known: known.unwrap(),
                next: Entry { state: failed("outcome_unknown", asker.row), ..next },
            },
            Step::Claim(mut held) => {
                held.calls += 1;
                held.state =
                    State::Claimed(Claim { nonce: "new".into(), worker: asker.worker, at: at(0), until: at(LEASE) });
                Phase::Claims { known, held }
            }
        }
    }

    /// A conditional write; whether it happened.
    fn write(&self, world: &mut World, known: Option<&Entry>, next: &Entry) -> bool {
        if world.ledger.as_ref() != known {
            return false;
        }
        self.overwrite(world, next);
        true
    }

    fn overwrite(&self, world: &mut World, next: &Entry) {
        // Of all jobs; each keeps its own.
        let unknown = |entry: &Entry| entry.unknown + entry.others.iter().map(|page| page.unknown).sum::<u32>();
        world.seen.counted += unknown(next).saturating_sub(world.ledger.as_ref().map_or(0, unknown));
        world.ledger = Some(next.clone());
    }

    /// The write that a phase is about to make, if it is one; whether it happened.
    fn try_write(&self, world: &mut World, phase: &Phase) -> Option<bool> {
        Some(match phase {
            Phase::Claims { held, .. } if self.has(Bug::UnconditionalClaim) => {
                self.overwrite(world, held);
                true
            }
            Phase::Claims { known, held } => self.write(world, known.as_ref(), held),
            Phase::Replaces(Replace { held, next }) => self.write(world, Some(held), next),
            Phase::Records { known, next, nonce } => {
                let late = !world.ledger.as_ref().is_some_and(|entry| entry.is_claimed_by(nonce));
                let done = self.write(world, known.as_ref(), next);
                world.seen.late_outcome |= done && late;
                done
            }
            Phase::GivesUp { known, next } => self.write(world, Some(known), next),
            _ => return None,
        })
    }

    /// Where a write leads whose answer came, or did not.
    fn after_write(phase: Phase, answered: bool) -> Phase {
        match (phase, answered) {
            (Phase::Claims { held, .. }, true) => Phase::Holds(held),
            (Phase::Claims { held, .. }, false) => Phase::ReadsAfterClaim(held),
            (Phase::Replaces(replace), true) => replace.then(),
            (Phase::Replaces(replace), false) => Phase::ReadsAfterReplace(replace),
            (Phase::Records { .. }, true) => Phase::WritesResult(Ended::Completed),
            (Phase::Records { next, nonce, .. }, false) => Phase::ReadsAfterRecord { next, nonce },
            (Phase::GivesUp { next, .. }, true) => {
                let held = next.clone();
                Replace { held, next }.then()
            }
            (Phase::GivesUp { .. }, false) => Phase::ReadsLedger,
            (other, _) => panic!("no write: {other:?}"),
        }
    }

    fn step(&self, world: &mut World, i: usize, phase: Phase) -> Phase {
        if let Some(done) = self.try_write(world, &phase) {
            return Self::after_write(phase, done);
        }
        match phase {
            Phase::Queued | Phase::SentBack(_) => match world.results[self.row(i)] {
                Some(_) => Phase::Done,
                None => Phase::ReadsLedger,
            },
            Phase::ReadsLedger => self.decide(i, world.ledger.clone()),
            Phase::ReadsAfterClaim(held) => match &world.ledger {
                Some(entry) if entry.is_claimed_by(&claim_of(&held).nonce) => Phase::Holds(held),
                Some(Entry { state: State::Claimed(_), .. }) if self.has(Bug::NoNonce) => Phase::Holds(held),
                _ => Phase::ReadsLedger,
            },
            Phase::Holds(held) if at(CALL) < claim_of(&held).until || self.has(Bug::NoLeaseCheck) => {
                self.observe_start(world, i);
                Phase::Calls(held)
            }
            Phase::Holds(held) => {
                let next = Entry { calls: held.calls - 1, state: State::Released, ..held.clone() };
                Phase::Replaces(Replace { held, next })
            }
            Phase::ReadsAfterReplace(replace) => match &world.ledger {
                Some(entry) if entry.is_claimed_by(&claim_of(&replace.held).nonce) => {
                    // Another job's late outcome may have been noted there.
                    let next = Entry { others: entry.others.clone(), ..replace.next };
                    Phase::Replaces(Replace { held: entry.clone(), next })
                }
                Some(entry) if *entry == replace.next => replace.then(),
                _ => Phase::ReadsLedger,
            },
            Phase::ReadsAfterRecord { next, nonce } => match world.ledger.clone() {
                Some(entry) if self.has_outcome(i, &entry) => Phase::WritesResult(Ended::Completed),
                Some(entry) => {
                    let series = self.asker(i).series;
                    let paid = next.outcome_for(&series.job, at(0), REUSE).unwrap();
                    let next = entry.clone().with_outcome(&series, paid.outcome);
                    Phase::Records { known: Some(entry), next, nonce }
                }
                None => Phase::Records { known: None, next, nonce },
            },
            Phase::WritesResult(ended) => {
                let result = &mut world.results[self.row(i)];
                if result.is_none() || ended == Ended::Completed {
                    *result = Some(ended);
                }
                Phase::Done
            }
            other => panic!("no step from {other:?}"),
        }
    }

    fn observe_start(&self, world: &mut World, i: usize) {
        let completed = matches!(world.ledger, Some(Entry { state: State::Completed(_), .. }));
        world.seen.called_although_completed |= completed && !world.seen.late_outcome;
        if let Phase::Calls(other) = &world.phases[1 - i] {
            world.seen.overlapped_within_lease |= at(0) < claim_of(other).until;
        }
    }

    fn end_call(&self, world: &mut World, i: usize, held: Entry, answer: Answer) -> Phase {
        let asker = self.asker(i);
        let mut next = Entry { state: State::Released, ..held.clone() };
        match answer {
            Answer::Pictures => {
                world.seen.billed += 1;
                let nonce = claim_of(&held).nonce.clone();
                next.state = State::Completed(Outcome {
                    job: asker.series.job,
                    row: asker.row,
                    request_id: None,
                    model_actual: None,
                    image_count: 1,
                    image_urls: vec![],
                    assets: vec![],
                    archive_error: None,
                    latency_ms: 0,
                    completed_at: at(0),
                });
                return Phase::Records { known: Some(held), next, nonce };
            }
            Answer::PassingError => {
                next.spent.failures += 1;
                if next.spent.failures > RETRIES {
                    next.state = failed("http_500", asker.row);
                }
            }
            Answer::Throttled => next.calls -= 1,
            Answer::Silence { billed } => {
                world.seen.billed += u32::from(billed);
                if !self.has(Bug::Uncounted) {
                    next.count_unknown();
                }
                if next.spent.unknown > self.unknown_retries {
                    next.state = failed("outcome_unknown", asker.row);
                }
            }
        }
        Phase::Replaces(Replace { held, next })
    }

    /// Whether some worker still believes in the claim that the ledger holds.
    fn has_owner(world: &World) -> bool {
        let Some(State::Claimed(claim)) = world.ledger.as_ref().map(|entry| &entry.state) else { return false };
        world.phases.iter().any(|phase| match phase {
            Phase::Claims { held, .. }
            | Phase::ReadsAfterClaim(held)
            | Phase::Holds(held)
            | Phase::Calls(held)
            | Phase::Replaces(Replace { held, .. })
            | Phase::ReadsAfterReplace(Replace { held, .. }) => held.is_claimed_by(&claim.nonce),
            Phase::Records { nonce, .. } | Phase::ReadsAfterRecord { nonce, .. } => *nonce == claim.nonce,
            _ => false,
        })
    }
}

impl Model for Protocol {
    type State = World;
    type Action = Action;

    fn init_states(&self) -> Vec<World> {
        vec![World {
            ledger: None,
            phases: [Phase::Queued, Phase::Queued],
            results: [None, None],
            faults_left: self.faults,
            seen: History::default(),
        }]
    }

    fn actions(&self, world: &World, actions: &mut Vec<Action>) {
        let may_fail = world.faults_left > 0;
        for (i, phase) in world.phases.iter().enumerate() {
            match phase {
                Phase::Done => continue,
                Phase::SentBack(entry) => {
                    if world.ledger.as_ref() != Some(entry) || at(0) >= claim_of(entry).until {
                        actions.push(Action::Step(i));
                    }
                    continue;
                }
                Phase::Queued => {
                    actions.push(Action::Step(i));
                    continue;
                }
                Phase::Calls(_) => {
                    let answers = [
                        Answer::Pictures,
                        Answer::PassingError,
                        Answer::Silence { billed: true },
                        Answer::Silence { billed: false },
                    ];
                    actions.extend(answers.map(|answer| Action::EndCall(i, answer)));
                    if may_fail {
                        actions.extend([Action::EndCall(i, Answer::Throttled), Action::Die(i, true)]);
                    }
                }
                Phase::Claims { .. } | Phase::Replaces(_) | Phase::Records { .. } | Phase::GivesUp { .. } => {
                    actions.push(Action::Step(i));
                    if may_fail {
                        actions.extend([Action::LoseAnswer(i, true), Action::LoseAnswer(i, false)]);
                    }
                }
                _ => actions.push(Action::Step(i)),
            }
            if may_fail {
                actions.push(Action::Die(i, false));
            }
        }
        if let Some(Entry { state: State::Claimed(claim), .. }) = &world.ledger
            && at(0) < claim.until
            // Time heals a death for nothing; only a worker that sleeps through its own lease is a fault.
            && (may_fail || !Self::has_owner(world))
        {
            actions.push(Action::Expire);
        }
    }

    fn next_state(&self, before: &World, action: Action) -> Option<World> {
        let mut world = before.clone();
        let mut passed = 0;
        let fault = match action {
            Action::Step(i) => {
                world.phases[i] = self.step(&mut world, i, before.phases[i].clone());
                false
            }
            Action::LoseAnswer(i, done) => {
                let phase = before.phases[i].clone();
                if done {
                    self.try_write(&mut world, &phase);
                }
                world.phases[i] = Self::after_write(phase, false);
                true
            }
            Action::EndCall(i, answer) => {
                let Phase::Calls(held) = before.phases[i].clone() else { return None };
                world.phases[i] = self.end_call(&mut world, i, held, answer);
                answer == Answer::Throttled
            }
            Action::Die(i, billed) => {
                world.seen.billed += u32::from(billed);
                world.phases[i] = Phase::Queued;
                true
            }
            Action::Expire => {
                passed = claim_of(before.ledger.as_ref()?).until.as_second();
                Self::has_owner(before)
            }
        };
        world.faults_left = world.faults_left.checked_sub(u8::from(fault))?;
        Some(world.normal(passed))
    }

    fn properties(&self) -> Vec<Property<Self>> {
        fn has_failed(world: &World, code: &str) -> bool {
            world.results.iter().flatten().any(|ended| matches!(ended, Ended::Failed(other) if other == code))
        }
        vec![
            Property::always("what is billed beyond one is counted", |_, world: &World| {
                world.seen.billed <= 1 + world.seen.counted
            }),
            Property::always("unknown outcomes are bounded", |protocol: &Self, world: &World| {
                world.ledger.as_ref().is_none_or(|entry| entry.spent.unknown <= protocol.unknown_retries + 1)
            }),
            Property::always("no call while the ledger is completed", |_, world: &World| {
                !world.seen.called_although_completed
            }),
            Property::always("no two calls within a lease", |_, world: &World| !world.seen.overlapped_within_lease),
            // Together with `ends`: after the last fault everything settles.
            Property::always("what ends is settled", |protocol: &Self, world: &World| {
                let mut actions = Vec::new();
                protocol.actions(world, &mut actions);
                let settled = (0..2).all(|i| world.results[protocol.row(i)].is_some());
                !actions.is_empty() || (settled && world.phases.iter().all(|phase| *phase == Phase::Done))
            }),
            Property::sometimes("completed", |_, world: &World| world.results.contains(&Some(Ended::Completed))),
            Property::sometimes("outcome unknown", |_, world: &World| has_failed(world, "outcome_unknown")),
            Property::sometimes("attempts used up", |_, world: &World| has_failed(world, "http_500")),
            Property::sometimes("shared", |_, world: &World| {
                world.results == [Some(Ended::Completed), Some(Ended::Completed)]
            }),
            // What the limits above are about does happen.
            Property::sometimes("billed twice", |_, world: &World| world.seen.billed == 2),
            Property::sometimes("calls overlap after a lease", |_, world: &World| {
                world.phases.iter().all(|phase| matches!(phase, Phase::Calls(_)))
            }),
            Property::sometimes("late outcome", |_, world: &World| world.seen.late_outcome),
        ]
    }
}

fn holds(deliveries: Deliveries, faults: u8) {
    for unknown_retries in [0, 1] {
        let protocol = || Protocol::new(deliveries, unknown_retries, faults);
        let checker = protocol().checker().threads(2).spawn_bfs().join();
        println!("{deliveries:?}, unknown_retries {unknown_retries}: {} states", checker.unique_state_count());
        for property in protocol().properties() {
            let possible = match property.name {
                "shared" => deliveries != Deliveries::OneRow,
                // With no call after an unknown outcome, only another job asks anew.
                "billed twice" | "calls overlap after a lease" => {
                    unknown_retries > 0 || deliveries == Deliveries::TwoJobs
                }
                _ => !property.expectation.discovery_is_failure(),
            };
            if possible {
                checker.assert_any_discovery(property.name);
            } else {
                checker.assert_no_discovery(property.name);
            }
        }
        assert!(ends(&protocol()), "{deliveries:?}, unknown_retries {unknown_retries}: may go round for ever");
    }
}

/// Whether no world can follow upon itself, so that every run comes to where nothing is left to do.
fn ends(protocol: &Protocol) -> bool {
    let name = |world: &World| {
        let mut hasher = DefaultHasher::new();
        world.hash(&mut hasher);
        hasher.finish()
    };
    let mut on_path = BTreeMap::new();
    let mut path: Vec<(u64, Vec<World>)> = vec![(0, protocol.init_states())];
    while let Some((entered, next)) = path.last_mut() {
        let Some(world) = next.pop() else {
            on_path.insert(*entered, false);
            path.pop();
            continue;
        };
        let entering = name(&world);
        match on_path.get(&entering) {
            Some(true) => return false,
            Some(false) => {}
            None => {
                on_path.insert(entering, true);
                path.push((entering, protocol.next_states(&world)));
            }
        }
    }
    true
}

#[test]
fn one_row_delivered_twice() {
    holds(Deliveries::OneRow, 3);
}

#[test]
fn two_rows_with_one_request() {
    holds(Deliveries::TwoRows, 3);
}

#[test]
fn two_jobs_with_one_request() {
    holds(Deliveries::TwoJobs, 2);
}

#[test]
fn what_is_forgotten_is_noticed() {
    for (bug, faults, property) in [
        (Bug::UnconditionalClaim, 0, "no two calls within a lease"),
        (Bug::UnconditionalClaim, 0, "what is billed beyond one is counted"),
        (Bug::NoNonce, 1, "no two calls within a lease"),
        (Bug::NoNonce, 1, "what is billed beyond one is counted"),
        (Bug::NoLeaseCheck, 1, "no call while the ledger is completed"),
        (Bug::Uncounted, 0, "what is billed beyond one is counted"),
    ] {
        let sound = Protocol::new(Deliveries::TwoRows, 1, faults);
        sound.checker().spawn_bfs().join().assert_no_discovery(property);
        let buggy = Protocol { bug: Some(bug), ..Protocol::new(Deliveries::TwoRows, 1, faults) };
        // A bug may make the world endless, so the search ends with what it looks for.
        let found = buggy.checker().finish_when(HasDiscoveries::AllOf(BTreeSet::from([property]))).spawn_bfs().join();
        let path = found.assert_any_discovery(property);
        println!("{bug:?} is found in {} steps: {property}", path.into_actions().len());
    }
}
