//! Users, roles and what they allow, over the log and over a restart.

use bytes::Bytes;
use member_state::{
    AuthError, AuthRequest, Authenticate, Caller, ChangePassword, Command, Compact, Compare,
    DeleteRange, Error, LogPosition, MemoryBackend, Nothing, Op, Permission, PermissionType, Put,
    Range, Response, RoleGrantPermission, RoleName, RoleRevokePermission, Store, Txn, TxnOp,
    TxnRequest, UserAdd, UserName, UserRole,
};

use AuthError::*;

struct Log {
    backend: MemoryBackend,
    store: Store<MemoryBackend>,
    index: u64,
}

impl Log {
    fn new() -> Self {
        let backend = MemoryBackend::new();
        Log {
            store: Store::open(backend.clone()).unwrap(),
            backend,
            index: 0,
        }
    }

    fn apply_as(&mut self, caller: &Caller, op: Op) -> Result<Response, Error> {
        self.index += 1;
        let command = Command {
            user: caller.user.clone(),
            auth_revision: caller.revision,
            ..Command::new(self.index, op)
        };
        let command = Command::decode(command.encode()).unwrap();
        let position = LogPosition {
            term: 1,
            node: 0,
            index: self.index,
        };
        let mut applier = self.store.begin();
        let answer = applier.apply(position, Some(&command), true);
        applier.commit().unwrap();
        answer
    }

    fn auth_as(&mut self, user: &str, request: AuthRequest) -> Result<Response, AuthError> {
        let caller = self.caller(user);
        match self.apply_as(&caller, Op::Auth(request.into())) {
            Ok(response) => Ok(response),
            Err(Error::Auth(error)) => Err(error),
            Err(error) => panic!("{error}"),
        }
    }

    /// As root, whether authentication is on or not.
    fn auth(&mut self, request: AuthRequest) -> Result<Response, AuthError> {
        self.auth_as("root", request)
    }

    /// A user, known at this moment.
    fn caller(&self, user: &str) -> Caller {
        Caller {
            user: user.to_owned(),
            revision: self.store.auth().revision(),
        }
    }

    fn try_as(&mut self, user: &str, op: Op) -> Result<(), AuthError> {
        let caller = self.caller(user);
        match self.apply_as(&caller, op) {
            Ok(_) => Ok(()),
            Err(Error::Auth(error)) => Err(error),
            Err(error) => panic!("{error}"),
        }
    }

    fn reopen(&mut self) {
        self.store = Store::open(self.backend.clone()).unwrap();
    }

    /// Authentication on, and a user `alice` whose role allows what is listed.
    fn with_alice(permissions: &[(PermissionType, &'static str, &'static str)]) -> Self {
        let mut log = Log::new();
        for name in ["root", "alice"] {
            log.auth(user_add(name)).unwrap();
        }
        log.auth(grant("root", "root")).unwrap();
        log.auth(role_add("r")).unwrap();
        for (kind, key, end) in permissions {
            log.auth(allow("r", *kind, key, end)).unwrap();
        }
        log.auth(grant("alice", "r")).unwrap();
        log.auth(AuthRequest::Enable(Nothing {})).unwrap();
        log
    }
}

fn user_add(name: &str) -> AuthRequest {
    AuthRequest::UserAdd(UserAdd {
        name: name.to_owned(),
        password: Bytes::from_static(b"hash"),
        no_password: false,
    })
}

fn user_delete(name: &str) -> AuthRequest {
    AuthRequest::UserDelete(UserName {
        name: name.to_owned(),
    })
}

fn user_role(name: &str, role: &str) -> UserRole {
    UserRole {
        name: name.to_owned(),
        role: role.to_owned(),
    }
}

fn grant(name: &str, role: &str) -> AuthRequest {
    AuthRequest::UserGrantRole(user_role(name, role))
}

fn revoke(name: &str, role: &str) -> AuthRequest {
    AuthRequest::UserRevokeRole(user_role(name, role))
}

