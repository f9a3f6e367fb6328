\set QUIET on
\setenv QUEUE :queue
\setenv SENT :folder/sent

\set ECHO none
CREATE PROCEDURE pg_temp.wait_until(condition text) LANGUAGE plpgsql AS $$
DECLARE
  deadline timestamptz := clock_timestamp() + interval '2 minutes';
  holds boolean;
BEGIN
  LOOP
    EXECUTE 'SELECT ' || condition INTO holds;
    EXIT WHEN holds;
    IF clock_timestamp() > deadline THEN
      RAISE EXCEPTION 'still not true after 2 minutes: %', condition;
    END IF;
    PERFORM pg_sleep(0.05);
  END LOOP;
END $$;
\set ECHO queries

CREATE EXTENSION user_logins_sqs;

\echo
\echo '-- What stands between this server and the queue? Nothing but what a demo can do without.'
SELECT "check", status, detail FROM sqs_check(:'queue') WHERE status <> 'ok';

\echo
\echo '-- What an ingest would make of the next messages, which stay in the queue.'
SELECT message_id, left(masked_ip, 12) || '…' AS masked_ip, app_version, create_date, known, reason, bytes
  FROM sqs_peek(:'queue', 3);

\echo
\echo '-- What is rolled back is back in the queue at once.'
BEGIN;
SELECT sqs_ingest(:'queue', 5);
ROLLBACK;

\echo
\echo '-- Up to 2,000 messages: receive, mask, insert, commit, delete.'
\timing on
SELECT sqs_ingest(:'queue', 2000);
\timing off

SELECT user_id, device_type, left(masked_ip, 12) || '…' AS masked_ip,
       left(masked_device_id, 12) || '…' AS masked_device_id, locale, app_version, create_date
  FROM user_logins LIMIT 5;

SELECT count(*), count(DISTINCT user_id) AS users FROM user_logins;

\echo '-- The message of another type is not in the table. It is recorded without its values:'
\x on
SELECT * FROM sqs_rejected;
\x off

\echo '-- It alone stays in the queue, until the queue hands it to its dead-letter queue.'
\! scripts/demo/queue "$QUEUE" count 1

\echo
\echo '-- Once more: nothing new, so no row.'
SELECT sqs_ingest(:'queue', 2000);
SELECT count(*) FROM user_logins;

\echo '-- By itself: a subscription, and a background worker ingests whatever is sent from now on.'
SELECT sqs_subscribe(:'queue');
\set ECHO none
CALL pg_temp.wait_until('EXISTS (SELECT FROM sqs_stat WHERE state IS NOT NULL)');
\set ECHO queries

\echo '-- Another 1,001 messages are being sent; the statistics move.'
\! scripts/demo/queue "$QUEUE" send 2 >"$SENT" &
\set look 'SELECT received, inserted, duplicates, rejected, deleted, lag_p50, workers, state FROM sqs_stat;'
:look
\! sleep 1
:look
\! sleep 1
:look
\set ECHO none
CALL pg_temp.wait_until('(SELECT deleted >= 2000 FROM sqs_stat)');
\set ECHO queries
:look
SELECT count(*) FROM user_logins;
