//! Who may do what: credentials, identity providers and what needs no credentials.

use std::path::PathBuf;

use durable_streams_auth::jwt::JwtAlgorithm;
use durable_streams_auth::{Grant, PathPattern};

use super::access_words::{KeysUrl, OperationWord, PatternText, TemplateText, operations, some};
use super::client_certificates::CertificateConfig;
use super::forward_auth::ForwardAuthConfig;
use crate::config::reader::error::ConfigProblems;
use crate::config::reader::setting::{InvalidValue, ScalarSetting, choice, settings};
use crate::config::units::HumanDuration;

use super::quotas::{self, QuotasConfig, RatesConfig};

choice! {
    /// Which decisions are logged, with the target `audit`.
    pub enum AuditConfig: "a choice of decisions" {
        /// None.
        Off = "off",
        /// Refusals.
        Refused = "refused",
        /// All of them.
        All = "all",
    }
}

choice! {
    /// What caches may do with responses.
    pub enum AccessCacheConfig: "a choice of caches" {
        /// Only the client's own may keep them.
        Private = "private",
        /// Shared ones may keep what everyone who has the URL may read.
        Shared = "shared",
    }
}

settings! {
    /// Who may do what. Without this section every client may do everything.
    pub struct AuthConfig {
        /// The file of API keys, projects and URL keys, made by the commands `key`, `project` and
        /// `url-key`. Its credentials are accepted, in this order: API keys, project tokens, and
        /// behind the issuers signed URLs.
        credentials: Option<PathBuf> = None;
        /// Identity providers whose tokens are accepted, in this order.
        issuers: Vec<IssuerConfig> = Vec::new();
        /// What client certificates allow; the first rule that fits decides. They need a listener with
        /// `client_ca`, and stand behind all credentials above.
        client_certificates: Vec<CertificateConfig> = Vec::new();
        /// A service of the operator's that decides about requests which no provider above knows.
        forward: Option<ForwardAuthConfig> = None;
        /// What requests without credentials may do.
        anonymous: Vec<GrantConfig> = Vec::new();
        /// The cookie that may carry a key or token in GET and HEAD requests.
        cookie: Option<CookieName> = None;
        /// Whether a client that may not read a stream gets 404 for it instead of 403.
        hide_unreadable: bool = true;
        /// Whether streams may be made public, which are readable without credentials.
        public_streams: bool = true;
        /// What caches may do with responses.
        cache: AccessCacheConfig = AccessCacheConfig::Private;
        /// How many requests and bytes are let through; without limits by default.
        rates: RatesConfig = RatesConfig::default();
        /// What may be held: live readers, streams and bytes; without limits by default.
        quotas: QuotasConfig = QuotasConfig::default();
        /// Which decisions are logged.
        audit: AuditConfig = AuditConfig::Refused;
    }
}

settings! {
    /// Operations on paths.
    pub struct GrantConfig {
        /// The operations.
        allow: Vec<OperationWord> = Vec::new();
        /// Patterns of the paths; `*` is one segment, `**` any number of them.
        paths: Vec<PatternText> = Vec::new();
    }
}

settings! {
    /// An identity provider: its keys, and what its tokens allow.
    pub struct IssuerConfig {
        /// Names it in logs.
        name: IssuerName = IssuerName::default();
        /// The `iss` of its tokens, byte for byte.
        issuer: String = String::new();
        /// A token must name one of these in `aud`.
        audience: Vec<String> = Vec::new();
        /// Accepts tokens whatever their `aud`, in place of `audience`.
        any_audience: bool = false;
        /// The algorithms that it signs with.
        algorithms: Vec<AlgorithmName> = vec![AlgorithmName(JwtAlgorithm::RS256)];
        /// URL of its key set. Without any of these three, the issuer's own metadata names it.
        jwks_url: Option<KeysUrl> = None;
        /// File of its key set.
        jwks_file: Option<PathBuf> = None;
        /// File of a secret that is shared with it, for HS256, HS384 and HS512.
        secret_file: Option<PathBuf> = None;
        /// How far its clock may differ.
        leeway: HumanDuration = HumanDuration::secs(30)
            => HumanDuration::millis(0), HumanDuration::secs(300);
        /// The claim that names the tenant, as a JSON Pointer. A token without it is refused.
        tenant_claim: Option<ClaimPointer> = None;
        /// The claim that holds scopes or roles.
        scope_claim: Option<ClaimPointer> = None;
        /// What the scopes allow.
        scopes: Vec<ScopeConfig> = Vec::new();
        /// What every token allows. Not with `scope_claim`.
        allow: Vec<OperationWord> = Vec::new();
        /// The claim that holds path patterns.
        paths_claim: Option<ClaimPointer> = None;
        /// The patterns of every token; `{sub}` as a segment is that claim. Not with `paths_claim`.
        paths: Vec<TemplateText> = Vec::new();
    }
}

