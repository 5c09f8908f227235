//! The text of a pattern, and its tree.

use std::fmt;
use std::str::FromStr;

/// A formula to look for; see the module's table.
#[derive(Clone, Debug, PartialEq)]
pub struct Pattern {
    pub(super) root: Pat,
}

/// A pattern's tree.
#[derive(Clone, Debug, PartialEq)]
pub(super) enum Pat {
    /// A name and what it may stand for.
    Hole(String, Kind),
    /// A scalar literal.
    Number(f64),
    /// `a + b + …`
    Sum(Vec<Pat>),
    /// `a * b * …`
    Product(Vec<Pat>),
    /// `a - b`
    Difference(Box<Pat>, Box<Pat>),
    /// `a / b`
    Ratio(Box<Pat>, Box<Pat>),
    /// `a^n`
    Power(Box<Pat>, u32),
    /// `a @ b`; an operand may be [`Pat::Transposed`].
    Product2(Box<Pat>, Box<Pat>),
    /// `a.T`
    Transposed(Box<Pat>),
    /// `name[axes](a, b, ..)`: name, name of the axes, operands, whether more may follow.
    Call(String, Option<String>, Vec<Pat>, bool),
    /// `~a`
    Layout(Box<Pat>),
}

/// The values that a name may stand for.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub(super) enum Kind {
    /// Any value.
    #[default]
    Value,
    /// A scalar literal, taken as its number.
    Number,
    /// A weight expression.
    Const,
}

/// A pattern that cannot be read.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
#[error("pattern `{pattern}`: {message} at byte {at}")]
pub struct SyntaxError {
    pattern: String,
    message: String,
    at: usize,
}

impl FromStr for Pattern {
    type Err = SyntaxError;

    fn from_str(text: &str) -> Result<Self, SyntaxError> {
        let (formula, kinds) = match text.split_once(" where ") {
            Some((formula, kinds)) => (formula, kinds),
            None => (text, ""),
        };
        let mut p = Parser { text: formula, at: 0, kinds: Vec::new() };
        for entry in kinds.split(',').map(str::trim).filter(|e| !e.is_empty()) {
            let kind = match entry.split_once(':').map(|(name, kind)| (name.trim(), kind.trim())) {
                Some((name, "number")) => (name.to_string(), Kind::Number),
                Some((name, "const")) => (name.to_string(), Kind::Const),
                _ => return p.fail("expected `name: number` or `name: const` after `where`"),
            };
            p.kinds.push(kind);
        }
        let root = p.sum()?;
        if p.peek().is_some() {
            return p.fail("expected the end");
        }
        Ok(Pattern { root })
    }
}

struct Parser<'t> {
    text: &'t str,
    at: usize,
    kinds: Vec<(String, Kind)>,
}

impl Parser<'_> {
    fn fail<T>(&self, message: &str) -> Result<T, SyntaxError> {
        Err(SyntaxError { pattern: self.text.into(), message: message.into(), at: self.at })
    }

    fn peek(&mut self) -> Option<char> {
        let rest = &self.text[self.at..];
        self.at += rest.len() - rest.trim_start().len();
        self.text[self.at..].chars().next()
    }

    fn take(&mut self, token: &str) -> bool {
        self.peek();
        let found = self.text[self.at..].starts_with(token);
        if found {
            self.at += token.len();
        }
        found
    }

    fn want(&mut self, token: &str) -> Result<(), SyntaxError> {
        if self.take(token) { Ok(()) } else { self.fail(&format!("expected `{token}`")) }
    }

    fn sum(&mut self) -> Result<Pat, SyntaxError> {
        let mut left = self.term()?;
        loop {
            left = if self.take("+") {
                let right = self.term()?;
                match left {
                    Pat::Sum(mut terms) => {
                        terms.push(right);
                        Pat::Sum(terms)
                    }
                    left => Pat::Sum(vec![left, right]),
                }
            } else if self.take("-") {
                Pat::Difference(left.into(), self.term()?.into())
            } else {
                return Ok(left);
            }
        }
    }

    fn term(&mut self) -> Result<Pat, SyntaxError> {
        let mut left = self.factor()?;
        loop {
            left = if self.take("*") {
                let right = self.factor()?;
                match left {
                    Pat::Product(mut factors) => {
                        factors.push(right);
                        Pat::Product(factors)
                    }
                    left => Pat::Product(vec![left, right]),
                }
            } else if self.take("/") {
                Pat::Ratio(left.into(), self.factor()?.into())
            } else if self.take("@") {
                Pat::Product2(left.into(), self.factor()?.into())
            } else {
                return Ok(left);
            }
        }
    }

    fn factor(&mut self) -> Result<Pat, SyntaxError> {
        if self.take("~") {
            return Ok(Pat::Layout(self.factor()?.into()));
        }
        let base = match self.peek() {
            Some('(') => {
                self.want("(")?;
                let inner = self.sum()?;
                self.want(")")?;
                inner
            }
            Some(c) if c.is_ascii_digit() => Pat::Number(self.number()?),
            Some(c) if c.is_ascii_alphabetic() => self.named()?,
            _ => return self.fail("expected a name, a number or `(`"),
        };
        if self.take("^") {
            let n = self.number()?;
            if n.fract() != 0.0 || !(2.0..=4.0).contains(&n) {
                return self.fail("expected a whole power from 2 to 4");
            }
            return Ok(Pat::Power(base.into(), n as u32));
        }
        Ok(if self.take(".T") { Pat::Transposed(base.into()) } else { base })
    }

    fn number(&mut self) -> Result<f64, SyntaxError> {
        self.peek();
        let rest = &self.text[self.at..];
        let len = rest.find(|c: char| !c.is_ascii_digit() && c != '.').unwrap_or(rest.len());
        match rest[..len].parse() {
            Ok(n) => {
                self.at += len;
                Ok(n)
            }
            Err(_) => self.fail("expected a number"),
        }
    }

    fn name(&mut self) -> Result<String, SyntaxError> {
        self.peek();
        let rest = &self.text[self.at..];
        let len = rest.find(|c: char| !c.is_ascii_alphanumeric() && c != '_').unwrap_or(rest.len());
        if len == 0 {
            return self.fail("expected a name");
        }
        self.at += len;
        Ok(rest[..len].to_string())
    }

    fn named(&mut self) -> Result<Pat, SyntaxError> {
        let name = self.name()?;
        let axes = if self.take("[") {
            let axes = self.name()?;
            self.want("]")?;
            Some(axes)
        } else {
            None
        };
        if !self.take("(") {
            let kind = self.kinds.iter().find(|(n, _)| *n == name).map(|(_, k)| *k).unwrap_or_default();
            return if axes.is_none() { Ok(Pat::Hole(name, kind)) } else { self.fail("expected `(`") };
        }
        let (mut operands, mut more) = (Vec::new(), false);
        while !self.take(")") {
            if self.take("..") {
                more = true;
                self.want(")")?;
                break;
            }
            operands.push(self.sum()?);
            if !self.take(",") {
                self.want(")")?;
                break;
            }
        }
        Ok(Pat::Call(name, axes, operands, more))
    }
}

