//! The functions of templates: Go's builtins and Docker's additions.

use std::cmp::Ordering;

use serde_json::Value;

use crate::units;

const NAMES: &[&str] = &[
    "and", "or", "not", "eq", "ne", "lt", "le", "gt", "ge", "index", "slice", "len", "print",
    "printf", "println", "json", "split", "join", "title", "lower", "upper", "pad", "truncate",
];

/// Whether there is a function `name`.
pub(super) fn exists(name: &str) -> bool {
    NAMES.contains(&name)
}

/// What a value is, in words.
pub(super) fn kind(value: &Value) -> &'static str {
    match value {
        Value::Null => "nothing",
        Value::Bool(_) => "a boolean",
        Value::Number(_) => "a number",
        Value::String(_) => "a string",
        Value::Array(_) => "a list",
        Value::Object(_) => "an object",
    }
}

/// Go's truth: not the zero value.
pub(super) fn truth(value: &Value) -> bool {
    match value {
        Value::Null => false,
        Value::Bool(b) => *b,
        Value::Number(n) => n.as_f64() != Some(0.0),
        Value::String(s) => !s.is_empty(),
        Value::Array(a) => !a.is_empty(),
        Value::Object(o) => !o.is_empty(),
    }
}

/// Go's `%v`.
pub(super) fn display(value: &Value) -> String {
    match value {
        Value::Null => "<no value>".into(),
        Value::String(s) => s.clone(),
        Value::Bool(_) | Value::Number(_) => value.to_string(),
        Value::Array(items) => format!(
            "[{}]",
            items.iter().map(display).collect::<Vec<_>>().join(" ")
        ),
        Value::Object(map) => {
            let mut entries: Vec<_> = map.iter().collect();
            entries.sort_by_key(|(key, _)| *key);
            let entries: Vec<_> = entries
                .iter()
                .map(|(key, value)| format!("{key}:{}", display(value)))
                .collect();
            format!("map[{}]", entries.join(" "))
        }
    }
}

