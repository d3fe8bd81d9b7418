//! The command as a user meets it: exit codes, help, JSON, files that are wrong.

use std::fs;
use std::path::{Path, PathBuf};

use assert_cmd::Command;
use ndarray::{Array3, Array5, Array6, ArrayD, array};
use ndarray_npy::{NpzReader, NpzWriter};
use serde_json::Value;

fn dfa(arguments: &[&str]) -> Command {
    let mut command = Command::new(env!("CARGO_BIN_EXE_dfa"));
    command.args(arguments);
    command
}

fn stdout(command: &mut Command) -> String {
    String::from_utf8(command.output().expect("runs").stdout).expect("valid text")
}

fn json(arguments: &[&str]) -> Value {
    serde_json::from_str(&stdout(&mut dfa(arguments))).expect("valid JSON")
}

/// Writes the case of one 2 x 2 map and one point in its middle, with the output a file claims for it.
fn tiny_case(folder: &Path, name: &str, claimed_output: f64) -> PathBuf {
    let path = folder.join(name);
    let mut file = NpzWriter::new(fs::File::create(&path).expect("created"));
    let quarter = Array3::from_elem((1, 4, 1), 0.25_f64);
    let slopes = array![[[[[5.0_f64, 9.0]]]]].into_shape_with_order((1, 1, 1, 1, 2)).expect("two");
    file.add_array("feat", &array![[[1.0_f32], [2.0], [4.0], [8.0]]]).expect("written");
    file.add_array("spatial_shape", &array![[[2_i64, 2]]]).expect("written");
    file.add_array("scale_start_index", &array![[0_i64]]).expect("written");
    file.add_array("loc", &Array5::from_elem((1, 1, 1, 1, 2), 0.5_f32)).expect("written");
    file.add_array("weights", &Array6::from_elem((1, 1, 1, 1, 1, 1), 1.0_f32)).expect("written");
    file.add_array("grad_out", &Array3::from_elem((1, 1, 1), 1.0_f32)).expect("written");
    file.add_array("op.out", &Array3::from_elem((1, 1, 1), claimed_output)).expect("written");
    file.add_array("op.grad_feat", &quarter).expect("written");
    file.add_array("op.grad_loc", &slopes).expect("written");
    file.add_array("op.grad_weights", &Array6::from_elem((1, 1, 1, 1, 1, 1), 3.75_f64))
        .expect("written");
    file.finish().expect("written");
    path
}

#[test]
fn every_subcommand_has_help_with_examples() {
    for name in ["info", "demo", "verify", "bench"] {
        let mut command = dfa(&[name, "--help"]);
        command.assert().code(0);
        let help = stdout(&mut command);
        assert!(help.contains("Examples:") && help.contains(&format!("dfa {name}")), "{help}");
    }
    let help = stdout(&mut dfa(&["--help"]));
    assert!(help.contains("Exit codes"), "{help}");
}

#[test]
fn wrong_usage_is_exit_code_2() {
    for arguments in [
        &["verify", "--dtype", "fp8"][..],
        &["verify", "--rule", "nearest"],
        &["verify", "--cases", "0"],
        &["bench", "--workload", "W3"],
        &["demo", "--backend", "tpu"],
        &["paint"],
        &[],
    ] {
        dfa(arguments).assert().code(2);
    }
}

#[test]
fn info_lists_all_four_backends() {
    let report = json(&["info", "--json"]);
    let names: Vec<_> = report["backends"]
        .as_array()
        .expect("a list")
        .iter()
        .map(|backend| backend["name"].as_str().expect("a name").to_owned())
        .collect();
    assert_eq!(names, ["reference", "cpu", "emulator", "cuda"]);
    for backend in report["backends"].as_array().expect("a list") {
        assert!(!backend["description"].as_str().expect("text").is_empty());
    }
    dfa(&["info"]).assert().code(0);
}

#[test]
fn output_has_no_colours_where_none_are_wanted() {
    let plain = stdout(dfa(&["info"]).env("NO_COLOR", "1"));
    assert!(!plain.contains('\u{1b}'));
    let piped = stdout(&mut dfa(&["info"]));
    assert!(!piped.contains('\u{1b}'));
}

