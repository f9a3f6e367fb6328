"""Runs the benchmarks and prints a report. `run`, beside this folder, builds what is needed and calls this."""

import argparse
import filecmp
import pathlib
import signal
import sys
import time

import cluster
import counting
import ledger
import memory
import overlap
import picture
import queue_server
import report
import vault
import worker
from report import Mark
from run import all_interleaved, interleaved, middle, spread
from ways import EXTENSION, PLAIN, Ways

INGEST, DRAIN, WORKER = "`sqs_ingest`", "`sqs_drain`", "a worker"
PYTHON = "Python pipeline, 2 processes"
IN_THE_PICTURE = (DRAIN, WORKER, INGEST, PYTHON)
# The least multiple of the Python pipeline's rate, by latency in ms.
AGAINST_PYTHON = {
    0: {DRAIN: 7, WORKER: 7, INGEST: 7},
    10: {DRAIN: 7.5, WORKER: 7.5, INGEST: 5},
    20: {DRAIN: 8.5, WORKER: 8.5, INGEST: 5},
}
OF_THE_RATE_WITHOUT_LATENCY = {10: 0.8, 20: 0.7}
CONCURRENCIES = (4, 16, 64, 256)
BURST = 10_000
# Those that need workers run in a server that preloads the library.
PRELOADED = ("throughput", "workers")
SECTIONS = ("throughput", "small", "concurrency", "overlap", "ledger", "memory", "statistics", "vault", "workers")


def main():
    options = parse_options()
    signal.signal(signal.SIGTERM, lambda *_: sys.exit("ended"))
    suite = Suite(options)
    for settings in (worker.PRELOADED, None):
        wanted = [name for name in SECTIONS if name in options.only and (name in PRELOADED) == (settings is not None)]
        if wanted:
            suite.run(wanted, settings)
    text = suite.text()
    print(text)
    options.out.mkdir(parents=True, exist_ok=True)
    (options.out / "report.md").write_text(text)


def parse_options():
    parser = argparse.ArgumentParser(prog="suite")
    parser.add_argument("--installed", type=pathlib.Path, required=True, help="the library that Postgres loads")
    parser.add_argument("--built", type=pathlib.Path, required=True, help="the release build that it must be")
    parser.add_argument("--programs", type=pathlib.Path, required=True, help="folder of queue-server and clients")
    parser.add_argument("--pipeline", type=pathlib.Path, required=True, help="the Python pipeline")
    parser.add_argument("--out", type=pathlib.Path, required=True, help="folder for report.md")
    parser.add_argument("--messages", type=int, default=100_000)
    parser.add_argument("--latencies", type=float, nargs="+", default=[0, 10, 20], help="milliseconds")
    parser.add_argument("--repeats", type=int, default=3)
    parser.add_argument("--ledger", type=int, default=10_000_000, help="entries of the full ledger")
    parser.add_argument("--idle", type=int, default=60, help="seconds to watch an idle worker")
    parser.add_argument("--only", nargs="+", choices=SECTIONS, default=SECTIONS)
    return parser.parse_args()


def say(line):
    """Progress goes to standard error, the report to standard output."""
    print(time.strftime("%H:%M:%S"), line, file=sys.stderr, flush=True)


def ideal(concurrency, latency_ms):
    """Messages a second, if each receive brings ten and takes the latency and nothing else."""
    return concurrency * 10 / (latency_ms / 1000)


