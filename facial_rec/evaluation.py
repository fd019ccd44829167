"""How well recognisers identify HR faces and enlarged VLR faces."""

from __future__ import annotations

from collections.abc import Mapping, Sequence

import torch
from rich.console import Console
from rich.table import Table
from torch import Tensor

from earface.core.progress import tracked
from earface.data.face_dataset import FaceDataset, on_device, with_vlr
from earface.data.face_rows import FaceRow
from earface.data.face_sizes import HR, parse_vlr_size
from earface.nn.inference import choose_device
from earface.nn.upsampler import Upsampler
from earface.training.workers import WorkerLoader
from facial_rec.metrics import metrics_by_upsampler
from facial_rec.options import EdgeFaceEvaluationOptions
from facial_rec.recognizer import FaceRecognizer

TABLE_WIDTH = 120
CONVENTION = (
    "the first HR face of each identity with two or more is the gallery; its other faces, enlarged by each upsampler, "
    "are the probes; rank1: closed set; tar: at a false accept rate of 1e-3, every probe with every gallery face; eer: "
    "likewise"
)


@torch.no_grad()
def measure(
    recognizers: Mapping[str, FaceRecognizer],
    upsamplers: Sequence[Upsampler],
    rows: Sequence[FaceRow],
    options: EdgeFaceEvaluationOptions,
) -> dict[str, dict[str, float]]:
    """recogniser -> `metrics_by_upsampler` of the faces of `rows`."""
    device, files = choose_device(options.device), options.degradation == "files"
    size = parse_vlr_size(options.vlr_size)
    dataset = FaceDataset(rows, seed=options.seed, files=files)
    loader = WorkerLoader(dataset, batch_size=options.batch_size, num_workers=options.num_workers)
    tables: dict[tuple[str, str], list[Tensor]] = {}
    for batch in tracked(loader, "measuring, batches"):
        ready = with_vlr(on_device(batch, device), options.degradation, size)
        faces = {HR: ready["hr"]} | {
            upsampler.name: upsampler.enlarge(ready["vlr"]).float().clamp(-1, 1) for upsampler in upsamplers
        }
        for name, recognizer in recognizers.items():
            for upsampler, crops in faces.items():
                tables.setdefault((name, upsampler), []).append(recognizer(crops).cpu())
    identities = [row.identity for row in rows]
    return {
        name: metrics_by_upsampler(
            {upsampler: torch.cat(tables[name, upsampler]) for upsampler in faces}, HR, identities
        )
        for name in recognizers
    }


def print_table(title: str, found: Mapping[str, Mapping[str, float]], upsamplers: Sequence[str]) -> None:
    table = Table("recogniser", "faces", "rank-1", "TAR at FAR 1e-3", "EER", box=None, header_style="bold")
    for name, own in found.items():
        for upsampler in upsamplers:
            values = [own.get(f"{metric}_{upsampler}") for metric in ("rank1", "tar", "eer")]
            table.add_row(name, upsampler, *("insufficient data" if v is None else f"{v:.2%}" for v in values))
    console = Console()
    console.width = max(console.width, TABLE_WIDTH)
    console.print(title, highlight=False)
    console.print(table)
