CREATE TABLE sqs_ledger (
    sent_at    timestamptz NOT NULL,
    message_id uuid        NOT NULL,
    PRIMARY KEY (sent_at, message_id)
);

COMMENT ON TABLE sqs_ledger IS
    'Messages that have become rows of user_logins, so that a redelivered one never makes a second row';
COMMENT ON COLUMN sqs_ledger.sent_at IS 'SentTimestamp of the message';
COMMENT ON COLUMN sqs_ledger.message_id IS 'MessageId of the message';

CREATE TABLE sqs_rejected (
    queue_url     text        NOT NULL,
    message_id    text        NOT NULL,
    reason        text        NOT NULL,
    sqlstate      text        NOT NULL,
    times_seen    bigint      NOT NULL,
    first_seen    timestamptz NOT NULL DEFAULT pg_catalog.clock_timestamp(),
    last_seen     timestamptz NOT NULL DEFAULT pg_catalog.clock_timestamp(),
    message_group text,
    visible_at    timestamptz,
    PRIMARY KEY (queue_url, message_id)
);

-- For pruning.
CREATE INDEX ON sqs_rejected (last_seen);

COMMENT ON TABLE sqs_rejected IS
    'Messages that could not become rows of user_logins, and why. Holds nothing of their bodies';
COMMENT ON COLUMN sqs_rejected.queue_url IS 'Queue that the message was received from';
COMMENT ON COLUMN sqs_rejected.message_id IS 'MessageId of the message';
COMMENT ON COLUMN sqs_rejected.reason IS 'Field and rule that it breaks, or what user_logins refused, as last seen';
COMMENT ON COLUMN sqs_rejected.sqlstate IS 'SQLSTATE of the reason';
COMMENT ON COLUMN sqs_rejected.times_seen IS 'How many times it was received and rejected';
COMMENT ON COLUMN sqs_rejected.first_seen IS 'When it was rejected first';
COMMENT ON COLUMN sqs_rejected.last_seen IS 'When it was rejected last';
COMMENT ON COLUMN sqs_rejected.message_group IS
    'Group of a FIFO queue that waits for the message; NULL if none does, or none does any more';
COMMENT ON COLUMN sqs_rejected.visible_at IS
    'About when SQS hands it out again or moves it to the dead-letter queue; NULL if it was deleted';

SELECT pg_catalog.pg_extension_config_dump('sqs_ledger', '');
SELECT pg_catalog.pg_extension_config_dump('sqs_rejected', '');

-- user_logins belongs to its users, not to the extension: DROP EXTENSION keeps it and pg_dump dumps it. A restore
-- of such a dump runs CREATE EXTENSION first and makes the table itself. Every dump sets row_security at its top,
-- which hardly anybody else does.
DO $$
BEGIN
    IF pg_catalog.to_regclass('@extschema@.user_logins') IS NULL
       AND NOT EXISTS (
           SELECT FROM pg_catalog.pg_settings
           WHERE name OPERATOR(pg_catalog.=) 'row_security' AND source OPERATOR(pg_catalog.=) 'session'
       ) THEN
        CREATE TABLE @extschema@.user_logins (
            user_id          varchar(128),
            device_type      varchar(32),
            masked_ip        varchar(256),
            masked_device_id varchar(256),
            locale           varchar(32),
            app_version      integer,
            create_date      date
        );
        COMMENT ON TABLE @extschema@.user_logins IS 'Logins, one row a message, ip and device_id masked';
        ALTER EXTENSION user_logins_sqs DROP TABLE @extschema@.user_logins;
    END IF;
END
$$;
