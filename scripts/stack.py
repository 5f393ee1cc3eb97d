"""Runs packshot on a local AWS: `up`, `down`, `demo` and `env`. Start it as ./stack, which installs what it needs.

Standard output carries results only (`up`: one JSON line; `demo`: the manifest; `env`: variables). Progress goes to standard
error.
"""

import argparse
import io
import json
import os
import platform
import re
import shlex
import shutil
import signal
import socket
import subprocess
import sys
import time
import urllib.request
import zipfile
from pathlib import Path

import boto3
import psutil
from botocore.config import Config
from botocore.exceptions import ClientError

ROOT = Path(__file__).resolve().parent.parent
STACK = "packshot"
FUNCTIONS = ["splitter", "generator", "merger"]
REGION = "us-east-1"
CREDENTIALS = {"AWS_ACCESS_KEY_ID": "test", "AWS_SECRET_ACCESS_KEY": "test"}
# A release build of everything takes a few minutes; longer than this, something else is wrong.
BUILD_SECONDS = 1800
# `demo` copies a job's files to this directory below the state directory, where a browser can open them.
DEMO_DIR = "packshot-demo"


def say(text):
    print(text, file=sys.stderr, flush=True)


def fail(text):
    say(f"stack: {text}")
    sys.exit(1)


def wait(what, seconds, ready):
    """Calls `ready` until its result is true, and returns that result."""
    deadline = time.monotonic() + seconds
    while time.monotonic() < deadline:
        if result := ready():
            return result
        time.sleep(0.1)
    fail(f"gave up waiting {seconds} s for {what}")


# ---- Processes


def start(state, command, env, log):
    """Starts a server as the leader of its own process group, so that `down` ends its children, too."""
    with (state / log).open("wb") as output:
        process = psutil.Popen(command, cwd=ROOT, env=env, stdin=subprocess.DEVNULL, stdout=output, stderr=output,
                               start_new_session=True)
    record = read_state(state) or {"processes": []}
    record["processes"].append({"pid": process.pid, "created": process.create_time()})
    write_state(state, record)
    return process


def running(process):
    """Returns the process that `start` started, or None if it has ended. The creation time tells a reused pid."""
    try:
        candidate = psutil.Process(process["pid"])
        same = candidate.create_time() == process["created"] and candidate.status() != psutil.STATUS_ZOMBIE
        return candidate if same else None
    except psutil.NoSuchProcess:
        return None


def end_all(state):
    """Ends the process groups that `start` started."""
    for process in reversed((read_state(state) or {"processes": []})["processes"]):
        if leader := running(process):
            os.killpg(leader.pid, signal.SIGTERM)
            psutil.wait_procs([leader], timeout=5)
            try:
                os.killpg(leader.pid, signal.SIGKILL)
            except ProcessLookupError:
                pass


def read_state(state):
    try:
        return json.loads((state / "state.json").read_text())
    except FileNotFoundError:
        return None


def write_state(state, record):
    (state / "state.json").write_text(json.dumps(record))


def running_stack(state):
    """Returns the record of the stack that runs in this state directory, or None."""
    record = read_state(state) or {}
    return record if "stack" in record and all(map(running, record["processes"])) else None


# ---- Building


def target_dir():
    return ROOT / os.environ.get("CARGO_TARGET_DIR", "target")


def compile_programs(profile, with_demo_api=True):
    """Builds the functions, and the command that serves the demo API, for this machine. All of them at once: cargo would
    build their dependencies again for another selection."""
    packages = [f"packshot-{name}" for name in FUNCTIONS] + (["packshot"] if with_demo_api else [])
    say(f"Building {', '.join(packages)} ...")
    command = ["cargo", "build", "--profile", profile, *(part for name in packages for part in ("-p", name))]
    try:
        if subprocess.run(command, cwd=ROOT, stdout=sys.stderr, timeout=BUILD_SECONDS).returncode != 0:
            fail("the build failed")
    except subprocess.TimeoutExpired:
        fail(f"gave up waiting {BUILD_SECONDS} s for the build")


