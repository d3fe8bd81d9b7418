//! Each kernel of the linear layers on its own against fp64, on sizes that no tile divides.

use std::fmt::Arguments;

#[cfg(feature = "cuda")]
use deformable_aggregation::Backend;
use deformable_aggregation::linear_kernels::{
    Direction, Epilogue, Matrix, Results, drop_back, multiply, sum, weigh,
};
use deformable_aggregation::{DType, GpuElement};
use deformable_aggregation_tests::{Subject, on_every_backend};
use half::{bf16, f16};
use rand::{RngExt as _, SeedableRng as _};
use rand_chacha::ChaCha8Rng;

on_every_backend!(kernels:
    layers_match_fp64,
    gradients_of_inputs_match_fp64,
    gradients_of_weights_match_fp64,
    sums_match_fp64,
    gradients_pass_dropout,
    products_repeat_bit_for_bit,
);

/// Rows, depth and columns: what no tile divides, what 16-byte accesses need, more than a tile or step has, next to nothing; at
/// last so many tiles that blocks have two.
const SIZES: [[usize; 3]; 10] = [
    [1, 1, 1],
    [63, 7, 31],
    [65, 17, 33],
    [130, 129, 35],
    [64, 64, 32],
    [72, 200, 40],
    [197, 24, 196],
    [5, 136, 104],
    [33, 148, 84],
    [705, 17, 449],
];

/// How a product rounds its factors.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Factors {
    Fp32,
    Tf32,
    Fp16,
    Bf16,
}

impl Factors {
    /// Those of a product whose left operand comes as elements, or as fp32 numbers.
    fn of<T: GpuElement>(subject: &Subject, is_exact: bool, of_numbers: bool) -> Self {
        let has_tensor_cores = match &subject.backend {
            #[cfg(feature = "cuda")]
            Backend::Cuda(device) => device.compute_capability() >= (8, 0),
            _ => true,
        };
        match T::DTYPE {
            _ if is_exact || !has_tensor_cores => Self::Fp32,
            DType::F16 if !of_numbers => Self::Fp16,
            DType::Bf16 if !of_numbers => Self::Bf16,
            _ => Self::Tf32,
        }
    }

    /// To the nearest number with 10 bits behind the point, ties away from zero; to the nearest of a 16-bit type, ties to even.
    fn round(self, value: f32) -> f64 {
        f64::from(match self {
            Self::Fp32 => value,
            Self::Tf32 => f32::from_bits(value.to_bits().wrapping_add(0x1000) & !0x1fff),
            Self::Fp16 => f16::from_f32(value).to_f32(),
            Self::Bf16 => bf16::from_f32(value).to_f32(),
        })
    }
}

/// A result in fp64, and the sum of the absolute values of its terms.
#[derive(Clone, Copy, Debug, Default)]
struct Exact {
    value: f64,
    size: f64,
}

impl Exact {
    fn add(&mut self, term: f64) {
        self.value += term;
        self.size += term.abs();
    }
}

/// Checks a result of `terms` terms, stored as `T`.
///
/// Every addition may be off by a unit in the last place of fp32 of the largest partial sum, which is at most the size: tensor
/// cores cut off. A few more roundings are those of the terms themselves and of what is done to the sum afterwards.
fn check<T: GpuElement>(place: Arguments<'_>, actual: T, exact: Exact, terms: usize) {
    let difference = (actual.to_f64() - exact.value).abs();
    let unit = f64::from(f32::EPSILON);
    let stored = if T::DTYPE == DType::F32 { 0.0 } else { 1.001 * T::DTYPE.epsilon() };
    let smallest = if T::DTYPE == DType::F16 { 3e-8 } else { 1e-37 };
    let bound = exact.size * unit * (8.0 + terms as f64) + exact.value.abs() * stored + smallest;
    assert!(
        difference <= bound,
        "{place}: {actual:?}, expected {exact:?}, off by more than {bound}"
    );
}

fn numbers(generator: &mut ChaCha8Rng, count: usize) -> Vec<f32> {
    (0..count).map(|_| generator.random_range(-1.0..1.0)).collect()
}