fn role_add(role: &str) -> AuthRequest {
    AuthRequest::RoleAdd(RoleName {
        role: role.to_owned(),
    })
}

fn role_delete(role: &str) -> AuthRequest {
    AuthRequest::RoleDelete(RoleName {
        role: role.to_owned(),
    })
}

fn allow(role: &str, kind: PermissionType, key: &'static str, end: &'static str) -> AuthRequest {
    AuthRequest::RoleGrantPermission(RoleGrantPermission {
        role: role.to_owned(),
        permission: Some(Permission {
            kind: kind.into(),
            key: Bytes::from_static(key.as_bytes()),
            range_end: Bytes::from_static(end.as_bytes()),
        }),
    })
}

fn disallow(role: &str, key: &'static str, end: &'static str) -> AuthRequest {
    AuthRequest::RoleRevokePermission(RoleRevokePermission {
        role: role.to_owned(),
        key: Bytes::from_static(key.as_bytes()),
        range_end: Bytes::from_static(end.as_bytes()),
    })
}

fn put(key: &'static str) -> Put {
    Put {
        key: Bytes::from_static(key.as_bytes()),
        value: Bytes::from_static(b"v"),
        ..Put::default()
    }
}

fn delete(key: &'static str, end: &'static str) -> DeleteRange {
    DeleteRange {
        key: Bytes::from_static(key.as_bytes()),
        range_end: Bytes::from_static(end.as_bytes()),
        prev_kv: false,
    }
}

fn range(key: &'static str, end: &'static str) -> Range {
    Range {
        key: Bytes::from_static(key.as_bytes()),
        range_end: Bytes::from_static(end.as_bytes()),
        ..Range::default()
    }
}

#[test]
fn users_and_roles_are_managed_as_in_etcd() {
    let mut log = Log::new();
    let enable = || AuthRequest::Enable(Nothing {});
    let disable = || AuthRequest::Disable(Nothing {});
    let login = |name: &str| {
        AuthRequest::Authenticate(Authenticate {
            name: name.to_owned(),
            token_prefix: "abc".to_owned(),
        })
    };
    let password = |name: &str| {
        AuthRequest::UserChangePassword(ChangePassword {
            name: name.to_owned(),
            password: Bytes::from_static(b"new"),
        })
    };
    let read = PermissionType::Read;
    // What is done, why it is refused, and the auth revision after it.
    let script: Vec<(AuthRequest, Result<(), AuthError>, u64)> = vec![
        (enable(), Err(RootUserNotExist), 1),
        (disable(), Ok(()), 1),
        (login("root"), Err(NotEnabled), 1),
        (user_add(""), Err(UserEmpty), 1),
        (user_add("root"), Ok(()), 2),
        (user_add("root"), Err(UserAlreadyExists), 2),
        (enable(), Err(RootRoleNotExist), 2),
        (grant("nobody", "root"), Err(UserNotFound), 2),
        (grant("root", "none"), Err(RoleNotFound), 2),
        (grant("root", "root"), Ok(()), 3),
        (grant("root", "root"), Ok(()), 3),
        (revoke("root", "other"), Err(RoleNotGranted), 3),
        (role_add(""), Err(RoleEmpty), 3),
        (role_add("r"), Ok(()), 4),
        (role_add("r"), Err(RoleAlreadyExists), 4),
        (allow("none", read, "a", ""), Err(RoleNotFound), 4),
        (allow("r", read, "b", "a"), Err(InvalidManagement), 4),
        (
            AuthRequest::RoleGrantPermission(RoleGrantPermission {
                role: "none".to_owned(),
                permission: None,
            }),
            Err(PermissionNotGiven),
            4,
        ),
        (allow("r", read, "a", "c"), Ok(()), 5),
        (allow("r", PermissionType::Write, "a", "c"), Ok(()), 6),
        (disallow("none", "a", "c"), Err(RoleNotFound), 6),
        (disallow("r", "a", ""), Err(PermissionNotGranted), 6),
        (disallow("r", "a", "c"), Ok(()), 7),
        (role_delete("none"), Err(RoleNotFound), 7),
        (user_delete("nobody"), Err(UserNotFound), 7),
        (password("nobody"), Err(UserNotFound), 7),
        (user_add("u"), Ok(()), 8),
        (password("u"), Ok(()), 9),
        (grant("u", "r"), Ok(()), 10),
        (role_delete("r"), Ok(()), 11),
        (revoke("u", "r"), Err(RoleNotGranted), 11),
        (enable(), Ok(()), 11),
        (enable(), Ok(()), 11),
        (user_delete("root"), Err(InvalidManagement), 11),
        (revoke("root", "root"), Err(InvalidManagement), 11),
        (role_delete("root"), Err(InvalidManagement), 11),
        (login("nobody"), Err(AuthFailed), 11),
        (login("u"), Ok(()), 11),
        (user_delete("u"), Ok(()), 12),
        (disable(), Ok(()), 13),
        (user_delete("root"), Ok(()), 14),
    ];
    for (request, expected, revision) in script {
        let shown = format!("{request:?}");
        let answer = log.auth(request).map(drop);
        assert_eq!(answer, expected, "{shown}");
        assert_eq!(log.store.auth().revision(), revision, "{shown}");
    }
    assert_eq!(log.store.auth().users().count(), 0);
}

