//! Postgres arrays made in one allocation from values that stay where they are, and their use as arguments.

use std::ops::RangeInclusive;

use pgrx::datum::DatumWithOid;
use pgrx::pg_sys::{self, Datum};

const ARRAY_HEADER: usize = size_of::<pg_sys::ArrayType>() + 2 * size_of::<i32>();
const VARLENA_HEADER: usize = 4;

/// Makes a one-dimensional `text[]` in the current memory context.
pub fn text<'a, 'v>(
    values: impl ExactSizeIterator<Item = Option<&'v str>> + Clone,
) -> DatumWithOid<'a> {
    varlenas(
        values.map(|value| value.map(str::as_bytes)),
        pg_sys::TEXTOID,
        pg_sys::TEXTARRAYOID,
    )
}

/// Makes a one-dimensional `bytea[]`.
pub fn bytea<'a, 'v>(values: impl ExactSizeIterator<Item = &'v [u8]> + Clone) -> DatumWithOid<'a> {
    varlenas(values.map(Some), pg_sys::BYTEAOID, pg_sys::BYTEAARRAYOID)
}

/// The layout is that of `src/include/utils/array.h`: header, dimension, lower bound, null bitmap if there are
/// nulls, then the elements as varlenas aligned to 4 bytes.
fn varlenas<'a, 'v>(
    values: impl ExactSizeIterator<Item = Option<&'v [u8]>> + Clone,
    element: pg_sys::Oid,
    array: pg_sys::Oid,
) -> DatumWithOid<'a> {
    let count = values.len();
    let has_nulls = values.clone().any(|value| value.is_none());
    let data_offset = if has_nulls {
        aligned(ARRAY_HEADER + count.div_ceil(8), 8)
    } else {
        ARRAY_HEADER
    };
    let data: usize = values
        .clone()
        .flatten()
        .map(|value| aligned(VARLENA_HEADER + value.len(), 4))
        .sum();
    let mut writer = Writer::new(data_offset + data, count, element);
    if has_nulls {
        writer.put_null_bitmap(data_offset, values.clone().map(|value| value.is_none()));
    }
    let mut at = data_offset;
    for value in values.flatten() {
        let length = VARLENA_HEADER + value.len();
        writer.put(at, &varlena_header(length));
        writer.put(at + VARLENA_HEADER, value);
        at += aligned(length, 4);
    }
    writer.into_argument(array)
}

/// Makes a one-dimensional `uuid[]`.
pub fn uuid<'a>(values: impl ExactSizeIterator<Item = [u8; 16]>) -> DatumWithOid<'a> {
    fixed(values, pg_sys::UUIDOID, pg_sys::UUIDARRAYOID)
}

/// Makes a one-dimensional `integer[]`.
pub fn int4<'a>(values: impl ExactSizeIterator<Item = i32>) -> DatumWithOid<'a> {
    fixed(
        values.map(i32::to_ne_bytes),
        pg_sys::INT4OID,
        pg_sys::INT4ARRAYOID,
    )
}

/// Makes a one-dimensional `bigint[]`.
pub fn int8<'a>(values: impl ExactSizeIterator<Item = i64>) -> DatumWithOid<'a> {
    fixed(
        values.map(i64::to_ne_bytes),
        pg_sys::INT8OID,
        pg_sys::INT8ARRAYOID,
    )
}

/// Makes a one-dimensional `timestamptz[]` from microseconds since 2000-01-01, as Postgres keeps them.
pub fn timestamptz<'a>(values: impl ExactSizeIterator<Item = i64>) -> DatumWithOid<'a> {
    fixed(
        values.map(i64::to_ne_bytes),
        pg_sys::TIMESTAMPTZOID,
        pg_sys::TIMESTAMPTZARRAYOID,
    )
}

/// Makes a one-dimensional `date[]` from days since 2000-01-01, as Postgres keeps them.
pub fn date<'a>(values: impl ExactSizeIterator<Item = i32>) -> DatumWithOid<'a> {
    fixed(
        values.map(i32::to_ne_bytes),
        pg_sys::DATEOID,
        pg_sys::DATEARRAYOID,
    )
}

