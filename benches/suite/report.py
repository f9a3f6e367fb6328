"""What the suite found, as Markdown."""

import dataclasses
import datetime
import os
import pathlib
import platform


@dataclasses.dataclass
class Mark:
    """What is aimed at, and what came out. `passed` is None when this run could not tell."""

    what: str
    aim: str
    measured: str
    passed: bool | None

    def row(self):
        verdict = {True: "pass", False: "**miss**", None: "not measured"}[self.passed]
        return [self.what, self.aim, self.measured, verdict]


def table(head, rows):
    """A Markdown table; every column but the first is flush right."""
    lines = ["| " + " | ".join(head) + " |", "|---" + "|---:" * (len(head) - 1) + "|"]
    lines += ["| " + " | ".join(row) + " |" for row in rows]
    return "\n".join(lines) + "\n"


def rate(run):
    return f"{run.rate:,.0f}"


def ratio(value):
    return f"{value:.2f} ×" if value < 10 else f"{value:.1f} ×"


def microseconds(value):
    return "" if value is None else f"{value:.1f}"


def megabytes(value):
    return f"{value / 1e6:.1f} MB"


def processor():
    """How many cores of which model."""
    model = next(
        (line.split(":", 1)[1].strip() for line in pathlib.Path("/proc/cpuinfo").read_text().splitlines()
         if line.startswith("model name")),
        platform.machine(),
    )  # fmt: skip
    return f"{os.cpu_count()} cores ({model})"


def machine_and_date(cluster):
    """The same in a few words, for a picture."""
    version = cluster.run("SHOW server_version")[0][0].split()[0]
    return f"{processor()}, Postgres {version}, queue server on the same machine; {datetime.date.today()}"


def machine(cluster):
    """What ran where, in a sentence."""
    memory = os.sysconf("SC_PAGE_SIZE") * os.sysconf("SC_PHYS_PAGES") / 1e9
    version = cluster.run("SHOW server_version")[0][0]
    load = os.getloadavg()[0]
    return (
        f"{processor()}, {memory:.0f} GB, Linux {platform.release()}, Postgres {version}, "
        f"Python {platform.python_version()}; load average {load:.1f} at the start. Queue server, clients and Postgres "
        "share the cores; nothing is pinned."
    )
