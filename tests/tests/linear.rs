//! Each kernel of the linear layers on its own against fp64, on sizes that no tile divides.

use std::fmt::Arguments;

use deformable_aggregation::{DType, GpuElement};
use deformable_aggregation_tests::{Addresses, Bench, Lab, in_every_lab};
use half::{bf16, f16};
use kernels_gpu::block_args::{
    DropArgs, Dropout, LinearArgs, LinearWeightArgs, Rows, SumArgs, Target,
};
use kernels_gpu::{BlockKernels, Products, SUM, Tiles};
use rand::{RngExt as _, SeedableRng as _};
use rand_chacha::ChaCha8Rng;

in_every_lab!(
    layers_match_fp64,
    gradients_of_inputs_match_fp64,
    gradients_of_weights_match_fp64,
    gradients_pass_dropout,
    products_repeat_bit_for_bit,
);
in_every_lab!(fp32: sums_match_fp64);

/// Rows, depth and columns: what no tile divides, what 16-byte accesses need, more than a tile or step has, next to nothing; at
/// last more than the tiles of a block, whichever it has.
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
    [135, 17, 137],
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
    fn of<T: GpuElement>(lab: &Lab, is_exact: bool, of_numbers: bool) -> Self {
        match T::DTYPE {
            _ if is_exact || !lab.has_tensor_cores() => Self::Fp32,
            DType::F16 if !of_numbers => Self::Fp16,
            DType::Bf16 if !of_numbers => Self::Bf16,
            _ => Self::Tf32,
        }
    }

    /// To the nearest number with 10 bits behind the point, ties away from zero; to the nearest of a 16-bit type, ties to even.
    fn round(self, value: f32) -> f64 {
        f64::from(match self {
            Self::Fp32 => value,
            Self::Tf32 => {
                let half = 0xfff + (value.to_bits() >> 13 & 1);
                f32::from_bits(value.to_bits().wrapping_add(half) & !0x1fff)
            }
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

/// The operand's number in a row and column, in fp32 as the kernels add it up.
fn number<T: GpuElement>(matrix: &Matrix<'_, T>, row: usize, column: usize) -> f32 {
    let first_rows = matrix.first_rows();
    if row >= first_rows {
        return matrix.tail[(row - first_rows) * matrix.columns + column];
    }
    let at = row * matrix.stride + column;
    let added = matrix.added.map_or(0.0, |added| added[at].to_f64() as f32);
    matrix.first[at].to_f64() as f32 + added
}

/// Rows of elements, and of fp32 numbers behind them.
#[derive(Clone, Copy, Debug)]
struct Matrix<'a, T> {
    /// The first rows, `stride` apart, whole ones.
    first: &'a [T],
    /// Elements that are added to them.
    added: Option<&'a [T]>,
    /// The other rows.
    tail: &'a [f32],
    columns: usize,
    /// Distance of the first rows.
    stride: usize,
}

fn only<T>(first: &[T], columns: usize) -> Matrix<'_, T> {
    Matrix { first, added: None, tail: &[], columns, stride: columns }
}

fn only_numbers<T>(tail: &[f32], columns: usize) -> Matrix<'_, T> {
    Matrix { first: &[], added: None, tail, columns, stride: columns }
}

impl<T: GpuElement> Matrix<'_, T> {
    fn first_rows(&self) -> usize {
        self.first.len() / self.stride
    }

    fn rows(&self) -> usize {
        self.first_rows() + self.tail.len() / self.columns
    }

    /// What makes an argument of it, its arrays on the bench.
    fn place(&self, bench: &mut Bench<'_>) -> impl Fn(&Addresses) -> Rows<T::Kernel> + use<T> {
        let first = bench.input(self.first);
        let added = self.added.map(|added| bench.input(added));
        let tail = bench.input(self.tail);
        let (first_rows, rows) = (self.first_rows(), self.rows());
        let (columns, stride) = (self.columns, self.stride);
        // Every array of a bench begins at a multiple of 16 bytes.
        let bytes = |elements: usize| if first_rows == 0 { 0 } else { size_of::<T>() * elements };
        let is_aligned = [bytes(stride), bytes(columns), size_of::<f32>() * columns]
            .iter()
            .all(|bytes| bytes.is_multiple_of(16));
        move |at| Rows {
            first: at.of(first).cast(),
            added: at.of_some(added).cast(),
            tail: at.of(tail),
            first_rows: first_rows as u64,
            rows: rows as u64,
            columns: columns as u32,
            stride: stride as u32,
            wide: is_aligned.into(),
        }
    }
}

