//! What browsers may do with a stream that they open as a page.

use durable_streams_pingora::BrowserRules;
use http::HeaderValue;

use crate::config::reader::setting::{InvalidValue, ScalarSetting, settings};

/// A value of `Content-Security-Policy`.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct SecurityPolicy(HeaderValue);

settings! {
    /// What browsers may do with a stream that they open as a page.
    pub struct BrowserConfig {
        /// `Content-Security-Policy` of stream responses.
        content_security_policy: Option<SecurityPolicy> =
            BrowserRules::default().content_security_policy.map(SecurityPolicy);
        /// Whether browsers save HTML, XML and SVG instead of showing them.
        attachments: bool = BrowserRules::default().attachments;
    }
}

impl BrowserConfig {
    /// For the stream routes.
    pub fn rules(&self) -> BrowserRules {
        BrowserRules {
            content_security_policy: self.content_security_policy.clone().map(|policy| policy.0),
            attachments: self.attachments,
        }
    }
}

impl ScalarSetting for SecurityPolicy {
    const WHAT: &'static str = "a policy such as sandbox; default-src 'none'";

    fn parse(text: &str) -> Result<Self, InvalidValue> {
        match HeaderValue::from_str(text) {
            Ok(value) if value.to_str().is_ok_and(|text| !text.trim().is_empty()) => {
                Ok(Self(value))
            }
            _ => Err(InvalidValue::not_a(Self::WHAT).fix("write it on one line, or none")),
        }
    }

    fn text(&self) -> String {
        self.0.to_str().unwrap_or_default().to_owned()
    }
}
