//! Rows of a table, as psql's `\copy` writes them: in CSV or in text format, with a header line or without.

use std::borrow::Cow;
use std::io::{self, BufRead, Chain, Cursor, Read};

use csv::{ByteRecord, Reader, ReaderBuilder, Terminator};
use thiserror::Error;

/// A table of which the columns `N` are read.
pub struct Table<R, const N: usize> {
    reader: Reader<Chain<Cursor<Vec<u8>>, R>>,
    is_text: bool,
    /// Where in a row each of the columns is.
    places: [usize; N],
    row: ByteRecord,
    /// The row that was read to find out about the columns is one of the table.
    first_is_data: bool,
}

/// Why a table cannot be read, or not further.
#[derive(Debug, Error)]
pub enum TableError {
    /// Reading failed.
    #[error("cannot be read: {0}")]
    Unreadable(#[from] io::Error),
    /// The first line is neither a header with these columns, nor a row with that many.
    #[error("does not have the columns {0}, named in a header line or alone and in this order")]
    OtherColumns(String),
}

/// A row: where it is, and the fields of the columns that are read.
pub struct Row<'a, const N: usize> {
    /// The line that it begins on, counted from 1.
    pub line: u64,
    /// The fields, or why they are not there.
    pub fields: Result<[Cow<'a, str>; N], RowError>,
}

/// Why a row does not have the fields that it should have.
#[derive(Clone, Copy, PartialEq, Eq, Debug, Error)]
pub enum RowError {
    /// It ends before the last of the columns.
    #[error("too few fields")]
    TooFewFields,
    /// A field is empty, which is how CSV writes NULL, or NULL.
    #[error("a field is empty or NULL")]
    Null,
    /// A field is not UTF-8.
    #[error("not UTF-8")]
    NotText,
}

impl<R: BufRead, const N: usize> Table<R, N> {
    /// Reads the first line, to find out about the format and the columns.
    pub fn open(mut input: R, columns: [&str; N]) -> Result<Table<R, N>, TableError> {
        let mut first_line = Vec::new();
        input.read_until(b'\n', &mut first_line)?;
        // The last column is bytea, in hex, and names of columns have neither: what comes last separates fields. Before
        // it there may be either one, as part of a field that somebody has altered.
        let mut backwards = first_line.iter().rev();
        let is_text = backwards.find(|byte| b",\t".contains(byte)) == Some(&b'\t');
        let mut builder = ReaderBuilder::new();
        // A terminator of two bytes would throw the count of lines off by one.
        builder
            .has_headers(false)
            .flexible(true)
            .terminator(Terminator::Any(b'\n'));
        if is_text {
            builder.delimiter(b'\t').quoting(false);
        }
        let mut table = Table {
            reader: builder.from_reader(Cursor::new(first_line).chain(input)),
            is_text,
            places: [0; N],
            row: ByteRecord::new(),
            first_is_data: false,
        };
        if table.read_row()? {
            table.find(columns)?;
        }
        Ok(table)
    }

    fn find(&mut self, columns: [&str; N]) -> Result<(), TableError> {
        let named = columns.map(|column| {
            self.row
                .iter()
                .position(|field| without_return(field) == column.as_bytes())
        });
        if named.iter().all(Option::is_some) {
            self.places = named.map(Option::unwrap_or_default);
        } else if self.row.len() == N && named.iter().all(Option::is_none) {
            self.places = std::array::from_fn(|place| place);
            self.first_is_data = true;
        } else {
            return Err(TableError::OtherColumns(columns.join(", ")));
        }
        Ok(())
    }

    /// The next row, or `None` at the end.
    pub fn next(&mut self) -> Result<Option<Row<'_, N>>, TableError> {
        let found = std::mem::take(&mut self.first_is_data) || self.read_row()?;
        Ok(found.then(|| Row {
            line: self.row.position().map_or(0, csv::Position::line),
            fields: self.fields(),
        }))
    }

    /// Whether there is another row, and not the mark that ends data in a script.
    fn read_row(&mut self) -> Result<bool, TableError> {
        let found = self
            .reader
            .read_byte_record(&mut self.row)
            .map_err(io::Error::from)?;
        Ok(found && !(self.row.len() == 1 && without_return(&self.row[0]) == b"\\."))
    }

