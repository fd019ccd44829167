"""int8 exports beside the float ones: `python -m benchmarks.exports FOLDER ...`, folders of `earface export`.

One picture at a time, one thread of ONNX Runtime, processor time; the fastest of interleaved repeats. What int8 loses
is what the export measured on its held-out pictures.
"""

from __future__ import annotations

import argparse
import json
import time
from pathlib import Path
from typing import Any

import numpy as np
import onnxruntime

REPEATS, CALLS = 7, 20


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("folders", nargs="+", type=Path, help="of earface export with `--quantize int8`")
    print("| file | float ms | int8 ms | times as fast | float kB | int8 kB | int8 loses |")
    print("|---|---|---|---|---|---|---|")
    for folder in parser.parse_args().folders:
        for int8 in sorted(folder.glob("*_int8.onnx")):
            whole = int8.with_name(int8.name.replace("_int8", ""))
            sessions = [session_of(whole), session_of(int8)]
            times = np.min([[milliseconds(each) for each in sessions] for _ in range(REPEATS)], axis=0)
            sizes = [path.stat().st_size / 1000 for path in (whole, int8)]
            about = json.loads(sessions[1].get_modelmeta().custom_metadata_map["int8"])
            lost = ", ".join(f"{name} {value:.4g}" for name, value in about.items())
            print(
                f"| {folder.name}/{whole.name} | {times[0]:.2f} | {times[1]:.2f} | {times[0] / times[1]:.2f} | "
                f"{sizes[0]:.0f} | {sizes[1]:.0f} | {lost} |",
                flush=True,
            )


def session_of(path: Path) -> Any:
    options = onnxruntime.SessionOptions()
    options.intra_op_num_threads = 1
    return onnxruntime.InferenceSession(str(path), options, providers=["CPUExecutionProvider"])


def milliseconds(session: Any) -> float:
    """Of one call with one input of noise."""
    given = session.get_inputs()[0]
    shape = [1, *given.shape[1:]]
    inputs = {given.name: np.random.default_rng(0).uniform(-1, 1, shape).astype(np.float32)}
    start = time.process_time()
    for _ in range(CALLS):
        session.run(None, inputs)
    return (time.process_time() - start) / CALLS * 1000


if __name__ == "__main__":
    main()
