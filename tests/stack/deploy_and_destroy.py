"""Tests `make deploy` and `make destroy` on the local AWS of `./stack up`, whose JSON line is in PACKSHOT_TEST_STACK.

Deploys a stack of its own, with bootstraps that are never executed.
"""

import json
import os
import platform
import subprocess
import sys
import tempfile
import time
from pathlib import Path

import boto3

import deploy

STACK = f"walk-{os.getpid()}"
KEY = "sk-test-deploy-12345678"
# deploy.py reads only the header of an executable.
ARCHITECTURE = "arm64" if platform.machine() in ("arm64", "aarch64") else "x86_64"
BOOTSTRAP = b"\x7fELF".ljust(18, b"\0") + deploy.MACHINES[ARCHITECTURE].to_bytes(2, "little") + b"\0" * 64


def main():
    stack = json.loads(os.environ["PACKSHOT_TEST_STACK"])
    # Written out, not inherited: a developer's AWS configuration could lead to a real account.
    env = {"AWS_ENDPOINT_URL": stack["endpoint"], "AWS_REGION": "us-east-1", "AWS_DEFAULT_REGION": "us-east-1",
           "AWS_ACCESS_KEY_ID": "test", "AWS_SECRET_ACCESS_KEY": "test", "PATH": os.environ["PATH"], "NO_PROXY": "127.0.0.1"}
    os.environ.update(env)
    client = deploy.clients(boto3.Session(), "us-east-1")
    account = client("sts").get_caller_identity()["Account"]
    bucket = f"{STACK}-{account}-us-east-1"
    with tempfile.TemporaryDirectory() as directory:
        work = Path(directory)

        def bootstraps(name="lambda", content=BOOTSTRAP):
            for function in deploy.FUNCTIONS:
                path = work / name / function / "bootstrap"
                path.parent.mkdir(parents=True, exist_ok=True)
                path.write_bytes(content)
            return str(work / name)

        def run(*arguments, typed="", fails=None):
            """Runs deploy.py and returns its output. If `fails` is given, it must fail and print all of these texts."""
            command = [sys.executable, deploy.__file__, *arguments, "--config", str(work / "samconfig.toml")]
            ended = subprocess.run(command, input=typed, env={**env, "HOME": directory}, capture_output=True, text=True)
            assert KEY not in ended.stdout + ended.stderr, "the output contains the key"
            assert ended.returncode == (1 if fails else 0), f"{arguments}: {ended.returncode}\n{ended.stdout}{ended.stderr}"
            missing = [part for part in fails or [] if part not in ended.stderr]
            assert not missing, f"{missing} is missing in:\n{ended.stderr}"
            return ended.stdout, ended.stderr

        def up(*arguments, typed="", fails=None):
            return run("deploy", "--bootstraps", str(work / "lambda"), *arguments, typed=typed, fails=fails)

        bootstraps()
        # Reports what would fail late, all of it at once, and changes nothing.
        up("--stack", STACK, "--set", "Typo=1", "--set", "RequestTimeoutSeconds=840", "--set", "GeneratorTimeoutSeconds=870",
           "--set", "RowsVisibilityTimeoutSeconds=600", "--set", "MergerTimeoutSeconds=900", "--set",
           "GeneratorMaxConcurrency=900", "--set", "MergeMaxConcurrency=900", "--set", "Architecture=other",
           fails=["no parameter Typo", "must be at least 871", "must be at least 5220", "must be at least 5400",
                  "1801 functions may run at once", "was not built for other"])
        up("--stack", "Big_Name", fails=["lower-case letters"])
        up("--stack", "a" * 41, fails=["has 64 characters", "at most 40" if account == "0" * 12 else "at most"])
        up("--stack", STACK, "--bootstraps", str(work / "nowhere"), fails=["splitter/bootstrap is missing"])
        up("--stack", STACK, typed="two words\n", fails=["no HTTP header can carry"])
        assert not (work / "samconfig.toml").exists()
        assert deploy.find_stack(client, STACK) is None

        # First deployment: the key goes into a secret and nowhere else.
        outputs = json.loads(up("--stack", STACK, "--set", f"Architecture={ARCHITECTURE}", "--set", "AlarmEmail=ops@example.com",
                                typed=f"{KEY}\n")[0])
        assert outputs["BucketName"] == bucket
        remembered = (work / "samconfig.toml").read_text()
        assert KEY not in remembered and "ops@example.com" in remembered
        secret = client("secretsmanager").get_secret_value(SecretId=f"{STACK}-api-key")
        assert secret["SecretString"] == KEY and secret["ARN"] in remembered

        # The same again changes nothing; a parameter or new code does; saved parameters are kept.
        assert "is up to date" in up()[1]
        assert "Changing the stack" in up("--set", "DefaultN=2")[1]
        bootstraps(content=BOOTSTRAP + b"new")
        assert "Changing the stack" in up()[1]
        parameters = deploy.find_stack(client, STACK)["Parameters"]
        parameters = {parameter["ParameterKey"]: parameter["ParameterValue"] for parameter in parameters}
        assert (parameters["DefaultN"], parameters["AlarmEmail"]) == ("2", "ops@example.com"), parameters

        # Destroying keeps waiting messages, unless told otherwise, and the data, unless its name is typed.
        client("s3").put_object(Bucket=bucket, Key="incoming/keep.txt", Body=b"kept")
        client("sqs").send_message(QueueUrl=outputs["RetryQueueUrl"], MessageBody="a row")
        run("destroy", fails=["1 messages wait in the retry queue"])
        run("destroy", "--data", "delete", "--yes", typed="yes\n", fails=["not its name; nothing was deleted"])
        assert deploy.find_stack(client, STACK)
        run("destroy", "--yes")
        assert deploy.find_stack(client, STACK) is None

        # Deploying again takes the data over. Then everything is deleted.
        assert "taken over with everything in it" in up()[1]
        assert client("s3").get_object(Bucket=bucket, Key="incoming/keep.txt")["Body"].read() == b"kept"
        splitter = deploy.stack_outputs(deploy.find_stack(client, STACK))["SplitterFunction"]
        notifications = client("s3").get_bucket_notification_configuration(Bucket=bucket)
        assert notifications["LambdaFunctionConfigurations"][0]["LambdaFunctionArn"].endswith(f":{splitter}"), notifications
        assert "is up to date" in up()[1]
        run("destroy", "--data", "delete", typed=f"{bucket}\n")
        assert bucket not in [listed["Name"] for listed in client("s3").list_buckets()["Buckets"]]


if __name__ == "__main__":
    began = time.monotonic()
    main()
    print(f"[deploy] checked, created, updated, kept, taken over, deleted in {time.monotonic() - began:.0f} s")