fn elements<T: GpuElement>(generator: &mut ChaCha8Rng, count: usize) -> Vec<T> {
    numbers(generator, count).into_iter().map(|number| T::from_f64(number.into())).collect()
}

/// What a kernel has to write, with something else in it.
fn poisoned<T: GpuElement>(count: usize) -> Vec<T> {
    vec![T::from_f64(f64::NAN); count]
}

/// The operand's number in a row and column, in fp32 as the kernels add it up.
fn number<T: GpuElement>(matrix: &Matrix<'_, T>, row: usize, column: usize) -> f32 {
    let first_rows = matrix.first.len() / matrix.stride;
    if row >= first_rows {
        return matrix.tail[(row - first_rows) * matrix.columns + column];
    }
    let at = row * matrix.stride + column;
    let added = matrix.added.map_or(0.0, |added| added[at].to_f64() as f32);
    matrix.first[at].to_f64() as f32 + added
}

fn only<T>(first: &[T], columns: usize) -> Matrix<'_, T> {
    Matrix { first, added: None, tail: &[], columns, stride: columns }
}

fn only_numbers<T>(tail: &[f32], columns: usize) -> Matrix<'_, T> {
    Matrix { first: &[], added: None, tail, columns, stride: columns }
}

/// The dot product of a row of the input and a line of the weight.
fn product<T: GpuElement>(
    factors: Factors,
    input: &Matrix<'_, T>,
    row: usize,
    weight: impl Fn(usize) -> f32,
) -> Exact {
    let mut sum = Exact::default();
    for depth in 0..input.columns {
        sum.add(factors.round(number(input, row, depth)) * factors.round(weight(depth)));
    }
    sum
}

/// Rows of elements with others added, and of numbers behind them; bias for some rows, dropout, and the residual added or beside.
fn layers_match_fp64<T: GpuElement>(subject: &Subject) {
    let mut generator = ChaCha8Rng::seed_from_u64(1);
    let random = &mut generator;
    for (number_of_case, [rows, depth, columns]) in SIZES.into_iter().enumerate() {
        for is_exact in [true, false] {
            let first_rows = rows - rows / 5;
            let first = elements::<T>(random, first_rows * depth);
            let added = elements::<T>(random, first_rows * depth);
            let tail = numbers(random, (rows - first_rows) * depth);
            let has_added = number_of_case % 3 != 1;
            let input = Matrix {
                added: has_added.then_some(&added[..]),
                tail: &tail,
                ..only(&first, depth)
            };
            let weight = numbers(random, columns * depth);
            let bias = numbers(random, columns);
            let mask = numbers(random, first_rows * columns);
            let residual = elements::<T>(random, first_rows * columns);
            let epilogue = Epilogue {
                bias: Some(&bias),
                bias_rows: first_rows.saturating_sub(number_of_case % 2),
                dropout: (number_of_case % 2 == 0).then_some((&mask[..], 0.25)),
                addend: None,
                residual: Some(&residual),
                concatenate: number_of_case % 4 < 2,
            };
            let stride = columns * if epilogue.concatenate { 2 } else { 1 };
            let mut output = poisoned::<T>(first_rows * stride);
            let mut rest = poisoned::<f32>((rows - first_rows) * columns);
            let results = Results { first: &mut output, plain: None, tail: &mut rest };
            let direction = Direction::Forward;
            multiply(&subject.backend, is_exact, direction, input, &weight, &epilogue, results)
                .unwrap_or_else(|error| panic!("{error}"));

            let factors = Factors::of::<T>(subject, is_exact, false);
            for row in 0..rows {
                for column in 0..columns {
                    let place = format_args!(
                        "{subject}, {factors:?}, {rows} {depth} {columns}, {row} {column}"
                    );
                    let mut exact = product(factors, &input, row, |at| weight[column * depth + at]);
                    if row < epilogue.bias_rows {
                        exact.add(bias[column].into());
                    }
                    if row >= first_rows {
                        check(place, rest[(row - first_rows) * columns + column], exact, depth);
                        continue;
                    }
                    let element = row * columns + column;
                    if let Some((mask, probability)) = epilogue.dropout {
                        let kept = mask[element] >= probability;
                        let factor = if kept { 1.0 / f64::from(1.0 - probability) } else { 0.0 };
                        exact = Exact { value: exact.value * factor, size: exact.size * factor };
                    }
                    if epilogue.concatenate {
                        assert_eq!(
                            output[row * stride + columns + column],
                            residual[element],
                            "{place}"
                        );
                    } else {
                        exact.add(residual[element].to_f64());
                    }
                    check(place, output[row * stride + column], exact, depth);
                }
            }
        }
    }
}

