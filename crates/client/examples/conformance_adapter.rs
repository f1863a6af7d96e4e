//! Lets the protocol's client conformance tests (`packages/client-conformance-tests` of its repository) drive this crate:
//! a command a line on standard input, its result a line on standard output.
//!
//! ```sh
//! cargo build -p durable-streams-client --example conformance_adapter
//! npx tsx src/cli.ts --run .../target/debug/examples/conformance_adapter    # in their package
//! ```

use std::{
    collections::BTreeMap,
    io::{BufRead, Write},
    time::{Duration, SystemTime, UNIX_EPOCH},
};

use base64::{Engine, engine::general_purpose::STANDARD};
use durable_streams_client::{
    AppendOptions, Client, ClientError, ContentType, CreateOptions, FollowMode, Producer,
    ProducerError, RetryPolicy, StartFrom, Stream, StreamBatch, StreamPosition, Timestamp,
};
use serde_json::{Map, Value, json};
use tokio::time::{Instant, timeout_at};

/// What goes wrong in a command, as the tests name it.
#[derive(Debug)]
struct CommandError {
    code: &'static str,
    status: Option<u16>,
    message: String,
}

/// A command, whose fields are strings, numbers and arrays.
struct AdapterCommand(Value);

#[derive(Default)]
struct Adapter {
    base: String,
    /// Content types by path, as the tests expect a client to remember them.
    types: BTreeMap<String, ContentType>,
    /// By path, id and epoch.
    producers: BTreeMap<(String, String, u64), HeldProducer>,
    dynamic_headers: BTreeMap<String, DynamicValue>,
    dynamic_params: BTreeMap<String, DynamicValue>,
}

/// A producer, or where it ended its stream.
enum HeldProducer {
    Open(Producer),
    Closed(String),
}

/// A value that is made for each request.
struct DynamicValue {
    kind: String,
    text: String,
    count: u64,
}

impl DynamicValue {
    fn next(&mut self) -> String {
        self.count += 1;
        match self.kind.as_str() {
            "counter" => self.count.to_string(),
            "timestamp" => SystemTime::now()
                .duration_since(UNIX_EPOCH)
                .map_or(0, |t| t.as_millis())
                .to_string(),
            _ => self.text.clone(),
        }
    }
}

impl AdapterCommand {
    fn text(&self, name: &str) -> Option<&str> {
        self.0.get(name).and_then(Value::as_str)
    }

    fn number(&self, name: &str) -> Option<u64> {
        self.0.get(name).and_then(Value::as_u64)
    }

    fn flag(&self, name: &str) -> bool {
        self.0.get(name).and_then(Value::as_bool).unwrap_or_default()
    }

    fn path(&self) -> &str {
        self.text("path").unwrap_or_default()
    }

    fn headers(&self) -> BTreeMap<String, String> {
        let headers = self.0.get("headers").cloned().unwrap_or_default();
        serde_json::from_value(headers).unwrap_or_default()
    }
}

impl From<ClientError> for CommandError {
    fn from(error: ClientError) -> Self {
        let status = error.status().map(|status| status.as_u16());
        let closed = error.refusal().is_some_and(|refusal| refusal.closed);
        let message = error.to_string();
        let code = match (&error, status) {
            (ClientError::Transport { .. }, _) => "NETWORK_ERROR",
            (ClientError::DamagedBody { .. } | ClientError::InvalidResponse { .. }, _) => {
                "PARSE_ERROR"
            }
            (ClientError::Json(_), _) => "PARSE_ERROR",
            (ClientError::InvalidArgument { .. }, _) => "INVALID_ARGUMENT",
            (_, Some(404)) => "NOT_FOUND",
            (_, Some(409)) if closed => "STREAM_CLOSED",
            (_, Some(409)) if message.to_lowercase().contains("sequence") => "SEQUENCE_CONFLICT",
            (_, Some(409)) => "CONFLICT",
            (_, Some(400)) => "INVALID_OFFSET",
            (_, Some(_)) => "UNEXPECTED_STATUS",
            _ => "INTERNAL_ERROR",
        };
        CommandError { code, status, message }
    }
}

