use std::time::Duration;

use testbed::check::history::{Action, Outcome};
use testbed::check::read_back::read_back;
use testbed::check::{Violation, judge};
use testbed::traffic::writer::Writers;

use crate::etcd::{Cluster, MEMBERS};

const LIMIT: Duration = Duration::from_secs(60);

fn writers(cluster: &Cluster) -> Writers {
    Writers {
        target: cluster.target(),
        prefix: "writers/".to_owned(),
        writers: 6,
        keys_each: 3,
        read_every: 4,
        request_timeout: Duration::from_secs(5),
        pause: Duration::from_millis(2),
        operations_each: 100_000,
        time: LIMIT,
    }
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn kill_of_each_member_in_turn_loses_nothing() {
    let mut cluster = Cluster::start(true);
    let plan = writers(&cluster);
    let mut running = plan.start().unwrap();
    running.until_acknowledged(100, LIMIT).await.unwrap();
    for member in 0..MEMBERS {
        cluster.kill(member);
        running.until_acknowledged(100, LIMIT).await.unwrap();
        cluster.spawn(member);
        tokio::task::block_in_place(|| cluster.wait_ready(member));
        running.until_acknowledged(100, LIMIT).await.unwrap();
    }
    let history = running.stop().await.unwrap();
    let (acknowledged, refused, unknown) = history.counts();
    println!(
        "{acknowledged} acknowledged, {refused} refused, {unknown} unknown, gap {:?}",
        history.longest_gap()
    );
    assert!(acknowledged >= 700);
    assert!(refused > 0, "some write must have met a dead member");
    let back = read_back(&plan.target, &plan.prefix, &history, LIMIT)
        .await
        .unwrap();
    assert_eq!(back.latest.len(), MEMBERS);
    assert_eq!(judge(&history, &back), []);
}

#[tokio::test]
async fn check_finds_what_a_real_cluster_never_wrote() {
    let cluster = Cluster::start(false);
    let plan = Writers {
        operations_each: 40,
        ..writers(&cluster)
    };
    let mut history = plan.start().unwrap().finish().await.unwrap();
    let back = read_back(&plan.target, &plan.prefix, &history, LIMIT)
        .await
        .unwrap();
    assert_eq!(judge(&history, &back), []);
    let (acknowledged, ..) = history.counts();
    assert_eq!(acknowledged, 6 * 30);

    // Had the cluster acknowledged one write that it does not have, the same evidence would convict it.
    let last = history
        .acknowledged()
        .map(|write| write.revision)
        .max()
        .unwrap();
    let lost = history.ops.iter_mut().find_map(|op| match &mut op.action {
        Action::Put {
            value,
            outcome: Outcome::Acknowledged { revision },
            ..
        } if *revision == last => Some(value),
        _ => None,
    });
    "never".clone_into(lost.unwrap());
    let found = judge(&history, &back);
    assert!(
        found
            .iter()
            .any(|it| matches!(it, Violation::Rewritten { .. })),
        "{found:?}"
    );
    assert!(
        found
            .iter()
            .any(|it| matches!(it, Violation::Unexplained { .. })),
        "{found:?}"
    );
}

#[tokio::test]
async fn writers_end_within_their_time_without_a_cluster() {
    let closed = std::net::TcpListener::bind("127.0.0.1:0")
        .unwrap()
        .local_addr()
        .unwrap();
    let target = testbed::traffic::Target {
        endpoints: vec![format!("http://{closed}")],
        tls: None,
    };
    let plan = Writers {
        target,
        prefix: "writers/".to_owned(),
        writers: 2,
        keys_each: 1,
        read_every: 0,
        request_timeout: Duration::from_millis(200),
        pause: Duration::from_millis(10),
        operations_each: 5,
        time: Duration::from_secs(5),
    };
    let history = plan.start().unwrap().finish().await.unwrap();
    assert_eq!(
        history.counts(),
        (0, 10, 0),
        "refused connections are certain not to have written"
    );
}
