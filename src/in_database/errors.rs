//! What a subtransaction catches, and what it leaves behind.

#[pgrx::pg_schema]
mod tests {
    use pgrx::prelude::*;

    use crate::ingest::fault::Fault;
    use crate::pg::subtransaction::attempt;

    fn caught(sql: &str) -> (String, bool) {
        match attempt(|| Spi::run(sql)) {
            Ok(_) => panic!("no error"),
            Err(error) => (error.state().to_string(), Fault::of(&error) == Fault::Row),
        }
    }

    #[pg_test]
    fn the_sqlstate_of_a_caught_error_is_whole() {
        let raise = |code: &str| caught(&format!("DO $$ BEGIN RAISE SQLSTATE '{code}'; END $$"));
        assert_eq!(raise("MY001"), ("MY001".to_owned(), true));
        assert_eq!(raise("23514"), ("23514".to_owned(), true));
        assert_eq!(raise("40001"), ("40001".to_owned(), false));
        assert_eq!(caught("SELECT 1/0").0, "22012");
        assert_eq!(caught("SELECT * FROM no_such_table").0, "42P01");
    }

    #[pg_test]
    fn what_failed_is_rolled_back_and_the_rest_stays() {
        Spi::run("CREATE TEMP TABLE kept (n int)").unwrap();
        assert!(attempt(|| Spi::run("INSERT INTO kept VALUES (1)")).is_ok());
        caught("DO $$ BEGIN INSERT INTO kept VALUES (2); RAISE 'no'; END $$");
        assert_eq!(Spi::get_one("SELECT sum(n) FROM kept").unwrap(), Some(1i64));
    }

    #[pg_test]
    fn a_caught_error_within_a_caught_error_is_told_apart() {
        let outer = attempt(|| {
            assert_eq!(caught("SELECT 1/0").0, "22012");
            Spi::run("DO $$ BEGIN RAISE SQLSTATE 'MY002'; END $$")
        });
        assert_eq!(
            outer.map_err(|error| error.state().to_string()).err(),
            Some("MY002".to_owned())
        );
    }
}
