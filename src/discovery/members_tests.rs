//! Configured members and lists of sources in one pool.

use super::*;
use crate::discovery::config;

/// Attaches a counter to each address, and notes what happened.
#[derive(Default)]
struct Noting(Mutex<Vec<String>>);

impl Attach for Noting {
    type Value = Arc<BackendAddress>;

    fn attach(&self, address: BackendAddress, member: &Member, known: Option<Self::Value>) -> Self::Value {
        let what = if known.is_some() { "changed" } else { "new" };
        self.0.lock().push(format!("{what} {address} weight {}", member.weight));
        known.unwrap_or_else(|| Arc::new(address))
    }

    fn detach(&self, value: &Self::Value) {
        self.0.lock().push(format!("left {value}"));
    }

    fn is_in_use(&self, value: &Self::Value) -> bool {
        Arc::strong_count(value) > 1
    }
}

fn member(target: &str, weight: u32) -> Member {
    Member { target: target.parse().unwrap(), weight, backup: false, drain: false, zone: None }
}

fn discovery(members: Vec<Member>, sources: Sources) -> Discovery<Noting> {
    Discovery::new("p".into(), (members, sources), 65_535, Noting::default())
}

/// A pool whose backends are registered.
fn registered() -> Sources {
    let api: config::Config = serde_yaml::from_str("api: {}").unwrap();
    let mut faults = crate::base::fault::Faults::default();
    let spec = api.check(&crate::base::fault::Place::root(), &mut faults).unwrap();
    Sources::build(&"p".into(), &[spec], None)
}

fn found(address: &str, weight: u32) -> Found {
    Found { weight, ..Found::at(address.parse().unwrap()) }
}

async fn addresses(discovery: &Discovery<Noting>) -> Vec<String> {
    let (found, _) = discovery.discover().await.unwrap();
    found.iter().map(|backend| backend.addr.to_string()).collect()
}

#[tokio::test]
async fn address_keeps_its_attached_value() {
    let discovery = discovery(vec![member("127.0.0.1:1", 1), member("127.0.0.1:2", 2)], Sources::default());
    let (first, _) = discovery.discover().await.unwrap();
    let (second, _) = discovery.discover().await.unwrap();
    let attached = |set: &BTreeSet<Backend>| -> Vec<Arc<BackendAddress>> {
        set.iter().map(|b| Arc::clone(b.ext.get::<Arc<BackendAddress>>().unwrap())).collect()
    };
    assert_eq!(first.len(), 2);
    assert!(attached(&first).iter().zip(&attached(&second)).all(|(a, b)| Arc::ptr_eq(a, b)));
    assert_eq!(discovery.interval(), None);
}

#[tokio::test]
async fn replacing_discovery_takes_over_results_of_names() {
    let before = discovery(vec![member("127.0.0.1:1", 1)], Sources::default());
    before.discover().await.unwrap();
    let name: Target = "does-not-exist.invalid:80".parse().unwrap();
    before.last_good.lock().insert(name, vec!["127.0.0.9:80".parse().unwrap()]);
    let members = vec![member("127.0.0.1:2", 5), member("does-not-exist.invalid:80", 1)];
    let after = discovery(members, Sources::default()).with_results_of(&before);
    assert_eq!(addresses(&after).await, ["127.0.0.1:2", "127.0.0.9:80"]);
    assert_eq!(after.interval(), Some(RESOLVE_INTERVAL));
}

#[tokio::test]
async fn unknown_name_is_not_an_error_and_weight_zero_is_found() {
    let members = vec![member("does-not-exist.invalid:80", 1), member("127.0.0.1:2", 1), member("127.0.0.1:3", 0)];
    let discovery = discovery(members, Sources::default());
    assert_eq!(addresses(&discovery).await, ["127.0.0.1:2", "127.0.0.1:3"]);
    assert_eq!(discovery.unresolved.lock().len(), 1);
    discovery.last_good.lock().insert(discovery.members[0].target.clone(), vec!["127.0.0.9:80".parse().unwrap()]);
    assert_eq!(addresses(&discovery).await.len(), 3, "the last good result is used");
}

#[tokio::test]
async fn change_of_a_list_attaches_changes_and_detaches_only_what_differs() {
    let sources = registered();
    let kept = Arc::clone(sources.iter().next().unwrap());
    let discovery = discovery(vec![member("127.0.0.1:1", 1)], sources);
    kept.restore(vec![found("127.0.0.1:1", 9), found("127.0.0.1:2", 1), found("127.0.0.1:3", 1)], None);
    addresses(&discovery).await;
    assert_eq!(
        std::mem::take(&mut *discovery.attach.0.lock()),
        ["new 127.0.0.1:1 weight 1", "new 127.0.0.1:2 weight 1", "new 127.0.0.1:3 weight 1"],
        "the configuration takes precedence"
    );
    let in_use = discovery.value("127.0.0.1:2".parse().unwrap()).unwrap();
    kept.restore(vec![found("127.0.0.1:3", 5)], None);
    addresses(&discovery).await;
    let mut notes = std::mem::take(&mut *discovery.attach.0.lock());
    notes.sort();
    assert_eq!(notes, ["changed 127.0.0.1:3 weight 5", "left 127.0.0.1:2"]);
    assert_eq!(discovery.in_use().len(), 3, "a backend that has left stays known while it is in use");
    kept.restore(vec![found("127.0.0.1:2", 1)], None);
    addresses(&discovery).await;
    let returned = discovery.value("127.0.0.1:2".parse().unwrap()).unwrap();
    assert!(Arc::ptr_eq(&in_use, &returned), "it returns with its state");
}

#[tokio::test]
async fn weights_of_a_list_are_reduced_to_the_limit_of_the_pool() {
    let sources = registered();
    let kept = Arc::clone(sources.iter().next().unwrap());
    let discovery = Discovery::new("p".into(), (vec![member("127.0.0.1:1", 50)], sources), 100, Noting::default());
    kept.restore(vec![found("127.0.0.2:1", 100), found("127.0.0.3:1", 1), found("127.0.0.4:1", 0)], None);
    let (backends, _) = discovery.discover().await.unwrap();
    assert_eq!(backends.iter().map(|backend| backend.weight).collect::<Vec<_>>(), [50, 49, 1, 0]);
}

#[tokio::test]
async fn backends_are_listed_in_the_order_of_the_configuration_with_their_origin() {
    let sources = registered();
    let kept = Arc::clone(sources.iter().next().unwrap());
    let discovery = discovery(vec![member("127.0.0.9:1", 1), member("127.0.0.8:1", 1)], sources);
    kept.restore(vec![found("127.0.0.2:1", 1), found("127.0.0.1:1", 1)], None);
    addresses(&discovery).await;
    let listed = discovery.listed();
    assert_eq!(
        listed.iter().map(|(_, address)| address.to_string()).collect::<Vec<_>>(),
        ["127.0.0.9:1", "127.0.0.8:1", "127.0.0.1:1", "127.0.0.2:1"]
    );
    assert_eq!(listed[0].0.origin, Origin::Configured("127.0.0.9:1".parse().unwrap()));
    assert_eq!(listed[3].0.origin, Origin::Source(SourceName("api".into())));
}
