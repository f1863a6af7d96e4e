//! Numbered messages through faults: none is lost, doubled or out of order.
//!
//! CLIENT_FAULT_ROUNDS=n runs each test n times; `make client-faults`.

use std::{
    net::SocketAddr,
    sync::{
        Arc,
        atomic::{AtomicU32, Ordering},
    },
    time::{Duration, Instant},
};

use durable_streams_client::{
    AppendOptions, Client, CreateOptions, FollowMode, Producer, RetryPolicy, StartFrom, Stream,
    Subscription,
};

use crate::{
    proxy::{FaultProxy, FaultRates},
    scene::{PATIENCE, Scene, end, next},
    server::{Server, Setup},
};

const STORM: FaultRates = FaultRates {
    lost_response: 8,
    lost_request: 8,
    truncated: 8,
    doubled_request: 8,
    doubled_response: 8,
    delayed: 20,
    refused: 8,
};

fn rounds() -> u32 {
    std::env::var("CLIENT_FAULT_ROUNDS").ok().and_then(|text| text.parse().ok()).unwrap_or(2)
}

/// Pauses as short as the faults.
fn quick() -> RetryPolicy {
    RetryPolicy {
        first_pause: Duration::from_millis(5),
        longest_pause: Duration::from_millis(50),
        give_up_after: Some(PATIENCE),
        ..RetryPolicy::default()
    }
}

fn client(url: &str) -> Client {
    let builder = Client::builder(url).retry(quick()).request_timeout(Duration::from_secs(2));
    builder.live_timeout(Duration::from_secs(3)).build().unwrap()
}

async fn producer(stream: &Stream) -> Producer {
    // Small batches, so that there are many requests to spoil.
    let builder = stream.producer("p").max_batch(60).linger(Duration::from_millis(1));
    builder.retry(RetryPolicy { give_up_after: None, ..quick() }).start().await.unwrap()
}

async fn produce(stream: Stream, count: u32) {
    let producer = producer(&stream).await;
    for number in 0..count {
        producer.append_json(&number).await.unwrap();
        if number % 16 == 0 {
            tokio::time::sleep(Duration::from_micros(fastrand::u64(0..2000))).await;
        }
    }
    producer.close_stream().await.unwrap();
}

/// Follows to the end, and checks every message by its number. `received` counts them.
async fn follow(mut subscription: Subscription, count: u32, received: Arc<AtomicU32>) {
    let mut expected = 0;
    while !subscription.is_closed() {
        let batch = tokio::time::timeout(PATIENCE, subscription.next()).await;
        let batch = batch.unwrap_or_else(|_| panic!("nothing comes after {expected} messages"));
        let Some(batch) = batch.unwrap() else { break };
        for number in batch.json::<u32>().unwrap() {
            assert_eq!(number, expected, "at {}", batch.position());
            expected += 1;
            received.fetch_add(1, Ordering::Relaxed);
        }
    }
    assert_eq!(expected, count, "the stream ends with its last message");
}