settings! {
    /// What a scope or role allows.
    pub struct ScopeConfig {
        /// The scope.
        scope: String = String::new();
        /// The operations.
        allow: Vec<OperationWord> = Vec::new();
    }
}

/// A JSON Pointer into the claims of a token.
#[derive(Clone, Debug, PartialEq)]
pub struct ClaimPointer(String);

/// The name of a signature algorithm.
#[derive(Clone, Copy, Debug, PartialEq)]
pub struct AlgorithmName(pub JwtAlgorithm);

/// The name of an issuer in logs.
#[derive(Clone, Debug, Default, PartialEq)]
pub struct IssuerName(String);

/// The name of a cookie.
#[derive(Clone, Debug, PartialEq)]
pub struct CookieName(String);

macro_rules! text_of {
    ($($name:ident),*) => {$(
        impl $name {
            /// The text.
            pub fn as_str(&self) -> &str {
                &self.0
            }
        }
    )*};
}
text_of!(ClaimPointer, IssuerName, CookieName);

impl GrantConfig {
    /// The grant.
    pub fn grant(&self) -> Grant {
        let paths = self.paths.iter().filter_map(|text| PathPattern::parse(text.as_str()).ok());
        Grant { operations: operations(&self.allow), paths: paths.collect() }
    }
}

impl ScalarSetting for ClaimPointer {
    const WHAT: &'static str = "a JSON Pointer such as /realm_access/roles";

    fn parse(text: &str) -> Result<Self, InvalidValue> {
        if text.starts_with('/') && text.len() > 1 && !text.chars().any(char::is_control) {
            return Ok(ClaimPointer(text.to_owned()));
        }
        Err(InvalidValue::not_a(Self::WHAT).fix("start it with /"))
    }

    fn text(&self) -> String {
        self.0.clone()
    }
}

impl ScalarSetting for AlgorithmName {
    const WHAT: &'static str = "a signature algorithm";

    fn parse(text: &str) -> Result<Self, InvalidValue> {
        let fix = "use RS256, RS384, RS512, PS256, PS384, PS512, ES256, ES384, EdDSA, HS256, \
                   HS384 or HS512";
        let parsed = text.parse().map(AlgorithmName);
        parsed.map_err(|_| InvalidValue::not_a(Self::WHAT).fix(fix))
    }

    fn text(&self) -> String {
        format!("{:?}", self.0)
    }
}

impl ScalarSetting for IssuerName {
    const WHAT: &'static str = "a name";

    fn parse(text: &str) -> Result<Self, InvalidValue> {
        let plain = |byte: u8| byte.is_ascii_alphanumeric() || byte == b'-' || byte == b'_';
        if (1..=64).contains(&text.len()) && text.bytes().all(plain) {
            return Ok(IssuerName(text.to_owned()));
        }
        Err(InvalidValue::not_a(Self::WHAT).fix("use letters, digits, - and _"))
    }

    fn text(&self) -> String {
        self.0.clone()
    }
}

impl ScalarSetting for CookieName {
    const WHAT: &'static str = "the name of a cookie";

    fn parse(text: &str) -> Result<Self, InvalidValue> {
        let plain = |byte: u8| byte.is_ascii_alphanumeric() || b"-_.".contains(&byte);
        if (1..=64).contains(&text.len()) && text.bytes().all(plain) {
            return Ok(CookieName(text.to_owned()));
        }
        Err(InvalidValue::not_a(Self::WHAT).fix("use letters, digits, - _ and ."))
    }

