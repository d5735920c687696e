//! What runs beside members: name servers in networks of their own, discovery services, gateways; and settings that are not on a
//! command line.

use std::fs;
use std::io::Write;
use std::os::unix::fs::PermissionsExt;
use std::path::Path;
use std::process::{Command, Stdio};

use serde_json::Value;

use crate::sandbox::{ETCD, INCLUDED, Sandbox, Server, each_server, is_running, kill, wait_until};

each_server! {
    names_and_addresses_of_the_guide_work_with_certificates
    a_member_joins_whichever_way_the_others_found_each_other
    one_cluster_bootstraps_another
    the_public_service_bootstraps_a_cluster
    a_gateway_follows_the_members
    settings_reach_a_member_as_variables_or_as_a_file
    what_a_member_says_is_explained
}

const SRV: &str = r#"
[bootstrap]
method = "dns-srv"
domain = "example.com"
server = "builtin"
"#;

fn guide(name: &str, head: &str, address: &str, server: Server) -> String {
    format!(
        "name = \"{name}\"\n{head}\n[[member]]\nname = \"infra{{0..2}}\"\naddress = \"{address}\"\n\
         listen = \"10.0.1.{{10..12}}\"\nclient-port = 2379\npeer-port = 2380\n{}\n",
        server.binary
    )
}

fn service(sandbox: &Sandbox, cluster: &str, name: &str) -> Value {
    let status = sandbox.status(cluster);
    let services = status["services"].as_array().unwrap();
    let found = services.iter().find(|service| service["name"] == name);
    found
        .unwrap_or_else(|| panic!("no {name}: {status}"))
        .clone()
}

fn pid(sandbox: &Sandbox, cluster: &str, name: &str) -> i32 {
    let pid = service(sandbox, cluster, name)["pid"].as_i64();
    pid.unwrap().try_into().unwrap()
}

fn a_member_joins_whichever_way_the_others_found_each_other(server: Server) {
    let tls = "[tls]\npeer = \"mutual\"\nclient = \"mutual\"\n";
    let discovery = "[bootstrap]\nmethod = \"discovery\"\nservice = \"builtin\"\n";
    let sandbox = Sandbox::new();
    for (name, head, member) in [
        ("srv", format!("{tls}{SRV}"), "infra3.example.com"),
        (
            "discovery",
            format!("network = \"private\"\n{discovery}"),
            "10.0.1.13",
        ),
    ] {
        let address = member
            .replace("infra3", "infra{0..2}")
            .replace(".13", ".{10..12}");
        let text = guide(name, &head, &address, server);
        let file = sandbox.write(&format!("{name}.toml"), &text);
        sandbox.provision(&["up", &file]).expect(0);
        let new = format!(
            "[[member]]\nname = \"infra3\"\naddress = \"{member}\"\nlisten = \"10.0.1.13\"\n\
             client-port = 2379\npeer-port = 2380\n{}\n",
            server.binary
        );
        fs::write(&file, format!("{text}{new}")).unwrap();
        sandbox.provision(&["up", &file]).expect(0);
        let listed = sandbox.etcdctl(name, &["member", "list"]).expect(0).stdout;
        assert!(listed.contains("started, infra3"), "{listed}");
        assert_eq!(listed.lines().count(), 4, "{listed}");
        sandbox
            .provision(&["plan", "--detailed-exitcode", &file])
            .expect(0);
        // Back to three, without the first: its records and addresses are not needed any more.
        let fewer = text
            .replace("{0..2}", "{1..2}")
            .replace("{10..12}", "{11..12}");
        fs::write(&file, format!("{fewer}{new}")).unwrap();
        sandbox.provision(&["up", &file]).expect(0);
        sandbox
            .provision(&["plan", "--detailed-exitcode", name])
            .expect(0);
        sandbox.provision(&["restart", name]).expect(0);
        sandbox.provision(&["down", name]).expect(0);
        sandbox.provision(&["up", name]).expect(0);
    }
}

#[test]
fn members_find_each_other_by_srv_records_and_so_does_etcdctl() {
    by_srv_records(INCLUDED);
}

#[test]
fn etcd_finds_itself_by_srv_records_where_it_can() {
    by_srv_records(Server {
        binary: "binary = \"/usr/local/lib/etcd-3.5.1/etcd\"",
    });
    let sandbox = Sandbox::new();
    let file = sandbox.write(
        "srv.toml",
        &guide("srv", SRV, "infra{0..2}.example.com", ETCD),
    );
    sandbox.provision(&["up", &file]).expect(2).says(&[
        "runs etcd 3.4, which finds no members by SRV records without TLS",
        "etcd 3.5",
    ]);
}

