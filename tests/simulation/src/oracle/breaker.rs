//! While the breaker is open, only its probes call the API.

use std::time::Duration;

use jiff::Timestamp;
use packshot_pipeline::{generate::breaker::BreakerFile, model::request::Fingerprint};

use super::check::{Check, parse, require};

/// Within this long every process knows that the breaker is open: the age of what it last read, and the time of a claim.
const KNOWN_WITHIN: Duration = Duration::from_secs(70);

/// The breaker's file, and since when it has said so.
#[derive(Default)]
pub(super) struct BreakerRecord {
    current: Option<(Timestamp, BreakerFile)>,
    /// Probes that were taken and have not called yet.
    probes: u32,
}

impl BreakerRecord {
    pub(super) fn wrote(&mut self, key: &str, bytes: &[u8], now: Timestamp) -> Check {
        let file: BreakerFile = parse(key, bytes)?;
        let since = match &self.current {
            Some((since, before)) if before.open && file.open => {
                self.probes += u32::from(file.probes == before.probes);
                *since
            }
            _ => {
                self.probes = 0;
                now
            }
        };
        self.current = Some((since, file));
        Ok(())
    }

    pub(super) fn call_begins(&mut self, fp: &Fingerprint, now: Timestamp) -> Check {
        let open = self.current.as_ref().filter(|(_, file)| file.open);
        if open.is_some_and(|(since, _)| now.duration_since(*since).unsigned_abs() > KNOWN_WITHIN) {
            require(self.probes > 0, || format!("{fp}: called for though the account breaker is open"))?;
            self.probes -= 1;
        }
        Ok(())
    }
}
