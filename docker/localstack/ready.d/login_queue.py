"""Makes login-queue, with a dead-letter queue, and fills it with sample messages.

LocalStack runs this in its own process at every start, since it keeps no queue across a restart.
"""

import json

import boto3

# Each receive counts, also one that a restart of Postgres cuts short.
RECEIVES_BEFORE_DEAD = 10
BATCH = 10  # as many as one SendMessageBatch takes

sqs = boto3.client(
    "sqs",
    endpoint_url="http://localhost:4566",
    region_name="us-east-1",
    aws_access_key_id="test",
    aws_secret_access_key="test",
)

dead_letters = sqs.create_queue(QueueName="login-queue-dead-letters")["QueueUrl"]
attributes = sqs.get_queue_attributes(QueueUrl=dead_letters, AttributeNames=["QueueArn"])["Attributes"]
redrive = {"deadLetterTargetArn": attributes["QueueArn"], "maxReceiveCount": RECEIVES_BEFORE_DEAD}
queue = sqs.create_queue(QueueName="login-queue", Attributes={"RedrivePolicy": json.dumps(redrive)})["QueueUrl"]

with open("/etc/localstack/logins.json") as file:
    logins = json.load(file)

for start in range(0, len(logins), BATCH):
    entries = [
        {"Id": str(place), "MessageBody": json.dumps(login)}
        for place, login in enumerate(logins[start : start + BATCH])
    ]
    answer = sqs.send_message_batch(QueueUrl=queue, Entries=entries)
    if answer.get("Failed"):
        raise RuntimeError(f"not sent: {answer['Failed']}")

print(f"{queue}: {len(logins)} messages")
