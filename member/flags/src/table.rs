//! The table of all flags that etcd 3.4 to 3.7 register, in the order of etcd's help.
//!
//! Adding a flag to [`crate::Flags`] means: its row here becomes honoured, and the compiler and the tests name the
//! places that still lack it. A row that is refused says why in the operator's terms.

use crate::def::{
    FlagDef,
    Group::{
        Action, Auth, Clustering, Features, Legacy, Logging, Member, Monitoring, Proxy, Security,
        Tracing, Unsafe,
    },
    Kind::{Bool, Duration, Int, Int64, List, OneOf, Text, Uint, Uint32, Uint64, Urls},
};

const BBOLT: &str = "its storage is not bbolt, so the setting has nothing to act on";
const DOWNGRADE: &str = "cluster downgrade is not part of it yet";
const IGNORED: &str = "no etcd of version 3 gives it a meaning; leave it out";
const LISTENER: &str = "options of its sockets cannot be set yet";
const LOG_FILES: &str = "it does not rotate its log files; use logrotate or the service manager";
const RETENTION: &str = "its log keeps what --snapshot-count and --snapshot-catchup-entries ask for; there are no files to count";
const OWN_CLIENT: &str = "it is no client of itself: the JSON gateway needs no connection";
const TRACES: &str = "OpenTelemetry export is not part of it";
const V2_STAGES: &str =
    "the v2 keys are part of its log for as long as they are there; --enable-v2 serves them";
const V2_IN_V3: &str = "the v2 keys have a store of their own; use --enable-v2";

const LOG_ROTATION: &str =
    r#"{"maxsize": 100, "maxage": 0, "maxbackups": 0, "localtime": false, "compress": false}"#;

