//! A model check of the ledger protocol. It explores every interleaving of two deliveries of one fingerprint, each in its own
//! worker, while workers die and stall at any step, answers are lost, leases expire, and the API bills calls that it does not
//! answer.
//!
//! A step of the model is a port call of `generate`. The model calls the real `decide` with real entries for what to do next. An
//! ETag identifies a content, so the model compares contents. A worker keeps nothing between deliveries, so the model does not
//! distinguish which worker gets the next one.

use std::{
    collections::{BTreeMap, BTreeSet},
    hash::{DefaultHasher, Hash as _, Hasher as _},
    time::Duration,
};

use jiff::Timestamp;
use packshot_pipeline::{
    ledger::{self, Claim, Decision, Entry, Failure, Limits, Outcome, Requester, RetryScope, State},
    model::{error_class::ErrorClass, keys::JobId, request::Fingerprint},
};
use stateright::{Checker, HasDiscoveries, Model, Property};

use crate::harness::request;

/// The longest duration of a call, and the lease, in seconds. No call may start with less than `CALL` left of the lease.
const CALL: i64 = 1;
const LEASE: i64 = 2;
/// Longer than any run of the model.
const REUSE: Duration = Duration::from_secs(1_000);
/// Calls after the first one that failed with a transient error.
const RETRIES: u32 = 1;

/// What the two deliveries belong to. Their fingerprint is the same.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Deliveries {
    OneRow,
    TwoRows,
    TwoJobs,
}

/// A planted bug that a property must detect.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Mutation {
    /// The claim is written without a precondition.
    UnconditionalClaim,
    /// After a write without an answer, a worker takes any claim in the ledger for its own.
    NoNonce,
    /// A worker calls even if its lease has expired.
    NoLeaseCheck,
    /// A call without an answer is retried without being counted.
    Uncounted,
}

struct Protocol {
    deliveries: Deliveries,
    unknown_retries: u32,
    /// The limit for the number of deaths, stalls, lost answers and throttled calls together.
    faults: u8,
    mutation: Option<Mutation>,
    fingerprint: Fingerprint,
}

/// A state of the model. [`ModelState::normalised`] keeps the number of states small: the time is always second 0, and nonces are
/// renumbered.
#[derive(Clone, Debug, PartialEq, Eq, Hash)]
struct ModelState {
    ledger: Option<Entry>,
    phases: [Phase; 2],
    /// By row. Two deliveries of one row share the first one.
    results: [Option<RowEnd>; 2],
    faults_left: u8,
    history: History,
}

/// What has happened so far, for the properties.
#[derive(Clone, Debug, Default, PartialEq, Eq, Hash)]
struct History {
    billed: u32,
    /// Unknown outcomes that the ledger has counted.
    counted: u32,
    /// A worker whose claim had expired and was counted recorded its outcome.
    late_outcome: bool,
    called_although_completed: bool,
    overlapped_within_lease: bool,
}

#[derive(Clone, Debug, PartialEq, Eq, Hash)]
enum RowEnd {
    Completed,
    Failed(String),
}

/// The progress of a delivery; most phases name its next port call.
#[derive(Clone, Debug, PartialEq, Eq, Hash)]
enum Phase {
    Queued,
    /// Returned to the queue because of this entry. Until the entry changes, another delivery would do the same.
    SentBack(Entry),
    /// Includes the decision: a change between the read and the decision would only make the next write fail.
    ReadsLedger,
    Claims {
        known: Option<Entry>,
        held: Entry,
    },
    /// The write of the claim got no answer, or its precondition failed.
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
    WritesResult(RowEnd),
    Done,
}

/// A write that replaces the worker's own claim.
#[derive(Clone, Debug, PartialEq, Eq, Hash)]
struct Replace {
    held: Entry,
    next: Entry,
}

impl Replace {
    /// The phase after the write.
    fn then(&self) -> Phase {
        match &self.next.state {
            State::Failed(failure) => Phase::WritesResult(RowEnd::Failed(failure.error_code.clone())),
            _ => Phase::ReadsLedger,
        }
    }
}

