REVOKE ALL ON FUNCTION sqs_ingest(text, integer, integer) FROM PUBLIC;
REVOKE ALL ON PROCEDURE sqs_drain(text, integer, bigint) FROM PUBLIC;

REVOKE ALL ON FUNCTION sqs_subscribe(text, integer) FROM PUBLIC;
REVOKE ALL ON FUNCTION sqs_unsubscribe(text) FROM PUBLIC;
REVOKE ALL ON FUNCTION sqs_subscription_changed() FROM PUBLIC;
REVOKE ALL ON FUNCTION sqs_subscription_restored() FROM PUBLIC;
REVOKE ALL ON FUNCTION sqs_prune(bigint) FROM PUBLIC;
REVOKE ALL ON FUNCTION sqs_forget(text) FROM PUBLIC;
REVOKE ALL ON FUNCTION sqs_vault_deleted() FROM PUBLIC;

COMMENT ON FUNCTION sqs_ingest(text, integer, integer) IS
    'Receive up to n messages from an SQS queue, insert them into user_logins, return the number of rows';
COMMENT ON PROCEDURE sqs_drain(text, integer, bigint) IS
    'Receive from an SQS queue until it is empty and insert into user_logins, committing after each batch';
COMMENT ON FUNCTION sqs_subscribe(text, integer) IS
    'Have background workers ingest from an SQS queue from now on, as the current role';
COMMENT ON FUNCTION sqs_unsubscribe(text) IS 'End a subscription';
COMMENT ON FUNCTION sqs_subscription_changed() IS 'Trigger function: tells the launcher when a change is committed';
COMMENT ON FUNCTION sqs_subscription_restored() IS 'Trigger function: what is restored from a dump is not enabled';
COMMENT ON FUNCTION sqs_prune(bigint) IS
    'Delete what is older than user_logins_sqs.ledger_retention and vault_retention, return the number of ledger entries';
COMMENT ON FUNCTION sqs_forget(text) IS
    'Delete what the vault has of an ip or a device_id, return the number of entries';
COMMENT ON FUNCTION sqs_vault_deleted() IS
    'Trigger function: has sessions no longer rely on entries that they know';
COMMENT ON FUNCTION sqs_check_user_logins() IS
    'Raise an error if user_logins cannot take rows from the current user, as every ingest does before it receives';

-- A table that was there before is adopted; it, or a database whose text is not UTF-8, is refused with a message that
-- says why. In a restore there is no table yet.
DO $$
BEGIN
    PERFORM @extschema@.sqs_check_user_logins();
EXCEPTION
    WHEN undefined_table THEN NULL;
END
$$;
