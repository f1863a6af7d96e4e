//! The budget of memory for response bodies: what is read from streams and not taken by clients yet.
//!
//! A response holds one piece at a time. Before it reads the next piece it takes room for it, and waits where there is
//! none; the room is returned once the transport has taken the piece. A piece that is larger than a stalled reader may
//! hold is read only where there is room for it at once. Small pieces, which most are, take no room. One client has a part of the budget ([`StreamOptions::client_share`]), so its readers that take nothing make
//! only its own wait.

use std::sync::atomic::{AtomicUsize, Ordering};
use std::sync::{Arc, LazyLock};
use std::thread;
use std::time::Duration;

use pingora_core::protocols::http::ServerSession;
use tokio::sync::{OwnedSemaphorePermit, Semaphore};

use crate::{
    StreamOptions,
    clients::{ClientAddress, ClientGauge, ClientPermit, ClientShare},
};

/// Pieces up to this many bytes take no room.
const SMALL: usize = 4 << 10;

/// Bytes of one permit of the semaphore, which counts in 32 bits.
const UNIT: usize = 1 << 10;

/// Responses at once that are read while they are written, up to which none yields to other tasks after a piece.
///
/// Measured: yields after each 256 KiB take 64 readers' share of another client's appends from 22.7 to 9.3 ms, and one
/// reader's replay of 64 MiB from 7.5 to 12.9 ms of processor time (docs/benchmarks.md).
const FEW: usize = 8;
/// What all responses beyond [`FEW`] read between two turns of another task, bytes, a mebibyte on each core: the more there
/// are, the smaller the pieces of each.
///
/// Measured: 64 readers' share of another client's appends 8.2 -> 4.2 ms on 2 cores, against 256 KiB for each (docs/security.md).
static ROUND: LazyLock<usize> =
    LazyLock::new(|| thread::available_parallelism().map_or(1, usize::from) << 20);

/// How often a response looks whether its client has room again.
const RETRY: Duration = Duration::from_millis(50);

/// The budget. Clones share it.
#[derive(Clone)]
pub(crate) struct AnswerBudget {
    all: Arc<Semaphore>,
    units: usize,
    clients: ClientGauge,
    /// Responses under way that are read while they are written.
    streamed: Arc<AtomicUsize>,
}

/// A response that is read while it is written, counted until this is dropped.
pub(crate) struct StreamedResponse(Arc<AtomicUsize>);

impl StreamedResponse {
    /// Whether there are so many that each leaves room for other tasks.
    pub(crate) fn is_one_of_many(&self) -> bool {
        self.0.load(Ordering::Relaxed) > FEW
    }

    /// The most bytes that each reads at a time; `most` while there are few of them.
    pub(crate) fn piece(&self, most: usize) -> usize {
        match self.0.load(Ordering::Relaxed) {
            ..=FEW => most,
            many => (*ROUND / many).min(most),
        }
    }
}

impl Drop for StreamedResponse {
    fn drop(&mut self) {
        self.0.fetch_sub(1, Ordering::Relaxed);
    }
}

/// Room for one piece; dropping it returns it.
pub(crate) struct AnswerRoom {
    all: OwnedSemaphorePermit,
    client: Option<ClientPermit>,
}

impl AnswerRoom {
    /// Returns the room beyond that for `bytes`.
    pub(crate) fn shrink(&mut self, bytes: usize) {
        let units = bytes.div_ceil(UNIT);
        drop(self.all.split(self.all.num_permits().saturating_sub(units)));
        if let Some(client) = &mut self.client {
            client.shrink(units);
        }
    }
}

/// The client against whose share of the memory for responses a response counts.
#[derive(Clone, Copy)]
pub(crate) struct AnswerPayer {
    /// `None` where the address is no client.
    client: Option<ClientAddress>,
    share: ClientShare,
}

impl AnswerPayer {
    pub(crate) fn of(session: &ServerSession, options: &StreamOptions) -> Self {
        let client = ClientAddress::of(session, options);
        AnswerPayer { client, share: options.client_share }
    }
}

impl AnswerBudget {
    pub(crate) fn new(bytes: usize) -> Self {
        let units = (bytes / UNIT).clamp(1, Semaphore::MAX_PERMITS.min(u32::MAX as usize));
        let all = Arc::new(Semaphore::new(units));
        AnswerBudget { all, units, clients: ClientGauge::default(), streamed: Arc::default() }
    }

    /// Counts a response that is read while it is written.
    pub(crate) fn streamed(&self) -> StreamedResponse {
        self.streamed.fetch_add(1, Ordering::Relaxed);
        StreamedResponse(self.streamed.clone())
    }

    /// Waits for room for a piece of `bytes`. `None` for a small one, which needs none. Cancel safe.
    pub(crate) async fn room(&self, bytes: usize, payer: AnswerPayer) -> Option<Box<AnswerRoom>> {
        if bytes <= SMALL {
            return None;
        }
        let units = bytes.div_ceil(UNIT).min(self.units);
        match self.take(units, payer) {
            Some(room) => Some(room),
            // Boxed: rare, and a reader's future would have room for it as long as it lives.
            None => Box::pin(self.wait(units, payer)).await,
        }
    }

    /// Room for a piece of `bytes`, if there is some at once, of the client's part too.
    pub(crate) fn room_at_once(&self, bytes: usize, payer: AnswerPayer) -> Option<Box<AnswerRoom>> {
        let units = bytes.div_ceil(UNIT);
        (units <= payer.share.of(self.units)).then(|| self.take(units, payer))?
    }

