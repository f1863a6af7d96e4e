//! Content encoding of catch-up responses: zstd, br or gzip, when the client accepts it and the body is large enough.

use std::io::{self, Write};

use bytes::Bytes;
use http::{HeaderMap, HeaderValue, header};

/// Bodies smaller than this are sent as they are, bytes: they fit a packet anyway.
const WORTH_IT: usize = 1024;
/// Bodies larger than this are encoded on a thread for blocking work, bytes.
const INLINE: usize = 32 << 10;

/// An encoding we offer.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum ContentCoding {
    Zstd,
    Brotli,
    Gzip,
}

impl ContentCoding {
    /// In the order in which we prefer them when the client does not mind.
    const ALL: [ContentCoding; 3] =
        [ContentCoding::Zstd, ContentCoding::Brotli, ContentCoding::Gzip];

    pub(super) fn name(self) -> &'static str {
        match self {
            ContentCoding::Zstd => "zstd",
            ContentCoding::Brotli => "br",
            ContentCoding::Gzip => "gzip",
        }
    }

    pub(super) fn header(self) -> HeaderValue {
        HeaderValue::from_static(self.name())
    }

    /// The encoding that the client likes best, if it takes any (RFC 9110 §12.5.3).
    pub(super) fn choose(request: &HeaderMap, length: usize) -> Option<Self> {
        if length < WORTH_IT {
            return None;
        }
        let lines = request.get_all(header::ACCEPT_ENCODING).iter();
        let accepted: Vec<&str> = lines.filter_map(|line| line.to_str().ok()).collect();
        let accepted = accepted.join(",");
        let weight = |coding: ContentCoding| {
            let weight_of = |name: &str| {
                accepted.split(',').map(parse).find(|(n, _)| n.eq_ignore_ascii_case(name))
            };
            weight_of(coding.name()).or_else(|| weight_of("*")).map_or(0, |(_, weight)| weight)
        };
        // The first of the best: `max_by_key` would take the last.
        let best = ContentCoding::ALL.into_iter().rev().max_by_key(|coding| weight(*coding))?;
        (weight(best) > 0).then_some(best)
    }

    /// Encodes a body.
    ///
    /// # Errors
    /// The encoder failed; writing to memory does not.
    pub(super) async fn encode(self, chunks: Vec<Bytes>) -> io::Result<Bytes> {
        let length: usize = chunks.iter().map(Bytes::len).sum();
        if length <= INLINE {
            return self.encode_now(&chunks);
        }
        let encode = move || self.encode_now(&chunks);
        tokio::task::spawn_blocking(encode).await.map_err(io::Error::other)?
    }

    fn encode_now(self, chunks: &[Bytes]) -> io::Result<Bytes> {
        let mut out = Vec::new();
        match self {
            ContentCoding::Zstd => {
                let mut encoder = zstd::Encoder::new(&mut out, 3)?;
                write_all(&mut encoder, chunks)?;
                encoder.finish()?;
            }
            ContentCoding::Brotli => {
                let mut encoder = brotli::CompressorWriter::new(&mut out, 4096, 4, 20);
                write_all(&mut encoder, chunks)?;
                drop(encoder);
            }
            ContentCoding::Gzip => {
                let level = flate2::Compression::new(5);
                let mut encoder = flate2::write::GzEncoder::new(&mut out, level);
                write_all(&mut encoder, chunks)?;
                encoder.finish()?;
            }
        }
        Ok(out.into())
    }
}

fn write_all(encoder: &mut impl Write, chunks: &[Bytes]) -> io::Result<()> {
    chunks.iter().try_for_each(|chunk| encoder.write_all(chunk))
}

/// One element of `Accept-Encoding`: its name, and its weight in thousandths.
fn parse(element: &str) -> (&str, u32) {
    let (name, parameters) = element.split_once(';').unwrap_or((element, ""));
    let q = parameters.trim().strip_prefix(['q', 'Q']).and_then(|rest| rest.strip_prefix('='));
    let weight = q.and_then(|q| q.parse::<f32>().ok());
    (name.trim(), (weight.unwrap_or(1.0).clamp(0.0, 1.0) * 1000.0) as u32)
}

#[cfg(test)]
mod tests {
    use super::*;
    use std::io::Read;

    fn choose(accepted: &'static str) -> Option<ContentCoding> {
        let mut headers = HeaderMap::new();
        headers.insert(header::ACCEPT_ENCODING, HeaderValue::from_static(accepted));
        ContentCoding::choose(&headers, 5000)
    }

    #[test]
    fn the_clients_choice_then_ours() {
        assert_eq!(choose("gzip, deflate, br, zstd"), Some(ContentCoding::Zstd));
        assert_eq!(choose("gzip, br"), Some(ContentCoding::Brotli));
        assert_eq!(choose("gzip;q=1.0, br;q=0.5"), Some(ContentCoding::Gzip));
        assert_eq!(choose("*"), Some(ContentCoding::Zstd));
        assert_eq!(choose("*, zstd;q=0"), Some(ContentCoding::Brotli));
        assert_eq!(choose("identity"), None);
        assert_eq!(choose("gzip;q=0"), None);
        assert_eq!(choose("gzip;Q=0"), None);
        assert_eq!(choose("GZIP; Q=0.9, br;q=0.5"), Some(ContentCoding::Gzip));
        assert_eq!(choose(""), None);
        assert_eq!(ContentCoding::choose(&HeaderMap::new(), 5000), None);
    }

    #[test]
    fn what_is_encoded_decodes() {
        let chunks = vec![Bytes::from(vec![b'a'; 3000]), Bytes::from(vec![b'b'; 10])];
        let plain = chunks.concat();
        for coding in ContentCoding::ALL {
            let encoded = coding.encode_now(&chunks).unwrap();
            assert!(encoded.len() < plain.len());
            let mut decoded = Vec::new();
            match coding {
                ContentCoding::Zstd => {
                    zstd::Decoder::new(&encoded[..]).unwrap().read_to_end(&mut decoded).unwrap()
                }
                ContentCoding::Brotli => {
                    brotli::Decompressor::new(&encoded[..], 4096).read_to_end(&mut decoded).unwrap()
                }
                ContentCoding::Gzip => {
                    flate2::read::GzDecoder::new(&encoded[..]).read_to_end(&mut decoded).unwrap()
                }
            };
            assert_eq!(decoded, plain, "{coding:?}");
        }
    }
}
