"""packshot on a local AWS: `up`, `down` and `demo`. Run it as ./stack, which sets up what this needs.

Standard output carries results only (one JSON line for `up`, the manifest for `demo`); progress goes to standard error.
"""

import argparse
import io
import json
import os
import platform
import re
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


def say(text):
    print(text, file=sys.stderr, flush=True)


def fail(text):
    say(f"stack: {text}")
    sys.exit(1)


def wait(what, seconds, ready):
    """The first answer of `ready` that is true."""
    deadline = time.monotonic() + seconds
    while time.monotonic() < deadline:
        if answer := ready():
            return answer
        time.sleep(0.1)
    fail(f"gave up waiting {seconds} s for {what}")


# ---- Processes


def start(state, command, env, log):
    """Starts a server as the head of its own process group, so that `down` ends its children as well."""
    with (state / log).open("wb") as output:
        process = psutil.Popen(command, cwd=ROOT, env=env, stdin=subprocess.DEVNULL, stdout=output, stderr=output,
                               start_new_session=True)
    record = read_state(state) or {"processes": []}
    record["processes"].append({"pid": process.pid, "created": process.create_time()})
    write_state(state, record)
    return process


def running(process):
    """The process that `start` began, or None: its number may belong to somebody else by now."""
    try:
        found = psutil.Process(process["pid"])
        return found if found.create_time() == process["created"] and found.status() != psutil.STATUS_ZOMBIE else None
    except psutil.NoSuchProcess:
        return None


def end_all(state):
    """Ends the process groups that `start` began."""
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


# ---- Building


def target_dir():
    return ROOT / os.environ.get("CARGO_TARGET_DIR", "target")


def build(target, profile, with_demo_api):
    """Builds the functions for this machine, where the local AWS runs them as plain processes, into the place where
    `cargo lambda build` would put them."""
    packages = [f"packshot-{name}" for name in FUNCTIONS] + (["packshot"] if with_demo_api else [])
    say(f"Building {', '.join(packages)} ...")
    command = ["cargo", "build", "--profile", profile, *(part for name in packages for part in ("-p", name))]
    if subprocess.run(command, cwd=ROOT, stdout=sys.stderr).returncode != 0:
        fail("the build failed")
    for name in FUNCTIONS:
        bootstrap = target / "lambda" / name / "bootstrap"
        bootstrap.parent.mkdir(parents=True, exist_ok=True)
        # Not written in place: a running stack may hold the old one open.
        fresh = bootstrap.with_suffix(f".{os.getpid()}")
        shutil.copy2(binary(target, profile, name), fresh)
        fresh.replace(bootstrap)


def binary(target, profile, name):
    return target / ("debug" if profile == "dev" else profile) / name


# ---- The servers