/// What is done to a product, as [`Target`] says.
#[derive(Clone, Copy, Debug)]
struct Epilogue<'a, T> {
    /// A number for each column.
    bias: Option<&'a [f32]>,
    /// Rows that get it.
    bias_rows: usize,
    /// A number for each element of the first rows, and the probability that one is dropped.
    dropout: Option<(&'a [f32], f32)>,
    /// `(first rows, columns)`.
    addend: Option<&'a [f32]>,
    /// `(first rows, columns)`.
    residual: Option<&'a [T]>,
    /// Whether the residual goes behind the product.
    concatenate: bool,
    /// Whether the product itself is wanted as well.
    plain: bool,
}

impl<T> Epilogue<'_, T> {
    /// Nothing.
    const NONE: Self = Self {
        bias: None,
        bias_rows: 0,
        dropout: None,
        addend: None,
        residual: None,
        concatenate: false,
        plain: false,
    };
}

/// Where a product goes.
struct Results<T> {
    /// `(first rows, columns)`, or twice the columns.
    first: Vec<T>,
    /// `(first rows, columns)`.
    plain: Vec<T>,
    /// `(other rows, columns)`.
    tail: Vec<f32>,
}

/// Which product.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Direction {
    /// The layer: the weight is `(columns, depth)`.
    Forward,
    /// The gradient of its input: the weight is `(depth, columns)`.
    Input,
}

fn products<T: GpuElement>(is_exact: bool) -> Products<T::Kernel> {
    if is_exact { T::Kernel::EXACT } else { T::Kernel::TENSOR }
}

/// All tiles that a block may have, in fp32 and on tensor cores.
fn ways() -> impl Iterator<Item = (Tiles, bool)> {
    Tiles::ALL.into_iter().flat_map(|tiles| [(tiles, true), (tiles, false)])
}

/// How many blocks with these tiles are down and across, where some rows come one after the other but in blocks of their own.
fn blocks(tiles: Tiles, rows: [usize; 2], columns: usize) -> [u32; 2] {
    let of = |all: usize, own: u32| (all as u32).div_ceil(own);
    [of(rows[0], tiles.rows()) + of(rows[1], tiles.rows()), of(columns, tiles.columns())]
}

/// The dropout of a test: of these numbers with this probability.
fn dropout(numbers: *const f32, threshold: f32) -> Dropout {
    Dropout { numbers, threshold, scale: (1.0 - threshold).recip(), ..Dropout::NONE }
}

/// The product of `input` and `weight`. The gradient of an input is one of elements or one of numbers.
fn multiply<T: GpuElement>(
    lab: &Lab,
    tiles: Tiles,
    is_exact: bool,
    direction: Direction,
    input: Matrix<'_, T>,
    weight: &[f32],
    epilogue: &Epilogue<'_, T>,
) -> Results<T> {
    let (rows, first_rows) = (input.rows(), input.first_rows());
    let columns = weight.len() / input.columns;
    let kernels = products::<T>(is_exact);
    let (entry, depth) = match direction {
        Direction::Forward => (kernels.linear, input.columns),
        Direction::Input if input.first.is_empty() => (kernels.input_of_numbers, columns),
        Direction::Input => (kernels.input, columns),
    };
    let stride = columns * if epilogue.concatenate { 2 } else { 1 };
    let mut bench = lab.bench();
    let first = bench.output::<T>(first_rows * stride);
    let plain = epilogue.plain.then(|| bench.output::<T>(first_rows * columns));
    let tail = bench.output::<f32>((rows - first_rows) * columns);
    let bias = epilogue.bias.map(|bias| bench.input(bias));
    let mask = epilogue.dropout.map(|(mask, threshold)| (bench.input(mask), threshold));
    let addend = epilogue.addend.map(|addend| bench.input(addend));
    let residual = epilogue.residual.map(|residual| bench.input(residual));
    let input = input.place(&mut bench);
    let weight = only_numbers::<T>(weight, depth).place(&mut bench);
    let [down, across] = blocks(tiles, [first_rows, rows - first_rows], columns);
    let shared_bytes = tiles.shared_bytes();
    // SAFETY: the arrays have the sizes that the arguments say.
    unsafe {
        bench.launch(entry, (down, across), Tiles::THREADS, shared_bytes, |at| LinearArgs {
            input: input(at),
            weight: weight(at),
            target: Target {
                bias: at.of_some(bias),
                bias_rows: epilogue.bias_rows as u64,
                dropout: mask
                    .map_or(Dropout::NONE, |(mask, threshold)| dropout(at.of(mask), threshold)),
                addend: at.of_some(addend),
                residual: at.of_some(residual).cast(),
                residual_stride: columns as u32,
                concatenate: epilogue.concatenate.into(),
                first: at.of_mut(first).cast(),
                stride: stride as u32,
                columns: columns as u32,
                plain: at.of_some(plain).cast_mut().cast(),
                tail: at.of_mut(tail),
                first_rows: first_rows as u64,
                rows: rows as u64,
            },
            tiles,
        });
    }
    Results {
        first: bench.read(first),
        plain: plain.map_or(Vec::new(), |plain| bench.read(plain)),
        tail: bench.read(tail),
    }
}

