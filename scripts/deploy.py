"""Deploys packshot to the configured AWS account (AWS_PROFILE, AWS_REGION, ...), and deletes it again.

Run it as `make deploy` or `make destroy`, which first build and install what it needs. It keeps the answers of the first
deployment in samconfig.toml, which `sam deploy` reads, too. With AWS_ENDPOINT_URL it deploys to a local AWS.
"""

import argparse
import getpass
import hashlib
import io
import json
import re
import shlex
import sys
import time
import tomllib
import zipfile
from pathlib import Path

import boto3
import yaml
from botocore.exceptions import BotoCoreError, ClientError, WaiterError

ROOT = Path(__file__).resolve().parent.parent
FUNCTIONS = ["splitter", "generator", "merger"]
# The machine number in the header of an ELF file.
MACHINES = {"x86_64": 62, "arm64": 183}
# The time that the generator reserves after a call; AFTER_CALL in shared/pipeline has the same value.
AFTER_CALL_SECONDS = 30


class DeployError(Exception):
    """Lists every problem, one a line."""


def say(text):
    print(text, file=sys.stderr, flush=True)


def error_code(error):
    return error.response["Error"]["Code"]


# ---- The answers of the first deployment


class Config:
    """The content of samconfig.toml."""

    def __init__(self, path):
        self.path = path
        content = tomllib.loads(path.read_text()) if path.exists() else {}
        saved = content.get("default", {}).get("deploy", {}).get("parameters", {})
        self.stack, self.region = saved.get("stack_name"), saved.get("region")
        overrides = saved.get("parameter_overrides", "")
        words = shlex.split(overrides) if isinstance(overrides, str) else overrides
        self.parameters = dict(word.split("=", 1) for word in words)

    def save(self, code_bucket):
        quoted = {key: re.sub(r'(["\\\\])', r"\\\1", value) for key, value in sorted(self.parameters.items())}
        overrides = " ".join(f'{key}="{value}"' for key, value in quoted.items())
        saved = {"stack_name": self.stack, "region": self.region, "template_file": "template.yaml", "s3_bucket": code_bucket,
                 "s3_prefix": self.stack, "capabilities": "CAPABILITY_IAM CAPABILITY_AUTO_EXPAND",
                 "parameter_overrides": overrides}
        lines = "".join(f"{key} = {json.dumps(value)}\n" for key, value in saved.items())
        self.path.write_text(f"# Written by `make deploy`; `sam deploy` reads it, too.\nversion = 0.1\n\n"
                             f"[default.deploy.parameters]\n{lines}")


def ask(question, default=""):
    """Asks in a terminal; elsewhere returns the default."""
    if not sys.stdin.isatty():
        return default
    answer = input(f"{question}{f' [{default}]' if default else ''}: ").strip()
    return answer or default


def ask_for_settings(config, options, session):
    """Completes the configuration from the options and, for what is missing, from the user. Does not ask for the key."""
    first = config.stack is None
    config.stack = options.stack or config.stack or ask("Name of the stack", "packshot")
    config.region = options.region or config.region or ask("Region", session.region_name or "")
    if not config.region:
        raise DeployError("- no region is set; say --region, or set AWS_REGION")
    if first:
        for parameter, purpose in [("AlarmEmail", "alarms"), ("NotifyEmail", "finished jobs")]:
            if parameter not in config.parameters and (address := ask(f"E-mail address for {purpose} (empty: none)")):
                config.parameters[parameter] = address
    config.parameters.update(options.set)


def api_key_secret(client, config):
    """Returns the ARN of the secret with the API key. Creates the secret if it is missing; reads the key without echo and
    never prints it."""
    if "ApiKeySecretArn" in config.parameters:
        return config.parameters["ApiKeySecretArn"]
    secrets, name = client("secretsmanager"), f"{config.stack}-api-key"
    try:
        return secrets.describe_secret(SecretId=name)["ARN"]
    except ClientError as error:
        if error_code(error) != "ResourceNotFoundException":
            raise
    if sys.stdin.isatty():
        key = getpass.getpass("Key of the images API (not shown): ").strip()
    else:
        key = sys.stdin.readline().strip()
    if not key or not all("!" <= character <= "~" for character in key):
        raise DeployError("- the key of the images API is empty or holds characters that no HTTP header can carry")
    say(f"Keeping the key in the secret {name} ...")
    return secrets.create_secret(Name=name, SecretString=key, Description="packshot: key of the images API")["ARN"]