#[test]
fn a_token_ends_in_its_index() {
    let mut log = Log::with_alice(&[]);
    let answer = log.auth_as(
        "",
        AuthRequest::Authenticate(Authenticate {
            name: "alice".to_owned(),
            token_prefix: "prefix".to_owned(),
        }),
    );
    let token = format!("prefix.{}", log.index);
    assert_eq!(answer, Ok(Response::Auth { revision: 1, token }));
}

#[test]
fn a_user_may_do_what_its_roles_allow_and_nothing_else() {
    use PermissionType::{Read, ReadWrite, Write};
    let mut log = Log::with_alice(&[(Read, "r", "s"), (Write, "w", "x"), (ReadWrite, "b", "")]);
    let txn = |compare: &'static str, ops: Vec<TxnRequest>| {
        Op::Txn(Txn {
            compare: vec![Compare {
                key: Bytes::from_static(compare.as_bytes()),
                ..Compare::default()
            }],
            success: Vec::new(),
            failure: ops.into_iter().map(TxnOp::from).collect(),
        })
    };
    let with_prev = |put: Put| Put {
        prev_kv: true,
        ..put
    };
    let no = Err(PermissionDenied);
    for (op, expected) in [
        (Op::Put(put("w1")), Ok(())),
        (Op::Put(put("b")), Ok(())),
        (Op::Put(put("r1")), no),
        (Op::Put(with_prev(put("w1"))), no),
        (Op::Put(with_prev(put("b"))), Ok(())),
        (Op::DeleteRange(delete("w", "x")), Ok(())),
        (Op::DeleteRange(delete("w", "y")), no),
        (Op::DeleteRange(delete("w", "\0")), no),
        (
            Op::DeleteRange(DeleteRange {
                prev_kv: true,
                ..delete("w1", "")
            }),
            no,
        ),
        (txn("r1", vec![TxnRequest::Put(put("w1"))]), Ok(())),
        (txn("w1", vec![TxnRequest::Put(put("w1"))]), no),
        (txn("r1", vec![TxnRequest::Put(put("r1"))]), no),
        (txn("r1", vec![TxnRequest::Range(range("r", "s"))]), Ok(())),
        (txn("r1", vec![TxnRequest::Range(range("r", "t"))]), no),
        (
            txn(
                "r1",
                vec![TxnRequest::Txn(Txn {
                    success: vec![TxnRequest::Put(put("x")).into()],
                    ..Txn::default()
                })],
            ),
            no,
        ),
    ] {
        let shown = format!("{op:?}");
        assert_eq!(log.try_as("alice", op.clone()), expected, "{shown}");
        assert_eq!(log.try_as("root", op), Ok(()), "{shown}");
    }
    assert_eq!(
        log.auth_as("alice", user_add("x")),
        no.map(|()| Response::Empty)
    );
    assert_eq!(log.auth_as("", user_add("x")).unwrap_err(), UserEmpty);
}