    fn text(&self) -> String {
        self.0.clone()
    }
}

/// Reports what contradicts itself in the section.
pub(in crate::config) fn check(auth: Option<&AuthConfig>, problems: &mut ConfigProblems<'_>) {
    let Some(auth) = auth else { return };
    let providers = [
        auth.credentials.is_some(),
        !auth.issuers.is_empty(),
        !auth.client_certificates.is_empty(),
        auth.forward.is_some(),
        !auth.anonymous.is_empty(),
    ];
    if let Some(forward) = &auth.forward {
        super::forward_auth::check(forward, !auth.anonymous.is_empty(), problems);
    }
    if !providers.contains(&true) {
        let fix = "name a file in auth.credentials, or an issuer in auth.issuers";
        problems.broken(&[("auth", "")], "lets nobody in".to_owned(), fix);
    }
    for (at, grant) in auth.anonymous.iter().enumerate() {
        let path = format!("auth.anonymous[{at}]");
        some(&grant.allow, &path, "allow", "allows nothing", problems);
        some(&grant.paths, &path, "paths", "names no paths", problems);
    }
    quotas::check(&auth.rates, &auth.quotas, problems);
    for (at, issuer) in auth.issuers.iter().enumerate() {
        let path = format!("auth.issuers[{at}]");
        let same = |other: &IssuerConfig| other.name == issuer.name;
        if auth.issuers.iter().take(at).any(same) {
            let rule = "is the name of another issuer".to_owned();
            problems.broken(&[(&format!("{path}.name"), "")], rule, "give each its own");
        }
        check_issuer(issuer, &path, problems);
    }
}

fn check_issuer(issuer: &IssuerConfig, path: &str, problems: &mut ConfigProblems<'_>) {
    let mut broken = |key: &str, rule: &str, fix: &str| {
        problems.broken(&[(&format!("{path}.{key}"), "")], rule.to_owned(), fix);
    };
    if issuer.name.0.is_empty() {
        broken("name", "is missing", "name the issuer, for logs");
    }
    if !issuer.issuer.starts_with("https://") && !issuer.issuer.starts_with("http://") {
        broken("issuer", "is not a URL", "write the iss of its tokens, byte for byte");
    }
    match (issuer.audience.is_empty(), issuer.any_audience) {
        (true, false) => {
            let fix = "name the aud of tokens for this server, or set any_audience";
            broken("audience", "is missing: every token of the issuer would be accepted", fix);
        }
        (false, true) => broken("any_audience", "stands beside audience", "remove one of them"),
        _ => {}
    }
    let sources =
        [issuer.jwks_url.is_some(), issuer.jwks_file.is_some(), issuer.secret_file.is_some()];
    if sources.into_iter().filter(|one| *one).count() > 1 {
        let rule = "stands beside another source of keys";
        broken("jwks_url", rule, "keep one of jwks_url, jwks_file and secret_file");
    }
    if issuer.algorithms.is_empty() {
        broken("algorithms", "is empty", "list the algorithms that the issuer signs with");
    }
    let shared = |one: &AlgorithmName| one.text().starts_with("HS");
    let secret = issuer.secret_file.is_some();
    if issuer.algorithms.iter().any(|one| shared(one) != secret) {
        let fix = "use HS256, HS384 and HS512 with secret_file, and only there";
        broken("algorithms", "does not go with the kind of key", fix);
    }
    if issuer.scope_claim.is_some() == issuer.scopes.is_empty() {
        broken("scopes", "and scope_claim need each other", "write both, or neither");
    }
    if issuer.scope_claim.is_some() != issuer.allow.is_empty() {
        let fix = "write allow for all tokens, or scope_claim and scopes";
        broken("allow", "must be there when scope_claim is not, and only then", fix);
    }
    if issuer.paths_claim.is_some() != issuer.paths.is_empty() {
        let fix = "write paths for all tokens, or paths_claim";
        broken("paths", "must be there when paths_claim is not, and only then", fix);
    }
}
