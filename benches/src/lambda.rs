//! The Lambda runtime API for one function. The harness serves it itself: a function polls for an event, works, and posts
//! its answer, and the time between these requests is what is measured. The harness is idle while the function works.

use std::{convert::Infallible, path::Path, sync::Arc, time::Duration};

use bytes::Bytes;
use http_body_util::{BodyExt as _, Full};
use hyper::{
    Method, Request, Response, StatusCode, body::Incoming, header::HeaderValue, server::conn::http1,
    service::service_fn,
};
use hyper_util::rt::TokioIo;
use packshot_aws::clock::SystemClock;
use packshot_pipeline::ports::Clock as _;
use tokio::{
    net::TcpListener,
    sync::{Mutex, mpsc},
    task::JoinHandle,
    time::{Instant, timeout},
};

use crate::{outcome::Outcome, process::Process};

/// Longer than any measurement, so that no function stops early because of its deadline.
const DEADLINE: Duration = Duration::from_secs(3600);
/// How often the harness checks whether a silent function has ended.
const POLL_INTERVAL: Duration = Duration::from_millis(200);

/// A function that runs and waits for events.
pub(crate) struct Lambda {
    pub(crate) process: Process,
    /// From the start of the process to its first request for an event.
    pub(crate) cold_start: Duration,
    events: mpsc::UnboundedSender<Bytes>,
    requests: mpsc::UnboundedReceiver<FunctionRequest>,
    server: JoinHandle<()>,
}

/// One invocation.
#[derive(Debug, Clone)]
pub(crate) struct Invocation {
    pub(crate) wall: Duration,
    pub(crate) cpu: Duration,
    pub(crate) peak_kib: u64,
    pub(crate) answer: Bytes,
}

/// A request of the function to the runtime API.
enum FunctionRequest {
    /// It is ready for the next event.
    Next(Instant),
    Answered(Instant, Bytes),
    Failed(Bytes),
}

struct Api {
    events: Mutex<mpsc::UnboundedReceiver<Bytes>>,
    requests: mpsc::UnboundedSender<FunctionRequest>,
}

impl Lambda {
    /// Starts a function and waits until it asks for its first event.
    pub(crate) async fn start(
        program: &Path,
        arguments: &[&str],
        environment: &[(String, String)],
        dir: &Path,
    ) -> Outcome<Self> {
        let listener = TcpListener::bind("127.0.0.1:0").await?;
        let address = listener.local_addr()?.to_string();
        let (events, queue) = mpsc::unbounded_channel();
        let (sender, requests) = mpsc::unbounded_channel();
        let server = tokio::spawn(serve(listener, Arc::new(Api { events: Mutex::new(queue), requests: sender })));
        let mut environment = environment.to_vec();
        for (name, value) in [
            ("AWS_LAMBDA_RUNTIME_API", address.as_str()),
            ("AWS_LAMBDA_FUNCTION_NAME", "bench"),
            ("AWS_LAMBDA_FUNCTION_MEMORY_SIZE", "128"),
            ("AWS_LAMBDA_FUNCTION_VERSION", "1"),
            ("AWS_LAMBDA_LOG_GROUP_NAME", "bench"),
            ("AWS_LAMBDA_LOG_STREAM_NAME", "bench"),
        ] {
            environment.push((name.to_owned(), value.to_owned()));
        }
        let process = Process::start(program, arguments, &environment, dir)?;
        let mut lambda = Self { cold_start: Duration::ZERO, process, events, requests, server };
        lambda.cold_start = match lambda.next_request(Duration::from_secs(60)).await? {
            FunctionRequest::Next(at) => at - lambda.process.started,
            FunctionRequest::Failed(problem) => return Err(String::from_utf8_lossy(&problem).into_owned().into()),
            FunctionRequest::Answered(..) => return Err("the function answered before it got an event".into()),
        };
        Ok(lambda)
    }

