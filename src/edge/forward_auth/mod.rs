//! Forward auth for proxied routes: a service of the operator's is asked about each request of an upstream before the
//! upstream gets it, as `forward_auth` of Caddy and `auth_request` of nginx do.
//!
//! After a 2xx the upstream gets the request, with the fields of the answer that the configuration names. A redirect or a 4xx is the
//! client's answer, with its fields and its body: a login page, a challenge. Anything else is a 503.
//!
//! Invariants
//! - The upstream gets no identity field from the client, only from the service's answer to this very request or, within
//!   `cache`, to one that the service could not tell from it.
//! - A subrequest is made once for a request, however often the request is tried.
//!
//! | file | what it does |
//! |---|---|
//! | `gate` | asks the service of one upstream, and remembers answers for a while |
//! | `subrequest` | the subrequest over HTTP, for streams too |
//! | `identity` | fields that name a client to upstreams |
//! | `fields` | which fields of an answer the client gets |

mod fields;
mod gate;
pub(crate) mod identity;
mod subrequest;

use durable_streams_auth::ForwardedRequest;
use durable_streams_pingora::transport::StreamReply;
use http::{HeaderValue, StatusCode};
use pingora::protocols::http::ServerSession;

use super::{context::RequestContext, forwarded, problem::EdgeProblem};
use durable_streams_pingora::forwarded::{X_FORWARDED_HOST, X_FORWARDED_PROTO, external_parts};
use gate::GateRefusal;

pub use gate::ForwardAuthOptions;
pub(crate) use gate::{ClientIdentity, ForwardGate};
pub(crate) use subrequest::SubrequestClient;

/// The code of a refusal that the service wrote.
const REFUSED: &str = "forward-auth-refused";

/// Asks the upstream's authorization service. Returns its refusal, or `None` with the client's identity in `ctx`.
pub(crate) async fn admit(
    gate: &ForwardGate,
    session: &ServerSession,
    ctx: &mut RequestContext,
) -> Option<StreamReply> {
    match gate.ask(forwarded_request(gate, session, ctx)).await {
        Ok(identity) => {
            ctx.identity = Some(identity);
            None
        }
        Err(GateRefusal::Answered(response)) => Some(StreamReply::refusal(*response, REFUSED)),
        Err(GateRefusal::Unavailable(what)) => {
            let detail = format!("the authorization service {what}; try again");
            let (status, code) = (StatusCode::SERVICE_UNAVAILABLE, "auth-unavailable");
            let problem = EdgeProblem::new(status, code, detail).retry_after(1);
            Some(StreamReply::refusal(problem.response(), code))
        }
    }
}

fn forwarded_request(
    gate: &ForwardGate,
    session: &ServerSession,
    ctx: &RequestContext,
) -> ForwardedRequest {
    let request = session.req_header();
    let proxies = &ctx.settings.options.trusted_proxies;
    let trusted = forwarded::is_trusted(ctx.client, proxies);
    let tls = session.digest().is_some_and(|digest| digest.ssl_digest.is_some());
    let (scheme, host) = external_parts(request, trusted, tls);
    let copied = gate.asked_with().iter().flat_map(|name| {
        request.headers.get_all(name).iter().map(|value| (name.clone(), value.clone()))
    });
    let mut headers: Vec<_> = copied.collect();
    headers.push((X_FORWARDED_PROTO.clone(), HeaderValue::from_static(scheme)));
    if let Some(host) = host.and_then(|host| HeaderValue::try_from(host).ok()) {
        headers.push((X_FORWARDED_HOST.clone(), host));
    }
    ForwardedRequest {
        method: request.method.clone(),
        uri: String::from_utf8_lossy(request.raw_path()).into_owned(),
        client: forwarded::client_ip(request, ctx.client, proxies),
        headers,
    }
}
