"""What `make deploy` and `make destroy` do, on the local AWS that `./stack up` started (its line is in PACKSHOT_TEST_STACK):
a stack of its own, with bootstraps that nobody runs."""

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
# The first bytes of an executable are all that is looked at.
ARCHITECTURE = "arm64" if platform.machine() in ("arm64", "aarch64") else "x86_64"
BOOTSTRAP = b"\x7fELF".ljust(18, b"\0") + deploy.MACHINES[ARCHITECTURE].to_bytes(2, "little") + b"\0" * 64


def main():
    stack = json.loads(os.environ["PACKSHOT_TEST_STACK"])
    # Written out: nothing of a developer's AWS configuration has any business here.
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

        def run(*arguments, said="", fails=None):
            """What was printed; where it should fail, all of `fails` must have been said."""
            command = [sys.executable, deploy.__file__, *arguments, "--config", str(work / "samconfig.toml")]
            ended = subprocess.run(command, input=said, env={**env, "HOME": directory}, capture_output=True, text=True)
            assert KEY not in ended.stdout + ended.stderr, "the key shows"
            assert ended.returncode == (1 if fails else 0), f"{arguments}: {ended.returncode}\n{ended.stdout}{ended.stderr}"
            missing = [part for part in fails or [] if part not in ended.stderr]
            assert not missing, f"{missing} is missing in:\n{ended.stderr}"
            return ended.stdout, ended.stderr

        def up(*arguments, said="", fails=None):
            return run("deploy", "--bootstraps", str(work / "lambda"), *arguments, said=said, fails=fails)

        bootstraps()
        # What would fail late fails early, all of it at once, and changes nothing.
        up("--stack", STACK, "--set", "Typo=1", "--set", "RequestTimeoutSeconds=840", "--set", "GeneratorTimeoutSeconds=870",
           "--set", "RowsVisibilityTimeoutSeconds=600", "--set", "MergerTimeoutSeconds=900", "--set",
           "GeneratorMaxConcurrency=900", "--set", "MergeMaxConcurrency=900", "--set", "Architecture=other",
           fails=["no parameter Typo", "must be at least 871", "must be at least 5220", "must be at least 5400",
                  "1801 functions may run at once", "was not built for other"])
        up("--stack", "Big_Name", fails=["lower-case letters"])
        up("--stack", "a" * 41, fails=["has 64 characters", "at most 40" if account == "0" * 12 else "at most"])
        up("--stack", STACK, "--bootstraps", str(work / "nowhere"), fails=["splitter/bootstrap is missing"])
        up("--stack", STACK, said="two words\n", fails=["no HTTP header can carry"])
        assert not (work / "samconfig.toml").exists()
        assert deploy.stack_of(client, STACK) is None

        # The first time: the key goes into a secret and nowhere else.
        outputs = json.loads(up("--stack", STACK, "--set", f"Architecture={ARCHITECTURE}", "--set", "AlarmEmail=ops@example.com",
                                said=f"{KEY}\n")[0])
        assert outputs["BucketName"] == bucket
        remembered = (work / "samconfig.toml").read_text()
        assert KEY not in remembered and "ops@example.com" in remembered
        secret = client("secretsmanager").get_secret_value(SecretId=f"{STACK}-api-key")
        assert secret["SecretString"] == KEY and secret["ARN"] in remembered

        # The same again changes nothing; a parameter and new code do; what was said before holds.
        assert "is up to date" in up()[1]
        assert "Changing the stack" in up("--set", "DefaultN=2")[1]
        bootstraps(content=BOOTSTRAP + b"new")
        assert "Changing the stack" in up()[1]
        parameters = deploy.stack_of(client, STACK)["Parameters"]
        parameters = {found["ParameterKey"]: found["ParameterValue"] for found in parameters}
        assert (parameters["DefaultN"], parameters["AlarmEmail"]) == ("2", "ops@example.com"), parameters

        # Down: not over messages that wait, and never over the data by mistake.
        client("s3").put_object(Bucket=bucket, Key="incoming/keep.txt", Body=b"kept")
        client("sqs").send_message(QueueUrl=outputs["RetryQueueUrl"], MessageBody="a row")
        run("destroy", fails=["1 messages wait in the retry queue"])
        run("destroy", "--data", "delete", "--yes", said="yes\n", fails=["not its name; nothing was deleted"])
        assert deploy.stack_of(client, STACK)
        run("destroy", "--yes")
        assert deploy.stack_of(client, STACK) is None

        # Up again: over the same data. And down for good.
        assert "taken over with everything in it" in up()[1]
        assert client("s3").get_object(Bucket=bucket, Key="incoming/keep.txt")["Body"].read() == b"kept"
        splitter = deploy.outputs_of(deploy.stack_of(client, STACK))["SplitterFunction"]
        tells = client("s3").get_bucket_notification_configuration(Bucket=bucket)
        assert tells["LambdaFunctionConfigurations"][0]["LambdaFunctionArn"].endswith(f":{splitter}"), tells
        assert "is up to date" in up()[1]
        run("destroy", "--data", "delete", said=f"{bucket}\n")
        assert bucket not in [found["Name"] for found in client("s3").list_buckets()["Buckets"]]


if __name__ == "__main__":
    began = time.monotonic()
    main()
    print(f"[deploy] checked, created, updated, kept, taken over, deleted in {time.monotonic() - began:.0f} s")
