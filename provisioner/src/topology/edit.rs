//! Changes of a topology's text that leave the rest of it, comments too, as it is.

use std::collections::BTreeMap;

use toml_edit::{ArrayOfTables, DocumentMut, Item, Table, TableLike, Value, value};

use super::ranges;

/// A change of the text.
#[derive(Clone, Copy, Debug)]
pub enum Edit<'a> {
    /// A member lives on another machine.
    Host {
        /// Who.
        member: &'a str,
        /// `ssh://...`
        url: &'a str,
        /// What it advertises; `None`: the host's name, or what the file says where it says nothing of its own.
        address: Option<&'a str>,
    },
    /// Members run another program; none named: all.
    Binary {
        /// Who.
        members: &'a [String],
        /// Its path or name.
        binary: &'a str,
    },
}

/// Why a text was not changed.
#[derive(Debug, thiserror::Error)]
pub enum EditError {
    /// It is no TOML.
    #[error("the topology cannot be read as TOML")]
    Toml(#[from] toml_edit::TomlError),
    /// No entry is of this member: its name may come from a variable.
    #[error("no [[member]] has the name {0:?} written out")]
    NotWritten(String),
    /// It has an address of its own, which would no longer be right.
    #[error("member {0} has an `address`, and that of the new machine is not known")]
    Address(String),
}

/// The text with the change in it. An entry that stands for several members becomes several where they differ now.
///
/// # Errors
/// The change has no place in the text.
pub fn edit(text: &str, edit: Edit<'_>) -> Result<String, EditError> {
    let mut document: DocumentMut = text.parse()?;
    let entries = document
        .get("member")
        .and_then(Item::as_array_of_tables)
        .cloned()
        .unwrap_or_default();
    let mut changed: Vec<String> = Vec::new();
    let mut new = ArrayOfTables::new();
    for entry in &entries {
        let singles = singles(entry);
        let concerns = |name: &str| match edit {
            Edit::Host { member, .. } => member == name,
            Edit::Binary { members, .. } => {
                members.is_empty() || members.iter().any(|member| member == name)
            }
        };
        let names: Vec<String> = singles.iter().map(name).collect();
        let concerned = names.iter().filter(|name| concerns(name));
        changed.extend(concerned.clone().cloned());
        match concerned.count() {
            0 => new.push(placed_anywhere(entry)),
            // The change is the same for all of them.
            all if all == names.len() && (all == 1 || matches!(edit, Edit::Binary { .. })) => {
                let mut entry = placed_anywhere(entry);
                change(&mut entry, edit)?;
                new.push(entry);
            }
            _ => {
                for (mut single, name) in singles.into_iter().zip(names) {
                    if concerns(&name) {
                        change(&mut single, edit)?;
                    }
                    new.push(single);
                }
            }
        }
    }
    let wanted: &[String] = match edit {
        Edit::Host { member, .. } => &[member.to_owned()],
        Edit::Binary { members, .. } => members,
    };
    if let Some(missing) = wanted.iter().find(|name| !changed.contains(name)) {
        return Err(EditError::NotWritten(missing.clone()));
    }
    document.insert("member", Item::ArrayOfTables(new));
    Ok(document.to_string())
}

fn change(entry: &mut Table, edit: Edit<'_>) -> Result<(), EditError> {
    match edit {
        Edit::Host { url, address, .. } => {
            set(entry, "host", url);
            match address {
                Some(address) => set(entry, "address", address),
                None if entry.contains_key("address") => {
                    return Err(EditError::Address(name(entry)));
                }
                None => {}
            }
        }
        Edit::Binary { binary, .. } => set(entry, "binary", binary),
    }
    Ok(())
}

// What stands around a value, such as a comment behind it, stays.
fn set(entry: &mut Table, key: &str, text: &str) {
    match entry.get_mut(key).and_then(Item::as_value_mut) {
        Some(old) => {
            let decor = old.decor().clone();
            *old = Value::from(text);
            *old.decor_mut() = decor;
        }
        None => drop(entry.insert(key, value(text))),
    }
}

fn name(entry: &Table) -> String {
    let name = entry.get("name").and_then(Item::as_str);
    name.unwrap_or_default().to_owned()
}

/// The entries that an entry with ranges stands for. One whose ranges do not fit is returned as it is: reading it says why.
fn singles(entry: &Table) -> Vec<Table> {
    let mut texts = BTreeMap::new();
    collect(entry, "", &mut texts);
    let Ok(expanded) = ranges::expand(&texts) else {
        return vec![entry.clone()];
    };
    let singles = expanded.iter().enumerate().map(|(index, texts)| {
        let mut single = placed_anywhere(entry);
        fill(&mut single, "", texts);
        // What was said above the entry is said once.
        if index > 0 {
            single.decor_mut().set_prefix("\n");
        }
        single
    });
    singles.collect()
}

fn collect(table: &dyn TableLike, above: &str, texts: &mut BTreeMap<String, String>) {
    for (key, item) in table.iter() {
        let path = format!("{above}{key}");
        if let Some(text) = item.as_str() {
            texts.insert(path, text.to_owned());
        } else if let Some(below) = item.as_table_like() {
            collect(below, &format!("{path}."), texts);
        }
    }
}

fn fill(table: &mut dyn TableLike, above: &str, texts: &BTreeMap<String, String>) {
    for (key, item) in table.iter_mut() {
        let path = format!("{above}{}", key.get());
        if let Some(below) = item.as_table_like_mut() {
            fill(below, &format!("{path}."), texts);
        } else if let (Some(old), Some(text)) = (item.as_value_mut(), texts.get(&path)) {
            if old.as_str() == Some(text) {
                continue;
            }
            let decor = old.decor().clone();
            *old = Value::from(text.as_str());
            *old.decor_mut() = decor;
        }
    }
}

// Tables remember their place in the text, which copies of them must not share.
fn placed_anywhere(entry: &Table) -> Table {
    let mut entry = entry.clone();
    forget_place(&mut entry);
    entry
}

fn forget_place(table: &mut Table) {
    table.set_position(None);
    for (_, item) in table.iter_mut() {
        if let Some(below) = item.as_table_mut() {
            forget_place(below);
        }
    }
}

#[cfg(test)]
mod tests {
    use insta::assert_snapshot;

