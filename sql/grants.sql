REVOKE ALL ON FUNCTION sqs_ingest(text, integer, integer) FROM PUBLIC;
REVOKE ALL ON PROCEDURE sqs_drain(text, integer, bigint) FROM PUBLIC;

REVOKE ALL ON FUNCTION sqs_subscribe(text, integer) FROM PUBLIC;
REVOKE ALL ON FUNCTION sqs_unsubscribe(text) FROM PUBLIC;
REVOKE ALL ON FUNCTION sqs_subscription_changed() FROM PUBLIC;
REVOKE ALL ON FUNCTION sqs_subscription_stamp() FROM PUBLIC;
REVOKE ALL ON FUNCTION sqs_subscription_check_role() FROM PUBLIC;
REVOKE ALL ON FUNCTION sqs_prune(bigint) FROM PUBLIC;
REVOKE ALL ON FUNCTION sqs_masks(text) FROM PUBLIC;
REVOKE ALL ON FUNCTION sqs_check(text) FROM PUBLIC;
REVOKE ALL ON FUNCTION sqs_peek(text, integer) FROM PUBLIC;
REVOKE ALL ON FUNCTION sqs_forget(text) FROM PUBLIC;
REVOKE ALL ON FUNCTION sqs_vault_deleted() FROM PUBLIC;

COMMENT ON FUNCTION sqs_ingest(text, integer, integer) IS
    'Receive up to n messages from an SQS queue, insert them into user_logins, return the number of rows';
COMMENT ON PROCEDURE sqs_drain(text, integer, bigint) IS
    'Receive from an SQS queue until it is empty and insert into user_logins, committing after each batch';
COMMENT ON FUNCTION sqs_subscribe(text, integer) IS
    'Start background workers that ingest from an SQS queue as the current role';
COMMENT ON FUNCTION sqs_unsubscribe(text) IS 'End a subscription';
COMMENT ON FUNCTION sqs_subscription_changed() IS 'Trigger function: tells the launcher when a change is committed';
COMMENT ON FUNCTION sqs_subscription_stamp() IS
    'Trigger function: sets installation to the number of this installation';
COMMENT ON FUNCTION sqs_subscription_check_role() IS
    'Trigger function: checks that the writer is a member of the role that a row names';
COMMENT ON FUNCTION sqs_prune(bigint) IS
    'Remove days of the ledger and rejections older than user_logins_sqs.ledger_retention, and what the vault has '
    'not seen for vault_retention; return the number of ledger entries';
COMMENT ON FUNCTION sqs_masks(text) IS
    'Masks that an ip or device_id has here: under the current key, under older ones, and without a key';
COMMENT ON FUNCTION sqs_check(text) IS
    'Check everything that ingesting needs, one row per check, without receiving messages';
COMMENT ON FUNCTION sqs_peek(text, integer) IS
    'Show the rows that an ingest would make of the next messages of an SQS queue, and release them';
COMMENT ON FUNCTION sqs_forget(text) IS
    'Delete what the vault has of an ip or a device_id, return the number of entries';
COMMENT ON FUNCTION sqs_vault_deleted() IS
    'Trigger function: makes sessions forget which vault entries they know';
COMMENT ON FUNCTION sqs_check_user_logins() IS
    'Raise an error if user_logins cannot take rows from the current user, as every ingest does before it receives';

-- A table that is there is adopted; it, or a database whose text is not UTF-8, is refused with a message that says why.
SELECT @extschema@.sqs_create_user_logins();
DROP FUNCTION @extschema@.sqs_create_user_logins();
SELECT @extschema@.sqs_check_user_logins();
