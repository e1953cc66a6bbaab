//! Walks a template's tree over a value.

use serde_json::{Map, Value};

use super::functions;
use super::parse::{Base, Command, Node, Operand, Pipe};

/// One rendering: the root value and the variables in scope.
pub(super) struct Evaluation<'a> {
    labels: Option<&'a Map<String, Value>>,
    root: &'a Value,
    /// Innermost last.
    variables: Vec<(String, Value)>,
}

/// How a list of nodes ended.
#[derive(PartialEq, Clone, Copy)]
pub(super) enum Flow {
    /// At its end.
    On,
    /// At a `break`.
    Break,
    /// At a `continue`.
    Continue,
}

impl<'a> Evaluation<'a> {
    /// A rendering over `root`.
    pub(super) fn new(root: &'a Value, labels: Option<&'a Map<String, Value>>) -> Self {
        Self {
            labels,
            root,
            variables: vec![(String::new(), root.clone())],
        }
    }

    /// Renders `nodes` with the dot at `dot`.
    pub(super) fn nodes(
        &mut self,
        nodes: &[Node],
        dot: &Value,
        out: &mut String,
    ) -> Result<Flow, String> {
        let scope = self.variables.len();
        let mut flow = Flow::On;
        for node in nodes {
            flow = self.node(node, dot, out)?;
            if flow != Flow::On {
                break;
            }
        }
        self.variables.truncate(scope);
        Ok(flow)
    }

    fn node(&mut self, node: &Node, dot: &Value, out: &mut String) -> Result<Flow, String> {
        match node {
            Node::Text(text) => out.push_str(text),
            Node::Print(pipe) => out.push_str(&functions::display(&self.pipe(pipe, dot, false)?)),
            Node::Assign {
                name,
                declare,
                pipe,
            } => {
                let value = self.pipe(pipe, dot, false)?;
                if *declare {
                    self.variables.push((name.clone(), value));
                } else {
                    let known = self
                        .variables
                        .iter_mut()
                        .rev()
                        .find(|(known, _)| known == name);
                    known
                        .ok_or_else(|| format!("the variable ${name} is not defined"))?
                        .1 = value;
                }
            }
            Node::If {
                pipe,
                then,
                otherwise,
            } => {
                let branch = if functions::truth(&self.pipe(pipe, dot, true)?) {
                    then
                } else {
                    otherwise
                };
                return self.nodes(branch, dot, out);
            }
            Node::With {
                pipe,
                then,
                otherwise,
            } => {
                let value = self.pipe(pipe, dot, true)?;
                return match functions::truth(&value) {
                    true => self.nodes(then, &value, out),
                    false => self.nodes(otherwise, dot, out),
                };
            }
            Node::Range {
                variables,
                pipe,
                body,
                otherwise,
            } => {
                let entries: Vec<(Value, Value)> = match self.pipe(pipe, dot, false)? {
                    Value::Null => Vec::new(),
                    Value::Array(items) => items
                        .into_iter()
                        .enumerate()
                        .map(|(i, item)| (Value::from(i), item))
                        .collect(),
                    Value::Object(map) => map
                        .into_iter()
                        .map(|(key, item)| (Value::String(key), item))
                        .collect(),
                    Value::Number(n) => {
                        let count = n
                            .as_u64()
                            .filter(|&n| n <= 1_000_000)
                            .ok_or("range over a number out of range")?;
                        (0..count)
                            .map(|i| (Value::from(i), Value::from(i)))
                            .collect()
                    }
                    other => {
                        return Err(format!("range cannot go over {}", functions::kind(&other)));
                    }
                };
                if entries.is_empty() {
                    return self.nodes(otherwise, dot, out);
                }
                for (key, item) in entries {
                    let scope = self.variables.len();
                    match variables.as_slice() {
                        [one] => self.variables.push((one.clone(), item.clone())),
                        [one, two] => {
                            self.variables.push((one.clone(), key));
                            self.variables.push((two.clone(), item.clone()));
                        }
                        _ => {}
                    }
                    let flow = self.nodes(body, &item, out)?;
                    self.variables.truncate(scope);
                    if flow == Flow::Break {
                        break;
                    }
                }
            }
            Node::Break => return Ok(Flow::Break),
            Node::Continue => return Ok(Flow::Continue),
        }
        Ok(Flow::On)
    }