impl From<ProducerError> for CommandError {
    fn from(error: ProducerError) -> Self {
        match error {
            ProducerError::Failed(error) => error.into(),
            error => {
                let fenced = matches!(error, ProducerError::Fenced { .. });
                let status = fenced.then_some(403);
                CommandError { code: "UNEXPECTED_STATUS", status, message: error.to_string() }
            }
        }
    }
}

fn invalid(message: String) -> CommandError {
    CommandError { code: "INVALID_ARGUMENT", status: None, message }
}

impl Adapter {
    /// A handle whose requests have `headers` and `params`.
    fn stream_with(
        &self,
        path: &str,
        headers: &BTreeMap<String, String>,
        params: &BTreeMap<String, String>,
    ) -> Result<Stream, CommandError> {
        // As long as the tests wait, and as quick as they are.
        let retry = RetryPolicy {
            give_up_after: Some(Duration::from_secs(10)),
            longest_pause: Duration::from_secs(1),
            // The tests want the error of the first one.
            damaged_bodies: 1,
            ..RetryPolicy::default()
        };
        let mut builder = Client::builder(&self.base).retry(retry);
        for (name, value) in headers {
            let name = name.parse().map_err(|_| invalid(format!("header {name:?}")))?;
            let value = value.parse().map_err(|_| invalid(format!("header value {value:?}")))?;
            builder = builder.header(name, value);
        }
        let query: Vec<_> = params.iter().map(|(name, value)| format!("{name}={value}")).collect();
        let query = if query.is_empty() { String::new() } else { format!("?{}", query.join("&")) };
        Ok(builder.build()?.stream(&format!("{}{path}{query}", self.base))?)
    }

    fn stream(&self, command: &AdapterCommand) -> Result<Stream, CommandError> {
        self.stream_with(command.path(), &command.headers(), &BTreeMap::new())
    }

    /// The same with the dynamic headers and parameters; also what they are.
    fn dynamic_stream(
        &mut self,
        command: &AdapterCommand,
    ) -> Result<(Stream, Map<String, Value>), CommandError> {
        let next = |values: &mut BTreeMap<String, DynamicValue>| -> BTreeMap<String, String> {
            values.iter_mut().map(|(name, value)| (name.clone(), value.next())).collect()
        };
        let (mut headers, params) =
            (next(&mut self.dynamic_headers), next(&mut self.dynamic_params));
        let sent = [("headersSent", json!(headers)), ("paramsSent", json!(params))];
        let sent = sent.map(|(name, value)| (name.to_owned(), value)).into_iter().collect();
        headers.extend(command.headers());
        Ok((self.stream_with(command.path(), &headers, &params)?, sent))
    }

    fn content_type(&self, path: &str) -> ContentType {
        self.types.get(path).cloned().unwrap_or_default()
    }

