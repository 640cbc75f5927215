//! `${NAME}` and `${NAME:-default}` in values, replaced from the environment.
//!
//! Substitution applies to parsed values, never to text, so a variable cannot add keys. `$$` is a literal
//! dollar sign.

/// Replaces the variables in `text`; `None` if there are none.
///
/// # Errors
/// The name of an unset variable, or the problem with the notation.
pub(super) fn substitute(text: &str, variable: impl Fn(&str) -> Option<String>) -> Result<Option<String>, String> {
    if !text.contains('$') {
        return Ok(None);
    }
    let mut filled = String::with_capacity(text.len());
    let mut rest = text;
    while let Some((before, after)) = rest.split_once('$') {
        filled.push_str(before);
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
        substitute(text, |name| match name {
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
    fn invalid_variables_are_reported() {
        assert!(filled("${UNSET}").unwrap_err().contains("`UNSET` is not set"));
        assert!(filled("${PORT").unwrap_err().contains("without a closing"));
        assert!(filled("${A B}").unwrap_err().contains("is not the name"));
    }
}
