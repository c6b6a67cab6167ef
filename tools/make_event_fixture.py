#!/usr/bin/env python3
"""Makes tests/fixtures/events: what TensorBoard writes and reads for the lines of a metrics.jsonl.

For the workshop only: needs the Python package tensorboard. Temper and its tests need only the outputs.

    tools/make_event_fixture.py [--dir tests/fixtures/events]

Reads    metrics.jsonl               lines by hand; numbers that fp32 rounds, does not hold, or holds as a subnormal
Writes   events.out.tfevents.temper  the same numbers, written by TensorBoard's own writer under the tags of TAGS
         tensorboard.json            what TensorBoard's event_accumulator reads from that file:
                                     {tag: [[step, wall_time, value], ...]}, infinity as a string
"""

import argparse
import json
import math
import pathlib

from tensorboard.backend.event_processing import event_accumulator
from tensorboard.compat.proto.event_pb2 import Event
from tensorboard.compat.proto.summary_pb2 import Summary
from tensorboard.summary.writer.record_writer import RecordWriter

TAGS = {
    "loss": "train/loss", "grad_norm": "train/grad_norm", "learning_rate": "train/learning_rate",
    "num_tokens": "train/num_tokens", "memory_bytes": "train/memory_bytes", "step_ms": "time/step_ms",
    "grad_norm/experts": "grad_norm/experts", "eval_loss": "eval/loss",
    "eval_mean_token_accuracy": "eval/mean_token_accuracy", "eval_num_tokens": "eval/num_tokens",
}  # fmt: skip


def write_events(lines, path):
    with path.open("wb") as file:
        writer = RecordWriter(file)
        writer.write(Event(wall_time=lines[0]["wall_time"], file_version="brain.Event:2").SerializeToString())
        for line in lines:
            values = [Summary.Value(tag=TAGS[field], simple_value=value) for field, value in line.items() if field in TAGS]
            event = Event(wall_time=line["wall_time"], step=line["step"], summary=Summary(value=values))
            writer.write(event.SerializeToString())


def read_scalars(path):
    log = event_accumulator.EventAccumulator(str(path), size_guidance={event_accumulator.SCALARS: 0})
    log.Reload()
    as_json = lambda value: value if math.isfinite(value) else str(value)
    return {tag: [[e.step, e.wall_time, as_json(e.value)] for e in log.Scalars(tag)] for tag in sorted(log.Tags()["scalars"])}


def main():
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--dir", type=pathlib.Path, default=pathlib.Path("tests/fixtures/events"))
    folder = parser.parse_args().dir
    lines = [json.loads(line) for line in (folder / "metrics.jsonl").read_text().splitlines()]
    events = folder / "events.out.tfevents.temper"
    write_events(lines, events)
    (folder / "tensorboard.json").write_text(json.dumps(read_scalars(folder), indent=1) + "\n")


if __name__ == "__main__":
    main()
