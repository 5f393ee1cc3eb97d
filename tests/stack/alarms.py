"""Tests that every alarm of the stack of `./stack up` (its JSON line is in PACKSHOT_TEST_STACK) notifies the operators' topic.

The local AWS ignores the dimensions of an alarm's metric; tests/tests/template.rs checks those.
"""

import json
import os

import stack as local


def main():
    line = json.loads(os.environ["PACKSHOT_TEST_STACK"])
    client = local.clients(line["endpoint"])
    cloudwatch, sqs, sns = client("cloudwatch"), client("sqs"), client("sns")
    outputs = client("cloudformation").describe_stacks(StackName=local.STACK)["Stacks"][0]["Outputs"]
    topic = next(output["OutputValue"] for output in outputs if output["OutputKey"] == "AlarmsTopicArn")
    operator = sqs.create_queue(QueueName="operator")["QueueUrl"]
    arn = sqs.get_queue_attributes(QueueUrl=operator, AttributeNames=["QueueArn"])["Attributes"]["QueueArn"]
    sqs.set_queue_attributes(QueueUrl=operator, Attributes={"Policy": json.dumps({"Version": "2012-10-17", "Statement": {
        "Effect": "Allow", "Principal": {"Service": "sns.amazonaws.com"}, "Action": "sqs:SendMessage", "Resource": arn,
        "Condition": {"ArnEquals": {"aws:SourceArn": topic}}}})})
    sns.subscribe(TopicArn=topic, Protocol="sqs", Endpoint=arn)

    def measure(alarm, value):
        cloudwatch.put_metric_data(Namespace=alarm["Namespace"], MetricData=[
            {"MetricName": alarm["MetricName"], "Dimensions": alarm["Dimensions"], "Value": value}])

    def notified():
        """Returns the alarms that the operator received since the last call."""
        names = set()
        while messages := sqs.receive_message(QueueUrl=operator, MaxNumberOfMessages=10).get("Messages"):
            for message in messages:
                alarm = json.loads(json.loads(message["Body"])["Message"])
                assert "RUNBOOK.md#" in alarm["AlarmDescription"], alarm
                names.add(alarm["AlarmName"])
                sqs.delete_message(QueueUrl=operator, ReceiptHandle=message["ReceiptHandle"])
        return names

    alarms = [alarm for alarm in cloudwatch.describe_alarms()["MetricAlarms"] if topic in alarm["AlarmActions"]]
    assert alarms
    metrics = {}
    for alarm in alarms:
        metrics.setdefault((alarm["Namespace"], alarm["MetricName"]), []).append(alarm)
    for metric, watching in metrics.items():
        for alarm in watching:
            # Only a change of state notifies, and an earlier run may have left the alarm active.
            cloudwatch.set_alarm_state(AlarmName=alarm["AlarmName"], StateValue="OK", StateReason="a test begins")
        measure(watching[0], max(alarm["Threshold"] for alarm in watching) + 1)
        names = {alarm["AlarmName"] for alarm in watching}
        received = set()
        while not names <= received:
            # The local AWS evaluates an alarm when it is described.
            cloudwatch.describe_alarms(AlarmNames=sorted(names))
            received |= local.wait(f"{sorted(names - received)}", 20, notified)
    print(f"[alarms] {len(alarms)} alarms on {len(metrics)} metrics notify the operators' topic and name the runbook")


if __name__ == "__main__":
    main()
