//! Why a body was not decoded.

use std::fmt;

/// Why a body is not a login that can be stored.
///
/// `Display` is the reason for a user. It cannot quote the body: all that is kept here is fixed text and positions.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub struct Rejection {
    rule: Rule,
    field: Option<&'static str>,
    remark: Option<&'static str>,
    position: Option<Position>,
    in_an_envelope: bool,
}

/// The rule that was broken.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub enum Rule {
    /// The body, or what its envelope encloses, is not a JSON text; or it is one with a lone surrogate (`"\ud800"`)
    /// or a number beyond every range (`1e999`) where a login has its keys.
    NotJson,
    /// JSON without a single key of a login.
    NotALogin,
    /// More envelopes in each other than any known delivery makes.
    TooManyEnvelopes,
    /// A required key is not there.
    Missing,
    /// A string is wanted, or a string or null, and it is something else.
    WrongType,
    /// Longer than its column.
    TooLong {
        /// The characters that the column holds.
        max: usize,
    },
    /// Contains U+0000. Refused in every field, masked ones too: no client means a text that contains it.
    NulCharacter,
    /// Not dotted numbers.
    NotAVersion,
    /// More than the three numbers that a sortable version has.
    TooManyNumbers,
    /// The version's integer, or a part of it, is larger than the encoding allows.
    VersionTooLarge,
}

/// Where the parser stopped. Lines count from 1, columns count bytes.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
struct Position {
    line: usize,
    column: usize,
}

impl Rejection {
    /// The rule that was broken.
    pub fn rule(&self) -> Rule {
        self.rule
    }

    /// The key of the login that broke it; `None` if the body as a whole did.
    pub fn field(&self) -> Option<&'static str> {
        self.field
    }

    pub(crate) const fn of(rule: Rule) -> Rejection {
        Rejection {
            rule,
            field: None,
            remark: None,
            position: None,
            in_an_envelope: false,
        }
    }

    pub(crate) const fn of_field(field: &'static str, rule: Rule) -> Rejection {
        Rejection {
            field: Some(field),
            ..Rejection::of(rule)
        }
    }

    /// `remark` says what was wanted instead, after the field's name.
    pub(crate) const fn wrong_type(field: &'static str, remark: &'static str) -> Rejection {
        Rejection {
            remark: Some(remark),
            ..Rejection::of_field(field, Rule::WrongType)
        }
    }

    /// JSON that its producer encoded once more.
    pub(crate) const fn base64() -> Rejection {
        Rejection {
            remark: Some("not JSON but Base64"),
            ..Rejection::of(Rule::NotJson)
        }
    }

    /// What S3 sends when notifications are set up: the queue gets more than logins.
    pub(crate) const fn s3_test_event() -> Rejection {
        Rejection {
            remark: Some("an S3 test event, not a login"),
            ..Rejection::of(Rule::NotALogin)
        }
    }

    /// `well_formed` if only a value stopped the parser: an escape that is no character, a number beyond all bounds.
    pub(crate) const fn not_json(line: usize, column: usize, well_formed: bool) -> Rejection {
        let remark = if well_formed {
            Some("not JSON: an invalid escape or a number out of range")
        } else {
            None
        };
        Rejection {
            remark,
            position: Some(Position { line, column }),
            ..Rejection::of(Rule::NotJson)
        }
    }

    pub(crate) fn in_an_envelope(self) -> Rejection {
        Rejection {
            in_an_envelope: true,
            ..self
        }
    }
}

impl fmt::Display for Rejection {
    fn fmt(&self, f: &mut fmt::Formatter) -> fmt::Result {
        if self.in_an_envelope {
            f.write_str("in an envelope: ")?;
        }
        if let Some(field) = self.field {
            write!(f, "{field} ")?;
        }
        match self.remark {
            Some(remark) => f.write_str(remark)?,
            None => self.rule.fmt(f)?,
        }
        match self.position {
            Some(Position { line, column }) => write!(f, " (line {line}, column {column})"),
            None => Ok(()),
        }
    }
}

impl std::error::Error for Rejection {}

/// The rule as the end of a sentence whose beginning is the field, if there is one.
impl fmt::Display for Rule {
    fn fmt(&self, f: &mut fmt::Formatter) -> fmt::Result {
        match self {
            Rule::NotJson => f.write_str("not JSON"),
            Rule::NotALogin => f.write_str("not a login"),
            Rule::TooManyEnvelopes => f.write_str("in too many envelopes"),
            Rule::Missing => f.write_str("is missing"),
            Rule::WrongType => f.write_str("has the wrong type"),
            Rule::TooLong { max } => write!(f, "is longer than {max} characters"),
            Rule::NulCharacter => f.write_str("contains U+0000"),
            Rule::NotAVersion => f.write_str("is not a version of dotted numbers"),
            Rule::TooManyNumbers => f.write_str("has more than three numbers"),
            Rule::VersionTooLarge => f.write_str("is too large for its encoding as an integer"),
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_reason_names_the_field_and_the_rule() {
        let reasons = [
            (Rejection::of(Rule::NotALogin), "not a login"),
            (
                Rejection::of(Rule::TooManyEnvelopes),
                "in too many envelopes",
            ),
            (Rejection::of_field("ip", Rule::Missing), "ip is missing"),
            (
                Rejection::wrong_type("user_id", "is not a string"),
                "user_id is not a string",
            ),
            (
                Rejection::of_field("user_id", Rule::TooLong { max: 128 }),
                "user_id is longer than 128 characters",
            ),
            (
                Rejection::of_field("locale", Rule::NulCharacter),
                "locale contains U+0000",
            ),
            (
                Rejection::of_field("app_version", Rule::NotAVersion),
                "app_version is not a version of dotted numbers",
            ),
            (
                Rejection::of_field("app_version", Rule::TooManyNumbers),
                "app_version has more than three numbers",
            ),
            (
                Rejection::of_field("app_version", Rule::VersionTooLarge),
                "app_version is too large for its encoding as an integer",
            ),
            (
                Rejection::not_json(2, 7, false),
                "not JSON (line 2, column 7)",
            ),
            (
                Rejection::not_json(1, 1, false).in_an_envelope(),
                "in an envelope: not JSON (line 1, column 1)",
            ),
        ];
        for (rejection, reason) in reasons {
            assert_eq!(rejection.to_string(), reason);
        }
    }
}
