//! Tenants: from the path that a client names to the path under which the stream is stored, and back.
//!
//! A principal with a tenant names streams as if the server were its own. The stored path of `x` is
//!
//! ```text
//! __ds/t/{tenant}/{x}
//! ```
//!
//! byte for byte: `x` is the decoded path, unchanged. A principal without a tenant names the stored path
//! itself, so streams that exist before tenants do, `t/...` among them, keep their names.
//!
//! Invariants, each shown by a property test below
//! - No client path spells a tenant's stored path, with or without a tenant: every one of them begins with
//!   the reserved segment `__ds`, which [`StreamPath::from_url`] and [`StreamPath::new`] refuse however it
//!   is escaped, and [`stored_path`] refuses again.
//! - Two (tenant, path) pairs never share a stored path: a tenant's id has no slash, so the third slash of
//!   a stored path ends it.
//! - [`client_path`] returns exactly the paths of its own tenant.
//!
//! A tenant's paths are shorter than [`MAX_PATH_BYTES`](crate::MAX_PATH_BYTES) by the
//! prefix: at least 952 of 1,024 bytes are left.

use std::{borrow::Borrow, fmt, sync::Arc};

use serde::{Deserialize, Serialize};

use super::path::{PathError, StreamPath};

/// What every tenant's stored paths begin with, before the slash and the tenant's name.
pub const TENANTS_PREFIX: &str = "__ds/t";
/// The same with the slash.
const TENANTS: &str = "__ds/t/";
/// The longest tenant id, bytes.
pub const MAX_TENANT_BYTES: usize = 64;

/// A tenant's name: 1 to 64 ASCII letters, digits, `-` and `_`, compared byte for byte.
///
/// Nothing else can be a name: a slash, a dot, a percent sign, a space, a letter beyond ASCII or nothing
/// at all is refused, so a name is always exactly one path segment and has only one spelling.
#[derive(Clone, PartialEq, Eq, Hash, PartialOrd, Ord, Serialize, Deserialize)]
#[serde(try_from = "String", into = "String")]
pub struct TenantId(Arc<str>);

/// A text that cannot name a tenant or a project.
#[derive(Clone, Copy, Debug, PartialEq, Eq, thiserror::Error)]
#[error("a tenant or project is named by 1 to {MAX_TENANT_BYTES} letters, digits, '-' and '_'")]
pub struct TenantIdError;

impl TenantId {
    /// Checks a name.
    ///
    /// # Errors
    /// [`TenantIdError`] for anything but 1 to 64 of the characters above.
    pub fn new(text: &str) -> Result<Self, TenantIdError> {
        let allowed = |byte: u8| byte.is_ascii_alphanumeric() || byte == b'-' || byte == b'_';
        let sized = (1..=MAX_TENANT_BYTES).contains(&text.len());
        // A first segment that the protocol reserves is not a project's.
        let reserved = text == StreamPath::RESERVED;
        let valid = sized && !reserved && text.bytes().all(allowed);
        if valid { Ok(TenantId(text.into())) } else { Err(TenantIdError) }
    }

    /// The name.
    pub fn as_str(&self) -> &str {
        &self.0
    }
}

impl fmt::Display for TenantId {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(&self.0)
    }
}

impl fmt::Debug for TenantId {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{:?}", &*self.0)
    }
}

impl Borrow<str> for TenantId {
    fn borrow(&self) -> &str {
        &self.0
    }
}

impl TryFrom<String> for TenantId {
    type Error = TenantIdError;

    fn try_from(text: String) -> Result<Self, TenantIdError> {
        TenantId::new(&text)
    }
}

impl From<TenantId> for String {
    fn from(tenant: TenantId) -> String {
        tenant.as_str().into()
    }
}

/// The path under which the stream is stored that a principal of `tenant` names `path`.
///
/// # Errors
/// `Reserved` when `path` begins with the reserved segment, `TooLong` when the prefix leaves no room.
pub fn stored_path(tenant: Option<&TenantId>, path: &StreamPath) -> Result<StreamPath, PathError> {
    if is_reserved(path.as_str()) {
        return Err(PathError::Reserved);
    }
    match tenant {
        None => Ok(path.clone()),
        Some(tenant) => StreamPath::system(&format!("{}{path}", stored_prefix(tenant))),
    }
}

/// The name that a principal of `tenant` has for a stored path; `None` when the stream belongs to another
/// tenant, to no tenant while there is one, or to the server itself.
pub fn client_path(tenant: Option<&TenantId>, stored: &StreamPath) -> Option<StreamPath> {
    match (tenant, split_stored(stored.as_str())?) {
        (None, (None, _)) => Some(stored.clone()),
        (Some(tenant), (Some(owner), named)) if tenant.as_str() == owner => {
            StreamPath::new(named).ok()
        }
        _ => None,
    }
}

/// The tenant to which a stored path belongs, and the client's name for it; `None` when the stream is one of
/// the server's own. Allocates nothing: every commit calls it while a subscription exists.
pub fn split_stored(stored: &str) -> Option<(Option<&str>, &str)> {
    if !is_reserved(stored) {
        return Some((None, stored));
    }
    let (tenant, named) = stored.strip_prefix(TENANTS)?.split_once('/')?;
    (!named.is_empty() && !is_reserved(named)).then_some((Some(tenant), named))
}

/// Whether a path begins with the reserved segment.
fn is_reserved(path: &str) -> bool {
    let rest = path.strip_prefix(StreamPath::RESERVED);
    rest.is_some_and(|rest| rest.is_empty() || rest.starts_with('/'))
}