/// From elements, and from fp32 numbers with everything that may be added.
fn gradients_of_inputs_match_fp64<T: GpuElement>(subject: &Subject) {
    let mut generator = ChaCha8Rng::seed_from_u64(2);
    let random = &mut generator;
    for [rows, depth, columns] in SIZES {
        for (is_exact, of_numbers) in [(true, true), (true, false), (false, true), (false, false)] {
            let first = elements::<T>(random, rows * depth);
            let tail = numbers(random, rows * depth);
            let upstream =
                if of_numbers { only_numbers(&tail, depth) } else { only(&first, depth) };
            let weight = numbers(random, depth * columns);
            let addend = numbers(random, rows * columns);
            let epilogue = Epilogue {
                bias: None,
                bias_rows: 0,
                dropout: None,
                addend: (!of_numbers).then_some(&addend[..]),
                residual: None,
                concatenate: false,
            };
            let mut output = poisoned::<T>(if of_numbers { 0 } else { rows * columns });
            let mut plain = poisoned::<T>(output.len());
            let mut rest = poisoned::<f32>(if of_numbers { rows * columns } else { 0 });
            let results = Results {
                first: &mut output,
                plain: (!of_numbers).then_some(&mut plain[..]),
                tail: &mut rest,
            };
            let direction = Direction::Input;
            multiply(&subject.backend, is_exact, direction, upstream, &weight, &epilogue, results)
                .unwrap_or_else(|error| panic!("{error}"));

            let factors = Factors::of::<T>(subject, is_exact, of_numbers);
            for row in 0..rows {
                for column in 0..columns {
                    let place = format_args!(
                        "{subject}, {factors:?}, {rows} {depth} {columns}, {row} {column}"
                    );
                    let mut exact =
                        product(factors, &upstream, row, |at| weight[at * columns + column]);
                    let element = row * columns + column;
                    if of_numbers {
                        check(place, rest[element], exact, depth);
                        continue;
                    }
                    check(place, plain[element], exact, depth);
                    exact.add(addend[element].into());
                    check(place, output[element], exact, depth);
                }
            }
        }
    }
}

/// Every part of the rows, of which some have no bias.
fn gradients_of_weights_match_fp64<T: GpuElement>(subject: &Subject) {
    let mut generator = ChaCha8Rng::seed_from_u64(3);
    let random = &mut generator;
    for (number_of_case, [outputs, rows, inputs]) in SIZES.into_iter().enumerate() {
        for (is_exact, of_numbers) in [(true, true), (true, false), (false, true), (false, false)] {
            let first = elements::<T>(random, rows * outputs);
            let tail = numbers(random, rows * outputs);
            let upstream =
                if of_numbers { only_numbers(&tail, outputs) } else { only(&first, outputs) };
            let first_rows = rows - rows / 5;
            let features = elements::<T>(random, first_rows * inputs);
            let added = elements::<T>(random, first_rows * inputs);
            let cameras = numbers(random, (rows - first_rows) * inputs);
            let input = Matrix { added: Some(&added), tail: &cameras, ..only(&features, inputs) };
            let part_rows = rows.div_ceil(1 + number_of_case % 3);
            let parts = rows.div_ceil(part_rows);
            let words = outputs * inputs + outputs;
            let mut gradient = poisoned::<f32>(parts * words);
            let backend = &subject.backend;
            weigh(backend, is_exact, upstream, input, first_rows, part_rows, &mut gradient)
                .unwrap_or_else(|error| panic!("{error}"));

            let factors = Factors::of::<T>(subject, is_exact, of_numbers);
            for part in 0..parts {
                let of_part = part * part_rows..rows.min((part + 1) * part_rows);
                for out in 0..outputs {
                    let place = format_args!(
                        "{subject}, {factors:?}, {outputs} {rows} {inputs}, {part} {out}"
                    );
                    let mut bias = Exact::default();
                    for row in of_part.clone().filter(|&row| row < first_rows) {
                        bias.add(number(&upstream, row, out).into());
                    }
                    let actual = gradient[part * words + outputs * inputs + out];
                    check(format_args!("{place}, bias"), actual, bias, rows);
                    for inside in 0..inputs {
                        let mut exact = Exact::default();
                        for row in of_part.clone() {
                            let left = factors.round(number(&upstream, row, out));
                            exact.add(left * factors.round(number(&input, row, inside)));
                        }
                        let actual = gradient[part * words + out * inputs + inside];
                        check(format_args!("{place} {inside}"), actual, exact, rows);
                    }
                }
            }
        }
    }
}