def build(target, profile, with_demo_api):
    """Builds the functions and copies them to where `cargo lambda build` would put them. The local AWS runs them as plain
    processes."""
    compile_programs(profile, with_demo_api)
    for name in FUNCTIONS:
        bootstrap = target / "lambda" / name / "bootstrap"
        bootstrap.parent.mkdir(parents=True, exist_ok=True)
        # Replaced, not overwritten: a running stack may execute the old file.
        fresh = bootstrap.with_suffix(f".{os.getpid()}")
        shutil.copy2(binary(target, profile, name), fresh)
        fresh.replace(bootstrap)


def binary(target, profile, name):
    return target / ("debug" if profile == "dev" else profile) / name


# ---- The servers


def clients(endpoint):
    """Returns a function that makes a client for a service. It ignores the user's AWS configuration, which could lead a
    request to a real account."""
    session = boto3.Session(aws_access_key_id=CREDENTIALS["AWS_ACCESS_KEY_ID"],
                            aws_secret_access_key=CREDENTIALS["AWS_SECRET_ACCESS_KEY"], region_name=REGION)
    config = Config(retries={"max_attempts": 3}, s3={"addressing_style": "path"}, proxies={})
    return lambda service: session.client(service, endpoint_url=endpoint, config=config)


def start_aws(state, port):
    port = port or free_port()
    endpoint = f"http://127.0.0.1:{port}"
    temporary = state / "tmp"
    temporary.mkdir()
    # Written out, not inherited: the functions get the server's environment, and a developer's keys, proxies and AWS
    # settings must not reach them.
    env = {
        **CREDENTIALS,
        "PATH": os.environ["PATH"],
        "HOME": str(temporary),
        "TMPDIR": str(temporary),
        "STATE_DIR": str(temporary),
        "BIND_HOST": "127.0.0.1",
        "MINISTACK_HOST": "127.0.0.1",
        "MINISTACK_REGION": REGION,
        # The bootstraps inherit it. With "localhost" the SDK would put the bucket's name into the host name.
        "AWS_ENDPOINT_URL": endpoint,
        # This service would listen on all interfaces, on a fixed port.
        "IOT_MTLS_ENABLED": "0",
        # Enforces permissions: what a function's role in template.yaml does not allow fails here, too.
        "AUTH": "true",
        "AWS_EC2_METADATA_DISABLED": "true",
        "PYTHONUNBUFFERED": "1",
    }
    process = start(state, [sys.executable, str(ROOT / "scripts" / "local_aws.py"), str(port)], env, "aws.log")

    def ready():
        if process.poll() is not None:
            fail(f"the local AWS ended; see {state}/aws.log")
        try:
            return urllib.request.build_opener(urllib.request.ProxyHandler({})).open(f"{endpoint}/_ministack/ready")
        except OSError:
            return None

    wait("the local AWS", 60, ready)
    return endpoint, process.pid


def free_port():
    with socket.socket() as probe:
        probe.bind(("127.0.0.1", 0))
        return probe.getsockname()[1]


def start_demo_api(state, program):
    process = start(state, [str(program), "stub-api", "--port", "0"], dict(os.environ), "api.log")

    def address():
        if process.poll() is not None:
            fail(f"the demo API ended; see {state}/api.log")
        return re.search(r"http://127\.0\.0\.1:\d+", (state / "api.log").read_text())

    return wait("the demo API", 30, address).group()


# ---- Deploying


