//! A process under test, and the kernel's record of what this process alone used: the CPU clock of all its threads, and
//! resident memory and its peak from `/proc/PID/status`. Linux only.

use std::{
    fs::File,
    path::{Path, PathBuf},
    process::{Child, Command, Stdio},
    time::Duration,
};

use nix::{
    sys::{
        signal::{Signal, kill},
        wait::{Id, WaitPidFlag, WaitStatus, waitid},
    },
    time::{clock_getcpuclockid, clock_gettime},
    unistd::Pid,
};
use tokio::time::{Instant, MissedTickBehavior};

use crate::outcome::Outcome;

const SAMPLE_EVERY: Duration = Duration::from_millis(5);

/// A running process. It is killed when this is dropped.
pub(crate) struct Process {
    child: Child,
    pid: Pid,
    name: String,
    log: PathBuf,
    pub(crate) started: Instant,
    /// The last field, so that it is dropped after the process has ended: only an empty control group can be removed.
    quota: Option<Quota>,
}

/// What a process used from its start to its end.
#[derive(Debug, Clone, Default)]
pub(crate) struct Usage {
    pub(crate) wall: Duration,
    pub(crate) cpu: Duration,
    pub(crate) peak_kib: u64,
}

impl Process {
    /// Starts a command with this environment only. Its output goes to a file in `dir`.
    pub(crate) fn start(
        program: &Path,
        arguments: &[&str],
        environment: &[(String, String)],
        dir: &Path,
    ) -> Outcome<Self> {
        let name = program.file_name().unwrap_or_default().to_string_lossy().into_owned();
        let log = dir.join(format!("{name}.log"));
        let output = File::create(&log)?;
        let mut command = Command::new(program);
        command.args(arguments).env_clear().envs(environment.iter().map(|(name, value)| (name, value)));
        command.current_dir(dir).stdin(Stdio::null()).stderr(output.try_clone()?).stdout(output);
        let started = Instant::now();
        let child = command.spawn().map_err(|error| format!("{}: {error}", program.display()))?;
        let pid = Pid::from_raw(i32::try_from(child.id())?);
        Ok(Self { child, pid, name, log, started, quota: None })
    }

    pub(crate) fn pid(&self) -> Pid {
        self.pid
    }

    /// The file with the output.
    pub(crate) fn log(&self) -> PathBuf {
        self.log.clone()
    }

    /// CPU time of all its threads so far, including ended ones.
    pub(crate) fn cpu(&self) -> Outcome<Duration> {
        cpu(self.pid)
    }

    /// Peak of resident memory in KiB. Not `ru_maxrss`, which starts with the parent's peak.
    pub(crate) fn peak_kib(&self) -> Outcome<u64> {
        memory(self.pid, "VmHWM:")
    }

    /// Resets the peak to the memory that the process has now.
    pub(crate) fn reset_peak(&self) -> Outcome<()> {
        Ok(std::fs::write(format!("/proc/{}/clear_refs", self.pid), "5")?)
    }

    /// Resident memory now, in KiB.
    pub(crate) fn rss_kib(&self) -> Outcome<u64> {
        memory(self.pid, "VmRSS:")
    }

    /// Waits for the end and returns what was used. The exit status must be one of `expected`.
    pub(crate) async fn finish(mut self, expected: &[i32]) -> Outcome<Usage> {
        let (pid, started) = (self.pid, self.started);
        let mut ended = tokio::task::spawn_blocking(move || {
            // WNOWAIT leaves the ended process in the table, so that its CPU clock can still be read.
            let status = waitid(Id::Pid(pid), WaitPidFlag::WEXITED | WaitPidFlag::WNOWAIT);
            (status, started.elapsed())
        });
        let mut ticks = tokio::time::interval(SAMPLE_EVERY);
        ticks.set_missed_tick_behavior(MissedTickBehavior::Skip);
        let mut peak_kib = 0;
        let (status, wall) = loop {
            tokio::select! {
                ended = &mut ended => break ended?,
                // A process that is ending has no memory to read: then the last sample counts.
                _ = ticks.tick() => peak_kib = memory(pid, "VmHWM:").unwrap_or(peak_kib),
            }
        };
        let cpu = self.cpu()?;
        self.child.wait()?;
        match status? {
            WaitStatus::Exited(_, code) if expected.contains(&code) => Ok(Usage { wall, cpu, peak_kib }),
            status => Err(format!("{} ended with {status:?}:\n{}", self.name, self.log_tail()).into()),
        }
    }