/// What the stored paths of a tenant begin with; also the prefix of the tenant's patterns.
pub fn stored_prefix(tenant: &TenantId) -> String {
    format!("{TENANTS}{tenant}/")
}

/// The tenant to which a stored path belongs.
pub fn stored_tenant(stored: &StreamPath) -> Option<TenantId> {
    let (tenant, _) = stored.as_str().strip_prefix(TENANTS)?.split_once('/')?;
    TenantId::new(tenant).ok()
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;

    fn tenant(text: &str) -> TenantId {
        TenantId::new(text).unwrap()
    }

    #[test]
    fn byte_for_byte() {
        let path = StreamPath::new("t/chat/room one").unwrap();
        let stored = stored_path(Some(&tenant("acme")), &path).unwrap();
        assert_eq!(stored.as_str(), "__ds/t/acme/t/chat/room one");
        assert_eq!(client_path(Some(&tenant("acme")), &stored), Some(path.clone()));
        assert_eq!(stored_tenant(&stored), Some(tenant("acme")));
        assert_eq!(stored_path(None, &path).unwrap(), path, "without a tenant nothing changes");
        assert_eq!(client_path(None, &path), Some(path));
    }

    #[test]
    fn an_id_that_could_be_read_as_another_place_is_refused() {
        for text in [
            "", ".", "..", "a/b", "/", "a/", "a.b", "%2e", "a%2Fb", "a b", "é", "a\0", "a\\b",
            "__ds",
        ] {
            assert_eq!(TenantId::new(text), Err(TenantIdError), "{text:?}");
        }
        assert!(TenantId::new(&"x".repeat(65)).is_err());
        assert_ne!(tenant("Acme"), tenant("acme"));
    }

    #[test]
    fn a_map_is_asked_by_text_and_a_log_shows_it() {
        let tenants = std::collections::HashMap::from([(tenant("acme"), 1), (tenant("other"), 2)]);
        assert_eq!((tenants.get("acme"), tenants.get("Acme")), (Some(&1), None));
        assert_eq!(format!("{:?}", tenant("acme")), r#""acme""#);
    }

    #[test]
    fn the_servers_own_streams_have_no_name() {
        let own = StreamPath::system("__ds/subscriptions/x/0").unwrap();
        assert_eq!(client_path(None, &own), None);
        assert_eq!(client_path(Some(&tenant("acme")), &own), None);
        assert_eq!(stored_path(None, &own), Err(PathError::Reserved));
        let nested = StreamPath::system("__ds/t/acme/__ds/x").unwrap();
        assert_eq!(client_path(Some(&tenant("acme")), &nested), None);
        assert_eq!(client_path(None, &nested), None);
        for own in [
            "__ds",
            "__ds/",
            "__ds/t",
            "__ds/t/",
            "__ds/t/acme",
            "__ds/t/acme/",
            "__ds/t/acme/__ds",
        ] {
            assert_eq!(split_stored(own), None, "{own}");
        }
        assert_eq!(split_stored("__dsx/a"), Some((None, "__dsx/a")));
        assert_eq!(split_stored("__ds/t/acme/__dsx"), Some((Some("acme"), "__dsx")));
    }

    #[test]
    fn a_name_that_begins_another_does_not_open_it() {
        let stored = stored_path(Some(&tenant("acme-2")), &StreamPath::new("x").unwrap()).unwrap();
        assert_eq!(client_path(Some(&tenant("acme")), &stored), None);
    }

    fn any_tenant() -> impl Strategy<Value = Option<TenantId>> {
        proptest::option::of("[a-c_-]{1,3}".prop_map(|text| tenant(&text)))
    }

    /// Paths as clients spell them, made of the pieces that mappings trip over.
    fn any_url() -> impl Strategy<Value = String> {
        let piece = proptest::sample::select(vec![
            "__ds", "%5f%5fds", "_%5Fds", "t", "%74", "a", "b", "c", "acme", "/", "/", "/", "%2F",
            "%2f", "//", ".", "..", "%2e", "%2E%2e", "\\", "%5C", "%25", "%252F", "%00", "é",
            "%C3%A9", "-", "*", "%2A", ";", "?", "#",
        ]);
        proptest::collection::vec(piece, 0..10).prop_map(|pieces| pieces.concat())
    }

    proptest! {
        #![proptest_config(ProptestConfig::with_cases(2000))]

        #[test]
        fn no_client_path_spells_a_tenants_stored_path(url in any_url(), owner in any_tenant()) {
            let Ok(named) = StreamPath::from_url(&url) else { return Ok(()) };
            prop_assert!(!named.as_str().starts_with("__ds/"));
            let Ok(stored) = stored_path(owner.as_ref(), &named) else { return Ok(()) };
            prop_assert_eq!(stored_tenant(&stored), owner.clone());
            let split = split_stored(stored.as_str());
            prop_assert_eq!(split, Some((owner.as_ref().map(TenantId::as_str), named.as_str())));
            prop_assert_eq!(client_path(owner.as_ref(), &stored), Some(named));
        }

        #[test]
        fn two_clients_never_share_a_stored_path(
            (first, one) in (any_tenant(), any_url()),
            (second, other) in (any_tenant(), any_url()),
        ) {
            let (Ok(one), Ok(other)) = (StreamPath::from_url(&one), StreamPath::from_url(&other))
            else { return Ok(()) };
            let (Ok(a), Ok(b)) =
                (stored_path(first.as_ref(), &one), stored_path(second.as_ref(), &other))
            else { return Ok(()) };
            prop_assert_eq!(a == b, first == second && one == other);
            if first != second {
                prop_assert_eq!(client_path(second.as_ref(), &a), None);
            }
        }
    }
}
