//! What a run consists of: settings, hosts, faults, the API's behaviour, uploads. Drawn from the seed before anything runs.

use std::{num::NonZeroU32, time::Duration};

use packshot_pipeline::settings::{AccountPolicy, GenerateSettings, SplitSettings};

use crate::{
    fault::CrashPoint,
    mutation::Mutation,
    random::{Concern, percent, pick, rng, up_to},
    uploads::{self, Upload, row, write_catalog},
};

const SECOND: Duration = Duration::from_secs(1);
const MINUTE: Duration = Duration::from_secs(60);
const DAY: Duration = Duration::from_secs(24 * 3600);

/// Everything about a run that the product does not decide.
#[derive(Debug, Clone)]
pub struct Plan {
    /// The seed that it was drawn from.
    pub seed: u64,
    /// The planted mistake, if any.
    pub mutation: Option<Mutation>,
    pub(crate) generate: GenerateSettings,
    pub(crate) split: SplitSettings,
    pub(crate) faults: FaultPlan,
    pub(crate) api: ApiProfile,
    pub(crate) hosts: Hosts,
    pub(crate) uploads: Vec<Upload>,
    /// When a message that cannot be parsed arrives in the rows queue.
    pub(crate) poison: Vec<Duration>,
    /// When a person redrives the retry queue.
    pub(crate) redrives: Vec<Duration>,
    /// When the schedule starts a sweep; one more follows after the last fault.
    pub(crate) sweeps: Vec<Duration>,
    /// Whether a person redrives once more after the last fault.
    pub(crate) final_redrive: bool,
}

/// How often ports fail, and how.
#[derive(Debug, Clone)]
pub(crate) struct FaultPlan {
    /// Faults in 10,000 port calls.
    pub(crate) rate: u32,
    /// Crashes in 100 faults.
    pub(crate) crash_percent: u32,
    /// The longest stall.
    pub(crate) stall: Duration,
    /// Faults in 10,000 events or deletions of messages.
    pub(crate) events: u32,
    /// The end of all faults.
    pub(crate) until: Duration,
    /// Crashes at these port calls of the run, counted from 1. If there are any, there is no other fault.
    pub(crate) crashes: Vec<(u64, CrashPoint)>,
}

/// How the images API behaves.
#[derive(Debug, Clone)]
pub(crate) struct ApiProfile {
    /// Calls in 100 that go wrong while there are faults.
    pub(crate) trouble_percent: u32,
    /// Fingerprints in 100 that moderation always blocks.
    pub(crate) blocked_percent: u32,
    /// When the account cannot pay or the configuration is wrong.
    pub(crate) account_outages: Vec<(Duration, Duration)>,
    /// The longest call, apart from the second that each one takes.
    pub(crate) slowest: Duration,
    /// Every answer is links to all the images that were asked for.
    pub(crate) plain: bool,
}

/// Processes, and the limits that template.yaml would give them.
#[derive(Debug, Clone)]
pub(crate) struct Hosts {
    pub(crate) splitters: usize,
    pub(crate) generators: usize,
    /// Batches that a generator process handles at once; more than one only as in a local run.
    pub(crate) slots: usize,
    pub(crate) mergers: usize,
    pub(crate) batch: usize,
    pub(crate) merge_batch: usize,
    pub(crate) window: Duration,
    pub(crate) split_timeout: Duration,
    pub(crate) generate_timeout: Duration,
    pub(crate) rows_visibility: Duration,
    pub(crate) merge_visibility: Duration,
}

