//! When an observer hears of a change: before the client that made it has its acknowledgement. A worker may then
//! claim the work of its own append at once (§7).

use std::{
    sync::{Arc, Mutex},
    time::Duration,
};

use bytes::Bytes;
use durable_streams_engine::{Clock, Engine, EngineLimits, StreamObserver};
use durable_streams_protocol::{Append, ContentType, Create, Offset, StreamCore, StreamPath, Tail};

use crate::stores::{StoreKind, open};

/// Takes its time, so that an acknowledgement that does not wait for it is seen to be early.
#[derive(Default)]
struct SlowObserver(Mutex<Option<Offset>>);

impl StreamObserver for SlowObserver {
    fn on_durable(&self, _: &StreamPath, _: Option<&Arc<StreamCore>>, tail: Tail) {
        std::thread::sleep(Duration::from_millis(20));
        *self.0.lock().unwrap() = Some(tail.offset);
    }
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn the_observer_knows_of_an_append_before_its_client_does() {
    for kind in StoreKind::ALL {
        let (store, _keep) = open(*kind).into_parts();
        let engine = Engine::new(store, Clock::System, EngineLimits::default());
        let observer = Arc::new(SlowObserver::default());
        engine.observe(observer.clone());
        let path = StreamPath::new("s").unwrap();
        let text = ContentType::parse("text/plain").unwrap();
        let create = Create { content_type: Some(text.clone()), ..Create::default() };
        engine.create(&path, &create, Bytes::new()).await.unwrap();
        for round in 0..5 {
            let append = Append { content_type: Some(Ok(text.clone())), ..Append::default() };
            engine.append(&path, &append, Bytes::from_static(b"x")).await.unwrap();
            let tail = engine.head(&path).await.unwrap().tail.offset;
            assert_eq!(*observer.0.lock().unwrap(), Some(tail), "{kind:?}, round {round}");
        }
    }
}
