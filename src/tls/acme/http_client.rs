//! The ACME library's requests, made by reqwest: the one HTTP client of this server.

use std::{future::Future, path::Path, pin::Pin, time::Duration};

use bytes::Bytes;
use http::Request;
use http_body_util::BodyExt;
use instant_acme::{BodyWrapper, BytesResponse, Error, HttpClient};
use reqwest::{Certificate, Client};

use super::failure::AcmeFailure;

/// For one request and its response.
const TIMEOUT: Duration = Duration::from_secs(30);
/// The largest response that is taken, bytes: certificate chains are some 10 KiB.
const MAX_RESPONSE: usize = 1 << 20;

pub(super) struct ReqwestClient(Client);

impl ReqwestClient {
    /// `roots`: PEM of the only authorities to trust; the system's without it.
    ///
    /// # Errors
    /// The file cannot be used, or the system has no authorities.
    pub(super) fn new(roots: Option<&Path>) -> Result<Self, AcmeFailure> {
        // The same provider as the listeners'; the first to come installs it.
        let _ = rustls::crypto::ring::default_provider().install_default();
        let mut builder = Client::builder()
            .user_agent(concat!("durable-streams-server/", env!("CARGO_PKG_VERSION")))
            .timeout(TIMEOUT)
            .https_only(true);
        if let Some(path) = roots {
            let shown = format!("acme.ca {}", path.display());
            let pem = std::fs::read(path).map_err(|error| AcmeFailure::new(&shown, error))?;
            let roots = Certificate::from_pem_bundle(&pem);
            let roots = roots.map_err(|error| AcmeFailure::new(&shown, error))?;
            builder = builder.tls_certs_only(roots);
        }
        builder
            .build()
            .map(ReqwestClient)
            .map_err(|error| AcmeFailure::new("the ACME client", error))
    }
}

type Responding = Pin<Box<dyn Future<Output = Result<BytesResponse, Error>> + Send>>;

impl HttpClient for ReqwestClient {
    fn request(&self, request: Request<BodyWrapper<Bytes>>) -> Responding {
        let client = self.0.clone();
        Box::pin(async move {
            let (parts, body) = request.into_parts();
            let Ok(body) = body.collect().await;
            let sent = client
                .request(parts.method, parts.uri.to_string())
                .headers(parts.headers)
                .body(body.to_bytes())
                .send();
            let mut response = sent.await.map_err(|error| Error::Other(error.into()))?;
            let mut head = http::Response::builder().status(response.status());
            if let Some(headers) = head.headers_mut() {
                *headers = response.headers().clone();
            }
            let mut bytes = Vec::new();
            while let Some(chunk) =
                response.chunk().await.map_err(|error| Error::Other(error.into()))?
            {
                if bytes.len() + chunk.len() > MAX_RESPONSE {
                    return Err(Error::Str("a response of at most 1 MiB"));
                }
                bytes.extend_from_slice(&chunk);
            }
            let (parts, ()) = head.body(())?.into_parts();
            Ok(BytesResponse { parts, body: Box::new(Bytes::from(bytes)) })
        })
    }
}
