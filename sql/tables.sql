-- A ring of days: each day of sending has its leaf, and 32 days later the same one again. It is made once, since
-- making partitions at run time would wait for, and hold up, every session with a transaction open; and a dump of
-- partitions that are made later does not restore. What is older than user_logins_sqs.ledger_retention, 30 days at
-- most, is truncated, a leaf at a time.
CREATE TABLE sqs_ledger (
    sent_at    timestamptz NOT NULL,
    message_id uuid        NOT NULL
) PARTITION BY LIST ((EXTRACT(day FROM sent_at - '2000-01-01 00:00:00+00'::timestamptz)::integer & 31));

COMMENT ON TABLE sqs_ledger IS
    'Messages that have become rows of user_logins, so that a redelivered one never makes a second row';
COMMENT ON COLUMN sqs_ledger.sent_at IS 'SentTimestamp of the message';
COMMENT ON COLUMN sqs_ledger.message_id IS 'MessageId of the message';

-- Entries are only ever inserted, and go by TRUNCATE: there is nothing to vacuum but what was rolled back.
DO $$
DECLARE
    leaf text;
BEGIN
    FOR day IN 0..31 LOOP
        leaf := pg_catalog.format('%s.sqs_ledger_%s', '@extschema@', pg_catalog.lpad(day::text, 2, '0'));
        EXECUTE pg_catalog.format(
            'CREATE TABLE %s PARTITION OF %s.sqs_ledger (PRIMARY KEY (sent_at, message_id)) FOR VALUES IN (%s)
             WITH (autovacuum_vacuum_insert_threshold = -1)', leaf, '@extschema@', day);
        EXECUTE pg_catalog.format(
            'COMMENT ON TABLE %s IS %L',
            leaf, pg_catalog.format('Days of the ledger whose number modulo 32 is %s', day));
        PERFORM pg_catalog.pg_extension_config_dump(leaf::pg_catalog.regclass, '');
    END LOOP;
END
$$;

CREATE TABLE sqs_rejected (
    queue_url     text        NOT NULL,
    message_id    text        NOT NULL,
    reason        text        NOT NULL,
    sqlstate      text        NOT NULL,
    times_seen    bigint      NOT NULL,
    first_seen    timestamptz NOT NULL,
    last_seen     timestamptz NOT NULL,
    message_group text,
    visible_at    timestamptz,
    PRIMARY KEY (queue_url, message_id)
) WITH (fillfactor = 80, autovacuum_vacuum_scale_factor = 0.05);

-- For pruning, and for the groups that wait.
CREATE INDEX ON sqs_rejected (last_seen);
CREATE INDEX ON sqs_rejected (queue_url, message_group) WHERE message_group IS NOT NULL;

COMMENT ON TABLE sqs_rejected IS
    'Messages that could not become rows of user_logins, and why. Holds nothing of their bodies';
COMMENT ON COLUMN sqs_rejected.queue_url IS 'Queue that the message was received from';
COMMENT ON COLUMN sqs_rejected.message_id IS 'MessageId of the message';
COMMENT ON COLUMN sqs_rejected.reason IS 'Field and rule that it breaks, or what user_logins refused, as last seen';
COMMENT ON COLUMN sqs_rejected.sqlstate IS 'SQLSTATE of the reason';
COMMENT ON COLUMN sqs_rejected.times_seen IS 'How many times it was received and rejected';
COMMENT ON COLUMN sqs_rejected.first_seen IS 'When it was first rejected';
COMMENT ON COLUMN sqs_rejected.last_seen IS 'When it was last rejected';
COMMENT ON COLUMN sqs_rejected.message_group IS
    'FIFO group that waits for the message; NULL if none does';
COMMENT ON COLUMN sqs_rejected.visible_at IS
    'About when SQS hands it out again or moves it to the dead-letter queue; NULL if it was deleted';

SELECT pg_catalog.pg_extension_config_dump('sqs_rejected', '');

-- Two sessions never write the same key, so none waits for the other's transaction.
CREATE TABLE sqs_queue (
    queue_url         text        NOT NULL,
    recorded          timestamptz NOT NULL DEFAULT pg_catalog.clock_timestamp(),
    message_retention interval,
    PRIMARY KEY (queue_url, recorded)
);

COMMENT ON TABLE sqs_queue IS
    'Queues whose messages the ledger remembers, and for how long they may hand them out again: it need not '
    'remember for longer';
COMMENT ON COLUMN sqs_queue.queue_url IS 'URL of the queue';
COMMENT ON COLUMN sqs_queue.recorded IS 'When this was recorded';
COMMENT ON COLUMN sqs_queue.message_retention IS
    'Retention period of the queue then, or of its dead-letter queue if that is longer; NULL: messages were '
    'ingested on that day';

SELECT pg_catalog.pg_extension_config_dump('sqs_queue', '');
