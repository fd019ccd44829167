"""Every option of enrolling, identifying and evaluating. No torch: help appears at once."""

from __future__ import annotations

from dataclasses import dataclass, fields
from pathlib import Path
from typing import Literal

from earface.core.errors import InputError
from earface.core.files import check_folder, check_npz_name
from earface.core.options import check_options, option
from earface.core.tool_options import DeviceOptions, PeopleOptions
from earface.data.face_sizes import DEGRADATIONS, FILES, MIN_FACE, parse_vlr_size
from earface.data.multipie import FRONTAL, FRONTAL_FLASH, NEUTRAL
from earface.data.options import MIN_FACE_HELP
from pipeline.picture_options import PictureOptions

AUTO, NONE = "auto", "none"
USUAL_DSR, USUAL_FINETUNED = "dsr/checkpoints/last.ckpt", "facial_rec/checkpoints/tuned"  # where training puts them
KINDS = (*DEGRADATIONS, FILES)
MOVEMENTS: dict[Literal["shift", "turn", "zoom"], float] = {"shift": 8.0, "turn": 90.0, "zoom": 0.5}  # and the most
REPORT = "report.json"  # last: with it an evaluation is complete
EVENTS = ".evaluation"  # the end of their names
_PLOTS = ("cmc", "det_verification", "det_identification", "histograms", "error_reject", "several_pictures", "by_*")
RESULTS = (
    *(REPORT, "report.html", "probes.csv", f"tensorboard/events.out.tfevents.*{EVENTS}"),
    *(f"plots/*_{kind}_{plot}.png" for kind in KINDS for plot in _PLOTS),
    *(f"plots/*_{kind}_{way}[0-9]*_{plot}.png" for kind in DEGRADATIONS for way in MOVEMENTS for plot in _PLOTS),
    *(f"plots/ears_{plot}.png" for plot in _PLOTS),
    *(f"plots/over_{axis}_*.png" for axis in ("size", *MOVEMENTS)),
)
Fusion = Literal["mean", "norm", "quality"]
FUSION_HELP = (
    "of several pictures of a person: the mean of their embeddings, or weighted by their lengths (norm) or by their "
    "agreement with their mirror images (quality)"
)
FPIRS = (0.1, 0.01)  # that an evaluation fits thresholds for
THRESHOLDS = {"face": 0.35, "ear": 0.5}  # cosines, where none is given
CANDIDATES, CANDIDATES_GRID = "candidates.csv", "candidates.png"
CANDIDATES_GRIDS = (CANDIDATES_GRID, "candidates_[0-9]*.png")  # of many pictures
MOST_CANDIDATES = 10  # side by side: matplotlib cannot make an image 2^16 pixels wide


def rate_of(operating_point: str) -> float:
    """The rate of an operating point such as fpir=0.01. Raises InputError."""
    kind, _, text = operating_point.partition("=")
    try:
        rate = float(text)
    except ValueError:
        rate = 0.0
    if kind.strip().casefold() != "fpir" or not 0 < rate < 1:
        raise InputError(f"`operating_point` {operating_point}: fpir=RATE is wanted, such as fpir=0.01")
    return rate


FACES_ALONE = (
    *("pairs", "gallery_camera", "gallery_illumination", "gallery_recording", "vlr_size", "degradation", *MOVEMENTS),
    *("finetuned", "dsr_checkpoint", "crop"),
)
EARS_ALONE = ("sides", "enroll_sides", "known_names")


@dataclass(frozen=True)
class EnrollOptions(PictureOptions):
    """Enrol people in a gallery, each by one or more pictures."""

    input: str = option(
        "",
        "a folder for each person, pictures named PERSON__PICTURE, or a CSV of file and identity, of ears also of side",
    )
    min_face: int = option(MIN_FACE, MIN_FACE_HELP, low=1)  # a gallery wants HR
    out: str = option("gallery.npz", "the gallery")
    add: bool = option(False, "to an existing gallery: new people, and more pictures of people who are in it")
    recognizer: str = option(
        "edgeface_xxs",
        "of faces: a published EdgeFace variant, a file of its weights, a fine-tuned folder, or a checkpoint; of ears: "
        "a checkpoint, a run's folder, or an exported folder",
    )
    crop: Literal["arcface", "center"] | None = option(
        None, "of faces: where its template lies in the 128 px; default: as it was fine-tuned, else arcface"
    )
    fusion: Fusion | None = option(None, f"{FUSION_HELP}; default: mean, or as the gallery that `add` enlarges")
    calibration: str | None = option(
        None, "report.json of earface evaluate: its operating points and likelihood ratios are kept with the gallery"
    )
    configuration: str | None = option(
        None, 'whose, if several of the report are of this recogniser, such as "DSR + fine-tuned, 16 px, bicubic"'
    )

    def check(self) -> None:
        super().check()
        if self.configuration is not None and self.calibration is None:
            raise InputError("`configuration`: of a report: give `calibration`, too")
        if self.calibration is not None and self.upsampler != "none":
            raise InputError(
                f"`calibration`: of galleries of HR pictures; `upsampler` {self.upsampler} is for earface identify then"
            )
        check_npz_name(Path(self.out))
        check_folder(Path(self.out).parent, "`out`")
        if Path(self.out).exists() and not (self.add or self.overwrite):
            raise InputError(
                f"`out` {self.out}: exists already: `add` enrols more people in it; `overwrite` replaces it"
            )
        if self.add and not Path(self.out).is_file():
            raise InputError(f"`add`: there is no gallery {self.out}; leave `add` out to make it")

    def refuse_for_ears(self) -> None:
        super().refuse_for_ears()
        if self.crop is not None:
            raise InputError(f"`crop` {self.crop}: of faces, and the recogniser is one of ears")