    /// The value of a pipeline. `lenient`: an absent field is null, not an error.
    fn pipe(&mut self, pipe: &Pipe, dot: &Value, lenient: bool) -> Result<Value, String> {
        let mut piped: Option<Value> = None;
        for command in pipe {
            piped = Some(self.command(command, dot, piped, lenient)?);
        }
        Ok(piped.unwrap_or(Value::Null))
    }

    fn command(
        &mut self,
        command: &Command,
        dot: &Value,
        piped: Option<Value>,
        lenient: bool,
    ) -> Result<Value, String> {
        let (first, rest) = command.operands.split_first().ok_or("a value is missing")?;
        if let Base::Function(name) = &first.base {
            let lenient = lenient || matches!(name.as_str(), "and" | "or" | "not");
            let mut arguments = Vec::with_capacity(rest.len() + 1);
            for operand in rest {
                let argument = self.operand(operand, dot, lenient)?;
                // `and` and `or` stop at the first that decides, as Go's do.
                let decided = match name.as_str() {
                    "and" => !functions::truth(&argument),
                    "or" => functions::truth(&argument),
                    _ => false,
                };
                arguments.push(argument);
                if decided {
                    break;
                }
            }
            arguments.extend(piped);
            let value = functions::call(name, arguments)?;
            return fields(value, &first.fields, lenient);
        }
        if rest.is_empty() && piped.is_none() {
            return self.operand(first, dot, lenient);
        }
        // The one method: `.Label "key"`.
        if first.fields.last().is_some_and(|field| field == "Label")
            && matches!(first.base, Base::Dot | Base::Variable(_))
            && let Some(labels) = self.labels
        {
            let key = match (rest, &piped) {
                ([operand], None) => self.operand(operand, dot, lenient)?,
                ([], Some(value)) => value.clone(),
                _ => return Err("Label takes one argument".into()),
            };
            let key = key
                .as_str()
                .ok_or("the argument of Label is not a string")?;
            return Ok(labels
                .get(key)
                .cloned()
                .unwrap_or_else(|| Value::String(String::new())));
        }
        Err("a value that is not a function has arguments".into())
    }

    fn operand(&mut self, operand: &Operand, dot: &Value, lenient: bool) -> Result<Value, String> {
        let base = match &operand.base {
            Base::Dot => dot.clone(),
            Base::Literal(value) => value.clone(),
            Base::Variable(name) if name.is_empty() => self.root.clone(),
            Base::Variable(name) => {
                let found = self.variables.iter().rev().find(|(known, _)| known == name);
                found
                    .ok_or_else(|| format!("the variable ${name} is not defined"))?
                    .1
                    .clone()
            }
            Base::Pipe(pipe) => self.pipe(pipe, dot, lenient)?,
            Base::Function(name) => functions::call(name, Vec::new())?,
        };
        fields(base, &operand.fields, lenient)
    }
}

/// `value.a.b`; the module of [`super`] says what an absent field is.
fn fields(value: Value, names: &[String], lenient: bool) -> Result<Value, String> {
    let mut value = value;
    for name in names {
        value = match value {
            Value::Object(mut map) => match map.remove(name) {
                Some(inner) => inner,
                None if lenient || !name.starts_with(|c: char| c.is_uppercase()) => Value::Null,
                None => return Err(no_field(name, &map)),
            },
            Value::Null if lenient => Value::Null,
            other => return Err(format!("{} has no field {name:?}", functions::kind(&other))),
        };
    }
    Ok(value)
}

fn no_field(name: &str, map: &Map<String, Value>) -> String {
    let known = map
        .keys()
        .map(String::as_str)
        .take(40)
        .collect::<Vec<_>>()
        .join(", ");
    format!("there is no field {name:?}; there are {known}")
}