def deploy(client, target, parameters):
    """Deploys template.yaml unchanged, except that it uploads the bootstraps first and names the uploaded objects in the
    template, as `sam deploy` does."""
    s3, cloudformation = client("s3"), client("cloudformation")
    artifacts = f"{STACK}-artifacts"
    s3.create_bucket(Bucket=artifacts)
    template = (ROOT / "template.yaml").read_text()
    for name in FUNCTIONS:
        bootstrap = target / "lambda" / name / "bootstrap"
        if not bootstrap.exists():
            fail(f"{bootstrap} is missing; run without --no-build")
        package = io.BytesIO()
        with zipfile.ZipFile(package, "w") as archive:
            archive.write(bootstrap, "bootstrap")
        s3.put_object(Bucket=artifacts, Key=f"{name}.zip", Body=package.getvalue())
        template, count = re.subn(rf"CodeUri: target/lambda/{name}\b",
                                  f"CodeUri: {{Bucket: {artifacts}, Key: {name}.zip}}", template)
        if count != 1:
            fail(f"template.yaml does not name target/lambda/{name} once")
    # AWS refuses an unknown parameter; ministack ignores it.
    known = {declared["ParameterKey"] for declared in cloudformation.validate_template(TemplateBody=template)["Parameters"]}
    if unknown := parameters.keys() - known:
        fail(f"template.yaml has no parameter {', '.join(sorted(unknown))}")
    cloudformation.create_stack(
        StackName=STACK, TemplateBody=template, Capabilities=["CAPABILITY_IAM", "CAPABILITY_AUTO_EXPAND"],
        Parameters=[{"ParameterKey": key, "ParameterValue": value} for key, value in parameters.items()])

    def settled():
        stack = cloudformation.describe_stacks(StackName=STACK)["Stacks"][0]
        return stack if not stack["StackStatus"].endswith("IN_PROGRESS") else None

    stack = wait("the deployment", 120, settled)
    if stack["StackStatus"] != "CREATE_COMPLETE":
        for event in cloudformation.describe_stack_events(StackName=STACK)["StackEvents"]:
            if event["ResourceStatus"].endswith("FAILED"):
                say(f"{event['LogicalResourceId']}: {event.get('ResourceStatusReason')}")
        fail(f"the deployment ended as {stack['StackStatus']}")
    return {output["OutputKey"]: output["OutputValue"] for output in stack["Outputs"]}


def up(options):
    state, target = options.state_dir, target_dir()
    api_url = options.api_url
    if not options.no_build:
        build(target, options.profile, with_demo_api=not api_url)
    down(options)
    state.mkdir(parents=True, exist_ok=True)
    try:
        if not api_url:
            api_url = start_demo_api(state, binary(target, options.profile, "packshot"))
        say("Starting the local AWS ...")
        endpoint, pid = start_aws(state, options.port)
        client = clients(endpoint)
        secret = client("secretsmanager").create_secret(Name="packshot-api-key", SecretString="local-demo-key")["ARN"]
        say("Deploying template.yaml ...")
        outputs = deploy(client, target, {
            "ApiKeySecretArn": secret,
            "ApiBaseUrl": api_url,
            "Architecture": "arm64" if platform.machine() in ("arm64", "aarch64") else "x86_64",
            # A person waits for the manifest; on AWS a longer window makes fewer, larger batches.
            "MergeBatchingWindowSeconds": "1",
            **dict(options.param),
        })
    except BaseException:
        end_all(state)
        raise
    stack = {
        "endpoint": endpoint,
        "bucket": outputs["BucketName"],
        "rows_queue_url": outputs["RowsQueueUrl"],
        "retry_queue_url": outputs["RetryQueueUrl"],
        "merge_queue_url": outputs["MergeQueueUrl"],
        "api_url": api_url,
        "log": str(state / "aws.log"),
        "pid": pid,
    }
    write_state(state, {**read_state(state), "stack": stack, "profile": options.profile})
    return stack


def down(options):
    state = options.state_dir
    if read_state(state):
        end_all(state)
        say("Ended what ./stack up had started.")
    # Only files that `up` makes: --state-dir may name a folder that holds other things.
    shutil.rmtree(state / "tmp", ignore_errors=True)
    for name in ("state.json", "aws.log", "api.log"):
        (state / name).unlink(missing_ok=True)


# ---- Demo


