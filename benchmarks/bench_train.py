"""Time the training loop: in full, with its data in memory, and the bare steps of the model.

python -m benchmarks.bench_train > train.json

Generates images, and trains one worker on them, without Ray. Prints JSON with images/s, and with
what share of the bare steps' pace the loop reaches: that is what reading, decoding, augmentation,
averaging and the checks around each step cost. All at one size: changing sizes would hide it.
"""

import argparse
import json
import tempfile
import time
from collections.abc import Callable
from pathlib import Path
from statistics import median
from typing import Any

import torch

from benchmarks.machine import describe_machine
from pipelines.datasets import CLASS_NAMES, generate_archive
from pipelines.training import (
    BatchLoader,
    Recipe,
    Trainer,
    epoch_rows,
    precision_of,
    steps_per_epoch,
)
from yolox_core import YOLOXLoss, build_model, build_optimizer, to_model_input

GOALS = {"full_of_bare_on_gpu": 0.95, "full_of_bare_on_cpu": 0.9}


def main() -> None:
    args = _parse_args()
    device = torch.device(args.device)
    torch.set_num_threads(args.threads)
    recipe = Recipe(
        preset=args.preset,
        input_size=args.input_size,
        batch_size=args.batch_size,
        multiscale=False,
    )
    report = {
        "machine": describe_machine(device) | {"threads": args.threads},
        "goals": GOALS,
        "setting": vars(args) | {"device": str(device)},
        **compare(recipe, args.num_images, args.rounds, args.threads, device),
    }
    print(json.dumps(report, indent=2))


def compare(
    recipe: Recipe, num_images: int, rounds: int, threads: int, device: torch.device
) -> dict[str, Any]:
    """The paces of the loops, and their shares of that of the bare steps."""
    with tempfile.TemporaryDirectory() as folder:
        loops = _loops(recipe, num_images, Path(folder), threads, device)
        for run_epoch in loops.values():
            run_epoch()  # what is done once is no part of the pace
        # In turn, so that what else the machine does meets all of them.
        paces = [
            {name: _images_per_second(run_epoch) for name, run_epoch in loops.items()}
            for _ in range(rounds)
        ]
    return {
        "images_per_second": {name: round(median(r[name] for r in paces), 1) for name in loops},
        "full_of_bare": round(median(r["full"] / r["bare"] for r in paces), 3),
        "in_memory_of_bare": round(median(r["in_memory"] / r["bare"] for r in paces), 3),
    }


def _parse_args() -> argparse.Namespace:
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    on_gpu = torch.cuda.is_available()
    parser.add_argument("--device", default="cuda" if on_gpu else "cpu")
    parser.add_argument("--preset", default="s")
    parser.add_argument("--input_size", type=int, default=640 if on_gpu else 416)
    parser.add_argument("--batch_size", type=int, default=64 if on_gpu else 8)
    parser.add_argument("--num_images", type=int, default=1024 if on_gpu else 64)
    parser.add_argument("--threads", type=int, default=torch.get_num_threads())
    parser.add_argument("--rounds", type=int, default=3)
    return parser.parse_args()


def _loops(
    recipe: Recipe, num_images: int, folder: Path, threads: int, device: torch.device
) -> dict[str, Callable[[], int]]:
    """Each trains one epoch and returns how many images that were."""
    table = generate_archive(folder, num_images, 0, str(folder / "images"))

    def loop_with_cache_of(max_cache_bytes: int) -> Callable[[], int]:
        loader = BatchLoader(
            table,
            recipe.canvas_size,
            "official",
            max_cache_bytes=max_cache_bytes,
            threads=threads,
            for_gpu=device.type == "cuda",
        )
        model = build_model(recipe.preset, len(CLASS_NAMES))
        steps = steps_per_epoch(num_images, recipe.batch_size)
        trainer = Trainer(recipe, model, "official", steps, device)

        def run_epoch() -> int:
            rows = epoch_rows(
                num_images,
                recipe.batch_size,
                seed=0,
                epoch=trainer.epochs_done,
                rank=0,
                world_size=1,
            )
            return trainer.run_epoch(loader.iterate(rows)).images

        return run_epoch

    return {
        "full": loop_with_cache_of(0),
        "in_memory": loop_with_cache_of(2**40),
        "bare": _bare_steps(recipe, table, threads, device),
    }


def _bare_steps(
    recipe: Recipe, table: Any, threads: int, device: torch.device
) -> Callable[[], int]:
    """Forward, backward and step on one batch that is there already."""
    loader = BatchLoader(table, recipe.canvas_size, "official", max_cache_bytes=0, threads=threads)
    batch = loader.load(list(range(recipe.batch_size)))
    images = to_model_input(batch.canvases.to(device), "official")
    targets = batch.targets.to(device)
    model = build_model(recipe.preset, len(CLASS_NAMES)).to(device).train()
    model = model.to(memory_format=torch.channels_last)
    optimizer = build_optimizer(model, lr=1e-4)
    loss = YOLOXLoss(len(CLASS_NAMES))
    precision = precision_of(device)

    def run_epoch() -> int:
        steps = steps_per_epoch(len(table), recipe.batch_size)
        for _ in range(steps):
            with torch.autocast(device.type, precision, enabled=precision is not torch.float32):
                raw = model(images)
            optimizer.zero_grad()
            loss(raw, targets)["total"].backward()  # type: ignore[no-untyped-call]
            optimizer.step()
        if device.type == "cuda":
            torch.cuda.synchronize(device)
        return steps * recipe.batch_size

    return run_epoch


def _images_per_second(run_epoch: Callable[[], int]) -> float:
    started = time.perf_counter()
    images = run_epoch()
    return images / (time.perf_counter() - started)


if __name__ == "__main__":
    main()
