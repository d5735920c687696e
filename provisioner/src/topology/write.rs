//! A topology as TOML again: expanded, with absolute paths, so that it means the same from any directory and environment.

use std::net::SocketAddr;
use std::path::Path;

use toml::{Table, Value};

use super::model::{
    Backup, Binary, Bootstrap, ClientTls, Discovery, Keeper, Network, PeerTls, Protocol, Role,
    Settings, SshHost, Topology,
};

/// Writes a topology whose parse is equal to it. Waivers of lints are not part of a topology and are left out.
pub fn to_toml(topology: &Topology) -> String {
    let Topology {
        name,
        network,
        settings,
        bootstrap,
        tls,
        members,
        gateways,
        backup,
        waived_checks,
    } = topology;
    let mut file = Table::new();
    file.insert("name".into(), text(name));
    if *network == Network::Private {
        file.insert("network".into(), text("private"));
    }
    let settings = match settings {
        Settings::Flags => "flags",
        Settings::Env => "env",
        Settings::File => "file",
    };
    file.insert("settings".into(), text(settings));
    file.insert("bootstrap".into(), bootstrap_table(bootstrap).into());

    let peer = match tls.peer {
        PeerTls::Off => "off",
        PeerTls::Auto => "auto",
        PeerTls::Prepared => "prepared",
        PeerTls::Mutual => "mutual",
    };
    let client = match tls.client {
        ClientTls::Off => "off",
        ClientTls::Auto => "auto",
        ClientTls::Both => "both",
        ClientTls::Server => "server",
        ClientTls::Mutual => "mutual",
    };
    let mut table = Table::from_iter([
        ("peer".to_owned(), text(peer)),
        ("client".to_owned(), text(client)),
        (
            "validity-days".to_owned(),
            i64::from(tls.validity_days).into(),
        ),
        ("extra-sans".to_owned(), texts(&tls.extra_sans)),
        ("clients".to_owned(), texts(&tls.clients)),
    ]);
    if let Some(ca) = &tls.ca {
        let files = [("cert", &ca.cert), ("key", &ca.key)]
            .map(|(key, path)| (key.to_owned(), text(&path.to_string_lossy())));
        table.insert("ca".into(), Table::from_iter(files).into());
    }
    file.insert("tls".into(), table.into());

    if !waived_checks.is_empty() {
        let allow = waived_checks.iter();
        let allow =
            Table::from_iter(allow.map(|(check, reason)| (check.to_string(), text(reason))));
        let table = Table::from_iter([("allow".to_owned(), Value::from(allow))]);
        file.insert("checks".into(), table.into());
    }

    let members: Vec<Value> = members
        .iter()
        .map(|member| {
            let mut table = Table::from_iter([
                ("name".to_owned(), text(&member.name)),
                ("address".to_owned(), text(&member.address)),
                ("listen".to_owned(), text(&member.listen.to_string())),
            ]);
            let optional = [
                ("host", member.host.as_ref().map(|host| text(&host.url()))),
                ("zone", member.zone.as_deref().map(text)),
                (
                    "role",
                    (member.role == Role::Learner).then(|| text("learner")),
                ),
                (
                    "client-port",
                    member.client_port.map(|port| i64::from(port).into()),
                ),
                (
                    "peer-port",
                    member.peer_port.map(|port| i64::from(port).into()),
                ),
                (
                    "binary",
                    match &member.binary {
                        Binary::Included => None,
                        Binary::Path(path) => Some(text(&path.to_string_lossy())),
                    },
                ),
            ];
            table.extend(
                optional
                    .into_iter()
                    .filter_map(|(key, value)| Some((key.to_owned(), value?))),
            );
            let flags: Table = member
                .flags
                .iter()
                .map(|(name, value)| (name.clone(), text(value)))
                .collect();
            if !flags.is_empty() {
                table.insert("flags".into(), flags.into());
            }
            table.into()
        })
        .collect();
    file.insert("member".into(), members.into());
    if let Some(host) = topology
        .members
        .iter()
        .find_map(|member| member.host.as_ref())
    {
        file.insert("host-defaults".into(), host_defaults(host).into());
    }
    let gateways: Vec<Value> = gateways
        .iter()
        .map(|gateway| {
            let listen = match gateway.port {
                Some(port) => SocketAddr::new(gateway.listen, port).to_string(),
                None => gateway.listen.to_string(),
            };
            let mut table = Table::from_iter([("listen".to_owned(), text(&listen))]);
            if let Binary::Path(path) = &gateway.binary {
                table.insert("binary".into(), text(&path.to_string_lossy()));
            }
            table.into()
        })
        .collect();
    if !gateways.is_empty() {
        file.insert("gateway".into(), gateways.into());
    }
    if let Some(backup) = backup {
        file.insert("backup".into(), backup_table(backup).into());
    }
    file.to_string()
}