def upload_catalog(s3, bucket):
    """Uploads events/catalog.csv as incoming/catalog.csv and waits for the end of its job. Returns the job's prefix under
    manifests/, and its summary."""
    catalog = ROOT / "events" / "catalog.csv"
    version = s3.put_object(Bucket=bucket, Key="incoming/catalog.csv", Body=catalog.read_bytes())["VersionId"]
    say(f"Uploaded {catalog.relative_to(ROOT)} to s3://{bucket}/incoming/")

    def finished():
        for key in list_keys(s3, bucket, "manifests/catalog/"):
            if key.endswith("/summary.json"):
                summary = json.loads(s3.get_object(Bucket=bucket, Key=key)["Body"].read())
                if summary["source"]["version_id"] == version and summary["status"] != "running":
                    return key.removesuffix("summary.json"), summary
        return None

    return wait("the manifest", 120, finished)


def list_keys(s3, bucket, prefix):
    pages = s3.get_paginator("list_objects_v2").paginate(Bucket=bucket, Prefix=prefix)
    return [item["Key"] for page in pages for item in page.get("Contents", [])]


def demo(options):
    record = running_stack(options.state_dir)
    stack = record["stack"] if record else up(options)
    s3, bucket = clients(stack["endpoint"])("s3"), stack["bucket"]
    prefix, summary = upload_catalog(s3, bucket)
    local = options.state_dir / DEMO_DIR
    shutil.rmtree(local, ignore_errors=True)
    for key in list_keys(s3, bucket, prefix) + list_keys(s3, bucket, "images/catalog/"):
        file = local / key
        file.parent.mkdir(parents=True, exist_ok=True)
        file.write_bytes(s3.get_object(Bucket=bucket, Key=key)["Body"].read())
    manifest = local / prefix / "manifest.jsonl"
    if not manifest.exists():
        fail(f"the job ended as {summary['status']}, without a manifest; see s3://{bucket}/{prefix}summary.json")
    # In a terminal the report says the same in fewer words.
    if not sys.stdout.isatty():
        print(manifest.read_text(), end="", flush=True)
    report(options, stack, prefix, summary, manifest)


def report(options, stack, prefix, summary, manifest):
    """Says what came out, where it is, and how to stop the stack."""
    lines = [json.loads(line) for line in manifest.read_text().splitlines()]
    width = max(len(line["sku"]) for line in lines)
    say(f"\n{summary['rows']} rows: {summary['completed']} completed, {summary['failed']} failed. "
        f"{count(summary['images'], 'image')}, {count(summary['calls'], 'call')}, "
        f"{summary['reused']} reused from an earlier job.\n")
    for line in lines:
        outcome = count(line["image_count"], "image") if line["status"] == "completed" else line["error"]
        say(f"  {line['sku']:<{width}}  {line['status']:<9}  {outcome[:100]}")
    chosen = options.state_dir != DEFAULT_STATE_DIR
    say(f"""
Review page  {readable(manifest.parent / 'review.html')}
Manifest     {readable(manifest)}
Images       {readable(options.state_dir / DEMO_DIR / 'images' / 'catalog')}
In S3        s3://{stack['bucket']}/{prefix}  (endpoint {stack['endpoint']}, access key and secret key `test`)
Stop it      ./stack down{f' --state-dir {shlex.quote(str(options.state_dir))}' if chosen else ''}""")


def count(number, noun):
    return f"{number} {noun}{'' if number == 1 else 's'}"


def readable(path):
    """The path as a person in the current directory would type it."""
    return os.path.relpath(path) if path.is_relative_to(Path.cwd()) else path


# ---- The environment of a function


def function_environment(stack, function):
    """Returns the variables of a deployed function, and those that lead its SDK to the local AWS."""
    client = clients(stack["endpoint"])
    found = client("cloudformation").describe_stack_resource(StackName=STACK, LogicalResourceId=function.capitalize())
    name = found["StackResourceDetail"]["PhysicalResourceId"]
    configuration = client("lambda").get_function_configuration(FunctionName=name)
    return {"AWS_ENDPOINT_URL": stack["endpoint"], "AWS_REGION": REGION, **CREDENTIALS,
            **configuration["Environment"]["Variables"]}


