//! What browsers may do with a stream that they open as a page: the configured deviations from what the protocol crate
//! renders, which is nothing at all.

use durable_streams_protocol::{CONTENT_SECURITY_POLICY, Response};
use http::{HeaderValue, header};

/// What browsers may do with a stream that they open as a page.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct BrowserRules {
    /// `Content-Security-Policy` of stream responses; `None` leaves the field out. Refusals keep the default.
    pub content_security_policy: Option<HeaderValue>,
    /// Whether HTML, XML and SVG are saved instead of shown (`Content-Disposition: attachment`).
    pub attachments: bool,
}

impl Default for BrowserRules {
    fn default() -> Self {
        let policy = Some(CONTENT_SECURITY_POLICY);
        BrowserRules { content_security_policy: policy, attachments: true }
    }
}

impl BrowserRules {
    /// Changes a rendered success where the rules differ from the defaults.
    pub(crate) fn apply(&self, response: &mut Response) {
        if !self.attachments {
            response.headers.retain(|(name, _)| *name != header::CONTENT_DISPOSITION);
        }
        match &self.content_security_policy {
            Some(policy) if *policy == CONTENT_SECURITY_POLICY => {}
            policy => response.headers.retain_mut(|(name, value)| {
                if *name != header::CONTENT_SECURITY_POLICY {
                    return true;
                }
                policy.as_ref().is_some_and(|policy| {
                    value.clone_from(policy);
                    true
                })
            }),
        }
    }
}