/// Calls `name`; its arguments are evaluated.
pub(super) fn call(name: &str, arguments: Vec<Value>) -> Result<Value, String> {
    let count = arguments.len();
    let least = match name {
        "print" | "println" => 0,
        "eq" | "ne" | "lt" | "le" | "gt" | "ge" | "split" | "join" | "truncate" => 2,
        "pad" => 3,
        _ => 1,
    };
    if count < least {
        return Err(format!(
            "{name} takes {least} arguments or more, not {count}"
        ));
    }
    let text = |at: usize| match &arguments[at] {
        Value::String(s) => Ok(s.as_str()),
        other => Err(format!(
            "argument {} of {name} is {}, not a string",
            at + 1,
            kind(other)
        )),
    };
    let number = |at: usize| {
        arguments[at]
            .as_u64()
            .map(|n| n as usize)
            .ok_or_else(|| format!("argument {} of {name} is not a whole number", at + 1))
    };
    Ok(match name {
        "and" => arguments
            .iter()
            .find(|a| !truth(a))
            .or(arguments.last())
            .cloned()
            .unwrap_or(Value::Null),
        "or" => arguments
            .iter()
            .find(|a| truth(a))
            .or(arguments.last())
            .cloned()
            .unwrap_or(Value::Null),
        "not" => Value::Bool(!truth(&arguments[0])),
        "eq" => Value::Bool(
            arguments[1..]
                .iter()
                .any(|other| equal(&arguments[0], other)),
        ),
        "ne" => Value::Bool(!equal(&arguments[0], &arguments[1])),
        "lt" => Value::Bool(order(&arguments[0], &arguments[1])? == Ordering::Less),
        "le" => Value::Bool(order(&arguments[0], &arguments[1])? != Ordering::Greater),
        "gt" => Value::Bool(order(&arguments[0], &arguments[1])? == Ordering::Greater),
        "ge" => Value::Bool(order(&arguments[0], &arguments[1])? != Ordering::Less),
        "index" => arguments[1..]
            .iter()
            .try_fold(arguments[0].clone(), |value, key| index(&value, key))?,
        "slice" => {
            let from = if count > 1 { number(1)? } else { 0 };
            let length = match &arguments[0] {
                Value::String(s) => s.len(),
                Value::Array(a) => a.len(),
                other => return Err(format!("slice cannot cut {}", kind(other))),
            };
            let to = if count > 2 { number(2)? } else { length };
            let outside =
                || format!("slice from {from} to {to} is outside of a length of {length}");
            match &arguments[0] {
                Value::String(s) => Value::from(s.get(from..to).ok_or_else(outside)?),
                Value::Array(a) => Value::from(a.get(from..to).ok_or_else(outside)?),
                _ => Value::Null,
            }
        }
        "len" => Value::from(match &arguments[0] {
            Value::String(s) => s.len(),
            Value::Array(a) => a.len(),
            Value::Object(o) => o.len(),
            other => return Err(format!("{} has no length", kind(other))),
        }),
        "print" => {
            // Go puts a space between two arguments when neither is a string.
            let mut out = String::new();
            for (at, argument) in arguments.iter().enumerate() {
                if at > 0 && !argument.is_string() && !arguments[at - 1].is_string() {
                    out.push(' ');
                }
                out.push_str(&display(argument));
            }
            Value::from(out)
        }
        "println" => {
            Value::from(arguments.iter().map(display).collect::<Vec<_>>().join(" ") + "\n")
        }
        "printf" => Value::from(printf(text(0)?, &arguments[1..])?),
        "json" => Value::from(arguments[0].to_string()),
        "split" => Value::from(text(0)?.split(text(1)?).collect::<Vec<_>>()),
        "join" => match &arguments[0] {
            Value::Array(items) => {
                Value::from(items.iter().map(display).collect::<Vec<_>>().join(text(1)?))
            }
            Value::Null => Value::from(""),
            other => return Err(format!("join takes a list, not {}", kind(other))),
        },
        "title" => Value::from(title(text(0)?)),
        "lower" => Value::from(text(0)?.to_lowercase()),
        "upper" => Value::from(text(0)?.to_uppercase()),
        "pad" => match text(0)? {
            "" => Value::from(""),
            inner => Value::from(format!(
                "{}{inner}{}",
                " ".repeat(number(1)?.min(1000)),
                " ".repeat(number(2)?.min(1000))
            )),
        },
        "truncate" => Value::from(text(0)?.chars().take(number(1)?).collect::<String>()),
        _ => return Err(format!("the function {name:?} is not defined")),
    })
}

fn title(text: &str) -> String {
    let mut start = true;
    let capitalised = text.chars().flat_map(|c| {
        let upper = start && c.is_alphabetic();
        start = !c.is_alphanumeric() && c != '_' && c != '\'';
        if upper {
            c.to_uppercase().collect::<Vec<_>>()
        } else {
            vec![c]
        }
    });
    capitalised.collect()
}

fn equal(a: &Value, b: &Value) -> bool {
    match (a, b) {
        (Value::Number(a), Value::Number(b)) => a.as_f64() == b.as_f64(),
        _ => a == b,
    }
}

fn order(a: &Value, b: &Value) -> Result<Ordering, String> {
    match (a, b) {
        (Value::String(a), Value::String(b)) => Some(a.cmp(b)),
        (Value::Number(a), Value::Number(b)) => a.as_f64().partial_cmp(&b.as_f64()),
        _ => None,
    }
    .ok_or_else(|| format!("{} and {} have no order", kind(a), kind(b)))
}

