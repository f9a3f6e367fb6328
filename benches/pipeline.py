"""The pipeline that a good engineer would write in Python, for comparison.

Receiver threads poll the queue, parse and mask; the main thread copies a thousand rows at a time into `user_logins` and
commits; deleter threads delete what was committed. It has the same columns and masks as the extension, and deletes only
after the commit, but has no ledger (a redelivered message becomes a second row), no rejections, and does not extend
visibility timeouts.

Prints what it did as one line of JSON. Times are seconds on the machine's monotonic clock.
"""

import argparse
import datetime
import hashlib
import json
import queue
import threading
import time

import boto3
import psycopg
from botocore.config import Config

ROWS_PER_COMMIT = 1000
MESSAGES_PER_CALL = 10
COPY = """COPY user_logins (user_id, device_type, masked_ip, masked_device_id, locale, app_version, create_date)
FROM STDIN"""


def main():
    options = parse_options()
    sqs = connect_to_sqs(options)
    received = queue.Queue(maxsize=1000)
    committed = queue.Queue()
    receivers = [threading.Thread(target=receive, args=(sqs, options, received)) for _ in range(options.receivers)]
    deleters = [threading.Thread(target=delete, args=(sqs, options.url, committed)) for _ in range(options.deleters)]

    with psycopg.connect(options.database) as connection:
        started, cpu_started = time.monotonic(), time.process_time()
        for thread in receivers + deleters:
            thread.start()
        rows = write(connection, received, committed, len(receivers))
        backend_cpu = cpu_of_process(connection.info.backend_pid)
    for _ in deleters:
        committed.put(None)
    for thread in receivers + deleters:
        thread.join()
    print(
        json.dumps(
            {
                "rows": rows,
                "started_at": started,
                "finished_at": time.monotonic(),
                "cpu_seconds": time.process_time() - cpu_started,
                "backend_cpu_seconds": backend_cpu,
            }
        )
    )


def cpu_of_process(pid):
    """Seconds that `pid`, which has one thread, was on a processor."""
    with open(f"/proc/{pid}/schedstat") as counters:
        return int(counters.read().split()[0]) / 1e9


def parse_options():
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("url", help="of the queue")
    parser.add_argument("database", help="connection string")
    parser.add_argument("--receivers", type=int, default=8, help="threads that receive")
    parser.add_argument("--deleters", type=int, default=8, help="threads that delete")
    parser.add_argument("--wait", type=int, default=1, help="seconds of a long poll; an empty one ends the run")
    return parser.parse_args()


def connect_to_sqs(options):
    config = Config(
        max_pool_connections=options.receivers + options.deleters,
        parameter_validation=False,
        retries={"mode": "standard"},
    )
    endpoint = options.url.rsplit("/", 2)[0]
    return boto3.client(
        "sqs",
        endpoint_url=endpoint,
        region_name="us-east-1",
        aws_access_key_id="benchmark",
        aws_secret_access_key="benchmark",
        config=config,
    )


def receive(sqs, options, received):
    while True:
        response = sqs.receive_message(
            QueueUrl=options.url,
            MaxNumberOfMessages=MESSAGES_PER_CALL,
            WaitTimeSeconds=options.wait,
            VisibilityTimeout=300,
            MessageSystemAttributeNames=["SentTimestamp"],
        )
        messages = response.get("Messages")
        if not messages:
            received.put(None)
            return
        received.put([(masked_row(message), message["ReceiptHandle"]) for message in messages])


def masked_row(message):
    login = json.loads(message["Body"])
    sent_at = int(message["Attributes"]["SentTimestamp"]) / 1000
    return (
        login["user_id"],
        login["device_type"],
        mask(login["ip"]),
        mask(login["device_id"]),
        login.get("locale"),
        int(login["app_version"].replace(".", "")),
        datetime.datetime.fromtimestamp(sent_at, datetime.UTC).date(),
    )


def mask(value):
    return None if value is None else hashlib.sha256(value.encode()).hexdigest()


def write(connection, received, committed, receivers):
    """Copies what comes in until every receiver has ended; returns the number of rows."""
    rows, pending = 0, []
    while receivers > 0:
        batch = received.get()
        if batch is None:
            receivers -= 1
        else:
            pending += batch
        if len(pending) >= ROWS_PER_COMMIT or (pending and receivers == 0):
            copy(connection, [row for row, _ in pending])
            rows += len(pending)
            for at in range(0, len(pending), MESSAGES_PER_CALL):
                committed.put([handle for _, handle in pending[at : at + MESSAGES_PER_CALL]])
            pending = []
    return rows


def copy(connection, rows):
    with connection.cursor() as cursor, cursor.copy(COPY) as stream:
        for row in rows:
            stream.write_row(row)
    connection.commit()


def delete(sqs, url, committed):
    while (handles := committed.get()) is not None:
        entries = [{"Id": str(n), "ReceiptHandle": handle} for n, handle in enumerate(handles)]
        response = sqs.delete_message_batch(QueueUrl=url, Entries=entries)
        failed = {entry["Id"] for entry in response.get("Failed", [])}
        if failed:
            committed.put([entry["ReceiptHandle"] for entry in entries if entry["Id"] in failed])


if __name__ == "__main__":
    main()
