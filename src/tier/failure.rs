//! What an error of the object store means, in words without credentials.

use std::error::Error as _;
use std::io;
use std::time::Duration;

use object_store::Error;

use durable_streams_engine::store::file::segments::cold::ColdError;

/// How soon a reader may try again when the store said nothing about it.
const SOON: Duration = Duration::from_secs(1);

/// Longest reason, in bytes; a store may send pages.
const LONGEST: usize = 300;

/// What an error means for the caller.
pub(super) fn classify(error: &Error) -> ColdError {
    let reason = reason(error);
    let code = code(error);
    match error {
        // Not the object but all of them; a segment must not look lost because of a typing error.
        Error::NotFound { .. }
            if matches!(code.as_deref(), Some("NoSuchBucket" | "ContainerNotFound")) =>
        {
            ColdError::Refused("the bucket does not exist".into())
        }
        Error::NotFound { .. } => ColdError::NotFound,
        Error::PermissionDenied { .. } | Error::Unauthenticated { .. } => {
            ColdError::Refused(reason)
        }
        Error::NotImplemented { .. } | Error::NotSupported { .. } | Error::InvalidPath { .. } => {
            ColdError::Refused(reason)
        }
        _ => match (status(error), io_kind(error)) {
            (Some(416), _) => ColdError::Damaged("the object is shorter than the range".into()),
            // Expired credentials are a 400 of S3; a redirect is a wrong region or endpoint.
            (Some(status), _) if status < 500 && !matches!(status, 408 | 409 | 429) => {
                ColdError::Refused(reason)
            }
            (Some(501), _) | (_, Some(io::ErrorKind::PermissionDenied)) => {
                ColdError::Refused(reason)
            }
            _ => unavailable(reason),
        },
    }
}

/// The store did not answer, or said that it cannot now.
pub(super) fn unavailable(reason: impl Into<String>) -> ColdError {
    ColdError::Unavailable { retry_after: SOON, reason: reason.into() }
}

/// The text of each error from the outermost to its first cause.
fn chain(error: &Error) -> Vec<String> {
    let mut texts = vec![error.to_string()];
    let mut next = error.source();
    while let Some(cause) = next {
        texts.push(cause.to_string());
        next = cause.source();
    }
    texts
}

fn io_kind(error: &Error) -> Option<io::ErrorKind> {
    let mut next = error.source();
    while let Some(cause) = next {
        if let Some(io) = cause.downcast_ref::<io::Error>() {
            return Some(io.kind());
        }
        next = cause.source();
    }
    None
}

/// The HTTP status of the answer. The crate has it in its text only.
fn status(error: &Error) -> Option<u16> {
    const BEFORE: &str = "non-2xx status code: ";
    chain(error).iter().rev().find_map(|text| {
        let at = text.find(BEFORE)? + BEFORE.len();
        text.get(at..at + 3)?.parse().ok()
    })
}

/// The store's own word for the error, such as `SlowDown`.
fn code(error: &Error) -> Option<String> {
    let texts = chain(error);
    let text = texts.last()?;
    let (_, rest) = text.split_once("<Code>")?;
    let (code, _) = rest.split_once("</Code>")?;
    let plain =
        !code.is_empty() && code.len() < 64 && code.bytes().all(|b| b.is_ascii_alphanumeric());
    plain.then(|| code.to_owned())
}

/// One line for logs and for the answer to an administrator. Of an HTTP answer it has status and code only: its body
/// may repeat the request's signature, and a URL may hold one.
fn reason(error: &Error) -> String {
    let mut text = match (status(error), code(error)) {
        (Some(status), Some(code)) => format!("the store answered {status}, {code}"),
        (Some(status), None) => format!("the store answered {status}"),
        (None, _) => chain(error).pop().unwrap_or_default(),
    };
    if text.contains("://") || text.contains('<') {
        "the store's answer makes no sense".clone_into(&mut text);
    }
    let mut end = text.len().min(LONGEST);
    while !text.is_char_boundary(end) {
        end -= 1;
    }
    text.truncate(end);
    text.replace(char::is_control, " ")
}

#[cfg(test)]
mod tests {
    use super::*;

    fn answered(status: &str, code: &str) -> Error {
        let text = format!(
            "Error performing GET https://b.example/x?X-Amz-Signature=secret - Server returned non-2xx status code: \
             {status}: <Error><Code>{code}</Code><StringToSign>secret</StringToSign></Error>"
        );
        Error::Generic { store: "S3", source: text.into() }
    }

    #[test]
    fn an_answer_is_classified_by_its_status() {
        for (status, code, expected) in [
            ("500 Internal Server Error", "InternalError", "unavailable"),
            ("503 Service Unavailable", "SlowDown", "unavailable"),
            ("429 Too Many Requests", "TooManyRequests", "unavailable"),
            ("409 Conflict", "ConditionalRequestConflict", "unavailable"),
            ("400 Bad Request", "ExpiredToken", "refused"),
            ("301 Moved Permanently", "PermanentRedirect", "refused"),
            ("501 Not Implemented", "NotImplemented", "refused"),
            ("416 Range Not Satisfiable", "InvalidRange", "damaged"),
        ] {
            let error = classify(&answered(status, code));
            let kind = match &error {
                ColdError::Unavailable { .. } => "unavailable",
                ColdError::Refused(_) => "refused",
                ColdError::Damaged(_) => "damaged",
                _ => "another",
            };
            assert_eq!(kind, expected, "{status}: {error:?}");
            let text = format!("{error:?}");
            assert!(!text.contains("secret") && !text.contains("example"), "{text}");
            assert!(kind == "damaged" || text.contains(code), "{text}");
        }
    }

    #[test]
    fn a_missing_bucket_is_no_missing_object() {
        let missing = |code: &str| Error::NotFound {
            path: "x".into(),
            source: format!(
                "Server returned non-2xx status code: 404 Not Found: <Code>{code}</Code>"
            )
            .into(),
        };
        assert!(matches!(classify(&missing("NoSuchKey")), ColdError::NotFound));
        assert!(matches!(classify(&missing("NoSuchBucket")), ColdError::Refused(_)));
    }

    #[test]
    fn a_reason_is_one_line_without_an_address() {
        let error = |text: String| Error::Generic { store: "S3", source: text.into() };
        let reason = |text: String| match classify(&error(text)) {
            ColdError::Unavailable { reason, .. } => reason,
            other => panic!("{other:?}"),
        };
        assert_eq!(
            reason("connection refused\n(os error 111)".into()),
            "connection refused (os error 111)"
        );
        assert!(!reason("error for url (https://b.example/?sig=secret)".into()).contains("secret"));
        assert!(reason("\u{e9}".repeat(500)).len() <= LONGEST);
        let denied = io::Error::from(io::ErrorKind::PermissionDenied);
        let denied = Error::Generic { store: "LocalFileSystem", source: denied.into() };
        assert!(matches!(classify(&denied), ColdError::Refused(_)));
    }
}
