//! Stream names: decoded once, refused rather than repaired, never another stream's place.

use crate::world::{Kind, ROUTE, World};

for_each_kind![
    any_text_is_a_name,
    spellings_of_one_name_are_one_stream,
    look_alikes_are_different_streams,
    #[only(http1, proxied, http2; "which spellings are ambiguous is for the host to say")]
    what_could_be_another_place_is_refused,
    other_forms_of_request_targets,
    the_route_can_be_elsewhere,
];

async fn any_text_is_a_name(kind: Kind) {
    let world = World::new(kind);
    let names = [
        "a",
        "a/b/c",
        "a//b",
        "a/",
        "/",
        "/a",
        ".hidden",
        "...",
        "a..b",
        "a.",
        "~user",
        "a+b",
        "a:b@c",
        "a;b=c",
        "a,b",
        "a%20b",
        "a%26b",
        "a%3Fb",
        "a%23b",
        "a%25b",
        "a%2525b",
        "a%5Cb",
        "%E4%BD%A0%E5%A5%BD",
        "%F0%9F%98%80",
        "e%CC%81",
        "%C3%A9",
        "__dsx",
        "x/__ds/y",
        "a%22%3Cscript%3E",
    ];
    for name in names {
        let reply = world.put(&format!("/{name}"), "content-type: text/plain\r\n", name).await;
        assert_eq!(reply.status, 201, "{name}: {}", reply.text());
    }
    for name in names {
        assert_eq!(world.get(&format!("/{name}")).await.text(), name, "each is its own stream");
    }
    assert_eq!(world.engine.stats().store.streams, names.len() as u64);
}

async fn spellings_of_one_name_are_one_stream(kind: Kind) {
    let world = World::new(kind);
    world.stream("/a-b/%C3%A9%20", "text/plain", "abc").await;
    for spelled in
        ["/%61-b/%c3%a9%20", "/a%2Db/%C3%A9%20", "/a-b%2F%C3%A9%20", "/%61%2d%62%2f%C3%a9%20"]
    {
        assert_eq!(world.get(spelled).await.text(), "abc", "{spelled}");
    }
    let location = world.put("/x%2Fy%20%C3%A9%25", "", "").await;
    let url = location.header("location").unwrap();
    let path = url.strip_prefix("http://test.example/v1/stream").unwrap();
    assert_eq!(world.head(path).await.status, 200, "{url} leads back to the stream");
}

async fn look_alikes_are_different_streams(kind: Kind) {
    let world = World::new(kind);
    let names = ["/a", "/A", "/a/", "/a//", "//a", "/e%CC%81", "/%C3%A9", "/a%20", "/a+"];
    for name in names {
        world.stream(name, "text/plain", name).await;
    }
    for name in names {
        assert_eq!(world.get(name).await.text(), name);
        assert_eq!(world.delete(name).await.status, 204, "{name}");
    }
}

async fn what_could_be_another_place_is_refused(kind: Kind) {
    let world = World::new(kind);
    for name in [
        "",
        "/",
        "/.",
        "/..",
        "/../x",
        "/a/../b",
        "/a/./b",
        "/a/..",
        "/%2e%2e/x",
        "/%2E",
        "/a%2f..%2fb",
        "/..%2f..%2fetc/passwd",
        "/..%5c..%5cx",
        "/a%00b",
        "/%00",
        "/a%0Ab",
        "/a%0D%0Ax:%20y",
        "/a%7F",
        "/%C2%85",
        "/%",
        "/%2",
        "/%zz",
        "/%FF",
        "/%C3",
        "/%ED%A0%80",
        "/%C0%AE%C0%AE/x",
        "/__ds",
        "/__ds/",
        "/__ds/subscriptions/x",
        "/%5f%5fds/x",
        "/__ds%2Fx",
    ] {
        for method in ["PUT", "GET", "HEAD", "POST", "DELETE"] {
            let body: &[u8] = if method == "POST" { b"x" } else { b"" };
            let fields = "content-type: text/plain\r\n";
            let reply = world.ask(method, name, fields, body).await;
            assert_eq!(reply.status, 400, "{method} {name:?}");
        }
    }
    assert_eq!(world.engine.stats().store.streams, 0);
}

async fn other_forms_of_request_targets(kind: Kind) {
    let world = World::new(kind);
    world.stream("/a", "text/plain", "abc").await;
    let ask = |target: &str| {
        let text = format!("GET {target} HTTP/1.1\r\nhost: t\r\n\r\n");
        world.server.ask(text)
    };
    assert_eq!(ask(&format!("http://t{ROUTE}/a")).await.text(), "abc", "absolute form");
    assert_eq!(ask(&format!("{ROUTE}/a?")).await.text(), "abc");
    for target in [
        "/v1/streams/a",
        "/v1/strea",
        "/V1/stream/a",
        "/v1/%73tream/a",
        "//v1/stream/a",
        "/v1//stream/a",
        "/x/../v1/stream/a",
        "*",
    ] {
        let reply = ask(target).await;
        assert!(matches!(reply.status, 400 | 404), "{target}: {reply:?}");
        assert_ne!(reply.text(), "abc", "{target}");
    }
    let raw = [b"GET /v1/stream/\xc3\xa9 HTTP/1.1\r\nhost: t\r\n\r\n".to_vec()].concat();
    let reply = world.server.ask(raw).await;
    assert!(matches!(reply.status, 400 | 404), "raw UTF-8 is understood or refused: {reply:?}");
}

async fn the_route_can_be_elsewhere(kind: Kind) {
    let world = World::with(kind, |setup| setup.edge.streams.route = "/streams".to_owned());
    let put = |path: &str| {
        let text = format!("PUT {path} HTTP/1.1\r\nhost: t\r\ncontent-length: 0\r\n\r\n");
        world.server.ask(text)
    };
    let reply = put("/streams/a").await;
    assert_eq!((reply.status, reply.header("location")), (201, Some("http://t/streams/a")));
    assert_eq!(put("/v1/stream/a").await.status, 404);
    let fork = "PUT /streams/f HTTP/1.1\r\nhost: t\r\nstream-forked-from: /streams/a\r\ncontent-length: 0\r\n\r\n";
    assert_eq!(world.server.ask(fork).await.status, 201);
}
