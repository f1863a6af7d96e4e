//! The account at the authority, made once and kept.

use instant_acme::{Account, AccountCredentials, ExternalAccountKey, NewAccount};

use super::{AcmeOptions, failure::AcmeFailure, http_client::ReqwestClient, storage::AcmeStorage};

/// The kept account, or a new one.
///
/// # Errors
/// The authority refuses or cannot be reached, or the account cannot be kept.
pub(super) async fn open(
    options: &AcmeOptions,
    storage: &AcmeStorage,
) -> Result<Account, AcmeFailure> {
    let client = Box::new(ReqwestClient::new(options.roots.as_deref())?);
    let builder = Account::builder_with_http(client);
    let kept = storage.account().map_err(|error| AcmeFailure::storage(&error))?;
    if let Some(kept) = kept {
        let credentials: AccountCredentials = serde_json::from_slice(&kept)
            .map_err(|error| AcmeFailure::new("account.json is damaged; remove it", error))?;
        return builder
            .from_credentials(credentials)
            .await
            .map_err(|error| AcmeFailure::acme("the ACME server cannot be reached", error));
    }
    let contact = options.email.as_ref().map(|email| format!("mailto:{email}"));
    let contact: Vec<&str> = contact.iter().map(String::as_str).collect();
    let external = options
        .external_account
        .as_ref()
        .map(|one| ExternalAccountKey::new(one.key_id.clone(), &one.hmac_key));
    let account = NewAccount {
        contact: &contact,
        // `tls: auto` is documented as this agreement.
        terms_of_service_agreed: true,
        only_return_existing: false,
    };
    let (account, credentials) = builder
        .create(&account, options.directory.clone(), external.as_ref())
        .await
        .map_err(|error| AcmeFailure::acme("the ACME account cannot be made", error))?;
    let credentials = serde_json::to_vec(&credentials)
        .map_err(|error| AcmeFailure::new("the ACME account", error))?;
    storage.keep_account(&credentials).map_err(|error| AcmeFailure::storage(&error))?;
    tracing::info!(directory = options.directory, "ACME account made");
    Ok(account)
}
