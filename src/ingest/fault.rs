//! Which errors reject a message, and which fail the call: guarantee 3, that one bad message costs one message, and
//! that no message is rejected for what is not its fault.

use pgrx::pg_sys::errcodes::PgSqlErrorCode;

use crate::pg::error::{Caught, SqlState};

/// Whose fault it is that a row was not inserted.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub enum Fault {
    /// The row's: another one need not fail.
    Row,
    /// The table's: it has no place for this row or others like it.
    Table,
    /// Neither: a missing right, a deadlock, a full disk, a cancel.
    Server,
    /// The error does not say: XX000, as a distributed table has for what one of its nodes refused.
    Unclear,
}

impl Fault {
    /// Whose fault `error` is.
    pub fn of(error: &Caught) -> Fault {
        if error.comes_from(&MISSES_PARTITION) {
            Fault::Table
        } else if blames_the_row(error.state()) || error.comes_from(&[CHECKS_OPTIONS]) {
            Fault::Row
        } else if error.state() == PgSqlErrorCode::ERRCODE_INTERNAL_ERROR.into() {
            Fault::Unclear
        } else {
            Fault::Server
        }
    }
}

/// Whether Postgres itself says that the row breaks a rule of its table: such a message names table and rule only.
/// A trigger may raise the same SQLSTATE and say anything.
pub fn names_a_rule(error: &Caught) -> bool {
    error.comes_from(&CHECKS)
}

/// Whether this is an error of the row at hand, which another row need not have: a bad value, a constraint, something
/// that a trigger raised (38 is what those in Python, Perl and Tcl do). Every other error would meet each row alike.
///
/// A class that `errcodes.txt` does not know can only come from a trigger of the user's.
fn blames_the_row(state: SqlState) -> bool {
    const OF_THE_ROW: [&[u8; 2]; 5] = [b"22", b"23", b"38", b"44", b"P0"];
    const OF_THE_SERVER: [&[u8; 2]; 38] = [
        b"00", b"01", b"02", b"03", b"08", b"09", b"0A", b"0B", b"0F", b"0L", b"0P", b"0Z", b"10",
        b"20", b"21", b"24", b"25", b"26", b"27", b"28", b"2B", b"2D", b"2F", b"34", b"39", b"3B",
        b"3D", b"3F", b"40", b"42", b"53", b"54", b"55", b"57", b"58", b"72", b"F0", b"HV",
    ];
    let class = state.class();
    let is_in = |classes: &[&[u8; 2]]| classes.iter().any(|&known| *known == class);
    is_in(&OF_THE_ROW) || !(is_in(&OF_THE_SERVER) || &class == b"XX")
}

/// Postgres' function that raises what a policy of row-level security refuses, with the SQLSTATE of a missing right,
/// and what a view's CHECK OPTION does.
const CHECKS_OPTIONS: &str = "ExecWithCheckOptions";

/// Postgres' functions that raise that a partitioned table has no partition for a row, or that a table which is itself
/// a partition is not the one for it.
const MISSES_PARTITION: [&str; 2] = ["ExecFindPartition", "ExecPartitionCheckEmitError"];

/// Postgres' functions that raise what constraints, partitions and policies refuse.
const CHECKS: [&str; 8] = [
    CHECKS_OPTIONS,
    "ExecConstraints",
    "ExecFindPartition",
    "ExecPartitionCheckEmitError",
    "ReportNotNullViolationError",
    "_bt_check_unique",
    "check_exclusion_or_unique_constraint",
    "ri_ReportViolation",
];

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn rows_are_blamed_for_values_constraints_and_triggers_only() {
        for code in [
            b"22001", b"23514", b"44000", b"P0001", b"38000", b"MY001", b"ZZ999",
        ] {
            let state = SqlState::named(code);
            assert!(blames_the_row(state), "{state}");
        }
        for code in [
            b"40P01", b"42P01", b"42501", b"53100", b"57014", b"XX000", b"25006", b"55P03",
        ] {
            let state = SqlState::named(code);
            assert!(!blames_the_row(state), "{state}");
        }
    }
}