fn sums_match_fp64<T: GpuElement>(subject: &Subject) {
    // The kernel has no element type.
    if T::DTYPE != DType::F32 {
        return;
    }
    let mut generator = ChaCha8Rng::seed_from_u64(4);
    for (batch, parts, length) in [(1, 1, 1), (2, 7, 33), (3, 8, 64), (1, 75, 129), (2, 200, 31)] {
        let partial = numbers(&mut generator, batch * parts * length);
        let mut total = poisoned::<f32>(batch * length);
        sum(&subject.backend, &partial, parts, batch, &mut total)
            .unwrap_or_else(|error| panic!("{error}"));
        for item in 0..batch {
            for number in 0..length {
                let mut exact = Exact::default();
                for part in 0..parts {
                    exact.add(partial[(item * parts + part) * length + number].into());
                }
                let place = format_args!("{subject}, {batch} {parts} {length}, {item} {number}");
                check(place, total[item * length + number], exact, parts);
            }
        }
    }
}

fn gradients_pass_dropout<T: GpuElement>(subject: &Subject) {
    let mut generator = ChaCha8Rng::seed_from_u64(5);
    for (rows, columns, stride) in [(1, 1, 1), (37, 19, 38), (64, 32, 32), (113, 7, 14)] {
        let source = elements::<T>(&mut generator, rows * stride);
        let mask = numbers(&mut generator, rows * columns);
        let mut target = poisoned::<T>(rows * columns);
        let matrix = Matrix { columns, ..only(&source, stride) };
        drop_back(&subject.backend, matrix, (&mask, 0.5), &mut target)
            .unwrap_or_else(|error| panic!("{error}"));
        for row in 0..rows {
            for column in 0..columns {
                let element = row * columns + column;
                let factor = if mask[element] >= 0.5 { 2.0 } else { 0.0 };
                let value = source[row * stride + column].to_f64() * factor;
                assert_eq!(target[element].to_f64(), value, "{subject}, {row} {column}");
            }
        }
    }
}

fn products_repeat_bit_for_bit<T: GpuElement>(subject: &Subject) {
    let [rows, depth, columns] = [130, 150, 70];
    let mut generator = ChaCha8Rng::seed_from_u64(6);
    let input = elements::<T>(&mut generator, rows * depth);
    let weight = numbers(&mut generator, columns * depth);
    let epilogue = Epilogue {
        bias: None,
        bias_rows: 0,
        dropout: None,
        addend: None,
        residual: None,
        concatenate: false,
    };
    for is_exact in [true, false] {
        let run = || {
            let mut output = poisoned::<T>(rows * columns);
            let results = Results { first: &mut output, plain: None, tail: &mut [] };
            let (backend, input) = (&subject.backend, only(&input, depth));
            multiply(backend, is_exact, Direction::Forward, input, &weight, &epilogue, results)
                .unwrap_or_else(|error| panic!("{error}"));
            output
        };
        let first = run();
        for _ in 0..3 {
            assert_eq!(run(), first, "{subject}");
        }
    }
}
