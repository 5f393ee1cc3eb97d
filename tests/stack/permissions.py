"""Tests least privilege on the stack of `./stack up`, whose JSON line is in PACKSHOT_TEST_STACK.

First runs everything that packshot does with the permissions of template.yaml: nothing may be refused. Then removes each
permission (one action on one resource) alone and repeats what needs it: that must be refused. A permission that is only in
the template or only in the table below fails the test.
"""

import contextlib
import fnmatch
import itertools
import json
import os
import time
import urllib.error
import urllib.request
from pathlib import Path

import boto3
from botocore.exceptions import ClientError
from cfnlint.decode import decode

import stack as local

# Actions that the local AWS does not check. Their grants are read, not tried.
UNCHECKED = {
    "logs:CreateLogStream": "the local AWS writes the functions' logs itself",
    "logs:PutLogEvents": "the local AWS writes the functions' logs itself",
    "xray:PutTraceSegments": "the functions send no traces here",
    "xray:PutTelemetryRecords": "the functions send no traces here",
}
# Actions for which AWS has no resources.
ON_EVERYTHING = {"xray:PutTraceSegments", "xray:PutTelemetryRecords"}

HEADER = "sku,title,image_url,n\n"


def main():
    stack = Stack(json.loads(os.environ["PACKSHOT_TEST_STACK"]))
    only_what_is_needed(stack)
    the_bucket_refuses_all_others(stack)
    for test in (everything_works, each_permission_is_needed):
        with stack.generator_variable("MAX_FAILED_PERCENT", "50"):
            test(stack)
    the_pim_only_reads(stack)


# ---- Scenarios. With `wait`, each returns when its effects are visible


def catalog(stack, wait):
    """A catalog with valid and rejected rows, up to its manifest and images."""
    name, version = stack.drop(HEADER + stack.rows(3) + "no-title,,https://cdn.example.com/a.png,1\n")
    if wait:
        summary = stack.summary(name, version)
        assert (summary["completed"], summary["failed"]) == (3, 1), summary
        assert len(stack.keys(f"images/{name}/")) == 3
    return name


def repeated_row(stack, wait):
    """The same row twice: the second one reuses the outcome of the first."""
    name, version = stack.drop(HEADER + 2 * stack.rows(1))
    if wait:
        summary = stack.summary(name, version)
        assert (summary["completed"], summary["calls"]) == (2, 1), summary


def no_catalog(stack, wait):
    """A file that is no catalog: rejected with a summary."""
    name, version = stack.drop("not,a,catalog\n1,2,3\n")
    if wait:
        assert stack.summary(name, version)["status"] == "rejected"


def failing_splitter(stack, wait):
    """An event that fails every attempt and ends in the splitter's failure queue."""
    stack.client("lambda").invoke(FunctionName=stack.id("Splitter"), InvocationType="Event", Payload=b'{"not":"ours"}')
    if wait:
        stack.wait_for_messages("SplitterFailures")


def poison(stack, wait):
    """A message that is not a row: moved to the retry queue."""
    stack.client("sqs").send_message(QueueUrl=stack.id("RowsQueue"), MessageBody='{"not":"ours"}')
    if wait:
        stack.wait_for_messages("RetryQueue")


def failing_job(stack, wait):
    """More failing rows than MAX_FAILED_PERCENT permits: the job is stopped. Each process decides after twenty rows of its own."""
    stack.script({"rules": [{"match": "/gone/", "answers": [{"status": 404}], "then": "repeat"}]})
    name, version = stack.drop(HEADER + stack.rows(60, folder="gone"))
    if wait:
        assert stack.summary(name, version)["status"] == "failed"
        assert stack.keys("control/abort/")


def empty_balance(stack, wait):
    """An account that cannot pay: the breaker opens, and the messages get a longer visibility timeout."""
    stack.script({"account": "empty"})
    stack.drop(HEADER + stack.rows(2))
    if wait:
        local.wait("the breaker", 20, lambda: stack.keys("control/breaker.json"))


def fresh_generator(stack, wait):
    """The first rows of a generator process, which reads the key."""
    with stack.generator_variable("RESTARTED_FOR_TEST", str(next(stack.numbers))):
        catalog(stack, wait)
        time.sleep(0 if wait else 2)


