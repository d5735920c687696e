//! The command line: types only. The doc comments are the help text.

use std::num::NonZeroUsize;
use std::path::PathBuf;
use std::time::Duration;

use clap::{Args, Parser, Subcommand, ValueEnum};
use clap_complete::Shell;

use crate::duration;
use crate::output::Format;
use crate::scenario::Suite;

/// Brings up secure etcd-compatible clusters from a TOML topology.
///
/// Describe the cluster in a file, then run `provision up FILE`. Running it again changes nothing; running it after the file or
/// the world changed brings the cluster to what the file says.
#[derive(Debug, Parser)]
#[command(
    name = "provision",
    version,
    max_term_width = 100,
    propagate_version = true,
    after_long_help = "Examples:
  provision init cluster.toml                        write an annotated topology
  provision up topologies/three-node-tls.toml        bring the cluster up
  eval \"$(provision env three-node-tls)\"             make etcdctl talk to it
  provision status three-node-tls                    one table with everything
  provision backup three-node-tls                    a snapshot in a file
  provision replace three-node-tls infra1            a new member for one that lost its data
  provision run topologies/three-node.toml -- make test
  provision down three-node-tls                      stop it, keep the data

Exit codes:
  0 done   1 failed   2 usage or invalid topology   3 preflight failed   4 degraded, quorum held
  5 quorum lost   6 refused for safety   7 timed out   10 conformance failed   11 no test cluster
  130/143 interrupted, after cleaning up"
)]
pub struct Cli {
    /// Options of every verb.
    #[command(flatten)]
    pub global: GlobalArgs,
    /// What to do.
    #[command(subcommand)]
    pub verb: Verb,
}

/// Options of every verb.
#[derive(Args, Clone, Debug, Default)]
pub struct GlobalArgs {
    /// Form of the data on standard output.
    #[arg(
        id = "output",
        value_name = "FORMAT",
        short = 'o',
        long,
        value_enum,
        default_value_t,
        global = true,
        help_heading = "Global options"
    )]
    pub format: Format,
    /// Say nothing but errors on standard error.
    #[arg(
        short,
        long,
        global = true,
        conflicts_with = "verbose",
        help_heading = "Global options"
    )]
    pub quiet: bool,
    /// Say more on standard error; twice for everything.
    #[arg(short, long, global = true, action = clap::ArgAction::Count, help_heading = "Global options")]
    pub verbose: u8,
    /// Where clusters are remembered [default: $XDG_STATE_HOME/provision].
    #[arg(
        long,
        global = true,
        value_name = "DIR",
        env = "PROVISION_STATE_DIR",
        help_heading = "Global options"
    )]
    pub state_dir: Option<PathBuf>,
}

/// The verbs.
#[derive(Debug, Subcommand)]
pub enum Verb {
    /// Write an annotated topology to start from.
    Init(InitArgs),
    /// Check a topology file; touches nothing.
    Validate(ValidateArgs),
    /// Print each member's flags, environment or configuration file; touches nothing.
    Render(RenderArgs),
    /// Look whether the machines can take the cluster; changes nothing without --fix.
    Check(CheckArgs),
    /// Print the JSON Schema of topology files.
    Schema,
    /// Show what `up` would do.
    Plan(PlanArgs),
    /// Bring the cluster to what the topology says.
    Up(UpArgs),
    /// Restart members one at a time, the leader last.
    Restart(RestartArgs),
    /// Replace a member by an empty one of the same name.
    Replace(ReplaceArgs),
    /// Have another member lead.
    MoveLeader(MoveLeaderArgs),
    /// List what was done to a cluster, when and by whom.
    Audit(AuditArgs),
    /// Restore a lost state directory from the copy on the members' machines.
    Adopt(AdoptArgs),
    /// Go on from one survivor when the majority of a cluster is lost.
    Recover(RecoverArgs),
    /// Have members run another version, one at a time, the leader last.
    Upgrade(UpgradeArgs),
    /// Issue certificates again, or replace the CA, while the cluster runs.
    Rotate(RotateArgs),
    /// Take a backup of a cluster, list backups, or have them taken by a timer.
    Backup(BackupArgs),
    /// Make a cluster of a backup: all members anew, the old data aside.
    Restore(RestoreArgs),
    /// Show every member: role, leader, term, lag, size, certificates, drift.
    Status(StatusArgs),
    /// Print the environment that makes etcdctl work.
    Env(EnvArgs),
    /// List the clusters that this machine knows.
    List,
    /// Show the members' logs.
    Logs(LogsArgs),
    /// Log in to the machine of a member, or run a command there.
    Ssh(SshArgs),
    /// Run a command with the cluster's environment.
    Exec(ExecArgs),
    /// Run a command beside an ephemeral cluster.
    Run(RunArgs),
    /// Stop a cluster; its data stays unless --purge.
    Down(DownArgs),
    /// Check that a server and this program do what etcd's guides say.
    Test(TestArgs),
    /// Measure a topology under load, beside another binary.
    Bench(BenchArgs),
    /// Hosts with systemd and sshd of their own, on a network of their own (root).
    Lab(LabArgs),
    /// Serve what clusters and labs need beside their members.
    #[command(hide = true)]
    Serve(ServeArgs),
    /// Answer a `provision` on another machine, which has started this one through ssh.
    #[command(hide = true)]
    Agent,
    /// Print a completion script.
    Completions(CompletionsArgs),
    /// Print the manual page.
    Man,
}

