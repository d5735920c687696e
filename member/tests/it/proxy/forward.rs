//! What passes through a proxy, what it answers itself, and what it does when members go and come.

use std::os::unix::process::ExitStatusExt;
use std::path::PathBuf;

use super::{BINARIES, cluster_file, endpoints, proxy, started, wait_for_endpoints};
use crate::process::{MEMBER, Server, etcdctl, http_get, readable_by_others, wait_until};
use crate::server::{start_all, three};
use crate::v2::client::{FORM, ask, request};

const NO_ENDPOINT: &str = r#"{"message":"httpproxy: zero endpoints currently available"}"#;

fn v2_member() -> Server {
    Server::started(MEMBER, &["--enable-v2"])
}

#[test]
fn requests_pass_and_answers_come_back() {
    let members = [v2_member()];
    for binary in BINARIES {
        let mut proxy = started(binary, &members, &[]);
        let port = proxy.client_port;
        let put = request(port, "PUT", "/v2/keys/a", FORM, "value=1");
        assert_eq!(put.status, 201, "{binary}");
        assert!(put.header("x-etcd-index").is_some(), "{binary}");
        let (status, body) = ask(port, "GET", "/v2/keys/a?quorum=true", "");
        assert!(status == 200 && body.contains(r#""value":"1""#), "{body}");
        let mut head = request(port, "HEAD", "/v2/keys/a", "", "");
        assert_eq!((head.status, head.body().as_str()), (200, ""), "{binary}");

        let target = "/v2/keys/a?wait=true";
        let index = put.header("x-etcd-index").expect("an index").to_owned();
        let next = index.parse::<u64>().expect("a number") + 1;
        let waiting =
            std::thread::spawn(move || ask(port, "GET", &format!("{target}&waitIndex={next}"), ""));
        let (status, _) = ask(port, "DELETE", "/v2/keys/a", "");
        assert_eq!(status, 200, "{binary}");
        let (status, body) = waiting.join().expect("answered");
        assert!(status == 200 && body.contains("delete"), "{binary}: {body}");

        let (status, body) = ask(port, "GET", "/v2/keys/a", "");
        assert!(status == 404 && body.contains("Key not found"), "{body}");
        let (status, body) = ask(port, "GET", "/health", "");
        assert!(status == 200 && body.contains("true"), "{binary}: {body}");

        let expected = format!("{{\"endpoints\":[\"{}\"]}}\n", members[0].endpoint());
        let own = "/v2/config/local/proxy";
        assert_eq!(ask(port, "GET", own, ""), (200, expected), "{binary}");
        let mut refused = request(port, "PUT", own, "", "");
        assert_eq!(refused.header("allow"), Some("GET"), "{binary}");
        assert_eq!(
            (refused.status, refused.body().trim_end()),
            (405, "Method Not Allowed"),
            "{binary}"
        );
        let metrics = http_get(port, "/metrics").expect("answers");
        for line in [
            "etcd_proxy_requests_total{method=\"PUT\"} 1\n",
            "etcd_proxy_handled_total{code=\"201\",method=\"PUT\"} 1\n",
            "etcd_proxy_handled_total{code=\"404\",method=\"GET\"} 1\n",
            "# HELP etcd_proxy_handled_total Counter of requests fully handled (by authoratitave servers)\n",
            "# TYPE etcd_proxy_handling_duration_seconds histogram\n",
            "etcd_proxy_handling_duration_seconds_bucket{method=\"DELETE\",le=\"2.048\"} ",
        ] {
            assert!(metrics.contains(line), "{binary}: {line}\n{metrics}");
        }

        let (ok, _, err) = etcdctl(
            &proxy.endpoint(),
            &["--command-timeout=2s", "--dial-timeout=2s", "get", "a"],
        );
        assert!(!ok, "{binary} serves no gRPC");
        if binary == MEMBER {
            assert!(err.contains("this is a proxy of the v2 API"), "{err}");
            assert_eq!(readable_by_others(&proxy.data_dir()), Vec::<PathBuf>::new());
        }
        let noted = format!(
            "{{\"PeerURLs\":[\"http://127.0.0.1:{}\"]}}",
            members[0].peer_port
        );
        assert_eq!(cluster_file(&proxy), noted, "{binary}");
        assert_eq!(proxy.signal("TERM").signal(), Some(15), "{binary}");
    }
}

#[test]
fn readonly_answers_nothing_but_get() {
    let members = [v2_member()];
    let (status, _) = ask(members[0].client_port, "PUT", "/v2/keys/a", "value=1");
    assert_eq!(status, 201);
    for binary in BINARIES {
        let proxy = started(binary, &members, &["--proxy=readonly"]);
        let port = proxy.client_port;
        let (status, body) = ask(port, "GET", "/v2/keys/a", "");
        assert!(status == 200 && body.contains(r#""value":"1""#), "{body}");
        for method in ["PUT", "POST", "DELETE", "HEAD", "OPTIONS", "PATCH"] {
            for target in ["/v2/keys/a", "/v2/config/local/proxy"] {
                let answer = ask(port, method, target, "");
                assert_eq!(answer, (501, String::new()), "{binary}: {method}");
            }
        }
        assert_eq!(endpoints(&proxy).len(), 1, "{binary}");
    }
    let (_, body) = ask(members[0].client_port, "GET", "/v2/keys/a", "");
    assert!(body.contains(r#""value":"1""#), "{body}");
}

#[test]
fn a_dead_member_is_left_alone_and_the_next_one_asked() {
    let mut members = three();
    members
        .iter_mut()
        .for_each(|member| member.arg("--enable-v2"));
    start_all(&mut members);
    for binary in BINARIES {
        let long = "--proxy-refresh-interval=600000";
        let patient = started(binary, &members, &[long, "--proxy-failure-wait=600000"]);
        let hasty = started(binary, &members, &[long, "--proxy-failure-wait=1"]);
        for proxy in [&patient, &hasty] {
            let order = endpoints(proxy);
            // A proxy asks them in the order in which it lists them.
            let dead = members
                .iter_mut()
                .find(|member| member.endpoint() == order[0])
                .expect("a member");
            dead.kill();
            wait_until("the others have a leader", || {
                ask(proxy.client_port, "PUT", "/v2/keys/a", "value=1").0 / 100 == 2
            });
            if proxy.client_port == patient.client_port {
                assert_eq!(endpoints(proxy), order[1..], "{binary}");
            } else {
                wait_until("it is trusted again", || endpoints(proxy) == order);
            }
            dead.start();
            dead.wait_ready();
        }
    }
}

#[test]
fn members_that_are_all_down_are_looked_for_until_they_are_back() {
    let mut members = [Server::single(MEMBER, &["--enable-v2"])];
    for binary in BINARIES {
        let peer = format!("infra0=http://127.0.0.1:{}", members[0].peer_port);
        let mut proxy = proxy(binary, &["--proxy=on", "--proxy-failure-wait=600000"]);
        proxy.arg(&format!("--initial-cluster={peer}"));
        proxy.start();
        wait_until("the proxy listens", || {
            http_get(proxy.client_port, "/v2/config/local/proxy").is_some()
        });
        let port = proxy.client_port;
        let mut refused = request(port, "GET", "/v2/keys/", "", "");
        assert_eq!(
            (refused.status, refused.body().as_str()),
            (503, NO_ENDPOINT),
            "{binary}"
        );
        assert_eq!(refused.header("content-type"), Some("application/json"));
        assert_eq!(cluster_file(&proxy), "", "{binary} has seen no member");
        members[0].start();
        members[0].wait_ready();
        wait_for_endpoints(&proxy, 1);
        assert_eq!(ask(port, "GET", "/v2/keys/", "").0, 200, "{binary}");

        members[0].kill();
        let lost = r#"{"message":"httpproxy: unable to get response from 1 endpoint(s)"}"#;
        let answer = ask(port, "GET", "/v2/keys/", "");
        assert_eq!(answer, (502, lost.to_owned()), "{binary}");
        let answer = ask(port, "PUT", "/v2/keys/a", "value=1");
        assert_eq!(answer, (503, NO_ENDPOINT.to_owned()), "{binary}");
        let metrics = http_get(port, "/metrics").expect("answers");
        for line in [
            "{method=\"GET\",proxying_error=\"failed_sending_request\"} 1\n",
            "{method=\"GET\",proxying_error=\"failed_getting_response\"} 1\n",
            "{method=\"PUT\",proxying_error=\"zero_endpoints\"} 1\n",
        ] {
            let line = format!("etcd_proxy_dropped_total{line}");
            assert!(metrics.contains(&line), "{binary}: {line}\n{metrics}");
        }
        drop(proxy);
        members[0].start();
        members[0].wait_ready();

        let often = [
            "--proxy-failure-wait=600000",
            "--proxy-refresh-interval=500",
        ];
        let proxy = started(binary, &members, &often);
        members[0].kill();
        wait_until("nobody is there", || {
            ask(proxy.client_port, "GET", "/v2/keys/", "").0 == 503
        });
        members[0].start();
        members[0].wait_ready();
        wait_until("a new look at the members", || {
            ask(proxy.client_port, "GET", "/v2/keys/", "").0 == 200
        });
        members[0].kill();
    }
}
