\set QUIET on
\setenv QUEUE :queue
\setenv SENT :folder/sent

CREATE EXTENSION user_logins_sqs;

\echo
\echo '-- What stands between this server and the queue? Nothing but what a demo can do without.'
SELECT "check", status, detail FROM sqs_check(:'queue') WHERE status <> 'ok';

\echo '-- What an ingest would make of the next messages, which stay in the queue.'
SELECT message_id, left(masked_ip, 12) || '…' AS masked_ip, app_version, create_date, known, reason, bytes
  FROM sqs_peek(:'queue', 3);

\echo '-- Up to 2,000 messages: receive, mask, insert, commit, delete.'
\timing on
SELECT sqs_ingest(:'queue', 2000);
\timing off

SELECT user_id, device_type, left(masked_ip, 12) || '…' AS masked_ip,
       left(masked_device_id, 12) || '…' AS masked_device_id, locale, app_version, create_date
  FROM user_logins LIMIT 5;

SELECT count(*), count(DISTINCT user_id) AS users FROM user_logins;

\echo '-- The malformed message is not in the table; it is told of here, without its values.'
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
\! scripts/demo/queue "$QUEUE" send 2 >"$SENT" &

\echo '-- Another 1,001 messages are being sent; the statistics move.'
\set look 'SELECT received, inserted, duplicates, rejected, deleted, lag_p50, workers, state FROM sqs_stat;'
:look
\! sleep 1
:look
\! sleep 1
:look
\! scripts/demo/queue "$QUEUE" count 2
:look
SELECT count(*) FROM user_logins;