/// The gradients of weight and bias, `(out, in)` and `out` behind them, for each part of `part_rows` rows.
fn weigh<T: GpuElement>(
    lab: &Lab,
    tiles: Tiles,
    is_exact: bool,
    upstream: Matrix<'_, T>,
    input: Matrix<'_, T>,
    bias_rows: usize,
    part_rows: usize,
) -> Vec<f32> {
    let (outputs, inputs) = (upstream.columns, input.columns);
    let parts = upstream.rows().div_ceil(part_rows);
    let part_words = outputs * inputs + outputs;
    let kernels = products::<T>(is_exact);
    let entry = if upstream.first.is_empty() { kernels.weight_of_numbers } else { kernels.weight };
    let mut bench = lab.bench();
    let gradient = bench.output::<f32>(parts * part_words);
    let (upstream, input) = (upstream.place(&mut bench), input.place(&mut bench));
    let [down, across] = blocks(tiles, [outputs, 0], inputs);
    let shared_bytes = tiles.shared_bytes();
    let grid = (down * across, parts as u32);
    // SAFETY: the arrays have the sizes that the arguments say.
    unsafe {
        bench.launch(entry, grid, Tiles::THREADS, shared_bytes, |at| LinearWeightArgs {
            upstream: upstream(at),
            input: input(at),
            bias_rows: bias_rows as u64,
            weight: at.of_mut(gradient),
            bias: at.of_mut(gradient).wrapping_add(outputs * inputs),
            part_rows: part_rows as u32,
            part_words: part_words as u64,
            tiles,
        });
    }
    bench.read(gradient)
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
fn layers_match_fp64<T: GpuElement>(lab: &Lab) {
    let mut generator = ChaCha8Rng::seed_from_u64(1);
    let random = &mut generator;
    for (number_of_case, [rows, depth, columns]) in SIZES.into_iter().enumerate() {
        for (tiles, is_exact) in ways() {
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
                residual: Some(&residual),
                concatenate: number_of_case % 4 < 2,
                ..Epilogue::NONE
            };
            let stride = columns * if epilogue.concatenate { 2 } else { 1 };
            let results =
                multiply(lab, tiles, is_exact, Direction::Forward, input, &weight, &epilogue);
            let Results { first: output, tail: rest, .. } = results;

            let factors = Factors::of::<T>(lab, is_exact, false);
            for row in 0..rows {
                for column in 0..columns {
                    let place = format_args!(
                        "{lab}, {factors:?}, {rows} {depth} {columns}, {row} {column}"
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
fn gradients_of_inputs_match_fp64<T: GpuElement>(lab: &Lab) {
    let mut generator = ChaCha8Rng::seed_from_u64(2);
    let random = &mut generator;
    for [rows, depth, columns] in SIZES {
        for ((tiles, is_exact), of_numbers) in ways().flat_map(|way| [(way, true), (way, false)]) {
            let first = elements::<T>(random, rows * depth);
            let tail = numbers(random, rows * depth);
            let upstream =
                if of_numbers { only_numbers(&tail, depth) } else { only(&first, depth) };
            let weight = numbers(random, depth * columns);
            let addend = numbers(random, rows * columns);
            let epilogue = Epilogue {
                addend: (!of_numbers).then_some(&addend[..]),
                plain: !of_numbers,
                ..Epilogue::NONE
            };
            let results =
                multiply(lab, tiles, is_exact, Direction::Input, upstream, &weight, &epilogue);
            let Results { first: output, plain, tail: rest } = results;

            let factors = Factors::of::<T>(lab, is_exact, of_numbers);
            for row in 0..rows {
                for column in 0..columns {
                    let place = format_args!(
                        "{lab}, {factors:?}, {rows} {depth} {columns}, {row} {column}"
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
fn gradients_of_weights_match_fp64<T: GpuElement>(lab: &Lab) {
    let mut generator = ChaCha8Rng::seed_from_u64(3);
    let random = &mut generator;
    for (number_of_case, [outputs, rows, inputs]) in SIZES.into_iter().enumerate() {
        for ((tiles, is_exact), of_numbers) in ways().flat_map(|way| [(way, true), (way, false)]) {
            let first = elements::<T>(random, rows * outputs);
            let tail = numbers(random, rows * outputs);
            let upstream =
                if of_numbers { only_numbers(&tail, outputs) } else { only(&first, outputs) };
            let first_rows = rows - rows / 5;
            let features = elements::<T>(random, first_rows * inputs);
            let added = elements::<T>(random, first_rows * inputs);
            let cameras = numbers(random, (rows - first_rows) * inputs);
            let added = (of_numbers || T::DTYPE == DType::F32).then_some(&added[..]);
            let input = Matrix { added, tail: &cameras, ..only(&features, inputs) };
            let part_rows = rows.div_ceil(1 + number_of_case % 3);
            let parts = rows.div_ceil(part_rows);
            let words = outputs * inputs + outputs;
            let gradient = weigh(lab, tiles, is_exact, upstream, input, first_rows, part_rows);

            let factors = Factors::of::<T>(lab, is_exact, of_numbers);
            for part in 0..parts {
                let of_part = part * part_rows..rows.min((part + 1) * part_rows);
                for out in 0..outputs {
                    let place =
                        format_args!("{lab}, {factors:?}, {outputs} {rows} {inputs}, {part} {out}");
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

fn sums_match_fp64(lab: &Lab) {
    let mut generator = ChaCha8Rng::seed_from_u64(4);
    for (batch, parts, length) in [(1, 1, 1), (2, 7, 33), (3, 8, 64), (1, 75, 129), (2, 200, 31)] {
        let partial = numbers(&mut generator, batch * parts * length);
        // From one warp to eight.
        let threads = 32 * parts.div_ceil(8).min(8) as u32;
        let mut bench = lab.bench();
        let input = bench.input(&partial);
        let total = bench.output::<f32>(batch * length);
        let grid = (length.div_ceil(32) as u32, batch as u32);
        // SAFETY: the arrays have the sizes that the arguments say.
        unsafe {
            bench.launch(SUM, grid, threads, 4 * threads, |at| SumArgs {
                partial: at.of(input),
                total: at.of_mut(total),
                parts: parts as u32,
                length: length as u64,
            });
        }
        let total = bench.read(total);
        for item in 0..batch {
            for number in 0..length {
                let mut exact = Exact::default();
                for part in 0..parts {
                    exact.add(partial[(item * parts + part) * length + number].into());
                }
                let place = format_args!("{lab}, {batch} {parts} {length}, {item} {number}");
                check(place, total[item * length + number], exact, parts);
            }
        }
    }
}

fn gradients_pass_dropout<T: GpuElement>(lab: &Lab) {
    let mut generator = ChaCha8Rng::seed_from_u64(5);
    for (rows, columns, stride) in [(1, 1, 1), (37, 19, 38), (64, 32, 32), (113, 7, 14)] {
        let source = elements::<T>(&mut generator, rows * stride);
        let mask = numbers(&mut generator, rows * columns);
        let mut bench = lab.bench();
        let [from, to] = [bench.input(&source), bench.output::<T>(rows * columns)];
        let of_mask = bench.input(&mask);
        let grid = ((rows * columns).div_ceil(256) as u32, 1);
        // SAFETY: the arrays have the sizes that the arguments say.
        unsafe {
            bench.launch(T::Kernel::DROP, grid, 256, 0, |at| DropArgs {
                source: at.of(from).cast(),
                target: at.of_mut(to).cast(),
                dropout: dropout(at.of(of_mask), 0.5),
                rows: rows as u64,
                columns: columns as u32,
                stride: stride as u32,
            });
        }
        let target = bench.read(to);
        for row in 0..rows {
            for column in 0..columns {
                let element = row * columns + column;
                let factor = if mask[element] >= 0.5 { 2.0 } else { 0.0 };
                let value = source[row * stride + column].to_f64() * factor;
                assert_eq!(target[element].to_f64(), value, "{lab}, {row} {column}");
            }
        }
    }
}

fn products_repeat_bit_for_bit<T: GpuElement>(lab: &Lab) {
    let [rows, depth, columns] = [130, 150, 70];
    let mut generator = ChaCha8Rng::seed_from_u64(6);
    let input = elements::<T>(&mut generator, rows * depth);
    let weight = numbers(&mut generator, columns * depth);
    for (tiles, is_exact) in ways() {
        let run = || {
            let (direction, input) = (Direction::Forward, only(&input, depth));
            multiply(lab, tiles, is_exact, direction, input, &weight, &Epilogue::NONE).first
        };
        let first = run();
        for _ in 0..3 {
            assert_eq!(run(), first, "{lab}");
        }
    }
}
