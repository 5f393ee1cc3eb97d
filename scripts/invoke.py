"""Invokes one function under cargo lambda: `make invoke FUNCTION=generator EVENT=events/generator-batch.json`.

Builds the function from this source tree and starts it with the variables that it has in the stack of `./stack up`. If no stack
runs, starts one for this invocation. At the end, only what was started here is ended. Every wait has a deadline.

Standard output carries the function's answer only; progress and the function's log go to standard error. The exit status is 0
if the function answered, also if its answer names failed items of the batch; 1 if it answered with an error, ended early, or a
deadline passed; 2 if the command line is wrong; 130 after Ctrl-C or SIGTERM.
"""

import argparse
import contextlib
import json
import os
import re
import shutil
import signal
import socket
import subprocess
import sys
import tempfile
import time
import urllib.parse
from pathlib import Path

from botocore.exceptions import ClientError

import stack as local
from stack import fail, say, wait


class Processes:
    """Processes of this invocation. Each leads its own process group, so that its children end with it."""

    def __init__(self):
        self.started = []

    def start(self, command, **options):
        process = subprocess.Popen(command, cwd=local.ROOT, stdin=subprocess.DEVNULL, start_new_session=True, **options)
        self.started.append(process)
        return process

    def end(self):
        for process in reversed(self.started):
            if process.poll() is None:
                os.killpg(process.pid, signal.SIGTERM)
                try:
                    process.wait(timeout=5)
                except subprocess.TimeoutExpired:
                    os.killpg(process.pid, signal.SIGKILL)
                    process.wait()


@contextlib.contextmanager
def some_stack(options):
    """Yields the record of the running stack, or of one that lives as long as this block."""
    if record := local.running_stack(options.state_dir):
        say(f"Using the running local AWS at {record['stack']['endpoint']}")
        if not options.no_build:
            local.compile_programs(record["profile"])
        yield record
        return
    say("No local AWS runs: starting one for this invocation. (./stack up starts one that stays.)")
    state = Path(tempfile.mkdtemp(prefix="packshot-invoke-"))
    try:
        started = local.up(argparse.Namespace(state_dir=state, api_url=None, param=[], port=None, profile=options.profile,
                                              no_build=options.no_build))
        if options.function == "splitter":
            # The deployed splitter would split the uploaded catalog, too.
            s3 = local.clients(started["endpoint"])("s3")
            s3.put_bucket_notification_configuration(Bucket=started["bucket"], NotificationConfiguration={})
        yield local.read_state(state)
    except KeyboardInterrupt:
        local.end_all(state)
        shutil.rmtree(state)
        raise
    except BaseException:
        local.end_all(state)
        say(f"The logs of the local AWS and the demo API are in {state}")
        raise
    local.end_all(state)
    shutil.rmtree(state)


def prepare(event, stack):
    """Puts into the bucket what the event names and the bucket lacks. Returns the event, with the id of a job that exists."""
    s3, bucket = local.clients(stack["endpoint"])("s3"), stack["bucket"]
    records = event.get("Records", []) if isinstance(event, dict) else []
    keys = [urllib.parse.unquote_plus(record["s3"]["object"]["key"]) for record in records if "s3" in record]
    for key in keys:
        if key.startswith("incoming/") and not exists(s3, bucket, key):
            say(f"The event names {key}, which is not in the bucket: uploading events/catalog.csv under this name")
            s3.put_object(Bucket=bucket, Key=key, Body=(local.ROOT / "events" / "catalog.csv").read_bytes())
    text = json.dumps(event)
    for job in sorted(set(re.findall(r"results/([0-9a-f]{16})/", text))):
        if not exists(s3, bucket, f"results/{job}/job.json"):
            say(f"The event names job {job}, which is not in the bucket: running events/catalog.csv instead")
            text = text.replace(job, local.upload_catalog(s3, bucket)[1]["job"])
    return text


def exists(s3, bucket, key):
    try:
        s3.head_object(Bucket=bucket, Key=key)
        return True
    except ClientError as error:
        if error.response["ResponseMetadata"]["HTTPStatusCode"] != 404:
            raise
        return False