    /// Whether it has ended. It is not reaped, so its CPU clock can still be read.
    pub(crate) fn has_ended(&self) -> bool {
        let status = waitid(Id::Pid(self.pid), WaitPidFlag::WEXITED | WaitPidFlag::WNOWAIT | WaitPidFlag::WNOHANG);
        matches!(status, Ok(WaitStatus::Exited(..) | WaitStatus::Signaled(..)))
    }

    /// Limits it to the share of a core that a Lambda function with this memory has. Returns `false` where this machine does not
    /// permit control groups.
    pub(crate) fn limit_to_lambda(&mut self, mib: u64) -> Outcome<bool> {
        self.quota = Quota::of_lambda(self.pid, mib)?;
        Ok(self.quota.is_some())
    }

    /// Sends SIGINT, and waits at most five seconds for the end.
    pub(crate) async fn end(&self) -> Outcome<()> {
        kill(self.pid, Signal::SIGINT)?;
        for _ in 0..100 {
            if self.has_ended() {
                break;
            }
            tokio::time::sleep(Duration::from_millis(50)).await;
        }
        Ok(())
    }

    /// The last lines of the output.
    pub(crate) fn log_tail(&self) -> String {
        let text = std::fs::read_to_string(&self.log).unwrap_or_default();
        let lines: Vec<&str> = text.lines().collect();
        lines[lines.len().saturating_sub(20)..].join("\n")
    }
}

impl Drop for Process {
    fn drop(&mut self) {
        // Once the process has been reaped, its id may belong to another process, which must not be killed.
        if let Ok(None) = self.child.try_wait() {
            let _ = kill(self.pid, Signal::SIGKILL);
            let _ = self.child.wait();
        }
    }
}

/// CPU time of all threads of a process so far, including ended ones.
pub(crate) fn cpu(pid: Pid) -> Outcome<Duration> {
    let time = clock_gettime(clock_getcpuclockid(pid)?)?;
    Ok(Duration::new(u64::try_from(time.tv_sec())?, u32::try_from(time.tv_nsec())?))
}

/// A field of `/proc/PID/status` that is in KiB.
pub(crate) fn memory(pid: Pid, field: &str) -> Outcome<u64> {
    let status = std::fs::read_to_string(format!("/proc/{pid}/status"))?;
    let line = status.lines().find_map(|line| line.strip_prefix(field)).ok_or("the process has no memory")?;
    Ok(line.trim().trim_end_matches(" kB").parse()?)
}

/// A control group that limits one process to a share of one core. The path is its directory, which is removed on drop.
struct Quota(PathBuf);

impl Quota {
    /// The share that Lambda gives to a function: one core per 1,769 MiB, in periods of 20 ms. `None` where this machine does
    /// not permit control groups. Tries version 1 of control groups, then version 2.
    fn of_lambda(pid: Pid, mib: u64) -> Outcome<Option<Self>> {
        const PERIOD_US: u64 = 20_000;
        let slice = PERIOD_US * mib / 1_769;
        let name = format!("packshot-bench-{pid}");
        for (root, files) in [
            (
                "/sys/fs/cgroup/cpu",
                vec![("cpu.cfs_period_us", PERIOD_US.to_string()), ("cpu.cfs_quota_us", slice.to_string())],
            ),
            ("/sys/fs/cgroup", vec![("cpu.max", format!("{slice} {PERIOD_US}"))]),
        ] {
            let dir = Path::new(root).join(&name);
            if !Path::new(root).join("cgroup.procs").exists() || std::fs::create_dir(&dir).is_err() {
                continue;
            }
            let group = Self(dir);
            for (file, value) in files {
                std::fs::write(group.0.join(file), value)?;
            }
            std::fs::write(group.0.join("cgroup.procs"), pid.to_string())?;
            return Ok(Some(group));
        }
        Ok(None)
    }
}

impl Drop for Quota {
    fn drop(&mut self) {
        let _ = std::fs::remove_dir(&self.0);
    }
}
