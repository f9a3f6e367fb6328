"""Background workers: a backlog, several workers on one queue, the way of a single message, and doing nothing."""

import contextlib
import time

import process
from run import Run
from ways import EXTENSION

PRELOADED = {
    "shared_preload_libraries": "user_logins_sqs",
    "user_logins_sqs.database": EXTENSION,
    "track_commit_timestamp": "on",
}

DEADLINE = 30
QUIET_MESSAGES = 200
QUIET_PER_SECOND = 5

PIDS = "SELECT pid FROM pg_stat_activity WHERE backend_type LIKE 'user_logins_sqs {}%'"

# Milliseconds from SentTimestamp to the commit of the row, which the ledger's entry shares.
LATENCY = """
SELECT percentile_cont(ARRAY[0.5, 0.99]) WITHIN GROUP
       (ORDER BY 1000 * extract(epoch FROM pg_xact_commit_timestamp(xmin) - sent_at))
FROM sqs_ledger
"""


@contextlib.contextmanager
def subscribed(ways, workers, latency_ms):
    """Workers on an empty queue, waiting for messages; gone again after the `with` block."""
    ways.cluster.empty(EXTENSION, "user_logins", "sqs_ledger")
    ways.queue.fill(0, latency_ms)
    ways.cluster.run(f"SELECT sqs_subscribe('{ways.queue.url}', {workers})", EXTENSION)
    try:
        wait_for_workers(ways.cluster, workers)
        time.sleep(1)
        yield
    finally:
        ways.cluster.run(f"SELECT sqs_unsubscribe('{ways.queue.url}')", EXTENSION)
        wait_for_workers(ways.cluster, 0)


def wait_for_workers(cluster, workers):
    deadline = time.monotonic() + DEADLINE
    while len(pids(cluster, "worker")) != workers:
        if time.monotonic() > deadline:
            raise RuntimeError(f"no {workers} workers after {DEADLINE} s")
        time.sleep(0.05)


def pids(cluster, what):
    return [pid for (pid,) in cluster.run(PIDS.format(what))]


def backlog(ways, workers, latency_ms, messages=None):
    """A backlog that appears at once in front of waiting workers; timed from the first receive to the last delete."""
    messages = messages or ways.messages
    with subscribed(ways, workers, latency_ms):
        ways.queue.fill(messages, latency_ms)
        counts = ways.queue.wait_until_deleted(messages)
        ways.check_rows(EXTENSION, messages)
    return Run(messages, counts["last_deleted_at"] - counts["first_received_at"])


def drain(ways, latency_ms, messages):
    """`sqs_drain`, timed in the same way."""
    run = ways.sqs_drain(latency_ms, messages=messages)
    return Run(run.messages, run.parts["from_first_receive"])


def quiet(ways, latency_ms):
    """Median and 99th percentile, in ms, from a message's being sent to its row's commit, five messages a second."""
    with subscribed(ways, 1, latency_ms):
        ways.queue.send(QUIET_MESSAGES, QUIET_PER_SECOND)
        ways.queue.wait_until_deleted(QUIET_MESSAGES)
        return ways.cluster.run(LATENCY, EXTENSION)[0][0]


def idle(ways, seconds):
    """Milliseconds of processor time a second that launcher and worker spend on an empty queue."""
    with subscribed(ways, 1, 0):
        idlers = {what: pids(ways.cluster, what) for what in ("launcher", "worker")}
        before = {what: sum(map(process.cpu, of_one)) for what, of_one in idlers.items()}
        time.sleep(seconds)
        return {
            what: 1000 * (sum(map(process.cpu, of_one)) - before[what]) / seconds for what, of_one in idlers.items()
        }
