"""Processes that end with this one, and what they cost: processor time and memory, as the kernel counts them."""

import dataclasses
import pathlib
import signal
import subprocess
import threading

SAMPLING_INTERVAL = 0.01


def start(command, **options):
    """Starts `command` so that it ends when this process does, however that happens."""
    return subprocess.Popen(["setpriv", "--pdeathsig", "INT", *map(str, command)], **options)


def stop(process, stop_signal=signal.SIGTERM):
    """Ends `process` and waits for it."""
    if process.poll() is None:
        process.send_signal(stop_signal)
        try:
            process.wait(timeout=20)
        except subprocess.TimeoutExpired:
            process.kill()
            process.wait()


@dataclasses.dataclass(frozen=True)
class Usage:
    """Seconds on a processor, and seconds ready to run but waiting for one."""

    on_cpu: float = 0.0
    waiting: float = 0.0

    def __add__(self, other):
        return Usage(self.on_cpu + other.on_cpu, self.waiting + other.waiting)

    def __sub__(self, other):
        return Usage(self.on_cpu - other.on_cpu, self.waiting - other.waiting)


def usage_by_thread(pid):
    """What each live thread of `pid` has used so far, by thread id. The main thread's id is `pid`."""
    usage = {}
    for task in pathlib.Path(f"/proc/{pid}/task").iterdir():
        try:
            on_cpu, waiting, _ = (task / "schedstat").read_text().split()
        except (FileNotFoundError, ProcessLookupError):
            continue
        usage[int(task.name)] = Usage(int(on_cpu) / 1e9, int(waiting) / 1e9)
    return usage


def cpu(pid):
    """Seconds on a processor of all live threads of `pid`."""
    return sum(usage.on_cpu for usage in usage_by_thread(pid).values())


def private_memory(pid):
    """Bytes of memory that are `pid`'s own: written to, and neither Postgres' shared memory, of which a page counts as
    private while nobody else has touched it, nor pages of files, which the kernel shares and drops as it likes."""
    kilobytes = 0
    shared = False
    for line in pathlib.Path(f"/proc/{pid}/smaps").read_text().splitlines():
        name, *values = line.split()
        if not name.endswith(":"):
            shared = values[0].endswith("s")
        elif name == "Private_Dirty:" and not shared:
            kilobytes += int(values[0])
    return kilobytes * 1024


class PeakOfPrivateMemory:
    """The private memory of `pid` around the `with` block: before, at most, and at the end."""

    def __init__(self, pid):
        self.pid = pid
        self.before = self.most = self.after = private_memory(pid)
        self._done = threading.Event()
        self._watcher = threading.Thread(target=self._watch)

    def __enter__(self):
        self._watcher.start()
        return self

    def __exit__(self, *_):
        self._done.set()
        self._watcher.join()
        self.after = private_memory(self.pid)
        self.most = max(self.most, self.after)

    def _watch(self):
        while not self._done.wait(SAMPLING_INTERVAL):
            self.most = max(self.most, private_memory(self.pid))