#[test]
fn nobody_and_yesterdays_users_are_refused_while_authentication_is_on() {
    let mut log = Log::with_alice(&[(PermissionType::ReadWrite, "a", "b")]);
    let nobody = Caller::default();
    let refused = |answer: Result<Response, Error>| match answer {
        Err(Error::Auth(error)) => error,
        other => panic!("{other:?}"),
    };
    let answer = log.apply_as(&nobody, Op::Put(put("a")));
    assert_eq!(refused(answer), UserEmpty);
    let alice = log.caller("alice");
    log.auth(user_add("bob")).unwrap();
    let answer = log.apply_as(&alice, Op::Put(put("a")));
    assert_eq!(refused(answer), OldRevision);
    assert_eq!(log.try_as("alice", Op::Put(put("a"))), Ok(()));
    assert_eq!(
        log.try_as("carol", Op::Put(put("a"))),
        Err(PermissionDenied)
    );
    // The members' own writes need no user, and may claim to be the member itself.
    assert!(
        log.apply_as(&nobody, Op::Compact(Compact::default()))
            .is_ok()
    );
    assert!(log.apply_as(&Caller::member(), Op::Put(put("a"))).is_ok());
    log.auth(AuthRequest::Disable(Nothing {})).unwrap();
    assert!(log.apply_as(&nobody, Op::Put(put("a"))).is_ok());
}

#[test]
fn a_refused_write_leaves_no_trace() {
    let mut log = Log::with_alice(&[(PermissionType::Read, "a", "b")]);
    let before = log.store.revision();
    assert_eq!(
        log.try_as("alice", Op::Put(put("a"))),
        Err(PermissionDenied)
    );
    assert_eq!(log.store.revision(), before);
    let caller = log.caller("alice");
    assert_eq!(log.store.auth().may_read(&caller, b"a", b"b"), Ok(()));
    assert_eq!(
        log.store.auth().may_read(&caller, b"a", b"c"),
        Err(PermissionDenied)
    );
}

#[test]
fn users_outlive_a_restart() {
    let mut log = Log::with_alice(&[(PermissionType::Write, "a", "b")]);
    let before = format!("{:?}", log.store.auth());
    log.reopen();
    assert_eq!(format!("{:?}", log.store.auth()), before);
    assert!(log.store.auth_enabled());
    assert_eq!(log.try_as("alice", Op::Put(put("a"))), Ok(()));
    log.auth(revoke("alice", "r")).unwrap();
    log.reopen();
    assert_eq!(
        log.try_as("alice", Op::Put(put("a"))),
        Err(PermissionDenied)
    );
    log.auth(user_delete("alice")).unwrap();
    log.auth(role_delete("r")).unwrap();
    log.reopen();
    let auth = log.store.auth();
    assert!(auth.user("alice").is_none() && auth.role("r").is_none());
}

#[test]
fn a_change_of_a_role_reaches_its_users_at_once() {
    let mut log = Log::with_alice(&[]);
    assert_eq!(
        log.try_as("alice", Op::Put(put("a"))),
        Err(PermissionDenied)
    );
    log.auth(allow("r", PermissionType::Write, "a", "\0"))
        .unwrap();
    assert_eq!(log.try_as("alice", Op::Put(put("zz"))), Ok(()));
    log.auth(disallow("r", "a", "\0")).unwrap();
    assert_eq!(
        log.try_as("alice", Op::Put(put("a"))),
        Err(PermissionDenied)
    );
}
