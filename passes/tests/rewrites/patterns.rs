//! What a pattern takes and what it does not, and what is said of the place where it stopped.

use std::collections::HashSet;

use s2dit_ir::ValueId;
use s2dit_ir::text::parse;
use s2dit_passes::pattern::{Matcher, Pattern};

/// The matches of a pattern at the result of a function of three parameters and some numbers, or where it stopped.
fn find(pattern: &str, ops: &str) -> Result<usize, String> {
    let ir = format!(
        "module {{\nfunc @main(%x: f32[4, 4], %y: f32[4, 4], %z: f32[4, 4]) {{\n%two = literal {{values = [2.0]}} : f32[]\n\
         %three = literal {{values = [3.0]}} : f32[]\n%half = literal {{values = [0.5]}} : f32[]\n%minus = literal {{values = [-2.0]}} : f32[]\n\
         {ops}\nreturn r = %r\n}}\n}}"
    );
    let module = parse(&ir).unwrap_or_else(|e| panic!("{e}\n{ir}"));
    let f = &module.functions[0];
    let consts: HashSet<ValueId> = f.constants();
    let pattern: Pattern = pattern.parse().unwrap();
    Matcher::new(f, &consts)
        .find(&pattern, f.results[0].1)
        .map(|found| found.len())
        .map_err(|miss| miss.expect("a place").to_string())
}

#[track_caller]
fn takes(pattern: &str, ops: &str) {
    assert!(find(pattern, ops).is_ok_and(|n| n > 0), "{pattern} of {ops}: {:?}", find(pattern, ops));
}

#[track_caller]
fn refuses(pattern: &str, ops: &str, says: &str) {
    let said = find(pattern, ops).expect_err(pattern);
    assert!(said.contains(says), "{pattern} of {ops}: {said}");
}

const T: &str = "f32[4, 4]";

#[test]
fn a_name_stands_for_one_value() {
    takes("a * a + b", &format!("%0 = mul(%x, %x) : {T}\n%r = add(%y, %0) : {T}"));
    refuses(
        "a * a + b",
        &format!("%0 = mul(%x, %y) : {T}\n%r = add(%z, %0) : {T}"),
        "another value than `a` stood for",
    );
}

#[test]
fn a_name_stands_for_one_number() {
    let twice = |n: &str, m: &str| format!("%0 = mul(%x, %{n}) : {T}\n%r = add(%0, %{m}) : {T}");
    takes("x * a + a where a: number", &twice("two", "two"));
    refuses("x * a + a where a: number", &twice("two", "three"), "expected");
    refuses("x * a + b where a: number", &format!("%0 = mul(%x, %y) : {T}\n%r = add(%0, %two) : {T}"), "a (a number)");
}

#[test]
fn a_constant_is_computed_from_no_input() {
    takes("x + c where c: const", &format!("%r = add(%x, %two) : {T}"));
    refuses("x + c where c: const", &format!("%r = add(%x, %y) : {T}"), "computed from inputs");
}

#[test]
fn sums_and_products_in_any_order_and_grouping() {
    takes(
        "a * 2 + b * 3 + c",
        &format!(
            "%0 = mul(%two, %x) : {T}\n%1 = mul(%y, %three) : {T}\n%2 = add(%1, %z) : {T}\n%r = add(%2, %0) : {T}"
        ),
    );
    refuses("a * 2 + b", &format!("%0 = mul(%three, %x) : {T}\n%r = add(%0, %y) : {T}"), "expected");
    refuses("a + b + 2", &format!("%r = add(%x, %two) : {T}"), "expected");
}

#[test]
fn differences_and_ratios_with_numbers_are_sums_and_products() {
    takes("a + 2", &format!("%r = sub(%x, %minus) : {T}"));
    refuses("a + 3", &format!("%r = sub(%x, %minus) : {T}"), "expected");
    takes("a * 2", &format!("%r = div(%x, %half) : {T}"));
    refuses("a * 3", &format!("%r = div(%x, %half) : {T}"), "expected");
    takes("a + n where n: number", &format!("%r = sub(%x, %two) : {T}"));
    let bound = |n: &str| {
        format!(
            "%0 = mul(%y, %two) : {T}\n%1 = sub(%x, %{n}) : {T}\n%r = matmul(%0, %1) {{transpose_x = false, transpose_y = false}} : {T}"
        )
    };
    takes("(y * n) @ (x + n) where n: number", &bound("minus"));
    refuses("(y * n) @ (x + n) where n: number", &bound("two"), "expected");
    takes("a - b", &format!("%r = sub(%x, %y) : {T}"));
    refuses("a - b", &format!("%r = add(%x, %y) : {T}"), "`add`");
    takes("a / b", &format!("%r = div(%x, %y) : {T}"));
    refuses("a / b", &format!("%r = mul(%x, %y) : {T}"), "`mul`");
}

