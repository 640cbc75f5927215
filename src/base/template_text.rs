//! Texts with variables in `${…}`, as written in the configuration.

/// A part of a text with variables.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Part<V> {
    /// A text, as it is.
    Text(String),
    /// A variable.
    Variable(V),
}

/// The parts of `text`; `variable` parses the name of one. `$${` is a literal `${`.
///
/// # Errors
/// The problem and a hint, if a brace is missing or `variable` fails.
pub fn parse<V>(
    text: &str,
    variable: impl Fn(&str) -> Result<V, (String, String)>,
) -> Result<Vec<Part<V>>, (String, String)> {
    let mut parts = Vec::new();
    let mut literal = String::new();
    let mut rest = text;
    while let Some((before, after)) = rest.split_once("${") {
        if let Some(before) = before.strip_suffix('$') {
            literal.push_str(before);
            literal.push_str("${");
            rest = after;
            continue;
        }
        literal.push_str(before);
        let (name, after) = after
            .split_once('}')
            .ok_or_else(|| (format!("`{text}` has `${{` without a closing brace"), "add `}`".to_owned()))?;
        if !literal.is_empty() {
            parts.push(Part::Text(std::mem::take(&mut literal)));
        }
        parts.push(Part::Variable(variable(name)?));
        rest = after;
    }
    literal.push_str(rest);
    if !literal.is_empty() {
        parts.push(Part::Text(literal));
    }
    Ok(parts)
}