fn by_srv_records(server: Server) {
    let sandbox = Sandbox::new();
    let text = guide("srv", SRV, "infra{0..2}.example.com", server);
    let file = sandbox.write("srv.toml", &text);
    let plan = sandbox.provision(&["plan", &file]).expect(0);
    assert!(plan.stdout.contains("start dns\n"), "{}", plan.stdout);
    sandbox
        .provision(&["up", &file])
        .expect(0)
        .says(&["has the 6 SRV records", "provision exec srv -- "]);

    let listed = sandbox.etcdctl("srv", &["--discovery-srv", "example.com", "member", "list"]);
    let listed = listed.expect(0).stdout;
    assert_eq!(listed.matches("http://infra").count(), 6, "{listed}");
    assert!(
        listed.contains("infra1, http://infra1.example.com:2380, http://infra1.example.com:2379"),
        "{listed}"
    );
    sandbox
        .provision(&["plan", "--detailed-exitcode", &file])
        .expect(0);
    sandbox
        .provision(&["env", "srv"])
        .expect(0)
        .says(&["only commands of `provision exec srv` reach it"]);

    // A restart does not ask again, and a name server that died comes back.
    kill(pid(&sandbox, "srv", "dns"), 9);
    wait_until("the name server is gone", || {
        service(&sandbox, "srv", "dns")["state"] == "stopped"
    });
    sandbox
        .provision(&["status", "srv"])
        .expect(4)
        .shows(&["dns: stopped, 127.0.0.1:53", "; dns is stopped)"]);
    let plan = sandbox.provision(&["plan", "srv"]).expect(0).stdout;
    assert!(
        plan.starts_with("cluster srv: 1 step\n  1. start dns"),
        "{plan}"
    );
    sandbox.provision(&["up", "srv"]).expect(0);
    sandbox.etcdctl("srv", &["put", "k", "v"]).expect(0);
    let ended = pid(&sandbox, "srv", "dns");
    sandbox.provision(&["down", "srv"]).expect(0);
    assert!(!is_running(ended));
    sandbox
        .etcdctl("srv", &["get", "k"])
        .expect(1)
        .says(&["cluster srv is down", "`provision up srv`"]);
    sandbox.provision(&["up", "srv"]).expect(0);
    assert_eq!(
        sandbox.etcdctl("srv", &["get", "k"]).expect(0).stdout,
        "k\nv\n"
    );
    sandbox
        .provision(&["down", "--purge", "--yes", "srv"])
        .expect(0);
}

fn names_and_addresses_of_the_guide_work_with_certificates(server: Server) {
    let sandbox = Sandbox::new();
    let tls = "[tls]\npeer = \"mutual\"\nclient = \"mutual\"\n";
    let file = sandbox.write(
        "a.toml",
        &guide(
            "a",
            &format!("{SRV}srv-name = \"blue\"\n{tls}"),
            "infra{0..2}.example.com",
            server,
        ),
    );
    sandbox.provision(&["up", &file]).expect(0);
    let by_srv = [
        "--discovery-srv=example.com",
        "--discovery-srv-name=blue",
        "member",
        "list",
    ];
    let listed = sandbox.etcdctl("a", &by_srv).expect(0).stdout;
    assert_eq!(listed.matches("https://infra").count(), 6, "{listed}");
    let head = format!("network = \"private\"\n{tls}");
    let file = sandbox.write("b.toml", &guide("b", &head, "10.0.1.{10..12}", server));
    // A second cluster at the same addresses: each has its own network.
    sandbox.provision(&["up", &file]).expect(0);
    let healthy = sandbox.etcdctl("b", &["endpoint", "health"]).expect(0);
    assert_eq!(
        (healthy.stdout + &healthy.stderr)
            .matches("is healthy")
            .count(),
        3
    );
    for name in ["a", "b"] {
        sandbox
            .provision(&["down", "--purge", "--yes", name])
            .expect(0);
    }
}

