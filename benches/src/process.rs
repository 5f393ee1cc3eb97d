//! A process under test: what it uses, and nobody else.

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

use crate::Outcome;

const SAMPLE_EVERY: Duration = Duration::from_millis(5);

/// A process of ours, ended when dropped.
pub(crate) struct Process {
    child: Child,
    pid: Pid,
    name: String,
    log: PathBuf,
    pub(crate) started: Instant,
    /// Dropped after the process has ended: only an empty group goes away.
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
    /// Starts a command with this environment and no other. What it prints goes to a file in `dir`.
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

    /// Where what it prints goes.
    pub(crate) fn log(&self) -> PathBuf {
        self.log.clone()
    }

    /// CPU time of all its threads so far, those that have ended included.
    pub(crate) fn cpu(&self) -> Outcome<Duration> {
        cpu(self.pid)
    }

    /// The most memory it ever had, in KiB. Not `ru_maxrss`, which begins with what the parent had.
    pub(crate) fn peak_kib(&self) -> Outcome<u64> {
        memory(self.pid, "VmHWM:")
    }

    /// Forgets the peak: it begins anew with what the process has now.
    pub(crate) fn forget_peak(&self) -> Outcome<()> {
        Ok(std::fs::write(format!("/proc/{}/clear_refs", self.pid), "5")?)
    }

    /// Memory now, in KiB.
    pub(crate) fn rss_kib(&self) -> Outcome<u64> {
        memory(self.pid, "VmRSS:")
    }

    /// Waits for the end and says what was used. The status must be one of `expected`.
    pub(crate) async fn finish(mut self, expected: &[i32]) -> Outcome<Usage> {
        let (pid, started) = (self.pid, self.started);
        let mut ended = tokio::task::spawn_blocking(move || {
            // Not reaped yet: its CPU clock can still be read.
            let status = waitid(Id::Pid(pid), WaitPidFlag::WEXITED | WaitPidFlag::WNOWAIT);
            (status, started.elapsed())
        });
        let mut ticks = tokio::time::interval(SAMPLE_EVERY);
        ticks.set_missed_tick_behavior(MissedTickBehavior::Skip);
        let mut peak_kib = 0;
        let (status, wall) = loop {
            tokio::select! {
                ended = &mut ended => break ended?,
                // A process that is ending has no memory to read any more.
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

    /// Whether it runs no more. It can still be looked at.
    pub(crate) fn has_ended(&self) -> bool {
        let looked = waitid(Id::Pid(self.pid), WaitPidFlag::WEXITED | WaitPidFlag::WNOWAIT | WaitPidFlag::WNOHANG);
        matches!(looked, Ok(WaitStatus::Exited(..) | WaitStatus::Signaled(..)))
    }

    /// Gives it the share of a core that a Lambda of so many MiB has. `false` where this machine does not let us.
    pub(crate) fn limit_to_lambda(&mut self, mib: u64) -> Outcome<bool> {
        self.quota = Quota::of_lambda(self.pid, mib)?;
        Ok(self.quota.is_some())
    }

    /// Asks it to end, and waits for a few seconds.
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

    /// The last lines that it printed.
    pub(crate) fn log_tail(&self) -> String {
        let text = std::fs::read_to_string(&self.log).unwrap_or_default();
        let lines: Vec<&str> = text.lines().collect();
        lines[lines.len().saturating_sub(20)..].join("\n")
    }
}

impl Drop for Process {
    fn drop(&mut self) {
        // One that has been waited for is not touched: its number may be somebody else's by now.
        if let Ok(None) = self.child.try_wait() {
            let _ = kill(self.pid, Signal::SIGKILL);
            let _ = self.child.wait();
        }
    }
}

/// CPU time of all threads of a process so far, those that have ended included.
pub(crate) fn cpu(pid: Pid) -> Outcome<Duration> {
    let time = clock_gettime(clock_getcpuclockid(pid)?)?;
    Ok(Duration::new(u64::try_from(time.tv_sec())?, u32::try_from(time.tv_nsec())?))
}

/// A line of `/proc/PID/status`, in KiB.
pub(crate) fn memory(pid: Pid, field: &str) -> Outcome<u64> {
    let status = std::fs::read_to_string(format!("/proc/{pid}/status"))?;
    let line = status.lines().find_map(|line| line.strip_prefix(field)).ok_or("the process has no memory")?;
    Ok(line.trim().trim_end_matches(" kB").parse()?)
}

/// A share of one core, for one process: what a small Lambda function gets.
struct Quota(PathBuf);

impl Quota {
    /// As a Lambda of so many MiB: 1,769 MiB are one core, given out in slices of 20 ms. `None` where this machine does not
    /// let us make control groups.
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
