//! Loads a file into a [`Config`], or reports every fault in it.

use std::path::Path;

use pingora_core::server::configuration::ServerConf;
use serde_path_to_error::Segment;
use serde_yaml::Value;

use super::diagnostic::{Diagnostic, Severity, Source};
use super::positions::Position;
use super::tree::{Step, Tree};
use super::{Checked, Config};
use super::{expected, foreign_terms, references, renamed, schema, short_forms};
use crate::base::fault::{Fault, Faults, Place, nearest};
use crate::base::text_file;

/// The most faults that are reported.
const FAULTS_MAX: usize = 100;

/// A valid configuration file.
pub struct Loaded {
    /// The checked configuration.
    pub checked: Checked,
    /// The text of the file, for warnings and tests.
    pub source: Source,
}

/// Reads and checks a file.
///
/// # Errors
/// Every fault found, in the order of the file.
pub fn load(path: &Path) -> Result<Checked, Vec<Diagnostic>> {
    open(path).map(|loaded| loaded.checked)
}

/// Reads and checks a file, and keeps its text for warnings and tests.
///
/// # Errors
/// Every fault found, in the order of the file.
pub fn open(path: &Path) -> Result<Loaded, Vec<Diagnostic>> {
    let file = path.display().to_string();
    let text = text_file::read(path).map_err(|problem| {
        let fault = Fault {
            place: Place::root(),
            problem,
            hint: "give the path of a configuration file; conf/l7lb.yaml is an example".to_owned(),
        };
        vec![Source::new(&file, "").diagnostic(Severity::Error, None, fault)]
    })?;
    read(&text, &file, &|name| std::env::var(name).ok())
}

/// The `server` block of a file, independent of other faults in the file; the defaults without a file. Used to
/// find a running process.
///
/// # Errors
/// Every fault in the file, if the block cannot be read.
pub fn server(path: Option<&Path>) -> Result<ServerConf, Vec<Diagnostic>> {
    let Some(path) = path else {
        return Ok(super::server::Config::default().check(&Place::root(), &mut Faults::default()));
    };
    load(path).map(|checked| checked.server).or_else(|diagnostics| {
        let config = || -> Option<super::server::Config> {
            let source = Source::new("", &text_file::read(path).ok()?);
            let variable = |name: &str| std::env::var(name).ok();
            let tree = tree(&source, &schema::types(), &variable, &mut Faults::default()).ok()?;
            let server = tree.get("server").map(Tree::to_value);
            server.map_or_else(|| Some(Default::default()), |it| serde_yaml::from_value(it).ok())
        };
        config().map(|config| config.check(&Place::root(), &mut Faults::default())).ok_or(diagnostics)
    })
}

/// Parses and checks `text`, the content of `file`.
///
/// # Errors
/// Every fault found, in the order of the file.
pub fn parse(text: &str, file: &str, variable: &dyn Fn(&str) -> Option<String>) -> Result<Checked, Vec<Diagnostic>> {
    read(text, file, variable).map(|loaded| loaded.checked)
}

/// [`parse`], keeping the text for warnings and tests.
///
/// # Errors
/// Every fault found, in the order of the file.
pub fn read(text: &str, file: &str, variable: &dyn Fn(&str) -> Option<String>) -> Result<Loaded, Vec<Diagnostic>> {
    let source = Source::new(file, text);
    let mut faults = Faults::default();
    let schema = schema::types();
    let mut tree = tree(&source, &schema, variable, &mut faults).map_err(|e| vec![syntax(&source, &e)])?;
    let config = shape(&mut tree, &schema, &mut faults);
    let misshapen = faults.into_vec();
    let inconsistent = match config.map(|config| config.check()) {
        Some(Ok(checked)) if misshapen.is_empty() => return Ok(Loaded { checked, source: source.with_tree(tree) }),
        Some(Err(inconsistent)) => inconsistent,
        Some(Ok(_)) | None => Vec::new(),
    };
    let inconsistent = inconsistent.into_iter().map(|fault| Fault { place: tree.origin_of(&fault.place), ..fault });
    if misshapen.is_empty() {
        return Err(source.diagnostics(Severity::Error, inconsistent.collect()));
    }
    let all = with_references(misshapen, inconsistent, &source, &schema, variable);
    Err(source.diagnostics(Severity::Error, all))
}

/// Faults of form, those of consistency that do not follow from them, and unknown references in the file as written.
fn with_references(
    misshapen: Vec<Fault>,
    inconsistent: impl Iterator<Item = Fault>,
    source: &Source,
    schema: &serde_json::Value,
    variable: &dyn Fn(&str) -> Option<String>,
) -> Vec<Fault> {
    let mut all = misshapen.clone();
    // The faults of this second reading are known.
    if let Ok(written) = tree(source, schema, variable, &mut Faults::default()) {
        all.extend(inconsistent.filter(|fault| !references::is_consequence(fault, &written, &misshapen)));
        all.extend(references::unknown_pools(&written));
    }
    all
}

/// The content of a file with variables replaced and short forms expanded, according to the `schema` of the types.
pub(super) fn tree(
    source: &Source,
    schema: &serde_json::Value,
    variable: &dyn Fn(&str) -> Option<String>,
    faults: &mut Faults,
) -> Result<Tree, serde_yaml::Error> {
    let value = read_yaml(source.content())?;
    let mut tree = Tree::new(value, Place::root(), &source.positions, variable, faults);
    short_forms::expand(&mut tree, schema, faults);
    Ok(tree)
}