/// The arrays that are these parameters, side by side as the columns of a table.
///
/// `unnest` of several arrays is only available by its bare name, which would be looked up in `search_path`.
pub fn rows_of(parameters: RangeInclusive<usize>) -> String {
    format!("ROWS FROM ({})", elements_of(parameters))
}

/// The same as the columns of a SELECT without FROM, which is not materialised. The arrays must have one length.
pub fn elements_of(parameters: RangeInclusive<usize>) -> String {
    let arrays: Vec<String> = parameters
        .map(|n| format!("pg_catalog.unnest(${n})"))
        .collect();
    arrays.join(", ")
}

fn fixed<'a, const N: usize>(
    values: impl ExactSizeIterator<Item = [u8; N]>,
    element: pg_sys::Oid,
    array: pg_sys::Oid,
) -> DatumWithOid<'a> {
    let count = values.len();
    let mut writer = Writer::new(ARRAY_HEADER + N * count, count, element);
    for (i, value) in values.enumerate() {
        writer.put(ARRAY_HEADER + N * i, &value);
    }
    writer.into_argument(array)
}

const fn aligned(size: usize, to: usize) -> usize {
    size.next_multiple_of(to)
}

/// The 4-byte header of an uncompressed varlena of `length` bytes, header included (`SET_VARSIZE_4B`).
fn varlena_header(length: usize) -> [u8; 4] {
    // Lengths stay far below 1 GB, where palloc refuses.
    let length = length as u32;
    if cfg!(target_endian = "big") {
        length.to_be_bytes()
    } else {
        (length << 2).to_le_bytes()
    }
}

/// An array under construction: zeroed memory of the current context, written with bounds checks.
struct Writer {
    start: *mut u8,
    size: usize,
}

impl Writer {
    fn new(size: usize, count: usize, element: pg_sys::Oid) -> Writer {
        // SAFETY: allocates in the current context, or raises an error.
        let start = unsafe { pg_sys::palloc0(size) }.cast::<u8>();
        let mut array = Writer { start, size };
        array.put(0, &varlena_header(size));
        // SAFETY: the memory is at least a header large and aligned for it (MAXALIGN). Counts are those of one
        // chunk and fit.
        unsafe {
            let header = start.cast::<pg_sys::ArrayType>();
            (*header).ndim = 1;
            (*header).dataoffset = 0;
            (*header).elemtype = element;
        }
        array.put(
            size_of::<pg_sys::ArrayType>(),
            &(count as i32).to_ne_bytes(),
        );
        array.put(
            size_of::<pg_sys::ArrayType>() + size_of::<i32>(),
            &1i32.to_ne_bytes(),
        );
        array
    }

    fn put_null_bitmap(&mut self, data_offset: usize, nulls: impl Iterator<Item = bool>) {
        // SAFETY: as in `new`.
        unsafe { (*self.start.cast::<pg_sys::ArrayType>()).dataoffset = data_offset as i32 };
        let mut byte = 0;
        let mut last = 0;
        for (i, is_null) in nulls.enumerate() {
            if !is_null {
                byte |= 1 << (i % 8);
            }
            if i % 8 == 7 {
                self.put(ARRAY_HEADER + i / 8, &[byte]);
                byte = 0;
            }
            last = i;
        }
        if last % 8 != 7 {
            self.put(ARRAY_HEADER + last / 8, &[byte]);
        }
    }

    fn put(&mut self, at: usize, bytes: &[u8]) {
        assert!(
            at + bytes.len() <= self.size,
            "array larger than it was measured"
        );
        // SAFETY: just checked to lie within the allocation; `bytes` is memory of ours, not of this array.
        unsafe { std::ptr::copy_nonoverlapping(bytes.as_ptr(), self.start.add(at), bytes.len()) };
    }

    /// `array` is the type of arrays of the elements that were put.
    fn into_argument<'a>(self, array: pg_sys::Oid) -> DatumWithOid<'a> {
        // SAFETY: the memory holds an array of that type. It is the caller's memory context's, which outlives the
        // statement that it is an argument of: SPI's own.
        unsafe { DatumWithOid::new(Datum::from(self.start), array) }
    }
}
