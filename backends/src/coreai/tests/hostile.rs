//! Assets whose types and parameters say more than a file can hold: none is read as if it did, and none asks for memory.

use s2dit_ir::{Op, WeightSource, text};
use tempfile::TempDir;

use super::super::program::{Attribute, Operation, Property, Type};
use super::super::{Asset, Options, op, raise, write_asset};
use super::{FIXTURES, source_of};
use crate::coreml::lint::{Rules, lint_asset};

/// Extents that are more than a file, than memory, than an integer.
const SHAPES: [&[i64]; 5] = [&[1 << 20], &[1 << 40], &[1 << 40, 1 << 40], &[1 << 62, 0], &[i64::MAX; 5]];

/// A fixture as an asset whose program is changed; its hash is the changed program's.
fn changed(name: &str, change: impl FnOnce(&mut Operation)) -> (TempDir, Asset) {
    let (_, graph, _) = FIXTURES.into_iter().find(|(known, ..)| *known == name).unwrap();
    let module = text::parse(graph).unwrap();
    let source = source_of(&module.functions[0]);
    let [whole, copy] = [(); 2].map(|()| tempfile::tempdir().unwrap());
    write_asset(&module, &source, &Options::default(), Default::default, whole.path(), &mut |_, _| {}).unwrap();
    let asset = Asset::open(whole.path()).unwrap();
    let mut root = asset.root().clone();
    change(&mut root);
    asset.write_with_program(&root, copy.path()).unwrap();
    let asset = Asset::open(copy.path()).unwrap_or_else(|error| panic!("{name}: {error:#}"));
    (copy, asset)
}

/// The ops of the first function.
fn operations(root: &mut Operation) -> &mut Vec<Operation> {
    let graphs = &mut root.regions[0].operations;
    let function = graphs.iter_mut().find(|graph| graph.properties[6] == Property::Required(Attribute::flag(false)));
    &mut function.unwrap().regions[0].operations
}

/// Everything that reads an asset: `raise`, its weights, `lint`. What `raise` says.
fn read(asset: &Asset) -> Result<(), String> {
    let _ = lint_asset(asset, &Rules::builtin().unwrap());
    let module = raise(asset, None).map_err(|error| format!("{error:#}"))?;
    let f = &module.functions[0];
    for v in f.order() {
        if let Op::Load(load) = f.op(v) {
            let bytes = asset.bytes(&load.tensor).map_err(|error| error.to_string())?;
            assert_eq!((asset.ty(&load.tensor).as_ref(), bytes.len()), (Some(f.ty(v)), f.ty(v).bytes()));
        }
    }
    Ok(())
}

#[test]
fn types_that_no_file_holds_are_refused() {
    for name in ["compressed", "convolutions", "layers", "shapes"] {
        let (_folder, whole) = changed(name, |_| {});
        read(&whole).unwrap_or_else(|error| panic!("{name}: {error}"));
        let count = operations(&mut whole.root().clone()).len();
        for at in 0..count {
            for extents in SHAPES {
                let (mut what, mut stands_for_many) = (String::new(), false);
                let (_folder, asset) = changed(name, |root| {
                    let operation = &mut operations(root)[at];
                    what = format!("{name}, result of `{}`, {extents:?}", operation.name);
                    let value = operation.properties.first();
                    stands_for_many = matches!(value, Some(Property::Required(Attribute::Dense { splat: true, .. })));
                    if let Some(Type::Tensor { shape, .. }) = operation.results.first_mut() {
                        *shape = extents.to_vec();
                    }
                });
                let is_output = at + 1 == count;
                // A million times the same number is one number where one is wanted.
                if !(stands_for_many && extents == SHAPES[0]) {
                    assert_eq!(read(&asset).is_ok(), is_output, "{what}");
                }
            }
        }
    }
}

/// The parameter of a fixture's first op of a kind: the constant that is its operand at a place.
fn parameter<'a>(root: &'a mut Operation, of: &str, place: usize) -> &'a mut Operation {
    let arguments = root.regions[0].operations[0].regions[0].arguments.len();
    let all = operations(root);
    let value = all.iter().find(|operation| operation.name == of).unwrap().operands[place];
    let mut next = arguments;
    let at = all.iter().position(|operation| {
        next += operation.results.len();
        value < next
    });
    &mut all[at.unwrap()]
}

#[test]
fn parameters_have_a_bound() {
    let dense = |parameter: &mut Operation, splat: bool, bytes: Vec<u8>, extents: &[i64]| {
        assert_eq!(parameter.name, op::CONSTANT);
        parameter.properties = vec![Property::Required(Attribute::Dense { splat, bytes })];
        let [Type::Tensor { shape, .. }] = &mut parameter.results[..] else { panic!("a tensor") };
        *shape = extents.to_vec();
    };
    let said = |change: &dyn Fn(&mut Operation)| read(&changed("shapes", change).1).unwrap_err();
    // Numbers that one stands for.
    for (extents, says) in [
        (&[1 << 20][..], "found a parameter of 1048576 numbers, expected at most 1024"),
        (&[1 << 40], "[1099511627776]"),
        (&[1 << 40, 1 << 40], "[1099511627776, 1099511627776]"),
    ] {
        let found = said(&|root| dense(parameter(root, op::RESHAPE, 1), true, vec![1, 0, 0, 0], extents));
        assert!(found.contains(says), "{found}");
    }
    // As many numbers as there are said to be.
    let found = said(&|root| dense(parameter(root, op::RESHAPE, 1), false, vec![1, 0, 0, 0], &[4]));
    assert!(found.contains("found 1 elements, expected 4"), "{found}");
    // The largest numbers that there are, in the place of each parameter.
    for (of, place) in [(op::RESHAPE, 1), (op::TRANSPOSE, 1), (op::SLICE, 3), (op::PAD, 1)] {
        for byte in [0x7f, 0x80, 0xff] {
            let found = said(&|root| {
                let one = parameter(root, of, place);
                let [Type::Tensor { shape, .. }] = &one.results[..] else { panic!("a tensor") };
                let shape = shape.clone();
                dense(one, true, vec![byte; 4], &shape);
            });
            assert!(found.contains(of), "{found}");
        }
    }
}