    fn fields(&self) -> Result<[Cow<'_, str>; N], RowError> {
        let mut fields = [const { Cow::Borrowed("") }; N];
        for (field, &place) in fields.iter_mut().zip(&self.places) {
            *field = self.field(place)?;
        }
        Ok(fields)
    }

    fn field(&self, place: usize) -> Result<Cow<'_, str>, RowError> {
        let field = self.row.get(place).ok_or(RowError::TooFewFields)?;
        let field = str::from_utf8(without_return(field)).map_err(|_| RowError::NotText)?;
        Ok(match field {
            "" | "\\N" => return Err(RowError::Null),
            // Text format writes a backslash as two, and there is no other escape in the columns that are read.
            field if self.is_text => Cow::Owned(field.replace("\\\\", "\\")),
            field => Cow::Borrowed(field),
        })
    }
}

/// A line's last field, without the carriage return that ends the line on some systems.
fn without_return(field: &[u8]) -> &[u8] {
    field.strip_suffix(b"\r").unwrap_or(field)
}

#[cfg(test)]
mod tests {
    use super::*;

    /// Line and fields of each row; `Err` as its text.
    fn read(content: &str) -> Result<Vec<(u64, String)>, TableError> {
        let mut table = Table::open(content.as_bytes(), ["mask", "sealed"])?;
        let mut rows = Vec::new();
        while let Some(row) = table.next()? {
            let fields = match row.fields {
                Ok(fields) => fields.join(" "),
                Err(error) => error.to_string(),
            };
            rows.push((row.line, fields));
        }
        Ok(rows)
    }

    fn rows(rows: &[(u64, &str)]) -> Vec<(u64, String)> {
        rows.iter()
            .map(|&(line, fields)| (line, fields.to_string()))
            .collect()
    }

    #[test]
    fn csv_and_text_are_read_with_a_header_and_without() {
        for content in [
            "a,\\x01\nb,\\x02\n",
            "\"a\",\"\\x01\"\r\nb,\\x02",
            "a\t\\\\x01\nb\t\\\\x02\n",
            "a\t\\x01\nb\t\\x02\n\\.\nnot data\n",
        ] {
            assert_eq!(
                read(content).unwrap(),
                rows(&[(1, "a \\x01"), (2, "b \\x02")]),
                "{content}"
            );
        }
        for content in [
            "mask,sealed\r\na,\\x01\r\n\\.\r\n",
            "\u{feff}mask,sealed\na,\\x01\n",
            "sealed,kind,mask\n\\x01,\"two\"\"s, lines\",a\n",
            "first_seen\tsealed\tmask\n\\N\t\\\\x01\ta\n",
        ] {
            assert_eq!(read(content).unwrap(), rows(&[(2, "a \\x01")]), "{content}");
        }
    }

    #[test]
    fn what_separates_fields_in_the_other_format_may_be_part_of_one() {
        for (content, first) in [
            ("a\tb,\\x01\nc,\\x02\n", "a\tb \\x01"),
            ("a,b\t\\\\x01\nc\t\\\\x02\n", "a,b \\x01"),
        ] {
            let expected = rows(&[(1, first), (2, "c \\x02")]);
            assert_eq!(read(content).unwrap(), expected, "{content}");
        }
    }

    #[test]
    fn a_row_without_its_fields_costs_no_other() {
        let content = "mask,sealed\na\n,\\x01\nb,\\x02\n";
        let expected = [
            (2, "too few fields"),
            (3, "a field is empty or NULL"),
            (4, "b \\x02"),
        ];
        assert_eq!(read(content).unwrap(), rows(&expected));
        assert_eq!(
            read("a\t\\N\n").unwrap(),
            rows(&[(1, "a field is empty or NULL")])
        );

        let mut table = Table::open(&b"a,\xff\n"[..], ["mask", "sealed"]).unwrap();
        assert_eq!(
            table.next().unwrap().unwrap().fields,
            Err(RowError::NotText)
        );
    }

    #[test]
    fn an_empty_file_has_no_rows() {
        for content in ["", "\n", "mask,sealed\n", "\\.\n"] {
            assert_eq!(read(content).unwrap(), []);
        }
    }

    #[test]
    fn a_table_with_other_columns_is_an_error() {
        for content in ["a\n", "a,b,c\n", "mask,key_id\na,b\n", "mask\ta\tb\n"] {
            assert!(
                matches!(read(content), Err(TableError::OtherColumns(_))),
                "{content}"
            );
        }
    }
}
