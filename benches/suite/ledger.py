"""`sqs_ingest` with a ledger that is full of other messages, against an empty one; and what it takes to forget them."""

import threading
import time

from ways import EXTENSION

FULL = "with_full_ledger"

# As two weeks of messages leave it: a leaf for each day, today's as full as the others.
FILL = """
INSERT INTO sqs_ledger (sent_at, message_id)
SELECT now() - (%d - number) * interval '13 days' / %d, gen_random_uuid()
FROM generate_series(1, %d) AS number
"""

LEAF_OF_TODAY = """
SELECT format('sqs_ledger_%s', lpad(((now() AT TIME ZONE 'UTC')::date - '2000-01-01' & 31)::text, 2, '0'))
"""


def make(cluster, entries):
    """A database whose ledger holds `entries`."""
    cluster.make_database(FULL, extension=True)
    cluster.run(FILL % (entries, entries, entries), FULL)
    cluster.run("VACUUM (ANALYZE) sqs_ledger", FULL)
    cluster.run("CHECKPOINT", FULL)


def end_of_day(ways):
    """Today's leaf is as full as it gets."""
    return {
        "empty ledger": lambda: ways.sqs_ingest(0, database=EXTENSION),
        "full ledger, at the end of a day": lambda: ways.sqs_ingest(0, database=FULL, keep_ledger=True),
    }


def after_midnight(ways):
    """Today's leaf is empty, and all the others are full."""

    def ingest():
        ways.cluster.run(f"TRUNCATE {ways.cluster.run(LEAF_OF_TODAY, FULL)[0][0]}", FULL)
        return ways.sqs_ingest(0, database=FULL, keep_ledger=True)

    return {
        "empty ledger": lambda: ways.sqs_ingest(0, database=EXTENSION),
        "full ledger, just after midnight": ingest,
    }


class Expiry:
    """What it took to forget a full ledger while others went on."""

    def __init__(self, entries, seconds, longest_wait, megabytes_left):
        self.entries = entries
        self.seconds = seconds
        self.longest_wait = longest_wait
        self.megabytes_left = megabytes_left


def expire(cluster):
    """Has all leaves but today's expire, while another session enters messages of today and of the days that expire."""
    entries = cluster.count("sqs_ledger", FULL)
    waits = []
    is_over = threading.Event()

    def enter():
        with cluster.connect(FULL) as connection:
            day = 0
            while not is_over.is_set():
                begun = time.monotonic()
                day = (day + 1) % 14
                connection.execute(
                    "INSERT INTO sqs_ledger VALUES (now() - %s * interval '1 day', gen_random_uuid())", (day,)
                )
                waits.append(time.monotonic() - begun)

    other = threading.Thread(target=enter)
    with cluster.connect(FULL) as connection:
        # A session knows the settings after its first call.
        connection.execute("LOAD 'user_logins_sqs'")
        connection.execute("ALTER SYSTEM SET user_logins_sqs.ledger_retention = '1min'")
        connection.execute("SELECT pg_reload_conf()")
        other.start()
        time.sleep(1)
        begun = time.monotonic()
        connection.execute("SELECT sqs_prune()")
        # What the other session wrote to at that moment was left for the next round.
        connection.execute("SELECT sqs_prune()")
        seconds = time.monotonic() - begun
        is_over.set()
        other.join()
        connection.execute("ALTER SYSTEM RESET user_logins_sqs.ledger_retention")
        connection.execute("SELECT pg_reload_conf()")
        left = "SELECT sum(pg_total_relation_size(relid)) / 1000000 FROM pg_partition_tree('sqs_ledger') WHERE isleaf"
        megabytes = float(connection.execute(left).fetchone()[0])
    return Expiry(entries, seconds, max(waits), megabytes)
