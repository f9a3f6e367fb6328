"""Receiving alone, inserting alone, and both together as `sqs_ingest` does them."""

import time

import process
from run import Run
from ways import EXTENSION

# The rows of the last run in chunks of arrays, as the extension hands them to Postgres.
MAKE_CHUNKS = """
CREATE TABLE chunks AS
SELECT array_agg(sent_at ORDER BY sent_at) AS sent_at, array_agg(gen_random_uuid()) AS message_id,
       array_agg(user_id) AS user_id, array_agg(device_type) AS device_type, array_agg(masked_ip) AS masked_ip,
       array_agg(masked_device_id) AS masked_device_id, array_agg(locale) AS locale,
       array_agg(app_version) AS app_version, array_agg(create_date) AS create_date
FROM (SELECT *, row_number() OVER () AS number, now() + row_number() OVER () * interval '1 ms' AS sent_at
      FROM user_logins) AS numbered
GROUP BY (number - 1) / 1000 ORDER BY min(number)
"""

# The statements of the extension, run by PL/pgSQL, which keeps their plans as the extension does.
INSERT_CHUNKS = """
DO $$
DECLARE
    chunk chunks;
BEGIN
    FOR chunk IN SELECT * FROM chunks LOOP
        INSERT INTO sqs_ledger (sent_at, message_id)
        SELECT * FROM unnest(chunk.sent_at, chunk.message_id) ON CONFLICT DO NOTHING;
        INSERT INTO user_logins
            (user_id, device_type, masked_ip, masked_device_id, locale, app_version, create_date)
        SELECT * FROM unnest(chunk.user_id, chunk.device_type, chunk.masked_ip, chunk.masked_device_id,
                             chunk.locale, chunk.app_version, chunk.create_date);
    END LOOP;
END
$$
"""


def make_chunks(ways):
    """Keeps the rows of the last run for `insert_alone`."""
    ways.cluster.run("DROP TABLE IF EXISTS chunks", EXTENSION)
    ways.cluster.run(MAKE_CHUNKS, EXTENSION)


def insert_alone(ways):
    """Ledger and rows from a table of arrays, in one transaction: no queue, no network, no hashing."""
    ways.cluster.empty(EXTENSION, "user_logins", "sqs_ledger")
    with ways.cluster.connect(EXTENSION) as connection:
        pid = connection.info.backend_pid
        before = process.cpu(pid)
        started = time.monotonic()
        connection.execute(INSERT_CHUNKS)
        seconds = time.monotonic() - started
        backend = process.cpu(pid) - before
    return Run(ways.messages, seconds, {"backend": 1e6 * backend / ways.messages})


def hidden(receive, insert, together):
    """Which share of the shorter of `receive` and `insert` (seconds) costs no time, since the longer runs meanwhile."""
    return (receive + insert - together) / min(receive, insert)
