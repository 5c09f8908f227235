//! Text to IR.

use std::collections::HashMap;

use serde::de::DeserializeOwned;
use serde_json::Value;

use crate::interface::{Input, Milestone, Output};
use crate::ops::Attrs;
use crate::{Function, Module, Node, Op, StateDecl, TensorType, ValueId};

/// A place in the text that is not IR.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
#[error("line {line}: {message}")]
pub struct ParseError {
    /// Line number from 1.
    pub line: usize,
    /// Message: what was found and what was expected.
    pub message: String,
}

type Parsed<T> = Result<T, ParseError>;

/// Parses the text form. Types are taken as declared: run [`crate::verify::verify`] on the result.
///
/// # Errors
/// The first place that is not IR.
pub fn parse(text: &str) -> Parsed<Module> {
    let mut p = Parser { text, pos: 0 };
    p.expect("module")?;
    p.expect("{")?;
    let mut module = Module::default();
    loop {
        if p.eat("}") {
            break;
        } else if p.eat("state") {
            let name = p.string()?;
            p.expect(":")?;
            module.states.push(StateDecl { name, ty: p.ty()? });
        } else if p.eat("input") {
            let (name, role) = (p.string()?, p.role()?);
            module.interface.inputs.push(Input { name, role });
        } else if p.eat("output") {
            let (name, role) = (p.string()?, p.role()?);
            module.interface.outputs.push(Output { name, role });
        } else if p.eat("milestone") {
            let value = p.string()?;
            p.expect("@")?;
            module.interface.milestones.push(Milestone { value, scope: p.string()? });
        } else if p.eat("func") {
            module.functions.push(p.function()?);
        } else {
            return Err(p.error("expected `input`, `output`, `milestone`, `state`, `func` or `}`"));
        }
    }
    p.skip();
    if p.pos < text.len() {
        return Err(p.error("expected the end of the text"));
    }
    Ok(module)
}

struct Parser<'t> {
    text: &'t str,
    pos: usize,
}

