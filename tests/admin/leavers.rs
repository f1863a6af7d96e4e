//! Clients that leave in the middle of something are daily life, not errors in the log.

use crate::harness::{Client, eventually};
use crate::process::Process;

#[tokio::test(flavor = "multi_thread")]
async fn a_client_that_leaves_inside_a_head_is_no_error() {
    let process = Process::run(
        "listen: 127.0.0.1:0\nadmin: {listen: \"127.0.0.1:0\"}\nlog: {format: json, access: false}\n\
         upstreams:\n  - path: /\n    servers: [\"http://127.0.0.1:1\"]\n",
    )
    .await;
    let (server, admin) = process.addresses();
    for address in [server, admin] {
        for part in ["GET /app HTT", "GET /v1/stream/a HTTP/1.1\r\nhost: ", "PRI * HTTP/2.0\r\n"] {
            let mut client = Client::connect(address).await;
            client.send(part).await;
            drop(client);
        }
    }
    let mut client = Client::connect(server).await;
    client.send("nonsense\r\n\r\n").await;
    assert_eq!(client.reply().await.status, 400);
    // What is logged meanwhile comes before this.
    process.hang_up();
    eventually("it read its configuration", async || process.logged("configuration").is_some())
        .await;
    assert_eq!(process.times("ERROR"), 0, "{:?}", process.logged("Fail to"));
}
