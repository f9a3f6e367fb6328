"""Private memory of a backend while it ingests. Watching costs time, so these runs are not timed."""

import dataclasses

import process
from ways import EXTENSION


@dataclasses.dataclass
class Growth:
    """Bytes more than a backend that has done nothing yet."""

    most: int
    after: int


def growth(ways, statement):
    """How a new backend grows while it runs `statement`, in which `%s` stands for the queue's URL."""
    ways.cluster.empty(EXTENSION, "user_logins", "sqs_ledger")
    ways.queue.fill(ways.messages, 0)
    with ways.cluster.connect(EXTENSION) as connection:
        connection.execute("SELECT 1")
        with process.PeakOfPrivateMemory(connection.info.backend_pid) as memory:
            connection.execute(statement % f"'{ways.queue.url}'")
            ways.queue.wait_until_deleted(ways.messages)
    return Growth(memory.most - memory.before, memory.after - memory.before)


def measure(ways):
    """Growth by statement."""
    return {
        "sqs_ingest": growth(ways, f"SELECT sqs_ingest(%s, {ways.messages}, 1)"),
        "sqs_drain": growth(ways, f"CALL sqs_drain(%s, 10000, {ways.messages})"),
    }