fn index(value: &Value, key: &Value) -> Result<Value, String> {
    match (value, key) {
        (Value::Object(map), Value::String(key)) => {
            Ok(map.get(key).cloned().unwrap_or(Value::Null))
        }
        (Value::Array(items), Value::Number(at)) => {
            let item = at.as_u64().and_then(|at| items.get(at as usize));
            item.cloned()
                .ok_or_else(|| format!("index {at} is outside of a list of {}", items.len()))
        }
        (Value::Null, _) => Ok(Value::Null),
        _ => Err(format!(
            "{} has no index that is {}",
            kind(value),
            kind(key)
        )),
    }
}

/// Go's `Sprintf` with the verbs `s d q v t x X f g`, flags `- 0 +`, width and precision.
fn printf(format: &str, arguments: &[Value]) -> Result<String, String> {
    let mut out = String::new();
    let mut arguments = arguments.iter();
    let mut chars = format.chars().peekable();
    while let Some(c) = chars.next() {
        if c != '%' {
            out.push(c);
            continue;
        }
        let (mut left, mut zero, mut plus) = (false, false, false);
        while let Some(&flag) = chars.peek() {
            match flag {
                '-' => left = true,
                '0' => zero = true,
                '+' => plus = true,
                _ => break,
            }
            chars.next();
        }
        let digits = |chars: &mut std::iter::Peekable<std::str::Chars<'_>>| {
            let mut value: Option<usize> = None;
            while let Some(digit) = chars.peek().and_then(|c| c.to_digit(10)) {
                value = Some((value.unwrap_or(0) * 10 + digit as usize).min(1000));
                chars.next();
            }
            value
        };
        let width = digits(&mut chars).unwrap_or(0);
        let precision = match chars.peek() {
            Some('.') => {
                chars.next();
                Some(digits(&mut chars).unwrap_or(0))
            }
            _ => None,
        };
        let verb = chars
            .next()
            .ok_or("printf: the format ends after a \"%\"")?;
        if verb == '%' {
            out.push('%');
            continue;
        }
        let argument = arguments
            .next()
            .ok_or("printf: there are fewer arguments than verbs")?;
        let mut text = verb_text(verb, argument, precision)?;
        if plus && argument.is_number() && !text.starts_with('-') {
            text.insert(0, '+');
        }
        let missing = width.saturating_sub(text.chars().count());
        if left {
            out.push_str(&text);
            out.push_str(&" ".repeat(missing));
        } else if zero && argument.is_number() {
            let sign = text.starts_with(['-', '+']) as usize;
            out.push_str(&text[..sign]);
            out.push_str(&"0".repeat(missing));
            out.push_str(&text[sign..]);
        } else {
            out.push_str(&" ".repeat(missing));
            out.push_str(&text);
        }
    }
    Ok(out)
}

fn verb_text(verb: char, argument: &Value, precision: Option<usize>) -> Result<String, String> {
    let wrong = || format!("printf: %{verb} does not take {}", kind(argument));
    Ok(match verb {
        's' | 'v' => match precision {
            Some(precision) => display(argument).chars().take(precision).collect(),
            None => display(argument),
        },
        'd' => argument
            .as_i64()
            .map(|n| n.to_string())
            .or(argument.as_u64().map(|n| n.to_string()))
            .ok_or_else(wrong)?,
        'q' => units::quote(argument.as_str().ok_or_else(wrong)?),
        't' => argument.as_bool().ok_or_else(wrong)?.to_string(),
        'x' => match argument {
            Value::String(s) => s.bytes().map(|b| format!("{b:02x}")).collect(),
            _ => format!("{:x}", argument.as_i64().ok_or_else(wrong)?),
        },
        'X' => format!("{:X}", argument.as_i64().ok_or_else(wrong)?),
        'f' => format!(
            "{:.*}",
            precision.unwrap_or(6),
            argument.as_f64().ok_or_else(wrong)?
        ),
        'g' => argument.as_f64().ok_or_else(wrong)?.to_string(),
        other => return Err(format!("printf: the verb %{other} is not known")),
    })
}