@dataclass(frozen=True)
class IdentifyOptions(PictureOptions):
    """Find the people of a gallery in pictures."""

    gallery: str = option("gallery.npz", "as earface enroll wrote it")
    track: str | None = option(
        None, "instead of `input`: a folder or a video, all of whose pictures show one person, for one decision"
    )
    every_frame: int = option(5, "of a video every so many-th frame is taken, the first 1000 of these", low=1)
    fusion: Fusion | None = option(None, f"{FUSION_HELP}; default: as the gallery was enrolled")
    threshold: float | None = option(
        None, "the best candidate is accepted from this cosine on; default: .35 for faces, .5 for ears", low=-1, high=1
    )
    operating_point: str | None = option(
        None, "instead, such as fpir=0.01: the threshold for this rate in this gallery, if it was enrolled calibrated"
    )
    sides: Literal["apart", "joined"] = option(
        "joined", "of ears: one template for both sides of a person; or one for each, compared with ears of that side"
    )
    top_k: int = option(5, "candidates reported for each picture", low=1)
    recognizer: str | None = option(None, "default: the one that the gallery was enrolled with")
    search: Literal["exact", "faiss"] = option("exact", "faiss: FAISS's exact index, where it is installed")
    out: str = option("identified", "folder for candidates.csv and pictures of the candidates")
    pictures: int = option(
        24,
        f"how many are shown in candidates.png (and candidates_2.png, ...), with up to {MOST_CANDIDATES} candidates "
        "each; 0: none, and those of an earlier call are deleted",
        low=0,
        high=200,
    )

    def check(self) -> None:
        if self.track is None:
            super().check()
        else:
            check_options(self)
            if self.input:
                raise InputError("`input` and `track`: give one of them")
        if self.operating_point is not None:
            rate_of(self.operating_point)
            if self.threshold is not None:
                raise InputError("`threshold` and `operating_point`: give one of them")
        check_folder(Path(self.out), f"`out` {self.out}")


@dataclass(frozen=True)
class ShowGalleryOptions:
    """List the people of a gallery."""

    gallery: str = option("gallery.npz", "as earface enroll wrote it")


@dataclass(frozen=True)
class RemovePersonOptions(ShowGalleryOptions):
    """Take people out of a gallery, with all embeddings of theirs. It is replaced, whole or not at all."""

    name: tuple[str, ...] = option((), "who: one name or several")

    def check(self) -> None:
        check_options(self)
        if not self.name:
            raise InputError("`name`: who is to be removed? earface gallery show lists who is there")