    fn take(&self, units: usize, payer: AnswerPayer) -> Option<Box<AnswerRoom>> {
        let client = match payer.client {
            None => None,
            Some(client) => Some(self.of_client(client, units, payer.share)?),
        };
        let count = u32::try_from(units).unwrap_or(u32::MAX);
        let all = self.all.clone().try_acquire_many_owned(count).ok()?;
        Some(Box::new(AnswerRoom { all, client }))
    }

    async fn wait(&self, units: usize, payer: AnswerPayer) -> Option<Box<AnswerRoom>> {
        let client = match payer.client {
            None => None,
            Some(client) => loop {
                match self.of_client(client, units, payer.share) {
                    Some(permit) => break Some(permit),
                    None => tokio::time::sleep(RETRY).await,
                }
            },
        };
        let count = u32::try_from(units).unwrap_or(u32::MAX);
        // The semaphore is never closed.
        let all = self.all.clone().acquire_many_owned(count).await.ok()?;
        Some(Box::new(AnswerRoom { all, client }))
    }

    fn of_client(
        &self,
        client: ClientAddress,
        units: usize,
        share: ClientShare,
    ) -> Option<ClientPermit> {
        // One piece is always allowed.
        self.clients.take(client, units, share.of(self.units).max(units))
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    const PIECE: usize = 64 << 10;

    fn payer(client: Option<&str>) -> AnswerPayer {
        let client = client.and_then(|ip| ClientAddress::new(ip.parse().unwrap(), &[]));
        AnswerPayer { client, share: ClientShare::DEFAULT }
    }

    #[tokio::test(start_paused = true)]
    async fn a_piece_waits_for_room_and_small_ones_need_none() {
        let (budget, anybody) = (AnswerBudget::new(2 * PIECE), payer(None));
        let first = budget.room(PIECE, anybody).await;
        let _second = budget.room(PIECE, anybody).await;
        assert!(budget.room(SMALL, anybody).await.is_none());
        let third = budget.room(PIECE, anybody);
        tokio::pin!(third);
        let wait = Duration::from_secs(60);
        assert!(tokio::time::timeout(wait, &mut third).await.is_err());
        drop(first);
        assert!(third.await.is_some());
    }

    #[test]
    fn the_more_responses_there_are_the_less_each_reads_at_a_time() {
        const MOST: usize = 512 << 10;
        let budget = AnswerBudget::new(PIECE);
        let mut under_way: Vec<_> = (0..FEW).map(|_| budget.streamed()).collect();
        assert_eq!(under_way[0].piece(MOST), MOST);
        for many in [FEW + 1, 16, 64, 1000] {
            under_way.resize_with(many, || budget.streamed());
            let round = under_way[0].piece(MOST) * many;
            let expected = (*ROUND).min(MOST * many);
            assert!((expected - many..=expected).contains(&round), "{round} by {many}");
        }
        under_way.truncate(FEW);
        assert_eq!(under_way[0].piece(MOST), MOST);
    }

    #[tokio::test(start_paused = true)]
    async fn a_client_waits_for_its_own_readers_only() {
        let budget = AnswerBudget::new(8 * PIECE);
        let (one, other) = (payer(Some("192.0.2.1")), payer(Some("192.0.2.2")));
        let held = [budget.room(PIECE, one).await, budget.room(PIECE, one).await];
        let third = budget.room(PIECE, one);
        tokio::pin!(third);
        let wait = Duration::from_secs(60);
        assert!(
            tokio::time::timeout(wait, &mut third).await.is_err(),
            "two of eight are a quarter"
        );
        assert!(budget.room(PIECE, other).await.is_some());
        drop(held);
        assert!(third.await.is_some());
    }

    #[tokio::test]
    async fn a_large_piece_waits_for_nothing_and_shrinks_when_its_reader_stalls() {
        let budget = AnswerBudget::new(32 * PIECE);
        let (one, other) = (payer(Some("192.0.2.1")), payer(Some("192.0.2.2")));
        assert!(budget.room_at_once(9 * PIECE, one).is_none(), "more than a quarter");
        let mut large = budget.room_at_once(8 * PIECE, one).unwrap();
        assert!(budget.room_at_once(PIECE, one).is_none());
        large.shrink(PIECE);
        assert!(budget.room_at_once(8 * PIECE, one).is_none());
        let _rest = budget.room_at_once(7 * PIECE, one).unwrap();
        let _others: Vec<_> =
            (0..3).map(|_| budget.room_at_once(8 * PIECE, payer(None)).unwrap()).collect();
        assert!(budget.room_at_once(PIECE, other).is_none(), "all of it is taken");
        drop(large);
        assert!(budget.room_at_once(PIECE, other).is_some());
    }

    #[test]
    fn responses_are_many_while_they_last() {
        let budget = AnswerBudget::new(PIECE);
        let few: Vec<_> = (0..FEW).map(|_| budget.streamed()).collect();
        assert!(!few[0].is_one_of_many());
        let last = budget.streamed();
        assert!(few[0].is_one_of_many() && last.is_one_of_many());
        drop(last);
        assert!(!few[0].is_one_of_many());
    }

    #[tokio::test]
    async fn a_piece_larger_than_the_budget_takes_all_of_it() {
        let budget = AnswerBudget::new(1);
        assert!(budget.room(PIECE, payer(None)).await.is_some());
    }
}