def clients(endpoint):
    """One maker for all clients. Nothing of the user's own AWS configuration can lead a request elsewhere."""
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
    # settings have no business there.
    env = {
        **CREDENTIALS,
        "PATH": os.environ["PATH"],
        "HOME": str(temporary),
        "TMPDIR": str(temporary),
        "STATE_DIR": str(temporary),
        "BIND_HOST": "127.0.0.1",
        "MINISTACK_HOST": "127.0.0.1",
        "MINISTACK_REGION": REGION,
        # The bootstraps inherit it. Not "localhost": that would put the bucket's name into the host's.
        "AWS_ENDPOINT_URL": endpoint,
        # It would listen on all interfaces, on a fixed port.
        "IOT_MTLS_ENABLED": "0",
        # Permissions are enforced: what a function's role in template.yaml does not allow fails here, too.
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
    """Deploys template.yaml as it stands, except that the bootstraps are uploaded first and stand in it as objects, as
    `sam deploy` does it, too."""
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
        template, found = re.subn(rf"CodeUri: target/lambda/{name}\b",
                                  f"CodeUri: {{Bucket: {artifacts}, Key: {name}.zip}}", template)
        if found != 1:
            fail(f"template.yaml does not name target/lambda/{name} once")
    # AWS refuses an unknown parameter; ministack takes it in silence.
    known = {found["ParameterKey"] for found in cloudformation.validate_template(TemplateBody=template)["Parameters"]}
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
            # Someone is watching.
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
    write_state(state, {**read_state(state), "stack": stack})
    say(f"Up. Region {REGION}, access key and secret key `test`. ./stack down ends it.")
    return stack


def down(options):
    state = options.state_dir
    if read_state(state):
        end_all(state)
        say("Ended what ./stack up had started.")
    # By name, because somebody may have pointed --state-dir at a folder with more in it.
    shutil.rmtree(state / "tmp", ignore_errors=True)
    for name in ("state.json", "aws.log", "api.log"):
        (state / name).unlink(missing_ok=True)


# ---- Demo


def demo(options):
    record = read_state(options.state_dir) or {}
    stack = record.get("stack") if all(map(running, record.get("processes", []))) else None
    stack = stack or up(options)
    s3, bucket = clients(stack["endpoint"])("s3"), stack["bucket"]
    catalog = ROOT / "events" / "catalog.csv"
    version = s3.put_object(Bucket=bucket, Key="incoming/catalog.csv", Body=catalog.read_bytes())["VersionId"]
    say(f"Dropped {catalog.relative_to(ROOT)} into s3://{bucket}/incoming/")

    def read(key):
        try:
            return s3.get_object(Bucket=bucket, Key=key)["Body"].read().decode()
        except s3.exceptions.NoSuchKey:
            return None

    def summary():
        pages = s3.get_paginator("list_objects_v2").paginate(Bucket=bucket, Prefix="manifests/catalog/")
        for key in (item["Key"] for page in pages for item in page.get("Contents", [])):
            if key.endswith("/summary.json"):
                found = json.loads(read(key))
                if found["source"]["version_id"] == version and found["status"] != "running":
                    return key, found
        return None

    key, found = wait("the manifest", 120, summary)
    say(f"Status: {found['status']}")
    manifest = read(key.replace("summary.json", "manifest.jsonl"))
    if manifest is None:
        fail(f"no manifest; see s3://{bucket}/{key}")
    say(f"s3://{bucket}/{key.replace('summary.json', 'manifest.jsonl')}:")
    print(manifest, end="")


# ---- The command line


def parameter(text):
    key, found, value = text.partition("=")
    if not found:
        raise argparse.ArgumentTypeError(f"`{text}` is not Key=Value")
    return key, value


def main():
    parser = argparse.ArgumentParser(prog="./stack", description="packshot on a local AWS")
    commands = parser.add_subparsers(dest="command", required=True)

    common = argparse.ArgumentParser(add_help=False)
    common.add_argument("--state-dir", type=lambda text: Path(text).resolve(), default=ROOT / ".stack",
                        help="where its pids and logs are kept; another one makes another stack (default: .stack)")
    starting = argparse.ArgumentParser(add_help=False)
    starting.add_argument("--api-url", help="base URL of the images API (default: the project's demo API is started)")
    starting.add_argument("--param", action="append", default=[], type=parameter, metavar="KEY=VALUE",
                          help="a parameter of template.yaml; may be given again")
    starting.add_argument("--port", type=int, help="of the local AWS (default: a free one)")
    starting.add_argument("--profile", default="release", choices=["release", "dev"],
                          help="cargo profile of the functions (default: release)")
    starting.add_argument("--no-build", action="store_true", help="use what was built before")

    commands.add_parser("up", parents=[common, starting], help="build, start, deploy; prints one JSON line")
    commands.add_parser("down", parents=[common], help="end what `up` started")
    commands.add_parser("demo", parents=[common, starting], help="drop events/catalog.csv and show the manifest")
    options = parser.parse_args()

    try:
        if options.command == "up":
            print(json.dumps(up(options)), flush=True)
        else:
            {"down": down, "demo": demo}[options.command](options)
    except ClientError as error:
        fail(error)


if __name__ == "__main__":
    main()
