//! Files of vectors: zip archives of NumPy arrays with inputs and, usually, the results to be met.

use std::fs::File;
use std::path::Path;

use anyhow::{Context, Result, bail, ensure};
use deformable_aggregation::{AggregationShape, BorderRule, Element, FeatureLayout};
use ndarray::{Array, Array2, Array3, Array5, ArrayD, Dimension, IxDyn};
use ndarray_npy::{NpzReader, NpzWriter, ReadableElement, WritableElement};

use crate::data::{Data, Quantity};

/// What a file of vectors is about, read off the names of its arrays.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Kind {
    /// The operator, forward and backward.
    Operator,
    /// Packing and unpacking of feature maps.
    Format,
    /// Key point generators.
    KeyPoints,
    /// The whole block with its parameters.
    Block,
}

/// An open file of vectors.
pub struct Vectors {
    reader: NpzReader<File>,
    names: Vec<String>,
    /// File name without folder and ending.
    pub name: String,
    /// What the file is about.
    pub kind: Kind,
}

impl Vectors {
    /// Opens a file and recognises its kind.
    ///
    /// # Errors
    ///
    /// If the file cannot be read, is no archive of arrays, or holds arrays of no known kind.
    pub fn open(path: &Path) -> Result<Self> {
        let shown = path.display();
        let file = File::open(path).with_context(|| format!("cannot open {shown}"))?;
        let mut reader =
            NpzReader::new(file).with_context(|| format!("{shown} is not an .npz archive"))?;
        let names = reader.names().with_context(|| format!("cannot list {shown}"))?;
        let names: Vec<String> =
            names.iter().map(|name| name.trim_end_matches(".npy").to_owned()).collect();
        let has = |wanted: &str| names.iter().any(|name| name == wanted);
        let kind = if has("projection_mat") {
            Kind::Block
        } else if has("polyline_anchor") || has("fix_scale") {
            Kind::KeyPoints
        } else if has("feat") && has("loc") && has("weights") {
            Kind::Operator
        } else if has("fm.0.0") && has("feat") {
            Kind::Format
        } else {
            bail!(
                "{shown}: the arrays {} are of no known kind; an operator case has feat, spatial_shape, \
                 scale_start_index, loc, weights, grad_out",
                names.join(", ")
            );
        };
        let name = path.file_stem().unwrap_or_default().to_string_lossy().into_owned();
        Ok(Self { reader, names, name, kind })
    }

    /// Names of all arrays.
    pub fn names(&self) -> &[String] {
        &self.names
    }

    /// Whether the file has that array.
    pub fn has(&self, name: &str) -> bool {
        self.names.iter().any(|other| other == name)
    }

    /// An array of floating-point numbers of either width.
    ///
    /// # Errors
    ///
    /// If there is no such array, it has another type or another number of axes.
    pub fn floats<D: Dimension>(&mut self, name: &str) -> Result<Array<f64, D>> {
        let values = self.read::<f32>(name).map(|array| array.mapv(f64::from));
        let values = values.or_else(|_| self.read::<f64>(name))?;
        with_axes(name, values)
    }

    /// An array of 64-bit integers.
    ///
    /// # Errors
    ///
    /// As for [`floats`](Self::floats).
    pub fn integers<D: Dimension>(&mut self, name: &str) -> Result<Array<i64, D>> {
        with_axes(name, self.read(name)?)
    }

    /// An array of flags stored as bytes.
    ///
    /// # Errors
    ///
    /// As for [`floats`](Self::floats).
    pub fn flags(&mut self, name: &str) -> Result<Vec<bool>> {
        Ok(self.read::<u8>(name)?.iter().map(|flag| *flag != 0).collect())
    }

    fn read<T: ReadableElement>(&mut self, name: &str) -> Result<ArrayD<T>> {
        ensure!(self.has(name), "{}: the array {name} is missing", self.name);
        let place = format!("{}: cannot read the array {name}", self.name);
        self.reader.by_name(name).context(place)
    }
}

fn with_axes<T, D: Dimension>(name: &str, array: ArrayD<T>) -> Result<Array<T, D>> {
    let found = array.ndim();
    let dimensions = format!("the array {name} has {found} axes, which is not the right number");
    // A file may store an array in column order; everything after this relies on row order.
    array.into_dimensionality().context(dimensions)
}