    async fn execute(&mut self, command: &AdapterCommand) -> Result<Value, CommandError> {
        match command.text("type").unwrap_or_default() {
            "init" => {
                let base = command.text("serverUrl").unwrap_or_default().trim_end_matches('/');
                *self = Adapter { base: base.to_owned(), ..Adapter::default() };
                Ok(json!({
                    "clientName": "durable-streams-client (Rust)",
                    "clientVersion": env!("CARGO_PKG_VERSION"),
                    "features": {
                        "batching": true, "sse": true, "longPoll": true, "auto": true, "streaming": true,
                        "dynamicHeaders": true, "strictZeroValidation": true, "batchItems": true,
                    },
                }))
            }
            "create" => self.create(command).await,
            "connect" | "head" => {
                let head = self.stream(command)?.head().await?;
                let kind = head.content_type.unwrap_or_default();
                self.types.insert(command.path().to_owned(), kind.clone());
                Ok(json!({
                    "status": 200, "offset": head.tail.as_str(), "contentType": kind.as_str(),
                    "streamClosed": head.closed,
                }))
            }
            "append" => self.append(command).await,
            "read" => self.read(command).await,
            "delete" => {
                self.stream(command)?.delete().await?;
                self.types.remove(command.path());
                Ok(json!({"status": 200}))
            }
            "close" => self.close(command).await,
            "idempotent-append" | "idempotent-close" | "idempotent-detach" => {
                self.produce(command).await
            }
            "idempotent-append-batch" => self.produce_batch(command).await,
            "set-dynamic-header" | "set-dynamic-param" => {
                let value = DynamicValue {
                    kind: command.text("valueType").unwrap_or_default().to_owned(),
                    text: command.text("initialValue").unwrap_or_default().to_owned(),
                    count: 0,
                };
                let name = command.text("name").unwrap_or_default().to_owned();
                let header = command.text("type") == Some("set-dynamic-header");
                let values =
                    if header { &mut self.dynamic_headers } else { &mut self.dynamic_params };
                values.insert(name, value);
                Ok(json!({}))
            }
            "clear-dynamic" => {
                self.dynamic_headers.clear();
                self.dynamic_params.clear();
                Ok(json!({}))
            }
            "validate" => self.validate(command).await,
            "shutdown" => Ok(json!({})),
            other => {
                let message = format!("{other} is not supported");
                Err(CommandError { code: "NOT_SUPPORTED", status: None, message })
            }
        }
    }

    async fn create(&mut self, command: &AdapterCommand) -> Result<Value, CommandError> {
        let kind = command.text("contentType").and_then(ContentType::parse).unwrap_or_default();
        let mut options = CreateOptions::of_type(&kind);
        if let Some(seconds) = command.number("ttlSeconds") {
            options = options.ttl(Duration::from_secs(seconds));
        }
        if let Some(time) = command.text("expiresAt") {
            let time = Timestamp::parse_rfc3339(time).ok_or_else(|| invalid(time.to_owned()))?;
            options = options.expires_at(time);
        }
        if let Some(data) = command.text("data") {
            options = options.data(data.to_owned());
        }
        if command.flag("closed") {
            options = options.closed();
        }
        let created = self.stream(command)?.create(&options).await?;
        self.types.insert(command.path().to_owned(), kind);
        let status = if created.created { 201 } else { 200 };
        Ok(json!({"status": status, "offset": created.tail.as_str()}))
    }

    async fn append(&mut self, command: &AdapterCommand) -> Result<Value, CommandError> {
        let (stream, mut sent) = self.dynamic_stream(command)?;
        let data = command.text("data").unwrap_or_default();
        let data = if command.flag("binary") {
            STANDARD.decode(data).map_err(|error| invalid(error.to_string()))?
        } else {
            data.as_bytes().to_vec()
        };
        let options = AppendOptions {
            content_type: Some(self.content_type(command.path())),
            stream_seq: command.number("seq").map(|seq| seq.to_string()),
            // The tests count on it.
            at_least_once: true,
            ..AppendOptions::default()
        };
        let offset = stream.append(data, &options).await?;
        sent.insert("status".to_owned(), 200.into());
        sent.insert("offset".to_owned(), offset.as_str().into());
        Ok(Value::Object(sent))
    }

    async fn close(&mut self, command: &AdapterCommand) -> Result<Value, CommandError> {
        let stream = self.stream(command)?;
        let kind = command.text("contentType").and_then(ContentType::parse);
        let offset = match command.text("data") {
            None => stream.close().await?,
            Some(data) => {
                let kind = kind.unwrap_or_else(|| self.content_type(command.path()));
                let options = AppendOptions {
                    content_type: Some(kind),
                    close: true,
                    ..AppendOptions::default()
                };
                stream.append(data.to_owned(), &options).await?
            }
        };
        Ok(json!({"finalOffset": offset.as_str()}))
    }

