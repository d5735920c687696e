//! Users, roles and tokens as etcd's clients see them.

use std::path::Path;
use std::process::Command;

use member_proto::authpb;
use member_proto::etcdserverpb as pb;
use member_proto::etcdserverpb::auth_client::AuthClient;
use member_proto::etcdserverpb::kv_client::KvClient;
use tonic::transport::Channel;

use crate::process::{ETCD, MEMBER, Server, etcdctl, free_ports, wait_until};
use crate::server::{endpoints, start_all, three};

/// Runs etcdctl and expects success.
fn ok(endpoints: &str, args: &[&str]) -> String {
    let (ok, out, err) = etcdctl(endpoints, args);
    assert!(ok, "{args:?}: {err}");
    out
}

/// Runs etcdctl and expects a refusal in these words.
fn refused(endpoints: &str, args: &[&str], words: &str) {
    let (ok, out, err) = etcdctl(endpoints, args);
    assert!(!ok && err.contains(words), "{args:?}: {out}{err}");
}

/// Users root and alice; alice's role writes below `a/`, reads from `r` on, and has the key `k`.
fn found_users(endpoint: &str) {
    for args in [
        &["user", "add", "root:rootpw"][..],
        &["user", "grant-role", "root", "root"],
        &["user", "add", "alice:alicepw"],
        &["role", "add", "r"],
        &["role", "grant-permission", "r", "--prefix", "write", "a/"],
        &["role", "grant-permission", "r", "--from-key", "read", "r"],
        &["role", "grant-permission", "r", "readwrite", "k"],
        &["user", "grant-role", "alice", "r"],
        &["auth", "enable"],
    ] {
        ok(endpoint, args);
    }
}

const ROOT: &str = "--user=root:rootpw";
const ALICE: &str = "--user=alice:alicepw";

#[test]
fn a_cluster_with_users_serves_each_what_its_roles_allow() {
    let mut servers = three();
    start_all(&mut servers);
    let all = endpoints(&servers);
    refused(&all, &["auth", "enable"], "root user does not exist");
    found_users(&all);
    let enabled = |server: &Server| {
        etcdctl(&server.endpoint(), &["put", "k", "v"])
            .2
            .contains("user name is empty")
    };
    wait_until("every member asks for a user", || {
        servers.iter().all(enabled)
    });
    for server in &servers {
        let at = &server.endpoint();
        refused(at, &["get", "k"], "user name is empty");
        refused(
            at,
            &["--user=root:wrong", "get", "k"],
            "authentication failed, invalid user ID or password",
        );
        ok(at, &[ROOT, "put", "other", "1"]);
        ok(at, &[ALICE, "put", "k", "v"]);
        assert_eq!(ok(at, &[ALICE, "get", "k"]), "k\nv\n");
        ok(at, &[ALICE, "put", "a/1", "v"]);
        ok(at, &[ALICE, "get", "r", "--from-key"]);
        for args in [
            &[ALICE, "put", "other", "2"][..],
            &[ALICE, "get", "a/1"],
            &[ALICE, "put", "a/1", "v", "--prev-kv"],
            &[ALICE, "get", "--prefix", "k"],
            &[ALICE, "get", "", "--from-key"],
            &[ALICE, "del", "a", "--from-key"],
            &[ALICE, "user", "list"],
            &[ALICE, "user", "get", "root"],
            &[ALICE, "role", "get", "root"],
            &[ALICE, "compact", "2"],
            &[ALICE, "auth", "disable"],
        ] {
            refused(at, args, "permission denied");
        }
        assert_eq!(
            ok(at, &[ALICE, "user", "get", "alice"]),
            "User: alice\nRoles: r\n"
        );
        assert!(ok(at, &[ALICE, "role", "get", "r"]).contains("[a/, a0) (prefix a/)"));
        ok(at, &[ALICE, "member", "list"]);
        refused(at, &["member", "list"], "user name is empty");
        assert_eq!(ok(at, &[ROOT, "user", "list"]), "alice\nroot\n");
    }
    refused(
        &all,
        &[ROOT, "user", "delete", "root"],
        "invalid auth management",
    );
    refused(
        &all,
        &[ROOT, "user", "revoke-role", "root", "root"],
        "invalid auth management",
    );
    refused(
        &all,
        &[ROOT, "role", "grant-permission", "r", "read", "b", "a"],
        "invalid auth management",
    );

    servers.iter_mut().for_each(Server::kill);
    start_all(&mut servers);
    for server in &servers {
        let at = &server.endpoint();
        ok(at, &[ALICE, "put", "k", "after"]);
        refused(at, &[ALICE, "put", "other", "2"], "permission denied");
    }
    ok(&all, &[ROOT, "role", "revoke-permission", "r", "k"]);
    refused(&all, &[ALICE, "put", "k", "v"], "permission denied");
    ok(&all, &[ROOT, "auth", "disable"]);
    wait_until("no member asks for a user", || !servers.iter().any(enabled));
}

