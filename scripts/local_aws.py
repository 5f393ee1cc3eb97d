"""Runs ministack, the local AWS, with corrections for what packshot uses and ministack does differently from AWS.

Usage: local_aws.py PORT. Address and credentials come from the environment; see stack.py. The corrections are written for the
pinned version of ministack; each says when it can be removed.
"""

import json
import os
import socketserver
import sys
import time


def send_small_packets_at_once():
    """Python's HTTP server writes head and body of a response separately, and Nagle's algorithm delays the body until the head
    is acknowledged: 40 ms for every invocation of a bootstrap. Remove when ministack's Runtime API server sets TCP_NODELAY."""
    socketserver.StreamRequestHandler.disable_nagle_algorithm = True


def compare_concurrency_as_a_number(lambda_svc):
    """CloudFormation parameters are strings, and ministack compares a MaximumConcurrency from a parameter with a number: the
    poller raises, and every queue of the server stops. Remove when ministack reads the property as a number."""
    limit_of = lambda_svc._sqs_esm_concurrency

    def limit_as_number(esm, *args, **kwargs):
        maximum = (esm.get("ScalingConfig") or {}).get("MaximumConcurrency")
        if maximum is not None:
            esm = {**esm, "ScalingConfig": {"MaximumConcurrency": int(maximum)}}
        return limit_of(esm, *args, **kwargs)

    lambda_svc._sqs_esm_concurrency = limit_as_number


def collect_batches(lambda_svc, sqs):
    """ministack's event source mappings ignore the batching window and limit every batch to ten messages, so that the merger
    runs a hundred times as often as on AWS. Remove when ministack honours the window and larger batches."""
    waiting_since = {}

    def window_of(queue_url):
        arn = sqs._get_q(queue_url)["attributes"]["QueueArn"]
        windows = [esm["MaximumBatchingWindowInSeconds"] for _, _, esm in lambda_svc._iter_all_esms()
                   if esm["EventSourceArn"] == arn]
        return int(max(windows, default=0))

    def receive(queue_url, size):
        size, window = int(size), window_of(queue_url)
        with sqs._queues_lock:
            queue = sqs._get_q(queue_url)
            sqs._expire_retained(queue)
            sqs._dlq_sweep(queue)
            if window:
                now = time.time()
                ready = sum(message.get("visible_at", 0) <= now for message in queue["messages"])
                if ready < size and (not ready or now - waiting_since.setdefault(queue_url, now) < window):
                    return []
                waiting_since.pop(queue_url, None)
            return sqs._collect_msgs(queue, size, int(queue["attributes"].get("VisibilityTimeout", "30")))

    sqs._receive_messages_for_esm = receive


def count_loopback_as_tls(app):
    """The bucket's policy denies requests without TLS, and this server speaks plain HTTP, on loopback only. Remove when
    ministack offers HTTPS with a certificate that the SDKs trust by default."""
    pin = app.pin_request_origin
    app.pin_request_origin = lambda source_ip, secure_transport: pin(source_ip, True)


def permit_batches_like_single_messages(iam_actions):
    """IAM has no action sqs:SendMessageBatch: the permission to send one message also covers batches. ministack checks an
    action that no policy can grant. Remove when it maps SQS's batch calls to the single ones."""
    action_of = iam_actions.extract_iam_action

    def action(service, *args, **kwargs):
        found = action_of(service, *args, **kwargs)
        return found.removesuffix("Batch") if service == "sqs" and found else found

    iam_actions.extract_iam_action = action


def name_the_role_of_a_session(iam_evaluator):
    """In conditions on aws:PrincipalArn AWS compares the assumed role; ministack compares the session, whose name is different
    each time. Remove when ministack compares the role."""
    resolve = iam_evaluator._resolve_condition_key

    def resolve_role(key, context):
        value = resolve(key, context)
        if key.lower() == "aws:principalarn" and ":assumed-role/" in value:
            return f"arn:aws:iam::{context.principal_account}:role/{value.split('/')[1]}"
        return value

    iam_evaluator._resolve_condition_key = resolve_role