#[test]
fn verify_passes_random_cases() {
    let arguments = ["verify", "--cases", "3", "--backend", "reference,cpu", "--json"];
    dfa(&arguments).assert().code(0);
    let report = json(&arguments);
    assert_eq!(report["passed"], true);
    // 3 cases, 2 backends, 4 types, 2 rules, 4 quantities.
    assert_eq!(report["checks"].as_array().expect("a list").len(), 3 * 2 * 4 * 2 * 4);
}

#[test]
fn verify_takes_a_right_file_and_catches_a_planted_error() {
    let folder = tempfile::tempdir().expect("a temporary folder");
    let right = tiny_case(folder.path(), "right.npz", 3.75);
    let wrong = tiny_case(folder.path(), "wrong.npz", 3.7501);
    let nan = tiny_case(folder.path(), "nan.npz", f64::NAN);
    let verify = |path: &Path| {
        let path = path.to_str().expect("valid text");
        let arguments = [
            "verify",
            "--backend",
            "reference,cpu",
            "--dtype",
            "fp32",
            "--json",
            "--vectors",
            path,
        ];
        let code = dfa(&arguments).output().expect("runs").status.code();
        (code, json(&arguments)["failed"].as_u64())
    };
    assert_eq!(verify(&right), (Some(0), Some(0)));
    assert_eq!(verify(&wrong), (Some(1), Some(2)), "the output on both backends");
    assert_eq!(verify(&nan), (Some(1), Some(2)));
}

#[test]
fn verify_refuses_files_that_it_cannot_read() {
    let folder = tempfile::tempdir().expect("a temporary folder");
    let path = |name: &str| folder.path().join(name).to_str().expect("valid text").to_owned();
    fs::write(path("text.npz"), "not an archive").expect("written");
    let whole = fs::read(tiny_case(folder.path(), "whole.npz", 3.75)).expect("read");
    fs::write(path("cut.npz"), &whole[..whole.len() / 2]).expect("written");
    for name in ["text.npz", "cut.npz", "missing.npz"] {
        let output = dfa(&["verify", "--vectors", &path(name)]).output().expect("runs");
        let message = String::from_utf8_lossy(&output.stderr);
        assert_eq!(output.status.code(), Some(2), "{name}: {message}");
        assert!(message.contains(name), "{message}");
    }
}

#[test]
fn a_block_without_its_arrays_is_refused_by_name() {
    let folder = tempfile::tempdir().expect("a temporary folder");
    let path = folder.path().join("block.npz");
    let mut file = NpzWriter::new(fs::File::create(&path).expect("created"));
    file.add_array("projection_mat", &array![1.0_f32]).expect("written");
    file.finish().expect("written");
    let path = path.to_str().expect("valid text");
    let output = dfa(&["verify", "--vectors", path]).output().expect("runs");
    assert_eq!(output.status.code(), Some(2));
    assert!(String::from_utf8_lossy(&output.stderr).contains("block: "));
}

#[test]
fn demo_writes_a_picture_and_agrees() {
    let folder = tempfile::tempdir().expect("a temporary folder");
    let path = folder.path().join("demo.png");
    let path = path.to_str().expect("valid text");
    dfa(&["demo", "--backend", "cpu", "--picture", path]).assert().code(0);
    let picture = image::open(path).expect("a picture");
    assert!(picture.width() > 1_000 && picture.height() > 1_000);
    dfa(&["demo", "--backend", "cpu", "--picture", "/no/such/folder/demo.png"]).assert().code(2);
}

#[test]
fn bench_reports_in_json_and_saves_inputs_that_verify_reads() {
    let folder = tempfile::tempdir().expect("a temporary folder");
    let path = folder.path().join("w1.npz");
    let path = path.to_str().expect("valid text");
    let arguments =
        ["bench", "--backend", "cpu", "--runs", "1", "--direction", "forward", "--json"];
    let report = json(&[&arguments[..], &["--save-inputs", path]].concat());
    assert_eq!(report["passed"], true);
    let row = &report["results"][0];
    assert_eq!((&row["workload"], &row["direction"]), (&"W1".into(), &"forward".into()));
    assert!(row["over_dram_floor"].as_f64().expect("a number") > 0.0);
    assert!(row["tap_bytes"].as_u64() > row["dram_bytes"].as_u64());
    assert_eq!(row["checked_items"], serde_json::json!([0]));
    assert_eq!(report["command"][1], "bench");
    let verify =
        ["verify", "--backend", "cpu", "--dtype", "fp32", "--rule", "op", "--vectors", path];
    dfa(&verify).assert().code(0);
}