/// `init`
#[derive(Args, Debug)]
#[command(after_help = "Examples:
  provision init cluster.toml
  provision init --template five-node-tls cluster.toml
  provision init --template mixed-flags -             print it")]
pub struct InitArgs {
    /// File to write; never overwritten. `-` prints.
    #[arg(default_value = "cluster.toml")]
    pub file: PathBuf,
    /// What to start from.
    #[arg(long, value_enum, default_value_t)]
    pub template: Template,
}

/// The shipped topologies.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, ValueEnum)]
pub enum Template {
    /// One member, no TLS.
    SingleNode,
    /// Three members, no TLS.
    ThreeNode,
    /// Three members, mutual TLS on both ports.
    #[default]
    ThreeNodeTls,
    /// Five members over three zones, mutual TLS on both ports.
    FiveNodeTls,
    /// Three machines that are reached by SSH, under systemd, mutual TLS.
    SshThreeHost,
    /// Five members for Kubernetes, with a gateway.
    FiveNodeKubernetes,
    /// Certificates that members make for themselves.
    AutoTls,
    /// Cluster-wide and per-member flags.
    MixedFlags,
    /// Settings as variables.
    Environment,
    /// The guide's static cluster, at its addresses.
    Static,
    /// The same with certificates.
    StaticTls,
    /// Discovery by another cluster.
    DiscoveryPrivate,
    /// Discovery by a service like discovery.etcd.io.
    DiscoveryPublic,
    /// Discovery by v3 keys.
    DiscoveryV3,
    /// DNS SRV records.
    DnsSrv,
    /// DNS SRV records and certificates.
    DnsSrvTls,
    /// DNS SRV records of members that advertise addresses.
    DnsSrvIp,
    /// A gateway in front of three members.
    Gateway,
}

/// `validate`
#[derive(Args, Debug)]
#[command(after_help = "Examples:
  provision validate topologies/three-node-tls.toml
  provision validate --deny-warnings cluster.toml     for CI
  generate-topology | provision validate -")]
pub struct ValidateArgs {
    /// Topology file; `-` reads standard input.
    #[arg(required = true)]
    pub files: Vec<PathBuf>,
    /// Fail on warnings too.
    #[arg(long)]
    pub deny_warnings: bool,
}

/// `render`
#[derive(Args, Debug)]
#[command(after_help = "Examples:
  provision render topologies/three-node-tls.toml
  provision render --format yaml --member infra0 cluster.toml > infra0.yaml
  provision render --format compose topologies/static.toml > compose.yaml
  provision render --format systemd -o json topologies/ssh-three-host.toml

What is rendered needs no provision: `systemd` is what `up` installs on hosts, members on this machine shown as on a host at their address;
`compose` and `static-pod` run stock etcd, in the images of its releases.")]
pub struct RenderArgs {
    /// Topology file; `-` reads standard input. Ports and paths are those of the cluster if it exists, else placeholders.
    pub file: PathBuf,
    /// Form of the settings.
    #[arg(long, value_enum, default_value_t)]
    pub format: RenderFormat,
    /// This member only; may be repeated.
    #[arg(long, value_name = "NAME")]
    pub member: Vec<String>,
    /// etcd version to render for, where a member runs an upstream etcd; with its patch, the release in images.
    #[arg(long, value_name = "VERSION", default_value = "3.6", value_parser = etcd_version)]
    pub etcd_version: EtcdVersion,
    /// Image of that etcd for `compose` and `static-pod` [default: gcr.io/etcd-development/etcd].
    #[arg(long)]
    pub image: Option<String>,
}

/// Form of rendered settings.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, ValueEnum)]
pub enum RenderFormat {
    /// A command line.
    #[default]
    Flags,
    /// `ETCD_*` lines of an environment file.
    Env,
    /// A file for `--config-file`.
    Yaml,
    /// The cluster's DNS records, as a zone file.
    DnsZone,
    /// The flags by which kube-apiserver uses the cluster.
    KubeApiserver,
    /// The files of a host: unit, environment, certificates.
    Systemd,
    /// A compose file.
    Compose,
    /// A pod for each node's kubelet.
    StaticPod,
    /// An inventory with the group `etcd`.
    AnsibleInventory,
}

/// A version of etcd.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct EtcdVersion {
    /// Major and minor.
    pub minor: (u32, u32),
    /// Patch, if it was given.
    pub patch: Option<u32>,
}

/// `check`
#[derive(Args, Debug)]
#[command(after_help = "Examples:
  provision check topologies/ssh-three-host.toml      before the first `up`
  provision check ssh-three-host -o json | jq '.findings[] | select(.outcome == \"fail\")'

