//! Each metric's name, once, with what it means and its labels (contract §7).

/// What a metric is.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Sort {
    /// Only rises.
    Counter,
    /// Rises and falls.
    Gauge,
    /// Durations in buckets.
    Histogram,
}

/// A metric as it is exposed.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Metric {
    /// Its name.
    pub name: &'static str,
    /// What it means, in one line.
    pub help: &'static str,
    /// What it is.
    pub sort: Sort,
    /// Its labels, in the order in which they are written. Values come from the configuration, never from a client.
    pub labels: &'static [&'static str],
}

macro_rules! metrics {
    ($($constant:ident = $sort:ident $name:literal [$($label:literal),*] $help:literal;)*) => {
        $(#[doc = $help] pub const $constant: Metric = Metric {
            name: $name,
            help: $help,
            sort: Sort::$sort,
            labels: &[$($label),*],
        };)*

        /// All of them.
        pub const ALL: &[Metric] = &[$($constant),*];
    };
}

metrics! {
    UPSTREAM_REQUESTS = Counter "switchback_upstream_requests_total" ["service", "version", "code", "reason"]
        "What the version did with the requests it was chosen for, each attempt once but for those that a hedge has ended (switchback_hedges_total: won, lost): judge a version by this one. The reason is set where the proxy gave up on it.";
    UPSTREAM_SECONDS = Histogram "switchback_upstream_request_duration_seconds" ["service", "version"]
        "From admission to the last byte from the version.";
    UPSTREAM_GRPC_STATUS = Counter "switchback_upstream_grpc_status_total" ["service", "version", "grpc_status"]
        "Status of the gRPC calls that the version answered, by number. There from the version's first call on.";
    CLIENT_REQUESTS = Counter "switchback_client_requests_total" ["service", "version", "code", "reason"]
        "What users saw. The reason is set where the proxy made the answer; service and version are empty where none was asked; what a service refuses by its own limits has no version.";
    CLIENT_SECONDS = Histogram "switchback_client_request_duration_seconds" ["service"]
        "How long users waited, to the last byte.";
    PANIC_REQUESTS = Counter "switchback_panic_requests_total" ["service", "version"]
        "Choices of an endpoint among all of a version, well or not, because fewer of them serve than panic_threshold says.";
    IN_FLIGHT = Gauge "switchback_in_flight" ["service", "version", "kind"]
        "Requests, streams and tunnels that are with a version now.";
    WEIGHT = Gauge "switchback_split_weight_ratio" ["service", "version"]
        "The share of a service's new requests that a version gets, 0 to 1.";
    ENDPOINT_UP = Gauge "switchback_endpoint_up" ["service", "version", "endpoint"]
        "1 for an endpoint that may get requests, 0 for one that is down, ejected, or has come and was not found well yet.";
    HEALTH_CHECKS = Counter "switchback_health_checks_total" ["service", "version", "result"]
        "Health checks of the version's endpoints, by what they found: well or unwell.";
    HEALTH_SECONDS = Histogram "switchback_health_check_duration_seconds" ["service", "version"]
        "How long health checks took; those without an answer took their timeout.";
    EJECTIONS = Counter "switchback_endpoint_ejections_total" ["service", "version", "cause"]
        "Endpoints that were left alone for a time because their requests went badly: errors, gateway_errors, local_errors, success_rate or latency.";
    SUPERVISION_STATE = Gauge "switchback_supervision_state" ["service", "candidate", "baseline", "state"]
        "1 for how the candidate stands against its baseline: collecting, healthy, suspect, breached or held; all 0: they are not compared now.";
    SUPERVISION_LOG_E = Gauge "switchback_supervision_log_e" ["service", "candidate", "baseline", "metric"]
        "Evidence that the candidate is worse, as a natural logarithm, by metric and in total; a revert needs 9.2 unless alpha is set.";
    SUPERVISION_EXCESS = Gauge "switchback_supervision_excess_ratio" ["service", "candidate", "baseline", "bound"]
        "How much more of its first attempts fail than of the baseline's: estimate, and low and high of an interval that holds at any time (95 %).";
    SUPERVISION_COMMON_MODE = Gauge "switchback_supervision_common_mode" ["service", "candidate", "baseline"]
        "1 while the candidate is suspect and the baseline fails too: it is not the candidate's fault.";
    SUPERVISION_HINDERED = Gauge "switchback_supervision_hindered" ["service", "candidate", "baseline"]
        "1 while supervision cannot do what it wants, and tries it again: the store refuses the change, or something is in its way.";
    SUPERVISION_REQUESTS = Counter "switchback_supervision_requests_total" ["service", "candidate", "baseline", "version", "outcome"]
        "First attempts of requests whose version a coin chose, while the two were compared: ok, failed or client_error.";
    SUPERVISION_SUSPECTS = Counter "switchback_supervision_suspects_total" ["service", "candidate", "baseline", "cause"]
        "How often the candidate became suspect, by what raised it.";
    SUPERVISION_REVERTS = Counter "switchback_supervision_reverts_total" ["service", "candidate", "baseline", "reason"]
        "How often the candidate's traffic was taken back, by what proved it worse.";
    SUPERVISION_EJECTIONS = Counter "switchback_supervision_endpoint_ejections_total" ["service", "candidate", "baseline"]
        "Endpoints of the candidate that were drained because they alone were bad.";
    SUPERVISION_LAST_FAILED = Gauge "switchback_supervision_last_revert_failed_requests" ["service", "candidate", "baseline"]
        "The last time the candidate's traffic was taken back: how many of its first attempts had failed.";
    SUPERVISION_LAST_SECONDS = Gauge "switchback_supervision_last_revert_seconds" ["service", "candidate", "baseline"]
        "The last time the candidate's traffic was taken back: seconds since the comparison began.";
    EPOCH = Gauge "switchback_epoch" []
        "The number of the table: one more for every change.";
    SERVICE_EPOCH = Gauge "switchback_service_epoch" ["service"]
        "The epoch of the service's last change.";
    FENCE_SECONDS = Histogram "switchback_flip_fence_seconds" ["service"]
        "From publishing a change until no worker admits a request under an older table.";
    DRAIN_SECONDS = Histogram "switchback_drain_seconds" ["service"]
        "From the change that left a version until nothing was in flight on it.";
    DRAIN_DISMISSED = Counter "switchback_drain_dismissed_total" ["service", "version", "kind"]
        "Streams that were ended in their protocol's own words because their version was left; those that were cut have the reason drain_deadline.";
    PENDING = Gauge "switchback_pending_requests" ["service", "version"]
        "Requests that wait because the version's circuit has no room for them.";
    RETRIES = Counter "switchback_retries_total" ["service", "version", "outcome"]
        "Attempts at a request after its first one: answered, failed, reconnected (to the same endpoint, which had not read it), or not made because the budget was exhausted.";
    HEDGES = Counter "switchback_hedges_total" ["service", "version", "outcome"]
        "Attempts at a request beside one that takes its time: won, lost, failed, or not made because the budget was exhausted.";
    SHIELDED = Counter "switchback_shielded_total" ["service", "version"]
        "Requests that the version has failed and that stable has answered in its place: users saw stable's answer, and the failure is the version's (switchback_upstream_requests_total).";
    MIRRORED = Counter "switchback_mirrored_total" ["service", "version"]
        "Copies of other versions' requests that the version was sent; they are in none of the other counts.";
    MIRROR_DIFFERENCES = Counter "switchback_mirror_differences_total" ["service", "version"]
        "Copies that the version answered otherwise than the request was answered, or not at all.";
    CHANGES = Counter "switchback_changes_total" ["service", "kind", "actor"]
        "Changes of the table, by what they did and who asked.";
    RELOADS = Counter "switchback_config_reloads_total" ["result"]
        "Readings of the configuration while running: applied, or failed, after which everything stays as it was.";
    RELOADED = Gauge "switchback_config_last_reload_successful" []
        "1 while the configuration in force is the one that was read last; 0 while that one failed.";
    CONNECTIONS = Gauge "switchback_client_connections" []
        "Open client connections.";
    ACCEPTED = Counter "switchback_client_connections_accepted_total" []
        "Client connections ever accepted.";
    WORKER_CONNECTIONS = Gauge "switchback_worker_connections" ["worker"]
        "Open client connections of each worker.";
    WORKER_STREAMS = Gauge "switchback_worker_streams" ["worker"]
        "Open streams of each worker's HTTP/2 clients.";
    WORKER_BUSY = Gauge "switchback_worker_busy_ratio" ["worker"]
        "The part of about the last second that each worker's thread has worked, 0 to 1.";
    PASSED_ON = Counter "switchback_worker_connections_passed_on_total" ["worker"]
        "Client connections that each worker has accepted for others that had less to do.";
    HANDSHAKES = Counter "switchback_tls_handshakes_total" ["result"]
        "TLS handshakes with clients, by how they ended.";
    HTTPS_REDIRECTS = Counter "switchback_https_redirects_total" []
        "Requests that a clear-text listener sent on to https.";
    CERTIFICATE_EXPIRY = Gauge "switchback_tls_certificate_expiry_timestamp_seconds" ["listener", "certificate"]
        "When a certificate that clients are shown expires, in seconds since 1970.";
    HELD = Gauge "switchback_held_requests" ["service"]
        "Requests that wait because their service is held, or was and has no room for them yet.";
    OWN_ANSWERS = Counter "switchback_route_answers_total" ["kind"]
        "Answers without a version: redirect and fixed by routes, held to health checks of services that are held, max_forwards to OPTIONS.";
    LOG_DROPPED = Counter "switchback_access_log_dropped_total" []
        "Lines of the access log that were lost: its writer was behind, or could not write.";
    NAME_LOOKUPS = Counter "switchback_name_lookups_total" ["host", "result"]
        "Lookups of endpoints' and webhooks' names: found, or failed, after which the last good addresses are kept.";
    DISCOVERIES = Counter "switchback_discoveries_total" ["service", "version", "result"]
        "Lists of a version's endpoints: found, or failed, after which the last good one is kept. Lookups are counted by themselves.";
    WEBHOOK_DELIVERIES = Counter "switchback_webhook_deliveries_total" ["webhook", "result"]
        "Events for webhooks: delivered, failed (given up after the last attempt), or dropped (too many waited).";
    WEBHOOK_WAITING = Gauge "switchback_webhook_waiting" ["webhook"]
        "Events that wait to be delivered to a webhook.";
    BUILD_INFO = Gauge "switchback_build_info" ["version"]
        "Always 1; the label says which switchback this is.";
    PROCESS_CPU_SECONDS = Counter "process_cpu_seconds_total" []
        "Total user and system CPU time spent in seconds.";
    PROCESS_OPEN_FDS = Gauge "process_open_fds" []
        "Number of open file descriptors.";
    PROCESS_MAX_FDS = Gauge "process_max_fds" []
        "Maximum number of open file descriptors.";
    PROCESS_RESIDENT_BYTES = Gauge "process_resident_memory_bytes" []
        "Resident memory size in bytes.";
    PROCESS_VIRTUAL_BYTES = Gauge "process_virtual_memory_bytes" []
        "Virtual memory size in bytes.";
    PROCESS_START_SECONDS = Gauge "process_start_time_seconds" []
        "Start time of the process since unix epoch in seconds.";
    PROCESS_THREADS = Gauge "process_threads" []
        "Number of OS threads in the process.";
}