#[test]
fn a_network_of_its_own_needs_no_root_and_takes_a_topology_from_standard_input() {
    let sandbox = Sandbox::new();
    let text = guide("srv", SRV, "infra{0..2}.example.com", INCLUDED);
    // A place that another user may read; where this is that user already, nothing changes.
    let place = tempfile::Builder::new()
        .prefix("provision-it-")
        .tempdir_in("/tmp")
        .unwrap();
    let bin = place.path().join("bin");
    fs::create_dir(&bin).unwrap();
    let built = Path::new(env!("CARGO_BIN_EXE_provision"));
    for name in ["provision", "member"] {
        fs::copy(built.with_file_name(name), bin.join(name)).unwrap();
    }
    let root = Command::new("id").arg("-u").output().unwrap().stdout == b"0\n";
    let open = fs::Permissions::from_mode(0o755);
    for path in [place.path(), &bin] {
        fs::set_permissions(path, open.clone()).unwrap();
    }
    let state = sandbox.state();
    fs::create_dir(&state).unwrap();
    if root {
        fs::set_permissions(sandbox.path(), open).unwrap();
        std::os::unix::fs::chown(&state, Some(65_534), Some(65_534)).unwrap();
    }
    let run = |args: &[&str], stdin: &str| {
        let mut command = Command::new("setpriv");
        if root {
            command.args(["--reuid=65534", "--regid=65534", "--clear-groups"]);
        }
        let mut child = command
            .arg("--")
            .arg(bin.join("provision"))
            .args(args)
            .current_dir("/tmp")
            .env("PROVISION_STATE_DIR", &state)
            .stdin(Stdio::piped())
            .stdout(Stdio::piped())
            .stderr(Stdio::piped())
            .spawn()
            .unwrap();
        child
            .stdin
            .take()
            .unwrap()
            .write_all(stdin.as_bytes())
            .unwrap();
        crate::sandbox::Done::from(child.wait_with_output().unwrap())
    };
    run(&["up", "-"], &text).expect(0);
    run(&["up", "-"], &text).expect(0).says(&["no change"]);
    let listed = run(
        &[
            "exec",
            "srv",
            "--",
            "etcdctl",
            "--discovery-srv",
            "example.com",
            "member",
            "list",
        ],
        "",
    );
    assert_eq!(listed.expect(0).stdout.lines().count(), 3);
    let put = run(&["run", "-", "--", "etcdctl", "put", "a", "b"], &text).expect(0);
    assert_eq!(put.stdout, "OK\n");
    run(&["down", "--purge", "--yes", "srv"], "").expect(0);
}

#[test]
fn records_that_are_not_the_clusters_are_named_before_a_member_believes_them() {
    let sandbox = Sandbox::new();
    let text = guide("srv", SRV, "infra{0..2}.example.com", INCLUDED);
    let file = sandbox.write("srv.toml", &text);
    sandbox.provision(&["up", &file]).expect(0);
    // In the first cluster's network, whose name server has the first cluster's records.
    let second = text
        .replace("\"srv\"", "\"second\"")
        .replace("builtin", "system")
        .replace("10.0.1.{10..12}", "127.0.0.1")
        .replace("2379", "\"{12379..12381}\"")
        .replace("2380", "\"{2380..2382}\"");
    let second = sandbox.write("second.toml", &second);
    let program = env!("CARGO_BIN_EXE_provision");
    let up = sandbox.provision(&["exec", "srv", "--", program, "up", &second]);
    up.expect(1).says(&[
        "the DNS lacks `_etcd-server._tcp.example.com. SRV 0 0 2381 infra1.example.com.`",
        "the DNS has `_etcd-server._tcp.example.com. SRV 0 0 2380 infra1.example.com.`, which is no member's",
        "provision render --format dns-zone",
    ]);
    let zone = sandbox
        .provision(&["render", "--format", "dns-zone", &second])
        .expect(0)
        .stdout;
    assert!(
        zone.contains("\n_etcd-server._tcp.example.com. SRV 0 0 2381 infra1.example.com.\n"),
        "{zone}"
    );
    sandbox
        .provision(&["down", "--purge", "--yes", "srv"])
        .expect(0);
}

fn one_cluster_bootstraps_another(server: Server) {
    by_discovery("private", server);
}

fn the_public_service_bootstraps_a_cluster(server: Server) {
    by_discovery("public", server);
}

#[test]
fn a_command_beside_a_cluster_finds_its_gateway() {
    let sandbox = Sandbox::new();
    let file = sandbox.write(
        "a.toml",
        "name = \"a\"\n[[gateway]]\nlisten = \"0.0.0.0:2379\"\n[[member]]\nname = \"m\"\n",
    );
    let script = "ETCDCTL_ENDPOINTS=$PROVISION_GATEWAYS etcdctl put a b; echo $PROVISION_GATEWAYS";
    let run = sandbox.provision(&["run", &file, "--", "sh", "-c", script]);
    let run = run.expect(0);
    assert!(
        run.stdout.starts_with("OK\nhttp://127.0.0.1:"),
        "{}",
        run.stdout
    );
}

