//! Samples as text: the Prometheus text format and OpenMetrics.

use std::collections::BTreeMap;
use std::collections::btree_map::Entry;
use std::fmt;

use prometheus_client::collector::Collector;
use prometheus_client::encoding::{DescriptorEncoder, MetricEncoder, NoLabelSet, prometheus_text, text};
use prometheus_client::registry::{Registry, Unit};

use super::families::{ALL, Family, PREFIX};
use super::histogram::Histogram;

/// A format of the text.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Format {
    /// The Prometheus text format, version 0.0.4.
    Prometheus,
    /// OpenMetrics 1.0.
    OpenMetrics,
}

impl Format {
    /// The format for a value of `Accept`: OpenMetrics if the client names it.
    #[must_use]
    pub fn for_accept(accept: Option<&str>) -> Self {
        let wants = accept.is_some_and(|accept| accept.contains("application/openmetrics-text"));
        if wants { Self::OpenMetrics } else { Self::Prometheus }
    }

    /// The value of `Content-Type`.
    #[must_use]
    pub fn content_type(self) -> &'static str {
        match self {
            Self::Prometheus => "text/plain; version=0.0.4; charset=utf-8",
            Self::OpenMetrics => "application/openmetrics-text; version=1.0.0; charset=utf-8",
        }
    }
}

/// The value of a series.
#[derive(Clone, Debug)]
enum Value {
    Count(u64),
    Seconds(f64),
    Gauge(f64),
    Histogram(Box<Histogram>),
}

/// The values of labels, in the order of the family.
type Labels = Vec<Box<str>>;

/// The samples of a scrape.
#[derive(Debug, Default)]
pub struct Exposition(BTreeMap<&'static str, BTreeMap<Labels, Value>>);

impl Exposition {
    /// Adds to a counter.
    pub fn counter(&mut self, family: &Family, labels: &[&str], count: u64) {
        match self.series(family, labels).or_insert(Value::Count(0)) {
            Value::Count(known) => *known += count,
            other => *other = Value::Count(count),
        }
    }

    /// Sets a counter of seconds.
    pub fn seconds(&mut self, family: &Family, labels: &[&str], seconds: f64) {
        self.series(family, labels).insert_entry(Value::Seconds(seconds));
    }

    /// Sets a gauge.
    pub fn gauge(&mut self, family: &Family, labels: &[&str], value: impl IntoGauge) {
        self.series(family, labels).insert_entry(Value::Gauge(value.into_gauge()));
    }

    /// Adds to a histogram.
    pub fn histogram(&mut self, family: &Family, labels: &[&str], histogram: &Histogram) {
        match self.series(family, labels).or_insert_with(|| Value::Histogram(Box::default())) {
            Value::Histogram(known) => known.add(histogram),
            other => *other = Value::Histogram(Box::new(histogram.clone())),
        }
    }

    fn series(&mut self, family: &Family, labels: &[&str]) -> Entry<'_, Labels, Value> {
        debug_assert_eq!(family.labels.len(), labels.len(), "labels of {}", family.name);
        let labels = labels.iter().map(|label| Box::from(*label)).collect();
        self.0.entry(family.name).or_default().entry(labels)
    }

    /// The text.
    ///
    /// # Errors
    /// None that is known: memory takes any text.
    pub fn encode(self, format: Format) -> Result<String, fmt::Error> {
        let mut registry = Registry::with_prefix(PREFIX);
        registry.register_collector(Box::new(self));
        let mut text = String::new();
        match format {
            Format::Prometheus => prometheus_text::encode(&mut text, &registry)?,
            Format::OpenMetrics => text::encode(&mut text, &registry)?,
        }
        Ok(text)
    }
}

impl Collector for Exposition {
    fn encode(&self, mut encoder: DescriptorEncoder<'_>) -> Result<(), fmt::Error> {
        for family in ALL {
            let Some(series) = self.0.get(family.name) else { continue };
            let unit: Option<Unit> = family.unit();
            let mut metric =
                encoder.encode_descriptor(family.name, family.help, unit.as_ref(), family.kind.metric_type())?;
            for (labels, value) in series {
                let labels: Vec<(&str, &str)> =
                    family.labels.iter().copied().zip(labels.iter().map(AsRef::as_ref)).collect();
                match labels.is_empty() {
                    true => encode_value(value, &mut metric)?,
                    false => encode_value(value, &mut metric.encode_family(&labels)?)?,
                }
            }
        }
        Ok(())
    }
}

