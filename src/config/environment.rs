//! `${NAME}` and `${NAME:-default}` in values, replaced from the environment.
//!
//! Substitution applies to parsed values, never to text, so a variable cannot add keys. `$$` is a literal
//! dollar sign. In filters and in the template of the access log, `${name}` with a small letter at its start is one of their
//! variables, and stays.

/// Replaces the variables in `text`; `None` if there are none. `is_of_filter`: whether it is a value of a filter.
///
/// # Errors
/// The name of an unset variable, or the problem with the notation.
pub(super) fn substitute(
    text: &str,
    is_of_filter: bool,
    variable: impl Fn(&str) -> Option<String>,
) -> Result<Option<String>, String> {
    if !text.contains('$') {
        return Ok(None);
    }
    let mut filled = String::with_capacity(text.len());
    let mut rest = text;
    while let Some((before, after)) = rest.split_once('$') {
        filled.push_str(before);
        if is_of_filter && let Some(kept) = variable_of_filter(after) {
            filled.push('$');
            filled.push_str(kept);
            rest = after.get(kept.len()..).unwrap_or_default();
            continue;
        }
        if let Some(after) = after.strip_prefix('$') {
            filled.push('$');
            rest = after;
        } else if let Some(after) = after.strip_prefix('{') {
            let (inside, after) =
                after.split_once('}').ok_or_else(|| format!("`{text}` has `${{` without a closing brace"))?;
            filled.push_str(&value_of(inside, &variable)?);
            rest = after;
        } else {
            filled.push('$');
            rest = after;
        }
    }
    filled.push_str(rest);
    Ok(Some(filled))
}

/// The start of the text after a dollar sign, if it is a variable of filters such as `${client.ip}`, or its literal form
/// `$${client.ip}`. These have small letters at their start, unlike the variables of most environments.
fn variable_of_filter(after: &str) -> Option<&str> {
    let name = after.strip_prefix('$').unwrap_or(after).strip_prefix('{')?;
    name.starts_with(|first: char| first.is_ascii_lowercase()).then_some(())?;
    after.get(..=after.find('}')?)
}

fn value_of(inside: &str, variable: impl Fn(&str) -> Option<String>) -> Result<String, String> {
    let (name, default) = match inside.split_once(":-") {
        Some((name, default)) => (name, Some(default)),
        None => (inside, None),
    };
    let is_name = !name.is_empty() && name.bytes().all(|b| b.is_ascii_alphanumeric() || b == b'_');
    if !is_name {
        return Err(format!("`{name}` is not the name of an environment variable"));
    }
    // As in a shell, `:-` also applies to a variable that is empty.
    let set = variable(name).filter(|value| default.is_none() || !value.is_empty());
    set.or_else(|| default.map(str::to_owned)).ok_or_else(|| format!("the environment variable `{name}` is not set"))
}

#[cfg(test)]
mod tests {
    use super::*;

    fn filled(text: &str) -> Result<Option<String>, String> {
        substitute(text, false, |name| match name {
            "PORT" => Some("8080".to_owned()),
            "EMPTY" => Some(String::new()),
            _ => None,
        })
    }

    #[test]
    fn variables_and_defaults_are_substituted() {
        assert_eq!(filled("plain"), Ok(None));
        assert_eq!(filled("0.0.0.0:${PORT}").unwrap().unwrap(), "0.0.0.0:8080");
        assert_eq!(filled("${HOST:-localhost}:${PORT:-1}").unwrap().unwrap(), "localhost:8080");
        assert_eq!(filled("${EMPTY:-x}${EMPTY}").unwrap().unwrap(), "x");
        assert_eq!(filled("${UNSET:-}").unwrap().unwrap(), "");
        assert_eq!(filled("$$5 and $5 and $").unwrap().unwrap(), "$5 and $5 and $");
    }

    #[test]
    fn variables_of_filters_stay() {
        let filled = |text: &str| substitute(text, true, |name| (name == "PORT").then(|| "80".to_owned()));
        for (text, wanted) in [
            ("${client.ip}:${PORT}", "${client.ip}:80"),
            ("$${client.ip} $$5 ${PORT:-1}", "$${client.ip} $5 80"),
            ("${route", "is not closed"),
        ] {
            match filled(text) {
                Ok(filled) => assert_eq!(filled.unwrap(), wanted),
                Err(problem) => {
                    assert!(wanted == "is not closed" && problem.contains("without a closing"), "{problem}")
                }
            }
        }
    }

    #[test]
    fn invalid_variables_are_reported() {
        assert!(filled("${UNSET}").unwrap_err().contains("`UNSET` is not set"));
        assert!(filled("${PORT").unwrap_err().contains("without a closing"));
        assert!(filled("${A B}").unwrap_err().contains("is not the name"));
    }
}
