//! The ledger keeps what it should, for as long as it should.

#[pgrx::pg_schema]
mod tests {
    use pgrx::prelude::*;

    #[pg_test]
    fn pruning_deletes_what_is_older_than_the_retention_and_no_more() {
        Spi::run(
            "INSERT INTO sqs_ledger SELECT now() - n * interval '1 day', gen_random_uuid() \
             FROM generate_series(0, 29) n",
        )
        .unwrap();
        assert_eq!(Spi::get_one("SELECT sqs_prune(10)").unwrap(), Some(10i64));
        assert_eq!(Spi::get_one("SELECT sqs_prune()").unwrap(), Some(4i64));
        assert_eq!(Spi::get_one("SELECT sqs_prune()").unwrap(), Some(0i64));
        assert_eq!(
            Spi::get_one("SELECT count(*) FROM sqs_ledger").unwrap(),
            Some(16i64)
        );
    }

    #[pg_test(error = "max_entries is out of range: 0")]
    fn pruning_nothing_is_an_error() {
        Spi::run("SELECT sqs_prune(0)").unwrap();
    }
}
