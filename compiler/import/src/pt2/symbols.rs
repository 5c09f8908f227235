//! Expressions of symbolic sizes, as sympy prints them (`2*s0`) or as torch 2.7 and earlier do (`Mul(Integer(2), Symbol('s0'))`), with values
//! for the symbols.

use std::collections::BTreeMap;

/// The value of an expression.
///
/// # Errors
/// A symbol without a value, by name; text that is no expression of whole numbers.
pub(super) fn value(text: &str, sizes: &BTreeMap<&str, usize>) -> Result<i64, Unknown> {
    let mut parser = Parser { text, rest: text, sizes, depth: 0 };
    let value = parser.sum()?;
    match parser.rest.trim_start() {
        "" => Ok(value),
        _ => Err(parser.bad()),
    }
}

/// Why an expression has no value.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(super) enum Unknown {
    /// A symbol that is not bound.
    Symbol(String),
    /// No expression of whole numbers.
    Text(String),
}

struct Parser<'a> {
    text: &'a str,
    rest: &'a str,
    sizes: &'a BTreeMap<&'a str, usize>,
    depth: usize,
}

/// Parentheses inside each other.
const DEEPEST: usize = 64;

impl Parser<'_> {
    fn bad(&self) -> Unknown {
        Unknown::Text(self.text.to_owned())
    }

    fn eat(&mut self, token: &str) -> bool {
        match self.rest.trim_start().strip_prefix(token) {
            Some(rest) => {
                self.rest = rest;
                true
            }
            None => false,
        }
    }

    fn sum(&mut self) -> Result<i64, Unknown> {
        let mut value = self.product()?;
        loop {
            let next = match () {
                () if self.eat("+") => value.checked_add(self.product()?),
                () if self.eat("-") => value.checked_sub(self.product()?),
                () => return Ok(value),
            };
            value = next.ok_or_else(|| self.bad())?;
        }
    }

    fn product(&mut self) -> Result<i64, Unknown> {
        let mut value = self.power()?;
        loop {
            let next = match () {
                () if self.eat("//") => floor_div(value, self.power()?),
                () if self.rest.trim_start().starts_with("**") => return Ok(value),
                () if self.eat("*") => value.checked_mul(self.power()?),
                () => return Ok(value),
            };
            value = next.ok_or_else(|| self.bad())?;
        }
    }

    fn power(&mut self) -> Result<i64, Unknown> {
        let mut negative = false;
        while self.eat("-") {
            negative = !negative;
        }
        let mut value = self.atom()?;
        if self.eat("**") {
            let exponent = u32::try_from(self.atom()?).map_err(|_| self.bad())?;
            value = value.checked_pow(exponent).ok_or_else(|| self.bad())?;
        }
        if negative { value.checked_neg().ok_or_else(|| self.bad()) } else { Ok(value) }
    }

    fn atom(&mut self) -> Result<i64, Unknown> {
        self.depth += 1;
        if self.depth > DEEPEST {
            return Err(self.bad());
        }
        let value = self.inner();
        self.depth -= 1;
        value
    }

    fn inner(&mut self) -> Result<i64, Unknown> {
        if self.eat("(") {
            let value = self.sum()?;
            return if self.eat(")") { Ok(value) } else { Err(self.bad()) };
        }
        self.rest = self.rest.trim_start();
        let end = self.rest.find(|c: char| !c.is_ascii_alphanumeric() && c != '_').unwrap_or(self.rest.len());
        let (word, rest) = self.rest.split_at(end);
        self.rest = rest;
        if let Ok(number) = word.parse() {
            return Ok(number);
        }
        if !word.is_empty() && self.eat("(") {
            return self.call(word);
        }
        self.symbol(word)
    }

    /// What follows an opening parenthesis: arguments of a function, or the name of a symbol and what is assumed of it.
    fn call(&mut self, function: &str) -> Result<i64, Unknown> {
        if function == "Symbol" {
            let (name, rest) = self.rest.split_once(')').ok_or_else(|| self.bad())?;
            self.rest = rest;
            let name = name.split(',').next().unwrap_or_default().trim().trim_matches(['\'', '"']);
            return self.symbol(name);
        }
        let mut arguments = Vec::new();
        while !self.eat(")") {
            arguments.push(self.sum()?);
            if !self.eat(",") && !self.rest.trim_start().starts_with(')') {
                return Err(self.bad());
            }
        }
        applied(function, &arguments).ok_or_else(|| self.bad())
    }

    fn symbol(&self, word: &str) -> Result<i64, Unknown> {
        match self.sizes.get(word) {
            Some(size) => i64::try_from(*size).map_err(|_| self.bad()),
            None if word.is_empty() => Err(self.bad()),
            None => Err(Unknown::Symbol(word.to_owned())),
        }
    }
}

/// The functions of sympy that sizes are made of.
fn applied(function: &str, x: &[i64]) -> Option<i64> {
    match (function, x) {
        ("Integer", &[x]) => Some(x),
        ("Add", x) => x.iter().try_fold(0i64, |all, x| all.checked_add(*x)),
        ("Mul", x) => x.iter().try_fold(1i64, |all, x| all.checked_mul(*x)),
        ("Pow", &[x, y]) => x.checked_pow(u32::try_from(y).ok()?),
        ("FloorDiv" | "CleanDiv", &[x, y]) => floor_div(x, y),
        ("Mod" | "PythonMod", &[x, y]) => floor_div(x, y).and_then(|q| x.checked_sub(q.checked_mul(y)?)),
        ("Max", x) => x.iter().max().copied(),
        ("Min", x) => x.iter().min().copied(),
        _ => None,
    }
}

fn floor_div(x: i64, y: i64) -> Option<i64> {
    let q = x.checked_div(y)?;
    Some(if x % y != 0 && (x < 0) != (y < 0) { q - 1 } else { q })
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn expressions_of_bound_symbols_have_values() {
        let sizes = BTreeMap::from([("s0", 7), ("s77", 2)]);
        for (text, expected) in [
            ("s0", 7),
            ("2*s0 + 1", 15),
            ("(s0//2)*s77", 6),
            ("FloorDiv(s0, 2) - 1", 2),
            ("-s0", -7),
            ("s0**2", 49),
            ("Mod(s0, 4)", 3),
            ("Max(1, s77)", 2),
            ("-7//2", -4),
            ("Mul(Integer(2), Symbol('s77', positive=True, integer=True))", 4),
            ("Add(Pow(Symbol('s0'), Integer(2)), Integer(-1))", 48),
        ] {
            assert_eq!(value(text, &sizes), Ok(expected), "{text}");
        }
        assert_eq!(value("s1 + 1", &sizes), Err(Unknown::Symbol("s1".into())));
        for bad in
            ["", "s0 +", "(s0", "s0//0", "s0**99", "f(s0)", "s0 s0", "Symbol(", "Mul(s0", "Max()", &"(".repeat(1000)]
        {
            assert!(matches!(value(bad, &sizes), Err(Unknown::Text(_))), "{bad}");
        }
    }
}
