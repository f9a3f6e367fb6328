//! Identifies this installation by a number that a copy of the data does not carry.
//!
//! CREATE EXTENSION draws it at random and keeps it as the start value of the sequence `sqs_installation`. A dump
//! leaves the sequence out and a restore draws another number; logical replication carries no sequences' definitions
//! either. A physical standby and a cluster that pg_upgrade made have the same number as the original, whose place they
//! take. Only the owner of the sequence can change its start value, whatever rights on it were granted.

use std::ffi::CStr;

use pgrx::pg_sys;

use crate::own_tables::EXTENSION;
use crate::pg::or_raise::OrRaise;
use crate::pg::{extension, query, relation};

const SEQUENCE: &CStr = c"sqs_installation";

/// The number of the installation in this database, if there is one.
pub fn number() -> Option<i64> {
    number_in(extension::schema(EXTENSION)?)
}

/// The number of the installation in `schema`.
pub fn number_in(schema: pg_sys::Oid) -> Option<i64> {
    let sequence = relation::find(schema, SEQUENCE)?;
    query::one(
        "SELECT seqstart FROM pg_catalog.pg_sequence WHERE seqrelid OPERATOR(pg_catalog.=) $1",
        &[sequence.into()],
    )
    .or_raise()
}