#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
enum Action {
    /// The next step of a delivery succeeds.
    Step(usize),
    /// The next step is a write whose answer is lost. The flag says whether the write took effect.
    LoseAnswer(usize, bool),
    EndCall(usize, Answer),
    /// The worker dies. The flag says whether its call, if any, was billed.
    Die(usize, bool),
    /// Time passes until the lease of the claim in the ledger has expired.
    Expire,
}

#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
enum Answer {
    Images,
    TransientError,
    Throttled,
    Unanswered { billed: bool },
}

fn at(second: i64) -> Timestamp {
    Timestamp::from_second(second).unwrap()
}

impl ModelState {
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

    /// The same state `passed` seconds later, with the time set to 0 and the nonces renumbered.
    fn normalised(mut self, passed: i64) -> Self {
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
        Self { deliveries, unknown_retries, faults, mutation: None, fingerprint: request("mug").fingerprint() }
    }

    fn has(&self, mutation: Mutation) -> bool {
        self.mutation == Some(mutation)
    }

    /// The index of the row in the results.
    fn row(&self, i: usize) -> usize {
        if self.deliveries == Deliveries::OneRow { 0 } else { i }
    }

    fn requester(&self, i: usize) -> Requester {
        let job = if self.deliveries == Deliveries::TwoJobs { i } else { 0 };
        let job = JobId::of("bucket", "incoming/a.csv", &job.to_string(), "");
        Requester { series: RetryScope { job, round: 0 }, row: self.row(i) as u64 + 1, worker: i.to_string() }
    }

    fn has_outcome(&self, i: usize, entry: &Entry) -> bool {
        entry.outcome_for(&self.requester(i).series.job, at(0), REUSE).is_some()
    }

    fn decide(&self, i: usize, known: Option<Entry>) -> Phase {
        let requester = self.requester(i);
        let limits = Limits { unknown_retries: self.unknown_retries, reuse: REUSE, sole_worker: false };
        match ledger::decide(known.as_ref(), &self.fingerprint, &requester, at(0), &limits) {
            Decision::Reuse(_) => Phase::WritesResult(RowEnd::Completed),
            Decision::Share(given_up) => Phase::WritesResult(RowEnd::Failed(given_up.failure.error_code)),
            Decision::Wait(_) => Phase::SentBack(known.unwrap()),
            Decision::GiveUp(next) => Phase::GivesUp {
                known: known.unwrap(),
                next: Entry { state: failed("outcome_unknown", requester.row), ..next },
            },
            Decision::Claim(mut held) => {
                held.calls += 1;
                held.state = State::Claimed(Claim {
                    nonce: "new".into(),
                    worker: requester.worker,
                    at: at(0),
                    until: at(LEASE),
                });
                Phase::Claims { known, held }
            }
        }
    }

    /// A conditional write. Returns whether it took effect.
    fn write(&self, state: &mut ModelState, known: Option<&Entry>, next: &Entry) -> bool {
        if state.ledger.as_ref() != known {
            return false;
        }
        self.overwrite(state, next);
        true
    }

    fn overwrite(&self, state: &mut ModelState, next: &Entry) {
        // Each job has its own count in the entry.
        let unknown = |entry: &Entry| entry.unknown + entry.others.iter().map(|job| job.unknown).sum::<u32>();
        state.history.counted += unknown(next).saturating_sub(state.ledger.as_ref().map_or(0, unknown));
        state.ledger = Some(next.clone());
    }

    /// If the next step of this phase is a write, writes and returns whether the write took effect.
    fn try_write(&self, state: &mut ModelState, phase: &Phase) -> Option<bool> {
        Some(match phase {
            Phase::Claims { held, .. } if self.has(Mutation::UnconditionalClaim) => {
                self.overwrite(state, held);
                true
            }
            Phase::Claims { known, held } => self.write(state, known.as_ref(), held),
            Phase::Replaces(Replace { held, next }) => self.write(state, Some(held), next),
            Phase::Records { known, next, nonce } => {
                let late = !state.ledger.as_ref().is_some_and(|entry| entry.is_claimed_by(nonce));
                let done = self.write(state, known.as_ref(), next);
                state.history.late_outcome |= done && late;
                done
            }
            Phase::GivesUp { known, next } => self.write(state, Some(known), next),
            _ => return None,
        })
    }