# ---- Checks


def check(client, config, account, template, built):
    """Finds what would make the deployment, or the deployed functions, fail late or without a clear message. Returns whether
    the bucket of an earlier stack exists, which the deployment then takes over."""
    problems = []
    bucket = f"{config.stack}-{account}-{config.region}"
    if not re.fullmatch(r"[a-z][a-z0-9-]*[a-z0-9]", config.stack):
        problems.append(f"the stack's name becomes part of the bucket's: `{config.stack}` must be lower-case letters, digits "
                        "and hyphens, and begin with a letter")
    elif len(bucket) > 63:
        problems.append(f"the bucket's name {bucket} has {len(bucket)} characters and may have 63: choose a stack name of at "
                        f"most {63 - len(bucket) + len(config.stack)}")

    value = {name: declared.get("Default") for name, declared in template_parameters(template).items()}
    for unknown in sorted(config.parameters.keys() - value.keys()):
        problems.append(f"template.yaml has no parameter {unknown}")
    value.update(config.parameters)
    number = {}
    for key, text in value.items():
        if re.search("Seconds$|Concurrency$", key):
            try:
                number[key] = int(text)
            except (TypeError, ValueError):
                problems.append(f"{key}: `{text}` is not a whole number")

    def require_at_least(lower, higher, times, plus, why):
        if lower in number and higher in number and number[lower] * times + plus > number[higher]:
            problems.append(f"{higher} is {number[higher]} and must be at least {number[lower] * times + plus}: {why}")

    require_at_least("RequestTimeoutSeconds", "GeneratorTimeoutSeconds", 1, AFTER_CALL_SECONDS + 1,
          f"a call of RequestTimeoutSeconds and {AFTER_CALL_SECONDS} s after it must fit into an invocation")
    require_at_least("GeneratorTimeoutSeconds", "RowsVisibilityTimeoutSeconds", 6, 0, "six times GeneratorTimeoutSeconds, as AWS asks")
    require_at_least("MergerTimeoutSeconds", "MergeVisibilityTimeoutSeconds", 6, 0, "six times MergerTimeoutSeconds, as AWS asks")

    for name, machine in built.items():
        if machine is None:
            problems.append(f"target/lambda/{name}/bootstrap is missing; run make build-lambda")
        elif machine != MACHINES.get(value.get("Architecture")):
            wanted = value.get("Architecture")
            problems.append(f"target/lambda/{name}/bootstrap was not built for {wanted}; run "
                            f"make build-lambda{' ARCH=--arm64' if wanted == 'arm64' else ''}, or set Architecture")

    needed = sum(number.get(key, 0) for key in ("GeneratorMaxConcurrency", "MergeMaxConcurrency")) + 1
    free = client("lambda").get_account_settings()["AccountLimit"]["UnreservedConcurrentExecutions"]
    if needed > free:
        problems.append(f"{needed} functions may run at once (GeneratorMaxConcurrency + MergeMaxConcurrency + the splitter), "
                        f"and the account has {free} free in {config.region}: ask AWS for a higher quota (Service Quotas, "
                        "AWS Lambda, Concurrent executions) or lower them")

    take_over = False
    if not problems and find_stack(client, config.stack) is None:
        try:
            client("s3").head_bucket(Bucket=bucket)
            take_over = True
        except ClientError as error:
            if error_code(error) == "403":
                problems.append(f"the bucket {bucket} exists and is not yours to read; choose another stack name")
            elif error_code(error) != "404":
                raise
    if problems:
        raise DeployError("\n".join(f"- {problem}" for problem in problems))
    return take_over


def template_parameters(template):
    """Returns the template's parameters. They use none of CloudFormation's tags, so that these can be dropped."""
    class Loader(yaml.SafeLoader):
        pass

    Loader.add_multi_constructor("!", lambda *_: None)
    return yaml.load(template, Loader)["Parameters"]


def elf_machine(bootstrap):
    """Returns the machine number of an executable, or None if there is no such file."""
    if not bootstrap.exists():
        return None
    return int.from_bytes(bootstrap.read_bytes()[18:20], "little")


def find_stack(client, name):
    """Returns the stack's description, or None if there is no stack that can be updated."""
    try:
        stack = client("cloudformation").describe_stacks(StackName=name)["Stacks"][0]
    except ClientError as error:
        if error_code(error) == "ValidationError" and "does not exist" in str(error):
            return None
        raise
    return None if stack["StackStatus"] in ("REVIEW_IN_PROGRESS", "DELETE_COMPLETE") else stack