Every machine is asked the same: disk, memory, clock, names, ports, and how it reaches the others. What cannot be found out is skipped
with the reason. A finding is accepted by the topology: [checks] allow = { swap = \"why\" }. Returns 3 when a check failed.")]
pub struct CheckArgs {
    /// Topology file, `-`, or the name of a known cluster.
    #[arg(value_name = "FILE|NAME")]
    pub target: String,
    /// Make the directories that `up` would make, and close data directories to others.
    #[arg(long)]
    pub fix: bool,
    /// How long a machine may take for an answer.
    #[arg(long, value_name = "DURATION", default_value = "30s", value_parser = duration::parse)]
    pub timeout: Duration,
}

/// `plan`
#[derive(Args, Debug)]
#[command(after_help = "Examples:
  provision plan topologies/three-node-tls.toml
  provision plan --detailed-exitcode cluster.toml     0: no change, 2: changes")]
pub struct PlanArgs {
    /// Topology file, `-`, or the name of a known cluster.
    #[arg(value_name = "FILE|NAME")]
    pub target: String,
    /// Return 2 when there are changes.
    #[arg(long)]
    pub detailed_exitcode: bool,
    /// Plan steps that leave the cluster without quorum for a while.
    #[arg(long)]
    pub accept_downtime: bool,
    /// How long to wait for answers of members.
    #[arg(long, value_name = "DURATION", default_value = "10s", value_parser = duration::parse)]
    pub timeout: Duration,
}

/// `up`
#[derive(Args, Debug)]
#[command(after_help = "Examples:
  provision up topologies/three-node-tls.toml
  provision up three-node-tls                         bring back members that died
  HEARTBEAT=50 provision up cluster.toml              with ${HEARTBEAT:-100} in the file

Members that were added to the file join one at a time: as learners, promoted once they are in sync. Members that were taken out
leave one at a time, the leader last, and their data is kept below the cluster's directory. `provision plan` shows the steps.")]
pub struct UpArgs {
    /// Topology file, `-`, or the name of a known cluster.
    #[arg(value_name = "FILE|NAME")]
    pub target: String,
    /// How long one step may take, such as waiting for a member to be ready.
    #[arg(long, value_name = "DURATION", default_value = "120s", value_parser = duration::parse)]
    pub timeout: Duration,
    /// Take steps that leave the cluster without quorum for a while.
    #[arg(long)]
    pub accept_downtime: bool,
    /// Take over the lock of a run that is gone.
    #[arg(long)]
    pub force_unlock: bool,
}

/// What all verbs that change a running cluster take.
#[derive(Args, Debug)]
pub struct ChangeArgs {
    /// Topology file, `-`, or the name of a known cluster.
    #[arg(value_name = "FILE|NAME")]
    pub target: String,
    /// Show the steps and take none.
    #[arg(long)]
    pub dry_run: bool,
    /// How long one step may take, such as waiting for a member to be ready.
    #[arg(long, value_name = "DURATION", default_value = "120s", value_parser = duration::parse)]
    pub timeout: Duration,
    /// Take steps that leave the cluster without quorum for a while.
    #[arg(long)]
    pub accept_downtime: bool,
    /// Take over the lock of a run that is gone.
    #[arg(long)]
    pub force_unlock: bool,
}

/// `restart`
#[derive(Args, Debug)]
#[command(after_help = "Examples:
  provision restart three-node-tls                    all members, the leader last
  provision restart three-node-tls infra1
  provision restart --dry-run three-node-tls          the steps, with the quorum left at each

Each member answers again before the next one stops, and the leader hands over first. Whatever else the topology wants is done as well.")]
pub struct RestartArgs {
    /// Options of every change.
    #[command(flatten)]
    pub change: ChangeArgs,
    /// These members only.
    #[arg(value_name = "MEMBER")]
    pub members: Vec<String>,
}

/// `replace`
#[derive(Args, Debug)]
#[command(after_help = "Examples:
  provision replace three-node-tls infra1             its disk is gone, or it does not start
  provision replace --dry-run three-node-tls infra1   the steps, with the quorum left at each

  provision replace cluster.toml infra1 --with ssh://infra3.example.com --address 10.0.1.13
                                                      its machine is gone: another takes its place

The member is removed from the cluster and added again under its name, with an empty data directory, first as a learner. Until it is
promoted the cluster has one voter less. What is left of its data is kept below the cluster's directory. With --with the file is
changed too, and a machine that is out of reach is left alone. `host` and `address` may also be changed by hand before.")]
pub struct ReplaceArgs {
    /// Options of every change.
    #[command(flatten)]
    pub change: ChangeArgs,
    /// The member.
    pub member: String,
    /// The machine that it shall live on from now on.
    #[arg(long, value_name = "ssh://HOST")]
    pub with: Option<String>,
    /// Its advertised address there, where the file gives one.
    #[arg(long, requires = "with")]
    pub address: Option<String>,
}

/// `move-leader`
#[derive(Args, Debug)]
#[command(after_help = "Examples:
  provision move-leader three-node-tls                to any other voter
  provision move-leader three-node-tls --to infra2")]
pub struct MoveLeaderArgs {
    /// Options of every change.
    #[command(flatten)]
    pub change: ChangeArgs,
    /// Who should lead.
    #[arg(long, value_name = "MEMBER")]
    pub to: Option<String>,
}