class Suite:
    """The sections, and what they found so far."""

    def __init__(self, options):
        self.options = options
        self.ways = None
        self.machine = None
        self.marks = []
        self.tables = []

    def run(self, sections, settings):
        """Runs `sections` in a cluster of their own, with `settings`."""
        options = self.options
        with queue_server.running(options.programs / "queue-server") as queue, cluster.running(settings) as postgres:
            self.machine = self.machine or report.machine(postgres)
            postgres.make_database(EXTENSION, extension=True)
            postgres.make_database(PLAIN, extension=False)
            self.ways = Ways(postgres, queue, options.programs, options.pipeline, options.messages)
            for section in sections:
                say(f"-- {section}")
                self._check_library()
                getattr(self, section)()
            self._check_library()

    def _check_library(self):
        """A development build installed meanwhile, by a test for instance, is ten times slower."""
        if not filecmp.cmp(self.options.installed, self.options.built, shallow=False):
            raise RuntimeError(f"{self.options.installed} is not the release build {self.options.built}")

    def throughput(self):
        """Every way at every latency, with defaults only, over HTTP and HTTPS."""
        ways = self.ways
        found = {}
        for latency in self.options.latencies:
            ours = {
                INGEST: lambda latency=latency: ways.sqs_ingest(latency),
                DRAIN: lambda latency=latency: ways.sqs_drain(latency),
                WORKER: lambda latency=latency: worker.backlog(ways, 1, latency),
            }
            compared = {
                PYTHON: lambda latency=latency: ways.python(latency, processes=2),
                "Python pipeline, 1 process": lambda latency=latency: ways.python(latency),
                "client alone": lambda latency=latency: ways.client("queue-client", latency),
                "aws-sdk-sqs alone": lambda latency=latency: ways.client("sdk-client", latency),
            }
            scenarios = {
                (name, "HTTP"): run for name, run in (ours | compared).items()
            } | {
                (name, "HTTPS"): lambda run=run: ways.over_tls(run) for name, run in (ours | compared).items()
            }
            say(f"latency {latency:g} ms")
            found[latency] = interleaved(scenarios, self.options.repeats, say)
        rows = ways.rows()
        floors = {"COPY of the same rows": lambda: ways.copy(rows), "queue server, flooded": ways.flood}
        floors = interleaved(floors, self.options.repeats, say)

        self._table_of_rates(found, floors)
        self._table_of_cpu(found, floors)
        self._marks_of_throughput(found)
        self._picture(found)

    def _table_of_rates(self, found, floors):
        latencies = self.options.latencies
        head = ["messages/s, received, inserted and deleted", ""]
        for latency in latencies:
            head += [f"{latency:g} ms", "× Python"]
        rows = []
        for name, protocol in found[latencies[0]]:
            row = [name, protocol]
            for latency in latencies:
                run, python = found[latency][name, protocol], found[latency][PYTHON, protocol]
                row += [report.rate(run), report.ratio(run.rate / python.rate)]
            rows.append(row)
        for name, run in floors.items():
            rows.append([name, "", report.rate(run)] + [""] * (2 * len(latencies) - 1))
        self.tables.append(("Throughput", report.table(head, rows)))

    def _table_of_cpu(self, found, floors):
        latency = self.options.latencies[0]
        runs = found[latency] | {(name, ""): run for name, run in floors.items()}
        parts = ["backend", "io_thread", "client", "python", "queue_server"]
        rows = []
        for (name, protocol), run in runs.items():
            if not run.cpu:
                continue
            spent = {part: cpu for part, cpu in run.cpu.items() if part != "queue_server"}
            waiting = 1e6 * run.parts["waiting"] / run.messages if "waiting" in run.parts else None
            values = [*map(run.cpu.get, parts), sum(spent.values()) or None, waiting]
            rows.append([name, protocol, *map(report.microseconds, values)])
        head = [
            f"CPU, µs a message, at {latency:g} ms",
            "",
            "backend thread",
            "I/O thread",
            "client",
            "Python",
            "queue server",
            "all but the queue server",
            "ready, waiting for a core",
        ]
        self.tables.append(("Processor time", report.table(head, rows)))

    def _marks_of_throughput(self, found):
        for protocol in ("HTTP", "HTTPS"):
            for latency, runs in found.items():
                name = f"{latency:g} ms, {protocol}"
                self._marks_against_python(name, AGAINST_PYTHON.get(latency, {}), runs, protocol)
            self._marks_against_no_latency(found, protocol)
            for latency, runs in found.items():
                ingest = runs[INGEST, protocol].parts
                share = ingest["deleting"] / ingest["receiving"]
                what = f"{INGEST}, deletes after COMMIT against receiving, {latency:g} ms, {protocol}"
                self.marks.append(Mark(what, "≤ 0.20 ×", report.ratio(share), share <= 0.2))

    def _marks_against_python(self, where, aims, runs, protocol):
        for name, aim in aims.items():
            times = runs[name, protocol].rate / runs[PYTHON, protocol].rate
            what = f"{name} against the Python pipeline of two processes, {where}"
            self.marks.append(Mark(what, f"≥ {aim:g} ×", report.ratio(times), times >= aim))

    def _marks_against_no_latency(self, found, protocol):
        for latency, aim in OF_THE_RATE_WITHOUT_LATENCY.items():
            if 0 in found and latency in found:
                for name in (DRAIN, WORKER):
                    share = found[latency][name, protocol].rate / found[0][name, protocol].rate
                    what = f"{name}, of its rate at 0 ms, {latency} ms, {protocol}"
                    self.marks.append(Mark(what, f"≥ {aim:g} ×", report.ratio(share), share >= aim))

    def _picture(self, found):
        """The table of rates as a picture, over HTTPS, since that is what users have."""
        shown = {name: [found[latency][name, "HTTPS"].rate for latency in found] for name in IN_THE_PICTURE}
        groups = [f"{latency:g} ms" for latency in found]
        self.options.out.mkdir(parents=True, exist_ok=True)
        bars = picture.bars(groups, shown, report.machine_and_date(self.ways.cluster))
        (self.options.out / "throughput.svg").write_text(bars)

    def small(self):
        """What a call for ten messages takes, at 0 ms: the first of a session makes the I/O thread and its client."""
        first, later = self.ways.small_calls()
        rows = [["the first of a session", f"{first:.1f} ms"], ["later ones", f"{later:.1f} ms"]]
        self.tables.append(("Small calls", report.table(["`sqs_ingest` of ten messages, 0 ms", "median"], rows)))
        self.marks += [
            Mark("the first `sqs_ingest` of ten in a session, 0 ms", "≤ 15 ms", rows[0][1], first <= 15),
            Mark("later ones, 0 ms", "≤ 1.5 ms", rows[1][1], later <= 1.5),
        ]

    def concurrency(self):
        """How far more calls in flight carry: until a core is full."""
        scenarios = {
            str(concurrency): lambda concurrency=concurrency: self.ways.sqs_drain(20, concurrency)
            for concurrency in CONCURRENCIES
        }
        found = interleaved(scenarios, self.options.repeats, say)
        rows = []
        for concurrency, run in found.items():
            best = ideal(int(concurrency), 20)
            busiest = max(run.cpu["backend"], run.cpu["io_thread"]) * run.rate / 1e6
            rows.append([concurrency, report.rate(run), f"{best:,.0f}", f"{run.rate / best:.2f}", f"{busiest:.0%}"])
        head = ["`receive_concurrency`, `sqs_drain` at 20 ms", "messages/s", "ideal", "share", "busiest thread"]
        self.tables.append(("Concurrency", report.table(head, rows)))

    def overlap(self):
        self.ways.sqs_ingest(0)
        overlap.make_chunks(self.ways)
        rows = []
        for latency in self.options.latencies:
            say(f"latency {latency:g} ms")
            found = interleaved(
                {
                    "receive alone": lambda latency=latency: self.ways.client("queue-client", latency, "--keep"),
                    "insert alone": lambda: overlap.insert_alone(self.ways),
                    "together": lambda latency=latency: self.ways.sqs_ingest(latency),
                },
                self.options.repeats,
                say,
            )
            receive, insert = found["receive alone"].seconds, found["insert alone"].seconds
            together = found["together"].parts["returned"]
            hidden = overlap.hidden(receive, insert, together)
            rows.append([f"{latency:g} ms", *(f"{s:.2f} s" for s in (receive, insert, together)), f"{hidden:.0%}"])
            self.marks.append(
                Mark(
                    f"receive and insert overlap, {latency:g} ms",
                    "together < their sum",
                    f"{together:.2f} s of {receive + insert:.2f} s",
                    together < receive + insert,
                )
            )
        head = ["latency", "receive alone", "insert alone", "`sqs_ingest` to its return", "of the shorter, hidden"]
        self.tables.append(("Overlap", report.table(head, rows)))

    def ledger(self):
        entries = self.options.ledger
        say(f"filling a ledger with {entries:,}")
        ledger.make(self.ways.cluster, entries)
        rows = []
        for scenarios in (ledger.end_of_day(self.ways), ledger.after_midnight(self.ways)):
            found = interleaved(scenarios, self.options.repeats, say)
            for name, run in found.items():
                seconds = f"{run.parts['returned']:.2f}"
                rows.append([name, report.rate(run), seconds, report.microseconds(run.cpu["backend"])])
            empty, full = (run.parts["returned"] for run in found.values())
            name = f"{list(found)[1]}, {entries:,} entries, against an empty one"
            self.marks.append(Mark(name, "≤ 1.10 ×", report.ratio(full / empty), full / empty <= 1.1))
        head = ["`sqs_ingest`, 0 ms", "messages/s", "seconds to return", "backend, µs a message"]
        self.tables.append((f"Ledger of {entries:,}", report.table(head, rows)))
        expiry = ledger.expire(self.ways.cluster)
        head = ["entries", "`sqs_prune`, counting them", "longest wait of another session", "MB left"]
        row = [
            f"{expiry.entries:,}",
            f"{expiry.seconds:.2f} s",
            f"{expiry.longest_wait * 1000:.0f} ms",
            f"{expiry.megabytes_left:.0f}",
        ]
        self.tables.append(("Expiry", report.table(head, [row])))
        self.marks.append(
            Mark(
                "longest wait while a ledger expires",
                "< 1 s",
                f"{expiry.longest_wait:.2f} s",
                expiry.longest_wait < 1,
            )
        )

    def memory(self):
        found = memory.measure(self.ways)
        rows = []
        for name, growth in found.items():
            rows.append([f"`{name}`", report.megabytes(growth.most), report.megabytes(growth.after)])
            self.marks.append(
                Mark(
                    f"private memory of a backend, `{name}` of {self.ways.messages:,}",
                    "≤ 10 MB more",
                    report.megabytes(growth.most),
                    growth.most <= 10e6,
                )
            )
        head = ["private memory more than a new backend's", "at most", "after the deletes"]
        self.tables.append(("Memory", report.table(head, rows)))

    def statistics(self):
        """Counting must cost too little to be measured: at most 2 %, or less than equal runs differ."""
        with counting.beside(self.ways) as counts:
            found = all_interleaved(
                {
                    "without preload, not counting": lambda: counting.drain(self.ways),
                    "with preload, counting": lambda: counting.drain(counts),
                },
                self.options.repeats,
                say,
            )
            if counting.counted(counts) != self.options.repeats * self.ways.messages:
                raise RuntimeError("the server that is to count does not")
        rows = []
        for name, runs in found.items():
            spent = middle(runs).cpu
            values = [spent["backend"], spent["io_thread"], spent["both"], spread(runs, "both")]
            rows.append([name, *(f"{value:.2f}" for value in values)])
        head = ["CPU of `sqs_drain`, µs a message, at 0 ms", "backend thread", "I/O thread", "both", "repeats apart"]
        self.tables.append(("Statistics", report.table(head, rows)))

        without, counts = (middle(runs).cpu["both"] for runs in found.values())
        noise = max(spread(runs, "both") for runs in found.values())
        cost = counts - without
        self.marks.append(
            Mark(
                "counting, CPU of both threads",
                f"≤ 2%, or the {noise:.2f} µs that repeats differ",
                f"{cost:+.2f} µs ({cost / without:+.1%})",
                cost <= max(0.02 * without, noise),
            )
        )

    def vault(self):
        """What keeping originals costs, where values repeat and where none does."""
        people = max(1, self.options.messages // 100)
        scenarios = {
            (of, keeps): lambda of=of, keeps=keeps: vault.drain(self.ways, of, keeps)
            for of in (people, self.options.messages)
            for keeps in (False, True)
        }
        say(f"of {people:,} people, and of as many as messages")
        found = interleaved(scenarios, self.options.repeats, say)
        rows = []
        for of, aim in ((people, 1.15), (self.options.messages, 2)):
            without, keeping = found[of, False], found[of, True]
            times = keeping.cpu["both"] / without.cpu["both"]
            self.marks.append(
                Mark(f"the vault, messages of {of:,} people, CPU", f"≤ {aim:.2f} ×", report.ratio(times), times <= aim)
            )
            for name, run in (("without a vault", without), ("sealed", keeping)):
                spent = [f"{run.cpu[who]:.2f}" for who in ("backend", "io_thread", "both")]
                rows.append([f"messages of {of:,} people, {name}", report.rate(run), *spent])
        head = ["`sqs_drain` at 0 ms", "messages/s", "CPU, µs a message: backend thread", "I/O thread", "both"]
        self.tables.append(("Vault", report.table(head, rows)))

    def workers(self):
        ways = self.ways
        scenarios = {
            f"{workers} workers" if workers > 1 else WORKER: lambda workers=workers: worker.backlog(ways, workers, 10)
            for workers in (1, 2, 4)
        }
        found = interleaved(scenarios, self.options.repeats, say)
        one = found[WORKER].rate
        rows = [[name, report.rate(run), report.ratio(run.rate / one)] for name, run in found.items()]
        head = ["a backlog at 10 ms, first receive to last delete", "messages/s", "× one"]
        self.tables.append(("Workers", report.table(head, rows)))
        self._burst()
        self._quiet_queue()
        self._idle()

    def _burst(self):
        """Messages that come all at once to a worker that waits, against as many that a call finds there."""
        found = interleaved(
            {
                "`sqs_drain` finds them": lambda: worker.drain(self.ways, 10, BURST),
                "a waiting worker": lambda: worker.backlog(self.ways, 1, 10, BURST),
            },
            self.options.repeats,
            say,
        )
        there, burst = (run.seconds for run in found.values())
        rows = [[name, f"{run.seconds:.2f} s"] for name, run in found.items()]
        self.tables.append((f"A burst of {BURST:,} at 10 ms", report.table(["first receive to last delete", ""], rows)))
        what = f"a burst of {BURST:,} on a quiet queue, against the same backlog, 10 ms"
        self.marks.append(Mark(what, "≤ 1.50 ×", report.ratio(burst / there), burst <= 1.5 * there))

    def _quiet_queue(self):
        rows = []
        for latency in (0, 20):
            p50, p99 = worker.quiet(self.ways, latency)
            rows.append([f"{latency} ms", f"{p50:.1f} ms", f"{p99:.1f} ms"])
            above = p50 - latency
            what = f"quiet queue, {latency} ms: sent to committed, p50 above the latency"
            self.marks.append(Mark(what, "< 12 ms", f"{above:.1f} ms", above < 12))
        head = ["a quiet queue: latency", "sent to committed, p50", "p99"]
        self.tables.append(("From sent to committed", report.table(head, rows)))

    def _idle(self):
        seconds = self.options.idle
        say(f"idle for {seconds} s")
        rows = [[what, f"{spent:.2f} ms/s"] for what, spent in worker.idle(self.ways, seconds).items()]
        self.tables.append(("Idle", report.table([f"processor time over {seconds} s", ""], rows)))

    def text(self):
        options = self.options
        parts = [
            f"{options.messages:,} messages; medians of {options.repeats} interleaved repeats.\n\n{self.machine}\n"
        ]
        marks = report.table(["mark", "aim", "measured", ""], [mark.row() for mark in self.marks])
        for title, table in [("Marks", marks), *self.tables]:
            parts.append(f"## {title}\n\n{table}")
        return "\n".join(parts)


if __name__ == "__main__":
    main()
