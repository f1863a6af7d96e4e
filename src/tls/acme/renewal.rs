//! When a certificate is due: in the window that the authority suggests (RFC 9773), otherwise at two thirds
//! of its life.

use std::{
    hash::{DefaultHasher, Hash, Hasher},
    ops::Range,
};

use base64::{Engine, engine::general_purpose::URL_SAFE_NO_PAD};
use durable_streams_protocol::Timestamp;
use instant_acme::{Account, CertificateIdentifier};
use x509_parser::{certificate::X509Certificate, extensions::ParsedExtension, prelude::FromDer};

use crate::tls::certificate::{CertificateFacts, LoadedCertificate};

/// The window that the authority suggests for a certificate; `None` where it suggests none.
pub(super) async fn window(
    account: &Account,
    certificate: &LoadedCertificate,
) -> Option<Range<Timestamp>> {
    let (info, _) = account.renewal_info(&identifier(certificate)?).await.ok()?;
    let moment = |seconds: i64| {
        Some(Timestamp::from_millis(u64::try_from(seconds).ok()?.checked_mul(1000)?))
    };
    let window = info.suggested_window;
    Some(moment(window.start.unix_timestamp())?..moment(window.end.unix_timestamp())?)
}

/// How RFC 9773 §4.1 names a certificate; `None` where it has no authority key identifier.
pub(super) fn identifier(
    certificate: &LoadedCertificate,
) -> Option<CertificateIdentifier<'static>> {
    let (_, parsed) = X509Certificate::from_der(certificate.key.end_entity_cert().ok()?).ok()?;
    let key_id = parsed.extensions().iter().find_map(|extension| {
        let ParsedExtension::AuthorityKeyIdentifier(one) = extension.parsed_extension() else {
            return None;
        };
        one.key_identifier.as_ref()
    })?;
    Some(CertificateIdentifier {
        authority_key_identifier: URL_SAFE_NO_PAD.encode(key_id.0).into(),
        serial: URL_SAFE_NO_PAD.encode(parsed.raw_serial()).into(),
    })
}

/// The moment of renewal. It is drawn once per certificate, not once per call, so that looking often does
/// not make it early; and never later than two thirds of the life plus a twelfth, whatever was suggested.
pub(super) fn due(
    host: &str,
    facts: &CertificateFacts,
    suggested: Option<Range<Timestamp>>,
) -> Timestamp {
    let (from, until) = (facts.not_before.millis(), facts.not_after.millis());
    let life = until.saturating_sub(from);
    let own = from + life / 3 * 2..from + life / 12 * 9;
    let window = suggested.map(|one| one.start.millis()..one.end.millis());
    let window = window.filter(|one| one.start < one.end && one.end < until).unwrap_or(own);
    let width = window.end.saturating_sub(window.start).max(1);
    Timestamp::from_millis(window.start + draw(host, until) % width)
}

/// A number that is the same for the same certificate, and differs between names.
fn draw(host: &str, until: u64) -> u64 {
    let mut hasher = DefaultHasher::new();
    (host, until).hash(&mut hasher);
    hasher.finish()
}

#[cfg(test)]
mod tests {
    use super::*;

    const DAY: u64 = 86_400_000;

    fn facts(days: u64) -> CertificateFacts {
        CertificateFacts {
            names: vec!["a.test".into()],
            not_before: Timestamp::from_millis(1_000 * DAY),
            not_after: Timestamp::from_millis((1_000 + days) * DAY),
            lacks_issuer: false,
        }
    }

    #[test]
    fn without_a_suggestion_it_is_due_after_two_thirds_of_its_life() {
        let mut moments = Vec::new();
        for host in ["a.test", "b.test", "c.test", "d.test"] {
            let due = due(host, &facts(90), None).millis();
            assert!((1_060 * DAY..1_068 * DAY).contains(&due), "{host}: {}", due / DAY);
            moments.push(due);
        }
        moments.dedup();
        assert_eq!(moments.len(), 4, "names are spread");
        assert_eq!(due("a.test", &facts(90), None), due("a.test", &facts(90), None));
    }

    #[test]
    fn the_suggested_window_is_kept() {
        let at = |day| Timestamp::from_millis(day * DAY);
        let due = due("a.test", &facts(90), Some(at(1_010)..at(1_012)));
        assert!(at(1_010) <= due && due < at(1_012));
    }

    #[test]
    fn a_window_that_ends_after_the_certificate_is_not_believed() {
        let at = |day| Timestamp::from_millis(day * DAY);
        for window in [at(1_080)..at(1_100), at(1_050)..at(1_050), at(1_060)..at(1_020)] {
            let due = due("a.test", &facts(90), Some(window));
            assert!(at(1_060) <= due && due < at(1_068));
        }
    }

    #[test]
    fn certificates_of_six_days_are_renewed_in_time() {
        let due = due("a.test", &facts(6), None).millis();
        assert!((1_004 * DAY..1_005 * DAY).contains(&due));
    }
}