/// `audit`
#[derive(Args, Debug)]
#[command(after_help = "Examples:
  provision audit three-node-tls
  provision audit three-node-tls 3                    the steps of one run
  provision audit three-node-tls -o jsonl

Runs that changed something from this machine; those of operators of other machines are in their state directories.")]
pub struct AuditArgs {
    /// Topology file, or the name of a known cluster.
    #[arg(value_name = "FILE|NAME")]
    pub target: String,
    /// The number of a run: all of it.
    #[arg(value_name = "RUN")]
    pub run: Option<usize>,
}

/// `adopt`
#[derive(Args, Debug)]
#[command(after_help = "Examples:
  provision adopt cluster.toml                        from the first machine that has a copy
  provision adopt --from ssh://infra2.example.com cluster.toml

Every change of a cluster on machines of its own ends with a copy of the state directory on each of them, which only root can read:
what is remembered, the CA with its key, and the operator's certificate. The members are not touched.")]
pub struct AdoptArgs {
    /// Topology file.
    pub file: String,
    /// From this machine, as the file names it.
    #[arg(long, value_name = "ssh://HOST")]
    pub from: Option<String>,
    /// Take over the lock of a run that is gone.
    #[arg(long)]
    pub force_unlock: bool,
}

/// `recover`
#[derive(Args, Debug)]
#[command(after_help = "Examples:
  provision recover --dry-run cluster.toml            who is left, what they know, and the steps
  provision recover --accept-data-loss cluster.toml

For a cluster whose majority is gone for good. The survivor that knows of the highest committed index becomes a cluster of its own with
its data and the cluster's ID; the other members join anew, one at a time, and what is left of their data is set aside. Writes that the
lost majority acknowledged and the survivor had not heard of are lost. Machines that are out of reach are left out: give those members
another `host` in the file before, or use `provision replace MEMBER --with` after.")]
pub struct RecoverArgs {
    /// Options of every change.
    #[command(flatten)]
    pub change: ChangeArgs,
    /// Go on from this member.
    #[arg(long, value_name = "MEMBER")]
    pub from: Option<String>,
    /// Accept that acknowledged writes may be lost.
    #[arg(long)]
    pub accept_data_loss: bool,
}

/// `upgrade`
#[derive(Args, Debug)]
#[command(after_help = "Examples:
  provision upgrade cluster.toml --binary /opt/etcd-3.5/etcd
  provision upgrade --member infra0 --binary /opt/etcd-3.5/etcd cluster.toml      one first, the others later
  provision upgrade --dry-run cluster.toml --binary /opt/etcd-3.5/etcd
  provision upgrade --rollback cluster.toml

A backup is taken first. Versions go up by one minor at a time. Members that are not ready come first and the leader last, after it has handed over; each
answers again before the next one stops. When writes wait longer than the budget no further member is touched. As long as some member
runs the older version, --rollback goes back to it; later the way back is the snapshot from before. `binary` in the file is changed
too, or may be changed by hand before.")]
pub struct UpgradeArgs {
    /// Options of every change.
    #[command(flatten)]
    pub change: ChangeArgs,
    /// The new program: a path or a name in PATH.
    #[arg(long, value_name = "PATH", conflicts_with = "rollback")]
    pub binary: Option<String>,
    /// This member only; may be repeated.
    #[arg(long = "member", value_name = "NAME", requires = "binary")]
    pub members: Vec<String>,
    /// Go back to what ran before the last upgrade.
    #[arg(long)]
    pub rollback: bool,
    /// How long writes may wait before no further member is touched.
    #[arg(long, value_name = "DURATION", default_value = "5s", value_parser = duration::parse)]
    pub budget: Duration,
}

/// `rotate`
#[derive(Args, Debug)]
#[command(after_help = "Examples:
  provision rotate certs three-node-tls
  provision rotate ca three-node-tls
  provision rotate ca --step cluster.toml             one stage; then give clients the new ca.crt, and repeat
  provision rotate tls --step cluster.toml            one stage from plain text to TLS; move the clients before the last

Certificates are read again by running members. A CA is replaced in three stages: every member trusts the new CA beside the old one,
then every certificate is issued by the new one, then the old one is dropped; members are restarted one at a time. With `ca` in the
file that is the new CA, else one is made. Clients with a copy of the CA's certificate need the one of the first stage before the
second.

`rotate tls` takes a cluster without TLS to what [tls] in its file asks for now, in three stages: every member has certificates and
takes clients with and without TLS on one port; the members call each other over TLS, one after another; clients without TLS are
refused. Clients move in between, with what `provision env` and `render --format kube-apiserver` say.

A run that was cut off is finished by the next.")]
pub struct RotateArgs {
    /// What to replace.
    pub what: Rotated,
    /// Options of every change.
    #[command(flatten)]
    pub change: ChangeArgs,
    /// Take the next stage only.
    #[arg(long)]
    pub step: bool,
}

/// What can be rotated.
#[derive(Clone, Copy, Debug, PartialEq, Eq, ValueEnum)]
pub enum Rotated {
    /// Every certificate below the CA.
    Certs,
    /// The CA, and with it every certificate.
    Ca,
    /// Plain text: TLS in its place, as `tls` in the file says now.
    Tls,
}