// All members share it but for what their URLs hold.
fn host_defaults(host: &SshHost) -> Table {
    let path = |path: &Path| text(&path.to_string_lossy());
    let mut table = Table::from_iter([
        ("jump".to_owned(), texts(&host.jump)),
        ("sudo".to_owned(), host.sudo.into()),
        (
            "service".to_owned(),
            text(match host.keeper {
                Keeper::Systemd => "systemd",
                Keeper::Process => "process",
            }),
        ),
        ("install-dir".to_owned(), path(&host.install_dir)),
        ("data-dir".to_owned(), path(&host.data_dir)),
        ("run-as".to_owned(), text(&host.run_as)),
    ]);
    let files = [
        ("identity", &host.identity),
        ("ssh-config", &host.ssh_config),
    ];
    for (key, file) in files {
        if let Some(file) = file {
            table.insert(key.to_owned(), path(file));
        }
    }
    table
}

fn backup_table(backup: &Backup) -> Table {
    let Backup {
        dir,
        keep,
        keep_for,
        encrypt_to,
        verify,
        schedule,
    } = backup;
    let mut table = Table::from_iter([
        ("encrypt-to".to_owned(), texts(encrypt_to)),
        ("verify".to_owned(), (*verify).into()),
    ]);
    let optional = [
        ("dir", dir.as_ref().map(|dir| text(&dir.to_string_lossy()))),
        ("keep", keep.map(|keep| i64::from(keep).into())),
        (
            "keep-for",
            keep_for.map(|age| text(&format!("{}ms", age.as_millis()))),
        ),
        ("schedule", schedule.as_deref().map(text)),
    ];
    for (key, value) in optional {
        table.extend(value.map(|value| (key.to_owned(), value)));
    }
    table
}

fn bootstrap_table(bootstrap: &Bootstrap) -> Table {
    let mut table = Table::new();
    let mut set = |key: &str, value: &str| {
        table.insert(key.to_owned(), text(value));
    };
    if let Some(token) = bootstrap.token() {
        set("token", token);
    }
    match bootstrap {
        Bootstrap::Static { .. } => set("method", "static"),
        Bootstrap::DnsSrv {
            domain, srv_name, ..
        } => {
            set("method", "dns-srv");
            set("domain", domain);
            if let Some(name) = srv_name {
                set("srv-name", name);
            }
        }
        Bootstrap::Discovery { service, proxy } => {
            set("method", "discovery");
            if let Some(proxy) = proxy {
                set("proxy", proxy);
            }
            match service {
                Discovery::BuiltIn(protocol) => {
                    set("service", "builtin");
                    set(
                        "protocol",
                        match protocol {
                            Protocol::Private => "private",
                            Protocol::Public => "public",
                            Protocol::V3 => "v3",
                        },
                    );
                }
                Discovery::Url(url) => set("url", url),
                Discovery::Endpoints { endpoints, .. } => {
                    table.insert("endpoints".into(), texts(endpoints));
                }
            }
        }
    }
    table
}

fn texts(values: &[String]) -> Value {
    let values: Vec<Value> = values.iter().map(|value| text(value)).collect();
    values.into()
}

/// A string that means itself: `${` is the only text with a meaning of its own that a checked value can hold.
fn text(value: &str) -> Value {
    value.replace("${", "$${").into()
}
