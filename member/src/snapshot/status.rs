//! `member snapshot status`.

use member_bolt::{HashCheck, SnapshotFile, Status};
use serde::Serialize;

use super::options::Options;
use super::{BAD_FEATURE, Failure, print};

/// etcdutl 3.6's fields, in its order.
#[derive(Serialize)]
struct Json<'a> {
    hash: u32,
    revision: i64,
    #[serde(rename = "totalKey")]
    total_key: u64,
    #[serde(rename = "totalSize")]
    total_size: u64,
    version: &'a str,
}

pub(super) fn run(options: &Options) -> Result<(), Failure> {
    let format: fn(&Status) -> String = match options.get("write-out").unwrap_or("simple") {
        "simple" => simple,
        "table" => table,
        "json" => json,
        "fields" => fields,
        _ => {
            return Err(Failure {
                text: "unsupported output format".to_owned(),
                code: BAD_FEATURE,
            });
        }
    };
    let file = options.file()?;
    // As etcd: status reads any database, the hash is checked by restore.
    let database =
        SnapshotFile::open(&file, HashCheck::Skipped).map_err(|error| Failure::new(&error))?;
    let status = Status::of(&database).map_err(|error| Failure::new(&error))?;
    print(&format(&status))
}

fn row(status: &Status) -> [String; 5] {
    [
        format!("{:x}", status.hash),
        status.revision.to_string(),
        status.total_key.to_string(),
        human(status.total_size),
        status.version.clone(),
    ]
}

fn simple(status: &Status) -> String {
    row(status).join(", ").trim_end_matches(", ").to_owned() + "\n"
}

fn json(status: &Status) -> String {
    let json = Json {
        hash: status.hash,
        revision: status.revision,
        total_key: status.total_key,
        total_size: status.total_size,
        version: &status.version,
    };
    serde_json::to_string(&json).unwrap_or_default() + "\n"
}

fn fields(status: &Status) -> String {
    format!(
        "\"Hash\" : {}\n\"Revision\" : {}\n\"Keys\" : {}\n\"Size\" : {}\n\"Version\" : {}\n",
        status.hash, status.revision, status.total_key, status.total_size, status.version
    )
}

fn table(status: &Status) -> String {
    let heads = ["HASH", "REVISION", "TOTAL KEYS", "TOTAL SIZE", "VERSION"];
    let row = row(status);
    let widths: Vec<usize> = heads
        .iter()
        .zip(&row)
        .map(|(head, cell)| head.len().max(cell.len()))
        .collect();
    let line: String = widths
        .iter()
        .map(|width| format!("+{}", "-".repeat(width + 2)))
        .collect();
    let cells = |cells: Vec<String>| cells.concat();
    let head = heads.iter().zip(&widths);
    let head = cells(
        head.map(|(head, width)| format!("| {head:^width$} "))
            .collect(),
    );
    let body = row.iter().zip(&widths);
    let body = cells(
        body.map(|(cell, width)| format!("| {cell:>width$} "))
            .collect(),
    );
    format!("{line}+\n{head}|\n{line}+\n{body}|\n{line}+\n")
}

/// Bytes in powers of 1000, with a decimal below ten.
fn human(bytes: u64) -> String {
    const UNITS: [&str; 6] = ["kB", "MB", "GB", "TB", "PB", "EB"];
    if bytes < 1000 {
        return format!("{bytes} B");
    }
    let mut unit = 1000;
    let mut name = UNITS[0];
    for next in &UNITS[1..] {
        if bytes / unit < 1000 {
            break;
        }
        unit *= 1000;
        name = next;
    }
    let tenths = (u128::from(bytes) * 10 + u128::from(unit) / 2) / u128::from(unit);
    let (whole, tenth) = (tenths / 10, tenths % 10);
    if whole < 10 {
        return format!("{whole}.{tenth} {name}");
    }
    // Go rounds a half to the even neighbour.
    let up = tenth > 5 || (tenth == 5 && whole % 2 == 1);
    format!("{} {name}", whole + u128::from(up))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn sizes_are_printed_as_etcds_tools_do() {
        let sizes = [
            (999, "999 B"),
            (20_480, "20 kB"),
            (1_536, "1.5 kB"),
            (25_600_000, "26 MB"),
        ];
        for (bytes, text) in sizes {
            assert_eq!(human(bytes), text);
        }
    }

    #[test]
    fn a_table_is_as_wide_as_its_cells() {
        let status = Status {
            hash: 0x6539_d343,
            revision: 8,
            total_key: 18,
            total_size: 20_480,
            version: "3.6.0".to_owned(),
        };
        let expected = "\
+----------+----------+------------+------------+---------+
|   HASH   | REVISION | TOTAL KEYS | TOTAL SIZE | VERSION |
+----------+----------+------------+------------+---------+
| 6539d343 |        8 |         18 |      20 kB |   3.6.0 |
+----------+----------+------------+------------+---------+
";
        assert_eq!(table(&status), expected);
        assert_eq!(simple(&status), "6539d343, 8, 18, 20 kB, 3.6.0\n");
    }
}