/// `backup`
#[derive(Args, Debug)]
#[command(after_help = "Examples:
  provision backup three-node-tls                     prints the file that it wrote
  provision backup --verify three-node-tls            and restores it into a scratch member, compared with the cluster
  provision backup --to /mnt/backups --keep 14 three-node-tls
  provision backup --encrypt-to age1... three-node-tls
  provision backup --list three-node-tls
  provision backup --install-timer three-node-tls     as `schedule` in [backup] says

The snapshot comes from a follower, or from the leader where no other member is well. The file is one that any etcd can be restored
from; beside it stands a manifest. What the command line leaves open is taken from [backup] in the topology. With --keep and
--keep-for backups are deleted that neither keeps, after a new one is complete: only those that this program made of this cluster,
and never the newest.")]
pub struct BackupArgs {
    /// Topology file, `-`, or the name of a known cluster.
    #[arg(value_name = "FILE|NAME")]
    pub target: String,
    /// Where it goes: a file, or a directory, which exists or ends in / [default: backups/NAME below the state directory].
    #[arg(long, value_name = "DIR|FILE")]
    pub to: Option<PathBuf>,
    /// Restore it into a scratch member on loopback, and compare that with the cluster; keep it only if they are equal.
    #[arg(long)]
    pub verify: bool,
    /// Encrypt it to this public key of age; may be repeated.
    #[arg(long, value_name = "AGE1...")]
    pub encrypt_to: Vec<String>,
    /// Keep the last N backups.
    #[arg(long, value_name = "N")]
    pub keep: Option<NonZeroUsize>,
    /// Keep backups up to this age.
    #[arg(long, value_name = "DURATION", value_parser = duration::parse)]
    pub keep_for: Option<Duration>,
    /// How long the member may be silent, and the scratch member may take.
    #[arg(long, value_name = "DURATION", default_value = "120s", value_parser = duration::parse)]
    pub timeout: Duration,
    /// List the backups in the directory.
    #[arg(long, conflicts_with_all = ["verify", "encrypt_to", "keep", "keep_for", "install_timer", "remove_timer"])]
    pub list: bool,
    /// Have systemd take backups as [backup] says: units of the system for root, else of the user.
    #[arg(long, conflicts_with_all = ["to", "verify", "encrypt_to", "keep", "keep_for", "remove_timer"])]
    pub install_timer: bool,
    /// Remove what --install-timer installed.
    #[arg(long, conflicts_with_all = ["to", "verify", "encrypt_to", "keep", "keep_for"])]
    pub remove_timer: bool,
}

/// `restore`
#[derive(Args, Debug)]
#[command(after_help = "Examples:
  provision restore --dry-run three-node-tls FILE     what would be lost, and the steps
  provision restore three-node-tls FILE               asks for the cluster's name
  provision restore --yes --identity key.txt cluster.toml FILE.age

Takes any snapshot of etcd. All members stop, their data directories are set aside and kept, and each gets one made of the snapshot,
under a new token: a new cluster with the old keys, users, roles and leases. Members that the file has and the cluster had not are among
them. The revision is raised beyond all that clients may have seen, and what lies before it is compacted, so that no watch goes on as
if nothing had happened. A cluster that does not exist is made. A run that was cut off is finished by the same command.")]
pub struct RestoreArgs {
    /// Topology file, `-`, or the name of a known cluster.
    #[arg(value_name = "FILE|NAME")]
    pub target: String,
    /// A backup of `provision backup`, or another snapshot of etcd.
    pub snapshot: PathBuf,
    /// File with the age key that opens an encrypted backup.
    #[arg(long, value_name = "FILE")]
    pub identity: Option<PathBuf>,
    /// By how much the revision is raised; 0 leaves it, and clients with newer revisions see wrong things.
    #[arg(long, value_name = "N", default_value_t = 1_000_000_000, value_parser = clap::value_parser!(i64).range(0..))]
    pub bump_revision: i64,
    /// Restore over a cluster that answers.
    #[arg(long)]
    pub accept_data_loss: bool,
    /// Do not ask.
    #[arg(short, long)]
    pub yes: bool,
    /// Show what would be lost and the steps, and take none.
    #[arg(long)]
    pub dry_run: bool,
    /// How long one step may take, such as restoring a member or waiting for it to be ready.
    #[arg(long, value_name = "DURATION", default_value = "300s", value_parser = duration::parse)]
    pub timeout: Duration,
    /// Take over the lock of a run that is gone.
    #[arg(long)]
    pub force_unlock: bool,
}

/// `status`
#[derive(Args, Debug)]
#[command(after_help = "Examples:
  provision status three-node-tls
  provision status three-node-tls -o json | jq '.members[] | select(.leader)'
  provision status --watch three-node-tls