impl fmt::Display for Pat {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let joined = |list: &[Pat], by: &str| list.iter().map(Pat::grouped).collect::<Vec<_>>().join(by);
        match self {
            Pat::Hole(name, Kind::Value) => f.write_str(name),
            Pat::Hole(name, Kind::Number) => write!(f, "{name} (a number)"),
            Pat::Hole(name, Kind::Const) => write!(f, "{name} (a constant)"),
            Pat::Number(n) => write!(f, "{n}"),
            Pat::Sum(terms) => f.write_str(&joined(terms, " + ")),
            Pat::Product(factors) => f.write_str(&joined(factors, " * ")),
            Pat::Difference(a, b) => write!(f, "{} - {}", a.grouped(), b.grouped()),
            Pat::Ratio(a, b) => write!(f, "{} / {}", a.grouped(), b.grouped()),
            Pat::Power(a, n) => write!(f, "{}^{n}", a.grouped()),
            Pat::Product2(a, b) => write!(f, "{} @ {}", a.grouped(), b.grouped()),
            Pat::Transposed(a) => write!(f, "{}.T", a.grouped()),
            Pat::Layout(a) => write!(f, "~{}", a.grouped()),
            Pat::Call(name, axes, operands, more) => {
                let axes = axes.as_ref().map(|a| format!("[{a}]")).unwrap_or_default();
                let mut list: Vec<String> = operands.iter().map(ToString::to_string).collect();
                list.extend(more.then(|| "..".to_string()));
                write!(f, "{name}{axes}({})", list.join(", "))
            }
        }
    }
}

impl Pat {
    /// The text, in parentheses if it is a sum or a product.
    fn grouped(&self) -> String {
        match self {
            Pat::Sum(_) | Pat::Product(_) | Pat::Difference(..) | Pat::Ratio(..) | Pat::Product2(..) => {
                format!("({self})")
            }
            _ => self.to_string(),
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn patterns_print_as_they_are_written() {
        for text in [
            "x * rsqrt(mean[axis](x^2) + 0.5) * y",
            "(q @ (k.T @ v)) / ((p @ sum[t](r).T) + e)",
            "interleave((even(x) * c) - (odd(x) * s), (even(x) * s) + (odd(x) * c))",
            "linear(~sdpa(a, b, ..), ..)",
        ] {
            let parsed: Pattern = text.parse().unwrap();
            assert_eq!(parsed.root.to_string().parse::<Pattern>().unwrap(), parsed, "{text}");
        }
    }

    #[test]
    fn broken_patterns_say_where() {
        for (text, part) in [
            ("x *", "expected a name"),
            ("x + (y", "expected `)`"),
            ("x^9", "power"),
            ("x where y is z", "after `where`"),
            ("x y", "expected the end"),
            ("mean[](x)", "expected a name"),
            ("x * )", "expected a name, a number or `(`"),
            ("x * 2.5.1", "expected a number"),
            ("x^2.5", "whole power"),
        ] {
            let error = text.parse::<Pattern>().unwrap_err().to_string();
            assert!(error.contains(part), "{error}");
        }
    }
}