def unfinished_upload(stack, wait):
    """A part of more than 8 MiB whose last row cannot be read: the merger aborts the upload of the part."""
    name, version = stack.drop(HEADER + stack.rows(9))
    job = stack.summary(name, version)["job"]
    results = stack.keys(f"results/{job}/000000/")
    iam, role = stack.client("iam"), stack.id("MergerRole")
    iam.put_role_policy(RoleName=role, PolicyName="unreadable", PolicyDocument=json.dumps({
        "Version": "2012-10-17",
        "Statement": {"Effect": "Deny", "Action": "s3:GetObject", "Resource": f"arn:aws:s3:::{stack.bucket}/{results[-1]}"}}))
    try:
        began = stack.log_length()
        for key in results:
            stack.client("s3").put_object(Bucket=stack.bucket, Key=key, Body=b" " * 1_200_000 + b"\n")
        assert stack.refused(began, "MergerRole", "s3:GetObject", stack.arn(results[-1]), 20), "the merger did not try"
        time.sleep(1)
        if wait:
            assert "Uploads" not in stack.client("s3").list_multipart_uploads(Bucket=stack.bucket)
    finally:
        iam.delete_role_policy(RoleName=role, PolicyName="unreadable")
        # Without the permission the upload stays unfinished. On AWS the lifecycle rule deletes it; here, the test does.
        for upload in stack.client("s3").list_multipart_uploads(Bucket=stack.bucket).get("Uploads", []):
            stack.client("s3").abort_multipart_upload(Bucket=stack.bucket, Key=upload["Key"], UploadId=upload["UploadId"])


# The scenario that needs each permission. The empty balance comes last: it delays the rows that follow.
NEEDED = {
    "SplitterRole": {
        ("s3:GetObjectVersion", "bucket/incoming/*"): catalog,
        # Without it AWS answers 403 for a missing key.
        ("s3:ListBucket", "bucket"): catalog,
        ("s3:GetObject", "bucket/results/*"): catalog,
        ("s3:PutObject", "bucket/results/*"): catalog,
        ("s3:GetObject", "bucket/control/split/*"): catalog,
        ("s3:PutObject", "bucket/control/split/*"): catalog,
        ("sqs:SendMessage", "RowsQueue"): catalog,
        ("s3:GetObject", "bucket/manifests/*"): no_catalog,
        ("s3:PutObject", "bucket/manifests/*"): no_catalog,
        ("s3:GetObject", "bucket/control/notified/*"): no_catalog,
        ("s3:PutObject", "bucket/control/notified/*"): no_catalog,
        ("sns:Publish", "Notices"): no_catalog,
        ("sqs:SendMessage", "SplitterFailures"): failing_splitter,
    },
    "MergerRole": {
        ("sqs:ReceiveMessage", "MergeQueue"): catalog,
        ("sqs:GetQueueAttributes", "MergeQueue"): catalog,
        ("sqs:DeleteMessage", "MergeQueue"): catalog,
        ("s3:ListBucket", "bucket"): catalog,
        ("s3:GetObject", "bucket/results/*"): catalog,
        ("s3:GetObject", "bucket/manifests/*"): catalog,
        ("s3:PutObject", "bucket/manifests/*"): catalog,
        ("s3:GetObject", "bucket/control/merge/*"): catalog,
        ("s3:PutObject", "bucket/control/merge/*"): catalog,
        ("s3:AbortMultipartUpload", "bucket/manifests/*"): unfinished_upload,
        ("s3:GetObject", "bucket/control/notified/*"): catalog,
        ("s3:PutObject", "bucket/control/notified/*"): catalog,
        ("sns:Publish", "Notices"): catalog,
    },
    "GeneratorRole": {
        ("sqs:ReceiveMessage", "RowsQueue"): catalog,
        ("sqs:GetQueueAttributes", "RowsQueue"): catalog,
        ("sqs:DeleteMessage", "RowsQueue"): catalog,
        ("s3:ListBucket", "bucket"): catalog,
        ("s3:GetObject", "bucket/results/*"): repeated_row,
        ("s3:PutObject", "bucket/results/*"): catalog,
        ("s3:GetObject", "bucket/ledger/*"): catalog,
        ("s3:PutObject", "bucket/ledger/*"): catalog,
        ("s3:GetObject", "bucket/control/abort/*"): catalog,
        ("s3:GetObject", "bucket/control/breaker.json"): catalog,
        ("s3:PutObject", "bucket/images/*"): catalog,
        ("secretsmanager:GetSecretValue", "secret"): fresh_generator,
        ("sqs:SendMessage", "RetryQueue"): poison,
        ("s3:PutObject", "bucket/control/abort/*"): failing_job,
        ("s3:PutObject", "bucket/control/breaker.json"): empty_balance,
        ("sqs:ChangeMessageVisibility", "RowsQueue"): empty_balance,
    },
}