Returns 4 when a member is unhealthy and 5 when the quorum is lost.")]
pub struct StatusArgs {
    /// Topology file, `-`, or the name of a known cluster.
    #[arg(value_name = "FILE|NAME")]
    pub target: String,
    /// Show it again every second until interrupted.
    #[arg(short, long)]
    pub watch: bool,
    /// How long to wait for answers of members.
    #[arg(long, value_name = "DURATION", default_value = "5s", value_parser = duration::parse)]
    pub timeout: Duration,
}

/// `env`
#[derive(Args, Debug)]
#[command(after_help = "Examples:
  eval \"$(provision env three-node-tls)\" && etcdctl endpoint health
  provision env three-node-tls -o json

Sets ETCDCTL_ENDPOINTS and the certificates for etcdctl, and PROVISION_GATEWAYS to the URLs of the gateways, with commas
between them, if the topology has any: ETCDCTL_ENDPOINTS=$PROVISION_GATEWAYS etcdctl get k")]
pub struct EnvArgs {
    /// Topology file, `-`, or the name of a known cluster.
    #[arg(value_name = "FILE|NAME")]
    pub target: String,
}

/// `logs`
#[derive(Args, Debug)]
#[command(after_help = "Examples:
  provision logs three-node-tls                       all members, in the order of time
  provision logs -f three-node-tls infra1")]
pub struct LogsArgs {
    /// Topology file, `-`, or the name of a known cluster.
    #[arg(value_name = "FILE|NAME")]
    pub target: String,
    /// These members only.
    #[arg(value_name = "MEMBER")]
    pub members: Vec<String>,
    /// Keep printing what comes until interrupted.
    #[arg(short, long)]
    pub follow: bool,
    /// Last lines of each member.
    #[arg(short = 'n', long, default_value_t = 100)]
    pub lines: usize,
}

/// `ssh`
#[derive(Args, Debug)]
#[command(after_help = "Examples:
  provision ssh ssh-three-host infra0
  provision ssh ssh-three-host infra0 -- journalctl -u 'provision-*'

Returns what ssh returns: the command's exit code, or 255.")]
pub struct SshArgs {
    /// Topology file, `-`, or the name of a known cluster.
    #[arg(value_name = "FILE|NAME")]
    pub target: String,
    /// Whose machine.
    pub member: String,
    /// A command and its arguments, for the shell there; without one, a login.
    #[arg(last = true, value_name = "CMD")]
    pub command: Vec<std::ffi::OsString>,
}

/// `exec`
#[derive(Args, Debug)]
#[command(after_help = "Examples:
  provision exec three-node-tls -- etcdctl member list
  provision exec three-node-tls -- sh -c 'echo $ETCDCTL_ENDPOINTS'

The command sees the variables of `provision env`. Returns the command's exit code.")]
pub struct ExecArgs {
    /// Topology file, `-`, or the name of a known cluster.
    #[arg(value_name = "FILE|NAME")]
    pub target: String,
    /// The command and its arguments.
    #[arg(last = true, required = true, value_name = "CMD")]
    pub command: Vec<std::ffi::OsString>,
}

/// `run`
#[derive(Args, Debug)]
#[command(after_help = "Examples:
  provision run topologies/three-node-tls.toml -- etcdctl put a b
  provision run topologies/three-node.toml -- cargo test

The command sees ETCDCTL_ENDPOINTS, ETCDCTL_CACERT, ETCDCTL_CERT and ETCDCTL_KEY, and where the topology has gateways
PROVISION_GATEWAYS with their URLs. The cluster has its own ports and
directories and is gone afterwards, whatever happens. Returns the command's exit code.")]
pub struct RunArgs {
    /// Topology file; `-` reads standard input.
    pub file: PathBuf,
    /// How long the cluster may take to be ready.
    #[arg(long, value_name = "DURATION", default_value = "120s", value_parser = duration::parse)]
    pub timeout: Duration,
    /// The command and its arguments.
    #[arg(last = true, required = true, value_name = "CMD")]
    pub command: Vec<std::ffi::OsString>,
}

/// `down`
#[derive(Args, Debug)]
#[command(after_help = "Examples:
  provision down three-node-tls                       stop it, keep everything
  provision down --purge three-node-tls               also delete data, keys and logs; asks for the name
  provision down --purge --yes three-node-tls         the same in a script")]
pub struct DownArgs {
    /// Topology file, `-`, or the name of a known cluster.
    #[arg(value_name = "FILE|NAME")]
    pub target: String,
    /// Delete data, certificates, keys and logs.
    #[arg(long)]
    pub purge: bool,
    /// Do not ask.
    #[arg(short, long)]
    pub yes: bool,
    /// How long a member may take to stop before it is killed.
    #[arg(long, value_name = "DURATION", default_value = "10s", value_parser = duration::parse)]
    pub timeout: Duration,
    /// Take over the lock of a run that is gone.
    #[arg(long)]
    pub force_unlock: bool,
}

/// `test`
#[derive(Args, Debug)]
#[command(after_help = "Examples:
  provision test                                      what every change should pass
  provision test --binary /usr/bin/etcd               the same of a real etcd
  provision test --suite bootstrap --full --jobs 4    every cell of the matrix
  provision test --list -o json
  provision test --filter dns-srv/mutual --full --keep /tmp/cells

