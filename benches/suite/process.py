"""Processes that end with this one, and what they cost: processor time and memory, as the kernel counts them."""

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


def cpu_by_thread(pid):
    """Seconds on a processor of each live thread of `pid`, by thread id. The main thread's id is `pid`."""
    seconds = {}
    for task in pathlib.Path(f"/proc/{pid}/task").iterdir():
        try:
            nanoseconds = int((task / "schedstat").read_text().split()[0])
        except FileNotFoundError:
            continue
        seconds[int(task.name)] = nanoseconds / 1e9
    return seconds


def cpu(pid):
    """Seconds on a processor of all live threads of `pid`."""
    return sum(cpu_by_thread(pid).values())


def private_memory(pid):
    """Bytes of memory that `pid` shares with nobody."""
    lines = pathlib.Path(f"/proc/{pid}/smaps_rollup").read_text().splitlines()
    return sum(int(line.split()[1]) * 1024 for line in lines if line.startswith("Private_"))


class PeakOfPrivateMemory:
    """Watches the private memory of `pid` while the `with` block runs; then holds what it was before, at most, at the end."""

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
