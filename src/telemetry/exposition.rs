//! What `/metrics` answers: Prometheus' text format, version 0.0.4.

use std::collections::HashMap;

use durable_streams_engine::counters::HistogramSnapshot;
use prometheus::{
    TextEncoder,
    proto::{Bucket, Counter, Gauge, Histogram, LabelPair, Metric, MetricFamily, MetricType},
};

use super::metrics::{self, Kind};

/// The media type of [`Exposition::text`].
pub const MEDIA_TYPE: &str = prometheus::TEXT_FORMAT;

/// A scrape in the making: metrics with their values, grouped by name.
#[derive(Default)]
pub struct Exposition {
    families: Vec<MetricFamily>,
    places: HashMap<&'static str, usize>,
}

impl Exposition {
    /// One value of a counter or gauge. `labels` are values, in the order of the metric's labels.
    pub fn number(&mut self, metric: metrics::Metric, labels: &[&str], value: f64) {
        let mut sample = sample(metric, labels);
        match metric.kind {
            Kind::Counter => {
                let mut counter = Counter::default();
                counter.set_value(value);
                sample.set_counter(counter);
            }
            Kind::Gauge | Kind::Histogram => {
                let mut gauge = Gauge::default();
                gauge.set_value(value);
                sample.set_gauge(gauge);
            }
        }
        self.add(metric, sample);
    }

    /// A histogram of nanoseconds, shown in seconds.
    pub fn durations(&mut self, metric: metrics::Metric, snapshot: &HistogramSnapshot) {
        self.histogram(metric, snapshot, 1e9);
    }

    /// A histogram of plain numbers.
    pub fn sizes(&mut self, metric: metrics::Metric, snapshot: &HistogramSnapshot) {
        self.histogram(metric, snapshot, 1.0);
    }

    fn histogram(&mut self, metric: metrics::Metric, snapshot: &HistogramSnapshot, unit: f64) {
        let mut below = 0;
        let mut buckets = Vec::with_capacity(snapshot.bounds.len());
        for (bound, count) in snapshot.bounds.iter().zip(&snapshot.counts) {
            below += count;
            let mut bucket = Bucket::default();
            bucket.set_upper_bound(*bound as f64 / unit);
            bucket.set_cumulative_count(below);
            buckets.push(bucket);
        }
        let mut histogram = Histogram::default();
        histogram.set_bucket(buckets);
        histogram.set_sample_count(snapshot.count());
        histogram.set_sample_sum(snapshot.sum as f64 / unit);
        let mut sample = sample(metric, &[]);
        sample.set_histogram(histogram);
        self.add(metric, sample);
    }

    fn add(&mut self, metric: metrics::Metric, sample: Metric) {
        let families = &mut self.families;
        let place = *self.places.entry(metric.name).or_insert_with(|| {
            let mut family = MetricFamily::default();
            family.set_name(metric.name.to_owned());
            family.set_help(metric.help.to_owned());
            family.set_field_type(match metric.kind {
                Kind::Counter => MetricType::COUNTER,
                Kind::Gauge => MetricType::GAUGE,
                Kind::Histogram => MetricType::HISTOGRAM,
            });
            families.push(family);
            families.len() - 1
        });
        if let Some(family) = families.get_mut(place) {
            family.mut_metric().push(sample);
        }
    }

    /// The text, with everything that was added.
    pub fn text(&self) -> String {
        let mut text = String::with_capacity(16 << 10);
        if let Err(error) = TextEncoder::new().encode_utf8(&self.families, &mut text) {
            tracing::error!(%error, "the metrics cannot be written");
        }
        text
    }
}

fn sample(metric: metrics::Metric, labels: &[&str]) -> Metric {
    debug_assert_eq!(metric.labels.len(), labels.len(), "{}", metric.name);
    let pairs = metric.labels.iter().zip(labels).map(|(name, value)| {
        let mut pair = LabelPair::default();
        pair.set_name((*name).to_owned());
        pair.set_value((*value).to_owned());
        pair
    });
    Metric::from_label(pairs.collect())
}

#[cfg(test)]
mod tests {
    use super::*;
    use durable_streams_engine::counters::DurationHistogram;

    #[test]
    fn values_are_grouped_escaped_and_cumulative() {
        let mut out = Exposition::default();
        out.number(metrics::UPSTREAM_REQUESTS, &["/a\"b\\", "200"], 3.0);
        out.number(metrics::STREAMS, &[], 2.0);
        out.number(metrics::UPSTREAM_REQUESTS, &["/c", "200"], 1.0);
        let durations = DurationHistogram::default();
        durations.observe(60_000);
        durations.observe(20_000_000_000);
        out.durations(metrics::APPEND_DURATION, &durations.snapshot());
        let text = out.text();
        assert_eq!(
            text.matches("# TYPE durable_streams_upstream_requests_total counter").count(),
            1
        );
        for line in [
            r#"durable_streams_upstream_requests_total{upstream="/a\"b\\",status="200"} 3"#,
            "durable_streams_streams 2",
            r#"durable_streams_append_duration_seconds_bucket{le="0.00005"} 0"#,
            r#"durable_streams_append_duration_seconds_bucket{le="0.0001"} 1"#,
            r#"durable_streams_append_duration_seconds_bucket{le="+Inf"} 2"#,
            "durable_streams_append_duration_seconds_sum 20.00006",
            "durable_streams_append_duration_seconds_count 2",
        ] {
            assert!(text.lines().any(|l| l == line), "{line}\n{text}");
        }
    }
}
