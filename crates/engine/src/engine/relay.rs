//! Who waits, and who is woken next.
//!
//! A runtime takes what is woken in order. Were thousands of readers woken at once, an append would wait
//! behind all of their deliveries, and no two appends would ever share one. So a round wakes a few of those
//! who wait, and those who were heard of make room for the next.
//!
//! Invariant: whoever waits when a round begins is woken by it, or by the next one, which takes over where
//! it was. Places stand in a ring; a round looks at each once.

use std::task::Waker;

use slab::Slab;

/// Woken and not yet heard of, at most. It is filled up when half of them were heard of: in small batches, so
/// that a runtime has other things between them, and not one by one.
const UNDER_WAY: usize = 16;

/// See the module.
#[derive(Default)]
pub(super) struct Relay {
    places: Slab<Place>,
    /// The place that a round looks at next.
    next: usize,
    /// Places that the round has not looked at.
    left: usize,
    under_way: usize,
}

#[derive(Default)]
struct Place {
    /// There while its holder waits.
    waker: Option<Waker>,
    /// Woken, and not yet heard of.
    under_way: bool,
}

impl Relay {
    /// Takes a place; to be given back.
    pub(super) fn join(&mut self) -> usize {
        let ring = self.places.capacity();
        let key = self.places.insert(Place::default());
        if self.left > 0 && self.places.capacity() > ring {
            // The ring is longer now: the place where the round began comes later.
            self.left = self.places.capacity();
        }
        key
    }

    /// Gives a place back. What is returned is to be woken.
    pub(super) fn leave(&mut self, key: usize) -> Vec<Waker> {
        let woken = self.heard(key);
        self.places.try_remove(key);
        if self.places.is_empty() {
            *self = Relay::default();
        }
        woken
    }

    /// The holder of a place waits.
    pub(super) fn wait(&mut self, key: usize, waker: &Waker) {
        let Some(place) = self.places.get_mut(key) else { return };
        match &mut place.waker {
            Some(known) => known.clone_from(waker),
            none => *none = Some(waker.clone()),
        }
    }

    /// The holder of a place is awake. What is returned is to be woken.
    pub(super) fn heard(&mut self, key: usize) -> Vec<Waker> {
        let Some(place) = self.places.get_mut(key) else { return Vec::new() };
        if !std::mem::take(&mut place.under_way) {
            return Vec::new();
        }
        self.under_way -= 1;
        if self.under_way > UNDER_WAY / 2 { Vec::new() } else { self.go_on() }
    }

    /// Begins a round. What is returned is to be woken.
    pub(super) fn round(&mut self) -> Vec<Waker> {
        self.left = self.places.capacity();
        self.go_on()
    }

    pub(super) fn is_empty(&self) -> bool {
        self.places.is_empty()
    }

    fn go_on(&mut self) -> Vec<Waker> {
        let mut woken = Vec::new();
        while self.left > 0 && self.under_way < UNDER_WAY {
            self.left -= 1;
            let at = if self.next < self.places.capacity() { self.next } else { 0 };
            self.next = at + 1;
            let Some(place) = self.places.get_mut(at) else { continue };
            if let Some(waker) = place.waker.take() {
                self.under_way += usize::from(!std::mem::replace(&mut place.under_way, true));
                woken.push(waker);
            }
        }
        woken
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;
    use std::sync::{
        Arc,
        atomic::{AtomicBool, Ordering},
    };
    use std::task::Wake;

    #[derive(Default)]
    struct Flag(AtomicBool);

    impl Wake for Flag {
        fn wake(self: Arc<Self>) {
            self.0.store(true, Ordering::Relaxed);
        }
    }

    /// A reader: which version it has seen, and whether it was woken.
    struct Reader {
        key: usize,
        seen: u32,
        flag: Arc<Flag>,
    }

    #[derive(Clone, Debug)]
    enum Step {
        Join,
        Leave(usize),
        /// Something new is shown.
        Round,
        /// The runtime polls one of those who were woken.
        Poll(usize),
        /// A reader wakes for a reason of its own.
        Stir(usize),
    }

    fn step() -> impl Strategy<Value = Step> {
        prop_oneof![
            4 => Just(Step::Join),
            1 => any::<usize>().prop_map(Step::Leave),
            1 => Just(Step::Round),
            6 => any::<usize>().prop_map(Step::Poll),
            1 => any::<usize>().prop_map(Step::Stir),
        ]
    }

    #[derive(Default)]
    struct World {
        relay: Relay,
        version: u32,
        readers: Vec<Reader>,
    }

    impl World {
        fn wake(woken: Vec<Waker>) {
            assert!(woken.len() <= UNDER_WAY);
            woken.into_iter().for_each(Waker::wake);
        }

        fn look(&mut self, at: usize) {
            let Some(reader) = self.readers.get_mut(at) else { return };
            reader.flag.0.store(false, Ordering::Relaxed);
            reader.seen = self.version;
            Self::wake(self.relay.heard(reader.key));
            self.relay.wait(reader.key, &reader.flag.clone().into());
        }

        fn woken(&self) -> Vec<usize> {
            let woken = |at: &usize| self.readers[*at].flag.0.load(Ordering::Relaxed);
            (0..self.readers.len()).filter(woken).collect()
        }

        fn take(&mut self, step: Step) {
            let count = self.readers.len();
            match step {
                Step::Join => {
                    let flag = Arc::default();
                    let key = self.relay.join();
                    self.readers.push(Reader { key, seen: 0, flag });
                    self.look(count);
                }
                Step::Leave(at) if count > 0 => {
                    let reader = self.readers.swap_remove(at % count);
                    Self::wake(self.relay.leave(reader.key));
                }
                Step::Round => {
                    self.version += 1;
                    Self::wake(self.relay.round());
                }
                Step::Stir(at) if count > 0 => self.look(at % count),
                Step::Poll(at) => {
                    let woken = self.woken();
                    if let Some(at) = woken.get(at % woken.len().max(1)) {
                        self.look(*at);
                    }
                }
                Step::Leave(_) | Step::Stir(_) => {}
            }
            let under_way = self.relay.places.iter().filter(|(_, place)| place.under_way).count();
            assert_eq!(self.relay.under_way, under_way);
            assert!(under_way <= UNDER_WAY);
        }
    }

    proptest! {
        /// Whatever happens, once the runtime has polled everyone who was woken, everyone has seen the newest.
        #[test]
        fn nobody_is_forgotten(steps in prop::collection::vec(step(), 0..600)) {
            let mut world = World::default();
            for _ in 0..200 {
                world.take(Step::Join);
            }
            for step in steps {
                world.take(step);
            }
            while let Some(at) = world.woken().first() {
                world.look(*at);
            }
            prop_assert!(world.readers.iter().all(|reader| reader.seen == world.version));
        }
    }
}
