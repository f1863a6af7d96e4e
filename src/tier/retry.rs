//! Attempts: each bounded in time, some in number, with pauses between them.

use std::future::Future;
use std::time::Duration;

use durable_streams_engine::store::file::segments::cold::ColdError;
use tokio::time::{Instant, timeout_at};

use super::RetryOptions;
use super::failure::unavailable;

/// Repeats `attempt` while it fails for a passing reason. No attempt and no pause goes on after `deadline`.
pub(super) async fn retrying<T, A>(
    options: &RetryOptions,
    attempt_timeout: Duration,
    deadline: Option<Instant>,
    mut attempt: impl FnMut() -> A,
) -> Result<T, ColdError>
where
    A: Future<Output = Result<T, ColdError>>,
{
    let mut pause = options.first_pause;
    for number in 1.. {
        let end = Instant::now() + attempt_timeout;
        let end = deadline.map_or(end, |deadline| deadline.min(end));
        let late = || Err(unavailable("no answer in time"));
        let error = match timeout_at(end, attempt()).await.unwrap_or_else(|_| late()) {
            Ok(done) => return Ok(done),
            Err(error) => error,
        };
        let ColdError::Unavailable { .. } = &error else { return Err(error) };
        // A random part, so that requests that failed together are not repeated together.
        let wait = pause.mul_f64(0.5 + fastrand::f64() / 2.0);
        let over = deadline.is_some_and(|deadline| Instant::now() + wait >= deadline);
        if over || number >= options.attempts {
            return Err(error);
        }
        tokio::time::sleep(wait).await;
        pause = (pause * 2).min(options.longest_pause);
    }
    Err(unavailable("no attempt was made"))
}

#[cfg(test)]
mod tests {
    use std::cell::Cell;

    use super::*;

    fn options() -> RetryOptions {
        RetryOptions { attempts: 3, ..RetryOptions::default() }
    }

    const ATTEMPT: Duration = Duration::from_secs(10);

    #[tokio::test(start_paused = true)]
    async fn a_passing_failure_is_repeated_and_another_one_is_not() {
        let attempts = Cell::new(0);
        let fails = async |times: u32, error: ColdError| {
            attempts.set(0);
            let attempt = || {
                attempts.set(attempts.get() + 1);
                let fails = attempts.get() <= times;
                let error = error.clone();
                async move { if fails { Err(error) } else { Ok(7) } }
            };
            retrying(&options(), ATTEMPT, None, attempt).await
        };
        assert_eq!(fails(2, unavailable("503")).await, Ok(7));
        assert_eq!(attempts.get(), 3);
        assert_eq!(fails(3, unavailable("503")).await, Err(unavailable("503")));
        assert_eq!(attempts.get(), 3);
        for error in
            [ColdError::NotFound, ColdError::Refused("x".into()), ColdError::Damaged("x".into())]
        {
            assert_eq!(fails(1, error.clone()).await, Err(error));
            assert_eq!(attempts.get(), 1);
        }
    }

    #[tokio::test(start_paused = true)]
    async fn no_attempt_outlives_its_time_or_the_deadline() {
        let began = Instant::now();
        let never = || std::future::pending::<Result<(), ColdError>>();
        let result = retrying(&options(), ATTEMPT, None, never).await;
        assert_eq!(result, Err(unavailable("no answer in time")));
        let took = began.elapsed();
        assert!(took >= 3 * ATTEMPT && took < 3 * ATTEMPT + Duration::from_secs(1), "{took:?}");
        let began = Instant::now();
        let deadline = began + Duration::from_secs(12);
        assert!(retrying(&options(), ATTEMPT, Some(deadline), never).await.is_err());
        assert_eq!(began.elapsed(), Duration::from_secs(12));
    }
}
