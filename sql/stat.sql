CREATE VIEW sqs_stat AS
    SELECT queue_url, received, inserted, duplicates, rejected, deleted, delete_failures, errors, last_error,
           last_error_at, last_commit, lag_p50, lag_p99, workers, state, reason, backlog, backlog_at, stats_reset
    FROM sqs_stat_get_queues();

COMMENT ON VIEW sqs_stat IS
    'What became of the messages of each queue, as sqs_ingest, sqs_drain and workers in this database have counted, '
    'and what its workers do';
COMMENT ON COLUMN sqs_stat.queue_url IS 'URL of the queue';
COMMENT ON COLUMN sqs_stat.received IS 'Messages received, whether or not the transaction committed';
COMMENT ON COLUMN sqs_stat.inserted IS 'Rows committed to user_logins';
COMMENT ON COLUMN sqs_stat.duplicates IS 'Messages that were in the ledger already, in transactions that committed';
COMMENT ON COLUMN sqs_stat.rejected IS 'Messages that could not become rows, in transactions that committed';
COMMENT ON COLUMN sqs_stat.deleted IS 'Messages deleted from the queue';
COMMENT ON COLUMN sqs_stat.delete_failures IS 'Messages that could not be deleted; they come back as duplicates';
COMMENT ON COLUMN sqs_stat.errors IS 'Calls and batches of workers that failed';
COMMENT ON COLUMN sqs_stat.last_error IS 'Message of the last error, cut to 255 bytes';
COMMENT ON COLUMN sqs_stat.last_error_at IS 'When the last error happened';
COMMENT ON COLUMN sqs_stat.last_commit IS 'When messages of the queue were last committed';
COMMENT ON COLUMN sqs_stat.lag_p50 IS
    'Time from SentTimestamp to commit that half of the inserted rows did not exceed: upper bound of a bucket of '
    'sqs_stat_lag';
COMMENT ON COLUMN sqs_stat.lag_p99 IS
    'Time from SentTimestamp to commit that 99 percent of the inserted rows did not exceed, likewise';
COMMENT ON COLUMN sqs_stat.workers IS 'Background workers that run for the queue now';
COMMENT ON COLUMN sqs_stat.state IS
    'What they do: idle, running, retrying after an error, paused because user_logins refuses everything. Of a '
    'subscription without workers: waiting because none can be started, disabled, resting because it was made in '
    'another installation';
COMMENT ON COLUMN sqs_stat.reason IS
    'Why fewer workers run than the subscription asks for; NULL if there is no known reason';
COMMENT ON COLUMN sqs_stat.backlog IS
    'Approximate number of messages waiting in the queue at backlog_at; NULL if it has no subscription or its '
    'attributes cannot be read';
COMMENT ON COLUMN sqs_stat.backlog_at IS
    'When the queue was asked: once a minute at most, where the server may call GetQueueAttributes';
COMMENT ON COLUMN sqs_stat.stats_reset IS
    'Start of counting: first use since server start, or the last sqs_stat_reset()';

CREATE VIEW sqs_stat_lag AS
    SELECT queue_url, le, count, sum
    FROM sqs_stat_get_lags();

COMMENT ON VIEW sqs_stat_lag IS
    'How many inserted rows of each queue took how long from SentTimestamp to commit: a histogram, in the form of '
    'Prometheus, of which buckets without a row are left out';
COMMENT ON COLUMN sqs_stat_lag.queue_url IS 'URL of the queue';
COMMENT ON COLUMN sqs_stat_lag.le IS 'Upper bound of the bucket, in seconds; Infinity in the last one of each queue';
COMMENT ON COLUMN sqs_stat_lag.count IS 'Rows in this bucket and all before it: those that took no longer than le';
COMMENT ON COLUMN sqs_stat_lag.sum IS 'Sum of the times of all rows of the queue, in seconds; the same in each bucket';

CREATE VIEW sqs_progress AS
    SELECT pid, queue_url, target, received, inserted, started
    FROM sqs_stat_get_calls();

COMMENT ON VIEW sqs_progress IS 'Calls of sqs_ingest and sqs_drain, and workers, that run in this database now';
COMMENT ON COLUMN sqs_progress.pid IS 'Process, as in pg_stat_activity';
COMMENT ON COLUMN sqs_progress.queue_url IS 'URL of the queue';
COMMENT ON COLUMN sqs_progress.target IS 'Maximum number of messages to receive; NULL if unlimited';
COMMENT ON COLUMN sqs_progress.received IS 'Messages received so far';
COMMENT ON COLUMN sqs_progress.inserted IS 'Rows inserted so far, committed or not';
COMMENT ON COLUMN sqs_progress.started IS 'When the call began';

COMMENT ON FUNCTION sqs_stat_get_queues() IS 'What the view sqs_stat shows';
COMMENT ON FUNCTION sqs_stat_get_lags() IS 'What the view sqs_stat_lag shows';
COMMENT ON FUNCTION sqs_stat_get_calls() IS 'What the view sqs_progress shows';
COMMENT ON FUNCTION sqs_stat_reset() IS 'Set the statistics of all queues in this database to zero';
COMMENT ON FUNCTION sqs_stat_reset(text) IS 'Set the statistics of one queue in this database to zero';

REVOKE ALL ON sqs_stat, sqs_stat_lag, sqs_progress FROM PUBLIC;
REVOKE ALL ON FUNCTION sqs_stat_get_queues(), sqs_stat_get_lags(), sqs_stat_get_calls() FROM PUBLIC;
REVOKE ALL ON FUNCTION sqs_stat_reset(), sqs_stat_reset(text) FROM PUBLIC;
GRANT SELECT ON sqs_stat, sqs_stat_lag, sqs_progress TO pg_monitor;
GRANT EXECUTE ON FUNCTION sqs_stat_get_queues(), sqs_stat_get_lags(), sqs_stat_get_calls() TO pg_monitor;