@dataclass(frozen=True)
class PipelineEvaluationOptions(PeopleOptions, DeviceOptions):
    """Evaluate recognisers: VLR faces by HR, bicubic and DSR, pretrained and fine-tuned; or ears, beside HOG."""

    dataset_root: str = option(
        "dataset",
        "a prepared set, its test_processed, or any set of aligned 128x128 faces; of ears a folder of earface ears "
        "prepare (its val_teacher.npy), or a teacher .npy",
    )
    gallery: str | None = option(
        None, "instead: the pictures to enrol, a CSV of file and identity (of ears also side), or a folder"
    )
    probes: str | None = option(None, "and the pictures to search for, likewise")
    pairs: str | None = option(None, "instead: LFW's pairs.txt, of pictures below `dataset_root`; verification only")
    gallery_camera: str = option(FRONTAL, "camera of the enrolled picture, by Multi-PIE names")
    gallery_illumination: str = option(FRONTAL_FLASH, "and its illumination")
    gallery_recording: str = option(NEUTRAL, "and its recording")
    calibration_fraction: float = option(
        0.2, "share of the identities to fit thresholds on, if there is no val_processed", low=0, high=0.9
    )
    leakage: Literal["refuse", "drop"] = option(
        "refuse", "if probes are enrolled too, or near duplicates: stop, or leave them out"
    )
    vlr_size: tuple[str, ...] = option((), "sizes of the probes: 32, 24, 16 or 14x16; default: of the super-resolvers")
    degradation: tuple[str, ...] = option(
        ("bicubic",), "how VLR is made: one or more of bicubic, area, realistic, mixed, files"
    )
    shift: tuple[float, ...] = option(
        (), "and once more for each of these, with the crops of the probes off by so many VLR pixels, such as 0.5 1 2"
    )
    turn: tuple[float, ...] = option((), "likewise with the crops turned by so many degrees, such as 5 10")
    zoom: tuple[float, ...] = option((), "likewise with faces so much larger or smaller, such as 0.075 0.15")
    template_pictures: int = option(
        1, "pictures that are enrolled of a person, of ears of a side, who has more; the others are probes", low=1
    )
    probe_pictures: int = option(
        8, "rank-1 is reported by 1, 2, 4, ... up to so many pictures of a person, fused into one probe; 1: not", low=1
    )
    fusion: Fusion = option("mean", FUSION_HELP)
    sides: Literal["apart", "joined"] = option(
        "joined",
        "ears: one template over both sides; or one of each, compared with probes of that side, and of the other side "
        "only where a person has none of it",
    )
    enroll_sides: Literal["both", "one"] = option(
        "both", "ears: enrol both of a person, or only the one with more pictures; the probes are the same"
    )
    known_names: Literal["refuse", "note"] = option(
        "refuse", "ears: if people have names that were trained on: stop, or note it (those of two sets may agree)"
    )
    recognizer: str = option(
        "edgeface_xxs",
        "of faces the pretrained one: a published EdgeFace variant, or a file of its weights; or one of ears: a "
        "checkpoint, a run's folder or an exported folder",
    )
    finetuned: tuple[str, ...] = option(
        (AUTO,),
        f"fine-tuned folders or checkpoints, one per size and degradation; auto: {USUAL_FINETUNED}; or none",
    )
    dsr_checkpoint: tuple[str, ...] = option(
        (AUTO,), f"super-resolvers, likewise: .ckpt files, patterns or folders; auto: {USUAL_DSR}; or none"
    )
    crop: Literal["arcface", "center"] = option("arcface", "where EdgeFace's template lies in the 128 px")
    threshold: float = option(0.35, "cosine at which error rates are reported too", low=-1, high=1)
    bootstrap: int = option(1000, "replicates of the intervals", low=100, high=100_000)
    max_comparisons: int = option(5_000_000, "non-mated comparisons kept at most; of more, a sample", low=1000)
    failures: int = option(8, "worst failures shown for each condition", low=0)
    seed: int = option(42, "of degradation by chance, the choice of calibration identities, and the replicates", low=0)
    precision: Literal["32", "16", "bf16"] = option("32", "16 and bf16: faster on a GPU")
    batch_size: int = option(64, "faces at once", low=1)
    num_workers: int = option(2, "loader processes", low=0)
    out: str = option("pipeline/evaluation", "folder for report.html, report.json, probes.csv, plots and events")

    def check(self) -> None:
        check_options(self)
        for size in self.vlr_size:
            try:
                parse_vlr_size(size)
            except InputError as error:
                raise InputError(f"`vlr_size`: {error}") from None
        if not self.degradation or not set(self.degradation) <= set(KINDS):
            raise InputError(f"`degradation` {' '.join(self.degradation)}: choose from {', '.join(KINDS)}")
        for kind, most in MOVEMENTS.items():
            if wrong := [amount for amount in getattr(self, kind) if not 0 < amount <= most]:
                raise InputError(
                    f"`{kind}` {wrong[0]:g}: above 0, and {most:g} at most; aligned probes are always measured"
                )
        if (self.gallery is None) != (self.probes is None):
            raise InputError("`gallery` and `probes`: give both, or neither")
        if self.gallery is not None and self.pairs is not None:
            raise InputError("`pairs`: not together with `gallery` and `probes`")

    def refuse_foreign(self, modality: Literal["face", "ear"]) -> None:
        """Raise InputError for an option of the other modality that differs from its default."""
        foreign = FACES_ALONE if modality == "ear" else EARS_ALONE
        default = {each.name: each.default for each in fields(self)}
        if given := [f"`{name}`" for name in foreign if getattr(self, name) != default[name]]:
            other = "faces" if modality == "ear" else "ears"
            raise InputError(
                f"{', '.join(given)}: for {other} alone, and `recognizer` {self.recognizer} is of {modality}s"
            )
        if self.gallery is not None or self.pairs is not None:
            chosen = ("template_pictures", "enroll_sides")
            if given := [f"`{name}`" for name in chosen if getattr(self, name) != default[name]]:
                listed = "`pairs`, which enrol nobody"
                if self.gallery is not None:
                    listed = "`gallery`, all of whose pictures are enrolled"
                raise InputError(f"{', '.join(given)}: not together with {listed}")