# ---- The tests


def only_what_is_needed(stack):
    for role, needed in NEEDED.items():
        granted = set()
        for _, statements in stack.policies(role):
            for action, resource in (pair for statement in statements for pair in pairs(statement)):
                assert "*" not in action and not action.startswith("s3:Delete"), f"{role} may {action}"
                assert resource != "*" or action in ON_EVERYTHING, f"{role} may {action} on everything"
                if action not in UNCHECKED:
                    granted.add((action, stack.short(resource)))
        assert granted == needed.keys(), f"{role}: {granted ^ needed.keys()} is granted or needed, not both"
        trusted = stack.client("iam").get_role(RoleName=stack.id(role))["Role"]["AssumeRolePolicyDocument"]["Statement"]
        assert [s["Principal"] for s in trusted] == [{"Service": "lambda.amazonaws.com"}], trusted
        attached = stack.client("iam").list_attached_role_policies(RoleName=stack.id(role))["AttachedPolicies"]
        assert not attached, f"{role} has {attached}"
    print("[permissions] what the roles may do is what the table says, no action with a wildcard, no object deleted")


def everything_works(stack):
    began = stack.log_length()
    for scenario in SCENARIOS:
        scenario(stack, wait=True)
        stack.calm()
    # The scenario unfinished_upload forbids this itself.
    forbidden = f"refused: {stack.id('MergerRole')} s3:GetObject {stack.arn('results/')}"
    lines = [line for line in stack.refusals(began) if not line.startswith(forbidden)]
    assert not lines, lines
    print(f"[permissions] {len(SCENARIOS)} scenarios: nothing is refused")


def each_permission_is_needed(stack):
    count, began = 0, time.monotonic()
    for role, needed in NEEDED.items():
        for (action, resource), scenario in needed.items():
            with stack.without(role, action, resource):
                since = stack.log_length()
                for _ in range(5):
                    scenario(stack, wait=False)
                    if stack.refused(since, role, action, stack.long(resource), 4):
                        break
                else:
                    raise AssertionError(f"{role} does not need {action} on {resource}: {scenario.__name__} was not refused")
                count += 1
            stack.calm()
    print(f"[permissions] without each of {count} permissions something is refused; {time.monotonic() - began:.0f} s")


def the_bucket_refuses_all_others(stack):
    s3 = stack.client("s3")
    # The local AWS speaks plain HTTP, so the clause about TLS is read, not tried.
    statements = {s["Sid"]: s for s in json.loads(s3.get_bucket_policy(Bucket=stack.bucket)["Policy"])["Statement"]}
    tls = statements["TlsOnly"]
    assert (tls["Effect"], tls["Principal"], tls["Action"]) == ("Deny", "*", "s3:*"), tls
    assert tls["Condition"] == {"Bool": {"aws:SecureTransport": False}} or \
        tls["Condition"] == {"Bool": {"aws:SecureTransport": "false"}}, tls
    assert set(tls["Resource"]) == {stack.arn(""), stack.arn("*")}, tls
    blocked = s3.get_public_access_block(Bucket=stack.bucket)["PublicAccessBlockConfiguration"]
    assert len(blocked) == 4 and all(blocked.values()), blocked
    assert s3.get_bucket_versioning(Bucket=stack.bucket)["Status"] == "Enabled"
    assert s3.get_bucket_encryption(Bucket=stack.bucket)["ServerSideEncryptionConfiguration"]["Rules"]
    objects_expire_in_time()
    the_kms_key_is_used_everywhere()
    for queue in ("RowsQueue", "RetryQueue", "MergeQueue", "MergeFailures", "SplitterFailures"):
        found = stack.client("sqs").get_queue_attributes(QueueUrl=stack.id(queue), AttributeNames=["SqsManagedSseEnabled"])
        assert found["Attributes"]["SqsManagedSseEnabled"] == "true", queue

    with stack.user({"Statement": [{"Effect": "Allow", "Action": "*", "Resource": "*"}]}) as administrator:
        administrator.put_object(Bucket=stack.bucket, Key="incoming/readme.txt", Body=b"x")
        for prefix in ("results", "ledger", "control", "images", "manifests"):
            refuses(lambda key=f"{prefix}/x": administrator.put_object(Bucket=stack.bucket, Key=key, Body=b"x"))
            refuses(lambda key=f"{prefix}/x": administrator.create_multipart_upload(Bucket=stack.bucket, Key=key))
    try:
        with urllib.request.urlopen(f"{stack.endpoint}/{stack.bucket}/incoming/readme.txt") as answer:
            raise AssertionError(f"an anonymous request got {answer.status}")
    except urllib.error.HTTPError as error:
        assert error.code == 403, error
    print("[permissions] the bucket refuses anonymous requests, and writes of all but the functions")


