//! Template text to tree. Grammar (Go's, less `define`, `template` and `block`):
//!
//! ```text
//! template = { text | "{{" ["-"] action ["-"] "}}" }
//! action   = comment | "if" pipe | "else" ["if" pipe] | "range" [var ["," var] ":="] pipe | "with" pipe | "end"
//!          | "break" | "continue" | [var (":="|"=")] pipe
//! pipe     = command { "|" command }
//! command  = operand { operand }
//! operand  = (literal | "." | "."field | var | "(" pipe ")" | function) { "." field }
//! ```

use serde_json::Value;

use super::functions;

/// One piece of a template.
#[derive(Debug, Clone)]
pub(super) enum Node {
    /// Literal text.
    Text(String),
    /// A pipeline whose value is printed.
    Print(Pipe),
    /// `$name := pipe` or, when `declare` is off, `$name = pipe`.
    Assign {
        name: String,
        declare: bool,
        pipe: Pipe,
    },
    /// `if`, with `else if` nested in `otherwise`.
    If {
        pipe: Pipe,
        then: Vec<Node>,
        otherwise: Vec<Node>,
    },
    /// `with`.
    With {
        pipe: Pipe,
        then: Vec<Node>,
        otherwise: Vec<Node>,
    },
    /// `range`.
    Range {
        variables: Vec<String>,
        pipe: Pipe,
        body: Vec<Node>,
        otherwise: Vec<Node>,
    },
    /// `break`.
    Break,
    /// `continue`.
    Continue,
}

/// Commands whose results are the last argument of the next.
pub(super) type Pipe = Vec<Command>;

/// An operand with arguments.
#[derive(Debug, Clone)]
pub(super) struct Command {
    /// The function, field or value first, its arguments after it.
    pub(super) operands: Vec<Operand>,
}

/// A value with fields taken from it.
#[derive(Debug, Clone)]
pub(super) struct Operand {
    /// Where it starts.
    pub(super) base: Base,
    /// `.A.B`.
    pub(super) fields: Vec<String>,
}

/// The start of an operand.
#[derive(Debug, Clone)]
pub(super) enum Base {
    /// The current value.
    Dot,
    /// `$name`; `$` is the empty name.
    Variable(String),
    /// A literal.
    Literal(Value),
    /// `( … )`.
    Pipe(Pipe),
    /// A function by name.
    Function(String),
}

#[derive(Debug, Clone, PartialEq)]
enum Token {
    Dot,
    /// `.Name`, with no space before it when `glued`.
    Field {
        name: String,
        glued: bool,
    },
    Variable(String),
    Word(String),
    Literal(Value),
    Open,
    Close,
    Bar,
    Comma,
    Declare,
    Assign,
}

enum Piece {
    Text(String),
    Action(Vec<Token>),
}

/// Parses a whole template.
pub(super) fn parse(text: &str) -> Result<Vec<Node>, String> {
    let pieces = pieces(text)?;
    let mut parser = Parser {
        pieces: pieces.into_iter().peekable(),
        depth: 0,
    };
    let (nodes, stop) = parser.block()?;
    match stop {
        Stop::End => Err("an {{end}} or {{else}} without its {{if}}, {{range}} or {{with}}".into()),
        Stop::Else(_) => Err("an {{else}} without its {{if}}, {{range}} or {{with}}".into()),
        Stop::Eof => Ok(nodes),
    }
}

/// Cuts the text into literal text and actions, with the white space that `{{-` and `-}}` eat taken away.
fn pieces(text: &str) -> Result<Vec<Piece>, String> {
    let mut pieces = Vec::new();
    let mut rest = text;
    let mut trim_next = false;
    loop {
        let start = rest.find("{{");
        let mut literal = &rest[..start.unwrap_or(rest.len())];
        if trim_next {
            literal = literal.trim_start();
        }
        let Some(start) = start else {
            if !literal.is_empty() {
                pieces.push(Piece::Text(literal.to_owned()));
            }
            return Ok(pieces);
        };
        let mut inside = &rest[start + 2..];
        if let Some(after) = inside.strip_prefix('-')
            && after.starts_with(|c: char| c.is_ascii_whitespace())
        {
            inside = after;
            literal = literal.trim_end();
        }
        if !literal.is_empty() {
            pieces.push(Piece::Text(literal.to_owned()));
        }
        if let Some(comment) = inside.trim_start().strip_prefix("/*") {
            let after = comment
                .split_once("*/")
                .ok_or("a comment is not closed")?
                .1
                .trim_start();
            let (after, trim) = match after.strip_prefix('-') {
                Some(after) => (after, true),
                None => (after, false),
            };
            rest = after
                .strip_prefix("}}")
                .ok_or("a comment does not end with \"}}\"")?;
            trim_next = trim;
            continue;
        }
        let (tokens, after, trim) = tokens(inside)?;
        pieces.push(Piece::Action(tokens));
        rest = after;
        trim_next = trim;
    }
}