    use super::*;

    const FILE: &str = r#"# A cluster.
name = "demo"

[tls]
peer = "mutual" # both

# All of them.
[[member]]
name    = "infra{0..2}"
host    = "ssh://infra{0..2}.example.com" # by name
address = "10.0.1.{10..12}"
[member.flags]
heartbeat-interval = 50

[[member]]
name = "infra3"
host = "ssh://infra3.example.com"

[lints.allow]
even-members = "on purpose"
"#;

    fn host(member: &str, address: Option<&str>) -> Result<String, EditError> {
        let url = "ssh://spare.example.com";
        let change = Edit::Host {
            member,
            url,
            address,
        };
        edit(FILE, change)
    }

    #[test]
    fn one_of_a_range_moves_and_the_rest_stays() {
        assert_snapshot!(host("infra1", Some("10.0.1.13")).unwrap());
    }

    #[test]
    fn an_entry_of_its_own_is_changed_in_place() {
        let edited = host("infra3", None).unwrap();
        assert_eq!(
            edited,
            FILE.replace("ssh://infra3.example.com", "ssh://spare.example.com")
        );
    }

    #[test]
    fn a_program_for_all_keeps_the_ranges() {
        let change = Edit::Binary {
            members: &[],
            binary: "/opt/etcd",
        };
        let edited = edit(FILE, change).unwrap();
        assert!(edited.contains("infra{0..2}"), "{edited}");
        assert_eq!(edited.matches("binary = \"/opt/etcd\"").count(), 2);
        let one = ["infra2".to_owned()];
        let change = Edit::Binary {
            members: &one,
            binary: "/opt/etcd",
        };
        let edited = edit(FILE, change).unwrap();
        assert_eq!(edited.matches("binary = \"/opt/etcd\"").count(), 1);
        assert_eq!(edited.matches("[[member]]").count(), 4);
    }

    #[test]
    fn what_has_no_place_is_said() {
        let wrong = [host("infra9", None), host("infra1", None)];
        let said = wrong.map(|result| result.unwrap_err().to_string());
        assert_eq!(said[0], "no [[member]] has the name \"infra9\" written out");
        assert_eq!(
            said[1],
            "member infra1 has an `address`, and that of the new machine is not known"
        );
    }
}
