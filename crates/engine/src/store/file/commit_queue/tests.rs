use std::sync::mpsc;

use durable_streams_protocol::{StreamEvent, StreamId, Timestamp};

use super::*;
use crate::store::{Commit, CommitSink, EventPlace};

/// Longer than any of these tests should wait, by far.
const LONG: Duration = Duration::from_secs(60);

struct NoSink;

impl CommitSink for NoSink {
    fn committed(&self, _: u64) {}
    fn failed(&self, _: u64, _: StoreError) {}
}

fn commit_at(version: u64, epoch: u64) -> Commit {
    let event = StreamEvent::Touched { at: Timestamp::default() };
    let (epoch, place, sink) = (LogEpoch(epoch), EventPlace::default(), Arc::new(NoSink));
    Commit { id: StreamId(1), event, place, epoch, version, sink }
}

fn push(queue: &CommitQueue, version: u64) -> Result<(), StoreError> {
    queue.push([QueuedCommit::alone(commit_at(version, 0))])
}

fn versions(batch: &[QueuedCommit]) -> Vec<u64> {
    batch.iter().map(|queued| queued.commit.version).collect()
}

fn take(queue: &CommitQueue) -> (WriterStep, Vec<u64>) {
    let mut batch = Vec::new();
    let step = queue.next(&mut batch, Some(Duration::ZERO));
    (step, versions(&batch))
}

#[test]
fn everything_that_is_queued_is_one_batch_in_its_order() {
    let queue = CommitQueue::default();
    assert_eq!(take(&queue), (WriterStep::Idle, vec![]));
    (1..=3).for_each(|version| push(&queue, version).unwrap());
    assert_eq!(queue.waiting(), 3);
    assert_eq!(take(&queue), (WriterStep::Write, vec![1, 2, 3]));
    assert_eq!((queue.waiting(), take(&queue)), (0, (WriterStep::Idle, vec![])));
    push(&queue, 4).unwrap();
    queue.close();
    assert!(matches!(push(&queue, 5), Err(StoreError::Closed)));
    assert!(matches!(queue.accepts(), Err(StoreError::Closed)));
    assert_eq!(take(&queue), (WriterStep::Write, vec![4]), "what was accepted is written");
    assert_eq!(take(&queue), (WriterStep::End, vec![]));
}

#[test]
fn what_was_decided_before_a_loss_is_refused_and_of_a_pair_both_are() {
    let queue = CommitQueue::default();
    push(&queue, 1).unwrap();
    push(&queue, 2).unwrap();
    assert_eq!(versions(&queue.fail_all()), [1, 2]);
    assert_eq!((queue.epoch(), queue.waiting()), (LogEpoch(1), 0));
    assert!(matches!(push(&queue, 3), Err(StoreError::Superseded)));
    for epochs in [(0, 1), (1, 0)] {
        let pair = QueuedCommit::pair(commit_at(4, epochs.0), commit_at(5, epochs.1));
        assert!(matches!(queue.push(pair), Err(StoreError::Superseded)));
    }
    queue.push(QueuedCommit::pair(commit_at(6, 1), commit_at(7, 2))).unwrap();
    assert_eq!(take(&queue), (WriterStep::Write, vec![6, 7]));
}

#[test]
fn a_poisoned_queue_says_why_it_was_poisoned_first() {
    let queue = CommitQueue::default();
    assert!(queue.accepts().is_ok() && queue.poisoned().is_none());
    push(&queue, 1).unwrap();
    assert_eq!(versions(&queue.poison("the disk")), [1]);
    assert_eq!(versions(&queue.poison("another reason")), [0; 0]);
    assert_eq!((queue.poisoned().as_deref(), queue.epoch()), (Some("the disk"), LogEpoch(2)));
    for refused in [queue.accepts(), push(&queue, 2)] {
        let Err(StoreError::Poisoned { reason }) = refused else { panic!("{refused:?}") };
        assert_eq!(&*reason, "the disk");
    }
    queue.close();
    assert!(matches!(queue.accepts(), Err(StoreError::Poisoned { .. })), "that is worse");
}

/// Runs `wait` in a thread; what it returns is received when it has ended.
fn waiting<T: Send + 'static>(
    queue: &Arc<CommitQueue>,
    wait: impl FnOnce(&CommitQueue) -> T + Send + 'static,
) -> mpsc::Receiver<T> {
    let (sender, receiver) = mpsc::channel();
    let queue = queue.clone();
    thread::spawn(move || sender.send(wait(&queue)));
    receiver
}

/// Nothing comes although there was time for it.
fn still_waits<T>(receiver: &mpsc::Receiver<T>) -> bool {
    receiver.recv_timeout(Duration::from_millis(30)).is_err()
}

#[test]
fn the_writer_sleeps_until_something_is_queued_or_the_queue_is_closed() {
    for patience in [None, Some(LONG)] {
        let queue = Arc::new(CommitQueue::default());
        let next = move |queue: &CommitQueue| {
            let mut batch = Vec::new();
            (queue.next(&mut batch, patience), versions(&batch))
        };
        let step = waiting(&queue, next);
        assert!(still_waits(&step));
        push(&queue, 1).unwrap();
        assert_eq!(step.recv_timeout(LONG / 2).unwrap(), (WriterStep::Write, vec![1]));
        let step = waiting(&queue, next);
        assert!(still_waits(&step));
        queue.close();
        assert_eq!(step.recv_timeout(LONG / 2).unwrap(), (WriterStep::End, vec![]));
    }
}

#[test]
fn a_batch_is_waited_for_until_it_has_its_size_or_the_time_is_over() {
    let queue = Arc::new(CommitQueue::default());
    let wait = |until: Duration| {
        waiting(&queue, move |queue| {
            queue.wait_for_batch(3, Instant::now() + until);
            queue.waiting()
        })
    };
    let filled = wait(LONG);
    assert!(still_waits(&filled));
    push(&queue, 1).unwrap();
    push(&queue, 2).unwrap();
    assert!(still_waits(&filled), "two of three");
    push(&queue, 3).unwrap();
    assert_eq!(filled.recv_timeout(LONG / 2).unwrap(), 3);
    assert_eq!(wait(LONG).recv_timeout(LONG / 2).unwrap(), 3, "as many are there");
    take(&queue);
    push(&queue, 4).unwrap();
    assert_eq!(wait(Duration::from_millis(20)).recv_timeout(LONG / 2).unwrap(), 1);
    let closed = wait(LONG);
    assert!(still_waits(&closed));
    queue.close();
    assert_eq!(closed.recv_timeout(LONG / 2).unwrap(), 1);
}