def env(options):
    record = running_stack(options.state_dir)
    if not record:
        fail("no local AWS runs; start it with ./stack up")
    variables = sorted(function_environment(record["stack"], options.function).items())
    if options.format == "export":
        # A session token or a profile of the user's would be sent along with the local credentials.
        print("unset AWS_SESSION_TOKEN AWS_PROFILE")
        print("\n".join(f"export {name}={shlex.quote(value)}" for name, value in variables))
        return
    if broken := [name for name, value in variables if "\n" in value]:
        fail(f"{', '.join(broken)} holds a line break, which this format cannot express; use --format export")
    print("\n".join(f"{name}={value}" for name, value in variables))


# ---- The command line


def parameter(text):
    key, separator, value = text.partition("=")
    if not separator:
        raise argparse.ArgumentTypeError(f"`{text}` is not Key=Value")
    return key, value


DEFAULT_STATE_DIR = ROOT / ".stack"

ENV_EXAMPLES = """\
examples:
  # In one terminal: the generator under cargo lambda, with its variables
  ./stack env generator --format dotenv > .stack/generator.env &&
    cargo lambda watch --invoke-address 127.0.0.1 --manifest-path functions/generator/Cargo.toml --env-file .stack/generator.env
  # In another: one event for it
  cargo lambda invoke --invoke-address 127.0.0.1 generator --data-file events/generator-batch.json

  # For the AWS clients of this shell: quoted for the shell, unlike dotenv
  eval "$(./stack env generator)"

`make invoke FUNCTION=generator EVENT=events/generator-batch.json` does all of it in one command, and starts a stack if none
runs.
"""


def state_dir_option():
    """The option that every command has which uses a stack."""
    parser = argparse.ArgumentParser(add_help=False)
    parser.add_argument("--state-dir", type=lambda text: Path(text).resolve(), default=DEFAULT_STATE_DIR,
                        help="directory of the pids and logs; another directory is another stack (default: .stack)")
    return parser


def command_line():
    parser = argparse.ArgumentParser(prog="./stack", description="packshot on a local AWS")
    commands = parser.add_subparsers(dest="command", required=True)

    common = state_dir_option()
    starting = argparse.ArgumentParser(add_help=False)
    starting.add_argument("--api-url", help="base URL of the images API (default: start the demo API)")
    starting.add_argument("--param", action="append", default=[], type=parameter, metavar="KEY=VALUE",
                          help="a parameter of template.yaml; can be repeated")
    starting.add_argument("--port", type=int, help="port of the local AWS (default: a free one)")
    starting.add_argument("--profile", default="release", choices=["release", "dev"],
                          help="cargo profile of the functions (default: release)")
    starting.add_argument("--no-build", action="store_true", help="use the functions of an earlier build")

    commands.add_parser("up", parents=[common, starting], help="build, start, deploy; prints one JSON line")
    commands.add_parser("down", parents=[common], help="end what `up` started")
    commands.add_parser("demo", parents=[common, starting],
                        help="start a stack if none runs, upload events/catalog.csv, report what comes out")
    environment = commands.add_parser(
        "env", parents=[common], help="print the variables of a function of the running stack", epilog=ENV_EXAMPLES,
        formatter_class=argparse.RawDescriptionHelpFormatter)
    environment.add_argument("function", choices=FUNCTIONS)
    environment.add_argument("--format", choices=["export", "dotenv"], default="export",
                             help="export: lines for `eval` in a shell (default); dotenv: NAME=value lines for `--env-file`")
    return parser


def main():
    options = command_line().parse_args()

    try:
        if options.command == "up":
            stack = up(options)
            say(f"Up. Region {REGION}, access key and secret key `test`. ./stack down ends it.")
            print(json.dumps(stack), flush=True)
        else:
            {"down": down, "demo": demo, "env": env}[options.command](options)
    except ClientError as error:
        fail(error)


if __name__ == "__main__":
    main()