# ---- Deploying


def package(bootstrap):
    """Zips a bootstrap. The same bootstrap gives the same bytes, so that an unchanged function has an unchanged key."""
    entry = zipfile.ZipInfo("bootstrap", (1980, 1, 1, 0, 0, 0))
    entry.external_attr, entry.compress_type = 0o755 << 16, zipfile.ZIP_DEFLATED
    buffer = io.BytesIO()
    with zipfile.ZipFile(buffer, "w") as archive:
        archive.writestr(entry, bootstrap.read_bytes())
    return buffer.getvalue()


def upload(client, config, code_bucket, target, template):
    """Uploads the functions to the code bucket. Returns the template with their keys."""
    s3 = client("s3")
    location = {} if config.region == "us-east-1" else {"CreateBucketConfiguration": {"LocationConstraint": config.region}}
    try:
        s3.create_bucket(Bucket=code_bucket, **location)
    except ClientError as error:
        if error_code(error) != "BucketAlreadyOwnedByYou":
            raise
    s3.put_public_access_block(Bucket=code_bucket, PublicAccessBlockConfiguration=dict.fromkeys(
        ["BlockPublicAcls", "IgnorePublicAcls", "BlockPublicPolicy", "RestrictPublicBuckets"], True))
    for name in FUNCTIONS:
        body = package(target / name / "bootstrap")
        key = f"{config.stack}/{name}-{hashlib.sha256(body).hexdigest()[:16]}.zip"
        say(f"Uploading {name} ({len(body) / 2**20:.1f} MiB) ...")
        s3.put_object(Bucket=code_bucket, Key=key, Body=body)
        template, count = re.subn(rf"CodeUri: target/lambda/{name}\b", f"CodeUri: {{Bucket: {code_bucket}, Key: {key}}}", template)
        if count != 1:
            raise DeployError(f"- template.yaml does not name target/lambda/{name} once")
    return template


def wait(what, seconds, ready):
    """Calls `ready` until its result is true, and returns that result."""
    deadline = time.monotonic() + seconds
    while time.monotonic() < deadline:
        if result := ready():
            return result
        time.sleep(0.2 if seconds < 600 else 2)
    raise DeployError(f"- gave up waiting {seconds} s for {what}; see the stack's events in CloudFormation")


def apply(client, stack, code_bucket, template, parameters, take_over=False):
    """Creates or changes the stack. Returns its outputs."""
    cloudformation = client("cloudformation")
    # The template is larger than what a request may hold.
    key = f"{stack}/template-{hashlib.sha256(template.encode()).hexdigest()[:16]}.yaml"
    client("s3").put_object(Bucket=code_bucket, Key=key, Body=template.encode())
    url = f"{client('s3').meta.endpoint_url}/{code_bucket}/{key}"
    earlier = find_stack(client, stack)
    if earlier and earlier["StackStatus"] in ("ROLLBACK_COMPLETE", "ROLLBACK_FAILED", "DELETE_FAILED"):
        raise DeployError(f"- the stack {stack} is {earlier['StackStatus']}; run make destroy first (it keeps the bucket)")
    known = {parameter["ParameterKey"] for parameter in (earlier or {}).get("Parameters", [])}
    declared = template_parameters(template).keys()
    values = [{"ParameterKey": key, "ParameterValue": str(value)} for key, value in parameters.items()]
    # Keeps parameters that were set by other means, for example in the console.
    values += [{"ParameterKey": key, "UsePreviousValue": True} for key in sorted((known & declared) - parameters.keys())]
    change = cloudformation.create_change_set(
        StackName=stack, ChangeSetName=f"packshot-{time.time_ns()}",
        ChangeSetType="UPDATE" if earlier else "CREATE", TemplateURL=url, Parameters=values,
        Capabilities=["CAPABILITY_IAM", "CAPABILITY_AUTO_EXPAND"], **({"ImportExistingResources": True} if take_over else {}))["Id"]

    def planned():
        change_set = cloudformation.describe_change_set(ChangeSetName=change)
        return change_set if change_set["Status"] in ("CREATE_COMPLETE", "FAILED") else None

    plan = wait("the plan", 300, planned)
    if plan["Status"] == "FAILED":
        reason = plan.get("StatusReason", "")
        cloudformation.delete_change_set(ChangeSetName=change)
        if "didn't contain changes" in reason or "No updates" in reason:
            say(f"The stack {stack} is up to date.")
            return stack_outputs(earlier)
        raise DeployError(f"- CloudFormation refuses the template: {reason}")
    resources = [entry["ResourceChange"] for entry in plan["Changes"]]
    for resource in resources:
        if earlier and (resource["Action"] != "Modify" or resource.get("Replacement") == "True"):
            say(f"  {resource['Action']} {resource['LogicalResourceId']}")
    lost = [resource["LogicalResourceId"] for resource in resources
            if resource["ResourceType"] in ("AWS::S3::Bucket", "AWS::SQS::Queue")
            and earlier and (resource["Action"] == "Remove" or resource.get("Replacement") == "True")]
    if lost:
        cloudformation.delete_change_set(ChangeSetName=change)
        raise DeployError(f"- this would replace {', '.join(lost)}, with what is in it; nothing was changed")
    say(f"{'Changing' if earlier else 'Creating'} the stack {stack} ({len(resources)} resources) ...")
    cloudformation.execute_change_set(ChangeSetName=change)

    def settled():
        described = cloudformation.describe_stacks(StackName=stack)["Stacks"][0]
        return described if not described["StackStatus"].endswith("IN_PROGRESS") else None

    settled_stack = wait("the deployment", 3600, settled)
    if settled_stack["StackStatus"] not in ("CREATE_COMPLETE", "UPDATE_COMPLETE", "IMPORT_COMPLETE"):
        events = cloudformation.describe_stack_events(StackName=stack)["StackEvents"]
        failed = [f"- {event['LogicalResourceId']}: {event.get('ResourceStatusReason')}" for event in reversed(events)
                  if event["ResourceStatus"].endswith("FAILED")]
        raise DeployError("\n".join([f"- the deployment ended as {settled_stack['StackStatus']}", *failed]))
    return stack_outputs(settled_stack)


