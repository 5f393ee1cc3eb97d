//! What the harness, or a person with curl, tells the stand-ins.
//!
//! | request | what happens |
//! | --- | --- |
//! | `/_bench/load?key=K&file=F` | the file F of this machine becomes the object K |
//! | `/_bench/results` | every row of the job whose `job.json` is there gets a completed result; answers with its id |
//! | `/_bench/latency?ms=N` | the images API answers after N ms |
//! | `/_bench/counts` | what was asked for since the last time, by access key, as JSON; counting begins anew |
//! | `/_bench/take?queue=Q&max=N` | the next messages of `rows`, `retry` or `merge`, as JSON; they are gone then |
//! | `/_bench/reset` | forgets everything but `incoming/` |

use hyper::StatusCode;

use super::{State, fill, server};

pub(super) fn answer(state: &State, what: &str, query: &str) -> server::Answer {
    let value = |name: &str| {
        let pairs = query.split('&').filter_map(|pair| pair.split_once('='));
        pairs.into_iter().find(|(found, _)| *found == name).map(|(_, value)| value.to_owned()).unwrap_or_default()
    };
    let done = match what {
        "load" => match std::fs::read(value("file")) {
            Ok(bytes) => {
                state.bucket.put(value("key"), bytes.into());
                Ok(String::new())
            }
            Err(error) => Err(error.to_string()),
        },
        "results" => fill::results(&state.bucket),
        "latency" => value("ms")
            .parse()
            .map(|ms| state.images.set_latency(ms))
            .map(|()| String::new())
            .map_err(|error| error.to_string()),
        "counts" => serde_json::to_string(&state.counters.take()).map_err(|error| error.to_string()),
        "take" => {
            let taken = state.queues.take(&value("queue"), value("max").parse().unwrap_or_default());
            serde_json::to_string(&taken).map_err(|error| error.to_string())
        }
        "reset" => {
            state.bucket.clear();
            state.queues.clear();
            state.counters.take();
            Ok(String::new())
        }
        _ => return server::unknown(what),
    };
    match done {
        Ok(text) => server::status(StatusCode::OK, text),
        Err(problem) => server::status(StatusCode::BAD_REQUEST, problem),
    }
}