async fn connect(server: &Server) -> Channel {
    Channel::from_shared(server.endpoint())
        .expect("a URL")
        .connect()
        .await
        .expect("connects")
}

fn with_token<T>(token: &str, message: T) -> tonic::Request<T> {
    let mut request = tonic::Request::new(message);
    let token = token.parse().expect("a token");
    request.metadata_mut().insert("token", token);
    request
}

async fn login(channel: &Channel, name: &str, password: &str) -> Result<String, tonic::Status> {
    let request = pb::AuthenticateRequest {
        name: name.to_owned(),
        password: password.to_owned(),
    };
    let answer = AuthClient::new(channel.clone()).authenticate(request).await;
    answer.map(|answer| answer.into_inner().token)
}

fn get(key: &str) -> pb::RangeRequest {
    pb::RangeRequest {
        key: key.to_owned().into(),
        ..Default::default()
    }
}

#[tokio::test]
async fn a_token_is_good_on_every_member_until_the_password_changes() {
    let mut servers = three();
    start_all(&mut servers);
    found_users(&endpoints(&servers));
    let first = connect(&servers[0]).await;
    let token = login(&first, "alice", "alicepw").await.expect("a token");
    for server in &servers {
        let mut kv = KvClient::new(connect(server).await);
        kv.range(with_token(&token, get("k")))
            .await
            .expect("known everywhere");
        let forged = format!("x{token}");
        let refused = kv.range(with_token(&forged, get("k"))).await.unwrap_err();
        assert_eq!(refused.code(), tonic::Code::Unauthenticated);
        assert_eq!(refused.message(), "etcdserver: invalid auth token");
    }
    let root = login(&first, "root", "rootpw").await.expect("a token");
    let change = pb::AuthUserChangePasswordRequest {
        name: "alice".to_owned(),
        password: "new".to_owned(),
        ..Default::default()
    };
    AuthClient::new(first.clone())
        .user_change_password(with_token(&root, change))
        .await
        .expect("changed");
    for server in &servers {
        let mut kv = KvClient::new(connect(server).await);
        let refused = kv.range(with_token(&token, get("k"))).await.unwrap_err();
        assert_eq!(refused.message(), "etcdserver: invalid auth token");
        kv.range(with_token(&root, get("k")))
            .await
            .expect("root's is good still");
    }
    assert!(login(&first, "alice", "alicepw").await.is_err());
    login(&first, "alice", "new")
        .await
        .expect("the new password");
}

fn openssl(dir: &Path, args: &str) {
    let output = Command::new("openssl")
        .args(args.split(' '))
        .current_dir(dir)
        .output()
        .expect("openssl is installed: run ci/setup");
    assert!(
        output.status.success(),
        "{args}: {}",
        String::from_utf8_lossy(&output.stderr)
    );
}

#[test]
fn signed_tokens_log_users_in_and_grow_old_with_a_change_of_users() {
    let dir = tempfile::TempDir::new().expect("a directory");
    openssl(dir.path(), "genrsa -out priv.pem 2048");
    openssl(dir.path(), "rsa -in priv.pem -pubout -out pub.pem");
    let file = |name: &str| dir.path().join(name).display().to_string();
    let flag = format!(
        "--auth-token=jwt,pub-key={},priv-key={},sign-method=RS256,ttl=10m",
        file("pub.pem"),
        file("priv.pem")
    );
    let mut server = Server::single(MEMBER, &[&flag]);
    server.start();
    server.wait_ready();
    let at = &server.endpoint();
    found_users(at);
    ok(at, &[ALICE, "put", "k", "v"]);
    refused(at, &[ALICE, "put", "x", "v"], "permission denied");
    // The users change between two calls of one client: it logs in again by itself.
    ok(at, &[ROOT, "user", "add", "bob:pw"]);
    ok(at, &[ALICE, "put", "k", "v"]);
    let runtime = tokio::runtime::Runtime::new().expect("a runtime");
    runtime.block_on(async {
        let channel = connect(&server).await;
        let token = login(&channel, "alice", "alicepw").await.expect("a token");
        assert_eq!(token.split('.').count(), 3, "{token}");
        let mut kv = KvClient::new(channel);
        kv.range(with_token(&token, get("k")))
            .await
            .expect("allowed");
        ok(at, &[ROOT, "user", "delete", "bob"]);
        let old = kv.range(with_token(&token, get("k"))).await.unwrap_err();
        assert_eq!(old.code(), tonic::Code::InvalidArgument);
        assert_eq!(old.message(), "etcdserver: revision of auth store is old");
    });
}