/// The largest relative rounding errors a golden case allows.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Exactness {
    /// Results in fp32 must be equal to the golden ones.
    pub results: bool,
    /// Pixel positions are exact, so that one-sided location gradients may be compared as well.
    pub positions: bool,
}

impl Exactness {
    /// What is known of the golden case of that name.
    pub fn of(case: &str) -> Self {
        Self {
            results: matches!(case, "op_exact" | "op_tiny"),
            positions: matches!(case, "op_exact" | "op_border"),
        }
    }
}

/// An operator case of a file.
pub struct OperatorCase {
    /// Name of the file.
    pub name: String,
    /// Inputs in the type they were computed from.
    pub data: Data<f64>,
    /// Where the location gradient is one-sided, flat; empty if the file does not say.
    pub kink: Vec<bool>,
    /// What rounding may do.
    pub exactness: Exactness,
    /// Results to be met, by rule.
    pub goldens: Vec<Golden>,
}

/// Results to be met under one border rule.
pub struct Golden {
    /// The rule.
    pub rule: BorderRule,
    /// The four arrays, flat, in the order of [`Quantity::ALL`].
    pub expected: [Vec<f64>; 4],
    /// Sums of the absolute values of their terms, in the same order, if the file has them.
    pub magnitudes: Option<[Vec<f64>; 4]>,
}

impl OperatorCase {
    /// Reads the arrays of an operator case.
    ///
    /// # Errors
    ///
    /// If an array is missing or does not fit the others.
    pub fn read(vectors: &mut Vectors) -> Result<Self> {
        let feature_maps: Array3<f64> = vectors.floats("feat")?;
        let spatial_shapes: Array3<i64> = vectors.integers("spatial_shape")?;
        let starts: Array2<i64> = vectors.integers("scale_start_index")?;
        let layout =
            FeatureLayout::new(spatial_shapes.view(), starts.view(), feature_maps.shape()[1])
                .with_context(|| vectors.name.clone())?;
        let sampling_locations = vectors.floats("loc")?;
        let weights = vectors.floats("weights")?;
        let grad_output = vectors.floats("grad_out")?;
        let inputs = deformable_aggregation::Inputs {
            feature_maps: feature_maps.view(),
            sampling_locations: sampling_locations.view(),
            weights: weights.view(),
        };
        let shape =
            AggregationShape::infer(layout, &inputs).with_context(|| vectors.name.clone())?;
        let data = Data { shape, feature_maps, sampling_locations, weights, grad_output };
        let kink = if vectors.has("kink") { vectors.flags("kink")? } else { Vec::new() };
        let mut goldens = Vec::new();
        for rule in [BorderRule::Operator, BorderRule::GridSample] {
            if vectors.has(&format!("{rule}.out")) {
                let expected = quantities(vectors, &rule.to_string())?;
                // The magnitudes of a file are those of the operator rule.
                let known = rule == BorderRule::Operator && vectors.has("mag.out");
                let magnitudes = if known { Some(quantities(vectors, "mag")?) } else { None };
                goldens.push(Golden { rule, expected, magnitudes });
            }
        }
        let name = vectors.name.clone();
        Ok(Self { exactness: Exactness::of(&name), name, data, kink, goldens })
    }
}

/// The four arrays with a common prefix, flat.
fn quantities(vectors: &mut Vectors, prefix: &str) -> Result<[Vec<f64>; 4]> {
    let mut read = |quantity: Quantity| -> Result<Vec<f64>> {
        let array: Array<f64, IxDyn> = vectors.floats(&format!("{prefix}.{}", quantity.name()))?;
        Ok(array.iter().copied().collect())
    };
    let [output, features, locations, weights] = Quantity::ALL;
    Ok([read(output)?, read(features)?, read(locations)?, read(weights)?])
}

/// A packing case of a file.
pub struct FormatCase {
    /// Name of the file.
    pub name: String,
    /// Maps by camera group and level, (batch, cameras, channels, height, width).
    pub maps: Vec<Vec<Array5<f64>>>,
    /// The packed maps, (batch, num_feat, channels).
    pub feature_maps: Array3<f64>,
    /// (cameras, levels, 2)
    pub spatial_shapes: Array3<i64>,
    /// (cameras, levels)
    pub scale_start_index: Array2<i64>,
    /// The maps after unpacking, by group and level.
    pub unpacked: Vec<Vec<Array5<f64>>>,
}

