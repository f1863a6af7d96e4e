//! What a request that was let through may do, and for how long.

use std::{pin::Pin, sync::Arc, time::Duration};

use durable_streams_auth::{
    AccessError, AccessGuard, ByteMeter, MeteredBytes, Principal, ReaderPermit, RequestHead,
    RequestSize,
};
use durable_streams_engine::Engine;
use durable_streams_protocol::{Rejection, StreamCore, StreamPath, Timestamp};

use super::caching::ReplyAudience;

/// How often a live read looks whether its credential was revoked.
const REVOCATION_CHECK: Duration = Duration::from_secs(2);

/// How long a refusal to read takes when the stream was looked up, longer than the lookup: an unknown client
/// must not learn from the time whether a stream is there.
const LOOKUP_TIME: Duration = Duration::from_millis(10);

/// The right to a reply, and to go on with a live read.
pub(super) struct AccessRights {
    guard: Arc<AccessGuard>,
    /// `None`: the stream is read because it is public, by a client without credentials or in spite of them.
    principal: Option<Arc<Principal>>,
    /// What the bytes of the request are taken from.
    meter: Option<Arc<ByteMeter>>,
    /// The place of a live read, for as long as it goes on.
    _reader: Option<ReaderPermit>,
}

impl AccessRights {
    /// What a principal was granted.
    pub(super) fn of(guard: &Arc<AccessGuard>, principal: Arc<Principal>) -> Self {
        AccessRights {
            guard: guard.clone(),
            principal: Some(principal),
            meter: None,
            _reader: None,
        }
    }

    /// To read a public stream.
    pub(super) fn of_public(guard: &Arc<AccessGuard>) -> Self {
        AccessRights { guard: guard.clone(), principal: None, meter: None, _reader: None }
    }

    /// Takes the request off its rates and quotas.
    ///
    /// # Errors
    /// [`AccessError::RateLimited`].
    pub(super) fn charge(
        &mut self,
        head: &RequestHead<'_>,
        path: &StreamPath,
        size: RequestSize,
    ) -> Result<(), AccessError> {
        let (meter, reader) = self.guard.charge(head, self.principal.as_deref(), path, size)?;
        (self.meter, self._reader) = (meter.map(Arc::new), reader);
        Ok(())
    }

    /// Whom they are granted to; `None` for a public stream.
    pub(super) fn principal(&self) -> Option<&Principal> {
        self.principal.as_deref()
    }

    /// What the bytes of the request are taken from.
    pub(super) fn meter(&self) -> Option<&Arc<ByteMeter>> {
        self.meter.as_ref()
    }

    /// Whether the principal may no longer go on.
    pub(super) fn are_over(&self, now: Timestamp) -> bool {
        self.principal.as_ref().is_some_and(|one| !self.guard.is_current(one, now))
    }

    /// Returns once the principal may no longer go on. A public stream stays public while it exists.
    async fn over(&self, engine: &Engine) {
        let Some(principal) = &self.principal else { return std::future::pending().await };
        loop {
            let now = engine.now();
            if self.are_over(now) {
                return;
            }
            let left =
                principal.expires.map_or(u64::MAX, |end| end.millis().saturating_sub(now.millis()));
            // Spread out, so that readers that came together do not look together.
            let pause = REVOCATION_CHECK.mul_f64(0.5 + fastrand::f64());
            tokio::time::sleep(pause.min(Duration::from_millis(left.max(1)))).await;
        }
    }

    /// For whom the reply is.
    pub(super) fn audience(&self) -> ReplyAudience {
        match &self.principal {
            None => ReplyAudience::Url { until: None },
            Some(one) if one.by_url || one.anonymous => ReplyAudience::Url { until: one.expires },
            Some(_) => ReplyAudience::Client,
        }
    }
}

/// Waits until there are tokens for bytes of a body. Cancel safe: what was taken stays taken.
pub(crate) async fn pace(meter: &ByteMeter, engine: &Engine, bytes: usize) {
    let mut metered = MeteredBytes::new(bytes);
    while let Some(wait) = meter.step(&mut metered, engine.now()) {
        tokio::time::sleep(wait).await;
    }
}

/// Whether a stream is one that the rights are for. A public stream that was found may be deleted meanwhile, and
/// another one, which is not public, be created at its path.
///
/// # Errors
/// [`Rejection::NotFound`].
pub(super) fn readable(rights: Option<&AccessRights>, core: &StreamCore) -> Result<(), Rejection> {
    match rights {
        Some(AccessRights { principal: None, .. }) if !core.public => Err(Rejection::NotFound),
        _ => Ok(()),
    }
}

/// Returns once the rights of a live read are over; never without any.
pub(super) fn rights_over<'a>(
    rights: Option<&'a AccessRights>,
    engine: &'a Engine,
) -> Pin<Box<dyn Future<Output = ()> + Send + 'a>> {
    match rights {
        Some(rights) => Box::pin(rights.over(engine)),
        // Allocates nothing.
        None => Box::pin(std::future::pending()),
    }
}

/// The path of a stream that everyone may read; `None`, after a while that does not depend on the stream, if it is not
/// public or not there. Looking does not push its expiry back.
pub(super) async fn find_public(engine: &Engine, stored: StreamPath) -> Option<StreamPath> {
    let until = tokio::time::Instant::now() + LOOKUP_TIME;
    match engine.head(&stored).await {
        Ok(view) if view.core.public => Some(stored),
        _ => {
            tokio::time::sleep_until(until).await;
            None
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use durable_streams_auth::AnonymousAccess;

    #[tokio::test]
    async fn who_reads_what_is_public_reads_nothing_that_took_its_place() {
        let engine = Engine::in_memory();
        let path = StreamPath::new("a").unwrap();
        let anyone = AnonymousAccess::new(Vec::new());
        let options = durable_streams_auth::GuardOptions::default();
        let guard = Arc::new(AccessGuard::new(Arc::new(anyone), options));
        let public = AccessRights::of_public(&guard);
        let owner = Arc::new(Principal::new("owner"));
        let granted = AccessRights::of(&guard, owner);
        for is_public in [true, false] {
            let create =
                durable_streams_protocol::Create { public: is_public, ..Default::default() };
            engine.create(&path, &create, bytes::Bytes::new()).await.unwrap();
            let core = engine.head(&path).await.unwrap().core;
            assert_eq!(readable(Some(&public), &core).is_ok(), is_public);
            assert!(readable(Some(&granted), &core).is_ok() && readable(None, &core).is_ok());
            assert_eq!(find_public(&engine, path.clone()).await.is_some(), is_public);
            engine.delete(&path).await.unwrap();
        }
    }
}
