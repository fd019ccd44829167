"""What metrics are called on a page, in which unit, and whether more of them is better."""

from __future__ import annotations

from dataclasses import dataclass, replace


@dataclass(frozen=True)
class Metric:
    """title: as the field writes it. scale: of the number that is shown. higher: is better; None where neither is, as
    of a loss, which depends on its weights."""

    title: str
    unit: str = ""
    scale: float = 1.0
    digits: int = 4
    higher: bool | None = None

    def text(self, value: float) -> str:
        number = f"{value * self.scale:.{self.digits}f}"
        return f"{number} {self.unit}".strip()

    def difference(self, value: float) -> str:
        """With its sign; percentage points where the metric is a share."""
        unit = "points" if self.unit == "%" else self.unit
        return f"{value * self.scale:+.{self.digits}f} {unit}".strip()


def _share(title: str, higher: bool = True) -> Metric:
    return Metric(title, "%", 100.0, 1, higher)


METRICS = {
    "loss": Metric("loss"),
    "recon": Metric("reconstruction loss"),
    "ssim_loss": Metric("1 - SSIM"),
    "kl": Metric("KL term", digits=2),
    "psnr": Metric("PSNR", "dB", digits=2, higher=True),
    "psnr_y": Metric("PSNR of luma", "dB", digits=2, higher=True),
    "psnr_gain": Metric("PSNR above bicubic", "dB", digits=2, higher=True),
    "ssim": Metric("SSIM", digits=3, higher=True),
    "kl_nats": Metric("KL divergence", "nats", digits=1),
    "active_units": Metric("active latents", digits=0),
    "rank1": _share("rank-1"),
    "tar": _share("TAR at FAR .1 %"),
    "eer": _share("EER", higher=False),
    "identity": Metric("identity loss"),
    "identity_rank1": _share("rank-1 of the identity part"),
    "identity_eer": _share("EER of the identity part", higher=False),
    "accuracy": _share("accuracy"),
    "ap": _share("AP"),
    "ap50": _share("AP50"),
    "nme": Metric("NME", higher=False),
    "cosine": Metric("cosine to HR", digits=3, higher=True),
}


QUALIFIERS = {"second": "second recogniser", "none": "HR", "hr": "HR", "dsr": "DSR"}


def metric(name: str) -> Metric:
    """Of a column such as `val/rank1_bicubic`; one that is not known is shown under its own name, as a loss term."""
    base = name.partition("/")[2] or name
    if base in METRICS:
        return METRICS[base]
    start = max((name for name in METRICS if base.startswith(f"{name}_")), key=len, default="")
    if not start:
        return Metric(base.replace("_", " "))
    known, rest = METRICS[start], base.removeprefix(f"{start}_")
    of = f"file {rest}" if rest.isdecimal() else QUALIFIERS.get(rest, rest.replace("_", " "))
    return replace(known, title=f"{known.title}, {of}")
