//! The examples of providers in `examples/access/`: what each lets in, and what not.

use std::sync::Arc;

use durable_streams_auth::AccessGuard;

use crate::access::auth;
use crate::world::{Kind, World, soon};

#[path = "../../examples/access/api_key.rs"]
mod access_api_key;
#[path = "../../examples/access/bearer.rs"]
mod access_bearer;
#[path = "../../examples/access/closures.rs"]
mod access_closures;
#[path = "../../examples/access/own.rs"]
mod access_own;

for_each_kind![
    api_keys_of_an_application,
    sessions_of_an_application,
    two_closures,
    a_provider_of_ones_own,
];

fn world(kind: Kind, guard: AccessGuard) -> World {
    World::with(kind, |setup| setup.access = Some(guard))
}

/// Asks as (header line, method, path), and compares the statuses.
async fn expect(world: &World, requests: &[(&str, &str, &str, u16)]) {
    for (credential, method, path, status) in requests {
        let fields = format!("{credential}content-type: text/plain\r\n");
        let body: &[u8] = if *method == "POST" { b"x" } else { b"" };
        let seen = world.ask(method, path, &fields, body).await;
        assert_eq!(seen.status, *status, "{credential:?} {method} {path}: {seen:?}");
    }
}

async fn api_keys_of_an_application(kind: Kind) {
    let world = world(kind, access_api_key::guard());
    let (backend, partner) = ("x-api-key: k-backend\r\n", "x-api-key: k-partner\r\n");
    expect(
        &world,
        &[
            ("", "PUT", "/feeds/news", 401),
            ("x-api-key: k-other\r\n", "PUT", "/feeds/news", 401),
            (partner, "PUT", "/feeds/news", 403),
            (backend, "PUT", "/feeds/news", 201),
            (backend, "POST", "/feeds/news", 204),
            (partner, "GET", "/feeds/news", 200),
            (partner, "POST", "/feeds/news", 403),
            (partner, "GET", "/private", 404),
            ("authorization: Bearer k-partner\r\n", "GET", "/feeds/news", 200),
        ],
    )
    .await;
}

async fn sessions_of_an_application(kind: Kind) {
    let world = world(kind, access_bearer::guard());
    let (ada, bob) = (auth("ada-session"), auth("bob-session"));
    expect(
        &world,
        &[
            ("", "PUT", "/inbox/ada", 401),
            (&ada, "PUT", "/inbox/ada", 201),
            (&ada, "GET", "/inbox/ada", 200),
            (&bob, "GET", "/inbox/ada", 404),
            (&bob, "PUT", "/inbox/ada", 403),
            (&bob, "PUT", "/inbox/bob", 201),
            (&auth("old-session"), "GET", "/inbox/ada", 401),
            (&auth("store-is-down"), "GET", "/inbox/ada", 503),
        ],
    )
    .await;
}

async fn two_closures(kind: Kind) {
    let world = world(kind, access_closures::guard());
    let (writer, other) = (auth("writer"), auth("writers"));
    expect(
        &world,
        &[
            ("", "PUT", "/public/news", 401),
            (&other, "PUT", "/public/news", 401),
            (&writer, "PUT", "/public/news", 201),
            ("", "GET", "/public/news", 200),
            ("", "DELETE", "/public/news", 401),
            (&writer, "PUT", "/private", 201),
            ("", "GET", "/private", 401),
            (&writer, "GET", "/private", 200),
        ],
    )
    .await;
}

async fn a_provider_of_ones_own(kind: Kind) {
    let office: Arc<access_own::Office> = Arc::default();
    let world = world(kind, access_own::guard(office.clone()));
    let (clerk, supervisor) = (auth("clerk"), auth("supervisor"));
    expect(
        &world,
        &[
            ("", "PUT", "/files/1", 401),
            (&clerk, "PUT", "/files/1", 201),
            (&clerk, "PUT", "/others/1", 403),
            (&clerk, "POST", "/files/1", 204),
            (&clerk, "DELETE", "/files/1", 403),
            (&supervisor, "GET", "/files/1", 200),
        ],
    )
    .await;
    let mut live = world.sse("/files/1?offset=now&live=sse", &clerk).await;
    assert_eq!(soon(live.event()).await.name, "control");
    office.dismiss("clerk");
    assert_eq!(soon(live.event()).await.name, "control", "where the client goes on from");
    assert_eq!(soon(live.next()).await, None, "the read ends with the right");
    expect(&world, &[(&clerk, "GET", "/files/1", 401), (&supervisor, "DELETE", "/files/1", 204)])
        .await;
}
