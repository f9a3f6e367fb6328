-- The number of this installation is the start value of a sequence: a dump does not carry it, a standby and
-- pg_upgrade do.
DO $$
BEGIN
    EXECUTE pg_catalog.format(
        'CREATE SEQUENCE sqs_installation MINVALUE 0 START WITH %s',
        pg_catalog.hashtextextended(pg_catalog.gen_random_uuid()::pg_catalog.text, 0)
            OPERATOR(pg_catalog.&) 9223372036854775807
    );
END
$$;

COMMENT ON SEQUENCE sqs_installation IS
    'Its start value, drawn at random, is the number of this installation: sqs_subscription.installation';

CREATE TABLE sqs_subscription (
    queue_url    text        PRIMARY KEY,
    role         regrole     NOT NULL,
    workers      integer     NOT NULL DEFAULT 1 CHECK (workers BETWEEN 1 AND 32),
    enabled      boolean     NOT NULL DEFAULT true,
    created      timestamptz NOT NULL DEFAULT pg_catalog.now(),
    installation bigint      NOT NULL
);

COMMENT ON TABLE sqs_subscription IS
    'Queues that background workers ingest from. Changes take effect when they are committed';
COMMENT ON COLUMN sqs_subscription.queue_url IS 'Queue to ingest from';
COMMENT ON COLUMN sqs_subscription.role IS 'Role that subscribed, and that its workers run as';
COMMENT ON COLUMN sqs_subscription.workers IS 'How many workers ingest from the queue';
COMMENT ON COLUMN sqs_subscription.enabled IS 'Whether they do; false pauses the subscription';
COMMENT ON COLUMN sqs_subscription.created IS 'When it was subscribed to';
COMMENT ON COLUMN sqs_subscription.installation IS
    'Number of the installation that carries it out, set by every UPDATE. A row that was restored from a dump or '
    'replicated has that of the original, and does nothing here';

SELECT pg_catalog.pg_extension_config_dump('sqs_subscription', '');

CREATE TRIGGER stamp_installation
    BEFORE INSERT OR UPDATE ON sqs_subscription
    FOR EACH ROW EXECUTE FUNCTION sqs_subscription_stamp();
ALTER TABLE sqs_subscription ENABLE ALWAYS TRIGGER stamp_installation;

-- A constraint trigger, since a role that was granted TRIGGER cannot replace those (CREATE OR REPLACE TRIGGER).
CREATE CONSTRAINT TRIGGER check_role
    AFTER INSERT OR UPDATE ON sqs_subscription
    NOT DEFERRABLE
    FOR EACH ROW EXECUTE FUNCTION sqs_subscription_check_role();

CREATE TRIGGER wake_launcher
    AFTER INSERT OR UPDATE OR DELETE OR TRUNCATE ON sqs_subscription
    FOR EACH STATEMENT EXECUTE FUNCTION sqs_subscription_changed();