#[test]
fn bench_checks_samples_of_the_whole_batch_and_writes_tables() {
    let folder = tempfile::tempdir().expect("a temporary folder");
    let path = folder.path().join("bench.md");
    let path = path.to_str().expect("valid text");
    let arguments =
        ["bench", "--backend", "cpu", "--runs", "1", "--batch", "3", "--markdown", path];
    let report = json(&[&arguments[..], &["--graph", "--json"]].concat());
    assert_eq!(report["passed"], true);
    for row in report["results"].as_array().expect("a list") {
        assert_eq!(row["sizes"]["batch"], 3);
        assert_eq!(row["checked_items"], serde_json::json!([0, 1, 2]));
        assert_eq!(row["replay_us"], Value::Null, "no graphs on a CPU");
    }
    let table = fs::read_to_string(path).expect("written");
    assert_eq!(table.matches("| W1 `rig`, batch 3 | fp32 |").count(), 1, "{table}");
    dfa(&["bench", "--batch", "0"]).assert().code(2);
}

#[test]
fn sweeps_grow_one_size_and_draw_it() {
    let folder = tempfile::tempdir().expect("a temporary folder");
    let path = folder.path().join("sweep.png");
    let path = path.to_str().expect("valid text");
    let sweep = ["bench", "--backend", "cpu", "--runs", "1", "--sweep", "levels,visible"];
    let report = json(&[&sweep[..], &["--picture", path, "--json"]].concat());
    assert_eq!(report["passed"], true);
    let points = |sweep: usize| -> Vec<u64> {
        let points = report["sweeps"][sweep]["points"].as_array().expect("a list");
        let forward = points.iter().filter(|point| point["direction"] == "forward");
        forward.map(|point| point["x"].as_u64().expect("a number")).collect()
    };
    assert_eq!(points(0), [1, 2, 3, 4, 5, 6, 7, 8]);
    let visible = points(1);
    assert_eq!(visible[0], 0, "nothing is seen");
    assert!(visible.is_sorted() && visible[visible.len() - 1] == 90 * 13 * 6 * 4, "{visible:?}");
    assert!(image::open(path).expect("a picture").width() > 1_000);
    dfa(&[&sweep[..], &["--backend", "reference"]].concat()).assert().code(2);
    dfa(&["bench", "--picture", path]).assert().code(2);
}

#[test]
fn the_first_calls_of_a_fresh_process_are_measured() {
    let arguments = ["bench", "--cold", "--backend", "cpu", "--json"];
    let report = json(&arguments);
    assert_eq!((&report["passed"], &report["backend"]), (&true.into(), &"cpu".into()));
    let number = |value: &Value| value.as_f64().expect("a number");
    let sum = number(&report["open_ms"]) + number(&report["forward_ms"][0]);
    assert!((sum / number(&report["first_output_ms"]) - 1.0).abs() < 1e-6);
    assert!(number(&report["forward_ms"][1]) > 0.0 && number(&report["backward_ms"][1]) > 0.0);
    dfa(&["bench", "--cold", "--suite", "full"]).assert().code(2);
    dfa(&["bench", "--cold", "--workload", "W1,W2"]).assert().code(2);
}

