//! What the response to a producer's batch says.

use durable_streams_protocol::headers;
use http::{HeaderMap, HeaderName, HeaderValue, StatusCode, header};

use crate::position::StreamOffset;

/// The head of a response that says yes, as far as a producer needs it.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) struct BatchReceipt {
    pub(crate) status: StatusCode,
    /// The tail.
    pub(crate) next_offset: Option<StreamOffset>,
    /// The newest epoch that the server knows of the producer (§5.2.1).
    pub(crate) epoch: Option<u64>,
    /// The highest sequence number that it has accepted.
    pub(crate) seq: Option<u64>,
    /// It has a cursor, as only responses to reads have.
    pub(crate) has_cursor: bool,
    pub(crate) has_type: bool,
}

impl BatchReceipt {
    /// Reads each header once, in the order in which they came. Every look-up in the map would hash its name.
    ///
    /// # Errors
    /// What is wrong with a header that says what was stored: it is repeated or malformed.
    pub(crate) fn parse(status: StatusCode, headers: &HeaderMap) -> Result<Self, String> {
        let (mut next_offset, mut epoch, mut seq) = (None, None, None);
        let (mut has_cursor, mut has_type) = (false, false);
        for (name, value) in headers {
            if *name == headers::STREAM_NEXT_OFFSET {
                once(&mut next_offset, name, value, "no offset", StreamOffset::new)?;
            } else if *name == headers::PRODUCER_EPOCH {
                once(&mut epoch, name, value, "no whole number", |text| text.parse().ok())?;
            } else if *name == headers::PRODUCER_SEQ {
                once(&mut seq, name, value, "no whole number", |text| text.parse().ok())?;
            } else {
                has_cursor |= *name == headers::STREAM_CURSOR;
                has_type |= *name == header::CONTENT_TYPE;
            }
        }
        Ok(BatchReceipt { status, next_offset, epoch, seq, has_cursor, has_type })
    }
}

/// Fills `field`, which must be empty, with what `parse` reads in `value`.
fn once<T>(
    field: &mut Option<T>,
    name: &HeaderName,
    value: &HeaderValue,
    otherwise: &str,
    parse: impl FnOnce(&str) -> Option<T>,
) -> Result<(), String> {
    if field.is_some() {
        return Err(format!("{name} is given twice"));
    }
    *field = value.to_str().ok().and_then(parse);
    if field.is_none() { Err(format!("{name} is {otherwise}")) } else { Ok(()) }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn parse(lines: &[(&'static str, &'static str)]) -> Result<BatchReceipt, String> {
        let mut headers = HeaderMap::new();
        for (name, value) in lines {
            headers.append(*name, HeaderValue::from_static(value));
        }
        BatchReceipt::parse(StatusCode::OK, &headers)
    }

    #[test]
    fn a_receipt_says_what_was_stored() {
        let nothing = BatchReceipt {
            status: StatusCode::OK,
            next_offset: None,
            epoch: None,
            seq: None,
            has_cursor: false,
            has_type: false,
        };
        assert_eq!(parse(&[("date", "x"), ("stream-ttl", "-")]), Ok(nothing.clone()));
        let lines = [
            ("producer-seq", "7"),
            ("stream-next-offset", "a_b"),
            ("producer-epoch", "0"),
            ("content-type", "text/plain"),
        ];
        let whole = BatchReceipt {
            next_offset: StreamOffset::new("a_b"),
            epoch: Some(0),
            seq: Some(7),
            has_type: true,
            ..nothing.clone()
        };
        assert_eq!(parse(&lines), Ok(whole));
        let of_a_read = BatchReceipt { has_cursor: true, ..nothing };
        assert_eq!(parse(&[("stream-cursor", "1")]), Ok(of_a_read));
    }

    #[test]
    fn a_receipt_that_cannot_be_read_is_refused() {
        for lines in [
            [("producer-seq", "7"), ("producer-seq", "7")],
            [("date", ""), ("producer-epoch", "-1")],
            [("date", ""), ("stream-next-offset", "now")],
            [("date", ""), ("stream-next-offset", "")],
        ] {
            assert!(parse(&lines).is_err(), "{lines:?}");
        }
    }
}
