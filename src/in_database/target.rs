//! Which `user_logins` are taken, and what is said of the others.

#[pgrx::pg_schema]
mod tests {
    use pgrx::prelude::*;

    use crate::errors::Failure;
    use crate::ingest::target::check_current;

    fn problem(change: &str) -> Option<String> {
        Spi::run(change).unwrap();
        match check_current() {
            Ok(()) => None,
            Err(Failure::Misshapen { problem, .. }) => Some(problem),
            Err(other) => Some(format!("{other:?}")),
        }
    }

    #[pg_test]
    fn what_create_extension_made_is_taken() {
        assert_eq!(problem("SELECT"), None);
    }

    #[pg_test]
    fn more_columns_are_taken_if_they_fill_themselves() {
        assert_eq!(
            problem(
                "ALTER TABLE user_logins ADD id bigserial, ADD seen timestamptz NOT NULL DEFAULT now(), ADD note text"
            ),
            None
        );
        let said = problem("ALTER TABLE user_logins ADD tenant int NOT NULL").unwrap();
        assert_eq!(said, "Column \"tenant\" is NOT NULL and has no default.");
    }

    #[pg_test]
    fn wider_types_are_taken_and_narrower_ones_are_not() {
        assert_eq!(
            problem(
                "ALTER TABLE user_logins ALTER user_id TYPE text, ALTER app_version TYPE bigint"
            ),
            None
        );
        let said = problem("ALTER TABLE user_logins ALTER masked_ip TYPE varchar(63)").unwrap();
        assert!(said.contains("masked_ip"), "{said}");
    }

    #[pg_test]
    fn a_missing_column_is_named() {
        let said = problem("ALTER TABLE user_logins DROP locale").unwrap();
        assert_eq!(said, "Column \"locale\" is missing.");
    }

    #[pg_test]
    fn a_missing_table_is_told() {
        let said = problem("DROP TABLE user_logins").unwrap();
        assert!(said.starts_with("NoTable"), "{said}");
    }

    #[pg_test]
    fn a_view_is_taken_if_it_takes_rows() {
        Spi::run("ALTER TABLE user_logins RENAME TO behind").unwrap();
        assert_eq!(
            problem("CREATE VIEW user_logins AS SELECT * FROM behind"),
            None
        );
        Spi::run("DROP VIEW user_logins").unwrap();
        let said = problem("CREATE VIEW user_logins AS SELECT * FROM behind LIMIT 1").unwrap();
        assert_eq!(said, "Rows cannot be inserted into it.");
    }

    #[pg_test]
    fn the_caller_needs_insert_on_our_columns_and_nothing_more() {
        Spi::run("CREATE ROLE app; GRANT EXECUTE ON FUNCTION sqs_check_user_logins() TO app")
            .unwrap();
        Spi::run("SET ROLE app").unwrap();
        assert!(problem("SELECT").unwrap().starts_with("NoInsertRight"));
        Spi::run("RESET ROLE").unwrap();
        Spi::run(
            "GRANT INSERT (user_id, device_type, masked_ip, masked_device_id, locale, app_version, create_date) \
             ON user_logins TO app",
        )
        .unwrap();
        assert_eq!(problem("SET ROLE app"), None);
    }
}