/// Reads tokens up to `}}`; gives what follows it, and whether it trims.
fn tokens(text: &str) -> Result<(Vec<Token>, &str, bool), String> {
    let mut tokens = Vec::new();
    let mut rest = text;
    loop {
        let spaced = rest.starts_with(|c: char| c.is_whitespace());
        rest = rest.trim_start();
        if let Some(after) = rest.strip_prefix("}}") {
            return Ok((tokens, after, false));
        }
        if spaced && let Some(after) = rest.strip_prefix("-}}") {
            return Ok((tokens, after, true));
        }
        let Some(first) = rest.chars().next() else {
            return Err("an action is not closed with \"}}\"".into());
        };
        let name_end = |from: &str| {
            from.find(|c: char| !c.is_alphanumeric() && c != '_')
                .unwrap_or(from.len())
        };
        match first {
            '.' => {
                let name = &rest[1..1 + name_end(&rest[1..])];
                if name.is_empty() {
                    tokens.push(Token::Dot);
                } else {
                    let glued = !spaced && !tokens.is_empty();
                    tokens.push(Token::Field {
                        name: name.to_owned(),
                        glued,
                    });
                }
                rest = &rest[1 + name.len()..];
            }
            '$' => {
                let name = &rest[1..1 + name_end(&rest[1..])];
                tokens.push(Token::Variable(name.to_owned()));
                rest = &rest[1 + name.len()..];
            }
            '"' => {
                let (value, after) = quoted(&rest[1..])?;
                tokens.push(Token::Literal(Value::String(value)));
                rest = after;
            }
            '`' => {
                let (raw, after) = rest[1..]
                    .split_once('`')
                    .ok_or("a raw string is not closed")?;
                tokens.push(Token::Literal(Value::String(raw.to_owned())));
                rest = after;
            }
            '(' | ')' | '|' | ',' | '=' => {
                tokens.push(match first {
                    '(' => Token::Open,
                    ')' => Token::Close,
                    '|' => Token::Bar,
                    ',' => Token::Comma,
                    _ => Token::Assign,
                });
                rest = &rest[1..];
            }
            ':' if rest.starts_with(":=") => {
                tokens.push(Token::Declare);
                rest = &rest[2..];
            }
            '0'..='9' | '-' | '+' => {
                let end = rest[1..]
                    .find(|c: char| !c.is_ascii_alphanumeric() && c != '.' && c != '_')
                    .map_or(rest.len(), |end| end + 1);
                let number = &rest[..end];
                let value = if let Ok(whole) = number.parse::<i64>() {
                    Value::from(whole)
                } else if let Ok(float) = number.parse::<f64>() {
                    Value::from(float)
                } else {
                    return Err(format!("{number:?} is not a number"));
                };
                tokens.push(Token::Literal(value));
                rest = &rest[end..];
            }
            c if c.is_alphabetic() || c == '_' => {
                let name = &rest[..name_end(rest)];
                tokens.push(match name {
                    "true" => Token::Literal(Value::Bool(true)),
                    "false" => Token::Literal(Value::Bool(false)),
                    "nil" => Token::Literal(Value::Null),
                    _ => Token::Word(name.to_owned()),
                });
                rest = &rest[name.len()..];
            }
            c => return Err(format!("the character {c:?} means nothing in an action")),
        }
    }
}

/// A Go string after its opening quote; gives its value and what follows the closing quote.
fn quoted(text: &str) -> Result<(String, &str), String> {
    let mut value = String::new();
    let mut chars = text.char_indices();
    while let Some((at, c)) = chars.next() {
        match c {
            '"' => return Ok((value, &text[at + 1..])),
            '\n' => break,
            '\\' => match chars.next() {
                Some((_, 'n')) => value.push('\n'),
                Some((_, 't')) => value.push('\t'),
                Some((_, 'r')) => value.push('\r'),
                Some((_, c @ ('"' | '\\' | '\''))) => value.push(c),
                Some((_, other)) => return Err(format!("the escape \\{other} is not known")),
                None => break,
            },
            c => value.push(c),
        }
    }
    Err("a string is not closed".into())
}

enum Stop {
    Eof,
    End,
    /// The tokens after `else`.
    Else(Vec<Token>),
}

struct Parser {
    pieces: std::iter::Peekable<std::vec::IntoIter<Piece>>,
    depth: usize,
}