def objects_expire_in_time():
    """Reads the template, because the local AWS ignores lifecycle rules in CloudFormation."""
    template = decode(str(local.ROOT / "template.yaml"))[0]
    rules = template["Resources"]["Bucket"]["Properties"]["LifecycleConfiguration"]["Rules"]
    rules = {rule["Id"]: rule for rule in rules if rule["Status"] == "Enabled"}
    assert rules["unfinished-uploads"]["AbortIncompleteMultipartUpload"]["DaysAfterInitiation"] == 7, rules
    assert rules["replaced-versions"]["NoncurrentVersionExpiration"]["NoncurrentDays"] == 30, rules
    assert rules["ledger"]["Prefix"] == "ledger/", rules
    assert rules["ledger"]["ExpirationInDays"] == {"Fn::FindInMap": ["LedgerDays", {"Ref": "ReuseDays"}, "Days"]}, rules
    expiring = [rule["Id"] for rule in rules.values() if "ExpirationInDays" in rule]
    assert expiring == ["ledger"], f"only ledger entries may expire: {expiring}"
    days = {int(reuse): found["Days"] for reuse, found in template["Mappings"]["LedgerDays"].items()}
    assert days == {reuse: reuse + 30 for reuse in template["Parameters"]["ReuseDays"]["AllowedValues"]}, days


def the_kms_key_is_used_everywhere():
    """Reads the template, because the local AWS encrypts nothing and this stack has no KMS key."""
    resources = decode(str(local.ROOT / "template.yaml"))[0]["Resources"]
    nothing, key = {"Ref": "AWS::NoValue"}, {"Ref": "KmsKeyArn"}
    for name, resource in resources.items():
        if resource["Type"] in ("AWS::SQS::Queue", "AWS::SNS::Topic"):
            assert resource["Properties"]["KmsMasterKeyId"] == {"Fn::If": ["HasKey", key, nothing]}, name
        if resource["Type"] == "AWS::SQS::Queue":
            assert resource["Properties"]["SqsManagedSseEnabled"] == {"Fn::If": ["HasKey", nothing, True]}, name
    encryption = resources["Bucket"]["Properties"]["BucketEncryption"]["ServerSideEncryptionConfiguration"]
    assert [rule["ServerSideEncryptionByDefault"] for rule in encryption] == [
        {"SSEAlgorithm": {"Fn::If": ["HasKey", "aws:kms", "AES256"]}, "KMSMasterKeyID": {"Fn::If": ["HasKey", key, nothing]}}]
    use = {"Effect": "Allow", "Action": ["kms:GenerateDataKey", "kms:Decrypt"], "Resource": key}
    for role in NEEDED:
        statements = resources[role]["Properties"]["Policies"][0]["PolicyDocument"]["Statement"]
        assert [s for s in statements if "kms" in str(s)] == [{"Fn::If": ["HasKey", use, nothing]}], role