def stack_outputs(stack):
    return {output["OutputKey"]: output["OutputValue"] for output in stack.get("Outputs", [])}


def deploy(options):
    config, session = Config(options.config), boto3.Session()
    ask_for_settings(config, options, session)
    client = clients(session, config.region)
    account = client("sts").get_caller_identity()["Account"]
    template = (ROOT / "template.yaml").read_text()
    take_over = check(client, config, account, template,
                      {name: elf_machine(options.bootstraps / name / "bootstrap") for name in FUNCTIONS})
    config.parameters["ApiKeySecretArn"] = api_key_secret(client, config)
    code_bucket = f"packshot-code-{account}-{config.region}"
    config.save(code_bucket)
    template = upload(client, config, code_bucket, options.bootstraps, template)
    if take_over:
        bucket = f"{config.stack}-{account}-{config.region}"
        say(f"The bucket {bucket} is there from an earlier stack and is taken over with everything in it.")
        # CloudFormation imports a bucket only under a literal name, and keeps its old properties, which notify functions that
        # no longer exist. So the first change imports it without properties, and the second one sets them.
        bare, count = re.subn(r"(?ms)^      BucketName: .*?(?=^  \w)", f"      BucketName: {bucket}\n\n", template)
        if count != 1:
            raise DeployError("- template.yaml does not name the bucket once")
        apply(client, config.stack, code_bucket, bare, config.parameters, take_over)
    outputs = apply(client, config.stack, code_bucket, template, config.parameters)
    say(f"Deployed. Next: aws s3 cp shoes.csv s3://{outputs['BucketName']}/incoming/shoes.csv")
    print(json.dumps(outputs))


# ---- Deleting


