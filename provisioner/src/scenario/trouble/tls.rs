//! Certificates that do not fit: of clients, of other members, of the server itself.

use futures_util::FutureExt;

use super::Trouble;
use crate::scenario::authority::{Authority, Leaf};
use crate::scenario::definition::Need;
use crate::scenario::failure::Failure;
use crate::scenario::server::Server;
use crate::scenario::stage::Stage;
use crate::scenario::subject::Words;

const GUIDE: &str = "clustering guide: TLS, Self-signed certificates";

pub(super) const TROUBLES: &[Trouble] = &[
    Trouble::new(
        "tls/client-without-certificate",
        GUIDE,
        "a client that shows no certificate is refused, and the reason is logged",
        |stage| client(stage, Client::None).boxed_local(),
    ),
    Trouble::new(
        "tls/client-of-another-ca",
        GUIDE,
        "a client with a certificate of another CA is refused, and the reason is logged",
        |stage| client(stage, Client::OtherCa).boxed_local(),
    ),
    Trouble::new(
        "tls/client-expired",
        GUIDE,
        "a client with an expired certificate is refused, and the reason is logged",
        |stage| client(stage, Client::Expired).boxed_local(),
    ),
    Trouble::new(
        "tls/client-revoked",
        "security guide: --client-crl-file",
        "a client whose certificate is on the list of revoked ones is refused, and the reason is logged",
        |stage| client(stage, Client::Revoked).boxed_local(),
    ),
    Trouble {
        needs: &[Need::Etcd {
            minor: (3, 5),
            why: "etcd 3.4 does not check clients by --client-cert-allowed-hostname",
        }],
        ..Trouble::new(
            "tls/client-of-another-name",
            "security guide: --client-cert-allowed-hostname",
            "a client whose certificate has not the allowed name is refused, and the reason is logged",
            |stage| client(stage, Client::OtherName).boxed_local(),
        )
    },
    Trouble::new(
        "tls/server-expired",
        GUIDE,
        "a server whose certificate has expired starts, and no client takes it",
        |stage| server_expired(stage).boxed_local(),
    ),
    Trouble::new(
        "tls/peer-of-another-cn",
        "security guide: --peer-cert-allowed-cn",
        "a member whose certificate has another common name is kept out by the two others, who log why",
        |stage| peer(stage, Peer::Name).boxed_local(),
    ),
    Trouble::new(
        "tls/peer-of-another-address",
        "security guide: Notes for TLS authentication (SAN)",
        "a member whose certificate is good for another address is kept out by the two others, who log why",
        |stage| peer(stage, Peer::Address).boxed_local(),
    ),
    Trouble::new(
        "tls/peer-of-another-ca",
        GUIDE,
        "a member with a certificate of another CA is kept out by the two others, who log why",
        |stage| peer(stage, Peer::Authority).boxed_local(),
    ),
];

/// What is wrong with the client.
#[derive(Clone, Copy, PartialEq, Eq)]
enum Client {
    None,
    OtherCa,
    Expired,
    Revoked,
    OtherName,
}

/// What is another one in the third member's certificate.
#[derive(Clone, Copy, PartialEq, Eq)]
enum Peer {
    Name,
    Address,
    Authority,
}

fn leaf<'a>(name: &'a str, serial: u64, hosts: &'a [&'a str]) -> Leaf<'a> {
    Leaf {
        name,
        serial,
        hosts,
        expired: false,
    }
}

fn file(stage: &Stage, name: &str) -> String {
    stage.path(name).display().to_string()
}

/// A lone member that speaks TLS to its clients, with the certificate `server`; and its URL.
fn secure<'s>(stage: &'s Stage, more: Vec<String>) -> Result<(Server<'s>, String), Failure> {
    let server = Server::alone(stage, "infra0")?;
    let url = format!("https://127.0.0.1:{}", server.client_port);
    let flags = [
        format!("--listen-client-urls={url}"),
        format!("--advertise-client-urls={url}"),
        format!("--cert-file={}", file(stage, "server.crt")),
        format!("--key-file={}", file(stage, "server.key")),
    ];
    Ok((server.with(flags).with(more), url))
}

/// etcdctl's flags for a client with that certificate.
fn shows(stage: &Stage, name: Option<&str>) -> Vec<String> {
    let mut flags = vec![format!("--cacert={}", file(stage, "ca.crt"))];
    if let Some(name) = name {
        flags.push(format!("--cert={}", file(stage, &format!("{name}.crt"))));
        flags.push(format!("--key={}", file(stage, &format!("{name}.key"))));
    }
    flags
}