impl Plan {
    /// The plan of a seed.
    #[must_use]
    pub fn of(seed: u64) -> Self {
        let mut rng = rng(seed, Concern::Plan);
        let rng = &mut rng;
        let request_timeout = pick(rng, &[30, 60, 120, 300]) * SECOND;
        let until = MINUTE + up_to(rng, 40 * MINUTE);
        let local = percent(rng, 15);
        let reuse = pick(rng, &[30 * DAY, 30 * DAY, 30 * DAY, 7 * DAY, 7 * DAY, Duration::ZERO]);
        let generate = GenerateSettings {
            request_timeout,
            retries: rng.u32(0..=3),
            retry_after_ceiling: pick(rng, &[10, 60]) * SECOND,
            unknown_outcome_retries: rng.u32(0..=2),
            reuse,
            archive: percent(rng, 30),
            account_errors: if percent(rng, 70) { AccountPolicy::Pause } else { AccountPolicy::Fail },
            requests_per_minute: if percent(rng, 20) { NonZeroU32::new(rng.u32(20..=300)) } else { None },
            max_failed_percent: percent(rng, 15).then(|| rng.u8(10..=80)),
            sole_worker: local,
        };
        let max_images = percent(rng, 5).then_some(20);
        let split = SplitSettings { max_images, ..SplitSettings::default() };
        let faults = FaultPlan {
            rate: pick(rng, &[0, 50, 200, 500, 1_000]),
            crash_percent: pick(rng, &[0, 10, 30]),
            stall: pick(rng, &[SECOND, 30 * SECOND, 5 * MINUTE, 15 * MINUTE]),
            events: pick(rng, &[0, 500, 2_000]),
            until,
            crashes: Vec::new(),
        };
        let account_outages = if percent(rng, 30) {
            let from = up_to(rng, until / 2);
            vec![(from, (from + up_to(rng, 20 * MINUTE)).min(until))]
        } else {
            Vec::new()
        };
        let api = ApiProfile {
            trouble_percent: pick(rng, &[0, 5, 20, 50, 80]),
            blocked_percent: pick(rng, &[0, 5, 20]),
            account_outages,
            slowest: request_timeout / 2,
            plain: false,
        };
        let generate_timeout = request_timeout + 30 * SECOND + pick(rng, &[5, 60, 300, 600]) * SECOND;
        let window = pick(rng, &[0, 1, 20]) * SECOND;
        let hosts = Hosts {
            splitters: 2,
            generators: if local { 1 } else { rng.usize(1..=4) },
            slots: if local { rng.usize(1..=6) } else { 1 },
            mergers: 2,
            batch: if local { 1 } else { rng.usize(1..=5) },
            merge_batch: rng.usize(1..=10),
            window,
            split_timeout: pick(rng, &[21, 60, 900]) * SECOND,
            generate_timeout,
            // The template's rule is six times the timeout; a shorter one gives a message to two workers at once.
            rows_visibility: pick(rng, &[generate_timeout * 6, generate_timeout * 6, 45 * SECOND]),
            merge_visibility: window + pick(rng, &[20, 60, 360]) * SECOND,
        };
        let uploads = uploads::draw(rng, &generate, &split);
        let poison = (0..pick(rng, &[0, 0, 0, 1, 2])).map(|_| up_to(rng, 5 * MINUTE)).collect();
        let redrives = (0..pick(rng, &[0, 0, 1, 2, 4])).map(|_| up_to(rng, until)).collect();
        let final_redrive = percent(rng, 60);
        let sweeps = (0..rng.usize(0..4)).map(|_| up_to(rng, until)).collect();
        Self {
            seed,
            mutation: None,
            generate,
            split,
            faults,
            api,
            hosts,
            uploads,
            poison,
            redrives,
            sweeps,
            final_redrive,
        }
    }

    /// The plan of a seed with a planted mistake.
    #[must_use]
    pub fn with_mutation(seed: u64, mutation: Mutation) -> Self {
        let mut plan = Self { mutation: Some(mutation), ..Self::of(seed) };
        // Without a redrive at the end a job may well keep the rows that the mutation failed.
        plan.final_redrive |= mutation == Mutation::RetryQueueLoses;
        plan
    }

    /// Three rows, two of them alike, and no fault but crashes at the given port calls of the run.
    #[must_use]
    pub fn crashing(crashes: Vec<(u64, CrashPoint)>) -> Self {
        let plan = Self::of(0);
        let rows = [row(1), row(2), row(1).with_sku("again")];
        let generate = GenerateSettings { archive: false, ..GenerateSettings::default() };
        let (body, expected) = write_catalog(&rows, &plan.split.defaults);
        Self {
            generate,
            split: SplitSettings::default(),
            faults: FaultPlan { rate: 0, crash_percent: 0, events: 0, stall: SECOND, until: Duration::ZERO, crashes },
            api: ApiProfile {
                trouble_percent: 0,
                blocked_percent: 0,
                account_outages: Vec::new(),
                slowest: MINUTE,
                plain: false,
            },
            hosts: Hosts {
                splitters: 1,
                generators: 2,
                slots: 1,
                mergers: 2,
                batch: 2,
                merge_batch: 10,
                window: Duration::ZERO,
                split_timeout: 900 * SECOND,
                generate_timeout: 900 * SECOND,
                rows_visibility: 5_400 * SECOND,
                merge_visibility: 360 * SECOND,
            },
            uploads: vec![Upload { at: Duration::ZERO, key: "incoming/three.csv".into(), body, expected }],
            poison: Vec::new(),
            redrives: Vec::new(),
            sweeps: Vec::new(),
            final_redrive: true,
            ..plan
        }
    }

    /// One catalog of `rows` different rows without any fault, on hosts of the size of a large deployment: shows which port
    /// calls a row takes when nothing goes wrong.
    #[must_use]
    pub fn calm(rows: u64, archive: bool) -> Self {
        let plan = Self::crashing(Vec::new());
        let rows: Vec<_> = (1..=rows).map(row).collect();
        let (body, expected) = write_catalog(&rows, &plan.split.defaults);
        Self {
            generate: GenerateSettings { archive, ..GenerateSettings::default() },
            split: SplitSettings { max_rows: u64::MAX, ..SplitSettings::default() },
            api: ApiProfile { slowest: 38 * SECOND, plain: true, ..plan.api },
            hosts: Hosts { generators: 10, batch: 50, merge_batch: 1_000, window: 10 * SECOND, ..plan.hosts },
            uploads: vec![Upload { at: Duration::ZERO, key: "incoming/calm.csv".into(), body, expected }],
            final_redrive: false,
            ..plan
        }
    }

    pub(crate) fn rows(&self) -> u64 {
        self.uploads.iter().map(|upload| upload.expected.rows().len() as u64).sum()
    }
}

/// The body of the nth message that cannot be parsed.
pub(crate) fn poison_body(n: usize) -> String {
    match n {
        0 => "not a message".into(),
        n => format!("{{\"v\":1,\"number\":{n}}}"),
    }
}
