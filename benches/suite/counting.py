"""What counting for `sqs_stat` costs: `sqs_drain` on a server that counts, and on one that does not."""

import contextlib

import cluster
import process
from run import Run
from ways import EXTENSION, Ways

COUNTS = {"shared_preload_libraries": "user_logins_sqs"}


@contextlib.contextmanager
def beside(ways):
    """The same ways, from the same queue, on a server that counts, which runs as long as the `with` block."""
    with cluster.running(COUNTS) as postgres:
        postgres.make_database(EXTENSION, extension=True)
        yield Ways(postgres, ways.queue, ways.programs, ways.pipeline, ways.messages)


def drain(ways):
    """`sqs_drain` at 0 ms, in a session that has called before: without preload its first call loads the library, which
    would be held against the server that does not count."""
    ways.cluster.empty(EXTENSION, "user_logins", "sqs_ledger")
    ways.queue.fill(0, 0)
    with ways.cluster.connect(EXTENSION) as connection:
        connection.execute(f"SELECT sqs_ingest('{ways.queue.url}', 1, 0)")
        ways.queue.fill(ways.messages, 0)
        pid = connection.info.backend_pid
        before = process.usage_by_thread(pid)
        connection.execute(f"CALL sqs_drain('{ways.queue.url}', 10000, {ways.messages})")
        counts = ways.queue.wait_until_deleted(ways.messages)
        after = process.usage_by_thread(pid)
    ways.check_rows(EXTENSION)
    spent = {thread: (usage - before.get(thread, process.Usage())).on_cpu for thread, usage in after.items()}
    each = 1e6 / ways.messages
    backend = spent.pop(pid) * each
    io_thread = sum(spent.values()) * each
    return Run(
        ways.messages,
        counts["last_deleted_at"] - counts["first_received_at"],
        {"backend": backend, "io_thread": io_thread, "both": backend + io_thread},
    )


def counted(ways):
    """How many rows `sqs_stat` says were inserted: that the server does count."""
    return ways.cluster.run("SELECT sum(inserted) FROM sqs_stat", EXTENSION)[0][0]