Returns 10 when a scenario failed and 11 when one could not be judged. What cannot run here is skipped, with the reason (-v).")]
pub struct TestArgs {
    /// This suite only; may be repeated.
    #[arg(long, value_enum, value_name = "SUITE")]
    pub suite: Vec<Suite>,
    /// Print the scenarios and run none.
    #[arg(long)]
    pub list: bool,
    /// Scenarios with this text in their names.
    #[arg(long, value_name = "TEXT")]
    pub filter: Option<String>,
    /// All scenarios; by default a subset in which every two values of the matrix meet.
    #[arg(long)]
    pub full: bool,
    /// The server to test; by default the included member.
    #[arg(long, value_name = "PATH")]
    pub binary: Option<PathBuf>,
    /// How many scenarios run at once.
    #[arg(long, value_name = "N", default_value = "2")]
    pub jobs: NonZeroUsize,
    /// Also write the outcomes as JUnit XML.
    #[arg(long, value_name = "FILE")]
    pub junit: Option<PathBuf>,
    /// How long a scenario may take, in place of its own limit.
    #[arg(long, value_name = "DURATION", value_parser = duration::parse)]
    pub timeout: Option<Duration>,
    /// Keep the scenarios' files in this new directory: topologies, logs, and data of what failed.
    #[arg(long, value_name = "DIR")]
    pub keep: Option<PathBuf>,
}

/// `bench`
#[derive(Args, Debug)]
#[command(after_help = "Examples:
  provision bench topologies/three-node-tls.toml --against /usr/bin/etcd
  provision bench topologies/three-node.toml --clients 100 --puts 20000 --rounds 3
  provision bench --quick topologies/single-node.toml
  provision bench topologies/three-node.toml --against /usr/bin/etcd --rounds 1 --keys 1000000")]
pub struct BenchArgs {
    /// Topology file; `-` reads standard input.
    pub file: PathBuf,
    /// Other binary to measure in the same run, in interleaved rounds.
    #[arg(long, value_name = "BINARY")]
    pub against: Option<PathBuf>,
    /// Concurrent clients of each load; may be repeated.
    #[arg(long, value_name = "N", value_delimiter = ',', default_values_t = [1, 100, 1000])]
    pub clients: Vec<usize>,
    /// Writes of each round.
    #[arg(long, value_name = "N", default_value_t = 100_000)]
    pub puts: u64,
    /// Rounds of each binary.
    #[arg(long, value_name = "N", default_value_t = 3)]
    pub rounds: usize,
    /// Also load so many keys, once for each binary: memory, restart, and pages out of them.
    #[arg(long, value_name = "N", default_value_t = 0)]
    pub keys: u64,
    /// Small numbers: checks that it works, measures little.
    #[arg(long)]
    pub quick: bool,
    /// How long a cluster may take to be ready.
    #[arg(long, value_name = "DURATION", default_value = "120s", value_parser = duration::parse)]
    pub timeout: Duration,
}

/// The lab that is meant when none is named.
pub const DEFAULT_LAB: &str = "lab";

/// `lab`
#[derive(Args, Debug)]
#[command(after_help = "Examples:
  provision lab up --hosts 3                          infra0..2.example.com at 10.0.1.10..12
  provision lab ssh infra0
  provision lab ssh infra0 -- systemctl status ssh
  provision lab exec -- curl http://infra0.example.com:2379/health
  provision lab kill infra1 && provision lab start infra1
  provision lab down

The hosts are reached from inside the lab (`exec`), or with ssh -F and the file that `status` names.")]
pub struct LabArgs {
    /// The lab; many may be up at once.
    #[arg(long, global = true, default_value = DEFAULT_LAB, value_parser = lab_name)]
    pub name: String,
    /// What to do.
    #[command(subcommand)]
    pub verb: LabVerb,
}

/// The verbs of labs.
#[derive(Debug, Subcommand)]
pub enum LabVerb {
    /// Bring a lab up, or what is missing of it.
    Up {
        /// How many hosts [default: 3, or as it was].
        #[arg(long, value_name = "N", value_parser = clap::value_parser!(u8).range(1..=32))]
        hosts: Option<u8>,
        /// How long a host may take to start.
        #[arg(long, value_name = "DURATION", default_value = "120s", value_parser = duration::parse)]
        timeout: Duration,
    },
    /// Show the hosts. Returns 4 when something of it does not run.
    Status,
    /// List the labs that this machine knows.
    List,
    /// Log in to a host, or run a command there. Returns its exit code.
    Ssh {
        /// Name or address of the host.
        host: String,
        /// Passed to ssh, so to the shell of the host.
        #[arg(last = true, value_name = "CMD")]
        command: Vec<std::ffi::OsString>,
    },
    /// Run a command of this machine inside the lab's network. Returns its exit code.
    Exec {
        /// The command and its arguments.
        #[arg(last = true, required = true, value_name = "CMD")]
        command: Vec<std::ffi::OsString>,
    },
    /// End a host as a power cut does; its disk stays.
    Kill {
        /// Name or address of the host.
        host: String,
    },
    /// Start a host that does not run.
    Start {
        /// Name or address of the host.
        host: String,
        /// How long it may take.
        #[arg(long, value_name = "DURATION", default_value = "120s", value_parser = duration::parse)]
        timeout: Duration,
    },
    /// End a lab: its hosts, their disks, its network.
    Down,
    /// Connect standard input and output with a host; for ssh.
    #[command(hide = true)]
    Connect {
        /// Name or address of the host.
        host: String,
        /// The port.
        port: u16,
    },
}