    /// The phase after a write that succeeded, or that failed or got no answer.
    fn after_write(phase: Phase, answered: bool) -> Phase {
        match (phase, answered) {
            (Phase::Claims { held, .. }, true) => Phase::Holds(held),
            (Phase::Claims { held, .. }, false) => Phase::ReadsAfterClaim(held),
            (Phase::Replaces(replace), true) => replace.then(),
            (Phase::Replaces(replace), false) => Phase::ReadsAfterReplace(replace),
            (Phase::Records { .. }, true) => Phase::WritesResult(RowEnd::Completed),
            (Phase::Records { next, nonce, .. }, false) => Phase::ReadsAfterRecord { next, nonce },
            (Phase::GivesUp { next, .. }, true) => {
                let held = next.clone();
                Replace { held, next }.then()
            }
            (Phase::GivesUp { .. }, false) => Phase::ReadsLedger,
            (other, _) => panic!("no write: {other:?}"),
        }
    }

    fn step(&self, state: &mut ModelState, i: usize, phase: Phase) -> Phase {
        if let Some(done) = self.try_write(state, &phase) {
            return Self::after_write(phase, done);
        }
        match phase {
            Phase::Queued | Phase::SentBack(_) => match state.results[self.row(i)] {
                Some(_) => Phase::Done,
                None => Phase::ReadsLedger,
            },
            Phase::ReadsLedger => self.decide(i, state.ledger.clone()),
            Phase::ReadsAfterClaim(held) => match &state.ledger {
                Some(entry) if entry.is_claimed_by(&claim_of(&held).nonce) => Phase::Holds(held),
                Some(Entry { state: State::Claimed(_), .. }) if self.has(Mutation::NoNonce) => Phase::Holds(held),
                _ => Phase::ReadsLedger,
            },
            Phase::Holds(held) if at(CALL) < claim_of(&held).until || self.has(Mutation::NoLeaseCheck) => {
                self.observe_start(state, i);
                Phase::Calls(held)
            }
            Phase::Holds(held) => {
                let next = Entry { calls: held.calls - 1, state: State::Released, ..held.clone() };
                Phase::Replaces(Replace { held, next })
            }
            Phase::ReadsAfterReplace(replace) => match &state.ledger {
                Some(entry) if entry.is_claimed_by(&claim_of(&replace.held).nonce) => {
                    // Another job may have recorded a late outcome there.
                    let next = Entry { others: entry.others.clone(), ..replace.next };
                    Phase::Replaces(Replace { held: entry.clone(), next })
                }
                Some(entry) if *entry == replace.next => replace.then(),
                _ => Phase::ReadsLedger,
            },
            Phase::ReadsAfterRecord { next, nonce } => match state.ledger.clone() {
                Some(entry) if self.has_outcome(i, &entry) => Phase::WritesResult(RowEnd::Completed),
                Some(entry) => {
                    let series = self.requester(i).series;
                    let paid = next.outcome_for(&series.job, at(0), REUSE).unwrap();
                    let next = entry.clone().with_outcome(&series, paid.outcome);
                    Phase::Records { known: Some(entry), next, nonce }
                }
                None => Phase::Records { known: None, next, nonce },
            },
            Phase::WritesResult(end) => {
                let result = &mut state.results[self.row(i)];
                if result.is_none() || end == RowEnd::Completed {
                    *result = Some(end);
                }
                Phase::Done
            }
            other => panic!("no step from {other:?}"),
        }
    }

    fn observe_start(&self, state: &mut ModelState, i: usize) {
        let completed = matches!(state.ledger, Some(Entry { state: State::Completed(_), .. }));
        state.history.called_although_completed |= completed && !state.history.late_outcome;
        if let Phase::Calls(other) = &state.phases[1 - i] {
            state.history.overlapped_within_lease |= at(0) < claim_of(other).until;
        }
    }

