//! Samples of one metric in Prometheus' form.

use prometheus::proto;

use super::inputs::Buckets;
use super::names::{Metric, Sort};

/// One metric with its samples.
pub(super) struct Family {
    metric: &'static Metric,
    samples: Vec<proto::Metric>,
}

impl Family {
    /// `metric`, without samples yet.
    pub(super) fn of(metric: &'static Metric) -> Self {
        Self { metric, samples: Vec::new() }
    }

    /// Adds a counter's or gauge's value under these label values, in the metric's order.
    #[allow(clippy::cast_precision_loss, reason = "counts are exact below 2^53")]
    pub(super) fn count(&mut self, labels: &[&str], value: u64) {
        self.value(labels, value as f64);
    }

    /// Adds a counter's or gauge's value under these label values, in the metric's order.
    pub(super) fn value(&mut self, labels: &[&str], value: f64) {
        let mut sample = proto::Metric::from_label(self.labels(labels));
        match self.metric.sort {
            Sort::Counter => {
                let mut counter = proto::Counter::default();
                counter.set_value(value);
                sample.set_counter(counter);
            }
            Sort::Gauge => {
                let mut gauge = proto::Gauge::default();
                gauge.set_value(value);
                sample.set_gauge(gauge);
            }
            Sort::Histogram => debug_assert!(false, "{} takes durations", self.metric.name),
        }
        self.samples.push(sample);
    }

    /// Adds a histogram under these label values, in the metric's order.
    pub(super) fn durations(&mut self, labels: &[&str], buckets: &Buckets) {
        let bucket = |(bound, count): &(f64, u64)| {
            let mut bucket = proto::Bucket::default();
            bucket.set_upper_bound(*bound);
            bucket.set_cumulative_count(*count);
            bucket
        };
        let mut histogram = proto::Histogram::default();
        histogram.set_bucket(buckets.cumulative.iter().map(bucket).collect());
        histogram.set_sample_count(buckets.count);
        histogram.set_sample_sum(buckets.sum);
        let mut sample = proto::Metric::from_label(self.labels(labels));
        sample.set_histogram(histogram);
        self.samples.push(sample);
    }

    fn labels(&self, values: &[&str]) -> Vec<proto::LabelPair> {
        debug_assert_eq!(values.len(), self.metric.labels.len(), "labels of {}", self.metric.name);
        let pair = |(name, value): (&&str, &&str)| {
            let mut pair = proto::LabelPair::default();
            pair.set_name((*name).to_owned());
            pair.set_value((*value).to_owned());
            pair
        };
        self.metric.labels.iter().zip(values).map(pair).collect()
    }

    /// The finished family.
    pub(super) fn finish(self) -> proto::MetricFamily {
        let mut family = proto::MetricFamily::default();
        family.set_name(self.metric.name.to_owned());
        family.set_help(self.metric.help.to_owned());
        family.set_field_type(match self.metric.sort {
            Sort::Counter => proto::MetricType::COUNTER,
            Sort::Gauge => proto::MetricType::GAUGE,
            Sort::Histogram => proto::MetricType::HISTOGRAM,
        });
        family.set_metric(self.samples);
        family
    }
}