/// `serve`
#[derive(Args, Debug)]
#[command(after_help = "Examples:
  provision serve dns 127.0.0.1:5353 zone
  provision serve discovery 127.0.0.1:8087 http://127.0.0.1:2379")]
pub struct ServeArgs {
    /// What to serve.
    #[command(subcommand)]
    pub what: Serve,
}

/// What runs beside clusters and in labs.
#[derive(Debug, Subcommand)]
pub enum Serve {
    /// A DNS server for a zone file.
    Dns {
        /// Where to listen, UDP and TCP.
        address: std::net::SocketAddr,
        /// The zone; read again when it changes.
        file: PathBuf,
    },
    /// A discovery service equal to the public one.
    Discovery {
        /// Where to listen.
        address: std::net::SocketAddr,
        /// Client URL of an etcd with --enable-v2, which keeps the tokens.
        backend: String,
        /// Whose it is: its process is found by this argument.
        #[arg(long)]
        of: Option<PathBuf>,
    },
}

/// `completions`
#[derive(Args, Debug)]
#[command(after_help = "Examples:
  provision completions bash > ~/.local/share/bash-completion/completions/provision
  provision completions zsh > ~/.zfunc/_provision")]
pub struct CompletionsArgs {
    /// The shell.
    pub shell: Shell,
}

// Names a directory, and is part of command lines.
fn lab_name(text: &str) -> Result<String, String> {
    let allowed = |c: char| c.is_ascii_lowercase() || c.is_ascii_digit() || c == '-';
    let starts_well = text.starts_with(|c: char| c.is_ascii_lowercase() || c.is_ascii_digit());
    if starts_well && text.chars().all(allowed) && text.len() <= 63 {
        return Ok(text.to_owned());
    }
    Err("use 1 to 63 lowercase letters, digits and `-`, starting with a letter or digit".into())
}

fn etcd_version(text: &str) -> Result<EtcdVersion, String> {
    let bad = || format!("{text:?} is not a version: write one such as 3.4 or 3.4.23");
    let parts: Result<Vec<u32>, _> = text
        .trim_start_matches('v')
        .split('.')
        .map(str::parse)
        .collect();
    match parts.map_err(|_| bad())?[..] {
        [major, minor] => Ok(EtcdVersion {
            minor: (major, minor),
            patch: None,
        }),
        [major, minor, patch] => Ok(EtcdVersion {
            minor: (major, minor),
            patch: Some(patch),
        }),
        _ => Err(bad()),
    }
}

#[cfg(test)]
mod tests {
    use clap::CommandFactory;

    use super::*;

    #[test]
    fn the_definition_is_consistent() {
        Cli::command().debug_assert();
    }

    #[test]
    fn every_verb_has_an_example_or_takes_no_argument() {
        for verb in Cli::command().get_subcommands() {
            let takes_arguments = verb.get_arguments().next().is_some() || verb.has_subcommands();
            assert_eq!(
                verb.get_after_help().is_some(),
                takes_arguments,
                "{}",
                verb.get_name()
            );
        }
    }

    #[test]
    fn verbs_do_not_take_the_global_options_away() {
        let names = ["output", "quiet", "verbose", "state_dir"];
        for verb in Cli::command().get_subcommands() {
            let own: Vec<&str> = verb
                .get_arguments()
                .map(|arg| arg.get_id().as_str())
                .collect();
            assert!(
                own.iter().all(|id| !names.contains(id)),
                "{}: {own:?}",
                verb.get_name()
            );
        }
    }

    #[test]
    fn a_version_may_have_a_patch() {
        let version = |minor, patch| Ok(EtcdVersion { minor, patch });
        assert_eq!(etcd_version("3.4.23"), version((3, 4), Some(23)));
        assert_eq!(etcd_version("v3.6"), version((3, 6), None));
        for wrong in ["3", "3.x", "3.6.1.2", ""] {
            assert!(etcd_version(wrong).is_err(), "{wrong}");
        }
    }

    #[test]
    fn the_command_of_run_keeps_its_own_options() {
        let cli = Cli::try_parse_from([
            "provision",
            "run",
            "a.toml",
            "--",
            "etcdctl",
            "-o",
            "x",
            "--",
            "y",
        ])
        .unwrap();
        let Verb::Run(run) = cli.verb else {
            panic!("not run")
        };
        assert_eq!(run.command, ["etcdctl", "-o", "x", "--", "y"]);
    }

    #[test]
    fn global_options_stand_anywhere() {
        let cli =
            Cli::try_parse_from(["provision", "list", "-o", "json", "--state-dir", "/x"]).unwrap();
        assert_eq!(cli.global.format, Format::Json);
        assert_eq!(cli.global.state_dir, Some(PathBuf::from("/x")));
    }
}
