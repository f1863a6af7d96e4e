//! Forward auth as configured: the subrequest over HTTP, and what becomes of its answer.

use std::io::{Read, Write};
use std::net::{SocketAddr, TcpListener};
use std::sync::{Arc, Mutex};
use std::time::Duration;

use crate::access::Running;
use crate::support::Scene;

/// A service that answers with a text, and keeps what it was asked.
struct Service {
    address: SocketAddr,
    asked: Arc<Mutex<Vec<String>>>,
    answer: Arc<Mutex<String>>,
}

impl Service {
    fn start() -> Self {
        let listener = TcpListener::bind("127.0.0.1:0").unwrap();
        let address = listener.local_addr().unwrap();
        let (asked, answer) = (Arc::new(Mutex::new(Vec::new())), Arc::new(Mutex::default()));
        let service = Service { address, asked: asked.clone(), answer: answer.clone() };
        std::thread::spawn(move || {
            for mut socket in listener.incoming().flatten() {
                let mut request = [0; 8192];
                let read = socket.read(&mut request).unwrap_or(0);
                asked.lock().unwrap().push(String::from_utf8_lossy(&request[..read]).into_owned());
                let answer: String = answer.lock().unwrap().clone();
                if answer.is_empty() {
                    // Silence, for longer than anybody waits.
                    std::thread::spawn(move || {
                        std::thread::sleep(Duration::from_secs(5));
                        drop(socket);
                    });
                    continue;
                }
                let _ = socket.write_all(answer.as_bytes());
            }
        });
        service
    }

    fn answers(&self, status: &str, fields: &str) {
        let text =
            format!("HTTP/1.1 {status}\r\n{fields}content-length: 0\r\nconnection: close\r\n\r\n");
        *self.answer.lock().unwrap() = text;
    }

    fn last(&self) -> String {
        self.asked.lock().unwrap().last().cloned().unwrap_or_default().to_ascii_lowercase()
    }

    fn server(&self) -> Running {
        Running::start(&Scene::with(format!(
            "listen: [\"127.0.0.1:0\"]
auth:
  forward:
    url: http://{}/verify
    timeout: 500ms
    allow_header: x-allow
    paths: [\"users/{{user}}/**\"]
",
            self.address
        )))
    }
}

#[test]
fn a_service_decides_about_each_request() {
    let service = Service::start();
    let server = service.server();
    service.answers("204 No Content", "remote-user: ada\r\nx-allow: read write\r\n");
    assert_eq!(server.status("PUT", "users/ada/a%20b?x=1", "t-1"), 201);
    let asked = service.last();
    assert!(asked.starts_with("get /verify http/1.1\r\n"), "{asked}");
    for field in [
        "x-forwarded-method: put\r\n",
        "x-forwarded-uri: /v1/stream/users/ada/a%20b?x=1\r\n",
        "x-forwarded-for: 127.0.0.1\r\n",
        "authorization: bearer t-1\r\n",
    ] {
        assert!(asked.contains(field), "{field}{asked}");
    }
    for field in ["content-type", "content-length", "transfer-encoding", "host: localhost"] {
        assert!(!asked.contains(field), "{field}: {asked}");
    }
    assert_eq!(server.status("PUT", "users/bob/a", "t-1"), 403);
    service.answers("200 OK", "remote-user: ada\r\nx-allow: read\r\n");
    assert_eq!(server.status("GET", "users/ada/a%20b", "t-1"), 200);
    assert_eq!(server.status("DELETE", "users/ada/a%20b", "t-1"), 403);
    service.answers("401 Unauthorized", "www-authenticate: Basic realm=\"app\"\r\n");
    assert_eq!(server.status("GET", "users/ada/a%20b", ""), 401);
    let refused = server.reply("GET", "users/ada/a%20b", "").to_lowercase();
    assert!(refused.contains("www-authenticate: basic realm=\"app\""), "{refused}");
    service.answers("403 Forbidden", "");
    assert_eq!(server.status("GET", "users/ada/a%20b", "t-1"), 403);
    // No redirect is followed, and what is no verdict is none.
    let other = Service::start();
    other.answers("200 OK", "remote-user: ada\r\nx-allow: all\r\n");
    service.answers("302 Found", &format!("location: http://{}/\r\n", other.address));
    assert_eq!(server.status("GET", "users/ada/a%20b", "t-1"), 503);
    assert_eq!(other.last(), "", "nobody else is asked");
    service.answers("500 Oops", "remote-user: ada\r\nx-allow: all\r\n");
    assert_eq!(server.status("GET", "users/ada/a%20b", "t-1"), 503);
    service.answer.lock().unwrap().clear();
    let began = std::time::Instant::now();
    assert_eq!(server.status("GET", "users/ada/a%20b", "t-1"), 503);
    assert!(began.elapsed() < Duration::from_secs(4), "{:?}", began.elapsed());
}

#[test]
fn public_streams_are_everyones_whatever_the_service_says() {
    let service = Service::start();
    let server = service.server();
    service.answers("204 No Content", "remote-user: ada\r\nx-allow: create, publish, append\r\n");
    assert_eq!(server.status("PUT", "users/ada/news?public=true", "t-1"), 201);
    assert_eq!(server.status("PUT", "users/ada/diary", "t-1"), 201);
    for verdict in ["401 Unauthorized", "403 Forbidden"] {
        let refused: u16 = verdict[..3].parse().unwrap();
        service.answers(verdict, "");
        for token in ["", "expired"] {
            for method in ["GET", "HEAD"] {
                assert_eq!(server.status(method, "users/ada/news", token), 200, "{verdict}");
            }
            assert_eq!(server.status("GET", "users/ada/diary", token), refused);
            assert_eq!(server.status("GET", "users/ada/none", token), refused);
            assert_eq!(server.status("POST", "users/ada/news", token), refused);
            assert_eq!(server.status("DELETE", "users/ada/news", token), refused);
        }
    }
    // A principal without the right to read it reads it because it is public.
    service.answers("200 OK", "remote-user: bob\r\nx-allow: append\r\n");
    assert_eq!(server.status("GET", "users/ada/news", "t-2"), 200);
    assert_eq!(server.status("GET", "users/ada/diary", "t-2"), 404);
    service.answers("500 Oops", "");
    assert_eq!(server.status("GET", "users/ada/news", "t-1"), 503);
}