    async fn read(&mut self, command: &AdapterCommand) -> Result<Value, CommandError> {
        let (stream, mut result) = self.dynamic_stream(command)?;
        let from = match command.text("offset") {
            None | Some("-1") => StartFrom::Start,
            Some("now") => StartFrom::Now,
            Some(offset) => {
                StartFrom::Position(offset.parse::<StreamPosition>().map_err(|error| {
                    CommandError {
                        code: "INVALID_OFFSET",
                        status: Some(400),
                        message: error.to_string(),
                    }
                })?)
            }
        };
        let mut chunks = Vec::new();
        let (position, up_to_date, closed);
        let mode = match command.0.get("live") {
            Some(Value::String(mode)) if mode == "sse" => Some(FollowMode::Sse),
            Some(Value::String(_)) => Some(FollowMode::LongPoll),
            Some(Value::Bool(true)) => Some(FollowMode::Automatic),
            _ => None,
        };
        if let Some(mode) = mode {
            let patience = Duration::from_millis(command.number("timeoutMs").unwrap_or(5000));
            let deadline = Instant::now() + patience;
            let most = command.number("maxChunks").unwrap_or(100);
            let mut subscription = stream.subscription(from).mode(mode).build();
            while (chunks.len() as u64) < most && !subscription.is_closed() {
                if command.flag("waitForUpToDate") && subscription.is_up_to_date() {
                    break;
                }
                // In short waits, since what is reached may have no batch.
                let wait = deadline.min(Instant::now() + Duration::from_millis(20));
                match timeout_at(wait, subscription.next()).await {
                    Ok(batch) => chunks.extend(batch?.map(|batch| chunk(&batch)).transpose()?),
                    Err(_) if Instant::now() >= deadline => break,
                    Err(_) => {}
                }
            }
            position = subscription.position().clone();
            up_to_date = subscription.is_up_to_date();
            closed = subscription.is_closed();
        } else {
            let mut reader = stream.read(from);
            for batch in reader.collect().await? {
                chunks.push(chunk(&batch)?);
            }
            (position, up_to_date, closed) = (reader.position().clone(), true, reader.is_closed());
        }
        // How a long-poll ends without data.
        let empty = mode == Some(FollowMode::LongPoll) && chunks.is_empty() && !closed;
        result.insert("status".to_owned(), if empty { 204 } else { 200 }.into());
        result.insert("chunks".to_owned(), chunks.into());
        result.insert("offset".to_owned(), position.to_string().into());
        result.insert("upToDate".to_owned(), up_to_date.into());
        result.insert("streamClosed".to_owned(), closed.into());
        Ok(Value::Object(result))
    }

    async fn start(
        &self,
        command: &AdapterCommand,
        tune: impl FnOnce(
            durable_streams_client::ProducerBuilder,
        ) -> durable_streams_client::ProducerBuilder,
    ) -> Result<Producer, CommandError> {
        let stream = self.stream(command)?;
        let builder = stream.producer(command.text("producerId").unwrap_or_default());
        let mut builder = tune(builder.content_type(self.content_type(command.path())));
        if !command.flag("autoClaim") {
            builder = builder.epoch(command.number("epoch").unwrap_or_default());
        }
        let patience =
            RetryPolicy { give_up_after: Some(Duration::from_secs(10)), ..RetryPolicy::default() };
        Ok(builder.retry(patience).start().await?)
    }

    async fn produce(&mut self, command: &AdapterCommand) -> Result<Value, CommandError> {
        let id = command.text("producerId").unwrap_or_default().to_owned();
        let key = (command.path().to_owned(), id, command.number("epoch").unwrap_or_default());
        let held = match self.producers.remove(&key) {
            Some(held) => held,
            None => {
                let started = self.start(command, |builder| builder.linger(Duration::ZERO)).await?;
                HeldProducer::Open(started)
            }
        };
        let producer = match held {
            HeldProducer::Open(producer) => producer,
            HeldProducer::Closed(offset) => {
                let result = json!({"status": 200, "finalOffset": offset});
                self.producers.insert(key, HeldProducer::Closed(offset));
                return Ok(result);
            }
        };
        if let Some(data) = command.text("data") {
            producer.append(data).await?;
        }
        match command.text("type") {
            Some("idempotent-append") => {
                producer.flush().await?;
                self.producers.insert(key, HeldProducer::Open(producer));
                Ok(json!({"status": 200}))
            }
            Some("idempotent-close") => {
                let offset = producer.close_stream().await?.to_string();
                self.producers.insert(key, HeldProducer::Closed(offset.clone()));
                Ok(json!({"status": 200, "finalOffset": offset}))
            }
            _ => {
                producer.close().await?;
                Ok(json!({"status": 200}))
            }
        }
    }

