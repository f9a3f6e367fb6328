CREATE EXTENSION pg_cron;
CREATE EXTENSION user_logins_sqs;
