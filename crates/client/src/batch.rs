//! What a read delivers: bytes or messages, and the position after them.

use bytes::Bytes;
use futures_util::{Stream as FuturesStream, TryStreamExt, stream};
use serde::de::DeserializeOwned;

use crate::{error::ClientError, position::StreamPosition};

/// Consecutive bytes, or messages of a JSON stream, with the position after them.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct StreamBatch {
    pub(crate) data: BatchData,
    pub(crate) position: StreamPosition,
    pub(crate) up_to_date: bool,
    pub(crate) closed: bool,
}

#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) enum BatchData {
    Bytes(Bytes),
    /// The JSON text of each message.
    Messages(Vec<Bytes>),
}

impl StreamBatch {
    /// Where to go on after this batch: what an application stores together with what it made of the batch.
    pub fn position(&self) -> &StreamPosition {
        &self.position
    }

    /// The batch reached the tail, as it was when the server answered.
    pub fn is_up_to_date(&self) -> bool {
        self.up_to_date
    }

    /// The stream is closed and this is its last batch.
    pub fn is_last(&self) -> bool {
        self.closed
    }

    /// The bytes; of a JSON stream, one array of the messages.
    pub fn to_bytes(&self) -> Bytes {
        match &self.data {
            BatchData::Bytes(bytes) => bytes.clone(),
            BatchData::Messages(messages) => {
                let length = messages.iter().map(|message| message.len() + 1).sum::<usize>() + 1;
                let mut array = Vec::with_capacity(length.max(2));
                array.push(b'[');
                for (number, message) in messages.iter().enumerate() {
                    if number > 0 {
                        array.push(b',');
                    }
                    array.extend_from_slice(message);
                }
                array.push(b']');
                array.into()
            }
        }
    }

    /// The text of each message of a JSON stream; `None` for another stream, which has bytes only.
    pub fn messages(&self) -> Option<&[Bytes]> {
        match &self.data {
            BatchData::Messages(messages) => Some(messages),
            BatchData::Bytes(_) => None,
        }
    }

    /// Every message of a JSON stream as `T`.
    ///
    /// # Errors
    /// [`ClientError::Json`] when a message is no `T`, or the stream is none of `application/json`.
    pub fn json<T: DeserializeOwned>(&self) -> Result<Vec<T>, ClientError> {
        let BatchData::Messages(messages) = &self.data else {
            return Err(ClientError::Json("the stream is not of application/json".to_owned()));
        };
        let parsed = messages.iter().map(|message| serde_json::from_slice(message));
        parsed.collect::<Result<_, _>>().map_err(|error| ClientError::Json(error.to_string()))
    }
}

impl BatchData {
    pub(crate) fn units(&self) -> u64 {
        match self {
            BatchData::Bytes(bytes) => bytes.len() as u64,
            BatchData::Messages(messages) => messages.len() as u64,
        }
    }

    /// Drops up to `skip` units from the front, and takes them off `skip`.
    pub(crate) fn skip(&mut self, skip: &mut u64) {
        let units = usize::try_from((*skip).min(self.units())).unwrap_or(usize::MAX);
        match self {
            BatchData::Bytes(bytes) => drop(bytes.split_to(units)),
            BatchData::Messages(messages) => drop(messages.drain(..units)),
        }
        *skip -= units as u64;
    }
}

/// The messages of JSON batches as values, one by one. Ends after an error, a message that is no `T` among them.
pub(crate) fn messages_of<T: DeserializeOwned + Send>(
    batches: impl FuturesStream<Item = Result<StreamBatch, ClientError>> + Send,
) -> impl FuturesStream<Item = Result<T, ClientError>> + Send {
    let unread = (Box::pin(batches), Vec::new().into_iter());
    stream::try_unfold(unread, |(mut batches, mut unread)| async {
        loop {
            if let Some(message) = unread.next() {
                return Ok(Some((message, (batches, unread))));
            }
            let Some(batch) = batches.try_next().await? else { return Ok(None) };
            unread = batch.json()?.into_iter();
        }
    })
}

#[cfg(test)]
mod tests {
    use super::*;

    fn batch(messages: &[&'static str]) -> StreamBatch {
        let messages = messages.iter().map(|text| Bytes::from_static(text.as_bytes())).collect();
        StreamBatch {
            data: BatchData::Messages(messages),
            position: StreamPosition::START,
            up_to_date: true,
            closed: false,
        }
    }

    #[test]
    fn messages_are_values_texts_or_one_array() {
        assert_eq!(batch(&["1", "2"]).json::<u8>().unwrap(), [1, 2]);
        assert_eq!(batch(&["1", "{}"]).to_bytes(), &b"[1,{}]"[..]);
        assert_eq!(batch(&[]).to_bytes(), &b"[]"[..]);
        assert!(matches!(batch(&["1", "x"]).json::<u8>(), Err(ClientError::Json(_))));
    }

    #[test]
    fn what_was_delivered_is_skipped() {
        let mut data = BatchData::Bytes(Bytes::from_static(b"hello"));
        let mut skip = 2;
        data.skip(&mut skip);
        assert_eq!((data, skip), (BatchData::Bytes(Bytes::from_static(b"llo")), 0));
        let mut skip = 7;
        let mut data = batch(&["1", "2"]).data;
        data.skip(&mut skip);
        assert_eq!((data, skip), (BatchData::Messages(Vec::new()), 5));
    }
}