impl FormatCase {
    /// Reads the arrays of a packing case.
    ///
    /// # Errors
    ///
    /// If an array is missing or has the wrong number of axes.
    pub fn read(vectors: &mut Vectors) -> Result<Self> {
        Ok(Self {
            name: vectors.name.clone(),
            maps: nested(vectors, "fm")?,
            feature_maps: vectors.floats("feat")?,
            spatial_shapes: vectors.integers("spatial_shape")?,
            scale_start_index: vectors.integers("scale_start_index")?,
            unpacked: nested(vectors, "back")?,
        })
    }
}

/// Arrays called `prefix.group.level`.
pub(crate) fn nested(vectors: &mut Vectors, prefix: &str) -> Result<Vec<Vec<Array5<f64>>>> {
    let mut groups = Vec::new();
    while vectors.has(&format!("{prefix}.{}.0", groups.len())) {
        let mut levels = Vec::new();
        loop {
            let name = format!("{prefix}.{}.{}", groups.len(), levels.len());
            if !vectors.has(&name) {
                break;
            }
            levels.push(vectors.floats(&name)?);
        }
        groups.push(levels);
    }
    Ok(groups)
}

/// Writes the inputs of a case, features and weights in fp32, under the names that [`OperatorCase::read`] expects.
///
/// # Errors
///
/// If the file cannot be written.
pub fn save<T: Element>(path: &Path, data: &Data<T>) -> Result<()> {
    let shown = path.display();
    let file = File::create(path).with_context(|| format!("cannot create {shown}"))?;
    let single = data.converted::<f32>();
    let mut writer = NpzWriter::new(file);
    let layout = data.shape.layout();
    add(&mut writer, "feat", &single.feature_maps)?;
    add(&mut writer, "spatial_shape", &layout.spatial_shapes())?;
    add(&mut writer, "scale_start_index", &layout.scale_start_index())?;
    add(&mut writer, "loc", &single.sampling_locations)?;
    add(&mut writer, "weights", &single.weights)?;
    add(&mut writer, "grad_out", &single.grad_output)?;
    writer.finish().with_context(|| format!("cannot write {shown}"))?;
    Ok(())
}

fn add<T: WritableElement, D: Dimension>(
    writer: &mut NpzWriter<File>,
    name: &str,
    array: &Array<T, D>,
) -> Result<()> {
    writer.add_array(name, array).with_context(|| format!("cannot write the array {name}"))
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::scenario::{Scenario, generate};
    use crate::workloads::Workload;

    #[test]
    fn saved_inputs_come_back_equal() {
        let small =
            Workload { anchors: 2, levels: &[(3, 5), (1, 2)], ..*Workload::by_id("W1").unwrap() };
        let data = generate::<f32>(&small, Scenario::Rig, 3).expect("valid sizes");
        let folder = tempfile::tempdir().expect("a temporary folder");
        let path = folder.path().join("case.npz");
        save(&path, &data).expect("written");
        let mut vectors = Vectors::open(&path).expect("readable");
        assert_eq!(vectors.kind, Kind::Operator);
        let case = OperatorCase::read(&mut vectors).expect("complete");
        assert_eq!(case.name, "case");
        assert_eq!(case.data.shape, data.shape);
        assert_eq!(case.data.converted::<f32>().weights, data.weights);
        assert_eq!(case.data.converted::<f32>().sampling_locations, data.sampling_locations);
        assert!(case.goldens.is_empty());
    }

    #[test]
    fn a_file_without_known_arrays_is_refused_by_name() {
        let folder = tempfile::tempdir().expect("a temporary folder");
        let path = folder.path().join("other.npz");
        let mut writer = NpzWriter::new(File::create(&path).expect("created"));
        writer.add_array("numbers", &ndarray::arr1(&[1.0_f32])).expect("written");
        writer.finish().expect("written");
        let message = format!("{:#}", Vectors::open(&path).err().expect("refused"));
        assert!(message.contains("numbers") && message.contains("other.npz"), "{message}");
    }
}