#[test]
fn a_cluster_without_names_has_no_zone() {
    let sandbox = Sandbox::new();
    let file = sandbox.topology("a", 3, false, "");
    sandbox
        .provision(&["render", "--format", "dns-zone", &file])
        .expect(2)
        .says(&["a has no DNS records", "method = \"dns-srv\""]);
    let named = sandbox.topology("b", 1, false, "address = \"m.example.com\"");
    sandbox
        .provision(&["render", "--format", "dns-zone", &named])
        .expect(0)
        .shows(&["m.example.com. A 127.0.0.1\n"]);
}

#[test]
fn v3_keys_bootstrap_a_cluster() {
    by_discovery("v3", INCLUDED);
}

fn by_discovery(protocol: &str, server: Server) {
    let sandbox = Sandbox::new();
    let text = format!(
        "name = \"demo\"\n[bootstrap]\nmethod = \"discovery\"\nservice = \"builtin\"\nprotocol = \"{protocol}\"\n\
         [[member]]\nname = \"infra{{0..2}}\"\n{}\n",
        server.binary
    );
    let file = sandbox.write("demo.toml", &text);
    let plan = sandbox.provision(&["plan", &file]).expect(0).stdout;
    assert!(
        plan.contains("tell the discovery service to wait for 3\n"),
        "{plan}"
    );
    sandbox.provision(&["up", &file]).expect(0);
    assert_eq!(
        sandbox
            .etcdctl("demo", &["member", "list"])
            .expect(0)
            .stdout
            .lines()
            .count(),
        3
    );
    sandbox.etcdctl("demo", &["put", "k", "v"]).expect(0);
    sandbox
        .provision(&["plan", "--detailed-exitcode", &file])
        .expect(0);
    // Nobody needs the service any more.
    kill(pid(&sandbox, "demo", "discovery"), 9);
    wait_until("the service is gone", || {
        service(&sandbox, "demo", "discovery")["state"] == "stopped"
    });
    sandbox.provision(&["status", "demo"]).expect(0).shows(&[
        "discovery: stopped, 127.0.0.1:",
        "which only members without data need",
        "cluster demo is healthy",
    ]);
    // The token is used once: members that have data do not ask for it again.
    sandbox.provision(&["down", "demo"]).expect(0);
    fs::remove_dir_all(sandbox.cluster("demo").join("services/discovery/data")).unwrap();
    let up = sandbox.provision(&["up", "demo"]).expect(0);
    assert!(!up.stderr.contains("token has no size"), "{}", up.stderr);
    assert_eq!(
        sandbox.etcdctl("demo", &["get", "k"]).expect(0).stdout,
        "k\nv\n"
    );
    sandbox
        .provision(&["down", "--purge", "--yes", "demo"])
        .expect(0);
}

