//! HTTPS, with certificates of both sides, and a server that is killed behind it.

use std::fs;

use durable_streams_client::{
    AppendOptions, Client, CreateOptions, HttpVersion, RetryPolicy, StartFrom,
};

use crate::{
    authority::Authority,
    process::{Server, free_port},
    scene::{end, next},
};

#[tokio::test]
async fn certificates_of_both_sides_are_checked() {
    let directory = tempfile::tempdir().unwrap();
    let (authority, stranger) = (Authority::new(), Authority::new());
    let (cert, key) = authority.write(directory.path(), "localhost");
    let clients = directory.path().join("clients.pem");
    fs::write(&clients, &authority.pem).unwrap();
    let port = free_port();
    let config = format!(
        "listen: [{{address: \"127.0.0.1:{port}\", tls: {{certificates: [{{certificate: {}, key: {}}}], client_ca: {}}}}}]\n\
         data_dir: {}\n",
        cert.display(),
        key.display(),
        clients.display(),
        directory.path().join("data").display()
    );
    let server = Server::run(directory.path(), &config).await;
    let url = format!("https://localhost:{port}/v1/stream");
    let (identity, identity_key) = authority.issue("client");
    let identity = format!("{identity}{identity_key}");
    let trusting = || Client::builder(&url).root_certificates(authority.pem.clone());
    for version in [HttpVersion::Automatic, HttpVersion::Http1] {
        let client = trusting().client_certificate(identity.clone()).http_version(version);
        let stream = client.build().unwrap().stream(&format!("{version:?}")).unwrap();
        stream.create(&CreateOptions::json()).await.unwrap();
        let mut subscription = stream.subscribe(StartFrom::Start);
        stream.append_json(&1).await.unwrap();
        assert_eq!(next(&mut subscription).await.json::<u32>().unwrap(), [1]);
        let producer = stream.producer("p").start().await.unwrap();
        producer.append_json(&2).await.unwrap();
        producer.close_stream().await.unwrap();
        assert_eq!(next(&mut subscription).await.json::<u32>().unwrap(), [2]);
        end(&mut subscription).await;
    }
    let refused = [
        ("an unknown authority", Client::builder(&url).root_certificates(stranger.pem.clone())),
        ("the system's authorities", Client::builder(&url)),
        ("no certificate", trusting()),
    ];
    for (what, builder) in refused {
        let client = builder.retry(RetryPolicy::never()).build().unwrap();
        let error = client.stream("a").unwrap().head().await.expect_err(what);
        assert!(error.status().is_none(), "{what}: {error}");
    }

    // Over a restart on the same port.
    let client = trusting().client_certificate(identity).build().unwrap();
    let stream = client.stream("kept").unwrap();
    stream.create(&CreateOptions::text()).await.unwrap();
    let mut subscription = stream.subscribe(StartFrom::Start);
    server.kill();
    let server = Server::run(directory.path(), &config).await;
    stream.append("still here", &AppendOptions::default()).await.unwrap();
    assert_eq!(next(&mut subscription).await.to_bytes(), "still here");
    server.kill();
}
