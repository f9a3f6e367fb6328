"""A Postgres cluster of our own, in a folder that goes when we go."""

import contextlib
import os
import pathlib
import shutil
import signal
import subprocess
import tempfile
import time

import process
import psycopg

# The same for everything that is measured. A checkpoint in the middle of one run and not of another would decide
# more than what they do differently.
SETTINGS = {
    "listen_addresses": "",
    "shared_buffers": "512MB",
    "max_wal_size": "8GB",
    "checkpoint_timeout": "1h",
    "autovacuum": "off",
}

TABLE = """CREATE TABLE user_logins (
    user_id varchar(128), device_type varchar(32), masked_ip varchar(256), masked_device_id varchar(256),
    locale varchar(32), app_version integer, create_date date)"""


class Cluster:
    """A running cluster. Reached through a socket in its own folder only, so it needs no port."""

    def __init__(self, folder):
        self.folder = folder

    def connect(self, database="postgres"):
        """A new connection, in autocommit."""
        return psycopg.connect(self.connection_string(database), autocommit=True)

    def connection_string(self, database="postgres"):
        return f"host={self.folder} user=postgres dbname={database}"

    def run(self, statement, database="postgres"):
        """Runs one statement and returns its rows, if it has any."""
        with self.connect(database) as connection:
            cursor = connection.execute(statement)
            return cursor.fetchall() if cursor.description else None

    def make_database(self, database, extension):
        """A database with an empty `user_logins`, and with the extension or without it."""
        self.run(f"CREATE DATABASE {database}")
        self.run(TABLE, database)
        if extension:
            self.run("CREATE EXTENSION user_logins_sqs", database)

    def empty(self, database, *tables):
        """Empties `tables` and writes out what the last run left to be written, so that the next one need not."""
        self.run(f"TRUNCATE {', '.join(tables)}", database)
        self.run("CHECKPOINT", database)

    def count(self, table, database):
        return self.run(f"SELECT count(*) FROM {table}", database)[0][0]


@contextlib.contextmanager
def running(settings=None):
    """A cluster with `settings` beside our own, that runs as long as the `with` block."""
    programs = pathlib.Path(program_folder())
    with folder_of_the_server() as folder:
        data = folder / "data"
        as_server = server_user()
        subprocess.run(
            [*as_server, programs / "initdb", "--pgdata", data, "--username", "postgres", "--auth", "trust",
             "--no-sync", "--encoding", "UTF8", "--locale", "C.UTF-8"],
            check=True, stdout=subprocess.DEVNULL,
        )  # fmt: skip
        all_settings = SETTINGS | {"unix_socket_directories": folder} | (settings or {})
        with (data / "postgresql.conf").open("a") as configuration:
            configuration.writelines(f"{name} = '{value}'\n" for name, value in all_settings.items())
        log = folder / "log"
        with log.open("w") as output:
            server = process.start([*as_server[1:], programs / "postgres", "-D", data], stdout=output, stderr=output)
        try:
            cluster = Cluster(folder)
            wait_until_ready(cluster, server, log)
            yield cluster
        finally:
            process.stop(server, signal.SIGINT)


@contextlib.contextmanager
def folder_of_the_server():
    folder = pathlib.Path(tempfile.mkdtemp(prefix="user_logins_sqs-bench-"))
    try:
        if os.geteuid() == 0:
            shutil.chown(folder, "postgres", "postgres")
        yield folder
    finally:
        shutil.rmtree(folder, ignore_errors=True)


def program_folder():
    pg_config = os.environ.get("PG_CONFIG", "/usr/lib/postgresql/15/bin/pg_config")
    return subprocess.check_output([pg_config, "--bindir"], text=True).strip()


def server_user():
    """Postgres refuses to run as root, and then runs as the user postgres. The first word is the program."""
    if os.geteuid() == 0:
        return ["setpriv", "--reuid=postgres", "--regid=postgres", "--init-groups"]
    return ["setpriv"]


def wait_until_ready(cluster, server, log):
    for _ in range(300):
        try:
            cluster.run("SELECT 1")
            return
        except psycopg.OperationalError:
            if server.poll() is not None:
                break
            time.sleep(0.1)
    raise RuntimeError(f"Postgres did not start:\n{log.read_text()}")
