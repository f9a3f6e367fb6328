//! The ledger keeps what it should, for as long as it should.

#[pgrx::pg_schema]
mod tests {
    use pgrx::prelude::*;

    /// A leaf that somebody else is writing to is not truncated: these tests come one after the other.
    fn alone() {
        Spi::run("SELECT pg_advisory_xact_lock(1)").unwrap();
    }

    fn entries() -> i64 {
        Spi::get_one("SELECT count(*) FROM sqs_ledger")
            .unwrap()
            .unwrap()
    }

    #[pg_test]
    fn pruning_removes_the_days_that_are_older_than_the_retention_and_no_more() {
        alone();
        Spi::run(
            "INSERT INTO sqs_ledger SELECT now() - n * interval '1 day', gen_random_uuid() \
             FROM generate_series(0, 29) n",
        )
        .unwrap();
        assert_eq!(Spi::get_one("SELECT sqs_prune()").unwrap(), Some(14i64));
        assert_eq!(Spi::get_one("SELECT sqs_prune()").unwrap(), Some(0i64));
        assert_eq!(entries(), 16);
    }

    #[pg_test]
    fn a_day_that_shares_its_leaf_with_a_young_one_stays_until_that_is_old() {
        alone();
        Spi::run(
            "INSERT INTO sqs_ledger SELECT now() - n * interval '1 day', gen_random_uuid() \
             FROM unnest(ARRAY[1, 33, 65, 20, 52]) n",
        )
        .unwrap();
        assert_eq!(Spi::get_one("SELECT sqs_prune()").unwrap(), Some(2i64));
        assert_eq!(entries(), 3);
    }

    #[pg_test]
    fn the_longest_retention_leaves_a_day_to_prune_in() {
        alone();
        Spi::run(
            "INSERT INTO sqs_ledger SELECT now() - n * interval '1 day', gen_random_uuid() \
             FROM generate_series(0, 31) n",
        )
        .unwrap();
        let thirty_days = std::time::Duration::from_secs(30 * 24 * 3600);
        assert_eq!(
            crate::ingest::prune(thirty_days, 1, crate::ingest::Counting::Yes).entries,
            1
        );
        assert_eq!(entries(), 31);
    }

    #[pg_test]
    fn a_clock_far_ahead_keeps_no_leaf_for_ever() {
        alone();
        Spi::run(
            "INSERT INTO sqs_ledger SELECT t, gen_random_uuid() \
             FROM (VALUES (now() - interval '20 days'), \
                          (now() - interval '20 days' + 3200 * interval '1 day')) AS v (t)",
        )
        .unwrap();
        assert_eq!(Spi::get_one("SELECT sqs_prune()").unwrap(), Some(2i64));
    }

    #[pg_test]
    fn each_day_has_its_leaf() {
        alone();
        Spi::run(
            "INSERT INTO sqs_ledger \
             SELECT timestamptz '2000-01-01 00:00+00' + n * interval '12 hours', gen_random_uuid() \
             FROM generate_series(0, 7999) n",
        )
        .unwrap();
        let misplaced = "SELECT count(*) FROM sqs_ledger \
             WHERE tableoid::regclass::text \
                <> 'sqs_ledger_' || lpad(((sent_at AT TIME ZONE 'UTC')::date - '2000-01-01' & 31)::text, 2, '0')";
        assert_eq!(Spi::get_one(misplaced).unwrap(), Some(0i64));
        let leaves = "SELECT count(DISTINCT tableoid) FROM sqs_ledger";
        assert_eq!(Spi::get_one(leaves).unwrap(), Some(32i64));
    }

    #[pg_test]
    fn a_ledger_of_another_kind_is_pruned_by_key() {
        alone();
        Spi::run(
            "DO $$ DECLARE part regclass; BEGIN \
               FOR part IN SELECT relid FROM pg_partition_tree('sqs_ledger') LOOP \
                 EXECUTE format('ALTER EXTENSION user_logins_sqs DROP TABLE %s', part); \
               END LOOP; \
             END $$; \
             DROP TABLE sqs_ledger; \
             CREATE TABLE sqs_ledger (sent_at timestamptz, message_id uuid, PRIMARY KEY (message_id, sent_at)) \
               PARTITION BY HASH (message_id); \
             CREATE TABLE half PARTITION OF sqs_ledger FOR VALUES WITH (MODULUS 2, REMAINDER 0); \
             CREATE TABLE other PARTITION OF sqs_ledger FOR VALUES WITH (MODULUS 2, REMAINDER 1); \
             INSERT INTO sqs_ledger SELECT now() - n * interval '1 day', gen_random_uuid() \
             FROM generate_series(0, 29) n",
        )
        .unwrap();
        assert_eq!(Spi::get_one("SELECT sqs_prune(10)").unwrap(), Some(10i64));
        assert_eq!(Spi::get_one("SELECT sqs_prune()").unwrap(), Some(4i64));
        assert_eq!(Spi::get_one("SELECT sqs_prune()").unwrap(), Some(0i64));
        assert_eq!(entries(), 16);
    }

    #[pg_test(error = "max_entries is out of range: 0")]
    fn pruning_nothing_is_an_error() {
        Spi::run("SELECT sqs_prune(0)").unwrap();
    }
}
