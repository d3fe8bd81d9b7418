#!/usr/bin/env python3
"""The CPU backend against PyTorch's grid_sample path with autograd, on the same inputs, machine and number of threads.

The path is the one that the Sparse4D projects take where their CUDA extension is missing: sample every point in every
camera and level, multiply by the weights, add up. It knows nothing of what a camera sees.

    python3 -m venv target/pytorch
    target/pytorch/bin/pip install numpy torch
    cargo build --release
    target/pytorch/bin/python host/benches/pytorch.py

PyTorch and the `dfa` command are measured in turns, so that what else the machine does meets both. `DRAM floor` is the time of
the bytes that have to move, `taps` that of every feature row as often as a sample reads it, both at the bandwidth of a large
copy. Exit code 1: the results disagree.
"""
import argparse
import json
import os
import pathlib
import statistics
import subprocess
import sys
import tempfile
import time

import numpy as np
import torch
import torch.nn.functional as F

ROOT = pathlib.Path(__file__).resolve().parents[2]

# For the comparison of results, locations are rounded to multiples of this. Then pixel positions are exact in fp32 on maps of
# up to 1,024 pixels a side, so that only sums differ. For the times they are not.
STEP = 2.0**-14


def arguments():
    parser = argparse.ArgumentParser(description=__doc__.split("\n", 1)[0])
    target = pathlib.Path(os.environ.get("CARGO_TARGET_DIR", ROOT / "target"))
    parser.add_argument("--dfa", type=pathlib.Path, default=target / "release/dfa", help="the command, built with --release")
    parser.add_argument("--workload", default="W1", help="sizes, see `dfa bench --help` (default: W1)")
    parser.add_argument("--threads", type=int, default=len(os.sched_getaffinity(0)))
    parser.add_argument("--rounds", type=int, default=5, help="turns of each; PyTorch runs once in each")
    parser.add_argument("--json", action="store_true", help="print the figures as JSON")
    return parser.parse_args()


class Case:
    """The inputs of a file, as tensors."""

    def __init__(self, path, dtype):
        arrays = np.load(path)
        self.shapes, self.starts = arrays["spatial_shape"], arrays["scale_start_index"]
        tensor = lambda name: torch.from_numpy(arrays[name]).to(dtype)
        self.features, self.locations, self.upstream = tensor("feat"), tensor("loc"), tensor("grad_out")
        # The operator leaves out what is not strictly inside the image; grid_sample has a rim of half a pixel. With weights
        # of zero there both compute the same.
        self.visible = ((self.locations > 0) & (self.locations < 1)).all(-1)
        self.weights = tensor("weights") * self.visible[..., None, None]
        self.maps = self.unpacked()

    def unpacked(self):
        """A map for each level, (batch, cameras, channels, height, width): as a feature pyramid leaves them."""
        (cameras, levels, _), batch = self.shapes.shape, self.features.shape[0]
        maps = []
        for level in range(levels):
            height, width = (int(size) for size in self.shapes[0, level])
            views = []
            for camera in range(cameras):
                start = int(self.starts[camera, level])
                rows = self.features[:, start : start + height * width]
                views.append(rows.transpose(1, 2).reshape(batch, -1, height, width))
            maps.append(torch.stack(views, dim=1).contiguous())
        return maps

    def packed(self, maps):
        """The inverse of `unpacked`."""
        features = torch.zeros_like(self.features)
        for level, level_maps in enumerate(maps):
            for camera in range(level_maps.shape[1]):
                rows = level_maps[:, camera].flatten(2).transpose(1, 2)
                start = int(self.starts[camera, level])
                features[:, start : start + rows.shape[1]] = rows
        return features

    def forward(self, maps, locations, weights):
        batch, anchors, points, cameras, levels, groups = weights.shape
        grid = (2 * locations - 1).permute(0, 3, 1, 2, 4).flatten(end_dim=1)
        sampled = [F.grid_sample(level.flatten(end_dim=1), grid, align_corners=False) for level in maps]
        # (batch, cameras, levels, channels, anchors, points) -> (batch, anchors, points, cameras, levels, groups, channels of a group)
        sampled = torch.stack(sampled, dim=1).reshape(batch, cameras, levels, -1, anchors, points)
        sampled = sampled.permute(0, 4, 5, 1, 2, 3)
        sampled = sampled.reshape(*sampled.shape[:-1], groups, -1)
        return (weights[..., None] * sampled).sum(dim=(2, 3, 4)).flatten(-2)

    def run(self):
        """Output, gradients, and the seconds of both passes."""
        leaves = [level.detach().requires_grad_() for level in self.maps]
        locations = self.locations.detach().requires_grad_()
        weights = self.weights.detach().requires_grad_()
        start = time.perf_counter()
        output = self.forward(leaves, locations, weights)
        between = time.perf_counter()
        output.backward(self.upstream)
        end = time.perf_counter()
        gradients = [level.grad for level in leaves], locations.grad, weights.grad
        return output.detach(), gradients, (between - start, end - between)

    def kinks(self):
        """Which location gradients have two values: those of points on a line between pixel centres."""
        on_line = torch.zeros(self.locations.shape, dtype=torch.bool)
        for level in range(self.shapes.shape[1]):
            size = torch.from_numpy(self.shapes[:, level, ::-1].copy()).to(self.locations.dtype)
            position = self.locations * size - 0.5
            # A point on a line in one direction has one slope in the other; both are left out.
            on_line |= (position == position.round()).any(-1, keepdim=True)
        return on_line


