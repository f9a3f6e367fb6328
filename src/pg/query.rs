//! Queries that only read.
//!
//! pgrx's own `Spi::get_one` and its siblings count as writing: they make Postgres assign a transaction id, which a
//! standby cannot do and a call that only reads does not need.

use pgrx::datum::DatumWithOid;
use pgrx::spi::{SpiHeapTupleData, SpiResult};
use pgrx::{FromDatum, IntoDatum, Spi};

/// The first value of the first row; none where there is no row.
pub fn one<A: FromDatum + IntoDatum>(
    sql: &str,
    arguments: &[DatumWithOid<'_>],
) -> SpiResult<Option<A>> {
    first(sql, arguments, |row| row.get(1))
}

/// The first two values of the first row.
pub fn two<A: FromDatum + IntoDatum, B: FromDatum + IntoDatum>(
    sql: &str,
    arguments: &[DatumWithOid<'_>],
) -> SpiResult<(Option<A>, Option<B>)> {
    first(sql, arguments, |row| Ok((row.get(1)?, row.get(2)?)))
}

fn first<T: Default>(
    sql: &str,
    arguments: &[DatumWithOid<'_>],
    read: impl FnOnce(SpiHeapTupleData<'_>) -> SpiResult<T>,
) -> SpiResult<T> {
    Spi::connect(|client| {
        let mut rows = client.select(sql, Some(1), arguments)?;
        rows.next().map_or_else(|| Ok(T::default()), read)
    })
}