pub(super) fn read_yaml(text: &str) -> Result<Value, serde_yaml::Error> {
    let mut value: Value = serde_yaml::from_str(text)?;
    value.apply_merge()?;
    // An empty file is an empty mapping: its faults are the missing keys.
    Ok(if value.is_null() { Value::Mapping(serde_yaml::Mapping::new()) } else { value })
}

/// Deserializes the tree into a [`Config`]; removes what does not fit and reports it.
pub(super) fn shape(tree: &mut Tree, schema: &serde_json::Value, faults: &mut Faults) -> Option<Config> {
    for _ in 0..FAULTS_MAX {
        match serde_path_to_error::deserialize::<_, Config>(tree.to_value()) {
            Ok(config) => return Some(config),
            Err(e) => {
                let steps = steps(e.path());
                let node = tree.walk(&steps);
                let problem = e.inner().to_string();
                let missing = problem.starts_with("missing field");
                // A key that was removed has been reported already.
                if !(missing && node.damaged) {
                    let (problem, hint) =
                        expected::wrong_type(&problem, &steps, node, schema).unwrap_or_else(|| explain(&problem));
                    faults.add(node.origin.clone(), problem, hint);
                }
                if !tree.cut(&steps) {
                    return None;
                }
            }
        }
    }
    None
}

fn steps(path: &serde_path_to_error::Path) -> Vec<Step> {
    path.iter()
        .filter_map(|segment| match segment {
            Segment::Map { key } => Some(Step::Key(key.clone())),
            Segment::Seq { index } => Some(Step::Index(*index)),
            Segment::Enum { .. } | Segment::Unknown => None,
        })
        .collect()
}

/// Converts a message of serde into a problem and a hint.
fn explain(message: &str) -> (String, String) {
    let mut words = message.split('`').skip(1).step_by(2);
    let unknown = words.next().unwrap_or_default();
    let known: Vec<&str> = words.collect();
    let all = || format!("known here: {}", known.join(", "));
    let kind = if message.starts_with("unknown field") { "key" } else { "value" };
    if message.starts_with("unknown ")
        && let Some(new) = renamed::new_name(unknown, &known)
    {
        return (format!("unknown {kind} `{unknown}`: renamed to `{new}`"), format!("write `{new}`"));
    }
    if message.starts_with("unknown ")
        && let Some(advice) = foreign_terms::advice(unknown, &known)
    {
        return (format!("unknown {kind} `{unknown}`"), advice);
    }
    if message.starts_with("unknown field") && unknown.contains(|c: char| !c.is_ascii() && c.is_whitespace()) {
        // Web pages and word processors write them; they look like spaces.
        let problem = format!("the key `{}` contains a no-break space", unknown.trim());
        return (problem, "replace it by a space".to_owned());
    }
    if message.starts_with("unknown field") {
        let hint = nearest(unknown, known.iter().copied()).map_or_else(all, |near| format!("did you mean `{near}`?"));
        return (format!("unknown key `{unknown}`"), hint);
    }
    if message.starts_with("unknown variant") {
        let hint = nearest(unknown, known.iter().copied())
            .map_or_else(all, |near| format!("did you mean `{near}`? {}", all()));
        return (format!("unknown value `{unknown}`"), hint);
    }
    if message.starts_with("missing field") {
        return (format!("the key `{unknown}` is missing"), format!("add `{unknown}: …`"));
    }
    (message.to_owned(), String::new())
}

/// Invalid YAML.
fn syntax(source: &Source, error: &serde_yaml::Error) -> Diagnostic {
    let message = error.to_string();
    if let Some(position) = error.location().and_then(|at| tab_indentation(source.content(), at.line())) {
        let fault = Fault {
            place: Place::root(),
            problem: "the line is indented with a tab, and YAML allows only spaces".to_owned(),
            hint: "replace each tab by spaces, for example with `expand -t 2 FILE`".to_owned(),
        };
        return source.diagnostic(Severity::Error, Some(position), fault);
    }
    let position = source.positions.duplicate().filter(|_| message.contains("duplicate entry"));
    let told = || error.location().map(|at| Position { line: at.line(), column: at.column() });
    // serde_yaml appends the position, which the diagnostic already has.
    let problem = message.split(" at line ").next().unwrap_or(&message).to_owned();
    let position = position.or_else(told);
    let line = position.and_then(|at| source.content().lines().nth(at.line.saturating_sub(1))).unwrap_or_default();
    let fault = Fault { place: Place::root(), hint: hint_for_syntax(&problem, line).to_owned(), problem };
    source.diagnostic(Severity::Error, position, fault)
}

/// What is probably wrong in `line`: texts of other proxies that YAML reads as something else.
fn hint_for_syntax(problem: &str, line: &str) -> &'static str {
    if problem.contains("expected alphabetic or numeric") || problem.contains("unknown anchor") {
        "put a text that begins with `*` in quotes, for example \"*.example.com\""
    } else if line.contains("[::") || line.contains("]:") {
        "put an IPv6 address in quotes, for example \"[::]:8080\""
    } else if problem.contains("cannot start any token") {
        "put the text in quotes"
    } else {
        ""
    }
}

/// The first tab in the indentation around an error in line `line`. The parser may notice it one line later.
fn tab_indentation(text: &str, line: usize) -> Option<Position> {
    let mut near = text.lines().enumerate().skip(line.saturating_sub(2)).take(3);
    near.find_map(|(index, text)| {
        let rest = text.trim_start_matches(' ');
        rest.starts_with('\t').then(|| Position { line: index + 1, column: text.len() - rest.len() + 1 })
    })
}
