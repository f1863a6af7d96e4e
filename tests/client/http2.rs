//! What the two ends make of HTTP/2's frames.

use std::sync::{
    Arc,
    atomic::{AtomicUsize, Ordering},
};

use bytes::Bytes;
use durable_streams_client::{AppendOptions, Client, ContentType, HttpVersion};
use h2::server::SendResponse;
use http::{Method, Request, Response};
use tokio::net::{TcpListener, TcpStream};

use crate::scene::Scene;

/// More than the streams that the library lets a connection reset.
const APPENDS: usize = 1500;

async fn answer(request: Request<h2::RecvStream>, mut respond: SendResponse<Bytes>) {
    let mut body = request.into_body();
    while body.data().await.is_some() {}
    let head = Response::builder().status(204).header("stream-next-offset", "1");
    let mut rest = respond.send_response(head.body(()).unwrap(), false).unwrap();
    tokio::task::yield_now().await;
    // The client may have reset the stream.
    let _ = rest.send_data(Bytes::new(), true);
}

/// A server that ends each response in a frame of its own. Counts its connections.
async fn serve(listener: TcpListener, connections: Arc<AtomicUsize>) {
    loop {
        let (socket, _) = listener.accept().await.unwrap();
        socket.set_nodelay(true).unwrap();
        connections.fetch_add(1, Ordering::Relaxed);
        tokio::spawn(async move {
            let mut connection = h2::server::handshake(socket).await.unwrap();
            while let Some(Ok((request, respond))) = connection.accept().await {
                tokio::spawn(answer(request, respond));
            }
        });
    }
}

#[tokio::test]
async fn responses_are_received_to_their_end() {
    let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
    let base = format!("http://{}", listener.local_addr().unwrap());
    let connections = Arc::new(AtomicUsize::new(0));
    tokio::spawn(serve(listener, connections.clone()));
    let client = Client::builder(&base).http_version(HttpVersion::Http2).build().unwrap();
    let stream = client.stream("s").unwrap();
    let options = AppendOptions {
        content_type: ContentType::parse("text/plain"),
        ..AppendOptions::default()
    };
    for n in 0..APPENDS {
        stream.append("x", &options).await.unwrap_or_else(|error| panic!("append {n}: {error}"));
    }
    assert_eq!(connections.load(Ordering::Relaxed), 1);
}

#[tokio::test]
async fn a_response_without_a_body_ends_with_its_head() {
    let scene = Scene::start();
    let socket = TcpStream::connect(scene.server.address).await.unwrap();
    let (mut sender, connection) = h2::client::handshake(socket).await.unwrap();
    tokio::spawn(connection);
    let url = format!("{}/s", scene.url());
    for (method, status) in [
        (Method::PUT, 201),
        (Method::PUT, 200),
        (Method::HEAD, 200),
        (Method::POST, 204),
        (Method::DELETE, 204),
    ] {
        let mut request = Request::builder().method(&method).uri(&url);
        if method == Method::POST {
            request = request.header("stream-closed", "true");
        }
        sender = sender.ready().await.unwrap();
        let (response, _) = sender.send_request(request.body(()).unwrap(), true).unwrap();
        let response = response.await.unwrap();
        assert_eq!(response.status(), status, "{method}");
        assert!(response.body().is_end_stream(), "{method}: a frame is still to come");
    }
}