impl Parser {
    /// Nodes up to the `end` or `else` of the block that encloses them.
    fn block(&mut self) -> Result<(Vec<Node>, Stop), String> {
        // The evaluator recurses as deep as the template nests.
        self.depth += 1;
        if self.depth > 100 {
            return Err("blocks are nested more than 100 deep".into());
        }
        let mut nodes = Vec::new();
        let stop = loop {
            let tokens = match self.pieces.next() {
                None => break Stop::Eof,
                Some(Piece::Text(text)) => {
                    nodes.push(Node::Text(text));
                    continue;
                }
                Some(Piece::Action(tokens)) => tokens,
            };
            match tokens.first() {
                Some(Token::Word(word)) if word == "end" => break Stop::End,
                Some(Token::Word(word)) if word == "else" => {
                    break Stop::Else(tokens[1..].to_vec());
                }
                Some(Token::Word(word)) if word == "break" => nodes.push(Node::Break),
                Some(Token::Word(word)) if word == "continue" => nodes.push(Node::Continue),
                Some(Token::Word(word)) if word == "if" || word == "with" || word == "range" => {
                    let word = word.clone();
                    nodes.push(self.control(&word, &tokens[1..])?);
                }
                Some(Token::Word(word))
                    if matches!(word.as_str(), "define" | "template" | "block") =>
                {
                    return Err(format!("{{{{{word}}}}} is not supported"));
                }
                Some(Token::Variable(name))
                    if matches!(tokens.get(1), Some(Token::Declare | Token::Assign)) =>
                {
                    nodes.push(Node::Assign {
                        name: name.clone(),
                        declare: tokens[1] == Token::Declare,
                        pipe: whole_pipe(&tokens[2..])?,
                    });
                }
                _ => nodes.push(Node::Print(whole_pipe(&tokens)?)),
            }
        };
        self.depth -= 1;
        Ok((nodes, stop))
    }

    fn control(&mut self, word: &str, tokens: &[Token]) -> Result<Node, String> {
        let mut variables = Vec::new();
        let mut tokens = tokens;
        if word == "range" {
            match tokens {
                [Token::Variable(one), Token::Declare, rest @ ..] => {
                    variables = vec![one.clone()];
                    tokens = rest;
                }
                [
                    Token::Variable(one),
                    Token::Comma,
                    Token::Variable(two),
                    Token::Declare,
                    rest @ ..,
                ] => {
                    variables = vec![one.clone(), two.clone()];
                    tokens = rest;
                }
                _ => {}
            }
        }
        let pipe = whole_pipe(tokens)?;
        let (then, stop) = self.block()?;
        let otherwise = match stop {
            Stop::End => Vec::new(),
            Stop::Eof => return Err(format!("a {{{{{word}}}}} has no {{{{end}}}}")),
            Stop::Else(rest) => match rest.first() {
                None => match self.block()? {
                    (nodes, Stop::End) => nodes,
                    _ => {
                        return Err(format!(
                            "the {{{{else}}}} of a {{{{{word}}}}} has no {{{{end}}}}"
                        ));
                    }
                },
                Some(Token::Word(next)) if next == word && word != "range" => {
                    self.depth += 1;
                    let nested = self.control(word, &rest[1..])?;
                    self.depth -= 1;
                    vec![nested]
                }
                Some(_) => {
                    return Err(format!(
                        "{{{{else}}}} of a {{{{{word}}}}} is followed by something that is not {word}"
                    ));
                }
            },
        };
        Ok(match word {
            "if" => Node::If {
                pipe,
                then,
                otherwise,
            },
            "with" => Node::With {
                pipe,
                then,
                otherwise,
            },
            _ => Node::Range {
                variables,
                pipe,
                body: then,
                otherwise,
            },
        })
    }
}

fn whole_pipe(tokens: &[Token]) -> Result<Pipe, String> {
    let mut rest = tokens;
    let pipe = pipe(&mut rest, 0)?;
    match rest.first() {
        None => Ok(pipe),
        Some(Token::Close) => Err("a \")\" has no \"(\"".into()),
        Some(other) => Err(format!("unexpected {other:?}")),
    }
}

fn pipe(rest: &mut &[Token], depth: usize) -> Result<Pipe, String> {
    if depth > 50 {
        return Err("parentheses are nested more than 50 deep".into());
    }
    let mut commands = Vec::new();
    loop {
        let mut operands = Vec::new();
        while let Some(operand) = operand(rest, depth)? {
            operands.push(operand);
        }
        if operands.is_empty() {
            return Err("a value is missing".into());
        }
        commands.push(Command { operands });
        match rest.first() {
            Some(Token::Bar) => *rest = &rest[1..],
            _ => return Ok(commands),
        }
    }
}

fn operand(rest: &mut &[Token], depth: usize) -> Result<Option<Operand>, String> {
    let Some(first) = rest.first() else {
        return Ok(None);
    };
    let mut fields = Vec::new();
    let base = match first {
        Token::Dot => Base::Dot,
        Token::Field { name, .. } => {
            fields.push(name.clone());
            Base::Dot
        }
        Token::Variable(name) => Base::Variable(name.clone()),
        Token::Literal(value) => Base::Literal(value.clone()),
        Token::Word(name) if functions::exists(name) => Base::Function(name.clone()),
        Token::Word(name) => return Err(format!("the function {name:?} is not defined")),
        Token::Open => {
            *rest = &rest[1..];
            let inner = pipe(rest, depth + 1)?;
            if rest.first() != Some(&Token::Close) {
                return Err("a \"(\" is not closed".into());
            }
            Base::Pipe(inner)
        }
        Token::Close | Token::Bar => return Ok(None),
        Token::Comma | Token::Declare | Token::Assign => {
            return Err("\",\", \":=\" or \"=\" is out of place".into());
        }
    };
    *rest = &rest[1..];
    while let Some(Token::Field { name, glued: true }) = rest.first() {
        fields.push(name.clone());
        *rest = &rest[1..];
    }
    Ok(Some(Operand { base, fields }))
}
