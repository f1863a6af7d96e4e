//! Requests as a server would describe them.

use std::{path::PathBuf, sync::Arc};

use durable_streams_auth::{
    AccessControl, AccessError, AccessGuard, CredentialFile, Grant, GuardOptions, Operation,
    OperationSet, PathPattern, Principal, RequestHead,
};
use durable_streams_protocol::{StreamPath, Timestamp};
use http::{HeaderMap, HeaderName, HeaderValue, Method};

/// A request in the making.
pub(crate) struct Request {
    pub(crate) method: Method,
    pub(crate) query: Option<String>,
    pub(crate) headers: HeaderMap,
    pub(crate) path: Option<StreamPath>,
    pub(crate) now: Timestamp,
}

impl Request {
    pub(crate) fn new(path: &str) -> Self {
        Request {
            method: Method::GET,
            query: None,
            headers: HeaderMap::new(),
            path: StreamPath::from_url(path).ok(),
            now: at(0),
        }
    }

    pub(crate) fn bearer(path: &str, token: &str) -> Self {
        Request::new(path).header("authorization", &format!("Bearer {token}"))
    }

    pub(crate) fn header(mut self, name: &'static str, value: &str) -> Self {
        let value = HeaderValue::from_str(value).unwrap();
        self.headers.append(HeaderName::from_static(name), value);
        self
    }

    pub(crate) fn query(mut self, query: &str) -> Self {
        self.query = Some(query.into());
        self
    }

    pub(crate) fn method(mut self, method: Method) -> Self {
        self.method = method;
        self
    }

    pub(crate) fn at(mut self, now: Timestamp) -> Self {
        self.now = now;
        self
    }

    pub(crate) fn head(&self) -> RequestHead<'_> {
        RequestHead {
            method: &self.method,
            query: self.query.as_deref(),
            headers: &self.headers,
            path: self.path.as_ref(),
            client: None,
            certificate: None,
            other_path: None,
            now: self.now,
        }
    }

    pub(crate) async fn authenticate(
        &self,
        provider: &dyn AccessControl,
    ) -> Result<Arc<Principal>, AccessError> {
        provider.authenticate(&self.head()).await
    }

    /// What a guard answers, by status; 200 when it lets the request through.
    pub(crate) async fn status(&self, provider: Arc<dyn AccessControl>, one: Operation) -> u16 {
        let guard = AccessGuard::new(provider, GuardOptions::default());
        let path = self.path.as_ref().unwrap();
        let verdict = guard.admit(&self.head(), OperationSet::of(one), path).await;
        verdict.map_or_else(|error| error.status().as_u16(), |_| 200)
    }
}

/// Milliseconds since 1970.
pub(crate) fn at(millis: u64) -> Timestamp {
    Timestamp::from_millis(millis)
}

pub(crate) fn grant(words: &[&str], pattern: &str) -> Grant {
    let sets = words.iter().map(|word| OperationSet::from_word(word).unwrap());
    let set = sets.fold(OperationSet::NONE, OperationSet::union);
    Grant::on(set, PathPattern::parse(pattern).unwrap())
}

/// An empty credentials file in a folder of its own.
pub(crate) fn credentials() -> (tempfile::TempDir, PathBuf, Arc<CredentialFile>) {
    let folder = tempfile::tempdir().unwrap();
    let path = folder.path().join("credentials.json");
    let file = Arc::new(CredentialFile::open(&path).unwrap());
    (folder, path, file)
}