#[test]
fn tokens_that_cannot_be_made_stop_the_start() {
    for (flag, words) in [
        ("--auth-token=foo", "auth: invalid auth options"),
        (
            "--auth-token=jwt,sign-method=RS256",
            "auth: missing key data",
        ),
        (
            "--auth-token=jwt,pub-key=/nope,priv-key=/nope,sign-method=RS256",
            "open /nope: ",
        ),
    ] {
        let mut server = Server::single(MEMBER, &[flag]);
        server.start();
        assert_eq!(server.wait_exit().code(), Some(1), "{flag}");
        assert!(server.log().contains(words), "{flag}: {}", server.log());
        assert!(!server.data_dir().exists(), "{flag}");
    }
}

#[test]
fn a_certificates_common_name_is_the_user() {
    let dir = tempfile::TempDir::new().expect("a directory");
    let at = |name: &str| dir.path().join(name).display().to_string();
    let make = |args: &str| openssl(dir.path(), args);
    make("req -x509 -newkey rsa:2048 -nodes -keyout ca.key -out ca.crt -days 2 -subj /CN=ca");
    std::fs::write(at("ext"), "subjectAltName=IP:127.0.0.1\n").expect("written");
    for name in ["server", "root", "alice"] {
        make(&format!(
            "req -newkey rsa:2048 -nodes -keyout {name}.key -out {name}.csr -subj /CN={name}"
        ));
        make(&format!(
            "x509 -req -in {name}.csr -CA ca.crt -CAkey ca.key -CAcreateserial -out {name}.crt -days 2 -extfile ext"
        ));
    }
    let [client, peer] = free_ports();
    let url = format!("https://127.0.0.1:{client}");
    let initial = format!("infra0=http://127.0.0.1:{peer}");
    let tls = [
        format!("--listen-client-urls={url}"),
        format!("--advertise-client-urls={url}"),
        format!("--cert-file={}", at("server.crt")),
        format!("--key-file={}", at("server.key")),
        format!("--trusted-ca-file={}", at("ca.crt")),
        "--client-cert-auth".to_owned(),
    ];
    let tls: Vec<&str> = tls.iter().map(String::as_str).collect();
    let mut server = Server::of_cluster(MEMBER, "infra0", client, peer, &initial, &tls);
    server.start();
    let run = |name: &str, args: &[&str]| {
        let files = [
            format!("--cacert={}", at("ca.crt")),
            format!("--cert={}", at(&format!("{name}.crt"))),
            format!("--key={}", at(&format!("{name}.key"))),
        ];
        let all: Vec<&str> = files
            .iter()
            .map(String::as_str)
            .chain(args.iter().copied())
            .collect();
        etcdctl(&url, &all)
    };
    wait_until("ready", || run("root", &["get", "x"]).0);
    for args in [
        &["user", "add", "root", "--no-password"][..],
        &["user", "grant-role", "root", "root"],
        &["user", "add", "alice", "--no-password"],
        &["role", "add", "r"],
        &["role", "grant-permission", "r", "readwrite", "k"],
        &["user", "grant-role", "alice", "r"],
        &["auth", "enable"],
    ] {
        let (ok, _, err) = run("root", args);
        assert!(ok, "{args:?}: {err}");
    }
    assert!(run("root", &["put", "x", "1"]).0);
    assert!(run("alice", &["put", "k", "1"]).0);
    let (ok, _, err) = run("alice", &["put", "x", "1"]);
    assert!(!ok && err.contains("permission denied"), "{err}");
    let (ok, _, err) = run("server", &["put", "k", "1"]);
    assert!(!ok && err.contains("permission denied"), "{err}");
    let (ok, _, err) = run("alice", &["--user=alice:guess", "put", "k", "1"]);
    assert!(
        !ok && err.contains("password was given for no password user"),
        "{err}"
    );
}

/// A step of the script: a call's name, and its outcome in words.
type Outcome = (String, Result<String, (tonic::Code, String)>);

