//! The processes of a run: each takes invocation after invocation from its queue until it dies, and starts again.

use std::{future::pending, sync::Arc, time::Duration};

use futures::future::join_all;
use jiff::Timestamp;
use packshot_local::MemoryQueue;
use packshot_pipeline::{
    generate::{generate, worker::Worker},
    merge::{Changed, merge, sweep::sweep},
    ports::{Delivery, Ports},
    settings::GenerateSettings,
    split::split,
};
use tokio::{
    sync::Notify,
    time::{sleep, timeout},
};

use crate::{
    call::{Actor, Role},
    faulty_ports::FaultyPorts,
    faulty_queue::FaultyQueue,
    mutation::Mutation,
    state::SimState,
};

const MERGE_TIMEOUT: Duration = Duration::from_secs(300);

/// Starts the processes of the plan.
pub(crate) fn start(state: &Arc<SimState>) {
    let hosts = &state.plan.hosts;
    for n in 0..hosts.splitters {
        tokio::spawn(process(state.clone(), format!("splitter {n}"), 1, Role::Splitter));
    }
    for n in 0..hosts.generators {
        tokio::spawn(process(state.clone(), format!("generator {n}"), hosts.slots, Role::Generator));
    }
    for n in 0..hosts.mergers {
        tokio::spawn(process(state.clone(), format!("merger {n}"), 1, Role::Merger));
    }
}

/// Runs a sweep, as the schedule does; returns whether it completed.
pub(crate) async fn run_sweep(state: &Arc<SimState>) -> bool {
    let _running = state.begin_invocation();
    let death = Arc::new(Notify::new());
    let actor = state.actor("sweeper".into(), Role::Merger, death.clone(), MERGE_TIMEOUT);
    let deadline = actor.deadline;
    let ports = ports(state, actor);
    let swept = tokio::select! {
        biased;
        () = death.notified() => None,
        swept = timeout(MERGE_TIMEOUT, sweep(&ports, deadline)) => swept.ok(),
    };
    state.trace_text(format_args!("swept: {swept:?}"));
    let completed = matches!(swept, Some(Ok(())));
    if !completed {
        state.oracle(|oracle| oracle.worker_died());
    }
    completed
}

/// The ports of an invocation.
fn ports(state: &Arc<SimState>, actor: Actor) -> Ports {
    let ports = Arc::new(FaultyPorts::new(state.clone(), actor));
    Ports {
        store: ports.clone(),
        rows: Arc::new(FaultyQueue::rows(ports.clone())),
        retry: Arc::new(FaultyQueue::retry(ports.clone())),
        images: ports.clone(),
        clock: state.clock.clone(),
        metrics: ports.clone(),
        notifier: ports,
    }
}

fn settings(state: &SimState) -> GenerateSettings {
    let settings = state.plan.generate.clone();
    match state.plan.mutation {
        Some(Mutation::UnknownRetriedFreely) => GenerateSettings { unknown_outcome_retries: 50, ..settings },
        Some(Mutation::NeverReuse) => GenerateSettings { reuse: Duration::ZERO, ..settings },
        _ => settings,
    }
}

/// A process that starts again whenever it has died.
async fn process(state: Arc<SimState>, name: String, slots: usize, role: Role) {
    let name: Arc<str> = name.into();
    loop {
        let death = Arc::new(Notify::new());
        let worker = Worker::new(&*state.clock, &settings(&state));
        let slots = (0..slots).map(|_| run_invocations(&state, &name, &death, &worker, role));
        tokio::select! {
            biased;
            () = death.notified() => {}
            _ = join_all(slots) => {}
        }
        state.trace_text(format_args!("{name} died"));
        state.oracle(|oracle| oracle.worker_died());
        let restart_delay = state.restart_delay();
        sleep(restart_delay).await;
    }
}

/// Runs one invocation after the other.
async fn run_invocations(state: &Arc<SimState>, name: &Arc<str>, death: &Arc<Notify>, worker: &Worker, role: Role) {
    let hosts = &state.plan.hosts;
    let (queue, batch, limit): (&MemoryQueue, _, _) = match role {
        Role::Splitter => (&state.uploads, 1, hosts.split_timeout),
        Role::Generator => (&state.rows, hosts.batch, hosts.generate_timeout),
        Role::Merger => (&state.merges, hosts.merge_batch, MERGE_TIMEOUT),
    };
    let settings = settings(state);
    let has = |mutation| state.plan.mutation == Some(mutation);
    loop {
        let received = queue.receive(batch).await;
        let _running = state.begin_invocation();
        if matches!(role, Role::Merger) && !hosts.window.is_zero() {
            sleep(hosts.window).await;
        }
        let actor = state.actor(name.clone(), role, death.clone(), limit);
        if has(Mutation::AckBeforeResult) {
            received.iter().for_each(|delivery| queue.delete(&delivery.receipt));
        }
        let handled = timeout(limit, handle(state, actor, received.clone(), worker, &settings)).await;
        let Ok(come_back) = handled else {
            // Lambda ends the process together with the invocation.
            state.trace_text(format_args!("{name} ran into its deadline"));
            death.notify_one();
            return pending().await;
        };
        for delivery in received {
            if !come_back.contains(&delivery.id) || has(Mutation::AckInsteadOfRetry) {
                state.delete(queue, &delivery.receipt);
            }
        }
    }
}

/// Runs the use case over a batch and returns the ids of the messages that must come back.
async fn handle(
    state: &Arc<SimState>,
    actor: Actor,
    received: Vec<Delivery>,
    worker: &Worker,
    settings: &GenerateSettings,
) -> Vec<String> {
    let (role, deadline) = (actor.role, actor.deadline);
    let ports = ports(state, actor);
    match role {
        Role::Splitter => {
            let mut come_back = Vec::new();
            for delivery in received {
                let input = state.split_input(&delivery.body);
                let outcome = Box::pin(split(&ports, &state.plan.split, input, deadline)).await;
                state.trace_text(format_args!("split: {:?}", outcome.as_ref().map(|_| ())));
                if outcome.is_err() {
                    come_back.push(delivery.id);
                }
            }
            come_back
        }
        Role::Generator => {
            let unlimited = state.plan.mutation == Some(Mutation::DeadlineUnknown);
            let deadline = if unlimited { Timestamp::MAX } else { deadline };
            Box::pin(generate(&ports, settings, worker, received, deadline)).await
        }
        Role::Merger => {
            let batch = received.into_iter().map(|delivery| Changed { id: delivery.id, keys: vec![delivery.body] });
            Box::pin(merge(&ports, batch.collect())).await
        }
    }
}