fn a_gateway_follows_the_members(server: Server) {
    let sandbox = Sandbox::new();
    let text = |port: u16, gateway: &str| {
        format!(
            "name = \"demo\"\n[tls]\npeer = \"mutual\"\nclient = \"mutual\"\n{gateway}\n\
             [[member]]\nname = \"m0\"\nclient-port = {port}\n{binary}\n[[member]]\nname = \"m{{1..2}}\"\n{binary}\n",
            binary = server.binary
        )
    };
    let gateway = format!("[[gateway]]\nlisten = \"127.0.0.1\"\n{}\n", server.binary);
    let free = || {
        let held = std::net::TcpListener::bind("127.0.0.1:0").unwrap();
        held.local_addr().unwrap().port()
    };
    let file = sandbox.write("demo.toml", &text(free(), &gateway));
    sandbox.provision(&["up", &file]).expect(0);
    let instance = fs::read_to_string(sandbox.cluster("demo").join("instance.json")).unwrap();
    let instance: Value = serde_json::from_str(&instance).unwrap();
    let address = format!("127.0.0.1:{}", instance["services"]["gateway0"]);
    let endpoint = format!("https://{address}");
    assert_eq!(service(&sandbox, "demo", "gateway0")["address"], address);
    let gateways = ["exec", "demo", "--", "printenv", "PROVISION_GATEWAYS"];
    assert_eq!(
        sandbox.provision(&gateways).expect(0).stdout.trim_end(),
        endpoint
    );
    sandbox
        .provision(&["env", "demo"])
        .expect(0)
        .shows(&[&format!("export PROVISION_GATEWAYS={endpoint}\n")]);
    sandbox
        .provision(&["status", "demo"])
        .expect(0)
        .shows(&[&format!("gateway0: running, {address}, pid ")]);
    let put = |value: &str| sandbox.etcdctl("demo", &["--endpoints", &endpoint, "put", "k", value]);
    put("1").expect(0);

    // A client port that moves restarts its member, and then the gateway with the new endpoints.
    sandbox.write("demo.toml", &text(free(), &gateway));
    let plan = sandbox.provision(&["plan", &file]).expect(0).stdout;
    assert!(
        plan.contains("start gateway0\n       gateway0: --endpoints "),
        "{plan}"
    );
    sandbox.provision(&["up", &file]).expect(0);
    sandbox
        .provision(&["plan", "--detailed-exitcode", &file])
        .expect(0);
    put("2").expect(0);
    kill(sandbox.pid("demo", "m0").unwrap(), 9);
    wait_until("the gateway serves without m0", || put("3").code == 0);

    // Members that are all well do not make up for it.
    sandbox.provision(&["up", &file]).expect(0);
    kill(pid(&sandbox, "demo", "gateway0"), 9);
    wait_until("the gateway is gone", || {
        service(&sandbox, "demo", "gateway0")["state"] == "stopped"
    });
    sandbox.provision(&["status", "demo"]).expect(4).shows(&[
        &format!("gateway0: stopped, {address}, which `provision up demo` starts\n"),
        "cluster demo is degraded, quorum held (voters 3, need 2, up 3, margin +1; gateway0 is stopped)",
    ]);
    sandbox.provision(&["up", &file]).expect(0);
    sandbox.provision(&["status", "demo"]).expect(0);

    let ended = pid(&sandbox, "demo", "gateway0");
    sandbox.write("demo.toml", &text(free(), ""));
    sandbox.provision(&["up", &file]).expect(0);
    assert!(
        !is_running(ended),
        "a gateway that is no longer wanted is stopped"
    );
    let status = sandbox.status("demo");
    assert_eq!(
        status["services"],
        Value::Array(Vec::new()),
        "and forgotten"
    );
    sandbox
        .provision(&["down", "--purge", "--yes", "demo"])
        .expect(0);
}

fn settings_reach_a_member_as_variables_or_as_a_file(server: Server) {
    let sandbox = Sandbox::new();
    for form in ["env", "file"] {
        let text = |beat: u32| {
            format!(
                "name = \"{form}\"\nsettings = \"{form}\"\n[tls]\npeer = \"mutual\"\nclient = \"mutual\"\n\
                 [defaults]\nheartbeat-interval = {beat}\n[[member]]\nname = \"m{{0..2}}\"\n{}\n",
                server.binary
            )
        };
        let file = sandbox.write("demo.toml", &text(90));
        sandbox.provision(&["up", &file]).expect(0);
        let pid = sandbox.pid(form, "m0").unwrap();
        let line = fs::read_to_string(format!("/proc/{pid}/cmdline")).unwrap();
        assert_eq!(line.trim_end_matches('\0').split('\0').count(), 2, "{line}");
        let variables = fs::read_to_string(format!("/proc/{pid}/environ")).unwrap();
        assert_eq!(
            variables.contains("ETCD_HEARTBEAT_INTERVAL=90"),
            form == "env"
        );
        sandbox
            .provision(&["plan", "--detailed-exitcode", &file])
            .expect(0);

        sandbox.write("demo.toml", &text(50));
        let plan = sandbox.provision(&["plan", &file]).expect(0).stdout;
        assert_eq!(plan.matches("restart m").count(), 3, "{plan}");
        sandbox.provision(&["up", &file]).expect(0);
        sandbox
            .provision(&["plan", "--detailed-exitcode", &file])
            .expect(0);
        // The record is lost between the start and its writing: the process is found all the same.
        fs::remove_file(sandbox.member(form, "m1").join("process.json")).unwrap();
        let status = sandbox.status(form);
        assert!(
            status["members"]
                .as_array()
                .unwrap()
                .iter()
                .all(|member| member["pid"].is_u64()),
            "{status}"
        );
        sandbox
            .provision(&["down", "--purge", "--yes", form])
            .expect(0);
    }
}

fn what_a_member_says_is_explained(server: Server) {
    let sandbox = Sandbox::new();
    let text = format!(
        "name = \"demo\"\n[[member]]\nname = \"m\"\nflags = {{ listen-metrics-urls = \"http://192.0.2.1:1\" }}\n{}\n",
        server.binary
    );
    let file = sandbox.write("demo.toml", &text);
    sandbox.provision(&["up", &file]).expect(1).says(&[
        "the process died at its start: it listens on an address that this host does not have",
        "fix: correct `listen` or `address` of the member",
    ]);
}
