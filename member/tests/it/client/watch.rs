use etcd_client::{
    Client, CompactionOptions, Error, Event, EventType, Txn, TxnOp, WatchFilterType, WatchOptions,
    WatchResponse, WatchStream,
};

use super::{Cluster, in_time};

async fn next(stream: &mut WatchStream) -> WatchResponse {
    in_time("a response", stream.message())
        .await
        .expect("no error")
        .expect("not the end")
}

async fn created(stream: &mut WatchStream) -> i64 {
    let response = next(stream).await;
    assert!(response.created() && !response.canceled(), "{response:?}");
    response.watch_id()
}

/// Events of the stream up to this revision.
async fn events_to(stream: &mut WatchStream, revision: i64) -> Vec<Event> {
    let mut found: Vec<Event> = Vec::new();
    let last = |found: &[Event]| found.last().map_or(0, |event| kv(event).1);
    while last(&found) < revision {
        found.extend_from_slice(next(stream).await.events());
    }
    found
}

/// Key and revision of an event.
fn kv(event: &Event) -> (&str, i64) {
    let kv = event.kv().expect("a key");
    (kv.key_str().expect("text"), kv.mod_revision())
}

fn told(event: &Event) -> String {
    let sign = match event.event_type() {
        EventType::Put => '+',
        EventType::Delete => '-',
    };
    let value = |kv: &etcd_client::KeyValue| kv.value_str().expect("text").to_owned();
    let before = event
        .prev_kv()
        .map_or_else(String::new, |kv| format!("<{}", value(kv)));
    let now = event.kv().map(value).unwrap_or_default();
    format!("{sign}{}={now}{before}", kv(event).0)
}

#[tokio::test]
async fn a_watch_tells_history_then_what_happens_with_what_was_before() -> Result<(), Error> {
    let mut cluster = Cluster::start().await;
    let client = &mut cluster.client;
    let first = client.put("w/a", "1", None).await?;
    let first = first.header().expect("a header").revision();
    client.put("w/b", "1", None).await?;
    client.delete("w/a", None).await?;
    let options = WatchOptions::new().with_prefix().with_prev_key();
    let options = options.with_start_revision(first);
    let mut stream = client.watch("w/", Some(options)).await?;
    let id = created(&mut stream).await;
    let ops = [
        TxnOp::put("w/a", "2", None),
        TxnOp::put("w/b", "2", None),
        TxnOp::put("other", "2", None),
    ];
    client.txn(Txn::new().and_then(ops)).await?;
    let found = events_to(&mut stream, first + 3).await;
    let found: Vec<String> = found.iter().map(told).collect();
    assert_eq!(found, ["+w/a=1", "+w/b=1", "-w/a=<1", "+w/a=2", "+w/b=2<1"]);

    stream.cancel(id).await?;
    let end = next(&mut stream).await;
    assert!(end.canceled() && end.watch_id() == id, "{end:?}");
    Ok(())
}

#[tokio::test]
async fn watches_of_one_stream_are_told_apart_and_filtered() -> Result<(), Error> {
    let mut cluster = Cluster::start().await;
    let client = &mut cluster.client;
    let mut stream = client.watch("w/a", None).await?;
    let both = created(&mut stream).await;
    let mut ids = vec![both];
    for filter in [WatchFilterType::NoPut, WatchFilterType::NoDelete] {
        let options = WatchOptions::new().with_filters([filter]).with_from_key();
        stream.watch("w/a", Some(options)).await?;
        ids.push(created(&mut stream).await);
    }
    let chosen = WatchOptions::new().with_watch_id(77);
    stream.watch("w/b", Some(chosen.clone())).await?;
    ids.push(created(&mut stream).await);
    assert_eq!(ids[3], 77);
    stream.watch("w/b", Some(chosen)).await?;
    let refused = next(&mut stream).await;
    assert!(refused.canceled(), "{refused:?}");
    assert!(refused.cancel_reason().contains("duplicate watch ID"));

    client.put("w/a", "1", None).await?;
    client.delete("w/a", None).await?;
    let last = client.put("w/b", "1", None).await?;
    let last = last.header().expect("a header").revision();
    let mut told_to = vec![Vec::new(); 4];
    // Two each to the first and third, one each to the second and fourth.
    while told_to.iter().map(Vec::len).sum::<usize>() < 6 {
        let response = next(&mut stream).await;
        let to = ids.iter().position(|id| *id == response.watch_id());
        told_to[to.expect("a known watch")].extend(response.events().iter().map(told));
    }
    assert_eq!(
        told_to,
        [
            vec!["+w/a=1", "-w/a="],
            vec!["-w/a="],
            vec!["+w/a=1", "+w/b=1"],
            vec!["+w/b=1"]
        ]
    );

    stream.request_progress().await?;
    let progress = next(&mut stream).await;
    assert!(progress.events().is_empty());
    assert_eq!(progress.watch_id(), -1, "for every watch of the stream");
    assert!(progress.header().expect("a header").revision() >= last);
    Ok(())
}

#[tokio::test]
async fn a_watch_of_a_compacted_revision_says_from_where_to_go_on() -> Result<(), Error> {
    let cluster = Cluster::start().await;
    // One member: the others compact a moment later.
    let mut client = Client::connect([cluster.servers[0].endpoint()], None).await?;
    let mut last = 0;
    for value in ["1", "2", "3"] {
        let answer = client.put("k", value, None).await?;
        last = answer.header().expect("a header").revision();
    }
    client
        .compact(last, Some(CompactionOptions::new().with_physical()))
        .await?;
    let old = WatchOptions::new().with_start_revision(last - 1);
    let mut stream = client.watch("k", Some(old)).await?;
    created(&mut stream).await;
    let end = next(&mut stream).await;
    assert!(end.canceled(), "{end:?}");
    assert_eq!(end.compact_revision(), last);
    let on = WatchOptions::new().with_start_revision(last);
    stream.watch("k", Some(on)).await?;
    created(&mut stream).await;
    assert_eq!(told(&events_to(&mut stream, last).await[0]), "+k=3");
    Ok(())
}

#[tokio::test]
async fn a_large_revision_comes_whole_when_split_into_fragments() -> Result<(), Error> {
    let mut cluster = Cluster::start().await;
    let client = &mut cluster.client;
    // Values of one revision together are less than a request may be and more than a fragment holds with their keys'
    // former values.
    let value = "x".repeat(100_000);
    let keys: Vec<String> = (0..14).map(|i| format!("w/{i:02}")).collect();
    let put = |value: &str| {
        let ops: Vec<TxnOp> = keys
            .iter()
            .map(|key| TxnOp::put(key.as_str(), value, None))
            .collect();
        Txn::new().and_then(ops)
    };
    let first = client.txn(put(&value)).await?;
    let first = first.header().expect("a header").revision();
    // From there on: the member that is asked may not have applied the first one yet.
    let options = WatchOptions::new().with_prefix().with_prev_key();
    let options = options.with_start_revision(first + 1);
    let mut stream = client.watch("w/", Some(options.with_fragment())).await?;
    created(&mut stream).await;
    let answer = client.txn(put(&value)).await?;
    let revision = answer.header().expect("a header").revision();
    let mut found = Vec::new();
    let mut responses = 0;
    while found.len() < keys.len() {
        let response = next(&mut stream).await;
        responses += 1;
        for event in response.events() {
            let (key, at) = kv(event);
            assert_eq!(at, revision);
            found.push(key.to_owned());
        }
    }
    assert_eq!(found, keys);
    assert!(responses > 1, "one response of 2.8 MB");
    Ok(())
}
