//! Random tables and requests, compared with a direct implementation of the rules.

use http::Method;

use super::{Conditions, HostPattern, Matcher, Methods, PathPattern, Table};

const HOSTS: [&str; 8] = ["*", "a", "b.a", "c.b.a", "*.a", "*.b.a", "*.c.b.a", "d"];
const REQUEST_HOSTS: [&str; 12] =
    ["a", "A.", "b.a:80", "c.b.a", "x.c.B.a", "x.a", "x.y.b.a", "d", "x.d", ".a", "x..b.a", "[::1]"];
const SEGMENTS: [&str; 5] = ["p", "q", "P", "pq", "é"];
const METHODS: [Method; 3] = [Method::GET, Method::POST, Method::PUT];

/// A linear congruential generator with a fixed seed, so that failures are reproducible.
struct Random(u64);

impl Random {
    fn below(&mut self, limit: usize) -> usize {
        self.0 = self.0.wrapping_mul(6_364_136_223_846_793_005).wrapping_add(1);
        usize::try_from(self.0 >> 33).unwrap() % limit
    }

    fn of<'a, T>(&mut self, choices: &'a [T]) -> &'a T {
        &choices[self.below(choices.len())]
    }

    fn path(&mut self, valid: bool) -> String {
        let mut path = String::new();
        for _ in 0..self.below(5) {
            path.push('/');
            if valid || self.below(12) > 0 {
                path.push_str(self.of::<&str>(&SEGMENTS));
            }
        }
        if path.is_empty() || self.below(4) == 0 {
            path.push('/');
        }
        path
    }

    fn matcher(&mut self) -> Matcher {
        let methods = match self.below(3) {
            0 => Methods::of([self.of(&METHODS).clone()]),
            1 => Methods::of([self.of(&METHODS).clone(), self.of(&METHODS).clone()]),
            _ => Ok(Methods::any()),
        };
        Matcher {
            host: self.of(&HOSTS).parse().unwrap(),
            path: PathPattern::new(self.path(true), self.below(4) == 0).unwrap(),
            methods: methods.unwrap(),
            conditions: Conditions::default(),
            priority: 0,
        }
    }

    fn shuffle<T>(&mut self, items: &mut [T]) {
        for last in (1..items.len()).rev() {
            items.swap(last, self.below(last + 1));
        }
    }
}

/// How specific a host pattern is for a host, if it matches.
fn host_rank(pattern: &HostPattern, host: Option<&str>) -> Option<usize> {
    let host = host.map(|host| {
        let lower = host.to_lowercase();
        let name = lower.strip_suffix(":80").unwrap_or(&lower);
        name.strip_suffix('.').unwrap_or(name).to_owned()
    });
    match (pattern, host) {
        (HostPattern::Any, _) => Some(0),
        (HostPattern::Exact(name), Some(host)) => (*name == host).then_some(usize::MAX),
        (HostPattern::Wildcard(suffix), Some(host)) => {
            let front = host.strip_suffix(suffix.as_str())?.strip_suffix('.')?;
            (!front.is_empty() && !front.ends_with('.')).then_some(suffix.len())
        }
        (_, None) => None,
    }
}

fn path_rank(pattern: &PathPattern, path: &str) -> Option<usize> {
    if pattern.is_exact() {
        return (pattern.path() == path).then_some(usize::MAX);
    }
    let prefix = pattern.path().trim_end_matches('/');
    let rest = path.strip_prefix(prefix)?;
    (rest.is_empty() || rest.starts_with('/')).then_some(prefix.len())
}

fn rank(matcher: &Matcher, request: &Request) -> Option<(usize, usize, bool)> {
    let host = host_rank(&matcher.host, request.host)?;
    let path = path_rank(&matcher.path, &request.path)?;
    let method = matcher.methods.matches(&request.method);
    method.then_some((host, path, !matcher.methods.is_any()))
}

fn reference(routes: &[(Matcher, usize)], request: &Request) -> Option<usize> {
    let ranked = routes.iter().filter_map(|(matcher, id)| Some((rank(matcher, request)?, *id)));
    ranked.max().map(|(_, id)| id)
}

/// Whether two routes overlap, by definition rather than by an index.
fn same(left: &Matcher, right: &Matcher) -> bool {
    let path = |matcher: &Matcher| match matcher.path.is_exact() {
        true => matcher.path.path().to_owned(),
        false => matcher.path.path().trim_end_matches('/').to_owned(),
    };
    let methods = match (left.methods.is_any(), right.methods.is_any()) {
        (false, false) => left.methods.iter().any(|method| right.methods.matches(method)),
        (left, right) => left && right,
    };
    let place = left.host == right.host && left.path.is_exact() == right.path.is_exact();
    place && path(left) == path(right) && methods
}

struct Request {
    host: Option<&'static str>,
    path: String,
    method: Method,
}

fn request(random: &mut Random) -> Request {
    Request {
        host: (random.below(10) > 0).then(|| *random.of(&REQUEST_HOSTS)),
        path: random.path(false),
        method: random.of(&METHODS).clone(),
    }
}

/// A table without duplicates, of up to 200 routes.
fn routes(random: &mut Random) -> Vec<(Matcher, usize)> {
    let mut routes: Vec<(Matcher, usize)> = Vec::new();
    for id in 0..random.below(200) {
        let matcher = random.matcher();
        if !routes.iter().any(|(earlier, _)| same(earlier, &matcher)) {
            routes.push((matcher, id));
        }
    }
    routes
}

#[test]
fn table_agrees_with_a_direct_implementation_of_the_rules() {
    let mut random = Random(1);
    let mut hits = 0;
    for _ in 0..200 {
        let routes = routes(&mut random);
        let table = Table::build(routes.iter().cloned()).unwrap();
        for _ in 0..250 {
            let request = request(&mut random);
            let found = table.find(request.host, &request.path, &request.method).copied();
            let expected = reference(&routes, &request);
            assert_eq!(found, expected, "{:?} {:?}", request.host, request.path);
            hits += usize::from(found.is_some());
        }
    }
    // Enough of the 50,000 requests must match and enough must not.
    assert!((20_000..48_000).contains(&hits), "{hits}");
}

#[test]
fn order_of_routes_does_not_matter() {
    let mut random = Random(2);
    for _ in 0..20 {
        let mut routes = routes(&mut random);
        let first = Table::build(routes.iter().cloned()).unwrap();
        for _ in 0..5 {
            random.shuffle(&mut routes);
            let second = Table::build(routes.iter().cloned()).unwrap();
            for _ in 0..100 {
                let Request { host, path, method } = request(&mut random);
                let found = [&first, &second].map(|table| table.find(host, &path, &method));
                assert_eq!(found[0], found[1], "{host:?} {path:?}");
            }
        }
    }
}

#[test]
fn duplicates_are_detected_exactly() {
    let mut random = Random(3);
    let mut clashing = 0;
    for _ in 0..2_000 {
        let matchers: Vec<Matcher> = (0..8).map(|_| random.matcher()).collect();
        let mut pairs = (0..8).flat_map(|second| (0..second).map(move |first| (first, second)));
        let expected = pairs.any(|(first, second)| same(&matchers[first], &matchers[second]));
        let built = Table::build(matchers.iter().cloned().map(|matcher| (matcher, ())));
        let all_clash = built
            .as_ref()
            .err()
            .is_none_or(|found| found.iter().all(|pair| same(&matchers[pair.first], &matchers[pair.second])));
        assert_eq!(built.is_err(), expected);
        assert!(all_clash);
        clashing += usize::from(expected);
    }
    assert!((50..1_950).contains(&clashing), "{clashing}");
}
