//! What the checkpointer's thread does; it looks every hour by itself.

use super::*;

struct Running {
    rig: Rig,
    checkpointer: Arc<Checkpointer>,
    thread: thread::JoinHandle<()>,
}

impl Running {
    fn new(rig: Rig, checkpointer: Arc<Checkpointer>) -> Self {
        let running = checkpointer.clone();
        Running { rig, checkpointer, thread: thread::spawn(move || running.run()) }
    }

    /// Waits for it, not for ever.
    fn reaches(&self, lsn: Lsn) -> bool {
        let until = Instant::now() + Duration::from_secs(20);
        while self.checkpointer.checkpointed() < lsn && Instant::now() < until {
            thread::sleep(Duration::from_millis(2));
        }
        self.checkpointer.checkpointed() == lsn
    }

    fn end(self) {
        self.checkpointer.stop();
        self.thread.join().unwrap();
    }
}

fn large(rig: &Rig, position: u64) {
    rig.publish([(ONE, position, appended(Bytes::from(vec![b'x'; 100_000]), None))]);
}

#[test]
fn it_begins_with_replayed_events_and_goes_on_when_it_is_asked_to() {
    for replayed in [false, true] {
        let rig = Rig::new(None);
        rig.publish([(ONE, 0, created("/a", Bytes::new(), None))]);
        let checkpointer = if replayed {
            // As after a start that found an event in the log.
            let (core, sealer) = (rig.checkpointer.core.clone(), rig.checkpointer.sealer.clone());
            Arc::new(Checkpointer::new(core, sealer, 0))
        } else {
            rig.checkpointer.clone()
        };
        let running = Running::new(rig, checkpointer);
        if replayed {
            assert!(running.reaches(1));
        } else {
            thread::sleep(Duration::from_millis(30));
            assert_eq!(running.checkpointer.checkpointed(), 0, "nothing is due");
        }
        large(&running.rig, 0);
        running.checkpointer.request();
        assert!(running.reaches(2));
        // Without a reason it is not begun again.
        running.rig.publish([(ONE, 100_000, appended(Bytes::new(), None))]);
        thread::sleep(Duration::from_millis(30));
        assert_eq!(running.checkpointer.checkpointed(), 2);
        running.end();
    }
}

/// While the thread does something else.
#[test]
fn a_request_and_an_end_that_come_early_are_not_forgotten() {
    let rig = Rig::new(None);
    large(&rig, 0);
    rig.checkpointer.request();
    let checkpointer = rig.checkpointer.clone();
    let running = Running::new(rig, checkpointer);
    assert!(running.reaches(1));
    running.end();

    let rig = Rig::new(None);
    rig.checkpointer.stop();
    let checkpointer = rig.checkpointer.clone();
    Running::new(rig, checkpointer).end();
}

/// While memory is full, each append asks for a checkpoint.
#[test]
fn after_a_failure_it_pauses_however_often_it_is_asked() {
    let rig = Rig::new(None);
    large(&rig, 0);
    *rig.disk.failing.lock() = Some(io::ErrorKind::Other);
    let (checkpointer, began) = (rig.checkpointer.clone(), Instant::now());
    let running = Running::new(rig, checkpointer);
    for _ in 0..50 {
        running.checkpointer.request();
        thread::sleep(Duration::from_millis(2));
    }
    let tried = u128::from(running.rig.disk.commits.load(Relaxed));
    let pauses = began.elapsed().as_millis() / PAUSE_AFTER_FAILURE.as_millis();
    assert!(
        (1..=pauses + 1).contains(&tried),
        "tried {tried} times, with room for {pauses} pauses"
    );
    *running.rig.disk.failing.lock() = None;
    running.checkpointer.request();
    assert!(running.reaches(1));
    running.end();
}
