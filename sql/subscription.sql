CREATE TABLE sqs_subscription (
    queue_url text        PRIMARY KEY,
    role      regrole     NOT NULL,
    workers   integer     NOT NULL DEFAULT 1 CHECK (workers BETWEEN 1 AND 32),
    enabled   boolean     NOT NULL DEFAULT true,
    created   timestamptz NOT NULL DEFAULT pg_catalog.now()
);

COMMENT ON TABLE sqs_subscription IS
    'Queues that background workers ingest from. Changes take effect when they are committed';
COMMENT ON COLUMN sqs_subscription.queue_url IS 'Queue to ingest from';
COMMENT ON COLUMN sqs_subscription.role IS 'Role that subscribed, and that its workers run as';
COMMENT ON COLUMN sqs_subscription.workers IS 'How many workers ingest from the queue';
COMMENT ON COLUMN sqs_subscription.enabled IS 'Whether they do; false pauses the subscription';
COMMENT ON COLUMN sqs_subscription.created IS 'When it was subscribed to';

-- A row here runs code as the role that it names: triggers on user_logins. So a right to write all tables, as
-- pg_write_all_data has, is not enough: no policy lets anybody write but the owner, who needs none.
ALTER TABLE sqs_subscription ENABLE ROW LEVEL SECURITY;
CREATE POLICY readable ON sqs_subscription FOR SELECT USING (true);

SELECT pg_catalog.pg_extension_config_dump('sqs_subscription', '');

CREATE TRIGGER wake_launcher
    AFTER INSERT OR UPDATE OR DELETE OR TRUNCATE ON sqs_subscription
    FOR EACH STATEMENT EXECUTE FUNCTION sqs_subscription_changed();

-- As with CREATE SUBSCRIPTION, what is restored from a dump does nothing until it is enabled: a copy of a database must
-- not take the messages of the original. Every dump sets row_security at its top, which hardly anybody else does.
CREATE FUNCTION sqs_subscription_restored() RETURNS trigger LANGUAGE plpgsql SET search_path = pg_catalog, pg_temp AS $$
BEGIN
    IF EXISTS (SELECT FROM pg_settings WHERE name = 'row_security' AND source = 'session') THEN
        NEW.enabled := false;
        RAISE WARNING 'the subscription of queue "%" is restored, but not enabled', NEW.queue_url
            USING HINT = 'To ingest here: UPDATE sqs_subscription SET enabled = true.';
    END IF;
    RETURN NEW;
END
$$;

CREATE TRIGGER restored
    BEFORE INSERT ON sqs_subscription
    FOR EACH ROW WHEN (NEW.enabled)
    EXECUTE FUNCTION sqs_subscription_restored();
