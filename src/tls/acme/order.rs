//! One order, from request to certificate (RFC 8555 §7.4).

use std::time::Duration;

use instant_acme::{
    Account, AuthorizationStatus, CertificateIdentifier, ChallengeType, Identifier, NewOrder,
    Order, OrderStatus, RetryPolicy,
};
use rcgen::{CertificateParams, DistinguishedName, KeyPair};

use super::{
    ChallengeKind,
    challenges::{Challenges, PublishedAnswer},
    failure::AcmeFailure,
};

/// How long the authority may take to validate a name, and again to issue.
const PATIENCE: RetryPolicy =
    RetryPolicy::new().initial_delay(Duration::from_millis(250)).timeout(Duration::from_secs(90));

/// Orders that are begun when authorities refuse nonces. The ACME library sends each request three times;
/// Pebble refuses one nonce in twenty, so one order in some hundreds fails by chance alone.
const ORDERS_FOR_NONCES: usize = 3;

/// Orders a certificate for `host`. Returns its key and chain as PEM.
///
/// # Errors
/// The authority cannot be reached, refuses, or does not find the answer to its challenge.
pub(super) async fn order(
    account: &Account,
    host: &str,
    kind: ChallengeKind,
    challenges: &Challenges,
    replaces: Option<CertificateIdentifier<'static>>,
) -> Result<String, AcmeFailure> {
    let mut begun = 1;
    loop {
        match order_once(account, host, kind, challenges, replaces.clone()).await {
            Err(failure) if failure.stale_nonce() && begun < ORDERS_FOR_NONCES => begun += 1,
            outcome => return outcome,
        }
    }
}

async fn order_once(
    account: &Account,
    host: &str,
    kind: ChallengeKind,
    challenges: &Challenges,
    replaces: Option<CertificateIdentifier<'static>>,
) -> Result<String, AcmeFailure> {
    let identifiers = [Identifier::Dns(host.to_owned())];
    let mut order = begin(account, &identifiers, replaces).await?;
    let _answers = answer(&mut order, host, kind, challenges).await?;
    let status = order.poll_ready(&PATIENCE).await;
    match status.map_err(|error| AcmeFailure::acme("the order was not validated", error))? {
        OrderStatus::Ready => {}
        _ => return Err(why_invalid(&mut order).await),
    }
    let fail =
        |error: rcgen::Error| AcmeFailure::new("a key and its request cannot be made", error);
    let key = KeyPair::generate().map_err(fail)?;
    let mut params = CertificateParams::new(vec![host.to_owned()]).map_err(fail)?;
    params.distinguished_name = DistinguishedName::new();
    let request = params.serialize_request(&key).map_err(fail)?;
    let refused = |error| AcmeFailure::acme("the certificate was not issued", error);
    order.finalize_csr(request.der()).await.map_err(refused)?;
    let chain = order.poll_certificate(&PATIENCE).await.map_err(refused)?;
    Ok(format!("{}{chain}", key.serialize_pem()))
}

/// A new order. An authority that does not know the certificate to be replaced (it may be of another one)
/// is asked without naming it.
async fn begin(
    account: &Account,
    identifiers: &[Identifier],
    replaces: Option<CertificateIdentifier<'static>>,
) -> Result<Order, AcmeFailure> {
    if let Some(replaces) = replaces
        && let Ok(order) = account.new_order(&NewOrder::new(identifiers).replaces(replaces)).await
    {
        return Ok(order);
    }
    account
        .new_order(&NewOrder::new(identifiers))
        .await
        .map_err(|error| AcmeFailure::acme("the order was refused", error))
}

/// Publishes an answer for every name that is not validated yet, and asks the authority to look.
async fn answer(
    order: &mut Order,
    host: &str,
    kind: ChallengeKind,
    challenges: &Challenges,
) -> Result<Vec<PublishedAnswer>, AcmeFailure> {
    let refused = |error| AcmeFailure::acme("the authorization was refused", error);
    let mut answers = Vec::new();
    let mut authorizations = order.authorizations();
    while let Some(authorization) = authorizations.next().await {
        let mut authorization = authorization.map_err(refused)?;
        match authorization.status {
            AuthorizationStatus::Valid => continue,
            AuthorizationStatus::Pending => {}
            other => {
                let reason = format!("the authorization is {other:?}");
                return Err(AcmeFailure::new("the order was not validated", reason));
            }
        }
        let wanted = match kind {
            ChallengeKind::Http01 => ChallengeType::Http01,
            ChallengeKind::TlsAlpn01 => ChallengeType::TlsAlpn01,
        };
        let Some(mut challenge) = authorization.challenge(wanted) else {
            let reason = format!("the authority does not offer {}", kind.name());
            return Err(AcmeFailure::new("the order cannot be validated", reason));
        };
        let key_authorization = challenge.key_authorization();
        answers.push(challenges.publish(kind, host, &challenge.token, &key_authorization)?);
        challenge.set_ready().await.map_err(refused)?;
    }
    Ok(answers)
}

/// The problem that the authority noted with the challenge.
async fn why_invalid(order: &mut Order) -> AcmeFailure {
    let what = "the authority could not validate the name";
    let mut authorizations = order.authorizations();
    while let Some(Ok(mut authorization)) = authorizations.next().await {
        let Ok(state) = authorization.refresh().await else { continue };
        if let Some(problem) = state.challenges.iter().find_map(|one| one.error.as_ref()) {
            return AcmeFailure::problem(what, problem);
        }
    }
    AcmeFailure::new(what, "it did not say why")
}
