//! Logs as etcd writes them: one JSON object a line with zap's keys, or zap's console form.

use std::fmt::{self, Write as _};
use std::fs::OpenOptions;
use std::io::{self, Write};
use std::sync::Mutex;

use member_flags::{Flags, LogFormat, LogLevel, LogOutput};
use serde_json::{Map, Value};
use time::OffsetDateTime;
use time::format_description::BorrowedFormatItem;
use time::macros::format_description;
use tracing::field::{Field, Visit};
use tracing::level_filters::LevelFilter;
use tracing::{Event, Level, Subscriber};
use tracing_subscriber::filter::Targets;
use tracing_subscriber::layer::{Context, SubscriberExt};
use tracing_subscriber::util::SubscriberInitExt;
use tracing_subscriber::{Layer, Registry};

const TIMESTAMP: &[BorrowedFormatItem<'_>] =
    format_description!("[year]-[month]-[day]T[hour]:[minute]:[second].[subsecond digits:3]Z");

/// Installs the log for the rest of the process.
pub(crate) fn init(flags: &Flags) -> io::Result<()> {
    let outputs = flags
        .log_outputs
        .iter()
        .map(open)
        .collect::<io::Result<Vec<_>>>()?;
    let level = level(flags.log_level);
    // openraft tells at info what only its developers need.
    let raft = if level >= LevelFilter::DEBUG {
        level
    } else {
        level.min(LevelFilter::ERROR)
    };
    let filter = Targets::new()
        .with_default(level)
        .with_target("openraft", raft);
    let lines = Lines {
        format: flags.log_format,
        outputs: Mutex::new(outputs),
    };
    let _ = Registry::default()
        .with(lines.with_filter(filter))
        .try_init();
    Ok(())
}

fn level(level: LogLevel) -> LevelFilter {
    match level.as_str() {
        "debug" => LevelFilter::DEBUG,
        "info" => LevelFilter::INFO,
        "warn" => LevelFilter::WARN,
        _ => LevelFilter::ERROR,
    }
}

type Output = Box<dyn Write + Send>;

fn open(output: &LogOutput) -> io::Result<Output> {
    Ok(match output {
        LogOutput::Default | LogOutput::Stderr => Box::new(io::stderr()),
        LogOutput::Stdout => Box::new(io::stdout()),
        LogOutput::File(path) => Box::new(OpenOptions::new().create(true).append(true).open(path)?),
    })
}

/// Writes each event as one line.
struct Lines {
    format: LogFormat,
    outputs: Mutex<Vec<Output>>,
}

impl<S: Subscriber> Layer<S> for Lines {
    fn on_event(&self, event: &Event<'_>, _: Context<'_, S>) {
        let mut record = Record::default();
        event.record(&mut record);
        let metadata = event.metadata();
        let level = record
            .fields
            .remove("level")
            .and_then(|level| level.as_str().map(str::to_owned));
        let level = level.unwrap_or_else(|| name(*metadata.level()).to_owned());
        let ts = OffsetDateTime::now_utc()
            .format(&TIMESTAMP)
            .unwrap_or_default();
        let file = metadata.file().unwrap_or_default();
        // zap prints the last directory and the file.
        let short = file.rsplit_once("/src/").map_or(file, |(_, short)| short);
        let caller = format!("{short}:{}", metadata.line().unwrap_or(0));
        let line = match self.format {
            LogFormat::Json => {
                let mut line = String::with_capacity(256);
                let text = |value: &str| Value::from(value).to_string();
                let _ = write!(
                    line,
                    "{{\"level\":{},\"ts\":{},\"caller\":{},\"msg\":{}",
                    text(&level),
                    text(&ts),
                    text(&caller),
                    text(&record.message)
                );
                for (key, value) in &record.fields {
                    let _ = write!(line, ",{}:{value}", text(key));
                }
                line + "}\n"
            }
            LogFormat::Console => {
                let fields = if record.fields.is_empty() {
                    String::new()
                } else {
                    format!("\t{}", Value::Object(record.fields))
                };
                format!("{ts}\t{level}\t{caller}\t{}{fields}\n", record.message)
            }
        };
        let mut outputs = self
            .outputs
            .lock()
            .unwrap_or_else(std::sync::PoisonError::into_inner);
        for output in outputs.iter_mut() {
            // A log that cannot be written must not stop the member.
            let _ = output.write_all(line.as_bytes());
        }
    }
}

fn name(level: Level) -> &'static str {
    match level {
        Level::ERROR => "error",
        Level::WARN => "warn",
        Level::INFO => "info",
        Level::DEBUG | Level::TRACE => "debug",
    }
}

#[derive(Default)]
struct Record {
    message: String,
    fields: Map<String, Value>,
}

impl Record {
    fn put(&mut self, field: &Field, value: Value) {
        self.fields.insert(field.name().to_owned(), value);
    }
}

impl Visit for Record {
    fn record_debug(&mut self, field: &Field, value: &dyn fmt::Debug) {
        if field.name() == "message" {
            self.message = format!("{value:?}");
        } else {
            self.put(field, Value::from(format!("{value:?}")));
        }
    }

    fn record_str(&mut self, field: &Field, value: &str) {
        self.put(field, Value::from(value));
    }

    fn record_u64(&mut self, field: &Field, value: u64) {
        self.put(field, Value::from(value));
    }

    fn record_i64(&mut self, field: &Field, value: i64) {
        self.put(field, Value::from(value));
    }

    fn record_bool(&mut self, field: &Field, value: bool) {
        self.put(field, Value::from(value));
    }

    fn record_error(&mut self, field: &Field, value: &(dyn std::error::Error + 'static)) {
        let mut text = value.to_string();
        let mut source = value.source();
        while let Some(cause) = source {
            let _ = write!(text, ": {cause}");
            source = cause.source();
        }
        self.put(field, Value::from(text));
    }
}
