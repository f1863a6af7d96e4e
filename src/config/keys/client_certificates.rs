//! What client certificates allow.

use durable_streams_auth::{
    CertificateName, CertificateRule, CertificateTenant, ClaimTemplate, NamePattern, TenantId,
};

use super::access_words::{OperationWord, TemplateText, operations, some};
use crate::config::reader::error::ConfigProblems;
use crate::config::reader::setting::{InvalidValue, ScalarSetting, settings};

/// Stands for what the `*` of a certificate's name stands for.
const NAME_BLANK: &str = "{name}";

settings! {
    /// What certificates with a certain name may do. One `*` in the name stands for letters, digits, `-` and
    /// `_`, and outside DNS names dots too.
    pub struct CertificateConfig {
        /// The common name of the subject.
        common_name: Option<CertificateNameText> = None;
        /// A DNS name of `subjectAltName`.
        dns: Option<CertificateNameText> = None;
        /// A URI of `subjectAltName`, such as `spiffe://example.com/workers/*`.
        uri: Option<CertificateNameText> = None;
        /// A mail address of `subjectAltName`.
        email: Option<CertificateNameText> = None;
        /// Whose streams the client names: a tenant, or `{name}`, which is what the `*` stands for.
        tenant: Option<TenantText> = None;
        /// The operations.
        allow: Vec<OperationWord> = Vec::new();
        /// Patterns of the paths; `{name}` as a segment is what the `*` stands for.
        paths: Vec<TemplateText> = Vec::new();
    }
}

/// A name in a certificate, with one `*` or none.
#[derive(Clone, Debug, PartialEq)]
pub struct CertificateNameText(String);

/// A tenant, or `{name}`.
#[derive(Clone, Debug, PartialEq)]
pub struct TenantText(String);

impl CertificateConfig {
    /// The rule; `None` where it names no certificate.
    pub fn rule(&self) -> Option<CertificateRule> {
        let parse = |text: &Option<CertificateNameText>| {
            text.as_ref().and_then(|text| NamePattern::parse(&text.0).ok())
        };
        let name = None
            .or_else(|| parse(&self.common_name).map(CertificateName::CommonName))
            .or_else(|| parse(&self.dns).map(CertificateName::Dns))
            .or_else(|| parse(&self.uri).map(CertificateName::Uri))
            .or_else(|| parse(&self.email).map(CertificateName::Email))?;
        let tenant = match self.tenant.as_ref().map(|text| text.0.as_str()) {
            None => CertificateTenant::None,
            Some(NAME_BLANK) => CertificateTenant::Named,
            Some(text) => CertificateTenant::Fixed(TenantId::new(text).ok()?),
        };
        let paths = self.paths.iter().filter_map(|one| ClaimTemplate::parse(one.as_str()).ok());
        let operations = operations(&self.allow);
        Some(CertificateRule { name, tenant, operations, paths: paths.collect() })
    }
}

impl ScalarSetting for CertificateNameText {
    const WHAT: &'static str = "a name of a certificate such as *.devices.example.com";

    fn parse(text: &str) -> Result<Self, InvalidValue> {
        let parsed = NamePattern::parse(text).map(|_| CertificateNameText(text.to_owned()));
        parsed.map_err(|why| InvalidValue::not_a(Self::WHAT).fix(why))
    }

    fn text(&self) -> String {
        self.0.clone()
    }
}

impl ScalarSetting for TenantText {
    const WHAT: &'static str = "a tenant, or {name}";

    fn parse(text: &str) -> Result<Self, InvalidValue> {
        if text == NAME_BLANK || TenantId::new(text).is_ok() {
            return Ok(TenantText(text.to_owned()));
        }
        Err(InvalidValue::not_a(Self::WHAT).fix("use 1 to 64 letters, digits, - and _"))
    }

    fn text(&self) -> String {
        self.0.clone()
    }
}

/// Reports what contradicts itself in the rules; and rules where no listener asks for certificates.
pub(crate) fn check(
    rules: &[CertificateConfig],
    asked_for: bool,
    problems: &mut ConfigProblems<'_>,
) {
    for (at, rule) in rules.iter().enumerate() {
        check_rule(rule, &format!("auth.client_certificates[{at}]"), problems);
    }
    if !rules.is_empty() && !asked_for {
        let fix = "name the authorities in listen[].tls.client_ca";
        let why = "stands where no listener asks for client certificates".to_owned();
        problems.broken(&[("auth.client_certificates", "")], why, fix);
    }
}

fn check_rule(rule: &CertificateConfig, path: &str, problems: &mut ConfigProblems<'_>) {
    some(&rule.allow, path, "allow", "allows nothing", problems);
    some(&rule.paths, path, "paths", "names no paths", problems);
    let names = [&rule.common_name, &rule.dns, &rule.uri, &rule.email];
    if names.into_iter().flatten().count() != 1 {
        let fix = "write one of common_name, dns, uri and email";
        problems.broken(&[(path, "")], "does not name certificates by one name".to_owned(), fix);
    }
    let parsed = rule.paths.iter().filter_map(|text| ClaimTemplate::parse(text.as_str()).ok());
    if parsed.into_iter().any(|template| template.claims().any(|claim| claim != "name")) {
        let rule = "names a claim, and a certificate has none".to_owned();
        problems.broken(&[(&format!("{path}.paths"), "")], rule, "use {name}");
    }
}
