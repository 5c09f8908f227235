//! Choices by name on the command line.

/// `Display` and `FromStr` of an enum, from its variants' names.
macro_rules! choice {
    ($ty:ident, $place:literal, $($variant:ident = $name:literal),+) => {
        impl std::fmt::Display for $ty {
            fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
                f.write_str(match self { $($ty::$variant => $name),+ })
            }
        }
        impl std::str::FromStr for $ty {
            type Err = s2dit_files::problems::Problem;
            fn from_str(text: &str) -> Result<Self, s2dit_files::problems::Problem> {
                match text {
                    $($name => Ok($ty::$variant),)+
                    _ => Err(s2dit_files::problems::Problem {
                        place: $place.into(),
                        found: s2dit_files::problems::quoted(text),
                        expected: [$(concat!("\"", $name, "\"")),+].join(" or "),
                    }),
                }
            }
        }
    };
}
pub(super) use choice;
