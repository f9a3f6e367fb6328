CREATE TABLE sqs_vault (
    mask       text COLLATE "C" PRIMARY KEY,
    kind       text             NOT NULL,
    key_id     uuid             NOT NULL,
    sealed     bytea            NOT NULL,
    first_seen date             NOT NULL,
    last_seen  date             NOT NULL
);

-- For pruning: data keys that seal nothing any more, and entries, one data key after the other.
CREATE INDEX ON sqs_vault (key_id, last_seen);

-- What is encrypted cannot be compressed.
ALTER TABLE sqs_vault ALTER COLUMN sealed SET STORAGE EXTERNAL;
-- Values that are seen again are updated once a day. A vacuum in small steps keeps the indexes small.
ALTER TABLE sqs_vault SET (autovacuum_vacuum_scale_factor = 0.05);

COMMENT ON TABLE sqs_vault IS
    'Originals of masked values, sealed with public keys, one row a value. The private keys are not on the server';
COMMENT ON COLUMN sqs_vault.mask IS 'Mask of the value: equals user_logins.masked_ip or masked_device_id';
COMMENT ON COLUMN sqs_vault.kind IS 'Field that the value is from: ip or device_id';
COMMENT ON COLUMN sqs_vault.key_id IS 'Data key that it is sealed with, in sqs_vault_key';
COMMENT ON COLUMN sqs_vault.sealed IS 'The value, sealed';
COMMENT ON COLUMN sqs_vault.first_seen IS 'Day (UTC) of the login that brought it';
COMMENT ON COLUMN sqs_vault.last_seen IS 'Last day (UTC) on which there was a login with it';

CREATE TABLE sqs_vault_key (
    key_id     uuid        PRIMARY KEY,
    wrapped    bytea       NOT NULL,
    recipients text[]      NOT NULL,
    created    timestamptz NOT NULL
);

COMMENT ON TABLE sqs_vault_key IS
    'Data keys that values in sqs_vault are sealed with, each wrapped: encrypted for its recipients';
COMMENT ON COLUMN sqs_vault_key.key_id IS 'Identifies the data key; computed from it';
COMMENT ON COLUMN sqs_vault_key.wrapped IS 'An age file that holds the data key';
COMMENT ON COLUMN sqs_vault_key.recipients IS 'Public keys that it is wrapped for';
COMMENT ON COLUMN sqs_vault_key.created IS 'When the data key was made';

SELECT pg_catalog.pg_extension_config_dump('sqs_vault', '');
SELECT pg_catalog.pg_extension_config_dump('sqs_vault_key', '');

-- ALWAYS: for a TRUNCATE that logical replication brings, and for sessions that restore with
-- session_replication_role = replica.
CREATE TRIGGER deleted
    AFTER DELETE OR TRUNCATE OR UPDATE OF mask ON sqs_vault
    FOR EACH STATEMENT EXECUTE FUNCTION sqs_vault_deleted();
ALTER TABLE sqs_vault ENABLE ALWAYS TRIGGER deleted;

-- Logical replication applies DELETE and UPDATE row by row, and fires no statement triggers for them. REPLICA: where
-- there are statements, the trigger above is enough, and pruning does not pay for one call a row.
CREATE TRIGGER deleted_by_replication
    AFTER DELETE OR UPDATE OF mask ON sqs_vault
    FOR EACH ROW EXECUTE FUNCTION sqs_vault_deleted();
ALTER TABLE sqs_vault ENABLE REPLICA TRIGGER deleted_by_replication;
