//! Starting the agent on a machine: one ssh process, whose streams the agent speaks on.

use std::path::PathBuf;
use std::process::Stdio;
use std::sync::{Arc, Mutex, PoisonError};
use std::time::Duration;

use bytes::Bytes;
use tokio::io::{AsyncBufReadExt, AsyncReadExt, AsyncWriteExt, BufReader};
use tokio::process::{Child, ChildStderr, ChildStdin, ChildStdout, Command};
use tokio::sync::OnceCell;
use tokio::task::JoinHandle;
use tokio::time::timeout;

use super::error::{SshError, What};
use super::serve::HELLO;
use crate::host::local::checksum;
use crate::render::quote;
use crate::topology::SshHost;

// What ssh itself is given to connect.
const CONNECT_SECONDS: &str = "10";
// From a connection to the agent's first word, with the upload of its program over a slow line in between.
const START_LIMIT: Duration = Duration::from_secs(120);
const MOST_SAID: u64 = 16 * 1024;

/// Puts the program in place where it is not, and becomes it. `$1` checksum, `$2` size, `$3` directory, `$4` processor, `$5` the
/// name. Other versions are removed: they are only ever started by a run that has just looked for its own.
const SCRIPT: &str = r#"
found=$(uname -m) || exit 1
if [ "$found" != "$4" ]; then echo "provision: architecture $found" >&2; exit 1; fi
program=$3/$5
if [ ! -x "$program" ]; then
  mkdir -p "$3" || exit 1
  echo provision-wanted
  new=$program.$$
  if head -c "$2" > "$new" && echo "$1  $new" | sha256sum -c --status - && chmod 755 "$new" && sync "$new" && mv "$new" "$program"
  then
    for old in "$3"/provision-*; do [ "$old" = "$program" ] || rm -f "$old"; done
  else
    rm -f "$new"; exit 1
  fi
fi
exec "$program" agent
"#;

/// This program, as it is put on machines.
pub(super) struct Program {
    bytes: Bytes,
    checksum: String,
}

/// A running agent's process and streams.
pub(super) struct Connected {
    pub(super) child: Child,
    pub(super) reads: BufReader<ChildStdout>,
    pub(super) writes: ChildStdin,
    pub(super) said: StderrText,
}

/// What ssh has printed so far.
#[derive(Clone, Debug, Default)]
pub(super) struct StderrText(Arc<Mutex<String>>);

impl StderrText {
    pub(super) fn text(&self) -> String {
        self.0
            .lock()
            .unwrap_or_else(PoisonError::into_inner)
            .clone()
    }

    fn follow(&self, stderr: ChildStderr) -> JoinHandle<()> {
        let text = self.0.clone();
        tokio::spawn(async move {
            let mut lines = BufReader::new(stderr.take(MOST_SAID)).lines();
            while let Ok(Some(line)) = lines.next_line().await {
                let mut text = text.lock().unwrap_or_else(PoisonError::into_inner);
                text.push_str(&line);
                text.push('\n');
            }
        })
    }
}

impl Program {
    /// Reads this program, once per process.
    pub(super) async fn own() -> Result<&'static Self, SshError> {
        static OWN: OnceCell<Program> = OnceCell::const_new();
        OWN.get_or_try_init(|| async {
            // The file that runs, even if another has taken its name meanwhile.
            let bytes = tokio::fs::read("/proc/self/exe")
                .await
                .map_err(SshError::Own)?;
            Ok(Self {
                checksum: checksum(&bytes),
                bytes: bytes.into(),
            })
        })
        .await
    }
}

/// The arguments of ssh up to and with the destination.
#[must_use]
pub fn arguments(host: &SshHost) -> Vec<String> {
    let mut args: Vec<String> = Vec::new();
    if let Some(config) = &host.ssh_config {
        args.extend(["-F".to_owned(), config.display().to_string()]);
    }
    if let Some(identity) = &host.identity {
        args.extend(["-i".to_owned(), identity.display().to_string()]);
    }
    if let Some(port) = host.port {
        args.extend(["-p".to_owned(), port.to_string()]);
    }
    if let Some(user) = &host.user {
        args.extend(["-l".to_owned(), user.clone()]);
    }
    if !host.jump.is_empty() {
        args.extend(["-J".to_owned(), host.jump.join(",")]);
    }
    args.extend(["--".to_owned(), host.destination.clone()]);
    args
}

/// Connects, puts this program in place where it is not, and starts it as the agent.
pub(super) async fn start(host: &SshHost) -> Result<Connected, SshError> {
    let program = Program::own().await?;
    let mut child = Command::new("ssh")
        .args(["-T", "-o", "BatchMode=yes"])
        .args(["-o", &format!("ConnectTimeout={CONNECT_SECONDS}")])
        // A machine that dies without a word is noticed within 15 s.
        .args(["-o", "ServerAliveInterval=5", "-o", "ServerAliveCountMax=3"])
        .args(arguments(host))
        .arg(command(host, program))
        .stdin(Stdio::piped())
        .stdout(Stdio::piped())
        .stderr(Stdio::piped())
        .kill_on_drop(true)
        .spawn()
        .map_err(SshError::NoSsh)?;
    let piped = || SshError::NoSsh(std::io::Error::other("its streams are not piped"));
    let mut writes = child.stdin.take().ok_or_else(piped)?;
    let mut reads = BufReader::new(child.stdout.take().ok_or_else(piped)?);
    let said = StderrText::default();
    let follow = said.follow(child.stderr.take().ok_or_else(piped)?);
    let greeted = timeout(START_LIMIT, greet(&mut reads, &mut writes, program)).await;
    match greeted {
        Ok(true) => Ok(Connected {
            child,
            reads,
            writes,
            said,
        }),
        Ok(false) => {
            // What it printed last may still be on its way.
            let _ended = timeout(Duration::from_secs(5), follow).await;
            let text = said.text();
            Err(SshError::refused(host, What::read(&text), &text))
        }
        Err(_) => Err(SshError::refused(host, What::Late, &said.text())),
    }
}

// Whether the agent said its first word. Whatever else a login prints before is skipped.
async fn greet(
    reads: &mut BufReader<ChildStdout>,
    writes: &mut ChildStdin,
    program: &Program,
) -> bool {
    let mut line = String::new();
    loop {
        line.clear();
        if !matches!((&mut *reads).take(MOST_SAID).read_line(&mut line).await, Ok(read) if read > 0)
        {
            return false;
        }
        match line.trim_end() {
            HELLO => return true,
            "provision-wanted" => {
                let sent = async {
                    writes.write_all(&program.bytes).await?;
                    writes.flush().await
                };
                if sent.await.is_err() {
                    return false;
                }
            }
            _ => {}
        }
    }
}

fn command(host: &SshHost, program: &Program) -> String {
    let dir: PathBuf = host.install_dir.join("bin");
    let name = format!("provision-{}", &program.checksum[..16]);
    let words = [
        "sh",
        "-c",
        SCRIPT,
        "provision",
        &program.checksum,
        &program.bytes.len().to_string(),
        &dir.to_string_lossy(),
        std::env::consts::ARCH,
        &name,
    ]
    .map(quote)
    .join(" ");
    if host.sudo {
        format!("exec sudo -n {words}")
    } else {
        format!("exec {words}")
    }
}
