//! From a location and the environment's credentials to a client of the object store.

use std::sync::Arc;
use std::time::Duration;

use object_store::aws::{AmazonS3Builder, S3ConditionalPut};
use object_store::azure::MicrosoftAzureBuilder;
use object_store::gcp::GoogleCloudStorageBuilder;
use object_store::local::LocalFileSystem;
use object_store::prefix::PrefixStore;
use object_store::{BackoffConfig, ClientOptions, ObjectStore, RetryConfig};

use super::aws_profile::ProfileCredentials;
use super::{TierLocation, TierOptions};

/// A client of the object store, whose names begin below the prefix.
#[derive(Clone, Debug)]
pub(super) struct ObjectClient {
    pub(super) store: Arc<dyn ObjectStore>,
    /// Whether it lists names in byte order.
    pub(super) sorted: bool,
}

/// The client cannot be made from the configuration and the environment.
#[derive(Debug, thiserror::Error)]
#[error("cannot use the object store {location}: {reason}")]
pub struct TierSetupError {
    pub(super) location: String,
    pub(super) reason: String,
}

/// Makes the client; nothing is connected to yet.
pub(super) fn connect(options: &TierOptions) -> Result<ObjectClient, TierSetupError> {
    if !options.allow_http && options.endpoint.as_ref().is_some_and(|url| url.starts_with("http:"))
    {
        let reason = "tier.endpoint is without TLS; use https, or set tier.allow_http: true".into();
        return Err(TierSetupError { location: options.location.to_string(), reason });
    }
    // The same provider as the listeners'; the first of them installs it.
    let _ = rustls::crypto::ring::default_provider().install_default();
    let made = match &options.location {
        TierLocation::S3 { bucket, prefix } => {
            s3(options, bucket).map(|store| below(store, prefix))
        }
        TierLocation::Google { bucket, prefix } => {
            google(options, bucket).map(|store| below(store, prefix))
        }
        TierLocation::Azure { bucket, prefix } => {
            azure(options, bucket).map(|store| below(store, prefix))
        }
        TierLocation::Directory(path) => LocalFileSystem::new_with_prefix(path)
            .map(|store| ObjectClient { store: Arc::new(store.with_fsync(true)), sorted: false })
            .map_err(|error| error.to_string()),
    };
    made.map_err(|reason| TierSetupError { location: options.location.to_string(), reason })
}

fn below(store: impl ObjectStore, prefix: &str) -> ObjectClient {
    let store: Arc<dyn ObjectStore> =
        if prefix.is_empty() { Arc::new(store) } else { Arc::new(PrefixStore::new(store, prefix)) };
    ObjectClient { store, sorted: true }
}

/// Whole requests are bounded where they are made, by what they carry.
fn client(options: &TierOptions) -> ClientOptions {
    ClientOptions::new()
        .with_allow_http(options.allow_http)
        .with_timeout_disabled()
        .with_connect_timeout(Duration::from_secs(5))
        .with_read_timeout(options.retry.attempt_timeout.max(Duration::from_secs(30)))
        .with_pool_idle_timeout(Duration::from_secs(60))
}

/// Retries are made where the deadline is known.
fn no_retries() -> RetryConfig {
    RetryConfig { backoff: BackoffConfig::default(), max_retries: 0, retry_timeout: Duration::ZERO }
}

/// Variables by which the crate itself finds credentials, before those of the machine.
const NEARER_THAN_PROFILES: [&str; 5] = [
    "AWS_ACCESS_KEY_ID",
    "AWS_WEB_IDENTITY_TOKEN_FILE",
    "AWS_CONTAINER_CREDENTIALS_RELATIVE_URI",
    "AWS_CONTAINER_CREDENTIALS_FULL_URI",
    "AWS_SKIP_SIGNATURE",
];

fn s3(options: &TierOptions, bucket: &str) -> Result<impl ObjectStore + use<>, String> {
    let environment = &options.environment;
    let mut builder = AmazonS3Builder::new();
    for (name, value) in environment.with_prefix("AWS_") {
        if let Ok(key) = name.to_ascii_lowercase().parse() {
            builder = builder.with_config(key, value);
        }
    }
    builder = builder
        .with_bucket_name(bucket)
        .with_client_options(client(options))
        .with_retry(no_retries())
        .with_conditional_put(S3ConditionalPut::ETagMatch)
        .with_allow_http(options.allow_http)
        // One request for each object; many services have no other way.
        .with_disable_bulk_delete(true);
    if let Some(region) = &options.region {
        builder = builder.with_region(region);
    }
    if let Some(endpoint) = &options.endpoint {
        builder = builder.with_endpoint(endpoint);
    }
    if NEARER_THAN_PROFILES.iter().all(|name| environment.get(name).is_none())
        && let Some(profile) = ProfileCredentials::of_environment(environment)?
    {
        builder = builder.with_credentials(Arc::new(profile));
    }
    builder.build().map_err(|error| error.to_string())
}

fn google(options: &TierOptions, bucket: &str) -> Result<impl ObjectStore + use<>, String> {
    let mut builder = GoogleCloudStorageBuilder::new();
    if let Some(file) = options.environment.get("SERVICE_ACCOUNT") {
        builder = builder.with_service_account_path(file);
    }
    for (name, value) in options.environment.with_prefix("GOOGLE_") {
        if let Ok(key) = name.to_ascii_lowercase().parse() {
            builder = builder.with_config(key, value);
        }
    }
    builder = builder
        .with_bucket_name(bucket)
        .with_client_options(client(options))
        .with_retry(no_retries());
    if let Some(endpoint) = &options.endpoint {
        builder = builder.with_base_url(endpoint);
    }
    builder.build().map_err(|error| error.to_string())
}

fn azure(options: &TierOptions, container: &str) -> Result<impl ObjectStore + use<>, String> {
    let mut builder = MicrosoftAzureBuilder::new();
    for (name, value) in options.environment.with_prefix("AZURE_") {
        if let Ok(key) = name.to_ascii_lowercase().parse() {
            builder = builder.with_config(key, value);
        }
    }
    builder = builder
        .with_container_name(container)
        .with_client_options(client(options))
        .with_retry(no_retries())
        .with_allow_http(options.allow_http);
    if let Some(endpoint) = &options.endpoint {
        builder = builder.with_endpoint(endpoint.clone());
    }
    builder.build().map_err(|error| error.to_string())
}
