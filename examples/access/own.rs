//! A provider of your own, which decides by office hours: `cargo run --example access -- own`, then
//! `curl -X PUT -H 'Authorization: Bearer clerk' localhost:4437/v1/stream/files/1`.

use std::{collections::HashSet, sync::Arc};

use durable_streams_auth::{
    AccessControl, AccessError, AccessGuard, GuardOptions, Operation, Principal, RequestHead,
    bearer,
};
use durable_streams_protocol::{StreamPath, Timestamp};
use parking_lot::Mutex;

/// Clerks, until they are dismissed. The supervisor deletes; nobody else does.
#[derive(Default)]
pub(crate) struct Office {
    dismissed: Mutex<HashSet<String>>,
}

#[allow(dead_code, reason = "an administrator's command would call it, as the tests do")]
impl Office {
    pub(crate) fn dismiss(&self, name: &str) {
        self.dismissed.lock().insert(name.to_owned());
    }
}

#[async_trait::async_trait]
impl AccessControl for Office {
    fn name(&self) -> &str {
        "office"
    }

    async fn authenticate(&self, head: &RequestHead<'_>) -> Result<Arc<Principal>, AccessError> {
        match bearer(head)? {
            Some(name @ ("clerk" | "supervisor")) if !self.dismissed.lock().contains(name) => {
                Ok(Arc::new(Principal::new(name)))
            }
            Some(_) => Err(AccessError::UnknownCredentials),
            None => Err(AccessError::NoCredentials),
        }
    }

    // Without this, the principal's grants decide.
    async fn authorize(
        &self,
        _head: &RequestHead<'_>,
        principal: &Principal,
        operation: Operation,
        path: &StreamPath,
    ) -> Result<(), AccessError> {
        let allowed = match operation {
            Operation::Delete => &*principal.identity == "supervisor",
            Operation::Create | Operation::Append | Operation::Read => {
                path.first_segment() == "files"
            }
            _ => false,
        };
        if allowed { Ok(()) } else { Err(AccessError::NotAllowed) }
    }

    // A live read ends soon after this turns `false`.
    fn is_current(&self, principal: &Principal, _now: Timestamp) -> bool {
        !self.dismissed.lock().contains(&*principal.identity)
    }
}

pub(crate) fn guard(office: Arc<Office>) -> AccessGuard {
    AccessGuard::new(office, GuardOptions::default())
}
