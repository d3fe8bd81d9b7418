//! Loops written out.
//!
//! An array that is indexed by a loop variable stays in registers only when the compiler unrolls the
//! loop, and for the larger bodies of these kernels it does not: the array moves to the stack, which
//! on a GPU is memory. These helpers call their body with every index instead.

/// Calls `body` with `0`, `1`, … below `count`, which is at most 8.
#[inline(always)]
pub(crate) fn upto8(count: usize, mut body: impl FnMut(usize)) {
    debug_assert!(count <= 8);
    for_index(count, 0, &mut body);
    for_index(count, 1, &mut body);
    for_index(count, 2, &mut body);
    for_index(count, 3, &mut body);
    for_index(count, 4, &mut body);
    for_index(count, 5, &mut body);
    for_index(count, 6, &mut body);
    for_index(count, 7, &mut body);
}

#[inline(always)]
fn for_index(count: usize, index: usize, body: &mut impl FnMut(usize)) {
    if index < count {
        body(index);
    }
}

/// Calls `body` with 0, 1, 2 and 3.
#[inline(always)]
pub(crate) fn each4(body: impl FnMut(usize)) {
    upto8(4, body);
}

/// Calls `body` with 0 to 7.
#[inline(always)]
pub(crate) fn each8(body: impl FnMut(usize)) {
    upto8(8, body);
}

/// The array of `value(0)` to `value(3)`.
#[inline(always)]
pub(crate) fn array4<R>(mut value: impl FnMut(usize) -> R) -> [R; 4] {
    [value(0), value(1), value(2), value(3)]
}

/// The array of `value(0)` to `value(7)`.
#[inline(always)]
pub(crate) fn array8<R>(mut value: impl FnMut(usize) -> R) -> [R; 8] {
    [
        value(0),
        value(1),
        value(2),
        value(3),
        value(4),
        value(5),
        value(6),
        value(7),
    ]
}

/// Adds up `term(0)`, `term(1)`, … below `count`, in this order. Eight are computed at a time, so that eight loads are under
/// way together.
#[inline(always)]
pub(crate) fn sum_in_eights(count: u32, term: impl Fn(u32) -> f32) -> f32 {
    let (mut sum, mut first) = (0.0, 0);
    while first + 8 <= count {
        let terms = array8(|index| term(first + index as u32));
        each8(|index| sum += terms[index]);
        first += 8;
    }
    if first < count {
        let mut terms = [0.0; 8];
        upto8((count - first) as usize, |index| terms[index] = term(first + index as u32));
        each8(|index| sum += terms[index]);
    }
    sum
}