async fn produce_and_follow(url: &str, path: &str, count: u32) {
    let stream = client(url).stream(path).unwrap();
    stream.create(&CreateOptions::json()).await.unwrap();
    let mut tasks = vec![tokio::spawn(produce(stream.clone(), count))];
    for mode in [FollowMode::Automatic, FollowMode::Sse, FollowMode::LongPoll] {
        let subscription = stream.subscription(StartFrom::Start).mode(mode).build();
        tasks.push(tokio::spawn(follow(subscription, count, Arc::default())));
    }
    for task in tasks {
        task.await.unwrap();
    }
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn nothing_is_lost_doubled_or_reordered_by_a_bad_network() {
    let scene = Scene::start();
    let proxy = FaultProxy::before(scene.server.address, STORM).await;
    for round in 0..rounds() {
        produce_and_follow(&proxy.url(), &format!("storm/{round}"), 400).await;
    }
    assert!(proxy.faults() > 10 * u64::from(rounds()), "{} faults", proxy.faults());
}

/// Reads of large responses, cut at any byte.
#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_cut_response_is_resumed_where_it_ended() {
    let scene = Scene::start();
    let direct = scene.client().stream("large").unwrap();
    let data: Vec<u8> = (0..200_000u32).flat_map(u32::to_be_bytes).collect();
    direct.create(&CreateOptions::default().data(data.clone())).await.unwrap();
    let rates = FaultRates { truncated: 70, ..FaultRates::default() };
    let proxy = FaultProxy::before(scene.server.address, rates).await;
    let stream = client(&proxy.url()).stream("large").unwrap();
    for _ in 0..rounds() * 3 {
        let batches = stream.read(StartFrom::Start).collect().await.unwrap();
        let read: Vec<u8> = batches.iter().flat_map(|batch| batch.to_bytes()).collect();
        assert!(read == data, "{} of {} bytes", read.len(), data.len());
    }
    assert!(proxy.faults() > 3);
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_storm_of_refusals_only_takes_time() {
    let scene = Scene::start();
    let rates = FaultRates { refused: 60, ..FaultRates::default() };
    let proxy = FaultProxy::before(scene.server.address, rates).await;
    for round in 0..rounds() {
        produce_and_follow(&proxy.url(), &format!("refused/{round}"), 200).await;
    }
}

/// A plain append may be lost by a bad network, and by default never stored twice; the caller can have the opposite.
#[tokio::test]
async fn a_plain_append_is_stored_at_most_once_or_at_least_once() {
    let scene = Scene::start();
    let rates = FaultRates { lost_request: 20, lost_response: 20, ..FaultRates::default() };
    let proxy = FaultProxy::before(scene.server.address, rates).await;
    for at_least_once in [false, true] {
        let path = format!("plain/{at_least_once}");
        let stored = scene.client().stream(&path).unwrap();
        stored.create(&CreateOptions::json()).await.unwrap();
        let stream = client(&proxy.url()).stream(&path).unwrap();
        let content_type = durable_streams_client::ContentType::parse("application/json");
        let options = AppendOptions { content_type, at_least_once, ..AppendOptions::default() };
        let mut lost = 0;
        for number in 0..60 {
            lost += u32::from(stream.append(number.to_string(), &options).await.is_err());
        }
        let batches = stored.read(StartFrom::Start).collect().await.unwrap();
        let mut numbers: Vec<u32> = batches.iter().flat_map(|b| b.json().unwrap()).collect();
        let before = numbers.len();
        numbers.dedup();
        if at_least_once {
            assert_eq!((lost, numbers), (0, (0..60).collect()), "all of them");
            assert!(before > 60, "no response was lost");
        } else {
            assert!(lost > 0 && before == numbers.len(), "none twice");
        }
    }
}

#[tokio::test]
async fn events_that_are_held_back_are_replaced_by_long_poll() {
    let scene = Scene::start();
    let proxy = FaultProxy::before(scene.server.address, FaultRates::default()).await;
    proxy.buffer_events();
    let builder = Client::builder(&proxy.url()).event_patience(Duration::from_millis(300));
    let stream = builder.build().unwrap().stream("buffered").unwrap();
    stream.create(&CreateOptions::json()).await.unwrap();
    let mut subscription = stream.subscribe(StartFrom::Start);
    let began = Instant::now();
    assert_eq!(subscription.next_within(Duration::from_millis(500)).await.unwrap(), None);
    for number in 0..5u32 {
        stream.append_json(&number).await.unwrap();
        assert_eq!(next(&mut subscription).await.json::<u32>().unwrap(), [number]);
    }
    stream.close().await.unwrap();
    end(&mut subscription).await;
    assert!(began.elapsed() < Duration::from_secs(5), "{:?}", began.elapsed());
}

/// kill -9 of the server while a producer and two readers are at work, again and again; the server comes back at another
/// port, as behind a name. Each kill comes after messages have arrived since the last one, so that a machine that is too
/// busy for a request between two kills does not look like a client that hangs.
#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn nothing_is_lost_when_the_server_is_killed() {
    let setup = Setup::new("");
    let mut server = setup.start();
    let proxy = FaultProxy::before(server.address, FaultRates::default()).await;
    let stream = client(&proxy.url()).stream("killed").unwrap();
    stream.create(&CreateOptions::json()).await.unwrap();
    let count = 1500 * rounds();
    let received = Arc::<AtomicU32>::default();
    let mut tasks = vec![tokio::spawn(produce(stream.clone(), count))];
    for mode in [FollowMode::Automatic, FollowMode::LongPoll] {
        let subscription = stream.subscription(StartFrom::Start).mode(mode).build();
        tasks.push(tokio::spawn(follow(subscription, count, received.clone())));
    }
    let (mut kills, mut longest) = (0, Duration::ZERO);
    while !tasks[0].is_finished() && kills < 3 * rounds() {
        let (before, began) = (received.load(Ordering::Relaxed), Instant::now());
        while received.load(Ordering::Relaxed) == before && !tasks[0].is_finished() {
            assert!(began.elapsed() < PATIENCE, "nothing arrives after {kills} kills");
            tokio::time::sleep(Duration::from_millis(5)).await;
        }
        longest = longest.max(began.elapsed());
        tokio::time::sleep(Duration::from_millis(fastrand::u64(0..300))).await;
        server = restarted(server, &setup).await;
        proxy.move_to(server.address);
        kills += 1;
    }
    assert!(kills > 0, "the server was killed while it was used");
    println!("{kills} kills; messages arrived again after {longest:?} at most");
    for task in tasks {
        task.await.unwrap();
    }
}

async fn restarted(mut server: Server, setup: &Setup) -> Server {
    server.kill();
    drop(server);
    tokio::task::block_in_place(|| setup.start())
}

/// The reader alone, with nothing to do, over a restart.
#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_subscription_survives_a_restart_of_an_idle_stream() {
    let setup = Setup::new("");
    let server = setup.start();
    let address: SocketAddr = server.address;
    let proxy = FaultProxy::before(address, FaultRates::default()).await;
    let stream = client(&proxy.url()).stream("idle").unwrap();
    stream.create(&CreateOptions::json().data("1")).await.unwrap();
    let mut subscription = stream.subscribe(StartFrom::Start);
    assert_eq!(next(&mut subscription).await.json::<u32>().unwrap(), [1]);
    assert_eq!(subscription.next_within(Duration::from_millis(200)).await.unwrap(), None);
    let server = restarted(server, &setup).await;
    proxy.move_to(server.address);
    let waiting = tokio::spawn(async move { next(&mut subscription).await });
    stream.append_json(&2).await.unwrap();
    assert_eq!(waiting.await.unwrap().json::<u32>().unwrap(), [2]);
}