fn encode_value(value: &Value, encoder: &mut MetricEncoder<'_>) -> fmt::Result {
    match value {
        Value::Count(count) => encoder.encode_counter::<NoLabelSet, u64, f64>(count, None),
        Value::Seconds(seconds) => encoder.encode_counter::<NoLabelSet, f64, f64>(seconds, None),
        Value::Gauge(value) => encoder.encode_gauge(value),
        Value::Histogram(histogram) => {
            let buckets: Vec<(f64, u64)> = histogram.buckets().collect();
            encoder.encode_histogram::<NoLabelSet>(histogram.sum_seconds(), histogram.count(), &buckets, None)
        }
    }
}

/// What a gauge can be set to.
pub trait IntoGauge {
    /// The value.
    fn into_gauge(self) -> f64;
}

impl IntoGauge for f64 {
    fn into_gauge(self) -> f64 {
        self
    }
}

impl IntoGauge for bool {
    fn into_gauge(self) -> f64 {
        f64::from(u8::from(self))
    }
}

impl IntoGauge for u32 {
    fn into_gauge(self) -> f64 {
        f64::from(self)
    }
}

#[expect(clippy::cast_precision_loss, reason = "a count beyond 2^53 is not reached")]
impl IntoGauge for u64 {
    fn into_gauge(self) -> f64 {
        self as f64
    }
}

#[expect(clippy::cast_precision_loss, reason = "a count beyond 2^53 is not reached")]
impl IntoGauge for usize {
    fn into_gauge(self) -> f64 {
        self as f64
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::observe::metrics::families;
    use std::time::Duration;

    fn exposition() -> Exposition {
        let mut out = Exposition::default();
        out.counter(&families::REQUESTS, &["web", "*/\"a\"\\\n", "api", "GET", "2xx", ""], 3);
        out.counter(&families::REQUESTS, &["web", "*/\"a\"\\\n", "api", "GET", "2xx", ""], 4);
        out.gauge(&families::PROCESS_MEMORY, &[], 5_u64);
        let mut histogram = Histogram::default();
        histogram.observe(Duration::from_millis(3));
        out.histogram(&families::QUEUE_WAIT, &["r", "p"], &histogram);
        out
    }

    #[test]
    fn both_formats_have_the_names_that_prometheus_expects() {
        let text = exposition().encode(Format::Prometheus).unwrap();
        for line in [
            "# TYPE l7lb_requests_total counter",
            r#"l7lb_requests_total{listener="web",route="*/\"a\"\\\n",pool="api",method="GET",status="2xx",cause=""} 7"#,
            "l7lb_process_resident_memory_bytes 5",
            r#"l7lb_queue_wait_seconds_bucket{route="r",pool="p",le="0.005"} 1"#,
            r#"l7lb_queue_wait_seconds_bucket{route="r",pool="p",le="+Inf"} 1"#,
            r#"l7lb_queue_wait_seconds_count{route="r",pool="p"} 1"#,
        ] {
            assert!(text.lines().any(|found| found.starts_with(line)), "{line}\n{text}");
        }
        let text = exposition().encode(Format::OpenMetrics).unwrap();
        assert!(text.contains("# TYPE l7lb_requests counter\n") && text.ends_with("# EOF\n"), "{text}");
    }

    #[test]
    fn openmetrics_is_sent_only_if_the_client_names_it() {
        let accepted = "application/openmetrics-text;version=1.0.0;q=0.5,text/plain;version=0.0.4;q=0.4";
        assert_eq!(Format::for_accept(Some(accepted)), Format::OpenMetrics);
        assert_eq!(Format::for_accept(Some("*/*")), Format::Prometheus);
        assert_eq!(Format::for_accept(None), Format::Prometheus);
    }
}
