"""`sqs_ingest` with a ledger that is full of other messages, against an empty one."""

from ways import EXTENSION

FULL = "with_full_ledger"

# As two weeks of messages leave it.
FILL = """
INSERT INTO sqs_ledger (sent_at, message_id)
SELECT now() - interval '1 hour' - (%d - number) * interval '13 days' / %d, gen_random_uuid()
FROM generate_series(1, %d) AS number
"""


def make(cluster, entries):
    """A database whose ledger holds `entries`."""
    cluster.make_database(FULL, extension=True)
    cluster.run(FILL % (entries, entries, entries), FULL)
    cluster.run("VACUUM (ANALYZE) sqs_ledger", FULL)


def scenarios(ways):
    return {
        "empty ledger": lambda: ways.sqs_ingest(0, database=EXTENSION),
        "full ledger": lambda: ways.sqs_ingest(0, database=FULL, keep_ledger=True),
    }