async fn client(stage: &Stage, wrong: Client) -> Result<(), Failure> {
    stage.step("certificates");
    let authority = Authority::new("ca")?;
    // The other authority's certificate must not end up in place of the right one.
    if wrong == Client::OtherCa {
        Authority::new("other")?.issue(stage, &leaf("bad", 3, &["a.example"]))?;
    }
    authority.issue(stage, &leaf("server", 1, &["127.0.0.1"]))?;
    authority.issue(stage, &leaf("good", 2, &["a.example", "allowed.example"]))?;
    match wrong {
        Client::None | Client::OtherCa => {}
        Client::Expired => authority.issue(
            stage,
            &Leaf {
                expired: true,
                ..leaf("bad", 3, &["a.example"])
            },
        )?,
        Client::Revoked | Client::OtherName => {
            authority.issue(stage, &leaf("bad", 0xabc, &["a.example"]))?;
        }
    }
    let mut flags = vec![
        format!("--trusted-ca-file={}", file(stage, "ca.crt")),
        "--client-cert-auth".to_owned(),
    ];
    if wrong == Client::Revoked {
        let list = authority.revoke(stage, &[7, 0xabc])?;
        flags.push(format!("--client-crl-file={list}"));
    }
    if wrong == Client::OtherName {
        flags.push("--client-cert-allowed-hostname=allowed.example".to_owned());
    }
    stage.step("a server starts and serves a good client");
    let (mut server, url) = secure(stage, flags)?;
    server.start()?;
    server.answers(&url, &shows(stage, Some("good"))).await?;
    stage.step("the other client");
    let bad = shows(stage, (wrong != Client::None).then_some("bad"));
    if server.serves(&url, &bad).await? {
        return Err(Failure::check("the client is refused", "it is served"));
    }
    server
        .says(Words::same(match wrong {
            Client::None => "tls: client didn't provide a certificate",
            Client::OtherCa => "x509: certificate signed by unknown authority",
            Client::Expired => "x509: certificate has expired or is not yet valid",
            Client::Revoked => "certificate serial 0abc revoked",
            Client::OtherName => "client certificate authentication failed",
        }))
        .await?;
    if server.serves(&url, &shows(stage, Some("good"))).await? {
        return Ok(());
    }
    Err(Failure::check(
        "the good client is still served",
        "it is refused",
    ))
}

async fn server_expired(stage: &Stage) -> Result<(), Failure> {
    stage.step("certificates");
    let authority = Authority::new("ca")?;
    authority.issue(
        stage,
        &Leaf {
            expired: true,
            ..leaf("server", 1, &["127.0.0.1"])
        },
    )?;
    stage.step("a server starts");
    let (mut server, url) = secure(stage, Vec::new())?;
    server.start()?;
    server
        .says(Words::same("ready to serve client requests"))
        .await?;
    stage.step("a client");
    if server.serves(&url, &shows(stage, None)).await? {
        return Err(Failure::check("the client refuses", "it is served"));
    }
    server
        .says(Words::same("remote error: tls: bad certificate"))
        .await
}

async fn peer(stage: &Stage, wrong: Peer) -> Result<(), Failure> {
    stage.step("certificates");
    let authority = Authority::new("ca")?;
    match wrong {
        Peer::Name => authority.issue(stage, &leaf("bad", 2, &["127.0.0.1", "localhost"]))?,
        Peer::Address => authority.issue(stage, &leaf("bad", 2, &["10.9.9.9"]))?,
        Peer::Authority => {
            Authority::new("other")?.issue(stage, &leaf("bad", 2, &["127.0.0.1"]))?;
        }
    }
    authority.issue(stage, &leaf("peer", 1, &["127.0.0.1"]))?;
    stage.step("three members start, one with another certificate");
    let mut servers = Server::cluster(stage, 3)?;
    for server in &mut servers {
        for arg in &mut server.args {
            if arg.starts_with("--initial-cluster=") {
                *arg = arg.replace("http://", "https://");
            }
        }
    }
    for (server, name) in servers.iter_mut().zip(["peer", "peer", "bad"]) {
        let url = format!("https://127.0.0.1:{}", server.peer_port);
        server.args.extend([
            format!("--listen-peer-urls={url}"),
            format!("--initial-advertise-peer-urls={url}"),
            format!("--peer-cert-file={}", file(stage, &format!("{name}.crt"))),
            format!("--peer-key-file={}", file(stage, &format!("{name}.key"))),
            format!("--peer-trusted-ca-file={}", file(stage, "ca.crt")),
            "--peer-client-cert-auth".to_owned(),
        ]);
        if wrong == Peer::Name {
            server.args.push("--peer-cert-allowed-cn=peer".to_owned());
        }
        server.start()?;
    }
    servers[0].ready().await?;
    servers[1].ready().await?;
    stage.step("the third is refused");
    servers[0]
        .says(Words::same(match wrong {
            Peer::Name => "client certificate authentication failed",
            Peer::Address => "x509: certificate is valid for 10.9.9.9, not 127.0.0.1",
            Peer::Authority => "x509: certificate signed by unknown authority",
        }))
        .await?;
    if servers[2].serves(&servers[2].client_url(), &[]).await? {
        return Err(Failure::check(
            "the third serves nobody",
            "it answers a read",
        ));
    }
    Ok(())
}