def start_emulator(processes, log):
    """Starts cargo lambda's emulation of Lambda's control plane and runtime API. Returns its port."""
    port = local.free_port()
    with log.open("wb") as output:
        emulator = processes.start([cargo_lambda(), "lambda", "watch", "--only-lambda-apis", "--invoke-address", "127.0.0.1",
                                    "--invoke-port", str(port)], stdout=output, stderr=output)

    def listening():
        if emulator.poll() is not None:
            fail(f"cargo lambda watch ended with status {emulator.returncode}:\n{log.read_text()}")
        with socket.socket() as probe:
            return probe.connect_ex(("127.0.0.1", port)) == 0

    wait("cargo lambda watch to listen", 30, listening)
    return port


def start_function(processes, options, record, port):
    """Starts the function. The user's environment does not reach it: proxies and AWS settings would change what it does."""
    program = local.binary(local.target_dir(), record["profile"], options.function)
    if not program.exists():
        fail(f"{program} is missing; run without --no-build")
    environment = {
        "PATH": os.environ["PATH"],
        "AWS_EC2_METADATA_DISABLED": "true",
        "AWS_LAMBDA_FUNCTION_NAME": options.function,
        "AWS_LAMBDA_FUNCTION_VERSION": "1",
        "AWS_LAMBDA_FUNCTION_MEMORY_SIZE": "4096",
        "AWS_LAMBDA_RUNTIME_API": f"http://127.0.0.1:{port}/.rt/{options.function}",
        **local.function_environment(record["stack"], options.function),
    }
    return processes.start([str(program)], env=environment, stdout=sys.stderr, stderr=sys.stderr)


def call(processes, options, function, port, event):
    """Sends the event, prints the answer, and returns whether the function answered without an error."""
    invocation = processes.start([cargo_lambda(), "lambda", "invoke", "--invoke-address", "127.0.0.1", "--invoke-port", str(port),
                                  options.function, "--data-file", str(event)], stdout=subprocess.PIPE)
    deadline = time.monotonic() + options.timeout
    while invocation.poll() is None:
        if function.poll() is not None:
            fail(f"the {options.function} ended with status {function.returncode} before it answered; its log is above")
        if time.monotonic() > deadline:
            fail(f"gave up waiting {options.timeout} s for the answer of the {options.function}; TIMEOUT=SECONDS waits longer")
        time.sleep(0.05)
    print(invocation.stdout.read().decode(), end="", flush=True)
    return invocation.returncode == 0


def cargo_lambda():
    return str(Path(sys.executable).parent / "cargo-lambda")


def event_file(text):
    path = Path(text).resolve()
    try:
        return json.loads(path.read_text())
    except (OSError, ValueError) as error:
        raise argparse.ArgumentTypeError(f"{text}: {error}") from error


def command_line():
    parser = argparse.ArgumentParser(
        usage="make invoke FUNCTION=splitter|generator|merger EVENT=FILE [TIMEOUT=SECONDS] [STATE_DIR=DIR]",
        description="Invoke one function under cargo lambda, on the running local AWS or on one that is started for it.",
        parents=[local.state_dir_option()])
    parser.add_argument("function", choices=local.FUNCTIONS)
    parser.add_argument("event", type=event_file, help="JSON file, for example events/generator-batch.json")
    parser.add_argument("--timeout", type=float, default=120, help="seconds to wait for the answer (default: 120)")
    parser.add_argument("--profile", choices=["release", "dev"], default="dev",
                        help="cargo profile if no stack runs (default: dev); else that of the stack")
    parser.add_argument("--no-build", action="store_true", help="use the functions of an earlier build")
    return parser


def main():
    options = command_line().parse_args()
    # As Ctrl-C, so that what was started is ended.
    signal.signal(signal.SIGTERM, signal.default_int_handler)
    answered, processes = False, Processes()
    try:
        with some_stack(options) as record, tempfile.TemporaryDirectory(prefix="packshot-invoke-") as work:
            try:
                event = Path(work) / "event.json"
                event.write_text(prepare(options.event, record["stack"]))
                port = start_emulator(processes, Path(work) / "watch.log")
                say(f"Invoking the {options.function}")
                answered = call(processes, options, start_function(processes, options, record, port), port, event)
            finally:
                processes.end()
    except ClientError as error:
        fail(error)
    except KeyboardInterrupt:
        say("\ninvoke: stopped")
        sys.exit(130)
    sys.exit(0 if answered else 1)


if __name__ == "__main__":
    main()
