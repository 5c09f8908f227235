//! Choices by name on the command line.

/// `Display` and `FromStr` of an enum, from its variants' names.
///
/// ```
/// #[derive(Debug, PartialEq)]
/// enum Speed {
///     Fast,
///     Slow,
/// }
/// s2dit_files::choice!(Speed, "speed", Fast = "fast", Slow = "slow");
/// assert_eq!("slow".parse(), Ok(Speed::Slow));
/// assert_eq!("slw".parse::<Speed>().unwrap_err().expected, "\"fast\" or \"slow\"");
/// ```
#[macro_export]
macro_rules! choice {
    ($ty:ident, $place:literal, $($variant:ident = $name:literal),+) => {
        impl std::fmt::Display for $ty {
            fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
                f.write_str(match self { $($ty::$variant => $name),+ })
            }
        }
        impl std::str::FromStr for $ty {
            type Err = $crate::problems::Problem;
            fn from_str(text: &str) -> Result<Self, $crate::problems::Problem> {
                match text {
                    $($name => Ok($ty::$variant),)+
                    _ => Err($crate::problems::Problem {
                        place: $place.into(),
                        found: $crate::problems::quoted(text),
                        expected: [$(concat!("\"", $name, "\"")),+].join(" or "),
                    }),
                }
            }
        }
    };
}
