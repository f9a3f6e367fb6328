"""The queue server in memory: started, filled, and asked for its counts."""

import contextlib
import json
import os
import pathlib
import subprocess
import tempfile
import urllib.request

import process

DEADLINE = 600


class QueueServer:
    """A running queue server, and whether what is measured speaks HTTPS to it."""

    def __init__(self, url, pid):
        self.http_url = url
        self.pid = pid
        self.tls = False

    @property
    def url(self):
        return self.http_url.replace("http:", "https:") if self.tls else self.http_url

    def fill(self, messages, latency_ms, people=None):
        """Empties the queue, puts `messages` logins of `people` people into it (if not given: each of another one) and
        sets the latency of each call."""
        return self._call("POST", f"reset?preload={messages}&people={people or messages}&latency_ms={latency_ms}")

    def send(self, messages, per_second):
        """Lets `messages` logins be sent, one after the other, in the background."""
        return self._call("POST", f"send?messages={messages}&rate={per_second}")

    def counts(self):
        return self._call("GET", "counts")

    def wait_until_deleted(self, messages):
        """Waits until that many messages were deleted since the last `fill`; returns the counts."""
        counts = self._call("GET", f"wait?deleted={messages}&timeout={DEADLINE}")
        if counts["deleted"] < messages:
            raise RuntimeError(f"not everything was deleted: {counts}")
        return counts

    def cpu(self):
        return process.cpu(self.pid)

    def _call(self, method, what):
        base = self.http_url.rsplit("/", 2)[0]
        request = urllib.request.Request(f"{base}/control/{what}", method=method)
        with urllib.request.urlopen(request, timeout=DEADLINE + 10) as response:
            return json.load(response)


@contextlib.contextmanager
def running(program):
    """A queue server that runs as long as the `with` block, and whose certificate is trusted by what starts in it."""
    with tempfile.TemporaryDirectory(prefix="user_logins_sqs-bench-") as folder:
        pathlib.Path(folder).chmod(0o755)
        certificate = pathlib.Path(folder, "certificate.pem")
        server = process.start([program, "--certificate", certificate], stdout=subprocess.PIPE, text=True)
        try:
            url = server.stdout.readline().strip()
            if not url:
                raise RuntimeError(f"{program} did not start")
            # boto3 has a name of its own for it.
            os.environ["SSL_CERT_FILE"] = os.environ["AWS_CA_BUNDLE"] = str(certificate)
            yield QueueServer(url, server.pid)
        finally:
            process.stop(server)
