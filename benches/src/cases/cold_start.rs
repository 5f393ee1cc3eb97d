//! From the start of a process to its first request for work, and how large a function is.

use std::{fs::File, io::Read as _};

use flate2::{Compression, read::DeflateEncoder};

use super::{Bench, median};
use crate::{
    Outcome,
    lambda::Lambda,
    report::{Case, Target},
};

const FLOOR: &str = "minimal-lambda";
const FUNCTIONS: [&str; 3] = ["splitter", "generator", "merger"];
const ZIPPED_MIB: f64 = 6.0;

pub(super) async fn measure(bench: &mut Bench) -> Outcome<()> {
    let Some(dir) = bench.bootstraps.clone() else {
        eprintln!("no cold starts and no sizes: they need --bootstraps");
        return Ok(());
    };
    let mut starts: [Vec<f64>; 4] = Default::default();
    let mut memory: [Vec<f64>; 4] = Default::default();
    for round in 0..bench.size.pick(5, 30, 30) {
        for (index, name) in [FLOOR].into_iter().chain(FUNCTIONS).enumerate() {
            let function = Lambda::start(&dir.join(name), &[], &bench.stand_ins.environment, bench.dir()).await?;
            // The first round reads the programs from the disk.
            if round > 0 {
                starts[index].push(function.cold_start.as_secs_f64() * 1e3);
                memory[index].push(function.process.rss_kib()? as f64 / 1024.0);
            }
        }
    }
    let [floor, rest @ ..] = starts.map(median);
    let [floor_memory, memory @ ..] = memory.map(median);
    for ((name, start), memory) in FUNCTIONS.into_iter().zip(rest).zip(memory) {
        bench.report.add(Case {
            name: format!("{name}: cold start"),
            peak_mib: Some(memory),
            floor: format!("{start:.1} ms of {floor:.1} ms"),
            ratio: start / floor,
            target: Some(Target::AtMost(1.3)),
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
