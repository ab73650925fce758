"""Measure on a GPU that is at hand for minutes what a machine without one cannot show.

python -m benchmarks.on_gpu > on_gpu.jsonl

One part after the other: the bare forward pass; labelling of JPEGs that are made on the spot; the
training loop beside its bare steps; the loss beside a loop; AP in bfloat16 beside float32; a
resumed training beside an unbroken one; worker groups. Prints a line of JSON after each part and
one with all of them at the end. Each part has its share of --minutes, in which it runs in a process
of its own: what was found stays where one is cut off or fails, and the others go on.
"""

import argparse
import json
import os
from pathlib import Path
from typing import Any

import torch

from benchmarks.machine import describe_machine
from benchmarks.on_gpu.running import part_of_module, run_parts
from benchmarks.on_gpu.sizes import TINY, Sizes

PARTS = [
    part_of_module("forward", weight=2.0),
    part_of_module("labelling", weight=4.0),
    part_of_module("training", weight=2.0),
    part_of_module("loss", weight=1.5),
    part_of_module("precision", weight=1.0),
    part_of_module("resume", weight=1.0),
    part_of_module("group", weight=1.0),
]
"""What matters most comes first, for the machine may go away."""


def main() -> None:
    args = _parse_args()
    sizes = Sizes(device=args.device, shared=args.shared, **(TINY if args.tiny else {}))
    machine = _machine(sizes)
    parts = [part for part in PARTS if part.name in args.parts]
    report: dict[str, Any] = {"machine": machine, "minutes": args.minutes, "parts": []}
    for result in run_parts(parts, sizes, 60 * args.minutes):
        print(json.dumps({"machine": machine, **result}), flush=True)
        report["parts"].append(result)
    print(json.dumps(report), flush=True)


def _parse_args() -> argparse.Namespace:
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    names = [part.name for part in PARTS]
    default = "cuda" if torch.cuda.is_available() else "cpu"
    parser.add_argument("--device", default=default)
    parser.add_argument("--minutes", type=float, default=8, help="for all parts together")
    parser.add_argument("--parts", nargs="+", choices=names, default=names, metavar="PART")
    parser.add_argument("--shared", type=Path, default=Sizes.shared, help="coco_val79 and weights")
    parser.add_argument("--tiny", action="store_true", help="sizes that a CPU does in seconds")
    return parser.parse_args()


def _machine(sizes: Sizes) -> dict[str, Any]:
    machine = describe_machine(sizes.torch_device) | {"load": os.getloadavg()}
    if not sizes.on_gpu:
        return machine
    card = torch.cuda.get_device_properties(sizes.torch_device)
    return machine | {"cuda": torch.version.cuda, "gpu_gb": round(card.total_memory / 1e9)}


if __name__ == "__main__":
    main()
