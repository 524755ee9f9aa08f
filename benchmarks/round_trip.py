"""Is a picture made again from what its file says?  Random requests over the whole space of options.

    python benchmarks/round_trip.py [--count 500] [--first-seed 0]

Each request draws sampler, schedule, their options, noise, prompts, hires fix, refiner, VAE, start image, mask and so
on (``tests/option_space.py``), for a model of true layout and a toy's size.  Its picture is made, the file is read into
a request, and that is run; where the ``parameters`` text alone says everything, it is run from that, too.  What counts
is that every pixel is the same; the target is all of them.  Prints a Markdown row, and the seeds of those that differ.
"""

from __future__ import annotations

import argparse
import sys
from pathlib import Path
from tempfile import TemporaryDirectory

sys.path[:0] = [str(Path(__file__).parents[1]), str(Path(__file__).parents[1] / "tests")]


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--count", type=int, default=500)
    parser.add_argument("--first-seed", type=int, default=0)
    arguments = parser.parse_args()
    with TemporaryDirectory() as folder:
        row(Path(folder), range(arguments.first_seed, arguments.first_seed + arguments.count))


def row(folder: Path, seeds: range) -> None:
    """Run every seed's request and print the table."""
    from option_space import furnish, round_trip
    from tiny_model import tiny_settings, tiny_weights, write_checkpoint

    from webui.engine.runner import Runner

    checkpoint = write_checkpoint(folder / "made" / "tiny.safetensors", tiny_weights())
    runner = Runner.start(tiny_settings(folder, checkpoint))
    trips = {seed: round_trip(runner, furnish(runner, seed).request(), last=seed % 2 == 0) for seed in seeds}
    same = sum(trip.by_file for trip in trips.values())
    by_text = [trip.by_text for trip in trips.values() if trip.by_text is not None]
    print("| requests | bit-exact from the file | bit-exact from its text alone | target |")
    print("|---|---|---|---|")
    print(f"| {len(trips)} | {same} | {sum(by_text)} of {len(by_text)} that it says everything about | all |")
    for seed, trip in trips.items():
        if not trip.by_file or trip.by_text is False:
            print(f"seed {seed}: {trip.text}", file=sys.stderr)


if __name__ == "__main__":
    main()
