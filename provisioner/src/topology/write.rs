//! A topology as TOML again: expanded, with absolute paths, so that it means the same from any directory and environment.

use toml::{Table, Value};

use super::model::{Binary, Bootstrap, ClientTls, PeerTls, Topology};

/// Writes a topology whose parse is equal to it. Warnings' waivers are not part of a topology and are left out.
pub fn to_toml(topology: &Topology) -> String {
    let Topology {
        name,
        bootstrap,
        tls,
        members,
    } = topology;
    let mut file = Table::new();
    file.insert("name".into(), text(name));
    let Bootstrap::Static { token } = bootstrap;
    let mut table = Table::from_iter([("method".to_owned(), text("static"))]);
    if let Some(token) = token {
        table.insert("token".into(), text(token));
    }
    file.insert("bootstrap".into(), table.into());

    let peer = match tls.peer {
        PeerTls::Off => "off",
        PeerTls::Auto => "auto",
        PeerTls::Mutual => "mutual",
    };
    let client = match tls.client {
        ClientTls::Off => "off",
        ClientTls::Auto => "auto",
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
        (
            "extra-sans".to_owned(),
            tls.extra_sans
                .iter()
                .map(|san| text(san))
                .collect::<Vec<_>>()
                .into(),
        ),
    ]);
    if let Some(ca) = &tls.ca {
        let files = [("cert", &ca.cert), ("key", &ca.key)]
            .map(|(key, path)| (key.to_owned(), text(&path.to_string_lossy())));
        table.insert("ca".into(), Table::from_iter(files).into());
    }
    file.insert("tls".into(), table.into());

    let members: Vec<Value> = members
        .iter()
        .map(|member| {
            let mut table = Table::from_iter([
                ("name".to_owned(), text(&member.name)),
                ("address".to_owned(), text(&member.address)),
                ("listen".to_owned(), text(&member.listen.to_string())),
            ]);
            let optional = [
                ("zone", member.zone.as_deref().map(text)),
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
    file.to_string()
}

/// A string that means itself: `${` is the only text with a meaning of its own that a checked value can hold.
fn text(value: &str) -> Value {
    value.replace("${", "$${").into()
}
