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
import queue_server
import report
import vault
import worker
from report import Mark
from run import all_interleaved, interleaved, middle, spread
from ways import EXTENSION, PLAIN, Ways

DEFAULT_CONCURRENCY = 16
MORE_CONCURRENCY = 64
SECTIONS = ("throughput", "concurrency", "overlap", "ledger", "memory", "statistics", "vault", "workers")


def main():
    options = parse_options()
    signal.signal(signal.SIGTERM, lambda *_: sys.exit("ended"))
    suite = Suite(options)
    for settings, sections in ((None, SECTIONS[:-1]), (worker.PRELOADED, SECTIONS[-1:])):
        wanted = [section for section in sections if section in options.only]
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
        with cluster.running(settings) as postgres, queue_server.running(options.programs / "queue-server") as queue:
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
        ways, latencies = self.ways, self.options.latencies
        found = {}
        for latency in latencies:
            scenarios = {
                "`sqs_ingest`": lambda latency=latency: ways.sqs_ingest(latency),
                "`sqs_drain`": lambda latency=latency: ways.sqs_drain(latency),
                "Python pipeline": lambda latency=latency: ways.python(latency),
                "Python pipeline, 2 processes": lambda latency=latency: ways.python(latency, processes=2),
                "client alone": lambda latency=latency: ways.client("queue-client", latency),
                "aws-sdk-sqs alone": lambda latency=latency: ways.client("sdk-client", latency),
            }
            say(f"latency {latency:g} ms")
            found[latency] = interleaved(scenarios, self.options.repeats, say)
        rows = ways.rows()
        floors = {"COPY of the same rows": lambda: ways.copy(rows), "queue server, flooded": ways.flood}
        floors = interleaved(floors, self.options.repeats, say)

        self._table_of_rates(found, floors)
        self._table_of_cpu(found, floors)
        self._marks_of_throughput(found)

    def _table_of_rates(self, found, floors):
        latencies = self.options.latencies
        head = ["messages/s, received, inserted and deleted"]
        for latency in latencies:
            head += [f"{latency:g} ms", "× Python"]
        rows = []
        for name in found[latencies[0]]:
            row = [name]
            for latency in latencies:
                run = found[latency][name]
                row += [report.rate(run), report.ratio(run.rate / found[latency]["Python pipeline"].rate)]
            rows.append(row)
        for name, run in floors.items():
            rows.append([name, report.rate(run)] + [""] * (2 * len(latencies) - 1))
        self.tables.append(("Throughput", report.table(head, rows)))

    def _table_of_cpu(self, found, floors):
        latency = self.options.latencies[0]
        runs = found[latency] | floors
        parts = ["backend", "io_thread", "client", "python", "queue_server"]
        rows = []
        for name, run in runs.items():
            spent = {part: cpu for part, cpu in run.cpu.items() if part != "queue_server"}
            waiting = 1e6 * run.parts["waiting"] / run.messages if "waiting" in run.parts else None
            values = [*map(run.cpu.get, parts), sum(spent.values()) or None, waiting]
            rows.append([name, *map(report.microseconds, values)])
        head = [
            f"CPU, µs a message, at {latency:g} ms",
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
        first = self.options.latencies[0]
        if first == 0:
            python = found[0]["Python pipeline"].rate
            for name in ("`sqs_ingest`", "`sqs_drain`"):
                times = found[0][name].rate / python
                self.marks.append(
                    Mark(f"{name} against the Python pipeline, 0 ms", "≥ 8 ×", report.ratio(times), times >= 8)
                )
        if 20 in found:
            self._mark_of_ideal("`sqs_drain`, all the way", found[20]["`sqs_drain`"].rate, DEFAULT_CONCURRENCY)
            ingest = found[20]["`sqs_ingest`"]
            received = ingest.messages / ingest.parts["received"]
            self._mark_of_ideal("`sqs_ingest`, receiving", received, DEFAULT_CONCURRENCY)

    def _mark_of_ideal(self, what, reached, concurrency):
        share = reached / ideal(concurrency, 20)
        measured = f"{share:.2f} ({reached:,.0f}/s)"
        aim = f"≥ 0.80 of {ideal(concurrency, 20):,.0f}/s"
        self.marks.append(Mark(f"{what}, 20 ms, concurrency {concurrency}", aim, measured, share >= 0.8))

    def concurrency(self):
        """How far more calls in flight carry: until a core is full."""
        scenarios = {
            str(concurrency): lambda concurrency=concurrency: self.ways.sqs_drain(20, concurrency)
            for concurrency in (4, DEFAULT_CONCURRENCY, MORE_CONCURRENCY)
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
        found = interleaved(ledger.scenarios(self.ways), self.options.repeats, say)
        empty, full = found["empty ledger"], found["full ledger"]
        head = ["`sqs_ingest`, 0 ms", "messages/s", "seconds to return", "backend, µs a message"]
        rows = [
            [name, report.rate(run), f"{run.parts['returned']:.2f}", report.microseconds(run.cpu["backend"])]
            for name, run in ((f"ledger of {entries:,}", full), ("empty ledger", empty))
        ]
        self.tables.append(("Ledger", report.table(head, rows)))
        times = full.parts["returned"] / empty.parts["returned"]
        self.marks.append(
            Mark(f"a ledger of {entries:,} against an empty one", "≤ 1.20 ×", report.ratio(times), times <= 1.2)
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
        ways, repeats = self.ways, self.options.repeats
        found = interleaved(
            {
                "`sqs_drain`, 0 ms": lambda: worker.drain(ways, 0),
                "1 worker, 0 ms": lambda: worker.backlog(ways, 1, 0),
                "1 worker, 20 ms": lambda: worker.backlog(ways, 1, 20),
                "4 workers, 20 ms": lambda: worker.backlog(ways, 4, 20),
            },
            repeats,
            say,
        )
        rows = [[name, report.rate(run)] for name, run in found.items()]
        head = ["a backlog, first receive to last delete", "messages/s"]
        self.tables.append(("Workers", report.table(head, rows)))
        against_drain = found["1 worker, 0 ms"].rate / found["`sqs_drain`, 0 ms"].rate
        four = found["4 workers, 20 ms"].rate / found["1 worker, 20 ms"].rate
        self.marks += [
            Mark("a worker against `sqs_drain`", "≥ 1 × (0.95)", report.ratio(against_drain), against_drain >= 0.95),
            Mark("4 workers against one, 20 ms", "≥ 1.80 ×", report.ratio(four), four >= 1.8),
        ]
        self._quiet_queue()
        self._idle()

    def _quiet_queue(self):
        rows = []
        for latency in (0, 20):
            p50, p99 = worker.quiet(self.ways, latency)
            rows.append([f"{latency} ms", f"{p50:.1f} ms", f"{p99:.1f} ms"])
            above = p50 - latency
            what = f"quiet queue, {latency} ms: sent to committed, p50 above the latency"
            self.marks.append(Mark(what, "< 20 ms", f"{above:.1f} ms", above < 20))
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
