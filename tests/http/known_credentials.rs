//! Credentials that a connection sends again and again: what was revoked, or is another's, is never taken for what was
//! verified before.

use durable_streams_auth::{NewApiKey, NewProjectToken, ProjectScope};
use durable_streams_protocol::Timestamp;

use crate::access::{Access, auth, create, grant};
use crate::support::Client;
use crate::world::{Kind, World, request};

for_each_kind![
    a_key_that_is_revoked_between_two_requests,
    a_token_whose_project_changes_between_two_requests,
    credentials_in_turn_on_one_connection,
];

/// The statuses of appends to a path on one connection, with these fields.
async fn appends(world: &World, client: &mut Client, path: &str, fields: &str) -> [u16; 3] {
    let fields = format!("{fields}content-type: text/plain\r\n");
    let mut statuses = [0; 3];
    for status in &mut statuses {
        client.send(world.aim(request("POST", path, &fields, b"x")).await).await;
        *status = client.reply().await.status;
    }
    statuses
}

fn new_key(name: &str, words: &[&str], pattern: &str) -> NewApiKey {
    let grants = vec![grant(words, pattern)];
    NewApiKey { name: name.into(), tenant: None, grants, expires: None }
}

async fn a_key_that_is_revoked_between_two_requests(kind: Kind) {
    let access = Access::new();
    let world = access.world(kind);
    create(&world, "root", "/pub/a").await;
    let now: Timestamp = world.engine.now();
    let all = new_key("all", &["all"], "pub/**");
    let (record, key) = access.file.create_api_key(all.clone(), now).unwrap();
    let (_, other) = access.file.create_api_key(all, now).unwrap();
    for header in ["authorization: Bearer ", "x-api-key: "] {
        let (key, other) = (format!("{header}{key}\r\n"), format!("{header}{other}\r\n"));
        let mut client = world.server.connect().await;
        let revoked = access.file.api_keys().iter().any(|key| key.revoked.is_some());
        if !revoked {
            assert_eq!(appends(&world, &mut client, "/pub/a", &key).await, [204; 3]);
            access.file.revoke_api_key(&record.id, now).unwrap();
        }
        assert_eq!(appends(&world, &mut client, "/pub/a", &key).await, [401; 3], "at once");
        assert_eq!(appends(&world, &mut client, "/pub/a", &other).await, [204; 3]);
    }
}

async fn a_token_whose_project_changes_between_two_requests(kind: Kind) {
    let access = Access::new();
    let world = access.world(kind);
    create(&world, "root", "/shop/a").await;
    let now: Timestamp = world.engine.now();
    access.file.create_project("shop", now).unwrap();
    let issue = || {
        let expires = Timestamp::from_millis(now.millis() + 600_000);
        let (scope, stream_id) = (ProjectScope::Write, None);
        let new = NewProjectToken { project: "shop", scope, stream_id, expires };
        auth(&access.file.issue_project_token(&new).unwrap())
    };
    let mut client = world.server.connect().await;
    let first = issue();
    assert_eq!(appends(&world, &mut client, "/shop/a", &first).await, [204; 3]);
    access.file.rotate_project("shop", false, now).unwrap();
    assert_eq!(appends(&world, &mut client, "/shop/a", &first).await, [204; 3], "still valid");
    access.file.rotate_project("shop", true, now).unwrap();
    assert_eq!(appends(&world, &mut client, "/shop/a", &first).await, [401; 3]);
    let second = issue();
    assert_eq!(appends(&world, &mut client, "/shop/a", &second).await, [204; 3]);
    access.file.delete_project("shop").unwrap();
    assert_eq!(appends(&world, &mut client, "/shop/a", &second).await, [401; 3]);
}

/// As behind a reverse proxy that shares a connection among its clients.
async fn credentials_in_turn_on_one_connection(kind: Kind) {
    let access = Access::new();
    let world = access.world(kind);
    create(&world, "root", "/pub/a").await;
    let now: Timestamp = world.engine.now();
    let key = |name: &str, words: &[&str]| {
        auth(&access.file.create_api_key(new_key(name, words, "pub/**"), now).unwrap().1)
    };
    let (writer, reader) = (key("writer", &["write"]), key("reader", &["read"]));
    let wrong = writer.replace("dsk_", "dsk_x");
    let scheme = writer.replace("Bearer", "Basic");
    let both = format!("{writer}{reader}");
    let mut client = world.server.connect().await;
    for round in 0..3 {
        for (fields, status) in [
            (&writer, 204),
            (&reader, 403),
            (&wrong, 401),
            (&writer, 204),
            (&scheme, 401),
            (&both, 401),
            (&String::new(), 401),
            (&reader, 403),
        ] {
            let found = appends(&world, &mut client, "/pub/a", fields).await;
            assert_eq!(found, [status; 3], "round {round}: {fields}");
        }
        // What a key may do is judged for each path.
        assert_eq!(appends(&world, &mut client, "/other", &writer).await, [404; 3]);
    }
}
