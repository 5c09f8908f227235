//! Elementwise functions of one operand. A new one is one line of the table.

use serde::{Deserialize, Serialize};

use super::{Attrs, Cost, OpDef, OpError, TensorOp, arity, require};
use crate::{DType, Tensor, TensorType};

macro_rules! unary {
    ($( $(#[$doc:meta])* $variant:ident = $name:literal, $flops:literal, $f:expr; )*) => {
        /// An elementwise function of one operand.
        #[derive(Clone, Copy, Debug, PartialEq, Eq, Hash, Serialize, Deserialize)]
        #[serde(rename_all = "snake_case")]
        pub enum Unary { $( $(#[$doc])* $variant, )* }

        impl Unary {
            /// Every unary op.
            pub const ALL: &'static [Unary] = &[$(Unary::$variant),*];

            /// The function in float64.
            pub fn apply(self, x: f64) -> f64 {
                match self { $( Unary::$variant => { let f: fn(f64) -> f64 = $f; f(x) } )* }
            }

            fn info(self) -> (&'static str, u64) {
                match self { $( Unary::$variant => ($name, $flops), )* }
            }
        }
    };
}

unary! {
    /// |x|
    Abs = "abs", 1, f64::abs;
    /// arc cosine
    Acos = "acos", 4, f64::acos;
    /// arc sine
    Asin = "asin", 4, f64::asin;
    /// arc tangent
    Atan = "atan", 4, f64::atan;
    /// inverse hyperbolic tangent
    Atanh = "atanh", 6, f64::atanh;
    /// least integer ≥ x
    Ceil = "ceil", 1, f64::ceil;
    /// cos x
    Cos = "cos", 4, f64::cos;
    /// hyperbolic cosine
    Cosh = "cosh", 6, f64::cosh;
    /// Gauss error function
    Erf = "erf", 4, erf;
    /// e^x
    Exp = "exp", 4, f64::exp;
    /// greatest integer ≤ x
    Floor = "floor", 1, f64::floor;
    /// x·Φ(x) = x/2·(1 + erf(x/√2)) (Hendrycks & Gimpel, arXiv 1606.08415)
    Gelu = "gelu", 8, |x| 0.5 * x * (1.0 + erf(x * std::f64::consts::FRAC_1_SQRT_2));
    /// x/2·(1 + tanh(√(2/π)·(x + 0.044715·x³))): PyTorch's `approximate="tanh"`
    GeluTanh = "gelu_tanh", 10, |x| 0.5 * x * (1.0 + ((2.0 / std::f64::consts::PI).sqrt() * (x + 0.044715 * x * x * x)).tanh());
    /// x
    Identity = "identity", 0, |x| x;
    /// natural logarithm
    Log = "log", 4, f64::ln;
    /// the other bool
    LogicalNot = "logical_not", 1, |x| f64::from(u8::from(x == 0.0));
    /// −x
    Neg = "neg", 1, |x| -x;
    /// max(x, 0)
    Relu = "relu", 1, |x| x.max(0.0);
    /// nearest integer, ties to even
    Round = "round", 1, f64::round_ties_even;
    /// 1/√x
    Rsqrt = "rsqrt", 2, |x| 1.0 / x.sqrt();
    /// 1/(1 + e^−x)
    Sigmoid = "sigmoid", 6, |x| 1.0 / (1.0 + (-x).exp());
    /// −1, 0 or 1
    Sign = "sign", 1, |x| if x == 0.0 { 0.0 } else { x.signum() };
    /// x·sigmoid(x)
    Silu = "silu", 7, |x| x / (1.0 + (-x).exp());
    /// sin x
    Sin = "sin", 4, f64::sin;
    /// hyperbolic sine
    Sinh = "sinh", 6, f64::sinh;
    /// ln(1 + e^x), computed as max(x, 0) + ln(1 + e^−|x|)
    Softplus = "softplus", 8, |x| x.max(0.0) + (-x.abs()).exp().ln_1p();
    /// √x
    Sqrt = "sqrt", 2, f64::sqrt;
    /// x²
    Square = "square", 1, |x| x * x;
    /// tangent
    Tan = "tan", 4, f64::tan;
    /// hyperbolic tangent
    Tanh = "tanh", 6, f64::tanh;
}

impl OpDef for Unary {
    fn name(&self) -> &'static str {
        self.info().0
    }

    fn infer(&self, operands: &[&TensorType], _: Option<&TensorType>) -> Result<TensorType, OpError> {
        arity(operands, 1..=1)?;
        let any = matches!(self, Unary::Identity | Unary::Abs | Unary::Neg | Unary::Sign | Unary::Square);
        if *self == Unary::LogicalNot {
            require!(operands[0].dtype == DType::Bool, "operand must be bool, found {}", operands[0]);
            return Ok(operands[0].clone());
        }
        require!(any || operands[0].dtype.is_float(), "operand must be a float tensor, found {}", operands[0]);
        Ok(operands[0].clone())
    }

    fn cost(&self, operands: &[&TensorType], ty: &TensorType) -> Cost {
        Cost::with_flops(self.info().1 * ty.elements() as u64, operands, ty)
    }

    fn attrs(&self) -> Attrs {
        Attrs::new()
    }

    fn parse(name: &str, attrs: Attrs) -> Result<Self, OpError> {
        require!(attrs.is_empty(), "`{name}` has no attributes");
        Unary::ALL
            .iter()
            .copied()
            .find(|u| u.name() == name)
            .ok_or_else(|| OpError::new(format!("unknown op `{name}`")))
    }
}

impl TensorOp for Unary {
    fn eval(&self, operands: &[&Tensor], ty: &TensorType) -> Result<Tensor, OpError> {
        Ok(Tensor { dtype: ty.dtype, data: operands[0].data.mapv(|x| self.apply(x)) })
    }
}

/// erf to float64 accuracy: the Maclaurin series near 0, the continued fraction of erfc (Abramowitz & Stegun
/// 7.1.5 and 7.1.14) away from it.
fn erf(x: f64) -> f64 {
    let a = x.abs();
    if a < 2.5 {
        let (mut term, mut sum) = (a, a);
        for n in 1..200 {
            term *= -a * a / f64::from(n);
            let add = term / f64::from(2 * n + 1);
            sum += add;
            if add.abs() < 1e-18 * sum.abs() {
                break;
            }
        }
        (sum * std::f64::consts::FRAC_2_SQRT_PI).copysign(x)
    } else {
        let mut fraction = 0.0;
        for n in (1..=80).rev() {
            fraction = f64::from(n) / 2.0 / (a + fraction);
        }
        let erfc = (-a * a).exp() / ((a + fraction) * std::f64::consts::PI.sqrt());
        (1.0 - erfc).copysign(x)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn erf_matches_known_values() {
        // Abramowitz & Stegun, table 7.1.
        for (x, y) in [
            (0.5, 0.520_499_877_813_046_5),
            (1.0, 0.842_700_792_949_714_9),
            (2.6, 0.999_763_965_583_470_7),
            (-3.0, -0.999_977_909_503_001_4),
        ] {
            assert!((erf(x) - y).abs() < 1e-14, "{x}: {} {y}", erf(x));
        }
    }

    #[test]
    fn softplus_does_not_overflow() {
        assert_eq!(Unary::Softplus.apply(1000.0), 1000.0);
        assert_eq!(Unary::Softplus.apply(-1000.0), 0.0);
    }
}