def dfa(program, *words, threads):
    environment = dict(os.environ, RAYON_NUM_THREADS=str(threads))
    done = subprocess.run([program, *map(str, words), "--json"], capture_output=True, text=True, env=environment)
    if done.returncode not in (0, 1):
        sys.exit(f"{program}: {done.stderr.strip()}")
    return json.loads(done.stdout)


def agreement(program, inputs, folder, threads):
    """Whether the CPU backend computes in fp32 what PyTorch computes in fp64."""
    given = dict(np.load(inputs))
    given["loc"] = (np.round(given["loc"] / STEP) * STEP).astype(np.float32)
    file = folder / "expected.npz"
    np.savez(file, **given)
    case = Case(file, torch.float64)
    output, (maps, locations, weights), _ = case.run()
    np.savez(
        file,
        **given,
        **{
            "op.out": output.numpy(),
            "op.grad_feat": case.packed(maps).numpy(),
            "op.grad_loc": (locations * case.visible[..., None]).numpy(),
            "op.grad_weights": (weights * case.visible[..., None, None]).numpy(),
            "kink": case.kinks().numpy().astype(np.uint8),
        },
    )
    words = ["verify", "--backend", "cpu", "--dtype", "fp32", "--rule", "op", "--vectors", file]
    return dfa(program, *words, threads=threads)


def main():
    args = arguments()
    torch.set_num_threads(args.threads)
    with tempfile.TemporaryDirectory() as name:
        folder = pathlib.Path(name)
        inputs = folder / "inputs.npz"
        bench = ["bench", "--backend", "cpu", "--workload", args.workload]
        dfa(args.dfa, *bench, "--runs", 1, "--save-inputs", inputs, threads=args.threads)
        case = Case(inputs, torch.float32)
        case.run()
        ours, theirs, floors = [], [], []
        for _ in range(args.rounds):
            theirs.append(case.run()[2])
            rows = dfa(args.dfa, *bench, "--runs", 100, "--seconds", 2, threads=args.threads)["results"]
            ours.append([row["median_us"] * 1e-6 for row in rows])
            taps = [row["tap_bytes"] / row["copy_bytes_per_second"] for row in rows]
            floors.append([(row["dram_floor_us"] * 1e-6, tap) for row, tap in zip(rows, taps)])
        verified = agreement(args.dfa, inputs, folder, args.threads)

    middle = lambda turns, index: statistics.median(turn[index] for turn in turns)
    figures = {
        direction: {
            "pytorch_s": middle(theirs, index),
            "ours_s": middle(ours, index),
            "ratio": statistics.median(t[index] / o[index] for t, o in zip(theirs, ours)),
            "dram_floor_s": statistics.median(turn[index][0] for turn in floors),
            "taps_s": statistics.median(turn[index][1] for turn in floors),
        }
        for index, direction in enumerate(["forward", "backward"])
    }
    report = {
        "workload": args.workload,
        "threads": args.threads,
        "torch": torch.__version__,
        "agree": verified["passed"],
        **figures,
    }
    if args.json:
        print(json.dumps(report, indent=2))
    else:
        print(f"{args.workload}, fp32, {args.threads} threads, PyTorch {torch.__version__}; medians of {args.rounds} turns")
        print(f"{'':10}{'PyTorch':>12}{'ours':>12}{'ratio':>10}{'DRAM floor':>14}{'taps':>12}")
        for direction, row in figures.items():
            times = f"{row['pytorch_s']*1e3:>9.0f} ms{row['ours_s']*1e3:>9.1f} ms"
            print(f"{direction:10}{times}{row['ratio']:>10.1f}{row['dram_floor_s']*1e3:>11.1f} ms{row['taps_s']*1e3:>9.1f} ms")
        print("both agree" if report["agree"] else "THE RESULTS DISAGREE")
    return 0 if report["agree"] else 1


if __name__ == "__main__":
    sys.exit(main())
