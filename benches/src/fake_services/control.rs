//! Commands to the fake services, from the harness or from a person with curl.
//!
//! | request | effect |
//! | --- | --- |
//! | `/_bench/load?key=K&file=F` | stores the local file F as the object K |
//! | `/_bench/results` | stores a completed result for every row of the job whose `job.json` is in the bucket; answers with its id |
//! | `/_bench/latency?ms=N` | makes the images API answer after N ms |
//! | `/_bench/counts` | answers with the counts since the last time, by access key, as JSON, and resets them |
//! | `/_bench/take?queue=Q&max=N` | removes up to N messages of the queue `rows`, `retry` or `merge` and answers with them as JSON |
//! | `/_bench/reset` | removes all messages and counts, and all objects outside `incoming/` |

use hyper::StatusCode;

use super::{
    answer::{self, Answer},
    fill,
    query::Query,
    state::State,
};

pub(super) fn answer(state: &State, command: &str, query: &str) -> Answer {
    let query = Query::parse(query);
    let value = |name: &str| query.get(name).unwrap_or_default();
    let done = match command {
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
        _ => return answer::unsupported(command),
    };
    match done {
        Ok(text) => answer::status(StatusCode::OK, text),
        Err(problem) => answer::status(StatusCode::BAD_REQUEST, problem),
    }
}