/// Runs one list of calls; what each answers, without what may differ.
async fn script(server: &Server) -> Vec<Outcome> {
    let channel = connect(server).await;
    let mut auth = AuthClient::new(channel.clone());
    let mut kv = KvClient::new(channel.clone());
    let mut outcomes: Vec<Outcome> = Vec::new();
    let mut token = String::new();
    let plain = |header: Option<pb::ResponseHeader>| header.map(|header| header.revision);
    macro_rules! ask {
        ($client:ident . $call:ident ( $request:expr ) -> $answer:ident => $shown:expr) => {{
            let mut request = tonic::Request::new($request);
            if !token.is_empty() {
                let token = token.parse().expect("a token");
                request.metadata_mut().insert("token", token);
            }
            let name = format!("{} {:?}", stringify!($call), request.get_ref());
            let outcome = $client.$call(request).await;
            let outcome = outcome
                .map(|answer| {
                    let $answer = answer.into_inner();
                    format!("{:?} {:?}", plain($answer.header.clone()), $shown)
                })
                .map_err(|status| (status.code(), status.message().to_owned()));
            outcomes.push((name, outcome));
        }};
        ($client:ident . $call:ident ( $request:expr )) => {
            ask!($client.$call($request) -> answer => { let _ = &answer; "" })
        };
    }
    let user = |name: &str| pb::AuthUserAddRequest {
        name: name.to_owned(),
        password: "pw".to_owned(),
        ..Default::default()
    };
    let role = |name: &str| pb::AuthRoleAddRequest {
        name: name.to_owned(),
    };
    let grant = |user: &str, role: &str| pb::AuthUserGrantRoleRequest {
        user: user.to_owned(),
        role: role.to_owned(),
    };
    let revoke = |name: &str, role: &str| pb::AuthUserRevokeRoleRequest {
        name: name.to_owned(),
        role: role.to_owned(),
    };
    let allow = |role: &str, kind: i32, key: &str, end: &str| pb::AuthRoleGrantPermissionRequest {
        name: role.to_owned(),
        perm: Some(authpb::Permission {
            perm_type: kind,
            key: key.to_owned().into(),
            range_end: end.to_owned().into(),
        }),
    };
    let disallow = |role: &str, key: &str, end: &str| pb::AuthRoleRevokePermissionRequest {
        role: role.to_owned(),
        key: key.to_owned().into(),
        range_end: end.to_owned().into(),
    };
    let put = |key: &str| pb::PutRequest {
        key: key.to_owned().into(),
        value: "v".into(),
        ..Default::default()
    };
    let del = |key: &str, end: &str, prev_kv| pb::DeleteRangeRequest {
        key: key.to_owned().into(),
        range_end: end.to_owned().into(),
        prev_kv,
    };
    ask!(auth.auth_disable(pb::AuthDisableRequest {}));
    ask!(auth.auth_enable(pb::AuthEnableRequest {}));
    ask!(auth.authenticate(pb::AuthenticateRequest {
        name: "root".to_owned(),
        password: "pw".to_owned()
    }));
    for name in ["", "root", "root", "alice", "bob"] {
        ask!(auth.user_add(user(name)));
    }
    ask!(auth.user_add(pb::AuthUserAddRequest {
        name: "cert".to_owned(),
        options: Some(authpb::UserAddOptions { no_password: true }),
        ..Default::default()
    }));
    ask!(auth.auth_enable(pb::AuthEnableRequest {}));
    for (name, role) in [
        ("nobody", "root"),
        ("root", "none"),
        ("root", "root"),
        ("root", "root"),
    ] {
        ask!(auth.user_grant_role(grant(name, role)));
    }
    ask!(auth.user_revoke_role(revoke("alice", "none")));
    ask!(auth.user_revoke_role(revoke("nobody", "none")));
    for name in ["", "r", "r", "s"] {
        ask!(auth.role_add(role(name)));
    }
    for (name, kind, key, end) in [
        ("none", 0, "a", ""),
        ("r", 0, "a", "c"),
        ("r", 1, "a", "c"),
        ("r", 0, "c", "e"),
        ("r", 2, "p", ""),
        ("r", 0, "x", "\0"),
    ] {
        ask!(auth.role_grant_permission(allow(name, kind, key, end)));
    }
    ask!(auth.role_revoke_permission(disallow("none", "a", "c")));
    ask!(auth.role_revoke_permission(disallow("r", "a", "")));
    ask!(auth.role_get(pb::AuthRoleGetRequest { role: "r".to_owned() }) -> answer => answer.perm);
    ask!(auth.role_get(pb::AuthRoleGetRequest { role: "none".to_owned() }) -> answer => answer.perm);
    ask!(auth.role_list(pb::AuthRoleListRequest {}) -> answer => answer.roles);
    ask!(auth.user_grant_role(grant("alice", "r")));
    ask!(auth.user_get(pb::AuthUserGetRequest { name: "alice".to_owned() }) -> answer => answer.roles);
    ask!(auth.user_get(pb::AuthUserGetRequest { name: "nobody".to_owned() }) -> answer => answer.roles);
    ask!(auth.user_list(pb::AuthUserListRequest {}) -> answer => answer.users);
    ask!(auth.user_delete(pb::AuthUserDeleteRequest {
        name: "nobody".to_owned()
    }));
    ask!(auth.role_delete(pb::AuthRoleDeleteRequest {
        role: "none".to_owned()
    }));
    ask!(kv.put(put("q")));
    ask!(auth.auth_enable(pb::AuthEnableRequest {}));
    ask!(auth.auth_enable(pb::AuthEnableRequest {}));
    for (name, password) in [
        ("nobody", "pw"),
        ("root", "no"),
        ("cert", "pw"),
        ("bob", ""),
    ] {
        ask!(auth.authenticate(pb::AuthenticateRequest {
            name: name.to_owned(),
            password: password.to_owned()
        }));
    }
    for who in ["", "forged.1", "nonsense", "alice", "bob", "root"] {
        token = match who {
            "alice" | "bob" | "root" => login(&channel, who, "pw").await.expect("a token"),
            other => other.to_owned(),
        };
        for key in ["b", "d", "p", "pp"] {
            ask!(kv.range(get(key)) -> answer => answer.count);
            ask!(kv.put(put(key)));
            ask!(kv.put(pb::PutRequest {
                prev_kv: true,
                ..put(key)
            }));
        }
        for (key, end) in [
            ("a", "c"),
            ("a", "d"),
            ("c", "e"),
            ("p", "q"),
            ("x", "\0"),
            ("w", "\0"),
            ("y", "z"),
        ] {
            ask!(kv.range(pb::RangeRequest { range_end: end.to_owned().into(), ..get(key) }) -> answer => answer.count);
            ask!(kv.delete_range(del(key, end, false)) -> answer => answer.deleted);
            ask!(kv.delete_range(del(key, end, true)) -> answer => answer.deleted);
        }
        ask!(auth.user_add(user(&format!("by {who}"))));
        ask!(auth.user_list(pb::AuthUserListRequest {}) -> answer => answer.users.len());
        ask!(auth.role_list(pb::AuthRoleListRequest {}) -> answer => answer.roles);
        for name in ["alice", "root", "nobody"] {
            ask!(auth.user_get(pb::AuthUserGetRequest { name: name.to_owned() }) -> answer => answer.roles);
        }
        for name in ["r", "root", "none"] {
            ask!(auth.role_get(pb::AuthRoleGetRequest { role: name.to_owned() }) -> answer => answer.perm);
        }
    }
    ask!(auth.user_delete(pb::AuthUserDeleteRequest {
        name: "root".to_owned()
    }));
    ask!(auth.user_revoke_role(revoke("root", "root")));
    ask!(auth.role_delete(pb::AuthRoleDeleteRequest {
        role: "root".to_owned()
    }));
    ask!(auth.role_delete(pb::AuthRoleDeleteRequest {
        role: "r".to_owned()
    }));
    ask!(auth.user_get(pb::AuthUserGetRequest { name: "alice".to_owned() }) -> answer => answer.roles);
    ask!(auth.auth_disable(pb::AuthDisableRequest {}));
    token.clear();
    ask!(kv.put(put("q")));
    ask!(auth.user_delete(pb::AuthUserDeleteRequest {
        name: "root".to_owned()
    }));
    outcomes
}

#[tokio::test]
async fn answers_and_refusals_are_etcds() {
    let mut servers = [ETCD, MEMBER].map(|binary| Server::single(binary, &["--bcrypt-cost=4"]));
    start_all(&mut servers);
    let etcds = script(&servers[0]).await;
    let ours = script(&servers[1]).await;
    let differing: Vec<_> = etcds
        .iter()
        .zip(&ours)
        .filter(|(etcd, own)| etcd != own)
        .collect();
    assert!(differing.is_empty(), "{differing:#?}");
    assert_eq!(etcds.len(), ours.len());
}