def check_every_permission(iam_evaluator, lambda_svc, sqs, s3):
    """AWS needs a permission of the function's role for three things that ministack does without one: receiving messages for a
    function, delivering its failed events, and reporting that an object is missing (without s3:ListBucket AWS answers 403
    instead of 404). Also logs each refusal in one line, so that a test can wait for it. Remove when ministack checks these."""
    account, region = "000000000000", os.environ["MINISTACK_REGION"]
    enforce, receive, delete = iam_evaluator.enforce, sqs._receive_messages_for_esm, sqs._delete_messages_for_esm
    deliver = lambda_svc._route_async_failure

    def refused(principal, action, resource):
        # An assumed role is arn:aws:sts::ACCOUNT:assumed-role/ROLE/SESSION.
        print(f"refused: {principal.split('/')[1]} {action} {resource}", flush=True)

    def may(function, actions, resource):
        role = function["config"]["Role"]
        policies = iam_evaluator._gather_role_policies(role.split("/")[-1], account)
        for action in actions:
            context = iam_evaluator.EvalContext(principal_arn=role, principal_type="AssumedRole", principal_account=account,
                                                action=action, resource_arn=resource, region=region)
            if iam_evaluator.evaluate(context, policies).decision != "Allow":
                refused(role, action, resource)
                return False
        return True

    def consumer_may(queue_url, *actions):
        arn = sqs._get_q(queue_url)["attributes"]["QueueArn"]
        consumers = [esm["FunctionName"] for _, _, esm in lambda_svc._iter_all_esms() if esm["EventSourceArn"] == arn]
        return all(may(lambda_svc._functions[name], actions, arn) for name in consumers)

    def receive_if_permitted(queue_url, size):
        return receive(queue_url, size) if consumer_may(queue_url, "sqs:ReceiveMessage", "sqs:GetQueueAttributes") else []

    def delete_if_permitted(queue_url, receipts):
        if consumer_may(queue_url, "sqs:DeleteMessage"):
            delete(queue_url, receipts)

    def deliver_if_permitted(target, name, event, result):
        if may(lambda_svc._functions[name], ["sqs:SendMessage"], target):
            deliver(target, name, event, result)

    def is_missing(arn):
        bucket, _, key = arn.removeprefix("arn:aws:s3:::").partition("/")
        return bucket in s3._buckets and key not in s3._buckets[bucket]["objects"]

    def enforce_and_log(access_key, action, service, region, resource_arn="*", **more):
        denied = enforce(access_key, action, service, region, resource_arn=resource_arn, **more)
        if denied is None and action in ("s3:GetObject", "s3:GetObjectVersion") and is_missing(resource_arn):
            action, resource_arn = "s3:ListBucket", resource_arn.partition("/")[0]
            denied = enforce(access_key, action, service, region, resource_arn=resource_arn)
        if "assumed-role" in getattr(denied, "principal_arn", ""):
            refused(denied.principal_arn, action, resource_arn)
        return denied

    iam_evaluator.enforce = enforce_and_log
    sqs._receive_messages_for_esm = receive_if_permitted
    sqs._delete_messages_for_esm = delete_if_permitted
    lambda_svc._route_async_failure = deliver_if_permitted


def move_messages_back(sqs):
    """ministack lacks StartMessageMoveTask. It moves the messages of a dead-letter queue back to their source queue, unchanged.
    Remove when ministack has it."""

    def start(data, _url):
        source = data["SourceArn"]
        with sqs._queues_lock:
            queues = {queue["attributes"]["QueueArn"]: queue for queue in (sqs._queues[url] for url in sqs._queues)}
            if source not in queues:
                raise sqs._Err("ResourceNotFoundException", "The resource that you specified for the SourceArn parameter doesn't exist.")
            targets = [queue for queue in queues.values() if json.loads(
                queue["attributes"].get("RedrivePolicy") or "{}").get("deadLetterTargetArn") == source]
            now = time.time()
            messages = queues[source]["messages"]
            moved = [message for message in messages if message.get("visible_at", 0) <= now]
            messages[:] = [message for message in messages if message not in moved]
            for message in moved:
                targets[0]["messages"].append({**message, "visible_at": 0, "receive_count": 0})
        return {"TaskHandle": source}

    sqs._HANDLERS.setdefault("StartMessageMoveTask", start)


def keep_the_traces_of_batches(sqs):
    """ministack's SendMessageBatch drops the system attributes of its entries, and with them the trace of each message. Remove
    when it keeps them, as SendMessage does."""
    send = sqs._HANDLERS["SendMessageBatch"]

    def send_with_traces(data, url):
        answer = send(data, url)
        traces = {entry["Id"]: entry.get("MessageSystemAttributes") for entry in data.get("Entries", [])}
        of_message = {sent["MessageId"]: traces[sent["Id"]] for sent in answer["Successful"] if traces.get(sent["Id"])}
        if of_message:
            with sqs._queues_lock:
                for message in sqs._get_q(data.get("QueueUrl", url))["messages"]:
                    if attributes := of_message.get(message["id"]):
                        message["sys"] = sqs._build_send_sys_attrs(message["sent_at"], attributes)
        return answer

    sqs._HANDLERS["SendMessageBatch"] = send_with_traces


def take_over_buckets(changesets, provisioners):
    """A change set with ImportExistingResources finds the bucket of an earlier stack, and then fails because a bucket of this
    name exists. Remove when ministack's validation skips what a change set imports."""
    find, conflict, taken_over = changesets._existing_resources, provisioners.s3_bucket_name_conflict, set()

    def find_and_remember(*args):
        found = find(*args)
        taken_over.update(entry["ResourceIdentifier"].get("BucketName") for entry in found)
        return found

    changesets._existing_resources = find_and_remember
    provisioners.s3_bucket_name_conflict = lambda name: None if name in taken_over else conflict(name)


def main():
    os.environ["GATEWAY_PORT"] = sys.argv.pop(1)
    # ministack reads its environment when it is imported, so it is imported after the port is set.
    from ministack import app
    from ministack.core import iam_actions, iam_evaluator
    from ministack.services import lambda_svc, s3, sqs
    from ministack.services.cloudformation import changesets, provisioners

    send_small_packets_at_once()
    compare_concurrency_as_a_number(lambda_svc)
    collect_batches(lambda_svc, sqs)
    count_loopback_as_tls(app)
    permit_batches_like_single_messages(iam_actions)
    name_the_role_of_a_session(iam_evaluator)
    check_every_permission(iam_evaluator, lambda_svc, sqs, s3)
    move_messages_back(sqs)
    keep_the_traces_of_batches(sqs)
    take_over_buckets(changesets, provisioners)
    app.main()


if __name__ == "__main__":
    main()