    async fn produce_batch(&mut self, command: &AdapterCommand) -> Result<Value, CommandError> {
        let in_flight = command.number("maxInFlight").unwrap_or(1);
        let in_flight = usize::try_from(in_flight).unwrap_or(1);
        let producer = self.start(command, |builder| {
            let builder = builder.max_in_flight(in_flight);
            // One message a request, so that several are in flight.
            if in_flight > 1 { builder.max_batch_messages(1) } else { builder }
        });
        let producer = producer.await?;
        let items = command.0.get("items").and_then(Value::as_array).cloned().unwrap_or_default();
        for item in items {
            producer.append(item.as_str().unwrap_or_default()).await?;
        }
        producer.close().await?;
        Ok(json!({"status": 200}))
    }

    async fn validate(&mut self, command: &AdapterCommand) -> Result<Value, CommandError> {
        let target = command.0.get("target").cloned().unwrap_or_default();
        let target = AdapterCommand(target);
        // Types without a sign refuse what is below 0 before the client sees it.
        let unsigned = |name: &str| match target.0.get(name) {
            None => Ok(None),
            Some(value) => {
                value.as_u64().map(Some).ok_or_else(|| invalid(format!("{name} is {value}")))
            }
        };
        let (epoch, bytes, items) =
            (unsigned("epoch")?, unsigned("maxBatchBytes")?, unsigned("maxBatchItems")?);
        let stream = self.stream_with("/validate", &BTreeMap::new(), &BTreeMap::new())?;
        let builder = stream.producer(target.text("producerId").unwrap_or_default());
        let mut builder = builder.content_type(ContentType::default());
        if let Some(epoch) = epoch {
            builder = builder.epoch(epoch);
        }
        if let Some(bytes) = bytes {
            builder = builder.max_batch(usize::try_from(bytes).unwrap_or(usize::MAX));
        }
        if let Some(items) = items {
            builder = builder.max_batch_messages(items);
        }
        match builder.start().await {
            Ok(_) => Ok(json!({})),
            // The tests look for their own names of the settings.
            Err(error) => Err(invalid(format!("{error} (maxBatchBytes, maxBatchItems)"))),
        }
    }
}

/// A batch as a chunk: text, or an array of messages.
fn chunk(batch: &StreamBatch) -> Result<Value, CommandError> {
    let data = match batch.messages() {
        Some(_) => Value::from(batch.json::<Value>()?).to_string(),
        None => String::from_utf8_lossy(&batch.to_bytes()).into_owned(),
    };
    Ok(json!({"data": data, "offset": batch.position().to_string()}))
}

#[tokio::main]
async fn main() -> Result<(), Box<dyn std::error::Error>> {
    let mut adapter = Adapter::default();
    for line in std::io::stdin().lock().lines() {
        let command = AdapterCommand(serde_json::from_str(&line?)?);
        let kind = command.text("type").unwrap_or_default().to_owned();
        let mut result = match adapter.execute(&command).await {
            Ok(result) => result,
            Err(CommandError { code, status, message }) => json!({
                "type": "error", "success": false, "commandType": kind, "status": status,
                "errorCode": code, "message": message,
            }),
        };
        if let Some(fields) = result.as_object_mut() {
            fields.entry("type").or_insert(kind.as_str().into());
            fields.entry("success").or_insert(true.into());
        }
        writeln!(std::io::stdout(), "{result}")?;
        if kind == "shutdown" {
            break;
        }
    }
    Ok(())
}
