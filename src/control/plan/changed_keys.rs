//! The changed keys of a block.

/// The keys of `$type` whose values differ between `$a` and `$b`. Every key is listed once: either it is compared here
/// or it is reported by other code. A key that is missing from both lists does not compile.
macro_rules! changed_keys {
    ($type:path, $a:expr, $b:expr, compare: [$($key:ident),* $(,)?], elsewhere: [$($other:ident),* $(,)?]) => {{
        let $type { $($key: _,)* $($other: _),* } = $a;
        let differs = [$((stringify!($key), $a.$key != $b.$key)),*];
        differs.into_iter().filter(|(_, differs)| *differs).map(|(key, _)| key).collect::<Vec<&'static str>>()
    }};
}

pub(super) use changed_keys;
