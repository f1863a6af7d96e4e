//! The credential that the client sends: a token, or a callback that returns one for each request.

use std::{fmt, future::Future, pin::Pin, sync::Arc};

use http::HeaderValue;

use crate::error::ClientError;

type TokenFuture = Pin<Box<dyn Future<Output = Result<String, String>> + Send>>;

/// The `Authorization` of requests.
#[derive(Clone)]
pub(crate) enum RequestAuth {
    None,
    Fixed(HeaderValue),
    Callback(Arc<dyn Fn() -> TokenFuture + Send + Sync>),
}

impl fmt::Debug for RequestAuth {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(match self {
            RequestAuth::None => "None",
            RequestAuth::Fixed(_) => "Fixed(..)",
            RequestAuth::Callback(_) => "Callback(..)",
        })
    }
}

impl RequestAuth {
    pub(crate) fn callback<F, Fut, E>(callback: F) -> Self
    where
        F: Fn() -> Fut + Send + Sync + 'static,
        Fut: Future<Output = Result<String, E>> + Send + 'static,
        E: fmt::Display,
    {
        RequestAuth::Callback(Arc::new(move || {
            let token = callback();
            Box::pin(async move { token.await.map_err(|error| error.to_string()) })
        }))
    }

    /// The header of the next request.
    pub(crate) async fn header(&self) -> Result<Option<HeaderValue>, ClientError> {
        match self {
            RequestAuth::None => Ok(None),
            RequestAuth::Fixed(value) => Ok(Some(value.clone())),
            RequestAuth::Callback(callback) => {
                let token = callback().await.map_err(ClientError::Token)?;
                bearer(&token).map(Some)
            }
        }
    }
}

pub(crate) fn bearer(token: &str) -> Result<HeaderValue, ClientError> {
    let mut value = HeaderValue::try_from(format!("Bearer {token}")).map_err(|_| {
        let reason = "it has bytes that no header can carry".to_owned();
        ClientError::InvalidArgument { what: "the token", reason }
    })?;
    value.set_sensitive(true);
    Ok(value)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[tokio::test]
    async fn a_token_is_sent_but_not_shown() {
        let auth = RequestAuth::Fixed(bearer("secret").unwrap());
        let header = auth.header().await.unwrap().unwrap();
        assert_eq!(header.to_str().unwrap(), "Bearer secret");
        assert!(!format!("{auth:?} {header:?}").contains("secret"));
        assert!(bearer("a\nb").is_err());
    }

    #[tokio::test]
    async fn a_callback_is_asked_for_each_request() {
        let count = Arc::new(std::sync::atomic::AtomicU32::new(0));
        let auth = RequestAuth::callback(move || {
            let number = count.fetch_add(1, std::sync::atomic::Ordering::Relaxed);
            async move { if number < 2 { Ok(format!("t{number}")) } else { Err("expired") } }
        });
        assert_eq!(auth.header().await.unwrap().unwrap(), "Bearer t0");
        assert_eq!(auth.header().await.unwrap().unwrap(), "Bearer t1");
        let error = auth.header().await.unwrap_err();
        assert_eq!(
            (error.to_string().as_str(), error.is_retryable()),
            ("no token: expired", false)
        );
    }
}