/// Every flag that any etcd from 3.4 to 3.7 registers: group, name, kind, default, help; then what differs from the rule.
#[rustfmt::skip] // a row a flag
pub const DEFS: &[FlagDef] = &[
    FlagDef::new(Action, "config-file", Text, "", "Path of a YAML configuration file; all other flags and variables are then ignored."),
    FlagDef::new(Action, "version", Bool, "false", "Print the version and exit."),
    // Member
    FlagDef::new(Member, "name", Text, "default", "Human-readable name for this member."),
    FlagDef::new(Member, "data-dir", Text, "", "Path of the data directory; NAME.etcd when empty."),
    FlagDef::new(Member, "wal-dir", Text, "", "Path of a directory for the log alone; inside the data directory when empty."),
    FlagDef::new(Member, "snapshot-count", Uint64, "10000", "Number of committed entries that trigger a snapshot.")
        .older(&[((3, 5), "100000")]),
    FlagDef::new(Member, "snapshot-catchup-entries", Uint64, "5000", "Number of log entries kept for slow followers after a snapshot.")
        .since(6),
    FlagDef::new(Member, "heartbeat-interval", Uint, "100", "Time (in milliseconds) between two heartbeats."),
    FlagDef::new(Member, "election-timeout", Uint, "1000", "Time (in milliseconds) without a leader before an election."),
    FlagDef::new(Member, "initial-election-tick-advance", Bool, "true", "Whether the first election after a start waits for less than a full timeout.")
        .refused("founders stand for election at once, and a restarted member waits its full timeout"),
    FlagDef::new(Member, "listen-peer-urls", Urls, "http://localhost:2380", "URLs to listen on for peers."),
    FlagDef::new(Member, "listen-client-urls", Urls, "http://localhost:2379", "URLs to listen on for clients."),
    FlagDef::new(Member, "listen-client-http-urls", Urls, "", "URLs to listen on for HTTP clients alone.")
        .refused("gRPC and HTTP share the ports of --listen-client-urls"),
    FlagDef::new(Member, "max-snapshots", Uint, "5", "Number of snapshot files to keep.")
        .refused(RETENTION),
    FlagDef::new(Member, "max-wals", Uint, "5", "Number of log files to keep.")
        .refused(RETENTION),
    FlagDef::new(Member, "quota-backend-bytes", Int64, "0", "Size of the state above which writes are refused."),
    FlagDef::new(Member, "backend-bbolt-freelist-type", Text, "map", "Freelist of bbolt.")
        .since(5).also(&["", "array"]).refused(BBOLT),
    FlagDef::new(Member, "backend-batch-interval", Duration, "0s", "Longest time before bbolt commits.")
        .refused(BBOLT),
    FlagDef::new(Member, "backend-batch-limit", Int, "0", "Most operations before bbolt commits.")
        .refused(BBOLT),
    FlagDef::new(Member, "max-txn-ops", Uint, "128", "Most operations in a transaction."),
    FlagDef::new(Member, "max-request-bytes", Uint, "1572864", "Largest request (in bytes) that is accepted from a client."),
    FlagDef::new(Member, "max-concurrent-streams", Uint32, "4294967295", "Most streams that a client may have open at a time."),
    FlagDef::new(Member, "enable-grpc-gateway", Bool, "true", "Serve the API as JSON over HTTP too."),
    FlagDef::new(Member, "grpc-keepalive-min-time", Duration, "5s", "Shortest time between two pings of a client.")
        .refused("pings of clients are answered whenever they come"),
    FlagDef::new(Member, "grpc-keepalive-interval", Duration, "2h", "Time between two pings of the server to an idle client (0 to disable)."),
    FlagDef::new(Member, "grpc-keepalive-timeout", Duration, "20s", "Time without an answer to a ping before a connection is closed (0 to disable)."),
    FlagDef::new(Member, "socket-reuse-port", Bool, "false", "Set SO_REUSEPORT on the listeners.")
        .since(5).refused(LISTENER),
    FlagDef::new(Member, "socket-reuse-address", Bool, "false", "Set SO_REUSEADDR on the listeners.")
        .since(5).refused(LISTENER),
    FlagDef::new(Member, "raft-read-timeout", Duration, "5s", "Read timeout of each connection between peers.")
        .since(5).refused(LISTENER),
    FlagDef::new(Member, "raft-write-timeout", Duration, "5s", "Write timeout of each connection between peers.")
        .since(5).refused(LISTENER),
    FlagDef::new(Member, "memory-mlock", Bool, "false", "Keep the server's pages in memory.")
        .since(6).refused("its memory cannot be locked yet"),
    // Clustering
    FlagDef::new(Clustering, "initial-advertise-peer-urls", Urls, "http://localhost:2380", "This member's peer URLs as the other members reach them."),
    FlagDef::new(Clustering, "initial-cluster", Text, "default=http://localhost:2380", "The initial members: NAME=URL, comma-separated."),
    FlagDef::new(Clustering, "initial-cluster-state", OneOf(&["new", "existing"]), "new", "Whether this member starts a new cluster or joins an existing one."),
    FlagDef::new(Clustering, "initial-cluster-token", Text, "etcd-cluster", "What sets this cluster apart from others with the same URLs."),
    FlagDef::new(Clustering, "advertise-client-urls", Urls, "http://localhost:2379", "This member's client URLs as clients reach them."),
    FlagDef::new(Clustering, "discovery", Text, "", "URL of a v2 discovery service, with the token."),
    FlagDef::new(Clustering, "discovery-endpoints", List, "", "Endpoints of a v3 discovery service.")
        .since(6),
    FlagDef::new(Clustering, "discovery-token", Text, "", "Token of the cluster at the v3 discovery service.")
        .since(6),
    FlagDef::new(Clustering, "discovery-dial-timeout", Duration, "2s", "Time to connect to the v3 discovery service.")
        .since(6),
    FlagDef::new(Clustering, "discovery-request-timeout", Duration, "5s", "Time for a request to the v3 discovery service.")
        .since(6),
    FlagDef::new(Clustering, "discovery-keepalive-time", Duration, "2s", "Time between pings to the v3 discovery service.")
        .since(6),
    FlagDef::new(Clustering, "discovery-keepalive-timeout", Duration, "6s", "Time for an answer to such a ping.")
        .since(6),
    FlagDef::new(Clustering, "discovery-insecure-transport", Bool, "true", "Speak to the v3 discovery service without TLS.")
        .since(6),
    FlagDef::new(Clustering, "discovery-insecure-skip-tls-verify", Bool, "false", "Trust any v3 discovery service.")
        .since(6),
    FlagDef::new(Clustering, "discovery-cert", Text, "", "Client certificate for the v3 discovery service.")
        .since(6),
    FlagDef::new(Clustering, "discovery-key", Text, "", "Client key for the v3 discovery service.")
        .since(6),
    FlagDef::new(Clustering, "discovery-cacert", Text, "", "Authority of the v3 discovery service.")
        .since(6),
    FlagDef::new(Clustering, "discovery-user", Text, "", "User at the v3 discovery service.")
        .since(6),
    FlagDef::new(Clustering, "discovery-password", Text, "", "Password of that user.")
        .since(6),
    FlagDef::new(Clustering, "discovery-fallback", OneOf(&["exit", "proxy"]), "exit", "What to do when the v2 discovery service has no place left: 'exit', or become a 'proxy' of the v2 API.")
        .older(&[((3, 5), "proxy")]),
    FlagDef::new(Clustering, "discovery-proxy", Text, "", "HTTP proxy towards the v2 discovery service."),
    FlagDef::new(Clustering, "discovery-srv", Text, "", "Domain whose SRV records list the initial members."),
    FlagDef::new(Clustering, "discovery-srv-name", Text, "", "Suffix of the SRV records' names."),
    FlagDef::new(Clustering, "strict-reconfig-check", Bool, "true", "Refuse membership changes that would cost the quorum."),
    FlagDef::new(Clustering, "pre-vote", Bool, "true", "Ask whether an election could be won before calling one.")
        .older(&[((3, 4), "false")]),
    FlagDef::new(Clustering, "max-learners", Int, "1", "Most learners in the cluster.")
        .since(6),
    FlagDef::new(Clustering, "auto-compaction-retention", Text, "0", "What scheduled compaction keeps."),
    FlagDef::new(Clustering, "auto-compaction-mode", Text, "periodic", "Whether it keeps a time span or a number of revisions."),
    FlagDef::new(Clustering, "enable-v2", Bool, "false", "Serve the v2 API.")
        .until(6),
    FlagDef::new(Clustering, "v2-deprecation", OneOf(&["not-yet", "write-only", "write-only-drop-data", "gone"]), "write-only", "Stage of the v2 store's removal.")
        .since(5).older(&[((3, 5), "not-yet")]).also(&["write-only-drop-data", "gone"]).refused(V2_STAGES),
    // Security
    FlagDef::new(Security, "cert-file", Text, "", "Path of the certificate shown to clients."),
    FlagDef::new(Security, "key-file", Text, "", "Path of its key."),
    FlagDef::new(Security, "client-cert-auth", Bool, "false", "Require a certificate of clients."),
    FlagDef::new(Security, "trusted-ca-file", Text, "", "Path of the authorities that clients' certificates are checked by."),
    FlagDef::new(Security, "client-cert-file", Text, "", "Certificate of the server as a client of itself.")
        .since(5).refused(OWN_CLIENT),
    FlagDef::new(Security, "client-key-file", Text, "", "Key of that certificate.")
        .since(5).refused(OWN_CLIENT),
    FlagDef::new(Security, "client-crl-file", Text, "", "Path of the list of clients' certificates that are revoked."),
    FlagDef::new(Security, "client-cert-allowed-hostname", Text, "", "Names, one of which a client's certificate must be good for, comma-separated."),
    FlagDef::new(Security, "auto-tls", Bool, "false", "Generate the certificate shown to clients when none is given."),
    FlagDef::new(Security, "peer-cert-file", Text, "", "Path of the certificate shown to peers."),
    FlagDef::new(Security, "peer-key-file", Text, "", "Path of its key."),
    FlagDef::new(Security, "peer-client-cert-auth", Bool, "false", "Require a certificate of peers."),
    FlagDef::new(Security, "peer-trusted-ca-file", Text, "", "Path of the authorities that peers' certificates are checked by."),
    FlagDef::new(Security, "peer-client-cert-file", Text, "", "Path of the certificate shown to peers that are called, when it is another.")
        .since(5),
    FlagDef::new(Security, "peer-client-key-file", Text, "", "Path of its key.")
        .since(5),
    FlagDef::new(Security, "peer-crl-file", Text, "", "Path of the list of peers' certificates that are revoked."),
    FlagDef::new(Security, "peer-cert-allowed-cn", Text, "", "Common names, one of which a peer's certificate must have, comma-separated."),
    FlagDef::new(Security, "peer-cert-allowed-hostname", Text, "", "Names, one of which a peer's certificate must be good for, comma-separated."),
    FlagDef::new(Security, "peer-skip-client-san-verification", Bool, "false", "Let peers call from addresses that their certificates do not name.")
        .since(6),
    FlagDef::new(Security, "peer-auto-tls", Bool, "false", "Generate the certificate shown to peers when none is given, and trust any of theirs."),
    FlagDef::new(Security, "self-signed-cert-validity", Uint, "1", "Years for which generated certificates are valid.")
        .since(5),
    FlagDef::new(Security, "cipher-suites", List, "", "Cipher suites of TLS 1.2, comma-separated; empty for all that are safe."),
    FlagDef::new(Security, "tls-min-version", OneOf(&["TLS1.2", "TLS1.3"]), "TLS1.2", "Lowest TLS version."),
    FlagDef::new(Security, "tls-max-version", OneOf(&["", "TLS1.2", "TLS1.3"]), "", "Highest TLS version."),
    FlagDef::new(Security, "cors", List, "*", "Origins that browsers may call from."),
    FlagDef::new(Security, "host-whitelist", List, "*", "Host names that HTTP requests without TLS may carry."),
    // Auth
    FlagDef::new(Auth, "auth-token", Text, "simple", "Type of authentication tokens: 'simple', or 'jwt' and its options, comma-separated."),
    FlagDef::new(Auth, "bcrypt-cost", Uint, "10", "Cost of hashing a password, from 4 to 31."),
    FlagDef::new(Auth, "auth-token-ttl", Uint, "300", "Time (in seconds) that a simple token lives after its last use."),
    // Profiling and monitoring
    FlagDef::new(Monitoring, "enable-pprof", Bool, "false", "Serve Go's profiles.")
        .refused("Go's profiles do not exist in it"),
    FlagDef::new(Monitoring, "metrics", Text, "basic", "Detail of the metrics: 'basic', or 'extensive' with histograms of gRPC times.")
        .refused("only the basic metrics are kept yet"),
    FlagDef::new(Monitoring, "listen-metrics-urls", Urls, "", "URLs to listen on for metrics and health alone."),
    // Logging
    FlagDef::new(Logging, "logger", Text, "zap", "The logger; only 'zap'.")
        .older(&[((3, 4), "capnslog")]),
    FlagDef::new(Logging, "log-outputs", List, "default", "Where to log: 'default', or any of 'stdout', 'stderr' and paths, comma-separated."),
    FlagDef::new(Logging, "log-level", Text, "info", "Least level to log: debug, info, warn, error, panic or fatal."),
    FlagDef::new(Logging, "log-format", Text, "json", "Layout of a line: json or console.")
        .since(6),
    FlagDef::new(Logging, "enable-log-rotation", Bool, "false", "Rotate the log file.")
        .since(5).refused(LOG_FILES),
    FlagDef::new(Logging, "log-rotation-config-json", Text, LOG_ROTATION, "How to rotate it.")
        .since(5).refused(LOG_FILES),
    FlagDef::new(Logging, "disable-log-sampling", Bool, "false", "Log every line, however many.")
        .since(7).also(&["true"]).refused("log lines are never sampled"),
    // Distributed tracing
    FlagDef::new(Tracing, "enable-distributed-tracing", Bool, "false", "Export traces.")
        .since(6).refused(TRACES),
    FlagDef::new(Tracing, "distributed-tracing-address", Text, "localhost:4317", "Address of the collector.")
        .since(6).refused(TRACES),
    FlagDef::new(Tracing, "distributed-tracing-service-name", Text, "etcd", "Name of the service in traces.")
        .since(6).refused(TRACES),
    FlagDef::new(Tracing, "distributed-tracing-instance-id", Text, "", "Name of this instance in traces.")
        .since(6).refused(TRACES),
    FlagDef::new(Tracing, "distributed-tracing-sampling-rate", Int, "0", "Traces exported per million.")
        .since(6).refused(TRACES),
    FlagDef::new(Tracing, "experimental-enable-distributed-tracing", Bool, "false", "Export traces.")
        .since(5).until(7).refused(TRACES),
    FlagDef::new(Tracing, "experimental-distributed-tracing-address", Text, "localhost:4317", "Address of the collector.")
        .since(5).until(7).refused(TRACES),
    FlagDef::new(Tracing, "experimental-distributed-tracing-service-name", Text, "etcd", "Name of the service in traces.")
        .since(5).until(7).refused(TRACES),
    FlagDef::new(Tracing, "experimental-distributed-tracing-instance-id", Text, "", "Name of this instance in traces.")
        .since(5).until(7).refused(TRACES),
    FlagDef::new(Tracing, "experimental-distributed-tracing-sampling-rate", Int, "0", "Traces exported per million.")
        .since(5).until(7).refused(TRACES),
    // v2 proxy
    FlagDef::new(Proxy, "proxy", OneOf(&["off", "readonly", "on"]), "off", "Run as a proxy of the v2 API: 'on', 'readonly' or 'off'.")
        .until(6),
    FlagDef::new(Proxy, "proxy-failure-wait", Uint, "5000", "Time (in milliseconds) that a failed endpoint is left alone.")
        .until(6),
    FlagDef::new(Proxy, "proxy-refresh-interval", Uint, "30000", "Time (in milliseconds) between two looks at the member list.")
        .until(6),
    FlagDef::new(Proxy, "proxy-dial-timeout", Uint, "1000", "Time (in milliseconds) that the proxy may take to connect.")
        .until(6),
    FlagDef::new(Proxy, "proxy-write-timeout", Uint, "5000", "Time (in milliseconds) that a write of the proxy may take.")
        .until(6),
    FlagDef::new(Proxy, "proxy-read-timeout", Uint, "0", "Time (in milliseconds) that a read of the proxy may take; 0 for as long as it takes.")
        .until(6),
    // Features
    FlagDef::new(Features, "feature-gates", Text, "", "Features to switch, as NAME=true pairs.")
        .since(6),
    FlagDef::new(Features, "corrupt-check-time", Duration, "0s", "Time between two corruption checks.")
        .since(6),
    FlagDef::new(Features, "compact-hash-check-time", Duration, "1m", "Time between two checks of compaction hashes.")
        .since(6),
    FlagDef::new(Features, "compaction-batch-limit", Int, "1000", "Revisions deleted in one step of a compaction.")
        .since(6),
    FlagDef::new(Features, "compaction-sleep-interval", Duration, "10ms", "Time between two such steps.")
        .since(6),
    FlagDef::new(Features, "watch-progress-notify-interval", Duration, "10m", "Time between two progress notices of a watch.")
        .since(6),
    FlagDef::new(Features, "warning-apply-duration", Duration, "100ms", "Time after which an applied request counts as slow.")
        .since(6),
    FlagDef::new(Features, "warning-unary-request-duration", Duration, "300ms", "Time after which a request counts as slow.")
        .since(6),
    FlagDef::new(Features, "bootstrap-defrag-threshold-megabytes", Uint, "0", "Space to win for which a start defragments.")
        .since(6).refused(BBOLT),
    FlagDef::new(Features, "downgrade-check-time", Duration, "5s", "Time between two looks at the downgrade state.")
        .since(6).refused(DOWNGRADE),
    FlagDef::new(Features, "experimental-initial-corrupt-check", Bool, "false", "Check for corruption before serving.")
        .until(7),
    FlagDef::new(Features, "experimental-corrupt-check-time", Duration, "0s", "Time between two corruption checks.")
        .until(7).deprecated("corrupt-check-time"),
    FlagDef::new(Features, "experimental-compact-hash-check-enabled", Bool, "false", "Check compaction hashes.")
        .since(5).until(7),
    FlagDef::new(Features, "experimental-compact-hash-check-time", Duration, "1m", "Time between two checks of compaction hashes.")
        .since(5).until(7).deprecated("compact-hash-check-time"),
    FlagDef::new(Features, "experimental-enable-v2v3", Text, "", "Prefix under which v2 requests are kept in v3.")
        .until(6).refused(V2_IN_V3),
    FlagDef::new(Features, "experimental-backend-bbolt-freelist-type", Text, "array", "Freelist of bbolt.")
        .until(5).also(&["", "map"]).refused(BBOLT),
    FlagDef::new(Features, "experimental-enable-lease-checkpoint", Bool, "false", "Record what is left of long leases, for the next leader.")
        .until(7),
    FlagDef::new(Features, "experimental-enable-lease-checkpoint-persist", Bool, "false", "Keep that over restarts, which is always done.")
        .until(7),
    FlagDef::new(Features, "experimental-compaction-batch-limit", Int, "1000", "Revisions deleted in one step of a compaction.")
        .until(7).deprecated("compaction-batch-limit"),
    FlagDef::new(Features, "experimental-compaction-sleep-interval", Duration, "10ms", "Time between two such steps.")
        .since(5).until(7).deprecated("compaction-sleep-interval"),
    FlagDef::new(Features, "experimental-peer-skip-client-san-verification", Bool, "false", "Skip the names in the certificates of connecting peers.")
        .until(7).deprecated("peer-skip-client-san-verification"),
    FlagDef::new(Features, "experimental-watch-progress-notify-interval", Duration, "10m", "Time between two progress notices of a watch.")
        .until(7).deprecated("watch-progress-notify-interval"),
    FlagDef::new(Features, "experimental-warning-apply-duration", Duration, "100ms", "Time after which an applied request counts as slow.")
        .until(7).deprecated("warning-apply-duration"),
    FlagDef::new(Features, "experimental-warning-unary-request-duration", Duration, "300ms", "Time after which a request counts as slow.")
        .since(5).until(7).deprecated("warning-unary-request-duration"),
    FlagDef::new(Features, "experimental-downgrade-check-time", Duration, "5s", "Time between two looks at the downgrade state.")
        .since(5).until(7).refused(DOWNGRADE),
    FlagDef::new(Features, "experimental-memory-mlock", Bool, "false", "Keep the server's pages in memory.")
        .since(5).until(7).refused("its memory cannot be locked yet"),
    FlagDef::new(Features, "experimental-txn-mode-write-with-shared-buffer", Bool, "true", "Share bbolt's read buffer with writes.")
        .since(5).until(7).also(&["false"]).refused(BBOLT),
    FlagDef::new(Features, "experimental-bootstrap-defrag-threshold-megabytes", Uint, "0", "Space to win for which a start defragments.")
        .since(5).until(7).refused(BBOLT),
    FlagDef::new(Features, "experimental-stop-grpc-service-on-defrag", Bool, "false", "Report unhealthy while defragmenting.")
        .since(5).until(7).refused(BBOLT),
    FlagDef::new(Features, "experimental-max-learners", Int, "1", "Most learners in the cluster.")
        .since(5).until(7).deprecated("max-learners"),
    FlagDef::new(Features, "experimental-snapshot-catchup-entries", Uint64, "5000", "Number of log entries kept for slow followers after a snapshot.")
        .since(6).until(7).deprecated("snapshot-catchup-entries"),
    // Unsafe
    FlagDef::new(Unsafe, "force-new-cluster", Bool, "false", "Start a cluster of this member alone over its data."),
    FlagDef::new(Unsafe, "unsafe-no-fsync", Bool, "false", "Acknowledge writes before they are durable.")
        .refused("a write is never acknowledged before it is durable"),
    // Legacy
    FlagDef::new(Legacy, "debug", Bool, "false", "Log at level debug.")
        .until(5).deprecated("log-level"),
    FlagDef::new(Legacy, "log-package-levels", Text, "", "Log levels by Go package.")
        .until(5).refused("its parts are not Go packages; use --log-level"),
    FlagDef::new(Legacy, "next-cluster-version-compatible", Bool, "false", "Join clusters of the next version.")
        .until(5).refused(IGNORED),
    FlagDef::new(Legacy, "cluster-active-size", Bool, "false", "A flag of etcd 0.4.")
        .refused(IGNORED),
    FlagDef::new(Legacy, "cluster-remove-delay", Bool, "false", "A flag of etcd 0.4.")
        .refused(IGNORED),
    FlagDef::new(Legacy, "cluster-sync-interval", Bool, "false", "A flag of etcd 0.4.")
        .refused(IGNORED),
    FlagDef::new(Legacy, "config", Bool, "false", "A flag of etcd 0.4.")
        .refused("no etcd of version 3 gives it a meaning; use --config-file"),
    FlagDef::new(Legacy, "force", Bool, "false", "A flag of etcd 0.4.")
        .refused(IGNORED),
    FlagDef::new(Legacy, "max-result-buffer", Bool, "false", "A flag of etcd 0.4.")
        .refused(IGNORED),
    FlagDef::new(Legacy, "max-retry-attempts", Bool, "false", "A flag of etcd 0.4.")
        .refused(IGNORED),
    FlagDef::new(Legacy, "peer-heartbeat-interval", Bool, "false", "A flag of etcd 0.4.")
        .refused("no etcd of version 3 gives it a meaning; use --heartbeat-interval"),
    FlagDef::new(Legacy, "peer-election-timeout", Bool, "false", "A flag of etcd 0.4.")
        .refused("no etcd of version 3 gives it a meaning; use --election-timeout"),
    FlagDef::new(Legacy, "retry-interval", Bool, "false", "A flag of etcd 0.4.")
        .refused(IGNORED),
    FlagDef::new(Legacy, "snapshot", Bool, "false", "A flag of etcd 0.4.")
        .refused("no etcd of version 3 gives it a meaning; use --snapshot-count"),
    FlagDef::new(Legacy, "v", Bool, "false", "A flag of etcd 0.4.")
        .refused("no etcd of version 3 gives it a meaning; use --log-level"),
    FlagDef::new(Legacy, "vv", Bool, "false", "A flag of etcd 0.4.")
        .refused("no etcd of version 3 gives it a meaning; use --log-level"),
];