impl<'t> Parser<'t> {
    fn rest(&self) -> &'t str {
        &self.text[self.pos..]
    }

    fn error(&self, expected: &str) -> ParseError {
        let found: String = self.rest().chars().take_while(|c| *c != '\n').take(40).collect();
        let line = self.text[..self.pos].matches('\n').count() + 1;
        ParseError { line, message: format!("{expected}, found `{found}`") }
    }

    /// Skips white space and comments.
    fn skip(&mut self) {
        loop {
            let rest = self.rest();
            let trimmed = rest.trim_start();
            self.pos += rest.len() - trimmed.len();
            if trimmed.starts_with('#') {
                self.pos += trimmed.find('\n').unwrap_or(trimmed.len());
            } else {
                return;
            }
        }
    }

    fn eat(&mut self, token: &str) -> bool {
        self.skip();
        let hit = self.rest().starts_with(token);
        if hit {
            self.pos += token.len();
        }
        hit
    }

    fn expect(&mut self, token: &str) -> Parsed<()> {
        if self.eat(token) { Ok(()) } else { Err(self.error(&format!("expected `{token}`"))) }
    }

    fn word(&mut self) -> Parsed<&'t str> {
        self.skip();
        let rest = self.rest();
        let end = rest.find(|c: char| !(c.is_ascii_alphanumeric() || c == '_' || c == '.')).unwrap_or(rest.len());
        if end == 0 {
            return Err(self.error("expected a name"));
        }
        self.pos += end;
        Ok(&rest[..end])
    }

    /// A JSON value at the cursor.
    fn json(&mut self) -> Parsed<Value> {
        self.skip();
        let mut stream = serde_json::Deserializer::from_str(self.rest()).into_iter::<Value>();
        match stream.next() {
            Some(Ok(v)) => {
                self.pos += stream.byte_offset();
                Ok(v)
            }
            _ => Err(self.error("expected a JSON value")),
        }
    }

    fn string(&mut self) -> Parsed<String> {
        let at = self.pos;
        match self.json()? {
            Value::String(s) => Ok(s),
            _ => {
                self.pos = at;
                Err(self.error("expected a quoted string"))
            }
        }
    }

    fn ty(&mut self) -> Parsed<TensorType> {
        self.skip();
        let end = self.rest().find(']').map_or(0, |i| i + 1);
        let ty = self.rest()[..end].parse().map_err(|_| self.error("expected a type such as `f32[1, 48]`"))?;
        self.pos += end;
        Ok(ty)
    }

    /// `: role` or `: role {field = JSON, …}`
    fn role<T: DeserializeOwned>(&mut self) -> Parsed<T> {
        self.expect(":")?;
        self.skip();
        let at = self.pos;
        let name = self.word()?.to_owned();
        let fields = self.attrs()?;
        let role = if fields.is_empty() {
            // A role without fields is a word, or an object with its name alone.
            let word = serde_json::from_value(Value::from(name.as_str()));
            word.or_else(|_| serde_json::from_value(serde_json::json!({ "role": name })))
        } else {
            let fields = fields.into_iter().chain([("role".to_owned(), Value::from(name))]);
            serde_json::from_value(Value::Object(fields.collect()))
        };
        role.map_err(|error| {
            self.pos = at;
            self.error(&format!("expected a role ({error})"))
        })
    }

    /// `{field = JSON, …}`, or nothing.
    fn attrs(&mut self) -> Parsed<Attrs> {
        let mut attrs = Attrs::new();
        if self.eat("{") {
            while !self.eat("}") {
                let k = self.word()?.to_string();
                self.expect("=")?;
                attrs.insert(k, self.json()?);
                if !self.eat(",") {
                    self.expect("}")?;
                    break;
                }
            }
        }
        Ok(attrs)
    }

    /// A name or a quoted name; `true` if it may be a number.
    fn label(&mut self) -> Parsed<(String, bool)> {
        self.skip();
        if self.rest().starts_with('"') {
            return Ok((self.string()?, false));
        }
        let word = self.word()?;
        Ok((word.to_string(), word.bytes().all(|b| b.is_ascii_digit())))
    }

    fn value(&mut self, values: &HashMap<String, ValueId>) -> Parsed<ValueId> {
        self.expect("%")?;
        let at = self.pos;
        let (name, number) = self.label()?;
        values.get(&key(&name, number)).copied().ok_or_else(|| {
            self.pos = at;
            self.error("expected a value that is defined above")
        })
    }

    fn function(&mut self) -> Parsed<Function> {
        self.expect("@")?;
        let mut f = Function::new(self.word()?);
        let mut values = HashMap::new();
        self.expect("(")?;
        while !self.eat(")") {
            self.expect("%")?;
            let (name, _) = self.label()?;
            self.expect(":")?;
            let v = f.add_param(&name, self.ty()?);
            values.insert(key(&name, false), v);
            if !self.eat(",") {
                self.expect(")")?;
                break;
            }
        }
        self.expect("{")?;
        loop {
            self.skip();
            if self.rest().starts_with('%') {
                self.node(&mut f, &mut values)?;
            } else if self.eat("update") {
                let state = self.string()?;
                self.expect("=")?;
                let v = self.value(&values)?;
                f.updates.push((state, v));
            } else if self.eat("return") {
                if !self.eat("}") {
                    loop {
                        let (name, _) = self.label()?;
                        self.expect("=")?;
                        let v = self.value(&values)?;
                        f.results.push((name, v));
                        if !self.eat(",") {
                            break;
                        }
                    }
                    self.expect("}")?;
                }
                return Ok(f);
            } else {
                return Err(self.error("expected a value, `update` or `return`"));
            }
        }
    }

    fn node(&mut self, f: &mut Function, values: &mut HashMap<String, ValueId>) -> Parsed<()> {
        self.expect("%")?;
        let (name, number) = self.label()?;
        self.expect("=")?;
        let at = self.pos;
        let op_name = self.word()?;
        let mut operands = Vec::new();
        if self.eat("(") {
            while !self.eat(")") {
                operands.push(self.value(values)?);
                if !self.eat(",") {
                    self.expect(")")?;
                    break;
                }
            }
        }
        let attrs = self.attrs()?;
        let op = Op::parse(op_name, attrs).map_err(|e| {
            self.pos = at;
            self.error(&format!("expected an op: {e}"))
        })?;
        self.expect(":")?;
        let ty = self.ty()?;
        let scope = if self.eat("@") { self.string()? } else { String::new() };
        let node = Node { op, ty, scope: scope.into(), name: (!number).then(|| name.as_str().into()) };
        let v = f.push(node, &operands);
        if values.insert(key(&name, number), v).is_some() {
            return Err(self.error(&format!("value %{name} is defined twice, before")));
        }
        Ok(())
    }
}

/// Numbers and names have separate spaces: `%"0"` is not `%0`.
fn key(name: &str, number: bool) -> String {
    format!("{}{name}", if number { "#" } else { "" })
}
