//! Files of the attention block: output and all gradients on every backend.

use anyhow::Result;
use deformable_aggregation::block::DeformableFeatureAggregation;
use deformable_aggregation::{Algorithm, Backend, DType, Element, Scalar};

use super::{Check, Plan, not_compared};
use crate::block::vectors::BlockCase;
use crate::block::{BlockData, NamedArrays, wide};
use crate::compare::{Measure, block_bound, compare};
use crate::engines::{BackendName, Engine};
use crate::with_dtype;

/// Compares a case in all types of the plan.
pub(super) fn block_case(plan: &Plan, case: &BlockCase, checks: &mut Vec<Check>) -> Result<()> {
    let before = checks.len();
    for &dtype in &plan.dtypes {
        with_dtype!(dtype, T => in_type::<T>(plan, case, checks)?);
    }
    if checks.len() == before {
        let note = "the file has no results for the chosen types and rules".to_owned();
        checks.push(not_compared(&case.name, note));
    }
    Ok(())
}

fn in_type<T: Element>(plan: &Plan, case: &BlockCase, checks: &mut Vec<Check>) -> Result<()> {
    let engines = plan.engines.iter().filter(|engine| engine.supports(T::DTYPE));
    let engines: Vec<&Engine> = engines.collect();
    if engines.is_empty() {
        return Ok(());
    }
    if matches!(T::DTYPE, DType::F64 | DType::F32) {
        checks.push(key_points::<T>(case)?);
    }
    for (rule, golden) in &case.goldens {
        if !plan.rules.contains(rule) {
            continue;
        }
        let data = case.data.clone().with_rule(*rule).converted::<T>()?;
        let expected = expected(&data, golden)?;
        for engine in &engines {
            let actual = data.run(engine)?;
            for (name, expected) in &expected {
                let measure = measure(T::DTYPE, &actual, name, expected);
                checks.push(Check {
                    case: case.name.clone(),
                    rule: rule.to_string(),
                    backend: engine.label(),
                    dtype: T::DTYPE.to_string(),
                    quantity: name.clone(),
                    measure,
                    note: None,
                });
            }
        }
    }
    Ok(())
}

/// What is to be met: the golden results, or, where rounding to 16 bits makes other inputs, what the reference makes of these in
/// fp64.
fn expected<T: Element>(data: &BlockData<T>, golden: &NamedArrays) -> Result<NamedArrays> {
    if matches!(T::DTYPE, DType::F64 | DType::F32) {
        return Ok(golden.clone());
    }
    let judge = Engine {
        name: BackendName::Reference,
        backend: Backend::Reference,
        algorithm: Algorithm::Fast,
    };
    let names: Vec<&String> = golden.iter().map(|(name, _)| name).collect();
    let mut results = data.converted::<f64>()?.run(&judge)?;
    results.retain(|(name, _)| names.contains(&name));
    Ok(results)
}

fn measure(dtype: DType, actual: &NamedArrays, name: &str, expected: &[f64]) -> Measure {
    let actual = actual.iter().find(|(other, _)| other == name);
    let largest = expected.iter().fold(0.0_f64, |largest, value| largest.max(value.abs()));
    let bound = block_bound(dtype, largest);
    compare(actual.map_or(&[], |(_, values)| values), expected, |_| Some(bound))
}

/// The key points, which every backend has from the library.
fn key_points<T: Element>(case: &BlockCase) -> Result<Check> {
    let data = case.data.converted::<T>()?;
    let block = DeformableFeatureAggregation::with_parameters(
        data.config.clone(),
        data.parameters.clone(),
    )?;
    // The generator computes in the type of the geometry.
    let instance_feature =
        data.instance_feature.mapv(|value| T::Location::from_f64(value.to_f64()));
    let points =
        block.key_points_generator().key_points(data.anchor.view(), instance_feature.view())?;
    let actual: NamedArrays = vec![("key_points".to_owned(), wide(&points))];
    Ok(Check {
        case: case.name.clone(),
        rule: "-".to_owned(),
        backend: "library".to_owned(),
        dtype: T::DTYPE.to_string(),
        quantity: "key_points".to_owned(),
        measure: measure(T::DTYPE, &actual, "key_points", &case.key_points),
        note: None,
    })
}