def the_pim_only_reads(stack):
    name, version = stack.drop(HEADER + stack.rows(1))
    stack.summary(name, version)
    manifest = next(key for key in stack.keys(f"manifests/{name}/") if key.endswith("/manifest.jsonl"))
    image = stack.keys(f"images/{name}/")[0]
    with stack.user(attached=stack.outputs["CatalogReaderPolicyArn"]) as pim:
        assert pim.get_object(Bucket=stack.bucket, Key=manifest)["Body"].read()
        assert pim.get_object(Bucket=stack.bucket, Key=image)["Body"].read()
        assert pim.list_objects_v2(Bucket=stack.bucket, Prefix=f"manifests/{name}/")["KeyCount"] > 0
        for prefix in ("ledger/", "results/", "control/", "incoming/"):
            refuses(lambda prefix=prefix: pim.list_objects_v2(Bucket=stack.bucket, Prefix=prefix))
            some = stack.keys(prefix)[0]
            refuses(lambda key=some: pim.get_object(Bucket=stack.bucket, Key=key))
        refuses(lambda: pim.list_objects_v2(Bucket=stack.bucket))
        for key in (manifest, "incoming/x.csv"):
            refuses(lambda key=key: pim.put_object(Bucket=stack.bucket, Key=key, Body=b"x"))
            refuses(lambda key=key: pim.delete_object(Bucket=stack.bucket, Key=key))
    print("[permissions] the PIM reads manifests and images, and nothing else")


def refuses(call):
    try:
        call()
    except ClientError as error:
        assert error.response["Error"]["Code"] == "AccessDenied", error
        return
    raise AssertionError("was not refused")


# ---- The stack


def listed(value):
    return value if isinstance(value, list) else [value]


def pairs(statement):
    """Returns the statement's permissions as (action, resource)."""
    assert statement["Effect"] == "Allow", statement
    return list(itertools.product(listed(statement["Action"]), listed(statement["Resource"])))