def destroy(options):
    config, session = Config(options.config), boto3.Session()
    stack, region = options.stack or config.stack, options.region or config.region or session.region_name
    if not stack or not region:
        raise DeployError("- which stack? say --stack and --region, or run where samconfig.toml is")
    client = clients(session, region)
    account = client("sts").get_caller_identity()["Account"]
    bucket = f"{stack}-{account}-{region}"
    described = find_stack(client, stack)
    if options.data == "delete":
        print(f"All catalogs, manifests, images, and the record of what has been paid for, in all versions.\n"
              f"Type the bucket's name to delete it ({bucket}): ", end="", file=sys.stderr, flush=True)
        if sys.stdin.readline().strip() != bucket:
            raise DeployError("- that is not its name; nothing was deleted")
    if described:
        waiting = waiting_messages(client, stack_outputs(described))
        if waiting and not options.yes:
            raise DeployError("\n".join([*(f"- {count} messages wait in the {name}; they go with the stack" for name, count in waiting),
                                      "- nothing was deleted; say YES=1 to lose them (upload the catalog again later: what was "
                                      "paid for is not paid again)"]))
        say(f"Deleting the stack {stack} ...")
        client("cloudformation").delete_stack(StackName=stack)
        client("cloudformation").get_waiter("stack_delete_complete").wait(
            StackName=described["StackId"], WaiterConfig={"Delay": 5 if not client("s3").meta.endpoint_url.startswith("http:") else 1})
    else:
        say(f"There is no stack {stack} in {region}.")
    if options.data == "delete":
        say(f"Deleting the bucket {bucket} ...")
        empty(client("s3"), bucket)
    else:
        say(f"The bucket {bucket} and everything in it stays; the next make deploy takes it over.")
    say(f"The secret {stack}-api-key stays; aws secretsmanager delete-secret --secret-id {stack}-api-key deletes it.")


def waiting_messages(client, outputs):
    """Counts the messages that cannot be restored from the bucket, by queue."""
    counted = []
    for name, output in [("rows queue", "RowsQueueUrl"), ("retry queue", "RetryQueueUrl")]:
        if output in outputs:
            attributes = client("sqs").get_queue_attributes(QueueUrl=outputs[output], AttributeNames=[
                "ApproximateNumberOfMessages", "ApproximateNumberOfMessagesNotVisible",
                "ApproximateNumberOfMessagesDelayed"])["Attributes"]
            if count := sum(map(int, attributes.values())):
                counted.append((name, count))
    return counted


def empty(s3, bucket):
    try:
        for page in s3.get_paginator("list_object_versions").paginate(Bucket=bucket):
            versions = [{"Key": version["Key"], "VersionId": version["VersionId"]}
                        for version in page.get("Versions", []) + page.get("DeleteMarkers", [])]
            if versions:
                failed = s3.delete_objects(Bucket=bucket, Delete={"Objects": versions, "Quiet": True}).get("Errors", [])
                if failed:
                    raise DeployError(f"- {len(failed)} objects could not be deleted; the first: {failed[0]['Key']}: {failed[0]['Message']}")
        s3.delete_bucket(Bucket=bucket)
    except s3.exceptions.NoSuchBucket:
        say(f"There is no bucket {bucket}.")


# ---- The command line


def clients(session, region):
    return lambda service: session.client(service, region_name=region)


def parameter(text):
    key, separator, value = text.partition("=")
    if not separator:
        raise argparse.ArgumentTypeError(f"`{text}` is not Parameter=value")
    return key, value


def main():
    parser = argparse.ArgumentParser(prog="scripts/deploy.py", description="packshot in an AWS account")
    commands = parser.add_subparsers(dest="command", required=True)
    common = argparse.ArgumentParser(add_help=False)
    common.add_argument("--stack", help="name of the stack (default: what samconfig.toml says, or packshot)")
    common.add_argument("--region", help="default: what samconfig.toml or the AWS configuration says")
    common.add_argument("--config", type=Path, default=ROOT / "samconfig.toml", help="default: samconfig.toml")
    up = commands.add_parser("deploy", parents=[common], help="create or change the stack; prints its outputs as JSON")
    up.add_argument("--set", action="append", default=[], type=parameter, metavar="PARAMETER=VALUE",
                    help="a parameter of template.yaml, kept for the next time; may be given again")
    up.add_argument("--bootstraps", type=Path, default=ROOT / "target" / "lambda", help="default: target/lambda")
    down = commands.add_parser("destroy", parents=[common], help="delete the stack; the bucket stays")
    down.add_argument("--data", choices=["keep", "delete"], default="keep", help="delete: the bucket goes, too")
    down.add_argument("--yes", action="store_true", help="although messages are waiting")
    options = parser.parse_args()
    try:
        {"deploy": deploy, "destroy": destroy}[options.command](options)
    except DeployError as error:
        say(f"{options.command}:\n{error}")
        sys.exit(1)
    except (ClientError, BotoCoreError, WaiterError) as error:
        say(f"{options.command}: {error}")
        sys.exit(1)
    except (EOFError, KeyboardInterrupt):
        say(f"\n{options.command}: stopped")
        sys.exit(130)


if __name__ == "__main__":
    main()
