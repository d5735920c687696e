use etcd_client::{
    ConnectOptions, Error, GetOptions, Permission, PermissionType, RoleRevokePermissionOptions,
    UserAddOptions,
};
use tonic::Code;

use super::{Cluster, assert_refused, connect, eventually};

#[tokio::test]
async fn users_do_what_their_roles_allow_at_every_member() -> Result<(), Error> {
    let mut cluster = Cluster::start().await;
    let client = &mut cluster.client;
    client.role_add("r").await?;
    for permission in [
        Permission::read("k"),
        Permission::new(PermissionType::Readwrite, "p/").with_prefix(),
        Permission::write("z").with_from_key(),
    ] {
        client.role_grant_permission("r", permission).await?;
    }
    let permissions = client.role_get("r").await?.permissions();
    assert_eq!(permissions.len(), 3);
    assert!(permissions.contains(&Permission::read_write("p/").with_prefix()));
    assert_refused(
        client.auth_enable().await,
        Code::FailedPrecondition,
        "etcdserver: root user does not exist",
    );
    client.user_add("root", "pw", None).await?;
    client.user_grant_role("root", "root").await?;
    client.user_add("alice", "pw", None).await?;
    client.user_grant_role("alice", "r").await?;
    let silent = Some(UserAddOptions::new().with_no_pwd());
    client.user_add("silent", "", silent).await?;
    assert_eq!(
        client.user_list().await?.users(),
        ["alice", "root", "silent"]
    );
    assert_eq!(client.user_get("alice").await?.roles(), ["r"]);
    client.auth_enable().await?;
    let mut nobody = client.clone();
    eventually("every member asks for a user", async || {
        let mut open = 0;
        for _ in 0..12 {
            open += usize::from(nobody.put("k", "v", None).await.is_ok());
        }
        (open == 0).then_some(())
    })
    .await;
    assert_refused(
        nobody.put("k", "v", None).await,
        Code::InvalidArgument,
        "etcdserver: user name is empty",
    );

    let as_user = |name: &str, password: &str| ConnectOptions::new().with_user(name, password);
    let servers = &cluster.servers;
    let mut root = connect(servers, as_user("root", "pw")).await;
    let mut alice = connect(servers, as_user("alice", "pw")).await;
    let endpoints: Vec<String> = servers
        .iter()
        .map(crate::process::Server::endpoint)
        .collect();
    for (name, password) in [("alice", "wrong"), ("nobody", "pw"), ("silent", "")] {
        let refused = etcd_client::Client::connect(&endpoints, Some(as_user(name, password))).await;
        assert!(refused.is_err(), "{name}");
    }
    // Often enough that each of the members has answered: a token is known to all of them.
    for i in 0..12 {
        root.put("k", format!("{i}"), None).await?;
        assert_eq!(alice.get("k", None).await?.count(), 1);
        alice.put(format!("p/{i}"), "v", None).await?;
        alice.put("zz", "v", None).await?;
        for refused in [
            alice.put("k", "v", None).await.err(),
            alice.get("zz", None).await.err(),
            alice
                .get("k", Some(GetOptions::new().with_prefix()))
                .await
                .err(),
            alice.user_list().await.err(),
        ] {
            assert_refused::<()>(
                Err(refused.expect("refused")),
                Code::PermissionDenied,
                "etcdserver: permission denied",
            );
        }
    }

    let prefix = Some(RoleRevokePermissionOptions::new().with_prefix());
    root.role_revoke_permission("r", "p/", prefix).await?;
    eventually("the permission is gone", async || {
        alice.put("p/1", "v", None).await.err()
    })
    .await;
    root.user_change_password("alice", "new").await?;
    let mut alice = connect(servers, as_user("alice", "new")).await;
    assert_eq!(alice.get("k", None).await?.count(), 1);
    root.user_revoke_role("alice", "r").await?;
    assert!(alice.get("k", None).await.is_err());
    root.user_delete("alice").await?;
    root.role_delete("r").await?;
    assert!(root.role_list().await?.roles().is_empty());
    root.auth_disable().await?;
    eventually("no member asks for a user", async || {
        for _ in 0..12 {
            nobody.get("k", None).await.ok()?;
        }
        Some(())
    })
    .await;
    Ok(())
}

#[tokio::test]
async fn a_client_that_refreshes_its_token_outlives_the_token() -> Result<(), Error> {
    let mut servers = crate::server::three();
    for server in &mut servers {
        server.arg("--auth-token-ttl=1");
    }
    crate::server::start_all(&mut servers);
    let mut client = connect(&servers, ConnectOptions::new()).await;
    client.user_add("root", "pw", None).await?;
    client.user_grant_role("root", "root").await?;
    client.auth_enable().await?;
    let root = || ConnectOptions::new().with_user("root", "pw");
    let mut plain = connect(&servers, root()).await;
    let mut refreshing = connect(&servers, root().with_auto_token_refresh(true)).await;
    let refused = eventually("the token's end", async || {
        tokio::time::sleep(std::time::Duration::from_millis(1500)).await;
        plain.get("k", None).await.err()
    })
    .await;
    assert_refused::<()>(
        Err(refused),
        Code::Unauthenticated,
        "etcdserver: invalid auth token",
    );
    refreshing.get("k", None).await?;
    refreshing.user_list().await?;
    refreshing.auth_disable().await?;
    Ok(())
}