class Stack:
    def __init__(self, line):
        self.endpoint, self.bucket, self.api, self.log = line["endpoint"], line["bucket"], line["api_url"], Path(line["log"])
        self.client = local.clients(self.endpoint)
        cloudformation = self.client("cloudformation")
        resources = cloudformation.describe_stack_resources(StackName=local.STACK)["StackResources"]
        self.ids = {found["LogicalResourceId"]: found["PhysicalResourceId"] for found in resources}
        described = cloudformation.describe_stacks(StackName=local.STACK)["Stacks"][0]
        self.outputs = {output["OutputKey"]: output["OutputValue"] for output in described["Outputs"]}
        generator = self.client("lambda").get_function_configuration(FunctionName=self.id("Generator"))
        secret = generator["Environment"]["Variables"]["API_KEY_SECRET_ARN"]
        # The table's name of each resource, and its ARN.
        self.names = {"bucket": f"arn:aws:s3:::{self.bucket}", "secret": secret, "Notices": self.id("Notices")}
        for name in ("RowsQueue", "RetryQueue", "MergeQueue", "SplitterFailures"):
            self.names[name] = f"arn:aws:sqs:{local.REGION}:000000000000:{self.id(name).rsplit('/', 1)[-1]}"
        # New numbers in every run, so that no row is reused from an earlier one.
        self.numbers = itertools.count(time.time_ns())

    def id(self, name):
        return self.ids[name]

    def arn(self, key):
        return f"arn:aws:s3:::{self.bucket}/{key}".rstrip("/")

    def short(self, arn):
        head, slash, rest = arn.partition("/")
        return next((name for name, known in self.names.items() if known in (head, arn)), arn) + slash + rest

    def long(self, name):
        head, slash, rest = name.partition("/")
        return self.names[head] + slash + rest

    # Actions

    def drop(self, body):
        """Uploads a catalog under a new name. Returns the name and the object's version."""
        name = f"permissions-{next(self.numbers)}"
        put = self.client("s3").put_object(Bucket=self.bucket, Key=f"incoming/{name}.csv", Body=body.encode())
        return name, put["VersionId"]

    def rows(self, count, folder="shoes"):
        """Returns rows that have not been generated yet."""
        numbers = (next(self.numbers) for _ in range(count))
        return "".join(f"SKU-{n},Shoe,https://cdn.example.com/{folder}/{n}.png,1\n" for n in numbers)

    def script(self, script):
        request = urllib.request.Request(f"{self.api}/_script", json.dumps(script).encode(), method="POST")
        urllib.request.urlopen(request).close()

    def calm(self):
        """Stops what earlier scenarios have started."""
        self.script({})
        self.client("s3").delete_object(Bucket=self.bucket, Key="control/breaker.json")
        for queue in ("RowsQueue", "RetryQueue", "MergeQueue", "SplitterFailures"):
            self.client("sqs").purge_queue(QueueUrl=self.id(queue))

    @contextlib.contextmanager
    def generator_variable(self, name, value):
        """Sets a variable of the generator, which restarts it."""
        functions, function = self.client("lambda"), self.id("Generator")
        before = functions.get_function_configuration(FunctionName=function)["Environment"]["Variables"]
        functions.update_function_configuration(FunctionName=function, Environment={"Variables": {**before, name: value}})
        try:
            yield
        finally:
            functions.update_function_configuration(FunctionName=function, Environment={"Variables": before})

    # Observations

    def keys(self, prefix):
        pages = self.client("s3").get_paginator("list_objects_v2").paginate(Bucket=self.bucket, Prefix=prefix)
        return [found["Key"] for page in pages for found in page.get("Contents", [])]

    def summary(self, name, version):
        """Waits for the end of a job and returns its summary."""

        def ended():
            for key in self.keys(f"manifests/{name}/"):
                if key.endswith("/summary.json"):
                    found = json.loads(self.client("s3").get_object(Bucket=self.bucket, Key=key)["Body"].read())
                    if found["source"]["version_id"] == version and found["status"] != "running":
                        return found
            return None

        return local.wait(f"the end of {name}", 60, ended)

    def waiting(self, queue):
        names = ["ApproximateNumberOfMessages", "ApproximateNumberOfMessagesNotVisible"]
        found = self.client("sqs").get_queue_attributes(QueueUrl=self.id(queue), AttributeNames=names)["Attributes"]
        return sum(map(int, found.values()))

    def wait_for_messages(self, queue):
        local.wait(f"a message in {queue}", 60, lambda: self.waiting(queue))

    def log_length(self):
        return self.log.stat().st_size

    def refusals(self, since):
        with self.log.open("rb") as log:
            log.seek(since)
            return [line for line in log.read().decode(errors="replace").splitlines() if line.startswith("refused: ")]

    def refused(self, since, role, action, resource, seconds):
        deadline = time.monotonic() + seconds
        while time.monotonic() < deadline:
            if any(fnmatch.fnmatchcase(line, f"refused: {self.id(role)} {action} {resource}") for line in self.refusals(since)):
                return True
            time.sleep(0.1)
        return False

    # Permissions

    def policies(self, role):
        """Yields name and statements of a role's inline policies."""
        iam, name = self.client("iam"), self.id(role)
        for policy in iam.list_role_policies(RoleName=name)["PolicyNames"]:
            document = iam.get_role_policy(RoleName=name, PolicyName=policy)["PolicyDocument"]
            yield policy, listed(document["Statement"])

    @contextlib.contextmanager
    def without(self, role, action, resource):
        """Removes one permission from a role."""
        removed, before = (action, self.long(resource)), list(self.policies(role))

        def put(policy, statements):
            self.client("iam").put_role_policy(
                RoleName=self.id(role), PolicyName=policy,
                PolicyDocument=json.dumps({"Version": "2012-10-17", "Statement": statements}))

        try:
            for policy, statements in before:
                put(policy, [{"Effect": "Allow", "Action": action, "Resource": resource}
                             for statement in statements for action, resource in pairs(statement)
                             if (action, resource) != removed])
            yield
        finally:
            for policy, statements in before:
                put(policy, statements)

    @contextlib.contextmanager
    def user(self, policy=None, attached=None):
        """Yields an S3 client of a new user with this policy."""
        iam, name = self.client("iam"), f"user-{next(self.numbers)}"
        iam.create_user(UserName=name)
        if policy:
            iam.put_user_policy(UserName=name, PolicyName="all", PolicyDocument=json.dumps({"Version": "2012-10-17", **policy}))
        if attached:
            iam.attach_user_policy(UserName=name, PolicyArn=attached)
        key = iam.create_access_key(UserName=name)["AccessKey"]
        try:
            yield boto3.client("s3", endpoint_url=self.endpoint, region_name=local.REGION,
                               aws_access_key_id=key["AccessKeyId"], aws_secret_access_key=key["SecretAccessKey"],
                               config=local.Config(s3={"addressing_style": "path"}, proxies={}))
        finally:
            iam.delete_access_key(UserName=name, AccessKeyId=key["AccessKeyId"])
            if attached:
                iam.detach_user_policy(UserName=name, PolicyArn=attached)
            if policy:
                iam.delete_user_policy(UserName=name, PolicyName="all")
            iam.delete_user(UserName=name)


SCENARIOS = list(dict.fromkeys(scenario for needed in NEEDED.values() for scenario in needed.values()))

if __name__ == "__main__":
    main()
