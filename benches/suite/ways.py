"""The ways from a queue to a table that are compared: each fills the queue, ingests it, and checks that it did."""

import json
import statistics
import subprocess
import sys
import time

import process
from run import Run

EXTENSION = "with_extension"
PLAIN = "plain"
PIPELINE_THREADS = 16
COLUMNS = "user_id, device_type, masked_ip, masked_device_id, locale, app_version, create_date"


class Ways:
    """The ways, with what they all need: a cluster, a queue server, the programs, and how many messages to move."""

    def __init__(self, cluster, queue, programs, pipeline, messages):
        self.cluster = cluster
        self.queue = queue
        self.programs = programs
        self.pipeline = pipeline
        self.messages = messages

    def sqs_ingest(self, latency_ms, concurrency=None, database=EXTENSION, keep_ledger=False):
        """One call for all messages: one transaction, then the deletes."""
        statement = f"SELECT sqs_ingest('{self.queue.url}', {self.messages}, 1)"
        return self._extension(statement, latency_ms, concurrency, database, keep_ledger)

    def sqs_drain(self, latency_ms, concurrency=None, messages=None):
        """A transaction for each ten thousand messages; deletes go on while the next are received."""
        messages = messages or self.messages
        statement = f"CALL sqs_drain('{self.queue.url}', 10000, {messages})"
        return self._extension(statement, latency_ms, concurrency, EXTENSION, False, messages)

    def over_tls(self, measure):
        """What `measure` finds when everybody speaks HTTPS to the queue."""
        self.queue.tls = True
        try:
            return measure()
        finally:
            self.queue.tls = False

    def _extension(self, statement, latency_ms, concurrency, database, keep_ledger, messages=None):
        messages = messages or self.messages
        self.cluster.empty(database, "user_logins", *(() if keep_ledger else ("sqs_ledger",)))
        self.queue.fill(messages, latency_ms)
        with self.cluster.connect(database) as connection:
            if concurrency:
                connection.execute(f"SET user_logins_sqs.receive_concurrency = {concurrency}")
            pid = connection.info.backend_pid
            backend_before = process.usage_by_thread(pid)[pid]
            server_before = self.queue.cpu()
            started = time.monotonic()
            connection.execute(statement)
            returned = time.monotonic()
            counts = self.queue.wait_until_deleted(messages)
            threads = process.usage_by_thread(pid)
            server = self.queue.cpu() - server_before
        self.check_rows(database, messages)
        backend = threads.pop(pid) - backend_before
        io_thread = sum(threads.values(), process.Usage())
        return Run(
            messages,
            counts["last_deleted_at"] - started,
            self._each(backend=backend.on_cpu, io_thread=io_thread.on_cpu, queue_server=server),
            {
                "waiting": backend.waiting + io_thread.waiting,
                "received": counts["last_received_at"] - started,
                "returned": returned - started,
                "from_first_receive": counts["last_deleted_at"] - counts["first_received_at"],
                "receiving": counts["last_received_at"] - counts["first_received_at"],
                "deleting": counts["last_deleted_at"] - counts["first_deleted_at"],
            },
        )

    def small_calls(self, sessions=15, calls=10):
        """Milliseconds of an `sqs_ingest` of ten messages: medians of first calls in a session, and of later ones."""
        self.cluster.empty(EXTENSION, "user_logins", "sqs_ledger")
        self.queue.fill(10 * sessions * calls, 0)
        statement = f"SELECT sqs_ingest('{self.queue.url}', 10, 1)"
        first, later = [], []
        for _ in range(sessions):
            with self.cluster.connect(EXTENSION) as connection:
                connection.execute("LOAD 'user_logins_sqs'")
                for call in range(calls):
                    started = time.monotonic()
                    connection.execute(statement)
                    (later if call else first).append(1e3 * (time.monotonic() - started))
        return statistics.median(first), statistics.median(later)

    def python(self, latency_ms, processes=1):
        """The Python pipeline, in one process or several."""
        self.cluster.empty(PLAIN, "user_logins")
        self.queue.fill(self.messages, latency_ms)
        command = [
            sys.executable, self.pipeline, self.queue.url, self.cluster.connection_string(PLAIN),
            f"--receivers={PIPELINE_THREADS}", f"--deleters={PIPELINE_THREADS}",
        ]  # fmt: skip
        server_before = self.queue.cpu()
        pipelines = [process.start(command, stdout=subprocess.PIPE, text=True) for _ in range(processes)]
        reports = [report_of(pipeline) for pipeline in pipelines]
        counts = self.queue.wait_until_deleted(self.messages)
        server = self.queue.cpu() - server_before
        self.check_rows(PLAIN)
        started = min(report["started_at"] for report in reports)
        return Run(
            self.messages,
            counts["last_deleted_at"] - started,
            self._each(
                python=sum(report["cpu_seconds"] for report in reports),
                backend=sum(report["backend_cpu_seconds"] for report in reports),
                queue_server=server,
            ),
        )

    def client(self, program, latency_ms, *options):
        """A client without Postgres: `queue-client` or `sdk-client`."""
        self.queue.fill(self.messages, latency_ms)
        server_before = self.queue.cpu()
        command = [self.programs / program, self.queue.url, "--messages", self.messages, *options]
        report = report_of(process.start(command, stdout=subprocess.PIPE, text=True))
        counts = self.queue.counts()
        server = self.queue.cpu() - server_before
        if counts["received"] != self.messages:
            raise RuntimeError(f"{program} did not receive everything: {counts}")
        ended = counts["last_deleted_at"] or counts["last_received_at"]
        return Run(
            self.messages,
            ended - report["started_at"],
            self._each(client=report["cpu_seconds"], queue_server=server),
        )

    def flood(self):
        """As fast as the queue server is: a client that looks at nothing but receipt handles."""
        self.queue.fill(self.messages, 0)
        server_before = self.queue.cpu()
        command = [self.programs / "flood", self.queue.url, "--messages", self.messages]
        report = report_of(process.start(command, stdout=subprocess.PIPE, text=True))
        server = self.queue.cpu() - server_before
        return Run(self.messages, report["seconds"], self._each(queue_server=server))

    def rows(self):
        """The rows that the last run left, as COPY writes them."""
        with self.cluster.connect(EXTENSION) as connection:
            with connection.cursor().copy(f"COPY user_logins ({COLUMNS}) TO STDOUT") as stream:
                return b"".join(stream)

    def copy(self, rows):
        """COPY of the same rows into an equal table, in one statement: the floor that Postgres sets."""
        self.cluster.empty(PLAIN, "user_logins")
        with self.cluster.connect(PLAIN) as connection:
            pid = connection.info.backend_pid
            before = process.cpu(pid)
            started = time.monotonic()
            with connection.cursor().copy(f"COPY user_logins ({COLUMNS}) FROM STDIN") as stream:
                stream.write(rows)
            seconds = time.monotonic() - started
            backend = process.cpu(pid) - before
        self.check_rows(PLAIN)
        return Run(self.messages, seconds, self._each(backend=backend))

    def check_rows(self, database, messages=None):
        """Every message is one row."""
        messages = messages or self.messages
        rows = self.cluster.count("user_logins", database)
        if rows != messages:
            raise RuntimeError(f"{rows} rows of {messages} messages in {database}")

    def _each(self, **seconds):
        return {who: 1e6 * spent / self.messages for who, spent in seconds.items()}


def report_of(program):
    """The line of JSON that `program` prints before it ends."""
    try:
        output, _ = program.communicate(timeout=1200)
    finally:
        process.stop(program)
    if program.returncode != 0:
        raise RuntimeError(f"{program.args} failed")
    return json.loads(output)