    fn end_call(&self, state: &mut ModelState, i: usize, held: Entry, answer: Answer) -> Phase {
        let requester = self.requester(i);
        let mut next = Entry { state: State::Released, ..held.clone() };
        match answer {
            Answer::Images => {
                state.history.billed += 1;
                let nonce = claim_of(&held).nonce.clone();
                next.state = State::Completed(Outcome {
                    job: requester.series.job,
                    row: requester.row,
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
            Answer::TransientError => {
                next.spent.failures += 1;
                if next.spent.failures > RETRIES {
                    next.state = failed("http_500", requester.row);
                }
            }
            Answer::Throttled => next.calls -= 1,
            Answer::Unanswered { billed } => {
                state.history.billed += u32::from(billed);
                if !self.has(Mutation::Uncounted) {
                    next.count_unknown();
                }
                if next.spent.unknown > self.unknown_retries {
                    next.state = failed("outcome_unknown", requester.row);
                }
            }
        }
        Phase::Replaces(Replace { held, next })
    }

    /// Returns whether a live worker holds the claim that is in the ledger.
    fn has_owner(state: &ModelState) -> bool {
        let Some(State::Claimed(claim)) = state.ledger.as_ref().map(|entry| &entry.state) else { return false };
        state.phases.iter().any(|phase| match phase {
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
    type State = ModelState;
    type Action = Action;

    fn init_states(&self) -> Vec<ModelState> {
        vec![ModelState {
            ledger: None,
            phases: [Phase::Queued, Phase::Queued],
            results: [None, None],
            faults_left: self.faults,
            history: History::default(),
        }]
    }

    fn actions(&self, state: &ModelState, actions: &mut Vec<Action>) {
        let may_fail = state.faults_left > 0;
        for (i, phase) in state.phases.iter().enumerate() {
            match phase {
                Phase::Done => continue,
                Phase::SentBack(entry) => {
                    if state.ledger.as_ref() != Some(entry) || at(0) >= claim_of(entry).until {
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
                        Answer::Images,
                        Answer::TransientError,
                        Answer::Unanswered { billed: true },
                        Answer::Unanswered { billed: false },
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
        if let Some(Entry { state: State::Claimed(claim), .. }) = &state.ledger
            && at(0) < claim.until
            // After a death, waiting for the lease is no further fault. A live worker that stalls past its lease is one.
            && (may_fail || !Self::has_owner(state))
        {
            actions.push(Action::Expire);
        }
    }

    fn next_state(&self, before: &ModelState, action: Action) -> Option<ModelState> {
        let mut state = before.clone();
        let mut passed = 0;
        let fault = match action {
            Action::Step(i) => {
                state.phases[i] = self.step(&mut state, i, before.phases[i].clone());
                false
            }
            Action::LoseAnswer(i, done) => {
                let phase = before.phases[i].clone();
                if done {
                    self.try_write(&mut state, &phase);
                }
                state.phases[i] = Self::after_write(phase, false);
                true
            }
            Action::EndCall(i, answer) => {
                let Phase::Calls(held) = before.phases[i].clone() else { return None };
                state.phases[i] = self.end_call(&mut state, i, held, answer);
                answer == Answer::Throttled
            }
            Action::Die(i, billed) => {
                state.history.billed += u32::from(billed);
                state.phases[i] = Phase::Queued;
                true
            }
            Action::Expire => {
                passed = claim_of(before.ledger.as_ref()?).until.as_second();
                Self::has_owner(before)
            }
        };
        state.faults_left = state.faults_left.checked_sub(u8::from(fault))?;
        Some(state.normalised(passed))
    }

    fn properties(&self) -> Vec<Property<Self>> {
        fn has_failed(state: &ModelState, code: &str) -> bool {
            state.results.iter().flatten().any(|end| matches!(end, RowEnd::Failed(other) if other == code))
        }
        vec![
            Property::always("what is billed beyond one is counted", |_, state: &ModelState| {
                state.history.billed <= 1 + state.history.counted
            }),
            Property::always("unknown outcomes are bounded", |protocol: &Self, state: &ModelState| {
                state.ledger.as_ref().is_none_or(|entry| entry.spent.unknown <= protocol.unknown_retries + 1)
            }),
            Property::always("no call while the ledger is completed", |_, state: &ModelState| {
                !state.history.called_although_completed
            }),
            Property::always("no two calls within a lease", |_, state: &ModelState| {
                !state.history.overlapped_within_lease
            }),
            // Together with `always_ends`: after the last fault every delivery is settled.
            Property::always("what ends is settled", |protocol: &Self, state: &ModelState| {
                let mut actions = Vec::new();
                protocol.actions(state, &mut actions);
                let settled = (0..2).all(|i| state.results[protocol.row(i)].is_some());
                !actions.is_empty() || (settled && state.phases.iter().all(|phase| *phase == Phase::Done))
            }),
            Property::sometimes("completed", |_, state: &ModelState| state.results.contains(&Some(RowEnd::Completed))),
            Property::sometimes("outcome unknown", |_, state: &ModelState| has_failed(state, "outcome_unknown")),
            Property::sometimes("attempts used up", |_, state: &ModelState| has_failed(state, "http_500")),
            Property::sometimes("shared", |_, state: &ModelState| {
                state.results == [Some(RowEnd::Completed), Some(RowEnd::Completed)]
            }),
            // The situations that the limits above are for do occur.
            Property::sometimes("billed twice", |_, state: &ModelState| state.history.billed == 2),
            Property::sometimes("calls overlap after a lease", |_, state: &ModelState| {
                state.phases.iter().all(|phase| matches!(phase, Phase::Calls(_)))
            }),
            Property::sometimes("late outcome", |_, state: &ModelState| state.history.late_outcome),
        ]
    }
}

fn check(deliveries: Deliveries, faults: u8) {
    for unknown_retries in [0, 1] {
        let protocol = || Protocol::new(deliveries, unknown_retries, faults);
        let checker = protocol().checker().threads(2).spawn_bfs().join();
        println!("{deliveries:?}, unknown_retries {unknown_retries}: {} states", checker.unique_state_count());
        for property in protocol().properties() {
            let possible = match property.name {
                "shared" => deliveries != Deliveries::OneRow,
                // If no call may follow an unknown outcome, only another job calls again.
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
        assert!(always_ends(&protocol()), "{deliveries:?}, unknown_retries {unknown_retries}: may never end");
    }
}

/// Returns whether the model has no cycle, so that every run ends.
fn always_ends(protocol: &Protocol) -> bool {
    let name = |state: &ModelState| {
        let mut hasher = DefaultHasher::new();
        state.hash(&mut hasher);
        hasher.finish()
    };
    let mut on_path = BTreeMap::new();
    let mut path: Vec<(u64, Vec<ModelState>)> = vec![(0, protocol.init_states())];
    while let Some((entered, next)) = path.last_mut() {
        let Some(state) = next.pop() else {
            on_path.insert(*entered, false);
            path.pop();
            continue;
        };
        let entering = name(&state);
        match on_path.get(&entering) {
            Some(true) => return false,
            Some(false) => {}
            None => {
                on_path.insert(entering, true);
                path.push((entering, protocol.next_states(&state)));
            }
        }
    }
    true
}

#[test]
fn one_row_delivered_twice() {
    check(Deliveries::OneRow, 3);
}

#[test]
fn two_rows_with_one_request() {
    check(Deliveries::TwoRows, 3);
}

#[test]
fn two_jobs_with_one_request() {
    check(Deliveries::TwoJobs, 2);
}

#[test]
fn every_mutation_is_detected() {
    for (mutation, faults, property) in [
        (Mutation::UnconditionalClaim, 0, "no two calls within a lease"),
        (Mutation::UnconditionalClaim, 0, "what is billed beyond one is counted"),
        (Mutation::NoNonce, 1, "no two calls within a lease"),
        (Mutation::NoNonce, 1, "what is billed beyond one is counted"),
        (Mutation::NoLeaseCheck, 1, "no call while the ledger is completed"),
        (Mutation::Uncounted, 0, "what is billed beyond one is counted"),
    ] {
        let original = Protocol::new(Deliveries::TwoRows, 1, faults);
        original.checker().spawn_bfs().join().assert_no_discovery(property);
        let mutated = Protocol { mutation: Some(mutation), ..Protocol::new(Deliveries::TwoRows, 1, faults) };
        // A mutated model may be infinite, so the search ends with the first violation.
        let found = mutated.checker().finish_when(HasDiscoveries::AllOf(BTreeSet::from([property]))).spawn_bfs().join();
        let path = found.assert_any_discovery(property);
        println!("{mutation:?} is detected in {} steps: {property}", path.into_actions().len());
    }
}