#[test]
fn a_quotient_of_a_root_is_a_product_with_its_inverse() {
    takes("a * rsqrt(b)", &format!("%0 = sqrt(%y) : {T}\n%r = div(%x, %0) : {T}"));
    refuses("a * rsqrt(b)", &format!("%0 = sqrt(%y) : {T}\n%r = sub(%x, %0) : {T}"), "expected");
    refuses("a * rsqrt(b)", &format!("%0 = exp(%y) : {T}\n%r = div(%x, %0) : {T}"), "expected");
    takes("rsqrt(b)", &format!("%0 = sqrt(%y) : {T}\n%1 = literal {{values = [1.0]}} : f32[]\n%r = div(%1, %0) : {T}"));
    refuses("rsqrt(b)", &format!("%0 = sqrt(%y) : {T}\n%r = div(%two, %0) : {T}"), "expected");
    takes("sqrt(b)", &format!("%r = pow(%x, %half) : {T}"));
    refuses("rsqrt(b)", &format!("%r = pow(%x, %half) : {T}"), "`pow`");
}

#[test]
fn powers_by_other_means() {
    takes("a^2", &format!("%r = square(%x) : {T}"));
    takes("a^2", &format!("%r = mul(%x, %x) : {T}"));
    takes("a^3", &format!("%0 = mul(%x, %x) : {T}\n%r = mul(%x, %0) : {T}"));
    takes("a^3", &format!("%r = pow(%x, %three) : {T}"));
    refuses("a^3", &format!("%r = pow(%x, %two) : {T}"), "`pow`");
    refuses("a^3", &format!("%r = square(%x) : {T}"), "`square`");
    refuses("a^2", &format!("%r = mul(%x, %y) : {T}"), "another value");
    refuses("a^2", &format!("%r = add(%x, %x) : {T}"), "`add`");
}

#[test]
fn products_of_matrices_take_transposed_operands() {
    let product = |a: &str, x: bool, b: &str, y: bool| {
        format!(
            "%t = transpose(%x) {{perm = [1, 0]}} : {T}\n%r = matmul({a}, {b}) {{transpose_x = {x}, transpose_y = {y}}} : {T}"
        )
    };
    takes("a @ exp(b).T", &format!("%0 = exp(%x) : {T}\n{}", product("%y", false, "%0", true)));
    takes(
        "a @ exp(b).T",
        &format!(
            "%0 = exp(%y) : {T}\n%1 = transpose(%0) {{perm = [1, 0]}} : {T}\n{}",
            product("%y", false, "%1", false)
        ),
    );
    refuses(
        "a @ exp(b).T",
        &format!("%0 = exp(%x) : {T}\n{}", product("%y", false, "%0", false)),
        "the other transposition",
    );
    refuses(
        "a @ exp(b)",
        &format!("%0 = exp(%x) : {T}\n{}", product("%y", false, "%0", true)),
        "the other transposition",
    );
    takes("exp(a).T @ b", &format!("%0 = exp(%x) : {T}\n{}", product("%0", true, "%y", false)));
}

#[test]
fn axes_are_the_same_wherever_their_name_is() {
    let means = |a: usize, b: usize| {
        let reduced = |axis: usize| if axis == 0 { "f32[1, 4]" } else { "f32[4, 1]" };
        format!(
            "%0 = reduce_mean(%x) {{axes = [{a}], keep_dims = true}} : {}\n%1 = reduce_sum(%y) {{axes = [{b}], keep_dims = true}} : {}\n%2 = sub(%z, %0) : {T}\n%r = div(%2, %1) : {T}",
            reduced(a),
            reduced(b)
        )
    };
    takes("(z - mean[axes](x)) / sum[axes](y)", &means(1, 1));
    refuses("(z - mean[axes](x)) / sum[axes](y)", &means(1, 0), "axes [0], elsewhere [1]");
    refuses("(z - mean[axes](x)) / max[axes](y)", &means(1, 1), "expected `max[axes](y)`, found `reduce_sum`");
}

#[test]
fn layout_between_ops_does_not_matter() {
    let through = format!(
        "%0 = exp(%x) : {T}\n%1 = reshape(%0) {{shape = [16]}} : f32[16]\n%2 = reshape(%1) {{shape = [4, 4]}} : {T}\n%r = relu(%2) : {T}"
    );
    takes("relu(~exp(a))", &through);
    refuses("relu(exp(a))", &through, "`reshape`");
    refuses("relu(~tanh(a))", &through, "`exp`");
}

#[test]
fn operands_are_counted() {
    let norm = "%g = literal {values = [1.0]} : f32[4]\n%r = rms_norm(%x, %g) {axis = 1, eps = 1e-6} : f32[4, 4]";
    takes("rms_norm(a, ..)", norm);
    takes("rms_norm(a, g)", norm);
    refuses("rms_norm(a)", norm, "`rms_norm` of 2 operands");
    refuses("rms_norm(a, b, c)", norm, "`rms_norm` of 2 operands");
}