#[test]
fn the_block_is_measured_without_a_gpu() {
    let bench = ["bench", "--block", "--backend", "cpu", "--workload", "W1", "--runs", "1"];
    let report = json(&[&bench[..], &["--dtype", "fp32,bf16", "--json"]].concat());
    assert_eq!(report["passed"], true);
    let rows = report["results"].as_array().expect("a list");
    assert_eq!(rows.len(), 2);
    for row in rows {
        for name in ["forward_us", "forward_backward_us"] {
            assert!(row[name].as_f64().expect("a number") > 0.0, "{name}");
        }
        let of_operator = row["operator_us"].as_array().expect("forward and backward");
        assert!(of_operator.iter().all(|time| time.as_f64().expect("a number") > 0.0));
        assert!(row.get("launches").is_none(), "there are no kernels");
        assert_eq!(row["errors"].as_array().expect("a list").len(), 4);
    }
    let table = stdout(&mut dfa(&[&bench[..], &["--dtype", "fp32"]].concat()));
    assert!(table.contains("fwd / op") && !table.contains("launches"), "{table}");
    let refused = ["bench", "--block", "--backend", "emulator", "--dtype", "fp64"];
    let output = dfa(&refused).assert().code(2).get_output().clone();
    assert!(String::from_utf8_lossy(&output.stderr).contains("element types"));
}

fn golden(name: &str) -> String {
    format!("{}/../tests/golden/{name}.npz", env!("CARGO_MANIFEST_DIR"))
}

/// A copy of a golden file in which the results of that name are a thousandth larger.
fn tampered(folder: &Path, file: &str, name: &str) -> PathBuf {
    let path = folder.join(format!("{file}.npz"));
    let mut from =
        NpzReader::new(fs::File::open(golden(file)).expect("there")).expect("an archive");
    let mut to = NpzWriter::new(fs::File::create(&path).expect("created"));
    let names = from.names().expect("a list");
    assert!(names.iter().any(|array| array.trim_end_matches(".npy") == name), "{names:?}");
    for array in names {
        let inputs: Result<ArrayD<f32>, _> = from.by_name(&array);
        if let Ok(inputs) = inputs {
            to.add_array(array.trim_end_matches(".npy"), &inputs).expect("written");
            continue;
        }
        let results: ArrayD<f64> = from.by_name(&array).expect("of one type or the other");
        let array = array.trim_end_matches(".npy");
        let factor = if array == name { 1.001 } else { 1.0 };
        to.add_array(array, &(results * factor)).expect("written");
    }
    to.finish().expect("written");
    path
}

#[test]
fn blocks_and_key_points_are_compared_with_their_files() {
    let files = ["block_box_cat", "block_polyline_train", "kps_temporal"].map(golden);
    let [cat, train, key_points] = files.each_ref().map(String::as_str);
    let report = json(&[
        "verify",
        "--json",
        "--backend",
        "cpu",
        "--dtype",
        "fp64,fp32",
        "--vectors",
        cat,
        train,
        key_points,
    ]);
    assert_eq!((&report["passed"], &report["failed"]), (&true.into(), &0.into()));
    let checks = report["checks"].as_array().expect("a list");
    let named = |case: &str, quantity: &str| {
        let same = |check: &&Value| check["case"] == case && check["quantity"] == quantity;
        checks.iter().filter(same).count()
    };
    // Two types under two rules.
    assert_eq!(named("block_box_cat", "output"), 4);
    assert_eq!(named("block_box_cat", "grad.param.camera_encoder.3.weight"), 4);
    assert_eq!(named("block_polyline_train", "grad.fm.0.1"), 4);
    assert_eq!(named("block_polyline_train", "key_points"), 2);
    assert_eq!(named("kps_temporal", "box.anchor_projected_swapped"), 2);
    assert_eq!(named("kps_temporal", "grad.instance_feature"), 2);
}

#[test]
fn a_wrong_result_of_a_block_or_of_key_points_is_found() {
    let folder = tempfile::tempdir().expect("a temporary folder");
    for (file, name) in [
        ("block_box_plain", "grid.grad.param.output_proj.bias"),
        ("block_box_plain", "key_points"),
        ("kps_temporal", "grad.polyline_anchor"),
    ] {
        let path = tampered(folder.path(), file, name);
        let path = path.to_str().expect("valid text");
        let mut command = dfa(&["verify", "--backend", "cpu", "--json", "--vectors", path]);
        command.assert().code(1);
        let report: Value = serde_json::from_str(&stdout(&mut command)).expect("valid JSON");
        let failed = report["checks"].as_array().expect("a list").iter();
        let failed: Vec<_> = failed.filter(|check| check["passed"] == false).collect();
        assert!(!failed.is_empty());
        for check in failed {
            assert!(name.ends_with(check["quantity"].as_str().expect("a name")), "{check}");
        }
    }
}
