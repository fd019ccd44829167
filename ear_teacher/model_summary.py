"""Build a model and print its shapes, parameters, time and memory on this machine: `earface ears check`."""

from __future__ import annotations

import sys
import time
from collections.abc import Callable, Sequence
from typing import TYPE_CHECKING, get_type_hints

from ear_teacher.config import ENCODERS, PRESETS, EarVAEConfig, EarVAETrainingConfig
from earface.core.errors import OneLineParser, entry_point
from earface.core.first_imports import first_imports
from earface.core.options import literal_choices

if TYPE_CHECKING:
    import torch
    from rich.table import Table
    from torch import nn

    from ear_teacher.model import EarVAE

BATCHES = (1, 4, 8)


@entry_point
def main(argv: Sequence[str] | None = None) -> int:
    defaults = EarVAEConfig()
    variants = sorted(literal_choices(get_type_hints(EarVAEConfig)["dinov2_variant"]))
    parser = OneLineParser(prog="earface ears check", description=__doc__)
    parser.add_argument("--encoder", default=defaults.encoder, help=f"{', '.join(ENCODERS)}")
    parser.add_argument("--image-size", type=int, help="default: the encoder's recipe")
    parser.add_argument("--latent-dim", type=int, help="default: the encoder's recipe")
    parser.add_argument("--dinov2-variant", default=defaults.dinov2_variant, choices=variants)
    parser.add_argument("--dinov2-size", type=int, default=defaults.dinov2_size, help="0: below the image size")
    parser.add_argument("--sam-size", type=int, default=defaults.sam_size, help="0: the image size")
    parser.add_argument("--freeze-layers", type=int, help="default: the encoder's recipe")
    parser.add_argument(
        "--device", default="auto", choices=("auto", "cpu", "cuda", "mps"), help="auto: the GPU if there is one"
    )
    arguments = parser.parse_args(argv)
    recipe = PRESETS.get(arguments.encoder, {})
    image_size = arguments.image_size or recipe.get("image_size", defaults.image_size)
    latent_dim = arguments.latent_dim or recipe.get("latent_dim", defaults.latent_dim)
    config = EarVAEConfig(
        encoder=arguments.encoder,
        image_size=image_size,
        latent_dim=latent_dim,
        dinov2_variant=arguments.dinov2_variant,
        dinov2_size=arguments.dinov2_size,
        sam_size=arguments.sam_size,
    )
    config.check()
    # after parsing: help, a mistyped flag and an impossible shape answer without PyTorch
    with first_imports():
        import torch
        from rich.console import Console

        from ear_teacher.model import EarVAE
        from earface.nn.inference import choose_device

    device = choose_device(arguments.device)
    torch.manual_seed(EarVAETrainingConfig().seed)
    model = EarVAE(config).to(device)
    frozen = arguments.freeze_layers
    model.encoder.freeze(recipe.get("freeze_layers", 0) if frozen is None else frozen)
    images = torch.rand(BATCHES[-1], 3, image_size, image_size, device=device) * 2 - 1

    console = Console()
    console.print(f"[bold]{arguments.encoder}[/], random weights, {device}, float32")
    console.print(_parts(model))
    console.print(_shapes(model, images))
    console.print(_costs(model, images))
    _check(model, images)
    console.print("[green]ok[/]: shapes, value range, gradients, and equal embeddings in any batch")
    return 0


def _parts(model: EarVAE) -> Table:
    from rich.table import Table

    table = Table("part", "parameters", "trainable", box=None, header_style="bold")
    parts: list[tuple[str, Sequence[nn.Module]]] = [
        *((f"backbone, layer group {i}", group) for i, group in enumerate(model.encoder.layer_groups(), 1)),
        ("encoder head", [model.encoder.head]),
        ("decoder", [model.decoder]),
        ("all", [model]),
    ]
    for name, modules in parts:
        parameters = [p for module in modules for p in module.parameters()]
        counts = (sum(p.numel() for p in parameters), sum(p.numel() for p in parameters if p.requires_grad))
        table.add_row(name, *(f"{count / 1e6:.2f} M" for count in counts))
    return table


def _shapes(model: EarVAE, images: torch.Tensor) -> Table:
    import torch
    from rich.table import Table

    table = Table("tensor", "shape", box=None, header_style="bold")
    with torch.no_grad():
        reconstruction, mu, logvar = model.eval()(images)
        features = {f"features[{i}]": maps for i, maps in enumerate(model.features(images))}
    rows = {"images": images, **features, "mu": mu, "logvar": logvar, "reconstruction": reconstruction}
    for name, tensor in rows.items():
        table.add_row(name, " x ".join(map(str, tensor.shape)))
    return table


def _costs(model: EarVAE, images: torch.Tensor) -> Table:
    import torch
    from rich.table import Table

    table = Table("batch", "forward", "training step", "peak memory", box=None, header_style="bold")
    for batch in BATCHES:
        part = images[:batch]
        if images.is_cuda:
            torch.cuda.reset_peak_memory_stats()

        def forward(part: torch.Tensor = part) -> None:
            with torch.no_grad():
                model.eval()(part)

        def step(part: torch.Tensor = part) -> None:
            # evaluation mode: one image alone has no batch statistics
            reconstruction, mu, logvar = model.eval()(part)
            (reconstruction.square().mean() + mu.square().mean() + logvar.square().mean()).backward()
            model.zero_grad(set_to_none=True)

        table.add_row(
            str(batch), f"{_milliseconds(forward):.0f} ms", f"{_milliseconds(step):.0f} ms", _peak_memory(images)
        )
    return table


def _milliseconds(call: Callable[[], None], repeats: int = 3) -> float:
    """The fastest of a few calls after one to warm up."""
    import torch

    call()
    times = []
    for _ in range(repeats):
        start = time.perf_counter()
        call()
        if torch.cuda.is_available():
            torch.cuda.synchronize()
        times.append(time.perf_counter() - start)
    return 1000 * min(times)


def _peak_memory(images: torch.Tensor) -> str:
    if images.is_cuda:
        import torch

        return f"{torch.cuda.max_memory_allocated() / 2**20:.0f} MiB"
    try:
        import resource
    except ImportError:  # Windows
        return "not measured"
    unit = 1 if sys.platform == "darwin" else 1024  # kilobytes on Linux
    return f"{resource.getrusage(resource.RUSAGE_SELF).ru_maxrss * unit / 2**20:.0f} MiB (process)"


def _check(model: EarVAE, images: torch.Tensor) -> None:
    """Raise AssertionError if the model violates a documented property."""
    import torch

    reconstruction = model.train()(images)[0]
    assert reconstruction.shape == images.shape, "reconstruction and images differ in shape"
    assert reconstruction.abs().max() <= 1, "pixels outside [-1, 1]"
    (reconstruction - images).square().mean().backward()
    assert all(torch.isfinite(p.grad).all() for p in model.parameters() if p.grad is not None), "gradients not finite"
    model.zero_grad(set_to_none=True)
    with torch.no_grad():
        model.eval()
        together = model.encode(images)
        assert torch.equal(model.encode(images[3:4]), together[3:4]), "an embedding depends on its batch"
        assert torch.equal(model.decode(together), model.reconstruct(images)), "decode(encode(x)) is not reconstruct(x)"


if __name__ == "__main__":
    sys.exit(main())
