//! The decoder of what stands in the log.

use bytes::Bytes;
use member_state::Command;
use prost::Message;

use super::each_seed;
use super::wire::{requests, string_field};

/// Commands whose operation is what a client may ask for: tags equal etcd's, so that requests are operations.
fn commands() -> Vec<Vec<u8>> {
    let mut commands = Vec::new();
    for (_, request) in requests() {
        for tag in 2..=13u8 {
            let mut bytes = vec![0x08, 0x2a];
            string_field(&mut bytes, tag, &request);
            string_field(&mut bytes, 14, b"alice");
            bytes.extend([0x78, 0x07]);
            commands.push(bytes);
        }
    }
    commands
}

#[test]
fn a_command_is_read_back_or_refused() {
    let commands = commands();
    let mut read = 0u64;
    each_seed(|random| {
        for _ in 0..1000 {
            let mut bytes = if random.one_in(8) {
                random.bytes(200)
            } else {
                random.pick(&commands).clone()
            };
            random.mutate(&mut bytes);
            if let Ok(command) = Command::decode(Bytes::from(bytes)) {
                read += 1;
                let again = Command::decode(command.encode()).expect("its own encoding");
                assert_eq!(again, command);
            }
        }
        let nested = nest(random.below(4000));
        // Deeper than any request may be: refused before the stack is used up.
        let _ = Command::decode(Bytes::from(nested));
    });
    assert!(read > 0 || std::env::var_os("PROVISION_FUZZ_SEED").is_some());
}

/// A transaction in a transaction, `depth` times.
fn nest(depth: usize) -> Vec<u8> {
    let mut txn = Vec::new();
    for _ in 0..depth {
        let mut op = Vec::new();
        string_field(&mut op, 4, &txn);
        txn.clear();
        string_field(&mut txn, 2, &op);
    }
    let mut command = Vec::new();
    string_field(&mut command, 4, &txn);
    command
}

#[test]
fn seeds_are_commands() {
    let read = commands()
        .into_iter()
        .filter(|bytes| Command::decode(Bytes::from(bytes.clone())).is_ok())
        .count();
    assert!(read >= 12, "only {read} of the seeds are read");
    let put = member_proto::etcdserverpb::PutRequest::default();
    assert_eq!(put.encoded_len(), 0);
}
