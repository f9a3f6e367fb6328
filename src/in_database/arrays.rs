//! Arrays that we lay out ourselves must read as Postgres' own do.

#[pgrx::pg_schema]
mod tests {
    use pgrx::datum::DatumWithOid;
    use pgrx::prelude::*;

    use crate::pg::array;

    fn shown(argument: DatumWithOid<'_>, expected: &str) -> bool {
        let equals = format!("SELECT $1 IS NOT DISTINCT FROM {expected}");
        Spi::get_one_with_args(&equals, &[argument])
            .unwrap()
            .unwrap()
    }

    #[pg_test]
    fn texts_of_every_length_read_back() {
        let values: Vec<String> = (0..70).map(|length| "é".repeat(length)).collect();
        let array = array::text(values.iter().map(|value| Some(value.as_str())));
        let expected =
            "(SELECT array_agg(repeat('é', n) ORDER BY n) FROM generate_series(0, 69) n)";
        assert!(shown(array, expected));
    }

    #[pg_test]
    fn bytes_of_every_length_read_back() {
        let values: Vec<Vec<u8>> = (0..70).map(|length| vec![0xfe; length]).collect();
        let array = array::bytea(values.iter().map(Vec::as_slice));
        let expected = "(SELECT array_agg(decode(repeat('fe', n), 'hex') ORDER BY n) FROM generate_series(0, 69) n)";
        assert!(shown(array, expected));
    }

    #[pg_test]
    fn nulls_are_where_they_were_put() {
        for count in [1, 7, 8, 9, 16, 17, 1_000] {
            let values = (0..count).map(|n| (n % 3 != 0).then_some("x"));
            let expected = format!(
                "(SELECT array_agg(CASE WHEN n % 3 <> 0 THEN 'x' END ORDER BY n) \
                 FROM generate_series(0, {count} - 1) n)"
            );
            assert!(shown(array::text(values), &expected), "{count}");
        }
    }

    #[pg_test]
    fn fixed_widths_read_back() {
        let seven = || 0..7;
        assert!(shown(
            array::int4(seven()),
            "(SELECT array_agg(n) FROM generate_series(0, 6) n)"
        ));
        assert!(shown(
            array::int8(seven().map(i64::from)),
            "(SELECT array_agg(n::bigint) FROM generate_series(0, 6) n)"
        ));
        assert!(shown(
            array::date(seven()),
            "(SELECT array_agg(date '2000-01-01' + n) FROM generate_series(0, 6) n)"
        ));
        assert!(shown(
            array::timestamptz(seven().map(|n| i64::from(n) * 1_000_000)),
            "(SELECT array_agg(timestamptz '2000-01-01 00:00:00Z' + n * interval '1 second') \
             FROM generate_series(0, 6) n)"
        ));
        assert!(shown(
            array::uuid([[0xab; 16]].into_iter()),
            "ARRAY['abababab-abab-abab-abab-abababababab'::uuid]"
        ));
    }
}
