//! Cold starts, from the start of a process to its first request for an event, beside those of a function that does nothing;
//! and the sizes of the functions as they are deployed.

use std::{fs::File, io::Read as _};

use flate2::{Compression, read::DeflateEncoder};

use super::{
    context::Bench,
    statistics::{median_of, mib},
};
use crate::{
    lambda::Lambda,
    outcome::Outcome,
    report::{Case, Target},
};

const FLOOR: &str = "minimal-lambda";
const FUNCTIONS: [&str; 3] = ["splitter", "generator", "merger"];
const ZIPPED_MIB: f64 = 6.0;

struct Start {
    wall_ms: f64,
    cpu_ms: f64,
    mib: f64,
}

pub(super) async fn measure(bench: &mut Bench) -> Outcome<()> {
    let Some(dir) = bench.bootstraps.clone() else {
        eprintln!("cold starts and sizes are left out: they need --bootstraps");
        return Ok(());
    };
    let mut starts: [Vec<Start>; 4] = Default::default();
    for round in 0..bench.size.pick(5, 30, 30) {
        for (name, starts) in [FLOOR].into_iter().chain(FUNCTIONS).zip(&mut starts) {
            let function = Lambda::start(&dir.join(name), &[], &bench.services.environment, bench.dir()).await?;
            // The first round is not counted: it reads the programs from the disk.
            if round > 0 {
                starts.push(Start {
                    wall_ms: function.cold_start.as_secs_f64() * 1e3,
                    cpu_ms: function.process.cpu()?.as_secs_f64() * 1e3,
                    mib: mib(function.process.rss_kib()?),
                });
            }
        }
    }
    let [floor, functions @ ..] = starts;
    let floor_memory = median_of(&floor, |start| start.mib);
    for (name, starts) in FUNCTIONS.into_iter().zip(functions) {
        let beside = |what: fn(&Start) -> f64| (median_of(&starts, what), median_of(&floor, what));
        let ((wall, floor_wall), (cpu, floor_cpu)) = (beside(|start| start.wall_ms), beside(|start| start.cpu_ms));
        bench.report.add(Case {
            name: format!("{name}: cold start"),
            peak_mib: Some(median_of(&starts, |start| start.mib)),
            floor: format!("{wall:.1} ms of {floor_wall:.1} ms"),
            ratio: wall / floor_wall,
            target: Some(Target::AtMost(1.3)),
            ..Case::default()
        });
        bench.report.add(Case {
            name: format!("({name}: cold start, CPU)"),
            floor: format!("{cpu:.1} ms of {floor_cpu:.1} ms"),
            ratio: cpu / floor_cpu,
            ..Case::default()
        });
    }
    for (name, target) in [(FLOOR, None)].into_iter().chain(FUNCTIONS.map(|name| (name, Some(Target::AtMost(1.0))))) {
        let mut zipped = Vec::new();
        DeflateEncoder::new(File::open(dir.join(name))?, Compression::new(6)).read_to_end(&mut zipped)?;
        let size = zipped.len() as f64 / 1_048_576.0;
        bench.report.add(Case {
            name: format!("{name}: zipped"),
            peak_mib: (name == FLOOR).then_some(floor_memory),
            floor: format!("{size:.2} MiB of {ZIPPED_MIB}"),
            ratio: size / ZIPPED_MIB,
            target,
            ..Case::default()
        });
    }
    Ok(())
}