    /// Sends an event and waits for the answer, and until the function is ready for the next event. The peak of memory is
    /// that of this invocation.
    pub(crate) async fn invoke(&mut self, event: Bytes) -> Outcome<Invocation> {
        self.process.reset_peak()?;
        let (cpu, begun) = (self.process.cpu()?, Instant::now());
        self.events.send(event).map_err(|_| "the runtime API has stopped")?;
        let (at, answer) = match self.next_request(DEADLINE).await? {
            FunctionRequest::Answered(at, answer) => (at, answer),
            FunctionRequest::Failed(problem) => return Err(String::from_utf8_lossy(&problem).into_owned().into()),
            FunctionRequest::Next(_) => return Err("the function asked for the next event without an answer".into()),
        };
        let FunctionRequest::Next(_) = self.next_request(Duration::from_secs(60)).await? else {
            return Err("the function answered twice".into());
        };
        Ok(Invocation {
            wall: at - begun,
            cpu: self.process.cpu()?.saturating_sub(cpu),
            peak_kib: self.process.peak_kib()?,
            answer,
        })
    }

    /// Ends the function with a signal, as Lambda does, and gives it time to shut down.
    pub(crate) async fn stop(self) {
        let _ = self.process.end().await;
    }

    async fn next_request(&mut self, patience: Duration) -> Outcome<FunctionRequest> {
        let begun = Instant::now();
        loop {
            // Checked before the channel is read: a request that the function sent just before its end must not be lost.
            let ended = self.process.has_ended();
            if let Ok(Some(request)) = timeout(POLL_INTERVAL, self.requests.recv()).await {
                return Ok(request);
            }
            if ended || begun.elapsed() > patience {
                let what = if ended { "has ended" } else { "does not respond" };
                return Err(format!("the function {what}:\n{}", self.process.log_tail()).into());
            }
        }
    }
}

impl Drop for Lambda {
    fn drop(&mut self) {
        self.server.abort();
    }
}

async fn serve(listener: TcpListener, api: Arc<Api>) {
    while let Ok((stream, _)) = listener.accept().await {
        let api = api.clone();
        let service = service_fn(move |request| answer(api.clone(), request));
        tokio::spawn(async move {
            let _ = stream.set_nodelay(true);
            let _ = http1::Builder::new().serve_connection(TokioIo::new(stream), service).await;
        });
    }
}

async fn answer(api: Arc<Api>, request: Request<Incoming>) -> Result<Response<Full<Bytes>>, Infallible> {
    let now = Instant::now();
    let (head, body) = request.into_parts();
    if head.method == Method::GET {
        let _ = api.requests.send(FunctionRequest::Next(now));
        let event = api.events.lock().await.recv().await.unwrap_or_default();
        let deadline = SystemClock.now().as_millisecond() + DEADLINE.as_millis() as i64;
        let mut answer = Response::new(Full::new(event));
        for (name, value) in [
            ("lambda-runtime-aws-request-id", "8476a536-e9f4-11e8-9739-2dfe598c3fcd".to_owned()),
            ("lambda-runtime-deadline-ms", deadline.to_string()),
            ("lambda-runtime-invoked-function-arn", "arn:aws:lambda:us-east-1:000000000000:function:bench".to_owned()),
            ("lambda-runtime-trace-id", "Root=1-5bef4de7-ad49b0e87f6ef6c87fc2e700".to_owned()),
        ] {
            if let Ok(value) = HeaderValue::from_str(&value) {
                answer.headers_mut().insert(name, value);
            }
        }
        return Ok(answer);
    }
    let body = body.collect().await.map(|body| body.to_bytes()).unwrap_or_default();
    let failed = head.uri.path().ends_with("/error");
    let _ =
        api.requests.send(if failed { FunctionRequest::Failed(body) } else { FunctionRequest::Answered(now, body) });
    let mut answer = Response::new(Full::default());
    *answer.status_mut() = StatusCode::ACCEPTED;
    Ok(answer)
}
